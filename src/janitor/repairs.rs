//! Every script silently repairs what another program, or a clock that went back, did to the state. Here the repairs
//! are counted and reported.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tracing::warn;

use crate::error::Error;
use crate::redis::scripts::repairs::{Last, Repair};
use crate::redis::scripts::sweep::Sweeper;
use crate::telemetry::log::Throttle;
use crate::telemetry::metrics::JanitorMetrics;

/// The minimum time between two lines about one kind: a program that does it every minute would fill the log.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Reports one partition's repairs.
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

    /// Reads the repairs since any janitor last asked, counts and reports them.
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

    /// Records that a turn was ended which would have lasted longer than its length.
    pub(super) fn ended_a_turn(&mut self) {
        self.report(Repair::Turn, 1, None);
    }

    fn report(&mut self, repair: Repair, count: u64, last: Option<&Last>) {
        self.metrics.repaired(repair, count);
        if let Some(count) = self.lines[repair as usize].add(count) {
            let (partition, name) = (self.partition, repair.label());
            let last_key = last.map_or("", |last| last.key.as_str());
            warn!(partition, repair = name, count, last_key, "repaired: {}", repair.story());
        }
    }
}
