//! Lengths of time as people write them: `500ms`, `30s`, `5m`, `24h`, `1h30m`.
//!
//! A bare number is refused: whether `30` means seconds or milliseconds would only show in production. Each length
//! has one canonical text, so that settings can be compared as text.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time in whole milliseconds, at most ten years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(u64);

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Millis {
    /// The longest length: ten years. It keeps every sum of times within thirteen digits.
    pub const MAX: Self = Self(87_600 * 3_600_000);

    /// `ms` milliseconds, cut to [`Millis::MAX`].
    pub fn new(ms: u64) -> Self {
        Self(ms.min(Self::MAX.0))
    }

    /// The number of milliseconds.
    pub fn ms(self) -> u64 {
        self.0
    }
}

impl From<Millis> for Duration {
    fn from(length: Millis) -> Self {
        Self::from_millis(length.0)
    }
}

impl From<Duration> for Millis {
    fn from(length: Duration) -> Self {
        Self::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The canonical text: each unit at most once, the largest first, `0s` for nothing.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, ms) in UNITS {
            if rest >= ms {
                write!(f, "{}{unit}", rest / ms)?;
                rest %= ms;
            }
        }
        Ok(())
    }
}

/// Why a text is not a usable length of time; each variant says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// No number where one is needed.
    #[error("not a length of time; write a whole number and a unit, such as 500ms, 30s, 5m or 24h")]
    NoNumber,
    /// A number without a unit.
    #[error("a bare number has no unit; write {0}ms, {0}s, {0}m or {0}h")]
    NoUnit(String),
    /// A unit that is not known.
    #[error("the units are ms, s, m and h, as in 500ms, 30s, 5m or 24h")]
    UnknownUnit,
    /// A unit twice, or a smaller one before a larger one.
    #[error("write each unit once and the largest first, such as 1h30m")]
    Order,
    /// Longer than [`Millis::MAX`].
    #[error("longer than ten years; write at most {}", Millis::MAX)]
    TooLong,
    /// Shorter than the setting allows.
    #[error("must be at least {0}")]
    TooShort(Millis),
    /// Not a number of whole minutes within a day.
    #[error("must be whole minutes, from 1m to 24h")]
    NotMinutes,
}

impl FromStr for Millis {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text;
        let mut total = 0_u64;
        let mut smaller = &UNITS[..];
        while !rest.is_empty() || total == 0 && smaller.len() == UNITS.len() {
            let (number, tail) = split(rest, |b| b.is_ascii_digit());
            let (unit, tail) = split(tail, |b| !b.is_ascii_digit());
            if number.is_empty() {
                return Err(DurationError::NoNumber);
            }
            if unit.is_empty() {
                return Err(DurationError::NoUnit(number.to_owned()));
            }
            let at = smaller.iter().position(|(name, _)| *name == unit).ok_or_else(|| {
                let known = UNITS.iter().any(|(name, _)| *name == unit);
                if known { DurationError::Order } else { DurationError::UnknownUnit }
            })?;
            let count: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
            total = count
                .checked_mul(smaller[at].1)
                .and_then(|ms| ms.checked_add(total))
                .filter(|ms| *ms <= Self::MAX.0)
                .ok_or(DurationError::TooLong)?;
            smaller = &smaller[at + 1..];
            rest = tail;
        }
        Ok(Self(total))
    }
}

/// Splits at the first byte for which `inside` does not hold.
fn split(text: &str, inside: impl Fn(u8) -> bool) -> (&str, &str) {
    text.split_at(text.bytes().position(|b| !inside(b)).unwrap_or(text.len()))
}

/// Reads a length of at least `MIN_MS` milliseconds.
pub(super) fn at_least<const MIN_MS: u64>(text: &str) -> Result<Millis, DurationError> {
    let length: Millis = text.parse()?;
    if length.0 < MIN_MS { Err(DurationError::TooShort(Millis(MIN_MS))) } else { Ok(length) }
}

/// Reads whole minutes, 1 to 1440: readers union one set for each minute.
pub(super) fn whole_minutes(text: &str) -> Result<Millis, DurationError> {
    let length: Millis = text.parse()?;
    let whole = length.0.is_multiple_of(60_000) && (1..=1440).contains(&(length.0 / 60_000));
    if whole { Ok(length) } else { Err(DurationError::NotMinutes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_write_a_number_and_a_unit() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("1h1ms", 3_600_001),
            ("90s", 90_000),
            ("0s", 0),
        ] {
            assert_eq!(text.parse(), Ok(Millis(ms)), "{text}");
        }
        assert_eq!(Millis(90_000).to_string(), "1m30s");
        assert_eq!(Millis(0).to_string(), "0s");
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused_with_the_remedy() {
        use DurationError::*;
        for (text, error) in [
            ("30", NoUnit("30".to_owned())),
            ("1h30", NoUnit("30".to_owned())),
            ("", NoNumber),
            ("s", NoNumber),
            ("-5s", NoNumber),
            ("soon", NoNumber),
            (" 5s", NoNumber),
            ("5 s", UnknownUnit),
            ("1.5h", UnknownUnit),
            ("7d", UnknownUnit),
            ("5ſ", UnknownUnit),
            ("30m1h", Order),
            ("1s1s", Order),
            ("87601h", TooLong),
            ("99999999999999999999999s", TooLong),
            ("18446744073709551615h", TooLong),
        ] {
            assert_eq!(text.parse::<Millis>(), Err(error), "{text}");
        }
        assert!(NoUnit("30".to_owned()).to_string().contains("write 30ms, 30s"));
        assert_eq!(at_least::<1_000>("999ms"), Err(TooShort(Millis(1_000))));
        for bad in ["0s", "90s", "1500m"] {
            assert_eq!(whole_minutes(bad), Err(NotMinutes));
        }
    }

    proptest! {
        #[test]
        fn every_length_survives_its_text(ms in 0..=Millis::MAX.0) {
            prop_assert_eq!(Millis(ms).to_string().parse(), Ok(Millis(ms)));
        }

        #[test]
        fn no_text_is_read_in_panic(text in "\\PC*|[0-9hms]{0,8}") {
            if let Ok(length) = text.parse::<Millis>() {
                prop_assert_eq!(length.to_string().parse(), Ok(length));
            }
        }
    }
}
