//! The settings of a deployment, drawn at random: small caps, short lifetimes, projections that are off.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use rollcall::config::{Config, Projection, Threshold};

use super::event::{Lifetime, after};

/// Lifetimes shorter than any flag allows, so that they end while a schedule runs.
#[derive(Clone, Debug)]
pub struct Drawn {
    pub partitions: u16,
    pub prefix: &'static str,
    pub projections: Vec<Projection>,
    pub thresholds: &'static [(u64, u64)],
    pub max_skew_ms: u64,
    /// `None`: such that an online minute expires at the first full second after the beginning.
    pub online_window_ms: Option<u64>,
    pub presence_ttl_ms: u64,
    pub session_ttl_ms: u64,
    pub document_ttl_ms: u64,
    pub recent_cap: u64,
    pub viewed_cap: u64,
    pub ranking_cap: u64,
    pub dead_cap: u64,
    pub changes_cap: u64,
    pub max_events: usize,
    pub horizon_ms: u64,
    pub keep_ms: u64,
}

impl Default for Drawn {
    /// The flags' defaults.
    fn default() -> Self {
        Self {
            partitions: 1,
            prefix: "",
            projections: Projection::ALL.to_vec(),
            thresholds: &[],
            max_skew_ms: 60_000,
            online_window_ms: Some(300_000),
            presence_ttl_ms: 300_000,
            session_ttl_ms: 1_800_000,
            document_ttl_ms: 1_800_000,
            recent_cap: 1_000_000,
            viewed_cap: 25,
            ranking_cap: 20_000,
            dead_cap: 100_000,
            changes_cap: 100_000,
            max_events: 1000,
            horizon_ms: 86_400_000,
            keep_ms: 3_600_000,
        }
    }
}

/// Settings, most of them with their defaults.
pub fn drawn() -> impl Strategy<Value = Drawn> {
    let usual = Drawn::default();
    let projections = prop_oneof![
        4 => Just(usual.projections.clone()),
        1 => subsequence(usual.projections.clone(), 0..=Projection::ALL.len()),
    ];
    const THRESHOLDS: [&[(u64, u64)]; 4] = [&[], &[(3, 1)], &[(1, 0)], &[(2, 0), (3, 2)]];
    let names = (select(vec![1, 1, 1, 3]), select(vec!["", "", "acme:"]), projections);
    let times = (
        one_of(usual.max_skew_ms, &[0, 10]),
        select(vec![usual.online_window_ms, Some(60_000), None]),
        one_of(usual.presence_ttl_ms, &[5, 20, 60]),
        one_of(usual.session_ttl_ms, &[5, 20, 60, 2_501]),
        one_of(usual.document_ttl_ms, &[5, 20, 60]),
        one_of(usual.horizon_ms, &[0, 5_000]),
    );
    let caps = (
        one_of(usual.recent_cap, &[1, 2, 4]),
        one_of(usual.viewed_cap, &[1, 2]),
        one_of(usual.ranking_cap, &[1, 3]),
        one_of(usual.dead_cap, &[1, 2]),
        one_of(usual.changes_cap, &[1, 5]),
    );
    (names, select(&THRESHOLDS[..]), times, caps, select(vec![usual.max_events, 2])).prop_map(
        |((partitions, prefix, projections), thresholds, times, caps, max_events)| Drawn {
            partitions,
            prefix,
            projections,
            thresholds,
            max_skew_ms: times.0,
            online_window_ms: times.1,
            presence_ttl_ms: times.2,
            session_ttl_ms: times.3,
            document_ttl_ms: times.4,
            recent_cap: caps.0,
            viewed_cap: caps.1,
            ranking_cap: caps.2,
            dead_cap: caps.3,
            changes_cap: caps.4,
            max_events,
            horizon_ms: times.5,
            keep_ms: times.5.min(Drawn::default().keep_ms),
        },
    )
}

fn one_of(usual: u64, others: &[u64]) -> impl Strategy<Value = u64> + use<> {
    prop_oneof![3 => Just(usual), 2 => select(others.to_vec())]
}

impl Drawn {
    /// Puts the settings into a configuration for a case that begins at `base` ms.
    pub fn configure(&self, config: &mut Config, base: u64) {
        let deployment = &mut config.deployment;
        deployment.prefix = self.prefix.to_owned();
        deployment.partitions = self.partitions;
        deployment.projections = self.projections.iter().copied().collect();
        deployment.thresholds =
            self.thresholds.iter().map(|&(up, down)| Threshold { up, down }).collect();
        deployment.max_skew_ms = self.max_skew_ms;
        deployment.online_window_ms = self.window_ms(base);
        deployment.presence_ttl_ms = self.presence_ttl_ms;
        deployment.session_ttl_ms = self.session_ttl_ms;
        deployment.document_ttl_ms = self.document_ttl_ms;
        deployment.recent_cap = self.recent_cap;
        deployment.viewed_cap = self.viewed_cap;
        deployment.ranking_cap = self.ranking_cap;
        deployment.dead_cap = self.dead_cap;
        deployment.changes_cap = self.changes_cap;
        deployment.limits.max_events = self.max_events;
        config.janitor.horizon_ms = self.horizon_ms;
        config.janitor.keep_ms = self.keep_ms;
    }

    fn window_ms(&self, base: u64) -> u64 {
        // A minute's set expires 70 s plus the window after its start.
        self.online_window_ms.unwrap_or_else(|| (next_second(base) - 70_000) % 60_000)
    }

    /// The time of an event whose effect expires `ms` after `base`, or near it if it expires at a full second.
    pub fn expiring(&self, of: Lifetime, base: u64, ms: i64) -> u64 {
        let full = after(next_second(base), ms % 3 * 1000);
        match of {
            Lifetime::Presence => after(base, ms) - self.presence_ttl_ms,
            Lifetime::Session => after(base, ms) - self.session_ttl_ms,
            Lifetime::Ttl(seconds) => after(base, ms) - seconds * 1000,
            Lifetime::Document => after(base, ms) - self.document_ttl_ms,
            Lifetime::Activity => full - self.window_ms(base) - 10_000,
            Lifetime::Minute => full - self.window_ms(base) - 70_000,
        }
    }
}

fn next_second(ms: u64) -> u64 {
    (ms / 1000 + 1) * 1000
}
