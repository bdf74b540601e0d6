//! The whole job of a notifier under its own user.

use std::io::{Read as _, Write as _};

use redis::Connection;
use rollcall::key::Keys;

use super::{Guarded, SOON, commands};
use crate::harness::{is_finished, wait_until};

/// The port of a webhook that accepts nothing.
fn gone_webhook() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _asked = stream.read(&mut [0; 4096]);
            let gone = "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _unheard = stream.write_all(gone.as_bytes());
        }
    });
    port
}

#[test]
fn a_notifier_does_all_of_its_job_with_just_these_rights() {
    let guarded = Guarded::start("acme:");
    let mut process = guarded.process("run", &[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let targets = ["socketio-redis", "socketio-python"]
        .map(|kind| format!("[[notify]]\nname = \"{kind}\"\nkind = \"{kind}\"\n"));
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let webhook = format!(
        "[[notify]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}\"\n\
         secret-file = {:?}\nallow-private = true\nattempts = 1\nbatch = 2\n",
        gone_webhook(),
        secret.path()
    );
    std::fs::write(file.path(), targets.concat() + &webhook).unwrap();
    let config = ["--config", file.path().to_str().unwrap()];
    let mut admin = guarded.admin();
    let mut told = || -> Vec<String> {
        let fields: std::collections::BTreeMap<String, String> =
            redis::cmd("HGETALL").arg("acme:rollcall:notifier").query(&mut admin).unwrap();
        let targets = fields.iter().filter(|(name, _)| !name.ends_with(":batch"));
        targets.map(|(_, place)| place.split(' ').nth(1).unwrap().to_owned()).collect()
    };
    let mut notifier = guarded.process("notifier", &config);
    wait_until(SOON, "all have a position", || told().len() == 3);
    let mut producer = guarded.as_user("producer");
    let come = |producer: &mut Connection, user: &str| {
        let event = ["*", "type", "heartbeat", "user", user, "sid", user];
        redis::cmd("XADD").arg("acme:rollcall:events").arg(&event).exec(producer).unwrap();
    };
    come(&mut producer, "al");
    wait_until(SOON, "all are told", || told() == ["2", "2", "2"]);
    assert_eq!(notifier.terminate(), 0, "{}", notifier.log());
    let mut logs = vec![notifier.log()];
    // Changes that come while it is stopped are dropped, which makes a gap.
    let mut stolen = guarded.admin();
    let stream = "acme:rollcall:events";
    let finished = |conn: &mut Connection| is_finished(conn, &Keys::new("acme:", 1, 0), stream);
    come(&mut producer, "bo");
    wait_until(SOON, "it is applied", || finished(&mut stolen));
    redis::cmd("XTRIM").arg(&["acme:rollcall:changes", "MAXLEN", "0"]).exec(&mut stolen).unwrap();
    come(&mut producer, "cy");
    wait_until(SOON, "all is applied", || finished(&mut stolen));
    assert_eq!(process.terminate(), 0, "{}", process.log());
    redis::cmd("FUNCTION").arg("FLUSH").exec(&mut stolen).unwrap();
    let lease = "acme:rollcall:notifier:lease:socketio-redis";
    redis::cmd("SET").arg(lease).arg(&["300 other", "PX", "300"]).exec(&mut stolen).unwrap();
    guarded.called();
    let mut again = guarded.process("notifier", &config);
    wait_until(SOON, "all are told again", || told() == ["6", "6", "6"]);
    assert_eq!(again.terminate(), 0, "{}", again.log());
    logs.push(again.log());
    let called = guarded.called();
    let idle: Vec<_> = commands("notifier").difference(&called).cloned().collect();
    assert_eq!(idle, ["evalsha", "script|load"], "a notifier is allowed what it never does");
    guarded.nothing_was_refused(&logs);
}
