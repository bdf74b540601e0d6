//! What single entries say about differences: which of them should have won. Pure.

use std::collections::HashMap;

use super::finding::{Claim, Finding, Structure};
use crate::config::Deployment;
use crate::entry::EntryId;
use crate::key::{escape, join};
use crate::op::Plan;
use crate::projection::presence_field;

/// How an entry's statement about a name relates to a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bearing {
    /// It is a value of the place that differs, or an ending of it.
    Direct,
    /// It sets the lifetime of the session.
    Life,
}

/// Findings by the names that entries use.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: HashMap<(Structure, String), Vec<(usize, Bearing)>>,
}

/// An ending that nothing can follow.
const FINAL: u64 = u64::MAX;

impl Index {
    pub(super) fn new(findings: &[Finding]) -> Self {
        let mut index = Self::default();
        for (i, finding) in findings.iter().enumerate() {
            let place = &finding.place;
            let structure = match place.structure {
                // Expiries and derived values are found by the name that they depend on.
                Structure::Expiry if place.sub.is_empty() => {
                    index.add(Structure::SessionData, &place.name, i, Bearing::Direct);
                    Structure::Activity
                }
                other => other,
            };
            index.add(structure, &place.name, i, Bearing::Direct);
            match structure {
                Structure::Presence => {
                    let user = super::table::user_of(&place.name).to_owned();
                    index.add(Structure::Presence, &user, i, Bearing::Direct);
                }
                Structure::Session | Structure::SessionData => {
                    index.add(Structure::SessionTtl, &place.name, i, Bearing::Life);
                }
                _ => {}
            }
        }
        index
    }

    fn add(&mut self, structure: Structure, name: &str, finding: usize, bearing: Bearing) {
        let places = self.places.entry((structure, name.to_owned())).or_default();
        places.push((finding, bearing));
    }

    /// Adds what one entry says to the evidence of the findings.
    pub(super) fn hear(
        &self,
        plan: &Plan<'_>,
        (id, deployment): (EntryId, &Deployment),
        findings: &mut [Finding],
    ) {
        let mut hearing = Hearing { index: self, id, findings };
        hearing.people(plan);
        hearing.tokens(plan);
        hearing.sessions(plan);
        hearing.documents(plan, deployment);
    }
}

struct Hearing<'h> {
    index: &'h Index,
    id: EntryId,
    findings: &'h mut [Finding],
}

impl Hearing<'_> {
    /// Adds a statement about a name, or about one place under that name.
    fn say(
        &mut self,
        structure: Structure,
        name: &str,
        sub: Option<&str>,
        claim: (u64, bool, &[u8]),
    ) {
        let Some(found) = self.index.places.get(&(structure, name.to_owned())) else { return };
        let (t, ends, value) = claim;
        for (i, bearing) in found {
            let finding = &mut self.findings[*i];
            if *bearing != Bearing::Direct || sub.is_some_and(|sub| sub != finding.place.sub) {
                continue;
            }
            finding.evidence.add(Claim { t, ends, value: value.to_vec() }, self.id);
        }
    }

    fn end(&mut self, structure: Structure, name: &str, t: u64) {
        self.say(structure, name, None, (t, true, b""));
    }

    fn people(&mut self, plan: &Plan<'_>) {
        for (minute, users) in &plan.minutes {
            let sub = minute.to_string();
            self.say(Structure::Expiry, &sub, Some(&sub), (0, false, b""));
            for user in users {
                self.say(Structure::Minute, user, Some(&sub), (minute * 60_000, false, b""));
            }
        }
        for (user, seconds) in &plan.activity {
            self.say(Structure::Activity, user, None, (seconds * 1000, false, b""));
        }
        for (place, latest) in &plan.presence {
            let Some((time, value)) = latest else { continue };
            let field = presence_field(&place.user, &place.ip);
            self.say(Structure::Presence, &field, None, (time.millis(), false, value.as_bytes()));
        }
        for (departure, time) in &plan.departed {
            let name = match &departure.ip {
                Some(ip) => presence_field(&departure.user, ip),
                None => escape(&departure.user).into_owned(),
            };
            self.say(Structure::PresenceEnded, &name, None, (time.millis(), false, b""));
            self.end(Structure::Presence, &name, time.millis());
        }
    }

    fn tokens(&mut self, plan: &Plan<'_>) {
        for (token, merge) in &plan.tokens {
            if let Some((time, user)) = &merge.used {
                self.say(Structure::Recent, token, None, (time.millis(), false, b""));
                self.say(Structure::Login, token, None, (time.millis(), false, user.as_bytes()));
            }
            for (item, time) in &merge.items {
                self.say(Structure::Viewed, token, Some(item), (time.millis(), false, b""));
            }
            if let Some(ending) = &merge.ended {
                self.say(Structure::TokenEnded, token, None, (ending.entry_ms, false, b""));
                for structure in [Structure::Recent, Structure::Login, Structure::Viewed] {
                    self.end(structure, token, FINAL);
                }
            }
        }
        for item in plan.views.keys() {
            self.say(Structure::Ranking, item, None, (0, false, b""));
        }
    }

    fn sessions(&mut self, plan: &Plan<'_>) {
        for (sid, merge) in &plan.sessions {
            if let Some((time, value)) = &merge.touched {
                self.say(Structure::Session, sid, None, (time.millis(), false, value.as_bytes()));
            }
            if let Some((time, data)) = &merge.data {
                self.say(Structure::SessionData, sid, None, (time.millis(), false, data));
            }
            if let Some((time, seconds)) = merge.ttl {
                let value = format!("{seconds:07}");
                self.say(
                    Structure::SessionTtl,
                    sid,
                    None,
                    (time.millis(), false, value.as_bytes()),
                );
                self.live_for(sid, (time.millis(), u64::from(seconds)));
            }
            if let Some(ending) = &merge.ended {
                self.say(Structure::SessionEnded, sid, None, (ending.entry_ms, false, b""));
                for structure in [Structure::Session, Structure::SessionData, Structure::SessionTtl]
                {
                    self.end(structure, sid, FINAL);
                }
            }
        }
    }

    fn live_for(&mut self, sid: &str, life: (u64, u64)) {
        let found = self.index.places.get(&(Structure::SessionTtl, sid.to_owned()));
        for (i, bearing) in found.into_iter().flatten() {
            if *bearing == Bearing::Life {
                self.findings[*i].evidence.add_life(life, self.id);
            }
        }
    }

    fn documents(&mut self, plan: &Plan<'_>, deployment: &Deployment) {
        for (connection, last) in &plan.connections {
            let (doc, user) = (&connection.doc, &connection.user);
            let (name, t) = (join(&[doc, user, &connection.id]), last.time.millis());
            let (is, was) = match last.left {
                true => (Structure::Left, Structure::Joined),
                false => (Structure::Joined, Structure::Left),
            };
            self.say(is, &name, None, (t, false, b""));
            self.end(was, &name, t);
            let pair = join(&[doc, user]);
            self.say(Structure::Connections, &pair, None, (t, false, b""));
            self.say(Structure::DocumentUser, &pair, None, (t, false, b""));
            self.say(Structure::DocumentCount, doc, None, (t, false, b""));
            if !deployment.thresholds.is_empty() {
                self.say(Structure::Level, doc, None, (t, false, b""));
            }
        }
    }
}
