//! The model's own rules, by examples worked out by hand: who wins, and what ends what.

use super::*;
use rollcall::entry::Field;

/// The instant of all examples; entries are added at about this time.
pub(super) const NOW: u64 = 1_790_000_000_000;

/// An entry of flat fields, written `type heartbeat user alice`.
pub(super) fn entry(ms: u64, seq: u64, words: &str) -> Entry {
    let words: Vec<_> = words.split(' ').collect();
    Entry::new(EntryId { ms, seq }, words.chunks(2).map(|pair| (pair[0], pair[1])))
}

/// A model to which these entries were applied: milliseconds relative to now, and fields.
pub(super) fn applied(settings: Settings, entries: &[(i64, &str)]) -> Model {
    let mut model = Model::new(settings, 0);
    for (seq, (ago, words)) in (0..).zip(entries) {
        model.apply_entry(&entry(NOW.strict_add_signed(*ago), seq, words), NOW);
    }
    model
}

/// The state now.
pub(super) fn state(entries: &[(i64, &str)]) -> State {
    applied(Settings::default(), entries).state(NOW)
}

/// The fields or members of a key: name → value or score.
pub(super) fn fields(state: &State, key: &str) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.clone()).unwrap();
    match state.get(key.as_bytes()).map(|(value, _)| value) {
        None => Vec::new(),
        Some(Value::Hash(fields)) => fields.iter().map(|(n, v)| (text(n), text(v))).collect(),
        Some(Value::Zset(members)) => members.iter().map(|(m, s)| (text(m), s.clone())).collect(),
        Some(Value::Set(members)) => members.iter().map(|m| (text(m), String::new())).collect(),
        Some(Value::Str(value)) => vec![(String::new(), text(value))],
        Some(Value::Other(kind)) => panic!("{key} is a {kind}"),
    }
}

pub(super) fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

/// The names of all keys.
pub(super) fn names(state: &State) -> Vec<String> {
    state.keys().map(|name| String::from_utf8(name.clone()).unwrap()).collect()
}

#[test]
fn a_full_heartbeat_reaches_every_structure() {
    let words =
        "type heartbeat user al|ce ip 10.0.0.7 ua moz page /a token k sid s doc d connection c";
    let state = state(&[(-500, words)]);
    let t = "1789999999500";
    let presence =
        format!(r#"{{"lastSeen":{t},"user":"al|ce","ip":"10.0.0.7","ua":"moz","page":"/a"}}"#);
    assert_eq!(fields(&state, "presence:users"), pairs(&[("al%7Cce|10.0.0.7", &presence)]));
    let addresses = fields(&state, "rollcall:presence:addresses");
    assert_eq!(addresses, pairs(&[("al|ce", "10.0.0.7")]));
    let session = format!(
        r#"{{"last_activity":{t},"sid":"s","session_id":"s","user":"al|ce","ip":"10.0.0.7","ua":"moz"}}"#
    );
    assert_eq!(fields(&state, "sessions:active"), pairs(&[("s", &session)]));
    assert_eq!(fields(&state, "recent:"), pairs(&[("k", "1789999999.5")]));
    assert_eq!(fields(&state, "rollcall:docs:joined"), pairs(&[("d|al%7Cce|c", t)]));
    assert_eq!(fields(&state, "rollcall:docs:connections"), pairs(&[("d|al%7Cce", "1")]));
    let expiry = |name: &str| state[name.as_bytes()].1;
    assert_eq!(expiry("online-users/29833333"), Some(29_833_333 * 60_000 + 370_000));
    assert_eq!(expiry("user-activity/al|ce"), Some(1_789_999_999_000 + 310_000));
    let others = ["login:", "sessions:doc:d:count", "sessions:doc:d:users"];
    assert!(others.iter().all(|name| expiry(name).is_none()));
    assert_eq!(state.len(), 11);
}

#[test]
fn presence_goes_to_the_last_then_the_ending_then_the_greater_bytes() {
    let presence = |entries: &[(i64, &str)]| {
        let state = state(entries);
        let page = fields(&state, "presence:users").pop().map(|(_, value)| value);
        (page, fields(&state, "rollcall:presence:ended").pop().map(|(_, t)| t))
    };
    let (a, b) = ("type heartbeat user u ip i page /a", "type heartbeat user u ip i page /b");
    let out = "type logout user u ip i";
    let value = |t: u64, page: &str| {
        Some(format!(r#"{{"lastSeen":{t},"user":"u","ip":"i","ua":"","page":"{page}"}}"#))
    };
    assert_eq!(presence(&[(-1, b), (-2, a)]), (value(NOW - 1, "/b"), None));
    assert_eq!(presence(&[(-2, b), (-2, a)]), (value(NOW - 2, "/b"), None));
    let ended = Some((NOW - 2).to_string());
    assert_eq!(presence(&[(-2, out), (-2, b)]), (None, ended.clone()));
    assert_eq!(presence(&[(-1, a), (-2, out)]), (value(NOW - 1, "/a"), ended));
    assert_eq!(presence(&[(-300_000, out), (-299_999, a)]).1, None);
    assert_eq!(presence(&[(-300_000, out)]), (None, None));
}

#[test]
fn a_logout_without_address_ends_what_its_user_has_anywhere_and_nothing_newer() {
    let state = state(&[
        (-9, "type heartbeat user a|b"),
        (-9, "type heartbeat user a|b ip i|1"),
        (-4, "type logout user a|b"),
        (-4, "type heartbeat user a|b ip late"),
        (-3, "type heartbeat user a|b ip new"),
        (-3, "type heartbeat user a|b ip j"),
        (-9, "type heartbeat user a%7Cb ip other"),
        (-5, "type logout user a|b"),
        (-2, "type logout user a|b ip j"),
    ]);
    let present: Vec<_> = fields(&state, "presence:users").into_iter().map(|(f, _)| f).collect();
    assert_eq!(present, ["a%257Cb|other", "a%7Cb|new"]);
    let ended = [("a%7Cb", "1789999999996"), ("a%7Cb|j", "1789999999998")];
    assert_eq!(fields(&state, "rollcall:presence:ended"), pairs(&ended));
    let addresses = fields(&state, "rollcall:presence:addresses");
    assert_eq!(addresses, pairs(&[("a%7Cb", "other"), ("a|b", "new")]));
}

#[test]
fn addresses_stand_in_order_in_one_value_and_in_a_sorted_set_where_they_are_many() {
    let beats: Vec<_> = (10..27).map(|n| format!("type heartbeat user u|v ip {n}|")).collect();
    let index = |count: usize| {
        let entries: Vec<_> = beats[..count].iter().map(|beat| (-1, beat.as_str())).collect();
        let state = state(&entries);
        let crowd = fields(&state, "rollcall:presence:crowds");
        (fields(&state, "rollcall:presence:addresses").pop().unwrap().1, crowd)
    };
    assert_eq!(index(2), ("10%7C|11%7C".to_owned(), vec![]));
    assert_eq!(index(16).1, []);
    let (value, crowd) = index(17);
    assert_eq!((value.as_str(), crowd.len()), ("%", 17));
    assert_eq!(crowd[0], ("u%7Cv|10%7C".to_owned(), "0".to_owned()));
}

#[test]
fn a_token_that_ended_leaves_no_trace_but_its_views_count() {
    let state = state(&[
        (-90_000_000, "type logout user u token k"),
        (-5, "type view user u token k item i"),
        (-9, "type logout user u token k"),
        (-1, "type login user u token k"),
    ]);
    assert_eq!(fields(&state, "rollcall:tokens:ended"), pairs(&[("k", "1789999999991")]));
    assert_eq!(fields(&state, "viewed:"), pairs(&[("i", "1")]));
    for gone in ["login:", "recent:", "viewed:k"] {
        assert!(!state.contains_key(gone.as_bytes()), "{gone}");
    }
}

#[test]
fn a_tombstone_is_forgotten_after_the_horizon_but_not_its_effect() {
    let settings = Settings { horizon_ms: 1000, ..Settings::default() };
    let entries =
        [(0, "type login user u token k sid s"), (-9, "type logout user u token k sid s")];
    // The newest entry may be older than now, and no later entry is older than it.
    for (newest, now, remembered) in [(992, 991, true), (991, 992, true), (992, 992, false)] {
        let entries = [entries[0], entries[1], (newest, "type login user other token other")];
        let state = applied(settings.clone(), &entries).state(NOW.strict_add_signed(now));
        for name in ["rollcall:tokens:ended", "rollcall:sessions:ended"] {
            assert_eq!(state.contains_key(name.as_bytes()), remembered);
        }
        assert_eq!(fields(&state, "login:"), pairs(&[("other", "other")]));
        assert!(!state.contains_key(&b"sessions:active"[..]));
    }
}

#[test]
fn a_token_belongs_to_its_last_user_then_to_the_one_of_greater_bytes() {
    let user = |entries: &[(i64, &str)]| fields(&state(entries), "login:");
    let (ann, bob) = ("type view user ann token k item i", "type login user bob token k");
    assert_eq!(user(&[(-1, ann), (-2, bob)]), pairs(&[("k", "ann")]));
    assert_eq!(user(&[(-2, ann), (-2, bob)]), pairs(&[("k", "bob")]));
}

#[test]
fn every_view_counts_once_whatever_the_entry_packs_and_however_often_it_comes() {
    let view = r#"{"type":"view","user":"u","token":"k","item":"i"}"#;
    let data = format!("[{view},{view},7]");
    let packed = Entry::new(EntryId { ms: NOW, seq: 0 }, [("data", &*data)]);
    let mut model = Model::new(Settings::default(), 0);
    model.apply_entry(&packed, NOW);
    model.apply_entry(&packed, NOW + 5);
    model.apply_entry(&entry(NOW, 1, "type view user u token k item i"), NOW);
    assert_eq!(fields(&model.state(NOW), "viewed:"), pairs(&[("i", "3")]));
    assert_eq!(model.dead(), [(packed.id, "invalid_json".to_owned(), Some(2))]);
}

fn field(name: &str, value: &str) -> Field {
    (name.into(), value.into())
}

#[test]
fn session_data_outlives_its_own_time_with_the_session_and_dies_with_it() {
    let entries = [
        (-900_000, r#"type session sid s user u data {"a":1}"#),
        (-900_000, r#"type session sid s user u data {"a":0}"#),
        (-1_800_000, r#"type session sid s user u data {"z":1}"#),
        (-10, "type heartbeat user v sid s"),
        (-20, r#"type session sid s user u data {"b":2}"#),
        (-900_000, r#"type session sid ended data {"a":1}"#),
        (-1_000_000, "type session sid ended action terminate"),
    ];
    let model = applied(Settings::default(), &entries);
    let state = model.state(NOW);
    let expiry = NOW - 10 + 1_800_000;
    let expected = (Value::Str(br#"{"b":2}"#.to_vec()), Some(expiry));
    assert_eq!(state[&b"session:s"[..]], expected);
    assert_eq!(fields(&state, "rollcall:sessions:data"), pairs(&[("s", "1789999999980")]));
    assert!(!state.contains_key(&b"session:ended"[..]));
    assert_eq!(fields(&state, "rollcall:sessions:ended"), pairs(&[("ended", "1789999000000")]));

    let without_new_data = applied(Settings::default(), &entries[..4]).state(NOW);
    assert_eq!(
        without_new_data[&b"session:s"[..]],
        (Value::Str(br#"{"a":1}"#.to_vec()), Some(expiry))
    );
    let left: Vec<_> =
        names(&model.state(expiry)).into_iter().filter(|n| n.contains("session")).collect();
    assert_eq!(left, ["rollcall:sessions:ended"]);
}

#[test]
fn a_user_is_in_a_document_while_any_connection_is() {
    let join = "type document doc d user u action join";
    let join_c = "type document doc d user u action join connection c";
    let leave = "type document doc d user u action leave";
    let count = |entries: &[(i64, &str)]| fields(&state(entries), "sessions:doc:d:count");
    assert_eq!(count(&[(-5, join), (-4, join_c), (-3, leave)]), pairs(&[("", "1")]));
    assert_eq!(count(&[(-5, join), (-5, leave)]), []);
    assert_eq!(count(&[(-4, join), (-5, leave)]), pairs(&[("", "1")]));
    let state = state(&[(-5, join), (-9, join_c), (-3, leave)]);
    assert_eq!(fields(&state, "rollcall:docs:left"), pairs(&[("d|u|", "1789999999997")]));
    assert_eq!(fields(&state, "rollcall:docs:joined"), pairs(&[("d|u|c", "1789999999991")]));
    assert_eq!(fields(&state, "rollcall:docs:connections"), pairs(&[("d|u", "1")]));
}

#[test]
fn a_level_is_open_strictly_between_down_and_up() {
    let settings = Settings { thresholds: vec![(2, 0), (3, 1), (4, 3)], ..Settings::default() };
    let join = |user: &str| format!("type document doc a:b|c user {user} action join");
    let (ann, bob) = (join("ann"), join("bob"));
    let levels = |entries: &[(i64, &str)]| {
        let model = applied(settings.clone(), entries);
        let open = model.open(NOW).into_keys().collect::<Vec<_>>();
        (fields(&model.state(NOW), "rollcall:docs:levels"), open)
    };
    let open = |level: &str| vec![format!("rollcall:docs:levels[{level}:a:b%7Cc]")];
    let two = levels(&[(-1, &ann), (-1, &bob)]);
    assert_eq!(two, (pairs(&[("2:0:a:b%7Cc", "1")]), open("3:1")));
    assert_eq!(levels(&[(-1, &ann)]), (vec![], open("2:0")));
}
