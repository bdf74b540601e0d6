//! Sessions, their lifetimes and their data.

use super::super::finding::{Fault, Place, Stored, Structure};
use super::super::table::Cell;
use super::{ANOTHER_TYPE, Court, Side, Verdicts, version};
use crate::projection::Projection;
use crate::seal::{Opened, is_token};

/// A session's own lifetime: when it was set, seconds, the last activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    named: u64,
    seconds: u64,
    seen: u64,
}

impl Life {
    fn read(cell: &Cell) -> Option<Self> {
        let text = std::str::from_utf8(cell.bytes()?).ok()?;
        let mut numbers = text.split(':').map(|number| number.parse().ok());
        let (named, seconds, seen) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Self { named, seconds, seen })
    }
}

impl Court<'_> {
    pub(super) fn session(&self, sid: &str, live: &[Cell], said: &[Cell], out: &mut Verdicts) {
        let usual_ms = self.deployment.session_ttl_ms;
        let place = |structure, key: String, member: bool| Place {
            structure,
            key,
            member: member.then(|| sid.to_owned()),
            name: sid.to_owned(),
            sub: String::new(),
        };
        let tombstone = place(Structure::SessionEnded, self.keys.sessions_ended(), true);
        let side = self.final_ending(tombstone, [&live[1], &said[1]], out);
        if !self.keeps(Projection::Sessions) || side == Some(Side::Forgotten) {
            return;
        }
        let life = |row: &[Cell]| {
            let is_forgotten =
                |life: &Life| self.is_over(life.seen + usual_ms.max(life.seconds * 1000));
            Life::read(&row[2]).filter(|life| !is_forgotten(life))
        };
        let (live_life, said_life) = (life(live), life(said));
        let life_ms = |life: Option<Life>| life.map_or(usual_ms, |life| life.seconds * 1000);
        let stored = |row: &[Cell], life: Option<Life>| {
            let value = row[0].bytes()?;
            let t = version(value, LAST_ACTIVITY);
            (!self.is_over(t + life_ms(life))).then(|| Stored::new(t, value, value))
        };
        let (of_live, of_said) = (stored(live, live_life), stored(said, said_life));
        let entry = place(Structure::Session, self.keys.sessions(), true);
        let lives = place(Structure::SessionTtl, self.keys.session_ttls(), true);
        if side.is_some() {
            let known = live_life.map(|life| Stored::new(life.named, "", life.seconds.to_string()));
            // Without a version the key is not Rollcall's.
            let version = live[3].whole().map(|t| Stored::new(t, "", t.to_string()));
            let key = format!("{}{sid}", self.keys.session_data());
            self.ended(entry, of_live, out);
            self.ended(lives, known, out);
            return self.ended(place(Structure::SessionData, key, false), version, out);
        }
        // A lifetime that only an older entry set may end it sooner than the shadow knows.
        let is_over_here = |of: &Stored| self.is_over(of.t + life_ms(live_life));
        if of_live.is_none() && of_said.as_ref().is_some_and(is_over_here) {
            return;
        }
        self.lifetime(lives, live_life, said_life, out);
        let is_sure = of_live == of_said && live_life.is_none() && said_life.is_none();
        let has_live = of_live.is_some();
        self.register(entry, of_live, of_said, out);
        if has_live {
            let key = format!("{}{sid}", self.keys.session_data());
            let data = place(Structure::SessionData, key.clone(), false);
            let is_same = self.data(data, live, said, out);
            if is_sure && is_same {
                self.expiry(key, sid, "", [&live[5], &said[5]], out);
            }
        }
    }

    fn lifetime(&self, place: Place, live: Option<Life>, said: Option<Life>, out: &mut Verdicts) {
        let stored = |life: Life| {
            let shown = format!("{} since {}", life.seconds, life.named);
            Stored::new(life.named, format!("{:07}", life.seconds), shown)
        };
        let usual_ms = self.deployment.session_ttl_ms;
        // It may have been forgotten in between.
        let is_unsure = |life: Life| self.is_over(life.named + usual_ms.max(life.seconds * 1000));
        if live.is_none() && said.is_some_and(is_unsure) {
            return;
        }
        self.register(place, live.map(stored), said.map(stored), out);
    }

    /// Compares the data of an active session; returns whether both sides have the same.
    fn data(&self, place: Place, live: &[Cell], said: &[Cell], out: &mut Verdicts) -> bool {
        let stored = |row: &[Cell]| {
            let t = row[3].whole()?;
            match &row[4] {
                Cell::Wrong => Some(Stored::new(0, "", ANOTHER_TYPE)),
                cell => {
                    let bytes = cell.bytes()?;
                    Some(Stored::new(t, self.opened(bytes), bytes))
                }
            }
        };
        let (of_live, of_said) = (stored(live), stored(said));
        // Without the keys the content of a token is unknown.
        let is_closed = |of: &Stored| self.ring.is_none() && is_token(&of.shown);
        out.has_closed |= of_live.as_ref().is_some_and(is_closed);
        if let (Some(live), Some(said)) = (&of_live, &of_said)
            && live.t == said.t
            && is_closed(live)
        {
            out.checked += 1;
            return true;
        }
        let is_same = of_live == of_said && of_live.is_some();
        // Data that lived on with its session is too late for the shadow.
        if let (Some(live), None) = (&of_live, &of_said)
            && self.is_over(live.t + self.deployment.session_ttl_ms)
        {
            (out.checked, out.older) = (out.checked + 1, out.older + 1);
            return false;
        }
        let is_wrong = of_live.as_ref().is_some_and(|of| of.shown == ANOTHER_TYPE.as_bytes());
        if is_wrong && of_said.is_some() {
            out.checked += 1;
            out.add(place, Fault::Behind, of_live, of_said);
            return false;
        }
        self.register(place, of_live, of_said, out);
        is_same
    }

    fn opened(&self, bytes: &[u8]) -> Vec<u8> {
        match self.ring.as_ref().map(|ring| ring.open(bytes)) {
            Some(Opened::ByFirst(data) | Opened::ByOther(data)) => data,
            _ => bytes.to_vec(),
        }
    }
}

/// Where the version begins in a session's value.
const LAST_ACTIVITY: usize = 17;
