//! URLs that name nodes of a Cluster:
//!
//! ```text
//! redis+cluster://[user:password@]host[:port][,host[:port]…]
//! ```
//!
//! User and password are those of every node. With `rediss+cluster` all nodes speak TLS. A Cluster has one database,
//! so there is no path.

use std::fmt;

use redis::{ConnectionInfo, IntoConnectionInfo as _};

use super::hosts::Hosts;
use super::known::Place;
use super::options::Target;
use super::server::ServerError;

/// Follows the scheme of the nodes in every such URL.
const MARK: &str = "+cluster://";

/// Such a URL.
pub(super) struct ClusterUrl<'u>(Hosts<'u>);

impl<'u> ClusterUrl<'u> {
    /// Whether the text begins with such a scheme.
    pub(super) fn is_one(text: &str) -> bool {
        Hosts::is_one(text, MARK)
    }

    /// Cuts the text; `None` if it is not such a URL.
    pub(super) fn cut(text: &'u str) -> Option<Self> {
        let url = Self(Hosts::cut(text, MARK)?);
        let is_good = url.0.path.is_empty() && redis::parse_redis_url(&url.0.plain()).is_some();
        (is_good && url.places().is_some()).then_some(url)
    }

    /// Checks that it has only options that exist.
    ///
    /// # Errors
    /// See [`Hosts::check`].
    pub(super) fn check(&self) -> Result<(), ServerError> {
        self.0.check(Target::Cluster, ServerError::ClusterUrl)
    }

    /// How to connect to the first node.
    pub(super) fn login(&self) -> Option<ConnectionInfo> {
        self.0.first()
    }

    /// Where the other nodes are.
    pub(super) fn others(&self) -> Option<Vec<Place>> {
        Some(self.places()?.split_off(1))
    }

    fn places(&self) -> Option<Vec<Place>> {
        let place = |host: &&str| {
            let url = redis::parse_redis_url(&format!("{}://{host}", self.0.scheme))?;
            let bare = url.username().is_empty() && url.password().is_none();
            let is_alone = bare && url.path().is_empty() && url.fragment().is_none();
            let info = url.clone().into_connection_info().ok().filter(|_| is_alone)?;
            Place::of(info.addr())
        };
        self.0.hosts.iter().map(place).collect()
    }
}

/// The URL with `***` in place of the password.
impl fmt::Display for ClusterUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show(f, "")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RedisConfig, RedisUrl, Secret, ServerError};

    fn config(text: &str) -> Result<RedisConfig, ServerError> {
        RedisConfig::new(RedisUrl::from(text.to_owned()), None, None)
    }

    #[test]
    fn a_cluster_is_named_by_some_of_its_nodes() {
        let server = config("redis+cluster://al:p%40ss@a,[::1]:7000,c:7001").unwrap().server();
        let login = server.info.redis_settings();
        assert_eq!((login.username(), login.password()), (Some("al"), Some("p@ss")));
        assert_eq!(server.info.addr().to_string(), "a:6379");
        let others: Vec<String> = server.others.iter().map(ToString::to_string).collect();
        assert_eq!(others, ["::1:7000", "c:7001"]);
        assert_eq!(server.known.is_cluster(), Some(true));
        let tls = config("rediss+cluster://a:1,b:2/").unwrap().server();
        assert!(matches!(tls.info.addr(), redis::ConnectionAddr::TcpTls { insecure: false, .. }));
        for bad in [
            "redis+cluster://",
            "redis+cluster://a,",
            "redis+cluster://,a",
            "redis+cluster://a:x",
            "redis+cluster://a,b/1",
            "redis+cluster://a,al:hunter2@b:1:2",
            "redis+cluster://:hun/ter2@a",
        ] {
            assert_eq!(config(bad).unwrap_err(), ServerError::ClusterUrl, "{bad}");
        }
    }

    #[test]
    fn it_is_shown_without_its_password() {
        for (text, shown) in [
            ("redis+cluster://a,b:7000", "redis+cluster://a,b:7000"),
            ("rediss+cluster://al:hunter2@a,b:1", "rediss+cluster://al:***@a,b:1"),
            (
                "redis+cluster://:hunter2@a?protocol=2&hunter2=1",
                "redis+cluster://:***@a?protocol=2&***",
            ),
            ("redis+cluster://a:hunter2", "redis+cluster:…"),
            ("redis+cluster://:hun/ter2@a", "redis+cluster:…"),
        ] {
            let url = RedisUrl::from(text.to_owned());
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?} {:?}", config(text)).contains("hunter2"));
        }
        let url = RedisUrl::from("redis+cluster://a,b".to_owned());
        let secret = Secret::from("hunter2".to_owned());
        let server = RedisConfig::new(url, Some("al"), Some(&secret)).unwrap().server();
        assert_eq!(server.info.redis_settings().password(), Some("hunter2"));
        assert_eq!(server.others.len(), 1);
    }
}
