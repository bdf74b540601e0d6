//! Health that means progress: live while every loop either waits or gets on, ready while every loop is
//! connected and has joined.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What one loop does now.
#[derive(Clone, Debug)]
enum State {
    /// It is connected, and waits for work.
    Waiting,
    /// It has had a batch in hand since then.
    Busy(Instant),
    /// It cannot work: why.
    Unready(String),
}

/// One loop's place in the health of the process.
#[derive(Clone, Debug)]
pub struct Pulse {
    name: String,
    state: Arc<Mutex<State>>,
}

impl Pulse {
    /// The loop is connected, and waits for work.
    pub fn waiting(&self) {
        self.set(State::Waiting);
    }

    /// The loop has a batch in hand from now on.
    pub fn busy(&self) {
        self.set(State::Busy(Instant::now()));
    }

    /// The loop cannot work.
    pub fn unready(&self, why: String) {
        self.set(State::Unready(why));
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn get(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The health of a process: that of all its loops.
#[derive(Clone, Debug)]
pub struct Health {
    pulses: Arc<Mutex<Vec<Pulse>>>,
    patience: Duration,
}

impl Health {
    /// A process whose loops may keep a batch in hand for `patience`.
    pub fn new(patience: Duration) -> Self {
        Self { pulses: Arc::default(), patience }
    }

    /// Adds a loop; it is not ready until it says so.
    pub fn add(&self, name: String) -> Pulse {
        let state = Arc::new(Mutex::new(State::Unready("starting".to_owned())));
        let pulse = Pulse { name, state };
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).push(pulse.clone());
        pulse
    }

    /// What keeps the process from being live; empty if it is.
    pub fn stuck(&self) -> Vec<String> {
        self.each(|pulse| match pulse.get() {
            State::Busy(since) if since.elapsed() > self.patience => Some(format!(
                "{} has had a batch in hand for {} s",
                pulse.name,
                since.elapsed().as_secs()
            )),
            _ => None,
        })
    }

    /// What keeps the process from being ready; empty if it is.
    pub fn unready(&self) -> Vec<String> {
        self.each(|pulse| match pulse.get() {
            State::Unready(why) => Some(format!("{}: {why}", pulse.name)),
            _ => None,
        })
    }

    fn each(&self, fault: impl Fn(&Pulse) -> Option<String>) -> Vec<String> {
        self.pulses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter_map(fault)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_every_loop_is_and_live_means_none_is_stuck() {
        let health = Health::new(Duration::ZERO);
        let (a, b) = (health.add("a".to_owned()), health.add("b".to_owned()));
        a.waiting();
        assert_eq!(health.unready(), ["b: starting"]);
        b.busy();
        assert!(health.unready().is_empty());
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(health.stuck().len(), 1);
        b.waiting();
        assert!(health.stuck().is_empty());
    }
}
