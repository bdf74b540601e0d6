//! `serve`, alone or beside the other roles of a process: its listener and its messages.

use std::net::SocketAddr;

use rollcall::config::{Config, Listen, ServeConfig};
use rollcall::error::Fatal;
use rollcall::serve::{Serve, ServeError, bind};
use rollcall::telemetry::health::Health;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use crate::descriptors;
use crate::run::Roles;

/// Starts to serve at the configured address, and returns that address. By default, `serve` alone uses one fixed
/// address. Beside other roles it uses the first free port; if none is free, the other roles run without it.
///
/// # Errors
/// If the address is in use, or a file of tokens or keys cannot be used.
pub(crate) async fn start(
    config: &Config,
    roles: Roles,
    health: &Health,
    stop: watch::Receiver<bool>,
    loops: &mut JoinSet<Result<(), Fatal>>,
) -> Result<Option<SocketAddr>, ServeError> {
    let is_alone = roles == Roles { serve: true, ..Roles::NONE };
    let default = if is_alone { Listen::DEFAULT } else { Listen::Auto };
    let listener = match bind(config.serve.listen.unwrap_or(default)).await {
        Ok(Some(listener)) => listener,
        Ok(None) if is_alone => return Err(ServeError::Nowhere),
        Ok(None) => return Ok(None),
        Err(error @ ServeError::NoneFree) if !is_alone => {
            warn!("applications and browsers are not served: {error}");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let address = listener.local_addr().ok();
    let max_connections = descriptors::for_clients(config, roles);
    let serve = ServeConfig { max_connections, ..config.serve.clone() };
    let config = Config { serve, ..config.clone() };
    loops.spawn(Serve::new(&config, listener, health, stop)?.run());
    Ok(address)
}
