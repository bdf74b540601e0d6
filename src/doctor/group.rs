//! The partition's owner and the janitor: whether they work, and what is waiting.

use std::time::Duration;

use super::finding::{Answer, Diagnosis, Unseen};
use crate::config::{Config, Shell};
use crate::redis::reply;
use crate::redis::scripts::owner::{Ownership, Seen};
use crate::state::status::{Backlog, Stream, Work};
use crate::state::{AskError, Partition, ask, clock_went_back, number};

/// An owner beats more often than this.
const A_BEAT: Duration = Duration::from_millis(1_500);

/// The input of a check of the group.
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

    /// The remedy if nobody has a role.
    fn start(&self, diagnosis: Diagnosis, role: &str) -> Diagnosis {
        diagnosis.advise("start one:").run(self.shell.rollcall(&[role]))
    }
}

pub(super) fn group(place: &Place<'_>) -> Diagnosis {
    let name = &place.config.deployment.group;
    let Some(stream) = &place.work.stream else {
        let means = "nobody has added an event, and no worker has started";
        return place.start(Diagnosis::warning("there is no stream yet", means), "worker");
    };
    let Some(group) = &stream.group else {
        let found = format!("{} has no group {name}", stream.key);
        let means = format!("{} entries are waiting; a worker creates the group", stream.entries);
        return place.start(Diagnosis::warning(found, means), "worker");
    };
    let undelivered =
        group.undelivered.map_or("an unknown number of".to_owned(), |n| n.to_string());
    Diagnosis::ok(format!("{name}: {undelivered} entries behind the cursor"))
}

/// Whether somebody works on the partition.
pub(super) async fn owner(partition: &mut Partition, place: &Place<'_>) -> Answer {
    let Some(group) = place.backlog() else {
        return Ok(Diagnosis::ok("no owner is expected before there is a group"));
    };
    let waits = group.undelivered != Some(0);
    let idle = |found: String| {
        let diagnosis = if waits {
            Diagnosis::failure(found, "entries are waiting, and the state is not updated")
        } else {
            Diagnosis::warning(found, "nothing is waiting now, but the next event will")
        };
        place.start(diagnosis, "worker")
    };
    let Some(owner) = &group.owner else {
        return Ok(idle("no worker owns the partition".to_owned()));
    };
    let ownership = Ownership::new(&place.config.deployment, &partition.keys, String::new());
    let Some(connection) = partition.connection.open() else {
        return Err(Unseen::unsaid("anything: its node is away"));
    };
    let seen: Seen = ownership.look(connection).await.map_err(AskError::from)?;
    let lives = ownership.owner_lives(connection, &seen).await.map_err(AskError::from)?;
    if lives == Some(false) {
        return Ok(idle(format!("the owner, {owner}, is gone, and no worker has taken over")));
    }
    if waits {
        tokio::time::sleep(A_BEAT).await;
        if ownership.look(connection).await.map_err(AskError::from)? == seen {
            return Ok(idle(format!("the owner, {owner}, shows no sign of life")));
        }
    }
    Ok(Diagnosis::ok(format!("{owner}, {} at work", group.workers.len())))
}

/// Deaths of workers on an entry, and what others do to the group.
pub(super) async fn trouble(partition: &mut Partition, place: &Place<'_>) -> Answer {
    let Some(stream) = place.work.stream.as_ref().filter(|stream| stream.group.is_some()) else {
        return Ok(Diagnosis::ok("nothing has been read yet"));
    };
    let name = &place.config.deployment.group;
    let meta = partition.keys.meta();
    let deaths = ask(&mut partition.connection, &["HGET", &meta, "deaths"]).await?;
    let at = stream.group.as_ref().and_then(|group| group.cursor.as_deref());
    // Deaths on an entry that has been passed since do not matter any more.
    if let Some(deaths) = reply::text(deaths)
        && let Some((cursor, terms)) = deaths.split_once(' ').filter(|found| Some(found.0) == at)
    {
        let times = terms.split(' ').count();
        let found = format!("deaths of workers on the entry after {cursor}: {times}");
        let after = format!("({cursor}");
        return Ok(Diagnosis::warning(found, "after the second death it becomes a dead letter")
            .advise("see the workers' logs and the entry:")
            .run(place.shell.redis_cli(&["XRANGE", &stream.key, &after, "+", "COUNT", "1"])));
    }
    let pending = ask(&mut partition.connection, &["XPENDING", &stream.key, name]).await?;
    let pending = reply::array(pending).and_then(|parts| number(parts.first()?)).unwrap_or(0);
    if pending > 0 {
        let found = format!("{pending} entries are pending in the group {name}");
        let means = "another program reads through it; the owner acknowledges what it leaves, and nothing is lost";
        return Ok(Diagnosis::warning(found, means)
            .advise("give that program a group of its own; see which it is:")
            .run(place.shell.redis_cli(&["XINFO", "CONSUMERS", &stream.key, name])));
    }
    Ok(Diagnosis::ok("no worker died on an entry, and nobody else uses the group"))
}

/// Whether somebody sweeps.
pub(super) fn janitor(place: &Place<'_>) -> Diagnosis {
    let interval_ms = place.config.janitor.interval.as_millis() as u64;
    // A round over much data takes long.
    let patience_ms = (10 * interval_ms).max(60_000);
    let last_ms = place.work.janitor_last_run_ms;
    let ahead_ms = last_ms.and_then(|ms| clock_went_back(ms, place.now_ms));
    let ago_ms = last_ms.map(|ms| place.now_ms.saturating_sub(ms));
    let found = match ago_ms {
        _ if ahead_ms.is_some() => format!(
            "the last sweep is dated {} s ahead of the server's clock: the clock went back, and no janitor has swept \
             since",
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
    let means = "nothing stale is removed: users who left stay online, and the stream grows";
    place.start(judge(found, means), "janitor")
}

/// What prevents the stream from being trimmed.
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
            .advise("see why the workers do not reach it: their logs, and the checks above");
    }
    diagnosis
        .advise("start the program that reads with that group or, if there is none any more:")
        .run(place.shell.redis_cli(&["XGROUP", "DESTROY", &stream.key, group]))
}
