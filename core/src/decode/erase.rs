//! Erase: which part of an entry belongs to a user, and what is left without it. Pure.
//!
//! An event belongs to the user whom it names. Data that is not an event belongs to the user if its member `user` names them.
//! If its members cannot be read, it belongs to the user if it contains the identifier as a complete string.

use std::collections::BTreeSet;

use super::retry::{Attempt, Body};
use super::{Decoded, Rules};
use crate::entry::{Entry, EntryId, Field};
use crate::event::{Event, Kind, Members, Name, REST_OF, RETRY_OF, Session, TYPES};
use crate::format::{Member, Shape};

/// A user, with the sessions and tokens that are known to be theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Theirs {
    /// The user.
    pub user: String,
    /// Their sessions: events of these that name no user are theirs as well.
    pub sids: BTreeSet<String>,
    /// Their login tokens.
    pub tokens: BTreeSet<String>,
}

/// How much of an entry is the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// Nothing.
    None,
    /// All of it, or the rest has no effect.
    All,
    /// Some of its packed events; this is `data` without them.
    Some(Vec<u8>),
}

/// The fields that an entry keeps when its array loses the user's elements.
const KEPT: [&[u8]; 5] =
    [b"datacontenttype", b"traceparent", b"tracestate", RETRY_OF.as_bytes(), REST_OF.as_bytes()];

impl Theirs {
    /// A user without known sessions and tokens.
    pub fn new(user: &str) -> Self {
        Self { user: user.to_owned(), ..Self::default() }
    }

    /// Which part of an entry is the user's. Records the tokens and sessions that their events name.
    pub fn share(&mut self, entry: &Entry, rules: &Rules, partition: u16) -> Share {
        let fields = entry.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        self.share_of(&Attempt { fields, rules, partition }, entry.id)
    }

    /// The same for a dead letter's pairs, which are those of an entry or, with an `index`, of one of its elements.
    pub fn share_of_letter(
        &mut self,
        (entry, fields): (EntryId, &[Field]),
        is_element: bool,
        rules: &Rules,
        partition: u16,
    ) -> Share {
        let mut attempt = Attempt { fields: fields.to_vec(), rules, partition };
        if is_element {
            attempt.wrap_element();
        }
        self.share_of(&attempt, entry)
    }

    fn share_of(&mut self, attempt: &Attempt<'_>, id: EntryId) -> Share {
        let entry = attempt.entry(id);
        let Decoded { events, rejected, form, .. } = attempt.decode(&entry);
        match attempt.body(&entry) {
            Some((body, _)) if body.is_array && !body.elements().is_empty() => {
                let is_event = |place: usize| {
                    let concerns = |element: Option<(usize, &[u8])>| {
                        element.is_none_or(|(rejected, _)| rejected == place)
                    };
                    !rejected.iter().any(|part| concerns(part.element))
                };
                match self.share_of_array(&entry, &body, events, is_event) {
                    // It was rejected as a whole; without a part of it, it might be an event.
                    Share::Some(_) if form.is_none() => Share::All,
                    share => share,
                }
            }
            _ if !events.is_empty() => match events.iter().any(|event| self.claim(&event.kind)) {
                true => Share::All,
                false => Share::None,
            },
            Some((body, outer)) if !body.is_array => {
                let object = body.object(body.raw, &outer);
                let is_theirs = self.owns_members(object.map(|object| object.members));
                self.whole(is_theirs, &entry)
            }
            _ => {
                let text = |name: Name| entry.get(name.name().as_bytes());
                let is_theirs = self.owns(text(Name::User), text(Name::Sid));
                self.whole(is_theirs, &entry)
            }
        }
    }

    /// An entry that is not an event: the user's, somebody else's, or to be searched.
    fn whole(&self, is_theirs: Option<bool>, entry: &Entry) -> Share {
        let is_named = || {
            entry.fields().any(|(name, value)| self.is_named_in(name) || self.is_named_in(value))
        };
        if is_theirs.unwrap_or_else(is_named) { Share::All } else { Share::None }
    }

    fn share_of_array(
        &mut self,
        entry: &Entry,
        body: &Body<'_>,
        events: Vec<Event<'_>>,
        is_event: impl Fn(usize) -> bool,
    ) -> Share {
        let (elements, mut events) = (body.elements(), events.into_iter());
        let (all, mut kept) = (elements.len(), Vec::with_capacity(elements.len()));
        for (place, element) in elements.into_iter().enumerate() {
            let event = if is_event(place) { events.next() } else { None };
            let is_theirs = match event {
                Some(event) => self.claim(&event.kind),
                None => self.owns_element(body, &element),
            };
            if !is_theirs {
                kept.push(element.raw);
            }
        }
        // Fields around packed events have no effect, so only one that names the user has to be removed.
        let around = entry.get(Name::User.name().as_bytes()) == Some(self.user.as_bytes());
        match kept.len() {
            0 => Share::All,
            count if count == all && !around => Share::None,
            _ => Share::Some(body.format.array_of(&kept)),
        }
    }

    /// Whether an event is the user's; if so, its token and session are, too.
    fn claim(&mut self, kind: &Kind<'_>) -> bool {
        let is_unclaimed = || match kind {
            Kind::Session(session) => {
                session.user == Session::UNKNOWN_USER && self.sids.contains(&*session.sid)
            }
            _ => false,
        };
        let is_theirs = **kind.user() == *self.user || is_unclaimed();
        if is_theirs {
            self.tokens.extend(kind.token().map(|token| token.to_string()));
            self.sids.extend(kind.sid().map(|sid| sid.to_string()));
        }
        is_theirs
    }

    fn owns_element(&self, body: &Body<'_>, element: &Member<'_>) -> bool {
        let object = (element.shape == Shape::Object)
            .then(|| body.object(element.raw, &Members::default()))
            .flatten();
        let is_theirs = self.owns_members(object.map(|object| object.members));
        is_theirs.unwrap_or_else(|| self.is_named_in(element.raw))
    }

    fn owns_members(&self, members: Option<Members<'_>>) -> Option<bool> {
        let members = members?;
        let text = |name: Name| members.get(name).and_then(|member| member.value().ok());
        self.owns(text(Name::User).as_deref(), text(Name::Sid).as_deref())
    }

    /// Whether data that is not an event is the user's, if its members say so.
    fn owns(&self, user: Option<&[u8]>, sid: Option<&[u8]>) -> Option<bool> {
        let is_known = |sid: &[u8]| std::str::from_utf8(sid).is_ok_and(|s| self.sids.contains(s));
        match (user.filter(|user| !user.is_empty()), sid) {
            (Some(user), _) => Some(user == self.user.as_bytes()),
            (None, Some(sid)) if is_known(sid) => Some(true),
            _ => None,
        }
    }

    /// Whether a text contains the identifier as a complete string: as the whole text, between quotes or separators, or as
    /// a MessagePack string. `false` for an identifier that is also a name or a type of events, such as `login`: it would
    /// be found everywhere.
    pub fn is_named_in(&self, text: &[u8]) -> bool {
        let user = self.user.as_bytes();
        if Name::from_name(user).is_some() || TYPES.contains(&&*self.user) {
            return false;
        }
        if text == user {
            return true;
        }
        let mut json = String::new();
        crate::format::write_json_text(&mut json, &self.user);
        let escaped = json.as_bytes();
        let separates = |byte: Option<&u8>| byte.is_none_or(|byte| SEPARATORS.contains(byte));
        let is_packed = |before: &[u8]| match before {
            [.., 0xd9, length] => usize::from(*length) == user.len(),
            [.., 0xda, high, low] => usize::from(u16::from_be_bytes([*high, *low])) == user.len(),
            _ => false,
        };
        let is_short = |before: &[u8]| {
            user.len() < 32 && before.last().is_some_and(|byte| *byte == 0xa0 | user.len() as u8)
        };
        let stands = |(at, found): (usize, &[u8])| {
            let (before, after) = (&text[..at], text.get(at + user.len()));
            found == user
                && (separates(before.last()) && separates(after)
                    || is_short(before)
                    || is_packed(before))
        };
        text.windows(user.len().max(1)).enumerate().any(stands)
            || text.windows(escaped.len()).any(|found| found == escaped)
    }
}

/// Separators around a complete string in text that is neither JSON nor MessagePack.
const SEPARATORS: &[u8] = b"\"' \t\r\n=&,;<>";

/// The entries that replace an entry, with `data` in place of its own. Their events keep their meaning under the new
/// ids.
pub fn rest(entry: &Entry, data: Vec<u8>, rules: &Rules, partition: u16) -> Vec<Vec<Field>> {
    let is_kept = |field: &(&[u8], &[u8])| KEPT.contains(&field.0);
    let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
    let mut fields: Vec<Field> = entry.fields().filter(is_kept).map(owned).collect();
    fields.push((Name::Data.name().as_bytes().to_vec(), data));
    let mut attempt = Attempt { fields, rules, partition };
    let was = attempt.entry(entry.id);
    match attempt.keep_times(entry.id) {
        Ok(()) => vec![attempt.fields],
        Err(_) => apart(&attempt, &was),
    }
}

/// Each event as an entry of its own in the plainest form; then the rest, together.
fn apart(attempt: &Attempt<'_>, was: &Entry) -> Vec<Vec<Field>> {
    let decoded = attempt.decode(was);
    let is_rest = |field: &&Field| field.0 == REST_OF.as_bytes();
    let rest_of: Vec<Field> = attempt.fields.iter().filter(is_rest).cloned().collect();
    let plain = |event: &Event<'_>| -> Vec<Field> {
        let fields = event.fields().into_iter();
        let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value));
        fields.chain(rest_of.iter().cloned()).collect()
    };
    let mut entries: Vec<_> = decoded.events.iter().map(plain).collect();
    let bad: Vec<_> = decoded.rejected.iter().filter_map(|part| part.element).collect();
    if let (Some((body, _)), false) = (attempt.body(was), bad.is_empty()) {
        let raw: Vec<_> = bad.into_iter().map(|(_, raw)| raw).collect();
        let mut fields = attempt.fields.clone();
        let data = Name::Data.name().as_bytes();
        if let Some(field) = fields.iter_mut().rfind(|(name, _)| name == data) {
            field.1 = body.format.array_of(&raw);
        }
        entries.push(fields);
    }
    entries
}

#[cfg(test)]
mod tests;
