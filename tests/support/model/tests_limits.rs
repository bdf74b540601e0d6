//! The model's limits, by examples: lateness, expiry, caps, switches, partitions; and the two comparisons that depend
//! on the form of a state.

use super::open::{allow, field_of};
use super::tests::{NOW, applied, entry, fields, names, pairs, state};
use super::*;

#[test]
fn what_is_late_has_no_effect_and_what_expires_is_gone_at_the_same_instant() {
    let beat = "type heartbeat user u";
    let last_of = |name: &str, ago: i64| {
        let there =
            |model: &Model, now| names(&model.state(now)).iter().any(|n| n.starts_with(name));
        let late = applied(Settings::default(), &[(-ago, beat)]);
        let in_time = applied(Settings::default(), &[(-ago + 1, beat)]);
        assert!(!there(&late, NOW) && there(&in_time, NOW), "{name} at the instant itself");
        assert!(!there(&in_time, NOW + 60_000), "{name} a minute later");
    };
    last_of("presence:users", 300_000);
    // NOW is a whole second, and 20 s into its minute.
    last_of("user-activity/", 309_001);
    last_of("online-users/", 320_001);
}

#[test]
fn tokens_counts_and_endings_are_never_late() {
    let long_ago = -80_000_000;
    let state = state(&[
        (long_ago, "type view user u token k item i"),
        (long_ago, "type logout user u token gone sid s"),
    ]);
    let expected = [
        "login:",
        "recent:",
        "rollcall:sessions:ended",
        "rollcall:tokens:ended",
        "viewed:",
        "viewed:k",
    ];
    assert_eq!(names(&state), expected);
}

#[test]
fn over_its_cap_recent_keeps_the_newest_by_score_and_member_with_all_that_is_theirs() {
    let settings = Settings { recent_cap: 2, ..Settings::default() };
    let view = |token: &str| format!("type view user of-{token} token {token} item i");
    let [a, b, c, d] = ["a", "b", "c", "d"].map(view);
    let entries =
        [(-5, a.as_str()), (-5, &b), (-5, &c), (-9, &d), (-1, "type logout user u token z")];
    let state = applied(settings, &entries).state(NOW);
    assert_eq!(fields(&state, "login:"), pairs(&[("b", "of-b"), ("c", "of-c")]));
    assert_eq!(
        fields(&state, "recent:"),
        pairs(&[("b", "1789999999.995"), ("c", "1789999999.995")])
    );
    let of_tokens: Vec<_> =
        names(&state).into_iter().filter(|n| n.starts_with("viewed:")).collect();
    assert_eq!(of_tokens, ["viewed:", "viewed:b", "viewed:c"]);
}

#[test]
fn a_token_keeps_the_items_that_were_viewed_last() {
    let settings = Settings { viewed_cap: 2, ranking_cap: 2, ..Settings::default() };
    let view = |item: &str| format!("type view user u token k item {item}");
    let [a, b, c] = ["a", "b", "c"].map(view);
    let entries = [(-1, a.as_str()), (-7, &b), (-7, &c), (-9, &a), (-8, &b), (-6, &a)];
    let state = applied(settings, &entries).state(NOW);
    assert_eq!(
        fields(&state, "viewed:k"),
        pairs(&[("a", "1789999999.999"), ("c", "1789999999.993")])
    );
    assert_eq!(fields(&state, "viewed:"), pairs(&[("a", "3"), ("b", "2")]));
}

#[test]
fn time_is_bounded_by_the_entry() {
    let state = state(&[(0, "type heartbeat user u token k time 1890000000000")]);
    assert_eq!(fields(&state, "recent:"), pairs(&[("k", "1790000060")]));
}

#[test]
fn what_is_switched_off_leaves_nothing_but_tombstones() {
    let mut settings = Settings::default();
    settings.projections.clear();
    let state = applied(
        settings,
        &[
            (-3, "type heartbeat user u token k sid s doc d"),
            (-2, "type view user u token k item i"),
            (-1, "type logout user u token k sid s"),
        ],
    )
    .state(NOW);
    let tombstones =
        ["rollcall:presence:ended", "rollcall:sessions:ended", "rollcall:tokens:ended"];
    assert_eq!(names(&state), tombstones);
}

#[test]
fn partitions_have_their_own_names_and_events() {
    let settings = Settings { prefix: "acme:".into(), ..Settings::default().with_partitions(4) };
    let right = rollcall::key::partition_of("u", 4);
    let beat = entry(NOW, 0, "type heartbeat user u sid s doc d");
    for partition in 0..4 {
        let mut model = Model::new(settings.clone(), partition);
        model.apply_entry(&beat, NOW);
        if partition == right {
            let expected = [
                "online-users/29833333",
                "presence:users",
                "rollcall:presence:addresses",
                "user-activity/u",
            ];
            let expected = expected.map(|name| format!("acme:{{p{partition}}}:{name}"));
            assert_eq!(names(&model.state(NOW)), expected);
        } else {
            assert_eq!(model.state(NOW), State::new());
            assert_eq!(model.dead(), [(beat.id, "wrong_partition".to_owned(), None)]);
        }
    }
}

#[test]
fn scores_have_one_text() {
    let texts = [0.0, 10.0, 1_790_000_000.12, 1_790_000_000_123.0].map(score_text);
    assert_eq!(texts, ["0", "10", "1790000000.12", "1790000000123"]);
    assert_eq!(score_text("18446744073709551615".parse().unwrap()), "18446744073709551616");
}

#[test]
fn a_difference_is_named_and_an_open_level_is_none() {
    let expected = state(&[(-1, "type heartbeat user u token k")]);
    let none = Open::new();
    assert_eq!(diff(&expected, &none, &expected), [""; 0]);
    let mut found = expected.clone();
    found.insert(b"new\n\xff".to_vec(), (Value::Set([b"m".to_vec()].into()), None));
    found.insert(
        b"login:".to_vec(),
        (Value::Hash([(b"k".to_vec(), b"v".to_vec())].into()), Some(5)),
    );
    found.remove(&b"recent:"[..]);
    let expected_lines = [
        "login:: expected no expiry, found expiry 5",
        "login:[k]: expected u, found v",
        "new\\n\\xff member m: expected nothing, found there",
        "recent: score of k: expected 1789999999.999, found nothing",
    ];
    assert_eq!(diff(&expected, &none, &found), expected_lines);

    let levels = |level: &[u8]| {
        let fields = BTreeMap::from([(b"3:1:d".to_vec(), level.to_vec())]);
        State::from([(b"rollcall:docs:levels".to_vec(), (Value::Hash(fields), None))])
    };
    let mut open = Open::new();
    allow(&mut open, field_of("rollcall:docs:levels", "3:1:d"), ["1"]);
    for (expected, found) in [(levels(b"1"), State::new()), (State::new(), levels(b"1"))] {
        assert_eq!(diff(&expected, &open, &found), [""; 0]);
        assert_eq!(diff(&expected, &none, &found).len(), 1);
    }
    assert_eq!(diff(&levels(b"1"), &open, &levels(b"2")).len(), 1);
    let many = (0..99_u8).map(|n| (vec![n], (Value::Str(vec![n]), None))).collect();
    let lines = diff(&State::new(), &none, &many);
    assert_eq!((lines.len(), lines[19].as_str()), (20, "… and 80 more"));
}

#[test]
fn changes_alternate_without_gaps_and_end_where_the_state_is() {
    let keys = Keys::new("", 1, 0);
    let join = "type document doc d user u action join";
    let state = state(&[(-1, "type heartbeat user a|b ip i token k sid s"), (-1, join)]);
    let change = |seq: u64, words: &str| {
        let words = format!("seq {seq} time 1790000000000 {words}");
        let (names, values): (Vec<_>, Vec<_>) =
            words.split(' ').enumerate().partition(|(i, _)| i % 2 == 0);
        let pair = |((_, n), (_, v)): ((_, &str), (_, &str))| (n.to_owned(), v.as_bytes().to_vec());
        names.into_iter().zip(values).map(pair).collect::<Change>()
    };
    let good = [
        change(1, "kind online user a|b ip i"),
        change(2, "kind offline user a|b ip i"),
        change(3, "kind online user a|b ip i"),
        change(4, "kind login token k user a|b"),
        change(5, "kind session_started sid s"),
        change(6, "kind document_joined doc d user u count 1"),
        change(7, "kind online user gone"),
        change(8, "kind offline user gone ip"),
    ];
    let check = |changes: &[Change]| check_changes(changes, &state, &keys);
    assert_eq!(check(&good), Ok(()));
    assert_eq!(check(&good[2..]), Ok(()), "the cap dropped the first ones");
    let broken = |at: usize, words: &str| {
        let mut changes = good.clone();
        changes[at] = change(at as u64 + 1, words);
        check(&changes).unwrap_err()
    };
    assert!(broken(1, "kind online user a|b ip i").starts_with("does not alternate"));
    assert!(broken(0, "kind offline user a|b ip i").starts_with("does not alternate"));
    assert!(broken(7, "kind online user other").starts_with("the last change of online"));
    assert!(broken(4, "kind login token other").starts_with("the last change of"));
    assert!(
        broken(5, "kind document_joined doc d user u count 2").starts_with("the count is 1 now")
    );
    assert!(broken(7, "kind sunrise").starts_with("unknown kind"));
    let gap = [&good[..4], &good[5..]].concat();
    assert!(check(&gap).unwrap_err().starts_with("seq is not 5"));
}
