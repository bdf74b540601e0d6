//! The entries decide what happens at the same instant, not which came first: every pair in both orders, one call
//! each.

use rollcall::entry::Entry;

use crate::harness::{Deployment, id};
use crate::support::dump;

/// Pairs of contradictory events of one instant.
const PAIRS: &[[&[(&str, &str)]; 2]] = &[
    [
        &[("type", "heartbeat"), ("user", "u"), ("page", "/a")],
        &[("type", "heartbeat"), ("user", "u"), ("page", "/b")],
    ],
    [
        &[("type", "heartbeat"), ("user", "u"), ("ip", "i")],
        &[("type", "logout"), ("user", "u"), ("ip", "i")],
    ],
    [&[("type", "heartbeat"), ("user", "u"), ("ip", "i")], &[("type", "logout"), ("user", "u")]],
    [
        &[("type", "login"), ("user", "u"), ("token", "t")],
        &[("type", "login"), ("user", "v"), ("token", "t")],
    ],
    [
        &[("type", "session"), ("sid", "s"), ("ua", "a"), ("data", "1")],
        &[("type", "session"), ("sid", "s"), ("ua", "b"), ("data", "2")],
    ],
    [
        &[("type", "session"), ("sid", "s"), ("data", "1"), ("ttl", "7200")],
        &[("type", "session"), ("sid", "s"), ("ttl", "600")],
    ],
    [
        &[("type", "document"), ("doc", "d"), ("user", "u"), ("action", "join")],
        &[("type", "document"), ("doc", "d"), ("user", "u"), ("action", "leave")],
    ],
];

#[tokio::test]
async fn at_the_same_instant_the_order_of_arrival_decides_nothing() {
    let deployment = Deployment::start(&[]);
    for pair in PAIRS {
        check_both_orders(
            &deployment,
            pair.map(|fields| {
                fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
            }),
        )
        .await;
    }
    // Opaque data: the greater bytes win also if they are not text.
    let session = |data| {
        let content = ("datacontenttype", &b"application/octet-stream"[..]);
        vec![("type", &b"session"[..]), ("sid", b"s"), content, ("data", data)]
    };
    // Long values that differ near the ends of the chunks in which they are compared, or only in length.
    let long = |length: usize, last: u8| [&vec![b'a'; length - 1][..], &[last]].concat();
    let [mut less, mut greater] = [Vec::new(), Vec::new()];
    for length in [63, 64, 65, 127, 128, 129, 1_000] {
        less.extend([long(length, b'a'), long(length, b'b')]);
        greater.extend([long(length, b'c'), long(length + 1, b'b')]);
    }
    less.push(long(64, b'a'));
    greater.push(long(65, b'a'));
    let long = less.iter().zip(&greater).map(|(less, greater)| (&less[..], &greater[..]));
    let short = [(&b"\x7f\xff"[..], &b"\x80"[..]), (b"\xff", b"\xff\0"), (b"\xc3\xa9", b"\xff")];
    for (less, greater) in short.into_iter().chain(long) {
        let (less, greater) = if less < greater { (less, greater) } else { (greater, less) };
        check_both_orders(&deployment, [session(less), session(greater)]).await;
        let kept: Vec<u8> =
            redis::Commands::get(&mut deployment.connection(), "session:s").unwrap();
        assert_eq!(kept, greater);
    }
}

/// Applies two events of one instant in each order, to an empty server.
async fn check_both_orders(deployment: &Deployment, pair: [Vec<(&str, &[u8])>; 2]) {
    for order in [[0, 1], [1, 0]] {
        redis::cmd("FLUSHALL").exec(&mut deployment.connection()).unwrap();
        let now = dump::server_now(&mut deployment.connection());
        let time = (now - 1_000).to_string();
        let entry = |seq: usize| {
            let fields = pair[order[seq]].iter().map(|(name, value)| (name.as_bytes(), *value));
            Entry::new(id(now, seq as u64), fields.chain([(&b"time"[..], time.as_bytes())]))
        };
        let entries = [entry(0), entry(1)];
        deployment.add(0, &entries);
        let mut script = deployment.script(0).await;
        for one in entries.chunks(1) {
            script.apply(one).await;
        }
        deployment.verify(&format!("{pair:?} in the order {order:?}")).await;
    }
}

/// An older activity proves that an entry is the newest, not that it exists.
#[tokio::test]
async fn an_entry_that_had_ended_before_it_came_leaves_no_trace() {
    let deployment = Deployment::start(&[]);
    let now = dump::server_now(&mut deployment.connection());
    let entry = |(seq, kind, ip, age_s): (u64, &str, &str, u64)| {
        let time = (now - age_s * 1_000).to_string();
        let fields = [("type", kind), ("user", "u"), ("ip", ip), ("time", &time)];
        Entry::new(id(now, seq), fields)
    };
    let events =
        [(0, "heartbeat", "other", 60), (1, "logout", "gone", 40), (2, "heartbeat", "gone", 50)];
    let entries = events.map(entry);
    deployment.add(0, &entries);
    let mut script = deployment.script(0).await;
    for one in entries.chunks(1) {
        script.apply(one).await;
    }
    deployment.verify("an ending came before what it ended").await;
}
