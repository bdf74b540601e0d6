//! URLs that name a master through its sentinels. Redis-Sentinel-Url introduced the grammar; redisvl, LangChain and
//! Prefect read it too.
//!
//! ```text
//! redis+sentinel://[user:password@]sentinel[:port][,…]/master[/db][?sentinel_username=…&sentinel_password=…]
//! ```
//!
//! User, password and database are those of the data servers. `rediss+sentinel` uses TLS for them and for the
//! sentinels.

use std::fmt;

use redis::{ConnectionInfo, IntoConnectionInfo as _};

use super::hosts::Hosts;
use super::options::Target;
use super::server::ServerError;

/// Follows the scheme of the data servers in every such URL.
const MARK: &str = "+sentinel://";
const DEFAULT_PORT: u16 = 26379;
const USERNAME: &str = "sentinel_username";
const PASSWORD: &str = "sentinel_password";

/// The sentinels that know where the master is.
#[derive(Clone, Debug)]
pub struct Sentinels {
    /// The name by which the sentinels know the master.
    pub master: String,
    /// The sentinels in the order in which to ask them, with their own credentials.
    pub nodes: Vec<ConnectionInfo>,
}

/// Such a URL.
pub(super) struct SentinelUrl<'u> {
    url: Hosts<'u>,
    master: &'u str,
}

impl<'u> SentinelUrl<'u> {
    /// Whether the text begins with such a scheme.
    pub(super) fn is_one(text: &str) -> bool {
        Hosts::is_one(text, MARK)
    }

    /// Cuts the text; `None` if it is not such a URL.
    pub(super) fn cut(text: &'u str) -> Option<Self> {
        let mut url = Hosts::cut(text, MARK)?;
        let (master, db) = url.path.split_once('/').unwrap_or((url.path, ""));
        // What a sentinel accepts as a name.
        let is_named = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let named = !master.is_empty() && master.chars().all(is_named);
        url.db = db;
        let url = Self { url, master };
        (named && url.nodes().is_some()).then_some(url)
    }

    /// Checks that it has only options that exist.
    ///
    /// # Errors
    /// See [`Hosts::check`].
    pub(super) fn check(&self) -> Result<(), ServerError> {
        self.url.check(Target::Master, ServerError::SentinelUrl)
    }

    /// How to log in to the data servers, wherever they are. The address is the first sentinel's.
    pub(super) fn login(&self) -> Option<ConnectionInfo> {
        self.url.first()
    }

    /// The master's name, and the sentinels to ask.
    pub(super) fn sentinels(&self) -> Option<Sentinels> {
        Some(Sentinels { master: self.master.to_owned(), nodes: self.nodes()? })
    }

    fn nodes(&self) -> Option<Vec<ConnectionInfo>> {
        let options = redis::parse_redis_url(&self.url.plain())?;
        let option = |name| {
            let found = options.query_pairs().find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned())
        };
        let (username, password) = (option(USERNAME), option(PASSWORD));
        if username.is_some() && password.is_none() {
            return None;
        }
        let node = |host: &&str| {
            let url = redis::parse_redis_url(&format!("{}://{host}", self.url.scheme))?;
            let port = url.port().unwrap_or(DEFAULT_PORT);
            let bare = url.username().is_empty() && url.password().is_none();
            let host = url.host_str().filter(|_| bare && url.path().is_empty())?;
            let url = format!("{}://{host}:{port}", self.url.scheme);
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
        self.url.hosts.iter().map(node).collect()
    }
}

/// The URL with `***` in place of the passwords.
impl fmt::Display for SentinelUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // After the digits there could be a part of a password.
        let db: String = self.url.db.chars().take_while(char::is_ascii_digit).collect();
        let db = if db.is_empty() { db } else { format!("/{db}") };
        self.url.show(f, &format!("/{}{db}", self.master))
    }
}
