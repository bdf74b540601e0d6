//! Keys: whether each holds what Rollcall keeps there, and how full what has a cap is.

use redis::Value;

use super::finding::{Answer, Diagnosis, Unseen};
use crate::config::{Deployment, Shell};
use crate::key::Keys;
use crate::redis::reply;
use crate::redis::scripts::shared_keys;
use crate::state::status::partition_sizes;
use crate::state::{Partition, ask, literal};

/// Keys that are looked at, of those that `SCAN` comes upon in so many calls.
const SAMPLE: usize = 500;
const CALLS: usize = 20;
/// Keys that a finding names.
const NAMED: usize = 5;

/// The structures that every event may need.
pub(super) async fn shared(partition: &mut Partition, stream: &str, shell: &Shell) -> Answer {
    let wanted = shared_keys(stream, &partition.keys);
    let count = wanted.len();
    let wrong = of_another_type(partition, wanted).await?;
    if wrong.is_empty() {
        return Ok(Diagnosis::ok(format!("all {count} have their type")));
    }
    let means = "workers and janitors stand still until this key is free";
    Ok(out_of_the_way(Diagnosis::failure(listed(&wrong), means), &wrong, shell))
}

/// A bounded sample of the keys with an identifier in their name.
pub(super) async fn sample(partition: &mut Partition, shell: &Shell) -> Answer {
    let names = sampled(partition).await?;
    let count = names.len();
    let wrong = of_another_type(partition, names).await?;
    if wrong.is_empty() {
        return Ok(Diagnosis::ok(format!("{count} looked at, all have their type")));
    }
    let means = "an entry that needs such a key becomes a dead letter (wrong_type)";
    Ok(out_of_the_way(Diagnosis::warning(listed(&wrong), means), &wrong, shell))
}

async fn sampled(partition: &mut Partition) -> Result<Vec<(String, &'static str)>, Unseen> {
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

/// Those of the keys that hold something else.
async fn of_another_type(
    partition: &mut Partition,
    wanted: Vec<(String, &'static str)>,
) -> Result<Vec<Wrong>, Unseen> {
    let mut wrong = Vec::new();
    for (key, kind) in wanted {
        let found = reply::text(ask(&mut partition.connection, &["TYPE", &key]).await?);
        // None: it is not there, or expired meanwhile.
        let found = found.filter(|found| found != kind && found != "none");
        wrong.extend(found.map(|found| (key, found, kind)));
    }
    Ok(wrong)
}

/// The key and the type that belongs there, if it is one with an identifier in its name.
fn own_key(keys: &Keys) -> impl Fn(Value) -> Option<(String, &'static str)> + use<> {
    let kinds = [
        (keys.online(), "", "set"),
        (keys.activity(), "", "string"),
        (keys.viewed(), "", "zset"),
        (keys.document(), ":users", "set"),
        (keys.document(), ":count", "string"),
        (keys.session_data(), "", "string"),
    ];
    move |name| {
        let name = reply::text(name)?;
        let fits = |(start, end, _): &&(String, &str, &str)| {
            name.len() > start.len() && name.starts_with(start.as_str()) && name.ends_with(end)
        };
        let kind = kinds.iter().find(fits)?.2;
        Some((name, kind))
    }
}

/// A key, what it holds, and what belongs there.
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
    diagnosis = diagnosis.advise("find out who wrote it, and put it out of the way:");
    for (key, ..) in wrong.iter().take(NAMED) {
        diagnosis = diagnosis.run(shell.redis_cli(&["RENAMENX", key, &format!("foreign:{key}")]));
    }
    diagnosis
}

/// How near the dead letters and the tokens are to what would be dropped.
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
            .advise(
                "see what they are, and mend what makes them; then, with all read, let them go:",
            )
            .run(shell.rollcall(&["dead", "list"]))
            .run(shell.redis_cli(&["XTRIM", &partition.keys.dead(), "MAXLEN", "0"])));
    }
    if is_near(recent, deployment.recent_cap) {
        let means = "at the cap the oldest tokens go, with their logins and viewed items";
        return Ok(Diagnosis::warning(found, means).advise(
            "if that is too early, raise --recent-cap in the whole deployment (see rollcall config print)",
        ));
    }
    Ok(Diagnosis::ok(found))
}
