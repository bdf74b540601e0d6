//! The transport of OTLP: HTTP/1.1, with TLS if the endpoint asks for it, on the runtime of the process.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tracing::warn;

use crate::error::chain;
use crate::telemetry::log::Throttle;

/// The maximum size of an answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How often failures are logged.
const REMINDER: Duration = Duration::from_secs(60);

/// Posts to the collector, and logs failures.
#[derive(Debug)]
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// The exporter has its own thread without a reactor.
    runtime: Handle,
    timeout: Duration,
    failures: Mutex<Throttle>,
}

impl Transport {
    /// A transport to `endpoint` on the current runtime.
    pub(super) fn new(endpoint: &str, timeout: Duration) -> io::Result<Self> {
        let builder = HttpsConnectorBuilder::new();
        // Authorities are only loaded when needed: a small container may have none.
        let connector = if endpoint.starts_with("https:") {
            builder.with_native_roots()?
        } else {
            let none = RootCertStore::empty();
            let config = ClientConfig::builder().with_root_certificates(none).with_no_client_auth();
            builder.with_tls_config(config)
        };
        let connector = connector.https_or_http().enable_http1().build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            runtime: Handle::current(),
            timeout,
            failures: Mutex::new(Throttle::new(REMINDER)),
        })
    }

    fn report(&self, why: &str) {
        if let Some(times) = self.failures.lock().unwrap_or_else(PoisonError::into_inner).add(1) {
            warn!(times, "traces are dropped, because the collector does not accept them: {why}");
        }
    }
}

#[async_trait]
impl HttpClient for Transport {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, request, timeout) =
            (self.client.clone(), request.map(Full::new), self.timeout);
        let exchange = async move {
            let (head, body) = client.request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        let within_time = async move { tokio::time::timeout(timeout, exchange).await };
        let result = match self.runtime.spawn(within_time).await {
            Ok(Ok(result)) => result,
            Ok(Err(elapsed)) => Err(elapsed.into()),
            Err(ended) => Err(ended.into()),
        };
        match &result {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => self.report(&format!("it answers {}", response.status())),
            Err(error) => self.report(&chain(error.as_ref())),
        }
        result
    }
}
