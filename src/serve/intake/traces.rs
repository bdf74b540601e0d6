//! The trace context in events (W3C Trace Context), as JSON members. Pure.

use crate::format::{Format, Member, Piece, Shape};

/// The maximum length of a member that is kept, in bytes; readers of traces accept no more.
const MAX_BYTES: usize = 512;

/// The members of an event that name its trace: `"traceparent":"…"`, perhaps with `tracestate`.
#[derive(Default)]
struct Trace(String);

impl Trace {
    fn add(&mut self, name: &[u8], member: Member<'_>) {
        let is_one = matches!(name, b"traceparent" | b"tracestate");
        if !is_one || member.shape != Shape::Text || member.raw.len() > MAX_BYTES {
            return;
        }
        // Names that need no escapes, and values that are JSON already.
        if let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(member.raw)) {
            let separator = if self.0.is_empty() { "\"" } else { ",\"" };
            self.0.extend([separator, name, "\":", value]);
        }
    }

    fn take(&mut self) -> Option<String> {
        Some(std::mem::take(&mut self.0)).filter(|members| !members.is_empty())
    }
}

/// The members that name the trace of each event of an array, or of a single event; empty if none has any.
pub(super) fn traces(json: &[u8]) -> Vec<Option<String>> {
    const NAME: &[u8] = b"traceparent";
    if !json.windows(NAME.len()).any(|window| window == NAME) {
        return Vec::new();
    }
    let (mut traces, mut trace) = (Vec::new(), Trace::default());
    // The decoder reports what is malformed.
    let _broken = if Format::Json.is_array(json) {
        Format::Json.elements(json, |piece| match piece {
            Piece::Member(name, member) => trace.add(name, member),
            Piece::Element(_) => traces.push(trace.take()),
        })
    } else {
        let read = Format::Json.members(json, |name, member| trace.add(name, member));
        traces.push(trace.take());
        read
    };
    traces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_keeps_the_trace_that_it_names() {
        let parent = r#""traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01""#;
        let one = format!(r#"{{"type":"heartbeat",{parent},"tracestate":"a=1"}}"#);
        let both = format!("{parent},\"tracestate\":\"a=1\"");
        assert_eq!(traces(one.as_bytes()), [Some(both.clone())]);
        let many = format!(r#"[{{"user":"a"}},{one},7,{{"traceparent":7}}]"#);
        assert_eq!(traces(many.as_bytes()), [None, Some(both), None, None]);
        assert!(traces(br#"{"user":"a"}"#).is_empty());
    }
}
