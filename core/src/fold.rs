//! Fold: a batch of entries → one plan, coalesced by key. Pure: no I/O, no clock.

use std::collections::{BTreeSet, HashSet};

use crate::blocked::Blocked;
use crate::decode::{Decoded, Form, Rejected, Rules, decode, decode_with_unknown_names};
use crate::entry::Entry;
use crate::event::{Event, Reason, Rejection, TYPES};
use crate::op::{Letter, Plan};
use crate::projection::{Projection, Projections};

/// What folding depends on besides the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldSettings {
    /// How entries are decoded.
    pub rules: Rules,
    /// Which state is kept.
    pub projections: Projections,
    /// The partition whose stream this is.
    pub partition: u16,
}

/// Keys that hold another type than Rollcall's, and the entries that would write them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Avoided {
    /// Users whose `user-activity/` key has another type.
    pub activity: HashSet<String>,
    /// Tokens whose `viewed:` key has another type.
    pub viewed: HashSet<String>,
    /// Sessions whose `session:` key has another type.
    pub session_data: HashSet<String>,
    /// Documents of which one key has another type.
    pub documents: HashSet<String>,
}

/// The contents of a batch's entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries with events, by form, in the order of [`Form::ALL`].
    pub forms: [u64; Form::ALL.len()],
    /// Events by type, in the order of [`TYPES`].
    pub types: [u64; TYPES.len()],
    /// Events that claimed a later time than allowed.
    pub from_future: u64,
    /// Members that nothing reads, by event type.
    pub unknown_members: [u64; TYPES.len()],
    /// Events that were refused because their user is blocked.
    pub blocked: u64,
}

/// The unknown members of the entries' events: event type and name, at most `most`. This decodes the entries once
/// more, so it is for people who ask.
pub fn unknown_members(
    entries: &[Entry],
    settings: &FoldSettings,
    most: usize,
) -> BTreeSet<(&'static str, String)> {
    let mut found = BTreeSet::new();
    for entry in entries {
        let decoded = decode_with_unknown_names(entry, settings.partition, &settings.rules);
        for event in decoded.events {
            let names = event.unknown.names.into_iter().flatten();
            found.extend(names.map(|name| (TYPES[event.kind.place()], name)));
            if found.len() >= most {
                return found.into_iter().take(most).collect();
            }
        }
    }
    found
}

/// Builds the plan of a batch.
#[derive(Debug)]
pub struct Planner<'s, 'a> {
    settings: &'s FoldSettings,
    plan: Plan<'a>,
    counts: Counts,
    moved: usize,
    blocked: Option<&'s Blocked>,
}

impl<'s, 'a> Planner<'s, 'a> {
    /// An empty plan.
    pub fn new(settings: &'s FoldSettings) -> Self {
        Self::with_capacity(settings, 0)
    }

    /// An empty plan with room for this many entries.
    pub fn with_capacity(settings: &'s FoldSettings, entries: usize) -> Self {
        let (plan, counts) = (Plan::with_capacity(entries), Counts::default());
        Self { settings, plan, counts, moved: 0, blocked: None }
    }

    /// The same, refusing events of these users.
    #[must_use]
    pub fn refusing(self, blocked: &'s Blocked) -> Self {
        Self { blocked: Some(blocked).filter(|blocked| !blocked.is_empty()), ..self }
    }

    /// Adds an entry that comes after those already added. `avoided` names keys that it must not write.
    pub fn add(&mut self, entry: &'a Entry, avoided: &Avoided) {
        let Decoded { form, mut events, rejected, is_rest, moved } =
            decode(entry, self.settings.partition, &self.settings.rules);
        self.moved += moved;
        if let Some(blocked) = self.blocked {
            let before = events.len();
            events.retain(|event| !blocked.refuses(event.kind.user(), entry.id.ms));
            self.counts.blocked += (before - events.len()) as u64;
        }
        if let Some(form) = form {
            self.counts.forms[form as usize] += 1;
        }
        let taken = avoided.hit_by(&events, self.settings.projections);
        // The views of a dead letter are not counted, and those of the rest of an entry were counted before.
        let projections = match taken.is_some() || is_rest {
            true => self.settings.projections.without(Projection::Ranking),
            false => self.settings.projections,
        };
        for event in &events {
            self.counts.types[event.kind.place()] += 1;
            self.counts.from_future += u64::from(event.from_future);
            self.counts.unknown_members[event.kind.place()] += u64::from(event.unknown.count);
            projections.fold(event, entry.id.ms, &mut self.plan);
        }
        match taken {
            Some(key) => {
                self.reject(entry, Rejection::new(Reason::WrongType, wrong_type_detail(&key)));
            }
            None => {
                self.plan.letters.extend(rejected.into_iter().map(|part| letter(entry, part)));
                self.pass(entry);
            }
        }
    }

    /// Writes off a whole entry without decoding it.
    pub fn reject(&mut self, entry: &'a Entry, rejection: Rejection) {
        self.plan.letters.push(letter(entry, Rejected { rejection, element: None }));
        self.pass(entry);
    }

    fn pass(&mut self, entry: &Entry) {
        self.plan.entries += 1;
        self.plan.last = Some(entry.id);
    }

    /// How many events were passed over because they now belong to other partitions.
    pub fn moved(&self) -> usize {
        self.moved
    }

    /// The contents of the entries added so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The plan, without anything that would write an avoided key.
    pub fn finish(mut self, avoided: &Avoided) -> Plan<'a> {
        let plan = &mut self.plan;
        plan.activity.retain(|user, _| !avoided.activity.contains(user.as_ref()));
        plan.connections
            .retain(|connection, _| !avoided.documents.contains(connection.doc.as_ref()));
        for (token, merge) in &mut plan.tokens {
            if avoided.viewed.contains(token.as_ref()) {
                merge.items.clear();
            }
        }
        for (sid, merge) in &mut plan.sessions {
            if avoided.session_data.contains(sid.as_ref()) {
                merge.data = None;
            }
        }
        self.plan
    }
}

impl Avoided {
    /// Adds more keys to avoid.
    pub fn add(&mut self, more: Self) {
        self.activity.extend(more.activity);
        self.viewed.extend(more.viewed);
        self.session_data.extend(more.session_data);
        self.documents.extend(more.documents);
    }

    /// Whether there is nothing to avoid.
    pub fn is_empty(&self) -> bool {
        let Self { activity, viewed, session_data, documents } = self;
        [activity, viewed, session_data, documents].iter().all(|keys| keys.is_empty())
    }

    /// The first avoided key that one of the events would write.
    fn hit_by(&self, events: &[Event<'_>], projections: Projections) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let mut plan = Plan::default();
        for event in events {
            projections.fold(event, 0, &mut plan);
        }
        let activity = plan.activity.keys().find(|user| self.activity.contains(user.as_ref()));
        let viewed = plan
            .tokens
            .iter()
            .find(|(token, m)| !m.items.is_empty() && self.viewed.contains(token.as_ref()));
        let data = plan
            .sessions
            .iter()
            .find(|(sid, m)| m.data.is_some() && self.session_data.contains(sid.as_ref()));
        let doc = plan.connections.keys().find(|c| self.documents.contains(c.doc.as_ref()));
        None.or(activity.map(|user| format!("user-activity/{user}")))
            .or(viewed.map(|(token, _)| format!("viewed:{token}")))
            .or(data.map(|(sid, _)| format!("session:{sid}")))
            .or(doc.map(|c| format!("sessions:doc:{}", c.doc)))
    }
}

fn wrong_type_detail(key: &str) -> String {
    format!(
        "{} holds another type than Rollcall keeps there; rename or delete it, then add the event again",
        key.escape_debug()
    )
}

/// The dead letter for a part of an entry.
pub(crate) fn letter<'a>(
    entry: &'a Entry,
    Rejected { rejection, element }: Rejected<'a>,
) -> Letter<'a> {
    let mut fields: Vec<_> = entry.fields().collect();
    if let Some((_, bytes)) = element
        && let Some(data) = fields.iter_mut().rfind(|(name, _)| *name == b"data")
    {
        data.1 = bytes;
    }
    Letter { id: entry.id, rejection, index: element.map(|(index, _)| index), fields }
}
