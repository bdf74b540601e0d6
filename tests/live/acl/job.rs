//! The whole job of a worker and of a janitor under their own users, taking every branch.

use std::collections::BTreeSet;

use redis::Connection;
use rollcall::key::Keys;
use rollcall::op::Sweep;
use rollcall::projection::sweeps;

use super::{Guarded, SOON, commands};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::roles::Pages;
use crate::support::dump;

/// Ids and fields of the entries of one stream.
type Delivered = Vec<(String, Vec<String>)>;

/// If functions are unavailable, as `trouble::functions` tries.
const BY_DIGEST: [&str; 2] = ["evalsha", "script|load"];

/// How long ago the events of the job happened.
const AGE_MS: u64 = 100_000;

/// Entries that lead a worker through every branch: `(fields)`, in the order of their ids.
pub fn job() -> Vec<Vec<(String, Vec<u8>)>> {
    let flat = |text: &str| -> Vec<(String, Vec<u8>)> {
        let words: Vec<_> = text.split(' ').collect();
        words.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].into())).collect()
    };
    let data = |json: &str| vec![("data".to_owned(), json.as_bytes().to_vec())];
    let session = serde_json::json!({"type": "session", "sid": "s3", "data": {"a": 1}});
    let packed = r#"[{"type":"view","user":"al","token":"t1","item":"i1"},
        {"type":"view","user":"al","token":"t1","item":"i2"},{"type":"view","user":"al"}]"#;
    let mut entries = vec![
        flat("type heartbeat user al ip 1 ua x page / token t1 sid s1 doc d1 connection c1"),
        flat("type login user bo ip 2 token t2 sid s2"),
        flat("type login user cy token t3"),
        flat("type login user di token t4"),
        flat("type view user al token t1 item i1"),
        data(packed),
        flat("type session sid s1 user al data {}"),
        vec![
            ("datacontenttype".to_owned(), b"application/msgpack".to_vec()),
            ("data".to_owned(), rmp_serde::to_vec(&session).unwrap()),
        ],
        data(r#"{"specversion":"1.0","type":"session","data":{"sid":"s4","data":{}}}"#),
        flat("type document doc d1 user bo action join"),
        flat("type document doc d2 user bo action join"),
        flat("type document doc d3 user bo action leave"),
        flat("type document doc d4 user bo action join"),
        flat("type nonsense user al"),
        (0..5_000).map(|n| (format!("f{n}"), b"v".to_vec())).collect(),
        flat("type logout user bo ip 2 token t2 sid s2"),
        flat("type logout user al ip 1 token t1 sid s1"),
        flat("type heartbeat user al ip 1"),
        flat("type heartbeat user al ip 1 token t1 sid s1"),
        flat("type session sid s5 data {}"),
        flat("type session sid s5 action terminate"),
        flat("type session sid s6 ttl 1"),
        flat("type logout user al"),
    ];
    entries.extend((0..20).map(|n| flat(&format!("type heartbeat user crowd ip {n}"))));
    entries.extend((0..250).map(|n| flat(&format!("type heartbeat user u{n} sid u{n}"))));
    // In a later batch than the join, or the two would become one leave.
    entries.push(flat("type document doc d2 user bo action leave"));
    entries
}

/// A worker's life: it creates the group, applies, hands over. Then one dies, and another stands by, takes over and
/// tries the next entries alone while a stranger interferes. At the end ids are set back.
fn work(guarded: &Guarded) -> Vec<String> {
    let (stream, mut admin) = (guarded.key("rollcall:events"), guarded.admin());
    let start_ms = dump::server_now(&mut admin) - AGE_MS;
    let mut producer = guarded.as_user("producer");
    let jobs = job();
    for (seq, fields) in (1..).zip(&jobs) {
        let mut add = redis::cmd("XADD");
        add.arg(&stream).arg(format!("{start_ms}-{seq}"));
        fields.iter().for_each(|(name, value)| {
            add.arg(name).arg(value.as_slice());
        });
        add.exec(&mut producer).unwrap();
    }
    guarded.called();
    let args = ["--batch", "20", "--takeover", "10s", "--thresholds", "1:0"];
    let mut worker = guarded.process("worker", &args);
    let count = |worker: &Worker, name: &str| Pages::of(worker).metric(name).unwrap_or_default();
    let applied = |worker: &Worker| count(worker, "rollcall_entries_applied_total") as usize;
    wait_until(SOON, "all is applied", || applied(&worker) == jobs.len());
    assert_eq!(worker.terminate(), 0, "{}", worker.log());
    let mut logs = vec![worker.log()];
    let mut doomed = guarded.process("worker", &args);
    wait_until(SOON, "it owns the partition", || doomed.log().contains("took the partition"));
    let mut worker = guarded.process("worker", &args);
    let standby = r#"rollcall_partition_standby{partition="0"}"#;
    wait_until(SOON, "another one stands by", || count(&worker, standby) == 1.0);
    doomed.signal("STOP");
    let heartbeat = ["*", "type", "heartbeat", "user", "al"];
    for _ in 0..3 {
        redis::cmd("XADD").arg(&stream).arg(&heartbeat).exec(&mut producer).unwrap();
    }
    assert_eq!(read(&mut admin, &stream, "rollcall", 2).len(), 2, "a stranger");
    doomed.kill();
    logs.push(doomed.log());
    wait_until(SOON, "what the dead one left is applied", || applied(&worker) == 3);
    assert_eq!(count(&worker, "rollcall_entries_tried_alone_total"), 3.0);
    // One half of the joined connections is removed, then the other; the janitor handles what is left.
    let time = start_ms.to_string();
    for (done, gone) in [(4, "rollcall:docs:connections"), (5, "rollcall:docs:joined"), (6, "")] {
        if !gone.is_empty() {
            redis::cmd("DEL").arg(guarded.key(gone)).exec(&mut admin).unwrap();
        }
        let join = ["*", "type", "document", "action", "join", "doc", "d1", "user", "bo"];
        redis::cmd("XADD")
            .arg(&stream)
            .arg(&join)
            .arg("time")
            .arg(&time)
            .exec(&mut producer)
            .unwrap();
        wait_until(SOON, "it is applied", || applied(&worker) == done);
    }
    let far = "1900000000000000-0";
    redis::cmd("XADD").arg(&stream).arg(far).arg(&heartbeat[1..]).exec(&mut producer).unwrap();
    wait_until(SOON, "the far one is applied", || applied(&worker) == 7);
    let now = format!("{}-0", dump::server_now(&mut admin));
    redis::cmd("XDEL").arg(&stream).arg(far).exec(&mut admin).unwrap();
    redis::cmd("XSETID").arg(&stream).arg(now).exec(&mut admin).unwrap();
    redis::cmd("XADD").arg(&stream).arg(&heartbeat).exec(&mut producer).unwrap();
    wait_until(SOON, "what comes next is applied", || applied(&worker) == 8);
    assert_eq!(worker.terminate(), 0, "{}", worker.log());
    logs.push(worker.log());
    logs
}

fn read(conn: &mut Connection, stream: &str, group: &str, count: usize) -> Vec<String> {
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg(group).arg("c").arg("COUNT").arg(count).arg("STREAMS").arg(stream);
    let reply: Vec<(String, Delivered)> = read.arg(">").query(conn).unwrap();
    reply.into_iter().flat_map(|(_, entries)| entries).map(|(id, _)| id).collect()
}

/// Presence entries without an index, as an earlier version leaves them, and the other way round.
fn unindex(guarded: &Guarded, admin: &mut Connection) {
    let now = dump::server_now(admin);
    let mut add = redis::cmd("HSET");
    add.arg(guarded.key("presence:users"));
    for ip in 100..120 {
        add.arg(format!("crowd|{ip}"));
        add.arg(format!(r#"{{"lastSeen":{now},"user":"crowd","ip":"{ip}","ua":"","page":""}}"#));
    }
    add.exec(admin).unwrap();
    let addresses = guarded.key("rollcall:presence:addresses");
    redis::cmd("HSET").arg(addresses).arg(&["ghost", "1"]).exec(admin).unwrap();
    let crowds = guarded.key("rollcall:presence:crowds");
    redis::cmd("ZADD").arg(crowds).arg(&["0", "ghost|1"]).exec(admin).unwrap();
}

/// A janitor's life: every structure has something to remove, and the server loses its latest data.
fn sweep(guarded: &Guarded) -> String {
    let mut admin = guarded.admin();
    let meta = guarded.key("rollcall:meta");
    let changed = ["presence-ttl", "session-ttl", "document-ttl", "recent-cap", "ranking-cap"];
    redis::cmd("HDEL").arg(&meta).arg(&changed).exec(&mut admin).unwrap();
    redis::cmd("DEL").arg(guarded.key("session:s3")).exec(&mut admin).unwrap();
    let now = dump::server_now(&mut admin).to_string();
    let joined = guarded.key("rollcall:docs:joined");
    redis::cmd("ZADD").arg(joined).arg(now).arg("d9|bo|").exec(&mut admin).unwrap();
    let connections = guarded.key("rollcall:docs:connections");
    redis::cmd("HSET").arg(connections).arg("d9|bo").arg(1).exec(&mut admin).unwrap();
    unindex(guarded, &mut admin);
    let stream = guarded.key("rollcall:events");
    let create = ["CREATE", &stream, "reports", "$"];
    redis::cmd("XGROUP").arg(&create).exec(&mut admin).unwrap();
    for _ in 0..2 {
        let add = ["*", "type", "heartbeat", "user", "al"];
        redis::cmd("XADD").arg(&stream).arg(&add).exec(&mut admin).unwrap();
    }
    assert_eq!(read(&mut admin, &stream, "reports", 1).len(), 1, "another group lags");
    redis::cmd("FUNCTION").arg("FLUSH").exec(&mut admin).unwrap();
    let library = "#!lua name=rollcall_apply_before\nredis.register_function('rollcall_apply_before', function() end)";
    redis::cmd("FUNCTION").arg(&["LOAD", library]).exec(&mut admin).unwrap();
    redis::cmd("SAVE").exec(&mut admin).unwrap();
    let add = ["*", "type", "heartbeat", "user", "al"];
    redis::cmd("XADD").arg(&stream).arg(&add).exec(&mut admin).unwrap();
    guarded.called();
    let ttls = ["--presence-ttl", "50s", "--session-ttl", "50s", "--document-ttl", "50s"];
    let caps = ["--recent-cap", "1", "--ranking-cap", "1", "--thresholds", "1:0"];
    let rest = ["--horizon", "60s", "--keep", "60s", "--janitor-interval", "100ms"];
    let mut janitor = guarded.process("janitor", &[&ttls[..], &caps, &rest].concat());
    let pages = Pages::of(&janitor);
    let taking = sweeps().filter(Sweep::takes).map(|sweep| sweep.name);
    for what in taking.chain(["stream"]) {
        let series = format!("rollcall_sweep_removed_total{{sweep=\"{what}\"}}");
        wait_until(SOON, what, || pages.metric(&series) >= Some(1.0));
    }
    let users = guarded.key("sessions:doc:d9:users");
    wait_until(SOON, "a document's user is put back", || {
        redis::cmd("EXISTS").arg(&users).query(&mut admin).unwrap()
    });
    redis::cmd("DEBUG").arg(&["RELOAD", "NOSAVE"]).exec(&mut admin).unwrap();
    let rewound = r#"rollcall_entries_lost_total{cause="rewound"}"#;
    wait_until(SOON, "the rewind is told", || pages.metric(rewound) == Some(1.0));
    assert_eq!(janitor.terminate(), 0, "{}", janitor.log());
    janitor.log()
}

fn full_job(prefix: &str) {
    let guarded = Guarded::start(prefix);
    let mut logs = work(&guarded);
    let called = guarded.called();
    let idle: Vec<_> = commands("worker").difference(&called).cloned().collect();
    assert_eq!(idle, BY_DIGEST, "a worker is allowed what it never does");
    let keys = Keys::new(prefix, 1, 0);
    let letters = dump::dead_letters(&mut guarded.admin(), &keys);
    let reasons: BTreeSet<_> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, BTreeSet::from(["missing_field", "too_large", "unknown_type"]));
    logs.push(sweep(&guarded));
    let called = guarded.called();
    let idle: Vec<_> = commands("janitor").difference(&called).cloned().collect();
    assert_eq!(idle, BY_DIGEST, "a janitor is allowed what it never does");
    guarded.nothing_was_refused(&logs);
}

#[test]
fn worker_and_janitor_do_all_of_their_job_with_just_these_rights() {
    full_job("");
}

#[test]
fn with_a_prefix_every_pattern_begins_with_it() {
    full_job("acme:");
}
