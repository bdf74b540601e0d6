//! What URLs that name several hosts have in common: the sentinels of a master, or some nodes of a Cluster.
//!
//! ```text
//! redis<mark>[user:password@]host[:port][,…][/path][?options]
//! ```

use std::fmt;

use redis::{ConnectionInfo, IntoConnectionInfo as _};

use super::options::{self, Target};
use super::server::ServerError;
use super::url::shown_options;

/// Such a URL, split into its parts.
pub(super) struct Hosts<'u> {
    /// `redis` or `rediss`.
    pub(super) scheme: &'u str,
    mark: &'static str,
    login: &'u str,
    /// At least one host, each with or without a port.
    pub(super) hosts: Vec<&'u str>,
    /// The part after the hosts, without the first slash.
    pub(super) path: &'u str,
    /// The database in a plain URL of one of the hosts; empty for the default.
    pub(super) db: &'u str,
    query: &'u str,
}

impl<'u> Hosts<'u> {
    /// Whether the text begins with such a scheme and this mark.
    pub(super) fn is_one(text: &str, mark: &str) -> bool {
        ["redis", "rediss"].iter().any(|scheme| text.starts_with(&format!("{scheme}{mark}")))
    }

    /// Splits the text; `None` if it has no such scheme.
    pub(super) fn cut(text: &'u str, mark: &'static str) -> Option<Self> {
        let (scheme, rest) = text.split_once(mark).filter(|_| Self::is_one(text, mark))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        Some(Self { scheme, mark, login, hosts: hosts.split(',').collect(), path, db: "", query })
    }

    /// The plain URL of the first host.
    pub(super) fn plain(&self) -> String {
        let Self { scheme, login, hosts, db, query, .. } = self;
        let login = if login.is_empty() { String::new() } else { format!("{login}@") };
        let options = if query.is_empty() { String::new() } else { format!("?{query}") };
        format!("{scheme}://{login}{}/{db}{options}", hosts[0])
    }

    /// Checks that its options exist for the target. The error is `wrong` if it is not a URL.
    pub(super) fn check(&self, target: Target, wrong: ServerError) -> Result<(), ServerError> {
        let plain = redis::parse_redis_url(&self.plain()).ok_or(wrong)?;
        options::check(target, plain.fragment(), plain.query_pairs())
    }

    /// How to connect to the first host, and to log in to all servers of the URL.
    pub(super) fn first(&self) -> Option<ConnectionInfo> {
        self.plain().into_connection_info().ok()
    }

    /// Writes it with this path, and with `***` in place of the passwords.
    pub(super) fn show(&self, f: &mut fmt::Formatter<'_>, path: &str) -> fmt::Result {
        let Some(plain) = redis::parse_redis_url(&self.plain()) else { return f.write_str("…") };
        write!(f, "{}{}", self.scheme, self.mark)?;
        match (plain.username(), plain.password()) {
            ("", None) => {}
            (user, None) => write!(f, "{user}@")?,
            (user, Some(_)) => write!(f, "{user}:***@")?,
        }
        write!(f, "{}{path}", self.hosts.join(","))?;
        if !self.query.is_empty() {
            write!(f, "?{}", shown_options(plain.query_pairs()))?;
        }
        Ok(())
    }
}
