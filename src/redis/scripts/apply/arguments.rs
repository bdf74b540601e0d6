//! A plan as the argument of the apply script: its sections, in the order in which `apply.lua` reads them.
//!
//! Every value costs the server time on its way through Lua. Users seen in the same second are therefore grouped
//! and named once for the minute's set and their activity, together with the presence entries that can be written
//! unread if the activity proves them the newest.

use redis::Cmd;

use super::packed::Packed;
use super::sealed::Sealed;
use crate::config::Deployment;
use crate::event::Text;
use crate::key::{Keys, escape};
use crate::op::{Departure, Ending, Letter, Map, Place, Plan};
use crate::projection::presence_field;
use crate::redis::scripts::minute_expiry_ms;

/// Where the values go, and what they depend on besides the plan.
pub(super) struct Arguments<'c, 'p> {
    pub(super) packed: Packed<'p>,
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

impl<'p> Arguments<'_, 'p> {
    /// Adds all sections of a plan to a call.
    pub(super) fn add(mut self, plan: &'p Plan<'_>, call: &mut Cmd) {
        let (seen, others) = seen(plan);
        self.seen(&seen, !plan.minutes.is_empty());
        self.presence(plan, &others);
        self.tokens(plan);
        self.sessions(plan);
        self.connections(plan);
        self.letters(&plan.letters);
        self.views(&plan.views);
        self.packed.add_to(call);
    }

    fn letters(&mut self, letters: &'p [Letter<'_>]) {
        self.packed.section(letters.len());
        for letter in letters {
            self.packed
                .text(letter.id.to_string())
                .text(letter.rejection.reason.name())
                .text(&letter.rejection.detail);
            self.packed.text(letter.index.map(|index| index.to_string()).unwrap_or_default());
            self.packed.count(letter.fields.len());
            for (name, value) in &letter.fields {
                self.packed.long(*name);
                self.packed.long(*value);
            }
        }
    }

    fn seen(&mut self, seen: &Seen<'p>, online: bool) {
        self.packed.section(seen.len());
        for (minute, groups) in seen {
            let key = if online { self.keys.online_minute(*minute) } else { String::new() };
            self.packed.text(key).digits(minute_expiry_ms(self.deployment, *minute));
            let users = |group: &Group<'_>| group.with_entry.len() + group.without.len();
            self.packed.count(groups.values().map(users).sum::<usize>()).count(groups.len());
            for (seconds, group) in groups {
                self.packed.text(seconds.map(|s| s.to_string()).unwrap_or_default());
                self.packed.count(users(group)).count(group.with_entry.len());
            }
            for group in groups.values() {
                for user in group.with_entry.iter().map(|(user, _)| user).chain(&group.without) {
                    self.packed.text(user);
                }
            }
            for (_, entry) in groups.values().flat_map(|group| &group.with_entry) {
                self.entry(entry);
            }
        }
    }

    fn presence(&mut self, plan: &Plan<'_>, others: &[Entry<'p>]) {
        self.packed.section(others.len());
        others.iter().for_each(|entry| self.entry(entry));
        self.packed.section(plan.departed.len());
        for (Departure { user, ip }, time) in &plan.departed {
            match ip {
                Some(ip) => self.field(user, ip),
                None => self.packed.text(escape(user).as_ref()),
            };
            self.packed.digits(time.millis());
        }
    }

    fn entry(&mut self, (place, value): &Entry<'p>) {
        self.field(&place.user, &place.ip);
        self.packed.long(value.as_bytes());
    }

    fn field(&mut self, user: &str, ip: &str) -> &mut Packed<'p> {
        self.packed.text(presence_field(user, ip))
    }

    fn tokens(&mut self, plan: &Plan<'_>) {
        // A token that ends in this batch has no other effect.
        let live = || plan.tokens.iter().filter(|(_, merge)| merge.ended.is_none());
        let used =
            || live().filter_map(|(token, merge)| Some((token, merge, merge.used.as_ref()?)));
        self.packed.section(used().count());
        for (token, _, _) in used() {
            self.packed.text(token.as_ref());
        }
        for (_, merge, (time, user)) in used() {
            self.packed.text(user.as_ref()).text(time.score()).count(merge.items.len() * 2);
            for (item, time) in &merge.items {
                self.packed.text(time.score()).text(item.as_ref());
            }
        }
        self.endings(plan.tokens.iter().map(|(token, merge)| (token.as_ref(), merge.ended)));
    }

    fn sessions(&mut self, plan: &'p Plan<'_>) {
        let live = || plan.sessions.iter().filter(|(_, merge)| merge.ended.is_none());
        let given = || live().filter_map(|(sid, merge)| Some((sid, merge.ttl?)));
        self.packed.section(given().count());
        for (sid, (time, seconds)) in given() {
            self.packed.text(sid.as_ref()).digits(time.millis()).count(seconds as usize);
        }
        let touched = || live().filter_map(|(sid, merge)| Some((sid, merge.touched.as_ref()?)));
        self.packed.section(touched().count());
        for (sid, _) in touched() {
            self.packed.text(sid.as_ref());
        }
        for (_, (_, value)) in touched() {
            self.packed.long(value.as_bytes());
        }
        let is_sent = |sid: &str| self.sealed.is_none_or(|sealed| sealed.is_sent(sid));
        let data = || {
            live()
                .filter_map(|(sid, merge)| Some((sid, merge.data.as_ref()?)))
                .filter(|(sid, _)| is_sent(sid))
        };
        self.packed.section(data().count());
        for (sid, _) in data() {
            self.packed.text(sid.as_ref());
        }
        if data().next().is_some() {
            self.packed.count(usize::from(self.sealed.is_some()));
        }
        for (sid, (time, data)) in data() {
            self.packed.digits(time.millis());
            match self.sealed {
                None => self.packed.long(data.as_ref()),
                Some(sealed) => {
                    let (token, beaten) = sealed.token(sid, *time, data);
                    self.packed.long(token);
                    self.packed.long(beaten.to_vec());
                }
            }
        }
        self.endings(plan.sessions.iter().map(|(sid, merge)| (sid.as_ref(), merge.ended)));
    }

    fn endings<'i>(&mut self, all: impl Iterator<Item = (&'i str, Option<Ending>)> + Clone) {
        let endings = all.filter_map(|(id, ending)| Some((id, ending?)));
        self.packed.section(endings.clone().count());
        for (id, ending) in endings {
            self.packed.text(id).digits(ending.entry_ms).digits(ending.time.millis());
        }
    }

    fn connections(&mut self, plan: &Plan<'_>) {
        for left in [false, true] {
            let those = || plan.connections.iter().filter(|(_, last)| last.left == left);
            self.packed.section(those().count());
            for (connection, last) in those() {
                self.packed.text(connection.doc.as_ref()).text(connection.user.as_ref());
                self.packed.text(connection.id.as_ref()).digits(last.time.millis());
            }
        }
    }

    fn views(&mut self, views: &Map<Text<'_>, u64>) {
        self.packed.section(views.len());
        for (item, count) in views {
            self.packed.text(item.as_ref()).digits(*count);
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
