//! `docs/partitions.md`: each snippet that can be run here chooses the same partition as Rollcall.

use std::path::Path;
use std::process::{Command, Stdio};

use rollcall::decode::{Rules, decode};
use rollcall::entry::{Entry, EntryId};
use rollcall::event::{Limits, TYPES};
use rollcall::key::{Keys, partition_of};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Vector {
    event: Value,
    partitions: u16,
    prefix: String,
    subject: String,
    partition: u16,
    stream: String,
}

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(path).unwrap()
}

const VECTORS: &str = "examples/partitions/vectors.json";

fn vectors() -> Vec<Vector> {
    let vectors: Vec<Vector> = serde_json::from_str(&file(VECTORS)).unwrap();
    assert!(vectors.len() >= 15);
    for kind in TYPES {
        assert!(vectors.iter().any(|vector| vector.event["type"] == *kind), "no vector of {kind}");
    }
    vectors
}

/// The snippet of a language in the document.
fn snippet(language: &str) -> String {
    let text = file("docs/partitions.md");
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// The output of a snippet after these lines.
fn printed(program: &str, flag: &str, language: &str, lines: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args([flag, &format!("{}\n{lines}\n", snippet(language))]).args(arguments);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    assert!(output.status.success(), "{language}");
    String::from_utf8(output.stdout).unwrap()
}

fn hold(language: &str, printed: &str) {
    let vectors = vectors();
    assert_eq!(printed.lines().count(), vectors.len(), "{language}: {printed}");
    for (vector, line) in vectors.iter().zip(printed.lines()) {
        assert_eq!(line, vector.stream, "{language}: {:?}", vector.subject);
    }
}

#[test]
fn rollcall_takes_what_the_vectors_say_and_refuses_it_elsewhere() {
    for vector in vectors() {
        assert_eq!(partition_of(&vector.subject, vector.partitions), vector.partition);
        let keys = Keys::new(&vector.prefix, vector.partitions, vector.partition);
        assert_eq!(keys.named("rollcall:events"), vector.stream);
        let (limits, partitions) = (Limits::default(), vector.partitions);
        let rules = Rules { limits, max_skew_ms: 60_000, partitions, moved_from: Vec::new() };
        let data = vector.event.to_string().into_bytes();
        let kind = vector.event["type"].as_str().unwrap().as_bytes().to_vec();
        let fields = vec![(b"type".to_vec(), kind), (b"data".to_vec(), data)];
        let entry = Entry::new(EntryId { ms: 1_790_000_000_000, seq: 0 }, fields);
        for partition in 0..partitions.min(64) {
            let is_its_own = partition == vector.partition;
            let events = decode(&entry, partition, &rules).events.len();
            assert_eq!(events == 1, is_its_own, "{} in {partition}", vector.event);
        }
    }
}

#[test]
fn the_snippet_in_python_chooses_as_rollcall_does() {
    let lines = "import json, sys\n\
                 for v in json.load(open(sys.argv[1], encoding='utf-8')):\n    \
                     print(stream_of(v['event'], v['partitions'], v['prefix']))";
    hold("Python", &printed("python3", "-c", "python", lines, &[VECTORS]));
}

#[test]
fn the_snippet_in_javascript_chooses_as_rollcall_does() {
    let lines = "for (const v of JSON.parse(require('fs').readFileSync(process.argv[1], 'utf8')))\n  \
                     console.log(streamOf(v.event, v.partitions, v.prefix));";
    hold("JavaScript", &printed("node", "-e", "js", lines, &[VECTORS]));
}

#[test]
fn the_snippet_in_the_shell_chooses_as_rollcall_does() {
    let all: String = vectors()
        .iter()
        .map(|vector| {
            let partitions = vector.partitions.to_string();
            let arguments = ["sh", &vector.subject, &partitions, &vector.prefix];
            printed("sh", "-c", "sh", "stream_of \"$1\" \"$2\" \"$3\"", &arguments)
        })
        .collect();
    hold("Shell", &all);
}
