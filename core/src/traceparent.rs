//! Where events come from: the trace contexts that their producers sent (W3C Trace Context). Pure.
//!
//! This is separate from decoding because only traced batches need it; all others pay nothing.

use std::borrow::Cow;

use crate::entry::Entry;
use crate::format::{Format, Member, Piece, Shape};

/// The maximum number of trace parents of a packed entry. Entries with more events are never applied.
const MAX_EVENTS: usize = 10_000;

/// The maximum length of a `tracestate` that is kept, in bytes: the minimum that the recommendation asks for.
const MAX_STATE: usize = 512;

/// The span in which a producer made an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace, not 0.
    pub trace_id: u128,
    /// The span, not 0.
    pub span_id: u64,
    /// Whether the producer recorded it.
    pub sampled: bool,
    /// Vendors' additions, unparsed; empty if they are too long.
    pub state: String,
}

/// The trace parents of an entry: its own, or that of the event in its `data`; for a packed entry its own and then
/// those of its events. A malformed one counts as absent.
pub fn trace_parents(entry: &Entry) -> Vec<TraceParent> {
    let own = || read(entry.get(b"traceparent"), entry.get(b"tracestate"));
    let Some((format, data)) = envelope(entry) else { return own().into_iter().collect() };
    if format.is_array(data) {
        return own().into_iter().chain(packed(format, data)).collect();
    }
    inside(format, data).or_else(own).into_iter().collect()
}

/// `data`, unless it is a session's own or cannot be read.
fn envelope(entry: &Entry) -> Option<(Format, &[u8])> {
    let is_session = entry.get(b"type") == Some(b"session") && entry.get(b"sid").is_some();
    let data = entry.get(b"data").filter(|_| !is_session)?;
    let format =
        entry.get(b"datacontenttype").map_or(Some(Format::Json), Format::of_content_type)?;
    Some((format, data))
}

/// The trace parent in an object.
fn inside(format: Format, object: &[u8]) -> Option<TraceParent> {
    let mut context = Context::default();
    format.members(object, |name, member| context.add(name, member)).ok()?;
    context.trace_parent()
}

/// The trace parents in the elements of an array.
fn packed<'a>(format: Format, array: &'a [u8]) -> Vec<TraceParent> {
    let (mut parents, mut context) = (Vec::new(), Context::default());
    let each = |piece: Piece<'_, 'a>| match piece {
        Piece::Member(name, member) => context.add(name, member),
        Piece::Element(_) => parents.extend(std::mem::take(&mut context).trace_parent()),
    };
    let is_whole = format.elements(array, each).is_ok();
    parents.truncate(if is_whole { MAX_EVENTS } else { 0 });
    parents
}

/// The members of an object that make its trace parent.
#[derive(Default)]
struct Context<'a> {
    parent: Option<Cow<'a, [u8]>>,
    state: Option<Cow<'a, [u8]>>,
}

impl<'a> Context<'a> {
    fn add(&mut self, name: &[u8], member: Member<'a>) {
        let slot = match name {
            b"traceparent" => &mut self.parent,
            b"tracestate" => &mut self.state,
            _ => return,
        };
        *slot = Some(member).filter(|m| m.shape == Shape::Text).and_then(|m| m.value().ok());
    }

    fn trace_parent(self) -> Option<TraceParent> {
        read(self.parent.as_deref(), self.state.as_deref())
    }
}

/// Reads a `traceparent` according to section 3.2 of the recommendation, including later versions, and the
/// `tracestate` beside it.
pub fn read(parent: Option<&[u8]>, state: Option<&[u8]>) -> Option<TraceParent> {
    let parent = std::str::from_utf8(parent?).ok()?;
    let (known, rest) = parent.split_at_checked("00-".len() + 32 + 1 + 16 + "-00".len())?;
    let mut parts = known.split('-');
    let mut hex = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        let is_lower = part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_lower.then(|| u128::from_str_radix(part, 16).ok()).flatten()
    };
    let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let is_whole =
        if version == 0 { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    if version == 0xff || !is_whole || trace_id == 0 || span_id == 0 {
        return None;
    }
    let state = state.filter(|state| state.len() <= MAX_STATE);
    let state = state.map(String::from_utf8_lossy).unwrap_or_default().into_owned();
    Some(TraceParent { trace_id, span_id: span_id as u64, sampled: flags & 1 == 1, state })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryId;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn of(fields: &[(&str, &[u8])]) -> Vec<TraceParent> {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), *value));
        trace_parents(&Entry::new(EntryId { ms: 1, seq: 0 }, fields))
    }

    fn spans(fields: &[(&str, &[u8])]) -> Vec<u64> {
        of(fields).into_iter().map(|parent| parent.span_id).collect()
    }

    #[test]
    fn a_traceparent_is_read_whole() {
        let found = of(&[("traceparent", PARENT.as_bytes()), ("tracestate", b"a=1,b=2")]);
        let expected = TraceParent {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span_id: 0x00f0_67aa_0ba9_02b7,
            sampled: true,
            state: "a=1,b=2".to_owned(),
        };
        assert_eq!(found, [expected]);
        let long = "a=".to_owned() + &"b".repeat(MAX_STATE);
        let without = of(&[("traceparent", PARENT.as_bytes()), ("tracestate", long.as_bytes())]);
        assert_eq!(without[0].state, "");
        let later = format!("01{}-more", &PARENT[2..]);
        assert_eq!(of(&[("traceparent", later.as_bytes())]).len(), 1);
    }

    #[test]
    fn what_is_malformed_counts_as_absent() {
        let zero = |from: usize, to: usize| {
            format!("{}{}{}", &PARENT[..from], "0".repeat(to - from), &PARENT[to..])
        };
        for bad in [
            String::new(),
            PARENT[..54].to_owned(),
            format!("{PARENT}-"),
            format!("{PARENT}0"),
            format!("01{}0", &PARENT[2..]),
            format!("ff{}", &PARENT[2..]),
            PARENT.to_uppercase(),
            PARENT.replace('-', "_"),
            format!("+0{}", &PARENT[2..]),
            zero(3, 35),
            zero(36, 52),
            "00-1-2-01".to_owned(),
        ] {
            assert_eq!(of(&[("traceparent", bad.as_bytes())]), [], "{bad}");
        }
        assert_eq!(of(&[("traceparent", &[0xff; 55])]), []);
    }

    #[test]
    fn every_way_to_write_an_event_can_name_its_origin() {
        let object = format!(r#"{{"type":"login","traceparent":"{OTHER}"}}"#);
        let (own, inner) = (0x00f0_67aa_0ba9_02b7, 0xb7ad_6b71_6920_3331);
        let parent = ("traceparent", PARENT.as_bytes());
        assert_eq!(spans(&[("data", object.as_bytes())]), [inner]);
        assert_eq!(spans(&[parent, ("data", object.as_bytes())]), [inner], "inside wins");
        assert_eq!(spans(&[parent, ("data", b"{}")]), [own]);
        assert_eq!(spans(&[parent, ("data", b"{broken")]), [own]);
        let packed = format!(r#"[{object},{{}},7,{{"traceparent":7}},{object}]"#);
        assert_eq!(spans(&[parent, ("data", packed.as_bytes())]), [own, inner, inner]);
        let mut msgpack = b"\x81\xabtraceparent\xd9\x37".to_vec();
        msgpack.extend(OTHER.as_bytes());
        let content = ("datacontenttype", &b"application/msgpack"[..]);
        assert_eq!(spans(&[content, ("data", &msgpack)]), [inner]);
        let session = [("type", &b"session"[..]), ("sid", b"s"), ("data", object.as_bytes())];
        assert_eq!(of(&session), [], "a session's data is its own");
    }
}
