//! A page of a list costs the same however long the list is.

use rollcall::private_server::Options;
use serde_json::json;

use super::Served;
use crate::support::dump;

/// Writes presence entries and sessions with these numbers.
fn fill(served: &Served, numbers: std::ops::Range<u64>) {
    let mut conn = served.scene.connection();
    let now = dump::server_now(&mut conn);
    for first in numbers.clone().step_by(1_000) {
        let mut pipe = redis::pipe();
        for n in first..(first + 1_000).min(numbers.end) {
            let (user, ip) = (format!("u{n}"), "203.0.113.7");
            let presence = json!({ "lastSeen": now, "user": user, "ip": ip, "ua": "", "page": "" });
            pipe.cmd("HSET").arg("presence:users").arg(format!("{user}|{ip}"));
            pipe.arg(presence.to_string()).ignore();
            let session = json!({ "last_activity": now, "user": user, "ip": ip, "ua": "", "sid": n.to_string() });
            pipe.cmd("HSET").arg("sessions:active").arg(n.to_string());
            pipe.arg(session.to_string()).ignore();
        }
        pipe.exec(&mut conn).unwrap();
    }
}

/// How many commands the server received for a page and the next one.
fn commands(served: &Served, path: &str) -> u64 {
    served.scene.command::<()>(&["CONFIG", "RESETSTAT"]);
    let mut cursor = String::new();
    for _ in 0..2 {
        let reply = served.client.get(&format!("/api/v1/{path}?limit=100&cursor={cursor}"));
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        let page = reply.json();
        assert_eq!(page["items"].as_array().unwrap().len(), 100, "{path}");
        page["cursor"].as_str().unwrap().clone_into(&mut cursor);
    }
    let calls = |command| served.scene.calls(command);
    assert_eq!(
        calls("hgetall") + calls("hvals") + calls("hkeys"),
        0,
        "{path}: nothing is read whole"
    );
    calls("hscan")
}

#[test]
fn a_page_costs_the_same_however_long_the_list_is() {
    let served = Served::without_worker(Options::default(), &[]);
    let paths = ["presence", "sessions"];
    fill(&served, 0..2_000);
    let short = paths.map(|path| commands(&served, path));
    fill(&served, 2_000..60_000);
    let long = paths.map(|path| commands(&served, path));
    for (short, long) in short.into_iter().zip(long) {
        assert!((1..=8).contains(&short) && (1..=8).contains(&long), "{short}, {long} calls");
    }
}
