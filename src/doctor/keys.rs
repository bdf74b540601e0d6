//! Keys: whether each has the right type, and how full capped structures are.

use redis::Value;

use super::finding::{Answer, Diagnosis, Unseen};
use crate::config::{Deployment, Shell};
use crate::key::Keys;
use crate::redis::reply;
use crate::redis::scripts::repairs::Last;
use crate::redis::scripts::shared_keys;
use crate::state::status::partition_sizes;
use crate::state::{Partition, ask, clock_went_back, literal};

/// How many keys are examined, out of those that `SCAN` finds in as many calls.
const SAMPLE: usize = 500;
const CALLS: usize = 20;
/// How many keys a finding names.
const NAMED: usize = 5;
/// For how long a repair is reported.
const LATELY_MS: u64 = 3_600_000;

/// The structures that every event may need.
pub(super) async fn shared(partition: &mut Partition, stream: &str, shell: &Shell) -> Answer {
    let mut wanted = shared_keys(stream, &partition.keys);
    wanted.push((partition.keys.notifier(), "hash"));
    let count = wanted.len();
    let wrong = of_another_type(partition, wanted).await?;
    if wrong.is_empty() {
        return Ok(Diagnosis::ok(format!("all {count} have the right type")));
    }
    let means = "workers and janitors, or a notifier, cannot work until this key is free";
    Ok(out_of_the_way(Diagnosis::failure(listed(&wrong), means), &wrong, shell))
}

/// Expiries that others set: on the shared keys now, and on any key recently.
pub(super) async fn expiries(
    partition: &mut Partition,
    stream: &str,
    now_ms: u64,
    shell: &Shell,
) -> Answer {
    let keys = shared_keys(stream, &partition.keys);
    let count = keys.len();
    let mut ending = Vec::new();
    for (key, _) in keys {
        let left = reply::integer(&ask(&mut partition.connection, &["PTTL", &key]).await?);
        ending.extend(left.filter(|left_ms| *left_ms >= 0).map(|left_ms| (key, left_ms)));
    }
    if let Some((key, left_ms)) = ending.first() {
        let found = format!("{key} expires in {} s, with all its content", left_ms / 1000);
        let means = "another program set an expiry on it; a janitor, or a worker with entries to apply, removes it \
                     within 2 s";
        let mut diagnosis = Diagnosis::failure(found, means).advise(
            "check that a janitor runs, and stop the program that sets it; to remove it at once:",
        );
        for (key, _) in &ending {
            diagnosis = diagnosis.run(shell.redis_cli(&["PERSIST", key]));
        }
        return Ok(diagnosis);
    }
    let janitor = partition.keys.janitor();
    let last = reply::text(ask(&mut partition.connection, &["HGET", &janitor, "repair"]).await?);
    let last = last.as_deref().and_then(Last::read);
    match last.filter(|last| now_ms.saturating_sub(last.at_ms) < LATELY_MS) {
        Some(last) => Ok(repaired(&last, now_ms, &janitor, shell)),
        None => Ok(Diagnosis::ok(format!("none of the {count} shared keys has one"))),
    }
}

/// A recent repair of what others, or a clock that went back, had done.
fn repaired(last: &Last, now_ms: u64, janitor: &str, shell: &Shell) -> Diagnosis {
    let ago_s = now_ms.saturating_sub(last.at_ms) / 1000;
    let when = match clock_went_back(last.at_ms, now_ms) {
        Some(_) => "before the server's clock went back".to_owned(),
        None => format!("{ago_s} s ago"),
    };
    let found = format!("{when}, {}: {}", last.key, last.repair.story());
    let means = "what it removes in between is missing until the next event, and some of it does not come back";
    Diagnosis::warning(found, means)
        .advise(
            "find the program (an old version of your own that sets expiries? see CLIENT LIST, and briefly MONITOR) \
             and revoke its rights to these keys; for a clock, see its checks; then clear this record:",
        )
        .run(shell.redis_cli(&["HDEL", janitor, "repair"]))
}

/// A bounded sample of the keys with an identifier in their name.
pub(super) async fn sample(partition: &mut Partition, shell: &Shell) -> Answer {
    let sample = sampled(partition).await?;
    let count = sample.len();
    let names = sample.iter().map(|own| (own.key.clone(), own.kind)).collect();
    let wrong = of_another_type(partition, names).await?;
    if !wrong.is_empty() {
        let means = "an entry that needs such a key becomes a dead letter (wrong_type)";
        return Ok(out_of_the_way(Diagnosis::warning(listed(&wrong), means), &wrong, shell));
    }
    match of_another_end(partition, &sample).await? {
        Some(own) => Ok(wrong_end(own, shell)),
        None => Ok(Diagnosis::ok(format!("{count} examined, all have the right type and expiry"))),
    }
}

/// The first of the keys that has an expiry and should have none, or the other way round.
async fn of_another_end<'k>(
    partition: &mut Partition,
    sample: &'k [OwnKey],
) -> Result<Option<&'k OwnKey>, Unseen> {
    for own in sample {
        let left = reply::integer(&ask(&mut partition.connection, &["PTTL", &own.key]).await?);
        if left.is_some_and(|left| left >= 0 && !own.ends || left == -1 && own.ends) {
            return Ok(Some(own));
        }
    }
    Ok(None)
}

fn wrong_end(own: &OwnKey, shell: &Shell) -> Diagnosis {
    let key = own.key.as_str();
    if own.ends {
        let means = "another program removed its expiry: it stays until an event writes it again";
        return Diagnosis::warning(format!("{key} has no expiry"), means)
            .advise("find out which program did; set one:")
            .run(shell.redis_cli(&["EXPIRE", key, "300"]));
    }
    let means = "another program set one: its content will be lost with it";
    Diagnosis::warning(format!("{key} has an expiry"), means)
        .advise("find out which program did; remove it:")
        .run(shell.redis_cli(&["PERSIST", key]))
}

async fn sampled(partition: &mut Partition) -> Result<Vec<OwnKey>, Unseen> {
    let is_own = own_key(&partition.keys);
    let pattern = format!("{}*", literal(partition.keys.base()));
    let (mut cursor, mut names) = ("0".to_owned(), Vec::new());
    for _ in 0..CALLS {
        let words = ["SCAN", &cursor, "COUNT", "1000", "MATCH", &pattern];
        let page = reply::array(ask(&mut partition.connection, &words).await?);
        let mut page = page.unwrap_or_default().into_iter();
        cursor = page.next().and_then(reply::text).unwrap_or_default();
        let found = page.next().and_then(reply::array).unwrap_or_default();
        names.extend(found.into_iter().filter_map(&is_own));
        if cursor == "0" || cursor.is_empty() || names.len() >= SAMPLE {
            break;
        }
    }
    names.truncate(SAMPLE);
    Ok(names)
}

/// Those of the keys that have another type.
async fn of_another_type(
    partition: &mut Partition,
    wanted: Vec<(String, &'static str)>,
) -> Result<Vec<Wrong>, Unseen> {
    let mut wrong = Vec::new();
    for (key, kind) in wanted {
        let found = reply::text(ask(&mut partition.connection, &["TYPE", &key]).await?);
        // `none`: it does not exist, or has expired meanwhile.
        let found = found.filter(|found| found != kind && found != "none");
        wrong.extend(found.map(|found| (key, found, kind)));
    }
    Ok(wrong)
}

/// A key with an identifier in its name.
struct OwnKey {
    key: String,
    /// Its proper type.
    kind: &'static str,
    /// Whether it has an expiry of its own.
    ends: bool,
}

/// The key, if it has an identifier in its name.
fn own_key(keys: &Keys) -> impl Fn(Value) -> Option<OwnKey> + use<> {
    let kinds = [
        (keys.online(), "", "set", true),
        (keys.activity(), "", "string", true),
        (keys.viewed(), "", "zset", false),
        (keys.document(), ":users", "set", false),
        (keys.document(), ":count", "string", false),
        (keys.session_data(), "", "string", true),
    ];
    move |name| {
        let key = reply::text(name)?;
        let fits = |(start, end, ..): &&(String, &str, &str, bool)| {
            key.len() > start.len() && key.starts_with(start.as_str()) && key.ends_with(end)
        };
        let &(_, _, kind, ends) = kinds.iter().find(fits)?;
        Some(OwnKey { key, kind, ends })
    }
}

/// A key, its type, and the proper type.
type Wrong = (String, String, &'static str);

fn listed(wrong: &[Wrong]) -> String {
    let named: Vec<String> = wrong
        .iter()
        .take(NAMED)
        .map(|(key, found, kind)| format!("{key} holds a {found}, where a {kind} belongs"))
        .collect();
    let more = wrong.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    named.join("; ") + &more
}

fn out_of_the_way(mut diagnosis: Diagnosis, wrong: &[Wrong], shell: &Shell) -> Diagnosis {
    diagnosis = diagnosis.advise("find out which program wrote it, and move it out of the way:");
    for (key, ..) in wrong.iter().take(NAMED) {
        diagnosis = diagnosis.run(shell.redis_cli(&["RENAMENX", key, &format!("foreign:{key}")]));
    }
    diagnosis
}

/// How close dead letters and tokens are to their caps.
pub(super) async fn caps(
    partition: &mut Partition,
    deployment: &Deployment,
    now_ms: u64,
    shell: &Shell,
) -> Answer {
    let sizes = partition_sizes(partition, deployment, now_ms / 60_000).await?;
    let size = |name: &str| sizes.iter().find(|size| size.name == name).map_or(0, |s| s.size);
    let (dead, recent) = (size("dead_letters"), size("recent_tokens"));
    let found = format!(
        "{dead} of {} dead letters, {recent} of {} tokens",
        deployment.dead_cap, deployment.recent_cap
    );
    let is_near = |size: u64, cap: u64| size.saturating_mul(10) >= cap.saturating_mul(9);
    if is_near(dead, deployment.dead_cap) {
        return Ok(Diagnosis::warning(found, "the oldest dead letters are dropped at the cap")
            .advise("see what they are, and fix their cause; after reading them, drop them:")
            .run(shell.rollcall(&["dead", "list"]))
            .run(shell.redis_cli(&["XTRIM", &partition.keys.dead(), "MAXLEN", "0"])));
    }
    if is_near(recent, deployment.recent_cap) {
        let means = "at the cap the oldest tokens are dropped, with their logins and viewed items";
        return Ok(Diagnosis::warning(found, means).advise(
            "if that is too soon, raise --recent-cap in the whole deployment (see rollcall config print)",
        ));
    }
    Ok(Diagnosis::ok(found))
}
