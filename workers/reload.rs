//! SIGHUP reloads the settings. Those that can change in a running process do; the others are named.

use rollcall::config::{Config, Flags, Gathered, LIVE, Server, Shell};
use rollcall::error::chain;
use rollcall::telemetry::log;
use tracing::{info, warn};

/// The settings with which a process started, and those of its last reload.
pub(crate) struct Reload<'p, G> {
    flags: &'p Flags<G>,
    config: &'p Config,
    filter: &'p log::Filter,
    server: Server,
    /// The settings at the start.
    started: Gathered,
    /// The settings at the last reload.
    last: Gathered,
}

impl<'p, G> Reload<'p, G> {
    /// For a process that has just read its settings.
    pub(crate) fn new(
        flags: &'p Flags<G>,
        started: Gathered,
        config: &'p Config,
        filter: &'p log::Filter,
    ) -> Self {
        let (server, last) = (config.redis.server(), started.clone());
        Self { flags, config, filter, server, started, last }
    }

    /// Reloads the settings.
    pub(crate) fn again(&mut self) {
        if let Err(error) = self.read() {
            warn!(
                "the settings are unchanged, because they cannot be reloaded: {}",
                chain(error.as_ref())
            );
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
        info!(filter, changed, "reloaded the settings");
        let waiting = gathered.differing(&self.started).into_iter().filter(|name| !is_live(name));
        self.name(&waiting.collect::<Vec<_>>());
        self.last = gathered;
        Ok(())
    }

    /// Names the settings that have changed since the start and need a restart.
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
                "these settings take effect at the next start: restart the process"
            );
        }
        let shell = Shell::of(&self.config.redis, &self.config.deployment);
        let remedy = shell.rollcall(&["rebuild", "--change-settings"]);
        let of_all = of_all.join(", ");
        warn!(
            settings,
            of_all,
            "these settings take effect at the next start, and some belong to the whole deployment: change them there, \
             with the same file, and restart every process: {remedy}"
        );
    }

    /// Reports whether the password file can be read, before the next connection needs it.
    fn try_password_file(&self) {
        let Some(path) = &self.server.password_file else { return };
        match self.server.current() {
            Ok(_) => {
                info!(?path, "reread the password file; the next connection uses it")
            }
            Err(error) => warn!(?path, "cannot read the password file: {error}"),
        }
    }
}
