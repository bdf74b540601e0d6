//! From what a request holds to elements of packed entries, each for its partition. Pure.
//!
//! The decoder says what is an event, exactly as it will when the entry is read. Then the server sets what it knows
//! better: whose the events of a JSON Web Token are, from where they come, and when they came.

use std::borrow::Cow;

use super::Sender;
use super::traces::traces;
use crate::config::Deployment;
use crate::decode::{Rejected, Rules, decode};
use crate::entry::{Entry, EntryId};
use crate::event::{Event, Kind, Limits, Reason, Rejection, SenderMut};
use crate::format::Format;
use crate::key::partition_of;
use crate::time::EventTime;

/// What a request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'b> {
    /// An event as a JSON object, or an array of events.
    Json(&'b [u8]),
    /// Events as JSON objects, one a line.
    Lines(&'b [u8]),
}

/// An event, or a part of one, written as an element of a packed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// The partition whose stream it belongs in.
    pub partition: u16,
    /// The JSON object.
    pub json: String,
    /// The event's place in the request.
    pub place: usize,
}

/// The elements of a request, and what are no events, by their place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elements {
    pub taken: Vec<Element>,
    pub refused: Vec<(usize, Rejection)>,
}

/// What a request is read with.
pub(super) struct Reader<'r> {
    pub sender: &'r Sender,
    pub deployment: &'r Deployment,
    /// The server's time, in milliseconds.
    pub now_ms: u64,
}

impl Reader<'_> {
    /// Reads what a request holds.
    ///
    /// # Errors
    /// If it is broken as a whole: then it has no elements that could be trusted.
    pub(super) fn read(&self, body: Body<'_>) -> Result<Elements, Rejection> {
        let mut elements = Elements::default();
        match body {
            Body::Json(json) if Format::Json.is_array(json) => self.array(json, &mut elements)?,
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
            // Together for each lane; within it, as they were sent.
            elements.taken.sort_by_key(|element| element.partition);
        }
        Ok(elements)
    }

    fn one(&self, place: usize, json: &[u8], elements: &mut Elements) {
        if Format::Json.is_array(json) {
            let detail = "an array stands where one event belongs; send an object a line";
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
            .for_each(|event| self.add(place, event, trace.as_deref(), elements));
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
                    self.add(place, event, trace, elements);
                }
            }
        }
        elements.refused.sort_by_key(|(place, _)| *place);
        Ok(())
    }

    fn entry(&self, json: &[u8]) -> Entry {
        Entry::new(EntryId { ms: self.now_ms, seq: 0 }, [(&b"data"[..], json)])
    }

    fn rules(&self) -> Rules {
        // What a request may hold was bounded before; what an entry may hold is below.
        let limits = Limits { max_data_bytes: usize::MAX, ..self.deployment.limits.clone() };
        Rules { limits, max_skew_ms: self.deployment.max_skew_ms, partitions: 1 }
    }

    /// An event that comes now.
    pub(super) fn event(&self, kind: Kind<'_>) -> Elements {
        let mut elements = Elements::default();
        let event = Event { time: EventTime::from_millis(self.now_ms), from_future: false, kind };
        self.add(0, event, None, &mut elements);
        elements
    }

    /// Adds an event, in several elements if its parts belong in several partitions.
    fn add(&self, place: usize, event: Event<'_>, trace: Option<&str>, elements: &mut Elements) {
        let Event { time, mut kind, .. } = event;
        let Self { sender, deployment, .. } = self;
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
            // An entry has two brackets around it at least.
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

/// A subject is the user of all it sends, and sends it from where it is; for others, what is missing is filled in.
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
