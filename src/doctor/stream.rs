//! The stream itself: whether its ids follow the clock, and whether its entries can be read.

use std::collections::BTreeMap;

use super::finding::{Answer, Diagnosis, Unseen};
use crate::config::{Deployment, Shell};
use crate::decode::decode;
use crate::entry::EntryId;
use crate::redis::reply;
use crate::state::status::Work;
use crate::state::{Partition, ask};

/// How many entries are examined, from the newest on.
const SAMPLE: &str = "50";
/// How far the last id may be ahead: the server's clock may have been set back a little.
const AHEAD_MS: u64 = 1_000;

/// Compares the last id with the server's clock.
pub(super) fn ids(work: &Work, deployment: &Deployment, now_ms: u64, shell: &Shell) -> Diagnosis {
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
            "a producer chose the id, or the server's clock was set back: wait, or correct the clock",
        );
    }
    let means = "events count as that much later than they are; beyond the greatest id XADD is refused for good";
    let (last, new) = (last.to_string(), format!("{now_ms}-0"));
    Diagnosis::failure(found, means)
        .advise("do not let producers XADD with ids of their own; stop them, let the workers finish, then:")
        .run(shell.redis_cli(&["XDEL", stream, &last]))
        .run(shell.redis_cli(&["XSETID", stream, &new]))
        .run(shell.redis_cli(&["XGROUP", "SETID", stream, &deployment.group, &new]))
}

/// The newest entries, read as a worker would.
pub(super) async fn entries(
    partition: &mut Partition,
    deployment: &Deployment,
    shell: &Shell,
) -> Answer {
    let stream = partition.keys.named(&deployment.stream);
    let words = ["XREVRANGE", &stream, "+", "-", "COUNT", SAMPLE];
    let value = ask(&mut partition.connection, &words).await?;
    let Some(newest) = reply::entries(&value) else { return Err(Unseen::unsaid("its entries")) };
    let rules = deployment.rules();
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
    Ok(Diagnosis::warning(found, "entries that cannot be read become dead letters")
        .advise("see why, and what an entry may contain (rollcall schema); then fix the producer:")
        .run(shell.rollcall(&["dead", "list"])))
}
