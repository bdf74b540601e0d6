//! `rebuild`: the state, put right where it is not what the entries say.

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

/// Puts the state right where it is not what the entries say that the stream still holds; or changes settings of
/// the deployment.
///
/// It compares as verify does. What no entry says is taken away, and the entries that should have won are
/// applied once more, a few at a time, each in one atomic step. What comes of entries that the stream no
/// longer holds is kept. It can be stopped and begun again at any moment, under running workers.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RebuildCommand {
    /// Name of the shadow: its keys begin with rollcall:shadow:<NAME>:
    #[arg(long, value_name = "NAME", default_value = "rebuild", value_parser = shadow_name)]
    into: String,
    /// First make the deployment's settings what flags, variables or the file say of them; those that are not
    /// named stay. Workers and janitors with others end
    #[arg(long)]
    change_settings: bool,
    /// Only say what would be changed
    #[arg(long)]
    dry_run: bool,
    /// Do not ask first
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
    // The filter was read once already, when the settings were checked.
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
    /// Asks whoever is at the terminal.
    fn confirm(&self, config: &Config) -> Result<(), QueryError> {
        if self.yes || self.dry_run {
            return Ok(());
        }
        let question = format!("Put the state of {} right?", config.redis.url());
        query::confirm("puts the state right", &question, "changed")
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
            progress.show(|| format!("{}, {} put right", line(far, partitions), far.mended));
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

/// What was done.
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
            page.line(format!("{} of older entries than the stream holds were kept.", found.older));
        }
        if *dry_run || found.count() == 0 {
            return;
        }
        page.line(format!("{} put right.", plural(*mended, "difference", "differences")));
        if !left.is_empty() {
            let left = left.len() as u64;
            page.line(format!(
                "{} left; run it once more.",
                plural(left, "difference", "differences")
            ));
        }
    }
}
