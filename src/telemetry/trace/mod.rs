//! Traces: one for each batch that a worker processes, linked to the spans of its producers, and one for each round
//! of a janitor, with a span per stage; and a span for each request of an application or a browser.
//!
//! Names and attributes follow OpenTelemetry's conventions for messaging. While traces are off, spans are empty and
//! cost no allocation. Entries are searched for trace parents only if a trace is sampled.

mod batch;
mod export;
mod request;
mod sampler;
mod transport;

use std::sync::OnceLock;

use opentelemetry::trace::{
    FutureExt as _, Span as _, SpanBuilder, SpanId, Status, TraceContextExt as _, TraceId,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

pub use batch::{Batches, Read};
pub use export::{TraceError, Traces, install};
pub use request::{request, traceparent};

use crate::error::{Error, chain};

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// A current span, or nothing; it ends when its last clone is dropped.
#[derive(Clone, Debug, Default)]
pub struct Span(Option<Context>);

impl Span {
    /// Runs `future` within the span, and marks the span as failed if the future fails. Stages begun in the future
    /// are its children, and log lines name it.
    ///
    /// # Errors
    /// Those of the future.
    pub async fn around<T>(
        &self,
        future: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(context) = &self.0 else { return future.await };
        let result = future.with_context(context.clone()).await;
        if let Err(error) = &result {
            let span = context.span();
            span.set_attribute(KeyValue::new("error.type", error.kind()));
            span.set_status(Status::error(chain(error)));
        }
        result
    }

    /// Runs `action` within the span.
    pub fn within<T>(&self, action: impl FnOnce() -> T) -> T {
        let _current = self.0.clone().map(Context::attach);
        action()
    }

    /// The root span of a trace; nothing unless it is sampled.
    fn first(describe: impl FnOnce() -> SpanBuilder) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let none = Context::new();
        let span = tracer.build_with_context(describe(), &none);
        Self(span.is_recording().then(|| none.with_span(span)))
    }

    /// A stage of the current trace, if there is one.
    fn stage(describe: impl FnOnce() -> SpanBuilder) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let current = Context::current();
        if !current.span().is_recording() {
            return Self(None);
        }
        let span = tracer.build_with_context(describe(), &current);
        Self(Some(current.with_span(span)))
    }
}

/// Begins the trace of a janitor's round.
pub fn round(partition: u16) -> Span {
    let partition = KeyValue::new("rollcall.partition", i64::from(partition));
    Span::first(|| SpanBuilder::from_name("sweep").with_attributes([partition]))
}

/// The stage that sweeps one structure.
pub fn sweep(structure: &'static str) -> Span {
    Span::stage(|| SpanBuilder::from_name(format!("sweep {structure}")))
}

/// The trace and span that a log line belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// 32 hexadecimal digits.
    pub trace_id: TraceId,
    /// 16 hexadecimal digits.
    pub span_id: SpanId,
}

/// The current trace and span, if any.
pub fn current() -> Option<Ids> {
    Context::map_current(|context| {
        let span = context.span();
        let ids = span.span_context();
        ids.is_valid().then(|| Ids { trace_id: ids.trace_id(), span_id: ids.span_id() })
    })
}
