//! `serve`: the state for applications and browsers, and the path of their events to the stream.
//!
//! It stores nothing: it queries the state, tails the changes and adds events, so any number of processes can run
//! side by side.

pub mod access;
mod attended;
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
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use access::{Access, Caller};
pub use client::{Client, Peer};
pub use context::{Context, Parts};
pub use intake::{Body, Intake, Refusal, Sender, Taken, Trouble};
pub use limits::Limits;

use crate::config::{Config, Listen, Shell};
use crate::error::{Error, Fatal};
use crate::files::FileError;
use crate::seal::SessionKeys;
use crate::state::{Keeper, Shared};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::ServeMetrics;

/// How often the gauges are updated.
const SHOW: Duration = Duration::from_secs(1);

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
    /// `serve` alone was told not to listen.
    #[error("with --listen off there is nothing to serve: give an address, or auto")]
    Nowhere,
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
    tasks: JoinSet<Result<(), Error>>,
    /// Turns true when no request is left; the intake then has nothing more to wait for.
    answered: watch::Sender<bool>,
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
        let session_keys = SessionKeys::open(&config.session_key_file)?;
        let pulse = health.add("serve".to_owned(), Keeper::PATIENCE);
        let tell = move |hindrance| match hindrance {
            None => pulse.waiting(),
            Some(why) => {
                let _is_first = pulse.unready(why);
            }
        };
        let (state, keeper) = Shared::new(config, tell, stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        let metrics = ServeMetrics::registered();
        let (answered, all_answered) = watch::channel(false);
        let intake = Intake::start(config, &state, &metrics, &all_answered, &mut tasks);
        let limits = Limits::new(config);
        let config = config.clone();
        let parts = Parts { config, access, state, intake, limits, session_keys, metrics, stop };
        let context = Context::new(parts);
        Ok(Self { context, listener, tasks, answered })
    }

    /// Serves until it is told to stop, and then until current requests are answered.
    ///
    /// # Errors
    /// If the deployment differs from the settings.
    pub async fn run(mut self) -> Result<(), Fatal> {
        let shell = Shell::of(&self.context.config.redis, &self.context.config.deployment);
        let router = routes::router(&self.context);
        let (listener, context, answered) = (self.listener, self.context.clone(), self.answered);
        self.tasks.spawn(async move {
            server::accept(listener, router, context).await;
            answered.send_replace(true);
            Ok(())
        });
        self.tasks.spawn(show(self.context));
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(ended) => ended.map_err(|error| error.fatal(&shell))?,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        Ok(())
    }
}

/// Updates the gauges.
async fn show(context: Context) -> Result<(), Error> {
    loop {
        context.metrics.show(context.intake.buffered());
        tokio::select! {
            () = tokio::time::sleep(SHOW) => {}
            () = context.stopped() => return Ok(()),
        }
    }
}
