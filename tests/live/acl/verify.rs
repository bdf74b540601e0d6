//! The verifier may read the state, and write nothing but a shadow. Whoever rebuilds is also a worker.

use super::job::job;
use super::{Guarded, PASSWORD, SOON, VERIFIER, commands, line};
use crate::harness::{is_finished, wait_until};
use crate::query::ground::ask_at;
use crate::support::dump;
use rollcall::key::Keys;

/// The complete state, as a worker makes it.
fn worked(guarded: &Guarded) {
    let mut admin = guarded.admin();
    let (keys, stream) = (Keys::new("acme:", 1, 0), guarded.key("rollcall:events"));
    // All relevant entries are in the stream, so the verdicts are complete.
    let start_ms = dump::server_now(&mut admin) - 100_000;
    let first = (
        "0".to_owned(),
        vec![("type".to_owned(), b"heartbeat".to_vec()), ("user".to_owned(), b"x".to_vec())],
    );
    let entries = [(format!("{}-0", start_ms - 3_000_000), first.1)].into_iter();
    let rest = (1..).zip(job()).map(|(seq, fields)| (format!("{start_ms}-{seq}"), fields));
    for (id, fields) in entries.chain(rest) {
        let mut add = redis::cmd("XADD");
        add.arg(&stream).arg(id);
        fields.iter().for_each(|(name, value)| {
            add.arg(name).arg(value.as_slice());
        });
        add.exec(&mut admin).unwrap();
    }
    let worker = guarded.process("worker", &["--thresholds", "1:0"]);
    wait_until(SOON, "all is applied", || is_finished(&mut admin, &keys, &stream));
    drop(worker);
}

fn ask(guarded: &Guarded, user: &str, words: &[&str]) -> (i32, String, String) {
    ask_at(&guarded.url(user), &[words, &["--prefix", "acme:", "--json"]].concat())
}

#[test]
fn a_verifier_writes_nothing_but_its_shadow() {
    let guarded = Guarded::start("acme:");
    worked(&guarded);
    guarded.called();
    let (code, out, error) = ask(&guarded, VERIFIER, &["verify"]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    redis::cmd("DEL").arg(guarded.key("login:")).exec(&mut guarded.admin()).unwrap();
    let (code, out, _) = ask(&guarded, VERIFIER, &["verify"]);
    assert_eq!(code, 1, "{out}");
    let called = guarded.called();
    let mut idle: Vec<_> = commands(VERIFIER).difference(&called).cloned().collect();
    // If functions are unavailable, as `trouble::functions` tries.
    idle.retain(|command| command != "evalsha");
    assert!(idle.is_empty(), "a verifier is allowed what it never does: {idle:?}");
    guarded.nothing_was_refused(&[]);
}

#[test]
fn who_rebuilds_needs_what_a_worker_and_a_verifier_may() {
    let guarded = Guarded::start("acme:");
    let mut admin = guarded.admin();
    let rules = |role: &str| -> Vec<String> {
        let line = line(role).replace('~', "~acme:").replace("&rollcall", "&acme:rollcall");
        line.split_whitespace().skip(4).map(str::to_owned).collect()
    };
    let mut user = redis::cmd("ACL");
    user.arg(&["SETUSER", "rollcall-rebuilder", "on", &format!(">{PASSWORD}")]);
    user.arg(rules("worker")).arg(rules(VERIFIER)).exec(&mut admin).unwrap();
    worked(&guarded);
    for key in
        ["login:", "presence:users", "viewed:", "rollcall:docs:levels", "rollcall:sessions:ended"]
    {
        redis::cmd("DEL").arg(guarded.key(key)).exec(&mut admin).unwrap();
    }
    let ahead = [guarded.key("recent:"), (dump::server_now(&mut admin) / 1000).to_string()];
    redis::cmd("ZADD").arg(&ahead).arg("nobody's").exec(&mut admin).unwrap();
    let (code, out, error) = ask(&guarded, "rebuilder", &["rebuild", "--yes"]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    let settings = ["rebuild", "--yes", "--change-settings", "--thresholds", "1:0,2:1"];
    let (code, out, error) = ask(&guarded, "rebuilder", &settings);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    let (code, out, _) = ask(&guarded, VERIFIER, &["verify"]);
    assert_eq!(code, 0, "{out}");
    guarded.nothing_was_refused(&[]);
}
