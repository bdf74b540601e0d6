//! The least-privilege users of `deploy/acl/`: each can do all of its job, and nothing else.
//!
//! A line that allows too little shows as NOPERM; a line that allows too much shows as a command that was never
//! called although every path of the role was taken.

mod eraser;
mod job;
mod notifier;
mod verify;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use redis::Connection;
use rollcall::key::Keys;
use rollcall::private_server::{Options, PrivateServer};
use tempfile::TempDir;

use crate::harness::{is_finished, wait_until};
use crate::process::Worker;
use crate::query::ground::ask_at;
use crate::roles::Pages;
use crate::sealed::{File, KEYS};
use crate::seed_readers::query;
use crate::support::dump;

const SOON: Duration = Duration::from_secs(15);
pub const ROLES: [&str; 8] =
    ["producer", "worker", "janitor", "serve", "notifier", "run", "reader", "doctor"];
/// The user that retries and drops dead letters; no process has this role.
const KEEPER: &str = "keeper";
/// The user that erases users.
const ERASER: &str = "eraser";
/// The user that verifies the state.
const VERIFIER: &str = "verifier";
const PASSWORD: &str = "pw";

/// The ACL line of a role, as it stands in its file.
pub fn line(role: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/acl");
    std::fs::read_to_string(folder.join(format!("{role}.acl"))).unwrap()
}

/// The commands that a line allows.
pub fn commands(role: &str) -> BTreeSet<String> {
    line(role)
        .split_whitespace()
        .filter_map(|rule| rule.strip_prefix('+'))
        .map(str::to_owned)
        .collect()
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
        for role in ROLES.into_iter().chain([KEEPER, ERASER, VERIFIER]) {
            let line = line(role).replace(">change-me", &format!(">{PASSWORD}"));
            // With a prefix, every pattern begins with it. With several partitions, the layout that a process must
            // not find is the one without their tag.
            let line = line.replace('~', &format!("~{prefix}")).replace("{p*}:{p0}:", "");
            // Channels of Socket.IO servers have no prefix.
            let line = line.replace("&rollcall", &format!("&{prefix}rollcall"));
            text.push_str(&line);
        }
        let path = folder.path().join("users.acl");
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        let extra_args = ["--aclfile", &path, "--enable-debug-command", "yes"];
        let extra_args = extra_args.map(str::to_owned).to_vec();
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

    pub fn process(&self, role: &str, args: &[&str]) -> Worker {
        let common = ["--prefix", &self.prefix, "--http", "127.0.0.1:0"];
        let common = if self.prefix.is_empty() { &common[2..] } else { &common[..] };
        Worker::start_as(role, &self.url(role), &[common, args].concat(), &[])
    }

    /// Fails if the server ever refused anything, or a log says so.
    pub fn nothing_was_refused(&self, logs: &[String]) {
        for log in logs {
            assert!(!log.contains("NOPERM") && !log.contains("ermission"), "{log}");
            // Removing half of the joined connections is part of the job.
            let fails = |line: &&str| line.contains("not projecting") && !line.contains("TORN");
            assert!(!log.lines().any(|line| fails(&line)), "{log}");
            assert!(!log.contains("not sweeping"), "{log}");
        }
        let refused: Vec<std::collections::HashMap<String, redis::Value>> =
            redis::cmd("ACL").arg("LOG").query(&mut self.admin()).unwrap();
        let object = |row: &std::collections::HashMap<String, redis::Value>| {
            redis::from_redis_value::<String>(row["object"].clone()).unwrap()
        };
        // From 7.2 on clients send their name; being refused that does not matter.
        let refused: Vec<_> =
            refused.iter().map(object).filter(|object| object != "client|setinfo").collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    /// The commands called since the last call, including those of scripts.
    pub fn called(&self) -> BTreeSet<String> {
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

#[test]
fn run_may_do_what_worker_janitor_and_serve_may() {
    let all: BTreeSet<_> = ["worker", "janitor", "serve"].into_iter().flat_map(commands).collect();
    assert_eq!(commands("run"), all);
    assert_eq!(patterns("run"), patterns("worker"), "a worker's keys include all others'");
    let guarded = Guarded::start("");
    let mut process = guarded.process("run", &["--janitor-interval", "100ms"]);
    let mut producer = guarded.as_user("producer");
    for n in 0..20 {
        let add = ["rollcall:events", "*", "type", "login", "user", "u", "token", &format!("t{n}")];
        redis::cmd("XADD").arg(&add).exec(&mut producer).unwrap();
    }
    let pages = Pages::of(&process);
    wait_until(SOON, "applied", || pages.metric("rollcall_entries_applied_total") == Some(20.0));
    wait_until(SOON, "swept", || {
        pages.metric(r#"rollcall_sweep_last_success_timestamp_seconds{partition="0"}"#).is_some()
    });
    assert_eq!(process.terminate(), 0, "{}", process.log());
    guarded.nothing_was_refused(&[process.log()]);
}

#[test]
fn with_partitions_every_pattern_begins_with_their_tag() {
    let guarded = Guarded::start("acme:{p*}:");
    let args = ["--partitions", "4", "--prefix", "acme:"];
    let mut process = Worker::start_as("run", &guarded.url("run"), &args, &[]);
    let (mut producer, mut admin) = (guarded.as_user("producer"), guarded.admin());
    let streams: Vec<_> = (0..4).map(|p| format!("acme:{{p{p}}}:rollcall:events")).collect();
    for n in 0..40 {
        let user = format!("u{n}");
        let partition = usize::from(rollcall::key::partition_of(&user, 4));
        let view = ["*", "type", "view", "user", &user, "token", &user, "item", "books"];
        redis::cmd("XADD").arg(&streams[partition]).arg(&view).exec(&mut producer).unwrap();
    }
    wait_until(SOON, "applied", || {
        (0..4).zip(&streams).all(|(partition, stream)| {
            is_finished(&mut admin, &Keys::new("acme:", 4, partition), stream)
        })
    });
    assert_eq!(process.terminate(), 0);
    let (ranking, code) = query(&guarded, "viewed --json --partitions 4 --prefix acme:");
    assert_eq!(code, Some(0), "{ranking}");
    assert!(ranking.contains("books") && ranking.contains("40"), "{ranking}");
    guarded.nothing_was_refused(&[process.log()]);
}

/// Sends a command; returns whether the server refuses it to this user.
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
        ACL LIST|ACL WHOAMI|MONITOR|EVAL return(1) 0|SCRIPT FLUSH|FUNCTION FLUSH|CLIENT LIST|SAVE|SWAPDB 0 1|\
        REPLICAOF no one|GET other|SET other 1|XADD other * a b|HGETALL other:presence:users|\
        XGROUP DESTROY rollcall:events rollcall|XSETID rollcall:events 0-1|PUBLISH a b|SUBSCRIBE a|\
        MIGRATE 127.0.0.1 1 login: 0 1|RESTORE login: 0 x|DUMP login:|SORT login:|RENAME login: x|OBJECT FREQ login:";
    let state = "GET user-activity/al|HGETALL presence:users|HGET login: t|SMEMBERS online-users/1|\
        ZRANGE recent: 0 -1|GET session:s|XRANGE rollcall:events - +|XLEN rollcall:events|\
        XRANGE rollcall:dead - +|XREAD STREAMS rollcall:events 0|XINFO STREAM rollcall:events";
    let destruction = "DEL rollcall:events|UNLINK rollcall:events|XTRIM rollcall:events MAXLEN 0|\
        XDEL rollcall:events 1-1|XGROUP CREATE rollcall:events x 0|XACK rollcall:events rollcall 1-1|\
        XREADGROUP GROUP rollcall c STREAMS rollcall:events >|EVALSHA 0 0|FCALL f 0|EXPIRE rollcall:events 1|\
        XADD rollcall:dead * a b|XADD rollcall:changes * a b|HSET rollcall:meta epoch 1|\
        SET session:s 1|HSET login: t u|ZADD recent: 1 t|SADD online-users/1 u|HDEL presence:users x";
    let all_but_scripts = destruction.replace("EVALSHA 0 0|", "");
    for (role, denied) in [
        ("producer", vec![everybody, state, destruction]),
        ("reader", vec![everybody, destruction, "XADD rollcall:events * a b"]),
        ("serve", vec![everybody, destruction, "HGETALL presence:users|SMEMBERS online-users/1"]),
        (
            "doctor",
            vec![
                &all_but_scripts,
                "XADD rollcall:events * a b|CONFIG SET maxmemory 1|CONFIG REWRITE|SHUTDOWN|KEYS *|FLUSHALL|\
                 ACL LIST|SCRIPT FLUSH|CLUSTER RESET|HGETALL presence:users|GET other|SMEMBERS online-users/1",
            ],
        ),
        (
            "worker",
            vec![
                everybody,
                "SMEMBERS online-users/1|HKEYS login:|EXPIRE login: 1|XDEL rollcall:events 1-1|\
                 XREADGROUP GROUP rollcall c STREAMS rollcall:events >|SUBSCRIBE other:rollcall:owner:x|\
                 PUBLISH rollcall:owner:x y|PSUBSCRIBE rollcall:owner:*|MULTI",
            ],
        ),
        (
            "janitor",
            vec![
                everybody,
                "HGETALL presence:users|SADD online-users/1 u|SET online-users/1 u|DEL online-users/1|\
                 GET user-activity/al|SET user-activity/al 1|DEL user-activity/al|SET session:s x|DEL session:s|\
                 XREADGROUP GROUP rollcall c STREAMS rollcall:events >|XACK rollcall:events rollcall 1-1|\
                 XREAD STREAMS rollcall:events 0|SUBSCRIBE rollcall:owner:x|\
                 XGROUP CREATE rollcall:events x 0|XGROUP SETID rollcall:events rollcall 0|MULTI",
            ],
        ),
        (
            KEEPER,
            vec![
                everybody,
                "DEL rollcall:events|XTRIM rollcall:events MAXLEN 0|XGROUP CREATE rollcall:events x 0|HSET rollcall:meta epoch 1|\
                 XADD rollcall:changes * a b|XDEL rollcall:changes 1-1|HGETALL presence:users|SET login: 1|HSET login: t u",
            ],
        ),
        (
            ERASER,
            vec![
                everybody,
                "DEL other|XTRIM other MAXLEN 0|XGROUP CREATE rollcall:events x 0|HGETALL presence:users|KEYS *|\
                 XGROUP SETID rollcall:events rollcall 0|SMEMBERS online-users/1|XREAD STREAMS rollcall:events 0",
            ],
        ),
        (
            "run",
            vec![
                everybody,
                "EXPIRE login: 1|XREADGROUP GROUP rollcall c STREAMS rollcall:events >",
            ],
        ),
    ] {
        let mut conn = guarded.as_user(role);
        let commands = denied.iter().flat_map(|group| group.split('|')).map(str::trim);
        let allowed: Vec<_> = commands.filter(|command| !is_denied(&mut conn, command)).collect();
        assert!(allowed.is_empty(), "{role} may {allowed:?}");
    }
    // The scripts of a worker and a janitor have no other rights than the roles themselves.
    for role in ["worker", "janitor", "run", "doctor", KEEPER, ERASER] {
        let mut conn = guarded.as_user(role);
        for command in ["'FLUSHALL'", "'GET','other'", "'KEYS','*'"] {
            let source = format!("return redis.call({command})");
            let sha: String =
                redis::cmd("SCRIPT").arg("LOAD").arg(source).query(&mut conn).unwrap();
            let error = redis::cmd("EVALSHA").arg(sha).arg(0).exec(&mut conn).unwrap_err();
            // Servers word this differently: 7.0 like this, later ones and Valkey like the last.
            let text = error.to_string();
            let denied = [
                "NOPERM",
                "can't run this command",
                "can't access at least one of the keys",
                "ACL failure in script",
            ];
            assert!(denied.iter().any(|words| text.contains(words)), "{role} {command}: {text}");
        }
    }
    let mut producer = guarded.as_user("producer");
    assert!(!is_denied(&mut producer, "XADD rollcall:events * type heartbeat user al"));
    let add = "XADD rollcall:events MAXLEN 0 * type heartbeat user al";
    assert!(
        !is_denied(&mut producer, add),
        "an XADD right is a right to destroy the stream: said in deploy/acl"
    );
}

#[test]
fn a_keeper_mends_with_just_these_rights() {
    let guarded = Guarded::start("acme:");
    let mut admin = guarded.admin();
    let header = ["entry_id", "7-0", "reason", "x", "detail", "", "deliveries", "1", "index", ""];
    for _ in 0..3 {
        let mut add = redis::cmd("XADD");
        add.arg("acme:rollcall:dead").arg("*").arg(&header);
        add.arg(&["stream", "acme:rollcall:events", "type", "x"]).exec(&mut admin).unwrap();
    }
    redis::cmd("HSET").arg("acme:rollcall:meta").arg(&["format", "2"]).exec(&mut admin).unwrap();
    guarded.called();
    let letters = || {
        let (code, out, error) =
            ask_at(&guarded.url(KEEPER), &["dead", "list", "--prefix", "acme:", "--json"]);
        assert_eq!((code, error.as_str()), (0, ""));
        let list: serde_json::Value = serde_json::from_str(&out).unwrap();
        list["letters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let ids: Vec<String> = letters();
    for words in
        [&["show", &ids[0]][..], &["retry", &ids[0]], &["drop", &ids[1]], &["retry", "--all"]]
    {
        let words = [&["dead"], words, &["--prefix", "acme:"]].concat();
        let (code, _, error) = ask_at(&guarded.url(KEEPER), &words);
        assert_eq!((code, error.as_str()), (0, ""), "{words:?}");
    }
    assert_eq!(letters(), Vec::<String>::new());
    let set = |command: &str, words: &[&str]| {
        redis::cmd(command).arg(words).exec(&mut guarded.admin()).unwrap();
    };
    set("HSET", &["acme:rollcall:sessions:data", "s", "1790000000000"]);
    set("SET", &["acme:session:s", "{}"]);
    let file = File::new(&KEYS[..1]);
    let words = ["encrypt", "--prefix", "acme:", &file.flag()];
    let (code, page, error) = ask_at(&guarded.url(KEEPER), &words);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(page.contains("1 session encrypted"), "{page}");
    set("DEL", &["acme:rollcall:meta"]);
    assert_eq!(letters(), Vec::<String>::new());
    let called = guarded.called();
    let idle: Vec<_> = commands(KEEPER).difference(&called).cloned().collect();
    assert!(idle.is_empty(), "a keeper is allowed what it never does: {idle:?}");
    guarded.nothing_was_refused(&[]);
}

/// A missing right is an operator's mistake, never the entries' fault: the worker reports it and waits. 7.0 reports
/// what a script may not do without a code, just like a failing script.
#[test]
fn a_missing_right_costs_no_entry() {
    for right in ["set", "hset", "zadd", "xadd", "zincrby", "hincrby", "xgroup|setid", "xread"] {
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
            redis::cmd("XADD")
                .arg(&["rollcall:events", "*"])
                .arg(&view)
                .exec(&mut producer)
                .unwrap();
        }
        let errors = |kind: &str| {
            pages
                .metric(&format!("rollcall_redis_errors_total{{kind=\"{kind}\"}}"))
                .unwrap_or_default()
        };
        let done = || pages.metric("rollcall_entries_applied_total") == Some(6.0);
        wait_until(SOON, "it is refused", || {
            errors("permission") + errors("script") > 0.0 || done()
        });
        allow(format!("+{right}"));
        let mut conn = guarded.admin();
        wait_until(SOON, "all is applied once it may", || {
            is_finished(&mut conn, &Keys::new("", 1, 0), "rollcall:events")
        });
        let mut admin = guarded.admin();
        let letters = dump::dead_letters(&mut admin, &Keys::new("", 1, 0));
        let letters: Vec<_> =
            letters.iter().map(|letter| (&letter.reason, &letter.detail)).collect();
        assert_eq!(letters, [], "without {right}");
        let views: Vec<String> = redis::cmd("ZRANGE")
            .arg("viewed:")
            .arg(&["0", "-1", "WITHSCORES"])
            .query(&mut admin)
            .unwrap();
        assert_eq!(views, ["i0", "2", "i1", "2", "i2", "2"], "without {right}");
    }
}
