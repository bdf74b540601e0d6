//! What a listener receives, and how it resumes.

use std::time::Duration;

use serde_json::Value;

use super::ground::{Ground, resident};
use super::{Client, address};
use crate::replica::Replica;

fn seqs(changes: &[Value]) -> Vec<u64> {
    changes.iter().map(|change| change["seq"].as_u64().unwrap()).collect()
}

#[test]
fn changes_come_as_events_and_go_on_after_the_last_id() {
    let mut ground = Ground::new(&[]);
    let mut client = ground.open("", "");
    ground.record(1, "\\\"\n");
    let event = client.next();
    let text =
        r#"{"kind":"online","partition":0,"seq":1,"time":1790000000000,"user":"1\\\"\n","ip":""}"#;
    assert_eq!((event.name.as_str(), event.data.as_str()), ("", text));
    let mut late = ground.open("", "");
    ground.record(2_500, "");
    let heard: Vec<_> = (0..2_500).map(|_| client.change()).collect();
    assert_eq!(seqs(&heard), (2..=2_501).collect::<Vec<_>>());
    assert_eq!(late.change()["seq"], 2);
    // From the ring of this process, and from the stream by another one.
    let other = ground.scene.serve(&[]);
    for serve in [&ground.serve, &other] {
        let mut back = Client::open(address(serve), "", &event.id, "");
        let heard: Vec<_> = (0..2_500).map(|_| back.change()).collect();
        assert_eq!(seqs(&heard), (2..=2_501).collect::<Vec<_>>());
        assert_eq!(back.last_id, client.last_id);
    }
    // A listener that received nothing yet resumes where it began.
    let mut waits = Client::open(address(&other), "", "", "");
    let mut back = Client::open(address(&other), "", &waits.ids(1)[0], "");
    ground.record(1, "");
    assert_eq!(back.change()["seq"].as_u64(), waits.change()["seq"].as_u64());
}

#[test]
fn a_filter_lets_through_what_it_names_and_the_position_moves_on() {
    let mut ground = Ground::new(&[]);
    ground.record(1, "");
    let mut client = ground.open("user=3&user=5&kind=online", "");
    let mut nothing = ground.open("kind=offline", "");
    let mut missed = ground.open("user=4", "1.1");
    assert_eq!(missed.next().name, "gap");
    missed.snapshot();
    ground.record(5, "");
    assert_eq!([client.change()["seq"].clone(), client.change()["seq"].clone()], [3, 5]);
    assert_eq!(missed.change()["seq"], 4);
    // Nothing passes the filter, and yet the sign of life brings the position.
    let ids = nothing.ids(2);
    assert!(ids[0].starts_with("1.") && ids[1].starts_with("6."), "{ids:?}");
}

#[test]
fn what_is_no_longer_kept_is_a_gap_and_a_new_snapshot() {
    let mut ground = Ground::new(&[]);
    ground.record(10, "");
    ground.open("", "").ids(1);
    let mut client = ground.open("snapshot=1", "");
    let position = client.snapshot()["position"].as_str().unwrap().to_owned();
    ground.record(10, "");
    assert_eq!(seqs(&(0..10).map(|_| client.change()).collect::<Vec<_>>()).last(), Some(&20));
    ground.run::<()>(&["XTRIM", "rollcall:changes", "MAXLEN", "5"]);
    // The ring still has them; a process that starts later does not.
    let mut back = ground.open("snapshot=1", &position);
    assert_eq!(back.change()["seq"], 11);
    let other = ground.scene.serve(&[]);
    let mut lost = Client::open(address(&other), "", &position, "");
    let gap = lost.next();
    assert_eq!((gap.name.as_str(), gap.id.as_str()), ("gap", position.as_str()));
    assert!(gap.json()["reason"].is_string());
    assert_eq!(lost.snapshot()["position"], client.last_id);
    ground.record(1, "");
    assert_eq!([lost.change()["seq"].clone(), client.change()["seq"].clone()], [21, 21]);
    // A position of another deployment, with other partitions, or of a server that has since lost everything.
    for other in ["l.mubbs7i8", "5.0~5.0"] {
        assert_eq!(ground.open("", other).next().name, "gap", "{other}");
    }
    ground.run::<()>(&["FLUSHALL"]);
    ground.record(3, "");
    for client in [&mut client, &mut lost] {
        assert_eq!(client.next().name, "gap");
        let snapshot = client.snapshot();
        let nothing = Replica::from_snapshot(&snapshot).differences(&Replica::default());
        assert_eq!(nothing, [""; 0]);
        assert!(snapshot["position"].as_str().unwrap().starts_with("3."), "{snapshot}");
    }
    ground.record(1, "");
    assert_eq!([lost.change()["seq"].clone(), client.change()["seq"].clone()], [4, 4]);
}

#[test]
fn who_does_not_read_is_dropped_and_holds_nobody_up() {
    let mut ground = Ground::new(&[]);
    let (mut slow, mut client) = (ground.open("", ""), ground.open("user=none", ""));
    let long = "x".repeat(250);
    let before = resident(&ground.serve);
    for _ in 0..60 {
        ground.record(1_000, &long);
    }
    ground.record(1, "");
    let mut last = ground.open("", "");
    ground.record(1, "");
    while last.change()["seq"] != 60_002 {}
    let grown = resident(&ground.serve).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for a listener that does not read");
    let why = slow.end();
    assert!(why.starts_with("too slow"), "{why:?}");
    let mut back = ground.open("", &slow.last_id);
    let (first, id) = (back.change(), slow.last_id.clone());
    assert_eq!(id.split('.').next(), Some(&*base36(first["seq"].as_u64().unwrap() - 1)));
    client.set_patience(Duration::from_millis(100));
    assert_eq!(client.try_next(), None);
}

fn base36(mut n: u64) -> String {
    let mut digits = Vec::new();
    while n > 0 {
        digits.push(char::from_digit((n % 36) as u32, 36).unwrap());
        n /= 36;
    }
    digits.iter().rev().collect()
}

#[test]
fn a_token_that_no_longer_counts_ends_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, "one\ntwo\n").unwrap();
    let mut ground = Ground::new(&["--read-token-file", file.to_str().unwrap()]);
    let open = |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        Client::open(address(&ground.serve), "", "", &header)
    };
    let (mut one, mut two) = (open("one"), open("two"));
    std::fs::write(&file, "two\n").unwrap();
    assert_eq!(one.end(), "the token is no longer valid");
    ground.record(1, "");
    assert_eq!(two.change()["seq"], 1);
}

#[test]
fn a_process_that_stops_says_so_to_its_listeners() {
    let mut ground = Ground::new(&[]);
    let mut client = ground.open("snapshot=1", "");
    client.snapshot();
    assert_eq!(ground.serve.terminate(), 0, "{}", ground.serve.log());
    assert_eq!(client.end(), "the server stops");
}
