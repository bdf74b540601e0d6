//! `verify`: compares the state with the entries.

use rollcall::config::{Config, ConfigError};
use rollcall::keep::verify::{Difference, Order, Progress as Far, Report, shadow_name, verify};
use rollcall::state::dead::Bytes;
use rollcall::state::{AskError, State};
use rollcall::telemetry::log;
use serde::Serialize;

use crate::progress::Progress;
use crate::query::{self, Answer, Output, Query, QueryError, VerifyFlags};
use crate::signals;
use crate::table::{Page, Table, escape_bytes, plural};

/// Compare the state with the entries still in the stream, and list the differences.
///
/// The command applies the entries with the same code to a shadow state, which it removes at the end. It does not write
/// to the state, and workers can keep running. Members from entries that are no longer in the stream cannot be judged;
/// they are counted as older. Exit status: 1 if anything differs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Verify {
    /// Name of the shadow state, whose keys begin with rollcall:shadow:<NAME>:
    #[arg(long, value_name = "NAME", default_value = "verify", value_parser = shadow_name)]
    into: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: VerifyFlags,
}

/// Runs the command.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(command: &Verify) -> Result<(), QueryError> {
    let config = command.flags.load()?;
    // The filter was checked together with the settings.
    let _checked = log::install(&config.log);
    let order = Order { into: command.into.clone(), janitor: config.janitor.clone() };
    let verified = query::ask(&Run { command, order }, &config).await?;
    query::show(&verified, &command.output)?;
    match verified.report.count() {
        0 => Ok(()),
        count => Err(QueryError::Differs { count }),
    }
}

struct Run<'r> {
    command: &'r Verify,
    order: Order,
}

impl Query for Run<'_> {
    type Answer = Verified;

    fn config(&self) -> Result<Config, ConfigError> {
        self.command.flags.load()
    }

    fn output(&self) -> &Output {
        &self.command.output
    }

    async fn ask(&self, state: &mut State) -> Result<Verified, AskError> {
        let mut progress = Progress::new(self.command.output.json);
        let partitions = state.partitions.len();
        let tell = |far: &Far| progress.show(|| line(far, partitions));
        let signal = signals::stop_or_hangup();
        let stop = async {
            signal.await;
        };
        let verified = verify(state, &self.order, stop, tell).await;
        progress.end();
        Ok(Verified { report: verified? })
    }
}

/// The progress.
pub(crate) fn line(far: &Far, partitions: usize) -> String {
    let Far { partition, entries, checked, differing, .. } = far;
    let partition = match partitions {
        1 => String::new(),
        _ => format!("partition {partition} of {partitions}: "),
    };
    format!("{partition}{entries} entries replayed, {checked} members compared, {differing} differ")
}

/// The findings.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Verified {
    report: Report,
}

impl Answer for Verified {
    fn show(&self, page: &mut Page) {
        let Report { checked, older, entries, .. } = &self.report;
        page.line(format!(
            "{} compared with {}.",
            plural(*checked, "member", "members"),
            plural(*entries, "entry", "entries")
        ));
        if *older > 0 {
            let come = if *older == 1 { "comes" } else { "come" };
            page.line(format!("{older} {come} from entries that are no longer in the stream."));
        }
        list(&self.report, page);
    }
}

/// Shows the differences.
pub(crate) fn list(report: &Report, page: &mut Page) {
    if report.count() == 0 {
        return page.line("No difference.");
    }
    page.line(format!("{}:", plural(report.count(), "difference", "differences")));
    let mut table = Table::new(&["STRUCTURE", "KEY…", "MEMBER…", "ENTRY"]);
    for difference in &report.differences {
        let Difference { structure, key, member, live, expected, entry, .. } = difference;
        let (member, entry) = (member.as_deref(), entry.as_deref());
        table.row([structure, key, member.unwrap_or_default(), entry.unwrap_or_default()]);
        let shown = |value: &Option<Bytes>| match value {
            Some(bytes) => escape_bytes(&bytes.0),
            None => "nothing".to_owned(),
        };
        table.note(&format!("is {}, should be {}", shown(live), shown(expected)));
    }
    page.table(&table);
    if report.unlisted > 0 {
        page.line(format!("… and {} more", report.unlisted));
    }
}
