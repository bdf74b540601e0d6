//! Whose an entry is, in every form, and what is left of it.

use super::*;
use crate::decode::decode;
use crate::event::Limits;
use crate::format::Format;

const ID: EntryId = EntryId { ms: 1_790_000_000_000, seq: 3 };
const LATER: EntryId = EntryId { ms: 1_790_000_900_000, seq: 0 };

fn rules() -> Rules {
    Rules { limits: Limits::default(), max_skew_ms: 60_000, partitions: 1, moved_from: Vec::new() }
}

fn entry(fields: &[(&str, &str)]) -> Entry {
    Entry::new(ID, fields.iter().copied())
}

fn share(user: &str, entry: &Entry) -> Share {
    Theirs::new(user).share(entry, &rules(), 0)
}

#[test]
fn an_event_is_whose_it_says_that_it_is_and_names_tokens_and_sessions() {
    let login = entry(&[
        ("type", "login"),
        ("user", "ann"),
        ("token", "t|1"),
        ("sid", "s\n1"),
        ("ip", "bob"),
    ]);
    let mut ann = Theirs::new("ann");
    assert_eq!(ann.share(&login, &rules(), 0), Share::All);
    assert_eq!(
        (ann.tokens.first().unwrap().as_str(), ann.sids.first().unwrap().as_str()),
        ("t|1", "s\n1")
    );
    for other in ["an", "anna", "Ann", "bob", "login"] {
        assert_eq!(share(other, &login), Share::None, "{other}");
    }
    // Events of the user's session that name nobody.
    let data = entry(&[("type", "session"), ("sid", "s\n1"), ("data", "{\"a\":1}")]);
    assert_eq!(ann.share(&data, &rules(), 0), Share::All);
    assert_eq!(share("ann", &data), Share::None);
    let theirs = entry(&[("type", "session"), ("sid", "s\n1"), ("user", "bob")]);
    assert_eq!(ann.share(&theirs, &rules(), 0), Share::None);
}

#[test]
fn of_packed_events_the_others_are_left_with_their_times() {
    let json = r#"[{"type":"view","user":"ann","token":"a","item":"i"},
        {"type":"view","user":"bob","token":"b","item":"i"},
        {"type":"vew","user":"ann"}, {"type":"vew","user":"cy"}, 7, "ann",
        {"type":"heartbeat","user":"anna","time":1789999999000}]"#;
    let entry = entry(&[("source", "ann"), ("user", "ann"), ("data", json)]);
    let Share::Some(data) = share("ann", &entry) else { panic!("some is hers") };
    let left = rest(&entry, data, &rules(), 0);
    assert_eq!(left.len(), 1);
    let again = Entry::new(LATER, left[0].iter().map(|(n, v)| (n.as_slice(), v.as_slice())));
    let all: Vec<u8> = again.fields().flat_map(|(n, v)| [n, v].concat()).collect();
    assert!(!String::from_utf8(all).unwrap().contains("ann\""), "{left:?}");
    let found = decode(&again, 0, &rules());
    let times: Vec<_> =
        found.events.iter().map(|e| (e.kind.user().to_string(), e.time.millis())).collect();
    assert_eq!(times, [("bob".to_owned(), ID.ms), ("anna".to_owned(), 1_789_999_999_000)]);
    assert_eq!(found.rejected.len(), 2, "what is no event of others stays");
    assert_eq!(share("ann", &again), Share::None);
    assert_eq!(share("nobody", &entry), Share::None);
}

#[test]
fn the_rest_of_what_had_its_effect_counts_no_view_and_makes_no_letter() {
    let json = r#"[{"type":"view","user":"bob","token":"b","item":"i"},{"type":"vew"}]"#;
    for fields in [
        vec![("rest_of", "1-1"), ("data", json)],
        vec![("rest_of", "1-1"), ("type", "view"), ("user", "b"), ("token", "t"), ("item", "i")],
    ] {
        let entry = entry(&fields);
        let decoded = decode(&entry, 0, &rules());
        assert!(decoded.is_rest && decoded.events.len() == 1 && decoded.rejected.is_empty());
        assert_eq!(decoded.events[0].unknown.count, 0, "it is a known name");
    }
    assert!(!decode(&entry(&[("data", json)]), 0, &rules()).is_rest);
}

#[test]
fn a_rest_that_is_cut_once_more_stays_one() {
    let view =
        |user: &str| serde_json::json!({"type": "view", "user": user, "token": user, "item": "i"});
    for left in [vec![view("bob")], vec![view("bob"), view("cy")]] {
        let all = [vec![view("ann")], left.clone()].concat();
        let json = serde_json::to_string(&all).unwrap();
        let entry = entry(&[("rest_of", "1-1"), ("data", &json)]);
        let Share::Some(data) = share("ann", &entry) else { panic!("some is hers") };
        for fields in rest(&entry, data, &rules(), 0) {
            let again = Entry::new(LATER, fields);
            let decoded = decode(&again, 0, &rules());
            assert!(decoded.is_rest && decoded.events.len() == left.len(), "{again:?}");
        }
    }
}

#[test]
fn what_is_no_event_is_theirs_if_it_names_them_and_nobody_elses() {
    for (user, fields, is_theirs) in [
        ("ann", &[("type", "hb"), ("user", "ann")][..], true),
        ("ann", &[("type", "hb"), ("user", "anna"), ("page", "ann")], false),
        ("ann", &[("kind", "offline"), ("user", "ann")], true),
        ("ann", &[("data", "{\"type\":\"hb\",\"user\":\"ann\"}")], true),
        ("ann", &[("data", "{\"type\":\"hb\",\"user\":\"anna\"}")], false),
        ("ann", &[("data", "{\"type\":\"heartbeat\",\"user\":\"ann\"")], true),
        ("ann", &[("data", "{\"type\":\"heartbeat\",\"user\":\"anna\"")], false),
        ("a\n\"", &[("data", "{\"user\":\"a\\n\\\"\"")], true),
        ("type", &[("type", "hb"), ("data", "{\"type\":\"hb\"")], false),
        ("view", &[("type", "vew"), ("was", "view")], false),
        ("|", &[("data", "{\"user\":\"a|b\"")], false),
        ("ann", &[("type", "view"), ("data", "[{\"type\":\"view\",\"user\":\"ann\"}]")], true),
        ("ann", &[("type", "view"), ("data", "[{\"type\":\"view\",\"user\":\"bob\"}]")], false),
    ] {
        let expected = if is_theirs { Share::All } else { Share::None };
        assert_eq!(share(user, &entry(fields)), expected, "{user:?} {fields:?}");
    }
}

#[test]
fn message_pack_is_cut_and_searched_as_well() {
    let event = |user: &str| serde_json::json!({"type": "heartbeat", "user": user});
    let packed = rmp_serde::to_vec(&[event("ann"), event("anna"), event(&"x".repeat(40))]).unwrap();
    let fields = [(&b"datacontenttype"[..], &b"application/msgpack"[..]), (b"data", &packed)];
    let whole = Entry::new(ID, fields);
    let Share::Some(data) = share("ann", &whole) else { panic!("some is hers") };
    assert_eq!(
        data,
        Format::MessagePack.array_of(&[
            rmp_serde::to_vec(&event("anna")).unwrap(),
            rmp_serde::to_vec(&event(&"x".repeat(40))).unwrap(),
        ])
    );
    let broken = &packed[..packed.len() - 1];
    let broken =
        Entry::new(ID, [(&b"datacontenttype"[..], &b"application/msgpack"[..]), (b"data", broken)]);
    assert_eq!(share("ann", &broken), Share::All);
    assert_eq!(share("an", &broken), Share::None);
    let long = rmp_serde::to_vec(&event(&"x".repeat(40))).unwrap();
    assert!(Theirs::new(&"x".repeat(40)).is_named_in(&long));
    assert!(!Theirs::new(&"x".repeat(39)).is_named_in(&long));
}
