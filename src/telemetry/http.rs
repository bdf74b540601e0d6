//! `/metrics`, `/livez` and `/readyz` over HTTP, and a page that names them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::health::Health;
use super::metrics::page;
use crate::config::Http;

/// What stands on `/`, for whoever opens the address in a browser.
const CONTENTS: &str = "\
rollcall

/metrics  metrics for Prometheus
/livez    whether every loop gets on
/readyz   whether every loop can do its work, and if not, why
";

/// No address to serve on.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address asked for cannot be taken.
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

/// Serves until `stop` turns true.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    health: Health,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let (live, ready) = (health.clone(), health);
    let router = Router::new()
        .route("/", get(|| async { CONTENTS }))
        .route("/metrics", get(|| async move { text(page(&metrics)) }))
        .route("/livez", get(|| async move { verdict(&live.stuck()) }))
        .route("/readyz", get(|| async move { verdict(&ready.unready()) }));
    let stopped = async move {
        // An error means that the sender is gone: stop then, too.
        let _gone = stop.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await
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
