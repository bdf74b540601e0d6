//! Calls of webhooks: one at a time over a persistent connection, to an address that was checked, without following
//! redirects.

mod address;
mod sign;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_rustls::ConfigBuilderExt as _;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::Webhook;
use crate::error::chain;

/// The maximum size of an answer that is read to its end; after a longer one the connection is closed.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The receiver accepted it.
    Taken,
    /// The receiver will never accept it.
    Refused(String),
    /// The receiver may accept it later, but not before the given time.
    Later(String, Option<Duration>),
}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("cannot look up the host")]
    Lookup(#[source] std::io::Error),
    #[error("the host has no address outside private networks; allow-private = true allows them")]
    Private,
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("cannot load the certificates of authorities")]
    Roots(#[source] std::io::Error),
    #[error("the host's name cannot be in a certificate")]
    Name(#[from] rustls::pki_types::InvalidDnsNameError),
    #[error("no response came")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made")]
    Request(#[from] hyper::http::Error),
    #[error("the secrets cannot be used: {0}")]
    Secrets(String),
}

type Sender = SendRequest<Full<Bytes>>;

/// Calls one webhook.
pub(super) struct Caller {
    webhook: Webhook,
    sender: Option<Sender>,
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Caller")
    }
}

impl Caller {
    pub(super) fn new(webhook: &Webhook) -> Self {
        Self { webhook: webhook.clone(), sender: None, tls: None }
    }

    /// Calls once, within the target's time limit.
    pub(super) async fn call(&mut self, id: &str, body: &Bytes) -> Answer {
        match tokio::time::timeout(self.webhook.timeout, self.exchange(id, body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.sender = None;
                Answer::Later(chain(&error), None)
            }
            Err(_elapsed) => {
                self.sender = None;
                Answer::Later(format!("no answer within {:?}", self.webhook.timeout), None)
            }
        }
    }

    async fn exchange(&mut self, id: &str, body: &Bytes) -> Result<Answer, CallError> {
        let kept = self.sender.take().filter(|sender| !sender.is_closed());
        let was_kept = kept.is_some();
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let response = match sender.send_request(self.request(id, body)?).await {
            // The receiver may have closed an idle connection.
            Err(_closed) if was_kept => {
                sender = self.connect().await?;
                sender.send_request(self.request(id, body)?).await?
            }
            response => response?,
        };
        let answer = answer(&response);
        // The body of the answer does not matter, but must be read before the next answer.
        if Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.is_ok() {
            self.sender = Some(sender);
        }
        Ok(answer)
    }

    fn request(&self, id: &str, body: &Bytes) -> Result<Request<Full<Bytes>>, CallError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let secrets = self.webhook.secrets().map_err(CallError::Secrets)?;
        let url = &self.webhook.url;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let host = url.authority().map_or("", |authority| authority.as_str());
        Ok(Request::post(path)
            .header(HOST, host)
            .header(USER_AGENT, concat!("rollcall/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", sign::signatures(&secrets, id, now, body))
            .body(Full::new(body.clone()))?)
    }

    async fn connect(&mut self) -> Result<Sender, CallError> {
        let address = self.address().await?;
        let stream = TcpStream::connect(address).await.map_err(CallError::Connect)?;
        let _slower = stream.set_nodelay(true);
        if !self.webhook.is_tls() {
            return open(TokioIo::new(stream)).await;
        }
        let name = ServerName::try_from(self.webhook.host().to_owned())?;
        let stream = self.tls()?.connect(name, stream).await.map_err(CallError::Connect)?;
        open(TokioIo::new(stream)).await
    }

    /// The address to connect to: exactly the one that was checked.
    async fn address(&self) -> Result<SocketAddr, CallError> {
        let place = (self.webhook.host(), self.webhook.port());
        let mut found = tokio::net::lookup_host(place).await.map_err(CallError::Lookup)?;
        let may = |found: &SocketAddr| self.webhook.allow_private || address::is_public(found.ip());
        found.find(may).ok_or(CallError::Private)
    }

    fn tls(&mut self) -> Result<TlsConnector, CallError> {
        if let Some(tls) = &self.tls {
            return Ok(tls.clone());
        }
        let builder = ClientConfig::builder().with_native_roots().map_err(CallError::Roots)?;
        let tls = TlsConnector::from(Arc::new(builder.with_no_client_auth()));
        Ok(self.tls.insert(tls).clone())
    }
}

async fn open<T>(stream: TokioIo<T>) -> Result<Sender, CallError>
where
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(stream).await?;
    // It ends with the sender, or with an error that the next request reports.
    tokio::spawn(connection);
    Ok(sender)
}

fn answer(response: &Response<Incoming>) -> Answer {
    let status = response.status();
    if status.is_success() {
        return Answer::Taken;
    }
    let why = format!("answered {status}");
    let is_later = status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if !is_later {
        return Answer::Refused(why);
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Answer::Later(why, after.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs))
}
