//! Connections: how they are opened, and how long they wait.
//!
//! Each loop has its own, because a blocking read holds its connection. A partition lives in one
//! slot, so on a Redis Cluster a plain connection to that slot's node is all it takes: the redirect
//! that the first node answers with is followed once, when connecting.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo};

use crate::error::Error;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long sent data may stay unacknowledged before the connection counts as dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
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
/// If the server cannot be reached or refuses the credentials.
pub async fn connect(
    server: &ConnectionInfo,
    key: &str,
    response_timeout: Duration,
) -> Result<MultiplexedConnection, Error> {
    Ok(locate(server, key, response_timeout).await?.connection)
}

/// As [`connect`], and says which node it is.
///
/// # Errors
/// If the server cannot be reached or refuses the credentials.
pub async fn locate(
    server: &ConnectionInfo,
    key: &str,
    response_timeout: Duration,
) -> Result<Node, Error> {
    let mut info = with_tcp_settings(server);
    for _ in 0..MAX_REDIRECTS {
        let mut connection = open(&info, response_timeout).await?;
        let probe = redis::cmd("EXISTS").arg(key).query_async::<i64>(&mut connection).await;
        match probe {
            Err(error) if error.redirect_node().is_some() => {
                info = redirected(&info, error.redirect_node().map_or("", |(node, _)| node));
            }
            // A producer may do nothing but add: it is told so when it tries more.
            Err(error) if error.code() == Some("NOPERM") => return Ok(Node { info, connection }),
            Err(error) => return Err(Error::at("the first command on a connection")(error)),
            Ok(_) => return Ok(Node { info, connection }),
        }
    }
    Err(Error::Reply { step: "connecting", found: "one redirect after another".to_owned() })
}

async fn open(
    info: &ConnectionInfo,
    response_timeout: Duration,
) -> Result<MultiplexedConnection, Error> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response_timeout));
    let client =
        Client::open(info.clone()).map_err(Error::at("reading the address of the server"))?;
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .map_err(Error::at("connecting"))
}

fn with_tcp_settings(info: &ConnectionInfo) -> ConnectionInfo {
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
