//! Each structure is damaged by hand: exactly the differences are named, with the entries that should have won.

use std::collections::{BTreeMap, BTreeSet};

use rollcall::entry::{Entry, EntryId, Field};
use rollcall::key::{Keys, escape, join, partition_of};
use serde_json::Value;

use super::{assert_no_shadow, verify};
use crate::harness::id;
use crate::scene::{SOON, Scene, Traffic, heartbeat};
use crate::support::events::field;

/// Names that mean something to a pattern, to a joined name, to a line.
const ODD: [&str; 4] = ["a|b%", "*[x]?", "new\nline", "%7C{y}"];

/// Named entries, each with an id of its own.
pub struct Known<'s> {
    pub scene: &'s Scene,
    next: u64,
    entries: BTreeMap<u16, Vec<Entry>>,
    pub ids: BTreeMap<String, EntryId>,
}

impl<'s> Known<'s> {
    /// The first entries are so old that everything that counts is in the stream.
    pub fn new(scene: &'s Scene) -> Self {
        let now = scene.now();
        let first = id(now - 3_000_000, 0);
        let partitions = scene.deployment.partitions();
        let entries =
            (0..partitions).map(|p| (p, vec![Entry::new(first, heartbeat("first"))])).collect();
        Self { scene, next: now - 20_000, entries, ids: BTreeMap::new() }
    }

    fn partitions(&self) -> u16 {
        self.scene.deployment.partitions()
    }

    /// The names of the partition that an identifier belongs to.
    pub fn keys(&self, routed: &str) -> Keys {
        self.scene.deployment.keys(partition_of(routed, self.partitions()))
    }

    /// Adds an event that belongs where `routed` does, and remembers its entry under a name.
    pub fn add(&mut self, name: &str, routed: &str, members: &[(&str, &str)]) -> u64 {
        let fields: Vec<Field> = members.iter().map(|(name, text)| field(name, text)).collect();
        self.next += 7;
        let at = id(self.next, 0);
        let partition = partition_of(routed, self.partitions());
        self.entries.get_mut(&partition).unwrap().push(Entry::new(at, fields));
        self.ids.insert(name.to_owned(), at);
        self.next
    }

    /// Puts the entries into their streams.
    pub fn flush(&mut self) {
        for (partition, entries) in &mut self.entries {
            self.scene.deployment.add(*partition, &std::mem::take(entries));
        }
        self.scene.wait_finished(SOON, "applied");
    }
}

/// A damage: structure, key, member, the entry that should have won.
type Expected = BTreeSet<(String, String, Option<String>, Option<String>)>;

struct Damages<'k> {
    known: Known<'k>,
    expected: Expected,
}

impl Damages<'_> {
    fn expect(&mut self, structure: &str, key: &str, member: Option<&str>, entry: &str) {
        let entry = self.known.ids.get(entry).map(ToString::to_string);
        let member = member.map(str::to_owned);
        self.expected.insert((structure.to_owned(), key.to_owned(), member, entry));
    }

    fn run(&self, words: &[&str]) {
        let _: redis::Value = self.known.scene.command(words);
    }

    fn people(&mut self, odd: &str) {
        let user = |what: &str| format!("{what}-{odd}");
        let at = |known: &mut Known<'_>, name: &str| {
            let user = user(name);
            known.add(
                &user,
                &user,
                &[("type", "heartbeat"), ("user", &user), ("ip", "1|2"), ("page", "/p")],
            )
        };
        let mut times = BTreeMap::new();
        for name in ["minute", "activity", "older", "gone", "stale", "ahead", "out"] {
            times.insert(name, at(&mut self.known, name));
        }
        let out = user("out");
        self.known.add(&format!("{out} out"), &out, &[("type", "logout"), ("user", &out)]);
        self.known.flush();

        let keys = self.known.keys(&user("minute"));
        let minute = keys.online_minute(times["minute"] / 60_000);
        self.run(&["SREM", &minute, &user("minute")]);
        self.expect("online minute", &minute, Some(&user("minute")), &user("minute"));
        for (name, words) in [("activity", &["DEL"][..]), ("older", &["SET"])] {
            let keys = self.known.keys(&user(name));
            let key = format!("{}{}", keys.activity(), user(name));
            let seconds = (times[name] / 1000 - 5).to_string();
            let more: &[&str] = if words[0] == "SET" { &[&seconds, "KEEPTTL"] } else { &[] };
            self.run(&[words, &[&key], more].concat());
            self.expect("activity", &key, None, &user(name));
        }
        let value = |ms: u64| format!("{{\"lastSeen\":{ms},\"user\":\"x\"}}");
        for name in ["gone", "stale", "ahead", "out"] {
            let (keys, field) = (self.known.keys(&user(name)), join(&[&user(name), "1|2"]));
            let text = match name {
                "stale" => value(times[name] - 1),
                _ => value(times[name] + 1),
            };
            match name {
                "gone" => self.run(&["HDEL", &keys.presence(), &field]),
                "out" => {
                    // Its ending, too.
                    self.run(&["HSET", &keys.presence(), &field, &text]);
                    self.run(&["ZREM", &keys.presence_ended(), &escape(&user("out"))]);
                    let name = escape(&user("out")).into_owned();
                    let entry = format!("{} out", user("out"));
                    self.expect("presence ending", &keys.presence_ended(), Some(&name), &entry);
                }
                _ => self.run(&["HSET", &keys.presence(), &field, &text]),
            }
            let entry = if name == "out" { format!("{} out", user(name)) } else { user(name) };
            self.expect("presence", &keys.presence(), Some(&field), &entry);
        }
    }

    fn tokens(&mut self, odd: &str) {
        let user = format!("u-{odd}");
        let token = |what: &str| format!("{what}-{odd}");
        let keys = self.known.keys(&user);
        for name in ["lost", "taken", "viewer", "ended", "forgot", "extra"] {
            let (token, item) = (token(name), format!("item-{name}-{odd}"));
            let view = [("type", "view"), ("user", &user), ("token", &token), ("item", &item)];
            self.known.add(&token, &user, &view);
        }
        for name in ["ended", "forgot"] {
            let token = token(name);
            let logout = [("type", "logout"), ("user", &user), ("token", &token)];
            self.known.add(&format!("{token} end"), &user, &logout);
        }
        self.known.flush();
        let now = (self.known.scene.now() / 1000).to_string();
        let (login, recent) = (keys.login(), keys.recent());
        self.run(&["HDEL", &login, &token("lost")]);
        self.run(&["ZREM", &recent, &token("lost")]);
        self.expect("login", &login, Some(&token("lost")), &token("lost"));
        self.expect("recent token", &recent, Some(&token("lost")), &token("lost"));
        self.run(&["HSET", &login, &token("taken"), "somebody"]);
        self.expect("login", &login, Some(&token("taken")), &token("taken"));
        let viewed = format!("{}{}", keys.viewed(), token("viewer"));
        let item = format!("item-viewer-{odd}");
        self.run(&["ZREM", &viewed, &item]);
        self.expect("viewed item", &viewed, Some(&item), &token("viewer"));
        let viewed = format!("{}{}", keys.viewed(), token("extra"));
        self.run(&["ZADD", &viewed, &now, "nobody viewed it"]);
        self.expect("viewed item", &viewed, Some("nobody viewed it"), "");
        self.run(&["ZINCRBY", &keys.viewed(), "-1", &item]);
        self.expect("ranking", &keys.viewed(), Some(&item), &token("viewer"));
        let item = format!("item-taken-{odd}");
        self.run(&["ZREM", &keys.viewed(), &item]);
        self.expect("ranking", &keys.viewed(), Some(&item), &token("taken"));
        self.run(&["ZADD", &recent, &now, &token("ended")]);
        self.run(&["HSET", &login, &token("ended"), "u"]);
        for (structure, key) in [("login", &login), ("recent token", &recent)] {
            let entry = format!("{} end", token("ended"));
            self.expect(structure, key, Some(&token("ended")), &entry);
        }
        self.run(&["ZREM", &keys.tokens_ended(), &token("forgot")]);
        let entry = format!("{} end", token("forgot"));
        self.expect("token ending", &keys.tokens_ended(), Some(&token("forgot")), &entry);
    }

    fn sessions(&mut self, odd: &str) {
        let sid = |what: &str| format!("{what}-{odd}");
        let mut times = BTreeMap::new();
        for name in ["lost", "stale", "data", "other", "long", "ended"] {
            let sid = sid(name);
            let mut event = vec![("type", "session"), ("sid", &sid), ("data", r#"{"a":1}"#)];
            if name == "long" {
                event.push(("ttl", "7200"));
            }
            times.insert(name, self.known.add(&sid, &sid, &event));
        }
        let ended = sid("ended");
        let end = [("type", "session"), ("sid", &ended), ("action", "terminate")];
        self.known.add(&format!("{ended} end"), &ended, &end);
        self.known.flush();
        let of = |known: &Known<'_>, name: &str| (sid(name), known.keys(&sid(name)));
        let (lost, keys) = of(&self.known, "lost");
        self.run(&["HDEL", &keys.sessions(), &lost]);
        self.expect("session", &keys.sessions(), Some(&lost), &lost);
        let value = |ms: u64| format!("{{\"last_activity\":{ms},\"sid\":\"x\"}}");
        let (stale, keys) = of(&self.known, "stale");
        self.run(&["HSET", &keys.sessions(), &stale, &value(times["stale"] - 1)]);
        self.expect("session", &keys.sessions(), Some(&stale), &stale);
        let (data, keys) = of(&self.known, "data");
        let key = format!("{}{data}", keys.session_data());
        self.run(&["DEL", &key]);
        self.expect("session data", &key, None, &data);
        let (other, keys) = of(&self.known, "other");
        let key = format!("{}{other}", keys.session_data());
        self.run(&["SET", &key, r#"{"a":0}"#, "KEEPTTL"]);
        self.expect("session data", &key, None, &other);
        let (long, keys) = of(&self.known, "long");
        self.run(&["HDEL", &keys.session_ttls(), &long]);
        self.expect("session lifetime", &keys.session_ttls(), Some(&long), &long);
        let (ended, keys) = of(&self.known, "ended");
        self.run(&["HSET", &keys.sessions(), &ended, &value(times["ended"])]);
        self.expect("session", &keys.sessions(), Some(&ended), &format!("{ended} end"));
    }

    fn documents(&mut self, odd: &str) {
        let doc = |what: &str| format!("{what}-{odd}");
        for name in ["lost", "user", "count", "joined"] {
            for user in ["x|1", "y%2"] {
                let doc = doc(name);
                let join = [("type", "document"), ("doc", &doc), ("user", user)];
                let join = [&join[..], &[("action", "join"), ("connection", "c|1")]].concat();
                self.known.add(&format!("{doc} {user}"), &doc, &join);
            }
        }
        self.known.flush();
        let of = |known: &Known<'_>, name: &str| (doc(name), known.keys(&doc(name)));
        let (lost, keys) = of(&self.known, "lost");
        self.run(&["DEL", &keys.document_count(&lost)]);
        self.expect("document count", &keys.document_count(&lost), None, &format!("{lost} y%2"));
        let (user, keys) = of(&self.known, "user");
        self.run(&["SREM", &keys.document_users(&user), "x|1"]);
        let entry = format!("{user} x|1");
        self.expect("document user", &keys.document_users(&user), Some("x|1"), &entry);
        let (count, keys) = of(&self.known, "count");
        self.run(&["SET", &keys.document_count(&count), "9"]);
        self.expect("document count", &keys.document_count(&count), None, &format!("{count} y%2"));
        let level = format!("2:1:{}", escape(&count));
        self.run(&["HDEL", &keys.docs_levels(), &level]);
        self.expect("threshold level", &keys.docs_levels(), Some(&level), &format!("{count} y%2"));
        let (joined, keys) = of(&self.known, "joined");
        let member = join(&[&joined, "x|1", "c|1"]);
        self.run(&["ZREM", &keys.docs_joined(), &member]);
        let entry = format!("{joined} x|1");
        self.expect("joined connection", &keys.docs_joined(), Some(&member), &entry);
        let pair = join(&[&joined, "y%2"]);
        self.run(&["HSET", &keys.docs_connections(), &pair, "3"]);
        let entry = format!("{joined} y%2");
        self.expect("connections", &keys.docs_connections(), Some(&pair), &entry);
    }
}

/// The content of a report, in the form of the expectation.
fn found(report: &Value) -> Expected {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let differences = report["differences"].as_array().unwrap().iter();
    differences
        .map(|one| {
            let (structure, key) = (text(&one["structure"]).unwrap(), text(&one["key"]).unwrap());
            (structure, key, text(&one["member"]), text(&one["entry"]))
        })
        .collect()
}

/// Damages one of everything.
pub fn damage(scene: &Scene) -> Expected {
    let mut damages = Damages { known: Known::new(scene), expected: Expected::new() };
    for odd in ODD {
        damages.people(odd);
        damages.tokens(odd);
        damages.sessions(odd);
        damages.documents(odd);
    }
    damages.expected
}

#[test]
fn every_damage_is_named_with_the_entry_that_should_have_won() {
    for partitions in ["1", "4"] {
        let scene =
            Scene::start(&[("partitions", partitions), ("thresholds", "2:1"), ("max-skew", "1s")]);
        let _worker = scene.worker(&[]);
        let expected = damage(&scene);
        let traffic = Traffic::start(&scene, 3, 300);
        let (code, report) = verify(&scene, &[]);
        traffic.stop();
        let found = found(&report);
        let missed: Vec<_> = expected.difference(&found).collect();
        let wrong: Vec<_> = found.difference(&expected).collect();
        assert!(
            missed.is_empty() && wrong.is_empty(),
            "missed {missed:#?}, wrong {wrong:#?}\n{report:#}"
        );
        assert_eq!(code, 1);
        assert_no_shadow(&scene);
    }
}
