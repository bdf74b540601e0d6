//! The same with workers and janitors: their metric and their log report it.

use std::time::Duration;

use rollcall::private_server::Options;

use crate::harness::wait_until;
use crate::process::Worker;
use crate::roles::Pages;
use crate::scene::{SOON, Scene, Traffic};

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

/// Several janitors of one deployment, and what they counted together.
struct Janitors(Vec<Worker>);

impl Janitors {
    fn start(scene: &Scene, count: usize) -> Self {
        Self((0..count).map(|_| scene.janitor(&HTTP)).collect())
    }

    fn lost(&self, cause: &str) -> u64 {
        let series = format!("rollcall_entries_lost_total{{cause=\"{cause}\"}}");
        let of = |janitor| Pages::of(janitor).metric(&series).unwrap() as u64;
        self.0.iter().map(of).sum()
    }

    fn all_lost(&self) -> [u64; 2] {
        ["deleted", "rewound"].map(|cause| self.lost(cause))
    }

    fn wait_lost(&self, what: &str, lost: [u64; 2]) {
        wait_until(SOON, &format!("{what}: {lost:?} are lost"), || self.all_lost() == lost);
    }

    fn logs(&self) -> String {
        self.0.iter().map(Worker::log).collect()
    }

    /// Waits until every janitor has had two turns, the second of which began after this call.
    fn wait_seen(&self) {
        for janitor in &self.0 {
            for _ in 0..2 {
                let before = last_turn(janitor);
                wait_until(SOON, "a round is done", || last_turn(janitor) != before);
            }
        }
    }
}

/// When a janitor last finished a round; `None` if it never did.
fn last_turn(janitor: &Worker) -> Option<f64> {
    Pages::of(janitor).metric(r#"rollcall_sweep_last_success_timestamp_seconds{partition="0"}"#)
}

fn command(scene: &Scene, words: &str) {
    let words: Vec<_> = words.split(' ').collect();
    scene.command::<redis::Value>(&words);
}

#[test]
fn each_loss_is_counted_once_by_its_cause_and_logged() {
    let scene = Scene::start(&[]);
    let stream = scene.deployment.stream(0);
    let worker = scene.worker(&[]);
    let janitors = Janitors::start(&scene, 2);
    scene.add_random(1, 50);
    scene.wait_finished(SOON, "finishes");
    scene.drain(worker);
    janitors.wait_seen();
    janitors.wait_lost("nothing yet", [0, 0]);

    scene.add_random_later(2, 20);
    command(&scene, &format!("XTRIM {stream} MAXLEN 15"));
    janitors.wait_lost("trimmed before they were applied", [5, 0]);
    let _worker = scene.worker(&[]);
    scene.wait_finished(SOON, "finishes");
    scene.add_random_later(4, 50);
    scene.wait_finished(SOON, "finishes");
    janitors.wait_seen();
    janitors.wait_lost("the rest is fine", [5, 0]);
    let logs = janitors.logs();
    let lines: Vec<_> = logs.lines().filter(|l| l.contains("cause=\"deleted\" count=5 ")).collect();
    assert_eq!(lines.len(), 1, "{logs}");
    for part in ["WARN", "entries were lost", "partition=0", "since=\"", "until="] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
}

#[test]
fn a_rewind_is_counted_once_by_janitors_that_saw_more() {
    let mut scene = Scene::start_with(&[], Options::default());
    let _worker = scene.worker(&[]);
    let janitors = Janitors::start(&scene, 2);
    scene.add_random(1, 50);
    scene.wait_finished(SOON, "finishes");
    janitors.wait_seen();
    command(&scene, "SAVE");
    scene.add_random_later(2, 30);
    scene.wait_finished(SOON, "finishes");
    janitors.wait_seen();
    scene.deployment.server.restart().unwrap();
    scene.add_random_later(3, 100);
    scene.wait_finished(SOON, "finishes");
    janitors.wait_lost("rewound", [0, 30]);
    janitors.wait_seen();
    janitors.wait_lost("once", [0, 30]);
    assert!(janitors.logs().contains("cause=\"rewound\" count=30 "), "{}", janitors.logs());
    scene.verify("a rewind");
}

/// Traffic, workers and janitors that come and go, another group that lags, immediate trimming: no loss.
#[test]
fn nothing_is_lost_where_all_goes_well() {
    let scene = Scene::start(&[]);
    let mut workers = [scene.worker(&[]), scene.worker(&[])];
    let mut janitors =
        Janitors((0..2).map(|_| scene.janitor(&["--keep", "0s", HTTP[0], HTTP[1]])).collect());
    let traffic = Traffic::start(&scene, 7, 300);
    for round in 0..6 {
        std::thread::sleep(Duration::from_millis(300));
        if round % 2 == 0 {
            workers[0].kill();
            workers[0] = scene.worker(&[]);
            assert_eq!(janitors.all_lost(), [0, 0]);
            janitors.0[0].kill();
            janitors.0[0] = scene.janitor(&["--keep", "0s", HTTP[0], HTTP[1]]);
        } else {
            let stream = scene.deployment.stream(0);
            command(&scene, &format!("XGROUP CREATE {stream} other{round} 0"));
        }
    }
    let added = traffic.stop();
    assert!(!added.is_empty());
    scene.wait_finished(SOON, "finishes");
    janitors.wait_seen();
    assert_eq!(janitors.all_lost(), [0, 0], "{}", janitors.logs());
    assert!(!janitors.logs().contains("were lost"), "{}", janitors.logs());
}
