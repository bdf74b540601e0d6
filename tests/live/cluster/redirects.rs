//! How nodes name each other: by address, by name, by `?`, by nothing, by an address that cannot be reached, and
//! after they moved.

use rollcall::private_server::{Options, PrivateServer};

use super::ground::{Ground, PARTITIONS, user_in};
use super::{SOON, apply, start};
use crate::harness::wait_until;
use crate::query::ground::ask_at;

/// Queries all partitions through these nodes; returns the users found.
fn online(url: &str) -> String {
    let (code, out, error) = ask_at(url, &["online", "--partitions", "4", "--json"]);
    assert_eq!(code, 0, "{url}: {error}");
    out
}

#[test]
fn nodes_are_followed_however_they_name_each_other() {
    let ground = Ground::start(3, 0, &[]);
    let worker = start("run", &ground.nodes[0].url());
    let all: Vec<u16> = (0..PARTITIONS).collect();
    apply(&ground, &all, "first");
    drop(worker);
    let set = |name: &str, value: &str| {
        for node in 0..3 {
            ground.ask::<()>(node, &["CONFIG", "SET", name, value]);
        }
    };
    let elsewhere = (0..3).find(|node| ground.node_of(0) != *node).unwrap();
    let key = ["EXISTS", "{p0}:rollcall:meta"];
    for (kind, host) in [
        ("ip", "127.0.0.1"),
        ("unknown-endpoint", ""),
        ("hostname", "?"),
        ("hostname", "localhost"),
    ] {
        set("cluster-preferred-endpoint-type", kind);
        if host == "localhost" {
            set("cluster-announce-hostname", host);
        }
        let mut conn = crate::support::dump::connect(&ground.nodes[elsewhere].url());
        wait_until(SOON, "redirects are as they should be", || {
            let error = crate::scene::try_command::<u64>(&mut conn, &key).unwrap_err();
            error.redirect_node().is_some_and(|(to, _)| to.starts_with(&format!("{host}:")))
        });
        for node in 0..3 {
            let found = online(&ground.nodes[node].url());
            assert!(all.iter().all(|p| found.contains(&user_in(*p, "first"))), "{kind}: {found}");
        }
    }
}

/// A user who may not ask for the whole view follows redirects.
#[test]
fn a_user_without_rights_to_the_view_goes_by_redirects() {
    let ground = Ground::start(3, 0, &[]);
    for node in 0..3 {
        let words = "ACL SETUSER asker on >pw ~* +@read +@hash +time +info -cluster";
        ground.ask::<()>(node, &words.split(' ').collect::<Vec<_>>());
    }
    for node in 0..3 {
        let url = format!("redis://asker:pw@127.0.0.1:{}", ground.nodes[node].port());
        let (code, _, error) = ask_at(&url, &["online", "--partitions", "4"]);
        assert_eq!(code, 0, "{error}");
    }
}

/// As behind an unconfigured NAT: the announced addresses lead nowhere, but all nodes were named.
#[test]
fn nodes_that_announce_what_cannot_be_reached_are_found_where_they_were_named() {
    let ground = Ground::start(3, 0, &[]);
    let worker = start("run", &ground.nodes[0].url());
    let all: Vec<u16> = (0..PARTITIONS).collect();
    apply(&ground, &all, "first");
    drop(worker);
    for (n, node) in ground.nodes.iter().enumerate() {
        let bus = (node.port() + 10_000).to_string();
        ground.ask::<()>(n, &["CONFIG", "SET", "cluster-announce-bus-port", &bus]);
        ground.ask::<()>(n, &["CONFIG", "SET", "cluster-announce-port", &(n + 1).to_string()]);
    }
    let elsewhere = (0..3).find(|node| ground.node_of(0) != *node).unwrap();
    let mut conn = crate::support::dump::connect(&ground.nodes[elsewhere].url());
    wait_until(SOON, "redirects lead nowhere", || {
        let error = crate::scene::try_command::<u64>(&mut conn, &["EXISTS", "{p0}:"]).unwrap_err();
        error.redirect_node().is_some_and(|(to, _)| to.len() == "127.0.0.1:1".len())
    });
    let hosts: Vec<String> =
        ground.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let found = online(&format!("redis+cluster://{}", hosts.join(",")));
    assert!(all.iter().all(|partition| found.contains(&user_in(*partition, "first"))), "{found}");
    let only = &ground.nodes[elsewhere];
    let (code, _, error) = ask_at(&only.url(), &["online", "--partitions", "4"]);
    let own = format!("127.0.0.1:{} says that", only.port());
    assert!(code == 1 && error.contains("connecting to 127.0.0.1:"), "{error} {own}");
}

#[test]
fn a_node_that_comes_back_under_another_address_is_found_there() {
    let mut ground = Ground::start(3, 0, &[]);
    let all: Vec<u16> = (0..PARTITIONS).collect();
    let moving = ground.node_of(0);
    let other = (moving + 1) % 3;
    let mut process = start("run", &ground.nodes[other].url());
    apply(&ground, &all, "first");
    ground.ask::<()>(moving, &["SAVE"]);
    ground.nodes[moving].kill();
    let folder = ground.nodes[moving].folder().display().to_string();
    let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--dir", &folder];
    let extra_args = args.map(str::to_owned).to_vec();
    let moved = PrivateServer::start(Options { extra_args, ..Options::default() }).unwrap();
    let _folder = std::mem::replace(&mut ground.nodes[moving], moved);
    apply(&ground, &all, "after the move");
    assert_eq!(process.terminate(), 0, "{}", process.log());
}
