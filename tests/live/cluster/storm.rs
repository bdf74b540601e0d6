//! Chaos on a Cluster: three masters with a replica each, whole processes, a janitor and traffic, through a random
//! schedule of failovers, slots that move, deaths and stalls.
//!
//! A seed repeats a schedule. The short form runs with all other tests; the long one is
//!
//!     ROLLCALL_TEST_SEED=1 ROLLCALL_TEST_ROUNDS=100 cargo test --test live cluster::storm -- --nocapture
//!
//! Replication is asynchronous, so a failover may lose entries that were acknowledged. What is in the stream of the
//! master that is left has its effect exactly once, and nothing else has any. What a replica had acknowledged, too
//! (`WAIT 1`), is never missing, and nothing at all is where a slot moves or a master hands over.

mod faults;
mod nodes;
mod producer;
mod slots;

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::ground::PARTITIONS;
use crate::chaos::fleet::{Fleet, Site};
use crate::chaos::ledger::Ledger;
use crate::chaos::plan::{Persistence, Plan, Suite};
use crate::chaos::proxy::Mode;
use crate::chaos::report::Report;
use crate::chaos::traced::Traced;
use crate::chaos::verdict::{Losses, check_end, check_instant, check_missing};
use crate::harness::wait_until;
use crate::query::ground::ask_at;
use crate::scene::{Added, Traffic};
use crate::support::events::Events;
use nodes::{SHARDS, Shards};

/// How long a Cluster may take to be whole again, under load too.
const SOON: Duration = Duration::from_secs(40);
/// When the Cluster is whole again, a cursor moves after the takeover time, 1 s here, the longest pause after a failure,
/// 5 s, the time to find the nodes, and some more on a machine under load; and then on and on.
const CALM: Duration = Duration::from_secs(1 + 5 + 4);
const PER_SECOND: u64 = 300;
/// Users and sessions with keys of their own.
const CROWD: u64 = 300;
/// What was added so long before a failover may not have been replicated.
const BEFORE_MS: u64 = 2_000;

/// How much later keys may end after they moved: `MIGRATE` passes on the time that is left to them, and takes some.
const LATE_MS: u64 = 1_000;

static SUITE: Suite<Storm> = Suite {
    kinds: faults::KINDS,
    partitions: &["4"],
    persistence: &[Persistence::Always, Persistence::Nothing],
    budget: Duration::from_secs(3),
    kinds_at_least: 4,
    at_once: 6,
    // Nodes that die, also all that were named, and slots that move.
    seed: 24,
    rounds: 1,
};

#[test]
fn random_faults_of_a_cluster_leave_the_guarantee_whole() {
    SUITE.run(run);
}

/// What a schedule works on.
pub struct Storm {
    site: Shards,
    fleet: Fleet,
    /// By partition: what a failover may have lost, and what went with everything that a shard had.
    losses: [Losses; PARTITIONS as usize],
    total_losses: [Losses; PARTITIONS as usize],
    /// By partition: whether its group has yet to be made.
    disturbed: [bool; PARTITIONS as usize],
    /// Who was the master of each shard when it was looked at last, and when that was.
    masters: [usize; SHARDS],
    noticed: u64,
    /// Failovers that nobody brought about but a machine under load.
    unbidden: usize,
    /// What the strike under way counts.
    counted: u64,
}

/// The entries of a producer that servers took, and those of them that a replica has as well.
struct Producer {
    traffic: Traffic,
    safe: Arc<Mutex<Vec<Added>>>,
}

fn run(plan: &Plan<Storm>, report: &Report) {
    let what = plan.told();
    let site = Shards::start(plan.persistence);
    let fleet = Fleet::start(&site, None, 1);
    let mut storm = Storm {
        site,
        fleet,
        losses: Default::default(),
        total_losses: Default::default(),
        disturbed: [true; PARTITIONS as usize],
        masters: std::array::from_fn(|shard| shard),
        noticed: now(),
        unbidden: 0,
        counted: 0,
    };
    let producer = storm.producer(plan.seed);
    for (kind, strike) in &plan.strikes {
        std::thread::sleep(strike.nap);
        storm.fleet.wake();
        (kind.strike)(&mut storm, strike);
        storm.notice();
        report.tried(kind.name, std::mem::take(&mut storm.counted));
        if strike.look {
            storm.look(&producer, &format!("{what}\nafter {}", kind.name));
            report.looked();
        }
    }
    storm.calm_down(&what);
    let (added, safe) = (producer.traffic.stop(), producer.safe.lock().unwrap().clone());
    storm.wait_finished(&what);
    storm.fleet.end();
    let (code, out, error) = ask_at(&storm.site.url, &["verify", "--partitions", "4"]);
    assert_eq!(code, 0, "{what}\n{out}{error}");
    let mut written_off = 0;
    for partition in 0..PARTITIONS {
        let what = format!("{what}\nin the end, partition {partition}");
        let ledger = storm.check(partition, &added, &safe, &what);
        let mut conn = storm.site.connect(partition).unwrap();
        let late_ms = if storm.site.has_moved[usize::from(partition)] { LATE_MS } else { 0 };
        check_end(storm.site.layout(), &mut conn, partition, &ledger, late_ms, &what);
        written_off += ledger.accounts.values().filter(|account| account.is_written_off()).count();
        report.count("entries lost by failovers", ledger.missing(partition, &added).len());
    }
    // Two deaths on an entry that was tried alone.
    let kills = storm.fleet.kills;
    assert!(written_off * 2 <= kills, "{what}: {written_off} written off after {kills} kills");
    report.count("entries that a replica acknowledged, too", safe.len());
    report.count("failovers that nobody brought about", storm.unbidden);
    report.held(added.len(), written_off, &storm.fleet);
}

impl Storm {
    fn producer(&self, seed: u64) -> Producer {
        let around = now();
        let mut events = Events::new(seed, around);
        events.partitions = PARTITIONS;
        let mut traced = Traced::new(events).with_crowd(CROWD);
        let safe = Arc::default();
        let sink = producer::sink(&self.site, Arc::clone(&safe));
        let source = Box::new(move || traced.entry());
        Producer { traffic: Traffic::start_to(around, PER_SECOND, source, sink), safe }
    }

    /// All entries of a partition at one instant.
    fn ledger(&self, partition: u16) -> Ledger {
        let mut ledger = None;
        wait_until(SOON, "the partition's node answers", || {
            let conn = self.site.connect(partition);
            ledger = conn
                .and_then(|mut conn| Ledger::read(self.site.layout(), &mut conn, partition))
                .ok();
            ledger.is_some()
        });
        ledger.unwrap()
    }

    fn look(&mut self, producer: &Producer, what: &str) {
        // What was added before, and not what comes while the partitions are read.
        let (added, safe) = (producer.traffic.added(), producer.safe.lock().unwrap().clone());
        for partition in 0..PARTITIONS {
            let what = format!("{what}, partition {partition}");
            self.check(partition, &added, &safe, &what);
        }
    }

    /// Checks where every entry of a partition stands, and what its group says, at this instant.
    fn check(&mut self, partition: u16, added: &[Added], safe: &[Added], what: &str) -> Ledger {
        let which = usize::from(partition);
        let mut ledger = self.ledger(partition);
        if std::mem::take(&mut self.disturbed[which]) {
            wait_until(SOON, &format!("{what}: there is a group"), || {
                ledger = self.ledger(partition);
                ledger.lag_is_right(false)
            });
        }
        check_instant(&ledger, what);
        check_missing(&ledger, partition, added, &self.losses[which], what);
        check_missing(&ledger, partition, safe, &self.total_losses[which], what);
        assert!(ledger.lag_is_right(false), "{what}: the lag is right; {}", ledger.lag());
        ledger
    }

    /// The faults are over, traffic is not. All partitions go on, and whoever has lived through most of the faults
    /// can do the work of all.
    fn calm_down(&mut self, what: &str) {
        self.site.proxies.iter().for_each(|proxy| proxy.set(Mode::Pass));
        self.fleet.calm_down();
        self.site.wait_until_whole();
        self.notice();
        self.fleet.keep_one(&self.site);
        self.all_go_on(&format!("{what}: what was behind the cursors is passed"));
        self.fleet.leave_the_oldest();
        self.all_go_on(&format!("{what}: the oldest worker alone does the work"));
    }

    /// What is behind the cursors now is passed.
    fn all_go_on(&self, what: &str) {
        let newest = std::array::from_fn::<_, 4, _>(|partition| self.ledger(partition as u16).last);
        self.wait_for_all(what, |partition, ledger| {
            ledger.cursor >= newest[usize::from(partition)]
        });
    }

    fn wait_finished(&self, what: &str) {
        let what = format!("{what}: all is applied");
        self.wait_for_all(&what, |_, ledger| ledger.behind() == 0 && ledger.lag_is_right(false));
    }

    /// Waits until each partition is as it should be, as long as no cursor stands still for [`CALM`].
    fn wait_for_all(&self, what: &str, is_right: impl Fn(u16, &Ledger) -> bool) {
        for partition in 0..PARTITIONS {
            let mut ledger = self.ledger(partition);
            let mut moved = Instant::now();
            while !is_right(partition, &ledger) {
                let lag = ledger.lag();
                assert!(moved.elapsed() < CALM, "{what}; partition {partition} is not: {lag}");
                std::thread::sleep(Duration::from_millis(20));
                let before = std::mem::replace(&mut ledger, self.ledger(partition)).cursor;
                moved = if ledger.cursor == before { moved } else { Instant::now() };
            }
        }
    }

    /// Takes note of failovers that no strike brought about: on a machine under load a node may be late.
    fn notice(&mut self) {
        for shard in 0..SHARDS {
            if self.site.masters_of(shard) != [self.masters[shard]] {
                let (master, _) = self.site.whole(shard);
                let was = std::mem::replace(&mut self.masters[shard], master);
                self.unbidden += usize::from(was != master);
                self.may_have_lost(shard, self.noticed);
            }
        }
        self.noticed = now();
    }

    /// What a shard's partitions took between `from` and now may be lost, unless a replica has acknowledged it.
    fn may_have_lost(&mut self, shard: usize, from: u64) {
        let window = window(from);
        for partition in self.site.partitions_of(shard) {
            self.losses[usize::from(partition)].push(window.clone());
        }
    }
}

fn window(from: u64) -> RangeInclusive<u64> {
    from.saturating_sub(BEFORE_MS)..=now()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}
