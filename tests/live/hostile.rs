//! Hostile entries: invalid ones become dead letters, whole and once; odd ones are applied as they are; the good ones
//! beside them are not affected, and the group never sticks.

mod data;
mod fields;

use rollcall::entry::{EntryId, Field};
use rollcall::key::join;
use serde_json::{Value, json};

use crate::harness::wait_until;
use crate::scene::{SOON, Scene, add, heartbeat, in_parallel, wait_for_page};
use crate::support::dump::DeadLetter;
use crate::support::events::field;

/// The expected result of an entry.
enum Fate {
    /// A dead letter of the whole entry.
    Dead(&'static str),
    /// A dead letter that gives the entry's size, and no more.
    Stub,
    /// Dead letters of elements: index, reason, bytes.
    Elements(Vec<(usize, &'static str, Vec<u8>)>),
    /// Applied, and this user is present afterwards.
    Present(String),
    /// Applied; the reference model knows the result.
    Applied,
}

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

struct Case {
    name: String,
    fields: Vec<Field>,
    fate: Fate,
}

use Fate::{Applied, Dead, Elements, Present, Stub};

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, name: &str, fields: Vec<Field>, fate: Fate) {
        self.0.push(Case { name: name.to_owned(), fields, fate });
    }

    fn flat(&mut self, name: &str, fields: &[(&str, &[u8])], fate: Fate) {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()));
        self.add(name, fields.collect(), fate);
    }

    fn json(&mut self, name: &str, data: impl AsRef<[u8]>, fate: Fate) {
        self.flat(name, &[("data", data.as_ref())], fate);
    }

    fn msgpack(&mut self, name: &str, data: &[u8], fate: Fate) {
        self.flat(name, &[("datacontenttype", b"application/msgpack"), ("data", data)], fate);
    }
}

fn present(user: &str) -> Fate {
    Present(join(&[user, ""]))
}

fn packed(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap()
}

fn beat(user: &str) -> Value {
    json!({"type": "heartbeat", "user": user})
}

fn cases() -> Vec<Case> {
    let mut cases = Cases::default();
    for kind in [
        fields::missing_and_unknown,
        fields::bad_text,
        fields::sizes,
        data::envelopes,
        data::messagepack,
        data::many_events,
        data::times,
    ] {
        kind(&mut cases);
    }
    cases.0
}

/// Adds every case with a good neighbour each.
fn add_all(scene: &Scene, cases: &[Case]) -> Vec<EntryId> {
    let mut conn = scene.connection();
    let stream = scene.deployment.stream(0);
    let add_case = |(n, case): (usize, &Case)| {
        add(&mut conn, &stream, &heartbeat(&format!("good{n}")));
        add(&mut conn, &stream, &case.fields)
    };
    cases.iter().enumerate().map(add_case).collect()
}

fn check(scene: &Scene, cases: &[Case], ids: &[EntryId]) {
    let letters = scene.letters();
    let mut faults = Vec::new();
    for (n, (case, id)) in cases.iter().zip(ids).enumerate() {
        let mut own: Vec<_> = letters.iter().filter(|letter| letter.entry == *id).collect();
        own.sort_by_key(|letter| letter.index);
        if !scene.is_present(&format!("good{n}|")) {
            faults.push(format!("the neighbour of {:?} is not applied", case.name));
        }
        faults.extend(
            case.faults(scene, &own).into_iter().map(|fault| format!("{:?}: {fault}", case.name)),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

impl Case {
    /// How the result differs from the expected one.
    fn faults(&self, scene: &Scene, letters: &[&DeadLetter]) -> Vec<String> {
        let expected: Vec<(Option<usize>, &str, Vec<Field>)> = match &self.fate {
            Dead(reason) => vec![(None, reason, self.fields.clone())],
            Stub => vec![(None, "too_large", Vec::new())],
            Elements(bad) => bad.iter().map(|bad| element(&self.fields, bad)).collect(),
            Present(_) | Applied => Vec::new(),
        };
        let mut faults = Vec::new();
        if let Present(field) = &self.fate
            && !scene.is_present(field)
        {
            faults.push("the user is not present".to_owned());
        }
        let found: Vec<_> =
            letters.iter().map(|l| (l.index, l.reason.as_str(), &l.detail)).collect();
        if letters.len() != expected.len() {
            faults.push(format!("{} dead letters: {found:?}", letters.len()));
        }
        for (letter, (index, reason, fields)) in letters.iter().zip(&expected) {
            let detail = &letter.detail;
            let short =
                !detail.is_empty() && detail.len() < 400 && !detail.contains(char::is_control);
            let checks = [
                ("place and reason", (letter.index, letter.reason.as_str()) == (*index, *reason)),
                ("original pairs, unchanged and in order", letter.original == *fields),
                ("stream", letter.stream == scene.deployment.stream(0)),
                ("deliveries", letter.deliveries == 1),
                ("detail: one short line", short),
            ];
            let wrong = checks.iter().filter(|(_, is_right)| !is_right);
            faults.extend(wrong.map(|(what, _)| format!("{what}; found {found:?}")));
        }
        faults
    }
}

/// The letter of an element: among its pairs, the `data` that counts contains the element's bytes.
fn element(
    fields: &[Field],
    bad: &(usize, &'static str, Vec<u8>),
) -> (Option<usize>, &'static str, Vec<Field>) {
    let mut fields = fields.to_vec();
    fields.iter_mut().rfind(|(name, _)| name == b"data").unwrap().1.clone_from(&bad.2);
    (Some(bad.0), bad.1, fields)
}

#[test]
fn hostile_entries_are_dead_lettered_or_applied_and_never_stick() {
    let cases = cases();
    in_parallel(
        [("500", ""), ("3", "after-fold:9"), ("40", "after-reply:3")],
        |(batch, failpoint)| {
            let scene = Scene::start(&[]);
            let ids = add_all(&scene, &cases);
            let first = ["--batch", batch];
            if !failpoint.is_empty() {
                scene.worker_with(&first, &[("ROLLCALL_TEST_FAILPOINT", failpoint)]).wait(SOON);
            }
            let worker = scene.worker(&first);
            scene.wait_finished(SOON, "nothing sticks");
            check(&scene, &cases, &ids);
            scene.verify(&format!("hostile entries by {batch}, {failpoint}"));
            assert!(!worker.log().contains("not projecting"), "{}", worker.log());
        },
    );
}

/// The greatest possible ids: nothing can be added after them, but all readers must go on.
#[test]
fn the_last_ids_there_are_stop_neither_worker_nor_janitor() {
    let scene = Scene::start(&[]);
    let stream = scene.deployment.stream(0);
    scene.add_heartbeat("early");
    for (seq, user) in [(u64::MAX - 1, "late"), (u64::MAX, "last")] {
        let id = format!("{}-{seq}", u64::MAX);
        scene.command::<String>(&["XADD", &stream, &id, "type", "heartbeat", "user", user]);
    }
    let mut worker = scene.worker(&["--batch", "1"]);
    scene.wait_finished(SOON, "the last ids are finished");
    scene.verify("the last ids");
    let janitor = scene.janitor(&[]);
    let last = format!("{0}-{0}", u64::MAX);
    scene.wait_for_round();
    assert!(!janitor.log().contains("not sweeping"), "{}", janitor.log());
    assert_eq!(scene.cursor().as_deref(), Some(&*last));
    // Workers that take over and look at what comes next are not stopped either.
    for _ in 0..2 {
        worker.kill();
        worker = scene.worker(&HTTP);
        wait_for_page(&worker, "/readyz", |status, _| status == 200);
        assert!(!worker.log().contains("not projecting"), "{}", worker.log());
    }
}

/// A producer sent microseconds as ids, and an operator deletes the stream to repair it. Entries added then have
/// smaller ids than those finished before.
#[test]
fn a_stream_that_was_deleted_and_begins_anew_is_read_from_its_beginning() {
    in_parallel([true, false], |worker_sees_it_missing| {
        let scene = Scene::start(&[]);
        let stream = scene.deployment.stream(0);
        let _janitor = scene.janitor(&[]);
        let mut worker = scene.worker(&[]);
        let far = "1790000000000000-0";
        scene.command::<String>(&["XADD", &stream, far, "type", "heartbeat", "user", "far"]);
        scene.wait_finished(SOON, "the far one is applied");
        scene.wait_for_round();
        if !worker_sees_it_missing {
            worker.kill();
        }
        scene.command::<()>(&["DEL", &stream]);
        if worker_sees_it_missing {
            wait_until(SOON, "the worker makes stream and group anew", || {
                scene.command::<i64>(&["EXISTS", &stream]) == 1
            });
        }
        scene.add_heartbeat("after");
        let worker = scene.worker(&[]);
        wait_until(SOON, "what was added after is applied", || scene.is_present("after|"));
        drop(worker);
    });
}

/// One entry must not become a thousand times its size.
#[test]
fn bad_elements_beside_large_fields_stay_within_bounds() {
    let scene = Scene::start(&[]);
    let mut fields: Vec<Field> =
        (0..62).map(|n| field(&format!("x{n}"), &"x".repeat(16 << 10))).collect();
    fields.push(field("data", &format!("[0{}]", ",0".repeat(999))));
    scene.add(&fields);
    scene.add_heartbeat("good");
    let worker = scene.worker(&[]);
    wait_until(SOON, "the neighbour is applied", || scene.is_present("good|"));
    scene.wait_finished(SOON, "the entry is finished");
    let bytes: u64 =
        scene.command(&["MEMORY", "USAGE", &scene.deployment.keys(0).dead(), "SAMPLES", "0"]);
    assert!(
        bytes < 64 << 20,
        "one entry of 1 MiB became {} MiB of dead letters:\n{}",
        bytes >> 20,
        worker.log()
    );
}
