//! `repartition`: changes the number of partitions, in place and with the state.

use std::time::Instant;

use rollcall::config::{Config, Millis};
use rollcall::keep::repartition::{Order, Tally, repartition};
use rollcall::state::{AskError, State};
use serde::Serialize;

use crate::progress::Progress;
use crate::query::{Answer, Output, Query, QueryError, StreamFlags, confirm, play, settings};
use crate::table::{Page, escape, plural};

/// Change the number of partitions of a deployment, in place and with its state.
///
/// --partitions is the current number, --to the new one. Workers and janitors pause while the command runs and exit with
/// 64 when it ends; start them with the new number. Producers need not pause: entries that they add meanwhile are
/// forwarded afterwards. You can kill the command and run it again at any time.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Repartition {
    /// The new number of partitions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    to: u16,
    /// How long entries sent to the old number of partitions are forwarded (a duration)
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    forward_for: Millis,
    /// Only report how much would move
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation before it begins
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: StreamFlags,
}

/// The results.
#[derive(Serialize)]
pub(crate) struct Repartitioned {
    from: u16,
    to: u16,
    dry_run: bool,
    /// Whether there was nothing to do.
    already: bool,
    #[serde(flatten)]
    tally: Tally,
}

impl Repartition {
    /// Runs it: asks for confirmation, and succeeds if it is done already.
    ///
    /// # Errors
    /// If it cannot be done.
    pub(crate) fn run(&self) -> Result<(), QueryError> {
        Config::check_partitions(&self.flags.gather()?, self.to)?;
        self.confirm()?;
        match play(self) {
            Err(QueryError::Server { error, .. }) if self.is_done(&error) => {
                let from = self.config()?.deployment.partitions;
                crate::query::show(&self.answer(from, true, Tally::default()), &self.output)
            }
            played => played,
        }
    }

    fn is_done(&self, error: &AskError) -> bool {
        matches!(error, AskError::Partitions { stored, .. } if *stored == self.to.to_string())
    }

    fn confirm(&self) -> Result<(), QueryError> {
        if self.yes || self.dry_run {
            return Ok(());
        }
        let config = self.config()?;
        let (url, from) = (config.redis.url(), config.deployment.partitions);
        let question = format!(
            "Repartition {url} from {from} to {}? Workers and janitors pause meanwhile.",
            self.to
        );
        confirm("moves the whole state", &question, "moved")
    }

    fn answer(&self, from: u16, already: bool, tally: Tally) -> Repartitioned {
        Repartitioned { from, to: self.to, dry_run: self.dry_run, already, tally }
    }
}

impl Query for Repartition {
    type Answer = Repartitioned;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<Repartitioned, AskError> {
        let from = state.deployment.partitions;
        if from == self.to {
            return Ok(self.answer(from, true, Tally::default()));
        }
        let (mut progress, begun) = (Progress::new(self.output.json), Instant::now());
        let tell = |tally: &Tally| progress.show(|| line(tally, begun));
        let order =
            Order { to: self.to, forward_for: self.forward_for.into(), dry_run: self.dry_run };
        let done = repartition(state, &order, tell).await;
        progress.end();
        Ok(self.answer(from, false, done?))
    }
}

/// The progress, and how much time is left at this rate.
fn line(tally: &Tally, begun: Instant) -> String {
    let Tally { members, looked_at, moved, .. } = tally;
    let share = (*looked_at as f64 / (*members).max(1) as f64).min(1.0);
    let left = begun.elapsed().mul_f64((1.0 - share) / share.max(0.001));
    let bar = "█".repeat((share * 20.0) as usize);
    format!("{bar:░<20} {:.0} %, {moved} moved, about {} s left", share * 100.0, left.as_secs())
}

impl Answer for Repartitioned {
    fn show(&self, page: &mut Page) {
        let Self { from, to, dry_run, already, tally } = self;
        if *already {
            return page.line(format!(
                "The deployment has {}.",
                plural(u64::from(*to), "partition", "partitions")
            ));
        }
        let moved = plural(tally.moved, "member", "members");
        if *dry_run {
            return page.line(format!("Of {from} to {to} partitions, {moved} would move."));
        }
        let now = plural(u64::from(*to), "partition", "partitions");
        page.line(format!("The deployment has {now} instead of {from}; {moved} moved."));
        if tally.letters > 0 {
            page.line(format!(
                "{} moved along.",
                plural(tally.letters, "dead letter", "dead letters")
            ));
        }
        for (target, count) in &tally.unsent {
            page.line(format!(
                "{} in removed partitions never reached the target {}.",
                plural(*count, "change", "changes"),
                escape(target)
            ));
        }
        page.line(format!(
            "Start workers and janitors with --partitions {to}; then switch the producers."
        ));
    }
}
