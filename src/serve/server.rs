//! The listener: a limited number of connections, each served until it ends or the process stops.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;
use tracing::{debug, warn};

use super::attended::Attended;
use super::client::Peer;
use super::context::Context;
use crate::telemetry::metrics::ConnectionKind;

/// How long the head of a request may take, and how long a connection may be without one.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// The maximum size of a request's head.
const HEAD_BYTES: usize = 32 << 10;
/// How long a client may accept nothing of what is sent.
const TAKES_WITHIN: Duration = Duration::from_secs(30);
/// How long current requests may take once the process stops.
const GRACE: Duration = Duration::from_secs(8);
/// Pause after the system refused a connection, most likely because there is no file descriptor left.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until the process stops; returns once the open ones have ended, or their time is up.
pub(super) async fn accept(listener: TcpListener, router: Router, context: Context) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = open.join_next() => continue,
            () = context.stopped() => break,
        };
        match accepted {
            Ok((socket, address)) => {
                open.spawn(connection(socket, Peer(address), router.clone(), context.clone()));
            }
            Err(error) => {
                warn!("cannot accept a connection: {error}");
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
    drop(listener);
    let ended = async { while open.join_next().await.is_some() {} };
    if timeout(GRACE, ended).await.is_err() {
        debug!(
            connections = open.len(),
            "connections were still open at the end of the grace period"
        );
    }
}

async fn connection(socket: TcpStream, peer: Peer, router: Router, context: Context) {
    let trusted = &context.config.serve.trusted_proxies;
    let is_proxy = trusted.iter().any(|network| network.contains(peer.0.ip()));
    let counted = (!is_proxy).then(|| peer.0.ip());
    let Some(_place) = context.limits.connect(counted) else {
        return context.metrics.connection_refused();
    };
    let _open = context.metrics.open(ConnectionKind::Http);
    let _best_effort = socket.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(HEAD_BYTES);
    let socket = TokioIo::new(Attended::new(socket, TAKES_WITHIN));
    let connection = builder.serve_connection(socket, service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = context.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!("a connection ended early: {error}");
    }
}
