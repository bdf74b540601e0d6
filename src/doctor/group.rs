//! The consumer group and the janitor: whether somebody works, and what waits for whom.

use redis::Value;

use super::finding::{Answer, Diagnosis};
use crate::config::{Config, Shell};
use crate::redis::reply;
use crate::state::status::{Backlog, Consumer, Stream, Work};
use crate::state::{Partition, ask, clock_went_back, number};

/// A worker says that it lives two or three times in its --claim-idle; a busy machine makes that less.
const LEAST_PATIENCE_MS: u64 = 30_000;
/// Pending entries that are looked at, from the oldest on.
const LOOKED_AT: usize = 1000;
/// Entries or consumers that a finding names.
const NAMED: usize = 5;

/// What a check of the group starts from.
pub(super) struct Place<'a> {
    pub(super) config: &'a Config,
    pub(super) work: &'a Work,
    pub(super) now_ms: u64,
    pub(super) shell: &'a Shell,
}

impl Place<'_> {
    fn backlog(&self) -> Option<&Backlog> {
        self.work.stream.as_ref()?.group.as_ref()
    }

    fn is_alive(&self, consumer: &Consumer) -> bool {
        // A sign from before the clock went back says nothing.
        let is_recent = |ms| {
            clock_went_back(ms, self.now_ms).is_none()
                && self.now_ms.saturating_sub(ms) <= self.patience_ms()
        };
        consumer.heartbeat_ms.is_some_and(is_recent)
    }

    /// Silence after which a worker counts as gone.
    fn patience_ms(&self) -> u64 {
        (self.config.worker.claim_idle.as_millis() as u64).max(LEAST_PATIENCE_MS)
    }

    /// The remedy where nobody plays a role.
    fn start(&self, diagnosis: Diagnosis, role: &str) -> Diagnosis {
        diagnosis.advise("start one:").run(self.shell.rollcall(&[role]))
    }
}

pub(super) fn group(place: &Place<'_>) -> Diagnosis {
    let name = &place.config.deployment.group;
    let Some(stream) = &place.work.stream else {
        let means = "nobody has added an event, no worker has started";
        return place.start(Diagnosis::warning("there is no stream yet", means), "worker");
    };
    let Some(group) = &stream.group else {
        let found = format!("{} has no group {name}", stream.key);
        let means = format!("{} entries wait; a worker makes the group", stream.entries);
        return place.start(Diagnosis::warning(found, means), "worker");
    };
    let undelivered =
        group.undelivered.map_or("an unknown number of".to_owned(), |n| n.to_string());
    Diagnosis::ok(format!("{name}: {} pending, {undelivered} undelivered", group.pending))
}

/// Whether somebody reads.
pub(super) fn workers(place: &Place<'_>) -> Diagnosis {
    let Some(group) = place.backlog() else {
        return Diagnosis::ok("none is expected before there is a group");
    };
    let (alive, dead): (Vec<_>, Vec<_>) =
        group.consumers.iter().partition(|consumer| place.is_alive(consumer));
    let waits = group.pending > 0 || group.undelivered != Some(0);
    if alive.is_empty() {
        let patience_s = place.patience_ms() / 1000;
        let found = format!("no worker has said within {patience_s} s that it lives");
        let diagnosis = if waits {
            Diagnosis::failure(found, "entries wait, and the state stands still")
        } else {
            Diagnosis::warning(found, "nothing waits now; the next event will")
        };
        return place.start(diagnosis, "worker");
    }
    let stuck: Vec<&Consumer> = dead.into_iter().filter(|consumer| consumer.pending > 0).collect();
    if let Some(first) = stuck.first() {
        let named: Vec<&str> = stuck.iter().take(NAMED).map(|c| c.name.as_str()).collect();
        let count: u64 = stuck.iter().map(|consumer| consumer.pending).sum();
        let found = format!(
            "{count} entries are pending for consumers that are gone ({})",
            named.join(", ")
        );
        let means =
            "a worker that lives claims them after --claim-idle; none may have come to it yet";
        let (stream, name) = (stream_key(place), &place.config.deployment.group);
        return Diagnosis::warning(found, means)
            .advise("if they stay, see how long they have waited:")
            .run(place.shell.redis_cli(&["XPENDING", stream, name, "-", "+", "10", &first.name]));
    }
    Diagnosis::ok(format!("{} at work", alive.len()))
}

fn stream_key<'a>(place: &'a Place<'_>) -> &'a str {
    place.work.stream.as_ref().map_or("", |stream| stream.key.as_str())
}

/// Pending entries: for how long, how often delivered, tried alone.
pub(super) async fn pending(partition: &mut Partition, place: &Place<'_>) -> Answer {
    let Some(group) = place.backlog().filter(|group| group.pending > 0) else {
        return Ok(Diagnosis::ok("nothing is pending"));
    };
    let (stream, name) = (stream_key(place), &place.config.deployment.group);
    let words = ["XPENDING", stream, name, "-", "+", &LOOKED_AT.to_string()];
    let rows = reply::array(ask(&mut partition.connection, &words).await?).unwrap_or_default();
    let rows: Vec<Pending> = rows.into_iter().filter_map(Pending::read).collect();
    let suspects = ask(&mut partition.connection, &["HLEN", &partition.keys.suspects()]).await?;
    let suspects = number(&suspects).unwrap_or(0);
    let worker = &place.config.worker;
    let often: Vec<&Pending> =
        rows.iter().filter(|row| row.deliveries > worker.max_deliveries / 2).collect();
    if let Some(first) = often.first() {
        let named: Vec<String> = often
            .iter()
            .take(NAMED)
            .map(|row| format!("{} ({} times)", row.id, row.deliveries))
            .collect();
        let means = "they may be what workers die on: tried alone beyond --max-deliveries, then a dead letter";
        return Ok(Diagnosis::warning(
            format!("entries delivered often: {}", named.join(", ")),
            means,
        )
        .advise("see the workers' logs around them, and what they hold:")
        .run(place.shell.redis_cli(&["XRANGE", stream, &first.id, &first.id])));
    }
    if suspects > 0 {
        let means = "workers died on them, or were taken for dead; each is tried by itself";
        return Ok(Diagnosis::warning(format!("{suspects} entries are tried alone"), means)
            .advise("see which, and the logs of the workers that had them:")
            .run(place.shell.redis_cli(&["HGETALL", &partition.keys.suspects()])));
    }
    let claim_ms = worker.claim_idle.as_millis() as u64;
    let late = rows.iter().filter(|row| row.idle_ms > claim_ms.saturating_mul(2)).count();
    if late > 0 {
        let found = format!("{late} entries have been pending for more than twice --claim-idle");
        return Ok(Diagnosis::warning(found, "workers do not come to claim what others left")
            .advise("see the workers' logs and /readyz; if they are merely busy, start more"));
    }
    Ok(Diagnosis::ok(format!("{}, all within the time to claim", group.pending)))
}

/// A pending entry (`XPENDING`).
struct Pending {
    id: String,
    idle_ms: u64,
    deliveries: u64,
}

impl Pending {
    fn read(row: Value) -> Option<Self> {
        let mut row = reply::array(row)?.into_iter();
        let (id, _consumer) = (reply::text(row.next()?)?, row.next()?);
        Some(Self { id, idle_ms: number(&row.next()?)?, deliveries: number(&row.next()?)? })
    }
}

/// Whether somebody sweeps.
pub(super) fn janitor(place: &Place<'_>) -> Diagnosis {
    let interval_ms = place.config.janitor.interval.as_millis() as u64;
    // A round over much takes its time.
    let patience_ms = (10 * interval_ms).max(60_000);
    let last_ms = place.work.janitor_last_run_ms;
    let ahead_ms = last_ms.and_then(|ms| clock_went_back(ms, place.now_ms));
    let ago_ms = last_ms.map(|ms| place.now_ms.saturating_sub(ms));
    let found = match ago_ms {
        _ if ahead_ms.is_some() => format!(
            "the last sweep is dated {} s ahead of the server's clock: that went back, and no janitor has swept since",
            ahead_ms.unwrap_or_default() / 1000
        ),
        Some(ms) if ms <= patience_ms => {
            return Diagnosis::ok(format!("swept {} s ago", ms / 1000));
        }
        Some(ms) => format!("the last sweep was {} s ago", ms / 1000),
        None => "no janitor has swept yet".to_owned(),
    };
    let has_begun = ago_ms.is_some() || place.backlog().is_some();
    let judge: fn(_, _) -> _ = if has_begun { Diagnosis::failure } else { Diagnosis::warning };
    let means = "nothing stale goes: who left stays online, and the stream grows";
    place.start(judge(found, means), "janitor")
}

/// What keeps the stream from being trimmed.
pub(super) fn trimming(place: &Place<'_>) -> Diagnosis {
    let Some(stream) = &place.work.stream else {
        return Diagnosis::ok("there is no stream yet");
    };
    let keep_s = place.config.janitor.keep_ms as f64 / 1000.0;
    match &stream.held {
        Some(held) if held.age_s > keep_s => blocked(place, stream, &held.group, held.age_s),
        _ => {
            let age_s = stream.first_entry_age_s.unwrap_or(0.0);
            let (seconds, how) =
                (age_s.abs(), if age_s < 0.0 { "ahead of the clock" } else { "old" });
            Diagnosis::ok(format!("{} entries, the oldest {seconds:.0} s {how}", stream.entries))
        }
    }
}

fn blocked(place: &Place<'_>, stream: &Stream, group: &str, age_s: f64) -> Diagnosis {
    let found = format!("group {group} has not finished an entry {age_s:.0} s old");
    let means = format!("nothing after it is trimmed; {} entries are kept", stream.entries);
    let diagnosis = Diagnosis::warning(found, means);
    if group == place.config.deployment.group {
        return diagnosis
            .advise("see why the workers do not come to it: their logs, and the checks above");
    }
    diagnosis
        .advise("start what reads with that group, or, if nothing does any more:")
        .run(place.shell.redis_cli(&["XGROUP", "DESTROY", &stream.key, group]))
}
