//! The settings of a deployment that determine the state, with the contract's defaults.

use std::collections::BTreeSet;

use rollcall::decode::Rules;
use rollcall::event::Limits;

/// The names of all projections.
pub const PROJECTIONS: [&str; 7] =
    ["online", "activity", "presence", "tokens", "ranking", "sessions", "documents"];

/// The input of the state besides the entries and the instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The beginning of every key.
    pub prefix: String,
    /// How many partitions; the same as in `rules`, see [`Settings::with_partitions`].
    pub partitions: u16,
    /// Which state is kept.
    pub projections: BTreeSet<&'static str>,
    pub online_window_ms: u64,
    pub presence_ttl_ms: u64,
    pub session_ttl_ms: u64,
    pub document_ttl_ms: u64,
    /// Tokens in `recent:`.
    pub recent_cap: usize,
    /// Items in `viewed:<token>`.
    pub viewed_cap: usize,
    /// Items in `viewed:`.
    pub ranking_cap: usize,
    /// (up, down) of each threshold of a document's count.
    pub thresholds: Vec<(u64, u64)>,
    /// How long the endings of tokens and sessions are remembered.
    pub horizon_ms: u64,
    /// What the decoder needs to know.
    pub rules: Rules,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            partitions: 1,
            projections: BTreeSet::from(PROJECTIONS),
            online_window_ms: 300_000,
            presence_ttl_ms: 300_000,
            session_ttl_ms: 1_800_000,
            document_ttl_ms: 1_800_000,
            recent_cap: 1_000_000,
            viewed_cap: 25,
            ranking_cap: 20_000,
            thresholds: Vec::new(),
            horizon_ms: 86_400_000,
            rules: Rules {
                limits: Limits::default(),
                max_skew_ms: 60_000,
                partitions: 1,
                moved_from: Vec::new(),
            },
        }
    }
}

impl Settings {
    /// The same with this many partitions.
    pub fn with_partitions(mut self, partitions: u16) -> Self {
        self.partitions = partitions;
        self.rules.partitions = partitions;
        self
    }

    /// The same without one projection.
    pub fn without(mut self, projection: &str) -> Self {
        assert!(self.projections.remove(projection), "no projection {projection}");
        self
    }
}
