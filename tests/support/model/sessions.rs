//! Sessions, their data, and their lifetimes.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::What;
use super::open::{Open, allow, expiry_of, field_of, string_of};
use super::state::{put, put_field, put_score, whole};
use super::{Fold, State};

/// Tombstones: sid → the greatest entry-id milliseconds of an ending, while remembered.
pub(super) fn ended(fold: &Fold<'_>, state: &mut State) {
    for (sid, entry_ms) in endings(fold) {
        if fold.is_remembered(entry_ms) {
            put_score(state, fold.keys.sessions_ended(), sid, whole(entry_ms));
        }
    }
}

/// Sessions that never ended: the last writer's entry and data, for the session's lifetime after its last activity.
/// The lifetime is that of the last event with one, and such an event counts for as long as the session would live by
/// the longer of this lifetime and the default.
pub(super) fn sessions(fold: &Fold<'_>, state: &mut State) {
    let ended = endings(fold);
    for said in all(fold).values().filter(|said| !ended.contains_key(said.sid)) {
        let ((last, value), life) = (said.last(), said.life_ms());
        if let Some(ttl) = said.ttl()
            && !fold.is_gone(last + life.max(said.usual_ms))
        {
            put_field(state, fold.keys.session_ttls(), said.sid, record(ttl, last));
        }
        if fold.is_gone(last + life) {
            continue;
        }
        put_field(state, fold.keys.sessions(), said.sid, value);
        let in_time = said.data.iter().filter(|data| data.t + life > data.applied_ms);
        if let Some(data) = in_time.max() {
            put(state, said.data_key(fold), data.text, Some(last + life));
            let version = data.t.to_string();
            put_field(state, fold.keys.session_data_versions(), said.sid, version);
        }
    }
}

/// The statements of the events about one session.
struct Said<'a> {
    sid: &'a str,
    /// The lifetime of sessions without one of their own.
    usual_ms: u64,
    touches: Vec<Touch<'a>>,
    data: Vec<Data<'a>>,
}

struct Touch<'a> {
    t: u64,
    value: &'a str,
    ttl_ms: Option<u64>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Data<'a> {
    t: u64,
    text: &'a [u8],
    applied_ms: u64,
}

/// A lifetime, and when it was set.
type Ttl = (u64, u64);

impl<'a> Said<'a> {
    fn last(&self) -> (u64, &'a str) {
        self.touches.iter().map(|touch| (touch.t, touch.value)).max().unwrap()
    }

    /// The lifetime set last; at the same time the longer one.
    fn ttl(&self) -> Option<Ttl> {
        self.ttls().into_iter().max()
    }

    fn ttls(&self) -> Vec<Ttl> {
        self.touches.iter().filter_map(|touch| Some((touch.t, touch.ttl_ms?))).collect()
    }

    fn life_ms(&self) -> u64 {
        self.ttl().map_or(self.usual_ms, |(_, ttl_ms)| ttl_ms)
    }

    fn data_key(&self, fold: &Fold<'_>) -> String {
        format!("{}{}", fold.keys.session_data(), self.sid)
    }
}

/// When the lifetime was set, its seconds, the last activity.
fn record((t, ttl_ms): Ttl, last: u64) -> String {
    format!("{t}:{:07}:{last}", ttl_ms / 1000)
}

fn all<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, Said<'a>> {
    let mut all = BTreeMap::new();
    for (fact, what) in fold.each(|fact, what| Some((fact, what))) {
        let (What::Touched { sid, .. } | What::Data { sid, .. }) = what else { continue };
        let usual_ms = fold.settings.session_ttl_ms;
        let said = all.entry(sid.as_str()).or_insert_with(|| Said {
            sid,
            usual_ms,
            touches: Vec::new(),
            data: Vec::new(),
        });
        match what {
            What::Touched { value, ttl_ms, .. } => {
                said.touches.push(Touch { t: fact.t, value, ttl_ms: *ttl_ms });
            }
            What::Data { data: text, .. } => {
                said.data.push(Data { t: fact.t, text, applied_ms: fact.applied_ms });
            }
            _ => {}
        }
    }
    all
}

/// The greatest entry-id milliseconds of each session's endings.
fn endings<'a>(fold: &Fold<'a>) -> BTreeMap<&'a str, u64> {
    fold.greatest(|fact, what| match what {
        What::SessionEnded { sid } => Some((sid.as_str(), fact.entry_ms)),
        _ => None,
    })
}

/// A session that has expired when an event with a longer lifetime arrives is not restored, and neither is data that
/// has expired when a touch arrives. The lifetime of a session that is long gone is forgotten, and a session whose
/// ending is forgotten may have begun again.
pub(super) fn open(fold: &Fold<'_>, open: &mut Open) {
    let ended = endings(fold);
    for said in all(fold).values() {
        match ended.get(said.sid) {
            None => Schedules::of(said, fold, false).allow(open),
            Some(entry_ms) if !fold.is_remembered(*entry_ms) => {
                Schedules::of(said, fold, true).allow(open);
            }
            Some(_) => {}
        }
    }
}

/// The possible outcomes for a session under different schedules.
struct Schedules<'s, 'a> {
    said: &'s Said<'a>,
    fold: &'s Fold<'a>,
    /// Whether it may have ended in between.
    is_forgotten: bool,
    /// The lifetimes that may be stored now.
    ttls: Vec<Option<Ttl>>,
}

impl<'s, 'a> Schedules<'s, 'a> {
    fn of(said: &'s Said<'a>, fold: &'s Fold<'a>, is_forgotten: bool) -> Self {
        let last = said.ttl();
        // It is remembered for at least that long.
        let is_sure = |(t, ttl_ms): Ttl| !fold.is_gone(t + ttl_ms.max(said.usual_ms));
        let ttls = if !is_forgotten && last.is_none_or(is_sure) {
            vec![last]
        } else {
            said.ttls().into_iter().map(Some).chain([None]).collect()
        };
        Self { said, fold, is_forgotten, ttls }
    }

    fn life_ms(&self, ttl: Option<Ttl>) -> u64 {
        ttl.map_or(self.said.usual_ms, |(_, ttl_ms)| ttl_ms)
    }

    /// Whether a touch may have left no effect, because only lifetimes other than the final one were known then.
    fn may_be_lost(&self, t: u64, value: &str) -> bool {
        let same = || self.said.touches.iter().filter(|touch| (touch.t, touch.value) == (t, value));
        let own: Option<Vec<Ttl>> = same().map(|touch| Some((touch.t, touch.ttl_ms?))).collect();
        let known = match own.and_then(|own| own.into_iter().min()) {
            // It came with its own lifetime, so none that was set earlier counted.
            Some(own) => self.said.ttls().into_iter().filter(|ttl| *ttl >= own).collect(),
            None => [self.said.ttls(), vec![(0, self.said.usual_ms)]].concat(),
        };
        self.is_forgotten || known.into_iter().any(|(_, ms)| self.fold.is_gone(t + ms))
    }

    /// The touches that may have been the last with an effect, if that is not certain.
    fn last_touches(&self) -> Vec<(u64, &'a str)> {
        let touches: BTreeSet<_> = self.said.touches.iter().map(|t| (t.t, t.value)).collect();
        let longest = self.ttls.iter().map(|ttl| self.life_ms(*ttl)).max().unwrap();
        let mut candidates = Vec::new();
        for (t, value) in touches.into_iter().rev() {
            if !self.fold.is_gone(t + longest) {
                candidates.push((t, value));
            }
            if !self.may_be_lost(t, value) {
                break;
            }
        }
        candidates
    }

    fn allow(&self, open: &mut Open) {
        let Self { said, fold, .. } = self;
        let (last, value) = said.last();
        let touches = self.last_touches();
        let is_sure = !self.may_be_lost(last, value);
        if !is_sure {
            let values = touches.iter().map(|(_, value)| *value);
            allow(open, field_of(fold.keys.sessions(), said.sid), values);
        }
        self.allow_records(open);
        let is_data_sure = self.allow_data(open);
        if !is_sure || !is_data_sure || self.ttls.len() > 1 {
            let expiries = touches.iter().flat_map(|(t, _)| {
                self.ttls.iter().map(move |ttl| (t + self.life_ms(*ttl)).to_string())
            });
            allow(open, expiry_of(said.data_key(fold)), expiries);
        }
    }

    /// A lifetime that counts, with the last activity since it was known.
    fn allow_records(&self, open: &mut Open) {
        let Self { said, fold, .. } = self;
        let mut seen = Vec::new();
        for t in said.touches.iter().map(|touch| touch.t).collect::<BTreeSet<_>>().into_iter().rev()
        {
            seen.push(t);
            if !self.is_forgotten && !fold.is_gone(t + said.usual_ms) {
                break;
            }
        }
        if self.ttls.len() == 1 && seen.len() == 1 {
            return;
        }
        let counts = |(t, ttl_ms): Ttl, seen: u64| {
            t <= seen && !fold.is_gone(seen + ttl_ms.max(said.usual_ms))
        };
        for ttl in self.ttls.iter().flatten() {
            let seen = seen.iter().filter(|seen| counts(*ttl, **seen));
            let field = field_of(fold.keys.session_ttls(), said.sid);
            allow(open, field, seen.map(|seen| record(*ttl, *seen)));
        }
    }

    /// Data that may have expired or come too late: all data that came in time by some lifetime. Returns whether the
    /// result is certain.
    fn allow_data(&self, open: &mut Open) -> bool {
        let Self { said, fold, .. } = self;
        let Some(last) = said.data.iter().max() else { return true };
        let mut touches = said.touches.iter().filter(|touch| touch.t == last.t);
        if !touches.any(|touch| self.may_be_lost(touch.t, touch.value)) {
            return true;
        }
        let all = [said.ttls(), vec![(0, said.usual_ms)]].concat();
        let longest = all.into_iter().map(|(_, ms)| ms).max().unwrap();
        for data in said.data.iter().filter(|data| data.t + longest > data.applied_ms) {
            allow(open, string_of(said.data_key(fold)), [data.text]);
            let version = field_of(fold.keys.session_data_versions(), said.sid);
            allow(open, version, [data.t.to_string()]);
        }
        false
    }
}
