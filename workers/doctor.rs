//! `doctor`: shows the findings of the library's doctor, for people or for programs.

use rollcall::config::settings::Settings;
use rollcall::config::{Config, Flags};
use rollcall::doctor::{Finding, Level, Role, Step, examine};
use rollcall::telemetry::log;
use serde::Serialize;

use crate::Failure;
use crate::line::{Line, Look, Style};
use crate::query::{Output, QueryError};
use crate::screen;
use crate::table::{self, escape, escape_json};
use crate::width::wrapped;

/// Columns of the level and of the check's name.
const LEVEL: usize = 9;
const CHECK: usize = 16;

/// Check the server and the deployment, and say what is wrong and how to fix it.
///
/// Checks the server's version, settings, memory, persistence and replication; the rights of the Redis user; the
/// stream, group, janitor and state. Use the settings of the role that you want to check. The command changes nothing,
/// except that it leaves scripts loaded (SCRIPT LOAD).
///
/// Exit status: 0 if there are at most warnings, 1 if a check failed, 64 for wrong usage or settings.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Doctor {
    /// The role whose rights the Redis user must have
    #[arg(long, value_enum, default_value = "run")]
    role: Role,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: Flags<Settings>,
}

/// All findings. Programs read its serialisation, so its names must not change.
#[derive(Serialize)]
struct Examination {
    address: String,
    /// The most severe level of the findings.
    level: Level,
    findings: Vec<Finding>,
}

impl Examination {
    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.diagnosis.level == level).count()
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(doctor: &Doctor) -> Result<(), Failure> {
    let config: Config = doctor.flags.load()?;
    // The filter was checked together with the settings.
    let _checked = log::install(&config.log);
    let findings = examine(&config, doctor.role).await;
    let level = findings.iter().map(|finding| finding.diagnosis.level).max();
    let examination = Examination {
        address: config.redis.url().to_string(),
        level: level.unwrap_or(Level::Ok),
        findings,
    };
    let text = if doctor.output.json {
        serde_json::to_string(&examination).map_err(QueryError::Json)? + "\n"
    } else {
        page(&examination)
    };
    table::print(&text)?;
    match examination.count(Level::Failure) {
        0 => Ok(()),
        _ => Err(Failure::Unwell { count: failures(&examination.findings) }),
    }
}

/// How many failures are shown, each once for all partitions.
fn failures(findings: &[Finding]) -> usize {
    let groups = grouped(findings).into_iter();
    groups.filter(|group| group.first.diagnosis.level == Level::Failure).count()
}

fn page(examination: &Examination) -> String {
    let is_terminal = screen::can_draw();
    let width = if is_terminal { screen::size().width } else { usize::MAX };
    let look = Look::of_environment();
    let look = Look { colours: look.colours && is_terminal, ..look };
    let mut lines = vec![Line::default().with(Style::Bold, escape(&examination.address))];
    let groups = grouped(&examination.findings);
    let count = |level| groups.iter().filter(|group| group.first.diagnosis.level == level).count();
    let [failures, warnings, rest] = [Level::Failure, Level::Warning, Level::Ok].map(count);
    for group in &groups {
        show(group, width, &mut lines);
    }
    lines.push(Line::default().with(
        Style::Bold,
        format!(
            "{}, {}, {rest} ok",
            table::plural(failures as u64, "failure", "failures"),
            table::plural(warnings as u64, "warning", "warnings"),
        ),
    ));
    lines.iter().map(|line| line.rendered(usize::MAX, look) + "\n").collect()
}

/// Findings that are the same for several partitions.
struct Group<'f> {
    first: &'f Finding,
    partitions: Vec<u16>,
    /// The remedies of all of them, each step once.
    remedy: Vec<&'f Step>,
}

/// Groups findings that are the same for several partitions. Of the partitions without findings, the first stands for
/// all.
fn grouped(findings: &[Finding]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for finding in findings {
        let diagnosis = &finding.diagnosis;
        let says_the_same = |group: &&mut Group<'_>| {
            let (check, first) = (group.first.check, &group.first.diagnosis);
            let is_well = first.level == Level::Ok && diagnosis.level == Level::Ok;
            let is_same = (&first.level, &first.found, &first.means)
                == (&diagnosis.level, &diagnosis.found, &diagnosis.means);
            check == finding.check && (is_well || is_same)
        };
        let group = match groups.iter_mut().find(says_the_same) {
            Some(group) => group,
            None => {
                groups.push(Group { first: finding, partitions: Vec::new(), remedy: Vec::new() });
                let last = groups.len() - 1;
                &mut groups[last]
            }
        };
        group.partitions.push(finding.partition);
        for step in &diagnosis.remedy {
            if !group.remedy.contains(&step) {
                group.remedy.push(step);
            }
        }
    }
    groups
}

impl Group<'_> {
    /// The check, and the partitions it is about, unless that is the first or only one.
    fn title(&self) -> String {
        let (check, first) = (self.first.check, self.first.partition);
        let is_well = self.first.diagnosis.level == Level::Ok;
        match self.partitions.last() {
            Some(last) if !is_well && *last != first => {
                let all = usize::from(last - first) + 1 == self.partitions.len();
                format!("{check} p{first}{}p{last}", if all { "-" } else { ",…" })
            }
            _ if first == 0 => check.to_owned(),
            _ => format!("{check} p{first}"),
        }
    }
}

fn show(group: &Group<'_>, width: usize, lines: &mut Vec<Line>) {
    let finding = group.first;
    let (word, style) = match finding.diagnosis.level {
        Level::Ok => ("ok", Style::Green),
        Level::Warning => ("warning", Style::Yellow),
        Level::Failure => ("FAILURE", Style::Red),
    };
    let check = group.title();
    let indent = " ".repeat(LEVEL + CHECK);
    let room = width.saturating_sub(indent.len()).max(20);
    let found = wrapped(&escape(&finding.diagnosis.found), room);
    let start = Line::default()
        .with(style, format!("{word:LEVEL$}"))
        .with(Style::Bold, format!("{check:<width$} ", width = CHECK - 1));
    let mut starts = Some(start).into_iter();
    let mut begun = || starts.next().unwrap_or_else(|| Line::default().with(Style::Plain, &indent));
    for text in found {
        lines.push(begun().with(Style::Plain, text));
    }
    for text in wrapped(&escape(&finding.diagnosis.means), room) {
        lines.push(begun().with(Style::Dim, text));
    }
    for step in &group.remedy {
        match step {
            Step::Advice(text) => {
                for text in wrapped(&escape(text), room) {
                    lines.push(begun().with(Style::Plain, text));
                }
            }
            // Text to be copied stays in one piece, quoted for a shell, and gets the most room.
            Step::Run(command) => lines.push(to_copy("", command)),
            Step::Configure(line) => lines.push(to_copy("redis.conf: ", line)),
        }
    }
}

fn to_copy(whither: &str, text: &str) -> Line {
    let line = Line::default().with(Style::Plain, format!("{:LEVEL$}{whither}", ""));
    line.with(Style::Cyan, escape_json(text))
}
