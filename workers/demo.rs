//! `rollcall demo`: a private server, a worker and a janitor, traffic, and a view of the state.
//!
//! Everything shown is read from Redis. Everything it starts ends with it, however it ends: the server and its folder
//! belong to a [`PrivateServer`], the terminal to a [`Screen`].

mod answers;
mod install;
mod process;
mod view;
mod watch;

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use rollcall::config::{Config, Http, LogConfig, LogFormat, Millis, Shell};
use rollcall::error::Error;
use rollcall::private_server::{Options, PrivateServer, ServerError};
use rollcall::telemetry::http::HttpError;
use tokio::sync::watch as channel;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

use self::process::ProcessError;
use self::view::{About, View};
use self::watch::Watch;
use crate::line::{self, Look};
use crate::load::{Load, LoadOptions, Mix, Sent, Target, user_names};
use crate::out::Out;
use crate::run::{Process, RunError};
use crate::screen::{Screen, can_draw, quit};
use crate::signals;

const PRODUCERS: u32 = 3;
const REDRAW: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(1);
/// How long each part may take to end in an orderly way.
const GRACE: Duration = Duration::from_secs(3);

/// What to show.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoOptions {
    /// End after this time, such as 30s [default: on q or Ctrl-C]
    #[arg(long, value_name = "DURATION")]
    pub duration: Option<Millis>,
    /// Events per second
    #[arg(long, value_name = "EVENTS", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// Number of users who come and go
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub users: u32,
    /// Server binary [default: redis-server or valkey-server in PATH]
    #[arg(long, value_name = "PATH")]
    pub server: Option<PathBuf>,
    /// Address for /metrics, or off [default: 127.0.0.1 and the first free port of 9464-9473, if any]
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<Http>,
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// There is no server binary.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// There is no worker.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Worker or janitor ended by itself.
    #[error("the worker or the janitor failed")]
    Run(#[from] RunError),
    /// The state cannot be read.
    #[error("the state cannot be read")]
    Watch(#[from] Error),
    /// The server ended by itself.
    #[error("the private server ended ({status}); its last words:\n{log}")]
    ServerEnded {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The thread that writes the output cannot be started.
    #[error("cannot write to the terminal")]
    Output(#[from] io::Error),
    /// A part of the demo panicked.
    #[error("a part of the demo ended unexpectedly")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Runs the demo until its time is over, or a signal or the key q comes.
///
/// # Errors
/// If server, worker or janitor cannot be started, or fail.
pub(crate) async fn run(options: &DemoOptions) -> Result<(), DemoError> {
    // In a task of its own from the beginning, so that no signal is missed.
    let signalled = tokio::spawn(signals::stop_or_hangup());
    let mut out = Out::open()?;
    let mut show = Show::prepare(options, &mut out).await?;
    let shown =
        if signalled.is_finished() { Ok(()) } else { show.until(signalled, &mut out).await };
    let farewell = show.end().await;
    shown?;
    // It no longer matters whether anyone reads it.
    let _unread = out.send(farewell + "\n");
    Ok(())
}

/// Everything the demo runs.
struct Show {
    about: About,
    options: DemoOptions,
    watch: Watch,
    load: Load,
    stop_load: channel::Sender<bool>,
    process: Process,
    server: PrivateServer,
    screen: Option<Screen>,
    look: Look,
}

impl Show {
    async fn prepare(options: &DemoOptions, out: &mut Out) -> Result<Self, DemoError> {
        let draws = can_draw();
        if !draws {
            // Log lines would tear the frames.
            let log = LogConfig { filter: "warn".to_owned(), format: LogFormat::Text };
            let _already = rollcall::telemetry::log::install(&log);
        }
        let binary = install::server_binary(options.server.as_deref()).await?;
        let private = Options { binary: Some(binary), ..Options::default() };
        let server = tokio::task::spawn_blocking(|| PrivateServer::start(private)).await??;
        let tokens = options.users.saturating_mul(2).max(100);
        let config =
            process::settings(&server.url(), tokens, options.http).map_err(ProcessError::from)?;
        let process = process::start(&config, options.http.is_some()).await?;
        let (stop_load, stop) = channel::channel(false);
        let load = Load::start(&load_options(options), &target(&config), &stop);
        let mut watch = Watch::over(config.redis.server(), &config.deployment);
        watch.look().await?;
        let about = about(options, &server, &process, &config);
        let look = Look::of_environment();
        let screen = if draws { Screen::enter(look).ok() } else { None };
        if screen.is_none() {
            let _unread = out.send(greeting(&about) + "\n");
        }
        let options = options.clone();
        Ok(Self { about, options, watch, load, stop_load, process, server, screen, look })
    }

    /// Shows the state until the time is over or `signalled` completes.
    async fn until(&mut self, signalled: impl Future, out: &mut Out) -> Result<(), DemoError> {
        let end = self.options.duration.map(|all| Instant::now() + Duration::from(all));
        let mut signalled = pin!(signalled);
        let mut ended = pin!(sleep_until(end));
        let mut ticks = match &self.screen {
            Some(_) => interval(REDRAW),
            None => interval_at(Instant::now() + LINE, LINE),
        };
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut resizes = signals::resizes();
        loop {
            tokio::select! {
                _ = &mut signalled => return Ok(()),
                () = quit(&mut self.screen) => return Ok(()),
                () = &mut ended => return Ok(()),
                error = self.process.failed() => return Err(error.into()),
                () = signals::received(&mut resizes) => self.screen.iter_mut().for_each(Screen::resized),
                _ = ticks.tick() => self.look().await?,
            }
            if self.show(out).is_err() {
                // Nobody is reading any more: `rollcall demo | head`, or the terminal is gone.
                return Ok(());
            }
        }
    }

    async fn look(&mut self) -> Result<(), DemoError> {
        if self.watch.look().await.is_err()
            && let Some(status) = self.server.ended()
        {
            return Err(DemoError::ServerEnded { status, log: self.server.log_tail() });
        }
        // If the server is merely slow, the picture stands still.
        Ok(())
    }

    /// Shows the latest snapshot; frames that are not read in time are skipped.
    fn show(&mut self, out: &mut Out) -> io::Result<()> {
        let (about, watch, look) = (&self.about, &self.watch, self.look);
        let view = View { about, watch, look, sent: self.load.so_far() };
        match &mut self.screen {
            Some(screen) => screen.draw(&view.frame(screen.size(), screen.ending())),
            None => out.offer(view.plain() + "\n"),
        }
    }

    /// Ends everything in order, and returns the farewell.
    async fn end(mut self) -> String {
        self.stop_load.send_replace(true);
        let _late = timeout(GRACE, self.load.ended()).await;
        let _late = timeout(GRACE, self.drain()).await;
        let sent = self.load.so_far();
        let _late = timeout(GRACE, self.process.stop()).await;
        let folder = self.server.folder().to_path_buf();
        drop(self.screen);
        drop(self.server);
        let left = if folder.exists() { "could not be removed" } else { "are gone" };
        let left = format!("The server and its folder {} {left}.", folder.display());
        format!("{}\n{left}", summary(&self.watch, sent))
    }

    async fn drain(&mut self) {
        while self.watch.look().await.is_ok() && !self.watch.latest.is_drained() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn load_options(options: &DemoOptions) -> LoadOptions {
    LoadOptions {
        rate: options.rate,
        users: options.users,
        duration: None,
        count: None,
        producers: PRODUCERS,
        pack: 1,
        mix: Mix::Crowd,
        seed: None,
    }
}

fn target(config: &Config) -> Target {
    Target {
        server: config.redis.server(),
        prefix: config.deployment.prefix.clone(),
        partitions: config.deployment.partitions,
        stream: config.deployment.stream.clone(),
    }
}

fn about(
    options: &DemoOptions,
    server: &PrivateServer,
    process: &Process,
    config: &Config,
) -> About {
    let program = server.binary().file_name().unwrap_or_default();
    let shell = Shell::of(&config.redis, &config.deployment);
    let example = ["XADD", &config.deployment.stream, "*", "type", "heartbeat", "user", "you"];
    let metrics = match (process.http(), options.http) {
        (Some(address), _) => format!("http://{address}/metrics"),
        (None, Some(_)) => "off".to_owned(),
        (None, None) => format!("off: {}", HttpError::NoneFree),
    };
    About {
        server: program.to_string_lossy().into_owned(),
        url: server.url(),
        serve: process.serve().map(|address| format!("http://{address}")),
        metrics,
        example: shell.redis_cli(&example),
        crowd: user_names(options.users).collect(),
        threshold: config.deployment.thresholds.first().map(|threshold| threshold.up),
        duration: options.duration.map(Duration::from),
    }
}

fn greeting(about: &About) -> String {
    format!(
        "redis    {} (private {}, gone when the demo ends)\nserve    {}\nmetrics  {}\ntry      {}",
        about.url,
        about.server,
        about.serve(),
        about.metrics,
        about.example,
    )
}

fn summary(watch: &Watch, sent: Sent) -> String {
    let seen = &watch.latest;
    let kinds: Vec<String> = watch
        .totals
        .iter()
        .map(|(kind, count)| format!("{count} {}", line::visible(kind)))
        .collect();
    let changes = if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") };
    format!(
        "The producers {sent}.\nApplied {} entries; {} are left, {} became dead letters.\nChanges: {changes}.",
        seen.applied,
        seen.undelivered.unwrap_or(0),
        seen.dead,
    )
}
