//! Traffic: a number of events → entries for the stream. Pure; the same seed gives the same traffic.

use fastrand::Rng;

use super::crowd::Crowd;
use super::event::{Entry, Event, Form, packed};
use super::standard;

/// How long an event may wait to be packed with others, in milliseconds.
const PACK_WAIT_MS: u64 = 1_000;

/// What users do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mix {
    /// Users come and go; all event types, all ways to write an entry
    #[default]
    Crowd,
    /// 80 % heartbeats, 10 % views, 5 % logins, 5 % sessions, uniform over users, flat fields
    Standard,
}

/// The traffic of one producer.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// What users do.
    pub mix: Mix,
    /// The number of users of all producers together.
    pub users: u32,
    /// How many partitions there are.
    pub partitions: u16,
    /// How many events are packed into an entry; 1 for single entries.
    pub pack: u32,
    /// The seed of the random numbers.
    pub seed: u64,
    /// The index of this producer, from 0.
    pub producer: u32,
    /// How many producers share the users.
    pub producers: u32,
}

/// One producer's traffic.
#[derive(Debug)]
pub(super) struct Traffic {
    shape: Shape,
    rng: Rng,
    crowd: Crowd,
    /// Events that wait to be packed, by partition, and since when the oldest has waited.
    waiting: Vec<Vec<Event>>,
    waiting_since_ms: Option<u64>,
}

impl Traffic {
    /// Traffic of this shape, from the beginning.
    pub(super) fn new(shape: Shape) -> Self {
        let distance = u64::from(shape.producer).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut rng = Rng::with_seed(shape.seed ^ distance);
        let users = if shape.mix == Mix::Crowd { shape.users } else { 1 };
        let crowd = Crowd::new(&mut rng, users, shape.producer, shape.producers);
        let waiting = vec![Vec::new(); usize::from(shape.partitions.max(1))];
        Self { shape, rng, crowd, waiting, waiting_since_ms: None }
    }

    /// The entries of the next `events` events. If entries are packed, some of these events may still wait, and some
    /// earlier ones may be included.
    pub(super) fn entries(&mut self, events: u64, now_ms: u64) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut left = events;
        while left > 0 {
            left -= match (self.shape.mix, self.shape.pack) {
                (Mix::Standard, ..=1) => self.flat(now_ms, &mut entries),
                (Mix::Crowd, ..=1) => self.any_form(left, now_ms, &mut entries),
                _ => self.packing(now_ms, &mut entries),
            };
        }
        if self.waiting_since_ms.is_some_and(|since| now_ms >= since + PACK_WAIT_MS) {
            entries.extend(self.rest());
        }
        entries
    }

    /// The number of events that wait to be packed.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.iter().map(|events| events.len() as u64).sum()
    }

    /// The waiting events, in entries that are not full.
    pub(super) fn rest(&mut self) -> Vec<Entry> {
        self.waiting_since_ms = None;
        pack_each(&mut self.waiting)
    }

    fn event(&mut self) -> Event {
        let shape = &self.shape;
        match shape.mix {
            Mix::Crowd => self.crowd.event(&mut self.rng),
            Mix::Standard => {
                standard::event(&mut self.rng, shape.users, shape.producer, shape.producers)
            }
        }
    }

    fn flat(&mut self, now_ms: u64, entries: &mut Vec<Entry>) -> u64 {
        entries.push(self.event().written(Form::Flat, self.shape.partitions, 0, now_ms));
        1
    }

    /// A random form: one event, or a few packed ones. Flat fields are the most common.
    fn any_form(&mut self, left: u64, now_ms: u64, entries: &mut Vec<Entry>) -> u64 {
        let form = match self.rng.u8(..100) {
            0..70 => Form::Flat,
            70..82 => Form::Json,
            82..88 => Form::MessagePack,
            88..92 => Form::CloudBinary,
            92..96 => Form::CloudStructured,
            _ => return self.few_packed(left, now_ms, entries),
        };
        let mut event = self.event();
        event.time_ms = (self.rng.u8(..100) < 15).then_some(now_ms);
        let id = self.rng.u64(1..);
        entries.push(event.written(form, self.shape.partitions, id, now_ms));
        1
    }

    fn few_packed(&mut self, left: u64, now_ms: u64, entries: &mut Vec<Entry>) -> u64 {
        let many = self.rng.u64(2..8).min(left);
        let mut groups = vec![Vec::new(); self.waiting.len()];
        for _ in 0..many {
            let event = Event { time_ms: Some(now_ms), ..self.event() };
            groups[usize::from(event.partition(self.shape.partitions))].push(event);
        }
        entries.extend(pack_each(&mut groups));
        many
    }

    fn packing(&mut self, now_ms: u64, entries: &mut Vec<Entry>) -> u64 {
        let event = Event { time_ms: Some(now_ms), ..self.event() };
        let partition = event.partition(self.shape.partitions);
        let waiting = &mut self.waiting[usize::from(partition)];
        waiting.push(event);
        if waiting.len() >= self.shape.pack as usize {
            entries.push(packed(waiting, partition));
            waiting.clear();
        }
        self.waiting_since_ms = match self.waiting() {
            0 => None,
            _ => self.waiting_since_ms.or(Some(now_ms)),
        };
        1
    }
}

/// Each partition's events as one entry.
fn pack_each(groups: &mut [Vec<Event>]) -> Vec<Entry> {
    let filled = (0..).zip(groups).filter(|(_, events)| !events.is_empty());
    filled.map(|(partition, events)| packed(&std::mem::take(events), partition)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rollcall::decode::{Rules, decode};
    use rollcall::entry::{Entry as StreamEntry, EntryId};
    use rollcall::event::{Kind, Limits, TYPES};
    use std::collections::{HashMap, HashSet};

    const NOW: u64 = 1_790_000_000_000;

    fn shape(mix: Mix, partitions: u16, pack: u32) -> Shape {
        Shape { mix, users: 60, partitions, pack, seed: 7, producer: 1, producers: 3 }
    }

    /// Decodes like a worker; every event must be valid and in the right partition.
    fn check(entry: &Entry, partitions: u16) -> Vec<String> {
        let rules =
            Rules { limits: Limits::default(), max_skew_ms: 0, partitions, moved_from: Vec::new() };
        let fields = entry.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
        let stored = StreamEntry::new(EntryId { ms: NOW, seq: 0 }, fields);
        let decoded = decode(&stored, entry.partition, &rules);
        assert_eq!(decoded.rejected, []);
        assert_eq!(decoded.events.len() as u64, entry.events);
        for event in &decoded.events {
            assert_eq!(event.time.millis(), NOW);
            if let Kind::Session(session) = &event.kind {
                assert!(session.sid.starts_with("s"), "{session:?}");
            }
        }
        decoded.events.iter().map(|event| TYPES[event.kind.place()].to_owned()).collect()
    }

    #[test]
    fn all_traffic_is_valid_in_its_right_partition_and_counted() {
        for (mix, partitions, pack) in [
            (Mix::Crowd, 1, 1),
            (Mix::Crowd, 4, 1),
            (Mix::Crowd, 4, 10),
            (Mix::Standard, 1, 1),
            (Mix::Standard, 3, 50),
        ] {
            let mut traffic = Traffic::new(shape(mix, partitions, pack));
            let mut entries: Vec<Entry> = (0..40).flat_map(|_| traffic.entries(75, NOW)).collect();
            assert_eq!(entries.iter().map(|e| e.events).sum::<u64>() + traffic.waiting(), 3000);
            entries.extend(traffic.rest());
            assert_eq!(traffic.waiting(), 0);
            let kinds: Vec<String> = entries.iter().flat_map(|e| check(e, partitions)).collect();
            assert_eq!(kinds.len(), 3000);
            let of_all: HashSet<String> = kinds.into_iter().collect();
            assert_eq!(of_all.len(), if mix == Mix::Crowd { 6 } else { 4 }, "{of_all:?}");
        }
    }

    #[test]
    fn the_seed_decides_everything() {
        let of = |seed| Traffic::new(Shape { seed, ..shape(Mix::Crowd, 2, 1) }).entries(500, NOW);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn the_crowd_writes_in_every_form_and_mostly_flat() {
        let entries = Traffic::new(shape(Mix::Crowd, 1, 1)).entries(5_000, NOW);
        let mut forms: HashMap<&str, u32> = HashMap::new();
        for entry in &entries {
            let has = |name: &str| entry.fields.iter().any(|(field, _)| *field == name);
            let form = match (
                has("specversion"),
                has("datacontenttype"),
                has("user") || has("sid"),
                has("type"),
            ) {
                (true, ..) => "binary CloudEvent",
                (_, true, ..) => "MessagePack",
                (_, _, true, _) => "flat",
                (.., true) => "JSON",
                _ if entry.events > 1 => "packed",
                _ => "structured CloudEvent",
            };
            *forms.entry(form).or_default() += 1;
        }
        assert_eq!(forms.len(), 6, "{forms:?}");
        assert!(forms["flat"] > 3_000, "{forms:?}");
    }

    #[test]
    fn producers_share_the_users_and_users_come_and_go() {
        let users_of = |producer| {
            let mut traffic = Traffic::new(Shape { producer, ..shape(Mix::Crowd, 1, 1) });
            let mut users: HashMap<String, HashSet<&str>> = HashMap::new();
            for _ in 0..20_000 {
                let event = traffic.event();
                let user = event.members.iter().find(|(name, _)| *name == "user");
                if let Some((_, user)) = user {
                    users.entry(user.clone()).or_default().insert(event.kind);
                }
            }
            users
        };
        let (first, second) = (users_of(0), users_of(1));
        assert_eq!((first.len(), second.len()), (20, 20));
        assert!(first.keys().all(|user| !second.contains_key(user)));
        for kinds in first.values().chain(second.values()) {
            assert!(kinds.contains("login") && kinds.contains("logout"), "{kinds:?}");
        }
    }

    #[test]
    fn the_standard_mix_has_its_shares() {
        let mut traffic = Traffic::new(shape(Mix::Standard, 1, 1));
        let mut counts: HashMap<&str, f64> = HashMap::new();
        for _ in 0..20_000 {
            *counts.entry(traffic.event().kind).or_default() += 100.0 / 20_000.0;
        }
        for (kind, share) in [("heartbeat", 80.0), ("view", 10.0), ("login", 5.0), ("session", 5.0)]
        {
            assert!((counts[kind] - share).abs() < 1.0, "{counts:?}");
        }
    }

    #[test]
    fn no_event_waits_long_to_be_packed() {
        let mut traffic = Traffic::new(shape(Mix::Standard, 1, 1000));
        assert_eq!(traffic.entries(3, NOW), []);
        assert_eq!(traffic.waiting(), 3);
        let entries = traffic.entries(1, NOW + PACK_WAIT_MS);
        assert_eq!((entries.len(), entries[0].events, traffic.waiting()), (1, 4, 0));
    }
}
