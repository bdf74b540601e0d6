//! `grafana/` against a real Prometheus that scrapes real processes: every expression of every panel and rule is
//! understood and finds something, under traffic with some bad events, and after a worker was killed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rollcall::private_server::{Options, in_path};
use serde_json::Value;
use tempfile::TempDir;

use crate::dashboards::{self, Dashboard, text_of};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::roles::Pages;
use crate::scene::{Scene, Traffic};

const SOON: Duration = Duration::from_secs(40);
const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];
const PARTITIONS: u16 = 2;
const SEED: u64 = 7;

fn find(program: &str) -> std::path::PathBuf {
    in_path(program).unwrap_or_else(|| panic!("no {program} here; tests/run installs Debian's"))
}

/// Runs promtool in `grafana/`; returns its output.
fn promtool(args: &[&str], stdin: Stdio) -> String {
    let mut command = Command::new(find("promtool"));
    command.args(args).current_dir(dashboards::path("")).stdin(stdin);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {args:?}:\n{said}");
    said
}

#[test]
fn the_rules_are_valid_and_fire_when_they_should_and_only_then() {
    promtool(&["check", "config", "prometheus.yml"], Stdio::null());
    for tests in dashboards::names("rules/tests", ".yml") {
        promtool(&["test", "rules", &format!("rules/tests/{tests}.yml")], Stdio::null());
    }
}

/// A private Prometheus; killed when dropped.
struct Prometheus {
    child: Child,
    pages: Pages,
    _folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Prometheus {
    /// Scrapes these processes each second, with the rules.
    fn start(processes: &[&Worker]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("prometheus.yml"), config(processes)).unwrap();
        let mut command = Command::new(find("prometheus"));
        command.arg("--config.file").arg(at("prometheus.yml"));
        command.arg("--storage.tsdb.path").arg(at("data"));
        command.args(["--web.listen-address", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(at("log")).unwrap()).spawn().unwrap();
        let address = || listening(&at("log"));
        wait_until(SOON, "Prometheus names its address", || address().is_some());
        let pages = Pages { address: address().unwrap() };
        let prometheus = Self { child, pages, _folder: folder };
        wait_until(SOON, "it is ready", || prometheus.pages.get("/-/ready").0 == 200);
        prometheus
    }

    /// The answer of its API.
    fn ask(&self, path: &str) -> Value {
        let (_, body) = self.pages.get(&format!("/api/v1/{path}"));
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// Whether an expression finds at least one number.
    fn finds(&self, expression: &str) -> bool {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.ask(&format!("query?query={encoded}"));
        let numbers = data["result"].as_array().unwrap().iter();
        numbers.map(|series| text_of(&series["value"], 1)).any(|number| number != "NaN")
    }

    /// The rules of all groups.
    fn rules(&self) -> Vec<Value> {
        let groups = self.ask("rules");
        let groups = groups["groups"].as_array().unwrap().iter();
        groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    /// Names of the alerts in one of these states.
    fn alerts(&self, states: &[&str]) -> BTreeSet<String> {
        let alerts = self.ask("alerts");
        let alerts = alerts["alerts"].as_array().unwrap().iter();
        let there = alerts.filter(|alert| states.contains(&text_of(alert, "state")));
        there.map(|alert| text_of(&alert["labels"], "alertname").to_owned()).collect()
    }
}

fn config(processes: &[&Worker]) -> String {
    let address = |process: &&Worker| Pages::of(process).address.to_string();
    let targets: Vec<String> = processes.iter().map(address).collect();
    format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['{}']\n\
         scrape_configs: [{{job_name: rollcall, static_configs: [{{targets: {targets:?}}}]}}]\n",
        dashboards::path("rules/rollcall.yml").display()
    )
}

fn listening(log: &Path) -> Option<std::net::SocketAddr> {
    let log = fs::read_to_string(log).unwrap();
    let line = log.lines().find(|line| line.contains("\"Listening on\""))?;
    line.rsplit_once("address=")?.1.trim().parse().ok()
}

/// With the variables filled in like Grafana does when everything is selected.
fn filled_in(expression: &str) -> String {
    let variables = [("$__rate_interval", "10s"), ("$__range", "1m")];
    let selected = ["$job", "$instance", "$partition"].map(|name| (name, ".+"));
    let all = variables.into_iter().chain(selected);
    all.fold(expression.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// The queries of Grafana: panels, variables and annotations.
fn asked_by(dashboard: &Dashboard) -> Vec<String> {
    let json = &dashboard.json;
    let panels = dashboard.expressions().into_iter().map(|(_, expression)| expression.to_owned());
    let list = |of: &str| json[of]["list"].as_array().unwrap().iter();
    let annotations = list("annotations").map(|one| text_of(one, "expr").to_owned());
    let queries = list("templating").filter(|variable| variable["type"] == "query");
    let values = queries.map(|variable| {
        let definition = text_of(variable, "definition").strip_prefix("label_values(").unwrap();
        let (series, label) = definition.rsplit_once(", ").unwrap();
        format!("count by ({label} ({series})")
    });
    panels.chain(annotations).chain(values).collect()
}

/// A process that serves a client that sends heartbeats and a listener, for as long as it runs.
fn serve(scene: &Scene) -> Worker {
    let partitions = PARTITIONS.to_string();
    let own = ["--listen", "127.0.0.1:0", "--partitions", &partitions];
    let process = Worker::start_as("serve", &scene.url(), &[&HTTP[..], &own].concat(), &[]);
    let address = crate::serve::address(&process);
    let sender =
        crate::serve::client::Client::new(&address).with("Content-Type", "application/json");
    wait_until(SOON, "it serves", || !sender.is_away());
    std::thread::spawn(move || {
        let heartbeat = r#"{"type":"heartbeat","user":"al"}"#;
        while sender.try_request("POST", "/api/v1/events", heartbeat).is_some() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let mut listener = crate::listen::client::Client::open(address.parse().unwrap(), "", "", "");
    std::thread::spawn(move || while listener.try_next().is_some() {});
    process
}

#[test]
fn every_panel_and_every_rule_finds_what_it_asks_for() {
    let maxmemory = ["--maxmemory", "200mb"].map(str::to_owned).to_vec();
    let options = Options { extra_args: maxmemory, ..Options::default() };
    let scene = Scene::start_with(&[("partitions", &PARTITIONS.to_string())], options);
    let mut workers = [scene.worker(&HTTP), scene.worker(&HTTP)];
    let janitors = [scene.janitor(&HTTP), scene.janitor(&HTTP)];
    let serve = serve(&scene);
    let targets = tempfile::NamedTempFile::new().unwrap();
    let target = "[[notify]]\nname = \"plain\"\nkind = \"pubsub\"\nchannel = \"news\"\n";
    std::fs::write(targets.path(), target).unwrap();
    let config = ["--config", targets.path().to_str().unwrap()];
    let notifier = scene.notifier(&[&HTTP[..], &config].concat(), &[]);
    let processes: Vec<&Worker> =
        workers.iter().chain(&janitors).chain([&serve, &notifier]).collect();
    let traffic = Traffic::start(&scene, SEED, 100);
    let prometheus = Prometheus::start(&processes);

    for dashboard in dashboards::all() {
        for expression in asked_by(&dashboard) {
            let query = filled_in(&expression);
            let what = format!("{}: {expression}", dashboard.name);
            wait_until(SOON, &what, || prometheus.finds(&query));
        }
    }
    for rule in prometheus.rules() {
        assert_eq!((&rule["health"], &rule["lastError"]), (&"ok".into(), &Value::Null), "{rule}");
        for query in asked_by_rule(&rule) {
            wait_until(SOON, &format!("{}: {query}", rule["name"]), || prometheus.finds(&query));
        }
    }
    // The traffic contains events that cannot be read.
    let bad = BTreeSet::from(["RollcallDeadLetters".to_owned()]);
    wait_until(SOON, "the dead letters are told", || prometheus.alerts(&["firing"]) == bad);

    workers[0].kill();
    let down = "RollcallProcessDown".to_owned();
    wait_until(SOON, "the dead worker is missed", || {
        prometheus.alerts(&["pending"]).contains(&down)
    });
    traffic.stop();
    for process in [&workers[1], &janitors[0], &janitors[1], &serve, &notifier] {
        let page = tempfile::tempfile().unwrap();
        let said = check_page(&Pages::of(process).get("/metrics").1, page);
        assert_eq!(said, "", "what promtool thinks of the page");
    }
}

/// What a rule needs to find: its own result if it always has one, or otherwise every series it uses.
fn asked_by_rule(rule: &Value) -> Vec<String> {
    if text_of(rule, "type") == "recording" {
        return vec![text_of(rule, "name").to_owned()];
    }
    let query = text_of(rule, "query");
    let asked: Vec<_> =
        dashboards::selectors(query).into_iter().map(|(_, s)| s.to_owned()).collect();
    assert!(!asked.is_empty() || query.starts_with("job:rollcall_"), "{query}");
    asked
}

fn check_page(text: &str, mut page: File) -> String {
    use std::io::{Seek as _, Write as _};
    page.write_all(text.as_bytes()).unwrap();
    page.rewind().unwrap();
    promtool(&["check", "metrics"], page.into())
}
