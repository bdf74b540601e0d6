//! Health means progress: the process is live while every loop makes progress, and ready while every loop can do its
//! work.
//!
//! A loop must report within its time limit, whatever it does: it waits for a second at a time, works on a batch up
//! to a deadline, or tries again to connect. A loop that reports nothing for longer is stuck, even if the process
//! runs and its connections are open. If Redis is down, the loop is not stuck, since it keeps trying.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::info;

/// What is known of one loop.
#[derive(Clone, Debug)]
struct State {
    /// What it does.
    doing: Doing,
    /// When it last reported that.
    since: Instant,
    /// What prevented its work the last time it tried.
    hindrance: Option<String>,
    /// Whether it has failed since it last did its work.
    in_trouble: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It waits for work.
    Waiting,
    /// It has work in progress.
    Busy,
    /// It tries to get to work.
    Trying,
}

impl Doing {
    fn words(self) -> &'static str {
        match self {
            Self::Waiting => "has waited without asking for work",
            Self::Busy => "has been working on the same thing",
            Self::Trying => "has been trying to connect",
        }
    }
}

/// One loop's part in the health of the process.
#[derive(Clone, Debug)]
pub struct Pulse {
    name: String,
    patience: Duration,
    state: Arc<Mutex<State>>,
    troubles: Arc<Mutex<Troubles>>,
}

impl Pulse {
    /// The loop did its work, and waits for more.
    pub fn waiting(&self) {
        let since = Instant::now();
        let now = State { doing: Doing::Waiting, since, hindrance: None, in_trouble: false };
        let before = std::mem::replace(&mut *self.state(), now);
        if before.in_trouble
            && let Some(lasted) = lock(&self.troubles).end()
        {
            info!(
                lasted_ms = lasted.as_millis() as u64,
                "the trouble is over, all loops work again"
            );
        }
    }

    /// The loop asked for work and there was none; this does not affect work in progress.
    pub fn idle(&self) {
        if self.state().doing != Doing::Busy {
            self.waiting();
        }
    }

    /// The loop works on this piece of work from now on.
    pub fn busy(&self) {
        let mut state = self.state();
        (state.doing, state.since) = (Doing::Busy, Instant::now());
    }

    /// The loop cannot work, and will try again. Returns whether it could until now.
    pub fn unready(&self, why: String) -> bool {
        let hindrance = Some(why);
        let now =
            State { doing: Doing::Trying, since: Instant::now(), hindrance, in_trouble: true };
        let before = std::mem::replace(&mut *self.state(), now);
        if !before.in_trouble {
            lock(&self.troubles).begin();
        }
        !before.in_trouble
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn stuck(&self) -> Option<String> {
        let State { doing, since, .. } = *self.state();
        let silent = since.elapsed();
        let stuck = silent > self.patience;
        stuck.then(|| format!("{} {} for {} s", self.name, doing.words(), silent.as_secs()))
    }

    fn hindrance(&self) -> Option<String> {
        self.state().hindrance.as_ref().map(|why| format!("{}: {why}", self.name))
    }
}

/// The loops of a process that cannot work, and since when there has been one.
#[derive(Debug, Default)]
struct Troubles {
    loops: usize,
    since: Option<Instant>,
}

impl Troubles {
    fn begin(&mut self) {
        self.loops += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    /// How long the trouble lasted, if this loop was the last.
    fn end(&mut self) -> Option<Duration> {
        self.loops = self.loops.saturating_sub(1);
        if self.loops > 0 {
            return None;
        }
        self.since.take().map(|since| since.elapsed())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The health of a process: that of all its loops.
#[derive(Clone, Debug, Default)]
pub struct Health {
    pulses: Arc<Mutex<Vec<Pulse>>>,
    troubles: Arc<Mutex<Troubles>>,
}

impl Health {
    /// Adds a loop that reports at least every `patience`; it is not ready until its first report.
    pub fn add(&self, name: String, patience: Duration) -> Pulse {
        let hindrance = Some("starting".to_owned());
        let (doing, since) = (Doing::Trying, Instant::now());
        let state = Arc::new(Mutex::new(State { doing, since, hindrance, in_trouble: false }));
        let pulse = Pulse { name, patience, state, troubles: self.troubles.clone() };
        lock(&self.pulses).push(pulse.clone());
        pulse
    }

    /// The reasons why the process is not live; empty if it is.
    pub fn stuck(&self) -> Vec<String> {
        self.each(Pulse::stuck)
    }

    /// The reasons why the process is not ready; empty if it is.
    pub fn unready(&self) -> Vec<String> {
        self.each(Pulse::hindrance)
    }

    fn each(&self, fault: impl Fn(&Pulse) -> Option<String>) -> Vec<String> {
        let pulses = lock(&self.pulses);
        pulses.iter().filter_map(fault).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn pulse(health: &Health, name: &str, patience: Duration) -> Pulse {
        health.add(name.to_owned(), patience)
    }

    #[test]
    fn ready_means_that_every_loop_has_done_its_work_or_found_none() {
        let health = Health::default();
        let (a, b) = (pulse(&health, "a", LONG), pulse(&health, "b", LONG));
        a.waiting();
        assert_eq!(health.unready(), ["b: starting"]);
        b.busy();
        assert_eq!(health.unready(), ["b: starting"], "work in hand is not yet work done");
        b.waiting();
        assert!(health.unready().is_empty());
        b.busy();
        assert!(health.unready().is_empty());
        b.unready("no server".to_owned());
        b.busy();
        assert_eq!(health.unready(), ["b: no server"]);
    }

    #[test]
    fn a_loop_that_says_nothing_is_stuck_whatever_it_does() {
        let health = Health::default();
        let hasty = pulse(&health, "hasty", Duration::ZERO);
        let patient = pulse(&health, "patient", LONG);
        let stuck = || {
            // Even a coarse clock advances.
            std::thread::sleep(Duration::from_millis(2));
            health.stuck()
        };
        assert_eq!(stuck(), ["hasty has been trying to connect for 0 s"]);
        hasty.waiting();
        assert_eq!(stuck(), ["hasty has waited without asking for work for 0 s"]);
        hasty.busy();
        patient.busy();
        assert_eq!(stuck(), ["hasty has been working on the same thing for 0 s"]);
    }

    #[test]
    fn a_trouble_is_over_when_the_last_loop_works_again() {
        let health = Health::default();
        let (a, b) = (pulse(&health, "a", LONG), pulse(&health, "b", LONG));
        let lasting = || lock(&health.troubles).since.is_some();
        a.waiting();
        b.waiting();
        assert!(!lasting(), "to have started is no trouble that is over");
        assert!(a.unready("no server".to_owned()) && b.unready("no server".to_owned()));
        assert!(!a.unready("still none".to_owned()));
        a.waiting();
        a.waiting();
        assert!(lasting());
        b.waiting();
        assert!(!lasting());
    }

    #[test]
    fn a_reader_that_finds_nothing_does_not_excuse_work_in_hand() {
        let health = Health::default();
        // Long enough for a test that is suspended for a moment.
        let patience = Duration::from_secs(1);
        let pulse = pulse(&health, "a", patience);
        let begun = Instant::now();
        while begun.elapsed() < patience.mul_f64(1.1) {
            pulse.idle();
        }
        assert!(health.stuck().is_empty(), "as long as it asks for work");
        pulse.busy();
        let begun = Instant::now();
        while begun.elapsed() < patience.mul_f64(1.1) {
            pulse.idle();
        }
        assert_eq!(health.stuck().len(), 1);
    }
}
