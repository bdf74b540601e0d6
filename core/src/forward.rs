//! Forward: an entry that was sent to another layout → its entries in this one. Pure.
//!
//! Events keep their time. Events of one partition stay together and in order.

use std::collections::BTreeMap;

use crate::decode::{Decoded, Former, Rules, decode_all, decode_moved};
use crate::entry::{Entry, Field};
use crate::event::{Event, Kind, REST_OF, Unknown};
use crate::fold::letter;
use crate::key::partition_of;
use crate::op::Letter;
use crate::time::EventTime;

/// The entries in this layout for an entry of another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// The fields of entries, by partition, in order.
    pub entries: BTreeMap<u16, Vec<Vec<Field>>>,
    /// Parts that are not events, or did not belong where they were.
    pub letters: Vec<Letter<'a>>,
}

/// The part of an entry that now belongs to other partitions and has not been forwarded yet.
pub fn forward_moved<'a>(entry: &'a Entry, partition: u16, rules: &Rules) -> Forwarded<'a> {
    share(entry, decode_moved(entry, partition, rules), rules)
}

/// The entries under `rules` for an entry of a partition that no longer exists, according to the layouts that had it;
/// none if the entry came after the last of them was forwarded.
pub fn forward<'a>(
    entry: &'a Entry,
    partition: u16,
    formers: &[Former],
    rules: &Rules,
) -> Option<Forwarded<'a>> {
    let first = formers.iter().find(|former| entry.id.ms < former.until_ms)?;
    let before = Rules {
        partitions: first.partitions,
        moved_from: formers.to_vec(),
        limits: rules.limits.clone(),
        ..*rules
    };
    let mut decoded = decode_all(entry, partition, &before);
    let rejected = std::mem::take(&mut decoded.rejected).into_iter();
    let letters = rejected.map(|rejected| letter(entry, rejected)).collect();
    Some(Forwarded { letters, ..share(entry, decoded, rules) })
}

/// Events, put into entries of the partitions that they belong to. The rest of an entry stays a rest.
fn share<'a>(entry: &Entry, decoded: Decoded<'a>, rules: &Rules) -> Forwarded<'a> {
    let Decoded { events, is_rest, .. } = decoded;
    let mark = is_rest.then(|| (REST_OF.as_bytes().to_vec(), entry.id.to_string().into_bytes()));
    let mut packing = BTreeMap::<u16, Packing>::new();
    for Event { time, kind, .. } in events {
        for part in parts(kind, rules.partitions) {
            let partition = partition_of(part.routing_id(), rules.partitions);
            packing.entry(partition).or_default().add(part, time, rules);
        }
    }
    let marked = |mut fields: Vec<Field>| {
        fields.extend(mark.clone());
        fields
    };
    let entries = packing.into_iter().map(|(partition, packing)| {
        (partition, packing.finish().into_iter().map(marked).collect())
    });
    Forwarded { entries: entries.collect(), letters: Vec::new() }
}

/// An event, split if its parts belong to different partitions.
fn parts(kind: Kind<'_>, partitions: u16) -> Vec<Kind<'_>> {
    if partitions == 1 {
        return vec![kind];
    }
    let foreign = kind.foreign_parts();
    std::iter::once(kind.without_foreign_parts()).chain(foreign).collect()
}

/// Events of one partition, put into entries.
#[derive(Default)]
struct Packing {
    entries: Vec<Vec<Field>>,
    /// The elements of the packed entry.
    array: String,
    /// The number of elements, and the fields of the first: a single event needs no array.
    count: usize,
    first: Vec<Field>,
}

impl Packing {
    fn add(&mut self, kind: Kind<'_>, time: EventTime, rules: &Rules) {
        let mut json = String::new();
        kind.write_json(time, &mut json);
        let is_full = self.array.len() + json.len() + 2 > rules.limits.max_data_bytes
            || self.count == rules.limits.max_events;
        if is_full {
            self.close();
        }
        if self.count == 0 {
            let event = Event { time, from_future: false, unknown: Unknown::default(), kind };
            let own = |(name, value): (&'static str, Vec<u8>)| (name.as_bytes().to_vec(), value);
            self.first = event.fields().into_iter().map(own).collect();
        } else {
            self.array.push(',');
        }
        self.array.push_str(&json);
        self.count += 1;
    }

    fn close(&mut self) {
        let (array, first) = (std::mem::take(&mut self.array), std::mem::take(&mut self.first));
        match std::mem::take(&mut self.count) {
            0 => {}
            1 => self.entries.push(first),
            _ => self.entries.push(vec![(b"data".to_vec(), format!("[{array}]").into_bytes())]),
        }
    }

    fn finish(mut self) -> Vec<Vec<Field>> {
        self.close();
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;
    use crate::entry::EntryId;
    use crate::event::Limits;

    const ID: EntryId = EntryId { ms: 1_790_000_000_000, seq: 3 };
    /// The layout with one partition.
    const ONE: Former = Former { partitions: 1, until_ms: u64::MAX, done: None };

    fn rules(partitions: u16) -> Rules {
        Rules { limits: Limits::default(), max_skew_ms: 60_000, partitions, moved_from: Vec::new() }
    }

    fn entry(fields: &[(&str, &str)]) -> Entry {
        Entry::new(ID, fields.iter().copied())
    }

    /// The events that forwarded entries hold, by partition.
    fn events(forwarded: &Forwarded<'_>, partitions: u16) -> Vec<(u16, String)> {
        let mut all = Vec::new();
        for (partition, entries) in &forwarded.entries {
            for fields in entries {
                let fields = fields.iter().map(|(name, value)| (name.clone(), value.clone()));
                let later = Entry::new(EntryId { ms: ID.ms + 500_000, seq: 0 }, fields);
                let decoded = decode(&later, *partition, &rules(partitions));
                assert!(decoded.rejected.is_empty(), "{decoded:?}");
                for event in decoded.events {
                    let mut json = String::new();
                    event.kind.write_json(event.time, &mut json);
                    all.push((*partition, json));
                }
            }
        }
        all
    }

    #[test]
    fn an_event_is_cut_where_its_parts_belong_and_keeps_its_time() {
        let fields = [("type", "heartbeat"), ("user", "ann"), ("sid", "s"), ("doc", "d")];
        let entry = entry(&fields);
        let found = events(&forward(&entry, 0, &[ONE], &rules(64)).unwrap(), 64);
        let time = format!("\"time\":{}", ID.ms);
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|(_, json)| json.contains(&time)), "{found:?}");
        let of = |id: &str| partition_of(id, 64);
        let places: Vec<u16> = found.iter().map(|(partition, _)| *partition).collect();
        let mut expected = vec![of("ann"), of("s"), of("d")];
        expected.sort_unstable();
        assert_eq!(places, expected);
    }

    #[test]
    fn packed_events_go_where_they_belong_in_order_and_what_is_none_becomes_a_letter() {
        let elements: Vec<String> = (0..40)
            .map(|n| format!(r#"{{"type":"view","user":"u{}","token":"t","item":"{n}"}}"#, n % 5))
            .chain(["7".to_owned()])
            .collect();
        let data = format!("[{}]", elements.join(","));
        let entry = entry(&[("data", &data)]);
        let forwarded = forward(&entry, 0, &[ONE], &rules(3)).unwrap();
        assert_eq!(forwarded.letters.len(), 1);
        assert_eq!(forwarded.letters[0].index, Some(40));
        let found = events(&forwarded, 3);
        assert_eq!(found.len(), 40);
        for user in 0..5 {
            let of_user: Vec<u32> = found
                .iter()
                .filter(|(_, json)| json.contains(&format!("\"u{user}\"")))
                .map(|(_, json)| {
                    let item = json.split("\"item\":\"").nth(1).unwrap();
                    item.split('"').next().unwrap().parse().unwrap()
                })
                .collect();
            assert_eq!(of_user, (user..40).step_by(5).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_rest_of_an_entry_stays_one_and_counts_no_view() {
        let view = |n: u32| format!(r#"{{"type":"view","user":"u{n}","token":"t","item":"i"}}"#);
        let data = format!("[{},{},{}]", view(1), view(2), view(3));
        let entry = entry(&[("rest_of", "1-1"), ("data", &data)]);
        for fields in forward(&entry, 0, &[ONE], &rules(2)).unwrap().entries.into_values().flatten()
        {
            let later = Entry::new(ID, fields);
            let decoded = [0, 1].map(|partition| decode(&later, partition, &rules(2)));
            let own = decoded.into_iter().find(|decoded| decoded.rejected.is_empty()).unwrap();
            assert!(own.is_rest && !own.events.is_empty());
        }
    }

    #[test]
    fn what_belonged_here_before_is_passed_over_and_what_never_did_is_rejected() {
        let user = |belongs: &dyn Fn(&str) -> bool| {
            (0..).map(|n| format!("u{n}")).find(|id| belongs(id)).unwrap()
        };
        let heartbeat = |user: &str| entry(&[("type", "heartbeat"), ("user", user)]);
        // Two partitions become four: some of the first go to the third.
        let now = Rules { moved_from: vec![Former::new(2, u64::MAX)], ..rules(4) };
        let goes = user(&|id| partition_of(id, 4) == 2);
        let entry = heartbeat(&goes);
        let decoded = decode(&entry, 0, &now);
        assert_eq!((decoded.moved, decoded.events.len(), decoded.rejected.len()), (1, 0, 0));
        let forwarded = forward_moved(&entry, 0, &now);
        assert_eq!(forwarded.entries.keys().copied().collect::<Vec<_>>(), [2]);
        let stays = user(&|id| partition_of(id, 4) == 0);
        assert_eq!(decode(&heartbeat(&stays), 0, &now).events.len(), 1);
        // Under three partitions it was either forwarded or stayed.
        let three = Former { done: Some(ID), ..Former::new(3, u64::MAX) };
        let after = Rules { moved_from: vec![now.moved_from[0], three], ..rules(4) };
        let was_here = partition_of(&goes, 3) == 0;
        let forwarded = forward_moved(&entry, 0, &after);
        assert_eq!(forwarded.entries.len(), usize::from(was_here));
        let is_back = user(&|id| partition_of(id, 4) == 0 && partition_of(id, 3) != 0);
        assert_eq!(decode(&heartbeat(&is_back), 0, &after).events.len(), 0, "it comes from there");
        assert!(forward_moved(&heartbeat(&stays), 0, &now).entries.is_empty());
        let over = Rules { moved_from: vec![Former::new(2, ID.ms)], ..rules(4) };
        assert_eq!(decode(&entry, 0, &over).rejected.len(), 1, "no longer forwarded");
        let one = Rules { moved_from: vec![ONE], ..rules(4) };
        assert_eq!(decode(&entry, 0, &one).rejected.len(), 1, "that stream had another name");
        let never = user(&|id| partition_of(id, 2) == 1);
        assert_eq!(decode(&heartbeat(&never), 0, &now).rejected.len(), 1);
    }
    #[test]
    fn a_partition_of_several_layouts_before_takes_what_any_of_them_sent() {
        let sent = |belongs: &dyn Fn(&str) -> bool| {
            let user = (0..).map(|n| format!("u{n}")).find(|id| belongs(id)).unwrap();
            entry(&[("type", "heartbeat"), ("user", &user)])
        };
        let former = Former::new;
        let formers = [former(4, ID.ms + 1), former(3, u64::MAX)];
        let is = |id: &str, four: bool, three: bool| {
            (partition_of(id, 4) == 2) == four && (partition_of(id, 3) == 2) == three
        };
        for (four, three) in [(true, true), (true, false), (false, true)] {
            let entry = sent(&|id| is(id, four, three));
            let forwarded = forward(&entry, 2, &formers, &rules(2)).unwrap();
            assert_eq!((forwarded.entries.len(), forwarded.letters.len()), (1, 0));
        }
        let never = sent(&|id| is(id, false, false));
        assert_eq!(forward(&never, 2, &formers, &rules(2)).unwrap().letters.len(), 1);
        // The older layout no longer counts.
        let of_four = sent(&|id| is(id, true, false));
        let later = [former(4, ID.ms), former(3, u64::MAX)];
        assert_eq!(forward(&of_four, 2, &later, &rules(2)).unwrap().letters.len(), 1);
        assert_eq!(forward(&of_four, 2, &later[..1], &rules(2)), None);
    }
}
