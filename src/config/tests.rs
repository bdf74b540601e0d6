//! The layer as a whole: sources, precedence, relations, and that nothing secret gets out.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Command, FromArgMatches as _, Parser as _};

use super::settings::{JanitorFlags, QueryFlags, Settings, WorkerFlags};
use super::*;

/// What a command with the flags of `G` gathers.
fn gather<G: clap::Args>(
    arguments: &[&str],
    variables: &[(&str, &str)],
    file: Option<&str>,
) -> Result<Gathered, ConfigError> {
    use clap::Args as _;
    let command = Flags::<G>::augment_args(Command::new("rollcall").no_binary_name(true));
    let flags = |extra: &[OsString]| {
        let arguments = arguments.iter().map(OsString::from).chain(extra.iter().cloned());
        let matches = command.clone().try_get_matches_from(arguments).unwrap();
        Flags::<G>::from_arg_matches(&matches).unwrap()
    };
    let variables = variables.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect();
    let Some(text) = file else { return flags(&[]).gather_with(variables) };
    let stored = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(stored.path(), text).unwrap();
    flags(&["--config".into(), stored.path().into()]).gather_with(variables)
}

fn config(arguments: &[&str], variables: &[(&str, &str)], file: &str) -> Config {
    Config::resolve(&gather::<Settings>(arguments, variables, Some(file)).unwrap()).unwrap()
}

/// The error's text; it must name the remedy's words.
fn error(arguments: &[&str], variables: &[(&str, &str)], file: &str) -> String {
    let gathered = gather::<Settings>(arguments, variables, Some(file));
    let error = gathered.and_then(|gathered| Config::resolve(&gathered)).unwrap_err();
    format!("{error} {error:?}")
}

#[track_caller]
fn refused(flags: &[&str], words: &[&str]) {
    let text = error(flags, &[], "");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

fn defaults() -> Config {
    Config::resolve(&Gathered::default()).unwrap()
}

#[test]
fn defaults_are_those_of_the_design() {
    let Config { redis, deployment, worker, janitor, http, log, .. } = defaults();
    assert_eq!(redis.url().to_string(), "redis://127.0.0.1:6379");
    let meta: Vec<String> =
        deployment.meta_fields().iter().map(|(key, text)| format!("{key}={text}")).collect();
    assert_eq!(
        meta.join(" "),
        "partitions=1 stream=rollcall:events group=rollcall \
         projections=online,activity,presence,tokens,ranking,sessions,documents thresholds=none \
         max-skew=1m online-window=5m presence-ttl=5m session-ttl=30m document-ttl=30m \
         recent-cap=1000000 viewed-cap=25 ranking-cap=20000 dead-cap=100000 changes-cap=100000 \
         max-identifier-bytes=256 max-field-bytes=16384 max-data-bytes=1048576 max-fields=64 \
         max-events=1000"
    );
    assert_eq!((worker.batch, worker.standbys), (500, 1));
    assert_eq!(worker.takeover, Duration::from_secs(3));
    assert_eq!(worker.batch_deadline(), Duration::from_secs(9));
    assert_eq!(janitor.interval, Duration::from_secs(1));
    assert_eq!((janitor.keep_ms, janitor.horizon_ms), (3_600_000, 86_400_000));
    assert_eq!((http, log.filter.as_str(), log.format), (Http::Default, "info", LogFormat::Text));
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = "batch = 3\nkeep = \"3h\"\ngroup = \"file\"";
    let variables = [("ROLLCALL_BATCH", "2"), ("ROLLCALL_KEEP", "2h"), ("ROLLCALL_PREFIX", "")];
    let all = config(&["--batch", "1"], &variables, file);
    assert_eq!(all.worker.batch, 1);
    assert_eq!(all.janitor.keep_ms, 2 * 3_600_000);
    assert_eq!(all.deployment.group, "file");
    assert_eq!(all.deployment.recent_cap, 1_000_000);
    let gathered = gather::<Settings>(&["--batch=1"], &variables, Some(file)).unwrap();
    assert_eq!(gathered.origin("batch"), Origin::Flag);
    assert_eq!(gathered.origin("keep"), Origin::Env("ROLLCALL_KEEP".to_owned()));
    assert!(matches!(gathered.origin("group"), Origin::File { line: 3, .. }));
    assert_eq!(gathered.origin("prefix"), Origin::Default);
}

#[test]
fn one_file_and_one_environment_serve_every_command() {
    let file = "batch = 3\njanitor-interval = \"5s\"\nthresholds = [{ up = 10, down = 5 }]";
    let variables = [("ROLLCALL_TAKEOVER", "10s"), ("ROLLCALL_KEEP", "2h")];
    let gathered = [
        gather::<QueryFlags>(&["--prefix", "a:"], &variables, Some(file)).unwrap(),
        gather::<WorkerFlags>(&["--prefix", "a:"], &variables, Some(file)).unwrap(),
        gather::<JanitorFlags>(&["--prefix", "a:"], &variables, Some(file)).unwrap(),
    ];
    for gathered in gathered {
        let config = Config::resolve(&gathered).unwrap();
        assert_eq!(config.deployment.prefix, "a:");
        assert_eq!(config.deployment.thresholds, [Threshold { up: 10, down: 5 }]);
        assert_eq!((config.worker.batch, config.janitor.keep_ms), (3, 7_200_000));
        assert_eq!(config.worker.takeover, Duration::from_secs(10));
    }
    let command = <Flags<QueryFlags> as clap::Args>::augment_args(Command::new("rollcall"));
    assert!(command.try_get_matches_from(["rollcall", "--batch", "3"]).is_err());
}

#[test]
fn the_environment_can_name_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "projections = [\"tokens\", \"online\"]").unwrap();
    let path = file.path().to_str().unwrap();
    let gathered = gather::<QueryFlags>(&[], &[("ROLLCALL_CONFIG", path)], None).unwrap();
    let config = Config::resolve(&gathered).unwrap();
    assert_eq!(config.deployment.projections.to_string(), "online,tokens");
    let missing =
        gather::<QueryFlags>(&["--config", "/nowhere"], &[("ROLLCALL_CONFIG", path)], None);
    let text = missing.unwrap_err().to_string();
    assert!(text.contains("\"/nowhere\" (flag): cannot read"), "{text}");
}

#[test]
fn unknown_names_are_refused_with_the_one_that_was_meant() {
    let text = error(&[], &[], "batch = 1\ntake_over = \"3s\"");
    assert!(text.contains("no setting \"take_over\""), "{text}");
    assert!(text.contains("line 2") && text.contains("did you mean takeover?"), "{text}");
    assert!(error(&[], &[], "[redis]\nurl = 1").contains("config print"));
    assert!(error(&[], &[], "config = \"x\"").contains("no setting \"config\""));
    let text = error(&[], &[("ROLLCALL_BACTH", "1")], "");
    assert!(text.contains("\"ROLLCALL_BACTH\"") && text.contains("mean ROLLCALL_BATCH?"), "{text}");
    assert!(error(&[], &[("ROLLCALL_HTTP_PORT", "9000")], "").contains("ROLLCALL_HTTP_PORT"));
    let foreign = [
        ("ROLLCALL_TEST_SEED", "1"),
        ("ROLLCALL_PORT", "tcp://10.0.0.1:9464"),
        ("ROLLCALL_PORT_9464_TCP_ADDR", "10.0.0.1"),
        ("ROLLCALL_SERVICE_HOST", "10.0.0.1"),
        ("ROLLCALL_WORKER_SERVICE_PORT_METRICS", "9464"),
        ("PATH", "/bin"),
    ];
    assert_eq!(config(&[], &foreign, "").worker.batch, 500);
}

#[test]
fn impossible_values_name_setting_origin_value_and_remedy() {
    refused(&["--batch", "5001"], &["batch = \"5001\" (flag)", "from 1 to 5000"]);
    refused(&["--batch=-1"], &["from 1 to 5000"]);
    refused(&["--partitions", "1025"], &["partitions", "from 1 to 1024"]);
    refused(&["--keep", "30"], &["keep = \"30\"", "write 30ms, 30s"]);
    refused(&["--takeover", "999ms"], &["at least 1s"]);
    refused(&["--janitor-interval", "99ms"], &["at least 100ms"]);
    refused(&["--standbys", "0"], &["from 1 to"]);
    refused(&["--online-window", "90s"], &["whole minutes"]);
    refused(&["--thresholds", "5:10"], &["thresholds = \"5:10\"", "down must be less"]);
    refused(&["--projections", ""], &["must be all, or names"]);
    refused(&["--http", "localhost:1"], &["0.0.0.0:9464"]);
    refused(&["--log", "inof"], &["must be a level"]);
    refused(&["--log-format", "xml"], &["text or json"]);
    refused(&["--stream", ""], &["without spaces"]);
    refused(&["--group", "a b"], &["without spaces"]);
    refused(&["--prefix", "a\n"], &["without spaces"]);
    refused(&["--recent-cap", "0"], &["from 1 to"]);
    let text = error(&[], &[("ROLLCALL_KEEP", "1 day")], "");
    assert!(text.contains("keep = \"1 day\" (env ROLLCALL_KEEP)"), "{text}");
    for (line, words) in [
        ("batch = true", "must be a number"),
        ("batch = 5e2", "must be a number"),
        ("keep = 30", "write 30ms, 30s"),
        ("keep = 1979-05-27", "text in quotes"),
        ("thresholds = [{ up = 1 }]", "{ up = 10, down = 5 }"),
        ("thresholds = [{ up = 1, down = 0, also = 1 }]", "{ up = 10, down = 5 }"),
        ("projections = [1]", "an array"),
        ("batch = 1\nbatch = 2", "is not TOML"),
    ] {
        let text = error(&[], &[], line);
        assert!(text.contains(words) && text.contains("line "), "{text}");
    }
}

#[test]
fn impossible_relations_name_both_sides() {
    refused(&["--horizon", "59m"], &["horizon = \"59m\"", "at least keep = 1h (default)"]);
    refused(&["--keep", "25h"], &["keep = \"25h\"", "at most horizon = 24h (default)"]);
    refused(&["--max-field-bytes", "255"], &["at least max-identifier-bytes = 256 (default)"]);
    refused(&["--thresholds=2:1", "--projections=online"], &["need the projection documents"]);
    refused(&["--redis-username=alice"], &["redis-username", "redis-password-file"]);
    refused(&["--redis-url=redis://alice@h"], &["redis-url", "needs a password"]);
    assert_eq!(config(&["--keep=24h"], &[], "").janitor.keep_ms, 86_400_000);
}

#[test]
fn a_prefix_never_decides_the_slot_instead_of_the_partition() {
    for (prefix, partitions) in [("acme:", "4"), ("acme:", "1"), ("{acme}:", "1"), ("x{y}z", "1")] {
        let config = config(&["--prefix", prefix, "--partitions", partitions], &[], "");
        assert_eq!(config.deployment.prefix, prefix);
    }
    refused(&["--prefix={acme}:", "--partitions=2"], &["no braces with more than one"]);
    for prefix in ["{", "}", "{}", "}a{", "{a}{b}", "{{a}}", "{a}}", "a{"] {
        refused(&["--prefix", prefix], &["prefix", "hash tag"]);
    }
}

#[test]
fn a_stream_is_not_a_key_of_the_state() {
    let state = [
        "login:",
        "recent:",
        "viewed:",
        "viewed:x",
        "presence:users",
        "sessions:active",
        "session:1",
        "online-users/1",
        "user-activity/a",
        "sessions:doc:d:users",
        "rollcall:dead",
        "rollcall:changes",
        "rollcall:meta",
        "rollcall:",
        "rollcall:anything",
    ];
    for stream in state {
        refused(&["--stream", stream], &["stream", "a key of the state"]);
    }
    for stream in ["rollcall:events", "rollcall:events:eu", "events", "sessions", "recent:x"] {
        assert_eq!(config(&["--stream", stream], &[], "").deployment.stream, stream);
    }
}

#[test]
fn a_password_can_stand_in_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2 \r\n").unwrap();
    let path = format!("--redis-password-file={}", file.path().display());
    let server = config(&[&path, "--redis-username=alice"], &[], "").redis.server().info;
    assert_eq!(server.redis_settings().password(), Some("hunter2 "));
    assert_eq!(server.redis_settings().username(), Some("alice"));
    refused(&[&path, "--redis-password=x"], &["redis-password-file", "keep one"]);
    refused(
        &[&path, "--redis-url=redis://:x@h"],
        &["redis-password-file", "contains a password too"],
    );
    refused(&["--redis-password-file=/nowhere"], &["/nowhere", "cannot read"]);
}

#[test]
fn a_password_never_shows() {
    let flags = ["--redis-password", "hunter2"];
    let gathered = gather::<Settings>(&flags, &[], None).unwrap();
    let config = Config::resolve(&gathered).unwrap();
    assert_eq!(config.redis.server().info.redis_settings().password(), Some("hunter2"));
    assert!(!format!("{gathered:?}{config:?}").contains("hunter2"));
    let settings = Settings::parse_from(["rollcall", "--redis-password", "hunter2"]);
    assert!(!format!("{settings:?}").contains("hunter2"));
    let file = "redis-password = \"hunter2\"\n";
    for (flags, file) in [
        (&["--redis-password=hunter2", "--redis-url=redis://:b@h"][..], ""),
        (&["--redis-url=redis://:hunter2@h", "--redis-password=b"], ""),
        (&["--redis-url=redis://:hunter2@h:port"], ""),
        (&["--redis-url=redis://:hunter2"], ""),
        (&["--redis-url=redis://alice:hunter2@h", "--redis-username=bob"], ""),
        (&["--redis-url=redis://h?protocol=hunter2"], ""),
        (&["--redis-password-file=/x"], file),
        (&[], "redis-password = \"hunter2"),
        (&[], "redis-password = hunter2"),
        (&[], "redis-password = [\"hunter2\"]"),
        (&[], "redis-password = \"hunter2\"\nredis-password = \"hunter2\""),
        (&["--batch=0"], file),
    ] {
        let text = error(flags, &[], file);
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn help_shows_defaults_and_variables_but_no_values() {
    let command = <Flags<Settings> as clap::Args>::augment_args(Command::new("rollcall"));
    let help = command.clone().term_width(0).render_help().to_string();
    for text in ["[env: ROLLCALL_REDIS_PASSWORD]", "[default: 3s]", "Janitor:", "--config <FILE>"] {
        assert!(help.contains(text), "{text} is not in:\n{help}");
    }
    command.debug_assert();
}

#[test]
fn every_setting_has_one_name_in_three_spellings() {
    for definition in definitions() {
        let variable = definition.key.to_uppercase().replace('-', "_");
        assert_eq!(definition.env, format!("ROLLCALL_{variable}"));
        assert!(!definition.heading.is_empty(), "{}", definition.key);
    }
    let meta = defaults().deployment.meta_fields();
    for (key, text) in meta {
        let flags = Gathered::from_flags([(key, &text)]).unwrap();
        let again = Config::resolve(&flags).unwrap().deployment;
        assert_eq!(again, defaults().deployment, "{key} is not canonical");
    }
    assert_eq!(definitions().len(), 54);
}
