//! Where `serve` listens, whom it lets in, and its limits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::duration::Millis;
use super::values::ValueError;

/// How a process serves applications and browsers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeConfig {
    /// Where; `None` if not set, since each command has its own default.
    pub listen: Option<Listen>,
    /// The file of the tokens that may read.
    pub read_token_file: Option<PathBuf>,
    /// The file of the tokens that may write.
    pub write_token_file: Option<PathBuf>,
    /// The file of the key that JSON Web Tokens are signed with.
    pub jwt_key_file: Option<PathBuf>,
    /// Origins whose pages may call, besides the server's own.
    pub cors_origins: Vec<String>,
    /// Proxies whose statement of the client's address is believed.
    pub trusted_proxies: Vec<Network>,
    /// How many events a client may send.
    pub rate_limit: Option<RateLimit>,
    /// How long the first event of an entry waits for more.
    pub linger: Duration,
    /// What may wait while the server is unreachable.
    pub buffer: Buffer,
    /// The minimum time between two activities of the same subject for one listener.
    pub activity_interval: Duration,
    /// The maximum number of activities a second for one room.
    pub activity_rate: u64,
    /// The maximum number of open connections.
    pub max_connections: usize,
    /// The maximum number of open connections from one address; those of trusted proxies do not count.
    pub max_client_connections: usize,
    /// The maximum number of rooms for one connection.
    pub max_rooms: usize,
}

impl ServeConfig {
    /// Whether callers must authenticate.
    pub fn has_credentials(&self) -> bool {
        let files = [&self.read_token_file, &self.write_token_file, &self.jwt_key_file];
        files.iter().any(|file| file.is_some())
    }
}

/// Where applications and browsers are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// 127.0.0.1 and the first free port of [`Listen::AUTO_PORTS`]; as text `auto`.
    Auto,
    /// Exactly here; port 0 takes any free one.
    Addr(SocketAddr),
    /// Nowhere.
    Off,
}

impl Listen {
    /// The ports that [`Listen::Auto`] tries in turn.
    pub const AUTO_PORTS: std::ops::RangeInclusive<u16> = 8484..=8493;
    /// Where `rollcall serve` listens by default.
    pub const DEFAULT: Self = Self::Addr(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8484));
}

impl FromStr for Listen {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::Addr).map_err(|_| ValueError::Listen),
        }
    }
}

/// How many events a client may send; as text `rate:burst`, `rate` alone, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Events a second.
    pub per_second: u32,
    /// Events at once.
    pub burst: u32,
}

/// Reads a rate limit.
pub(super) fn rate_limit(text: &str) -> Result<RateLimitSetting, ValueError> {
    if text == "off" {
        return Ok(RateLimitSetting(None));
    }
    let (rate, burst) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| text.parse().ok().filter(|n| *n > 0).ok_or(ValueError::RateLimit);
    let (per_second, burst) = (number(rate)?, number(burst)?);
    Ok(RateLimitSetting(Some(RateLimit { per_second, burst })))
}

/// A rate limit, or none.
#[derive(Clone, Copy, Debug)]
pub struct RateLimitSetting(pub(super) Option<RateLimit>);

/// What may wait while the server is unreachable; as text `events,bytes,time`, such as `100000,64MiB,10s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Events.
    pub events: usize,
    /// Their bytes.
    pub bytes: usize,
    /// How long one may wait.
    pub time: Duration,
}

impl FromStr for Buffer {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',').map(str::trim);
        let mut next = || parts.next().ok_or(ValueError::Buffer);
        let events = next()?.parse().ok().filter(|n| *n > 0).ok_or(ValueError::Buffer)?;
        let bytes = bytes(next()?).filter(|n| *n > 0).ok_or(ValueError::Buffer)?;
        let time: Millis = next()?.parse().map_err(|_| ValueError::Buffer)?;
        if parts.next().is_some() {
            return Err(ValueError::Buffer);
        }
        Ok(Self { events, bytes, time: time.into() })
    }
}

/// A number of bytes, such as `65536`, `64KiB` or `64MiB`.
fn bytes(text: &str) -> Option<usize> {
    const UNITS: [(&str, u32); 3] = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = UNITS.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)));
    let (number, bits) = unit.unwrap_or((text, 0));
    number.trim().parse::<usize>().ok()?.checked_mul(1 << bits)
}

/// A range of addresses, such as `10.0.0.0/8`; a single address is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is in the range. An IPv4 address and its IPv6-mapped form are the same.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ValueError::Network)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|n| *n <= most).ok_or(ValueError::Network)?,
            None => most,
        };
        Ok(Self { address, bits })
    }
}

/// Networks separated by commas.
#[derive(Clone, Debug, Default)]
pub struct Networks(pub(super) Vec<Network>);

impl FromStr for Networks {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        list(text).map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Origins separated by commas.
#[derive(Clone, Debug, Default)]
pub struct Origins(pub(super) Vec<String>);

impl FromStr for Origins {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        list(text).map(origin).collect::<Result<_, _>>().map(Self)
    }
}

/// The parts of a list; `none` and an empty text are the empty list.
fn list(text: &str) -> impl Iterator<Item = &str> {
    let text = if text == "none" { "" } else { text };
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// An origin as browsers send it: scheme and host in lower case, and a port unless it is the scheme's default.
fn origin(text: &str) -> Result<String, ValueError> {
    let plain = |host: &str| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@\\*".contains(&b))
    };
    let known = |rest: Option<&str>| rest.is_some_and(plain);
    let is_origin = known(text.strip_prefix("https://")) || known(text.strip_prefix("http://"));
    if is_origin && !text.bytes().any(|b| b.is_ascii_uppercase()) {
        Ok(text.to_owned())
    } else {
        Err(ValueError::CorsOrigin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        let holds = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7", "192.0.2.8"));
        assert!(holds("0.0.0.0/0", "203.0.113.9") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("fd00::/8", "fdff::1") && !holds("fd00::/8", "fe00::1"));
        assert!(holds("::/0", "::1") && holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "host", "10.0.0.0/"] {
            assert_eq!(bad.parse::<Network>(), Err(ValueError::Network), "{bad}");
        }
    }

    #[test]
    fn bounds_are_read_as_people_write_them() {
        let buffer: Buffer = "1000, 2MiB, 5s".parse().unwrap();
        let expected = Buffer { events: 1000, bytes: 2 << 20, time: Duration::from_secs(5) };
        assert_eq!(buffer, expected);
        for bad in ["", "1000", "1000,1MiB", "0,1,1s", "1,1,5", "1,1MB,1s", "1,1,1s,1"] {
            assert_eq!(bad.parse::<Buffer>(), Err(ValueError::Buffer), "{bad}");
        }
        let limit = |text: &str| rate_limit(text).map(|RateLimitSetting(limit)| limit);
        assert_eq!(limit("off"), Ok(None));
        assert_eq!(limit("5"), Ok(Some(RateLimit { per_second: 5, burst: 5 })));
        assert_eq!(limit("5:20"), Ok(Some(RateLimit { per_second: 5, burst: 20 })));
        for bad in ["", "0", "5:", ":5", "-1", "5:0", "5/s"] {
            assert_eq!(limit(bad), Err(ValueError::RateLimit), "{bad}");
        }
    }

    #[test]
    fn origins_are_what_browsers_send() {
        let Origins(two) = "https://app.example, http://localhost:5173".parse().unwrap();
        assert_eq!(two, ["https://app.example", "http://localhost:5173"]);
        assert!("none".parse::<Origins>().unwrap().0.is_empty());
        for bad in ["*", "app.example", "https://", "https://a/", "https://A.example", "null"] {
            assert!(bad.parse::<Origins>().is_err(), "{bad}");
        }
    }
}
