//! What producers' libraries really write: each writes events, and a worker must read them as their authors intended.
//!
//! `tests/clients/` has the producers, and the versions of their libraries.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rollcall::entry::{EntryId, Field};
use rollcall::key::join;
use serde::Deserialize;
use serde_json::Value;

use crate::scene::{SOON, Scene};
use crate::support::dump::DeadLetter;

/// An entry as a library wrote it, and the expected result.
#[derive(Debug, Deserialize)]
struct Case {
    library: String,
    /// Also the user, or the session, that it is about.
    name: String,
    /// Names as they are, values in base64.
    fields: Vec<(String, String)>,
    expected: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Expected {
    /// A dead letter with this reason and detail.
    Dead { reason: String, detail: Option<String> },
    /// A session with these bytes (in base64) as its data.
    Session { data: String },
    /// The user is present since this time, in milliseconds, or since the entry was added.
    Present { seen: Option<u64>, page: String },
}

/// Where the libraries are.
pub static LIBRARIES: LazyLock<PathBuf> = LazyLock::new(|| {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    PathBuf::from(run(&mut Command::new(here.join("install"))).trim())
});

/// All cases, from one run in each language.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let node = run(Command::new("node").arg(here.join("producers.mjs")).arg(&*LIBRARIES));
    let python = LIBRARIES.join("python/bin/python");
    let python = run(Command::new(python).arg(here.join("producers.py")));
    let case = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let of = |language: &str, lines: &str| {
        let mut cases: Vec<Case> = lines.lines().map(case).collect();
        cases.iter_mut().for_each(|case| case.library = format!("{language} {}", case.library));
        cases
    };
    [of("JavaScript", &node), of("Python", &python)].into_iter().flatten().collect()
});

/// The output of a command.
fn run(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output();
    let output =
        output.unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

impl Case {
    fn entry(&self) -> Vec<Field> {
        let bytes = |value: &String| STANDARD.decode(value).unwrap();
        self.fields.iter().map(|(name, value)| (name.clone().into_bytes(), bytes(value))).collect()
    }

    /// How the result differs from the expected one.
    fn fault(&self, scene: &Scene, id: EntryId, letters: &[DeadLetter]) -> Option<String> {
        let keys = scene.deployment.keys(0);
        let letter = letters.iter().find(|letter| letter.entry == id);
        let told = letter.map(|letter| format!("{}: {}", letter.reason, letter.detail));
        let (expected, found): (String, String) = match &self.expected {
            Expected::Dead { reason, detail } => {
                let told = told.unwrap_or_default();
                let says = told.starts_with(&format!("{reason}: "))
                    && detail.as_ref().is_none_or(|detail| told.contains(detail));
                return (!says).then(|| format!("not {reason}, but {told:?}"));
            }
            Expected::Session { data } => {
                let key = format!("{}{}", keys.session_data(), self.name);
                let found: Option<Vec<u8>> = scene.command(&["GET", &key]);
                (printable(&STANDARD.decode(data).unwrap()), printable(&found.unwrap_or_default()))
            }
            Expected::Present { seen, page } => {
                let field = join(&[&self.name, ""]);
                let found: Option<String> = scene.command(&["HGET", &keys.presence(), &field]);
                let found: Value = serde_json::from_str(&found.unwrap_or("{}".to_owned())).unwrap();
                let seen = seen.unwrap_or(id.ms);
                (format!("{seen} {page:?}"), format!("{} {}", found["lastSeen"], found["page"]))
            }
        };
        (expected != found)
            .then(|| format!("{found} in place of {expected}; dead letter: {told:?}"))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.entry();
        let shown = |(name, value): &Field| format!("{}={}", printable(name), printable(value));
        let fields: Vec<_> = fields.iter().map(shown).collect();
        write!(f, "{}: {}: {}", self.library, self.name, fields.join(" "))
    }
}

fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Adds what a library wrote, and lets a worker apply it.
#[track_caller]
fn check(library: &str, least: usize) {
    let cases: Vec<_> = CASES.iter().filter(|case| case.library == library).collect();
    assert!(cases.len() >= least, "{library}: only {} cases", cases.len());
    let scene = Scene::start(&[]);
    let ids: Vec<_> = cases.iter().map(|case| scene.add(&case.entry())).collect();
    let worker = scene.worker(&[]);
    scene.wait_finished(SOON, library);
    let letters = scene.letters();
    let fault = |(case, id): (&&Case, _)| {
        let fault = case.fault(&scene, id, &letters)?;
        Some(format!("{case}\n  {fault}"))
    };
    let faults: Vec<_> = cases.iter().zip(ids).filter_map(fault).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    scene.verify(library);
    scene.drain(worker);
}

#[test]
fn javascript_s_msgpackr_is_understood() {
    check("JavaScript msgpackr", 17);
}

#[test]
fn javascript_s_msgpack_is_understood() {
    check("JavaScript @msgpack/msgpack", 16);
}

#[test]
fn javascript_s_cloudevents_are_understood() {
    check("JavaScript CloudEvents", 16);
}

#[test]
fn python_s_msgpack_is_understood() {
    check("Python msgpack", 11);
}

#[test]
fn python_s_cloudevents_are_understood() {
    check("Python CloudEvents", 12);
}

#[test]
fn python_s_encrypted_sessions_are_kept_byte_for_byte() {
    check("Python cryptography", 3);
}
