//! Tokens, the items they viewed, and view counts.

use super::super::finding::{Fault, Place, Stored, Structure};
use super::super::table::{Cell, score_ms};
use super::{ANOTHER_TYPE, Court, Side, Verdicts};
use crate::projection::Projection;

impl Court<'_> {
    pub(super) fn token(&self, token: &str, live: &[Cell], said: &[Cell], out: &mut Verdicts) {
        let place = |structure, key| Place {
            structure,
            key,
            member: Some(token.to_owned()),
            name: token.to_owned(),
            sub: String::new(),
        };
        let tombstone = place(Structure::TokenEnded, self.keys.tokens_ended());
        let side = self.final_ending(tombstone, [&live[2], &said[2]], out);
        if !self.keeps(Projection::Tokens) {
            return;
        }
        let recent = |row: &[Cell]| row[1].score_ms().map(|t| Stored::new(t, "", t.to_string()));
        let (of_live, of_said) = (recent(live), recent(said));
        let places = (
            place(Structure::Recent, self.keys.recent()),
            place(Structure::Login, self.keys.login()),
        );
        match side {
            Some(Side::Forgotten) => return,
            Some(Side::Live | Side::Said) => {
                let t = of_live.as_ref().map_or(0, |of| of.t);
                let user = live[0].bytes().map(|user| Stored::new(t, user, user));
                self.ended(places.0, of_live, out);
                self.ended(places.1, user, out);
                for (item, score) in live[3].scores() {
                    let t = score_ms(*score);
                    let stored = Stored::new(t, "", t.to_string());
                    self.ended(self.item_of(token, item), Some(stored), out);
                }
                return;
            }
            None => {}
        }
        if of_live.is_none() && of_said.as_ref().is_some_and(|of| of.t <= self.evicted_below_ms) {
            return;
        }
        self.login(places.1, (live, of_live.as_ref()), (said, of_said.as_ref()), out);
        self.register(places.0, of_live, of_said, out);
        self.items(token, &live[3], &said[3], out);
    }

    /// A token's holder is the user who used it last.
    fn login(
        &self,
        place: Place,
        (live, live_use): (&[Cell], Option<&Stored>),
        (said, said_use): (&[Cell], Option<&Stored>),
        out: &mut Verdicts,
    ) {
        let holder = |row: &[Cell], used: Option<&Stored>| {
            let user = row[0].bytes()?;
            Some(Stored::new(used.map_or(0, |of| of.t), user, user))
        };
        let (of_live, of_said) = (holder(live, live_use), holder(said, said_use));
        // A later use by an entry that is no longer in the stream may be anybody's.
        if let Some(used) = live_use
            && of_live.is_some()
            && said_use.is_none_or(|said| used.t > said.t)
            && !self.knows_all_of(used.t)
        {
            (out.checked, out.older) = (out.checked + 1, out.older + 1);
            return;
        }
        // If the time is missing or behind, that is a finding of its own.
        let is_behind = |said: &Stored| live_use.is_none_or(|used| used.t < said.t);
        let user = |stored: &Option<Stored>| stored.as_ref().map(|of| of.value.clone());
        if said_use.is_some_and(is_behind) && of_live.is_some() && user(&of_live) == user(&of_said)
        {
            out.checked += 1;
            return;
        }
        self.register(place, of_live, of_said, out);
    }

    fn item_of(&self, token: &str, item: &str) -> Place {
        Place {
            structure: Structure::Viewed,
            key: format!("{}{token}", self.keys.viewed()),
            member: Some(item.to_owned()),
            name: token.to_owned(),
            sub: item.to_owned(),
        }
    }

    /// The newest items of a token. Items below the oldest of a full set may have been dropped.
    fn items(&self, token: &str, live: &Cell, said: &Cell, out: &mut Verdicts) {
        if *live == Cell::Wrong {
            if let Some((item, _)) = said.scores().last() {
                let place = Place { member: None, ..self.item_of(token, item) };
                out.checked += 1;
                out.add(place, Fault::Torn, Some(Stored::new(0, "", ANOTHER_TYPE)), None);
            }
            return;
        }
        let find = |cell: &Cell, item: &str| {
            cell.scores().iter().find(|(name, _)| name == item).map(|(_, score)| score_ms(*score))
        };
        let is_below = |cell: &Cell, item: &str, t: u64| {
            let is_full = cell.scores().len() as u64 >= self.deployment.viewed_cap;
            is_full
                && cell
                    .scores()
                    .iter()
                    .all(|(other, score)| (t, item) < (score_ms(*score), other.as_str()))
        };
        let mut items: Vec<&str> = Vec::new();
        for (item, _) in live.scores().iter().chain(said.scores()) {
            if !items.contains(&item.as_str()) {
                items.push(item);
            }
        }
        for item in items {
            let (of_live, of_said) = (find(live, item), find(said, item));
            match (of_live, of_said) {
                // If the token was evicted in between, it came back without the item.
                (None, Some(t)) if is_below(live, item, t) || self.evicted_below_ms > 0 => continue,
                (Some(t), None) if is_below(said, item, t) => continue,
                _ => {}
            }
            let stored = |t: Option<u64>| t.map(|t| Stored::new(t, "", t.to_string()));
            self.register(self.item_of(token, item), stored(of_live), stored(of_said), out);
        }
    }

    /// Views are counted once, so the count must be at least the number in the stream.
    pub(super) fn item(&self, item: &str, live: &[Cell], said: &[Cell], out: &mut Verdicts) {
        let (counted, least) = (live[0].number().unwrap_or(0.0), said[0].number().unwrap_or(0.0));
        if !self.keeps(Projection::Ranking) || counted == 0.0 && least == 0.0 {
            return;
        }
        out.checked += 1;
        if counted > least || counted < least && self.drops_items {
            out.older += u64::from(counted > least);
        } else if counted < least {
            let stored = |cell: &Cell| cell.bytes().map(|text| Stored::new(0, text, text));
            let place = Place {
                structure: Structure::Ranking,
                key: self.keys.viewed(),
                member: Some(item.to_owned()),
                name: item.to_owned(),
                sub: String::new(),
            };
            out.add(place, Fault::Behind, stored(&live[0]), stored(&said[0]));
        }
    }
}
