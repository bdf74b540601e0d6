//! The ground of repartition tests: producers that do not all learn of a new layout at once, fleets that must exit,
//! and the model of everything that was sent.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::Connection;
use rollcall::decode::Former;
use rollcall::entry::{Entry, EntryId, Field};
use rollcall::forward::forward;
use rollcall::key::{Keys, partition_of};
use rollcall::redis::scripts::sweep::Sweeper;
use serde_json::{Map, Value};

use crate::harness::{id, settle_keys, wait_until};
use crate::process::Worker;
use crate::scene::{SOON, Scene, add, block_on, try_command};
use crate::support::dump;
use crate::support::events::{Events, field, flat, routing_id};
use crate::support::model::Model;

pub const EVENTS: &str = "rollcall:events";

/// A partition of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub partitions: u16,
    pub index: u16,
}

/// What producers sent, and where.
pub type Sent = Arc<Mutex<Vec<(Place, Entry)>>>;

pub fn stream(place: Place) -> String {
    Keys::new("", place.partitions, place.index).named(EVENTS)
}

/// A random event of a user whose tokens nobody else has.
pub fn event(events: &mut Events) -> Map<String, Value> {
    let (_, mut event) = events.event();
    if let (Some(Value::String(user)), Some(Value::String(token))) =
        (event.get("user").cloned(), event.get("token").cloned())
    {
        event.insert("token".to_owned(), format!("{user} {token}").into());
    }
    event
}

/// Producers that send to layouts, each as if it were the only one.
pub struct Producers {
    over: Arc<AtomicBool>,
    newest: Arc<AtomicU16>,
    sent: Sent,
    /// Locked while one sends, so that no outcome is in doubt.
    pub sending: Arc<Mutex<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Producers {
    pub fn start(scene: &Scene, seed: u64) -> Self {
        let (over, sent) = (Arc::new(AtomicBool::new(false)), Sent::default());
        let (newest, sending) = (Arc::new(AtomicU16::new(1)), Arc::default());
        let url = scene.url();
        let (is_over, all, layout) = (over.clone(), sent.clone(), newest.clone());
        let turn: Arc<Mutex<()>> = Arc::clone(&sending);
        let thread = std::thread::spawn(move || {
            let mut conn = dump::connect(&url);
            let now = dump::server_now(&mut conn);
            let mut events = Events::new(seed, now);
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut layouts = vec![1];
            while !is_over.load(Ordering::Relaxed) {
                let newest = layout.load(Ordering::Relaxed);
                if layouts.last() != Some(&newest) {
                    layouts.push(newest);
                }
                // Some producers do not know the newest layout, or the previous one.
                let partitions = layouts[rng.usize(..layouts.len())];
                let (place, fields) = entry(&mut events, partitions, &mut rng);
                let sending = turn.lock().unwrap();
                if try_command::<String>(&mut conn, &["PING"]).is_err() {
                    conn = dump::connect(&url);
                }
                let id = add(&mut conn, &stream(place), &fields);
                drop(sending);
                all.lock().unwrap().push((place, Entry::new(id, fields)));
                std::thread::sleep(Duration::from_micros(700));
            }
        });
        Self { over, newest, sent, sending, thread: Some(thread) }
    }

    /// Producers that start from now on send to this layout.
    pub fn hear_of(&self, partitions: u16) {
        self.newest.store(partitions, Ordering::Relaxed);
    }

    pub fn stop(mut self) -> Vec<(Place, Entry)> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

/// An entry for a layout: flat or packed, sometimes no event.
pub fn entry(events: &mut Events, partitions: u16, rng: &mut fastrand::Rng) -> (Place, Vec<Field>) {
    let first = event(events);
    let index = partition_of(routing_id(&first), partitions);
    let place = Place { partitions, index };
    if rng.u32(..20) == 0 {
        return (place, vec![field("type", "nonsense"), field("user", "alice")]);
    }
    if rng.u32(..3) > 0 {
        return (place, flat(&first));
    }
    let mut packed = vec![Value::from(first)];
    while packed.len() < rng.usize(2..6) {
        let event = event(events);
        if partition_of(routing_id(&event), partitions) == index {
            packed.push(event.into());
        }
    }
    (place, vec![field("data", &Value::from(packed).to_string())])
}

/// `rollcall repartition`.
pub fn repartition(scene: &Scene, from: u16, to: u16) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    command.args(["repartition", "--redis-url", &scene.url(), "--yes"]);
    command.args(["--partitions", &from.to_string(), "--to", &to.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Repartitions, with kills of the command and of the server until it is done.
pub fn repartition_under_kills(
    scene: &mut Scene,
    producers: &Producers,
    (from, to): (u16, u16),
    rng: &mut fastrand::Rng,
) {
    loop {
        let mut child = repartition(scene, from, to);
        let kill = rng.u32(..3);
        if kill > 0 {
            std::thread::sleep(Duration::from_millis(rng.u64(5..120)));
        }
        match kill {
            0 => {}
            1 => child.kill().unwrap(),
            _ => {
                let _nobody_sends = producers.sending.lock().unwrap();
                scene.deployment.server.kill();
                scene.deployment.server.restart().unwrap();
            }
        }
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            return;
        }
        assert!(kill > 0, "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A fleet of a layout.
pub struct Fleet(pub Vec<Worker>);

impl Fleet {
    pub fn start(scene: &Scene, partitions: u16) -> Self {
        let count = partitions.to_string();
        let flags = ["--partitions", count.as_str()];
        Self(vec![scene.worker(&flags), scene.worker(&flags), scene.janitor(&flags)])
    }

    /// Waits until all processes have noticed the new layout and exited.
    pub fn expect_to_be_sent_away(mut self, to: u16) {
        for process in &mut self.0 {
            let status = process.wait(SOON * 2);
            assert_eq!(status.code(), Some(64), "{}", process.log());
            assert!(process.log().contains(&format!("--partitions {to}")), "{}", process.log());
        }
    }
}

/// Everything that producers sent has had its effect in the layout with this many partitions.
pub fn wait_settled(scene: &Scene, layouts: &[u16], sent: &[(Place, Entry)]) {
    let mut conn = scene.connection();
    let mut last = BTreeMap::<(u16, u16), EntryId>::new();
    for (place, entry) in sent {
        let last = last.entry((place.partitions, place.index)).or_insert(entry.id);
        *last = (*last).max(entry.id);
    }
    let cursor = |conn: &mut Connection, keys: &Keys| -> Option<EntryId> {
        let cursor: Option<String> = try_command(conn, &["HGET", &keys.meta(), "cursor"]).unwrap();
        cursor.and_then(|cursor| cursor.parse().ok())
    };
    wait_until(SOON * 3, "all is forwarded and applied", || {
        let is_forwarded = last.iter().all(|((partitions, index), id)| {
            cursor(&mut conn, &Keys::new("", *partitions, *index)) >= Some(*id)
        });
        let to = *layouts.last().unwrap();
        is_forwarded
            && (0..to).all(|index| {
                let keys = Keys::new("", to, index);
                let last: Vec<(String, Vec<String>)> = try_command(
                    &mut conn,
                    &["XREVRANGE", &keys.named(EVENTS), "+", "-", "COUNT", "1"],
                )
                .unwrap();
                last.first().is_none_or(|(id, _)| cursor(&mut conn, &keys) == id.parse().ok())
            })
    });
}

/// Compares what readers see with the model of all events in the layout.
pub fn verify(scene: &Scene, to: u16, sent: &[(Place, Entry)]) {
    let settings = scene.deployment.settings().with_partitions(to);
    let mut models: Vec<Model> = (0..to).map(|index| Model::new(settings.clone(), index)).collect();
    let mut letters = 0;
    for (n, (place, entry)) in sent.iter().enumerate() {
        let layout = Former::new(place.partitions, u64::MAX);
        let forwarded = forward(entry, place.index, &[layout], &settings.rules).unwrap();
        letters += forwarded.letters.len();
        for (partition, entries) in forwarded.entries {
            for (part, fields) in entries.into_iter().enumerate() {
                let own = Entry::new(id(entry.id.ms, (n * 100 + part) as u64), fields);
                models[usize::from(partition)].apply_entry(&own, scene.deployment.started_ms);
            }
        }
    }
    let mut conn = scene.connection();
    let (mut views, mut expected) = (BTreeMap::new(), BTreeMap::new());
    for (index, model) in (0..).zip(&models) {
        let keys = model.keys();
        let mut deployment = scene.deployment.config.deployment.clone();
        deployment.partitions = to;
        let sweeper = Sweeper::new(&deployment, &keys, &scene.deployment.config.janitor);
        let own = |key: &[u8]| {
            let name = key.strip_prefix(keys.base().as_bytes()).unwrap();
            !name.starts_with(b"rollcall:") && name != b"viewed:"
        };
        let settled = block_on(async {
            let mut connection = scene.deployment.async_connection(0).await;
            settle_keys(&mut connection, &mut conn, &sweeper, model, own).await
        });
        settled.unwrap_or_else(|fault| panic!("partition {index} of {to}:\n{fault}"));
        let now = dump::server_now(&mut conn);
        let count = |items: Vec<(String, f64)>, into: &mut BTreeMap<String, f64>| {
            for (item, views) in items {
                *into.entry(item).or_insert(0.0) += views;
            }
        };
        let found: Vec<(String, f64)> =
            try_command(&mut conn, &["ZRANGE", &keys.viewed(), "0", "-1", "WITHSCORES"]).unwrap();
        count(found, &mut views);
        let state = model.state(now);
        if let Some((dump::Value::Zset(scores), _)) = state.get(keys.viewed().as_bytes()) {
            let item = |(item, score): (&Vec<u8>, &String)| {
                (String::from_utf8(item.clone()).unwrap(), score.parse().unwrap())
            };
            count(scores.iter().map(item).collect(), &mut expected);
        }
    }
    let differing: Vec<_> = views
        .iter()
        .filter(|(item, count)| expected.get(*item) != Some(*count))
        .map(|(item, count)| (item, count, expected.get(item)))
        .collect();
    assert_eq!(differing, [], "each view is counted once");
    assert_eq!(views.len(), expected.len());
    let dead: Vec<u64> = (0..to)
        .map(|index| try_command(&mut conn, &["XLEN", &Keys::new("", to, index).dead()]).unwrap())
        .collect();
    assert_eq!(dead.iter().sum::<u64>(), letters as u64, "dead letters moved along: {dead:?}");
}

/// Of a partition that no longer exists, only the record of that is left.
pub fn check_leftovers(scene: &Scene, layouts: &[u16]) {
    let to = *layouts.last().unwrap();
    let after: Vec<Keys> = (0..to).map(|index| Keys::new("", to, index)).collect();
    let stays = ["events", "meta", "janitor", "changes", "changes:seq", "dead"];
    let stays = stays.map(|name| format!("rollcall:{name}"));
    let keys: Vec<String> = scene.command(&["KEYS", "*"]);
    let strange: Vec<&String> = keys
        .iter()
        .filter(|key| !after.iter().any(|keys| key.starts_with(keys.base())))
        .filter(|key| {
            let name = key.split_once("}:").map_or(key.as_str(), |(_, name)| name);
            !stays.iter().any(|stays| stays == name)
        })
        .collect();
    assert!(strange.is_empty(), "left over: {strange:?}");
}
