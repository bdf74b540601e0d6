//! Traces as a collector receives them: names, attributes, structure, links, sampling; and a collector that is down
//! delays nothing.

pub mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::wait_until;
use crate::process::Worker;
use crate::roles::tls::certify;
use crate::scene::{SOON, Scene, heartbeat, in_parallel};
use crate::support::events::field;
use receiver::{Receiver, attributes, black_hole, header};

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const BATCH: &str = "process rollcall:events";

/// The variables of a process that exports everything to `addr` at once.
fn exporting(addr: impl std::fmt::Display) -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{addr}")),
        ("OTEL_TRACES_SAMPLER", "always_on".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
    ]
}

fn start(scene: &Scene, role: &str, flags: &[&str], variables: &[(&str, String)]) -> Worker {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Worker::start_as(role, &scene.url(), flags, &variables)
}

/// A producer's `traceparent` in its span number `n`.
fn traceparent(n: u64, flags: &str) -> String {
    format!("00-{TRACE:032x}-{n:016x}-{flags}")
}

fn span_id(link: &Link) -> u64 {
    u64::from_be_bytes(link.span_id.as_slice().try_into().unwrap())
}

fn is_failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32)
}

/// The attributes of a span, except for the consumer's unique name.
fn described(span: &Span) -> BTreeMap<String, String> {
    let mut found = attributes(&span.attributes);
    found.remove("messaging.client.id");
    found
}

#[test]
fn a_batch_is_a_trace_with_its_stages_and_links_to_its_producers() {
    let (scene, receiver) = (Scene::start(&[]), Receiver::start());
    let traced = |n: u64, flags: &str| {
        let mut fields = heartbeat("alice");
        fields.push(field("traceparent", &traceparent(n, flags)));
        fields
    };
    let mut with_state = traced(1, "01");
    with_state.push(field("tracestate", "vendor=x"));
    scene.add(&with_state);
    scene.add(&traced(2, "00"));
    scene.add(&traced(0, "01"));
    scene.add_heartbeat("bob");
    let element = |n: u64| {
        format!(r#"{{"type":"heartbeat","user":"carol","traceparent":"{}"}}"#, traceparent(n, "01"))
    };
    scene.add(&[field("data", &format!("[{},{}]", element(3), element(4)))]);
    let mut variables = exporting(receiver.addr);
    variables.extend([
        ("OTEL_SERVICE_NAME", "edge-state".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test".to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2".to_owned()),
    ]);
    let worker = start(&scene, "worker", &["--name", "w"], &variables);
    scene.wait_finished(SOON, "projected");
    let log = scene.drain(worker);
    assert!(!log.contains("hunter2"), "{log}");

    let root = receiver.wait_for(BATCH, |_| true);
    assert_eq!((root.kind, root.parent_span_id.len()), (SpanKind::Consumer as i32, 0));
    assert!(!is_failed(&root));
    check_attributes(&scene, &root);
    check_stages(&receiver, &root);
    let linked = root.links.iter().map(|link| {
        assert_eq!(link.trace_id, TRACE.to_be_bytes());
        (span_id(link), link.flags & 1, link.trace_state.as_str())
    });
    let linked: Vec<_> = linked.collect();
    assert_eq!(linked, [(1, 1, "vendor=x"), (3, 1, ""), (4, 1, ""), (2, 0, "")]);
    check_request(&receiver);
}

fn check_attributes(scene: &Scene, root: &Span) {
    let port = scene.url().rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let expected = [
        ("messaging.batch.message_count", "5"),
        ("messaging.consumer.group.name", "rollcall"),
        ("messaging.destination.name", "rollcall:events"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.system", "redis"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(described(root), BTreeMap::from(expected));
    assert!(attributes(&root.attributes)["messaging.client.id"].starts_with("w-"));
}

fn check_stages(receiver: &Receiver, root: &Span) {
    let stages = receiver.children(root);
    let names: Vec<_> = stages.keys().map(String::as_str).collect();
    assert_eq!(names, ["apply rollcall:events", "fold", "read rollcall:events"]);
    for (name, kind, operation) in
        [("read", SpanKind::Client, "receive"), ("apply", SpanKind::Client, "settle")]
    {
        let stage = &stages[&format!("{name} rollcall:events")];
        assert_eq!(stage.kind, kind as i32);
        let found = described(stage);
        assert_eq!(found["messaging.operation.name"], name);
        assert_eq!(found["messaging.operation.type"], operation);
        assert_eq!(found["server.address"], "127.0.0.1");
    }
    assert_eq!(stages["fold"].kind, SpanKind::Internal as i32);
    let in_order =
        ["read rollcall:events", "fold", "apply rollcall:events"].map(|name| &stages[name]);
    assert!(
        in_order.windows(2).all(|pair| pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano)
    );
    for stage in in_order {
        assert!(root.start_time_unix_nano <= stage.start_time_unix_nano);
        assert!(stage.end_time_unix_nano <= root.end_time_unix_nano);
    }
}

fn check_request(receiver: &Receiver) {
    receiver.look(|seen| {
        let head = &seen.heads[0];
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(head, "content-type"), Some("application/x-protobuf"));
        assert_eq!(header(head, "authorization"), Some("Bearer hunter2"));
        let resource = &seen.resources[0];
        for (key, value) in [
            ("service.name", "edge-state"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("deployment.environment.name", "test"),
        ] {
            assert_eq!(resource[key], value, "{key}");
        }
        assert!(resource["service.instance.id"].starts_with("w-"), "{resource:?}");
    });
}

#[test]
fn links_are_bounded_and_recorded_producers_come_first() {
    let (scene, receiver) = (Scene::start(&[]), Receiver::start());
    let element = |n: u64| {
        let parent = traceparent(n, if n > 250 { "01" } else { "00" });
        format!(r#"{{"type":"heartbeat","user":"u{n}","traceparent":"{parent}"}}"#)
    };
    let elements: Vec<_> = (1..=300).map(element).collect();
    scene.add(&[field("data", &format!("[{}]", elements.join(",")))]);
    let worker = start(&scene, "worker", &[], &exporting(receiver.addr));
    scene.wait_finished(SOON, "projected");
    scene.drain(worker);
    let linked: Vec<_> = receiver.wait_for(BATCH, |_| true).links.iter().map(span_id).collect();
    let expected: Vec<u64> = (251..=300).chain(1..=78).collect();
    assert_eq!(linked, expected);
}

#[test]
fn of_several_partitions_each_is_named() {
    let (scene, receiver) = (Scene::start(&[("partitions", "2")]), Receiver::start());
    scene.add_random(1, 40);
    let worker = start(&scene, "worker", &["--partitions", "2"], &exporting(receiver.addr));
    scene.wait_finished(SOON, "projected");
    scene.drain(worker);
    for partition in ["0", "1"] {
        let read = receiver.wait_for("read rollcall:events", |span| {
            described(span)["messaging.destination.partition.id"] == partition
        });
        let found = described(&read);
        assert_eq!(found["messaging.operation.type"], "receive");
        assert_eq!(found["messaging.destination.name"], "rollcall:events");
    }
}

#[test]
fn a_failed_batch_is_marked_and_the_log_line_names_its_trace() {
    in_parallel(["text", "json"], |format| {
        let (scene, receiver) = (Scene::start(&[]), Receiver::start());
        let flags = ["--log-format", format];
        let worker = start(&scene, "worker", &flags, &exporting(receiver.addr));
        scene.add_heartbeat("alice");
        scene.wait_finished(SOON, "it reads new entries now");
        let _: String = scene.command(&["SET", "presence:users", "something else"]);
        scene.add_heartbeat("alice");
        let failed = receiver.wait_for(BATCH, is_failed);
        check_failed(&failed, "presence:users");
        check_failed(&receiver.children(&failed)["apply rollcall:events"], "presence:users");
        let (trace, span) = (hex(&failed.trace_id), hex(&failed.span_id));
        let names_it = |line: &str| match format {
            "text" => line.ends_with(&format!(" trace_id={trace} span_id={span}")),
            _ => {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["trace_id"] == trace && line["span_id"] == span && line["level"] == "WARN"
            }
        };
        wait_until(SOON, "the log line names its trace", || {
            worker.log().lines().any(|line| line.contains("not projecting") && names_it(line))
        });
    });
}

fn check_failed(span: &Span, why: &str) {
    assert!(is_failed(span), "{span:?}");
    assert_eq!(attributes(&span.attributes)["error.type"], "wrong_key");
    assert!(span.status.as_ref().unwrap().message.contains(why), "{span:?}");
}

#[test]
fn a_round_is_a_trace_with_a_span_for_each_structure() {
    let (scene, receiver) = (Scene::start(&[]), Receiver::start());
    let flags = ["--janitor-interval", "100ms"];
    let janitor = start(&scene, "janitor", &flags, &exporting(receiver.addr));
    let root = receiver.wait_for("sweep", |span| !is_failed(span));
    assert_eq!(
        attributes(&root.attributes),
        [("rollcall.partition".to_owned(), "0".to_owned())].into()
    );
    let structures = rollcall::projection::sweeps().map(|sweep| sweep.name);
    let expected: BTreeSet<_> =
        structures.chain(["stream", "erased"]).map(|name| format!("sweep {name}")).collect();
    assert_eq!(receiver.children(&root).into_keys().collect::<BTreeSet<_>>(), expected);
    let _: String = scene.command(&["SET", "presence:users", "something else"]);
    let failed = receiver.wait_for("sweep", is_failed);
    let stage = receiver.wait_for("sweep presence", |span| span.parent_span_id == failed.span_id);
    [&failed, &stage].into_iter().for_each(|span| check_failed(span, "WRONG"));
    wait_until(SOON, "the log line names its trace", || {
        let ids = format!("trace_id={} span_id={}", hex(&failed.trace_id), hex(&failed.span_id));
        janitor.log().lines().any(|line| line.contains("not sweeping") && line.ends_with(&ids))
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_sampler_decides_how_many_batches_are_traced() {
    in_parallel(
        [
            ("always_on", "", 200..=200),
            ("always_off", "", 0..=0),
            ("traceidratio", "0.5", 50..=150),
        ],
        |(sampler, ratio, expected)| {
            let (scene, receiver) = (Scene::start(&[]), Receiver::start());
            scene.add_random(7, 200);
            let mut variables = exporting(receiver.addr);
            variables.push(("OTEL_TRACES_SAMPLER", sampler.to_owned()));
            variables.push(("OTEL_TRACES_SAMPLER_ARG", ratio.to_owned()));
            let worker = start(&scene, "worker", &["--batch", "1"], &variables);
            scene.wait_finished(SOON, "projected");
            scene.drain(worker);
            let batches = receiver.named(BATCH).len();
            assert!(expected.contains(&batches), "{sampler} {ratio}: {batches}");
            // A trace is complete or absent.
            let stages = receiver.look(|seen| seen.spans.len()) - batches;
            assert_eq!(stages, batches * 3, "{sampler} {ratio}");
        },
    );
}

#[test]
fn by_default_ten_traces_a_second_are_the_most() {
    let (scene, receiver) = (Scene::start(&[]), Receiver::start());
    scene.add_random(7, 300);
    let mut variables = exporting(receiver.addr);
    variables.push(("OTEL_TRACES_SAMPLER", String::new()));
    let worker = start(&scene, "worker", &["--batch", "1"], &variables);
    scene.wait_finished(SOON, "projected");
    scene.drain(worker);
    let mut begun: Vec<_> =
        receiver.named(BATCH).iter().map(|batch| batch.end_time_unix_nano).collect();
    begun.sort_unstable();
    let lasted = Duration::from_nanos(begun[begun.len() - 1] - begun[0]);
    let most = lasted.as_millis() / 100 + 2;
    assert!(begun.len() as u128 <= most, "{} traces in {lasted:?}", begun.len());
}

#[test]
fn off_means_no_connection() {
    let (scene, receiver) = (Scene::start(&[]), Receiver::start());
    for off in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
    ] {
        let mut variables = exporting(receiver.addr);
        variables.push((off.0, off.1.to_owned()));
        let worker = start(&scene, "run", &[], &variables);
        scene.add_heartbeat("alice");
        scene.wait_finished(SOON, "projected");
        let log = scene.drain(worker);
        assert!(!log.contains("trace"), "{off:?}:\n{log}");
        assert_eq!(receiver.look(|seen| seen.connections), 0, "{off:?}");
    }
}

#[test]
fn a_collector_that_is_away_hinders_nothing() {
    // A port that was free a moment ago, and one where nobody ever answers.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (addr, why) in [(closed, "Connection refused"), (black_hole(), "deadline has elapsed")] {
        let scene = Scene::start(&[]);
        scene.add_random(3, 500);
        let mut variables = exporting(addr);
        variables.push(("OTEL_EXPORTER_OTLP_TIMEOUT", "1000".to_owned()));
        // Fewer than there are spans: the rest is dropped.
        variables.push(("OTEL_BSP_MAX_QUEUE_SIZE", "100".to_owned()));
        variables.push(("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50".to_owned()));
        let worker = start(&scene, "worker", &["--batch", "5"], &variables);
        scene.wait_finished(SOON, "projected without the collector");
        scene.verify(why);
        wait_until(SOON, "the log says so", || worker.log().contains("traces are dropped"));
        let stopping = Instant::now();
        let log = scene.drain(worker);
        assert!(stopping.elapsed() < Duration::from_secs(8), "{:?}", stopping.elapsed());
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("traces are dropped")).collect();
        assert!(lines.len() == 1 && lines[0].contains(why), "{log}");
    }
}

#[test]
fn an_endpoint_may_speak_tls_under_an_authority_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path());
    let file = |name: &str| folder.path().join(name);
    let certificate = CertificateDer::from_pem_file(file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let receiver = Receiver::start_with(move |stream| {
        StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream)
    });
    let scene = Scene::start(&[]);
    let mut variables = exporting("");
    variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://{}", receiver.addr)));
    variables.push(("SSL_CERT_FILE", file("ca.pem").display().to_string()));
    let worker = start(&scene, "worker", &[], &variables);
    scene.add_heartbeat("alice");
    receiver.wait_for(BATCH, |_| true);
    scene.drain(worker);
}
