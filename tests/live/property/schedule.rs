//! Schedules: in which order and by whom entries are added, read and applied, and swept in between.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::event::{Draft, draft};
use super::settings::{Drawn, drawn};

/// A case: a deployment, entries, and what happens to them.
#[derive(Clone)]
pub struct Case {
    pub drawn: Drawn,
    /// In any order; ids determine theirs.
    pub drafts: Vec<Draft>,
    pub steps: Vec<Step>,
    /// The entries left after the steps are applied this many at a time.
    pub rest: usize,
}

/// One step, in one partition (modulo their number).
#[derive(Clone, Debug)]
pub struct Step {
    pub partition: u16,
    pub act: Act,
}

/// What is done in a step.
#[derive(Clone, Debug)]
pub enum Act {
    /// This many more entries are added.
    Add { count: usize },
    /// A worker takes the partition, whoever owns it.
    Take { worker: usize },
    /// A worker reads this many entries after those it has.
    Read { worker: usize, count: usize },
    /// A worker applies some of what it has read, whether it still owns the partition or not.
    Apply { worker: usize, count: usize, how: How },
    /// The owner of a worker's last term beats.
    Beat { worker: usize },
    /// A stranger does something to the consumer group (the deed's number, modulo their number).
    Meddle { deed: usize },
    /// A janitor's call (the sweep's number, modulo their number).
    Sweep { sweep: usize, limit: u64 },
    /// Another program sets an expiry on a shared key (its number, modulo their number).
    Expire { key: usize },
    /// Milliseconds pass.
    Pass(u64),
    /// Time passes up to the next full second.
    PassSecond,
}

/// How a batch becomes plans.
#[derive(Clone, Copy, Debug)]
pub enum How {
    OnePlan,
    /// A plan for each entry.
    EntryByEntry,
    /// A plan for each event, then one that moves the cursor.
    EventByEvent,
    /// The merges of a plan without the move of the cursor, like a call that was cut off; then the whole plan.
    CutOff,
}

pub const WORKERS: usize = 3;

/// A case with up to this many entries and steps.
pub fn case(entries: usize, steps: usize) -> impl Strategy<Value = Case> {
    (drawn(), vec(draft(), 1..entries), vec(step(), 0..steps), 1..30_usize)
        .prop_map(|(drawn, drafts, steps, rest)| Case { drawn, drafts, steps, rest })
}

fn step() -> impl Strategy<Value = Step> {
    const HOW: [How; 5] =
        [How::OnePlan, How::OnePlan, How::EntryByEntry, How::EventByEvent, How::CutOff];
    let (worker, count) = (|| 0..WORKERS, || 1..20_usize);
    let apply = (worker(), 1..12_usize, select(&HOW[..]));
    let sweep = (0..100_usize, select(&[1, 2, 3, 1000][..]));
    let act = prop_oneof![
        60 => count().prop_map(|count| Act::Add { count }),
        25 => worker().prop_map(|worker| Act::Take { worker }),
        60 => (worker(), count()).prop_map(|(worker, count)| Act::Read { worker, count }),
        120 => apply.prop_map(|(worker, count, how)| Act::Apply { worker, count, how }),
        15 => worker().prop_map(|worker| Act::Beat { worker }),
        10 => (0..100_usize).prop_map(|deed| Act::Meddle { deed }),
        80 => sweep.prop_map(|(sweep, limit)| Act::Sweep { sweep, limit }),
        10 => (0..100_usize).prop_map(|key| Act::Expire { key }),
        30 => (1..20_u64).prop_map(Act::Pass),
        1 => Just(Act::PassSecond),
    ];
    (0..3_u16, act).prop_map(|(partition, act)| Step { partition, act })
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { drawn, drafts, steps, rest } = self;
        writeln!(f, "{drawn:?}\nentries:")?;
        drafts.iter().try_for_each(|draft| writeln!(f, "  {draft:?},"))?;
        writeln!(f, "steps, then the rest by {rest}:")?;
        steps.iter().try_for_each(|step| writeln!(f, "  {step:?},"))
    }
}
