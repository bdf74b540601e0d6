//! The stream itself: whether its ids follow the clock, and whether its entries can be read.

use std::collections::BTreeMap;

use super::finding::{Answer, Cli, Diagnosis, Unseen};
use crate::config::Deployment;
use crate::decode::{Rules, decode};
use crate::entry::EntryId;
use crate::key::Keys;
use crate::redis::reply;
use crate::state::status::Work;
use crate::state::{Partition, ask};

/// Entries that are looked at, from the newest on.
const SAMPLE: &str = "50";
/// How far the last id may run ahead: the clock of a server may have been set back a little.
const AHEAD_MS: u64 = 1_000;
/// Sets the stream's last id back, and what stood at it: in one call, with a fence of nobody, so that no worker takes
/// it for another stream, and each looks again where it is.
const SET_BACK: &str = "redis.call('XDEL', KEYS[1], ARGV[1]) redis.call('XSETID', KEYS[1], ARGV[2]) \
    redis.call('HSET', KEYS[2], 'last_id', ARGV[2], 'fence', '') \
    if redis.call('HGET', KEYS[2], 'cursor') ~= ARGV[1] then return 0 end \
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[3], ARGV[2]) redis.call('HSET', KEYS[3], 'cursor', ARGV[2]) \
    redis.call('HSET', KEYS[2], 'cursor', ARGV[2]) return 1";

/// The last id against the server's clock.
pub(super) fn ids(
    work: &Work,
    deployment: &Deployment,
    keys: &Keys,
    now_ms: u64,
    cli: &Cli,
) -> Diagnosis {
    let last = work
        .stream
        .as_ref()
        .and_then(|stream| Some((stream.key.as_str(), stream.last_id.parse::<EntryId>().ok()?)));
    let Some((stream, last)) = last else { return Diagnosis::ok("there is no stream yet") };
    let ahead_ms = last.ms.saturating_sub(now_ms);
    if ahead_ms <= AHEAD_MS {
        return Diagnosis::ok(format!("{last} is not ahead of the clock"));
    }
    let found =
        format!("the last id, {last}, is {} s ahead of the server's clock", ahead_ms / 1000);
    if ahead_ms <= deployment.max_skew_ms {
        return Diagnosis::warning(found, "events count as that much later than they are").advise(
            "a producer chose the id, or the server's clock was set back: wait, or mend the clock",
        );
    }
    let means = "events count as that much later than they are; beyond the greatest id XADD is refused for good";
    let (last, new) = (last.to_string(), format!("{now_ms}-0"));
    let (meta, janitor, group) = (keys.meta(), keys.janitor(), &deployment.group);
    Diagnosis::failure(found, means)
        .advise("take XADD with ids of their own from producers; stop them, let the workers finish, then:")
        .run(cli.command(&["EVAL", SET_BACK, "3", stream, &meta, &janitor, &last, &new, group]))
}

/// The newest entries, read as a worker would.
pub(super) async fn entries(partition: &mut Partition, deployment: &Deployment) -> Answer {
    let stream = partition.keys.named(&deployment.stream);
    let words = ["XREVRANGE", &stream, "+", "-", "COUNT", SAMPLE];
    let value = ask(&mut partition.connection, &words).await?;
    let Some(newest) = reply::entries(value) else { return Err(Unseen::unsaid("its entries")) };
    let rules = Rules {
        limits: deployment.limits.clone(),
        max_skew_ms: deployment.max_skew_ms,
        partitions: deployment.partitions,
    };
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in &newest {
        for rejected in decode(entry, partition.index, &rules).rejected {
            *reasons.entry(rejected.rejection.reason.name()).or_default() += 1;
        }
    }
    let count = newest.len();
    if reasons.is_empty() {
        return Ok(Diagnosis::ok(format!("the newest {count} can be read")));
    }
    let reasons: Vec<String> = reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    let found =
        format!("of the newest {count} entries some cannot be read: {}", reasons.join(", "));
    Ok(Diagnosis::warning(found, "what cannot be read becomes a dead letter")
        .advise("see why, and mend the producer: rollcall dead list; what an entry may hold: rollcall schema"))
}
