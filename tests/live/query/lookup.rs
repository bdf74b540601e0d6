//! Lookups by name, without a walk over everything.

use redis::Commands as _;
use serde_json::json;

use super::ground::{Ground, ODD};
use crate::support::dump::calls;

#[test]
fn a_user_is_found_by_the_index_however_many_others_there_are() {
    let mut ground = Ground::new();
    let now = ground.now_ms;
    let index = "rollcall:presence:addresses";
    for user in ODD {
        for (ip, ago) in [("", 3_000), ("1|2", 1_000), ("stale", 400_000)] {
            ground.present(user, ip, now - ago);
        }
        // An entry that has disappeared meanwhile.
        let _: () = ground.conn.hset(index, user, "|1%7C2|gone|stale").unwrap();
    }
    let mut pipe = redis::pipe();
    for n in 0..2_100_u64 {
        ground.present("guest", &n.to_string(), now - n);
        pipe.zadd("rollcall:presence:crowds", format!("guest|{n}"), 0).ignore();
        pipe.zadd("rollcall:presence:crowds", format!("guest}}|{n}"), 0).ignore();
    }
    pipe.hset(index, "guest", "%").ignore();
    let _: () = pipe.query(&mut ground.conn).unwrap();
    for user in ODD {
        let presence = ground.json(&["user", user])["presence"].clone();
        let found: Vec<_> = presence.as_array().unwrap().iter().map(|p| p["ip"].as_str()).collect();
        assert_eq!(found, [Some("1|2"), Some("")], "{user}");
    }
    let guest = ground.json(&["user", "guest"])["presence"].clone();
    assert_eq!(guest.as_array().unwrap().len(), 2_100);
    assert_eq!(guest[2_099]["ip"], "2099", "the newest first");
    assert!(ground.error(&["user", "nobody"], 1).contains("nothing is known of user nobody"));
    assert_eq!(calls(&mut ground.conn, "hscan"), 0);
    // State that a version without an index left behind is walked through.
    let _: () = ground.conn.del(&[index, "rollcall:presence:crowds"]).unwrap();
    assert_eq!(ground.json(&["user", "alice"])["presence"].as_array().unwrap().len(), 2);
    assert!(calls(&mut ground.conn, "hscan") > 0);
}

#[test]
fn a_session_is_active_for_as_long_as_it_was_given() {
    let mut ground = Ground::new();
    let now = ground.now_ms;
    let (hour, minute) = (3_600_000, 60_000);
    for (sid, ago) in
        [("long", hour), ("short", 2 * minute), ("forgotten", 20 * minute), ("usual", 40 * minute)]
    {
        let at = now - ago;
        let value = json!({"last_activity": at, "sid": sid, "session_id": sid, "user": "u"});
        let _: () = ground.conn.hset("sessions:active", sid, value.to_string()).unwrap();
    }
    // The last record is of a session that was gone for long before this one began.
    for (sid, ago, ttl) in
        [("long", hour, 7200), ("short", 2 * minute, 60), ("forgotten", hour, 60)]
    {
        let at = now - ago;
        let record = format!("{at}:{ttl:07}:{at}");
        let _: () = ground.conn.hset("rollcall:sessions:ttl", sid, record).unwrap();
    }
    let sessions = ground.json(&["sessions"])["sessions"].clone();
    let found = |n: usize| (sessions[n]["sid"].clone(), sessions[n]["expires_ms"].clone());
    assert_eq!(found(0), (json!("forgotten"), json!(now + 10 * minute)));
    assert_eq!(found(1), (json!("long"), json!(now + hour)));
    assert_eq!(sessions.as_array().unwrap().len(), 2);
    for (sid, active) in [("long", true), ("short", false), ("usual", false)] {
        ground.json_has(&["sessions", sid], json!({"active": active}));
    }
    let page = ground.page(&["sessions", "long"]);
    assert!(page.contains("expires        in 59 min without activity"), "{page}");
    assert!(ground.page(&["sessions", "short"]).contains("; expired)"));
}
