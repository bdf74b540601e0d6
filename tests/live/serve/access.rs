//! Who is admitted, from where, and as whom.

use std::path::PathBuf;

use jsonwebtoken::{EncodingKey, Header, encode};
use rollcall::private_server::Options;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Served;
use crate::harness::{read_stream, wait_until};
use crate::process::Worker;
use crate::scene::{SOON, Scene, page};

const SECRET: &str = "a secret of at least thirty-two bytes";

/// Files of tokens and keys.
pub(super) struct Files(TempDir);

impl Files {
    pub(super) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("read", "reader\nboth\n");
        files.write("write", "writer\nboth\n");
        files.write("key", SECRET);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub(super) fn serve(&self, more: &[&str]) -> Served {
        let path = |name: &str| self.path(name).display().to_string();
        let (read, write, key) = (path("read"), path("write"), path("key"));
        let flags =
            ["--read-token-file", &read, "--write-token-file", &write, "--jwt-key-file", &key];
        Served::start(&[], &[&flags, more].concat())
    }
}

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

/// The line of `/metrics` that counts the events refused for a reason.
fn refused(served: &Served, reason: &str) -> String {
    let (_, text) = page(&served.serve, "/metrics");
    let start = format!("rollcall_intake_refused_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().to_owned()
}

fn jwt(claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// The events on the stream, in order.
fn events(served: &Served) -> Vec<Value> {
    let entries = read_stream(&mut served.scene.connection(), "rollcall:events");
    entries
        .iter()
        .flat_map(|entry| {
            serde_json::from_slice::<Vec<Value>>(entry.get(b"data").unwrap()).unwrap()
        })
        .collect()
}

#[test]
fn a_token_may_what_its_file_says() {
    let served = Files::new().serve(&HTTP);
    let event = r#"{"type":"heartbeat","user":"a"}"#;
    for (token, reads, writes) in
        [("reader", 200, 403), ("writer", 403, 202), ("both", 200, 202), ("x", 401, 401)]
    {
        let client = served.client.bearer(token);
        assert_eq!(client.get("/api/v1/online").status, reads, "{token}");
        assert_eq!(client.post("/api/v1/events", event).status, writes, "{token}");
        let ends = client.delete("/api/v1/sessions/s").status;
        assert_eq!(ends, writes, "{token}");
    }
    let reply = served.client.get("/api/v1/online");
    assert_eq!((reply.status, reply.problem().as_str()), (401, "unauthorized"));
    assert!(reply.headers["www-authenticate"].starts_with("Bearer"), "{reply:?}");
    assert_eq!(served.client.get("/api/v1/openapi.json").status, 200);
    assert!(!served.serve.log().contains("reader"), "no token in the log");
    assert_eq!(refused(&served, "forbidden"), "2", "an event and an ending");
}

#[test]
fn rotated_tokens_count_without_a_restart() {
    let files = Files::new();
    let served = files.serve(&[]);
    files.write("next", "fresh\n");
    std::fs::rename(files.path("next"), files.path("read")).unwrap();
    let status = |token: &str| served.client.bearer(token).get("/api/v1/online").status;
    wait_until(SOON, "the file is read again", || status("fresh") == 200);
    assert_eq!(status("reader"), 401);
}

#[test]
fn a_subject_sends_its_own_events_and_sees_what_its_rooms_show() {
    let served = Files::new().serve(&HTTP);
    let ann = served.client.bearer(&jwt(&json!({ "sub": "ann", "rooms": ["user:bob", "doc:d"] })));
    let reply = ann.post("/api/v1/events?wait=20s", r#"[{"type":"heartbeat","user":"eve","ip":"1.1.1.1"},{"type":"session","sid":"s","data":{"user":"eve"}}]"#);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(ann.post("/api/heartbeat", r#"{"user":"eve","page":"/x"}"#).status, 200);
    assert_eq!(ann.post("/api/heartbeat", "{}").status, 200, "who it is, its token says");
    let found = events(&served);
    assert_eq!(found.len(), 4);
    assert!(
        found.iter().all(|event| event["user"] == "ann" && event["ip"] == "127.0.0.1"),
        "{found:?}"
    );
    let status = |path: &str| ann.get(path).status;
    for path in [
        "/api/v1/users/ann",
        "/api/v1/users/bob",
        "/api/v1/documents/d",
        "/api/v1/sessions?user=ann",
        "/api/v1/sessions/s",
    ] {
        assert_eq!(status(path), 200, "{path}");
    }
    for path in [
        "/api/v1/users/cid",
        "/api/v1/documents/e",
        "/api/v1/online",
        "/api/v1/presence",
        "/api/v1/sessions",
        "/api/v1/sessions/x",
        "/api/v1/tokens/t",
        "/api/v1/status",
        "/online",
    ] {
        assert_eq!(status(path), 403, "{path}");
    }
    assert_eq!(ann.post("/api/v1/users/query", r#"{"users":["ann","bob"]}"#).status, 200);
    assert_eq!(ann.post("/api/v1/users/query", r#"{"users":["ann","cid"]}"#).status, 403);
    let bob = served.client.bearer(&jwt(&json!({ "sub": "bob" })));
    assert_eq!(bob.delete("/api/v1/sessions/s").status, 403, "another user's");
    assert_eq!(bob.delete("/api/v1/sessions?user=ann").status, 403);
    assert_eq!(refused(&served, "forbidden"), "2");
    assert_eq!(ann.delete("/api/v1/sessions/s?wait=20s").status, 200);
    let admin = served.client.bearer(&jwt(&json!({ "sub": "root", "rooms": ["admin"] })));
    assert_eq!(admin.get("/api/v1/online").status, 200);
    for claims in [json!({ "sub": "ann", "exp": 1 }), json!({ "rooms": ["admin"] })] {
        assert_eq!(served.client.bearer(&jwt(&claims)).get("/api/v1/users/ann").status, 401);
    }
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.";
    assert_eq!(served.client.bearer(none).get("/api/v1/users/ann").status, 401);
}

#[test]
fn without_credentials_nobody_comes_from_elsewhere() {
    let served = Served::start(&[], &["--cors-origin", "https://app.example"]);
    let own = format!("http://{}", served.client.address);
    let heartbeat =
        |client: &super::Client| client.post("/api/heartbeat", r#"{"user":"a"}"#).status;
    assert_eq!(heartbeat(&served.client.with("Origin", &own)), 200);
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(heartbeat(&served.client.with("Origin", origin)), 403, "{origin}");
        let reply = served.client.with("Origin", origin).get("/api/v1/online");
        assert_eq!((reply.status, reply.problem().as_str()), (403, "forbidden"), "{origin}");
        assert!(!reply.headers.contains_key("access-control-allow-origin"), "{reply:?}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1"] {
        assert_eq!(heartbeat(&served.client.with("Host", host)), 403, "{host}");
    }
    let app = served.client.with("Origin", "https://app.example");
    let reply = app.get("/api/v1/online");
    assert_eq!(reply.headers["access-control-allow-origin"], "https://app.example");
    let asks = app.with("Access-Control-Request-Method", "POST");
    let asks = asks.with("Access-Control-Request-Headers", "content-type,authorization");
    let reply = asks.request("OPTIONS", "/api/heartbeat", "");
    assert_eq!(reply.status, 200);
    assert!(reply.headers["access-control-allow-headers"].contains("content-type"), "{reply:?}");
}

#[test]
fn an_address_for_others_needs_credentials() {
    let scene = Scene::start(&[]);
    for flags in [
        &["--listen", "0.0.0.0:0"][..],
        &["--listen", "[::]:0"],
        &["--listen", "off"],
        &["--jwt-key-file", "/nowhere"],
    ] {
        let mut serve = scene.serve(flags);
        assert_eq!(serve.exit_code(SOON), 64, "{flags:?}");
        assert!(
            serve.log().contains("--listen")
                || serve.log().contains("listen =")
                || serve.log().contains("jwt-key-file"),
            "{}",
            serve.log()
        );
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut serve = scene.serve(&["--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(serve.exit_code(SOON), 1);
    assert!(serve.log().contains("choose another --listen address"), "{}", serve.log());
    let files = Files::new();
    let read = files.path("read").display().to_string();
    let (_serve, client) =
        super::start(&scene, &["--listen", "0.0.0.0:0", "--read-token-file", &read]);
    let port = client.address.rsplit(':').next().unwrap();
    let client = super::Client::new(&format!("127.0.0.1:{port}"));
    assert_eq!(
        client.bearer("reader").with("Host", "rollcall.example").get("/api/v1/online").status,
        200
    );
}

#[test]
fn run_serves_too_and_goes_on_without_a_port() {
    let scene = Scene::start(&[]);
    let ports: Vec<_> =
        (8484..=8493).map(|port| std::net::TcpListener::bind(("127.0.0.1", port))).collect();
    let mut run = Worker::start_as("run", &scene.url(), &["--listen", "auto"], &[]);
    wait_until(SOON, "it has started", || run.log().contains("started"));
    let log = run.log();
    assert!(
        log.contains("serve=\"off\"") && log.contains("are not served: no port from 8484 to 8493"),
        "{log}"
    );
    scene.add_heartbeat("ann");
    scene.wait_finished(SOON, "it works all the same");
    assert_eq!(run.terminate(), 0);
    drop(ports);
    let mut run = Worker::start_as("run", &scene.url(), &[], &[]);
    wait_until(SOON, "it serves", || run.log().contains("serve=\"127.0.0.1:84"));
    assert_eq!(run.terminate(), 0);
    let mut run = Worker::start_as("run", &scene.url(), &["--listen", "off"], &[]);
    wait_until(SOON, "it has started", || run.log().contains("serve=\"off\""));
    assert_eq!(run.terminate(), 0);
}

#[test]
fn the_client_is_who_trusted_proxies_name() {
    let served = Served::start(&[], &["--trusted-proxies", "127.0.0.0/8,10.0.0.0/8"]);
    let proxied = served.client.with("X-Forwarded-For", "1.1.1.1, 203.0.113.9, 10.0.0.1");
    assert_eq!(proxied.post("/api/heartbeat", r#"{"user":"a"}"#).status, 200);
    let direct = Served::without_worker(Options::default(), &[]);
    let forged = direct.client.with("X-Forwarded-For", "1.1.1.1").with("Forwarded", "for=1.1.1.1");
    assert_eq!(forged.post("/api/heartbeat", r#"{"user":"a"}"#).status, 200);
    assert_eq!(events(&served)[0]["ip"], "203.0.113.9");
    assert_eq!(events(&direct)[0]["ip"], "127.0.0.1");
}

#[test]
fn a_client_that_sends_too_much_is_told_when_to_go_on() {
    let served = Files::new().serve(&[&["--rate-limit", "1:5"], &HTTP[..]].concat());
    let ann = served.client.bearer(&jwt(&json!({ "sub": "ann" })));
    let bob = served.client.bearer(&jwt(&json!({ "sub": "bob" })));
    let four =
        r#"[{"type":"heartbeat"},{"type":"heartbeat"},{"type":"heartbeat"},{"type":"heartbeat"}]"#;
    assert_eq!(ann.post("/api/v1/events", four).status, 202);
    let reply = ann.post("/api/v1/events", four);
    assert_eq!((reply.status, reply.problem().as_str()), (429, "too-many-events"), "{reply:?}");
    let after: u64 = reply.headers["retry-after"].parse().unwrap();
    assert!((1..=4).contains(&after), "{after}");
    assert_eq!(refused(&served, "rate_limited"), "4");
    assert_eq!(bob.post("/api/v1/events", four).status, 202, "nobody else is held up");
    let reply = ann.post("/api/heartbeat", r#"{"page":"/"}"#);
    let reply2 = ann.post("/api/heartbeat", r#"{"page":"/"}"#);
    assert!(reply.status == 200 || reply2.status == 429, "{reply:?} {reply2:?}");
    assert_eq!(reply2.json()["status"], if reply2.status == 429 { "error" } else { "success" });
}

#[test]
fn a_page_keeps_its_token_in_a_cookie_that_scripts_cannot_read() {
    let served = Files::new().serve(&[]);
    let reply = served.client.post("/api/v1/login", r#"{"token":"both"}"#);
    assert_eq!(reply.status, 204, "{reply:?}");
    let cookie = &reply.headers["set-cookie"];
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let page = served.client.with("Cookie", cookie.split(';').next().unwrap());
    wait_until(SOON, "it has the state", || page.get("/api/v1/online").status == 200);
    assert_eq!(
        page.with("Origin", "https://evil.example").delete("/api/v1/sessions/s").status,
        403
    );
    let own = format!("http://{}", served.client.address);
    assert_eq!(page.with("Origin", &own).delete("/api/v1/sessions/s").status, 202);
    for body in [r#"{"token":"x"}"#, r#"{"token":""}"#] {
        assert_eq!(served.client.post("/api/v1/login", body).status, 401, "{body}");
    }
    assert_eq!(served.client.post("/api/v1/login", "token=both").status, 400);
    let reply = served.client.post("/api/v1/logout", "");
    assert!(reply.headers["set-cookie"].contains("Max-Age=0"), "{reply:?}");
}
