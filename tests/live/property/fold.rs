//! The pure fold: a plan is a function of the set of events. Their order, their repetition, and how they are packed
//! into entries do not matter.

use proptest::collection::vec;
use proptest::prelude::*;
use rollcall::decode::{Rules, decode};
use rollcall::entry::Entry;
use rollcall::event::{Event, Limits};
use rollcall::fold::{Avoided, FoldSettings, Planner};
use rollcall::op::Plan;
use rollcall::projection::Projections;

use super::check;
use super::event::{draft, entries};
use super::settings::{Drawn, drawn};

const BASE: u64 = 1_790_000_000_000;

fn settings(drawn: &Drawn) -> FoldSettings {
    let (limits, max_skew_ms) = (Limits::default(), drawn.max_skew_ms);
    let projections: Projections = drawn.projections.iter().copied().collect();
    FoldSettings {
        rules: Rules { limits, max_skew_ms, partitions: 1, moved_from: Vec::new() },
        projections,
        partition: 0,
    }
}

/// Settings, and entries in the order of their ids.
fn batch() -> impl Strategy<Value = (FoldSettings, Vec<Entry>)> {
    (drawn(), vec(draft(), 1..30))
        .prop_map(|(drawn, drafts)| (settings(&drawn), entries(drafts.iter(), &drawn, BASE)))
}

/// The plan of a batch, with its lists sorted.
fn plan<'a>(settings: &FoldSettings, entries: impl IntoIterator<Item = &'a Entry>) -> Plan<'a> {
    let mut planner = Planner::new(settings);
    entries.into_iter().for_each(|entry| planner.add(entry, &Avoided::default()));
    let mut plan = planner.finish(&Avoided::default());
    plan.last = None;
    plan.letters.sort_by_key(|letter| (letter.id, letter.index));
    plan
}

#[test]
fn order_does_not_change_the_plan_nor_repetition_its_merges() {
    let shuffled = batch().prop_flat_map(|(settings, entries)| {
        let twice = [entries.clone(), entries.clone()].concat();
        (Just(settings), Just(entries), Just(twice).prop_shuffle())
    });
    check(64, &shuffled, |(settings, entries, twice)| {
        let merges = |entries| Plan {
            views: Default::default(),
            letters: Vec::new(),
            entries: 0,
            ..plan(&settings, entries)
        };
        prop_assert_eq!(merges(&twice), merges(&entries));
        let mut shuffled = twice;
        let mut seen = std::collections::BTreeSet::new();
        shuffled.retain(|entry| seen.insert(entry.id));
        prop_assert_eq!(plan(&settings, &shuffled), plan(&settings, &entries));
        Ok(())
    });
}

/// Below the entries: merging into a plan is commutative and idempotent, event by event.
#[test]
fn order_and_repetition_of_events_do_not_change_the_merges() {
    check(64, &(batch(), vec(any::<u8>(), 1..50)), |((settings, entries), keys)| {
        let mut events = Vec::new();
        for entry in &entries {
            let decoded = decode(entry, 0, &settings.rules);
            events.extend(decoded.events.into_iter().map(|event| (event, entry.id.ms)));
        }
        let mut keyed: Vec<_> = keys.iter().cycle().zip(events.iter().chain(&events)).collect();
        keyed.sort_by_key(|(key, _)| **key);
        let in_order = fold(&settings, events.iter());
        prop_assert_eq!(fold(&settings, keyed.into_iter().map(|(_, event)| event)), in_order);
        Ok(())
    });
}

fn fold<'e, 'a: 'e>(
    settings: &FoldSettings,
    events: impl Iterator<Item = &'e (Event<'a>, u64)>,
) -> Plan<'a> {
    let mut plan = Plan::default();
    events.for_each(|(event, entry_ms)| settings.projections.fold(event, *entry_ms, &mut plan));
    // Views are counted, not merged.
    plan.views.clear();
    plan
}
