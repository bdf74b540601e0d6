//! `serve`: the state for applications and browsers, and the way for their events to the stream.
//!
//! It keeps nothing of its own: it asks the state, tails the changes and adds events, so any number of processes can
//! stand side by side.

pub mod access;
pub mod client;
mod context;
mod intake;
mod limits;
pub mod live;
pub mod problem;
mod routes;
mod server;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use access::{Access, Caller, FileError};
pub use client::{Client, Peer};
pub use context::{Context, Parts};
pub use intake::{Intake, Refusal, Sender, Taken};
pub use limits::Limits;

use crate::config::{Config, Listen};
use crate::error::Error;
use crate::state::{Keeper, Shared};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::ServeMetrics;

/// Why applications and browsers cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address asked for cannot be taken.
    #[error(
        "cannot serve on {addr}: choose another --listen address, or auto for the next free port"
    )]
    Taken {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// None of the ports is free.
    #[error(
        "no port from {} to {} is free on 127.0.0.1: give --listen an address",
        Listen::AUTO_PORTS.start(), Listen::AUTO_PORTS.end()
    )]
    NoneFree,
    /// A file of tokens or keys cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Binds the listener that the setting asks for; `None` if it is off.
///
/// # Errors
/// If no such address is free.
pub async fn bind(listen: Listen) -> Result<Option<TcpListener>, ServeError> {
    match listen {
        Listen::Off => Ok(None),
        Listen::Addr(addr) => TcpListener::bind(addr)
            .await
            .map(Some)
            .map_err(|source| ServeError::Taken { addr, source }),
        Listen::Auto => {
            for port in Listen::AUTO_PORTS {
                if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                    return Ok(Some(listener));
                }
            }
            Err(ServeError::NoneFree)
        }
    }
}

/// The role: everything that serves on one listener.
pub struct Serve {
    context: Context,
    listener: TcpListener,
    keeper: Keeper,
}

impl Serve {
    /// Prepares to serve on `listener` until `stop` turns true.
    ///
    /// # Errors
    /// If a file of tokens or keys cannot be used.
    pub fn new(
        config: &Config,
        listener: TcpListener,
        health: &Health,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, FileError> {
        let access = Access::new(&config.serve, config.deployment.limits.max_identifier_bytes)?;
        let pulse = health.add("serve".to_owned(), Keeper::PATIENCE);
        let (state, keeper) = Shared::new(config, pulse, stop.clone());
        let context = Context::new(Parts {
            config: config.clone(),
            access,
            state,
            intake: Intake::new(),
            limits: Limits::new(&config.serve),
            metrics: ServeMetrics::registered(),
            stop,
        });
        Ok(Self { context, listener, keeper })
    }

    /// Serves until told to stop, and then until what is in hand is answered.
    ///
    /// # Errors
    /// If the deployment is another than the settings say.
    pub async fn run(self) -> Result<(), Error> {
        let router = routes::router(&self.context);
        let mut tasks = JoinSet::new();
        tasks.spawn(self.keeper.run());
        tasks.spawn(server::accept(self.listener, router, self.context.clone()));
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(ended) => ended?,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        Ok(())
    }
}
