//! The verdict on the live state and the shadow for one name, at one cursor. Pure.
//!
//! The live state may know more than the stream still contains: members that an older entry may have caused are reported
//! separately. What expiry, caps and sweeps remove is not a difference, whichever side removed it first.

mod documents;
mod sessions;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use super::finding::{Evidence, Fault, Finding, Place, Stored, Structure};
use super::table::{Cell, Family};
use crate::config::Deployment;
use crate::entry::EntryId;
use crate::key::Keys;
use crate::projection::Projection;
use crate::redis::scripts::minute_expiry_ms;
use crate::seal::Ring;

/// How much later than expected a key may expire, in milliseconds: `MIGRATE`, which moves slots, passes on the key's
/// remaining time and takes some itself.
const LATE_MS: f64 = 1_000.0;

/// The input of a verdict besides the two rows.
pub(super) struct Court<'c> {
    pub(super) deployment: &'c Deployment,
    pub(super) keys: &'c Keys,
    /// How long endings are remembered, in milliseconds.
    pub(super) horizon_ms: u64,
    /// From this entry on, all entries that ever existed are known.
    pub(super) since: EntryId,
    /// The time of the later of the two looks, in milliseconds.
    pub(super) now_ms: u64,
    /// If tokens were evicted: the last use below which one may be missing for that reason alone.
    pub(super) evicted_below_ms: u64,
    /// Whether items were dropped from the ranking.
    pub(super) drops_items: bool,
    pub(super) ring: Option<Arc<Ring>>,
}

/// The results.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// How much was compared.
    pub(super) checked: u64,
    /// How many members of the live state cannot be judged from the entries in the stream.
    pub(super) older: u64,
    pub(super) findings: Vec<Finding>,
    /// Whether there is session data that cannot be decrypted.
    pub(super) has_closed: bool,
}

impl Verdicts {
    pub(super) fn add(
        &mut self,
        place: Place,
        fault: Fault,
        live: Option<Stored>,
        said: Option<Stored>,
    ) {
        let evidence = Evidence::default();
        self.findings.push(Finding { place, fault, live, said, evidence });
    }
}

/// A number of a version, at this offset of a text.
fn version(text: &[u8], at: usize) -> u64 {
    let digits = text.get(at..at + 13).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

impl Court<'_> {
    /// Compares the rows of a name of a family.
    pub(super) fn judge(
        &self,
        family: Family,
        name: &str,
        (live, said): (&[Cell], &[Cell]),
        out: &mut Verdicts,
    ) {
        match family {
            Family::MinuteKey => self.minute_key(name, live, said, out),
            Family::Minute(minute) => self.minute(minute, name, live, said, out),
            Family::Activity => self.activity(name, live, said, out),
            Family::Presence => self.presence(name, live, said, out),
            Family::Departure => self.departure(name, live, said, out),
            Family::Token => self.token(name, live, said, out),
            Family::Item => self.item(name, live, said, out),
            Family::Session => self.session(name, live, said, out),
            Family::Connection => self.connection(name, live, said, out),
            Family::Pair => self.pair(name, live, said, out),
            Family::Document => self.document(name, live, said, out),
        }
    }

    fn keeps(&self, projection: Projection) -> bool {
        self.deployment.projections.contains(projection)
    }

    fn is_over(&self, at_ms: u64) -> bool {
        at_ms <= self.now_ms
    }

    /// Whether every entry that can give this time is in the stream.
    fn knows_all_of(&self, t: u64) -> bool {
        t > self.since.ms.saturating_add(self.deployment.max_skew_ms)
    }

    /// Whether every entry that can count in a structure with this lifetime is in the stream.
    fn knows_all_within(&self, ttl_ms: u64) -> bool {
        self.knows_all_of(self.now_ms.saturating_sub(ttl_ms))
    }

    /// Compares a register, in which the latest version wins.
    fn register(
        &self,
        place: Place,
        live: Option<Stored>,
        said: Option<Stored>,
        out: &mut Verdicts,
    ) {
        if live.is_none() && said.is_none() {
            return;
        }
        out.checked += 1;
        let is_behind = match (&live, &said) {
            (Some(live), Some(said)) if live.order(said).is_eq() => return,
            (Some(live), Some(said)) => live.order(said).is_lt(),
            (live, _) => live.is_none(),
        };
        match &live {
            _ if is_behind => out.add(place, Fault::Behind, live, said),
            Some(of) if self.knows_all_of(of.t) => out.add(place, Fault::Ahead, live, said),
            _ => out.older += 1,
        }
    }

    /// Reports a value that exists although it has ended.
    fn ended(&self, place: Place, live: Option<Stored>, out: &mut Verdicts) {
        if live.is_some() {
            out.checked += 1;
            out.add(place, Fault::Ended, live, None);
        }
    }

    /// Compares endings that are kept for the horizon. Returns whether either side says that it ended, and that of
    /// the live state first.
    fn final_ending(
        &self,
        place: Place,
        [live, said]: [&Cell; 2],
        out: &mut Verdicts,
    ) -> Option<Side> {
        let stored = |cell: &Cell| cell.whole().map(|ms| Stored::new(ms, "", ms.to_string()));
        let (live, said) = (stored(live), stored(said));
        let is_forgotten = |said: &Stored| said.t.saturating_add(self.horizon_ms) <= self.now_ms;
        if live.is_none() && said.as_ref().is_some_and(is_forgotten) {
            return Some(Side::Forgotten);
        }
        let side = match (&live, &said) {
            (Some(_), _) => Some(Side::Live),
            (None, Some(_)) => Some(Side::Said),
            (None, None) => None,
        };
        // It is scored by its entry's id, whatever its time.
        if let (Some(of), None) = (&live, &said)
            && of.t <= self.since.ms
        {
            (out.checked, out.older) = (out.checked + 1, out.older + 1);
            return side;
        }
        self.register(place, live, said, out);
        side
    }

    fn minute_key(&self, name: &str, live: &[Cell], said: &[Cell], out: &mut Verdicts) {
        let key = format!("{}{name}", self.keys.online());
        self.expiry(key, name, name, [&live[0], &said[0]], out);
    }

    /// Compares the expiries of two keys, if both exist; a moment late is not a difference.
    fn expiry(
        &self,
        key: String,
        name: &str,
        sub: &str,
        [live, said]: [&Cell; 2],
        out: &mut Verdicts,
    ) {
        // −2: there is no key. −1: it has no expiry.
        let (Some(live), Some(said)) = (live.number(), said.number()) else { return };
        if live == -2.0 || said == -2.0 {
            return;
        }
        out.checked += 1;
        if !(said..=said + LATE_MS).contains(&live) {
            let stored = |ms: f64| Some(Stored::new(0, "", ms.to_string()));
            let place = Place {
                structure: Structure::Expiry,
                key,
                member: None,
                name: name.to_owned(),
                sub: sub.to_owned(),
            };
            out.add(place, Fault::Torn, stored(live), stored(said));
        }
    }

    fn minute(&self, minute: u64, user: &str, live: &[Cell], said: &[Cell], out: &mut Verdicts) {
        if self.is_over(minute_expiry_ms(self.deployment, minute)) {
            return;
        }
        let stored =
            |cell: &Cell| (cell.whole() == Some(1)).then(|| Stored::new(minute * 60_000, "", "1"));
        let place = Place {
            structure: Structure::Minute,
            key: self.keys.online_minute(minute),
            member: Some(user.to_owned()),
            name: user.to_owned(),
            sub: minute.to_string(),
        };
        self.register(place, stored(&live[0]), stored(&said[0]), out);
    }

    fn activity(&self, user: &str, live: &[Cell], said: &[Cell], out: &mut Verdicts) {
        let ttl_s = self.deployment.online_window_ms / 1000 + 10;
        let stored = |cell: &Cell| match cell {
            Cell::Wrong => Some(Stored::new(0, "", ANOTHER_TYPE)),
            cell => {
                let text = cell.bytes()?;
                let seconds = cell.whole().filter(|_| text.len() == 10).unwrap_or(0);
                let is_kept = seconds == 0 || !self.is_over((seconds + ttl_s) * 1000);
                is_kept.then(|| Stored::new(seconds * 1000, "", text))
            }
        };
        let key = format!("{}{user}", self.keys.activity());
        let (of_live, of_said) = (stored(&live[0]), stored(&said[0]));
        if of_live.is_some() && of_live == of_said {
            self.expiry(key.clone(), user, "", [&live[1], &said[1]], out);
        }
        let place = Place {
            structure: Structure::Activity,
            key,
            member: None,
            name: user.to_owned(),
            sub: String::new(),
        };
        self.register(place, of_live, of_said, out);
    }

    fn presence(&self, field: &str, live: &[Cell], said: &[Cell], out: &mut Verdicts) {
        const LAST_SEEN: usize = 12;
        let ended = |row: &[Cell]| row[1].whole().max(row[2].whole()).unwrap_or(0);
        let (live_ended, said_ended) = (ended(live), ended(said));
        let stored = |row: &[Cell], ended: u64| {
            let value = row[0].bytes()?;
            let t = version(value, LAST_SEEN);
            // An entry that a logout ended may be waiting for the janitor.
            let is_gone = t <= ended || self.is_over(t + self.deployment.presence_ttl_ms);
            (!is_gone).then(|| Stored::new(t, value, value))
        };
        let of_live = stored(live, live_ended);
        let of_said = stored(said, live_ended.max(said_ended));
        let place = Place {
            structure: Structure::Presence,
            key: self.keys.presence(),
            member: Some(field.to_owned()),
            name: field.to_owned(),
            sub: String::new(),
        };
        match &of_live {
            Some(of) if of.t <= said_ended => self.ended(place, of_live, out),
            _ => self.register(place, of_live, of_said, out),
        }
    }

    fn departure(&self, name: &str, live: &[Cell], said: &[Cell], out: &mut Verdicts) {
        let stored = |cell: &Cell| {
            let t = cell.whole()?;
            let is_gone = self.is_over(t + self.deployment.presence_ttl_ms);
            (!is_gone).then(|| Stored::new(t, "", t.to_string()))
        };
        let place = Place {
            structure: Structure::PresenceEnded,
            key: self.keys.presence_ended(),
            member: Some(name.to_owned()),
            name: name.to_owned(),
            sub: String::new(),
        };
        self.register(place, stored(&live[0]), stored(&said[0]), out);
    }
}

/// Stands for a value of another type.
const ANOTHER_TYPE: &str = "(another type)";

/// Which side says that something has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The live state.
    Live,
    /// The entries alone.
    Said,
    /// The entries, but so long ago that the live state has forgotten it.
    Forgotten,
}
