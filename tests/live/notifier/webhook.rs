//! Webhooks, with a receiver that verifies with the Standard Webhooks library and answers as it is told.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Stage;
use crate::clients::LIBRARIES;
use crate::harness::wait_until;
use crate::roles::tls::certify;
use crate::scene::{SOON, metric, wait_for_page};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A receiver of calls.
struct Receiver {
    child: Child,
    said: Arc<Mutex<Vec<Value>>>,
    port: u64,
    folder: TempDir,
}

impl Receiver {
    fn start(certificate: &[PathBuf]) -> Self {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/webhook_receiver.py");
        let mut command = Command::new(LIBRARIES.join("python/bin/python"));
        command.arg(script).args(certificate).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (said, lines) = (Arc::default(), BufReader::new(child.stdout.take().unwrap()));
        let folder = tempfile::tempdir().unwrap();
        let mut receiver = Self { child, said: Arc::clone(&said), port: 0, folder };
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                said.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        wait_until(SOON, "it listens", || {
            let said = receiver.said.lock().unwrap();
            said.first().inspect(|first| receiver.port = first["port"].as_u64().unwrap()).is_some()
        });
        receiver.write_secrets(&[OLD]);
        receiver.command(&format!("secret {OLD}"));
        receiver
    }

    /// Takes effect before this returns.
    fn command(&mut self, line: &str) {
        let done = |all: &[Value]| all.iter().filter(|said| said["done"].is_string()).count();
        let before = done(&self.said.lock().unwrap());
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        wait_until(SOON, line, || done(&self.said.lock().unwrap()) > before);
    }

    fn secret_file(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    fn write_secrets(&self, secrets: &[&str]) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, secrets.join("\n")).unwrap();
        std::fs::rename(next, self.secret_file()).unwrap();
    }

    /// A table for it, with these additional lines.
    fn table(&self, scheme: &str, more: &str) -> String {
        let (port, file) = (self.port, self.secret_file());
        format!(
            "[[notify]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"{scheme}://127.0.0.1:{port}/hooks\"\n\
             secret-file = {file:?}\n{more}\n"
        )
    }

    fn calls(&self) -> Vec<Value> {
        let said = self.said.lock().unwrap();
        said.iter().filter(|said| said["id"].is_string()).cloned().collect()
    }

    /// Calls that were answered with success, once each: what a receiver that goes by the ids has.
    fn taken(&self) -> Vec<Value> {
        let mut taken: Vec<Value> = Vec::new();
        for call in self.calls().into_iter().filter(|call| call["answer"] == "204") {
            if taken.iter().all(|known| known["id"] != call["id"]) {
                taken.push(call);
            }
        }
        taken
    }

    /// The numbers of the accepted changes, in order.
    fn seqs(&self) -> Vec<u64> {
        let seqs = |call: Value| -> Vec<u64> {
            let changes = call["body"]["changes"].as_array().cloned().unwrap_or_default();
            changes.iter().map(|change| change["seq"].as_u64().unwrap()).collect()
        };
        self.taken().into_iter().flat_map(seqs).collect()
    }

    fn wait_for(&self, seqs: std::ops::RangeInclusive<u64>) {
        wait_until(SOON, "all is taken", || self.seqs().len() as u64 >= *seqs.end());
        assert_eq!(self.seqs(), seqs.collect::<Vec<_>>());
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn each_change_is_called_with_until_it_is_taken_in_order_and_signed() {
    let mut receiver = Receiver::start(&[]);
    let more = "allow-private = true\ntimeout = \"300ms\"";
    let stage = Stage::start(&[("partitions", "1")], &receiver.table("http", more));
    let notifier = stage.notifier_of(&["hook"]);
    receiver.command("answer 500 close hang 408 429 204 503 302 302 302 204");
    let started = Instant::now();
    stage.come(0..20);
    receiver.wait_for(1..=20);
    assert!(started.elapsed() > Duration::from_secs(1), "429 said when to come back");
    let calls = receiver.calls();
    assert!(
        calls.iter().all(|call| call["verified"] == true && call["path"] == "/hooks"),
        "{calls:?}"
    );
    let epoch = calls[0]["id"].as_str().unwrap().split('-').next().unwrap();
    let ids: Vec<String> = (1..=20).map(|seq| format!("{epoch}-0-{seq}-{seq}")).collect();
    let mut told: Vec<&str> = calls.iter().map(|call| call["id"].as_str().unwrap()).collect();
    assert_eq!(told[..6], [ids[0].as_str(); 6], "repeats have the same id");
    told.dedup();
    assert_eq!(told, ids);
    let mut bodies: BTreeMap<&str, &Value> = BTreeMap::new();
    for call in &calls {
        let body = bodies.entry(call["id"].as_str().unwrap()).or_insert(&call["body"]);
        assert_eq!(**body, call["body"], "the same id is the same changes");
    }
    assert_eq!(calls[0]["body"]["changes"][0]["kind"], "online");
    // A persistent connection that was closed is replaced at once.
    assert_eq!(metric(&notifier, "rollcall_notifier_calls_failed_total"), 8.0);
}

#[test]
fn killed_with_a_call_in_flight_it_makes_the_same_call_again() {
    let mut receiver = Receiver::start(&[]);
    let more = "allow-private = true\nbatch = 10\ntimeout = \"20s\"";
    let stage = Stage::start(&[("partitions", "1")], &receiver.table("http", more));
    assert_eq!(stage.notifier_of(&["hook"]).terminate(), 0);
    receiver.command("answer 204 hang");
    stage.come(0..14);
    let mut doomed = stage.notifier(&[]);
    wait_until(SOON, "the second call is in flight", || receiver.calls().len() == 2);
    doomed.kill();
    stage.expire("hook");
    // Without the stored borders, the batch would be another one now.
    stage.come(14..35);
    let mut last = stage.notifier(&[]);
    receiver.wait_for(1..=35);
    let calls = receiver.calls();
    assert_eq!((&calls[1]["id"], &calls[1]["body"]), (&calls[2]["id"], &calls[2]["body"]));
    let sizes: Vec<usize> = receiver
        .taken()
        .iter()
        .map(|call| call["body"]["changes"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes[..3], [10, 4, 10]);
    assert_eq!(last.terminate(), 0);
}

#[test]
fn what_is_refused_again_and_again_becomes_a_dead_letter_and_holds_nothing_up() {
    let mut receiver = Receiver::start(&[]);
    let more = "allow-private = true\nattempts = 2\nkinds = [\"online\"]";
    let stage = Stage::start(&[("partitions", "1")], &receiver.table("http", more));
    let _notifier = stage.notifier_of(&["hook"]);
    receiver.command("answer 204 410 302");
    stage.come(0..3);
    wait_until(SOON, "the others are taken", || receiver.seqs() == [1, 3]);
    let ids: Vec<_> = receiver.calls().iter().map(|call| call["id"].clone()).collect();
    assert_eq!((ids.len(), &ids[1]), (4, &ids[2]), "tried twice: {ids:?}");
    let letters = stage.scene.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "refused");
    assert!(letters[0].detail.starts_with("target hook: answered 302"), "{letters:?}");
    let fields: Vec<(String, Vec<(String, String)>)> =
        stage.scene.command(&["XRANGE", "rollcall:dead", "-", "+"]);
    let has = |name: &str, value: &str| fields[0].1.contains(&(name.to_owned(), value.to_owned()));
    assert!(has("seq", "2") && has("kind", "online") && has("user", "u00001"), "{fields:?}");
    assert!(has("stream", "rollcall:changes") && has("deliveries", "2"), "{fields:?}");
    // It is not an event, and is not retried.
    let retry = ["dead", "retry", "--all", "--redis-url", &stage.scene.url()];
    let output = Command::new(env!("CARGO_BIN_EXE_rollcall")).args(retry).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stage.scene.letters(), letters);
}

#[test]
fn secrets_are_rotated_with_two_at_once_and_without_a_restart() {
    let mut receiver = Receiver::start(&[]);
    let stage =
        Stage::start(&[("partitions", "1")], &receiver.table("http", "allow-private = true"));
    let mut notifier = stage.notifier_of(&["hook"]);
    let mut seq = 0;
    for (written, verifies, is_good) in [
        (&[OLD][..], OLD, true),
        (&[NEW, OLD], OLD, true),
        (&[NEW, OLD], NEW, true),
        (&[NEW], NEW, true),
        (&[NEW], OLD, false),
    ] {
        receiver.write_secrets(written);
        receiver.command(&format!("secret {verifies}"));
        stage.come(seq..seq + 1);
        seq += 1;
        receiver.wait_for(1..=u64::from(seq));
        let last = receiver.calls().pop().unwrap();
        assert_eq!(last["verified"], is_good, "{written:?} {verifies}");
    }
    assert_eq!(notifier.terminate(), 0);
    assert!(!notifier.log().contains(&OLD[6..]) && !notifier.log().contains(&NEW[6..]));
    receiver.write_secrets(&["short"]);
    let mut refused = stage.notifier(&[]);
    assert_eq!(refused.exit_code(SOON), 64);
    assert!(refused.log().contains("24 to 64 bytes"), "{}", refused.log());
}

#[test]
fn private_addresses_are_not_called_unless_that_is_allowed() {
    let receiver = Receiver::start(&[]);
    let table = receiver.table("http", "");
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0"] {
        let stage = Stage::start(&[("partitions", "1")], &table.replace("127.0.0.1", host));
        let notifier = stage.notifier_of(&["hook"]);
        stage.come(0..1);
        wait_until(SOON, host, || metric(&notifier, "rollcall_notifier_calls_failed_total") >= 2.0);
        let why = ["no address outside private networks", "cannot look up the host"];
        wait_until(SOON, "it says why", || why.iter().any(|why| notifier.log().contains(why)));
        wait_for_page(&notifier, "/readyz", |status, _| status == 200);
    }
    assert_eq!(receiver.calls(), [json!(null); 0], "nobody called");
}

#[test]
fn over_tls_the_certificate_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path());
    let file = |name: &str| folder.path().join(name);
    let receiver = Receiver::start(&[file("server.pem"), file("server.key")]);
    let stage =
        Stage::start(&[("partitions", "1")], &receiver.table("https", "allow-private = true"));
    let mut distrusts = stage.notifier_of(&["hook"]);
    stage.come(0..3);
    wait_until(SOON, "it does not trust it", || distrusts.log().contains("cannot connect"));
    assert_eq!(distrusts.terminate(), 0);
    assert_eq!(receiver.calls(), [json!(null); 0], "nothing was sent");
    let authority = file("ca.pem").display().to_string();
    let _trusts = stage.notifier(&[("SSL_CERT_FILE", &authority)]);
    receiver.wait_for(1..=3);
}

#[test]
fn a_receiver_that_was_away_gets_word_of_the_gap_and_all_that_is_kept_at_bounded_cost() {
    let mut receiver = Receiver::start(&[]);
    let more = "allow-private = true\nbatch = 100";
    let stage = Stage::start(&[("changes-cap", "500")], &receiver.table("http", more));
    let notifier = stage.notifier_of(&["hook"]);
    let before = notifier.memory("VmRSS");
    receiver.command(&format!("answer {}", "503 ".repeat(3)));
    stage.come(0..5_000);
    wait_until(SOON, "the rest is taken", || receiver.seqs().last() == Some(&5_000));
    let taken = receiver.taken();
    // One gap, or several if changes went while the first was told.
    let gaps: Vec<_> = taken.iter().filter(|call| call["body"]["kind"] == "gap").collect();
    let (mut expected, mut next) = (Vec::new(), 1);
    for gap in &gaps {
        assert!(gap["id"].as_str().unwrap().ends_with("-gap") && gap["verified"] == true, "{gap}");
        expected.extend(next..=gap["body"]["after"].as_u64().unwrap());
        next = gap["body"]["next"].as_u64().unwrap();
    }
    expected.extend(next..=5_000);
    assert_eq!(receiver.seqs(), expected, "{gaps:?}");
    assert!(next > 4_000, "{gaps:?}");
    let grown = notifier.memory("VmRSS").saturating_sub(before);
    assert!(grown < 20 << 10, "{grown} KiB more");
}
