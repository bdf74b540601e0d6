//! Connections: how they are opened, and how long they wait.
//!
//! Each loop has its own connection. A worker has one more for blocking reads ([`feed`](super::feed)), because such a
//! read occupies its connection. A partition is in one slot, so on a Redis Cluster a plain connection to that slot's
//! node is enough; `cluster` finds the node. Sentinels are asked for the master each time (`sentinel`): a demoted
//! master refuses writes or drops its clients, and reconnecting leads to its successor. A password file is read each
//! time as well.
//!
//! A broken connection is never replaced while a batch is in progress: the server at the other end may have lost the
//! entries of the batch. Idle connections are kept alive instead.

use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, ConnectionAddr, ErrorKind, RedisError, RedisResult, ServerErrorKind,
};
use tokio::time::timeout;

use super::dial::{Socket, dial, timed_out};
use super::{cluster, login, sentinel};
use crate::config::{Address, Place, Server};
use crate::error::Error;

/// How long opening a connection may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first step of every connection.
pub(super) const CONNECTING: &str = "connecting to";
/// How long a connection may be idle: less than the two seconds after which some servers close one.
pub const MOST_IDLE: Duration = Duration::from_secs(1);

/// How a node says that it does not have a slot.
pub(super) const MOVED: ErrorKind = ErrorKind::Server(ServerErrorKind::Moved);

/// A server, or one node of a Cluster, and a connection to it.
#[derive(Clone)]
pub struct Node {
    /// Its address and login.
    pub at: Address,
    /// The connection.
    pub connection: MultiplexedConnection,
}

/// Opens a connection to the node that holds `key`. Replies may take `response_timeout`.
///
/// # Errors
/// If the server cannot be reached or refuses the credentials, its password file cannot be read, no sentinel leads to
/// a master, or no node of the Cluster leads to the one with the key.
pub async fn connect(
    server: &Server,
    key: &str,
    response_timeout: Duration,
) -> Result<MultiplexedConnection, Error> {
    Ok(locate(server, key, response_timeout).await?.connection)
}

/// As [`connect`], and returns the node.
///
/// # Errors
/// Those of [`connect`].
pub async fn locate(server: &Server, key: &str, response_timeout: Duration) -> Result<Node, Error> {
    let at = server.current().map_err(|source| Error::PasswordFile {
        path: server.password_file.clone().unwrap_or_default(),
        source,
    })?;
    match &server.sentinels {
        None => cluster::find(server, &at, key, response_timeout).await,
        Some(sentinels) => sentinel::follow(sentinels, &at, key, response_timeout).await,
    }
}

/// Uses a connection that is idle: some servers and proxies close idle connections, and the next batch would be the
/// one to find out. `key` is on this node.
///
/// # Errors
/// If the connection is already closed.
pub async fn keep_alive(connection: &mut MultiplexedConnection, key: &str) -> Result<(), Error> {
    let exists = redis::cmd("EXISTS").arg(key).query_async(connection).await;
    exists.map_err(Error::at("keeping an idle connection"))
}

/// The answer of a node that was asked for a key.
pub(super) enum Asked {
    /// It has the key's slot, or there are no slots.
    Here(Node),
    /// The slot is at another node, `host:port` as the server writes it.
    Elsewhere(Node, String),
}

/// Connects to a node and asks it for `key`.
pub(super) async fn ask_for(
    at: &Address,
    key: &str,
    response_timeout: Duration,
) -> Result<Asked, Error> {
    let at = at.clone();
    let mut connection = open(&at, CONNECT_TIMEOUT, response_timeout).await?;
    let probe = redis::cmd("EXISTS").arg(key).query_async::<i64>(&mut connection).await;
    match probe {
        Err(error) if error.kind() == MOVED => {
            let to = error.redirect_node().map_or("", |(to, _)| to).to_owned();
            Ok(Asked::Elsewhere(Node { at, connection }, to))
        }
        // While the slot migrates, the key may already be on the other node; this one knows when the migration ends.
        Err(error) if error.redirect_node().is_some() => Ok(Asked::Here(Node { at, connection })),
        // A producer may only add; its further attempts are refused later.
        Err(error) if error.code() == Some("NOPERM") => Ok(Asked::Here(Node { at, connection })),
        Err(error) => Err(failed(&at, "the first command to", error).await),
        Ok(_) => Ok(Asked::Here(Node { at, connection })),
    }
}

/// Opens a connection to exactly this node that subscribes to a channel (`SUBSCRIBE`).
///
/// # Errors
/// If the server cannot be reached or refuses.
pub async fn subscribe(at: &Address, channel: &str) -> Result<PubSub, Error> {
    let socket = dial(at).await?;
    let subscription = PubSub::new(at.info.redis_settings(), socket).await;
    let mut subscription = subscription.map_err(Error::at("connecting"))?;
    subscription.subscribe(channel).await.map_err(Error::at("subscribing"))?;
    Ok(subscription)
}

/// Opens a connection to a server.
pub(super) async fn open(
    at: &Address,
    connect_timeout: Duration,
    response_timeout: Duration,
) -> Result<MultiplexedConnection, Error> {
    let opened = async {
        let socket = dial(at).await?;
        match log_in(at, socket, response_timeout).await {
            Ok(connection) => Ok(connection),
            Err(error) => Err(failed(at, CONNECTING, error).await),
        }
    };
    timeout(connect_timeout, opened).await.unwrap_or_else(|_| Err(timed_out(at)))
}

async fn log_in(
    at: &Address,
    socket: Socket,
    response_timeout: Duration,
) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(response_timeout));
    let nobody = login::nobody();
    let (mut connection, driver) =
        MultiplexedConnection::new_with_config(&nobody, socket, config).await?;
    // It ends with the last clone of the connection.
    tokio::spawn(driver);
    login::log_in(&mut connection, at.info.redis_settings()).await?;
    Ok(connection)
}

/// The error that a step failed with this server, with the reason that the server itself gives.
pub(super) async fn failed(at: &Address, step: &'static str, error: RedisError) -> Error {
    let was_ended = error.is_connection_dropped() && !error.is_connection_refusal();
    let reason = if was_ended { login::reason(at).await } else { None };
    reason.unwrap_or_else(|| Error::of_server(step, at.info.addr().to_string())(error))
}

/// The same settings for another node.
pub(super) fn moved(at: &Address, place: &Place) -> Address {
    let (host, port) = (place.host.clone(), place.port);
    let addr = match at.info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    Address { info: at.info.clone().set_addr(addr), tls: at.tls.clone() }
}
