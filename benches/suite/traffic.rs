//! Traffic: the events of `rollcall load --mix standard`, written by the same code, for users chosen in several ways;
//! and what the state must show once they are applied.

#[allow(dead_code, reason = "the program writes in more forms than are measured here")]
#[path = "../../workers/load/event.rs"]
pub(crate) mod event;
#[allow(
    dead_code,
    unused_imports,
    reason = "the program names more, and its tests are no tests here"
)]
#[path = "../../workers/load/names.rs"]
mod names;
#[allow(dead_code, reason = "producers of the program share the users out; here is one")]
#[path = "../../workers/load/standard.rs"]
mod standard;

use std::ops::Range;

use fastrand::Rng;

use self::event::{Entry, Event, Form, packed};

/// Documents that users join, with about as many users in each as may work on one.
const DOCUMENTS: u32 = 1_000;
/// How many events of a batch have their effects checked.
const SAMPLE: usize = 50;

/// What happens, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    /// The standard mix, users uniform.
    Standard,
    /// The standard mix, the user of rank k about k + 1 times as rare as the first.
    Zipf,
    /// Heartbeats alone, users uniform.
    Heartbeats,
    /// The standard mix, but every tenth event is a join of a document.
    Documents,
}

/// A source of events.
pub(crate) struct Traffic {
    pub(crate) mix: Mix,
    pub(crate) users: u32,
    pub(crate) partitions: u16,
    /// Events in an entry.
    pub(crate) pack: usize,
    rng: Rng,
}

/// Entries, and their expected effects.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    pub(crate) events: u64,
    /// Views of an item, each of which counts in the ranking.
    pub(crate) views: u64,
    /// Some of the users that are seen.
    pub(crate) seen: Vec<String>,
}

impl Traffic {
    /// The same events every time.
    pub(crate) fn new(mix: Mix, users: u32, partitions: u16, pack: usize) -> Self {
        Self { mix, users, partitions, pack, rng: Rng::with_seed(1) }
    }

    /// The next events.
    pub(crate) fn batch(&mut self, events: u64) -> Batch {
        let events = (0..events).map(|_| self.event()).collect();
        self.written(events, self.pack)
    }

    /// Everything that leaves state, for each of these users: the state of a service that has been running.
    pub(crate) fn everything_of(&mut self, users: Range<u32>) -> Batch {
        let rng = &mut self.rng;
        let of_user = |number| {
            let document = join(rng, number);
            [
                standard::heartbeat(rng, number),
                standard::view(rng, number),
                standard::login(number),
                standard::session(rng, number),
                document,
            ]
        };
        let events = users.flat_map(of_user).collect();
        self.written(events, 50)
    }

    fn event(&mut self) -> Event {
        let rng = &mut self.rng;
        let user = match self.mix {
            Mix::Zipf => names::popular(rng, self.users),
            _ => rng.u32(..self.users),
        };
        match self.mix {
            Mix::Heartbeats => standard::heartbeat(rng, user),
            Mix::Documents if rng.u8(..10) == 0 => join(rng, user),
            _ => standard::event_of(rng, user),
        }
    }

    fn written(&self, events: Vec<Event>, pack: usize) -> Batch {
        let mut batch = Batch { events: events.len() as u64, ..Batch::default() };
        for event in &events {
            batch.views += u64::from(event.kind == "view");
            if batch.seen.len() < SAMPLE && matches!(event.kind, "heartbeat" | "login" | "view") {
                batch
                    .seen
                    .extend(event.members.iter().find(|m| m.0 == "user").map(|m| m.1.clone()));
            }
        }
        let flat = |event: &Event| event.written(Form::Flat, self.partitions, 0, 0);
        batch.entries = match pack {
            1 => events.iter().map(flat).collect(),
            _ => self.packed(events, pack),
        };
        batch
    }

    /// Packed as full as possible, for each partition.
    fn packed(&self, events: Vec<Event>, pack: usize) -> Vec<Entry> {
        let mut of_partition = vec![Vec::new(); usize::from(self.partitions)];
        for event in events {
            of_partition[usize::from(event.partition(self.partitions))].push(event);
        }
        let entries = (0..).zip(&of_partition).flat_map(|(partition, events)| {
            events.chunks(pack).map(move |events| packed(events, partition))
        });
        entries.collect()
    }
}

fn join(rng: &mut Rng, number: u32) -> Event {
    let members = vec![
        ("doc", format!("document-{}", rng.u32(..DOCUMENTS))),
        ("user", format!("user-{number}")),
        ("action", "join".to_owned()),
        ("connection", "c1".to_owned()),
    ];
    Event::new("document", members)
}
