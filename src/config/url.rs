//! A Redis URL as it was given, and how it is shown; nothing here ever shows a password.

use std::borrow::Cow;
use std::fmt;

use redis::IntoConnectionInfo as _;

use super::cluster::ClusterUrl;
use super::options::with_literal_plus;
use super::sentinel::SentinelUrl;

/// A text that is never shown: `Debug` prints `***`, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A Redis URL as it was given, possibly with a password; it is shown without.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Secret);

impl RedisUrl {
    /// The whole text, for the one place that reads it.
    pub(super) fn text(&self) -> &str {
        self.0.expose()
    }
}

impl From<String> for RedisUrl {
    fn from(text: String) -> Self {
        Self(Secret(text))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The URL with `***` in place of what may be secret. If the text is not a Redis URL, only the scheme is shown, because
/// the password could be anywhere in it.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &*with_literal_plus(self.0.expose());
        if let Some(url) = SentinelUrl::cut(text).filter(|url| url.login().is_some()) {
            return url.fmt(f);
        }
        if let Some(url) = ClusterUrl::cut(text) {
            return url.fmt(f);
        }
        let valid = text.into_connection_info().is_ok();
        let Some(mut url) = redis::parse_redis_url(text).filter(|_| valid) else {
            let scheme = text.split(':').next().filter(|scheme| SCHEMES.contains(scheme));
            return write!(f, "{}…", scheme.map(|s| format!("{s}:")).unwrap_or_default());
        };
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return f.write_str("…");
        }
        let options = shown_options(url.query_pairs());
        url.set_query((!options.is_empty()).then_some(options.as_str()));
        url.set_fragment(None);
        f.write_str(url.as_str())
    }
}

/// The options of a URL, without those that may be secret.
pub(super) fn shown_options<'u>(
    options: impl Iterator<Item = (Cow<'u, str>, Cow<'u, str>)>,
) -> String {
    let shown = |(key, value): (Cow<'u, str>, Cow<'u, str>)| match &*key {
        "db" | "protocol" | "user" | "sentinel_username" => format!("{key}={value}"),
        "pass" | "sentinel_password" => format!("{key}=***"),
        _ => "***".to_owned(),
    };
    options.map(shown).collect::<Vec<_>>().join("&")
}

const SCHEMES: [&str; 11] = [
    "redis",
    "rediss",
    "unix",
    "redis+unix",
    "valkey",
    "valkeys",
    "valkey+unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
];
