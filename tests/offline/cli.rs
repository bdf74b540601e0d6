//! The command line from a user's view: help that names every flag, errors that say what to do, and exit codes that a
//! supervisor can use.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Command, Output, Stdio};

use clap::Args;
use rollcall::config::settings::{
    JanitorFlags, QueryFlags, RoleFlags, Settings, StreamFlags, WorkerFlags,
};
use rollcall::telemetry::metrics::INVENTORY;

/// Bad usage or configuration.
const USAGE: i32 = 64;

/// The binary without the developer's own environment.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    let ours = |name: &str| name.starts_with("ROLLCALL_") || name.starts_with("OTEL_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

fn rollcall(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Every command, as the words that lead to it, found by reading the help.
pub(crate) fn commands() -> Vec<Vec<String>> {
    let mut waiting = vec![Vec::new()];
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        let help = help(&path);
        let section = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
        let lines = section.lines().take_while(|line| !line.is_empty());
        // Names are indented by two columns, continued descriptions by far more.
        let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        for name in names.filter_map(|line| line.split_whitespace().next()) {
            waiting.push([path.as_slice(), &[name.to_owned()]].concat());
        }
        found.push(path);
    }
    found
}

pub(crate) fn help(path: &[String]) -> String {
    let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let output = rollcall(&args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    assert!(output.stderr.is_empty(), "{args:?}: help goes to standard output");
    stdout(&output)
}

/// The flags of a group, each with its variable.
fn flags<G: Args>() -> Vec<(String, String)> {
    let group = G::augment_args(clap::Command::new("group"));
    let name = |arg: &clap::Arg| {
        let variable = arg.get_env().unwrap_or_default().to_str().unwrap().to_owned();
        (format!("--{}", arg.get_long().unwrap()), variable)
    };
    group.get_arguments().map(name).collect()
}

#[test]
fn whoever_has_read_enough_of_an_answer_may_close_it() {
    for answer in [["config", "print"], ["config", "check"]] {
        let mut command = command(&answer);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()), "{answer:?}");
    }
}

#[test]
fn help_of_every_command_names_every_flag_and_its_variable() {
    let expected: BTreeMap<&str, Vec<(String, String)>> = [
        ("run", flags::<Settings>()),
        ("doctor", flags::<Settings>()),
        ("config check", flags::<Settings>()),
        ("config print", flags::<Settings>()),
        ("worker", flags::<WorkerFlags>()),
        ("janitor", flags::<JanitorFlags>()),
        ("notifier", flags::<RoleFlags>()),
    ]
    .into_iter()
    .chain(
        ["online", "seen", "user", "presence", "sessions", "recent", "viewed", "document"]
            .map(|query| (query, flags::<QueryFlags>())),
    )
    .chain(
        ["status", "dead list", "dead show", "load"].map(|about| (about, flags::<StreamFlags>())),
    )
    .collect();
    let found = commands();
    for must in ["run", "worker", "janitor", "notifier", "config check", "config print"] {
        assert!(found.iter().any(|path| path.join(" ") == must), "no command {must}: {found:?}");
    }
    for path in found {
        // Lines may be wrapped anywhere.
        let help = help(&path).split_whitespace().collect::<Vec<_>>().join(" ");
        let name = path.join(" ");
        assert!(help.contains("Usage: rollcall"), "{name}: {help}");
        let Some(flags) = expected.get(name.as_str()) else { continue };
        for (flag, variable) in flags {
            assert!(help.contains(&format!("{flag} <")), "{name} --help lacks {flag}");
            assert!(help.contains(&format!("[env: {variable}]")), "{name} --help lacks {variable}");
        }
        assert!(help.contains("--config <FILE>"), "{name} --help lacks --config");
    }
}

#[test]
fn help_never_shows_what_a_variable_holds() {
    let output = command(&["run", "--help"]).env("ROLLCALL_REDIS_PASSWORD", "hunter2").output();
    assert!(!stdout(&output.unwrap()).contains("hunter2"));
}

#[test]
fn the_version_goes_to_standard_output() {
    let output = rollcall(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), concat!("rollcall ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// Expects an error: exit 64, nothing on standard output, and these words on standard error.
fn refused(command: &mut Command, words: &[&str]) {
    let output = command.output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(USAGE), "{command:?}: {said}");
    assert!(output.stdout.is_empty(), "{command:?}");
    for word in words {
        assert!(said.contains(word), "{command:?} does not say {word:?}:\n{said}");
    }
    assert!(!said.contains("hunter2"), "{command:?} shows a password:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn bad_usage_is_refused_with_the_remedy() {
    for (args, words) in [
        (&[][..], &["Usage: rollcall"][..]),
        (&["nonsense"], &["unrecognized subcommand 'nonsense'", "Usage"]),
        (&["wroker"], &["similar", "worker"]),
        (&["config"], &["check", "print"]),
        (&["worker", "--bacth", "5"], &["--bacth", "similar", "--batch"]),
        (&["worker", "--keep", "1h"], &["unexpected argument '--keep'"]),
        (&["worker", "--batch"], &["--batch <N>", "value is required"]),
        (&["worker", "extra"], &["unexpected argument 'extra'"]),
        (&["worker", "--batch", "5", "--batch", "6"], &["--batch", "cannot be used multiple"]),
    ] {
        refused(&mut command(args), words);
    }
}

#[test]
fn impossible_values_are_refused_with_the_remedy() {
    for (args, words) in [
        (&["worker", "--batch", "0"][..], &["batch", "flag", "from 1 to 5000"][..]),
        (&["worker", "--takeover", "30"], &["takeover", "no unit", "write 30ms, 30s"]),
        (&["worker", "--takeover", "10ms"], &["takeover", "at least "]),
        (&["worker", "--standbys", "0"], &["standbys", "from 1 to 100"]),
        (&["janitor", "--keep", "25h"], &["keep", "at most horizon = 24h", "raise horizon"]),
        (&["janitor", "--horizon", "30m"], &["horizon", "at least keep = 1h", "lower keep"]),
        (&["run", "--partitions", "0"], &["partitions", "from 1 to 1024"]),
        (&["run", "--partitions", "4", "--prefix", "{a}:"], &["prefix", "must have no braces"]),
        (&["run", "--stream", "presence:users"], &["stream", "choose another name"]),
        (&["run", "--projections", "presense"], &["projections", "presence, tokens, ranking"]),
        (&["run", "--thresholds", "5:10"], &["thresholds", "write 10:5, not 5:10"]),
        (&["run", "--http", "9464"], &["http", "such as 0.0.0.0:9464"]),
        (&["run", "--log", "loud"], &["log", "error, warn, info, debug, trace, off"]),
        (
            &["run", "--redis-url", "redis://:hunter2:x"],
            &["redis-url", "not a Redis URL", "rediss"],
        ),
        (
            &["run", "--redis-url", "redis://a:hunter2@h", "--redis-password", "hunter2"],
            &["redis-password", "keep one of them"],
        ),
        (
            &["online", "--redis-url", "redis://h?db=3"],
            &["redis-url", "db is not an option", "redis://host:6379/3"],
        ),
        (
            &["doctor", "--redis-url", "unix:/r.sock?password=hunter2"],
            &["redis-url", "password is not an option", "pass=…"],
        ),
        (
            &["status", "--redis-url", "rediss+sentinel://h/m?ssl_ca_certs=hunter2"],
            &["redis-url", "ssl_ca_certs is not an option", "--redis-tls-ca"],
        ),
        (&["run", "--redis-username", "al"], &["redis-username", "needs a password"]),
        (&["run", "--redis-password-file", "/no/such"], &["redis-password-file", "No such file"]),
        (&["run", "--config", "/no/such"], &["config", "/no/such", "No such file"]),
        (&["config", "check", "--batch", "x"], &["batch", "whole number"]),
        (&["config", "print", "--batch", "x"], &["batch", "whole number"]),
    ] {
        refused(&mut command(args), words);
    }
}

#[test]
fn the_environment_is_checked_like_flags() {
    for (name, value, words) in [
        ("ROLLCALL_BATCH", "many", &["batch", "env ROLLCALL_BATCH", "whole number"][..]),
        ("ROLLCALL_BACTH", "5", &["ROLLCALL_BACTH", "did you mean ROLLCALL_BATCH?"]),
        ("ROLLCALL_WHATEVER_ELSE", "5", &["remove it", "rollcall config print"]),
        ("ROLLCALL_CONFIG", "/no/such", &["config", "env ROLLCALL_CONFIG", "/no/such"]),
        ("ROLLCALL_REDIS_URL", "http://hunter2", &["redis-url", "env ROLLCALL_REDIS_URL"]),
    ] {
        refused(command(&["worker"]).env(name, value), words);
    }
    let empty = command(&["config", "check"]).env("ROLLCALL_BATCH", "").output().unwrap();
    assert_eq!(empty.status.code(), Some(0), "an empty variable counts as absent");
}

#[test]
fn what_opentelemetry_s_variables_ask_for_is_checked() {
    for (name, value, words) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", &["must be http/protobuf"][..]),
        ("OTEL_TRACES_SAMPLER", "xray", &["must be always_on, always_off or traceidratio"]),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", &["must be name=value pairs"]),
    ] {
        for args in [&["run"][..], &["worker"], &["janitor"], &["config", "check"]] {
            let mut command = command(args);
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
            refused(command.env(name, value), words);
            refused(&mut command, &[&format!("{name} = \""), &format!("(env {name})")]);
        }
    }
}

#[test]
fn a_settings_file_is_checked_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollcall.toml");
    let config = path.to_str().unwrap();
    for (text, words) in [
        ("batch = 10\nkep = \"1h\"\n", &["kep", "line 2", "did you mean keep?"][..]),
        ("batch = \"ten\"\n", &["batch", "line 1", "whole number"]),
        ("\nbatch =\n", &["line 2 is not TOML"]),
        ("redis-password = hunter2\n", &["line 1 is not TOML"]),
        ("keep = 5\n", &["keep", "line 1", "no unit"]),
        ("batch = [1]\n", &["batch", "must be a number"]),
        ("[worker]\nbatch = 1\n", &["worker"]),
        ("redis-password = { a = \"hunter2\" }\n", &["redis-password", "text in quotes"]),
    ] {
        fs::write(&path, text).unwrap();
        refused(&mut command(&["config", "check", "--config", config]), words);
        refused(command(&["worker"]).env("ROLLCALL_CONFIG", config), words);
    }
    refused(&mut command(&["worker", "--config", folder.path().to_str().unwrap()]), &["config"]);
}

/// The settings in the output of `config print`: its lines without the note about the source.
fn settings(printed: &str) -> Vec<String> {
    let bare = |line: &str| line.split("  # ").next().unwrap_or_default().to_owned();
    let is_setting = |line: &&str| !line.starts_with('#') && !line.is_empty();
    printed.lines().filter(is_setting).map(bare).collect()
}

#[test]
fn what_config_print_prints_config_check_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("printed.toml");
    let config = path.to_str().unwrap();
    for args in [
        &[][..],
        &["--prefix", "a\"b\\c:", "--partitions", "7", "--name", "ü", "--http", "[::1]:0"],
        &["--projections", "tokens,documents", "--thresholds", "100:80,10:5", "--keep", "90m"],
        &[
            "--takeover",
            "90s",
            "--standbys",
            "2",
            "--log",
            "warn,rollcall::projector=debug",
            "--batch",
            "007",
        ],
        &["--redis-url", "rediss://alice:hunter2@h:6390/3", "--log-format", "json"],
    ] {
        let print = |more: &[&str]| rollcall(&[&["config", "print"], more].concat());
        let printed = print(args);
        assert_eq!(printed.status.code(), Some(0), "{args:?}: {}", stderr(&printed));
        let text = stdout(&printed);
        assert!(!text.contains("hunter2"), "{text}");
        fs::write(&path, &text).unwrap();
        let checked = rollcall(&["config", "check", "--config", config]);
        assert_eq!(checked.status.code(), Some(0), "{}\n{text}", stderr(&checked));
        assert!(stdout(&checked).starts_with("ok: 0 by flag, 0 by environment, "), "{args:?}");
        let again = stdout(&print(&["--config", config]));
        assert_eq!(settings(&again), settings(&text), "{args:?}");
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollcall.toml");
    fs::write(&path, "batch = 1\nviewed-cap = 1\nkeep = \"1m\"\n").unwrap();
    let output = command(&["config", "print", "--batch", "3"])
        .env("ROLLCALL_CONFIG", &path)
        .env("ROLLCALL_BATCH", "2")
        .env("ROLLCALL_VIEWED_CAP", "2")
        .output()
        .unwrap();
    let printed = stdout(&output);
    for line in [
        "batch = 3  # flag\n",
        "viewed-cap = 2  # env ROLLCALL_VIEWED_CAP\n",
        &format!("keep = \"1m\"  # file {path:?} line 3\n"),
        "horizon = \"24h\"  # default\n",
    ] {
        assert!(printed.contains(line), "no {line:?} in\n{printed}");
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure_not_a_misuse() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command(&["config", "print"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot write the answer"), "{}", stderr(&output));
}

#[test]
fn the_inventory_of_metrics_is_printed_for_people_and_for_programs() {
    let json = rollcall(&["metrics", "--json"]);
    assert_eq!(json.status.code(), Some(0), "{}", stderr(&json));
    let rows: Vec<serde_json::Value> = serde_json::from_str(&stdout(&json)).unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let expected: Vec<_> = INVENTORY.iter().map(|metric| metric.name).collect();
    assert_eq!(names, expected);
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    let lost = row("rollcall_entries_lost_total");
    assert_eq!((&lost["kind"], &lost["unit"]), (&"counter".into(), &"count".into()));
    assert_eq!(lost["labels"][0]["name"], "cause");
    assert!(lost["labels"][0]["values"].as_array().unwrap().contains(&"rewound".into()));
    let by_partition = &row("rollcall_undelivered_entries")["labels"][0];
    assert_eq!(
        (by_partition["name"].as_str(), by_partition["values"].as_array().map(Vec::len)),
        (Some("partition"), Some(0))
    );
    assert!(by_partition["bounded_by"].as_str().unwrap().contains("partitions"));
    let page = stdout(&rollcall(&["metrics"]));
    for metric in INVENTORY {
        assert!(page.contains(metric.name) && page.contains(metric.help), "no {}", metric.name);
    }
    assert!(page.contains("    cause: free again stall death\n"), "{page}");
}
