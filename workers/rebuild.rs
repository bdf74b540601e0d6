//! `rebuild`: repairs the state where it differs from what the entries say.

use rollcall::config::{Config, ConfigError};
use rollcall::keep::verify::{
    Order, Progress as Far, Rebuild, Rebuilt, changeable, rebuild, shadow_name,
};
use rollcall::state::{AskError, State};
use rollcall::telemetry::log;
use serde::Serialize;

use crate::progress::Progress;
use crate::query::{self, Answer, Output, Query, QueryError, RebuildFlags};
use crate::signals;
use crate::table::{Page, escape, plural};
use crate::verify::{line, list};

/// Repair the state where it differs from the entries still in the stream, or change settings of the deployment.
///
/// Compares like verify. Then it removes members that no entry explains, and applies the entries that should have won
/// once more, a few at a time, each in one atomic step. Members from entries that are no longer in the stream are kept.
/// Workers can keep running. You can stop the command and run it again at any time.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RebuildCommand {
    /// Name of the shadow state, whose keys begin with rollcall:shadow:<NAME>:
    #[arg(long, value_name = "NAME", default_value = "rebuild", value_parser = shadow_name)]
    into: String,
    /// First make the given settings (flags, variables, file) the settings of the deployment, and leave all others
    /// unchanged. Workers and janitors with other settings exit
    #[arg(long)]
    change_settings: bool,
    /// Only report what it would change
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: RebuildFlags,
}

/// Runs the command.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(command: &RebuildCommand) -> Result<(), QueryError> {
    let gathered = command.flags.gather()?;
    let config = Config::resolve(&gathered)?;
    // The filter was checked together with the settings.
    let _checked = log::install(&config.log);
    command.confirm(&config)?;
    let order = Order { into: command.into.clone(), janitor: config.janitor.clone() };
    let given: Vec<&str> = gathered.keys().filter(|_| command.change_settings).collect();
    let settings = changeable(&config.deployment, |name| given.contains(&name));
    let what = Rebuild { order, settings, dry_run: command.dry_run };
    let done = query::ask(&Run { command, what }, &config).await?;
    query::show(&done, &command.output)?;
    match done.rebuilt.left.len() as u64 {
        0 => Ok(()),
        count => Err(QueryError::Differs { count }),
    }
}

impl RebuildCommand {
    /// Asks for confirmation on the terminal.
    fn confirm(&self, config: &Config) -> Result<(), QueryError> {
        if self.yes || self.dry_run {
            return Ok(());
        }
        let question = format!("Repair the state of {}?", config.redis.url());
        query::confirm("repairs the state", &question, "changed")
    }
}

struct Run<'r> {
    command: &'r RebuildCommand,
    what: Rebuild,
}

impl Query for Run<'_> {
    type Answer = Done;

    fn config(&self) -> Result<Config, ConfigError> {
        self.command.flags.load()
    }

    fn output(&self) -> &Output {
        &self.command.output
    }

    async fn ask(&self, state: &mut State) -> Result<Done, AskError> {
        let mut progress = Progress::new(self.command.output.json);
        let partitions = state.partitions.len();
        let tell = |far: &Far| {
            progress.show(|| format!("{}, {} repaired", line(far, partitions), far.mended));
        };
        let signal = signals::stop_or_hangup();
        let stop = async {
            signal.await;
        };
        let done = rebuild(state, &self.what, stop, tell).await;
        progress.end();
        Ok(Done { rebuilt: done? })
    }
}

/// The results.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Done {
    rebuilt: Rebuilt,
}

impl Answer for Done {
    fn show(&self, page: &mut Page) {
        let Rebuilt { dry_run, settings, found, mended, left } = &self.rebuilt;
        for changed in settings {
            let (from, to) = (escape(&changed.from), escape(&changed.to));
            let deed = if *dry_run { "would be" } else { "is" };
            page.line(format!("{} {deed} {to}; it was {from}.", changed.name));
        }
        list(found, page);
        if found.older > 0 {
            page.line(format!(
                "{} from entries that are no longer in the stream were kept.",
                found.older
            ));
        }
        if *dry_run || found.count() == 0 {
            return;
        }
        page.line(format!("{} repaired.", plural(*mended, "difference", "differences")));
        if !left.is_empty() {
            let left = left.len() as u64;
            page.line(format!("{} left; run it again.", plural(left, "difference", "differences")));
        }
    }
}
