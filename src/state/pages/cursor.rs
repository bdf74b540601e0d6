//! Where a page begins.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Where a page begins; opaque to clients, and safe in a URL as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// In a walk through hashes or sets.
    Walk(Place),
    /// In an order, after this many with this score or rank.
    Order {
        /// The score of the last one; its rank if there are no scores to use.
        score: u64,
        /// How many with that score were returned.
        given: u64,
    },
}

/// A place in a walk over all partitions and, in each, over all steps of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many partitions there are: with another number, this is the place of nothing.
    pub(super) partitions: u16,
    /// The partition.
    pub(super) partition: u16,
    /// Which of the partition's hashes or sets.
    pub(super) step: u16,
    /// The server's cursor.
    pub(super) from: u64,
    /// The position in a part that is returned in pieces.
    pub(super) part: Option<Part>,
}

impl Place {
    /// The beginning of a step.
    pub(super) fn first(partitions: u16, partition: u16, step: u16) -> Self {
        Self { partitions, partition, step, from: 0, part: None }
    }
}

/// A part of a walk that was too large for a page, and how much of it was returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// How many the server was asked for.
    pub count: u64,
    /// The server's cursor after the part. If it differs now, this is another part.
    pub end: u64,
    /// The digest of the last one that was returned; they are returned in the order of digests.
    pub after: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Walk(Place { partitions, partition, step, from, part }) => {
                write!(f, "w{partitions:x}.{partition:x}.{step:x}.{from:x}")?;
                match part {
                    Some(Part { count, end, after }) => write!(f, ".{count:x}.{end:x}.{after:x}"),
                    None => Ok(()),
                }
            }
            Self::Order { score, given } => write!(f, "o{score:x}.{given:x}"),
        }
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not a cursor, one of another list, or from before a repartition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a cursor of this list; send the cursor of the previous page unchanged, or begin again without one"
)]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (kind, numbers) = text.split_at_checked(1).ok_or(InvalidCursor)?;
        let hex = |digits: &str| {
            let plain = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let numbers: Option<Vec<u64>> = numbers.split('.').map(hex).collect();
        let place = |[partitions, partition, step]: [u64; 3], from, part| {
            let short = |n: u64| u16::try_from(n).ok();
            let first = Place::first(short(partitions)?, short(partition)?, short(step)?);
            Some(Self::Walk(Place { from, part, ..first }))
        };
        let cursor = match (kind, numbers.as_deref()) {
            ("w", Some(&[partitions, partition, step, from])) => {
                place([partitions, partition, step], from, None)
            }
            ("w", Some(&[partitions, partition, step, from, count, end, after])) => {
                place([partitions, partition, step], from, Some(Part { count, end, after }))
            }
            ("o", Some(&[score, given])) => Some(Self::Order { score, given }),
            _ => None,
        };
        cursor.ok_or(InvalidCursor)
    }
}

impl Cursor {
    /// The place in a walk where a page begins; `None` for the first.
    pub(super) fn place(cursor: Option<Self>) -> Result<Option<Place>, InvalidCursor> {
        match cursor {
            None => Ok(None),
            Some(Self::Walk(place)) => Ok(Some(place)),
            Some(Self::Order { .. }) => Err(InvalidCursor),
        }
    }

    /// The score or rank where a page begins, and how many with it were returned.
    pub(super) fn order(cursor: Option<Self>) -> Result<Option<(u64, u64)>, InvalidCursor> {
        match cursor {
            None => Ok(None),
            Some(Self::Order { score, given }) => Ok(Some((score, given))),
            Some(Self::Walk(_)) => Err(InvalidCursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursors() -> impl Strategy<Value = Cursor> {
        let part =
            any::<(u64, u64, u64)>().prop_map(|(count, end, after)| Part { count, end, after });
        let place = (any::<(u16, u16, u16, u64)>(), proptest::option::of(part)).prop_map(
            |((partitions, partition, step, from), part)| {
                Cursor::Walk(Place { partitions, partition, step, from, part })
            },
        );
        let order = any::<(u64, u64)>().prop_map(|(score, given)| Cursor::Order { score, given });
        prop_oneof![place, order]
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(cursor in cursors()) {
            let text = cursor.to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.'));
            prop_assert_eq!(text.parse(), Ok(cursor));
        }

        #[test]
        fn any_text_is_a_cursor_or_refused(text in "[wo]?[0-9a-g.-]{0,40}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            }
        }
    }
}
