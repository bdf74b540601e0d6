//! Members that nothing reads: usually a misspelt name in an event that is valid without it.

use super::Name;
use super::rejection::beginning;
use crate::format::Member;

/// The field of an entry that retries a dead letter. It names the first entry, and the index in it.
pub const RETRY_OF: &str = "retry_of";

/// The field of an entry that is the rest of an erased one which had already had its effect. It names that entry. The
/// views were counted and the parts that are not events became dead letters, so neither is done again.
pub const REST_OF: &str = "rest_of";

/// Members that are known although none has an effect: CloudEvents attributes, what tracing adds, and the fields that
/// name the retried entry or the entry that this is the rest of.
const WITHOUT_EFFECT: [&[u8]; 9] = [
    b"id",
    b"source",
    SPECVERSION,
    b"subject",
    b"traceparent",
    b"tracestate",
    b"baggage",
    RETRY_OF.as_bytes(),
    REST_OF.as_bytes(),
];

/// The member that makes its object a CloudEvent; its value has no effect.
const SPECVERSION: &[u8] = b"specversion";

/// How many names of one event are kept.
const MOST_NAMES: usize = 16;

/// The members of an event that no event type has. Members beside `specversion` are extension attributes of a
/// CloudEvent, which may have any name; they do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// How many.
    pub count: u32,
    /// Some of their names, printable, if they were asked for.
    pub names: Option<Vec<String>>,
    pub(super) is_cloud_event: bool,
    /// Whether it is the rest of an entry that had already had its effect.
    pub is_rest: bool,
}

impl Unknown {
    /// None yet.
    pub(crate) fn new(with_names: bool) -> Self {
        Self { names: with_names.then(Vec::new), ..Self::default() }
    }

    /// Records a member whose name is not in [`Name`].
    pub(super) fn note(&mut self, name: &[u8], member: Member<'_>) {
        debug_assert!(Name::from_name(name).is_none());
        if WITHOUT_EFFECT.contains(&name) {
            self.is_cloud_event |= name == SPECVERSION;
            self.is_rest |= name == REST_OF.as_bytes();
        } else if !member.is_absent() {
            self.count = self.count.saturating_add(1);
            if let Some(names) = self.names.as_mut().filter(|names| names.len() < MOST_NAMES) {
                names.push(beginning(name));
            }
        }
    }

    /// Called once all members of a level were recorded.
    pub(super) fn close(&mut self) {
        if self.is_cloud_event {
            self.count = 0;
            self.names = self.names.take().map(|_| Vec::new());
        }
    }

    /// Adds those of the outer level.
    pub(super) fn join(&mut self, outer: Self) {
        self.count = self.count.saturating_add(outer.count);
        self.is_cloud_event |= outer.is_cloud_event;
        self.is_rest |= outer.is_rest;
        if let (Some(names), Some(outer)) = (&mut self.names, outer.names) {
            names.extend(outer);
        }
    }
}
