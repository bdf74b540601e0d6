//! `dead retry` and `dead drop`.

use std::time::{Duration, Instant};

use rollcall::entry::PlacedId;
use rollcall::keep::letters::{self, Bookmark, Deed, Order, Report, Tally, Walk};
use rollcall::state::{AskError, State};
use serde::Serialize;

use super::Which;
use crate::progress::Progress;
use crate::query::{Answer, Output, Query, QueryError, StreamFlags, confirm, settings};
use crate::table::{Page, plural};

/// The flags that select some letters.
const SOME: [&str; 6] = ["ids", "reason", "kind", "entry", "since", "until"];

/// Which letters.
#[derive(Clone, Debug, clap::Args)]
struct Chosen {
    /// Ids of letters, as dead list shows them
    #[arg(value_name = "ID")]
    ids: Vec<PlacedId>,
    #[command(flatten)]
    which: Which,
    /// All letters
    #[arg(long, required_unless_present_any = SOME, conflicts_with_all = SOME)]
    all: bool,
}

/// How to do it.
#[derive(Clone, Debug, clap::Args)]
struct How {
    /// At most this many letters per second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Only report how many it would affect
    #[arg(long)]
    dry_run: bool,
}

/// Add the entries of dead letters to the stream again and remove the letters, each in one atomic step.
///
/// Events keep their times. An entry that fails again becomes a new dead letter, whose field retry_of names the first
/// entry. You can stop the command and run it again at any time.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    chosen: Chosen,
    /// Set a member of each event first; without a value, remove it
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = member)]
    set: Vec<(String, String)>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: StreamFlags,
}

/// Remove dead letters permanently.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Drop {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    how: How,
    /// Do not ask for confirmation before all are dropped
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: StreamFlags,
}

fn member(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give a member and its value: --set type=heartbeat".to_owned()),
    }
}

impl Drop {
    /// Asks for confirmation on the terminal before all letters are dropped.
    ///
    /// # Errors
    /// If the answer is no, or there is no terminal.
    pub(crate) fn confirm(&self) -> Result<(), QueryError> {
        if !self.chosen.all || self.yes || self.how.dry_run {
            return Ok(());
        }
        let question =
            format!("Permanently drop all dead letters of {}?", self.config()?.redis.url());
        confirm("permanently drops all dead letters", &question, "dropped")
    }
}

/// The results for the letters.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Done {
    report: Report,
    /// Whether letters were named, and none of them exists.
    #[serde(skip)]
    is_missing: bool,
}

impl Query for Retry {
    type Answer = Done;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<Done, AskError> {
        let deed = Deed::Retry { set: self.set.clone() };
        play(state, &self.chosen, deed, &self.how, self.output.json).await
    }
}

impl Query for Drop {
    type Answer = Done;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<Done, AskError> {
        play(state, &self.chosen, Deed::Drop, &self.how, self.output.json).await
    }
}

async fn play(
    state: &mut State,
    chosen: &Chosen,
    deed: Deed,
    how: &How,
    is_quiet: bool,
) -> Result<Done, AskError> {
    let (ids, filter) = (chosen.ids.clone(), chosen.which.filter(state.now_ms));
    let (is_named, dry_run) = (!ids.is_empty(), how.dry_run);
    let mut walk = Walk::new(state, Order { ids, filter, deed, dry_run }, Bookmark::default());
    if let Some(rate) = how.rate {
        walk.limit_page(rate as usize);
    }
    let mut progress = Progress::new(is_quiet);
    let begun = Instant::now();
    while walk.step(state).await? {
        progress.show(|| line(&walk.report()));
        if let Some(rate) = how.rate.filter(|_| !dry_run) {
            let due = Duration::from_secs_f64(walk.tally.done as f64 / f64::from(rate));
            tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        }
    }
    progress.end();
    let report = walk.report();
    Ok(Done { is_missing: is_named && report.tally.matched == 0, report })
}

fn line(Report { tally, retries, .. }: &Report) -> String {
    let deed = if *retries { "retried" } else { "dropped" };
    format!("{} looked at, {} {deed}", tally.seen, tally.done)
}

impl Answer for Done {
    fn not_found(&self) -> Option<String> {
        let words = "there is no dead letter with this id; for the letters of an entry use --entry";
        self.is_missing.then(|| words.to_owned())
    }

    fn show(&self, page: &mut Page) {
        let Report { tally, retries, dry_run } = &self.report;
        let Tally { matched, done, gone, left, fails, .. } = tally;
        if *matched == 0 {
            return page.line("No such dead letters.");
        }
        let letters = plural(*done, "dead letter", "dead letters");
        let deed = if *retries { "retried" } else { "dropped" };
        page.line(match dry_run {
            true => format!("{letters} would be {deed}."),
            false => format!("{letters} {deed}."),
        });
        for (reason, n) in fails {
            page.line(format!("{n} of them fail again: {reason}"));
        }
        if *gone > 0 {
            page.line(format!("{gone} gone meanwhile"));
        }
        for (why, n) in left {
            page.line(format!("{n} left: {}", letters::words(why)));
        }
    }
}
