//! What counts as a difference, and what does not, if only one side has a value.

use super::*;
use crate::config::{Config, Gathered};

const NOW: u64 = 1_790_000_000_000;

struct Bench {
    deployment: Deployment,
    keys: Keys,
    since_ms: u64,
    evicted_below_ms: u64,
}

impl Bench {
    fn new() -> Self {
        let deployment = Config::resolve(&Gathered::default()).unwrap().deployment;
        let keys = Keys::new("", 1, 0);
        Self { deployment, keys, since_ms: NOW - 3_600_000, evicted_below_ms: 0 }
    }

    /// The faults, and how many members are older.
    fn judge(&self, family: Family, name: &str, live: &[Cell], said: &[Cell]) -> (Vec<Fault>, u64) {
        let court = Court {
            deployment: &self.deployment,
            keys: &self.keys,
            horizon_ms: 86_400_000,
            since: EntryId { ms: self.since_ms, seq: 0 },
            now_ms: NOW,
            evicted_below_ms: self.evicted_below_ms,
            drops_items: false,
            ring: None,
        };
        let mut out = Verdicts::default();
        court.judge(family, name, (live, said), &mut out);
        (out.findings.iter().map(|finding| finding.fault).collect(), out.older)
    }
}

fn text(text: impl ToString) -> Cell {
    Cell::Text(text.to_string().into_bytes())
}

fn seen(t: u64) -> Cell {
    text(format!("{{\"lastSeen\":{t},\"user\":\"u\"}}"))
}

const EMPTY: Cell = Cell::Empty;

#[test]
fn what_older_entries_may_have_said_is_no_difference() {
    let mut bench = Bench::new();
    let skew = bench.deployment.max_skew_ms;
    let entry = |t| [seen(t), EMPTY, EMPTY];
    let none = [EMPTY, EMPTY, EMPTY];
    let judge = |bench: &Bench, live: &[Cell], said: &[Cell]| {
        bench.judge(Family::Presence, "u|", live, said)
    };
    assert_eq!(judge(&bench, &entry(NOW - 1), &none), (vec![Fault::Ahead], 0));
    assert_eq!(judge(&bench, &none, &entry(NOW - 1)), (vec![Fault::Behind], 0));
    assert_eq!(judge(&bench, &entry(NOW - 9), &entry(NOW - 9)), (vec![], 0));
    bench.since_ms = NOW - 1 - skew;
    assert_eq!(judge(&bench, &entry(NOW - 1), &none), (vec![], 1));
    assert_eq!(judge(&bench, &entry(NOW - 1), &entry(NOW - 2)), (vec![], 1));
    assert_eq!(judge(&bench, &entry(NOW - 2), &entry(NOW - 1)), (vec![Fault::Behind], 0));
}

#[test]
fn what_has_expired_or_ended_is_no_difference_whoever_took_it_first() {
    let bench = Bench::new();
    let ttl = bench.deployment.presence_ttl_ms;
    let judge = |live: &[Cell], said: &[Cell]| bench.judge(Family::Presence, "u|", live, said);
    let none = [EMPTY, EMPTY, EMPTY];
    let old = [seen(NOW - ttl), EMPTY, EMPTY];
    assert_eq!((judge(&old, &none), judge(&none, &old)), ((vec![], 0), (vec![], 0)));
    // All of the user's entries ended, and the janitor may not have removed this one yet.
    let waits = [seen(NOW - 9), EMPTY, text(NOW - 5)];
    let over = [EMPTY, EMPTY, text(NOW - 5)];
    assert_eq!((judge(&waits, &over), judge(&over, &waits)), ((vec![], 0), (vec![], 0)));
    let back = [seen(NOW - 9), EMPTY, EMPTY];
    assert_eq!(judge(&back, &over), (vec![Fault::Ended], 0));
}

#[test]
fn what_a_cap_took_is_no_difference() {
    let mut bench = Bench::new();
    let seconds = |t: u64| format!("{}.{:03}", t / 1000, t % 1000);
    let token = |t: u64| [text("u"), text(seconds(t)), EMPTY, Cell::Scores(Vec::new())];
    let none = [EMPTY, EMPTY, EMPTY, Cell::Scores(Vec::new())];
    let judge = |bench: &Bench| bench.judge(Family::Token, "t", &none, &token(NOW - 50));
    assert_eq!(judge(&bench), (vec![Fault::Behind, Fault::Behind], 0));
    bench.evicted_below_ms = NOW - 40;
    assert_eq!(judge(&bench), (vec![], 0));
    // The newest 25 items stay.
    bench.evicted_below_ms = 0;
    let items = |from: u64, count: u64| {
        let item = |n: u64| (format!("i{n}"), (NOW - from + n) as f64 / 1000.0);
        let mut row = token(NOW - 50);
        row[3] = Cell::Scores((0..count).map(item).collect());
        row
    };
    let (full, mut more) = (items(100, 25), items(100, 25));
    more[3] = match &more[3] {
        Cell::Scores(scores) => {
            let older = ("older".to_owned(), (NOW - 101) as f64 / 1000.0);
            Cell::Scores(scores[..24].iter().cloned().chain([older]).collect())
        }
        _ => EMPTY,
    };
    assert_eq!(bench.judge(Family::Token, "t", &full, &more).0, vec![Fault::Ahead]);
    let missing = items(100, 24);
    assert_eq!(bench.judge(Family::Token, "t", &missing, &full).0, vec![Fault::Behind]);
}

#[test]
fn a_key_that_ends_a_moment_late_is_no_difference() {
    let (bench, right) = (Bench::new(), NOW as i64);
    let judge =
        |live: i64| bench.judge(Family::MinuteKey, "29833333", &[text(live)], &[text(right)]).0;
    for live in [right, right + 1, right + 1_000] {
        assert_eq!(judge(live), [], "{live}");
    }
    for live in [right - 1, right + 1_001, -1] {
        assert_eq!(judge(live), [Fault::Torn], "{live}");
    }
}
