//! Who sends events, and from where.

use axum::http::{HeaderMap, header};

use crate::format::write_json_text;
use crate::serve::{Caller, Client};

/// Who sends events, and from where: what the server sets, whatever the events say.
#[derive(Clone, Debug, Default)]
pub struct Sender {
    /// The user of a JSON Web Token: *the* user of every event.
    pub subject: Option<String>,
    /// The client's address, for events that name none; for a subject, whatever they name.
    pub ip: Option<String>,
    /// The client's user agent, for events that name none.
    pub ua: Option<String>,
    /// The trace that the request belongs to, as members of a JSON object.
    pub(super) trace: Option<String>,
}

impl Sender {
    /// A client that sends its own events: they come from where it is.
    pub fn client(caller: &Caller, client: Client, headers: &HeaderMap) -> Self {
        let ua = headers.get(header::USER_AGENT).map(|ua| String::from_utf8_lossy(ua.as_bytes()));
        let subject = caller.subject.as_deref().map(str::to_owned);
        let trace = trace(headers);
        Self { subject, ip: Some(client.0.to_string()), ua: ua.map(Into::into), trace }
    }

    /// A caller that may send others' events: unless a token says who it is, they say themselves where they come
    /// from.
    pub fn caller(caller: &Caller, client: Client, headers: &HeaderMap) -> Self {
        match &caller.subject {
            Some(_) => Self::client(caller, client, headers),
            None => Self { trace: trace(headers), ..Self::default() },
        }
    }
}

/// `traceparent` and `tracestate` of a request, if they look like it.
fn trace(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let is_parent = |text: &&str| {
        text.len() >= 55
            && text.len() <= 128
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let parent = text("traceparent").filter(is_parent)?;
    let mut members = format!("\"traceparent\":\"{parent}\"");
    if let Some(state) = text("tracestate").filter(|state| !state.is_empty() && state.len() <= 512)
    {
        members.push_str(",\"tracestate\":");
        write_json_text(&mut members, state);
    }
    Some(members)
}
