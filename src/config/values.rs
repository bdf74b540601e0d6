//! The values of settings that are neither numbers, lengths of time nor plain text.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Two numbers of active users in a document; the gap between them is the hysteresis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold {
    /// Reached when at least this many users are active.
    pub up: u64,
    /// Left when at most this many are active; less than `up`.
    pub down: u64,
}

/// Thresholds by rising `up`; as text `10:5,100:80`, or `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thresholds(pub(super) Vec<Threshold>);

impl Thresholds {
    /// The maximum. Every call compares each document with all of them.
    const MAX: usize = 16;
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let parts: Vec<_> = self.0.iter().map(|t| format!("{}:{}", t.up, t.down)).collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Thresholds {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text == "none" {
            return Ok(Self::default());
        }
        let mut thresholds = text.split(',').map(threshold).collect::<Result<Vec<_>, _>>()?;
        thresholds.sort_unstable();
        // A change names its threshold by `up` alone, so two may not share it.
        if let Some(pair) = thresholds.windows(2).find(|pair| pair[0].up == pair[1].up) {
            return Err(ValueError::DuplicateThreshold(pair[0].up));
        }
        if thresholds.len() > Self::MAX {
            return Err(ValueError::TooManyThresholds(Self::MAX));
        }
        Ok(Self(thresholds))
    }
}

fn threshold(text: &str) -> Result<Threshold, ValueError> {
    let whole = |part: &str| part.trim().parse::<u32>().ok().map(u64::from);
    let (up, down) = text.split_once(':').ok_or(ValueError::ThresholdForm)?;
    let up = whole(up).ok_or(ValueError::ThresholdForm)?;
    let down = whole(down).ok_or(ValueError::ThresholdForm)?;
    if down < up { Ok(Threshold { up, down }) } else { Err(ValueError::ThresholdOrder) }
}

/// Where `/metrics` and the health pages are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// 127.0.0.1 and the first free port of [`Http::DEFAULT_PORTS`]; as text `auto`.
    Default,
    /// Exactly here; port 0 takes any free one.
    Addr(SocketAddr),
    /// Nowhere.
    Off,
}

impl Http {
    /// The ports that [`Http::Default`] tries in turn.
    pub const DEFAULT_PORTS: std::ops::RangeInclusive<u16> = 9464..=9473;
}

impl fmt::Display for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("auto"),
            Self::Addr(addr) => addr.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

impl FromStr for Http {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Default),
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::Addr).map_err(|_| ValueError::Http),
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(ValueError::LogFormat),
        }
    }
}

/// Why a text is not a value of the setting; each variant says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Not a number, or outside its range.
    #[error("must be a whole number from {min} to {max}")]
    Number {
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
    },
    /// Not `up:down`.
    #[error("must be pairs up:down of numbers of users, such as 10:5,100:80, or none")]
    ThresholdForm,
    /// A threshold that would be left as soon as it was reached.
    #[error("down must be less than up in each pair up:down; write 10:5, not 5:10")]
    ThresholdOrder,
    /// Two thresholds that changes could not tell apart.
    #[error("two thresholds are reached at {0}; keep one of them")]
    DuplicateThreshold(u64),
    /// More thresholds than a call may compare.
    #[error("at most {0} thresholds are allowed; remove some")]
    TooManyThresholds(usize),
    /// Not an address to listen on.
    #[error("must be auto, off, or an IP address and a port, such as 0.0.0.0:9464 or [::1]:0")]
    Http,
    /// Neither of the formats.
    #[error("must be text or json")]
    LogFormat,
    /// Not a filter for log lines.
    #[error(
        "must be a level (error, warn, info, debug, trace, off) or target=level, separated by commas"
    )]
    LogFilter,
    /// Not an address to serve applications on.
    #[error("must be auto, off, or an IP address and a port, such as 127.0.0.1:8484 or [::]:8484")]
    Listen,
    /// Not a rate of events.
    #[error("must be events per second and a burst, such as 50:200, or off")]
    RateLimit,
    /// Not the bounds of a buffer.
    #[error("must be events, bytes and a duration, such as 100000,64MiB,10s")]
    Buffer,
    /// Not a range of addresses.
    #[error(
        "must be addresses or ranges separated by commas, such as 10.0.0.0/8,fd00::/8, or none"
    )]
    Network,
    /// Not an origin as browsers send it.
    #[error(
        "must be origins separated by commas, such as https://app.example or http://localhost:5173, or none"
    )]
    CorsOrigin,
    /// Not a name for streams, groups and instances.
    #[error("must be 1 to 256 bytes without spaces and control characters")]
    Name,
}

/// Reads a whole number from `MIN` to `MAX`.
pub(super) fn number<T: TryFrom<u64>, const MIN: u64, const MAX: u64>(
    text: &str,
) -> Result<T, ValueError> {
    let refused = ValueError::Number { min: MIN, max: MAX };
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let value = text.parse().ok().filter(|n| digits && (MIN..=MAX).contains(n));
    value.and_then(|n| T::try_from(n).ok()).ok_or(refused)
}

/// Reads the name of a stream, a group or an instance.
pub(super) fn name(text: &str) -> Result<String, ValueError> {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > 256 || text.contains(bad) {
        return Err(ValueError::Name);
    }
    Ok(text.to_owned())
}

/// Reads a key prefix: a name, or nothing.
pub(super) fn prefix(text: &str) -> Result<String, ValueError> {
    if text.is_empty() { Ok(String::new()) } else { name(text) }
}

/// Reads a filter for log lines. A single word that is not a level is refused, since it would silently name a target.
pub(super) fn log_filter(text: &str) -> Result<String, ValueError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let unclear = |part: &str| {
        let part = part.trim().to_ascii_lowercase();
        !part.contains(['=', '[', ']']) && !LEVELS.contains(&part.as_str())
    };
    let parsed = tracing_subscriber::EnvFilter::try_new(text);
    if parsed.is_err() || text.split(',').any(unclear) {
        return Err(ValueError::LogFilter);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_ordered_pairs_with_one_text() {
        let two: Thresholds = "100:80, 10:5".parse().unwrap();
        assert_eq!(two.to_string(), "10:5,100:80");
        assert_eq!(two.to_string().parse(), Ok(two));
        assert_eq!("none".parse(), Ok(Thresholds::default()));
        assert_eq!("1:0".parse(), Ok(Thresholds(vec![Threshold { up: 1, down: 0 }])));
        let refused = |text: &str| text.parse::<Thresholds>().unwrap_err();
        assert_eq!(refused("5:10"), ValueError::ThresholdOrder);
        assert_eq!(refused("0:0"), ValueError::ThresholdOrder);
        assert_eq!(refused("10:5,10:6"), ValueError::DuplicateThreshold(10));
        for bad in ["10", "10:", "a:b", "10:-1", "10:5,", "10:5:1"] {
            assert_eq!(refused(bad), ValueError::ThresholdForm, "{bad}");
        }
        let many: Vec<_> = (1..=17).map(|n| format!("{n}:0")).collect();
        assert_eq!(refused(&many.join(",")), ValueError::TooManyThresholds(16));
    }

    #[test]
    fn addresses_and_filters_say_what_to_write() {
        assert_eq!("auto".parse(), Ok(Http::Default));
        assert_eq!("[::1]:0".parse::<Http>().unwrap().to_string(), "[::1]:0");
        for bad in ["", "9464", "localhost:9464", ":9464", "127.0.0.1"] {
            assert_eq!(bad.parse::<Http>(), Err(ValueError::Http), "{bad}");
        }
        for good in ["info", "WARN", "info,rollcall::projector=debug", "off"] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "rollcall=loud", "info,", "debug;trace"] {
            assert_eq!(log_filter(bad), Err(ValueError::LogFilter), "{bad}");
        }
    }
}
