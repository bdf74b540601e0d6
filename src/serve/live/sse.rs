//! Common parts of streams of server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream};

use crate::serve::{Caller, Context};
use crate::telemetry::metrics::{Dropped, LiveMetrics};

/// The maximum silence.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// Why a listener's time is over.
pub(super) enum End {
    /// Its token is no longer valid.
    Unauthorized(&'static str),
    /// The process stops.
    Stopped,
}

impl End {
    /// The last message to the listener; it is counted if it is dropped.
    pub(super) fn words(&self, metrics: &LiveMetrics) -> &'static str {
        match self {
            Self::Unauthorized(why) => {
                metrics.dropped(Dropped::Unauthorized);
                why
            }
            Self::Stopped => "the server stops",
        }
    }
}

/// Waits until a listener's time is over.
pub(super) fn ended(context: Context, caller: Caller) -> BoxFuture<'static, End> {
    let ended = async move {
        tokio::select! {
            why = caller.ended() => End::Unauthorized(why),
            () = context.stopped() => End::Stopped,
        }
    };
    ended.boxed()
}

/// Answers with events as they come.
pub(super) fn response(
    text: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // nginx would otherwise buffer events.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(text)).into_response()
}

/// How long a client waits before it reconnects; random, so that not all do at the same moment.
pub(super) fn retry() -> Vec<u8> {
    format!("retry: {}\n\n", 500 + fastrand::u32(..1_500)).into_bytes()
}

/// A comment line for people.
pub(super) fn comment(words: &str) -> Bytes {
    format!(": {words}\n\n").into()
}
