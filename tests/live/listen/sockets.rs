//! Socket.IO as the source document's front end uses it, with the libraries it uses.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{Language, Sockets, TRANSPORTS, address};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::{SOON, Scene, in_parallel, metric};
use crate::serve::client::Client;

/// A deployment with a worker and a janitor, and a process that serves.
struct Served {
    scene: Scene,
    serve: Worker,
    _others: [Worker; 2],
}

impl Served {
    fn start(settings: &[(&str, &str)], flags: &[&str]) -> Self {
        let scene = Scene::start(settings);
        let others = [scene.worker(&[]), scene.janitor(&[])];
        let serve = scene.serve(&[&["--http", "127.0.0.1:0"], flags].concat());
        Self { scene, serve, _others: others }
    }

    fn http(&self) -> Client {
        Client::new(&address(&self.serve).to_string())
    }

    fn add(&self, event: &Value) {
        let reply = self.http().post("/api/v1/events", &event.to_string());
        assert_eq!(reply.status, 202, "{reply:?}");
    }
}

#[test]
fn rooms_hear_of_what_clients_do_over_every_transport() {
    let served = Served::start(&[("thresholds", "1:0")], &["--activity-interval", "100ms"]);
    let cases = Language::ALL.iter().flat_map(|l| TRANSPORTS.map(|transports| (*l, transports)));
    in_parallel(cases, |(language, transports)| walk_through(&served, language, transports));
}

fn walk_through(served: &Served, language: Language, transports: &[&str]) {
    let (mut sockets, at) = (Sockets::start(language), address(&served.serve));
    // All cases share the admin room: each looks at its own user.
    let user = format!("{language:?} by {}", transports.join(" or "));
    let (sid, doc) = (format!("session {user}"), format!("doc {user}"));
    let is_own = |line: &Value, event: &str, kind: &str| {
        let data = &line["data"];
        line["name"] == "admin"
            && line["event"] == event
            && data["type"] == kind
            && (data["user"] == *user || data["sid"] == *sid)
    };
    // If both are allowed, it may have upgraded by then.
    let began = sockets.connect("admin", at, transports);
    assert!(transports.iter().any(|transport| began == **transport), "{began}");
    sockets.emit("admin", "join-room", &json!({}));
    assert_eq!(sockets.expect("admin", "joined_room"), json!({ "room": "admin" }));
    sockets.connect("client", at, transports);
    sockets.join("self", at, transports, &format!("user:{user}"));
    sockets.join("reader", at, transports, &format!("doc:{doc}"));
    let told = |sockets: &mut Sockets, event: &str, kind: &str| {
        let found = sockets
            .expect_where(&format!("{event} {kind} of {user}"), |line| is_own(line, event, kind));
        found["data"].clone()
    };

    sockets.emit("client", "user:heartbeat", &json!({ "user": user, "page": "/one" }));
    let login = told(&mut sockets, "admin:presence:update", "user_login");
    let (page, ip) = (&login["page"], &login["ip"]);
    assert_eq!((page.as_str(), ip.as_str()), (Some("/one"), Some("127.0.0.1")), "{login}");
    assert!(login["lastSeen"].as_u64() > Some(1_790_000_000_000), "{login}");
    let keys = ["type", "user", "ip", "ua", "page", "lastSeen"];
    assert_eq!(login.as_object().unwrap().len(), keys.len());
    assert!(keys.iter().all(|key| login.get(key).is_some()), "{login}");
    assert_eq!(sockets.expect_type("self", "presence:update", "user_login"), login);

    sockets.emit("client", "user:heartbeat", &json!({ "user": user, "page": "/two" }));
    loop {
        let activity = told(&mut sockets, "admin:presence:update", "user_activity");
        if activity["page"] == "/two" {
            break;
        }
    }
    sockets.emit("client", "user:login", &json!({ "user": user }));
    loop {
        let activity = sockets.expect_type("self", "presence:update", "user_activity");
        if activity["page"] == "/" {
            break;
        }
    }
    let update = json!({ "sid": sid, "user": user }).to_string();
    assert_eq!(served.http().post("/api/session/update", &update).status, 200);
    let started = told(&mut sockets, "admin:sessions:update", "session_activity");
    assert_eq!((&started["sid"], &started["user"]), (&json!(sid), &json!(user)));
    assert!(started["last_activity"].is_u64() && started["ip"] == "127.0.0.1", "{started}");
    sockets.emit("client", "session:terminate", &json!({ "sid": sid, "user": user }));
    let ended = told(&mut sockets, "admin:sessions:update", "session_terminated");
    assert_eq!((&ended["sid"], &ended["last_activity"]), (&json!(sid), &json!("")));

    served.add(&json!({ "type": "document", "doc": doc, "user": user, "action": "join" }));
    let joined = sockets.expect_type("reader", "document:update", "joined");
    let expected =
        json!({ "type": "joined", "doc": doc, "user": user, "count": 1, "threshold": "" });
    assert_eq!(joined, expected);
    let reached = sockets.expect_type("reader", "document:update", "threshold_reached");
    let expected =
        json!({ "type": "threshold_reached", "doc": doc, "user": "", "count": 1, "threshold": 1 });
    assert_eq!(reached, expected);
    served.add(&json!({ "type": "document", "doc": doc, "user": user, "action": "leave" }));
    assert_eq!(sockets.expect_type("reader", "document:update", "left")["count"], 0);
    sockets.expect_type("reader", "document:update", "threshold_left");

    sockets.emit("client", "user:logout", &json!({ "user": user }));
    let logout = told(&mut sockets, "admin:presence:update", "user_logout");
    assert_eq!((&logout["user"], &logout["lastSeen"]), (&json!(user), &json!("")));
    assert_eq!(sockets.expect_type("self", "presence:update", "user_logout"), logout);

    sockets.emit("reader", "leave-room", &json!({ "room": format!("doc:{doc}") }));
    sockets.expect("reader", "left_room");
    served.add(&json!({ "type": "document", "doc": doc, "user": user, "action": "join" }));
    for name in ["admin", "client", "self", "reader"] {
        sockets.close(name);
    }
    let rest = sockets.heard_within(Duration::from_millis(100));
    assert!(rest.iter().all(|line| line["event"] != "document:update"), "{rest:?}");
}

#[test]
fn bad_input_is_answered_with_an_error_and_hurts_nobody() {
    let served = Served::start(&[], &["--max-rooms", "2", "--rate-limit", "1000:3"]);
    let at = address(&served.serve);
    for language in Language::ALL {
        let mut sockets = Sockets::start(language);
        sockets.join("a", at, &["websocket"], "admin");
        for (event, data, message) in [
            ("join-room", json!({ "room": "lobby" }), "the rooms are"),
            ("join-room", json!({ "room": 5 }), "the rooms are"),
            ("join-room", json!("admin"), "a room is named"),
            ("join-room", json!({ "room": format!("user:{}", "x".repeat(300)) }), "too long"),
            ("user:heartbeat", json!({ "page": "/" }), "User required"),
            ("user:heartbeat", json!({ "user": "x".repeat(300) }), "256"),
            ("user:login", json!("ann"), "takes one object"),
            ("user:logout", json!({ "user": { "name": "ann" } }), "user"),
            ("session:terminate", json!({ "user": "ann" }), "Session ID required"),
            ("session:terminate", Value::Null, "takes one object"),
        ] {
            sockets.emit("a", event, &data);
            let error = sockets.expect("a", "error");
            let said = error["message"].as_str().unwrap();
            assert!(said.contains(message), "{language:?} {event} {data}: {said}");
        }
        sockets.emit("a", "no:such:event", &json!({}));
        sockets.emit("a", "join-room", &json!({ "room": "doc:d" }));
        sockets.expect("a", "joined_room");
        sockets.emit("a", "join-room", &json!({ "room": "doc:e" }));
        let error = sockets.expect("a", "error");
        assert!(error["message"].as_str().unwrap().contains("2 rooms"), "{error}");
        // It can still do everything, and acknowledgements say so.
        let done = sockets.ask("a", "user:heartbeat", &json!({ "user": "ann" }));
        assert_eq!(done, json!({ "status": "success" }));
        let refused = sockets.ask("a", "user:heartbeat", &json!({}));
        assert_eq!(refused, json!({ "status": "error", "message": "User required" }));
        assert_eq!(
            sockets.ask("a", "leave-room", &json!({ "room": "doc:d" }))["status"],
            "success"
        );
        sockets.forget();
    }
    let mut sockets = Sockets::start(Language::JavaScript);
    sockets.join("a", at, &["websocket"], "admin");
    for _ in 0..2_000 {
        sockets.emit("a", "user:heartbeat", &json!({ "user": "often" }));
    }
    let too_many = sockets.expect_where("too many", |line| {
        line["event"] == "error" && line["data"]["message"].as_str().unwrap().contains("too many")
    });
    assert_eq!(too_many["name"], "a");
}

#[test]
fn a_connection_shows_its_token_and_may_what_that_says() {
    const SECRET: &str = "a secret of at least thirty-two bytes";
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("read"), "reader\n").unwrap();
    std::fs::write(path("write"), "writer\n").unwrap();
    std::fs::write(path("key"), SECRET).unwrap();
    let (read, write, key) = (path("read"), path("write"), path("key"));
    let flags = ["--read-token-file", &read, "--write-token-file", &write, "--jwt-key-file", &key];
    let served = Served::start(&[], &flags);
    let jwt = |claims: Value| {
        encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    };
    let at = address(&served.serve);
    in_parallel(Language::ALL, |language| {
        let mut sockets = Sockets::start(language);
        for auth in [Value::Null, json!({}), json!({ "token": "wrong" }), json!({ "token": 5 })] {
            sockets.open("nobody", at, &["websocket"], &auth);
            let message = sockets.expect("nobody", "connect_error");
            assert!(message.as_str().is_some_and(|words| words.len() > 10), "{auth}: {message}");
        }
        let mut open = |name: &str, token: &str| {
            sockets.open(name, at, &["polling", "websocket"], &json!({ "token": token }));
            sockets.expect(name, "connect");
        };
        let name = format!("{language:?}");
        open("reader", "reader");
        open("writer", "writer");
        open("ann", &jwt(json!({ "sub": name, "rooms": ["doc:d"] })));
        let soon = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        open("short", &jwt(json!({ "sub": "bob", "exp": soon.as_secs() + 3 })));
        sockets.emit("reader", "join-room", &json!({}));
        sockets.expect("reader", "joined_room");
        for (who, room) in [("writer", "admin"), ("ann", "admin"), ("ann", "user:bob")] {
            sockets.emit(who, "join-room", &json!({ "room": room }));
            let said = sockets.expect(who, "error");
            assert!(said["message"].as_str().unwrap().contains("does not name"), "{said}");
        }
        sockets.emit("ann", "join-room", &json!({ "room": "doc:d" }));
        sockets.expect("ann", "joined_room");
        sockets.emit("reader", "user:heartbeat", &json!({ "user": "forged" }));
        sockets.expect("reader", "error");
        // The token determines the user, whatever the event says.
        sockets.emit("ann", "user:heartbeat", &json!({ "user": "forged" }));
        sockets.expect_where("the token's user", |line| line["data"]["user"] == *name);
        sockets.emit("ann", "session:terminate", &json!({ "sid": "of somebody else" }));
        let said = sockets.expect("ann", "error");
        assert!(said["message"].as_str().unwrap().contains("own user's"), "{said}");
        let said = sockets.expect("short", "error");
        assert_eq!(said["message"], "the token has expired");
        sockets.expect("short", "disconnect");
        let heard = sockets.heard_within(Duration::ZERO);
        assert!(heard.iter().all(|line| line["data"]["user"] != "forged"), "{heard:?}");
    });
    assert!(!served.serve.log().contains("wrong"), "no token in the log");
}

#[test]
fn other_sites_pages_cannot_open_a_connection() {
    let served = Served::start(&[], &[]);
    let at = address(&served.serve);
    let handshake = |transport: &str, headers: &[(&str, &str)]| {
        let mut client = served.http();
        for (name, value) in headers {
            client = client.with(name, value);
        }
        if transport == "websocket" {
            let upgrade = [
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ];
            client = upgrade.iter().fold(client, |client, (name, value)| client.with(name, value));
        }
        client.get(&format!("/socket.io/?EIO=4&transport={transport}")).status
    };
    let own = format!("http://{at}");
    assert_eq!(handshake("polling", &[("Origin", &own)]), 200);
    for transport in ["polling", "websocket"] {
        assert_eq!(handshake(transport, &[("Origin", "http://evil.example")]), 403);
        assert_eq!(handshake(transport, &[("Host", "evil.example")]), 403);
    }
}

#[test]
fn activity_is_read_along_while_somebody_watches_and_bounded() {
    let flags = ["--activity-interval", "500ms", "--activity-rate", "10"];
    let served = Served::start(&[], &flags);
    let (mut sockets, at) = (Sockets::start(Language::JavaScript), address(&served.serve));
    let readers = || {
        let clients: String = served.scene.command(&["CLIENT", "LIST"]);
        clients.lines().filter(|line| line.contains("cmd=xread ")).count()
    };
    sockets.join("reader", at, &["websocket"], "doc:d");
    // The worker reads the events, and the feed the changes.
    let unwatched = 2;
    wait_until(SOON, "the feed is read", || readers() == unwatched);
    sockets.join("admin", at, &["websocket"], "admin");
    wait_until(SOON, "the stream is read along", || readers() == unwatched + 1);
    served.add(&json!({ "type": "heartbeat", "user": "ann", "page": "/first" }));
    sockets.expect_type("admin", "admin:presence:update", "user_activity");
    sockets.forget();
    // The newest of each subject, for five subjects per interval.
    let event = |user: u64, page: u64| json!({ "type": "heartbeat", "user": format!("u{user}"), "page": format!("/{page}") });
    let events: Vec<Value> = (0..400).map(|n| event(n % 8, n / 8)).collect();
    served.add(&Value::from(events));
    let heard = sockets.heard_within(Duration::from_millis(1_400));
    let told = |kind: &'static str| heard.iter().filter(move |line| line["data"]["type"] == kind);
    assert_eq!(told("user_login").count(), 8, "{heard:?}");
    assert_eq!(told("user_activity").count(), 5, "{heard:?}");
    assert!(told("user_activity").all(|line| line["data"]["page"] == "/49"), "{heard:?}");
    let left_out: Vec<_> = heard.iter().filter(|l| l["event"] == "activity:left_out").collect();
    assert_eq!(left_out.len(), 1, "{heard:?}");
    assert_eq!(left_out[0]["data"], json!({ "room": "admin", "count": 150 }));
    assert_eq!(metric(&served.serve, "rollcall_activity_told_total"), 6.0);
    assert_eq!(metric(&served.serve, "rollcall_activity_left_out_total"), 395.0);
    sockets.close("admin");
    wait_until(SOON, "it is read no more", || readers() == unwatched);
}

#[test]
fn a_connection_that_does_not_read_is_given_up_and_holds_nobody_up() {
    let served = Served::start(&[], &[]);
    let (http, mut sockets) = (served.http(), Sockets::start(Language::JavaScript));
    let at = address(&served.serve);
    sockets.join("reader", at, &["websocket"], "doc:d");
    let opened = http.get("/socket.io/?EIO=4&transport=polling").body;
    let sid = serde_json::from_str::<Value>(&opened[1..]).unwrap()["sid"].clone();
    let slow = format!("/socket.io/?EIO=4&transport=polling&sid={}", sid.as_str().unwrap());
    // It reads the answers until it is in the room, and nothing afterwards.
    for (packet, answer) in
        [("40", "40{"), (r#"42["join-room",{"room":"doc:d"}]"#, r#"42["joined_room""#)]
    {
        let sent = http.with("Content-Type", "text/plain").request("POST", &slow, packet);
        assert_eq!(sent.status, 200);
        wait_until(SOON, answer, || http.get(&slow).body.contains(answer));
    }
    let users: u64 = 24_000;
    let mut conn = served.scene.connection();
    for first in (0..users).step_by(1_000) {
        let join = |n: u64| json!({ "type": "document", "doc": "d", "user": n.to_string(), "action": "join" });
        let events: Vec<Value> = (first..first + 1_000).map(join).collect();
        let data = Value::from(events).to_string();
        let words = ["XADD", "rollcall:events", "*", "data", &data];
        crate::scene::try_command::<String>(&mut conn, &words).unwrap();
    }
    let last = |line: &Value| line["data"]["user"] == (users - 1).to_string().as_str();
    sockets.expect_where("the last who joined", last);
    let dropped = || metric(&served.serve, "rollcall_listeners_dropped_total") >= 1.0;
    wait_until(SOON, "the slow one is dropped", dropped);
    let joins = sockets.heard_within(Duration::ZERO);
    let joins = joins.iter().filter(|line| line["event"] == "document:update").count();
    assert_eq!(joins as u64, users - 1, "the other one missed nothing");
}

#[test]
fn clients_come_back_when_a_process_or_the_server_does() {
    let mut scene = Scene::start_with(
        &[],
        rollcall::private_server::Options { appendonly: true, ..Default::default() },
    );
    let worker = scene.worker(&[]);
    let mut serve = scene.serve(&[]);
    let at = address(&serve);
    let mut sockets = Language::ALL.map(Sockets::start);
    for sockets in &mut sockets {
        sockets.join("admin", at, &["polling", "websocket"], "admin");
    }
    let port = at.port().to_string();
    serve.kill();
    serve = scene.serve(&["--listen", &format!("127.0.0.1:{port}")]);
    for sockets in &mut sockets {
        sockets.expect("admin", "disconnect");
        sockets.expect("admin", "connect");
        sockets.emit("admin", "join-room", &json!({}));
        sockets.expect("admin", "joined_room");
    }
    scene.deployment.server.kill();
    scene.deployment.server.restart().unwrap();
    let mut n = 0;
    for sockets in &mut sockets {
        let started = std::time::Instant::now();
        loop {
            assert!(started.elapsed() < SOON, "{}", serve.log());
            n += 1;
            scene.add_heartbeat(&format!("user {n}"));
            let heard = sockets.heard_within(Duration::from_millis(200));
            if heard.iter().any(|line| line["data"]["type"] == "user_login") {
                break;
            }
        }
    }
    assert_eq!(serve.terminate(), 0, "{}", serve.log());
    drop(worker);
}
