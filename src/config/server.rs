//! Where Redis is and who we are there; nothing here ever shows a password.

use std::fmt;

use redis::IntoConnectionInfo as _;

/// A text that is never shown: `Debug` gives `***`, and there is no `Display`.
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

/// A Redis URL as it was given, possibly with a password in it; shown without.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Secret);

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

/// The URL with `***` in place of what may be secret. Of a text that is no Redis URL only the
/// scheme is shown: where in it a password stands nobody knows.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.expose();
        let valid = text.into_connection_info().is_ok();
        let Some(mut url) = redis::parse_redis_url(text).filter(|_| valid) else {
            let scheme = text.split(':').next().filter(|scheme| SCHEMES.contains(scheme));
            return write!(f, "{}…", scheme.map(|s| format!("{s}:")).unwrap_or_default());
        };
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return f.write_str("…");
        }
        let query: Vec<String> = url
            .query_pairs()
            .map(|(key, value)| match &*key {
                "db" | "protocol" | "user" => format!("{key}={value}"),
                "pass" => "pass=***".to_owned(),
                _ => "***".to_owned(),
            })
            .collect();
        url.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
        url.set_fragment(None);
        f.write_str(url.as_str())
    }
}

const SCHEMES: [&str; 7] =
    ["redis", "rediss", "unix", "redis+unix", "valkey", "valkeys", "valkey+unix"];

/// Why a server cannot be reached this way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Not a URL that the Redis client takes.
    #[error(
        "not a Redis URL; write redis://[user:password@]host[:port][/db], rediss://… for TLS or \
         unix:/path[?db=0&user=…&pass=…], with %, / and @ in a password percent-encoded"
    )]
    Url,
    /// TLS without verification, which this build does not have.
    #[error("certificates are always verified; remove #insecure and trust the server's authority")]
    Insecure,
    /// A user name both in the URL and beside it.
    #[error("a user stands in redis-url too; keep one of them")]
    TwoUsernames,
    /// A password both in the URL and beside it.
    #[error("a password stands in redis-url too; keep one of them")]
    TwoPasswords,
    /// A user name that would never be sent.
    #[error(
        "a user logs in only with a password; set redis-password or redis-password-file \
         (any text for a user with nopass)"
    )]
    NoPassword,
}

/// A server and the credentials for it, checked.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    url: RedisUrl,
    info: redis::ConnectionInfo,
}

impl RedisConfig {
    /// The server at `url`, with the user and password given beside it, if any.
    ///
    /// # Errors
    /// If the URL is none, or user and password contradict it or each other.
    pub fn new(
        url: RedisUrl,
        username: Option<&str>,
        password: Option<&Secret>,
    ) -> Result<Self, ServerError> {
        // The client's own error may quote parts of the URL: it stops here.
        let info = url.0.expose().into_connection_info().map_err(|_| ServerError::Url)?;
        if matches!(info.addr(), redis::ConnectionAddr::TcpTls { insecure: true, .. }) {
            return Err(ServerError::Insecure);
        }
        let mut login = info.redis_settings().clone();
        if let Some(username) = username {
            if login.username().is_some() {
                return Err(ServerError::TwoUsernames);
            }
            login = login.set_username(username);
        }
        if let Some(password) = password {
            if login.password().is_some() {
                return Err(ServerError::TwoPasswords);
            }
            login = login.set_password(password.expose());
        }
        if login.username().is_some() && login.password().is_none() {
            return Err(ServerError::NoPassword);
        }
        Ok(Self { url, info: info.set_redis_settings(login) })
    }

    /// What the Redis client needs to connect; credentials included.
    pub fn connection_info(&self) -> redis::ConnectionInfo {
        self.info.clone()
    }

    /// The URL without its password, to show.
    pub fn url(&self) -> &RedisUrl {
        &self.url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RedisUrl {
        RedisUrl::from(text.to_owned())
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://alice:hunter2@host/2", "redis://alice:***@host/2"),
            ("rediss://:hunter2@host:6380", "rediss://:***@host:6380"),
            (
                "unix:/run/r.sock?db=1&user=al&pass=hunter2",
                "unix:/run/r.sock?db=1&user=al&pass=***",
            ),
            ("unix:/run/r.sock?hunter2=1", "unix:/run/r.sock?***"),
            ("redis://host#hunter2", "redis://host"),
            ("redis://:hunter2:host", "redis:…"),
            ("redis://alice:hun/ter2@host", "redis:…"),
            ("redis://host/hunter2", "redis:…"),
            ("hunter2", "…"),
            ("http://hunter2", "…"),
        ] {
            assert_eq!(url(text).to_string(), shown);
            let debug = format!("{:?} {:?}", url(text), RedisConfig::new(url(text), None, None));
            assert!(!debug.contains("hunter2"), "{debug}");
        }
    }

    #[test]
    fn credentials_come_from_the_url_or_from_beside_it_but_not_from_both() {
        let secret = Secret("hunter2".to_owned());
        let with = |text, user, password| RedisConfig::new(url(text), user, password);
        let config = with("redis://host", Some("alice"), Some(&secret)).unwrap();
        assert_eq!(config.connection_info().redis_settings().username(), Some("alice"));
        assert_eq!(config.connection_info().redis_settings().password(), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
        let config = with("redis://alice:p%40ss@host", None, None).unwrap();
        assert_eq!(config.connection_info().redis_settings().password(), Some("p@ss"));
        for (text, user, password, error) in [
            ("redis://a:b@host", Some("alice"), None, ServerError::TwoUsernames),
            ("redis://a:b@host", None, Some(&secret), ServerError::TwoPasswords),
            ("redis://host", Some("alice"), None, ServerError::NoPassword),
            ("redis://alice@host", None, None, ServerError::NoPassword),
            ("rediss://host#insecure", None, None, ServerError::Insecure),
        ] {
            assert_eq!(with(text, user, password).unwrap_err(), error);
        }
        for bad in ["", "localhost:6379", "redis://", "http://host", "redis://host/x"] {
            assert!(matches!(with(bad, None, None), Err(ServerError::Url)), "{bad}");
        }
    }
}
