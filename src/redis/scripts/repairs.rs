//! Repairs: what others, or a clock that went back, did to Rollcall's keys, and a script repaired.
//!
//! Every script repairs what it finds and counts that on the server. The janitor whose turn it is reads the counts
//! and reports them, once for the whole deployment.

use redis::Value;

use crate::redis::reply;

/// What can be repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// An expiry that others set on a key that has none was removed.
    Expiry,
    /// Presence entries that others removed were reported as gone.
    Present,
    /// A user was restored in a document's set.
    User,
    /// A document's count was set to the number of its users.
    Count,
    /// Half of the joined connections was removed, and the users left their documents.
    Joined,
    /// A token that somebody holds was restored among the recent ones.
    Token,
    /// The sequence number of changes was restored.
    Sequence,
    /// The server's clock went back.
    Clock,
    /// A janitor's turn would have lasted longer than its length, and was ended.
    Turn,
}

impl Repair {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Expiry,
        Self::Present,
        Self::User,
        Self::Count,
        Self::Joined,
        Self::Token,
        Self::Sequence,
        Self::Clock,
        Self::Turn,
    ];

    /// Its name in the scripts, and the value of the label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Expiry => "expiry",
            Self::Present => "present",
            Self::User => "user",
            Self::Count => "count",
            Self::Joined => "joined",
            Self::Token => "token",
            Self::Sequence => "sequence",
            Self::Clock => "clock",
            Self::Turn => "turn",
        }
    }

    /// What happened, for people.
    pub fn story(self) -> &'static str {
        match self {
            Self::Expiry => "another program set an expiry on keys that have none; it was removed",
            Self::Present => {
                "another program removed presence entries; they are reported as offline until their next event"
            }
            Self::User => "another program removed users from documents' sets; they were restored",
            Self::Count => "another program changed documents' counts; they were corrected",
            Self::Joined => {
                "another program removed half of the joined connections; users left their documents until their next \
                 event"
            }
            Self::Token => {
                "another program removed recent tokens; those in use were restored, as the oldest"
            }
            Self::Sequence => {
                "another program removed the changes' sequence number; it was restored"
            }
            Self::Clock => "the server's clock went back",
            Self::Turn => {
                "a janitor's turn would have lasted longer than its length, perhaps because the clock went back; it \
                 was ended"
            }
        }
    }

    fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|repair| repair.label() == label)
    }
}

/// Repairs since they were last reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// How often each was made.
    pub counts: Vec<(Repair, u64)>,
    /// The latest repair, reported or not.
    pub last: Option<Last>,
}

/// The latest repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// When, epoch milliseconds by the server's clock.
    pub at_ms: u64,
    /// What was repaired.
    pub repair: Repair,
    /// The key.
    pub key: String,
}

impl Last {
    /// Reads `ms what key`, the value of the field `repair` in the janitor's hash.
    pub fn read(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let (at_ms, label, key) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        Some(Self { at_ms, repair: Repair::of_label(label)?, key: key.to_owned() })
    }
}

/// Reads `[[what, count, …], last]`; `None` for anything else.
pub(super) fn read(value: &Value) -> Option<Repairs> {
    let [told, last] = reply::elements(value)? else { return None };
    let mut counts = Vec::new();
    for [label, count] in reply::pairs_of(told)? {
        counts.push((Repair::of_label(&reply::text_of(label)?)?, reply::number(count)?));
    }
    Some(Repairs { counts, last: Last::read(&reply::text_of(last)?) })
}
