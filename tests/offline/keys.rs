//! Each key of the state: known to every part that has to treat all of them, or excused with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rollcall::key::Keys;
use rollcall::redis::scripts::{declared_keys, shared_keys};

/// The stream's setting, which is not a key of the table.
const STREAM: &str = "rollcall:events";

/// Keys that an event does not need, and those of one identifier each.
const NOT_SHARED: &[(&[&str], &str)] = &[
    (&["session_data", "online", "activity", "document"], "one for each identifier"),
    (&["changes_erased", "blocked", "erasing"], "only an erasure writes it"),
    (&["janitor_lease", "janitor_survey", "notifier_lease"], "has an expiry of its own"),
    (&["notifier"], "only notifiers use it"),
];

const NOT_MOVED: &[(&[&str], &str)] =
    &[(&["janitor", "notifier_lease"], "about a partition, not about what is in it")];

const NOT_VERIFIED: &[(&[&str], &str)] = &[
    (&["presence_addresses", "presence_crowds"], "an index of the presence, which the sweep mends"),
    (&["dead", "changes", "changes_seq", "changes_erased"], "a record of what happened, not state"),
    (&["blocked", "erasing", "meta"], "set by operators and workers, not by entries"),
    (&["janitor", "janitor_lease", "janitor_survey", "workers"], "about processes"),
    (&["notifier", "notifier_lease"], "about processes"),
];

const NOT_ERASED: &[(&[&str], &str)] = &[
    (&["recent"], "goes with its token: `drop_token`"),
    (&["docs_levels"], "names documents, and follows from their counts"),
    (&["changes_erased"], "contains numbers only"),
    (&["janitor_lease", "janitor_survey", "workers"], "names processes only"),
    (&["notifier", "notifier_lease"], "names targets only"),
];

/// The names that the scripts have for keys, where they differ from the methods'.
const IN_LUA: &[(&str, &str)] = &[
    ("session_data_versions", "session_versions"),
    ("activity", "activity_of"),
    ("session_data", "session_data_of"),
    ("document", "document_of"),
];

fn in_lua(method: &'static str) -> &'static str {
    IN_LUA.iter().find(|(key, _)| *key == method).map_or(method, |(_, lua)| lua)
}

/// The code of some files, without comments.
fn code(paths: &[&str]) -> String {
    let mut code = String::new();
    for path in paths {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        let comment = if path.ends_with(".lua") { "--" } else { "//" };
        for line in text.unwrap_or_else(|error| panic!("{path}: {error}")).lines() {
            code.push_str(line.split(comment).next().unwrap_or_default());
            code.push('\n');
        }
    }
    code
}

fn words(code: &str) -> BTreeSet<&str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').collect()
}

/// Whether code in Rust uses a key; some of one identifier have methods of their own.
fn uses(code: &str, method: &str) -> bool {
    let forms = [
        format!(".{method}()"),
        format!("Keys::{method},"),
        format!(".{method}_users("),
        format!(".{method}_minute("),
    ];
    forms.iter().any(|form| code.contains(form))
}

/// Panics unless each key is either treated or excused.
fn hold(what: &str, excused: &[(&[&str], &str)], is_treated: impl Fn(&str, &str) -> bool) {
    let excused: BTreeMap<&str, &str> = excused
        .iter()
        .flat_map(|(methods, reason)| methods.iter().map(move |method| (*method, *reason)))
        .collect();
    for (method, name) in Keys::DECLARED {
        match (is_treated(method, name), excused.get(method)) {
            (false, None) => {
                panic!("{what} nothing about {name}; treat it there or give a reason here")
            }
            (true, Some(reason)) => {
                panic!("{what} about {name} after all, which is excused: {reason}")
            }
            _ => {}
        }
    }
    let known = |method: &&&str| Keys::DECLARED.iter().any(|(key, _)| *key == **method);
    assert_eq!(excused.keys().find(|method| !known(method)), None, "{what}: no key");
}

#[test]
fn every_key_is_shared_or_has_a_reason() {
    let shared = shared_keys(STREAM, &Keys::new("", 1, 0));
    let is_shared = |name: &str| shared.iter().any(|(key, _)| key == name);
    hold("shared_keys() lists", NOT_SHARED, |_, name| is_shared(name));
}

#[test]
fn every_key_is_moved_verified_and_erased_or_has_a_reason() {
    let moves = code(&["src/keep/repartition.rs", "src/keep/repartition/structures.rs"]);
    let moved = code(&["src/redis/scripts/repartition.lua"]);
    hold("a repartition treats", NOT_MOVED, |method, name| {
        let short = name.strip_prefix("rollcall:").unwrap_or(name);
        let is_named = |name: &str| moved.contains(&format!("'{name}'"));
        uses(&moves, method) || is_named(name) || is_named(short)
    });
    let names = code(&["src/keep/verify/names.rs"]);
    let not_named = [NOT_VERIFIED, &[(&["session_data"], "found by its version")]].concat();
    hold("verify looks for names in", &not_named, |method, name| {
        uses(&names, method) || names.contains(&format!("\"{name}\""))
    });
    let table = code(&["src/keep/verify/table.rs"]);
    hold("verify compares", NOT_VERIFIED, |method, _| uses(&table, method));
    let erase = code(&[
        "src/keep/erase.rs",
        "src/keep/erase/state.rs",
        "src/keep/erase/stream.rs",
        "src/keep/erase/kept.rs",
        "src/redis/scripts/erase.rs",
    ]);
    let erased = code(&["src/redis/scripts/erase.lua"]);
    let erased = words(&erased);
    hold("erase treats", NOT_ERASED, |method, _| {
        uses(&erase, method)
            || Keys::DECLARED.iter().any(|(key, _)| *key == method && erased.contains(in_lua(key)))
    });
}

/// The names between two pieces of `common.lua`.
fn listed<'t>(text: &'t str, from: &str, to: &str) -> Vec<&'t str> {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from}"));
    rest.split_once(to).unwrap().0.split(',').map(str::trim).collect()
}

#[test]
fn the_scripts_unpack_the_shared_keys_in_their_order_and_check_each_for_its_type() {
    let common = code(&["src/redis/scripts/common.lua"]);
    let keys = Keys::new("", 1, 0);
    let lua = |key: &str| match Keys::DECLARED.iter().find(|(_, name)| *name == key) {
        Some((method, _)) => in_lua(method),
        None => "stream",
    };
    let declared = declared_keys(STREAM, &keys);
    let declared: Vec<_> = declared.iter().map(|key| lua(key)).collect();
    assert_eq!(listed(&common, "local ", "\n\n"), declared, "the locals");
    assert_eq!(listed(&common, "begin(keys, arguments)", "= unpack(keys)"), declared, "unpacked");

    let (_, checks) = common.split_once("local function shared(visit)").unwrap();
    let checks = checks.split_once("\nend").unwrap().0.split("visit(").skip(1);
    let checked: BTreeMap<_, _> = checks
        .map(|check| check.split_once(')').unwrap().0.split_once(", ").unwrap())
        .map(|(key, kind)| (key, kind.to_lowercase()))
        .collect();
    let shared = shared_keys(STREAM, &keys);
    let shared = shared.iter().map(|(key, kind)| (lua(key), (*kind).to_owned()));
    assert_eq!(checked, shared.collect(), "shared()");
}
