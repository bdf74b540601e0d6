//! Where Redis is and how to log in. Nothing here ever shows a password.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use redis::{ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};

use super::cluster::ClusterUrl;
use super::known::{Known, Place};
use super::options::{self, Target, with_literal_plus};
use super::sentinel::{SentinelUrl, Sentinels};
use super::tls::TlsFiles;
use super::url::{RedisUrl, Secret};

/// Characters that would end a password in a URL.
const ENCODED: &str =
    "in a password, write % as %25, / as %2F, @ as %40, # as %23, ? as %3F and & as %26";

/// Why a server cannot be reached this way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Not a URL that the Redis client takes.
    #[error(
        "not a Redis URL; write redis://[user:password@]host[:port][/db], rediss://… for TLS or \
         unix:/path[?db=0&user=…&pass=…]; redis+sentinel://… to follow a master, redis+cluster://… for a Cluster; \
         {ENCODED}"
    )]
    Url,
    /// Not a URL of sentinels, though it begins like one.
    #[error(
        "not a URL of sentinels; write redis+sentinel://[user:password@]sentinel[:26379][,sentinel…]/master[/db], \
         rediss+sentinel://… for TLS, and behind it ?sentinel_password=… or \
         ?sentinel_username=…&sentinel_password=… if sentinels want a login; {ENCODED}"
    )]
    SentinelUrl,
    /// Not a URL of a Cluster's nodes, though it begins like one.
    #[error(
        "not a URL of a Cluster; write redis+cluster://[user:password@]node[:6379][,node…] without a database, or \
         rediss+cluster://… for TLS; {ENCODED}"
    )]
    ClusterUrl,
    /// An option that other clients have.
    #[error("{name} is not an option of this URL and would be ignored; {place}")]
    Option {
        /// The option.
        name: String,
        /// What to write in its place.
        place: &'static str,
    },
    /// An option that no client has. Its name may be a part of a password, so it is not shown.
    #[error(
        "the URL has an unknown option{}; the options are {known}; {ENCODED}",
        nearest.as_ref().map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
    )]
    UnknownOption {
        /// An option that looks like it.
        nearest: Option<String>,
        /// The options of such a URL.
        known: String,
    },
    /// An option that is given twice, so that one would be ignored.
    #[error("the URL has the option {0} twice; keep one of them")]
    OptionTwice(&'static str),
    /// An option whose value could not be used as it is.
    #[error("the value of the option {0} is not UTF-8 after percent-decoding")]
    OptionText(&'static str),
    /// A protocol that the client does not know.
    #[error("protocol must be resp2 or resp3; Rollcall always speaks RESP2, so remove it")]
    Protocol,
    /// A fragment after `#`, which would be ignored.
    #[error("the URL must end before #; {ENCODED}")]
    Fragment,
    /// A login in front of the path of a socket, which would be ignored.
    #[error(
        "unix: takes only a path, without user, password and port before it; write the login as \
         ?user=…&pass=…, or use --redis-username and --redis-password-file"
    )]
    SocketLogin,
    /// TLS without verification, which this build does not have.
    #[error(
        "certificates are always verified; remove #insecure and name the server's authority with --redis-tls-ca"
    )]
    Insecure,
    /// A user name both in the URL and beside it.
    #[error("redis-url contains a user too; keep one of them")]
    TwoUsernames,
    /// A password both in the URL and beside it.
    #[error("redis-url contains a password too; keep one of them")]
    TwoPasswords,
    /// A user name that would never be sent.
    #[error(
        "a user needs a password to log in; set redis-password or redis-password-file \
         (any text for a user with nopass)"
    )]
    NoPassword,
}

/// Where the data is: at an address, at the master that sentinels know, or on the nodes of a Cluster.
#[derive(Clone, Debug)]
pub struct Server {
    /// How to connect, including credentials. With sentinels the address changes with the master; on a Cluster it is
    /// that of the first named node.
    pub info: ConnectionInfo,
    /// The other named nodes of the Cluster.
    pub others: Vec<Place>,
    /// What this process has learned of the Cluster, if it is one.
    pub known: Known,
    /// Who knows where the master is.
    pub sentinels: Option<Sentinels>,
    /// The file with the password, if it may change while the process runs.
    pub password_file: Option<PathBuf>,
    /// The settings of TLS, used if the address asks for it.
    pub tls: Arc<TlsFiles>,
}

/// One server's address, with login and TLS.
#[derive(Clone, Debug)]
pub struct Address {
    /// The address and the login.
    pub info: ConnectionInfo,
    /// The settings of TLS, if the address asks for it.
    pub tls: Arc<TlsFiles>,
}

impl Server {
    /// How to connect now, with the current content of the password file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn current(&self) -> io::Result<Address> {
        let (info, tls) = (self.info.clone(), self.tls.clone());
        let Some(path) = &self.password_file else { return Ok(Address { info, tls }) };
        let login = info.redis_settings().clone();
        let login = login.set_password(read_password(path)?.expose());
        Ok(Address { info: info.set_redis_settings(login), tls })
    }

    fn read(url: &RedisUrl) -> Result<Self, ServerError> {
        // The client's own error may quote parts of the URL, so it is not passed on.
        let text = &*with_literal_plus(url.text());
        if SentinelUrl::is_one(text) {
            let url = SentinelUrl::cut(text).ok_or(ServerError::SentinelUrl)?;
            url.check()?;
            let login = url.login().zip(url.sentinels());
            let (info, sentinels) = login.ok_or(ServerError::SentinelUrl)?;
            return Ok(Self { sentinels: Some(sentinels), ..Self::at(info) });
        }
        if ClusterUrl::is_one(text) {
            let url = ClusterUrl::cut(text).ok_or(ServerError::ClusterUrl)?;
            url.check()?;
            let (first, others) = url.login().zip(url.others()).ok_or(ServerError::ClusterUrl)?;
            let server = Self { others, ..Self::at(first) };
            server.known.set_cluster(true);
            return Ok(server);
        }
        let url = redis::parse_redis_url(text).ok_or(ServerError::Url)?;
        let target = Target::of(url.scheme());
        options::check(target, url.fragment(), url.query_pairs())?;
        let has_login = !url.username().is_empty() || url.password().is_some();
        if target == Target::Socket && (has_login || url.port().is_some()) {
            return Err(ServerError::SocketLogin);
        }
        let info = url.into_connection_info().map_err(|_| ServerError::Url)?;
        Ok(Self::at(info))
    }

    /// A single server at this address.
    pub fn at(info: ConnectionInfo) -> Self {
        Self {
            info,
            others: Vec::new(),
            known: Known::default(),
            sentinels: None,
            password_file: None,
            tls: Arc::default(),
        }
    }
}

/// The password in a file: its text without one trailing newline.
pub(super) fn read_password(path: &Path) -> io::Result<Secret> {
    let text = fs::read_to_string(path)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned().into())
}

/// A server and the credentials for it, checked.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    url: RedisUrl,
    server: Server,
}

impl RedisConfig {
    /// The server at `url`, with the user and password given beside it, if any.
    ///
    /// # Errors
    /// If the URL is invalid, or user and password contradict it or each other.
    pub fn new(
        url: RedisUrl,
        username: Option<&str>,
        password: Option<&Secret>,
    ) -> Result<Self, ServerError> {
        let server = Server::read(&url)?;
        // RESP3 would bring nothing, and a server that does not know HELLO repeats the password in its error.
        let login = server.info.redis_settings().clone();
        let mut login = login.set_protocol(ProtocolVersion::RESP2);
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
        let info = server.info.clone().set_redis_settings(login);
        Ok(Self { url, server: Server { info, ..server } })
    }

    /// The same, with the password read from this file whenever a connection is opened. Anything but a regular file,
    /// such as a pipe, can be read only once and is not read again.
    pub fn with_password_file(mut self, path: &Path) -> Self {
        self.server.password_file = path.is_file().then(|| path.to_owned());
        self
    }

    /// The same, with these settings of TLS.
    pub fn with_tls(mut self, tls: TlsFiles) -> Self {
        self.server.tls = Arc::new(tls);
        self
    }

    /// What is needed to connect, including credentials.
    pub fn server(&self) -> Server {
        self.server.clone()
    }

    /// The URL as it may be shown, without its password.
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
            ("redis+sentinel://h/m", "redis+sentinel://h/m"),
            (
                "rediss+sentinel://al:hunter2@[::1],h:1/m.y/2?sentinel_username=s&sentinel_password=hunter2",
                "rediss+sentinel://al:***@[::1],h:1/m.y/2?sentinel_username=s&sentinel_password=***",
            ),
            ("redis+sentinel://:hunter2@h/m/0#hunter2", "redis+sentinel://:***@h/m/0"),
            ("redis+sentinel://:hun/ter2@h/m", "redis+sentinel:…"),
            ("redis+sentinel://h:hunter2/m", "redis+sentinel:…"),
            ("redis+sentinel://h/hunter2 /0", "redis+sentinel:…"),
            ("redis+sentinel://h/m?hunter2=1", "redis+sentinel://h/m?***"),
            ("unix:/run/r.sock?pass=a&hunter2=1", "unix:/run/r.sock?pass=***&***"),
            ("unix://al:hunter2@localhost/run/r.sock", "unix://al:***@localhost/run/r.sock"),
            ("redis://alice:6379?hunter2@host", "redis://alice:6379?***"),
            ("redis://alice:6379#hunter2@host", "redis://alice:6379"),
        ] {
            assert_eq!(url(text).to_string(), shown);
            let debug = format!("{:?} {:?}", url(text), RedisConfig::new(url(text), None, None));
            assert!(!debug.contains("hunter2"), "{debug}");
        }
    }

    #[test]
    fn a_master_can_be_named_through_its_sentinels() {
        let text = "redis+sentinel://al:p%40ss@s1,[::1]:7000/my-master/3?sentinel_username=sen&sentinel_password=t%26nel";
        let Server { info, sentinels, .. } =
            RedisConfig::new(url(text), None, None).unwrap().server();
        let login = info.redis_settings();
        assert_eq!((login.username(), login.password()), (Some("al"), Some("p@ss")));
        assert_eq!(login.db(), 3);
        let Sentinels { master, nodes } = sentinels.unwrap();
        assert_eq!(master, "my-master");
        let addresses: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
        assert_eq!(addresses, ["s1:26379", "::1:7000"]);
        for node in &nodes {
            let login = node.redis_settings();
            assert_eq!((login.username(), login.password()), (Some("sen"), Some("t&nel")));
            assert_eq!(login.db(), 0);
        }
        let tls = "rediss+sentinel://s1/m";
        let Server { info, sentinels, .. } =
            RedisConfig::new(url(tls), None, None).unwrap().server();
        let is_tls = |info: &ConnectionInfo| {
            matches!(info.addr(), redis::ConnectionAddr::TcpTls { insecure: false, .. })
        };
        assert!(is_tls(&info) && sentinels.unwrap().nodes.iter().all(is_tls));
        for bad in [
            "redis+sentinel://s1",
            "redis+sentinel://s1/",
            "redis+sentinel:///m",
            "redis+sentinel://s1,/m",
            "redis+sentinel://s1:x/m",
            "redis+sentinel://s1,al:pw@s2:1:2/m",
            "redis+sentinel://s1/m/x",
            "redis+sentinel://s1/m/0/1",
            "redis+sentinel://s1/my master",
            "redis+sentinel://s1/m?sentinel_username=alone",
        ] {
            let error = RedisConfig::new(url(bad), None, None).unwrap_err();
            assert_eq!(error, ServerError::SentinelUrl, "{bad}");
        }
        let insecure = RedisConfig::new(url("rediss+sentinel://s1/m/0#insecure"), None, None);
        assert_eq!(insecure.unwrap_err(), ServerError::Insecure);
    }

    #[test]
    fn credentials_come_from_the_url_or_from_beside_it_but_not_from_both() {
        let secret = Secret::from("hunter2".to_owned());
        let with = |text, user, password| RedisConfig::new(url(text), user, password);
        let config = with("redis://host", Some("alice"), Some(&secret)).unwrap();
        assert_eq!(config.server().info.redis_settings().username(), Some("alice"));
        assert_eq!(config.server().info.redis_settings().password(), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
        let config = with("redis://alice:p%40ss@host", None, None).unwrap();
        assert_eq!(config.server().info.redis_settings().password(), Some("p@ss"));
        for (text, user, password, error) in [
            ("redis://a:b@host", Some("alice"), None, ServerError::TwoUsernames),
            ("redis://a:b@host", None, Some(&secret), ServerError::TwoPasswords),
            ("redis://host", Some("alice"), None, ServerError::NoPassword),
            ("redis://alice@host", None, None, ServerError::NoPassword),
            ("rediss://host#insecure", None, None, ServerError::Insecure),
            ("unix://al:b@localhost/r.sock", None, None, ServerError::SocketLogin),
            ("unix://localhost:6379/r.sock", None, None, ServerError::SocketLogin),
        ] {
            assert_eq!(with(text, user, password).unwrap_err(), error);
        }
        for bad in [
            "",
            "localhost:6379",
            "redis://",
            "http://host",
            "redis://host/x",
            "redis://:a#b@host",
            "redis://:a?b@host",
            "redis://:a/b@host",
        ] {
            let error = with(bad, None, None).unwrap_err();
            assert_eq!(error, ServerError::Url, "{bad}");
            assert!(error.to_string().contains("# as %23, ? as %3F"), "{error}");
        }
    }
}
