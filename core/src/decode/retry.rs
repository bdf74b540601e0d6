//! Retry: a dead letter → the entry that retries it. Pure.
//!
//! The retry has the effect that the first entry would have had: its events keep their times, so the state becomes
//! what it would have been. An element of a packed entry is retried alone, as the only element of an array, where the
//! same rules hold as before.

use std::collections::BTreeSet;

use super::{Decoded, Decoder, Rules, content_format, decode, is_envelope};
use crate::entry::{Entry, EntryId, Field};
use crate::event::{Event, Members, Name, REST_OF, RETRY_OF, Reason};
use crate::format::{Format, Member, Piece, Shape};
use crate::time::EventTime;

/// The original entry, as its dead letter gives it.
#[derive(Clone, Copy, Debug)]
pub struct Original<'l> {
    /// The entry's id.
    pub entry: EntryId,
    /// The index of an element; the pair `data` is then its bytes.
    pub index: Option<u64>,
    /// The original pairs.
    pub fields: &'l [Field],
}

/// An entry that retries a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Its fields.
    pub fields: Vec<Field>,
    /// Why it will fail again, as far as the entry alone shows.
    pub fails: Option<Reason>,
}

/// Why a dead letter is not retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// It contains nothing of its entry, which was too large to be kept, or killed workers.
    Empty,
    /// Its event belongs to another partition.
    Elsewhere,
    /// Its events would get another time.
    Time,
}

impl Original<'_> {
    /// The entry that retries it, with members `set` to these texts; an empty text removes the member.
    ///
    /// # Errors
    /// If no retry can give its events their meaning.
    pub fn retry(
        &self,
        set: &[(String, String)],
        rules: &Rules,
        partition: u16,
    ) -> Result<Retry, Left> {
        if self.fields.is_empty() {
            return Err(Left::Empty);
        }
        let mut attempt = Attempt { fields: self.fields.to_vec(), rules, partition };
        let of_entry = |name: &str| {
            let name = Name::from_name(name.as_bytes());
            matches!(name, Some(Name::Data | Name::DataBase64 | Name::ContentType))
        };
        let texts = set.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let (of_entry, of_events): (Vec<_>, Vec<_>) = texts.partition(|(name, _)| of_entry(name));
        of_entry.iter().for_each(|(name, text)| attempt.set_field(name, text));
        if self.index.is_some() {
            attempt.wrap_element();
        }
        if !of_events.is_empty() {
            attempt.add(|_, _| of_events.clone());
        }
        attempt.keep_times(self.entry)?;
        attempt.name_first(self);
        let again = attempt.entry(EntryId::GREATEST);
        let fails = attempt.decode(&again).rejected.first().map(|part| part.rejection.reason);
        match fails {
            Some(Reason::WrongPartition) => Err(Left::Elsewhere),
            fails => Ok(Retry { fields: attempt.fields, fails }),
        }
    }

    /// The types of its events, as they name them.
    pub fn types(&self, rules: &Rules, partition: u16) -> BTreeSet<String> {
        let mut attempt = Attempt { fields: self.fields.to_vec(), rules, partition };
        if self.index.is_some() {
            attempt.wrap_element();
        }
        let entry = attempt.entry(self.entry);
        let events = attempt.decode(&entry).events;
        let mut types: BTreeSet<_> = events.iter().map(|e| e.kind.name().to_owned()).collect();
        let mut add = |members: &Members<'_>| {
            let text = members.get(Name::Type).and_then(|member| member.value().ok());
            types.extend(text.map(|text| String::from_utf8_lossy(&text).into_owned()));
        };
        match attempt.body(&entry) {
            Some((body, outer)) => body.each(&outer, |_, object| add(&object.members)),
            None => {
                let text = entry.get(Name::Type.name().as_bytes());
                types.extend(text.map(|text| String::from_utf8_lossy(text).into_owned()));
            }
        }
        types
    }
}

/// The entry under construction.
pub(super) struct Attempt<'r> {
    pub(super) fields: Vec<Field>,
    pub(super) rules: &'r Rules,
    pub(super) partition: u16,
}

/// An entry's `data`, if it holds one event or several.
pub(super) struct Body<'e> {
    pub(super) format: Format,
    pub(super) raw: &'e [u8],
    pub(super) is_array: bool,
}

/// An object that is an event, with the members that count for it.
pub(super) struct Object<'e> {
    raw: &'e [u8],
    pub(super) members: Members<'e>,
    /// The object inside, whose members override the others.
    inner: Option<&'e [u8]>,
}

impl Attempt<'_> {
    pub(super) fn entry(&self, id: EntryId) -> Entry {
        Entry::new(id, self.fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice())))
    }

    pub(super) fn decode<'e>(&self, entry: &'e Entry) -> Decoded<'e> {
        decode(entry, self.partition, self.rules)
    }

    /// The data that holds the events, and the members around it; `None` if the fields are the event, or if the data
    /// must be unpacked first.
    pub(super) fn body<'e>(&self, entry: &'e Entry) -> Option<(Body<'e>, Members<'e>)> {
        let decoder = Decoder {
            id: entry.id,
            partition: self.partition,
            rules: self.rules,
            looks: super::Looks::default(),
        };
        let members = decoder.fields(entry).ok()?;
        let format = content_format(&members).ok()?;
        let raw = members.get(Name::Data).filter(|_| is_envelope(&members))?.raw;
        // The value itself, which lives as long as the entry.
        let raw =
            entry.fields().map(|(_, value)| value).rfind(|value| std::ptr::eq(*value, raw))?;
        let is_array = format.is_array(raw);
        (is_array || format.is_object(raw))
            .then(|| (Body { format, raw, is_array }, members.without_data()))
    }

    /// Sets a field and removes others of that name; an empty text only removes.
    fn set_field(&mut self, name: &str, text: &str) {
        self.fields.retain(|(other, _)| other != name.as_bytes());
        if !text.is_empty() {
            self.fields.push((name.as_bytes().to_vec(), text.as_bytes().to_vec()));
        }
    }

    /// Makes an array of the element in `data`.
    pub(super) fn wrap_element(&mut self) {
        let entry = self.entry(EntryId::GREATEST);
        let format = entry.get(Name::ContentType.name().as_bytes());
        let format = format.map_or(Some(Format::Json), Format::of_content_type);
        let data = Name::Data.name().as_bytes();
        if let (Some(format), Some(field)) =
            (format, self.fields.iter_mut().rfind(|(name, _)| name == data))
        {
            field.1 = format.array_of(&[&field.1]);
        }
    }

    /// Adds texts to each event, given its index and its current members, so that they override what is there.
    fn add<'t>(&mut self, texts: impl Fn(usize, &Members<'_>) -> Vec<(&'t str, &'t str)>) {
        let entry = self.entry(EntryId::GREATEST);
        let Some((body, outer)) = self.body(&entry) else {
            for (name, text) in texts(0, &Members::default()) {
                self.set_field(name, text);
            }
            return;
        };
        let Some(data) = body.rewritten(&outer, texts) else { return };
        let name = Name::Data.name().as_bytes();
        if let Some(field) = self.fields.iter_mut().rfind(|(other, _)| other == name) {
            field.1 = data;
        }
    }

    /// Gives the events the times that they had in the entry `first`.
    pub(super) fn keep_times(&mut self, first: EntryId) -> Result<(), Left> {
        let (was, later) = (self.entry(first), self.entry(EntryId::GREATEST));
        let (was, later) = (self.decode(&was), self.decode(&later));
        let usual = EventTime::from_millis(first.ms).to_string();
        let times: Vec<_> = was.events.iter().map(|event| event.time.to_string()).collect();
        let moved = was.events.iter().zip(&later.events).map(|(was, later)| was.time != later.time);
        let mut kept = moved.zip(&times);
        let is_rejected = |place: usize| {
            let concerns =
                |element: Option<(usize, &[u8])>| element.is_none_or(|(at, _)| at == place);
            was.rejected.iter().any(|part| concerns(part.element))
        };
        // What is not an event yet may be one for a later version.
        let of_places: Vec<Option<(bool, &str)>> = (0..was.events.len() + was.rejected.len())
            .map(|place| match is_rejected(place) {
                true => None,
                false => kept.next().map(|(moved, time)| (moved, time.as_str())),
            })
            .collect();
        let time = Name::Time.name();
        let rejected_whole = was.rejected.iter().any(|part| part.element.is_none());
        let has_outer_time = self.entry(first).get(time.as_bytes()).is_some();
        self.add(|place, members| match of_places.get(place).copied().flatten() {
            Some((true, kept)) => vec![(time, kept)],
            None if rejected_whole && has_outer_time => Vec::new(),
            None if members.get(Name::Time).is_none() => vec![(time, usual.as_str())],
            _ => Vec::new(),
        });
        self.check_times(&was)
    }

    /// Checks that the events are what they `were` under any entry id. An event whose form does not allow that is
    /// written in the plainest form.
    fn check_times(&mut self, were: &Decoded<'_>) -> Result<(), Left> {
        let again = self.entry(EntryId::GREATEST);
        let are = self.decode(&again).events;
        let same = |(was, is): (&Event<'_>, &Event<'_>)| was.time == is.time && was.kind == is.kind;
        let is_same = are.len() == were.events.len() && were.events.iter().zip(&are).all(same);
        // One more field will name the first entry.
        let has_room = self.fields.len() < self.rules.limits.max_fields;
        match were.events.as_slice() {
            _ if is_same && has_room => Ok(()),
            [event] if were.rejected.is_empty() => {
                let kept = [&b"traceparent"[..], b"tracestate", REST_OF.as_bytes()];
                self.fields.retain(|(name, _)| kept.contains(&name.as_slice()));
                let fields = event.fields().into_iter();
                self.fields.extend(fields.map(|(name, value)| (name.as_bytes().to_vec(), value)));
                Ok(())
            }
            _ if is_same => Ok(()),
            _ => Err(Left::Time),
        }
    }

    /// Names the first entry and the index in it, unless they are named already.
    fn name_first(&mut self, letter: &Original<'_>) {
        let named = self.fields.iter().rfind(|(name, _)| name == RETRY_OF.as_bytes());
        let is_earlier = |first: EntryId| first < letter.entry;
        if named.and_then(|(_, text)| first_of(text)).is_some_and(is_earlier) {
            return;
        }
        let place = letter.index.map(|index| format!("/{index}")).unwrap_or_default();
        self.set_field(RETRY_OF, &format!("{}{place}", letter.entry));
    }
}

/// The entry that a field named `retry_of` names.
fn first_of(text: &[u8]) -> Option<EntryId> {
    let text = std::str::from_utf8(text).ok()?;
    let (id, index) = text.split_once('/').unwrap_or((text, "0"));
    index.parse::<u64>().ok()?;
    id.parse().ok()
}

impl<'e> Body<'e> {
    /// Visits the objects that are events, with the index of each.
    fn each(&self, outer: &Members<'e>, mut visit: impl FnMut(usize, Object<'e>)) {
        if !self.is_array {
            if let Some(object) = self.object(self.raw, outer) {
                visit(0, object);
            }
            return;
        }
        for (place, element) in self.elements().into_iter().enumerate() {
            // Members around packed events do not count.
            let object = Some(element).filter(|element| element.shape == Shape::Object);
            if let Some(object) = object.and_then(|e| self.object(e.raw, &Members::default())) {
                visit(place, object);
            }
        }
    }

    /// `None` if the array is malformed.
    pub(super) fn elements(&self) -> Vec<Member<'e>> {
        let mut elements = Vec::new();
        let each = |piece: Piece<'_, 'e>| {
            if let Piece::Element(element) = piece {
                elements.push(element);
            }
        };
        if self.format.elements(self.raw, each).is_err() {
            elements.clear();
        }
        elements
    }

    pub(super) fn object(&self, raw: &'e [u8], outer: &Members<'e>) -> Option<Object<'e>> {
        let (mut own, mut data) = (Members::default(), None);
        let each = |name: &[u8], member: Member<'e>| {
            own.add(name, member);
            if name == Name::Data.name().as_bytes() {
                data = Some(member);
            }
        };
        self.format.members(raw, each).ok()?;
        let members = own.over(outer.clone());
        let is_object = |data: &Member<'_>| data.shape == Shape::Object;
        let inner = data.filter(is_object).filter(|_| is_envelope(&members));
        let Some(inner) = inner.map(|data| data.raw) else {
            return Some(Object { raw, members, inner: None });
        };
        let mut inside = Members::default();
        self.format.members(inner, |name, member| inside.add(name, member)).ok()?;
        let members = inside.over(members.without_data());
        Some(Object { raw, members, inner: Some(inner) })
    }

    /// The data with texts added to each event; `None` if nothing is added.
    fn rewritten<'t>(
        &self,
        outer: &Members<'e>,
        texts: impl Fn(usize, &Members<'_>) -> Vec<(&'t str, &'t str)>,
    ) -> Option<Vec<u8>> {
        let mut objects = Vec::new();
        self.each(outer, |place, object| {
            let texts = texts(place, &object.members);
            let object = Some(texts).filter(|texts| !texts.is_empty()).and_then(|texts| {
                let Some(inner) = object.inner else {
                    return self.format.with_texts(object.raw, &texts);
                };
                let start = inner.as_ptr().addr() - object.raw.as_ptr().addr();
                let end = start + inner.len();
                let inner = self.format.with_texts(inner, &texts)?;
                Some([&object.raw[..start], &inner, &object.raw[end..]].concat())
            });
            objects.extend(object.map(|object| (place, object)));
        });
        if !self.is_array || objects.is_empty() {
            return objects.pop().map(|(_, object)| object);
        }
        let mut elements: Vec<_> = self.elements().iter().map(|e| e.raw.to_vec()).collect();
        objects.into_iter().for_each(|(place, object)| elements[place] = object);
        Some(self.format.array_of(&elements))
    }
}

#[cfg(test)]
mod tests;
