//! `status`: the server, the fleet, the backlog and the sizes of the state, once or repeatedly.

mod show;
mod watch;

use std::collections::BTreeSet;

use rollcall::config::{Millis, Shell};
use rollcall::state::status::{self, Server, Size, Work};
use rollcall::state::{AskError, State};
use serde::Serialize;

use crate::query::{Output, Query, QueryError, StreamFlags, play, settings};

/// Show the server, the consumer group and the state.
///
/// The cost for the server does not depend on the size of the state. The number of undelivered entries is marked
/// "about" if the server's count may be wrong because entries were deleted from the stream. `rollcall doctor` says what
/// is wrong and what to do about it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Status {
    /// Repeat until Ctrl-C, every 2s by default; with --json, one object per line
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "2s", value_parser = interval)]
    watch: Option<Millis>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: StreamFlags,
}

fn interval(text: &str) -> Result<Millis, String> {
    let interval: Millis = text.parse().map_err(|error| format!("{error}"))?;
    if interval.ms() < 100 {
        return Err("too often for a server that others use too; use at least 100ms".to_owned());
    }
    Ok(interval)
}

/// Runs the command.
pub(crate) fn run(status: &Status) -> Result<(), QueryError> {
    match status.watch {
        Some(every) => watch::run(status, every.into()),
        None => play(status),
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct StatusAnswer {
    now_ms: u64,
    /// Whether a worker or janitor has ever started here.
    found: bool,
    #[serde(skip)]
    shell: Shell,
    /// `null` if this user may not ask.
    server: Option<Server>,
    stream: String,
    group: String,
    total: Total,
    /// `null` for the first snapshot.
    rates: Option<Rates>,
    sizes: Vec<Size>,
    partitions: Vec<Work>,
}

/// The partitions' figures together.
#[derive(Clone, Debug, Default, Serialize)]
struct Total {
    entries: u64,
    /// Since the stream began.
    entries_added: u64,
    /// Entries behind the cursor; `null` if the server does not know for some partition.
    undelivered: Option<u64>,
    undelivered_is_exact: bool,
    oldest_undelivered_age_s: Option<f64>,
    /// Partitions that a worker owns.
    owned: usize,
    /// Workers that reported recently.
    workers: usize,
    janitor_last_run_ms: Option<u64>,
    changes_seq: u64,
}

impl Total {
    fn of(partitions: &[Work]) -> Self {
        let mut workers = BTreeSet::new();
        let mut total =
            Self { undelivered: Some(0), undelivered_is_exact: true, ..Self::default() };
        let oldest = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        for work in partitions {
            total.changes_seq += work.changes_seq;
            total.janitor_last_run_ms = total.janitor_last_run_ms.max(work.janitor_last_run_ms);
            if work.away.is_some() {
                (total.undelivered, total.undelivered_is_exact) = (None, false);
            }
            let Some(stream) = &work.stream else { continue };
            total.entries += stream.entries;
            total.entries_added += stream.entries_added;
            let Some(group) = &stream.group else {
                // A group that does not exist yet will read all entries.
                total.undelivered = total.undelivered.map(|sum| sum + stream.entries);
                continue;
            };
            total.undelivered = total.undelivered.zip(group.undelivered).map(|(a, b)| a + b);
            total.undelivered_is_exact &= group.undelivered_is_exact;
            total.owned += usize::from(group.owner.is_some());
            workers.extend(&group.workers);
            total.oldest_undelivered_age_s =
                oldest(total.oldest_undelivered_age_s, group.oldest_undelivered_age_s);
        }
        total.workers = workers.len();
        total
    }
}

/// Rates between two snapshots.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Rates {
    added_per_s: f64,
    /// Applied or written off; `null` if the server does not know how many are undelivered.
    finished_per_s: Option<f64>,
    changes_per_s: f64,
}

impl Rates {
    fn between(earlier: &StatusAnswer, later: &StatusAnswer) -> Option<Self> {
        let seconds =
            later.now_ms.checked_sub(earlier.now_ms).filter(|ms| *ms > 0)? as f64 / 1000.0;
        // A counter that began again counts from zero.
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        let finished = |answer: &StatusAnswer| {
            let Total { entries_added, undelivered, .. } = answer.total;
            Some(entries_added.saturating_sub(undelivered?))
        };
        Some(Self {
            added_per_s: rate(earlier.total.entries_added, later.total.entries_added),
            finished_per_s: finished(earlier).zip(finished(later)).map(|(a, b)| rate(a, b)),
            changes_per_s: rate(earlier.total.changes_seq, later.total.changes_seq),
        })
    }
}

impl Query for Status {
    type Answer = StatusAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<StatusAnswer, AskError> {
        let server = match state.reachable() {
            Some(first) => status::server(&mut first.connection).await?,
            None => None,
        };
        let sizes = status::sizes(state).await?;
        let mut partitions = Vec::with_capacity(state.partitions.len());
        for partition in &mut state.partitions {
            partitions.push(status::work(partition, &state.deployment, state.now_ms).await?);
        }
        Ok(StatusAnswer {
            now_ms: state.now_ms,
            found: state.found,
            shell: state.shell.clone(),
            server,
            stream: state.deployment.stream.clone(),
            group: state.deployment.group.clone(),
            total: Total::of(&partitions),
            rates: None,
            sizes,
            partitions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rollcall::state::status::{Backlog, Stream};

    fn work(undelivered: Option<u64>, exact: bool, age: Option<f64>) -> Work {
        let group = Backlog {
            cursor: None,
            undelivered,
            undelivered_is_exact: exact,
            oldest_undelivered_age_s: age,
            owner: Some("a".to_owned()),
            term: 1,
            workers: vec!["a".to_owned(), "b".to_owned()],
        };
        let stream = Stream {
            key: "s".to_owned(),
            entries: 10,
            entries_added: 12,
            first_entry_age_s: None,
            last_id: "1-0".to_owned(),
            held: None,
            group: Some(group),
        };
        Work {
            partition: 0,
            stream: Some(stream),
            janitor_last_run_ms: None,
            janitor: None,
            changes_seq: 5,
            away: None,
        }
    }

    #[test]
    fn a_total_is_as_certain_as_its_least_certain_part() {
        let total = Total::of(&[work(Some(2), true, Some(1.5)), work(Some(3), false, Some(0.5))]);
        assert_eq!((total.entries, total.undelivered), (20, Some(5)));
        assert_eq!((total.owned, total.workers), (2, 2));
        assert_eq!(
            (total.undelivered_is_exact, total.oldest_undelivered_age_s),
            (false, Some(1.5))
        );
        let unknown = Total::of(&[work(Some(2), true, None), work(None, false, None)]);
        assert_eq!((unknown.undelivered, unknown.oldest_undelivered_age_s), (None, None));
        let waiting = Work { stream: None, ..work(None, true, None) };
        assert_eq!(Total::of(std::slice::from_ref(&waiting)).undelivered, Some(0));
        let away = Work { away: Some("its node is down".to_owned()), ..waiting };
        assert_eq!(Total::of(&[work(Some(2), true, None), away]).undelivered, None);
    }
}
