//! The spans of a batch: `process <stream>` with its stages `read`, `fold` and `apply`.

use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId,
    TraceState,
};
use redis::{ConnectionAddr, ConnectionInfo};

use super::Span;
use crate::config::Deployment;
use crate::entry::Entry;
use crate::traceparent::{TraceParent, trace_parents};

/// The maximum number of links of a batch to its producers' spans: OpenTelemetry's default limit for a span.
const MAX_LINKS: usize = 128;

/// A read that brought entries: its start and end.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    started: SystemTime,
    ended: SystemTime,
}

impl Read {
    /// A read that begins now.
    pub fn begin() -> Self {
        let now = SystemTime::now();
        Self { started: now, ended: now }
    }

    /// It ends now.
    pub fn end(mut self) -> Self {
        self.ended = SystemTime::now();
        self
    }
}

/// Begins the spans of one worker's batches.
#[derive(Debug)]
pub struct Batches {
    /// The stream with its prefix; the partition is an attribute.
    destination: String,
    /// The attributes that all its spans share.
    attributes: Vec<KeyValue>,
}

impl Batches {
    /// The batches that `consumer` reads from a partition's stream.
    pub fn new(
        deployment: &Deployment,
        partition: u16,
        consumer: &str,
        server: &ConnectionInfo,
    ) -> Self {
        let destination = format!("{}{}", deployment.prefix, deployment.stream);
        let mut attributes = vec![
            KeyValue::new("messaging.system", "redis"),
            KeyValue::new("messaging.destination.name", destination.clone()),
            KeyValue::new("messaging.consumer.group.name", deployment.group.clone()),
            KeyValue::new("messaging.client.id", consumer.to_owned()),
        ];
        if deployment.partitions > 1 {
            attributes
                .push(KeyValue::new("messaging.destination.partition.id", partition.to_string()));
        }
        match server.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                attributes.push(KeyValue::new("server.address", host.clone()));
                attributes.push(KeyValue::new("server.port", i64::from(*port)));
            }
            other => attributes.push(KeyValue::new("server.address", other.to_string())),
        }
        Self { destination, attributes }
    }

    /// The span of a batch, from the start of the read that brought it, including the wait for entries.
    pub fn begin(&self, read: Read, entries: &[Entry]) -> Span {
        let span = Span::first(|| {
            self.operation("process", "process", SpanKind::Consumer).with_start_time(read.started)
        });
        let Some(context) = &span.0 else { return span };
        let count = KeyValue::new("messaging.batch.message_count", entries.len() as i64);
        context.span().set_attribute(count);
        for producer in producers(entries) {
            context.span().add_link(producer, Vec::new());
        }
        span.within(|| self.read(read));
        span
    }

    /// The stage that is over before a batch exists.
    fn read(&self, read: Read) {
        let stage = Span::stage(|| {
            self.operation("read", "receive", SpanKind::Client).with_start_time(read.started)
        });
        if let Some(context) = &stage.0 {
            context.span().end_with_timestamp(read.ended);
        }
    }

    /// The stage that folds a part of the current batch.
    pub fn fold(&self) -> Span {
        Span::stage(|| SpanBuilder::from_name("fold").with_kind(SpanKind::Internal))
    }

    /// The stage that applies a part of the current batch.
    pub fn apply(&self) -> Span {
        Span::stage(|| self.operation("apply", "settle", SpanKind::Client))
    }

    fn operation(
        &self,
        name: &'static str,
        operation: &'static str,
        kind: SpanKind,
    ) -> SpanBuilder {
        let own = [
            KeyValue::new("messaging.operation.name", name),
            KeyValue::new("messaging.operation.type", operation),
        ];
        SpanBuilder::from_name(format!("{name} {}", self.destination))
            .with_kind(kind)
            .with_attributes(self.attributes.iter().cloned().chain(own))
    }
}

/// The spans that made the entries; if there are too many, those that were recorded come first.
fn producers(entries: &[Entry]) -> impl Iterator<Item = SpanContext> {
    let mut parents: Vec<TraceParent> = entries.iter().flat_map(trace_parents).collect();
    parents.sort_by_key(|parent| !parent.sampled);
    parents.truncate(MAX_LINKS);
    parents.into_iter().map(span_context)
}

pub(super) fn span_context(parent: TraceParent) -> SpanContext {
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    SpanContext::new(
        TraceId::from(parent.trace_id),
        SpanId::from(parent.span_id),
        flags,
        true,
        parent.state.parse::<TraceState>().unwrap_or_default(),
    )
}
