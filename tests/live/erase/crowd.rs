//! A user among others who do the same things with their own tokens and sessions, in every form of an entry.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use redis::Commands as _;
use rollcall::entry::{Entry, EntryId, Field};
use rollcall::event::TYPES;
use rollcall::key::partition_of;
use serde_json::{Value, json};

use crate::harness::{settle, xadd};
use crate::scene::{Scene, block_on};
use crate::support::dump;
use crate::support::events::{field, routing_member};

pub struct Crowd {
    pub user: String,
    others: Vec<String>,
    rng: Rng,
    partitions: u16,
    /// What was added: the partition, the id, the events.
    pub added: Vec<(u16, EntryId, Vec<Value>)>,
    started_ms: u64,
    /// Further users who are erased.
    pub gone: Vec<String>,
    /// From now on the user does nothing.
    pub only_others: bool,
}

impl Crowd {
    pub fn new(scene: &Scene, seed: u64, user: &str, others: &[&str]) -> Self {
        Self {
            user: user.to_owned(),
            others: others.iter().map(|other| (*other).to_owned()).collect(),
            rng: Rng::with_seed(seed),
            partitions: scene.deployment.partitions(),
            added: Vec::new(),
            started_ms: dump::server_now(&mut scene.connection()),
            gone: Vec::new(),
            only_others: false,
        }
    }

    /// Tokens and sessions belong to one user each, and their names do not show whose they are.
    fn own(&self, what: &str, user: &str, n: u32) -> String {
        let place = self.others.iter().position(|other| other == user).map_or(9, |place| place);
        format!("{what}{place}/{n}")
    }

    fn is_theirs(&self, event: &Value) -> bool {
        let mut gone = self.gone.iter().chain([&self.user]);
        match event["user"].as_str() {
            Some(user) => gone.any(|gone| gone == user),
            None => gone.any(|gone| {
                let sid = self.own("s", gone, 0);
                event["sid"].as_str().unwrap().starts_with(&sid[..sid.len() - 1])
            }),
        }
    }

    /// Some events of a user that belong together.
    fn events(&mut self, user: &str) -> Vec<Value> {
        let n = self.rng.u32(..3);
        let (token, sid) = (self.own("t", user, n), self.own("s", user, n));
        let doc = format!("d{}", self.rng.u32(..4));
        let item = format!("i{}", self.rng.u32(..6));
        let ip = format!("10.0.0.{}", self.rng.u32(..3));
        let connection = format!("c{}", self.rng.u32(..2));
        match self.rng.u32(..9) {
            0 => {
                vec![json!({"type": "heartbeat", "user": user, "ip": ip, "page": "/p", "ua": "u"})]
            }
            1 => vec![
                json!({"type": "heartbeat", "user": user, "ip": ip, "token": token, "sid": sid,
                "doc": doc, "connection": connection}),
            ],
            2 => vec![json!({"type": "login", "user": user, "token": token, "sid": sid})],
            3 | 4 => vec![json!({"type": "view", "user": user, "token": token, "item": item})],
            5 => {
                let mut events = vec![
                    json!({"type": "session", "sid": sid, "user": user, "ttl": 3600}),
                    json!({"type": "session", "sid": sid, "data": {"of": n}}),
                    json!({"type": "session", "sid": sid, "user": user}),
                ];
                events.truncate(self.rng.usize(2..4));
                events
            }
            6 => vec![json!({"type": "document", "doc": doc, "user": user, "action": "join",
                "connection": connection})],
            7 => vec![json!({"type": "document", "doc": doc, "user": user, "action": "leave",
                "connection": connection})],
            _ => vec![json!({"type": "hb", "user": user, "ip": ip})],
        }
    }

    /// Adds entries of all forms; logouts only as single entries, so that the time of an ending stays.
    pub fn add(&mut self, scene: &Scene, count: usize) {
        for _ in 0..count {
            let (partition, events, fields) = self.entry();
            let mut add = redis::cmd("XADD");
            add.arg(scene.deployment.stream(partition)).arg("*");
            xadd(&mut add, &fields);
            let id: String = add.query(&mut scene.connection()).unwrap();
            self.added.push((partition, id.parse().unwrap(), events));
        }
    }

    /// Adds a packed entry to the only partition.
    pub fn add_packed(&mut self, scene: &Scene, events: Vec<Value>) {
        let id = scene.add(&[("data".into(), serde_json::to_vec(&events).unwrap())]);
        self.added.push((0, id, events));
    }

    /// The next entry: its partition, its events, its fields.
    pub fn entry(&mut self) -> (u16, Vec<Value>, Vec<Field>) {
        let is_flat = self.rng.u32(..3) == 0;
        let mut by_partition: BTreeMap<u16, Vec<Value>> = BTreeMap::new();
        for _ in 0..self.rng.u32(1..5) {
            let everybody = self.others.len();
            let most = if self.only_others { everybody } else { everybody + 2 };
            let user = match self.rng.usize(..most) {
                place if place < everybody => self.others[place].clone(),
                _ => self.user.clone(),
            };
            for event in self.events(&user) {
                by_partition.entry(self.place_of(&event)).or_default().push(event);
            }
        }
        let (partition, events) = by_partition.into_iter().max_by_key(|(_, e)| e.len()).unwrap();
        if is_flat {
            let mut event = events[0].clone();
            if self.rng.u32(..4) == 0 && event["type"] != "session" && event["type"] != "document" {
                event["type"] = json!("logout");
            }
            let fields = self.flat(&event);
            return (partition, vec![event], fields);
        }
        let fields = match self.rng.u32(..3) {
            0 => {
                let packed = rmp_serde::to_vec(&events).unwrap();
                vec![field("datacontenttype", "application/msgpack"), ("data".into(), packed)]
            }
            _ => vec![("data".into(), serde_json::to_vec(&events).unwrap()), field("source", "x")],
        };
        (partition, events, fields)
    }

    fn flat(&mut self, event: &Value) -> Vec<Field> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match self.rng.u32(..3) {
            0 if event["type"] != "session" => {
                let event = json!({"specversion": "1.0", "id": "1", "source": "/x", "type": event["type"], "data": event});
                vec![("data".into(), serde_json::to_vec(&event).unwrap())]
            }
            1 => vec![("data".into(), serde_json::to_vec(event).unwrap())],
            _ => {
                let members = event.as_object().unwrap().iter();
                members.map(|(name, value)| field(name, &text(value))).collect()
            }
        }
    }

    fn place_of(&self, event: &Value) -> u16 {
        // What is not an event would be rejected anywhere.
        let name = match event["type"].as_str().unwrap() {
            "hb" => "user",
            kind => routing_member(kind),
        };
        partition_of(event[name].as_str().unwrap(), self.partitions)
    }

    /// How often each item was viewed in a partition, by the user or by others, in entries up to an id.
    fn views(&self, partition: u16, by_user: bool, until: EntryId) -> BTreeMap<&str, u64> {
        let mut views = BTreeMap::new();
        let here = self.added.iter().filter(|(place, id, _)| *place == partition && *id <= until);
        for event in here.flat_map(|(_, _, events)| events).filter(|e| e["type"] == "view") {
            if self.is_theirs(event) == by_user {
                *views.entry(event["item"].as_str().unwrap()).or_default() += 1;
            }
        }
        views
    }

    /// Others' views are counted once each. The user's stay counted if they were counted before the erasure, which is
    /// certain for those in entries up to an id. Leaves only the others' in the ranking.
    fn verify_views(&self, scene: &Scene, partition: u16, counted: EntryId) {
        let (mut conn, key) = (scene.connection(), scene.deployment.keys(partition).viewed());
        let others = self.views(partition, false, EntryId::GREATEST);
        let (least, most) =
            (self.views(partition, true, counted), self.views(partition, true, EntryId::GREATEST));
        let found: Vec<(String, u64)> = conn.zrange_withscores(&key, 0, -1).unwrap();
        for (item, found) in found {
            let of = |views: &BTreeMap<&str, u64>| views.get(&*item).copied().unwrap_or(0);
            let (least, most) = (of(&others) + of(&least), of(&others) + of(&most));
            assert!((least..=most).contains(&found), "{item}: {found} of {least} to {most}");
            match of(&others) {
                0 => conn.zrem::<_, _, ()>(&key, &item).unwrap(),
                count => conn.zadd::<_, _, _, ()>(&key, &item, count).unwrap(),
            }
        }
    }

    /// Others' state is what their events say, and nothing else exists. The user's views up to `counted` were
    /// counted.
    pub fn verify(&self, scene: &Scene, counted: EntryId, what: &str) {
        for partition in 0..self.partitions {
            self.verify_views(scene, partition, counted);
            let deployment = &scene.deployment;
            let mut model = deployment.model(partition);
            for (_, id, events) in self.added.iter().filter(|(place, ..)| *place == partition) {
                let left: Vec<_> = events.iter().filter(|event| !self.is_theirs(event)).collect();
                let data = serde_json::to_vec(&left).unwrap();
                let entry = Entry::new(*id, [(&b"data"[..], data.as_slice())]);
                model.apply_entry(&entry, self.started_ms);
            }
            block_on(async {
                let mut connection = deployment.async_connection(partition).await;
                let mut conn = scene.connection();
                let sweeper = deployment.sweeper(partition);
                let settled = settle(&mut connection, &mut conn, &sweeper, &model).await;
                settled.unwrap_or_else(|fault| panic!("{what}, partition {partition}:\n{fault}"));
            });
        }
    }

    /// Exactly the dead letters of others exist, each once.
    pub fn verify_letters(&self, scene: &Scene) {
        let bad = |event: &&Value| event["type"] == "hb" && !self.is_theirs(event);
        let expected = self.added.iter().flat_map(|(_, _, events)| events).filter(bad).count();
        let letters = (0..self.partitions).flat_map(|partition| {
            dump::dead_letters(&mut scene.connection(), &scene.deployment.keys(partition))
        });
        assert_eq!(letters.count(), expected, "others' dead letters");
    }

    /// Every number of a change exists or was erased, and none is both.
    pub fn verify_numbers(&self, scene: &Scene) {
        let mut conn = scene.connection();
        for partition in 0..self.partitions {
            let keys = scene.deployment.keys(partition);
            let last: u64 = conn.get::<_, Option<u64>>(keys.changes_seq()).unwrap().unwrap_or(0);
            let erased: Vec<u64> = conn.zrange(keys.changes_erased(), 0, -1).unwrap();
            let kept = dump::changes(&mut conn, &keys).into_iter().map(|change| {
                String::from_utf8(change["seq"].clone()).unwrap().parse::<u64>().unwrap()
            });
            let all: Vec<u64> = kept.chain(erased).collect();
            let distinct: BTreeSet<u64> = all.iter().copied().collect();
            assert_eq!((distinct.len(), all.len() as u64), (all.len(), last), "each once");
        }
    }
}

#[test]
fn every_type_is_drawn() {
    let mut crowd = Crowd {
        user: "ann".to_owned(),
        others: Vec::new(),
        rng: Rng::with_seed(1),
        partitions: 1,
        added: Vec::new(),
        started_ms: 0,
        gone: Vec::new(),
        only_others: false,
    };
    let events: Vec<_> = (0..500).flat_map(|_| crowd.entry().1).collect();
    for kind in TYPES {
        assert!(events.iter().any(|event| event["type"] == *kind), "{kind}");
    }
}
