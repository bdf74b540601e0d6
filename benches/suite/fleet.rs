//! Rollcall running in this process: each worker and the janitor in a thread with its own runtime, as if they were
//! processes.

use std::thread::JoinHandle;
use std::time::Duration;

use ::metrics::with_local_recorder;
use rollcall::config::Config;
use rollcall::janitor::Janitor;
use rollcall::projector::{Projector, Worker};
use rollcall::telemetry::health::Health;
use rollcall::telemetry::metrics;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Which roles run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Roles {
    pub(crate) workers: usize,
    pub(crate) janitor: bool,
    /// Whether workers record metrics.
    pub(crate) metrics: bool,
}

/// Ends when dropped, as processes do that are asked to.
pub(crate) struct Fleet {
    threads: Vec<JoinHandle<()>>,
    halt: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
enum Role {
    Worker(String),
    Janitor,
}

impl Fleet {
    pub(crate) fn start(config: &Config, roles: Roles) -> Self {
        let (halt, halted) = watch::channel(false);
        let workers = (0..roles.workers).map(|number| Role::Worker(format!("bench-{number}")));
        let janitor = roles.janitor.then_some(Role::Janitor);
        let threads = workers.chain(janitor).map(|role| {
            let (config, halted) = (config.clone(), halted.clone());
            std::thread::spawn(move || play(&config, &role, roles.metrics, halted))
        });
        Self { threads: threads.collect(), halt }
    }

    /// Fails if a loop has ended; its thread has reported why.
    pub(crate) fn check(&self) {
        let ended = self.threads.iter().any(JoinHandle::is_finished);
        assert!(!ended, "a loop of Rollcall ended by itself");
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.halt.send_replace(true);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a loop of Rollcall failed");
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn play(config: &Config, role: &Role, with_metrics: bool, mut halted: watch::Receiver<bool>) {
    let (stop, stopped) = watch::channel(false);
    let health = Health::default();
    let mut loops = JoinSet::new();
    // A loop keeps the handles of the recorder under which it was made.
    let recorder = metrics::recorder().unwrap();
    if with_metrics {
        tokio::spawn(metrics::keep_up(recorder.handle()));
    }
    for partition in 0..config.deployment.partitions {
        let pulse = health.add(partition.to_string(), Duration::from_secs(60));
        match role {
            Role::Worker(name) => {
                let worker = Worker::new(config, name.clone());
                let make = || Projector::new(config, partition, &worker, pulse, stopped.clone());
                let projector =
                    if with_metrics { with_local_recorder(&recorder, make) } else { make() };
                loops.spawn(projector.run());
            }
            Role::Janitor => {
                let name = "bench-janitor".to_owned();
                let janitor = Janitor::new(config, partition, name, pulse, stopped.clone());
                loops.spawn(janitor.run());
            }
        }
    }
    tokio::select! {
        ended = loops.join_next() => panic!("{role:?} ended: {ended:?}"),
        _ = halted.wait_for(|halt| *halt) => {}
    }
    // After a death, the next round would begin with entries that are tried one by one.
    stop.send_replace(true);
    while let Some(ended) = loops.join_next().await {
        assert!(ended.is_ok(), "{role:?} did not end well: {ended:?}");
    }
}
