//! Schedules of faults, drawn from a seed before anything begins, and the run of many of them.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::fleet::Site;
use super::report::Report;
use crate::scene::in_parallel;

/// What a server keeps over its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// An append-only file, written through before each answer.
    Always,
    /// An append-only file, written through every second.
    EverySecond,
    /// Nothing, except for what a snapshot had.
    Nothing,
}

/// One kind of fault that strikes `C`.
pub struct Kind<C: 'static> {
    pub name: &'static str,
    /// With which persistence it can be done; `None`: any.
    pub needs: Option<Persistence>,
    /// How often a schedule may have it.
    pub most: usize,
    /// What its count in the report counts.
    pub counts: &'static str,
    /// How the names of kinds begin that a schedule does not have with this one.
    pub without: &'static [&'static str],
    pub strike: fn(&mut C, &Strike),
}

impl<C> Kind<C> {
    /// Whether a schedule with this kind has no room for another.
    fn clashes(&self, other: &Self) -> bool {
        self.without.iter().any(|name| other.name.starts_with(name))
    }
}

pub const fn kind<C>(name: &'static str, strike: fn(&mut C, &Strike)) -> Kind<C> {
    Kind { name, needs: None, most: 4, counts: "", without: &[], strike }
}

pub const fn counting<C>(
    name: &'static str,
    counts: &'static str,
    strike: fn(&mut C, &Strike),
) -> Kind<C> {
    Kind { counts, ..kind(name, strike) }
}

pub const fn dying<C>(name: &'static str, strike: fn(&mut C, &Strike)) -> Kind<C> {
    counting(name, "died there", strike)
}

pub const fn keeping<C>(
    name: &'static str,
    needs: Persistence,
    strike: fn(&mut C, &Strike),
) -> Kind<C> {
    Kind { needs: Some(needs), ..kind(name, strike) }
}

/// One fault of a schedule.
pub struct Strike {
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

    /// The partition that it strikes.
    pub fn partition(&self, site: &impl Site) -> u16 {
        (self.dice % u64::from(site.layout().partitions())) as u16
    }
}

/// What schedules are drawn from.
pub struct Suite<C: 'static> {
    pub kinds: &'static [Kind<C>],
    pub partitions: &'static [&'static str],
    pub persistence: &'static [Persistence],
    /// How long the faults of a schedule take, without what it takes to start processes and servers.
    pub budget: Duration,
    /// Kinds of faults a schedule has at least.
    pub kinds_at_least: usize,
    /// Schedules that run side by side: most of their time they wait.
    pub at_once: u64,
    /// The first schedule of the short form, and how many it has.
    pub seed: u64,
    pub rounds: u64,
}

impl<C> Suite<C> {
    /// Runs the schedules that the environment asks for and prints what was tried as a table; panics if one does not
    /// hold.
    pub fn run(&'static self, run: impl Fn(&Plan<C>, &Report) + Sync) {
        let variable = |name: &str, default: u64| {
            std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
        };
        let first = variable("ROLLCALL_TEST_SEED", self.seed);
        let last = first + variable("ROLLCALL_TEST_ROUNDS", self.rounds);
        let (next, report) = (AtomicU64::new(first), Report::of(self.kinds));
        let diverged = Mutex::new(Vec::new());
        in_parallel(0..self.at_once, |_| {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= last {
                    return;
                }
                let plan = self.plan(seed);
                eprintln!("{}", plan.told());
                // The others go on, so that a long run tells of all that does not hold.
                if catch_unwind(AssertUnwindSafe(|| run(&plan, &report))).is_err() {
                    report.diverged(seed, plan.kinds());
                    diverged.lock().unwrap().push(seed);
                }
            }
        });
        eprintln!("{}", report.table());
        let diverged = diverged.into_inner().unwrap();
        assert!(diverged.is_empty(), "these seeds did not hold: {diverged:?}");
    }

    fn plan(&'static self, seed: u64) -> Plan<C> {
        let mut rng = Rng::with_seed(seed);
        let partitions = rng.choice(self.partitions).unwrap();
        let persistence = *rng.choice(self.persistence).unwrap();
        let mut plan = Plan { seed, partitions, persistence, strikes: Vec::new() };
        let mut time = Duration::ZERO;
        while time < self.budget || plan.kinds().len() < self.kinds_at_least {
            let kind = &self.kinds[rng.usize(..self.kinds.len())];
            if !plan.allows(kind) {
                continue;
            }
            let nap = Duration::from_millis(rng.u64(20..400));
            let hold = Duration::from_millis(rng.u64(100..1_200));
            let (dice, look) = (rng.u64(..1 << 40), rng.bool());
            time += nap + hold / 2;
            plan.strikes.push((kind, Strike { nap, hold, dice, look }));
        }
        plan
    }
}

/// A schedule.
pub struct Plan<C: 'static> {
    pub seed: u64,
    pub partitions: &'static str,
    pub persistence: Persistence,
    pub strikes: Vec<(&'static Kind<C>, Strike)>,
}

impl<C> Plan<C> {
    fn allows(&self, kind: &'static Kind<C>) -> bool {
        let times = self.strikes.iter().filter(|(own, _)| own.name == kind.name).count();
        times < kind.most
            && kind.needs.is_none_or(|needs| needs == self.persistence)
            && !self.strikes.iter().any(|(own, _)| own.clashes(kind) || kind.clashes(own))
    }

    fn kinds(&self) -> BTreeSet<&'static str> {
        self.strikes.iter().map(|(kind, _)| kind.name).collect()
    }

    pub fn told(&self) -> String {
        let names: Vec<_> = self.strikes.iter().map(|(kind, _)| kind.name).collect();
        let (partitions, persistence) = (self.partitions, self.persistence);
        format!(
            "seed {}, {partitions} partitions, {persistence:?}: {}",
            self.seed,
            names.join("; ")
        )
    }
}
