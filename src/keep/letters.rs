//! Dead letters, retried or dropped: a walk over them, a page at a time.

mod report;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub use self::report::Report;
use crate::config::Deployment;
use crate::decode::retry::Left;
use crate::decode::{Former, Rules};
use crate::entry::{Entry, EntryId, PlacedId};
use crate::error::Error;
use crate::event::{Limits, Reason};
use crate::redis::reply;
use crate::redis::scripts::layout::forwarded_layouts;
use crate::redis::scripts::letters::{Again, move_letters};
use crate::state::dead::{DeadLetter, Filter};
use crate::state::{
    AskError, Partition, State, ask, last_generated_id, number, range, server_time,
};

/// The maximum number of letters that one call examines or moves; each may contain a mebibyte.
const PAGE: usize = 16;
/// The target for the bytes of one call.
const PAGE_BYTES: usize = 256 * 1024;

/// What to do with a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Add its entry to the stream again, with members set to these texts.
    Retry {
        /// Names and texts; an empty text removes the member.
        set: Vec<(String, String)>,
    },
    /// Remove it.
    Drop,
}

/// Which letters, and what to do with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// If not empty: only these letters. The ids of entries do not count, since an entry and a letter may have the same id.
    pub ids: Vec<PlacedId>,
    /// Only letters that it admits.
    pub filter: Filter,
    /// What to do with them.
    pub deed: Deed,
    /// Whether nothing is changed.
    pub dry_run: bool,
}

/// The results for letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Letters that were examined.
    pub seen: u64,
    /// Letters that matched.
    pub matched: u64,
    /// Letters that were retried or dropped; in a dry run, those that would be.
    pub done: u64,
    /// Letters that another process took meanwhile.
    pub gone: u64,
    /// Letters that are left, by reason.
    pub left: BTreeMap<&'static str, u64>,
    /// Retried letters that become dead letters again, by reason, as far as the entry alone shows.
    pub fails: BTreeMap<&'static str, u64>,
}

/// The position of a walk; its text is safe in a URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bookmark {
    partition: u16,
    /// The last letter that was examined, and the last one that existed when the walk came to the partition. Letters
    /// that fail again come after it.
    span: Option<(EntryId, EntryId)>,
}

/// A walk over the letters of all partitions.
#[derive(Clone, Debug)]
pub struct Walk {
    order: Order,
    rules: Rules,
    /// The layouts from which entries are forwarded; `None` before they were needed.
    formers: Option<Vec<Former>>,
    position: Bookmark,
    page: usize,
    /// The results so far.
    pub tally: Tally,
}

/// A letter as it was read.
struct Found {
    id: EntryId,
    /// `None` if Rollcall did not write it.
    letter: Option<DeadLetter>,
}

impl Found {
    fn read(entry: &Entry) -> Self {
        Self { id: entry.id, letter: DeadLetter::read(entry) }
    }
}

impl Walk {
    /// A walk that begins at a position.
    pub fn new(state: &State, mut order: Order, position: Bookmark) -> Self {
        let oldest = order.ids.iter().map(|name| name.id.ms).min();
        order.filter.since_ms = order.filter.since_ms.max(oldest);
        let (rules, tally) = (state.deployment.rules(), Tally::default());
        Self { order, rules, formers: None, position, page: PAGE, tally }
    }

    /// Limits how many letters one step examines.
    pub fn limit_page(&mut self, limit: usize) {
        self.page = limit.clamp(1, PAGE);
    }

    /// The results so far.
    pub fn report(&self) -> Report {
        Report::of(&self.order, &self.tally)
    }

    /// Its position; `None` at the end.
    pub fn position(&self, state: &State) -> Option<Bookmark> {
        let partitions = state.partitions.len();
        (usize::from(self.position.partition) < partitions).then_some(self.position)
    }

    /// Handles the next page of letters; `false` at the end.
    ///
    /// # Errors
    /// If the server refuses, or no reply came. What is done stays done, and another run continues.
    pub async fn step(&mut self, state: &mut State) -> Result<bool, AskError> {
        let place = usize::from(self.position.partition);
        if place >= state.partitions.len() {
            return Ok(false);
        }
        let Some(entries) = self.read(state, place).await? else {
            self.position = Bookmark { partition: self.position.partition + 1, span: None };
            return Ok(true);
        };
        self.tally.seen += entries.len() as u64;
        let found: Vec<_> = entries.iter().map(Found::read).collect();
        drop(entries);
        let meant = found.into_iter().filter(|found| self.is_meant(found, place)).collect();
        match self.order.deed.clone() {
            Deed::Retry { set } => self.retry(state, place, meant, &set).await?,
            Deed::Drop => self.discard(state, place, meant).await?,
        }
        Ok(true)
    }

    /// The next page of a partition; `None` at its end.
    async fn read(
        &mut self,
        state: &mut State,
        place: usize,
    ) -> Result<Option<Vec<Entry>>, AskError> {
        let partition = &mut state.partitions[place];
        let (connection, key) = (&mut partition.connection, partition.keys.dead());
        let Some((start, end)) = self.order.filter.range() else { return Ok(None) };
        let (start, last) = match self.position.span {
            Some((after, last)) => (format!("({after}"), last),
            None if number(&ask(connection, &["XLEN", &key]).await?) == Some(0) => return Ok(None),
            None => {
                let last = last_generated_id(connection, &key).await?;
                (start, last)
            }
        };
        let end = if end == "+" { last.to_string() } else { end };
        let count = self.page.to_string();
        let entries = range(connection, &["XRANGE", &key, &start, &end, "COUNT", &count]).await?;
        let Some(after) = entries.last().map(|entry| entry.id).filter(|after| *after <= last)
        else {
            return Ok(None);
        };
        self.position.span = Some((after, last));
        Ok(Some(entries))
    }

    fn is_meant(&self, Found { id, letter }: &Found, place: usize) -> bool {
        let Order { ids, filter, .. } = &self.order;
        let partition = place as u16;
        (ids.is_empty() || ids.iter().any(|name| name.means(partition, *id)))
            && match letter {
                Some(letter) => filter.admits(letter, &self.rules, partition),
                None => filter.admits_strangers(),
            }
    }

    async fn retry(
        &mut self,
        state: &mut State,
        place: usize,
        letters: Vec<Found>,
        set: &[(String, String)],
    ) -> Result<(), AskError> {
        if self.formers.is_none() {
            self.formers = Some(formers(&mut state.partitions[place]).await?);
        }
        let (mut batch, mut to): (Vec<Again>, String) = Default::default();
        for Found { id, letter } in letters {
            self.tally.matched += 1;
            let stream = letter.as_ref().map(|letter| letter.header[5].clone()).unwrap_or_default();
            if stream != to {
                self.send(state, place, &to, &std::mem::take(&mut batch)).await?;
                to = stream;
            }
            let again = |letter| self.again(id, &letter, &state.deployment, set);
            match letter.ok_or(FOREIGN).and_then(again) {
                Err(why) => *self.tally.left.entry(why).or_default() += 1,
                Ok((again, fails)) => {
                    if let Some(reason) = fails {
                        *self.tally.fails.entry(reason.name()).or_default() += 1;
                    }
                    let bytes: usize = batch.iter().map(Again::bytes).sum();
                    if bytes + again.bytes() > PAGE_BYTES {
                        self.send(state, place, &to, &std::mem::take(&mut batch)).await?;
                    }
                    batch.push(again);
                }
            }
        }
        self.send(state, place, &to, &batch).await
    }

    /// The entry that retries a letter in its own stream, or why there can be none. If a repartition came meanwhile, it
    /// is forwarded from there as long as other entries are.
    fn again(
        &self,
        id: EntryId,
        letter: &DeadLetter,
        deployment: &Deployment,
        set: &[(String, String)],
    ) -> Result<(Again, Option<Reason>), &'static str> {
        let original = letter.original().ok_or(FOREIGN)?;
        if letter.fields.len() >= Limits::MOST_PAIRS {
            return Err(FOREIGN);
        }
        let formers = self.formers.iter().flatten().map(|former| former.partitions);
        let mut retry = Err(OTHER_STREAM);
        for partitions in std::iter::once(self.rules.partitions).chain(formers) {
            let index = index_in(deployment, partitions, &letter.header[5]);
            if let (Some(index), Err(_)) = (index, &retry) {
                let rules = Rules { partitions, ..self.rules.clone() };
                retry = original.retry(set, &rules, index).map_err(word);
            }
        }
        let retry = retry?;
        let entry = letter.header[0].clone();
        Ok((Again { id, entry, fields: retry.fields }, retry.fails))
    }

    async fn send(
        &mut self,
        state: &mut State,
        place: usize,
        stream: &str,
        batch: &[Again],
    ) -> Result<(), AskError> {
        let count = batch.len() as u64;
        let done = if self.order.dry_run || batch.is_empty() {
            count
        } else {
            let Partition { connection, keys, .. } = &mut state.partitions[place];
            match move_letters(connection, (stream, &keys.dead()), batch).await {
                // A letter of an earlier layout, which was moved to a Cluster since.
                Err(Error::CrossSlot(_)) => {
                    *self.tally.left.entry(OTHER_STREAM).or_default() += count;
                    return Ok(());
                }
                moved => moved?,
            }
        };
        self.tally.done += done;
        self.tally.gone += count - done;
        Ok(())
    }

    async fn discard(
        &mut self,
        state: &mut State,
        place: usize,
        letters: Vec<Found>,
    ) -> Result<(), AskError> {
        let count = letters.len() as u64;
        self.tally.matched += count;
        let mut dropped = count;
        if !self.order.dry_run && count > 0 {
            let partition = &mut state.partitions[place];
            let key = partition.keys.dead();
            let ids: Vec<String> = letters.iter().map(|found| found.id.to_string()).collect();
            let words = ["XDEL", &key].into_iter().chain(ids.iter().map(String::as_str));
            let words: Vec<&str> = words.collect();
            dropped = number(&ask(&mut partition.connection, &words).await?).unwrap_or(0);
        }
        self.tally.done += dropped;
        self.tally.gone += count.saturating_sub(dropped);
        Ok(())
    }
}

/// The layouts from which entries are still forwarded.
async fn formers(
    Partition { connection, keys, .. }: &mut Partition,
) -> Result<Vec<Former>, AskError> {
    let stored = reply::array(ask(connection, &["HMGET", &keys.meta(), "forwarded"]).await?);
    let stored = stored.and_then(|values| values.into_iter().find_map(reply::text));
    let mut formers = forwarded_layouts(&stored.unwrap_or_default());
    let now_ms = server_time(connection).await?;
    formers.retain(|former| former.until_ms > now_ms);
    Ok(formers)
}

/// Which partition of a layout has a stream of this name.
fn index_in(deployment: &Deployment, partitions: u16, stream: &str) -> Option<u16> {
    let name = stream.strip_prefix(&*deployment.prefix)?;
    if partitions == 1 {
        return (name == deployment.stream).then_some(0);
    }
    let (index, name) = name.strip_prefix("{p")?.split_once("}:")?;
    let index = index.parse().ok().filter(|index| *index < partitions)?;
    (name == deployment.stream).then_some(index)
}

/// Not written by Rollcall.
const FOREIGN: &str = "foreign";
/// From a stream that is not the deployment's, or that nobody forwards any more.
const OTHER_STREAM: &str = "other_stream";

fn word(left: Left) -> &'static str {
    match left {
        Left::Empty => "empty",
        Left::Elsewhere => "elsewhere",
        Left::Time => "time",
    }
}

/// Why letters are left, for people.
pub fn words(left: &str) -> &'static str {
    match left {
        FOREIGN => "not written by Rollcall",
        OTHER_STREAM => {
            "of another stream than this deployment's, or of an earlier layout that is no longer forwarded"
        }
        "empty" => "without the entry's fields; it may still be in the stream, under its id",
        "elsewhere" => "for another partition; send the event to the stream named in its detail",
        _ => "with packed events that would get another time; send them one by one",
    }
}

impl Bookmark {
    /// The position after a letter, in a list.
    pub fn behind(partition: u16, id: EntryId) -> Self {
        Self { partition, span: Some((id, id)) }
    }

    /// The partition, and the letter after which a list continues.
    pub fn after(self) -> Option<(u16, EntryId)> {
        self.span.map(|(after, _)| (self.partition, after))
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{:x}", self.partition)?;
        let Some((after, last)) = self.span else { return Ok(()) };
        write!(f, ".{:x}.{:x}.{:x}.{:x}", after.ms, after.seq, last.ms, last.seq)
    }
}

/// The text is not a position of a walk over dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of dead letters; send the cursor of the previous answer unchanged")]
pub struct InvalidPosition;

impl FromStr for Bookmark {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let numbers = text.strip_prefix('d').ok_or(InvalidPosition)?.split('.');
        let hex = |digits: &str| {
            let plain = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let numbers: Option<Vec<u64>> = numbers.map(hex).collect();
        let (partition, span) = match numbers.as_deref() {
            Some(&[partition]) => (partition, None),
            Some(&[partition, ms, seq, last_ms, last_seq]) => {
                let last = EntryId { ms: last_ms, seq: last_seq };
                (partition, Some((EntryId { ms, seq }, last)))
            }
            _ => return Err(InvalidPosition),
        };
        Ok(Self { partition: u16::try_from(partition).map_err(|_| InvalidPosition)?, span })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text_and_nothing_else_is_one() {
        let span = Some((EntryId { ms: 5, seq: 0 }, EntryId::GREATEST));
        for position in [Bookmark::default(), Bookmark { partition: 1023, span }] {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for text in ["", "d", "d1.2", "w0.0.0", "d1.2.3.4.5.6", "d10000", "d-1", "dA"] {
            assert_eq!(text.parse::<Bookmark>(), Err(InvalidPosition), "{text}");
        }
    }
}
