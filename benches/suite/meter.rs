//! The cost of a piece of work.

use std::time::Instant;

use crate::machine::own_cpu_s;

/// Time and processor time of clients, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) wall_s: f64,
    pub(crate) client_s: f64,
}

/// The cost of a number of events, all of them together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) events: u64,
    pub(crate) took: Took,
    pub(crate) server_s: f64,
    /// To the append-only file, and to a replica.
    pub(crate) written_bytes: f64,
}

impl Cost {
    pub(crate) fn events_per_s(&self) -> f64 {
        self.events as f64 / self.took.wall_s
    }

    pub(crate) fn server_us(&self) -> f64 {
        self.server_s * 1e6 / self.events as f64
    }

    pub(crate) fn bytes(&self) -> f64 {
        self.written_bytes / self.events as f64
    }

    pub(crate) fn client_us(&self) -> f64 {
        self.took.client_s * 1e6 / self.events as f64
    }
}

/// The cost of `work` in this process.
pub(crate) fn watch(work: impl FnOnce()) -> Took {
    let (wall, client) = (Instant::now(), own_cpu_s());
    work();
    Took { wall_s: wall.elapsed().as_secs_f64(), client_s: own_cpu_s() - client }
}
