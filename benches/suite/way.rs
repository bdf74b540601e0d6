//! The compared ways to bring a backlog into the state.

use rollcall::config::{Projection, Projections};

use crate::bare;
use crate::fleet::{Fleet, Roles};
use crate::ground::Ground;
use crate::meter::{Cost, Took, watch};
use crate::plain::Consumer;
use crate::python::Python;

#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Reading and acknowledging, nothing else: the minimum for any way that uses a consumer group.
    Floor { batch: u32 },
    /// Reading without the group and moving its position once per batch, nothing else: the minimum for any way that
    /// leaves a position.
    Cursor { batch: u32 },
    /// This many Rollcall workers with these settings.
    Rollcall { workers: usize, metrics: bool, flags: Vec<(&'static str, String)> },
    /// Plain commands from Rust.
    Plain { batch: u32 },
    /// The same commands coalesced as Rollcall does, and nothing else.
    Bare { batch: u32 },
    /// Plain commands from Python.
    Python { python: Python, batch: u32 },
}

impl Way {
    /// One worker that keeps everything.
    pub(crate) fn rollcall(batch: u32) -> Self {
        Self::rollcall_under(vec![("batch", batch.to_string())])
    }

    /// The same without metrics.
    pub(crate) fn rollcall_unmeasured(batch: u32) -> Self {
        Self::Rollcall { workers: 1, metrics: false, flags: vec![("batch", batch.to_string())] }
    }

    fn rollcall_under(flags: Vec<(&'static str, String)>) -> Self {
        Self::Rollcall { workers: 1, metrics: true, flags }
    }

    /// One worker that keeps these projections.
    pub(crate) fn rollcall_with(batch: u32, projections: Projections) -> Self {
        let names: Vec<&str> = projections.iter().map(Projection::name).collect();
        let flags = vec![("batch", batch.to_string()), ("projections", names.join(","))];
        Self::rollcall_under(flags)
    }

    /// The fastest way to the same state; `None` for the floor, which keeps none.
    pub(crate) fn warming(&self) -> Option<Self> {
        match self {
            Self::Floor { .. } | Self::Cursor { .. } => None,
            Self::Rollcall { .. } => Some(self.clone()),
            Self::Bare { .. } | Self::Plain { .. } | Self::Python { .. } => {
                Some(Self::Plain { batch: 100 })
            }
        }
    }

    /// Whether it keeps that state.
    pub(crate) fn keeps(&self, projection: Projection) -> bool {
        match self {
            Self::Floor { .. } | Self::Cursor { .. } => false,
            Self::Bare { .. } | Self::Plain { .. } | Self::Python { .. } => true,
            Self::Rollcall { flags, .. } => {
                let named = flags.iter().find(|(name, _)| *name == "projections");
                named
                    .is_none_or(|(_, names)| names.split(',').any(|name| name == projection.name()))
            }
        }
    }

    /// Brings everything in the streams into the state; returns the cost.
    pub(crate) fn drain(&self, ground: &mut Ground, events: u64) -> Cost {
        let (server_before_s, written_before) = (ground.server_cpu_s(), ground.written_bytes());
        let took = self.run(ground);
        let server_s = ground.server_cpu_s() - server_before_s;
        Cost { events, took, server_s, written_bytes: ground.written_bytes() - written_before }
    }

    fn run(&self, ground: &mut Ground) -> Took {
        match self {
            Self::Floor { batch } => {
                watch(|| Consumer::new(ground.connection(), *batch).acknowledge_all())
            }
            Self::Cursor { batch } => {
                watch(|| Consumer::new(ground.connection(), *batch).move_the_group())
            }
            Self::Plain { batch } => {
                watch(|| Consumer::new(ground.connection(), *batch).write_all())
            }
            Self::Bare { batch } => {
                watch(|| bare::write_all(&mut Consumer::new(ground.connection(), *batch)))
            }
            Self::Python { python, batch } => python.write_all(ground.port(), *batch),
            Self::Rollcall { workers, metrics, flags } => {
                let config = ground.config(flags);
                watch(|| {
                    let fleet = Fleet::start(
                        &config,
                        Roles { workers: *workers, janitor: false, metrics: *metrics },
                    );
                    ground.wait_until_drained(|| fleet.check());
                })
            }
        }
    }
}
