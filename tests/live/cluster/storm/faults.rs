//! The kinds of faults of a Cluster, and how each is done.

use std::time::{Duration, Instant};

use super::nodes::{NAMED, NODE_TIMEOUT, SHARDS, SLOW, shard_of};
use super::{SOON, Storm, now, window};
use crate::chaos::fleet::Target::{self, Owner, Standby};
use crate::chaos::plan::{Kind, Persistence, Strike, counting, dying, keeping, kind};
use crate::chaos::proxy::{Mode, Proxy};
use crate::harness::wait_until;

pub const KINDS: &[Kind<Storm>] = &[
    kind("owner SIGKILL", |c, s| c.kill(s, &[Owner])),
    kind("standby SIGKILL", |c, s| c.kill(s, &[Standby])),
    kind("owner and standby SIGKILL", |c, s| c.kill(s, &[Owner, Standby])),
    dying("worker dies before-send", |c, s| c.doom("before-send", s)),
    dying("worker dies after-send", |c, s| c.doom("after-send", s)),
    kind("owner SIGSTOP beyond the takeover time, SIGCONT", |c, s| {
        c.put_to_sleep(s, &[Owner]);
    }),
    kind("owner and standby SIGSTOP beyond the takeover time, SIGCONT", |c, s| {
        c.put_to_sleep(s, &[Owner, Standby]);
    }),
    kind("owner SIGTERM", |c, s| c.fleet.terminate(&c.site, s, Owner)),
    kind("janitor SIGKILL", |c, s| c.fleet.replace_janitor(&c.site, s.dice, None)),
    kind("janitor SIGSTOP, SIGCONT", |c, s| c.fleet.stall_janitor(s.dice, s.hold)),
    kind("CLIENT KILL on all nodes", |c, _| c.site.ground.cut_clients()),
    kind("network: cut at a random byte", |c, s| c.proxy(s).cut_after(s.between(0, 5_000) as u32)),
    kind("network: delays", |c, s| {
        c.network(Mode::Delay(Duration::from_millis(s.between(5, 100))), s);
    }),
    kind("network: a few bytes at a time", |c, s| c.network(Mode::Crumble, s)),
    kind("network: half-open", |c, s| {
        c.proxy(s).silence();
        c.network(Mode::Silent, s);
    }),
    kind("network: refuses", |c, s| {
        c.proxy(s).cut();
        c.network(Mode::Refuse, s);
    }),
    kind("FUNCTION FLUSH, SCRIPT FLUSH on all masters", |c, _| {
        for shard in 0..SHARDS {
            let (master, _) = c.site.whole(shard);
            for what in ["FUNCTION", "SCRIPT"] {
                c.site.ground.ask::<()>(master, &[what, "FLUSH"]);
            }
        }
    }),
    kind("replica SIGKILL", |c, s| {
        let (_, replica) = c.site.whole(s.shard());
        c.kill_and_start(&[replica], s);
    }),
    kind("replica SIGSTOP, SIGCONT", |c, s| {
        let (_, replica) = c.site.whole(s.shard());
        c.stall(replica, s.hold * 2);
    }),
    kind("master SIGKILL, its replica takes over", |c, s| {
        c.failing_over(&[s.shard()], |c, master, replica| c.die(master, replica, s));
    }),
    kind("replication cut, then master SIGKILL", |c, s| {
        c.failing_over(&[s.shard()], |c, master, replica| {
            c.cut_replication(master, replica, s);
            c.die(master, replica, s);
        });
    }),
    kind("replication cut, then TAKEOVER", |c, s| {
        c.failing_over(&[s.shard()], |c, master, replica| {
            c.cut_replication(master, replica, s);
            c.promote(replica, &["CLUSTER", "FAILOVER", "TAKEOVER"]);
            c.site.wait_until_replica(master);
            c.site.ground.ask::<()>(master, &["ACL", "SETUSER", "default", "+psync", "+sync"]);
        });
    }),
    kind("two masters of one shard for a while", |c, s| {
        if !c.site.may_part() {
            return;
        }
        c.failing_over(&[s.shard()], |c, master, replica| {
            c.site.part(master);
            c.promote(replica, &["CLUSTER", "FAILOVER", "TAKEOVER"]);
            for _ in 0..s.between(3, 6) {
                c.site.ground.cut_clients();
                std::thread::sleep(s.hold / 3);
            }
            c.site.bring_together(master);
            c.site.wait_until_replica(master);
        });
    }),
    keeping("master SIGKILL, back before anyone takes over", Persistence::Always, |c, s| {
        let (master, _) = c.site.whole(s.shard());
        c.kill_and_start(&[master], s);
    }),
    keeping("master SIGKILL, back at once with nothing", Persistence::Nothing, |c, s| {
        c.lose_everything(s);
    }),
    keeping("master and replica SIGKILL", Persistence::Always, |c, s| {
        let (master, replica) = c.site.whole(s.shard());
        let both = if s.dice.is_multiple_of(2) { [master, replica] } else { [replica, master] };
        c.kill_and_start(&both, s);
    }),
    keeping("two masters SIGKILL: no majority", Persistence::Always, |c, s| {
        let [first, second] = [s.shard(), (s.shard() + 1) % SHARDS].map(|one| c.site.whole(one).0);
        [first, second].into_iter().for_each(|node| c.site.ground.nodes[node].kill());
        std::thread::sleep(NODE_TIMEOUT + s.hold);
        c.start(&[first, second]);
    }),
    kind("all named nodes SIGKILL, owner SIGKILL", |c, s| c.kill_named(s)),
    kind("CLUSTER FAILOVER", |c, s| c.hand_over(s)),
    kind("CLUSTER FAILOVER FORCE", |c, s| c.fail_over_by_hand("FORCE", s)),
    kind("CLUSTER FAILOVER TAKEOVER", |c, s| c.fail_over_by_hand("TAKEOVER", s)),
    kind("master SIGSTOP, TAKEOVER, SIGCONT", |c, s| {
        c.failing_over(&[s.shard()], |c, master, replica| {
            c.site.ground.signal(master, "STOP");
            c.promote(replica, &["CLUSTER", "FAILOVER", "TAKEOVER"]);
            std::thread::sleep(s.hold);
            c.site.ground.signal(master, "CONT");
        });
    }),
    kind("master SIGSTOP below the node timeout, SIGCONT", |c, s| {
        let (master, _) = c.site.whole(s.shard());
        c.stall(master, s.hold / 2);
    }),
    kind("master SIGSTOP until its replica takes over, SIGCONT", |c, s| {
        c.failing_over(&[s.shard()], |c, master, replica| {
            c.site.ground.signal(master, "STOP");
            c.wait_for_master(replica);
            std::thread::sleep(s.hold / 2);
            c.site.ground.signal(master, "CONT");
        });
    }),
    counting("slot moves to another master", "keys moved", |c, s| {
        c.counted = c.site.move_partition(s.partition(&c.site), s);
    }),
    counting("slot is half-way for a while", "keys moved", |c, s| c.move_half_way(s)),
    counting("slot moves, and back", "keys moved", |c, s| {
        let partition = s.partition(&c.site);
        let from = c.site.home[usize::from(partition)];
        c.counted = c.site.move_partition(partition, s);
        c.counted += c.site.move_back(partition, from, s);
    }),
    kind("slot is to move, and stays", |c, s| {
        let on_the_way = c.site.begin_move(s.partition(&c.site), s);
        std::thread::sleep(s.hold);
        c.site.give_move_up(&on_the_way);
    }),
    counting("all partitions move to other masters", "keys moved", |c, s| {
        for partition in 0..super::PARTITIONS {
            c.counted += c.site.move_partition(partition, s);
        }
    }),
];

impl Strike {
    /// The shard that it strikes.
    fn shard(&self) -> usize {
        (self.dice / 4) as usize % SHARDS
    }
}

impl Storm {
    fn kill(&mut self, strike: &Strike, targets: &[Target]) {
        targets.iter().for_each(|of| self.fleet.kill(&self.site, strike, *of));
    }

    /// What is between the master of the partition that is struck and its clients and replica.
    fn proxy(&self, strike: &Strike) -> &Proxy {
        let shard = self.site.home[usize::from(strike.partition(&self.site))];
        &self.site.proxies[self.masters[shard]]
    }

    fn network(&mut self, mode: Mode, strike: &Strike) {
        self.proxy(strike).set(mode);
        std::thread::sleep(strike.hold / 2);
        self.kill_beside(strike);
        std::thread::sleep(strike.hold / 2);
        self.proxy(strike).set(SLOW);
    }

    fn put_to_sleep(&mut self, strike: &Strike, targets: &[Target]) {
        let time = Duration::from_millis(strike.between(1_200, 2_500));
        targets.iter().for_each(|of| self.fleet.put_to_sleep(&self.site, strike, (*of, time)));
    }

    fn doom(&mut self, point: &'static str, strike: &Strike) {
        self.fleet.doom(&self.site, strike, (point, strike.between(1, 8)));
    }

    /// A worker or the janitor may be killed in the midst of another fault.
    fn kill_beside(&mut self, strike: &Strike) {
        match strike.dice % 5 {
            0 => self.kill(strike, &[Owner]),
            1 => self.kill(strike, &[Standby]),
            2 => self.fleet.replace_janitor(&self.site, strike.dice, None),
            _ => {}
        }
    }

    /// A master is killed, its replica takes over, and it comes back.
    fn die(&mut self, master: usize, replica: usize, strike: &Strike) {
        self.site.ground.nodes[master].kill();
        self.kill_beside(strike);
        self.wait_for_master(replica);
        self.start(&[master]);
    }

    /// Kills nodes, and starts them again after a while.
    fn kill_and_start(&mut self, nodes: &[usize], strike: &Strike) {
        nodes.iter().for_each(|node| self.site.ground.nodes[*node].kill());
        std::thread::sleep(strike.hold / 2);
        self.start(nodes);
    }

    fn start(&mut self, nodes: &[usize]) {
        nodes.iter().for_each(|node| self.site.start_again(*node));
    }

    fn stall(&self, node: usize, time: Duration) {
        self.site.ground.signal(node, "STOP");
        std::thread::sleep(time);
        self.site.ground.signal(node, "CONT");
    }

    /// What a master takes for a while from now on reaches nobody else.
    fn cut_replication(&self, master: usize, replica: usize, strike: &Strike) {
        self.site.ground.ask::<()>(master, &["ACL", "SETUSER", "default", "-psync", "-sync"]);
        self.site.ground.ask::<u64>(master, &["CLIENT", "KILL", "TYPE", "replica"]);
        std::thread::sleep(strike.hold);
        assert!(!self.site.ground.is_linked(replica), "replication is cut");
    }

    fn wait_for_master(&self, node: usize) {
        wait_until(SOON, "the replica takes over", || self.site.ground.is_master(node));
    }

    /// Shards whose replica takes over while `fail` is about it, one after the other: what was not replicated is lost.
    fn failing_over(&mut self, shards: &[usize], mut fail: impl FnMut(&mut Self, usize, usize)) {
        let begun = now();
        for shard in shards {
            let (master, replica) = self.site.whole(*shard);
            fail(self, master, replica);
        }
        for shard in shards {
            self.masters[*shard] = self.site.whole(*shard).0;
            self.may_have_lost(*shard, begun);
        }
    }

    /// Master and replica change places, and nothing is lost.
    fn hand_over(&mut self, strike: &Strike) {
        let (_, replica) = self.site.whole(strike.shard());
        self.promote(replica, &["CLUSTER", "FAILOVER"]);
        self.masters[strike.shard()] = self.site.whole(strike.shard()).0;
    }

    fn fail_over_by_hand(&mut self, how: &str, strike: &Strike) {
        self.failing_over(&[strike.shard()], |storm, _, replica| {
            storm.kill_beside(strike);
            storm.promote(replica, &["CLUSTER", "FAILOVER", how]);
        });
    }

    /// Asks a replica to become the master. It gives up after five seconds if it gets no votes, as on a machine under
    /// load, and is asked again.
    fn promote(&self, replica: usize, words: &[&str]) {
        let mut asked: Option<Instant> = None;
        wait_until(SOON, "the replica takes over by hand", || {
            if self.site.ground.is_master(replica) {
                return true;
            }
            if asked.is_none_or(|when| when.elapsed() > Duration::from_secs(6)) {
                self.site.ground.ask::<()>(replica, words);
                asked = Some(Instant::now());
            }
            false
        });
    }

    /// All nodes that processes were told of are gone, one after the other; who starts then waits for one of them.
    fn kill_named(&mut self, strike: &Strike) {
        let mut dead = 0;
        self.failing_over(&NAMED.map(shard_of), |storm, master, replica| {
            let named = if NAMED.contains(&master) { master } else { replica };
            storm.site.ground.nodes[named].kill();
            if named == master {
                storm.wait_for_master(replica);
            }
            dead += 1;
            if dead == NAMED.len() {
                storm.kill(strike, &[Owner]);
                storm.site.ground.cut_clients();
                std::thread::sleep(strike.hold);
                storm.start(&NAMED);
            }
        });
    }

    /// A master comes back so soon that nobody has missed it: with nothing, which its replica then takes from it.
    fn lose_everything(&mut self, strike: &Strike) {
        let shard = strike.shard();
        let (master, _) = self.site.whole(shard);
        self.site.ground.nodes[master].kill();
        self.start(&[master]);
        let (left, _) = self.site.whole(shard);
        for partition in self.site.partitions_of(shard) {
            let which = usize::from(partition);
            self.losses[which].push(window(0));
            // The replica may have been faster.
            self.total_losses[which].push(if left == master { window(0) } else { 0..=0 });
            self.disturbed[which] = true;
        }
        self.masters[shard] = left;
    }

    /// A slot stays half-way for a while, in which other things happen.
    fn move_half_way(&mut self, strike: &Strike) {
        let partition = strike.partition(&self.site);
        let on_the_way = self.site.begin_move(partition, strike);
        let first = strike.between(0, 150) as usize;
        self.counted = self.site.move_keys(&on_the_way, first, strike);
        std::thread::sleep(strike.hold / 2);
        self.kill_beside(strike);
        if strike.dice.is_multiple_of(2) {
            self.site.ground.cut_clients();
        }
        std::thread::sleep(strike.hold / 2);
        self.counted += self.site.move_keys(&on_the_way, usize::MAX, strike);
        self.site.end_move(on_the_way);
    }
}
