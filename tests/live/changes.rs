//! The tail of the changes: every change once and in order, or the report of a gap.

mod snapshot;

use std::time::Duration;

use redis::Connection;
use rollcall::changes::{Point, Tail, TailError};

use crate::harness::Deployment;
use crate::scene::try_command;

/// How long a read waits for a change.
const BLOCK: Duration = Duration::from_millis(20);

/// A server with changes as the scripts record them.
struct Ground {
    deployment: Deployment,
    conn: Connection,
}

impl Ground {
    fn new() -> Self {
        let deployment = Deployment::start(&[]);
        let conn = deployment.connection();
        Self { deployment, conn }
    }

    fn run(&mut self, words: &[&str]) -> redis::Value {
        try_command(&mut self.conn, words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Records changes up to this number, under ids of the server's.
    fn record_to(&mut self, last: u64) {
        let from: Option<u64> =
            try_command(&mut self.conn, &["GET", "rollcall:changes:seq"]).unwrap();
        for seq in from.unwrap_or(0) + 1..=last {
            self.record(seq, "*");
        }
    }

    fn record(&mut self, seq: u64, id: &str) {
        let number = seq.to_string();
        self.run(&["SET", "rollcall:changes:seq", &number]);
        self.run(&[
            "XADD",
            "rollcall:changes",
            id,
            "seq",
            &number,
            "kind",
            "online",
            "time",
            "1790000000000",
            "user",
            &number,
            "ip",
            "",
        ]);
    }

    fn tail(&self, point: Option<Point>) -> Tail {
        let server = self.deployment.config.redis.server();
        Tail::new(server, &self.deployment.keys(0), 0, point, BLOCK)
    }
}

/// The numbers in the result of a read.
fn read(tail: &mut Tail) -> Result<Vec<u64>, TailError> {
    let changes = block_on_tail(tail)?;
    for change in &changes {
        assert_eq!(change.user.as_deref(), Some(change.seq.to_string().as_str()));
    }
    Ok(changes.iter().map(|change| change.seq).collect())
}

fn block_on_tail(tail: &mut Tail) -> Result<Vec<rollcall::change::Change>, TailError> {
    // A separate runtime for each read would end the connection with it.
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(tail.next()))
}

fn expect_gap(tail: &mut Tail, after: u64) {
    match read(tail) {
        Err(TailError::Gap { after: found }) => assert_eq!(found, after),
        other => panic!("no gap: {other:?}"),
    }
}

#[test]
fn a_tail_brings_each_change_once_and_resumes_where_it_was() {
    let mut ground = Ground::new();
    let mut tail = ground.tail(None);
    assert_eq!(read(&mut tail).unwrap(), [0; 0]);
    assert_eq!(tail.point(), Some(Point::START));
    ground.record_to(3);
    assert_eq!(read(&mut tail).unwrap(), [1, 2, 3]);
    assert_eq!(read(&mut tail).unwrap(), [0; 0]);
    let mut second = ground.tail(tail.point());
    let mut late = ground.tail(None);
    assert_eq!(read(&mut late).unwrap(), [0; 0]);
    ground.record_to(2_500);
    // Read in pieces, with a connection that was lost meanwhile.
    let first = read(&mut tail).unwrap();
    ground.run(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert!(matches!(read(&mut tail), Err(TailError::Server(_))));
    let mut numbers = first;
    while numbers.last() < Some(&2_500) {
        numbers.extend(read(&mut tail).unwrap());
    }
    assert_eq!(numbers, (4..=2_500).collect::<Vec<_>>());
    assert_eq!(read(&mut second).unwrap()[0], 4);
    let _lost = read(&mut late);
    assert_eq!(read(&mut late).unwrap()[0], 4);
}

#[test]
fn what_the_cap_dropped_unread_is_a_gap_and_nothing_else_is() {
    let mut ground = Ground::new();
    let mut tail = ground.tail(None);
    ground.record_to(5);
    assert_eq!(read(&mut tail).unwrap(), [0; 0], "from the newest on");
    let read_up_to = tail.point();
    ground.run(&["XTRIM", "rollcall:changes", "MAXLEN", "0"]);
    assert_eq!(read(&mut ground.tail(read_up_to)).unwrap(), [0; 0]);
    ground.record_to(8);
    assert_eq!(read(&mut ground.tail(read_up_to)).unwrap(), [6, 7, 8]);
    ground.run(&["XTRIM", "rollcall:changes", "MAXLEN", "2"]);
    expect_gap(&mut tail, 5);
    expect_gap(&mut tail, 5);
    expect_gap(&mut ground.tail(read_up_to), 5);
    tail.skip_to_end();
    assert_eq!(read(&mut tail).unwrap(), [0; 0]);
    ground.record_to(9);
    assert_eq!(read(&mut tail).unwrap(), [9]);
}

#[test]
fn a_server_that_went_back_in_time_is_a_gap() {
    // The server where the position was read, and what the server has instead now.
    for (name, kept, later) in [
        ("the same numbers under other ids", 3, &[(4, "9-0"), (5, "10-0"), (6, "11-0")][..]),
        ("the same number under a greater id", 4, &[(5, "20-0"), (6, "21-0")]),
        ("fewer than were read", 3, &[]),
        ("nothing", 0, &[]),
        ("all of it again", 0, &[(1, "1-0"), (2, "2-0"), (3, "3-0"), (4, "4-0"), (5, "6-0")]),
    ] {
        let mut ground = Ground::new();
        for seq in 1..=5 {
            ground.record(seq, &format!("{seq}-0"));
        }
        let mut tail = ground.tail(None);
        assert_eq!(read(&mut tail).unwrap(), [0; 0], "{name}");
        let point = tail.point();
        ground.run(&["FLUSHALL"]);
        for seq in 1..=kept {
            ground.record(seq, &format!("{seq}-0"));
        }
        for (seq, id) in later {
            ground.record(*seq, id);
        }
        expect_gap(&mut ground.tail(point), 5);
        // A connected one notices with its next look, or by the next number.
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while read(&mut tail).is_ok() {
            assert!(std::time::Instant::now() < deadline, "{name}: never noticed");
        }
    }
}

#[test]
fn entries_that_are_no_changes_are_a_gap() {
    let mut ground = Ground::new();
    ground.record_to(1);
    let mut tail = ground.tail(Some(Point::START));
    assert_eq!(read(&mut tail).unwrap(), [1]);
    ground.run(&["XADD", "rollcall:changes", "*", "hello", "there"]);
    expect_gap(&mut tail, 1);
}
