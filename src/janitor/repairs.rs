//! What another program did to the state, or a clock that went back, is put right in silence by every script; here
//! it is counted and told.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tracing::warn;

use crate::error::Error;
use crate::redis::scripts::repairs::{Last, Repair};
use crate::redis::scripts::sweep::Sweeper;
use crate::telemetry::log::Throttle;
use crate::telemetry::metrics::JanitorMetrics;

/// How often each kind is told at most: whoever does it once a minute would fill the log.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Tells one partition's repairs.
#[derive(Debug)]
pub(super) struct Repairs {
    partition: u16,
    metrics: JanitorMetrics,
    lines: [Throttle; Repair::ALL.len()],
}

impl Repairs {
    pub(super) fn new(partition: u16, metrics: JanitorMetrics) -> Self {
        Self { partition, metrics, lines: Repair::ALL.map(|_| Throttle::new(INTERVAL)) }
    }

    /// Asks what was put right since any janitor asked last, counts and tells it.
    pub(super) async fn look(
        &mut self,
        sweeper: &Sweeper,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), Error> {
        let found = sweeper.repairs(connection).await?;
        for (repair, count) in found.counts {
            let last = found.last.as_ref().filter(|last| last.repair == repair);
            self.report(repair, count, last);
        }
        Ok(())
    }

    /// A turn was ended that would have lasted longer than it is.
    pub(super) fn ended_a_turn(&mut self) {
        self.report(Repair::Turn, 1, None);
    }

    fn report(&mut self, repair: Repair, count: u64, last: Option<&Last>) {
        self.metrics.repaired(repair, count);
        if let Some(count) = self.lines[repair as usize].add(count) {
            let (partition, name) = (self.partition, repair.label());
            let last_key = last.map_or("", |last| last.key.as_str());
            warn!(partition, repair = name, count, last_key, "put right: {}", repair.story());
        }
    }
}
