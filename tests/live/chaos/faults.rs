//! The kinds of faults, and how each is done.

use std::time::Duration;

use super::ledger::{Account, blow};
use super::proxy::Mode;
use super::schedule::{CLOCK_MS, Chaos, Strike};
use super::traced::{self, taken_users};
use crate::harness::wait_until;
use crate::scene::{SOON, add, giant, heartbeat};
use crate::support::dump::server_now;
use crate::trouble::{begin_slow_script, command, end_slow_script};

/// What a server keeps over its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// An append-only file, written through before each answer.
    Always,
    /// An append-only file, written through every second.
    EverySecond,
    /// Nothing, except for what a snapshot had.
    Nothing,
}

/// How the network is when nothing is wrong with it: slow enough that those behind it always have entries in
/// hand.
pub const SLOW: Mode = Mode::Delay(Duration::from_millis(10));

/// One kind of fault.
pub struct Kind {
    pub name: &'static str,
    /// With which persistence it can be done; `None`: any.
    pub needs: Option<Persistence>,
    /// How often a schedule may have it.
    pub most: usize,
    /// What its count in the report counts.
    pub counts: &'static str,
    /// How the names of kinds begin that a schedule does not have with this one.
    pub without: &'static [&'static str],
    pub strike: fn(&mut Chaos, &Strike),
}

impl Kind {
    /// Whether a schedule with this kind has no room for another.
    pub fn clashes(&self, other: &Self) -> bool {
        self.without.iter().any(|name| other.name.starts_with(name))
    }
}

const fn kind(name: &'static str, strike: fn(&mut Chaos, &Strike)) -> Kind {
    Kind { name, needs: None, most: 4, counts: "", without: &[], strike }
}

const fn counting(
    name: &'static str,
    counts: &'static str,
    strike: fn(&mut Chaos, &Strike),
) -> Kind {
    Kind { counts, ..kind(name, strike) }
}

const fn dying(name: &'static str, strike: fn(&mut Chaos, &Strike)) -> Kind {
    counting(name, "died there", strike)
}

const fn restart(name: &'static str, needs: Persistence, strike: fn(&mut Chaos, &Strike)) -> Kind {
    Kind { needs: Some(needs), ..kind(name, strike) }
}

const fn taking(name: &'static str, strike: fn(&mut Chaos, &Strike)) -> Kind {
    // Which keys of those users have their effects is known only as long as nothing else is missing.
    Kind { without: &["WRONGTYPE of keys of one user"], ..counting(name, "keys taken", strike) }
}

/// The next stream would not be known from the last one, if its ids did not go on.
const DROP: Kind = Kind {
    without: &["the clock"],
    ..counting("DEL of the stream", "entries taken", |c, s| c.take_stream(s))
};

/// An entry is written off after two workers died on it: three deaths here could be on the same one.
const AFTER_TRIAL: Kind = Kind {
    most: 2,
    ..dying("worker dies after-trial", |c, s| {
        c.doom_with_bait("after-trial", s, |c| {
            blow(&c.scene, 0, "strand", 3);
        });
    })
};

pub const KINDS: &[Kind] = &[
    kind("worker SIGKILL at random", |c, s| {
        c.fleet.replace_worker(&c.scene, &c.proxy, s.dice, None)
    }),
    dying("worker dies after-read", |c, s| c.doom("after-read", s)),
    dying("worker dies after-fold", |c, s| c.doom("after-fold", s)),
    dying("worker dies before-send", |c, s| c.doom("before-send", s)),
    dying("worker dies after-send", |c, s| c.doom("after-send", s)),
    dying("worker dies after-reply", |c, s| c.doom("after-reply", s)),
    dying("worker dies in-giant", |c, s| {
        c.doom_with_bait("in-giant", s, |c| {
            c.scene.add(&giant());
        });
    }),
    AFTER_TRIAL,
    kind("worker SIGSTOP beyond the claim time, SIGCONT", |c, s| {
        let time = Duration::from_millis(s.between(1_200, 2_500));
        c.fleet.put_to_sleep(&c.scene, &c.proxy, s.dice, time);
    }),
    kind("worker SIGTERM", |c, s| c.fleet.terminate(&c.scene, &c.proxy, s.dice)),
    kind("worker joins", |c, s| c.fleet.join(&c.scene, &c.proxy, s.dice)),
    kind("janitor SIGKILL at random", |c, s| c.fleet.replace_janitor(&c.scene, s.dice, None)),
    dying("janitor dies mid-sweep", |c, s| {
        c.fleet.replace_janitor(&c.scene, s.dice, Some(("mid-sweep", s.between(1, 30))));
    }),
    restart("Redis SIGKILL, AOF always", Persistence::Always, |c, s| c.restart(s, 0)),
    restart("Redis SIGKILL, AOF everysec", Persistence::EverySecond, |c, s| c.restart(s, 3_000)),
    restart("Redis SIGKILL, no persistence", Persistence::Nothing, |c, s| c.restart(s, u64::MAX)),
    restart("Redis SIGKILL, back with an old snapshot", Persistence::Nothing, |c, s| {
        command(&c.scene, &["SAVE"]);
        std::thread::sleep(s.hold);
        c.restart(s, u64::MAX);
    }),
    kind("SCRIPT FLUSH", |c, _| command(&c.scene, &["SCRIPT", "FLUSH"])),
    kind("FUNCTION FLUSH", |c, _| command(&c.scene, &["FUNCTION", "FLUSH"])),
    kind("FLUSHALL", |c, _| {
        command(&c.scene, &["FLUSHALL"]);
        c.lose(0);
    }),
    kind("rollcall:meta deleted", |c, s| {
        let key = c.scene.deployment.keys(c.partition(s)).meta();
        command(&c.scene, &["DEL", &key]);
    }),
    counting("XGROUP DESTROY", "acknowledged entries read again", |c, s| {
        c.blow("destroy", 0, s);
    }),
    counting("XGROUP DELCONSUMER", "pending entries dropped", |c, s| {
        c.blow_that_meets("forget", 0, s)
    }),
    counting("XTRIM under the group", "entries taken", |c, s| {
        c.blow_that_meets("trim", s.between(100, 1_000), s)
    }),
    counting("XDEL of new entries", "entries taken", |c, s| {
        c.blow_that_meets("delete", s.between(20, 200), s)
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
    counting("WRONGTYPE of keys of one user", "dead letters for it", |c, s| c.take_user_keys(s)),
    kind("WRONGTYPE of a shared key", |c, s| c.take_shared_key(s)),
    kind("EXPIRE of a shared key or a document's", |c, s| c.expire(s)),
    kind("PERSIST of a shared key or a turn", |c, s| c.persist(s)),
    taking("DEL of a shared key", |c, s| c.take_away("DEL", s)),
    taking("RENAME of a shared key", |c, s| c.take_away("RENAME", s)),
    taking("DEL of a document's set or count", |c, s| c.take_document(s)),
    DROP,
    kind("the clock steps by up to a second", |c, s| c.step_clock(s)),
    kind("network: cut at a random byte", |c, s| c.proxy.cut_after(s.between(0, 5_000) as u32)),
    kind("network: delays", |c, s| {
        c.network(Mode::Delay(Duration::from_millis(s.between(5, 100))), s)
    }),
    kind("network: a few bytes at a time", |c, s| c.network(Mode::Crumble, s)),
    kind("network: half-open", |c, s| {
        c.proxy.silence();
        c.network(Mode::Silent, s);
    }),
    kind("network: refuses", |c, s| {
        c.proxy.cut();
        c.network(Mode::Refuse, s);
    }),
];

/// A name that another program has used, and its value put aside.
const TAKE: &str = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end \
                    redis.call('SET', KEYS[1], 'theirs')";
const GIVE_BACK: &str = "redis.call('DEL', KEYS[1]) \
                         if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[1]) end";

impl Chaos {
    fn doom(&mut self, point: &'static str, strike: &Strike) {
        let doom = Some((point, strike.between(1, 8)));
        self.fleet.replace_worker(&self.scene, &self.proxy, strike.dice, doom);
    }

    /// The same at a point that few entries bring a worker to: there are some until it dies, or has had its time.
    fn doom_with_bait(&mut self, point: &'static str, strike: &Strike, bait: fn(&mut Self)) {
        self.fleet.replace_worker(&self.scene, &self.proxy, strike.dice, Some((point, 1)));
        for _ in 0..15 {
            bait(self);
            std::thread::sleep(Duration::from_millis(100));
            if self.fleet.has_died(strike.dice) {
                return;
            }
        }
    }

    /// Something is wrong for a while; in the midst of it a worker may be killed, too.
    fn lasting(&mut self, strike: &Strike, begin: impl Fn(&mut Self), end: impl Fn(&mut Self)) {
        begin(self);
        std::thread::sleep(strike.hold / 2);
        if strike.dice.is_multiple_of(3) {
            self.fleet.replace_worker(&self.scene, &self.proxy, strike.dice, None);
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

    /// Kills the server, and starts it again after a while. What was added so many milliseconds before its
    /// death, or later, may be lost.
    fn restart(&mut self, strike: &Strike, losing_ms: u64) {
        let now = server_now(&mut self.scene.connection());
        self.scene.deployment.server.kill();
        std::thread::sleep(strike.hold / 4);
        self.scene.deployment.server.restart().unwrap();
        if losing_ms > 0 {
            self.lose(now.saturating_sub(losing_ms));
        }
    }

    /// What was added since an instant until now may be lost.
    fn lose(&mut self, from: u64) {
        let now = server_now(&mut self.scene.connection());
        self.losses.push(from.saturating_sub(self.stepped_ms)..=now + self.stepped_ms);
    }

    fn step_clock(&mut self, strike: &Strike) {
        self.stepped_ms = 2 * CLOCK_MS;
        self.clock.set(strike.between(0, 2 * CLOCK_MS) as i64 - CLOCK_MS as i64);
    }

    pub fn partition(&self, strike: &Strike) -> u16 {
        (strike.dice % u64::from(self.scene.deployment.partitions())) as u16
    }

    /// A blow against stream or group, as soon as there is a group.
    fn blow(&mut self, what: &str, argument: u64, strike: &Strike) -> u64 {
        let mut hit = None;
        wait_until(SOON, "there is a group", || {
            hit = blow(&self.scene, self.partition(strike), what, argument);
            hit.is_some()
        });
        self.counted += hit.unwrap();
        hit.unwrap()
    }

    /// One that is worth nothing unless it meets entries: some tries until it does.
    pub fn blow_that_meets(&mut self, what: &str, argument: u64, strike: &Strike) {
        for _ in 0..20 {
            if self.blow(what, argument, strike) > 0 {
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
        let keys = self.scene.deployment.keys(self.partition(strike));
        let all =
            [keys.presence(), keys.recent(), keys.sessions(), keys.docs_joined(), keys.dead()];
        let key = &all[strike.dice as usize % all.len()];
        let aside = format!("{}aside", super::ledger::NOTES);
        let run =
            |chaos: &mut Self, script| command(&chaos.scene, &["EVAL", script, "2", key, &aside]);
        self.lasting(strike, |chaos| run(chaos, TAKE), |chaos| run(chaos, GIVE_BACK));
    }
}
