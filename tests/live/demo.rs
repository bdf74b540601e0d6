//! The demo as a person tries it, and what is drawn on a terminal: keys, addresses, and what it restores.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::query::ground::Ground;
use crate::scene::{SOON, in_parallel};

/// For tests that use, or look for, one of the default ports of roles.
pub static DEFAULT_PORTS: Mutex<()> = Mutex::new(());

const ROLLCALL: &str = env!("CARGO_BIN_EXE_rollcall");

fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(ROLLCALL);
    command.args(["demo", "--duration", "1s"]).args(arguments);
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn pages_of_the_demo_are_where_one_wants_them_and_it_goes_on_without() {
    let output = demo(&["--http", "127.0.0.1:0"]);
    let said = text(output.stdout);
    assert!(output.status.success() && said.contains("metrics  http://127.0.0.1:"), "{said}");
    assert!(said.contains("try      redis-cli -p ") && said.contains("are gone."), "{said}");
    let output = demo(&["--http", "off"]);
    assert!(text(output.stdout).contains("metrics  off\n"));

    let _alone = DEFAULT_PORTS.lock().unwrap();
    // Ports that cannot be bound are in use by others.
    let taken: Vec<_> = (9464..=9473).map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
    let output = demo(&[]);
    let said = text(output.stdout);
    assert!(output.status.success(), "{said}{}", text(output.stderr));
    assert!(said.contains("metrics  off: no port from 9464 to 9473 is free"), "{said}");
    assert!(said.contains("The producers sent"), "it works all the same: {said}");
    let output = demo(&["--http", "127.0.0.1:9464"]);
    let said = text(output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot serve HTTP on 127.0.0.1:9464"), "{said}");
    drop(taken);
}

/// `script` gives a command a terminal, and passes on what is written to it as keys.
fn on_a_terminal(command: &str, key: &[u8]) -> String {
    let inner = format!(
        "stty rows 24 cols 80; before=$(stty -g); {command}; echo ended $?; \
         test \"$(stty -g)\" = \"$before\" && echo given back"
    );
    let mut script = Command::new("script");
    script.args(["-qec", &inner, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", "1");
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let (sender, pieces) = channel();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = out.read(&mut piece) {
            sender.send(piece[..count].to_vec()).unwrap();
        }
    });
    let mut said = Vec::new();
    let mut keyboard = child.stdin.take().unwrap();
    while let Ok(piece) = pieces.recv_timeout(SOON) {
        said.extend(piece);
        let shows = |words: &[u8]| said.windows(words.len()).any(|at| at == words);
        // Its terminal may outlive the command, and would repeat keys for ever.
        if shows(b"given back") {
            break;
        }
        // The first frame is there, so the keyboard is, too.
        if shows(b"\x1b[J") && !shows(b"ended ") {
            // It may just have ended.
            let _late = keyboard.write_all(key);
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    text(said)
}

#[test]
fn q_ends_what_is_drawn_on_a_terminal_and_the_terminal_is_given_back() {
    let ground = Ground::new();
    let status = format!("{ROLLCALL} status --watch=100ms --redis-url {}", ground.url());
    let demo = format!("{ROLLCALL} demo --http off");
    in_parallel([(status, b"xq"), (demo, b"\nQ")], |(command, keys)| {
        let said = on_a_terminal(&command, keys);
        let (drawn, after) = said.rsplit_once("\u{1b}[?1049l").unwrap();
        assert!(drawn.contains("q or Ctrl-C ends it"), "{drawn}");
        assert!(after.contains("ended 0") && after.contains("given back"), "{after}");
    });
}
