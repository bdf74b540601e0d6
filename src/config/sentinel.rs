//! URLs that name a master through its sentinels: the grammar that Redis-Sentinel-Url began and
//! redisvl, LangChain and Prefect read too.
//!
//! ```text
//! redis+sentinel://[user:password@]sentinel[:port][,…]/master[/db][?sentinel_username=…&sentinel_password=…]
//! ```
//!
//! User, password and database are those of the data servers. With `rediss+sentinel` both they and
//! the sentinels speak TLS.

use std::fmt;

use redis::{ConnectionInfo, IntoConnectionInfo as _};

use super::options::{self, Target};
use super::server::ServerError;

/// What every such URL has behind the scheme of the data servers.
const MARK: &str = "+sentinel://";
const DEFAULT_PORT: u16 = 26379;
const USERNAME: &str = "sentinel_username";
const PASSWORD: &str = "sentinel_password";

/// Who knows where the master is.
#[derive(Clone, Debug)]
pub struct Sentinels {
    /// The name by which the sentinels know the master.
    pub master: String,
    /// The sentinels, in the order in which to ask them; their own credentials included.
    pub nodes: Vec<ConnectionInfo>,
}

/// Such a URL, cut into what a plain URL of a data server holds and what it does not.
pub(super) struct SentinelUrl<'u> {
    scheme: &'u str,
    hosts: Vec<&'u str>,
    master: &'u str,
    db: &'u str,
    query: &'u str,
    /// The same with the first sentinel in the place of the data server.
    plain: String,
}

impl<'u> SentinelUrl<'u> {
    /// Whether the scheme is one of these.
    pub(super) fn is_one(text: &str) -> bool {
        text.starts_with(&format!("redis{MARK}")) || text.starts_with(&format!("rediss{MARK}"))
    }

    /// Cuts the text; `None` if it is no such URL.
    pub(super) fn cut(text: &'u str) -> Option<Self> {
        let (scheme, rest) = text.split_once(MARK).filter(|_| Self::is_one(text))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/')?;
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let hosts: Vec<&str> = hosts.split(',').collect();
        let (master, db) = path.split_once('/').unwrap_or((path, ""));
        // What a sentinel takes as a name.
        let is_named = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let login = if login.is_empty() { String::new() } else { format!("{login}@") };
        let options = if query.is_empty() { String::new() } else { format!("?{query}") };
        let plain = format!("{scheme}://{login}{}/{db}{options}", hosts[0]);
        let named = !master.is_empty() && master.chars().all(is_named);
        let url = Self { scheme, hosts, master, db, query, plain };
        (named && url.nodes().is_some()).then_some(url)
    }

    /// Holds its options to those that there are.
    ///
    /// # Errors
    /// See [`options::check`].
    pub(super) fn check(&self) -> Result<(), ServerError> {
        let plain = redis::parse_redis_url(&self.plain).ok_or(ServerError::SentinelUrl)?;
        options::check(Target::Master, plain.fragment(), plain.query_pairs())
    }

    /// How to log in to the data servers, wherever they are; the address is the first sentinel's.
    pub(super) fn login(&self) -> Option<ConnectionInfo> {
        self.plain.as_str().into_connection_info().ok()
    }

    /// The master's name, and who to ask for it.
    pub(super) fn sentinels(&self) -> Option<Sentinels> {
        Some(Sentinels { master: self.master.to_owned(), nodes: self.nodes()? })
    }

    fn nodes(&self) -> Option<Vec<ConnectionInfo>> {
        let options = redis::parse_redis_url(&self.plain)?;
        let option = |name| {
            let found = options.query_pairs().find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned())
        };
        let (username, password) = (option(USERNAME), option(PASSWORD));
        if username.is_some() && password.is_none() {
            return None;
        }
        let node = |host: &&str| {
            let url = redis::parse_redis_url(&format!("{}://{host}", self.scheme))?;
            let port = url.port().unwrap_or(DEFAULT_PORT);
            let bare = url.username().is_empty() && url.password().is_none();
            let host = url.host_str().filter(|_| bare && url.path().is_empty())?;
            let url = format!("{}://{host}:{port}", self.scheme);
            let info = url.into_connection_info().ok()?;
            let mut login = info.redis_settings().clone();
            if let Some(password) = &password {
                login = login.set_password(password.as_str());
            }
            if let Some(username) = &username {
                login = login.set_username(username.as_str());
            }
            Some(info.set_redis_settings(login))
        };
        self.hosts.iter().map(node).collect()
    }
}

/// The URL with `***` in place of the passwords.
impl fmt::Display for SentinelUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(plain) = redis::parse_redis_url(&self.plain) else { return f.write_str("…") };
        write!(f, "{}{MARK}", self.scheme)?;
        match (plain.username(), plain.password()) {
            ("", None) => {}
            (user, None) => write!(f, "{user}@")?,
            (user, Some(_)) => write!(f, "{user}:***@")?,
        }
        write!(f, "{}/{}", self.hosts.join(","), self.master)?;
        // Behind a number nothing secret can stand.
        let db: String = self.db.chars().take_while(char::is_ascii_digit).collect();
        if !db.is_empty() {
            write!(f, "/{db}")?;
        }
        if !self.query.is_empty() {
            write!(f, "?{}", super::url::shown_options(plain.query_pairs()))?;
        }
        Ok(())
    }
}
