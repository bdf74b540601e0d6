//! Keys are never shown: not in logs, metrics, errors, traces, nor by `config print`.

use std::process::Command;

use super::{File, KEYS, Scene, add, ask_at, dump};
use crate::harness::wait_until;
use crate::scene::{SOON, page};
use crate::traces::receiver::Receiver;

/// Fails if a text contains a key, or half of one.
fn expect_no_key(what: &str, text: &str) {
    for key in KEYS.into_iter().chain(["broken-key-of-mine"]) {
        for part in [key, &key[..key.len().min(16)], &key[key.len() - 16..]] {
            assert!(!text.contains(part), "{what} shows a key: {text}");
        }
    }
}

#[test]
fn no_key_is_shown_anywhere() {
    let (scene, receiver) = (Scene::start(&[]), Receiver::start());
    let (file, broken) = (File::new(&KEYS), File::new(&[KEYS[0], "broken-key-of-mine"]));
    let endpoint = format!("http://{}", receiver.addr);
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let flags = ["--log", "trace", "--http", "127.0.0.1:0", &file.flag()];
    let worker = scene.worker_with(&flags, &env);
    add(&scene, "s", dump::server_now(&mut scene.connection()), r#"{"a":1}"#);
    scene.wait_finished(SOON, "applied");
    // A refusal of the server may quote what was sent.
    scene.command::<u64>(&["HSET", "rollcall:sessions:ended", "a", "b"]);
    add(&scene, "t", dump::server_now(&mut scene.connection()), "[1]");
    wait_until(SOON, "trouble is told", || worker.log().contains("WRONGKEY"));
    scene.command::<u64>(&["DEL", "rollcall:sessions:ended"]);
    file.write(&["broken-key-of-mine"]);
    wait_until(SOON, "the broken file is told", || {
        add(&scene, "t", dump::server_now(&mut scene.connection()), "[]");
        worker.log().contains("the previous content of the file stays in use")
    });
    for path in ["/metrics", "/livez", "/readyz"] {
        expect_no_key(path, &page(&worker, path).1);
    }
    wait_until(SOON, "spans come", || receiver.look(|seen| !seen.spans.is_empty()));
    receiver
        .look(|seen| expect_no_key("a trace", &format!("{:?}{:?}", seen.spans, seen.resources)));
    expect_no_key("the log", &worker.log());
    for words in [&["sessions", "s"][..], &["encrypt"], &["encrypt", "--dry-run", "--json"]] {
        for flag in [broken.flag(), File::new(&KEYS[1..]).flag()] {
            let (code, out, error) = ask_at(&scene.url(), &[words, &[&*flag]].concat());
            assert!(code == 0 || code == 64 && error.contains("is no Fernet key"), "{error}");
            expect_no_key("a command", &(out + &error));
        }
    }
    let print = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_rollcall")).args(words).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = print(&["config", "print", &broken.flag()]);
    assert!(code == Some(0) && text.contains("session-key-file"), "{text}");
    expect_no_key("config print", &text);
    for role in ["worker", "run", "serve"] {
        let (code, text) =
            print(&[role, "--http", "off", &broken.flag(), "--redis-url", &scene.url()]);
        assert_eq!(code, Some(64), "{role}: {text}");
        expect_no_key(role, &text);
    }
    let (code, text) = print(&["encrypt", "--redis-url", &scene.url()]);
    assert!(code == Some(64) && text.contains("session-key-file"), "{text}");
}
