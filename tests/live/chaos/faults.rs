//! The kinds of faults, and how each is caused.

use std::time::Duration;

use rollcall::config::JanitorConfig;
use rollcall::op::STREAM;
use rollcall::redis::scripts::owner::{Cause, fence};
use rollcall::redis::scripts::sweep::Sweeper;

use super::fleet::Target::{self, Owner, Standby};
use super::ledger::{Account, blow};
use super::plan::{Kind, Persistence, Strike, counting, dying, keeping, kind};
use super::proxy::Mode;
use super::schedule::{CLOCK_MS, Chaos};
use super::traced::{self, taken_users};
use crate::harness::wait_until;
use crate::scene::{SOON, add, block_on, heartbeat};
use crate::support::dump::server_now;
use crate::trouble::{begin_slow_script, command, end_slow_script};

/// How the network is when nothing is wrong with it: slow enough that those behind it always have entries in
/// hand.
pub const SLOW: Mode = Mode::Delay(Duration::from_millis(10));

const fn taking(name: &'static str, strike: fn(&mut Chaos, &Strike)) -> Kind<Chaos> {
    // Which keys of those users have their effects is known only as long as nothing else is missing.
    Kind { without: &["WRONGTYPE of keys of one user"], ..counting(name, "keys taken", strike) }
}

/// Where the clock steps, the next stream may give the same ids again.
const fn dropping(name: &'static str, strike: fn(&mut Chaos, &Strike)) -> Kind<Chaos> {
    Kind { without: &["the clock"], ..counting(name, "entries taken", strike) }
}

/// Each of these deaths counts against the entry that was named: three could be on the same one.
const AFTER_NAMING: Kind<Chaos> = Kind {
    most: 2,
    ..dying("worker dies after-naming", |c, s| {
        c.doom("after-naming", 1, s);
        // Only a worker that takes over after a death tries entries alone.
        for _ in 0..15 {
            std::thread::sleep(Duration::from_millis(100));
            if c.fleet.has_died("after-naming") {
                return;
            }
            c.meta(s, "HDEL", &["named"]);
            c.meta(s, "HSET", &["owner", "ghost", "fence", "s0"]);
        }
    })
};

pub const KINDS: &[Kind<Chaos>] = &[
    kind("owner SIGKILL", |c, s| c.kill(s, &[Owner])),
    kind("standby SIGKILL", |c, s| c.kill(s, &[Standby])),
    kind("owner and standby SIGKILL", |c, s| c.kill(s, &[Owner, Standby])),
    dying("worker dies after-read", |c, s| c.doom("after-read", s.between(1, 8), s)),
    dying("worker dies after-fold", |c, s| c.doom("after-fold", s.between(1, 8), s)),
    dying("worker dies before-send", |c, s| c.doom("before-send", s.between(1, 8), s)),
    dying("worker dies after-send", |c, s| c.doom("after-send", s.between(1, 8), s)),
    dying("worker dies after-reply", |c, s| c.doom("after-reply", s.between(1, 8), s)),
    AFTER_NAMING,
    kind("owner SIGSTOP beyond the takeover time, SIGCONT", |c, s| c.put_to_sleep(s, &[Owner])),
    kind("standby SIGSTOP beyond the takeover time, SIGCONT", |c, s| {
        c.put_to_sleep(s, &[Standby]);
    }),
    kind("owner and standby SIGSTOP beyond the takeover time, SIGCONT", |c, s| {
        c.put_to_sleep(s, &[Owner, Standby]);
    }),
    kind("the owner's calls held up beyond the takeover time", |c, s| {
        c.fleet.bring_owner_behind_proxy(&c.scene, s.partition(&c.scene));
        c.proxy.set(Mode::HoldCalls);
        std::thread::sleep(Duration::from_millis(s.between(1_200, 2_500)));
        c.proxy.set(SLOW);
    }),
    kind("owner SIGTERM", |c, s| c.fleet.terminate(&c.scene, s, Owner)),
    kind("standby SIGTERM", |c, s| c.fleet.terminate(&c.scene, s, Standby)),
    kind("worker joins", |c, s| c.fleet.join(&c.scene, s)),
    kind("partition taken by a stranger", |c, s| c.take_over(s)),
    kind("owner overwritten", |c, s| c.meta(s, "HSET", &["owner", "nobody"])),
    kind("fence overwritten", |c, s| c.meta(s, "HSET", &["fence", "nobody's"])),
    kind("term overwritten", |c, s| c.meta(s, "HINCRBY", &["term", "1"])),
    kind("owner given another heir", |c, s| {
        c.fleet.bring_owner_behind_proxy(&c.scene, s.partition(&c.scene));
    }),
    kind("janitor SIGKILL", |c, s| c.fleet.replace_janitor(&c.scene, s.dice, None)),
    dying("janitor dies mid-sweep", |c, s| {
        c.fleet.replace_janitor(&c.scene, s.dice, Some(("mid-sweep", s.between(1, 30))));
    }),
    keeping("Redis SIGKILL, AOF always", Persistence::Always, |c, s| c.restart(s, 0)),
    keeping("Redis SIGKILL, AOF everysec", Persistence::EverySecond, |c, s| c.restart(s, 3_000)),
    keeping("Redis SIGKILL, no persistence", Persistence::Nothing, |c, s| c.restart(s, u64::MAX)),
    keeping("Redis SIGKILL, back with an old snapshot", Persistence::Nothing, |c, s| {
        command(&c.scene, &["SAVE"]);
        std::thread::sleep(s.hold);
        c.restart(s, u64::MAX);
    }),
    kind("SCRIPT FLUSH", |c, _| command(&c.scene, &["SCRIPT", "FLUSH"])),
    kind("FUNCTION FLUSH", |c, _| command(&c.scene, &["FUNCTION", "FLUSH"])),
    kind("FLUSHALL", |c, _| {
        command(&c.scene, &["FLUSHALL"]);
        c.disturb_all();
        c.lose(0);
    }),
    counting("rollcall:meta deleted", "keys", |c, s| c.blow("unset", 0, s)),
    counting("rollcall:meta and the group deleted", "keys", |c, s| {
        c.blow("unset", 1, s);
        c.disturb(s);
    }),
    kind("rollcall:janitor deleted", |c, s| {
        c.blow("untell", 0, s);
        c.doubt(s);
    }),
    counting("stranger: XREADGROUP", "entries read", |c, s| {
        c.meddle("read", s.between(1, 200), s);
    }),
    counting("stranger: XREADGROUP, XACK", "entries acknowledged", |c, s| {
        c.meddle("finish", s.between(1, 200), s);
    }),
    counting("stranger: XREADGROUP, XGROUP DELCONSUMER", "entries read", |c, s| {
        c.meddle("forget", s.between(1, 200), s);
    }),
    kind("stranger: XGROUP SETID to and fro", |c, s| {
        for to in [s.between(0, 1_000), 1_000 - s.between(0, 1_000)] {
            c.meddle("set", to, s);
            std::thread::sleep(s.nap / 4);
        }
        c.counted = 0;
    }),
    counting("stranger: XGROUP DESTROY", "groups", |c, s| c.meddle("destroy", 0, s)),
    counting("stranger: XGROUP DESTROY, XGROUP CREATE", "groups", |c, s| {
        c.meddle("destroy", s.between(1, 2), s);
    }),
    counting("stranger: XSETID ahead", "streams", |c, s| {
        c.stepped_ms = 2 * CLOCK_MS;
        c.blow("advance", s.between(1, 2 * CLOCK_MS), s);
    }),
    dropping("stream deleted", |c, s| c.drop_stream(0, s)),
    dropping("stream begun again with smaller ids", |c, s| c.drop_stream(1, s)),
    dropping("stream begun again with greater ids", |c, s| c.drop_stream(2, s)),
    dropping("stream and group begun again", |c, s| c.drop_stream(3, s)),
    counting("XTRIM past the cursor", "entries taken", |c, s| {
        c.blow_that_meets("trim", s.between(100, 1_000), s);
        c.disturb(s);
        c.doubt(s);
    }),
    counting("XDEL of new entries", "entries taken", |c, s| {
        c.blow_that_meets("delete", s.between(20, 200), s);
        c.disturb(s);
        c.doubt(s);
    }),
    kind("maxmemory reached (OOM)", |c, s| c.setting("maxmemory", "1", "0", s)),
    kind("too few replicas (NOREPLICAS)", |c, s| c.setting("min-replicas-to-write", "1", "0", s)),
    kind("a replica for a moment (READONLY)", |c, s| {
        c.lasting(
            s,
            |c| command(&c.scene, &["REPLICAOF", "127.0.0.1", "1"]),
            |c| command(&c.scene, &["REPLICAOF", "NO", "ONE"]),
        );
    }),
    kind("a slow script (BUSY)", |c, s| {
        c.lasting(s, |c| begin_slow_script(&c.scene), |c| end_slow_script(&c.scene));
    }),
    kind("CLIENT PAUSE WRITE", |c, s| c.pause("WRITE", s)),
    kind("CLIENT PAUSE ALL", |c, s| c.pause("ALL", s)),
    kind("CLIENT KILL", |c, _| command(&c.scene, &["CLIENT", "KILL", "TYPE", "normal"])),
    kind("CLIENT KILL of subscriptions", |c, _| {
        command(&c.scene, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    }),
    counting("WRONGTYPE of keys of one user", "dead letters for it", |c, s| c.take_user_keys(s)),
    kind("WRONGTYPE of a shared key", |c, s| c.take_shared_key(s)),
    kind("EXPIRE of a shared key or a document's", |c, s| c.expire(s)),
    kind("PERSIST of a shared key or a turn", |c, s| c.persist(s)),
    taking("DEL of a shared key", |c, s| c.take_away("DEL", s)),
    taking("RENAME of a shared key", |c, s| c.take_away("RENAME", s)),
    taking("DEL of a document's set or count", |c, s| c.take_document(s)),
    kind("the clock steps by up to a second", |c, s| c.step_clock(s)),
    kind("network: cut at a random byte", |c, s| {
        c.fleet.bring_owner_behind_proxy(&c.scene, s.partition(&c.scene));
        c.proxy.cut_after(s.between(0, 5_000) as u32);
    }),
    kind("network: delays", |c, s| {
        c.network(Mode::Delay(Duration::from_millis(s.between(5, 100))), s)
    }),
    kind("network: a few bytes at a time", |c, s| c.network(Mode::Crumble, s)),
    kind("network: half-open", |c, s| {
        c.fleet.bring_owner_behind_proxy(&c.scene, s.partition(&c.scene));
        c.proxy.silence();
        c.network(Mode::Silent, s);
    }),
    kind("network: refuses", |c, s| {
        c.fleet.bring_owner_behind_proxy(&c.scene, s.partition(&c.scene));
        c.proxy.cut();
        c.network(Mode::Refuse, s);
    }),
];

/// Renames the key, and occupies its name with another program's value.
const TAKE: &str = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end \
                    redis.call('SET', KEYS[1], 'theirs')";
const GIVE_BACK: &str = "redis.call('DEL', KEYS[1]) \
                         if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end";

impl Chaos {
    fn kill(&mut self, strike: &Strike, targets: &[Target]) {
        targets.iter().for_each(|of| self.fleet.kill(&self.scene, strike, *of));
    }

    fn put_to_sleep(&mut self, strike: &Strike, targets: &[Target]) {
        let time = Duration::from_millis(strike.between(1_200, 2_500));
        for of in targets {
            self.fleet.put_to_sleep(&self.scene, strike, (*of, time));
        }
    }

    fn doom(&mut self, point: &'static str, pass: u64, strike: &Strike) {
        self.fleet.doom(&self.scene, strike, (point, pass));
    }

    /// A stranger takes the partition and does nothing with it.
    fn take_over(&mut self, strike: &Strike) {
        let (deployment, partition) = (&self.scene.deployment, strike.partition(&self.scene));
        block_on(async {
            let mut connection = deployment.async_connection(partition).await;
            let ownership = deployment.ownership(partition, "stranger");
            let seen = ownership.look(&mut connection).await.unwrap();
            // Another worker may have been faster.
            let _taken =
                ownership.join(&mut connection, &seen, &fence(false), Cause::Stall).await.unwrap();
        });
    }

    /// Overwrites something in the partition's `rollcall:meta`.
    fn meta(&mut self, strike: &Strike, verb: &str, words: &[&str]) {
        let key = self.scene.deployment.keys(strike.partition(&self.scene)).meta();
        command(&self.scene, &[&[verb, &key], words].concat());
    }

    /// What strangers do to the group; then whatever Rollcall may trim now is trimmed.
    fn meddle(&mut self, what: &str, argument: u64, strike: &Strike) {
        self.blow(what, argument, strike);
        self.disturb(strike);
        self.sweep(strike.partition(&self.scene));
    }

    fn sweep(&self, partition: u16) {
        let deployment = &self.scene.deployment;
        blow(&self.scene, partition, "keep", 0);
        // Everything that comes from now on is younger than that.
        let janitor = JanitorConfig { keep_ms: 1_500, ..deployment.config.janitor.clone() };
        let (settings, keys) = (&deployment.config.deployment, deployment.keys(partition));
        let sweeper = Sweeper::new(settings, &keys, &janitor);
        block_on(async {
            let mut connection = deployment.async_connection(partition).await;
            sweeper.sweep(&mut connection, STREAM.name, 100_000).await.unwrap();
        });
    }

    /// The stream is deleted, and another one takes its place; no entry is added in the same millisecond.
    fn drop_stream(&mut self, how: u64, strike: &Strike) {
        let gate = std::sync::Arc::clone(&self.gate);
        let closed = gate.lock().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        self.blow("drop", how, strike);
        self.disturb(strike);
        std::thread::sleep(Duration::from_millis(5));
        // If somebody else created the group, only the number of entries shows it.
        let closed = (how == 3).then_some(closed);
        // Until then what it begins with seems to be passed.
        self.fleet.keep_one(&self.scene);
        let partition = strike.partition(&self.scene);
        wait_until(SOON, "the stream is seen to be another one", || {
            self.ledger(partition).is_of_one_stream()
        });
        drop(closed);
    }

    /// Something is wrong for a while; a worker may be killed meanwhile.
    fn lasting(&mut self, strike: &Strike, begin: impl Fn(&mut Self), end: impl Fn(&mut Self)) {
        begin(self);
        std::thread::sleep(strike.hold / 2);
        if strike.dice.is_multiple_of(3) {
            self.fleet.kill(&self.scene, strike, Owner);
        }
        std::thread::sleep(strike.hold / 2);
        end(self);
    }

    fn setting(&mut self, name: &str, wrong: &str, right: &str, strike: &Strike) {
        let set = |chaos: &mut Self, value| command(&chaos.scene, &["CONFIG", "SET", name, value]);
        self.lasting(strike, |chaos| set(chaos, wrong), |chaos| set(chaos, right));
    }

    fn pause(&mut self, what: &str, strike: &Strike) {
        let time = strike.hold.as_millis().to_string();
        let begin = |chaos: &mut Self| command(&chaos.scene, &["CLIENT", "PAUSE", &time, what]);
        self.lasting(strike, begin, |_| ());
    }

    fn network(&mut self, mode: Mode, strike: &Strike) {
        self.lasting(strike, |chaos| chaos.proxy.set(mode), |chaos| chaos.proxy.set(SLOW));
    }

    /// Kills the server, and starts it again after a while. Entries added in the last milliseconds before its death,
    /// or later, may be lost.
    fn restart(&mut self, strike: &Strike, losing_ms: u64) {
        let now = server_now(&mut self.scene.connection());
        self.scene.deployment.server.kill();
        std::thread::sleep(strike.hold / 4);
        self.scene.deployment.server.restart().unwrap();
        self.disturb_all();
        if losing_ms > 0 {
            self.lose(now.saturating_sub(losing_ms));
        }
    }

    /// Entries added since an instant may be lost.
    fn lose(&mut self, from: u64) {
        let now = server_now(&mut self.scene.connection());
        self.losses.push(from.saturating_sub(self.stepped_ms)..=now + self.stepped_ms);
    }

    fn step_clock(&mut self, strike: &Strike) {
        self.stepped_ms = 2 * CLOCK_MS;
        self.clock.set(strike.between(0, 2 * CLOCK_MS) as i64 - CLOCK_MS as i64);
    }

    /// A blow against stream or group, as soon as there is a group.
    fn blow(&mut self, what: &str, argument: u64, strike: &Strike) {
        let mut hit = None;
        wait_until(SOON, "there is a group", || {
            hit = blow(&self.scene, strike.partition(&self.scene), what, argument);
            hit.is_some()
        });
        self.counted += hit.unwrap();
    }

    /// A blow that only matters if it meets entries: it is tried several times.
    fn blow_that_meets(&mut self, what: &str, argument: u64, strike: &Strike) {
        for _ in 0..20 {
            self.blow(what, argument, strike);
            if self.counted > 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Another program uses the names of some users' keys while they send heartbeats.
    fn take_user_keys(&mut self, strike: &Strike) {
        let users: Vec<String> = taken_users(strike.dice).collect();
        let key = |user: &String| {
            let partition = rollcall::key::partition_of(user, self.scene.deployment.partitions());
            let keys = self.scene.deployment.keys(partition);
            (self.scene.deployment.stream(partition), format!("{}{user}", keys.activity()))
        };
        let keys: Vec<_> = users.iter().map(key).collect();
        let begin = |chaos: &mut Self| {
            let mut conn = chaos.scene.connection();
            for (user, (stream, key)) in users.iter().zip(&keys) {
                command(&chaos.scene, &["RPUSH", key, "theirs"]);
                add(&mut conn, stream, &heartbeat(user));
            }
        };
        let end = |chaos: &mut Self| {
            for (_, key) in &keys {
                command(&chaos.scene, &["DEL", key]);
            }
        };
        self.lasting(strike, begin, end);
        let of_ours = |account: &Account| {
            traced::taken_user(&account.entry).is_some_and(|user| users.contains(&user))
        };
        for partition in 0..self.scene.deployment.partitions() {
            let accounts = self.ledger(partition).accounts;
            let letters =
                accounts.values().filter(|account| of_ours(account)).map(|a| a.letters.len());
            self.counted += letters.sum::<usize>() as u64;
        }
    }

    /// Another program uses a name that the whole deployment needs.
    fn take_shared_key(&mut self, strike: &Strike) {
        let keys = self.scene.deployment.keys(strike.partition(&self.scene));
        let all =
            [keys.presence(), keys.recent(), keys.sessions(), keys.docs_joined(), keys.dead()];
        let key = &all[strike.dice as usize % all.len()];
        let aside = format!("{}aside", super::ledger::NOTES);
        let run =
            |chaos: &mut Self, script| command(&chaos.scene, &["EVAL", script, "2", key, &aside]);
        self.lasting(strike, |chaos| run(chaos, TAKE), |chaos| run(chaos, GIVE_BACK));
    }
}
