//! Differences, and the entries that say something about them.

use std::cmp::Ordering;

use crate::entry::EntryId;

/// Declares the structures: variant, name.
macro_rules! structures {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A structure of the state.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(super) enum Structure { $($(#[$doc])* $variant,)* }

        impl Structure {
            /// Its name in reports.
            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

structures! {
    Minute = "online minute",
    Activity = "activity",
    Expiry = "expiry",
    Presence = "presence",
    PresenceEnded = "presence ending",
    Login = "login",
    Recent = "recent token",
    Viewed = "viewed item",
    TokenEnded = "token ending",
    Ranking = "ranking",
    Session = "session",
    SessionData = "session data",
    SessionTtl = "session lifetime",
    SessionEnded = "session ending",
    Joined = "joined connection",
    Left = "left connection",
    Connections = "connections",
    DocumentUser = "document user",
    DocumentCount = "document count",
    Level = "threshold level",
}

/// The place of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) structure: Structure,
    pub(super) key: String,
    pub(super) member: Option<String>,
    /// The name that entries use: a user, a token, a document …
    pub(super) name: String,
    /// One of several places under that name.
    pub(super) sub: String,
}

/// A value with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) t: u64,
    /// Decides between two values with the same time.
    pub(super) value: Vec<u8>,
    /// For people.
    pub(super) shown: Vec<u8>,
}

impl Stored {
    pub(super) fn new(t: u64, value: impl Into<Vec<u8>>, shown: impl Into<Vec<u8>>) -> Self {
        Self { t, value: value.into(), shown: shown.into() }
    }

    pub(super) fn order(&self, other: &Self) -> Ordering {
        (self.t, &self.value).cmp(&(other.t, &other.value))
    }
}

/// The kind of difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The live state lacks what an entry says, or has an older value.
    Behind,
    /// The live state has what no entry says.
    Ahead,
    /// The live state has something that has ended.
    Ended,
    /// The live state contradicts itself.
    Torn,
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) place: Place,
    pub(super) fault: Fault,
    pub(super) live: Option<Stored>,
    pub(super) said: Option<Stored>,
    pub(super) evidence: Evidence,
}

/// What the entries say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// The claim that wins, and its entry.
    pub(super) best: Option<(Claim, EntryId)>,
    /// The lifetime of a session that was set last, and its entry.
    pub(super) life: Option<((u64, u64), EntryId)>,
}

/// What an entry says about one place: a value, or an ending.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) t: u64,
    pub(super) ends: bool,
    pub(super) value: Vec<u8>,
}

impl Evidence {
    pub(super) fn add(&mut self, claim: Claim, id: EntryId) {
        if self.best.as_ref().is_none_or(|(best, at)| (best, at) < (&claim, &id)) {
            self.best = Some((claim, id));
        }
    }

    pub(super) fn add_life(&mut self, life: (u64, u64), id: EntryId) {
        if self.life.is_none_or(|(known, _)| known <= life) {
            self.life = Some((life, id));
        }
    }
}

impl Finding {
    /// Whether it still is a difference after all entries were read. What the live state has may come from an entry
    /// that arrived too late for the shadow, and what it lacks may come from one that is gone by now.
    pub(super) fn stands(&self, now_ms: u64) -> bool {
        let Some((best, at)) = &self.evidence.best else {
            return matches!(self.fault, Fault::Ahead | Fault::Ended | Fault::Torn);
        };
        let is_live = match &self.live {
            Some(live) => !best.ends && (best.t, &best.value) == (live.t, &live.value),
            None => best.ends,
        };
        match self.fault {
            Fault::Torn => true,
            Fault::Ended => best.ends || !is_live,
            Fault::Ahead => !is_live,
            // If a longer lifetime was set after it, or it is over by now, the schedule decides.
            Fault::Behind => {
                let is_over = |((_, seconds), id): ((u64, u64), EntryId)| {
                    best.t.saturating_add(seconds * 1000) <= now_ms || id > *at
                };
                !is_live && !self.evidence.life.is_some_and(is_over)
            }
        }
    }

    /// The entry that should have won.
    pub(super) fn entry(&self) -> Option<EntryId> {
        self.evidence.best.as_ref().map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    fn finding(fault: Fault, live: Option<u64>, claims: &[(u64, bool, u64)]) -> Finding {
        let place = Place {
            structure: Structure::Session,
            key: "k".to_owned(),
            member: None,
            name: "s".to_owned(),
            sub: String::new(),
        };
        let mut evidence = Evidence::default();
        for (t, ends, entry) in claims {
            evidence.add(Claim { t: *t, ends: *ends, value: Vec::new() }, id(*entry));
        }
        let stored = |t| Stored::new(t, "", "");
        Finding { place, fault, live: live.map(stored), said: None, evidence }
    }

    #[test]
    fn a_difference_stands_only_if_an_entry_that_is_held_says_otherwise() {
        let newer = [(5, false, 50), (7, false, 70)];
        assert!(finding(Fault::Behind, Some(5), &newer).stands(NOW));
        assert_eq!(finding(Fault::Behind, Some(5), &newer).entry(), Some(id(70)));
        assert!(!finding(Fault::Behind, Some(7), &newer).stands(NOW), "it came meanwhile");
        assert!(!finding(Fault::Behind, None, &[]).stands(NOW), "the entry is gone");
        assert!(finding(Fault::Ahead, Some(9), &newer).stands(NOW));
        assert!(finding(Fault::Ahead, Some(9), &[]).stands(NOW), "no entry says it");
        assert!(!finding(Fault::Ahead, Some(7), &newer).stands(NOW), "the shadow was late for it");
        let ended = [(5, false, 50), (u64::MAX, true, 60)];
        assert!(finding(Fault::Ended, Some(5), &ended).stands(NOW));
        assert!(!finding(Fault::Behind, None, &ended).stands(NOW));
    }

    #[test]
    fn a_session_whose_life_was_named_later_is_as_the_schedule_had_it() {
        let life = |seconds, entry| {
            let mut behind = finding(Fault::Behind, None, &[(NOW - 10_000, false, 50)]);
            behind.evidence.add_life((NOW - 20_000, seconds), id(entry));
            behind
        };
        assert!(life(60, 40).stands(NOW));
        assert!(!life(60, 60).stands(NOW), "it may have expired before");
        assert!(!life(5, 40).stands(NOW), "it is over");
    }
}
