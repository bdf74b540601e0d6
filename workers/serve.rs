//! `serve`, alone or beside the other roles of a process: its listener, and what is said about it.

use std::net::SocketAddr;

use rollcall::config::{Config, Listen};
use rollcall::error::Error;
use rollcall::serve::{Serve, ServeError, bind};
use rollcall::telemetry::health::Health;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

/// Starts to serve where the settings say, or where `default` does; returns where.
///
/// # Errors
/// If the address is taken, or a file of tokens or keys cannot be used. With `is_optional` a process goes on
/// without, if none of the ports that it may choose from is free.
pub(crate) async fn start(
    config: &Config,
    default: Listen,
    is_optional: bool,
    health: &Health,
    stop: watch::Receiver<bool>,
    loops: &mut JoinSet<Result<(), Error>>,
) -> Result<Option<SocketAddr>, ServeError> {
    let listener = match bind(config.serve.listen.unwrap_or(default)).await {
        Ok(Some(listener)) => listener,
        Ok(None) => return Ok(None),
        Err(error @ ServeError::NoneFree) if is_optional => {
            warn!("applications and browsers are not served: {error}");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let address = listener.local_addr().ok();
    loops.spawn(Serve::new(config, listener, health, stop)?.run());
    Ok(address)
}
