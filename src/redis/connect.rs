//! Connections: how they are opened, and how long they wait.
//!
//! Each loop has its own; a worker has one more for reads that block ([`feed`](super::feed)), because such
//! a read holds its connection. A partition lives in one slot, so on a Redis Cluster a plain connection to
//! that slot's node is all it takes: the redirect that the first node answers with is followed once, when
//! connecting. Where sentinels say who the master is, they are asked each time: a master that was demoted
//! refuses to write, or drops its clients, and whoever connects anew comes to its successor. A password that
//! stands in a file is read each time as well.
//!
//! A connection that broke is never replaced under a batch in hand: the server at the other end may have lost
//! what the batch was read from. So one that is idle is kept alive instead.

use std::io;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisError, RedisResult, Value,
};

use super::{login, reply};
use crate::config::{Sentinels, Server};
use crate::error::Error;

/// How long opening a connection may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a sentinel has to be reached, and then to answer, before the next one is asked.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long sent data may stay unacknowledged before the connection counts as dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// What is tried before anything else.
pub(super) const CONNECTING: &str = "connecting to";
/// How long a connection may be idle: shorter than the least time, two seconds, after which servers end one.
pub const MOST_IDLE: Duration = Duration::from_secs(1);
/// Redirects to follow before giving up.
const MAX_REDIRECTS: usize = 5;

/// A server, or one node of a Cluster, and a connection to it.
#[derive(Clone)]
pub struct Node {
    /// Where it is, and who we are there.
    pub info: ConnectionInfo,
    /// The connection.
    pub connection: MultiplexedConnection,
}

/// Opens a connection to the node that holds `key`. Replies may take `response_timeout`.
///
/// # Errors
/// If the server cannot be reached or refuses the credentials, its password file cannot be read, or no sentinel
/// leads to a master.
pub async fn connect(
    server: &Server,
    key: &str,
    response_timeout: Duration,
) -> Result<MultiplexedConnection, Error> {
    Ok(locate(server, key, response_timeout).await?.connection)
}

/// As [`connect`], and says which node it is.
///
/// # Errors
/// Those of [`connect`].
pub async fn locate(server: &Server, key: &str, response_timeout: Duration) -> Result<Node, Error> {
    let info = server.current().map_err(|source| Error::PasswordFile {
        path: server.password_file.clone().unwrap_or_default(),
        source,
    })?;
    match &server.sentinels {
        None => connect_to(&info, key, response_timeout).await,
        Some(sentinels) => follow(sentinels, &info, key, response_timeout).await,
    }
}

/// Uses a connection that nobody needs just now: some servers and proxies end one that is idle, and whoever sends
/// the next batch would be the one to find out. `key` lies at this node.
///
/// # Errors
/// If the connection has ended all the same.
pub async fn keep_alive(connection: &mut MultiplexedConnection, key: &str) -> Result<(), Error> {
    let exists = redis::cmd("EXISTS").arg(key).query_async(connection).await;
    exists.map_err(Error::at("keeping an idle connection"))
}

/// Asks one sentinel after the other until one names a server that is indeed a master.
async fn follow(
    sentinels: &Sentinels,
    info: &ConnectionInfo,
    key: &str,
    response_timeout: Duration,
) -> Result<Node, Error> {
    let mut tried = Vec::new();
    let mut failed = Vec::new();
    for sentinel in &sentinels.nodes {
        let outcome = match ask_for_master(sentinel, &sentinels.master).await {
            Ok(master) if failed.contains(&master) => continue,
            Ok(master) => {
                let at_master = redirected(info, &master);
                failed.push(master);
                connect_to_master(&at_master, key, response_timeout).await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(node) => return Ok(node),
            Err(error) => tried.push((sentinel.addr().to_string(), error)),
        }
    }
    Err(Error::NoMaster { master: sentinels.master.clone(), tried })
}

/// Where a sentinel says that the master is, as `host:port` (`SENTINEL GET-MASTER-ADDR-BY-NAME`).
async fn ask_for_master(sentinel: &ConnectionInfo, name: &str) -> Result<String, Error> {
    const STEP: &str = "asking for the master";
    let mut connection = open(sentinel, SENTINEL_TIMEOUT, SENTINEL_TIMEOUT).await?;
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let value: Value = ask.query_async(&mut connection).await.map_err(Error::at(STEP))?;
    if value == Value::Nil {
        return Err(Error::UnknownMaster);
    }
    let unexpected = reply::unexpected(STEP, &value);
    let parts: Option<Vec<String>> =
        reply::array(value).and_then(|parts| parts.into_iter().map(reply::text).collect());
    match parts.as_deref() {
        Some([host, port]) => Ok(format!("{host}:{port}")),
        _ => Err(unexpected),
    }
}

/// Connects, and makes sure that it is a master: a sentinel may be behind. `HELLO` says what `ROLE`
/// does, and everyone has the right to it.
async fn connect_to_master(
    info: &ConnectionInfo,
    key: &str,
    response_timeout: Duration,
) -> Result<Node, Error> {
    const STEP: &str = "asking for the role of";
    let mut node = connect_to(info, key, response_timeout).await?;
    let address = || info.addr().to_string();
    let value: Value = redis::cmd("HELLO")
        .query_async(&mut node.connection)
        .await
        .map_err(Error::of_server(STEP, address()))?;
    let unexpected = reply::unexpected(STEP, &value);
    let mut about = reply::pairs(value).unwrap_or_default().into_iter();
    let role = about.find_map(|(name, value)| {
        reply::text(name).filter(|name| name == "role").and_then(|_| reply::text(value))
    });
    match role.as_deref() {
        Some("master") => Ok(node),
        Some(role) => Err(Error::Role { address: info.addr().to_string(), role: role.to_owned() }),
        None => Err(unexpected),
    }
}

/// Connects to the node that holds `key`, beginning at one address.
async fn connect_to(
    info: &ConnectionInfo,
    key: &str,
    response_timeout: Duration,
) -> Result<Node, Error> {
    let mut info = info.clone();
    for _ in 0..MAX_REDIRECTS {
        let mut connection = open(&info, CONNECT_TIMEOUT, response_timeout).await?;
        let probe = redis::cmd("EXISTS").arg(key).query_async::<i64>(&mut connection).await;
        match probe {
            Err(error) if error.redirect_node().is_some() => {
                info = redirected(&info, error.redirect_node().map_or("", |(node, _)| node));
            }
            // A producer may do nothing but add: it is told so when it tries more.
            Err(error) if error.code() == Some("NOPERM") => return Ok(Node { info, connection }),
            Err(error) => return Err(failed(&info, "the first command to", error).await),
            Ok(_) => return Ok(Node { info, connection }),
        }
    }
    Err(Error::Reply { step: "connecting", found: "one redirect after another".to_owned() })
}

/// Opens a connection to that very node which subscribes to a channel (`SUBSCRIBE`).
///
/// # Errors
/// If the server cannot be reached or refuses.
pub async fn subscribe(info: &ConnectionInfo, channel: &str) -> Result<PubSub, Error> {
    let client = Client::open(with_tcp_settings(info))
        .map_err(Error::at("reading the address of the server"))?;
    let mut subscription = client.get_async_pubsub().await.map_err(Error::at("connecting"))?;
    subscription.subscribe(channel).await.map_err(Error::at("subscribing"))?;
    Ok(subscription)
}

pub(super) async fn open(
    info: &ConnectionInfo,
    connect_timeout: Duration,
    response_timeout: Duration,
) -> Result<MultiplexedConnection, Error> {
    match try_to_open(info, connect_timeout, response_timeout).await {
        Ok(connection) => Ok(connection),
        Err(error) => Err(failed(info, CONNECTING, error).await),
    }
}

async fn try_to_open(
    info: &ConnectionInfo,
    connect_timeout: Duration,
    response_timeout: Duration,
) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect_timeout))
        .set_response_timeout(Some(response_timeout));
    let client = Client::open(login::without_login(&with_tcp_settings(info)))?;
    let opened = async {
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        login::log_in(&mut connection, info.redis_settings()).await?;
        Ok(connection)
    };
    tokio::time::timeout(connect_timeout, opened)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// The error that something failed with this very server, for the reason that the server itself gives.
pub(super) async fn failed(info: &ConnectionInfo, step: &'static str, error: RedisError) -> Error {
    let was_ended = error.is_connection_dropped() && !error.is_connection_refusal();
    let reason = if was_ended { login::reason(info).await } else { None };
    Error::of_server(step, info.addr().to_string())(reason.unwrap_or(error))
}

pub(super) fn with_tcp_settings(info: &ConnectionInfo) -> ConnectionInfo {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5));
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED);
    info.clone().set_tcp_settings(settings)
}

/// The same server settings at another node, given as `host:port`; an empty host means the same one.
fn redirected(info: &ConnectionInfo, node: &str) -> ConnectionInfo {
    let (host, port) = node.rsplit_once(':').unwrap_or((node, ""));
    let port = port.parse().unwrap_or(6379);
    let host = |same: &str| if host.is_empty() { same.to_owned() } else { host.to_owned() };
    let addr = match info.addr() {
        ConnectionAddr::TcpTls { host: same, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host: host(same),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        ConnectionAddr::Tcp(same, _) => ConnectionAddr::Tcp(host(same), port),
        other => other.clone(),
    };
    info.clone().set_addr(addr)
}
