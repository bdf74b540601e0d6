//! Turns a request into elements of packed entries, each for its partition. Pure.
//!
//! The decoder decides what is an event, exactly as it will when the entry is read. The server then sets what it
//! knows better: the user of a JSON Web Token, the client's address, and the time of arrival.

use std::borrow::Cow;

use super::Sender;
use super::traces::traces;
use crate::config::Deployment;
use crate::decode::{Rejected, Rules, decode};
use crate::entry::{Entry, EntryId};
use crate::event::{Kind, Limits, Reason, Rejection, SenderMut};
use crate::format::{Format, Piece};
use crate::key::partition_of;
use crate::time::EventTime;

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'b> {
    /// An event as a JSON object, or an array of events.
    Json(&'b [u8]),
    /// Events as JSON objects, one per line.
    Lines(&'b [u8]),
}

/// An event, or a part of one, written as an element of a packed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// The partition to whose stream it belongs.
    pub partition: u16,
    /// The JSON object.
    pub json: String,
    /// The event's index in the request.
    pub place: usize,
}

/// The elements of a request, and the parts that are not events, with their indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elements {
    pub taken: Vec<Element>,
    pub refused: Vec<(usize, Rejection)>,
}

/// Reads requests.
pub(super) struct Reader<'r> {
    pub sender: &'r Sender,
    pub deployment: &'r Deployment,
    /// The server's time, in milliseconds.
    pub now_ms: u64,
}

impl Reader<'_> {
    /// Reads a request.
    ///
    /// # Errors
    /// If it is malformed as a whole; none of its elements can then be trusted.
    pub(super) fn read(&self, body: Body<'_>) -> Result<Elements, Rejection> {
        let mut elements = Elements::default();
        match body {
            Body::Json(json) if Format::Json.is_array(json) => match &self.sender.subject {
                Some(_) => self.each(json, &mut elements)?,
                None => self.array(json, &mut elements)?,
            },
            Body::Json(json) => self.one(0, json, &mut elements),
            Body::Lines(lines) => {
                let is_empty = |line: &&[u8]| line.iter().all(u8::is_ascii_whitespace);
                let lines = lines.split(|byte| *byte == b'\n').filter(|line| !is_empty(line));
                let most = self.deployment.limits.max_events;
                if lines.clone().nth(most).is_some() {
                    let detail = format!("a request may hold {most} events; send fewer at once");
                    return Err(Rejection::new(Reason::TooManyEvents, detail));
                }
                lines.enumerate().for_each(|(place, line)| self.one(place, line, &mut elements));
            }
        }
        if self.deployment.partitions > 1 {
            // Grouped by lane, and in each lane in the order of the request.
            elements.taken.sort_by_key(|element| element.partition);
        }
        Ok(elements)
    }

    fn one(&self, place: usize, json: &[u8], elements: &mut Elements) {
        if Format::Json.is_array(json) {
            let detail = "a line is an array; send one event as an object per line";
            let rejection = Rejection::new(Reason::UnexpectedArray, detail);
            return elements.refused.push((place, rejection));
        }
        let entry = self.entry(json);
        let decoded = decode(&entry, 0, &self.rules());
        let rejected = decoded.rejected.into_iter().map(|rejected| (place, rejected.rejection));
        elements.refused.extend(rejected);
        let trace = traces(json).pop().flatten();
        decoded
            .events
            .into_iter()
            .for_each(|event| self.add(place, event.time, event.kind, trace.as_deref(), elements));
    }

    /// The elements of an array.
    fn each(&self, json: &[u8], elements: &mut Elements) -> Result<(), Rejection> {
        let (mut raw, most) = (Vec::new(), self.deployment.limits.max_events);
        let each = |piece: Piece<'_, '_>| {
            if let Piece::Element(element) = piece {
                raw.push(element.raw.to_vec());
            }
        };
        // The decoder reports what is malformed.
        if Format::Json.elements(json, each).is_err() || raw.len() > most {
            return self.array(json, elements);
        }
        raw.iter().enumerate().for_each(|(place, json)| self.one(place, json, elements));
        Ok(())
    }

    fn array(&self, json: &[u8], elements: &mut Elements) -> Result<(), Rejection> {
        let entry = self.entry(json);
        let decoded = decode(&entry, 0, &self.rules());
        let traces = traces(json);
        let mut rejected = decoded.rejected.into_iter().peekable();
        let mut events = decoded.events.into_iter();
        for place in 0.. {
            let concerns =
                |rejected: &Rejected<'_>| rejected.element.is_none_or(|(at, _)| at == place);
            match rejected.next_if(concerns) {
                Some(Rejected { rejection, element: None }) => return Err(rejection),
                Some(Rejected { rejection, .. }) => elements.refused.push((place, rejection)),
                None => {
                    let Some(event) = events.next() else { break };
                    let trace = traces.get(place).and_then(Option::as_deref);
                    self.add(place, event.time, event.kind, trace, elements);
                }
            }
        }
        elements.refused.sort_by_key(|(place, _)| *place);
        Ok(())
    }

    /// For a subject, the user in a single event is ignored.
    fn entry(&self, json: &[u8]) -> Entry {
        let user = self.sender.subject.as_ref().map(|subject| (&b"user"[..], subject.as_bytes()));
        let fields = user.into_iter().chain([(&b"data"[..], json)]);
        Entry::new(EntryId { ms: self.now_ms, seq: 0 }, fields)
    }

    fn rules(&self) -> Rules {
        // The size of a request was limited before; the size of an entry is limited below.
        let limits = Limits { max_data_bytes: usize::MAX, ..self.deployment.limits.clone() };
        Rules {
            limits,
            max_skew_ms: self.deployment.max_skew_ms,
            partitions: 1,
            moved_from: Vec::new(),
        }
    }

    /// An event with the current time.
    pub(super) fn event(&self, kind: Kind<'_>) -> Elements {
        let mut elements = Elements::default();
        self.add(0, EventTime::from_millis(self.now_ms), kind, None, &mut elements);
        elements
    }

    /// Adds an event, as several elements if its parts belong to several partitions.
    fn add(
        &self,
        place: usize,
        time: EventTime,
        kind: Kind<'_>,
        trace: Option<&str>,
        elements: &mut Elements,
    ) {
        let Self { sender, deployment, .. } = self;
        let mut kind = kind;
        set_sender(&mut kind, sender, &deployment.limits);
        let kinds = if deployment.partitions == 1 {
            vec![kind]
        } else {
            let parts = kind.foreign_parts();
            std::iter::once(kind.without_foreign_parts()).chain(parts).collect()
        };
        let first = elements.taken.len();
        for kind in kinds {
            let partition = partition_of(kind.routing_id(), deployment.partitions);
            let mut json = String::with_capacity(192);
            kind.write_json(time, &mut json);
            if let Some(trace) = trace.or(sender.trace.as_deref()) {
                json.truncate(json.len() - 1);
                json.extend([",", trace, "}"]);
            }
            // An entry has at least two brackets around it.
            let limit = deployment.limits.max_data_bytes.saturating_sub(2);
            if json.len() > limit {
                elements.taken.truncate(first);
                let detail = format!("the event has {} bytes; the limit is {limit}", json.len());
                let rejection = Rejection::new(Reason::FieldTooLong, detail);
                return elements.refused.push((place, rejection));
            }
            elements.taken.push(Element { partition, json, place });
        }
    }
}

/// A subject is the user of everything it sends, from its own address; for other callers, missing members are filled
/// in.
fn set_sender<'a>(kind: &mut Kind<'a>, sender: &'a Sender, limits: &Limits) {
    let SenderMut { user, ip, ua } = kind.sender_mut();
    if let Some(subject) = &sender.subject {
        *user = Cow::Borrowed(subject);
    }
    if let (Some(ip), Some(own)) = (ip, &sender.ip)
        && (ip.is_empty() || sender.subject.is_some())
    {
        *ip = Cow::Borrowed(own);
    }
    if let (Some(ua), Some(own)) = (ua, &sender.ua)
        && ua.is_empty()
    {
        *ua = Cow::Borrowed(&own[..own.floor_char_boundary(limits.max_field_bytes)]);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{Config, Gathered};

    const NOW: u64 = 1_790_000_000_000;

    fn deployment(flags: &[(&str, &str)]) -> Deployment {
        Config::resolve(&Gathered::from_flags(flags.iter().copied()).unwrap()).unwrap().deployment
    }

    fn read(
        body: Body<'_>,
        sender: &Sender,
        flags: &[(&str, &str)],
    ) -> Result<Elements, Rejection> {
        Reader { sender, deployment: &deployment(flags), now_ms: NOW }.read(body)
    }

    fn one(event: &Value, sender: &Sender) -> Value {
        let elements = read(Body::Json(event.to_string().as_bytes()), sender, &[]).unwrap();
        assert_eq!((elements.taken.len(), elements.refused.len()), (1, 0), "{elements:?}");
        serde_json::from_str(&elements.taken[0].json).unwrap()
    }

    fn subject() -> Sender {
        Sender {
            subject: Some("ann".to_owned()),
            ip: Some("192.0.2.7".to_owned()),
            ua: Some("browser".to_owned()),
            trace: None,
        }
    }

    #[test]
    fn a_subject_is_the_user_of_all_it_sends_whatever_the_event_says() {
        let claims = [
            json!({ "type": "heartbeat", "user": "eve", "ip": "1.1.1.1" }),
            json!({ "type": "heartbeat", "data": { "user": "eve", "ip": "1.1.1.1" } }),
            json!({ "specversion": "1.0", "type": "heartbeat", "user": "ann", "data": { "user": "eve" } }),
            json!({ "type": "heartbeat" }),
            json!({ "type": "x", "data": { "type": "heartbeat", "user": "eve", "data": { "user": "eve" } } }),
        ];
        for event in &claims {
            let taken = one(event, &subject());
            let expected = json!({
                "type": "heartbeat", "time": NOW, "user": "ann", "ip": "192.0.2.7", "ua": "browser",
            });
            assert_eq!(taken, expected, "{event}");
        }
        let two = br#"[{"type":"heartbeat"},7,{"type":"heartbeat","user":"eve"}]"#;
        let elements = read(Body::Json(two), &subject(), &[]).unwrap();
        assert_eq!((elements.taken.len(), elements.refused[0].0), (2, 1));
        assert!(elements.taken.iter().all(|element| element.json.contains("\"user\":\"ann\"")));
        for (kind, needs) in
            [("document", "doc"), ("view", "item"), ("session", "sid"), ("logout", "x")]
        {
            let event = json!({
                "type": kind, "user": "eve", needs: "1", "token": "t", "action": if kind == "document" { json!("join") } else { Value::Null },
            });
            assert_eq!(one(&event, &subject())["user"], "ann", "{kind}");
        }
        let logout = one(&json!({ "type": "logout", "user": "ann" }), &subject());
        assert_eq!(logout.get("ip"), None, "all of the user's presence ends");
    }

    #[test]
    fn others_say_themselves_who_and_where_they_are() {
        let event = json!({ "type": "login", "user": "eve", "token": "t", "time": NOW - 5 });
        let expected = json!({ "type": "login", "user": "eve", "token": "t", "time": NOW - 5 });
        assert_eq!(one(&event, &Sender::default()), expected);
    }

    #[test]
    fn a_trace_goes_with_the_event_and_its_own_comes_first() {
        let trace = "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"";
        let sender = Sender { trace: Some(trace.to_owned()), ..Sender::default() };
        let own = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let event = json!({ "type": "heartbeat", "user": "ann", "traceparent": own });
        assert_eq!(one(&event, &sender)["traceparent"], own);
        let event = json!({ "type": "heartbeat", "user": "ann" });
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(one(&event, &sender)["traceparent"], parent);
    }

    #[test]
    fn parts_of_an_event_go_where_they_belong() {
        let flags = [("partitions", "16")];
        let event = json!({
            "type": "heartbeat", "user": "ann", "sid": "s-1", "doc": "d-1", "connection": "c",
            "ip": "10.0.0.7",
        });
        let event = event.to_string();
        let elements = read(Body::Json(event.as_bytes()), &Sender::default(), &flags).unwrap();
        assert!(elements.taken.is_sorted_by_key(|element| element.partition));
        let mut found: Vec<(u16, Value)> = Vec::new();
        for Element { partition, json, place } in &elements.taken {
            assert_eq!(*place, 0);
            found.push((*partition, serde_json::from_str(json).unwrap()));
        }
        let user = partition_of("ann", 16);
        let session = partition_of("s-1", 16);
        let document = partition_of("d-1", 16);
        let time = NOW;
        for expected in [
            (
                user,
                json!({ "type": "heartbeat", "time": time, "user": "ann", "ip": "10.0.0.7", "connection": "c" }),
            ),
            (
                session,
                json!({ "type": "session", "time": time, "sid": "s-1", "user": "ann", "ip": "10.0.0.7" }),
            ),
            (
                document,
                json!({ "type": "document", "time": time, "doc": "d-1", "user": "ann", "connection": "c", "action": "join" }),
            ),
        ] {
            assert!(found.contains(&expected), "{expected:?} is not in {found:?}");
        }
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn bad_elements_are_refused_alone_and_by_their_place() {
        let sender = Sender::default();
        let good = r#"{"type":"heartbeat","user":"a"}"#;
        let places = |elements: &Elements| -> Vec<(usize, &'static str)> {
            elements.refused.iter().map(|(n, r)| (*n, r.reason.name())).collect()
        };
        let array = format!(r#"[7,{good},{{"type":"x"}},[],{good},{{"type":"view","user":"a"}}]"#);
        let elements = read(Body::Json(array.as_bytes()), &sender, &[]).unwrap();
        assert_eq!(elements.taken.iter().map(|e| e.place).collect::<Vec<_>>(), [1, 4]);
        let expected =
            [(0, "invalid_json"), (2, "unknown_type"), (3, "invalid_json"), (5, "missing_field")];
        assert_eq!(places(&elements), expected);
        let lines = format!("{good}\n\n{{bad\n[{good}]\n  \r\n{good}\r\n{good},{good}");
        let elements = read(Body::Lines(lines.as_bytes()), &sender, &[]).unwrap();
        assert_eq!(elements.taken.iter().map(|e| e.place).collect::<Vec<_>>(), [0, 3]);
        let expected = [(1, "invalid_json"), (2, "unexpected_array"), (4, "invalid_json")];
        assert_eq!(places(&elements), expected);
    }

    #[test]
    fn what_is_broken_or_too_much_as_a_whole_has_no_elements() {
        let good = r#"{"type":"heartbeat","user":"a"}"#;
        let reason = |text: &str, lines: bool| {
            let body = if lines { Body::Lines } else { Body::Json };
            read(body(text.as_bytes()), &Sender::default(), &[("max-events", "2")])
                .unwrap_err()
                .reason
        };
        assert_eq!(reason(&format!("[{good},{good}"), false), Reason::InvalidJson);
        let three = [good; 3];
        assert_eq!(reason(&format!("[{}]", three.join(",")), false), Reason::TooManyEvents);
        assert_eq!(reason(&three.join("\n"), true), Reason::TooManyEvents);
        let deep = format!("[{}1{}]", "[".repeat(200), "]".repeat(200));
        assert_eq!(reason(&deep, false), Reason::InvalidJson);
    }

    #[test]
    fn an_event_that_would_not_fit_in_an_entry_is_refused() {
        let read = |data: usize| {
            let event = json!({ "type": "session", "sid": "s", "data": ["x".repeat(data)] });
            let flags = [("max-data-bytes", "300")];
            read(Body::Json(event.to_string().as_bytes()), &Sender::default(), &flags).unwrap()
        };
        let fits = read(200);
        let spare = 298 - fits.taken[0].json.len();
        assert_eq!(read(200 + spare).taken.len(), 1);
        let refused = read(200 + spare + 1);
        assert!(refused.taken.is_empty());
        assert_eq!(refused.refused[0].1.reason, Reason::FieldTooLong);
    }
}
