//! The server and its clients: its version, its response time, and its treatment of connections.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::facts::Facts;
use super::finding::{Answer, Diagnosis};
use crate::config::{Config, Shell};
use crate::error::{Error, chain};
use crate::redis::connect::Node;
use crate::state::server_time;

/// How many round trips are measured.
const TRIPS: usize = 5;
/// A longer round trip noticeably delays every batch.
const SLOW: Duration = Duration::from_millis(50);
/// The permitted difference between two clocks.
const APART_MS: u64 = 1_000;
/// Seconds of silence that are normal for a worker or reader.
const SHORT_TIMEOUT_S: u64 = 60;
/// A script of Rollcall takes some milliseconds; on a busy machine it may take longer.
const SHORT_SCRIPT_MS: u64 = 1_000;

pub(super) fn version(facts: &Facts) -> Answer {
    if let Ok(version) = facts.info("valkey_version") {
        return Ok(Diagnosis::ok(format!("Valkey {version}")));
    }
    let version = facts.info("redis_version")?;
    let major: u64 = version.split('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    if major >= 7 {
        return Ok(Diagnosis::ok(format!("Redis {version}")));
    }
    let means = "the scripts need features of Redis 7.0 (#!lua, redis.acl_check_cmd)";
    Ok(Diagnosis::failure(format!("Redis {version}"), means)
        .advise("upgrade the server to Redis 7.0 or later, or to Valkey"))
}

/// The median of some round trips; a refused command takes as long as any other.
pub(super) async fn latency(node: &mut Node, shell: &Shell) -> Answer {
    let mut trips = [Duration::ZERO; TRIPS];
    for trip in &mut trips {
        let start = Instant::now();
        server_time(&mut node.connection).await?;
        *trip = start.elapsed();
    }
    trips.sort();
    Ok(judge_latency(trips[TRIPS / 2], shell))
}

fn judge_latency(trip: Duration, shell: &Shell) -> Diagnosis {
    let found = format!("a round trip takes {:.1} ms", trip.as_secs_f64() * 1000.0);
    if trip < SLOW {
        return Diagnosis::ok(found);
    }
    Diagnosis::warning(found, "every batch and every reader waits for one round trip")
        .advise("run Rollcall near the server, and see what keeps the server busy:")
        .run(shell.redis_cli(&["SLOWLOG", "GET"]))
}

/// Compares the server's clock with this machine's.
pub(super) async fn clock(node: &mut Node, config: &Config) -> Answer {
    let start = Instant::now();
    let server_ms = server_time(&mut node.connection).await?;
    let trip_ms = start.elapsed().as_millis() as u64;
    let own = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let own_ms = (own.as_millis() as u64).saturating_sub(trip_ms / 2);
    Ok(judge_clock(server_ms, own_ms, trip_ms, config.deployment.max_skew_ms))
}

fn judge_clock(server_ms: u64, own_ms: u64, trip_ms: u64, max_skew_ms: u64) -> Diagnosis {
    let apart_ms = server_ms.abs_diff(own_ms).saturating_sub(trip_ms);
    let which = if server_ms > own_ms { "ahead of" } else { "behind" };
    let found = format!("the server's clock is {apart_ms} ms {which} this machine's");
    if apart_ms <= APART_MS {
        return Diagnosis::ok(format!("within {APART_MS} ms of this machine's"));
    }
    let means = "expiry follows the server's clock: an event with this machine's time is late, or its time is \
                 reduced to the entry's time plus --max-skew";
    let judge = if apart_ms > max_skew_ms { Diagnosis::failure } else { Diagnosis::warning };
    judge(found, means)
        .advise("synchronise both machines' clocks, with chrony or systemd-timesyncd")
}

pub(super) fn clients(facts: &Facts) -> Answer {
    let (connected, most) = (facts.number("connected_clients")?, facts.number("maxclients")?);
    let found = format!("{connected} of at most {most}");
    if connected.saturating_mul(10) < most.saturating_mul(8) {
        return Ok(Diagnosis::ok(found));
    }
    let raised = (most * 2).to_string();
    let means = "at the limit the server refuses every new connection";
    Ok(facts.set(Diagnosis::warning(found, means), "maxclients", &raised))
}

pub(super) fn timeout(facts: &Facts) -> Answer {
    let seconds = facts.parameter_number("timeout")?;
    if seconds == 0 || seconds >= SHORT_TIMEOUT_S {
        return Ok(Diagnosis::ok(format!("{seconds} s (0: idle clients are never disconnected)")));
    }
    let found = format!("{seconds} s: idle clients are then disconnected");
    let means = "programs that keep connections for later use lose them; workers and janitors keep theirs alive";
    Ok(facts.set(Diagnosis::warning(found, means), "timeout", "0"))
}

pub(super) fn script_limit(facts: &Facts) -> Answer {
    let limit_ms = facts.parameter_number("busy-reply-threshold")?;
    let found = format!("busy-reply-threshold is {limit_ms} ms");
    if limit_ms == 0 || limit_ms >= SHORT_SCRIPT_MS {
        return Ok(Diagnosis::ok(found));
    }
    let means = "during a script that takes longer, all other clients are refused with BUSY";
    Ok(facts.set(Diagnosis::warning(found, means), "busy-reply-threshold", "5000"))
}

/// The limit of normal clients, beyond which the server disconnects a worker that reads a large batch.
pub(super) fn output_buffers(facts: &Facts, config: &Config) -> Answer {
    let limits = facts.parameter("client-output-buffer-limit")?;
    let mut words = limits.split(' ').skip_while(|word| *word != "normal").skip(1);
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let (hard, soft) = (number(), number());
    let entries = &config.deployment.limits;
    let batch = (config.worker.batch * entries.max_field_bytes).max(2 * entries.max_data_bytes);
    let least = [hard, soft].into_iter().filter(|limit| *limit > 0).min();
    match least {
        Some(limit) if limit < batch as u64 => {
            let found = format!(
                "the server disconnects a client with more than {limit} bytes of pending replies"
            );
            let means = format!(
                "a batch of large entries can have {batch} bytes: a disconnected worker reads it again, and fails \
                 again"
            );
            let diagnosis = Diagnosis::warning(found, means);
            Ok(facts.set(diagnosis, "client-output-buffer-limit", "normal 0 0 0"))
        }
        Some(limit) => Ok(Diagnosis::ok(format!("{limit} bytes for normal clients"))),
        None => Ok(Diagnosis::ok("no limit for normal clients")),
    }
}

/// The server could not be reached at all, or does not answer about keys.
pub(super) fn unreachable(error: &Error, is_whole: bool, shell: &Shell) -> Diagnosis {
    let means = if is_whole {
        "no role can start, and no other check could be made"
    } else {
        "this partition is not served, and no other check of it could be made"
    };
    let diagnosis = Diagnosis::failure(chain(error), means);
    match error.kind() {
        "auth" => diagnosis.advise(
            "check --redis-username and --redis-password-file (or ROLLCALL_REDIS_PASSWORD)",
        ),
        "clusterdown" => diagnosis
            .advise(
                "bring the missing nodes of the Cluster back, or see which slots are not served:",
            )
            .run(shell.redis_cli(&["CLUSTER", "NODES"])),
        "loading" => {
            diagnosis.advise("the server is loading its data from disk: wait, and check again")
        }
        "connection" => {
            diagnosis.advise("check that the server runs, --redis-url, and the network")
        }
        _ => diagnosis.advise(error.remedy(shell).unwrap_or_else(|| "see its log".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::facts;
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn old_servers_are_told_from_those_that_will_do() {
        let level = |info: &[(&str, &str)]| version(&facts(info, &[])).unwrap().level;
        assert_eq!(level(&[("redis_version", "6.2.14")]), Level::Failure);
        assert_eq!(level(&[("redis_version", "7.0.0")]), Level::Ok);
        assert_eq!(level(&[("redis_version", "10.1.0")]), Level::Ok);
        assert_eq!(level(&[("redis_version", "7.2.4"), ("valkey_version", "8.1.1")]), Level::Ok);
        assert!(version(&facts(&[], &[])).is_err());
    }

    #[test]
    fn a_slow_answer_and_a_wrong_clock_are_noticed() {
        let shell = facts(&[], &[]).shell;
        assert_eq!(judge_latency(Duration::from_millis(1), &shell).level, Level::Ok);
        assert_eq!(judge_latency(Duration::from_millis(80), &shell).level, Level::Warning);
        let level = |server, own, trip| judge_clock(server, own, trip, 60_000).level;
        assert_eq!(level(1_000_000, 1_000_900, 0), Level::Ok);
        assert_eq!(level(1_000_000, 1_003_000, 2_500), Level::Ok, "the trip took that long");
        assert_eq!(level(1_000_000, 1_003_000, 10), Level::Warning);
        assert_eq!(level(1_100_000, 1_000_000, 10), Level::Failure);
    }
}
