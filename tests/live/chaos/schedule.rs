//! A schedule of faults, drawn from a seed before anything begins, and its run.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rollcall::private_server::Options;

use super::faults::{KINDS, Kind, Persistence, SLOW};
use super::fleet::Fleet;
use super::ledger::Ledger;
use super::proxy::Proxy;
use super::report::Report;
use super::traced::Traced;
use super::verdict::{Losses, check_end, check_instant};
use crate::clock::Clock;
use crate::harness::wait_until;
use crate::scene::{Added, SOON, Scene, Traffic};
use crate::support::dump::server_now;

/// How long the faults of a schedule take, without the time to start processes and servers.
const BUDGET: Duration = Duration::from_secs(6);
/// The minimum number of kinds of faults in a schedule.
const KINDS_AT_LEAST: usize = 3;
/// Entries behind the cursor when calm begins are passed within the takeover time, 1 s here, plus this, the longest
/// pause after a failure.
const CALM: Duration = Duration::from_secs(1 + 5);
/// How far the server's clock may be ahead or behind.
pub const CLOCK_MS: u64 = 500;
const PER_SECOND: u64 = 250;

/// One fault of a schedule.
pub struct Strike {
    pub kind: &'static Kind,
    /// The pause before it.
    pub nap: Duration,
    /// How long it lasts, if it does.
    pub hold: Duration,
    /// Decides everything else.
    pub dice: u64,
    /// Whether the entries are checked after it.
    pub look: bool,
}

impl Strike {
    /// A number within limits, the same one each time.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.dice % (high - low + 1)
    }

    /// The struck partition.
    pub fn partition(&self, scene: &Scene) -> u16 {
        (self.dice % u64::from(scene.deployment.partitions())) as u16
    }
}

/// A schedule.
pub struct Plan {
    pub seed: u64,
    partitions: &'static str,
    persistence: Persistence,
    pub strikes: Vec<Strike>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let partitions = rng.choice(["1", "1", "3"]).unwrap();
        let all = [Persistence::Always, Persistence::EverySecond, Persistence::Nothing];
        let persistence = rng.choice(all).unwrap();
        let mut plan = Self { seed, partitions, persistence, strikes: Vec::new() };
        let mut time = Duration::ZERO;
        while time < BUDGET || plan.kinds().len() < KINDS_AT_LEAST {
            let kind = &KINDS[rng.usize(..KINDS.len())];
            if !plan.allows(kind) {
                continue;
            }
            let nap = Duration::from_millis(rng.u64(20..400));
            let hold = Duration::from_millis(rng.u64(100..1_200));
            let (dice, look) = (rng.u64(..1 << 40), rng.bool());
            time += nap + hold / 2;
            plan.strikes.push(Strike { kind, nap, hold, dice, look });
        }
        plan
    }

    fn allows(&self, kind: &'static Kind) -> bool {
        let times = self.strikes.iter().filter(|strike| strike.kind.name == kind.name).count();
        let clashes = |strike: &Strike| strike.kind.clashes(kind) || kind.clashes(strike.kind);
        times < kind.most
            && kind.needs.is_none_or(|needs| needs == self.persistence)
            && !self.strikes.iter().any(clashes)
    }

    pub fn kinds(&self) -> BTreeSet<&'static str> {
        self.strikes.iter().map(|strike| strike.kind.name).collect()
    }

    pub fn told(&self) -> String {
        let names: Vec<_> = self.strikes.iter().map(|strike| strike.kind.name).collect();
        let (partitions, persistence) = (self.partitions, self.persistence);
        format!(
            "seed {}, {partitions} partitions, {persistence:?}: {}",
            self.seed,
            names.join("; ")
        )
    }

    fn options(&self, clock: &Clock) -> Options {
        let fsync = if self.persistence == Persistence::Always { "always" } else { "everysec" };
        // Trimming removes pieces of this size.
        let args = ["--appendfsync", fsync, "--stream-node-max-entries", "10"];
        clock.options(Options {
            appendonly: self.persistence != Persistence::Nothing,
            extra_args: args.map(str::to_owned).to_vec(),
            ..Options::default()
        })
    }
}

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

/// Runs a schedule and checks everything that is promised; panics with its seed if anything fails.
pub fn run(plan: &Plan, report: &Report) {
    let what = plan.told();
    let settings = [("thresholds", "3:1"), ("partitions", plan.partitions), ("viewed-cap", "5")];
    let clock = Clock::new();
    let scene = Scene::start_with(&settings, plan.options(&clock));
    let proxy = Proxy::start(scene.deployment.server.port());
    proxy.set(SLOW);
    let fleet = Fleet::start(&scene, &proxy);
    let trust = vec![Trust::default(); usize::from(scene.deployment.partitions())];
    let (losses, gate) = (Losses::new(), Arc::default());
    let mut chaos =
        Chaos { scene, clock, stepped_ms: 0, proxy, fleet, losses, counted: 0, gate, trust };
    chaos.disturb_all();
    let traffic = chaos.traffic(plan.seed);
    for strike in &plan.strikes {
        std::thread::sleep(strike.nap);
        chaos.fleet.wake();
        (strike.kind.strike)(&mut chaos, strike);
        report.tried(strike.kind, std::mem::take(&mut chaos.counted));
        if strike.look {
            chaos.look(&traffic.added(), &format!("{what}\nafter {}", strike.kind.name));
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
        check_end(&chaos.scene, partition, &ledger, &format!("{what}, partition {partition}"));
        written_off += ledger.accounts.values().filter(|account| account.is_written_off()).count();
    }
    // Two deaths on an entry that was tried alone.
    let kills = chaos.fleet.kills;
    assert!(written_off * 2 <= kills, "{what}: {written_off} written off after {kills} kills");
    report.held(added.len(), written_off, &chaos.fleet);
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
            ledger = Ledger::read(&self.scene, partition).ok();
            ledger.is_some()
        });
        ledger.unwrap()
    }

    /// Checks the fate of every entry, and the group's figures, at this instant.
    fn look(&mut self, added: &[Added], what: &str) {
        for partition in 0..self.scene.deployment.partitions() {
            let what = format!("{what}, partition {partition}");
            let ledger = self.ledger(partition);
            check_instant(&ledger, partition, added, &self.losses, &what);
            self.check_lag(ledger, partition, &what);
        }
    }

    /// The group shows how many entries are behind the cursor: at once or, if somebody changed it, once it is
    /// repaired.
    fn check_lag(&mut self, mut ledger: Ledger, partition: u16, what: &str) {
        let Trust { is_disturbed, is_in_doubt } = self.trust[usize::from(partition)];
        if is_disturbed && !ledger.lag_is_right(is_in_doubt) {
            self.fleet.keep_one(&self.scene, &self.proxy);
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
        self.fleet.calm_down(&self.scene, &self.proxy);
        let partitions = 0..self.scene.deployment.partitions();
        let newest: Vec<_> = partitions.map(|partition| self.ledger(partition).last).collect();
        wait_until(CALM, &format!("{what}: what was behind the cursor is passed"), || {
            (0..).zip(&newest).all(|(partition, last)| self.ledger(partition).cursor >= *last)
        });
    }
}
