//! The content of `/metrics`: all of the inventory and nothing else, counted correctly, and no more series with more
//! data.

mod health;
mod survey;

use std::collections::BTreeSet;
use std::time::Duration;

use rollcall::telemetry::metrics::{INVENTORY, Kind, Metric};

use crate::harness::wait_until;
use crate::process::Worker;
use crate::roles::{NOWHERE, Pages, add_heartbeats, server};
use crate::support::dump;

const SOON: Duration = Duration::from_secs(20);
const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];
const FAST: [&str; 4] = ["--http", "127.0.0.1:0", "--janitor-interval", "100ms"];

/// The lines of a page that are no comments, each as the series it belongs to.
fn series(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// The series of a metric, by the values that its labels can have.
fn possible_series(metric: &Metric) -> Vec<String> {
    let sets = metric.labels.iter().fold(vec![Vec::new()], |sets, label| {
        let values = label.names().unwrap();
        let with = |set: &Vec<String>, value: &str| {
            [set.as_slice(), &[format!("{}=\"{value}\"", label.name)]].concat()
        };
        sets.iter()
            .flat_map(|set| values.iter().map(|v| with(set, v)).collect::<Vec<_>>())
            .collect()
    });
    let named = |set: &Vec<String>| match set.as_slice() {
        [] => metric.name.to_owned(),
        labels => format!("{}{{{}}}", metric.name, labels.join(",")),
    };
    sets.iter().map(named).collect()
}

/// An alert on a rate needs the zero before the first event, for every kind.
#[test]
fn counters_stand_at_zero_before_anything_happens() {
    let mut process = Worker::start_as("run", NOWHERE, &HTTP, &[]);
    let (status, text) = Pages::of(&process).get("/metrics");
    assert_eq!(status, 200);
    assert_eq!(process.terminate(), 0);
    // Series of targets exist once there are targets.
    let is_named = |metric: &&Metric| metric.labels.iter().all(|label| label.names().is_some());
    let counters = INVENTORY.iter().filter(|metric| metric.kind == Kind::Counter).filter(is_named);
    let ours: Vec<_> = counters.filter(|metric| metric.name.starts_with("rollcall_")).collect();
    assert!(ours.len() > 15, "{}", ours.len());
    for metric in ours {
        for series in possible_series(metric) {
            // Connecting may have failed already.
            let may_count = series == "rollcall_redis_errors_total{kind=\"connection\"}";
            let stands = |line: &str| {
                line.strip_prefix(&series).is_some_and(|rest| rest == " 0" || may_count)
            };
            assert!(text.lines().any(stands), "{series} does not stand at zero from the start");
        }
    }
}

#[test]
fn everything_in_the_inventory_is_shown_and_explained_and_nothing_else() {
    let server = server();
    let file = tempfile::NamedTempFile::new().unwrap();
    let target = "[[notify]]\nname = \"plain\"\nkind = \"pubsub\"\nchannel = \"news\"\n";
    std::fs::write(file.path(), target).unwrap();
    let config = ["--config", file.path().to_str().unwrap()];
    let process = Worker::start_as("run", &server.url(), &[&FAST[..], &config].concat(), &[]);
    let pages = Pages::of(&process);
    let shows = |name: &str| pages.metric(&format!("{name}{{partition=\"0\"}}"));
    wait_until(SOON, "the server is surveyed, and the partition owned", || {
        shows("rollcall_undelivered_entries").is_some()
            && shows("rollcall_partition_owned") == Some(1.0)
            && pages.get("/metrics").1.contains("\nrollcall_notifier_lag_seconds{")
    });
    let (_, text) = pages.get("/metrics");
    let explained = |what: &str| -> BTreeSet<(String, String)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(what)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
    };
    let inventory = |said: fn(&Metric) -> &str| -> BTreeSet<(String, String)> {
        INVENTORY.iter().map(|metric| (metric.name.to_owned(), said(metric).to_owned())).collect()
    };
    assert_eq!(explained("# TYPE "), inventory(|metric| metric.kind.name()));
    assert_eq!(explained("# HELP "), inventory(|metric| metric.help));
    let names: BTreeSet<&str> = INVENTORY.iter().map(|metric| metric.name).collect();
    for series in series(&text) {
        let name = series.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let known = names.contains(name) || base.is_some_and(|base| names.contains(base));
        assert!(known, "{series} stands in no inventory");
    }
    let objective = "rollcall_event_age_seconds_bucket{le=\"1\"}";
    assert!(series(&text).contains(objective), "the objective of one second is no bucket");
}

#[test]
fn series_do_not_grow_with_users_tokens_and_documents() {
    let server = server();
    let mut conn = dump::connect(&server.url());
    let process = Worker::start_as("run", &server.url(), &FAST, &[]);
    let pages = Pages::of(&process);
    let mut add = |from: u32, to: u32| {
        let mut pipe = redis::pipe();
        for n in from..to {
            let n = n.to_string();
            let heartbeat = ["type", "heartbeat", "user", &n, "ip", &n, "token", &n, "sid", &n];
            let more = ["doc", &n, "page", &n, "ua", &n, "connection", &n];
            pipe.cmd("XADD").arg("rollcall:events").arg("*").arg(&heartbeat).arg(&more);
            let view = ["type", "view", "user", &n, "token", &n, "item", &n];
            pipe.cmd("XADD").arg("rollcall:events").arg("*").arg(&view);
            pipe.cmd("XADD").arg("rollcall:events").arg("*").arg(&["type", n.as_str()]);
        }
        pipe.exec(&mut conn).unwrap();
    };
    let surveyed = |users: f64| {
        let size = |structure: &str| {
            let labels = format!("partition=\"0\",structure=\"{structure}\"");
            pages.metric(&format!("rollcall_structure_members{{{labels}}}"))
        };
        let all = ["presence", "sessions", "recent_tokens", "ranked_items", "document_users"];
        wait_until(SOON, "the server is surveyed", || {
            all.iter().chain(&["dead_letters"]).all(|structure| size(structure) == Some(users))
        });
        series(&pages.get("/metrics").1)
    };
    add(0, 10);
    let few = surveyed(10.0);
    add(10, 1_000);
    let many = surveyed(1_000.0);
    assert!(few.len() > 300, "{}", few.len());
    let more: Vec<_> = many.symmetric_difference(&few).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn entries_are_counted_by_form_and_events_by_type() {
    let server = server();
    let mut conn = dump::connect(&server.url());
    let process = Worker::start(&server.url(), &HTTP, &[]);
    let pages = Pages::of(&process);
    let beat = r#"{"type":"heartbeat","user":"u"}"#;
    let event = r#"{"specversion":"1.0","type":"heartbeat","data":{"user":"u"}}"#;
    let packed = format!(r#"[{beat},{beat},{{"type":"view"}}]"#);
    let map = rmp_serde::to_vec_named(&serde_json::json!({"type": "heartbeat", "user": "u"}));
    let add = |conn: &mut redis::Connection, fields: &[(&str, &[u8])]| {
        let mut add = redis::cmd("XADD");
        add.arg("rollcall:events").arg("*");
        fields.iter().for_each(|(name, value)| {
            add.arg(*name).arg(*value);
        });
        add.exec(conn).unwrap();
    };
    let (user, far) = (("user", &b"u"[..]), ("time", &b"9999999999999"[..]));
    let heartbeat = ("type", &b"heartbeat"[..]);
    add(&mut conn, &[heartbeat, user]);
    add(&mut conn, &[heartbeat, user, far]);
    add(&mut conn, &[heartbeat, user, ("specversion", b"1.0")]);
    add(&mut conn, &[("data", event.as_bytes())]);
    add(&mut conn, &[("data", beat.as_bytes())]);
    let msgpack = ("datacontenttype", &b"application/msgpack"[..]);
    add(&mut conn, &[msgpack, ("data", &map.unwrap())]);
    add(&mut conn, &[("data", packed.as_bytes())]);
    add(&mut conn, &[("data", b"{")]);
    let metric = |series: &str| pages.metric(series).unwrap_or(-1.0);
    wait_until(SOON, "all is applied", || metric("rollcall_entries_applied_total") == 8.0);
    let forms = [("flat", 2.0), ("json", 1.0), ("msgpack", 1.0), ("cloudevents", 2.0)];
    for (form, count) in forms.into_iter().chain([("packed", 1.0)]) {
        let series = format!("rollcall_entries_decoded_total{{form=\"{form}\"}}");
        assert_eq!(metric(&series), count, "{form}");
    }
    assert_eq!(metric(r#"rollcall_events_decoded_total{type="heartbeat"}"#), 8.0);
    assert_eq!(metric(r#"rollcall_events_applied_total{type="heartbeat"}"#), 8.0);
    assert_eq!(metric("rollcall_events_from_future_total"), 1.0);
    assert_eq!(metric(r#"rollcall_events_rejected_total{reason="missing_field"}"#), 1.0);
    assert_eq!(metric(r#"rollcall_events_rejected_total{reason="invalid_json"}"#), 1.0);
    assert!(metric("rollcall_read_bytes_total") > 200.0);
    let operations = |projection: &str| {
        metric(&format!("rollcall_operations_applied_total{{projection=\"{projection}\"}}"))
    };
    assert!((1.0..=8.0).contains(&operations("activity")), "{}", operations("activity"));
    assert_eq!(operations("documents"), 0.0);
}

#[test]
fn members_that_nothing_reads_are_counted_and_a_debug_line_names_them() {
    let server = server();
    let mut conn = dump::connect(&server.url());
    let mut add = |fields: &[&str]| {
        redis::cmd("XADD").arg("rollcall:events").arg("*").arg(fields).exec(&mut conn).unwrap();
    };
    let extension = ["specversion", "1.0", "tenant", "acme"];
    add(&[&["type", "heartbeat", "user", "alice", "pgae", "/home"][..], &extension].concat());
    let packed = r#"[{"type":"login","user":"a","token":"t","tokne":1,"page":"/"},
        {"type":"heartbeat","user":"b","pgae":"/","usr\u001b":"b","traceparent":"x"}, {"type":"view","zzz":1}]"#;
    add(&["data", packed]);
    add(&["type", "heartbeat", "user", "alice", "pgae", "/home"]);
    let args = ["--http", "127.0.0.1:0", "--log", "rollcall=debug"];
    let process = Worker::start(&server.url(), &args, &[]);
    let pages = Pages::of(&process);
    let count = |kind: &str| {
        let series = format!("rollcall_events_unknown_members_total{{type=\"{kind}\"}}");
        pages.metric(&series).unwrap_or(-1.0)
    };
    wait_until(SOON, "all is applied", || count("heartbeat") == 3.0);
    assert_eq!((count("login"), count("view"), count("session")), (1.0, 0.0, 0.0));
    wait_until(SOON, "a line names them", || process.log().contains("no event type has"));
    let log = process.log();
    let line = log.lines().find(|line| line.contains("no event type has")).unwrap();
    assert!(line.contains("count=4") && !line.contains("tenant"), "{line}");
    for said in ["heartbeat pgae", "login tokne", r"heartbeat usr\\u{1b}"] {
        assert!(line.contains(said), "{said}: {line}");
    }
}

#[test]
fn what_happens_is_counted_and_timed() {
    let server = server();
    add_heartbeats(&server.url(), 50);
    let mut conn = dump::connect(&server.url());
    redis::cmd("XADD").arg(&["rollcall:events", "*", "type", "nonsense"]).exec(&mut conn).unwrap();
    let args = ["--http", "127.0.0.1:0", "--janitor-interval", "100ms"];
    let process = Worker::start_as("run", &server.url(), &args, &[]);
    let pages = Pages::of(&process);
    let metric = |series: &str| pages.metric(series).unwrap_or(-1.0);
    wait_until(SOON, "all is counted", || metric("rollcall_entries_applied_total") == 51.0);
    assert_eq!(metric("rollcall_entries_read_total"), 51.0);
    assert_eq!(metric(r#"rollcall_events_applied_total{type="heartbeat"}"#), 50.0);
    assert_eq!(metric(r#"rollcall_events_rejected_total{reason="unknown_type"}"#), 1.0);
    assert_eq!(metric(r#"rollcall_changes_total{kind="online"}"#), 50.0);
    assert_eq!(metric(r#"rollcall_redis_connects_total{role="worker"}"#), 1.0);
    assert_eq!(metric("rollcall_event_age_seconds_count"), 51.0);
    assert_eq!(metric("rollcall_batch_entries_sum"), 51.0);
    assert!(metric("rollcall_apply_duration_seconds_sum") > 0.0);
    assert_eq!(metric(r#"rollcall_partition_owned{partition="0"}"#), 1.0);
    assert_eq!(metric(r#"rollcall_partition_standby{partition="0"}"#), 0.0);
    assert_eq!(metric(r#"rollcall_partition_term{partition="0"}"#), 1.0);
    assert_eq!(metric(r#"rollcall_takeovers_total{cause="free"}"#), 1.0);
    wait_until(SOON, "the janitor surveys", || {
        metric(r#"rollcall_stream_entries{partition="0"}"#) == 51.0
            && metric(r#"rollcall_undelivered_entries{partition="0"}"#) == 0.0
    });
    wait_until(SOON, "it ends a round", || {
        metric(r#"rollcall_sweep_last_success_timestamp_seconds{partition="0"}"#) > 1.7e9
    });
    assert_eq!(metric(r#"rollcall_undelivered_trusted{partition="0"}"#), 1.0);
    assert_eq!(metric(r#"rollcall_partition_unowned{partition="0"}"#), 0.0);
    assert_eq!(metric(r#"rollcall_oldest_undelivered_seconds{partition="0"}"#), 0.0);
    wait_until(SOON, "calls are timed", || metric("rollcall_sweep_duration_seconds_count") > 10.0);
    let (_, text) = pages.get("/metrics");
    let ours = |line: &&str| line.starts_with("rollcall_") || line.starts_with("process_");
    let bad = |line: &&str| !line.starts_with('#') && !ours(line);
    assert_eq!(text.lines().filter(|line| !line.is_empty()).find(bad), None);
    assert_eq!(pages.get("/nowhere").0, 404);
}
