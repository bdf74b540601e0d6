//! Dead letters of every form, retried.

use super::*;
use crate::event::Limits;

const FIRST: EntryId = EntryId { ms: 1_790_000_000_000, seq: 7 };

fn rules(partitions: u16) -> Rules {
    Rules { limits: Limits::default(), max_skew_ms: 60_000, partitions, moved_from: Vec::new() }
}

fn fields(pairs: &[(&str, &[u8])]) -> Vec<Field> {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
}

fn retry(pairs: &[(&str, &[u8])], index: Option<u64>, set: &[(&str, &str)]) -> Retry {
    let fields = fields(pairs);
    let set: Vec<_> = set.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Original { entry: FIRST, index, fields: &fields }.retry(&set, &rules(1), 0).unwrap()
}

/// The effect of the entry when it is added a year later: types, times and users.
fn events(retry: &Retry) -> Vec<(String, u64, String)> {
    let entry = Entry::new(EntryId { ms: FIRST.ms + 31_536_000_000, seq: 0 }, retry.fields.clone());
    let decoded = decode(&entry, 0, &rules(1));
    let mut events = decoded.events;
    let one = |event: &mut Event<'_>| {
        let user = event.kind.sender_mut().user.clone().into_owned();
        (event.kind.name().to_owned(), event.time.millis(), user)
    };
    events.iter_mut().map(one).collect()
}

fn heartbeat(ms: u64, user: &str) -> (String, u64, String) {
    ("heartbeat".to_owned(), ms, user.to_owned())
}

fn field<'r>(retry: &'r Retry, name: &str) -> &'r str {
    let field = retry.fields.iter().rfind(|(other, _)| other == name.as_bytes());
    field.map_or("", |(_, value)| std::str::from_utf8(value).unwrap())
}

#[test]
fn an_event_keeps_its_time_in_every_form() {
    let ms = FIRST.ms;
    let future = (ms + 3_600_000).to_string();
    let msgpack = |value: &serde_json::Value| rmp_serde::to_vec(value).unwrap();
    let json = |text: &str| text.to_owned().into_bytes();
    let plain = serde_json::json!({"type": "heartbeat", "user": "a"});
    for (data, content_type, expected) in [
        (json(r#"{"type":"heartbeat","user":"a"}"#), "", ms),
        (json(r#" {"type":"heartbeat","user":"a","time":null} "#), "", ms),
        (json(r#"{"type":"heartbeat","user":"a","time":1789999999000}"#), "", ms - 1_000),
        (json(&format!(r#"{{"type":"heartbeat","user":"a","time":{future}}}"#)), "", ms + 60_000),
        (json(r#"{"specversion":"1.0","type":"heartbeat","data":{"user":"a"}}"#), "", ms),
        (
            json(&format!(r#"{{"type":"heartbeat","data":{{"user":"a","time":{future}}},"x":1}}"#)),
            "",
            ms + 60_000,
        ),
        (json(r#"{"type":"heartbeat","data":"{\"user\":\"a\"}"}"#), "", ms),
        (
            json(&format!(
                r#"{{"type":"heartbeat","data":"{{\"user\":\"a\",\"time\":{future}}}"}}"#
            )),
            "",
            ms + 60_000,
        ),
        (msgpack(&plain), "application/msgpack", ms),
        (json(r#""{\"type\":\"heartbeat\",\"user\":\"a\"}""#), "", ms),
    ] {
        let pairs = [("datacontenttype", content_type.as_bytes()), ("data", &data[..])];
        let again = retry(&pairs, None, &[]);
        let shown = String::from_utf8_lossy(&data).into_owned();
        assert_eq!(events(&again), [heartbeat(expected, "a")], "{shown}");
        assert_eq!((again.fails, field(&again, RETRY_OF)), (None, "1790000000000-7"), "{shown}");
    }
    let flat = retry(&[("type", b"heartbeat"), ("user", b"a"), ("x", b"\xff\n")], None, &[]);
    assert_eq!(events(&flat), [heartbeat(ms, "a")]);
    assert_eq!(flat.fields[2], (b"x".to_vec(), b"\xff\n".to_vec()), "all else stays");
    let later =
        retry(&[("type", b"heartbeat"), ("user", b"a"), ("time", future.as_bytes())], None, &[]);
    assert_eq!(events(&later), [heartbeat(ms + 60_000, "a")]);
}

#[test]
fn packed_events_keep_their_times_and_what_is_none_its_bytes() {
    let data = br#"[{"type":"heartbeat","user":"a"},7,{"type":"x"},
        {"type":"heartbeat","user":"b","time":1789999999000},{"type":"x","time":1}]"#;
    let again = retry(&[("data", data)], None, &[]);
    assert_eq!(events(&again), [heartbeat(FIRST.ms, "a"), heartbeat(FIRST.ms - 1_000, "b")]);
    assert_eq!(again.fails, Some(Reason::InvalidJson));
    let text = field(&again, "data");
    assert!(text.contains(r#",7,{"type":"x","time":"1790000000000"},"#), "{text}");
    assert!(text.contains(r#"{"type":"x","time":1}]"#), "{text}");
    let broken = retry(&[("data", b"[{\"type\":\"heartbeat\",\"user\":\"a\"},")], None, &[]);
    assert_eq!((field(&broken, "data").len(), broken.fails), (33, Some(Reason::InvalidJson)));
}

#[test]
fn an_element_is_tried_alone_and_what_stands_around_it_does_not_count() {
    let element = br#"{"type":"heartbeat"}"#;
    let pairs = [("user", &b"around"[..]), ("data", element)];
    assert_eq!(retry(&pairs, Some(3), &[]).fails, Some(Reason::MissingField));
    let again = retry(&pairs, Some(3), &[("user", "a\n\"b")]);
    assert_eq!(events(&again), [heartbeat(FIRST.ms, "a\n\"b")]);
    assert_eq!(field(&again, RETRY_OF), "1790000000000-7/3");
    // Arrays inside arrays are not events, and do not become any.
    let nested = br#"[{"type":"heartbeat","user":"a"}]"#;
    assert_eq!(retry(&[("data", nested)], Some(0), &[]).fails, Some(Reason::InvalidJson));
    let map = rmp_serde::to_vec(&serde_json::json!({"type": "heartbeat"})).unwrap();
    let pairs = [("datacontenttype", &b"application/msgpack"[..]), ("data", &map)];
    assert_eq!(events(&retry(&pairs, Some(0), &[("user", "a")])), [heartbeat(FIRST.ms, "a")]);
    let set = [("data", r#"{"type":"heartbeat","user":"new"}"#)];
    assert_eq!(events(&retry(&pairs[1..], Some(0), &set)), [heartbeat(FIRST.ms, "new")]);
}

#[test]
fn a_member_is_set_where_it_counts() {
    for data in [
        &br#"{"type":"logn","user":"a"}"#[..],
        br#"{"type":"heartbeat","data":{"type":"logn","user":"a"}}"#,
        br#"[{"type":"logn","user":"a"}]"#,
    ] {
        let again = retry(&[("type", b""), ("data", data)], None, &[("type", "heartbeat")]);
        let shown = String::from_utf8_lossy(data);
        assert_eq!(events(&again), [heartbeat(FIRST.ms, "a")], "{shown}");
    }
    let twice = [("type", &b"x"[..]), ("user", b"a"), ("type", b"logn"), ("token", b"t")];
    let again = retry(&twice, None, &[("type", "heartbeat"), ("token", "")]);
    assert_eq!(events(&again), [heartbeat(FIRST.ms, "a")]);
    assert!(again.fields.iter().all(|(name, _)| name != b"token"));
    // A session's own data is not looked into.
    let session = [("type", &b"session"[..]), ("sid", b"s"), ("data", br#"{"user":"inside"}"#)];
    let again = retry(&session, None, &[("user", "a")]);
    assert_eq!(events(&again), [("session".to_owned(), FIRST.ms, "a".to_owned())]);
    assert_eq!(field(&again, "data"), r#"{"user":"inside"}"#);
}

#[test]
fn the_first_entry_stays_named_and_a_name_that_lies_does_not() {
    let twice = retry(&[("type", b"x"), (RETRY_OF, b"1780000000000-3/9")], None, &[]);
    assert_eq!(field(&twice, RETRY_OF), "1780000000000-3/9");
    for lie in [&b"1890000000000-0"[..], b"x", b"1780000000000-3/x", b"1790000000000-7", b"\xff"] {
        let again = retry(&[("type", b"x"), (RETRY_OF, lie)], None, &[]);
        assert_eq!(field(&again, RETRY_OF), "1790000000000-7");
    }
}

#[test]
fn what_has_no_room_for_another_field_is_written_plainly() {
    let names: Vec<String> = (0..62).map(|n| format!("x{n}")).collect();
    let mut pairs: Vec<(&str, &[u8])> =
        names.iter().map(|name| (name.as_str(), &b"y"[..])).collect();
    pairs.extend([("type", &b"heartbeat"[..]), ("user", b"a")]);
    let again = retry(&pairs, None, &[]);
    assert_eq!((events(&again), again.fails), (vec![heartbeat(FIRST.ms, "a")], None));
    assert_eq!(again.fields.len(), 4);
}

#[test]
fn what_cannot_be_tried_stays() {
    let left = |fields: &[Field], rules: &Rules| {
        Original { entry: FIRST, index: None, fields }.retry(&[], rules, 0).unwrap_err()
    };
    assert_eq!(left(&[], &rules(1)), Left::Empty);
    let user =
        (0..).map(|n| format!("u{n}")).find(|u| crate::key::partition_of(u, 4) == 3).unwrap();
    let foreign = fields(&[("type", b"heartbeat"), ("user", user.as_bytes())]);
    assert_eq!(left(&foreign, &rules(4)), Left::Elsewhere);
    let inside = format!(r#"{{\"user\":\"a\",\"time\":{}}}"#, FIRST.ms + 3_600_000);
    let two =
        format!(r#"[{{"type":"heartbeat","data":"{inside}"}},{{"type":"heartbeat","user":"b"}}]"#);
    assert_eq!(left(&fields(&[("data", two.as_bytes())]), &rules(1)), Left::Time);
}

#[test]
fn types_are_those_that_the_events_have_or_claim() {
    let types = |pairs: &[(&str, &[u8])], index| -> Vec<String> {
        let fields = fields(pairs);
        let letter = Original { entry: FIRST, index, fields: &fields };
        letter.types(&rules(1), 0).into_iter().collect()
    };
    assert_eq!(types(&[("type", b"logn"), ("user", b"a")], None), ["logn"]);
    assert_eq!(types(&[("data", br#"{"type":"logn","data":{"type":"x"}}"#)], None), ["x"]);
    assert_eq!(types(&[("data", br#"[{"type":"view"},{"type":"y"},3]"#)], None), ["view", "y"]);
    assert_eq!(types(&[("data", br#"{"type":"view"}"#)], Some(4)), ["view"]);
    assert_eq!(types(&[("data", b"\xff"), ("type", b"\xff")], None), ["\u{fffd}"]);
    assert_eq!(types(&[], None), [""; 0]);
}
