//! `erase`: one user, out of everything.

use clap::builder::NonEmptyStringValueParser;
use rollcall::keep::erase::{Order, Receipt, erase};
use rollcall::state::{AskError, State};
use serde::Serialize;

use crate::progress::Progress;
use crate::query::{Answer, EraseFlags, Output, Query, QueryError, confirm, settings};
use crate::table::{Page, Table, time};

/// Erase a user everywhere: state, sessions and their data, tokens, documents, changes, dead letters, and events
/// that are still in the stream.
///
/// The receipt gives counts and names nobody. Views stay counted. Workers can keep running. You can stop the command and
/// run it again at any time. Later events of the user have their effect, unless the user is blocked.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Erase {
    /// The user
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    user: String,
    /// Refuse the user's events from now on, for --horizon
    #[arg(long)]
    block: bool,
    /// Only report how much it would erase
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: EraseFlags,
}

/// What was erased.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Erased(Receipt);

impl Erase {
    /// Asks for confirmation on the terminal.
    ///
    /// # Errors
    /// If the answer is no, or there is no terminal.
    pub(crate) fn confirm(&self) -> Result<(), QueryError> {
        if self.yes || self.dry_run {
            return Ok(());
        }
        let (user, url) =
            (crate::table::escape(&self.user), self.config()?.redis.url().to_string());
        let question = format!("Permanently erase the user {user} everywhere at {url}?");
        confirm("permanently erases a user everywhere", &question, "erased")
    }
}

impl Query for Erase {
    type Answer = Erased;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<Erased, AskError> {
        let horizon_ms = self.config().ok().map(|config| config.janitor.horizon_ms);
        let order = Order {
            user: self.user.clone(),
            dry_run: self.dry_run,
            block_ms: horizon_ms.filter(|_| self.block),
        };
        let mut progress = Progress::new(self.output.json);
        let tell = |receipt: &Receipt| progress.show(|| line(receipt));
        let receipt = erase(state, &order, tell).await?;
        progress.end();
        Ok(Erased(receipt))
    }
}

fn line(receipt: &Receipt) -> String {
    let erased: u64 = rows(receipt).iter().map(|(_, count)| count).sum();
    format!("{} looked at, {erased} erased", receipt.looked_at)
}

fn rows(receipt: &Receipt) -> [(&'static str, u64); 15] {
    [
        ("entries of the stream", receipt.entries),
        ("packed entries, added again without the user's events", receipt.entries_rewritten),
        ("minutes", receipt.minutes),
        ("last activity", receipt.activity),
        ("presence entries", receipt.presence),
        ("sessions", receipt.sessions),
        ("sessions' data", receipt.session_data),
        ("tokens", receipt.tokens),
        ("viewed items", receipt.viewed_items),
        ("documents", receipt.documents),
        ("connections to documents", receipt.connections),
        ("endings", receipt.tombstones),
        ("changes", receipt.changes),
        ("dead letters", receipt.dead_letters),
        ("dead letters, written again without the user's events", receipt.dead_letters_rewritten),
    ]
}

impl Answer for Erased {
    fn show(&self, page: &mut Page) {
        let receipt = &self.0;
        let rows = rows(receipt).into_iter().filter(|(_, count)| *count > 0);
        let mut table = Table::new(&["WHAT", ">COUNT"]);
        let mut found = 0;
        for (what, count) in rows {
            table.row([what, &count.to_string()]);
            found += count;
        }
        match (found, receipt.dry_run) {
            (0, _) => page.line("Nothing of this user was found."),
            (_, true) => page.line("This would be erased:"),
            (_, false) => page.line("Erased:"),
        }
        if found > 0 {
            page.table(&table);
        }
        if let Some(until_ms) = receipt.blocked_until_ms {
            let [until, _] = time(until_ms, until_ms);
            page.line(format!("The user's events are refused until {until}."));
        }
        if receipt.still_active {
            page.line("Events of the user kept coming, and their effects are there again.");
            page.line("Use --block to refuse them.");
        }
    }
}
