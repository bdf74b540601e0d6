//! The group's figures for a partition, and what others do to the group.

use rollcall::entry::EntryId;
use rollcall::redis::scripts::owner::Beat;

use super::{Lane, World};
use crate::scene::try_command;

impl World {
    pub(super) async fn beat(&mut self, lane: &mut Lane, worker: usize) -> Result<(), String> {
        let part = &lane.parts[worker];
        let Some(tenure) = &part.tenure else { return Ok(()) };
        match part.ownership.beat(&mut self.connection, tenure).await {
            Ok(Beat::Kept { .. }) if lane.owner == worker => self.check_position(lane),
            Err(error) if error.is_lost_ownership() && lane.owner != worker => Ok(()),
            other => Err(format!("worker {worker}, owner {}: {other:?}", lane.owner)),
        }
    }

    /// The group's position is the cursor; nothing is pending; the lag is the number of entries behind the cursor.
    pub(super) fn check_position(&mut self, lane: &Lane) -> Result<(), String> {
        let stream = self.deployment.stream(lane.partition);
        let groups: Vec<std::collections::HashMap<String, redis::Value>> =
            try_command(&mut self.conn, &["XINFO", "GROUPS", &stream]).unwrap();
        let text = |name: &str| {
            redis::from_redis_value::<Option<String>>(groups[0][name].clone()).unwrap()
        };
        let cursor = (lane.passed as usize).checked_sub(1).map(|last| lane.entries[last].id);
        let cursor = cursor.unwrap_or(EntryId { ms: 0, seq: 0 }).to_string();
        let behind = (lane.added as u64 - lane.passed).to_string();
        let found = (text("last-delivered-id"), text("pending"), text("lag"));
        if found == (Some(cursor), Some("0".to_owned()), Some(behind)) {
            return Ok(());
        }
        Err(format!("{} of {} passed, but the group says {found:?}", lane.passed, lane.added))
    }

    /// What others may do to a group that is not theirs.
    pub(super) fn meddle(&mut self, lane: &Lane, deed: usize) {
        let (stream, group) = (
            self.deployment.stream(lane.partition),
            self.deployment.config.deployment.group.clone(),
        );
        let (s, g) = (stream.as_str(), group.as_str());
        let deeds: [&[&str]; 6] = [
            &["XREADGROUP", "GROUP", g, "stranger", "COUNT", "3", "STREAMS", s, ">"],
            &["XGROUP", "SETID", s, g, "0"],
            &["XGROUP", "SETID", s, g, "$"],
            &["XGROUP", "DESTROY", s, g],
            &["XGROUP", "DELCONSUMER", s, g, "stranger"],
            &["XAUTOCLAIM", s, g, "stranger", "0", "0-0"],
        ];
        // There may be no group.
        let _any: redis::RedisResult<redis::Value> =
            try_command(&mut self.conn, deeds[deed % deeds.len()]);
    }
}
