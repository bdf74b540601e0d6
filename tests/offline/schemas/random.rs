//! Random events: a schema accepts exactly what the decoder accepts.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngSeed, TestRunner};

use super::*;

/// A value for a text member: mostly valid, sometimes absent, too long or no text. Long values are ASCII, because
/// JSON Schema and the decoder count the same there.
fn text(longest: usize) -> impl Strategy<Value = Value> {
    prop_oneof![
        20 => r#"[a-z|%{}:/\n\x00"é🦀]{1,6}"#.prop_map(Value::from),
        1 => (longest..=longest + 1).prop_map(|length| "x".repeat(length).into()),
        2 => absent(),
        1 => no_text(),
    ]
}

fn absent() -> impl Strategy<Value = Value> {
    select(vec![Value::Null, json!("")])
}

fn no_text() -> impl Strategy<Value = Value> {
    select(vec![json!(0), json!(-42), json!(0.5), json!(true), json!([]), json!({"user": "alice"})])
}

/// JSON in base64, sometimes in another alphabet or cut off.
fn base64() -> impl Strategy<Value = Value> {
    let texts = select(vec!["1", "12", r#"{"a":"???"}"#, "null", "[]", r#""~~~""#]);
    prop_oneof![
        6 => texts.prop_map(|text| json!(STANDARD.encode(text))),
        2 => "[A-Za-z0-9+/]{2,3}={0,2}".prop_filter("may hold no JSON", |text| STANDARD.decode(text).is_err())
            .prop_map(Value::from),
        1 => absent(),
        1 => no_text(),
    ]
}

fn media_type() -> impl Strategy<Value = Value> {
    let types = ["application/json", "text/plain", "application/octet-stream; x=y", "TEXT/PLAIN"];
    prop_oneof![4 => select(types.to_vec()).prop_map(Value::from), 1 => absent(), 1 => no_text()]
}

fn one_of(words: &[&'static str]) -> impl Strategy<Value = Value> {
    prop_oneof![
        20 => select(words.to_vec()).prop_map(Value::from),
        1 => "[a-zA-Z]{1,9}".prop_map(Value::from),
        1 => absent(),
        1 => no_text(),
    ]
}

fn time() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (1_000_000_000_000..=9_999_999_999_999_u64).prop_map(Value::from),
        1 => select(vec![json!(999_999_999_999_u64), json!(10_000_000_000_000_u64)]),
        1 => any::<i64>().prop_map(Value::from),
        1 => "[0-9]{12,14}".prop_map(Value::from),
        1 => r"[1-9][0-9]{12}\.0{0,3}".prop_map(Value::from),
        2 => (999_999_999_998_f64..10_000_000_000_002.0).prop_map(|ms| json!(ms.round())),
        1 => "[0-9TZ:.+ -]{1,25}".prop_map(Value::from),
        1 => absent(),
        1 => no_text(),
        8 => date_time().prop_map(Value::from),
    ]
}

fn ttl() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (1..=2_592_000_u32).prop_map(Value::from),
        3 => (1..=2_592_000_u32).prop_map(|seconds| seconds.to_string().into()),
        1 => select(vec![json!(2_592_000), json!(2_592_001), json!("2592001"), json!(u64::MAX)]),
        1 => "[0-9]{1,8}".prop_map(Value::from),
        1 => absent(),
        1 => no_text(),
    ]
}

/// RFC 3339, each part sometimes just beyond its limit. Second 60, which exists or not depending on the day in UTC,
/// and the two years that are only partly in range are left out.
fn date_time() -> impl Strategy<Value = String> {
    let year = prop_oneof![8 => 2002..=2285, 1 => 0..=2000, 1 => 2287..=9999, 4 => select(vec![2024, 2026])];
    let month = prop_oneof![9 => 1..=12, 1 => select(vec![0, 13])];
    let day = prop_oneof![9 => 1..=28, 4 => 29..=32, 1 => Just(0)];
    let clock = prop_oneof![
        9 => (0..=23, 0..=59, 0..=59).boxed(),
        1 => (22..=24, 58..=60, 0..=59).boxed(),
    ];
    let fraction = select(vec!["", "", ".1", ".123456789123", ".0", "."]);
    let offset = prop_oneof![
        9 => select(vec!["Z", "z", "+00:00", "-23:59", "+05:30"]).prop_map(String::from),
        2 => (22..=25, 58..=61).prop_map(|(hours, minutes)| format!("+{hours:02}:{minutes:02}")),
        1 => select(vec!["", "+0100", "UTC", "Z\n"]).prop_map(String::from),
    ];
    (year, month, day, "[Tt ]", clock, fraction, offset).prop_map(
        |(year, month, day, between, (hour, minute, second), fraction, offset)| {
            format!(
                "{year:04}-{month:02}-{day:02}{between}\
                 {hour:02}:{minute:02}:{second:02}{fraction}{offset}"
            )
        },
    )
}

fn event() -> impl Strategy<Value = Object> {
    select(TYPES.to_vec()).prop_flat_map(event_like)
}

/// An event of mostly this type, with members that are required or not, and listed for the type or not.
fn event_like(event_type: &'static str) -> impl Strategy<Value = Object> {
    let actions: &[&str] = match event_type {
        "session" => &["update", "terminate"],
        _ => &["join", "leave"],
    };
    let identifier = || text(256).boxed();
    let long_text = || text(16_384).boxed();
    let anything = || prop_oneof![text(256), no_text()].boxed();
    let this_type = prop_oneof![9 => Just(event_type.into()), 1 => one_of(TYPES)];
    let members = [
        ("type", 0.97, this_type.boxed()),
        ("user", 0.9, identifier()),
        ("token", 0.8, identifier()),
        ("sid", 0.8, identifier()),
        ("doc", 0.8, identifier()),
        ("ip", 0.3, identifier()),
        ("item", 0.8, identifier()),
        ("connection", 0.3, identifier()),
        ("ua", 0.3, long_text()),
        ("page", 0.3, long_text()),
        ("action", 0.9, one_of(actions).boxed()),
        ("time", 0.6, time().boxed()),
        ("ttl", 0.2, ttl().boxed()),
        ("data", 0.3, anything()),
        ("data_base64", 0.1, base64().boxed()),
        ("datacontenttype", 0.1, media_type().boxed()),
        ("id", 0.1, anything()),
        ("colour", 0.1, long_text()),
    ];
    let members = members.map(|(name, often, value)| (Just(name), weighted(often, value)));
    members.prop_map(|members| {
        let there = |(name, value): (&str, Option<Value>)| Some((name.to_owned(), value?));
        let mut event: Object = members.into_iter().filter_map(there).collect();
        // Unless it is a session's, an object in data is the content of a CloudEvent, also in a text or in base64.
        let is_object = |data: &Value| {
            data.is_object() || data.as_str().is_some_and(|text| text.trim().starts_with('{'))
        };
        if !has_session_data(&event) {
            event.remove("data_base64");
            event.retain(|name, value| name != "data" || !is_object(value));
        }
        event
    })
}

fn has_session_data(event: &Object) -> bool {
    let is = |name, value: &str| event.get(name).is_some_and(|found| found == value);
    is("type", "session") && event.get("sid").is_some_and(|sid| !sid.is_null() && sid != "")
}

/// Runs a test that returns whether a case was accepted, and checks that both happened often.
fn check<S: Strategy>(cases: S, test: impl Fn(S::Value) -> Result<bool, TestCaseError>) {
    let (accepted, all) = (Cell::new(0_u32), Cell::new(0_u32));
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().build_hasher().finish(),
    };
    config.cases = config.cases.max(1000);
    config.rng_seed = RngSeed::Fixed(seed);
    let outcome = TestRunner::new(config).run(&cases, |case| {
        let fits = test(case)?;
        all.set(all.get() + 1);
        accepted.set(accepted.get() + u32::from(fits));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("PROPTEST_RNG_SEED={seed} {error}");
    }
    let share = accepted.get() * 100 / all.get();
    assert!((10..=90).contains(&share), "{share} % accepted: the cases show too little");
}

#[test]
fn the_schema_accepts_an_event_exactly_if_the_decoder_does() {
    let validators = validators();
    check(event(), |event| {
        let event = Value::Object(event);
        let fits = validators["events/event"].is_valid(&event);
        let outcome = decode_json(&event);
        prop_assert_eq!(outcome.is_ok(), fits, "{:?}", outcome);
        prop_assert_eq!(decode_msgpack(&event), outcome);
        Ok(fits)
    });
}

#[test]
fn the_schema_and_the_decoder_have_the_same_leap_years() {
    let validators = validators();
    for year in 0..=9999 {
        let time = format!("{year:04}-02-29T12:00:00Z");
        let event = json!({"type": "heartbeat", "user": "alice", "time": time});
        let fits = validators["events/heartbeat"].is_valid(&event);
        assert_eq!(decode_json(&event).is_ok(), fits, "{time}");
    }
}

#[test]
fn the_schema_accepts_a_flat_entry_exactly_if_the_decoder_does() {
    let validators = validators();
    let flat_event = event().prop_filter_map("data would be an envelope, or no text", |event| {
        let data = event.get("data").is_some_and(|data| !data.is_null() && data != "");
        flat(&event).filter(|_| !data || has_session_data(&event))
    });
    check(flat_event, |fields| {
        let outcome = decode_entry(&fields);
        let fits = validators["entries/flat"].is_valid(&Value::Object(fields));
        prop_assert_eq!(outcome.is_ok(), fits, "{:?}", outcome);
        Ok(fits)
    });
}

#[test]
fn the_schema_accepts_packed_events_exactly_if_the_decoder_takes_them_all() {
    let validators = validators();
    check(vec(event(), 0..4), |events| {
        let packed = Value::from(events.into_iter().map(Value::Object).collect::<Vec<_>>());
        let fits = validators["events/packed"].is_valid(&packed);
        let outcome = decode_json(&packed);
        prop_assert_eq!(outcome.is_ok(), fits, "{:?}", outcome);
        prop_assert_eq!(decode_msgpack(&packed), outcome);
        Ok(fits)
    });
}

#[test]
fn what_the_schema_of_structured_cloudevents_accepts_decodes() {
    let validators = validators();
    check(event(), |event| {
        let (mut structured, data) = cloudevent_parts(&event);
        structured.insert("data".into(), data.into());
        let structured = Value::Object(structured);
        let fits = validators["events/cloudevent"].is_valid(&structured);
        let outcome = decode_json(&structured);
        prop_assert_eq!(outcome.is_ok(), fits, "{:?}", outcome);
        prop_assert_eq!(decode_msgpack(&structured), outcome);
        Ok(fits)
    });
}

#[test]
fn every_way_to_write_an_event_is_accepted_alike() {
    check(event(), |mut event| {
        if !has_session_data(&event) {
            event.remove("data");
        }
        // Members that the type does not list are only measured as fields of the entry.
        event.retain(|_, value| value.as_str().is_none_or(|text| text.len() <= 16_384));
        let outcomes = decode_every_way(&Value::Object(event));
        let fits = outcomes[0].1.is_ok();
        for (way, outcome) in outcomes {
            prop_assert_eq!(outcome.is_ok(), fits, "{}: {:?}", way, outcome);
        }
        Ok(fits)
    });
}
