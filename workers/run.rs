//! `worker`, `janitor`, `serve`, `notifier` and `run`: the long-running roles, one loop per role and partition.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use rollcall::config::Config;
use rollcall::error::Fatal;
use rollcall::files::FileError;
use rollcall::janitor::Janitor;
use rollcall::notifier::Notifier;
use rollcall::projector::{Projector, Worker};
use rollcall::seal::SessionKeys;
use rollcall::serve::ServeError;
use rollcall::telemetry::health::Health;
use rollcall::telemetry::http::{self, HttpError};
use rollcall::telemetry::systemd::Supervisor;

use crate::{descriptors, serve};

/// Which roles a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) worker: bool,
    pub(crate) janitor: bool,
    pub(crate) serve: bool,
    pub(crate) notifier: bool,
}

impl Roles {
    /// The roles of `run`.
    pub(crate) const ALL: Self = Self { worker: true, janitor: true, serve: true, notifier: true };
    /// None yet.
    pub(crate) const NONE: Self =
        Self { worker: false, janitor: false, serve: false, notifier: false };
}

/// Why a process could not continue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// No address for `/metrics`.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The keys of session data cannot be used.
    #[error(transparent)]
    Keys(#[from] FileError),
    /// No address for applications and browsers, or no keys.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The supervisor cannot be notified.
    #[error("$NOTIFY_SOCKET names no usable socket; unset it, or use Type=simple")]
    Supervisor(#[source] io::Error),
    /// A loop met an error that waiting does not help against.
    #[error(transparent)]
    Loop(#[from] Fatal),
    /// A loop panicked.
    #[error("a loop ended unexpectedly")]
    Panicked(#[from] tokio::task::JoinError),
}

/// A process that runs its roles until it is told to stop.
pub(crate) struct Process {
    loops: JoinSet<Result<(), Fatal>>,
    stop: watch::Sender<bool>,
    health: Health,
    http: Option<SocketAddr>,
    serve: Option<SocketAddr>,
}

impl Process {
    /// Starts the loops and the HTTP pages.
    pub(crate) async fn start(
        config: &Config,
        roles: Roles,
        metrics: PrometheusHandle,
    ) -> Result<Self, RunError> {
        let (stop, stopped) = watch::channel(false);
        let health = Health::default();
        let listener = http::bind(&config.http).await?;
        let mut process =
            Self { loops: JoinSet::new(), stop, health: health.clone(), http: None, serve: None };
        let name = unique_name(&config.name);
        let session_keys = SessionKeys::open(&config.session_key_file)?;
        let worker = Worker::new(config, name.clone()).with_session_keys(session_keys);
        for partition in 0..config.deployment.partitions {
            if roles.worker {
                let part = format!("worker of partition {partition}");
                let pulse = health.add(part, Projector::patience(config));
                let projector = Projector::new(config, partition, &worker, pulse, stopped.clone());
                process.loops.spawn(projector.run());
            }
            if roles.janitor {
                let part = format!("janitor of partition {partition}");
                let pulse = health.add(part, Janitor::patience(config));
                let janitor = Janitor::new(config, partition, name.clone(), pulse, stopped.clone());
                process.loops.spawn(janitor.run());
            }
            if roles.notifier {
                process.notify(config, partition, &name, &stopped);
            }
        }
        if roles.serve {
            let (stop, loops) = (stopped.clone(), &mut process.loops);
            process.serve = serve::start(config, roles, &health, stop, loops).await?;
        }
        tokio::spawn(rollcall::telemetry::metrics::keep_up(metrics.clone()));
        if let Some(listener) = listener {
            process.http = listener.local_addr().ok();
            let most = descriptors::for_pages(descriptors::limit());
            tokio::spawn(http::serve(listener, most, metrics, health, stopped));
        }
        info!(
            redis = %config.redis.url(),
            name,
            worker = roles.worker,
            janitor = roles.janitor,
            serve = process.serve.map(|addr| addr.to_string()).as_deref().unwrap_or("off"),
            targets = if roles.notifier { config.notify.len() } else { 0 },
            partitions = config.deployment.partitions,
            http = process.http.map(|addr| addr.to_string()).as_deref().unwrap_or("off"),
            "started"
        );
        descriptors::check(config, roles);
        Ok(process)
    }

    /// Starts the notifiers of a partition.
    fn notify(
        &mut self,
        config: &Config,
        partition: u16,
        name: &str,
        stop: &watch::Receiver<bool>,
    ) {
        for (index, target) in (0..).zip(&config.notify) {
            let part = format!("notifier of {}, partition {partition}", target.name);
            let pulse = self.health.add(part, Notifier::patience());
            let stop = stop.clone();
            let notifier = Notifier::new(config, index, target, partition, name, pulse, stop);
            self.loops.spawn(notifier.run());
        }
    }

    /// Where `/metrics` is.
    pub(crate) fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where applications and browsers are served.
    pub(crate) fn serve(&self) -> Option<SocketAddr> {
        self.serve
    }

    /// Waits until a loop ends by itself, which is always a failure.
    pub(crate) async fn failed(&mut self) -> RunError {
        loop {
            match self.loops.join_next().await {
                Some(Ok(Err(error))) => return error.into(),
                Some(Err(error)) => return error.into(),
                Some(Ok(Ok(()))) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Lets every loop finish its current work, and waits for it.
    pub(crate) async fn stop(mut self) -> Result<(), RunError> {
        self.stop.send_replace(true);
        while let Some(ended) = self.loops.join_next().await {
            ended??;
        }
        info!("stopped");
        Ok(())
    }
}

/// Runs the roles until SIGTERM or SIGINT.
pub(crate) async fn run(
    config: &Config,
    roles: Roles,
    metrics: PrometheusHandle,
) -> Result<(), RunError> {
    let stop = crate::signals::stop();
    let supervisor = Arc::new(Supervisor::from_env().map_err(RunError::Supervisor)?);
    let mut process = Process::start(config, roles, metrics).await?;
    // First, so that a stop is never reported before the start; again if the supervisor did not take it.
    let is_told = tokio::time::timeout(Duration::ZERO, supervisor.started()).await.is_ok();
    let (watching, health) = (supervisor.clone(), process.health.clone());
    tokio::spawn(async move {
        if !is_told {
            watching.started().await;
        }
        watching.watch(&health).await;
    });
    tokio::select! {
        error = process.failed() => {
            supervisor.stopping();
            // The first failure is the one to report; the other loops still finish their work.
            let _others = process.stop().await;
            Err(error)
        }
        signal = stop => {
            info!(signal, "stopping once the current work is finished");
            supervisor.stopping();
            process.stop().await
        }
    }
}

/// A process's name, unique to this start, so that it differs from those of earlier processes on this host.
fn unique_name(name: &str) -> String {
    format!("{name}-{}-{:08x}", std::process::id(), fastrand::u32(..))
}
