//! The span of a request from an application or a browser: it continues the caller's trace, and the events in the
//! request continue this one.

use opentelemetry::trace::{
    FutureExt as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};

use super::{Span, TRACER, batch};
use crate::traceparent::TraceParent;

/// Begins the span of a request within the trace that the caller names; nothing unless it is sampled.
pub fn request(method: &str, route: &str, caller: impl FnOnce() -> Option<TraceParent>) -> Span {
    let Some(tracer) = TRACER.get() else { return Span(None) };
    let parent = match caller().map(batch::span_context) {
        Some(caller) => Context::new().with_remote_span_context(caller),
        None => Context::new(),
    };
    let span = SpanBuilder::from_name(format!("{method} {route}"))
        .with_kind(SpanKind::Server)
        .with_attributes([
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("url.scheme", "http"),
        ]);
    let span = tracer.build_with_context(span, &parent);
    let is_recording = opentelemetry::trace::Span::is_recording(&span);
    Span(is_recording.then(|| Context::new().with_span(span)))
}

impl Span {
    /// Runs the request's `future` within the span; `status` reads the status of the answer.
    pub async fn answered<T>(
        &self,
        future: impl Future<Output = T>,
        status: impl FnOnce(&T) -> u16,
    ) -> T {
        let Some(context) = &self.0 else { return future.await };
        let answer = future.with_context(context.clone()).await;
        let (span, status) = (context.span(), status(&answer));
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_attribute(KeyValue::new("error.type", status.to_string()));
            span.set_status(Status::error(""));
        }
        answer
    }
}

/// The current span as the `traceparent` of events it sends on; nothing unless it is recorded.
pub fn traceparent() -> Option<String> {
    Context::map_current(|context| {
        let span = context.span();
        let ids: &SpanContext = span.span_context();
        let is_recorded = ids.is_valid() && span.is_recording();
        is_recorded.then(|| format!("00-{}-{}-01", ids.trace_id(), ids.span_id()))
    })
}
