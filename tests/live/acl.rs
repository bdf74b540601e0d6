//! The least-privilege users of `deploy/acl/`: each can do its job, all of it, and nothing else.
//!
//! A line that allows too little shows as NOPERM; one that allows too much as a command that nobody
//! called while every path of the role was taken.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use redis::Connection;
use rollcall::config::{Config, Gathered};
use rollcall::entry::Entry;
use rollcall::key::Keys;
use rollcall::projection::sweeps;
use rollcall::redis::apply::Applier;
use rollcall::redis::connect::connect;
use rollcall::redis::dead_letter::write_giant;
use rollcall::redis::private_server::{Options, PrivateServer};
use tempfile::TempDir;

use crate::convergence::is_finished;
use crate::harness::{id, wait_until};
use crate::process::Worker;
use crate::roles::Pages;
use crate::support::dump;
use crate::support::events::field;

const SOON: Duration = Duration::from_secs(15);
const ROLES: [&str; 5] = ["producer", "worker", "janitor", "run", "reader"];
const PASSWORD: &str = "pw";
/// How long ago the events of the job happened.
const AGE_MS: u64 = 100_000;

/// The ACL line of a role, as it stands in its file.
fn line(role: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/acl");
    std::fs::read_to_string(folder.join(format!("{role}.acl"))).unwrap()
}

/// The commands that a line allows.
fn commands(role: &str) -> BTreeSet<String> {
    line(role).split_whitespace().filter_map(|rule| rule.strip_prefix('+')).map(str::to_owned).collect()
}

/// The key patterns that a line allows.
fn patterns(role: &str) -> BTreeSet<String> {
    line(role).split_whitespace().filter(|rule| rule.contains('~')).map(str::to_owned).collect()
}

/// A server with these users, loaded from an ACL file, and keys behind a prefix.
pub struct Guarded {
    pub server: PrivateServer,
    prefix: String,
    _folder: TempDir,
}

impl Guarded {
    pub fn start(prefix: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut text = "user default on nopass ~* &* +@all\n".to_owned();
        for role in ROLES {
            let line = line(role).replace(">change-me", &format!(">{PASSWORD}"));
            // README: behind a prefix, every pattern begins with it.
            write!(text, "{}", line.replace('~', &format!("~{prefix}"))).unwrap();
        }
        let path = folder.path().join("users.acl");
        std::fs::write(&path, text).unwrap();
        let extra_args = vec!["--aclfile".to_owned(), path.display().to_string()];
        let server = PrivateServer::start(Options { extra_args, ..Options::default() }).unwrap();
        Self { server, prefix: prefix.to_owned(), _folder: folder }
    }

    pub fn url(&self, role: &str) -> String {
        format!("redis://rollcall-{role}:{PASSWORD}@127.0.0.1:{}", self.server.port())
    }

    pub fn admin(&self) -> Connection {
        dump::connect(&self.server.url())
    }

    pub fn as_user(&self, role: &str) -> Connection {
        dump::connect(&self.url(role))
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn process(&self, role: &str, args: &[&str]) -> Worker {
        let common = ["--prefix", &self.prefix, "--http", "127.0.0.1:0"];
        let common = if self.prefix.is_empty() { &common[2..] } else { &common[..] };
        Worker::start_as(role, &self.url(role), &[common, args].concat(), &[])
    }

    /// Fails if the server ever refused anybody anything, or a log says so.
    fn nothing_was_refused(&self, logs: &[String]) {
        for log in logs {
            assert!(!log.contains("NOPERM") && !log.contains("ermission"), "{log}");
            assert!(!log.contains("not projecting") && !log.contains("not sweeping"), "{log}");
        }
        let refused: Vec<std::collections::HashMap<String, redis::Value>> =
            redis::cmd("ACL").arg("LOG").query(&mut self.admin()).unwrap();
        let object = |row: &std::collections::HashMap<String, redis::Value>| {
            redis::from_redis_value::<String>(row["object"].clone()).unwrap()
        };
        // From 7.2 on clients tell their name; that they may not is no loss.
        let refused: Vec<_> =
            refused.iter().map(object).filter(|object| object != "client|setinfo").collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    /// The commands called since the last call, by scripts too.
    fn called(&self) -> BTreeSet<String> {
        let mut admin = self.admin();
        let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut admin).unwrap();
        redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut admin).unwrap();
        let name = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            (!rest.starts_with("0,")).then(|| name.to_owned())
        };
        stats.lines().filter_map(name).collect()
    }
}

/// Entries that lead a worker through every branch: `(fields)`, in order of their ids.
fn job() -> Vec<Vec<(String, Vec<u8>)>> {
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
    ];
    entries.extend((0..250).map(|n| flat(&format!("type heartbeat user u{n} sid u{n}"))));
    // In a later batch than the join, or the two would be one leave.
    entries.push(flat("type document doc d2 user bo action leave"));
    entries
}

/// A worker's life: creates the group, applies, claims from a dead consumer, tries an entry alone.
fn work(guarded: &Guarded) -> Vec<String> {
    let (stream, mut admin) = (guarded.key("rollcall:events"), guarded.admin());
    // As after a destroyed group: then the worker asks where the stream ends.
    redis::cmd("HSET").arg(guarded.key("rollcall:janitor")).arg("finished:rollcall").arg("0-1").exec(&mut admin).unwrap();
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
    let args = ["--batch", "20", "--max-deliveries", "2", "--claim-idle", "1s", "--thresholds", "1:0"];
    let mut worker = guarded.process("worker", &args);
    let acknowledged = |worker: &Worker| {
        Pages::of(worker).metric("rollcall_entries_acknowledged_total").unwrap_or_default() as usize
    };
    wait_until(SOON, "all is applied", || acknowledged(&worker) == jobs.len() - 1);
    assert_eq!(worker.terminate(), 0, "{}", worker.log());
    let mut logs = vec![worker.log()];
    let heartbeat = ["*", "type", "heartbeat", "user", "al"];
    for _ in 0..3 {
        redis::cmd("XADD").arg(&stream).arg(&heartbeat).exec(&mut producer).unwrap();
    }
    let ids = read(&mut admin, &stream, "ghost", 3);
    let mut stall = redis::cmd("XCLAIM");
    stall.arg(&stream).arg("rollcall").arg("ghost").arg(0).arg(&ids);
    stall.arg(&["IDLE", "600000", "RETRYCOUNT", "10"]).exec(&mut admin).unwrap();
    let mut worker = guarded.process("worker", &args);
    wait_until(SOON, "the ghost's entries are applied", || acknowledged(&worker) == 3);
    let tried = Pages::of(&worker).metric("rollcall_entries_tried_alone_total");
    assert_eq!(tried, Some(3.0));
    assert_eq!(worker.terminate(), 0, "{}", worker.log());
    logs.push(worker.log());
    logs
}

fn read(conn: &mut Connection, stream: &str, consumer: &str, count: usize) -> Vec<String> {
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg("rollcall").arg(consumer).arg("COUNT").arg(count).arg("STREAMS").arg(stream).arg(">");
    let reply: Vec<(String, Vec<(String, Vec<String>)>)> = read.query(conn).unwrap();
    reply.into_iter().flat_map(|(_, entries)| entries).map(|(id, _)| id).collect()
}

/// Takes back a dead letter with very many fields whose entry is no longer pending: a race, so by hand.
async fn take_back(guarded: &Guarded) {
    let url = guarded.url("worker");
    let flags = [("redis-url", url.as_str()), ("prefix", &guarded.prefix)];
    let flags = flags.iter().filter(|(_, value)| !value.is_empty()).copied();
    let config = Config::resolve(&Gathered::from_flags(flags).unwrap()).unwrap();
    let keys = Keys::new(&config.deployment.prefix, 1, 0);
    let server = config.redis.connection_info();
    let mut conn = connect(&server, &keys.meta(), SOON).await.unwrap();
    let epoch = redis::cmd("HGET").arg(keys.meta()).arg("epoch").query_async(&mut conn).await.unwrap();
    let applier = Applier::new(&config.deployment, &keys, epoch);
    let entry = Entry { id: id(1, 1), fields: vec![field("a", "b"); 4_000] };
    assert!(!write_giant(&mut conn, &applier, &entry).await.unwrap(), "it was not pending");
}

/// A janitor's life: every structure has something to take.
fn sweep(guarded: &Guarded) -> String {
    let mut admin = guarded.admin();
    let meta = guarded.key("rollcall:meta");
    let changed = ["presence-ttl", "session-ttl", "document-ttl", "recent-cap", "ranking-cap"];
    redis::cmd("HDEL").arg(&meta).arg(&changed).exec(&mut admin).unwrap();
    redis::cmd("DEL").arg(guarded.key("session:s3")).exec(&mut admin).unwrap();
    redis::cmd("ZADD").arg(guarded.key("rollcall:consumers")).arg(1).arg("ghost").exec(&mut admin).unwrap();
    let stream = guarded.key("rollcall:events");
    for _ in 0..2 {
        let add = ["*", "type", "heartbeat", "user", "al"];
        redis::cmd("XADD").arg(&stream).arg(&add).exec(&mut admin).unwrap();
    }
    redis::cmd("XGROUP").arg("CREATE").arg(&stream).arg(&["reports", "$"]).exec(&mut admin).unwrap();
    let ids = read(&mut admin, &stream, "stalled", 2);
    redis::cmd("XACK").arg(&stream).arg("rollcall").arg(&ids[1]).exec(&mut admin).unwrap();
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut admin).unwrap();
    guarded.called();
    let ttls = ["--presence-ttl", "50s", "--session-ttl", "50s", "--document-ttl", "50s"];
    let caps = ["--recent-cap", "1", "--ranking-cap", "1", "--thresholds", "1:0"];
    let rest = ["--horizon", "60s", "--keep", "60s", "--janitor-interval", "100ms"];
    let mut janitor = guarded.process("janitor", &[&ttls[..], &caps, &rest].concat());
    let pages = Pages::of(&janitor);
    for what in sweeps().map(|sweep| sweep.name).chain(["stream", "consumers"]) {
        let series = format!("rollcall_sweep_removed_total{{structure=\"{what}\"}}");
        wait_until(SOON, what, || pages.metric(&series) >= Some(1.0));
    }
    assert_eq!(janitor.terminate(), 0, "{}", janitor.log());
    janitor.log()
}

async fn full_job(prefix: &str) {
    let guarded = Guarded::start(prefix);
    let mut logs = work(&guarded);
    take_back(&guarded).await;
    let called = guarded.called();
    let idle: Vec<_> = commands("worker").difference(&called).cloned().collect();
    assert!(idle.is_empty(), "a worker is allowed what it never does: {idle:?}");
    let keys = Keys::new(prefix, 1, 0);
    let letters = dump::dead_letters(&mut guarded.admin(), &keys);
    let reasons: BTreeSet<_> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, BTreeSet::from(["missing_field", "too_many_fields", "unknown_type"]));
    logs.push(sweep(&guarded));
    let called = guarded.called();
    let idle: Vec<_> = commands("janitor").difference(&called).cloned().collect();
    assert!(idle.is_empty(), "a janitor is allowed what it never does: {idle:?}");
    guarded.nothing_was_refused(&logs);
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_and_janitor_do_all_of_their_job_with_just_these_rights() {
    full_job("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_prefix_every_pattern_begins_with_it() {
    full_job("acme:").await;
}

#[test]
fn run_may_do_what_worker_and_janitor_may() {
    let both: BTreeSet<_> = commands("worker").union(&commands("janitor")).cloned().collect();
    assert_eq!(commands("run"), both);
    assert_eq!(patterns("run"), patterns("worker"), "a worker's keys include a janitor's");
    let guarded = Guarded::start("");
    let mut process = guarded.process("run", &["--janitor-interval", "100ms"]);
    let mut producer = guarded.as_user("producer");
    for n in 0..20 {
        let add = ["rollcall:events", "*", "type", "login", "user", "u", "token", &format!("t{n}")];
        redis::cmd("XADD").arg(&add).exec(&mut producer).unwrap();
    }
    let pages = Pages::of(&process);
    wait_until(SOON, "applied", || {
        pages.metric("rollcall_entries_acknowledged_total") == Some(20.0)
    });
    wait_until(SOON, "swept", || {
        pages.metric("rollcall_sweep_last_success_timestamp_seconds").is_some()
    });
    assert_eq!(process.terminate(), 0, "{}", process.log());
    guarded.nothing_was_refused(&[process.log()]);
}

/// Sends a command; whether the server says that this user may not.
fn is_denied(conn: &mut Connection, command: &str) -> bool {
    let words: Vec<_> = command.split(' ').collect();
    let reply: redis::RedisResult<redis::Value> = redis::cmd(words[0]).arg(&words[1..]).query(conn);
    reply.is_err_and(|error| error.code() == Some("NOPERM"))
}

#[test]
fn nobody_may_do_what_is_not_theirs() {
    let guarded = Guarded::start("");
    let mut admin = guarded.admin();
    let group = ["CREATE", "rollcall:events", "rollcall", "0", "MKSTREAM"];
    redis::cmd("XGROUP").arg(&group).exec(&mut admin).unwrap();
    let everybody = "FLUSHALL|FLUSHDB|CONFIG GET *|CONFIG SET maxmemory 1|SHUTDOWN|KEYS *|SCAN 0|\
        ACL LIST|ACL WHOAMI|MONITOR|EVAL return(1) 0|SCRIPT FLUSH|FUNCTION LIST|CLIENT LIST|SAVE|SWAPDB 0 1|\
        REPLICAOF no one|GET other|SET other 1|XADD other * a b|HGETALL other:presence:users|\
        XGROUP DESTROY rollcall:events rollcall|XSETID rollcall:events 0-1|PUBLISH a b|SUBSCRIBE a|\
        MIGRATE 127.0.0.1 1 login: 0 1|RESTORE login: 0 x|DUMP login:|SORT login:|RENAME login: x|OBJECT FREQ login:";
    let state = "GET user-activity/al|HGETALL presence:users|HGET login: t|SMEMBERS online-users/1|\
        ZRANGE recent: 0 -1|GET session:s|XRANGE rollcall:events - +|XLEN rollcall:events|\
        XRANGE rollcall:dead - +|XREAD STREAMS rollcall:events 0|XINFO STREAM rollcall:events";
    let destruction = "DEL rollcall:events|UNLINK rollcall:events|XTRIM rollcall:events MAXLEN 0|\
        XDEL rollcall:events 1-1|XGROUP CREATE rollcall:events x 0|XACK rollcall:events rollcall 1-1|\
        XREADGROUP GROUP rollcall c STREAMS rollcall:events >|EVALSHA 0 0|EXPIRE rollcall:events 1|\
        XADD rollcall:dead * a b|XADD rollcall:changes * a b|HSET rollcall:meta epoch 1|\
        SET session:s 1|HSET login: t u|ZADD recent: 1 t|SADD online-users/1 u|HDEL presence:users x";
    for (role, denied) in [
        ("producer", vec![everybody, state, destruction]),
        ("reader", vec![everybody, destruction, "XADD rollcall:events * a b"]),
        ("worker", vec![everybody, "HGETALL presence:users|SMEMBERS online-users/1|HKEYS login:|EXPIRE login: 1"]),
        (
            "janitor",
            vec![
                everybody,
                "HGETALL presence:users|SADD online-users/1 u|SET online-users/1 u|DEL online-users/1|\
                 GET user-activity/al|SET user-activity/al 1|DEL user-activity/al|SET session:s x|DEL session:s|\
                 XREADGROUP GROUP rollcall c STREAMS rollcall:events >|XACK rollcall:events rollcall 1-1|\
                 XGROUP CREATE rollcall:events x 0|HMGET login: t|MULTI",
            ],
        ),
        ("run", vec![everybody, "HGETALL presence:users|EXPIRE login: 1"]),
    ] {
        let mut conn = guarded.as_user(role);
        let commands = denied.iter().flat_map(|group| group.split('|')).map(str::trim);
        let allowed: Vec<_> = commands.filter(|command| !is_denied(&mut conn, command)).collect();
        assert!(allowed.is_empty(), "{role} may {allowed:?}");
    }
    // What a worker and a janitor run as scripts has no other rights than they have themselves.
    for role in ["worker", "janitor", "run"] {
        let mut conn = guarded.as_user(role);
        for command in ["'FLUSHALL'", "'GET','other'", "'KEYS','*'"] {
            let source = format!("return redis.call({command})");
            let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(source).query(&mut conn).unwrap();
            let error = redis::cmd("EVALSHA").arg(sha).arg(0).exec(&mut conn).unwrap_err();
            // 7.0 says so without a code.
            let text = error.to_string();
            let denied = ["NOPERM", "can't run this command", "can't access at least one of the keys"];
            assert!(denied.iter().any(|words| text.contains(words)), "{role} {command}: {text}");
        }
    }
    let mut producer = guarded.as_user("producer");
    assert!(!is_denied(&mut producer, "XADD rollcall:events * type heartbeat user al"));
    let add = "XADD rollcall:events MAXLEN 0 * type heartbeat user al";
    assert!(!is_denied(&mut producer, add), "an XADD right is a right to destroy the stream: said in deploy/acl");
}

/// A right that is missing is an operator's slip, never the entries' fault: the worker says so and
/// waits. 7.0 reports what a script may not do without a code, as it reports a failing script.
#[test]
fn a_missing_right_costs_no_entry() {
    for right in ["hset", "xadd", "zadd", "zincrby"] {
        let guarded = Guarded::start("");
        let mut admin = guarded.admin();
        let mut allow = |rule: String| {
            redis::cmd("ACL").arg(&["SETUSER", "rollcall-worker", &rule]).exec(&mut admin).unwrap();
        };
        let mut producer = guarded.as_user("producer");
        let worker = guarded.process("worker", &[]);
        let pages = Pages::of(&worker);
        wait_until(SOON, "it joins", || pages.get("/readyz").0 == 200);
        allow(format!("-{right}"));
        for n in 0..6 {
            let (token, item) = (format!("t{n}"), format!("i{}", n % 3));
            let view = ["type", "view", "user", "u", "token", &token, "item", &item];
            redis::cmd("XADD").arg(&["rollcall:events", "*"]).arg(&view).exec(&mut producer).unwrap();
        }
        let errors = |kind: &str| {
            pages.metric(&format!("rollcall_redis_errors_total{{kind=\"{kind}\"}}")).unwrap_or_default()
        };
        let done = || pages.metric("rollcall_entries_acknowledged_total") == Some(6.0);
        wait_until(SOON, "it is refused", || errors("permission") + errors("script") > 0.0 || done());
        allow(format!("+{right}"));
        let mut conn = guarded.admin();
        wait_until(SOON, "all is applied once it may", || {
            is_finished(&mut conn, "rollcall:events")
        });
        let mut admin = guarded.admin();
        let letters = dump::dead_letters(&mut admin, &Keys::new("", 1, 0));
        assert!(letters.is_empty(), "without {right}: {letters:?}");
        let views: Vec<String> =
            redis::cmd("ZRANGE").arg("viewed:").arg(&["0", "-1", "WITHSCORES"]).query(&mut admin).unwrap();
        assert_eq!(views, ["i0", "2", "i1", "2", "i2", "2"], "without {right}");
    }
}
