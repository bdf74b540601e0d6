//! Tests without a server: the command line, the schemas against the decoder, the fuzzed properties, the contents of
//! `deploy/`, the dashboards and rules against the metrics, the keys of the state, and the repository's own rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod cli;
#[path = "../support/dashboards.rs"]
mod dashboards;
mod deploy;
mod fuzz;
mod grafana;
mod keys;
mod partitions;
mod schemas;
mod tidy;
mod written;

mod support {
    use rollcall::decode::{Rules, decode};
    use rollcall::entry::{Entry, EntryId};
    use rollcall::event::Limits;

    /// How many events the decoder finds, or the reason of the first rejection.
    pub(crate) fn decode_reason(fields: &[(&[u8], &[u8])]) -> Result<usize, &'static str> {
        let entry = Entry::new(EntryId { ms: 1_790_000_001_000, seq: 0 }, fields.iter().copied());
        let rules = Rules {
            limits: Limits::default(),
            max_skew_ms: 60_000,
            partitions: 1,
            moved_from: Vec::new(),
        };
        let decoded = decode(&entry, 0, &rules);
        match decoded.rejected.first() {
            Some(rejected) => Err(rejected.rejection.reason.name()),
            None => Ok(decoded.events.len()),
        }
    }
}
