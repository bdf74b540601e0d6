//! `/metrics`, `/livez` and `/readyz` over HTTP, and a page that names them.
//!
//! A connection serves one request and lives for at most ten seconds, whatever its client does or does not do. Their
//! number is limited. Answers are complete before they are sent, so a slow reader occupies only its connection.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::warn;

use super::health::Health;
use super::log::Throttle;
use super::metrics::page;
use crate::config::Http;

/// The content of `/`, for people who open the address in a browser.
const CONTENTS: &str = "\
rollcall

/metrics  metrics for Prometheus
/livez    whether every loop makes progress
/readyz   whether every loop can do its work, and if not, why
";

/// How long a connection may last.
const LIFE: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a persistent fault is logged.
const REMINDER: Duration = Duration::from_secs(60);

/// No address to serve on.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The requested address is in use.
    #[error(
        "cannot serve HTTP on {addr}: choose another --http address, port 0 for any free one, or off"
    )]
    Taken {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// None of the default ports is free.
    #[error(
        "no port from {} to {} is free on 127.0.0.1: give --http an address, or off",
        Http::DEFAULT_PORTS.start(), Http::DEFAULT_PORTS.end()
    )]
    NoneFree,
}

/// Binds the listener that the setting asks for; `None` if it is off.
///
/// # Errors
/// If no such address is free.
pub async fn bind(http: &Http) -> Result<Option<TcpListener>, HttpError> {
    match http {
        Http::Off => Ok(None),
        Http::Addr(addr) => TcpListener::bind(addr)
            .await
            .map(Some)
            .map_err(|source| HttpError::Taken { addr: *addr, source }),
        Http::Default => {
            for port in Http::DEFAULT_PORTS {
                if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                    return Ok(Some(listener));
                }
            }
            Err(HttpError::NoneFree)
        }
    }
}

/// Serves until `stop` turns true, at most this many connections at a time. With one more the oldest is closed, so
/// neither silent clients nor slow readers keep a probe from being answered.
pub async fn serve(
    listener: TcpListener,
    most_connections: usize,
    metrics: PrometheusHandle,
    health: Health,
    mut stop: watch::Receiver<bool>,
) {
    let service = TowerToHyperService::new(router(metrics, health));
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    let mut refused = Throttle::new(REMINDER);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // If the sender is gone, also stop.
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= most_connections
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                open.push_back(tokio::spawn(answer(stream, service.clone())).abort_handle());
            }
            Err(error) => {
                if let Some(times) = refused.add(1) {
                    warn!(times, "cannot accept a connection for the pages: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn router(metrics: PrometheusHandle, health: Health) -> Router {
    let (live, ready) = (health.clone(), health);
    Router::new()
        .route("/", get(|| async { CONTENTS }))
        .route("/metrics", get(|| async move { text(page(&metrics)) }))
        .route("/livez", get(|| async move { verdict(&live.stuck()) }))
        .route("/readyz", get(|| async move { verdict(&ready.unready()) }))
}

/// One request and its answer, each of which may be slow.
async fn answer(stream: TcpStream, service: TowerToHyperService<Router>) {
    let exchange =
        http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    // A failure concerns only the client.
    let _ended = timeout(LIFE, exchange).await;
}

fn text(body: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body)
}

fn verdict(faults: &[String]) -> (StatusCode, String) {
    if faults.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, faults.join("\n") + "\n")
}
