//! Hostile entries: invalid ones become dead letters, whole and once; odd ones are applied as they are; the
//! good ones beside them never notice, and the group never sticks.

use rollcall::entry::{EntryId, Field};
use rollcall::key::join;
use serde_json::{Value, json};

use crate::harness::wait_until;
use crate::scene::{SOON, Scene, add, heartbeat, in_parallel};
use crate::support::dump::DeadLetter;
use crate::support::events::field;

/// What has to become of an entry.
enum Fate {
    /// A dead letter of the entry whole.
    Dead(&'static str),
    /// Dead letters of elements: place, reason, bytes.
    Elements(Vec<(usize, &'static str, Vec<u8>)>),
    /// Applied, and this user is present afterwards.
    Present(String),
    /// Applied; the reference model knows what comes of it.
    Applied,
}

struct Case {
    name: String,
    fields: Vec<Field>,
    fate: Fate,
}

use Fate::{Applied, Dead, Elements, Present};

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

fn missing_and_unknown(cases: &mut Cases) {
    cases.flat("no user", &[("type", b"heartbeat")], Dead("missing_field"));
    cases.flat("an empty user", &[("type", b"heartbeat"), ("user", b"")], Dead("missing_field"));
    cases.flat("no type", &[("user", b"x")], Dead("missing_field"));
    cases.flat("an empty type", &[("type", b""), ("user", b"x")], Dead("missing_field"));
    cases.flat("a login without token", &[("type", b"login"), ("user", b"x")], Dead("missing_field"));
    cases.flat("a view without item", &[("type", b"view"), ("user", b"x"), ("token", b"t")], Dead("missing_field"));
    cases.flat("a document without action", &[("type", b"document"), ("doc", b"d"), ("user", b"x")], Dead("missing_field"));
    let action: &[(&str, &[u8])] = &[("type", b"document"), ("doc", b"d"), ("user", b"x"), ("action", b"Join")];
    cases.flat("an unknown action", action, Dead("invalid_value"));
    cases.flat("an unknown type", &[("type", b"Heartbeat"), ("user", b"x")], Dead("unknown_type"));
    cases.flat("a type that is a command", &[("type", b"FLUSHALL\r\n"), ("user", b"x")], Dead("unknown_type"));
    cases.flat("one empty name", &[("", b"")], Dead("missing_field"));
    cases.flat("a user taken back", &[("type", b"heartbeat"), ("user", b"x"), ("user", b"")], Dead("missing_field"));
    cases.flat("a user named twice", &[("user", b"a"), ("type", b"x"), ("type", b"heartbeat"), ("user", b"twice")], present("twice"));
    cases.flat("an empty name beside", &[("", b"\0"), ("type", b"heartbeat"), ("user", b"nameless")], present("nameless"));
}

fn bad_text(cases: &mut Cases) {
    let bad = b"\xff\xfe\xc3\x28";
    cases.flat("bad UTF-8 as type", &[("type", bad), ("user", b"x")], Dead("unknown_type"));
    cases.flat("bad UTF-8 as user", &[("type", b"heartbeat"), ("user", bad)], Dead("invalid_utf8"));
    cases.flat("bad UTF-8 as token", &[("type", b"login"), ("user", b"x"), ("token", bad)], Dead("invalid_utf8"));
    cases.flat("a surrogate as user", &[("type", b"heartbeat"), ("user", b"\xed\xa0\x80")], Dead("invalid_utf8"));
    cases.flat("bad UTF-8 as ua", &[("type", b"heartbeat"), ("user", b"bad-ua"), ("ua", bad)], present("bad-ua"));
    let odd_name = vec![(bad.to_vec(), bad.to_vec()), field("type", "heartbeat"), field("user", "odd-name")];
    cases.add("bad UTF-8 as name", odd_name, present("odd-name"));
    cases.json("bad UTF-8 in JSON", b"{\"type\":\"heartbeat\",\"user\":\"\xff\"}", Dead("invalid_utf8"));
    cases.json("bad UTF-8 in a JSON ua", b"{\"type\":\"heartbeat\",\"user\":\"jua\",\"ua\":\"\xff\"}", present("jua"));
    cases.json("a lone surrogate escape", br#"{"type":"heartbeat","user":"\ud800"}"#, Dead("invalid_utf8"));
    cases.json("a pair of escapes", br#"{"type":"heartbeat","user":"\ud83d\ude00\u0000"}"#, present("😀\0"));
    for user in ["a|b", "a%7Cb", "a/b", "{}", "{x}y", "new\nline", "nul\0byte", "\0", "|", "%", " ", "*[a]?", "%d+(", "-", "__proto__", "日本", "\r\n*1\r\n", "\u{202e}", "\u{1b}[2J"] {
        cases.add(&format!("the user {user:?}"), heartbeat(user), present(user));
    }
    let (longest, longer) = ("u".repeat(256), "u".repeat(257));
    cases.add("256 bytes as user", heartbeat(&longest), present(&longest));
    cases.add("257 bytes as user", heartbeat(&longer), Dead("field_too_long"));
    let everything: &[(&str, &[u8])] = &[
        ("type", b"heartbeat"), ("user", b"odd|ids\0"), ("ip", b"|\n"), ("token", b"t|{}\0/"), ("sid", b"s|\n{}"),
        ("doc", b"d|:users\0"), ("connection", b"c|%7C"),
    ];
    cases.flat("odd identifiers everywhere", everything, Present(join(&["odd|ids\0", "|\n"])));
}

fn sizes(cases: &mut Cases) {
    let big = vec![b'x'; 100 << 10];
    cases.flat("100 KB as user", &[("type", b"heartbeat"), ("user", &big)], Dead("field_too_long"));
    cases.flat("100 KB unknown", &[("type", b"heartbeat"), ("user", b"x"), ("?", &big)], Dead("field_too_long"));
    let long_name = vec![field("type", "heartbeat"), field("user", "x"), (big.clone(), b"1".to_vec())];
    cases.add("100 KB as name", long_name, Dead("field_too_long"));
    cases.flat("5 MB unknown", &[("type", b"heartbeat"), ("user", b"x"), ("?", &vec![0; 5 << 20])], Dead("field_too_long"));
    cases.flat("16 KiB page", &[("type", b"heartbeat"), ("user", b"page"), ("page", &big[..16 << 10])], present("page"));
    cases.flat("16 KiB page and a byte", &[("type", b"heartbeat"), ("user", b"x"), ("page", &big[..(16 << 10) + 1])], Dead("field_too_long"));
    for (bytes, user) in [(1 << 20, Some("mebibyte")), ((1 << 20) + 1, None)] {
        let mut data = format!(r#"{{"type":"heartbeat","user":"{}""#, user.unwrap_or("x"));
        data.push_str(&" ".repeat(bytes - data.len() - 1));
        data.push('}');
        assert_eq!(data.len(), bytes);
        cases.json(&format!("{bytes} bytes of data"), data, user.map_or(Dead("field_too_long"), present));
    }
    let data = format!("[{}1]", "1,".repeat((1 << 19) - 2));
    cases.flat("1 MiB of session data", &[("type", b"session"), ("sid", b"fat"), ("data", data.as_bytes())], Applied);
    for (count, fate) in [(64, present("f64")), (65, Dead("too_many_fields"))] {
        cases.add(&format!("{count} fields"), with_fields(&format!("f{count}"), count), fate);
    }
    for count in [3_900, 3_901, 10_000] {
        cases.add(&format!("{count} fields"), with_fields("x", count), Dead("too_many_fields"));
    }
}

fn with_fields(user: &str, count: usize) -> Vec<Field> {
    let mut fields = heartbeat(user);
    fields.extend((fields.len()..count).map(|n| field(&format!("n{}", n % 100), &n.to_string())));
    fields
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}{}", open.repeat(depth), close.repeat(depth))
}

fn envelopes(cases: &mut Cases) {
    for data in ["{", "{\"type\":", "}", "{} {}", "{},", "5", "\"text\"", "null", "true", " ", "\u{feff}{}", "{'type':'x'}", "[1,]", "nul", "{\"type\":\"heartbeat\",\"user\":\"x\"}\0"] {
        cases.json(&format!("as JSON {data:?}"), data, Dead("invalid_json"));
    }
    let with = |user: &str, inside: &str| format!(r#"{{"type":"heartbeat","user":"{user}","x":{inside}}}"#);
    cases.json("JSON 128 deep", with("deep", &nested("[", "]", 127)), present("deep"));
    cases.json("JSON 129 deep", with("x", &nested("[", "]", 128)), Dead("invalid_json"));
    cases.json("JSON 100,000 deep", nested("[", "]", 100_000), Dead("invalid_json"));
    cases.json("JSON that only opens", "[{\"a\":".repeat(100_000), Dead("invalid_json"));
    cases.json("a number beyond numbers", with("1e999", "1e999"), present("1e999"));
    cases.json("a member named twice", br#"{"user":"x","type":"heartbeat","user":"second"}"#, present("second"));
    cases.json("a number as user", br#"{"type":"heartbeat","user":5}"#, Dead("invalid_value"));
    cases.json("an object as user", br#"{"type":"heartbeat","user":{"a":1}}"#, Dead("invalid_value"));
    let html: &[(&str, &[u8])] = &[("datacontenttype", b"text/html"), ("data", b"{}")];
    cases.flat("another content type", html, Dead("unsupported_content_type"));
    let cloud = json!({"specversion": "1.0", "type": "heartbeat", "data": {"user": "cloud", "data": {"user": "third"}}});
    cases.json("three levels", cloud.to_string(), present("cloud"));
    let session: &[(&str, &[u8])] = &[("type", b"session"), ("sid", b"s"), ("data", b"{\"a\":")];
    cases.flat("broken session data", session, Dead("invalid_json"));
    let session: &[(&str, &[u8])] = &[("type", b"session"), ("sid", b"s"), ("data", b"\"\xff\"")];
    cases.flat("session data in bad UTF-8", session, Dead("invalid_json"));
    let deep = nested("[", "]", 100_000);
    let session: &[(&str, &[u8])] = &[("type", b"session"), ("sid", b"s"), ("data", deep.as_bytes())];
    cases.flat("deep session data", session, Dead("invalid_json"));
}

fn messagepack(cases: &mut Cases) {
    let bad: [&[u8]; 13] = [
        b"\xc1", b"\x81", b"\x81\xa4type", b"\xa1", b"\x05", b"\xc0", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\x80\x80",
        b"\x82\xa4type\xa9heartbeat\xa4user\xdb\xff\xff\xff\xff",
    ];
    for data in bad {
        cases.msgpack(&format!("as MessagePack {:?}", data.escape_ascii().to_string()), data, Dead("invalid_msgpack"));
    }
    // 4 billion elements, some of which are there.
    let claims = [b"\xdd\xff\xff\xff\xff".to_vec(), vec![0xc0; 50_000]].concat();
    cases.msgpack("MessagePack of 4 billion elements", &claims, Dead("invalid_msgpack"));
    let deep = [vec![0x91; 100_000], vec![0xc0]].concat();
    cases.msgpack("MessagePack 100,000 deep", &deep, Dead("invalid_msgpack"));
    let with = |user: &str, depth: usize| {
        let mut data = packed(&json!({"type": "heartbeat", "user": user}));
        data[0] += 1;
        data.extend_from_slice(b"\xa1x");
        data.extend(vec![0x91; depth]);
        data.push(0xc0);
        data
    };
    cases.msgpack("MessagePack 128 deep", &with("mdeep", 127), present("mdeep"));
    cases.msgpack("MessagePack 129 deep", &with("x", 128), Dead("invalid_msgpack"));
    cases.msgpack("binary as user", b"\x82\xa4type\xa9heartbeat\xa4user\xc4\x03bin", present("bin"));
    cases.msgpack("bad UTF-8 in MessagePack", b"\x82\xa4type\xa9heartbeat\xa4user\xa1\xff", Dead("invalid_utf8"));
    cases.msgpack("an integer as key", b"\x83\xa4type\xa9heartbeat\xa4user\xa4ikey\x01\x02", present("ikey"));
    for (name, data) in [("binary", &b"\xc4\x01a"[..]), ("no number", b"\xcb\x7f\xf8\0\0\0\0\0\0"), ("an extension", b"\xd6\xff\0\0\0\0"), ("an integer key", b"\x81\x01\x02")] {
        let session = [&b"\x83\xa4type\xa7session\xa3sid\xa1s\xa4data"[..], data].concat();
        cases.msgpack(&format!("{name} as session data"), &session, Dead("invalid_value"));
    }
}

fn many_events(cases: &mut Cases) {
    let beats = |prefix: &str, count: usize| Value::from_iter((0..count).map(|n| beat(&format!("{prefix}{n}"))));
    cases.json("1,000 events", beats("k", 1_000).to_string(), present("k999"));
    cases.json("1,001 events", beats("x", 1_001).to_string(), Dead("too_many_events"));
    cases.msgpack("1,000 events in MessagePack", &packed(&beats("m", 1_000)), present("m999"));
    cases.msgpack("1,001 events in MessagePack", &packed(&beats("x", 1_001)), Dead("too_many_events"));
    cases.json("no events", "[]", Applied);
    let under_type = beats("x", 2).to_string();
    cases.flat("an array under a type", &[("type", b"heartbeat"), ("data", under_type.as_bytes())], Dead("unexpected_array"));
    let elements = [beat("p1").to_string(), " {\"type\":\"view\", \"user\":\"x\"}".to_owned(), "5".to_owned(), beat("p2").to_string(), "[]".to_owned()];
    let bad = vec![
        (1, "missing_field", elements[1].trim().as_bytes().to_vec()),
        (2, "invalid_json", b"5".to_vec()),
        (4, "invalid_json", b"[]".to_vec()),
    ];
    cases.json("bad elements among good", format!("[{}]", elements.join(",")), Elements(bad));
    let (good, bad) = (packed(&beat("p3")), packed(&json!({"type": "?", "user": "x"})));
    let both = [&b"\x92"[..], &bad, &good].concat();
    cases.msgpack("a bad element in MessagePack", &both, Elements(vec![(0, "unknown_type", bad)]));
    let twice: &[(&str, &[u8])] = &[("data", b"{}"), ("id", b"1"), ("data", br#"[{"type":"heartbeat","user":"p4"},7]"#)];
    cases.flat("data named twice, packed", twice, Elements(vec![(1, "invalid_json", b"7".to_vec())]));
    let views: Vec<Value> = (0..300).map(|n| json!({"type": "view", "user": "v", "token": "tv", "item": format!("i{}", n % 7)})).collect();
    cases.json("300 views of 7 items", Value::from(views).to_string(), Applied);
}

fn times(cases: &mut Cases) {
    for time in ["yesterday", "1790000000", "17900000000000", "-790000000000", "1e12", "2026-13-01T00:00:00Z", "2026-09-21", "０", "1790000000000 "] {
        cases.flat(&format!("the time {time:?}"), &[("type", b"heartbeat"), ("user", b"x"), ("time", time.as_bytes())], Dead("invalid_time"));
    }
    for time in ["9999999999999", "9999-12-31T23:59:59Z", "2099-01-01t00:00:00.999999999+23:59"] {
        let user = format!("at {time}");
        cases.flat(&user, &[("type", b"heartbeat"), ("user", user.as_bytes()), ("time", time.as_bytes())], present(&user));
    }
    for time in ["0000000000000", "1000000000000", "1969-12-31T23:59:59Z", "0000-01-01T00:00:00Z"] {
        let user = format!("at {time}");
        cases.flat(&user, &[("type", b"login"), ("user", user.as_bytes()), ("token", user.as_bytes()), ("time", time.as_bytes())], Applied);
    }
    cases.json("a fraction as time", br#"{"type":"heartbeat","user":"x","time":1790000000000.5}"#, Dead("invalid_time"));
    cases.json("an array as time", br#"{"type":"heartbeat","user":"x","time":[1790000000000]}"#, Dead("invalid_time"));
}

fn cases() -> Vec<Case> {
    let mut cases = Cases::default();
    for kind in [missing_and_unknown, bad_text, sizes, envelopes, messagepack, many_events, times] {
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
        faults.extend(case.faults(scene, &own).into_iter().map(|fault| format!("{:?}: {fault}", case.name)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

impl Case {
    /// What did not become of it as it should.
    fn faults(&self, scene: &Scene, letters: &[&DeadLetter]) -> Vec<String> {
        let expected: Vec<(Option<usize>, &str, Vec<Field>)> = match &self.fate {
            Dead(reason) => vec![(None, reason, self.fields.clone())],
            Elements(bad) => bad.iter().map(|bad| element(&self.fields, bad)).collect(),
            Present(_) | Applied => Vec::new(),
        };
        let mut faults = Vec::new();
        if let Present(field) = &self.fate
            && !scene.is_present(field)
        {
            faults.push("the user is not present".to_owned());
        }
        let found: Vec<_> = letters.iter().map(|l| (l.index, l.reason.as_str(), &l.detail)).collect();
        if letters.len() != expected.len() {
            faults.push(format!("{} dead letters: {found:?}", letters.len()));
        }
        for (letter, (index, reason, fields)) in letters.iter().zip(&expected) {
            let detail = &letter.detail;
            let short = !detail.is_empty() && detail.len() < 400 && !detail.contains(char::is_control);
            let checks = [
                ("place and reason", (letter.index, letter.reason.as_str()) == (*index, *reason)),
                ("original pairs, unchanged and in order", letter.original == *fields),
                ("stream", letter.stream == scene.deployment.stream(0)),
                ("deliveries", (1..=3).contains(&letter.deliveries)),
                ("detail: one short line", short),
            ];
            let wrong = checks.iter().filter(|(_, is_right)| !is_right);
            faults.extend(wrong.map(|(what, _)| format!("{what}; found {found:?}")));
        }
        faults
    }
}

/// The letter of an element: of the pairs, the `data` that counts holds the element's bytes.
fn element(fields: &[Field], bad: &(usize, &'static str, Vec<u8>)) -> (Option<usize>, &'static str, Vec<Field>) {
    let mut fields = fields.to_vec();
    fields.iter_mut().rfind(|(name, _)| name == b"data").unwrap().1.clone_from(&bad.2);
    (Some(bad.0), bad.1, fields)
}

#[test]
fn hostile_entries_are_dead_lettered_or_applied_and_never_stick() {
    let cases = cases();
    in_parallel([("500", ""), ("3", ""), ("40", "after-reply:3"), ("40", "after-fold:4")], |(batch, failpoint)| {
        let scene = Scene::start(&[]);
        let ids = add_all(&scene, &cases);
        let arguments = ["--batch", batch];
        if !failpoint.is_empty() {
            scene.worker_with(&arguments, &[("ROLLCALL_TEST_FAILPOINT", failpoint)]).wait(SOON);
        }
        let worker = scene.worker(&arguments);
        scene.wait_finished(SOON, "nothing sticks");
        check(&scene, &cases, &ids);
        scene.verify(&format!("hostile entries by {batch}, {failpoint}"));
        assert!(!worker.log().contains("not projecting"), "{}", worker.log());
    });
}

/// The last ids there are: nothing can be added after them, but all that reads them has to go on.
#[test]
fn the_last_ids_there_are_stop_neither_worker_nor_janitor() {
    let scene = Scene::start(&[]);
    let stream = scene.deployment.stream(0);
    scene.add_heartbeat("early");
    for (seq, user) in [(u64::MAX - 1, "late"), (u64::MAX, "last")] {
        let id = format!("{}-{seq}", u64::MAX);
        scene.command::<String>(&["XADD", &stream, &id, "type", "heartbeat", "user", user]);
    }
    let _worker = scene.worker(&["--batch", "1"]);
    scene.wait_finished(SOON, "the last ids are finished");
    scene.verify("the last ids");
    let janitor = scene.janitor(&[]);
    let last = format!("{0}-{0}", u64::MAX);
    wait_until(SOON, "the janitor comes to the stream", || {
        assert!(!janitor.log().contains("not sweeping"), "{}", janitor.log());
        let janitor = scene.deployment.keys(0).janitor();
        scene.command::<Option<String>>(&["HGET", &janitor, "finished:rollcall"]).as_deref() == Some(&last)
    });
}

/// A producer sent microseconds as ids; whoever repairs the stream has to delete it. What is added then has
/// smaller ids than what was finished before.
#[test]
fn a_stream_that_was_deleted_and_begins_anew_is_read_from_its_beginning() {
    in_parallel([true, false], |worker_sees_it_missing| {
        let scene = Scene::start(&[]);
        let stream = scene.deployment.stream(0);
        let _janitor = scene.janitor(&[]);
        let mut worker = scene.worker(&[]);
        let far = "1790000000000000-0";
        scene.command::<String>(&["XADD", &stream, far, "type", "heartbeat", "user", "far"]);
        let janitor = scene.deployment.keys(0).janitor();
        wait_until(SOON, "the janitor saw it finished", || {
            scene.command::<Option<String>>(&["HGET", &janitor, "finished:rollcall"]).as_deref() == Some(far)
        });
        if !worker_sees_it_missing {
            worker.kill();
        }
        scene.command::<()>(&["DEL", &stream]);
        if worker_sees_it_missing {
            wait_until(SOON, "the worker makes the group anew", || scene.command::<i64>(&["EXISTS", &stream]) == 1);
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
    let mut fields: Vec<Field> = (0..62).map(|n| field(&format!("x{n}"), &"x".repeat(16 << 10))).collect();
    fields.push(field("data", &format!("[0{}]", ",0".repeat(999))));
    scene.add(&fields);
    scene.add_heartbeat("good");
    let worker = scene.worker(&["--claim-idle", "30s"]);
    wait_until(SOON, "the neighbour is applied", || scene.is_present("good|"));
    scene.wait_finished(SOON, "the entry is finished");
    let bytes: u64 = scene.command(&["MEMORY", "USAGE", &scene.deployment.keys(0).dead(), "SAMPLES", "0"]);
    assert!(bytes < 64 << 20, "one entry of 1 MiB became {} MiB of dead letters:\n{}", bytes >> 20, worker.log());
}
