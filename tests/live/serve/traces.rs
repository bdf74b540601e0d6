//! A request continues its caller's trace, and its events continue the request's.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;

use super::client::Client;
use crate::harness::{read_stream, wait_until};
use crate::process::Worker;
use crate::scene::{SOON, Scene};
use crate::traces::receiver::{Receiver, attributes};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

#[test]
fn a_request_is_a_span_between_its_caller_and_its_events() {
    let (scene, receiver) = (Scene::start(&[]), Receiver::start());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*format!("http://{}", receiver.addr)),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let serve = Worker::start_as("serve", &scene.url(), &["--listen", "127.0.0.1:0"], &variables);
    let client = Client::new(&super::address(&serve));
    let traced = client
        .with("traceparent", &format!("00-{TRACE}-{CALLER}-01"))
        .with("tracestate", "vendor=x");
    assert_eq!(traced.post("/api/heartbeat", r#"{"user":"ann"}"#).status, 200);
    assert_eq!(traced.post("/api/heartbeat", "{}").status, 400);
    assert_eq!(client.post("/api/heartbeat", r#"{"user":"bob"}"#).status, 200);
    let spans = || receiver.named("POST /api/heartbeat");
    wait_until(SOON, "both requests' spans are there", || spans().len() == 2);
    let spans = spans();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (span, status) in spans.iter().zip(["200", "400"]) {
        assert_eq!(
            (span.name.as_str(), span.kind),
            ("POST /api/heartbeat", SpanKind::Server as i32)
        );
        assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), CALLER.into()));
        let about = attributes(&span.attributes);
        assert_eq!(about["http.route"], "/api/heartbeat");
        assert_eq!(about["http.response.status_code"], status);
    }
    let entries = read_stream(&mut scene.connection(), "rollcall:events");
    let event = |n: usize| -> Value {
        serde_json::from_slice::<Vec<Value>>(entries[n].get(b"data").unwrap()).unwrap().remove(0)
    };
    let own = format!("00-{TRACE}-{}-01", hex(&spans[0].span_id));
    assert_eq!(
        (&event(0)["traceparent"], &event(0)["tracestate"]),
        (&own.into(), &"vendor=x".into())
    );
    assert_eq!(event(1).get("traceparent"), None, "whoever is not traced costs nothing");
}
