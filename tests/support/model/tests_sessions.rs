//! The model's rules for sessions with their own lifetimes, by examples.

use super::tests::{NOW, applied, fields, pairs, state};
use super::*;

/// The active sessions, the remembered lifetimes, and the expiry of the data.
fn sessions(entries: &[(i64, &str)]) -> (Vec<String>, Vec<(String, String)>, Option<u64>) {
    let state = state(entries);
    let active = fields(&state, "sessions:active").into_iter().map(|(sid, _)| sid).collect();
    let expiry = state.get(&b"session:s"[..]).and_then(|(_, expiry)| *expiry);
    (active, fields(&state, "rollcall:sessions:ttl"), expiry)
}

const TOUCH: &str = "type session sid s";
const HOUR: &str = "type session sid s ttl 3600 data {}";
const MINUTE: &str = "type session sid s ttl 60 data {}";

fn minutes(ago: i64) -> i64 {
    ago * -60_000
}

#[test]
fn a_session_lives_as_long_as_the_last_event_says_that_names_a_time() {
    let there = |entries: &[(i64, &str)]| sessions(entries).0 == ["s"];
    assert!(there(&[(minutes(45), HOUR)]) && !there(&[(minutes(60), HOUR)]));
    assert!(!there(&[(minutes(1), MINUTE)]) && there(&[(minutes(1) + 1, MINUTE)]));
    assert!(there(&[(minutes(70), HOUR), (minutes(45), TOUCH)]));
    assert!(!there(&[(minutes(70), HOUR), (minutes(45), MINUTE), (minutes(2), TOUCH)]));
    assert!(there(&[(minutes(45), HOUR), (minutes(50), MINUTE)]));
    assert!(there(&[(minutes(45), HOUR), (minutes(45), MINUTE)]), "the longer one at one time");
    assert!(!there(&[(minutes(45), HOUR), (-1, "type session sid s action terminate ttl 9")]));
}

#[test]
fn data_expires_with_its_session_and_the_lifetime_is_remembered_with_the_last_activity() {
    let (_, ttls, expiry) = sessions(&[(minutes(45), HOUR), (minutes(40), TOUCH)]);
    assert_eq!(expiry, Some(NOW - 40 * 60_000 + 3_600_000));
    assert_eq!(ttls, pairs(&[("s", "1789997300000:0003600:1789997600000")]));
    // Shorter than the default: remembered for as long as an earlier event might count otherwise.
    let (active, ttls, expiry) = sessions(&[(minutes(5), MINUTE), (minutes(4), TOUCH)]);
    assert_eq!((active.len(), expiry), (0, None));
    assert_eq!(ttls, pairs(&[("s", "1789999700000:0000060:1789999760000")]));
    assert_eq!(sessions(&[(minutes(30), MINUTE)]).1, []);
    assert_eq!(sessions(&[(minutes(30), MINUTE), (minutes(29), TOUCH)]).1.len(), 1);
    let ended = "type logout user u ip i sid s";
    assert_eq!(sessions(&[(minutes(5), HOUR), (minutes(9), ended)]).1, []);
}

#[test]
fn what_expired_before_a_longer_time_was_known_need_not_be_there() {
    let open = |entries: &[(i64, &str)]| {
        let open = applied(Settings::default(), entries).open(NOW);
        open.into_iter().map(|(name, values)| (name, values.len())).collect::<Vec<_>>()
    };
    let count = |name: &str, count| (name.to_owned(), count);
    assert_eq!(open(&[(minutes(20), HOUR), (minutes(10), TOUCH)]), []);
    assert_eq!(open(&[(minutes(45), HOUR)]), [], "it brings its time along");
    // The touch is late if only the default is known; the session then begins with the earlier event.
    let late = open(&[(minutes(45), HOUR), (minutes(40), TOUCH)]);
    let expected = [
        count("rollcall:sessions:ttl[s]", 2),
        count("session:s expiry", 2),
        count("sessions:active[s]", 2),
    ];
    assert_eq!(late, expected);
    // A lifetime that may be forgotten by now.
    let old = open(&[(minutes(70), HOUR), (minutes(20), TOUCH)]);
    assert_eq!(old, [count("rollcall:sessions:ttl[s]", 1), count("session:s expiry", 2)]);
}
