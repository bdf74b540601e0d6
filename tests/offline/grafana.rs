//! Everything that `grafana/` shows and alerts on exists, everything that exists is shown, and every alert says what
//! to do.

mod promql;

use std::collections::BTreeSet;
use std::process::Command;

use rollcall::telemetry::metrics::INVENTORY;
use serde_json::Value;

use crate::cli;
use crate::dashboards::{self, Dashboard, text_of};
use promql::{grouped_by, uses};

/// Metrics that no panel shows, and why.
const NOT_SHOWN: &[(&str, &str)] =
    &[("process_virtual_memory_bytes", "address space that is reserved says nothing of need")];

const RULES: &str = "rules/rollcall.yml";

/// The dashboards with numbers; the last one has the runbooks.
fn with_numbers() -> Vec<Dashboard> {
    let mut all = dashboards::all();
    all.retain(|dashboard| dashboard.name != "rollcall-runbooks");
    assert_eq!(all.len(), 6, "the dashboards are elsewhere now: tell this test where");
    all
}

fn expect_none(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n  {}", faults.join("\n  "));
}

/// The rules, one text for each, comments left out.
fn rules() -> Vec<String> {
    let text = dashboards::text(RULES);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let code = lines.collect::<Vec<_>>().join("\n");
    code.split("\n      - ").skip(1).map(str::to_owned).collect()
}

/// A member of a rule that is on one line.
fn member<'a>(rule: &'a str, name: &str) -> Option<&'a str> {
    rule.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(": "))
}

fn alerts() -> Vec<String> {
    let rules = rules();
    let alerts: Vec<_> = rules.iter().filter_map(|rule| member(rule, "alert")).collect();
    assert!(alerts.len() > 15, "{alerts:?}");
    alerts.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_dashboards_are_what_the_script_writes() {
    let script = dashboards::path("build.py");
    let output = Command::new("python3").arg(script).arg("--check").output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_metric_that_is_asked_for_exists_with_its_labels() {
    let mut faults = Vec::new();
    for dashboard in with_numbers() {
        for (title, expression) in dashboard.expressions() {
            let found = promql::faults(expression).into_iter();
            faults.extend(found.map(|fault| format!("{}, {title}: {fault}", dashboard.name)));
        }
    }
    for rule in rules() {
        let name = rule.lines().next().unwrap_or_default();
        // An expression that looks back over a gauge contains that itself.
        let expression =
            rule.replace("last_over_time(", "").replace("deriv(", "").replace("changes(", "");
        faults.extend(promql::faults(&expression).iter().map(|fault| format!("{name}: {fault}")));
    }
    expect_none("dashboards and rules", &faults);
}

#[test]
fn every_metric_there_is_is_shown_or_left_out_for_a_reason() {
    let dashboards = with_numbers();
    let expressions = dashboards.iter().flat_map(Dashboard::expressions);
    let shown: BTreeSet<&str> = expressions
        .flat_map(|(_, expression)| uses(expression).unwrap())
        .map(|one| one.metric.name)
        .collect();
    let left_out: BTreeSet<&str> = NOT_SHOWN.iter().map(|(name, _)| *name).collect();
    let all: BTreeSet<&str> = INVENTORY.iter().map(|metric| metric.name).collect();
    assert!(shown.is_disjoint(&left_out), "shown after all");
    let accounted_for: BTreeSet<&str> = shown.union(&left_out).copied().collect();
    assert_eq!(accounted_for, all, "show it in grafana/panels.py");
}

/// Checks what Grafana's dashboard linter asks for, and that a reader can tell what a panel shows.
#[test]
fn panels_explain_themselves_and_follow_the_variables() {
    let mut faults = Vec::new();
    for dashboard in with_numbers() {
        for panel in dashboard.panels() {
            let place = format!("{}, {}", dashboard.name, text_of(panel, "title"));
            faults.extend(panel_faults(panel).into_iter().map(|fault| format!("{place}: {fault}")));
        }
    }
    expect_none("panels", &faults);
}

fn panel_faults(panel: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
    if unit.is_empty() || unit == "none" {
        faults.push("has no unit".to_owned());
    }
    let description = panel["description"].as_str().unwrap_or_default();
    if description.len() < 10 || !description.ends_with('.') {
        faults.push(format!("is explained by {description:?}"));
    }
    let empty = panel["fieldConfig"]["defaults"]["noValue"].as_str().unwrap_or_default();
    if empty.len() < 10 {
        faults.push(format!("says {empty:?} where there is nothing"));
    }
    let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
    if targets.is_empty() {
        faults.push("asks for nothing".to_owned());
    }
    for target in targets {
        if target["datasource"]["uid"] != "${datasource}" {
            faults.push("does not follow the data source".to_owned());
        }
        faults.extend(target_faults(text_of(target, "expr"), text_of(target, "legendFormat")));
    }
    faults
}

fn target_faults(expression: &str, legend: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for one in uses(expression).unwrap() {
        let selects = |label| one.matchers.contains(&(label, "=~", &*format!("${label}")));
        let partitioned = one.metric.labels.iter().any(|label| label.name == "partition");
        let wanted =
            ["job", "instance", "partition"].into_iter().take(2 + usize::from(partitioned));
        let missing = wanted.filter(|label| !selects(*label));
        faults.extend(missing.map(|label| format!("{} ignores ${label}", one.metric.name)));
    }
    let windows = expression.split('[').skip(1).filter_map(|rest| rest.split(']').next());
    let is_rate = expression.contains("rate(");
    let usual = |window: &&str| match *window {
        "$__rate_interval" => true,
        window => !is_rate && ["$__range", "1h"].contains(&window),
    };
    let odd = windows.filter(|window| !usual(window));
    faults.extend(odd.map(|window| format!("looks back over {window}")));
    let labels = grouped_by(expression);
    let named = legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
    let lost = named.filter(|label| !labels.contains(label));
    faults.extend(lost.map(|label| format!("names the label {label}, which is added up")));
    faults
}

/// Most panels are empty because no process is scraped. One that is empty for another reason must say so.
#[test]
fn emptiness_is_explained_by_what_it_means() {
    let mut said = Vec::new();
    for dashboard in with_numbers() {
        for panel in dashboard.panels() {
            let empty = text_of(&panel["fieldConfig"]["defaults"], "noValue").to_owned();
            said.push((text_of(panel, "title").to_owned(), empty));
        }
    }
    for (title, words) in [
        ("Memory used", "no maxmemory is set"),
        ("Applied within a second", "no entry was applied"),
        ("Waiting entries", "the server does not know"),
        ("Keys evicted", "(INFO)"),
        ("Longest wait", "no janitor measures this"),
        ("Event age", "none in the time shown"),
        ("Entries lost", "no janitor is scraped"),
        ("Events applied", "no worker is scraped"),
        ("Processes", "no process is scraped"),
    ] {
        let found = said.iter().find(|(of, _)| of == title).unwrap();
        assert!(found.1.contains(words), "{found:?}");
    }
}

#[test]
fn dashboards_load_as_they_are_and_lead_to_each_other() {
    for Dashboard { name, json } in dashboards::all() {
        assert_eq!(json["uid"], *name, "the uid stays, or links break");
        assert_eq!(json["id"], Value::Null);
        assert_eq!(json["editable"], false);
        assert_eq!(json["tags"][0], "rollcall");
        assert_eq!(json["links"][0]["tags"][0], "rollcall");
        let variables = json["templating"]["list"].as_array().unwrap();
        let names: Vec<_> = variables.iter().map(|variable| text_of(variable, "name")).collect();
        assert_eq!(names, ["datasource", "job", "instance", "partition"], "{name}");
        let query = |variable: &&Value| variable["type"] == "query";
        for variable in variables.iter().filter(query) {
            let definition = text_of(variable, "definition");
            assert_eq!(promql::faults(definition), [""; 0], "{name}");
            assert_eq!(variable["datasource"]["uid"], "${datasource}");
            assert_eq!((&variable["refresh"], &variable["allValue"]), (&2.into(), &".+".into()));
        }
        let starts = &json["annotations"]["list"][0];
        assert!(text_of(starts, "expr").starts_with("process_start_time_seconds{job=~\"$job\""));
    }
}

/// Alert, runbook, test and panel: each must have the others.
#[test]
fn every_alert_has_its_runbook_its_test_and_a_panel_that_shows_why() {
    let alerts = alerts();
    let mut sorted = alerts.clone();
    sorted.sort();
    assert_eq!(sorted, dashboards::names("runbooks", ".md"), "one runbook for each alert");
    let tests = dashboards::names("rules/tests", ".yml").into_iter();
    let tests: String =
        tests.map(|name| dashboards::text(&format!("rules/tests/{name}.yml"))).collect();
    let linked = linked_runbooks();
    for rule in rules() {
        let Some(alert) = member(&rule, "alert") else { continue };
        let runbook = format!("grafana/runbooks/{alert}.md");
        assert_eq!(member(&rule, "runbook_url"), Some(&*runbook), "{alert}");
        assert!(["critical", "warning"].map(Some).contains(&member(&rule, "severity")), "{alert}");
        assert!(!rule.contains("{{ $value"), "{alert}: a number that is not rounded (printf)");
        for what in ["summary", "description"] {
            assert!(member(&rule, what).is_some_and(|text| text.len() > 20), "{alert}: {what}");
        }
        let fires = format!("{{labels: 'ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"");
        assert!(tests.contains(&fires), "{alert} is never seen to fire");
        assert!(linked.contains(alert), "no panel leads to the runbook of {alert}");
    }
}

/// The alerts whose runbooks are linked from panels; each link leads to the panel with the runbook.
fn linked_runbooks() -> BTreeSet<String> {
    let all = dashboards::all();
    let books = all.iter().find(|dashboard| dashboard.name == "rollcall-runbooks").unwrap();
    let mut linked = BTreeSet::new();
    for dashboard in with_numbers() {
        for link in dashboard.panels().iter().flat_map(|panel| panel["links"].as_array().unwrap()) {
            let alert = text_of(link, "title").strip_prefix("Runbook ").unwrap().to_owned();
            let id = text_of(link, "url").strip_prefix("/d/rollcall-runbooks/?viewPanel=").unwrap();
            let book = books
                .panels()
                .iter()
                .find(|panel| panel["id"].as_u64() == id.parse().ok())
                .unwrap();
            assert_eq!(text_of(book, "title"), alert);
            linked.insert(alert);
        }
    }
    linked
}

#[test]
fn runbooks_name_commands_and_flags_that_exist() {
    let commands: Vec<String> = cli::commands().iter().map(|words| words.join(" ")).collect();
    let all_help = cli::help(&["run".to_owned()]);
    let mut faults = Vec::new();
    for alert in alerts() {
        let text = dashboards::text(&format!("runbooks/{alert}.md"));
        for part in ["# ", "\n## Confirm\n", "\n## Do\n"] {
            assert!(text.contains(part), "{alert} has no {part:?}");
        }
        let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
        let spans = text.split('`').skip(1).step_by(2);
        for code in lines.chain(spans) {
            let fault = code_fault(code, &commands, &all_help);
            faults.extend(fault.map(|fault| format!("{alert}: {code}: {fault}")));
        }
    }
    expect_none("runbooks", &faults);
}

/// What does not exist in a command, or in a single flag.
fn code_fault(code: &str, commands: &[String], all_help: &str) -> Option<String> {
    let words: Vec<&str> = code.split_whitespace().collect();
    let help = match words.split_first()? {
        (&"rollcall", rest) => {
            let leads = |command: &&String| {
                let path: Vec<&str> = command.split(' ').collect();
                !command.is_empty() && rest.starts_with(&path)
            };
            let command = commands.iter().filter(leads).max_by_key(|command| command.len());
            let Some(command) = command else { return Some("no such command".to_owned()) };
            cli::help(&command.split(' ').map(str::to_owned).collect::<Vec<_>>())
        }
        (first, _) if first.starts_with("--") => all_help.to_owned(),
        _ => return None,
    };
    let mut flags = words.into_iter().filter(|word| word.starts_with("--"));
    let exists = |flag: &str| help.split_whitespace().any(|word| word.trim_matches(',') == flag);
    flags.find(|flag| !exists(flag)).map(|flag| format!("no flag {flag}"))
}
