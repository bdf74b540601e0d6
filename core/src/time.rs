//! Event time: milliseconds since the epoch, limited to the thirteen digits that every stored version has.
//!
//! Thirteen digits make versions fixed-width, so comparing texts compares times; the merges in the apply script
//! depend on that. Nothing here reads a clock.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time in milliseconds since the Unix epoch, always exactly thirteen digits
/// (2001-09-09 to 2286-11-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(u64);

impl EventTime {
    /// The earliest time that can be stored.
    pub const MIN: Self = Self(1_000_000_000_000);
    /// The latest time that can be stored.
    pub const MAX: Self = Self(9_999_999_999_999);

    /// `ms` milliseconds since the epoch, moved to the nearest storable time.
    pub fn from_millis(ms: u64) -> Self {
        Self(ms.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// The effective time of an event: the claimed time, but at most `max_skew_ms` after its entry was added; without
    /// a claim, the time when the entry was added.
    pub fn of_event(claimed_ms: Option<u64>, entry_ms: u64, max_skew_ms: u64) -> Self {
        let latest = entry_ms.saturating_add(max_skew_ms);
        Self::from_millis(claimed_ms.unwrap_or(entry_ms).min(latest))
    }

    /// Milliseconds since the epoch.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The epoch minute this time lies in.
    pub fn minute(self) -> u64 {
        self.0 / 60_000
    }

    /// Seconds with milliseconds, as in the scores of sorted sets: `1790000000.123`.
    pub fn score(self) -> String {
        format!("{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads RFC 3339 as milliseconds since the epoch, rounded down. `None` if it is something else.
pub fn parse_time(text: &str) -> Option<i64> {
    // The parser accepts any character between date and time; RFC 3339 does not.
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// RFC 3339 with milliseconds, in UTC, for people: `2026-09-21T14:13:20.123Z`.
pub fn format_time(ms: u64) -> String {
    let nanos = i128::from(ms) * 1_000_000;
    match OffsetDateTime::from_unix_timestamp_nanos(nanos) {
        Ok(at) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond()
        ),
        Err(_) => ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_is_cut_to_milliseconds() {
        assert_eq!(parse_time("2026-09-21T14:13:20.1239Z"), Some(1_790_000_000_123));
        assert_eq!(parse_time("2026-09-21T16:13:20.123+02:00"), Some(1_790_000_000_123));
        assert_eq!(parse_time("1969-12-31T23:59:59.9999Z"), Some(-1));
        assert_eq!(parse_time("0001-01-01T00:00:00Z"), Some(-62_135_596_800_000));
        for bad in ["1790000000123", "yesterday", "", "2026-09-21", "2026-09-21x14:13:20Z"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn event_time_is_bounded_by_the_entry_and_by_thirteen_digits() {
        let entry = 1_790_000_000_000;
        assert_eq!(EventTime::of_event(None, entry, 60_000).millis(), entry);
        assert_eq!(
            EventTime::of_event(Some(entry + 60_001), entry, 60_000).millis(),
            entry + 60_000
        );
        assert_eq!(EventTime::of_event(Some(5), entry, 60_000), EventTime::MIN);
        assert_eq!(EventTime::of_event(None, u64::MAX, 60_000), EventTime::MAX);
    }

    #[test]
    fn people_read_utc() {
        assert_eq!(format_time(1_790_000_000_123), "2026-09-21T14:13:20.123Z");
        assert_eq!(parse_time(&format_time(1_790_000_000_123)), Some(1_790_000_000_123));
    }
}
