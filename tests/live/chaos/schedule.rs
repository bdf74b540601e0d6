//! The run of a schedule of faults against one server.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rollcall::private_server::Options;

use super::faults::SLOW;
use super::fleet::Fleet;
use super::ledger::Ledger;
use super::plan::{Persistence, Plan, Strike};
use super::proxy::{Mode, Proxy};
use super::report::Report;
use super::traced::Traced;
use super::verdict::{Losses, check_end, check_instant, check_missing};
use crate::clock::Clock;
use crate::harness::wait_until;
use crate::scene::{Added, SOON, Scene, Traffic};
use crate::support::dump::server_now;

/// What was behind the cursor when calm came is passed within the takeover time, 1 s here, and this much more: the
/// longest pause after a failure.
const CALM: Duration = Duration::from_secs(1 + 5);
/// How far the server's clock may be ahead or behind.
pub const CLOCK_MS: u64 = 500;
const PER_SECOND: u64 = 250;

/// What a schedule works on.
pub struct Chaos {
    pub scene: Scene,
    pub clock: Clock,
    /// How far ids may be from the clock because the clock stepped, or the ids were set ahead.
    pub stepped_ms: u64,
    pub proxy: Proxy,
    pub fleet: Fleet,
    pub losses: Losses,
    /// The count of the current strike.
    pub counted: u64,
    /// No entry is added while it is locked.
    pub gate: Arc<Mutex<()>>,
    /// How far each partition's group can be trusted.
    trust: Vec<Trust>,
}

/// How far a group's figures can be trusted.
#[derive(Clone, Copy, Default)]
struct Trust {
    /// Somebody changed it; it is repaired within a beat.
    is_disturbed: bool,
    /// Entries ahead of the cursor were removed, so the server may not know how many are behind it.
    is_in_doubt: bool,
}

/// Runs a schedule and checks all that is promised; panics with its seed where that does not hold.
pub fn run(plan: &Plan<Chaos>, report: &Report) {
    let what = plan.told();
    let settings = [("thresholds", "3:1"), ("partitions", plan.partitions), ("viewed-cap", "5")];
    let clock = Clock::new();
    let scene = Scene::start_with(&settings, options(plan.persistence, &clock));
    let proxy = Proxy::start(scene.deployment.server.port());
    proxy.set(SLOW);
    let fleet = Fleet::start(&scene, Some(proxy.url()), 2);
    let trust = vec![Trust::default(); usize::from(scene.deployment.partitions())];
    let (losses, gate) = (Losses::new(), Arc::default());
    let mut chaos =
        Chaos { scene, clock, stepped_ms: 0, proxy, fleet, losses, counted: 0, gate, trust };
    chaos.disturb_all();
    let traffic = chaos.traffic(plan.seed);
    for (kind, strike) in &plan.strikes {
        std::thread::sleep(strike.nap);
        chaos.fleet.wake();
        (kind.strike)(&mut chaos, strike);
        report.tried(kind.name, std::mem::take(&mut chaos.counted));
        if strike.look {
            chaos.look(&traffic.added(), &format!("{what}\nafter {}", kind.name));
            report.looked();
        }
    }
    chaos.calm_down(&what);
    let added = traffic.stop();
    chaos.scene.wait_finished(SOON * 2, &what);
    if chaos.send_again() > 0 {
        chaos.scene.wait_finished(SOON * 2, &format!("{what}\nwith everything once more"));
    }
    chaos.fleet.end();
    chaos.look(&added, &format!("{what}\nin the end"));
    let mut written_off = 0;
    for partition in 0..chaos.scene.deployment.partitions() {
        let ledger = chaos.ledger(partition);
        let (layout, mut conn) = (&chaos.scene.deployment.layout, chaos.scene.connection());
        let what = format!("{what}, partition {partition}");
        check_end(layout, &mut conn, partition, &ledger, 0, &what);
        written_off += ledger.accounts.values().filter(|account| account.is_written_off()).count();
    }
    // Two deaths on an entry that was tried alone.
    let kills = chaos.fleet.kills;
    assert!(written_off * 2 <= kills, "{what}: {written_off} written off after {kills} kills");
    report.held(added.len(), written_off, &chaos.fleet);
}

fn options(persistence: Persistence, clock: &Clock) -> Options {
    let fsync = if persistence == Persistence::Always { "always" } else { "everysec" };
    // What is trimmed goes in such pieces.
    let args = ["--appendfsync", fsync, "--stream-node-max-entries", "10"];
    clock.options(Options {
        appendonly: persistence != Persistence::Nothing,
        extra_args: args.map(str::to_owned).to_vec(),
        ..Options::default()
    })
}

impl Chaos {
    fn traffic(&self, seed: u64) -> Traffic {
        let around = server_now(&mut self.scene.connection());
        let mut traced = Traced::new(self.scene.events(seed, around));
        let gate = Arc::clone(&self.gate);
        let source = move || {
            drop(gate.lock().unwrap());
            traced.entry()
        };
        Traffic::start_from(&self.scene, around, PER_SECOND, Box::new(source))
    }

    /// The group of the struck partition must be repaired.
    pub fn disturb(&mut self, strike: &Strike) {
        self.trust[usize::from(strike.partition(&self.scene))].is_disturbed = true;
    }

    /// The groups of all partitions must be repaired.
    pub fn disturb_all(&mut self) {
        self.trust.iter_mut().for_each(|trust| trust.is_disturbed = true);
    }

    /// From now on the server may not know how many entries are behind the cursor.
    pub fn doubt(&mut self, strike: &Strike) {
        self.trust[usize::from(strike.partition(&self.scene))].is_in_doubt = true;
    }

    /// All entries of a partition at one instant.
    pub fn ledger(&self, partition: u16) -> Ledger {
        let mut ledger = None;
        wait_until(SOON, "the server answers", || {
            let layout = &self.scene.deployment.layout;
            ledger = Ledger::read(layout, &mut self.scene.connection(), partition).ok();
            ledger.is_some()
        });
        ledger.unwrap()
    }

    /// Checks the fate of every entry, and the group's figures, at this instant.
    fn look(&mut self, added: &[Added], what: &str) {
        for partition in 0..self.scene.deployment.partitions() {
            let what = format!("{what}, partition {partition}");
            let ledger = self.ledger(partition);
            check_instant(&ledger, &what);
            check_missing(&ledger, partition, added, &self.losses, &what);
            self.check_lag(ledger, partition, &what);
        }
    }

    /// The group shows how many entries are behind the cursor: at once or, if somebody changed it, once it is
    /// repaired.
    fn check_lag(&mut self, mut ledger: Ledger, partition: u16, what: &str) {
        let Trust { is_disturbed, is_in_doubt } = self.trust[usize::from(partition)];
        if is_disturbed && !ledger.lag_is_right(is_in_doubt) {
            self.fleet.keep_one(&self.scene);
            let start = Instant::now();
            while !ledger.lag_is_right(is_in_doubt) && start.elapsed() < SOON {
                std::thread::sleep(Duration::from_millis(20));
                ledger = self.ledger(partition);
            }
        }
        assert!(ledger.lag_is_right(is_in_doubt), "{what}: the lag is right; {}", ledger.lag());
        self.trust[usize::from(partition)].is_disturbed = false;
    }

    /// The faults are over, traffic is not. Entries that are behind the cursor now must not stay so.
    fn calm_down(&mut self, what: &str) {
        self.proxy.set(Mode::Pass);
        self.fleet.calm_down();
        self.fleet.add(&self.scene);
        let partitions = 0..self.scene.deployment.partitions();
        let newest: Vec<_> = partitions.map(|partition| self.ledger(partition).last).collect();
        wait_until(CALM, &format!("{what}: what was behind the cursor is passed"), || {
            (0..).zip(&newest).all(|(partition, last)| self.ledger(partition).cursor >= *last)
        });
    }
}
