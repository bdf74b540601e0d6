//! Which traces are recorded.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::{Link, SpanKind, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use crate::config::Sampling;
use crate::telemetry::log::Throttle;

/// The minimum time between two traces of a kind.
const INTERVAL: Duration = Duration::from_millis(100);

/// The sampler for this setting; spans within a trace always follow its root.
pub(super) fn sampler(sampling: Sampling) -> Sampler {
    let first: Box<dyn ShouldSample> = match sampling {
        Sampling::Limited => Box::new(Limited::default()),
        Sampling::Always => Box::new(Sampler::AlwaysOn),
        Sampling::Never => Box::new(Sampler::AlwaysOff),
        Sampling::Ratio(ratio) => Box::new(Sampler::TraceIdRatioBased(ratio)),
    };
    Sampler::ParentBased(first)
}

/// At most one trace of batches per [`INTERVAL`], and as many of sweeps and of requests.
#[derive(Clone, Debug, Default)]
struct Limited {
    batches: Spacing,
    requests: Spacing,
    rounds: Spacing,
}

#[derive(Clone, Debug)]
struct Spacing(Arc<Mutex<Throttle>>);

impl Default for Spacing {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Throttle::new(INTERVAL))))
    }
}

impl ShouldSample for Limited {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: TraceId,
        _: &str,
        kind: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let Spacing(throttle) = match kind {
            SpanKind::Consumer => &self.batches,
            SpanKind::Server => &self.requests,
            _ => &self.rounds,
        };
        let is_due = throttle.lock().unwrap_or_else(PoisonError::into_inner).add(1).is_some();
        let decision =
            if is_due { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::default() }
    }
}
