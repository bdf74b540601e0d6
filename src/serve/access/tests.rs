//! Access as a whole: who is let in with which credentials, and who is not.

use std::fs;
use std::path::PathBuf;

use axum::http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::config::{Config, Gathered};

const RS256: (&str, &str) =
    (include_str!("../../../tests/keys/rs256.key"), include_str!("../../../tests/keys/rs256.pub"));
const ES256: (&str, &str) =
    (include_str!("../../../tests/keys/es256.key"), include_str!("../../../tests/keys/es256.pub"));
const EDDSA: (&str, &str) =
    (include_str!("../../../tests/keys/eddsa.key"), include_str!("../../../tests/keys/eddsa.pub"));
const ES384: &str = include_str!("../../../tests/keys/es384.pub");
const SECRET: &str = "a secret of at least thirty-two bytes";

/// Files, and access by them.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Access with these settings; each is the content of a file.
    fn try_open(&self, files: &[(&str, &str)]) -> Result<Access, FileError> {
        let mut flags = vec![("cors-origin".to_owned(), "https://app.example".to_owned())];
        for (setting, content) in files {
            fs::write(self.path(setting), content).unwrap();
            flags.push(((*setting).to_owned(), self.path(setting).display().to_string()));
        }
        let config = Config::resolve(&Gathered::from_flags(flags).unwrap()).unwrap();
        Access::new(&config.serve, 256)
    }

    fn open(&self, files: &[(&str, &str)]) -> Access {
        self.try_open(files).unwrap()
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn status(access: &Access, pairs: &[(&'static str, &str)]) -> u16 {
    match access.of_headers(&headers(pairs)) {
        Ok(_) => 200,
        Err(problem) => problem.status.as_u16(),
    }
}

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn by_secret(claims: &Value) -> String {
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

fn caller(access: &Access, token: &str) -> Result<Caller, StatusCode> {
    access.of_token(Some(token)).map_err(|problem| problem.status)
}

#[test]
fn without_credentials_only_this_machine_s_own_pages_are_let_in() {
    let access = Scene::new().open(&[]);
    assert!(access.is_open());
    for host in ["localhost", "localhost:8484", "127.0.0.1:1", "127.9.9.9", "[::1]:8484", "[::1]"] {
        assert_eq!(status(&access, &[("host", host)]), 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example:8484", "10.0.0.1", "[::2]", ""] {
        assert_eq!(status(&access, &[("host", host)]), 403, "{host}");
    }
    assert_eq!(status(&access, &[]), 403, "no host at all");
    let from = |origin| status(&access, &[("host", "localhost:8484"), ("origin", origin)]);
    assert_eq!((from("http://localhost:8484"), from("https://app.example")), (200, 200));
    for origin in
        ["http://localhost:3000", "http://evil.example", "null", "https://app.example.evil"]
    {
        assert_eq!(from(origin), 403, "{origin}");
    }
}

#[test]
fn tokens_of_files_say_what_their_bearer_may() {
    let scene = Scene::new();
    let files = [
        ("read-token-file", "# for the page\nreader\n\nboth \n"),
        ("write-token-file", "writer\nboth"),
    ];
    let access = scene.open(&files);
    let may = |token: &str| caller(&access, token).map(|c| (c.may_read, c.may_write));
    assert_eq!(may("reader"), Ok((true, false)));
    assert_eq!(may("writer"), Ok((false, true)));
    assert_eq!(may("both"), Ok((true, true)));
    for unknown in ["", "# for the page", "read", "readerx", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(may(unknown), Err(StatusCode::UNAUTHORIZED), "{unknown}");
    }
    let writer = caller(&access, "writer").unwrap();
    assert!(!writer.rooms.contain("admin") && !writer.rooms.contain("user:ann"));
    assert!(caller(&access, "reader").unwrap().rooms.contain("admin"));
    let bearer = |value| status(&access, &[("host", "rollcall.example"), ("authorization", value)]);
    assert_eq!((bearer("Bearer reader"), bearer("bearer reader")), (200, 200));
    assert_eq!(
        (bearer("Basic cmVhZGVy"), bearer("reader"), bearer("Bearer nobody")),
        (401, 401, 401)
    );
    assert_eq!(status(&access, &[("host", "rollcall.example")]), 401);
}

#[test]
fn files_are_read_again_when_they_change() {
    let scene = Scene::new();
    let access = scene.open(&[("write-token-file", "old")]);
    let path = scene.path("write-token-file");
    fs::write(scene.path("next"), "new\nother").unwrap();
    fs::rename(scene.path("next"), &path).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert!(caller(&access, "new").is_ok() && caller(&access, "old").is_err());
    fs::remove_file(&path).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert!(caller(&access, "new").is_ok(), "the previous content of the file stays in use");
}

#[test]
fn the_cookie_counts_for_pages_of_the_server_alone() {
    let scene = Scene::new();
    let access = scene.open(&[("read-token-file", "a token; with =odd characters")]);
    let cookie = set_cookie("a token; with =odd characters", true).unwrap();
    let text = cookie.to_str().unwrap();
    assert!(text.ends_with("; Path=/; HttpOnly; SameSite=Strict; Secure"), "{text}");
    let pair = format!("theme=dark; {}", text.split(';').next().unwrap());
    let with = |origin: &[(&'static str, &str)]| {
        let own = [("host", "rollcall.example"), ("cookie", pair.as_str())];
        status(&access, &[&own, origin].concat())
    };
    assert_eq!(with(&[]), 200);
    assert_eq!(with(&[("origin", "https://rollcall.example")]), 200);
    assert_eq!(with(&[("origin", "https://other.example")]), 403);
    assert_eq!(status(&access, &[("cookie", "rollcall_token=%")]), 401);
    assert!(clear_cookie(false).unwrap().to_str().unwrap().ends_with("SameSite=Strict; Max-Age=0"));
}

#[test]
fn a_json_web_token_is_its_subject_in_the_rooms_it_names() {
    let scene = Scene::new();
    let access = scene.open(&[("jwt-key-file", &format!("{SECRET}\n"))]);
    let exp = now_s() + 60.0;
    let ann = caller(&access, &by_secret(&json!({ "sub": "ann", "exp": exp }))).unwrap();
    assert_eq!((ann.subject.as_deref(), ann.may_write, ann.may_read), (Some("ann"), true, false));
    assert_eq!(ann.expires_at, Some(exp));
    assert!(ann.may_see_user("ann") && ann.rooms.contain("doc:d") && !ann.rooms.contain("admin"));
    assert!(!ann.may_end_any_session());
    let claims = json!({ "sub": "bob", "rooms": ["admin", "doc:d"] });
    let bob = caller(&access, &by_secret(&claims)).unwrap();
    assert!(bob.may_read && bob.may_see_user("ann") && bob.may_end_any_session());
    assert!(bob.rooms.contain("doc:d") && !bob.rooms.contain("doc:e"));
    let cid = caller(&access, &by_secret(&json!({ "sub": "cid", "rooms": ["user:ann"] }))).unwrap();
    assert!(cid.may_see_user("ann") && cid.may_see_user("cid") && !cid.may_see_user("bob"));
    assert!(!cid.may_see_document("d") && cid.must_read().is_err());
}

#[test]
fn every_algorithm_takes_its_own_key_and_no_other() {
    let keys = [
        (Algorithm::RS256, EncodingKey::from_rsa_pem(RS256.0.as_bytes()).unwrap(), RS256.1),
        (Algorithm::ES256, EncodingKey::from_ec_pem(ES256.0.as_bytes()).unwrap(), ES256.1),
        (Algorithm::EdDSA, EncodingKey::from_ed_pem(EDDSA.0.as_bytes()).unwrap(), EDDSA.1),
        (Algorithm::HS256, EncodingKey::from_secret(SECRET.as_bytes()), SECRET),
    ];
    let claims = json!({ "sub": "ann" });
    for (known, _, public) in &keys {
        let scene = Scene::new();
        let access = scene.open(&[("jwt-key-file", public)]);
        for (algorithm, private, _) in &keys {
            let found = caller(&access, &signed(*algorithm, private, &claims)).is_ok();
            assert_eq!(found, known == algorithm, "{algorithm:?} by a key for {known:?}");
        }
        // The public key, which everybody has, used as the secret.
        let forged = EncodingKey::from_secret(public.as_bytes());
        let found = caller(&access, &signed(Algorithm::HS256, &forged, &claims));
        assert_eq!(found.is_ok(), *known == Algorithm::HS256);
    }
}

#[test]
fn tokens_that_do_not_hold_are_refused_and_not_told_why() {
    let scene = Scene::new();
    let access = scene.open(&[("jwt-key-file", SECRET)]);
    let now = now_s();
    let refused = [
        by_secret(&json!({ "sub": "ann", "exp": now - 1.0 })),
        by_secret(&json!({ "sub": "ann", "exp": "soon" })),
        by_secret(&json!({ "sub": "ann", "nbf": now + 120.0 })),
        by_secret(&json!({ "exp": now + 60.0 })),
        by_secret(&json!({ "sub": "" })),
        by_secret(&json!({ "sub": 7 })),
        by_secret(&json!({ "sub": "a".repeat(257) })),
        by_secret(&json!({ "sub": "ann", "rooms": "admin" })),
        signed(
            Algorithm::HS384,
            &EncodingKey::from_secret(SECRET.as_bytes()),
            &json!({ "sub": "ann" }),
        ),
        signed(Algorithm::HS256, &EncodingKey::from_secret(b"another"), &json!({ "sub": "ann" })),
        // {"alg":"none"} . {"sub":"ann"}
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.".to_owned(),
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ".to_owned(),
        "a.b.c".to_owned(),
        "é".to_owned(),
    ];
    for token in refused {
        assert_eq!(caller(&access, &token).err(), Some(StatusCode::UNAUTHORIZED), "{token}");
    }
    let early = by_secret(&json!({ "sub": "ann", "nbf": now + 30.0 }));
    assert!(caller(&access, &early).is_ok(), "clocks differ");
}

#[test]
fn keys_that_cannot_be_used_name_their_setting_and_the_remedy() {
    let scene = Scene::new();
    for (content, words) in [
        ("", "is empty"),
        (RS256.0, "contains a private key"),
        (ES384, "RS256, ES256 (P-256) or EdDSA"),
        ("-----BEGIN NOTHING-----\n-----END NOTHING-----", "not a public key"),
    ] {
        let error = scene.try_open(&[("jwt-key-file", content)]).err().unwrap().to_string();
        assert!(error.starts_with("jwt-key-file = ") && error.contains(words), "{error}");
    }
    let flags = [("read-token-file", "/nowhere/tokens")];
    let config = Config::resolve(&Gathered::from_flags(flags).unwrap()).unwrap();
    let error = Access::new(&config.serve, 256).err().unwrap().to_string();
    assert!(error.contains("read-token-file = \"/nowhere/tokens\": cannot read"), "{error}");
}

#[tokio::test]
async fn an_open_connection_ends_with_its_token() {
    let scene = Scene::new();
    let access = scene.open(&[("jwt-key-file", SECRET)]);
    let exp = now_s() + 0.2;
    let ann = caller(&access, &by_secret(&json!({ "sub": "ann", "exp": exp }))).unwrap();
    assert_eq!(ann.ended().await, "the token has expired");
    assert!(now_s() >= exp);
}
