//! `dead`: the entries that could not be decoded or applied.

mod mend;

use clap::builder::PossibleValuesParser;
use rollcall::config::Moment;
use rollcall::entry::{EntryId, PlacedId};
use rollcall::event::Reason;
use rollcall::state::dead::{Filter, Header, Pair, Whole};
use rollcall::state::{AskError, Listed, State, dead};
use serde::Serialize;

pub(crate) use self::mend::{Drop, Retry};
use crate::query::{Answer, Limit, Output, Query, StreamFlags, settings};
use crate::table::{Page, Table, escape, escape_bytes, plural, time};

/// List, show, retry and drop entries that could not be decoded or applied.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum DeadCommand {
    List(List),
    Show(Show),
    Retry(Retry),
    Drop(Drop),
}

/// Which dead letters: those that match all the conditions.
#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// Only letters with this reason
    #[arg(long, value_name = "REASON")]
    #[arg(value_parser = PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.name())))]
    reason: Option<String>,
    /// Only letters of events of this type, which need not be a known type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only letters of the entry with this id
    #[arg(long, value_name = "ID")]
    entry: Option<EntryId>,
    /// Only letters written since this time: a duration ago (2h), RFC 3339, or epoch milliseconds
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only letters written before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

impl Which {
    fn filter(&self, now_ms: u64) -> Filter {
        let ms = |moment: Option<Moment>| moment.map(|moment| moment.ms(now_ms));
        let (since_ms, until_ms) = (ms(self.since), ms(self.until));
        let (reason, kind, entry) = (self.reason.clone(), self.kind.clone(), self.entry);
        Filter { reason, kind, entry, since_ms, until_ms }
    }

    /// The conditions in words; `None` if there are none.
    fn words(&self) -> Option<String> {
        let reason = self.reason.as_ref().map(|reason| format!("with reason {reason}"));
        let kind = self.kind.as_ref().map(|kind| format!("of type {}", escape(kind)));
        let entry = self.entry.map(|entry| format!("of entry {entry}"));
        let is_timed = self.since.is_some() || self.until.is_some();
        let time = is_timed.then(|| "of that time".to_owned());
        let words: Vec<_> = [reason, kind, entry, time].into_iter().flatten().collect();
        (!words.is_empty()).then(|| words.join(" and "))
    }
}

/// List dead letters, the newest first.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: StreamFlags,
}

fn text(number: Option<u64>) -> String {
    number.map_or(String::new(), |number| number.to_string())
}

#[derive(Serialize)]
pub(crate) struct ListAnswer {
    now_ms: u64,
    /// For any reason.
    count: u64,
    letters: Vec<Header>,
    #[serde(skip)]
    which: Option<String>,
}

impl Query for List {
    type Answer = ListAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<ListAnswer, AskError> {
        let (limit, filter) = (self.limit.get(), self.which.filter(state.now_ms));
        let Listed { count, items } = dead::list(state, &filter, limit).await?;
        let letters = items.into_iter().map(Header::from).collect();
        Ok(ListAnswer { now_ms: state.now_ms, count, letters, which: self.which.words() })
    }
}

impl Answer for ListAnswer {
    fn show(&self, page: &mut Page) {
        let all = plural(self.count, "dead letter", "dead letters");
        match &self.which {
            _ if self.count == 0 => return page.line("No dead letters."),
            Some(which) if self.letters.is_empty() => {
                return page.line(format!("{all}, none {which}."));
            }
            Some(which) => page.line(format!("{all}; {which}:")),
            None => page.line(all),
        }
        let mut table = Table::new(&["ID", "AGE", "REASON…", "ENTRY", ">INDEX", ">DELIVERIES"]);
        for letter in &self.letters {
            let [_, age] = time(letter.time_ms, self.now_ms);
            let (index, deliveries) = (text(letter.index), text(letter.deliveries));
            let Header { id, entry_id, reason, detail, retry_of, .. } = letter;
            table.row([id, &age, reason, entry_id, &index, &deliveries]);
            table.note(detail);
            if let Some(first) = retry_of {
                table.note(&format!("tries {first} again"));
            }
        }
        page.table(&table);
        if self.which.is_none() {
            page.more(self.count, self.letters.len());
        }
    }
}

/// Show a complete dead letter, with the entry's own fields in order.
///
/// The table escapes what cannot be printed: \n, \u{1b}, \xff for bytes that are not UTF-8, and \\ for a backslash. In
/// JSON a name or value is a string or, if it is not UTF-8, {"base64": "…"}. The JSON is an array, because several
/// elements of one packed entry may be dead letters.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Show {
    /// The id that dead list shows; if there is no such letter, the id of an entry
    id: PlacedId,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: StreamFlags,
}

#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct ShowAnswer {
    letters: Vec<Whole>,
    #[serde(skip)]
    now_ms: u64,
}

impl Query for Show {
    type Answer = ShowAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<ShowAnswer, AskError> {
        let letters = dead::show(state, self.id).await?.into_iter().map(Whole::from).collect();
        Ok(ShowAnswer { letters, now_ms: state.now_ms })
    }
}

impl Answer for ShowAnswer {
    fn not_found(&self) -> Option<String> {
        let words = "there is no dead letter with this id, nor one of an entry with this id";
        self.letters.is_empty().then(|| words.to_owned())
    }

    fn show(&self, page: &mut Page) {
        for (i, Whole { header, fields }) in self.letters.iter().enumerate() {
            if i > 0 {
                page.line("");
            }
            let [at, age] = time(header.time_ms, self.now_ms);
            let mut table = Table::new(&["", ""]);
            table.row(["dead letter", &header.id]);
            table.row(["written", &format!("{at} ({age})")]);
            table.row(["entry", &header.entry_id]);
            table.row(["stream", &header.stream]);
            table.row(["reason", &header.reason]);
            table.row(["detail", &header.detail]);
            table.row(["deliveries", &text(header.deliveries)]);
            if header.index.is_some() {
                table.row(["index", &text(header.index)]);
            }
            if let Some(first) = &header.retry_of {
                table.row(["retries", first]);
            }
            page.table(&table);
            page.line("pairs of the entry:");
            for Pair { name, value } in fields {
                page.line(format!("  {} = {}", escape_bytes(&name.0), escape_bytes(&value.0)));
            }
        }
    }
}
