//! SIGHUP: the settings are read again. What can change in a running process does; what cannot is named.

use rollcall::config::{Config, Flags, Gathered, LIVE, Server, Shell};
use rollcall::error::chain;
use rollcall::telemetry::log;
use tracing::{info, warn};

/// What a process started with, and what it has taken over since.
pub(crate) struct Reload<'p, G> {
    flags: &'p Flags<G>,
    config: &'p Config,
    filter: &'p log::Filter,
    server: Server,
    /// What was set at the start.
    started: Gathered,
    /// What was set when it was last read.
    last: Gathered,
}

impl<'p, G> Reload<'p, G> {
    /// Of a process that has just read its settings.
    pub(crate) fn new(
        flags: &'p Flags<G>,
        started: Gathered,
        config: &'p Config,
        filter: &'p log::Filter,
    ) -> Self {
        let (server, last) = (config.redis.server(), started.clone());
        Self { flags, config, filter, server, started, last }
    }

    /// Reads the settings again.
    pub(crate) fn again(&mut self) {
        if let Err(error) = self.read() {
            warn!("the settings stay as they were: {}", chain(error.as_ref()));
        }
        self.try_password_file();
    }

    fn read(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let gathered = self.flags.gather()?;
        let config = Config::resolve(&gathered)?;
        self.filter.set(&config.log.filter)?;
        self.config.live.follow(&config);
        let is_live = |name: &&str| LIVE.contains(name);
        let changed = gathered.differing(&self.last).into_iter().filter(is_live);
        let changed: Vec<&str> = changed.collect();
        let (filter, changed) = (&config.log.filter, changed.join(", "));
        info!(filter, changed, "read the settings again");
        let waiting = gathered.differing(&self.started).into_iter().filter(|name| !is_live(name));
        self.name(&waiting.collect::<Vec<_>>());
        self.last = gathered;
        Ok(())
    }

    /// Names the settings that have changed since the start, and wait for the next one.
    fn name(&self, waiting: &[&str]) {
        if waiting.is_empty() {
            return;
        }
        let agreed = self.config.deployment.meta_fields();
        let is_agreed = |name: &&&str| agreed.iter().any(|(agreed, _)| agreed == *name);
        let of_all: Vec<&str> = waiting.iter().filter(is_agreed).copied().collect();
        let settings = waiting.join(", ");
        if of_all.is_empty() {
            return warn!(
                settings,
                "these settings count from the next start on: restart the process"
            );
        }
        let shell = Shell::of(&self.config.redis, &self.config.deployment);
        let remedy = shell.rollcall(&["rebuild", "--change-settings"]);
        let of_all = of_all.join(", ");
        warn!(
            settings,
            of_all,
            "these settings count from the next start on, and some are those of the whole deployment: make them its own, \
             with the same file, and restart every process: {remedy}"
        );
    }

    /// Says whether the password file can be read, before the next connection needs it.
    fn try_password_file(&self) {
        let Some(path) = &self.server.password_file else { return };
        match self.server.current() {
            Ok(_) => {
                info!(?path, "read the password file again; it counts for the next connection")
            }
            Err(error) => warn!(?path, "cannot read the password file: {error}"),
        }
    }
}
