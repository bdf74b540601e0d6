//! Judges, from look to look, whether the owner of a partition makes progress. Pure: instants come from the caller.
//!
//! Only looks that succeeded in time count, without long gaps between them: a watcher that was itself suspended, or
//! cut off, has seen nothing.

use std::time::{Duration, Instant};

use crate::redis::scripts::owner::Seen;

/// What a standby has seen of the owner.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    takeover: Duration,
    last: Option<Looked>,
}

#[derive(Clone, Debug)]
struct Looked {
    seen: Seen,
    /// When this was first seen, without a gap since.
    since: Instant,
    /// When it was last seen.
    at: Instant,
}

impl Watch {
    /// An owner that shows no progress for `takeover` is taken over.
    pub(super) fn new(takeover: Duration) -> Self {
        Self { takeover, last: None }
    }

    /// Adds a look that was requested at one instant and answered at another. Returns whether nothing has changed for
    /// the takeover time.
    pub(super) fn look(&mut self, seen: &Seen, asked: Instant, answered: Instant) -> bool {
        let patience = self.takeover / 2;
        if answered.duration_since(asked) > patience {
            self.last = None;
            return false;
        }
        let before = self.last.take();
        let same =
            before.filter(|last| last.seen == *seen && asked.duration_since(last.at) <= patience);
        let since = same.map_or(answered, |last| last.since);
        self.last = Some(Looked { seen: seen.clone(), since, at: answered });
        asked.duration_since(since.min(asked)) >= self.takeover
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEOVER: Duration = Duration::from_secs(2);
    const STEP: Duration = Duration::from_millis(250);

    fn seen(beat: u64) -> Seen {
        Seen { owner: "a".to_owned(), beat: beat.to_string(), ..Seen::default() }
    }

    /// Looks at these beats, one step apart, answered at once; returns how many it takes to find a stall.
    fn stalls_at(beats: impl IntoIterator<Item = u64>) -> Option<usize> {
        let (mut watch, mut now) = (Watch::new(TAKEOVER), Instant::now());
        beats.into_iter().position(|beat| {
            now += STEP;
            watch.look(&seen(beat), now, now)
        })
    }

    #[test]
    fn an_owner_without_progress_is_found_after_the_time_and_not_before() {
        assert_eq!(stalls_at([7; 20]), Some(8));
        assert_eq!(stalls_at(0..100), None);
        assert_eq!(stalls_at((0..100).map(|n| n / 7)), None);
        assert_eq!(stalls_at([1, 2, 3].into_iter().chain([3; 20])), Some(10));
    }

    #[test]
    fn gaps_and_slow_answers_are_no_looks() {
        let start = Instant::now();
        let mut watch = Watch::new(TAKEOVER);
        let mut now = start;
        for _ in 0..20 {
            now += TAKEOVER * 2 / 3;
            assert!(!watch.look(&seen(1), now, now), "the watcher was away in between");
        }
        for _ in 0..20 {
            now += STEP;
            assert!(!watch.look(&seen(1), now, now + TAKEOVER), "the answer was old");
        }
        let mut watch = Watch::new(TAKEOVER);
        for _ in 0..8 {
            now += STEP;
            assert!(!watch.look(&seen(1), now, now));
        }
    }
}
