//! The sender of events, and its address.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::format::write_json_text;
use crate::serve::{Caller, Client};
use crate::telemetry::trace::traceparent;
use crate::traceparent::{self, TraceParent};

/// The sender of events, and its address: what the server sets, whatever the events say.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// The user of a JSON Web Token: *the* user of every event.
    pub subject: Option<String>,
    /// The client's address, for events without one; for a subject, for all events.
    pub ip: Option<String>,
    /// The client's user agent, for events without one.
    pub ua: Option<String>,
    /// The trace that the request belongs to, as members of a JSON object.
    pub(super) trace: Option<String>,
}

impl Sender {
    /// A client that sends its own events, from its own address.
    pub fn client(caller: &Caller, client: Client, headers: &HeaderMap) -> Self {
        let ua = headers.get(header::USER_AGENT).map(|ua| String::from_utf8_lossy(ua.as_bytes()));
        let subject = caller.subject.as_deref().map(str::to_owned);
        let trace = trace(headers);
        Self { subject, ip: Some(client.0.to_string()), ua: ua.map(Into::into), trace }
    }

    /// A caller that may send others' events: unless its token names a user, the events name their own addresses.
    pub fn caller(caller: &Caller, client: Client, headers: &HeaderMap) -> Self {
        match &caller.subject {
            Some(_) => Self::client(caller, client, headers),
            None => Self { trace: trace(headers), ..Self::default() },
        }
    }
}

/// The trace that events belong to, as members of a JSON object: that of the request's own span, or otherwise the
/// caller's.
fn trace(headers: &HeaderMap) -> Option<String> {
    let bytes = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let caller = traceparent::read(bytes("traceparent"), bytes("tracestate"));
    let state = caller.as_ref().map(|caller| caller.state.as_str()).unwrap_or_default();
    let parent = traceparent().or_else(|| {
        let TraceParent { trace_id, span_id, sampled, .. } = caller.as_ref()?;
        Some(format!("00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(*sampled)))
    })?;
    let mut members = format!("\"traceparent\":\"{parent}\"");
    if !state.is_empty() {
        members.push_str(",\"tracestate\":");
        write_json_text(&mut members, state);
    }
    Some(members)
}
