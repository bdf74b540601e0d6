//! Events waiting to be added: packed into entries, within limits. No I/O.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Trouble;
use crate::config::Buffer;
use crate::entry::EntryId;
use crate::event::Limits;

/// The result for an entry.
pub(super) type Outcome = Result<EntryId, Trouble>;

/// Events of one entry.
#[derive(Debug)]
pub(super) struct Batch {
    /// The beginning of a JSON array.
    json: String,
    /// How many there are.
    pub events: usize,
    /// When the first came.
    pub since: Instant,
    /// Receivers of the result.
    waiters: Vec<oneshot::Sender<Outcome>>,
}

impl Batch {
    fn new() -> Self {
        Self { json: String::new(), events: 0, since: Instant::now(), waiters: Vec::new() }
    }

    /// Bytes of the events alone.
    pub(super) fn bytes(&self) -> usize {
        // Each has a bracket or a comma before it.
        self.json.len() - self.events
    }

    /// All events as a JSON array.
    pub(super) fn array(&self) -> String {
        let mut array = String::with_capacity(self.json.len() + 1);
        array.extend([&self.json, "]"]);
        array
    }

    /// Sends the result to all receivers.
    pub(super) fn answer(self, outcome: Outcome) {
        for waiter in self.waiters {
            // A receiver that is gone does not need the result.
            let _gone = waiter.send(outcome);
        }
    }
}

/// The waiting events of one partition.
#[derive(Debug, Default)]
pub(super) struct Pack {
    open: Option<Batch>,
    sealed: VecDeque<Batch>,
}

impl Pack {
    /// Adds events of one request, in order. Returns for how many of them each answer is, the first ones first.
    pub(super) fn add<'e>(
        &mut self,
        events: impl Iterator<Item = &'e str>,
        limits: &Limits,
    ) -> Vec<(usize, oneshot::Receiver<Outcome>)> {
        let mut answers = Vec::with_capacity(1);
        let mut in_open = 0;
        for event in events {
            let is_full = |batch: &Batch| {
                // A comma before it, and the bracket at the end.
                let bytes = batch.json.len() + event.len() + 2;
                batch.events >= limits.max_events || bytes > limits.max_data_bytes
            };
            if self.open.as_ref().is_some_and(is_full) {
                answers.extend(self.wait(&mut in_open));
                self.sealed.extend(self.open.take());
            }
            let batch = self.open.get_or_insert_with(Batch::new);
            batch.json.extend([if batch.events == 0 { "[" } else { "," }, event]);
            batch.events += 1;
            in_open += 1;
        }
        answers.extend(self.wait(&mut in_open));
        answers
    }

    /// An answer for the last `events` of the open batch.
    fn wait(&mut self, events: &mut usize) -> Option<(usize, oneshot::Receiver<Outcome>)> {
        let batch = self.open.as_mut().filter(|_| *events > 0)?;
        let (sender, receiver) = oneshot::channel();
        batch.waiters.push(sender);
        Some((std::mem::take(events), receiver))
    }

    /// When the next entry is due; `None` while nothing is waiting.
    pub(super) fn due(&self, linger: Duration) -> Option<Instant> {
        let sealed = self.sealed.front().map(|batch| batch.since);
        sealed.or_else(|| self.open.as_ref().map(|batch| batch.since + linger))
    }

    /// The next entry.
    pub(super) fn take(&mut self) -> Option<Batch> {
        self.sealed.pop_front().or_else(|| self.open.take())
    }
}

/// The limits of what may wait in total, and its current size.
#[derive(Debug)]
pub(super) struct Budget {
    most: Buffer,
    events: AtomicUsize,
    bytes: AtomicUsize,
}

impl Budget {
    pub(super) fn new(most: Buffer) -> Self {
        Self { most, events: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    /// Reserves room for events; `false` if there is not enough.
    pub(super) fn take(&self, events: usize, bytes: usize) -> bool {
        let all_events = self.events.fetch_add(events, Ordering::Relaxed) + events;
        let all_bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = all_events <= self.most.events && all_bytes <= self.most.bytes;
        if !fits {
            self.give(events, bytes);
        }
        fits
    }

    /// Releases it.
    pub(super) fn give(&self, events: usize, bytes: usize) {
        self.events.fetch_sub(events, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Waiting events, and the fraction of the limits that is used.
    pub(super) fn used(&self) -> (usize, f64) {
        let (events, bytes) =
            (self.events.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let part = |used: usize, most: usize| used as f64 / most as f64;
        (events, part(events, self.most.events).max(part(bytes, self.most.bytes)))
    }

    /// How long an event may wait.
    pub(super) fn time(&self) -> Duration {
        self.most.time
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entries_hold_every_event_once_in_order_within_their_limits(
            requests in proptest::collection::vec(proptest::collection::vec("[0-9]{1,12}", 1..9), 1..20),
            max_events in 1_usize..7,
            max_data_bytes in 14_usize..60,
        ) {
            let limits = Limits { max_events, max_data_bytes, ..Limits::default() };
            let (mut pack, mut answers) = (Pack::default(), Vec::new());
            for request in &requests {
                let counted = pack.add(request.iter().map(|n| n.as_str()), &limits);
                prop_assert_eq!(counted.iter().map(|(n, _)| n).sum::<usize>(), request.len());
                answers.extend(counted);
            }
            let mut found = Vec::new();
            let mut entry = 0;
            while let Some(batch) = pack.take() {
                let array = batch.array();
                prop_assert!(batch.events <= max_events && array.len() <= max_data_bytes);
                prop_assert_eq!(array.len(), batch.bytes() + batch.events + 1);
                let inside: Vec<String> =
                    array[1..array.len() - 1].split(',').map(str::to_owned).collect();
                prop_assert_eq!(inside.len(), batch.events);
                found.extend(inside.into_iter().map(|event| (event, entry)));
                batch.answer(Ok(EntryId { ms: entry, seq: 0 }));
                entry += 1;
            }
            let mut expected = requests.concat().into_iter();
            let mut events = found.into_iter();
            for (count, mut answer) in answers {
                let id = answer.try_recv().unwrap().unwrap();
                for (event, entry) in events.by_ref().take(count) {
                    prop_assert_eq!(entry, id.ms);
                    prop_assert_eq!(Some(event), expected.next());
                }
            }
            prop_assert_eq!(expected.next(), None);
        }
    }

    #[test]
    fn a_budget_never_gives_more_than_it_has() {
        let most = Buffer { events: 10, bytes: 100, time: Duration::from_secs(1) };
        let budget = Budget::new(most);
        assert!(budget.take(9, 10) && !budget.take(2, 1) && budget.take(1, 90));
        assert!(!budget.take(0, 1));
        assert_eq!(budget.used(), (10, 1.0));
        budget.give(9, 90);
        assert_eq!(budget.used(), (1, 0.1));
    }
}
