//! The conditions under which the figures were measured; without them the figures mean nothing.

use std::fmt;
use std::fs;
use std::time::SystemTime;

use serde::Serialize;

use crate::ground::Ground;
use crate::{Options, machine};

#[derive(Serialize)]
pub(crate) struct Conditions {
    date: String,
    rollcall: &'static str,
    form: &'static str,
    server: String,
    allocator: String,
    cpu: String,
    cores: usize,
    pinning: String,
    system: String,
    /// Of the last minute, before the first figure: near 0 on a quiet machine.
    load: String,
    batch: u32,
    rounds: u32,
    users: u32,
    mix: &'static str,
}

impl Conditions {
    pub(crate) fn seen(options: &Options) -> Self {
        let mut ground = Ground::start(1);
        let mut info = |name: &str| ground.info(name);
        let redis = info("redis_version").unwrap();
        let server = info("valkey_version")
            .map_or_else(|| format!("Redis {redis}"), |v| format!("Valkey {v}"));
        let first_word = |path: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.split_whitespace().next().unwrap_or("unknown").to_owned()
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Self {
            date: rollcall::time::format_time(now.as_millis() as u64),
            rollcall: env!("CARGO_PKG_VERSION"),
            form: options.size("full", "quick"),
            server,
            allocator: info("mem_allocator").unwrap(),
            cpu: machine::cpu_model(),
            cores: machine::cores(),
            pinning: machine::pinning(),
            system: format!(
                "{} {}",
                std::env::consts::OS,
                first_word("/proc/sys/kernel/osrelease")
            ),
            load: first_word("/proc/loadavg"),
            batch: options.batch,
            rounds: options.rounds(),
            users: options.users(),
            mix: "standard unless stated: 80 % heartbeats, 10 % views, 5 % logins, 5 % sessions, users uniform",
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Rollcall {}: benchmarks, {} form\n", self.rollcall, self.form)?;
        writeln!(f, "- {}, {} ({})", self.date, self.server, self.allocator)?;
        writeln!(f, "- {}, {} cores, {}, load {}", self.cpu, self.cores, self.system, self.load)?;
        writeln!(f, "- pinning: {}", self.pinning)?;
        writeln!(
            f,
            "- batch {}, {} rounds; {} users unless stated; mix: {}",
            self.batch, self.rounds, self.users, self.mix
        )?;
        writeln!(
            f,
            "- figures: median (minimum–maximum) of the rounds; µs are processor time per event"
        )
    }
}
