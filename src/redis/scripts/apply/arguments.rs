//! A plan as the arguments of the apply script: its sections, in the order in which `apply.lua` reads them.
//!
//! Every argument costs the server time on its way through Lua. Users seen in the same second are therefore grouped
//! and named once for the minute's set and their activity, together with the presence entries that can be written
//! unread if the activity proves them the newest.

use redis::Cmd;

use super::sealed::Sealed;
use crate::config::Deployment;
use crate::event::Text;
use crate::key::{Keys, escape};
use crate::op::{Departure, Ending, Letter, Map, Place, Plan};
use crate::projection::presence_field;
use crate::redis::scripts::minute_expiry_ms;

/// Where the arguments go, and what they depend on besides the plan.
pub(super) struct Arguments<'c> {
    pub(super) call: &'c mut Cmd,
    pub(super) keys: &'c Keys,
    pub(super) deployment: &'c Deployment,
    /// What encrypts session data, if anything.
    pub(super) sealed: Option<&'c Sealed>,
}

/// A presence entry and its value.
type Entry<'p> = (&'p Place<'p>, &'p str);

/// Users whose latest activity is in one second, or in another minute than this one.
#[derive(Default)]
struct Group<'p> {
    /// With a presence entry of that second.
    with_entry: Vec<(&'p str, Entry<'p>)>,
    without: Vec<&'p str>,
}

/// The users seen in each minute, grouped by the second of their latest activity if that is in the minute.
type Seen<'p> = Map<u64, Map<Option<u64>, Group<'p>>>;

impl Arguments<'_> {
    /// Adds all sections of a plan.
    pub(super) fn add(mut self, plan: &Plan<'_>) {
        let (seen, others) = seen(plan);
        self.seen(&seen, !plan.minutes.is_empty());
        self.presence(plan, &others);
        self.tokens(plan);
        self.sessions(plan);
        self.connections(plan);
        self.letters(&plan.letters);
        self.views(&plan.views);
    }

    fn letters(&mut self, letters: &[Letter<'_>]) {
        self.call.arg(letters.len());
        for letter in letters {
            self.call
                .arg(letter.id.to_string())
                .arg(letter.rejection.reason.name())
                .arg(&letter.rejection.detail);
            self.call.arg(letter.index.map(|index| index.to_string()).unwrap_or_default());
            self.call.arg(letter.fields.len());
            for (name, value) in &letter.fields {
                self.call.arg(*name).arg(*value);
            }
        }
    }

    fn seen(&mut self, seen: &Seen<'_>, online: bool) {
        self.call.arg(seen.len());
        for (minute, groups) in seen {
            let key = if online { self.keys.online_minute(*minute) } else { String::new() };
            self.call.arg(key).arg(minute_expiry_ms(self.deployment, *minute));
            let users = |group: &Group<'_>| group.with_entry.len() + group.without.len();
            self.call.arg(groups.values().map(users).sum::<usize>()).arg(groups.len());
            for (seconds, group) in groups {
                self.call.arg(seconds.map(|s| s.to_string()).unwrap_or_default());
                self.call.arg(users(group)).arg(group.with_entry.len());
            }
            for group in groups.values() {
                for user in group.with_entry.iter().map(|(user, _)| user).chain(&group.without) {
                    self.call.arg(*user);
                }
            }
            for (_, entry) in groups.values().flat_map(|group| &group.with_entry) {
                self.entry(entry);
            }
        }
    }

    fn presence(&mut self, plan: &Plan<'_>, others: &[Entry<'_>]) {
        self.call.arg(others.len());
        others.iter().for_each(|entry| self.entry(entry));
        self.call.arg(plan.departed.len());
        for (Departure { user, ip }, time) in &plan.departed {
            match ip {
                Some(ip) => self.call.arg(presence_field(user, ip)),
                None => self.call.arg(escape(user).as_ref()),
            };
            self.call.arg(time.millis());
        }
    }

    fn entry(&mut self, (place, value): &Entry<'_>) {
        self.call.arg(presence_field(&place.user, &place.ip)).arg(*value);
    }

    fn tokens(&mut self, plan: &Plan<'_>) {
        // A token that ends in this batch has no other effect.
        let live = || plan.tokens.iter().filter(|(_, merge)| merge.ended.is_none());
        let used =
            || live().filter_map(|(token, merge)| Some((token, merge, merge.used.as_ref()?)));
        self.call.arg(used().count());
        for (token, _, _) in used() {
            self.call.arg(token.as_ref());
        }
        for (_, merge, (time, user)) in used() {
            self.call.arg(user.as_ref()).arg(time.score()).arg(merge.items.len() * 2);
            for (item, time) in &merge.items {
                self.call.arg(time.score()).arg(item.as_ref());
            }
        }
        self.endings(plan.tokens.iter().map(|(token, merge)| (token.as_ref(), merge.ended)));
    }

    fn sessions(&mut self, plan: &Plan<'_>) {
        let live = || plan.sessions.iter().filter(|(_, merge)| merge.ended.is_none());
        let given = || live().filter_map(|(sid, merge)| Some((sid, merge.ttl?)));
        self.call.arg(given().count());
        for (sid, (time, seconds)) in given() {
            self.call.arg(sid.as_ref()).arg(time.millis()).arg(seconds);
        }
        let touched = || live().filter_map(|(sid, merge)| Some((sid, merge.touched.as_ref()?)));
        self.call.arg(touched().count());
        for (sid, _) in touched() {
            self.call.arg(sid.as_ref());
        }
        for (_, (_, value)) in touched() {
            self.call.arg(value);
        }
        let is_sent = |sid: &str| self.sealed.is_none_or(|sealed| sealed.is_sent(sid));
        let data = || {
            live()
                .filter_map(|(sid, merge)| Some((sid, merge.data.as_ref()?)))
                .filter(|(sid, _)| is_sent(sid))
        };
        self.call.arg(data().count());
        for (sid, _) in data() {
            self.call.arg(sid.as_ref());
        }
        if data().next().is_some() {
            self.call.arg(u8::from(self.sealed.is_some()));
        }
        for (sid, (time, data)) in data() {
            self.call.arg(time.millis());
            match self.sealed {
                None => self.call.arg(data.as_ref()),
                Some(sealed) => {
                    let (token, beaten) = sealed.token(sid, *time, data);
                    self.call.arg(token).arg(beaten)
                }
            };
        }
        self.endings(plan.sessions.iter().map(|(sid, merge)| (sid.as_ref(), merge.ended)));
    }

    fn endings<'p>(&mut self, all: impl Iterator<Item = (&'p str, Option<Ending>)> + Clone) {
        let endings = all.filter_map(|(id, ending)| Some((id, ending?)));
        self.call.arg(endings.clone().count());
        for (id, ending) in endings {
            self.call.arg(id).arg(ending.entry_ms).arg(ending.time.millis());
        }
    }

    fn connections(&mut self, plan: &Plan<'_>) {
        for left in [false, true] {
            let those = || plan.connections.iter().filter(|(_, last)| last.left == left);
            self.call.arg(those().count());
            for (connection, last) in those() {
                self.call.arg(connection.doc.as_ref()).arg(connection.user.as_ref());
                self.call.arg(connection.id.as_ref()).arg(last.time.millis());
            }
        }
    }

    fn views(&mut self, views: &Map<Text<'_>, u64>) {
        self.call.arg(views.len());
        for (item, count) in views {
            self.call.arg(item.as_ref()).arg(*count);
        }
    }
}

/// Groups users, and separates the presence entries without an activity of the same second.
fn seen<'p>(plan: &'p Plan<'_>) -> (Seen<'p>, Vec<Entry<'p>>) {
    let (mut entries, mut others) = latest_entries(plan);
    let mut seen = Seen::default();
    let mut add = |minute: u64, user: &'p str| {
        let seconds = plan.activity.get(user).copied().filter(|s| s / 60 == minute);
        let group = seen.entry(minute).or_default().entry(seconds).or_default();
        match seconds.and_then(|_| entries.swap_remove(user)) {
            Some(entry) => group.with_entry.push((user, entry)),
            None => group.without.push(user),
        }
    };
    for (minute, users) in &plan.minutes {
        users.iter().for_each(|user| add(*minute, user));
    }
    if plan.minutes.is_empty() {
        plan.activity.iter().for_each(|(user, seconds)| add(seconds / 60, user));
    }
    others.extend(entries.into_values());
    (seen, others)
}

/// For each user, a presence entry of the same second as the user's latest activity; and all other entries. Entries
/// that the plan ends again are left out.
fn latest_entries<'p>(plan: &'p Plan<'_>) -> (Map<&'p str, Entry<'p>>, Vec<Entry<'p>>) {
    let (mut latest, mut others) = (Map::default(), Vec::new());
    for (place, write) in &plan.presence {
        let Some((time, value)) = write else { continue };
        if !plan.is_present(place, *time) {
            continue;
        }
        let entry: Entry<'p> = (place, value);
        if plan.activity.get(&place.user) == Some(&time.seconds())
            && !latest.contains_key(place.user.as_ref())
        {
            latest.insert(place.user.as_ref(), entry);
        } else {
            others.push(entry);
        }
    }
    (latest, others)
}
