//! The repository's own rules: files of a readable size, nothing left for later, imports that point down the layers,
//! metrics named as Prometheus wants them.
//!
//! A rule that is only written down is kept until somebody is in a hurry.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rollcall::telemetry::metrics::{INVENTORY, Kind, Metric, Unit};

/// Where code is.
const CODE: &[&str] =
    &["core/src", "src", "workers", "tests", "benches", "fuzz/properties", "fuzz/targets"];

/// Lines a file may have.
const MOST_LINES: usize = 450;

/// The modules of the library from the ground up: each may name only those of lower rows.
const LAYERS: &[&[&str]] = &[
    &["key", "time", "entry", "format", "blocked", "schema"],
    &["change", "event", "traceparent", "failpoint"],
    &["op"],
    &["decode", "projection"],
    &["fold"],
    &["forward"],
    // ---- what knows servers and clocks
    &["config"],
    &["error"],
    &["files"],
    &["seal"],
    &["redis", "private_server"],
    &["state"],
    &["telemetry"],
    &["changes", "doctor", "keep"],
    &["projector", "janitor", "serve", "notifier"],
];

/// The modules that turn entries into plans: values in, values out.
const PURE: &[&str] = &[
    "key",
    "time",
    "blocked",
    "entry",
    "format",
    "change",
    "event",
    "traceparent",
    "op",
    "decode",
    "projection",
    "fold",
    "forward",
];

/// What a pure module must not use.
const IMPURE: &[&str] = &[
    "tokio",
    "redis::",
    "metrics",
    "tracing",
    "opentelemetry",
    "fastrand",
    "SystemTime",
    "Instant",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "std::process",
];

/// One file of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The module of the library it belongs to: `redis` for `src/redis/scripts/sweep.rs`.
    fn module(&self) -> &str {
        let path = self.path.trim_start_matches("core/").trim_start_matches("src/");
        path.split_once('/').map_or_else(|| path.trim_end_matches(".rs"), |(folder, _)| folder)
    }

    /// Its lines without comments, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = |line: &'_ str| line.find("//").map_or(line.len(), |comment| comment);
        (1..).zip(self.text.lines()).map(move |(n, line)| (n, &line[..code(line)]))
    }
}

/// Every file in `folders` with one of these endings, by path.
fn sources(folders: &[&str], endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if endings.iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn code_and_tests() -> Vec<Source> {
    sources(CODE, &["rs", "lua"])
}

fn library() -> Vec<Source> {
    let mut files = sources(&["core/src", "src"], &["rs"]);
    files.retain(|file| !file.path.ends_with("src/lib.rs"));
    files
}

fn expect_none(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n  {}", faults.join("\n  "));
}

#[test]
fn every_file_fits_one_s_head() {
    let lines = |file: &Source| file.text.lines().count();
    let long = code_and_tests().into_iter().filter(|file| lines(file) > MOST_LINES);
    let long: Vec<_> = long.map(|file| format!("{} has {}", file.path, lines(&file))).collect();
    expect_none(&format!("split what has more than {MOST_LINES} lines"), &long);
}

#[test]
fn every_file_says_what_it_is() {
    let silent = sources(CODE, &["rs"]).into_iter().filter(|file| {
        let first = file.text.lines().next().unwrap_or_default();
        first.strip_prefix("//! ").is_none_or(|text| text.len() < 10)
    });
    let silent: Vec<_> = silent.map(|file| file.path).collect();
    expect_none("begin with `//!` and say what the file is", &silent);
    let mute = sources(&["src"], &["lua"]).into_iter().filter(|file| {
        let mut lines = file.text.lines().filter(|line| !line.starts_with("#!lua"));
        !lines.next().is_some_and(|line| line.starts_with("-- "))
    });
    expect_none("begin with `--`", &mute.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later() {
    // Split in two, or this file would break its own rule.
    let words = [("TO", "DO"), ("FIX", "ME"), ("X", "XX"), ("HA", "CK")];
    let calls = [("unimple", "mented!"), ("to", "do!"), ("#[ign", "ore"), ("db", "g!(")];
    let is_word = |line: &str, word: &str| {
        line.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == word)
    };
    let joined = |(a, b): &(&str, &str)| format!("{a}{b}");
    let mut found = Vec::new();
    for file in code_and_tests() {
        for (n, line) in (1..).zip(file.text.lines()) {
            let left = words.iter().map(joined).find(|word| is_word(line, word));
            let left = left.or_else(|| calls.iter().map(joined).find(|call| line.contains(call)));
            found.extend(left.map(|what| format!("{}:{n} {what}", file.path)));
        }
    }
    expect_none("finish it", &found);
}

#[test]
fn imports_point_down_the_layers() {
    let layers: BTreeMap<&str, usize> = (0..)
        .zip(LAYERS)
        .flat_map(|(layer, modules)| modules.iter().map(move |module| (*module, layer)))
        .collect();
    let mut faults = Vec::new();
    for file in library() {
        let module = file.module();
        let Some(layer) = layers.get(module) else {
            faults.push(format!("{}: give {module} a place in LAYERS", file.path));
            continue;
        };
        for (n, line) in file.code() {
            for name in named_modules(line).filter(|name| *name != module) {
                if layers.get(name).is_none_or(|other| other >= layer) {
                    faults.push(format!("{}:{n} {module} names {name}", file.path));
                }
            }
        }
    }
    expect_none("imports point down the layers, and never sideways", &faults);
}

/// The names after `crate::` in a line, including grouped imports.
fn named_modules(line: &str) -> impl Iterator<Item = &str> {
    let name = |text: &'_ str| text.find(|c: char| !c.is_ascii_lowercase() && c != '_');
    line.split("crate::").skip(1).flat_map(move |rest| {
        let group = rest.strip_prefix('{').map_or(rest, |group| group);
        let all = if rest.starts_with('{') { group.split(", ").collect() } else { vec![rest] };
        all.into_iter().map(move |text| &text[..name(text).unwrap_or(text.len())])
    })
}

#[test]
fn the_pure_core_knows_no_server_and_no_clock() {
    let mut faults = Vec::new();
    for file in library().into_iter().filter(|file| PURE.contains(&file.module())) {
        for (n, line) in file.code() {
            let named = IMPURE.iter().filter(|name| line.contains(*name));
            faults.extend(named.map(|name| format!("{}:{n} names {name}", file.path)));
        }
    }
    expect_none("values in, values out", &faults);
}

#[test]
fn scripts_read_the_time_in_one_place_and_keep_no_globals() {
    let mut faults = Vec::new();
    let scripts = sources(&["src"], &["lua"]);
    assert!(scripts.len() >= 4, "the scripts are elsewhere now: tell this test where");
    for file in scripts {
        for (n, line) in (1..).zip(file.text.lines()) {
            let reads_time = line.contains("'TIME'") && !file.path.ends_with("common.lua");
            let is_global = line.starts_with("function ") && !line.contains('.');
            if reads_time || is_global {
                faults.push(format!("{}:{n} {line}", file.path));
            }
        }
    }
    expect_none("one instant per call, no globals", &faults);
}

#[test]
fn metrics_are_named_as_prometheus_wants_them() {
    assert!(INVENTORY.len() >= 50, "the inventory is elsewhere now: tell this test where");
    let mut faults = Vec::new();
    for Metric { name, kind, unit, labels, help, .. } in INVENTORY {
        faults.extend(misnamed(name, *kind, *unit).map(|why| format!("{name} {why}")));
        if INVENTORY.iter().filter(|other| other.name == *name).count() > 1 {
            faults.push(format!("{name} stands there twice"));
        }
        if help.is_empty() || help.ends_with('.') || help.contains(['\n', '\\']) {
            faults.push(format!("{name} is explained by {help:?}: one line, no full stop"));
        }
        let plain =
            |name: &str| name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        let values = labels.iter().flat_map(|label| label.names().unwrap_or_default());
        let odd = labels.iter().map(|label| label.name).chain(values).find(|word| !plain(word));
        faults.extend(odd.map(|word| format!("{name} has the label or value {word:?}")));
    }
    expect_none("metrics", &faults);
}

/// What is wrong with a metric's name by Prometheus's naming rules: base units at the end, `_total` for counters
/// only, and nothing that an exposition would add.
fn misnamed(name: &str, kind: Kind, unit: Unit) -> Option<&'static str> {
    let base = name.strip_suffix("_total").unwrap_or(name);
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let one_word_gaps = !name.contains("__") && !name.ends_with('_');
    let scaled = ["_ms", "_millis", "_milliseconds", "_micros", "_minutes", "_kb", "_percent"];
    let added = ["_count", "_sum", "_bucket", "_created"];
    if !plain || !one_word_gaps {
        Some("must be [a-z_]+, single underscores between words")
    } else if !name.starts_with("rollcall_") && !name.starts_with("process_") {
        Some("must begin with rollcall_, or be one of Prometheus's own process_")
    } else if (kind == Kind::Counter) != name.ends_with("_total") {
        Some("must end in _total exactly if it is a counter")
    } else if unit == Unit::Seconds && !base.ends_with("_seconds") {
        Some("is in seconds and must say so at its end")
    } else if unit == Unit::Bytes && !base.ends_with("_bytes") {
        Some("is in bytes and must say so at its end")
    } else if unit != Unit::Seconds && base.ends_with("_seconds") {
        Some("ends in _seconds but has another unit")
    } else if scaled.iter().any(|end| base.ends_with(end)) {
        Some("must be in base units")
    } else if added.iter().any(|end| name.ends_with(end)) {
        Some("ends in what the exposition adds itself")
    } else if ["counter", "gauge", "histogram"].iter().any(|kind| name.contains(kind)) {
        Some("must not name its kind")
    } else {
        None
    }
}

#[test]
fn the_rules_find_what_they_look_for() {
    let names = |line| named_modules(line).collect::<Vec<_>>();
    assert_eq!(names("use crate::{key, op::Plan};"), ["key", "op"]);
    assert_eq!(names("    x(crate::time::now(), crate::key)"), ["time", "key"]);
    assert_eq!(names("use super::time;"), [""; 0]);
    for (name, kind, unit) in [
        ("rollcall_a", Kind::Counter, Unit::Count),
        ("rollcall_a_total", Kind::Gauge, Unit::Count),
        ("rollcall_a_duration", Kind::Histogram, Unit::Seconds),
        ("rollcall_a_ms", Kind::Gauge, Unit::Count),
        ("rollcall_A_total", Kind::Counter, Unit::Count),
        ("rollcall_a__b", Kind::Gauge, Unit::Count),
        ("rollcall_a_count", Kind::Gauge, Unit::Count),
        ("a_total", Kind::Counter, Unit::Count),
    ] {
        assert!(misnamed(name, kind, unit).is_some(), "{name}");
    }
    assert_eq!(misnamed("rollcall_a_seconds", Kind::Histogram, Unit::Seconds), None);
}

/// `tests/mutate` breaks the program at these places.
#[test]
fn every_breakage_of_the_mutation_list_has_exactly_one_place() {
    #[derive(serde::Deserialize)]
    struct List {
        mutation: Vec<Mutation>,
    }
    #[derive(serde::Deserialize)]
    struct Mutation {
        name: String,
        file: String,
        old: String,
        new: String,
    }
    let list: List = toml::from_str(&fs::read_to_string("tests/mutations.toml").unwrap()).unwrap();
    assert!(list.mutation.len() >= 10);
    for Mutation { name, file, old, new } in list.mutation {
        let places = fs::read_to_string(&file).unwrap().matches(&old).count();
        assert_eq!(places, 1, "{name}: places in {file} where this stands: {old}");
        assert_ne!(old, new, "{name}");
    }
}

/// `module::test`, or `module::beginning_*`, in the documents.
#[test]
fn every_test_that_a_document_names_exists() {
    let code: String = sources(&["core/src", "src", "workers", "tests"], &["rs"])
        .into_iter()
        .map(|file| file.text)
        .collect();
    let is_name = |text: &str| {
        text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let mut named = 0;
    for document in ["ARCHITECTURE.md", "GUARANTEES.md", "docs/decisions.md"] {
        let text = fs::read_to_string(document).unwrap();
        for quoted in text.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::")) {
            let mut parts: Vec<&str> = quoted.split("::").collect();
            let test = parts.pop().unwrap_or_default().trim_end_matches('*');
            if !is_name(test) || !parts.iter().all(|part| is_name(part)) {
                continue;
            }
            named += 1;
            assert!(code.contains(&format!("fn {test}")), "{document}: {quoted}");
            for module in parts {
                assert!(code.contains(&format!("mod {module}")), "{document}: {quoted}");
            }
        }
    }
    assert!(named > 50, "only {named} names were found");
}
