//! Points in time as given to a command: a duration ago, or an absolute time.

use std::str::FromStr;

use super::Millis;
use crate::time::parse_time;

/// A point in time, relative to now or absolute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// This long ago.
    Ago(Millis),
    /// At this time, in milliseconds since the epoch.
    At(u64),
}

/// The text is not a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a time: write a duration ago, such as 2h, or a time in RFC 3339 (2026-09-21T14:13:20Z) or in milliseconds since \
     the epoch (13 digits)"
)]
pub struct InvalidMoment;

impl Moment {
    /// Milliseconds since the epoch.
    pub fn ms(self, now_ms: u64) -> u64 {
        match self {
            Self::Ago(length) => now_ms.saturating_sub(length.ms()),
            Self::At(ms) => ms,
        }
    }
}

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        if let Ok(length) = text.parse() {
            return Ok(Self::Ago(length));
        }
        let is_digits = text.len() == 13 && text.bytes().all(|byte| byte.is_ascii_digit());
        let ms = if is_digits { text.parse().ok() } else { None };
        let rfc_3339 = || parse_time(text).and_then(|ms| u64::try_from(ms).ok());
        ms.or_else(rfc_3339).map(Self::At).ok_or(InvalidMoment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_in_time_is_an_age_a_number_or_rfc_3339() {
        let ms = |text: &str| text.parse::<Moment>().map(|moment| moment.ms(1_790_000_000_000));
        assert_eq!(ms("1h30m"), Ok(1_789_994_600_000));
        assert_eq!(ms("1780000000123"), Ok(1_780_000_000_123));
        assert_eq!(ms("2026-09-21T14:13:20.123Z"), Ok(1_790_000_000_123));
        for text in ["", "17", "yesterday", "1969-01-01T00:00:00Z", "-5m", "178000000012x"] {
            assert_eq!(ms(text), Err(InvalidMoment), "{text}");
        }
    }
}
