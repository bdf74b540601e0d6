//! The export of spans: they are queued, sent in batches by a thread of their own, and dropped if that fails.

use std::io;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_otlp::{Protocol, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{info, warn};

use super::TRACER;
use super::sampler::sampler;
use super::transport::Transport;
use crate::config::TraceConfig;

/// How long the end of the process waits for the last spans to be sent.
const FLUSH: Duration = Duration::from_secs(3);

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The machine's certificate authorities cannot be read.
    #[error(
        "no certificate authorities for the endpoint of traces: install ca-certificates, or name a file in SSL_CERT_FILE"
    )]
    Authorities(#[from] io::Error),
    /// The exporter refuses its settings.
    #[error("the exporter of traces cannot start")]
    Exporter(#[from] ExporterBuildError),
}

/// The export of traces; to be flushed at the end.
#[derive(Debug)]
#[must_use]
pub struct Traces(SdkTracerProvider);

/// Starts exporting as the instance of this name. Needs a runtime.
///
/// # Errors
/// If the endpoint cannot be used.
pub fn install(config: &TraceConfig, instance: String) -> Result<Traces, TraceError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&config.endpoint)
        .with_timeout(config.timeout)
        .with_http_client(Transport::new(&config.endpoint, config.timeout)?)
        .build()?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler(config.sampling))
        .with_resource(resource(instance))
        .build();
    // A second call in the same process keeps the first one's tracer.
    let _already = TRACER.set(provider.tracer("rollcall"));
    info!(sampling = ?config.sampling, "exporting traces");
    Ok(Traces(provider))
}

impl Traces {
    /// Sends the queued spans, and gives up after three seconds.
    pub async fn flush(self) {
        let shut_down = move || self.0.shutdown_with_timeout(FLUSH);
        if !matches!(tokio::task::spawn_blocking(shut_down).await, Ok(Ok(()))) {
            warn!("the last traces could not be sent");
        }
    }
}

/// The resource's attributes; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` take precedence.
fn resource(instance: String) -> Resource {
    let given = Resource::builder().build();
    let own = [
        KeyValue::new("service.name", "rollcall"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance),
    ];
    let missing = own.into_iter().filter(|own| {
        // Nobody chose the SDK's own default name.
        given.get(&own.key).is_none_or(|value| value.as_str().starts_with("unknown_service"))
    });
    Resource::builder().with_attributes(missing).build()
}
