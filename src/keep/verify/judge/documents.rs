//! Connections to documents, and what depends on them.

use super::super::finding::{Fault, Place, Stored, Structure};
use super::super::table::{Cell, level, parts};
use super::{Court, Verdicts};
use crate::projection::Projection;

impl Court<'_> {
    pub(super) fn connection(&self, name: &str, live: &[Cell], said: &[Cell], out: &mut Verdicts) {
        let stored = |cell: &Cell| {
            let t = cell.whole()?;
            let is_gone = self.is_over(t + self.deployment.document_ttl_ms);
            (!is_gone).then(|| Stored::new(t, "", t.to_string()))
        };
        let place = |structure, key| Place {
            structure,
            key,
            member: Some(name.to_owned()),
            name: name.to_owned(),
            sub: String::new(),
        };
        let (joined, left) = (stored(&live[0]), stored(&live[1]));
        let (said_joined, said_left) = (stored(&said[0]), stored(&said[1]));
        let t = |stored: &Option<Stored>| stored.as_ref().map_or(0, |of| of.t);
        // Only the later one of the two stays.
        let counts_left = said_left.clone().filter(|of| of.t >= t(&joined));
        let counts_joined = said_joined.clone().filter(|of| of.t > t(&left));
        let at = place(Structure::Left, self.keys.docs_left());
        self.register(at, left, counts_left, out);
        if !self.keeps(Projection::Documents) {
            return;
        }
        let at = place(Structure::Joined, self.keys.docs_joined());
        match &joined {
            Some(of) if of.t <= t(&said_left) => self.ended(at, joined, out),
            _ => self.register(at, joined, counts_joined, out),
        }
    }

    /// A user is in a document if at least one connection is.
    pub(super) fn pair(&self, name: &str, live: &[Cell], said: &[Cell], out: &mut Verdicts) {
        if !self.keeps(Projection::Documents) {
            return;
        }
        let (doc, user) = parts(name);
        let (mut count, least) = (live[0].whole().unwrap_or(0), said[0].whole().unwrap_or(0));
        let stored = |n: u64| (n > 0).then(|| Stored::new(0, "", n.to_string()));
        let is_all = self.knows_all_within(self.deployment.document_ttl_ms);
        out.checked += 1;
        if count != least && is_all {
            let place = Place {
                structure: Structure::Connections,
                key: self.keys.docs_connections(),
                member: Some(name.to_owned()),
                name: name.to_owned(),
                sub: String::new(),
            };
            out.add(place, Fault::Torn, stored(count), stored(least));
            count = least;
        } else if count != least {
            // Either an older leave with a later time, or an older join.
            out.older += 1;
        }
        let is_in = live[1].whole() == Some(1);
        if is_in != (count > 0) {
            let place = Place {
                structure: Structure::DocumentUser,
                key: self.keys.document_users(&doc),
                member: Some(user),
                name: name.to_owned(),
                sub: count.to_string(),
            };
            out.add(place, Fault::Torn, stored(u64::from(is_in)), stored(u64::from(count > 0)));
        }
    }

    pub(super) fn document(&self, doc: &str, live: &[Cell], said: &[Cell], out: &mut Verdicts) {
        if !self.keeps(Projection::Documents) {
            return;
        }
        let place = |structure, key, member| Place {
            structure,
            key,
            member,
            name: doc.to_owned(),
            sub: String::new(),
        };
        let stored = |n: u64| (n > 0).then(|| Stored::new(0, "", n.to_string()));
        let is_all = self.knows_all_within(self.deployment.document_ttl_ms);
        let [here, least] = [&live[0], &said[0]].map(|cell| cell.whole().unwrap_or(0));
        let users = if is_all { least } else { here };
        let count = match &live[1] {
            Cell::Empty => Some(0),
            cell => cell.whole(),
        };
        out.checked += 1;
        if count != Some(users) {
            let at = place(Structure::DocumentCount, self.keys.document_count(doc), None);
            let shown = live[1].bytes().unwrap_or(super::ANOTHER_TYPE.as_bytes());
            let live = (live[1] != Cell::Empty).then(|| Stored::new(0, "", shown));
            out.add(at, Fault::Torn, live, stored(users));
        }
        for (threshold, cell) in self.deployment.thresholds.iter().zip(&live[2..]) {
            let is_reached = cell.bytes().is_some();
            // Between the two levels the schedule decides.
            let is_right = match users {
                users if users >= threshold.up => is_reached,
                users if users <= threshold.down => !is_reached,
                _ => true,
            };
            if !is_right {
                let member = level(threshold.up, threshold.down, doc);
                let at = place(Structure::Level, self.keys.docs_levels(), Some(member));
                let [live, said] = [is_reached, !is_reached].map(|is| stored(u64::from(is)));
                out.add(at, Fault::Torn, live, said);
            }
        }
    }
}
