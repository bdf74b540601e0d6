//! The server's memory per user, and a worker's own memory.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::Options;
use crate::ground::Ground;
use crate::machine::lines_of;
use crate::report::{Row, Table};
use crate::subject::Subject;
use crate::traffic::{Mix, Traffic};
use crate::way::Way;

pub(crate) fn run(options: &Options) -> Vec<Table> {
    vec![of_users(options), of_entries(options), of_a_worker(options)]
}

fn of_users(options: &Options) -> Table {
    let users = options.users();
    let measure = |name: &str, way: Way| {
        let empty = Ground::start(1).number("used_memory");
        let traffic = Traffic::new(Mix::Documents, users, 1, 1);
        let mut subject = Subject::prepare(name, way, traffic, 0);
        subject.check_sizes();
        let ground = &mut subject.ground;
        ground.ask::<()>(redis::cmd("DEL").arg("rollcall:events"));
        let with_changes = ground.number("used_memory") - empty;
        ground.ask::<()>(redis::cmd("DEL").arg("rollcall:changes"));
        let state = ground.number("used_memory") - empty;
        let each = |bytes: f64| (bytes / f64::from(users)).into();
        Row { name: name.to_owned(), cells: vec![each(state), each(with_changes)] }
    };
    Table {
        title: "The server's memory per online user".to_owned(),
        note: format!(
            "Bytes of `used_memory`; {users} users, each with activity, presence, a token with a viewed item, a \
             session with data, and a place in a document. The stream of events is not included. The stream of \
             changes has its own cap (100,000), whatever the number of users."
        ),
        columns: vec!["state", "with changes"],
        rows: vec![
            measure("Rollcall", Way::rollcall(options.batch)),
            measure(
                "the same plain structures, no bookkeeping",
                Way::Plain { batch: options.batch },
            ),
        ],
    }
}

fn of_entries(options: &Options) -> Table {
    let events = options.size(200_000, 20_000);
    let measure = |pack: usize| {
        let mut ground = Ground::start(1);
        let entries = Traffic::new(Mix::Standard, options.users(), 1, pack).batch(events).entries;
        let before = ground.number("used_memory");
        ground.add(&entries);
        (ground.number("used_memory") - before) / events as f64
    };
    let row =
        |name: &str, pack: usize| Row { name: name.to_owned(), cells: vec![measure(pack).into()] };
    Table {
        title: "The server's memory per event in the stream".to_owned(),
        note: "Standard mix, before a group reads it. Finished entries stay for `--keep`."
            .to_owned(),
        columns: vec!["bytes"],
        rows: vec![row("flat", 1), row("packed by 50", 50)],
    }
}

fn of_a_worker(options: &Options) -> Table {
    let entries: u64 = options.size(1_000_000, 50_000);
    let traffic = || Traffic::new(Mix::Standard, options.users(), 1, 1);
    let mut subject = Subject::prepare("worker", Way::rollcall(options.batch), traffic(), 0);
    let ground = &mut subject.ground;
    let mut source = traffic();
    for _ in 0..entries / 50_000 {
        ground.add(&source.batch(50_000).entries);
    }
    let started = Instant::now();
    let mut worker = Worker::start(ground, options.batch);
    ground.wait_until_drained(|| worker.check());
    let took_s = started.elapsed().as_secs_f64();
    let (now, peak) = (worker.status_mib("VmRSS"), worker.status_mib("VmHWM"));
    worker.end();
    let cells = match (now, peak) {
        (Some(now), Some(peak)) => vec![now.into(), peak.into(), took_s.into()],
        _ => Row::not_run("", "no /proc here", 3).cells,
    };
    Table {
        title: "A worker's own memory".to_owned(),
        note: "The installed program (`rollcall worker`) in a process of its own.".to_owned(),
        columns: vec!["resident at the end, MiB", "peak, MiB", "seconds"],
        rows: vec![Row { name: format!("a backlog of {entries} entries"), cells }],
    }
}

/// `rollcall worker` as a process; killed if it is not ended.
struct Worker(Child);

impl Worker {
    fn start(ground: &Ground, batch: u32) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
        command.args(["worker", "--redis-url", &ground.url(), "--http", "off"]);
        command.args(["--batch", &batch.to_string(), "--log", "error"]);
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn check(&mut self) {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none(), "the worker ended by itself: {ended:?}");
    }

    fn status_mib(&self, name: &str) -> Option<f64> {
        let status = lines_of(&format!("/proc/{}/status", self.0.id()), name).pop()?;
        Some(status.strip_suffix(" kB")?.parse::<f64>().unwrap() / 1024.0)
    }

    /// Stops it with SIGTERM, and checks that it ends cleanly.
    fn end(mut self) {
        let killed = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(killed.success());
        let status = self.0.wait().unwrap();
        assert!(status.success(), "the worker ended with {status}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // This fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
