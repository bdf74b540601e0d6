//! Hostile fields: missing, unknown, not text, too many, too long; and odd but valid ones.

use rollcall::entry::Field;
use rollcall::key::join;

use super::Fate::{Applied, Dead, Present, Stub};
use super::{Cases, present};
use crate::scene::heartbeat;
use crate::support::events::field;

pub(super) fn missing_and_unknown(cases: &mut Cases) {
    cases.flat("no user", &[("type", b"heartbeat")], Dead("missing_field"));
    cases.flat("an empty user", &[("type", b"heartbeat"), ("user", b"")], Dead("missing_field"));
    cases.flat("no type", &[("user", b"x")], Dead("missing_field"));
    cases.flat("an empty type", &[("type", b""), ("user", b"x")], Dead("missing_field"));
    cases.flat(
        "a login without token",
        &[("type", b"login"), ("user", b"x")],
        Dead("missing_field"),
    );
    cases.flat(
        "a view without item",
        &[("type", b"view"), ("user", b"x"), ("token", b"t")],
        Dead("missing_field"),
    );
    cases.flat(
        "a document without action",
        &[("type", b"document"), ("doc", b"d"), ("user", b"x")],
        Dead("missing_field"),
    );
    let action: &[(&str, &[u8])] =
        &[("type", b"document"), ("doc", b"d"), ("user", b"x"), ("action", b"Join")];
    cases.flat("an unknown action", action, Dead("invalid_value"));
    cases.flat("an unknown type", &[("type", b"Heartbeat"), ("user", b"x")], Dead("unknown_type"));
    cases.flat(
        "a type that is a command",
        &[("type", b"FLUSHALL\r\n"), ("user", b"x")],
        Dead("unknown_type"),
    );
    cases.flat("one empty name", &[("", b"")], Dead("missing_field"));
    cases.flat(
        "a user taken back",
        &[("type", b"heartbeat"), ("user", b"x"), ("user", b"")],
        Dead("missing_field"),
    );
    cases.flat(
        "a user named twice",
        &[("user", b"a"), ("type", b"x"), ("type", b"heartbeat"), ("user", b"twice")],
        present("twice"),
    );
    cases.flat(
        "an empty name beside",
        &[("", b"\0"), ("type", b"heartbeat"), ("user", b"nameless")],
        present("nameless"),
    );
}

pub(super) fn bad_text(cases: &mut Cases) {
    let bad = b"\xff\xfe\xc3\x28";
    cases.flat("bad UTF-8 as type", &[("type", bad), ("user", b"x")], Dead("unknown_type"));
    cases.flat("bad UTF-8 as user", &[("type", b"heartbeat"), ("user", bad)], Dead("invalid_utf8"));
    cases.flat(
        "bad UTF-8 as token",
        &[("type", b"login"), ("user", b"x"), ("token", bad)],
        Dead("invalid_utf8"),
    );
    cases.flat(
        "a surrogate as user",
        &[("type", b"heartbeat"), ("user", b"\xed\xa0\x80")],
        Dead("invalid_utf8"),
    );
    cases.flat(
        "bad UTF-8 as ua",
        &[("type", b"heartbeat"), ("user", b"bad-ua"), ("ua", bad)],
        present("bad-ua"),
    );
    let odd_name =
        vec![(bad.to_vec(), bad.to_vec()), field("type", "heartbeat"), field("user", "odd-name")];
    cases.add("bad UTF-8 as name", odd_name, present("odd-name"));
    cases.json(
        "bad UTF-8 in JSON",
        b"{\"type\":\"heartbeat\",\"user\":\"\xff\"}",
        Dead("invalid_utf8"),
    );
    cases.json(
        "bad UTF-8 in a JSON ua",
        b"{\"type\":\"heartbeat\",\"user\":\"jua\",\"ua\":\"\xff\"}",
        present("jua"),
    );
    cases.json(
        "a lone surrogate escape",
        br#"{"type":"heartbeat","user":"\ud800"}"#,
        Dead("invalid_utf8"),
    );
    cases.json(
        "a pair of escapes",
        br#"{"type":"heartbeat","user":"\ud83d\ude00\u0000"}"#,
        present("😀\0"),
    );
    for user in [
        "a|b",
        "a%7Cb",
        "a/b",
        "{}",
        "{x}y",
        "new\nline",
        "nul\0byte",
        "\0",
        "|",
        "%",
        " ",
        "*[a]?",
        "%d+(",
        "-",
        "__proto__",
        "日本",
        "\r\n*1\r\n",
        "\u{202e}",
        "\u{1b}[2J",
    ] {
        cases.add(&format!("the user {user:?}"), heartbeat(user), present(user));
    }
    let (longest, longer) = ("u".repeat(256), "u".repeat(257));
    cases.add("256 bytes as user", heartbeat(&longest), present(&longest));
    cases.add("257 bytes as user", heartbeat(&longer), Dead("field_too_long"));
    let everything: &[(&str, &[u8])] = &[
        ("type", b"heartbeat"),
        ("user", b"odd|ids\0"),
        ("ip", b"|\n"),
        ("token", b"t|{}\0/"),
        ("sid", b"s|\n{}"),
        ("doc", b"d|:users\0"),
        ("connection", b"c|%7C"),
    ];
    cases.flat("odd identifiers everywhere", everything, Present(join(&["odd|ids\0", "|\n"])));
}

pub(super) fn sizes(cases: &mut Cases) {
    let big = vec![b'x'; 100 << 10];
    cases.flat("100 KB as user", &[("type", b"heartbeat"), ("user", &big)], Dead("field_too_long"));
    cases.flat(
        "100 KB unknown",
        &[("type", b"heartbeat"), ("user", b"x"), ("?", &big)],
        Dead("field_too_long"),
    );
    let long_name =
        vec![field("type", "heartbeat"), field("user", "x"), (big.clone(), b"1".to_vec())];
    cases.add("100 KB as name", long_name, Dead("field_too_long"));
    cases.flat(
        "5 MB unknown",
        &[("type", b"heartbeat"), ("user", b"x"), ("?", &vec![0; 5 << 20])],
        Stub,
    );
    cases.flat(
        "16 KiB page",
        &[("type", b"heartbeat"), ("user", b"page"), ("page", &big[..16 << 10])],
        present("page"),
    );
    cases.flat(
        "16 KiB page and a byte",
        &[("type", b"heartbeat"), ("user", b"x"), ("page", &big[..(16 << 10) + 1])],
        Dead("field_too_long"),
    );
    for (bytes, user) in [(1 << 20, Some("mebibyte")), ((1 << 20) + 1, None)] {
        let mut data = format!(r#"{{"type":"heartbeat","user":"{}""#, user.unwrap_or("x"));
        data.push_str(&" ".repeat(bytes - data.len() - 1));
        data.push('}');
        assert_eq!(data.len(), bytes);
        cases.json(
            &format!("{bytes} bytes of data"),
            data,
            user.map_or(Dead("field_too_long"), present),
        );
    }
    let data = format!("[{}1]", "1,".repeat((1 << 19) - 2));
    cases.flat(
        "1 MiB of session data",
        &[("type", b"session"), ("sid", b"fat"), ("data", data.as_bytes())],
        Applied,
    );
    for (count, fate) in [(64, present("f64")), (65, Dead("too_many_fields"))] {
        cases.add(&format!("{count} fields"), with_fields(&format!("f{count}"), count), fate);
    }
    for (count, fate) in [(3_900, Dead("too_many_fields")), (3_901, Stub), (10_000, Stub)] {
        cases.add(&format!("{count} fields"), with_fields("x", count), fate);
    }
}

fn with_fields(user: &str, count: usize) -> Vec<Field> {
    let mut fields = heartbeat(user);
    fields.extend((fields.len()..count).map(|n| field(&format!("n{}", n % 100), &n.to_string())));
    fields
}
