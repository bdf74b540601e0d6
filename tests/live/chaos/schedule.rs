//! A schedule of faults, drawn from a seed before anything begins, and the run of it.

use std::collections::BTreeSet;
use std::time::Duration;

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

/// How long the faults of a schedule take, without what it takes to start processes and servers.
const BUDGET: Duration = Duration::from_secs(6);
/// Kinds of faults a schedule has at least.
const KINDS_AT_LEAST: usize = 3;
/// What was pending when calm came is finished within the claim time, 1 s here, and this much more.
const CALM: Duration = Duration::from_secs(1 + 5);
/// How far the server's clock may be ahead or behind, so that what is pending waits hardly longer.
pub const CLOCK_MS: u64 = 500;
const PER_SECOND: u64 = 250;

/// One fault of a schedule.
pub struct Strike {
    pub kind: &'static Kind,
    /// How long nothing happens before it.
    pub nap: Duration,
    /// How long it lasts, if it does.
    pub hold: Duration,
    /// All else that has to be decided.
    pub dice: u64,
    /// Whether the entries are counted after it.
    pub look: bool,
}

impl Strike {
    /// A number within bounds, the same one each time.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.dice % (high - low + 1)
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
            let (dice, look) = (rng.u64(..1 << 40), rng.u8(..3) == 0);
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
        clock.options(Options {
            appendonly: self.persistence != Persistence::Nothing,
            extra_args: ["--appendfsync", fsync].map(str::to_owned).to_vec(),
            ..Options::default()
        })
    }
}

/// What a schedule works on.
pub struct Chaos {
    pub scene: Scene,
    pub clock: Clock,
    /// How far ids may be from the clock because that stepped.
    pub stepped_ms: u64,
    pub proxy: Proxy,
    pub fleet: Fleet,
    pub losses: Losses,
    /// What the strike under way counts.
    pub counted: u64,
}

/// Runs a schedule and checks all that is promised; panics with its seed where that does not hold.
pub fn run(plan: &Plan, report: &Report) {
    let what = plan.told();
    let settings = [("thresholds", "3:1"), ("partitions", plan.partitions), ("viewed-cap", "5")];
    let clock = Clock::new();
    let scene = Scene::start_with(&settings, plan.options(&clock));
    let proxy = Proxy::start(scene.deployment.server.port());
    proxy.set(SLOW);
    let fleet = Fleet::start(&scene, &proxy);
    let mut chaos =
        Chaos { scene, clock, stepped_ms: 0, proxy, fleet, losses: Losses::new(), counted: 0 };
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
    for partition in 0..chaos.scene.deployment.partitions() {
        check_end(
            &chaos.scene,
            partition,
            &chaos.ledger(partition),
            &format!("{what}, partition {partition}"),
        );
    }
    report.held(added.len(), &chaos.fleet);
}

impl Chaos {
    fn traffic(&self, seed: u64) -> Traffic {
        let around = server_now(&mut self.scene.connection());
        let mut traced = Traced::new(self.scene.events(seed, around));
        Traffic::start_from(&self.scene, around, PER_SECOND, Box::new(move || traced.entry()))
    }

    /// All entries of a partition at one instant, at which there is a group.
    pub fn ledger(&self, partition: u16) -> Ledger {
        let mut ledger = None;
        wait_until(SOON, "there is a group to look at", || {
            ledger = Ledger::read(&self.scene, partition).ok();
            ledger.is_some()
        });
        ledger.unwrap()
    }

    /// Checks where every entry stands, at this instant.
    fn look(&mut self, added: &[Added], what: &str) {
        for partition in 0..self.scene.deployment.partitions() {
            if Ledger::read(&self.scene, partition).is_err() {
                self.fleet.keep_one(&self.scene, &self.proxy);
            }
            let ledger = self.ledger(partition);
            check_instant(
                &ledger,
                partition,
                added,
                &self.losses,
                &format!("{what}, partition {partition}"),
            );
        }
    }

    /// The faults are over, traffic is not. What is pending now must not stay so.
    fn calm_down(&mut self, what: &str) {
        self.fleet.calm_down(&self.scene, &self.proxy);
        let partitions = 0..self.scene.deployment.partitions();
        let pending: Vec<_> = partitions.map(|partition| self.ledger(partition).pending).collect();
        wait_until(CALM, &format!("{what}: what was pending is finished"), || {
            (0..)
                .zip(&pending)
                .all(|(partition, before)| self.ledger(partition).pending.is_disjoint(before))
        });
    }
}
