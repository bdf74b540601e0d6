//! Traffic: a number of events → entries for the stream. Pure; the same seed gives the same traffic.

use fastrand::Rng;

use super::crowd::Crowd;
use super::event::{Entry, Event, Form, packed};
use super::standard;

/// How long an event may wait for others to be packed with, in milliseconds.
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

/// What traffic one producer makes.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// What users do.
    pub mix: Mix,
    /// How many users there are, over all producers.
    pub users: u32,
    /// How many partitions there are.
    pub partitions: u16,
    /// How many events an entry packs; 1 writes each by itself.
    pub pack: u32,
    /// Where the random numbers start.
    pub seed: u64,
    /// Which producer this is, from 0.
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
    /// Events that wait to be packed, by partition, and since when the oldest does.
    waiting: Vec<Vec<Event>>,
    waiting_since_ms: Option<u64>,
}

impl Traffic {
    /// Traffic of that shape, from the beginning.
    pub(super) fn new(shape: Shape) -> Self {
        let distance = u64::from(shape.producer).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut rng = Rng::with_seed(shape.seed ^ distance);
        let users = if shape.mix == Mix::Crowd { shape.users } else { 1 };
        let crowd = Crowd::new(&mut rng, users, shape.producer, shape.producers);
        let waiting = vec![Vec::new(); usize::from(shape.partitions.max(1))];
        Self { shape, rng, crowd, waiting, waiting_since_ms: None }
    }

    /// The entries of the next `events` events. Where entries are packed, some of the events may
    /// still wait, and some that waited may come.
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

    /// The events that wait, packed with fewer than wanted.
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

    /// One event in one of the forms, or a few packed; flat is the most common.
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
