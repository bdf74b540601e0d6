//! The position of a reader of changes over all partitions, as a text to keep and resume from.

use std::fmt;
use std::str::FromStr;

use crate::change::Change;
use crate::entry::EntryId;

/// The last change that was read of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its number; 0 before the first.
    pub seq: u64,
    /// The id of its entry; 0-0 if there was none.
    pub id: EntryId,
}

impl Point {
    /// Before the first change.
    pub const START: Self = Self { seq: 0, id: EntryId { ms: 0, seq: 0 } };
}

impl From<&Change> for Point {
    fn from(change: &Change) -> Self {
        Self { seq: change.seq, id: change.id }
    }
}

/// A point for each partition, in order.
///
/// As text: points joined by `~`, each `seq.ms.n` of number and entry id in base 36, leaving out a zero `n`. The text
/// is short because it goes with every change to every listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(pub Vec<Point>);

impl Position {
    /// Moves past a change.
    pub fn advance(&mut self, change: &Change) {
        if let Some(point) = self.0.get_mut(usize::from(change.partition)) {
            *point = change.into();
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Point { seq, id }) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "~" };
            write!(f, "{separator}{}.{}", Base36(*seq), Base36(id.ms))?;
            if id.seq > 0 {
                write!(f, ".{}", Base36(id.seq))?;
            }
        }
        Ok(())
    }
}

/// The text is not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position of the changes; send back the id of the last event as it was received")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        text.split('~').map(point).collect::<Option<_>>().map(Self).ok_or(InvalidPosition)
    }
}

fn point(text: &str) -> Option<Point> {
    let mut numbers = text.split('.').map(|digits| {
        let plain = digits.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        plain.then(|| u64::from_str_radix(digits, 36).ok()).flatten()
    });
    let (seq, ms) = (numbers.next()??, numbers.next()??);
    let n = numbers.next().unwrap_or(Some(0))?;
    numbers.next().is_none().then_some(Point { seq, id: EntryId { ms, seq: n } })
}

struct Base36(u64);

impl fmt::Display for Base36 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut digits, mut rest) = (Vec::with_capacity(13), self.0);
        loop {
            // Below 36, so there is a digit.
            digits.push(char::from_digit((rest % 36) as u32, 36).unwrap_or('0'));
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        f.write_str(&digits.into_iter().rev().collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points() -> impl Strategy<Value = Vec<Point>> {
        let point = any::<(u64, u64, u64)>()
            .prop_map(|(seq, ms, n)| Point { seq, id: EntryId { ms, seq: n } });
        proptest::collection::vec(point, 1..8)
    }

    proptest! {
        #[test]
        fn a_position_survives_its_text(points in points()) {
            let position = Position(points);
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn any_text_is_a_position_or_refused(text in "[0-9a-z.~]{0,30}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert!(!position.0.is_empty());
            }
        }
    }

    #[test]
    fn a_position_is_short_and_nothing_else_is_one() {
        let id = EntryId { ms: 1_790_000_000_000, seq: 0 };
        assert_eq!(
            Position(vec![Point { seq: 36, id }, Point::START]).to_string(),
            "10.mubbs7i8~0.0"
        );
        for bad in ["", "1", "1.", "1.2.3.4", "1.2~", "1.-2", "A.1", "1.2 ", "zzzzzzzzzzzzzz.1"] {
            assert_eq!(bad.parse::<Position>(), Err(InvalidPosition), "{bad:?}");
        }
    }
}
