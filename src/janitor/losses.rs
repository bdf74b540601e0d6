//! Counts and reports what the server lost.
//!
//! The counts are kept on the server, so janitors that take turns, or are restarted, count nothing twice. Only what a
//! server had before it went back in time must be kept outside of it: here.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tracing::warn;

use crate::config::Deployment;
use crate::error::Error;
use crate::key::Keys;
use crate::redis::scripts::losses::{Losses, StreamEnd};
use crate::telemetry::log::Throttle;
use crate::telemetry::metrics::{self, LossCause};

/// The minimum time between two lines about a cause; each gives the count of all losses since the last line.
const INTERVAL: Duration = Duration::from_secs(10);

/// Watches one partition's stream for losses.
#[derive(Debug)]
pub(super) struct Watch {
    losses: Losses,
    partition: u16,
    seen: Option<StreamEnd>,
    lines: [Line; LossCause::ALL.len()],
}

/// The next line about one cause.
#[derive(Debug)]
struct Line {
    throttle: Throttle,
    since: Option<String>,
}

impl Watch {
    pub(super) fn new(deployment: &Deployment, keys: &Keys, partition: u16) -> Self {
        let lines = LossCause::ALL.map(|_| Line { throttle: Throttle::new(INTERVAL), since: None });
        Self { losses: Losses::new(deployment, keys), partition, seen: None, lines }
    }

    /// Looks for losses, counts and reports them.
    pub(super) async fn look(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), Error> {
        let look = self.losses.look(connection, self.seen.as_ref()).await?;
        self.report(LossCause::Deleted, look.lost, look.since.clone(), &look.position);
        if let Some(seen) = self.seen.clone() {
            let rewind = self.losses.rewound(connection, &seen, &look).await?;
            let after = rewind.and_then(|rewind| rewind.after);
            let since = after.map(|id| id.to_string()).unwrap_or_default();
            self.report(LossCause::Rewound, rewind.map_or(0, |rewind| rewind.lost), since, &seen);
        }
        self.seen = Some(look.position);
        Ok(())
    }

    fn report(&mut self, cause: LossCause, lost: u64, since: String, until: &StreamEnd) {
        metrics::entries_lost(cause, lost);
        let line = &mut self.lines[cause as usize];
        if lost > 0 {
            line.since.get_or_insert(since);
        }
        if let Some(count) = line.throttle.add(lost) {
            let since = line.since.take().unwrap_or_default();
            let (partition, until, name) = (self.partition, until.last, cause.label());
            warn!(partition, cause = name, count, since, %until, "entries were lost: {}", cause.story());
        }
    }
}
