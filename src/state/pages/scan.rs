//! A walk over hashes or sets of all partitions, cut into pages of an exact size.
//!
//! The server decides how much it returns, whatever was requested: small tables whole, large ones by hash chains. If
//! that is too much for a page, it is returned in the order of digests: the next page requests the same part again
//! and continues after the last digest. If the part has changed by then, all of it is returned again: twice is better
//! than not at all.

use super::cursor::{Part, Place};
use super::{Cursor, InvalidCursor, MOST, Page};
use crate::redis::reply;
use crate::state::ask::{AskError, ask, scanned};
use crate::state::{Partition, State};

/// The maximum number of rows examined, and calls made, for one page. If a filter admits little, or many partitions
/// are empty, pages are short rather than slow.
const MOST_ROWS: usize = 10 * MOST;
const MOST_CALLS: usize = 256;

/// The structure that is walked.
pub(super) struct Source {
    /// `HSCAN` or `SSCAN`.
    pub command: &'static str,
    /// The key.
    pub key: String,
}

impl Source {
    pub(super) fn hash(key: String) -> Self {
        Self { command: "HSCAN", key }
    }

    pub(super) fn set(key: String) -> Self {
        Self { command: "SSCAN", key }
    }

    fn has_values(&self) -> bool {
        self.command == "HSCAN"
    }
}

/// A row: a field and its value, or a member and an empty text.
pub(super) type Row = (String, String);

/// A list that is walked.
pub(super) trait Listing {
    /// The items of the list.
    type Item;

    /// The first step in every partition.
    fn first_step(&self) -> u16 {
        0
    }

    /// The hash or set of this step in a partition; `None` after the last.
    fn source(&self, partition: &Partition, step: u16) -> Option<Source>;

    /// The items of the rows, each with the row's index; rows that are not listed are left out.
    async fn read(
        &self,
        partition: &mut Partition,
        step: u16,
        rows: Vec<Row>,
    ) -> Result<Vec<(usize, Self::Item)>, AskError>;

    /// Whether most rows may be left out; more of them are then examined in one call.
    fn is_filter(&self) -> bool {
        false
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The cursor does not belong to this list.
    #[error(transparent)]
    Cursor(#[from] InvalidCursor),
    /// The state cannot be queried.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// A page of a list, beginning at a cursor.
pub(super) async fn page<L: Listing>(
    state: &mut State,
    listing: &L,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<L::Item>, PageError> {
    let partitions = state.deployment.partitions;
    let mut place = match Cursor::place(cursor)? {
        Some(place) if place.partitions != partitions => return Err(InvalidCursor.into()),
        Some(place) => place,
        None => Place::first(partitions, 0, listing.first_step()),
    };
    let limit = limit.clamp(1, MOST);
    let count = if listing.is_filter() { MOST } else { limit } as u64;
    let (mut items, mut seen) = (Vec::new(), 0);
    for _ in 0..MOST_CALLS {
        let Some((partition, source)) = at(state, listing, &mut place) else {
            return Ok(Page { items, cursor: None });
        };
        let part = rows(partition, &source, place, count).await?;
        let (digests, rows): (Vec<u64>, Vec<Row>) = part.rows.into_iter().unzip();
        seen += rows.len();
        let mut read = listing.read(partition, place.step, rows).await?;
        let room = limit - items.len();
        if read.len() > room {
            read.truncate(room);
            let after = read.last().and_then(|(row, _)| digests.get(*row)).copied();
            let (count, end, after) = (part.count, part.end, after.unwrap_or_default());
            place.part = Some(Part { count, end, after });
        } else if part.end == 0 {
            place = Place::first(partitions, place.partition, place.step.wrapping_add(1));
        } else {
            place = Place { from: part.end, part: None, ..place };
        }
        items.extend(read.into_iter().map(|(_, item)| item));
        if items.len() == limit || seen >= MOST_ROWS {
            break;
        }
    }
    let cursor = at(state, listing, &mut place).map(|_| Cursor::Walk(place));
    Ok(Page { items, cursor })
}

/// The structure at a place; moves on to the next partition when one has nothing more.
fn at<'s, L: Listing>(
    state: &'s mut State,
    listing: &L,
    place: &mut Place,
) -> Option<(&'s mut Partition, Source)> {
    while let Some(partition) = state.partitions.get(usize::from(place.partition)) {
        if let Some(source) = listing.source(partition, place.step) {
            let partition = state.partitions.get_mut(usize::from(place.partition))?;
            return Some((partition, source));
        }
        let next = place.partition.saturating_add(1);
        *place = Place::first(place.partitions, next, listing.first_step());
    }
    None
}

/// The rows of one reply, by digest, without those already returned.
struct Rows {
    rows: Vec<(u64, Row)>,
    count: u64,
    end: u64,
}

async fn rows(
    partition: &mut Partition,
    source: &Source,
    place: Place,
    count: u64,
) -> Result<Rows, AskError> {
    let count = place.part.map_or(count, |part| part.count).clamp(1, MOST as u64);
    let (from, asked) = (place.from.to_string(), count.to_string());
    let words = [source.command, &source.key, &from, "COUNT", &asked];
    let (end, values) = scanned(ask(&mut partition.connection, &words).await?, source.command)?;
    let mut texts = values.into_iter().map(|value| reply::text(value).unwrap_or_default());
    let mut rows = Vec::new();
    while let Some(field) = texts.next() {
        let value = if source.has_values() { texts.next() } else { None };
        rows.push((digest(&field), (field, value.unwrap_or_default())));
    }
    // A table that grows or shrinks meanwhile may return a row twice.
    rows.sort_unstable();
    rows.dedup();
    if let Some(part) = place.part.filter(|part| part.end == end) {
        rows.retain(|(digest, _)| *digest > part.after);
    }
    Ok(Rows { rows, count, end })
}

/// FNV-1a: the same in every process and release, because cursors outlive processes. A collision among a few hundred
/// rows is less likely than a hardware error.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |digest: u64, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
