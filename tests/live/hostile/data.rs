//! Hostile data: malformed, deep, lying about its size, of the wrong shape; and impossible times.

use serde_json::{Value, json};

use super::Fate::{Applied, Dead, Elements};
use super::{Cases, beat, packed, present};

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}{}", open.repeat(depth), close.repeat(depth))
}

pub(super) fn envelopes(cases: &mut Cases) {
    for data in [
        "{",
        "{\"type\":",
        "}",
        "{} {}",
        "{},",
        "5",
        "\"text\"",
        "null",
        "true",
        " ",
        "\u{feff}{}",
        "{'type':'x'}",
        "[1,]",
        "nul",
        "{\"type\":\"heartbeat\",\"user\":\"x\"}\0",
    ] {
        cases.json(&format!("as JSON {data:?}"), data, Dead("invalid_json"));
    }
    let with = |user: &str, inside: &str| {
        format!(r#"{{"type":"heartbeat","user":"{user}","x":{inside}}}"#)
    };
    cases.json("JSON 128 deep", with("deep", &nested("[", "]", 127)), present("deep"));
    cases.json("JSON 129 deep", with("x", &nested("[", "]", 128)), Dead("invalid_json"));
    cases.json("JSON 100,000 deep", nested("[", "]", 100_000), Dead("invalid_json"));
    cases.json("JSON that only opens", "[{\"a\":".repeat(100_000), Dead("invalid_json"));
    cases.json("a number beyond numbers", with("1e999", "1e999"), present("1e999"));
    cases.json(
        "a member named twice",
        br#"{"user":"x","type":"heartbeat","user":"second"}"#,
        present("second"),
    );
    cases.json("a number as user", br#"{"type":"heartbeat","user":5}"#, Dead("invalid_value"));
    cases.json(
        "an object as user",
        br#"{"type":"heartbeat","user":{"a":1}}"#,
        Dead("invalid_value"),
    );
    let html: &[(&str, &[u8])] = &[("datacontenttype", b"text/html"), ("data", b"{}")];
    cases.flat("another content type", html, Dead("unsupported_content_type"));
    let cloud = json!({"specversion": "1.0", "type": "heartbeat", "data": {"user": "cloud", "data": {"user": "third"}}});
    cases.json("three levels", cloud.to_string(), present("cloud"));
    let session: &[(&str, &[u8])] = &[("type", b"session"), ("sid", b"s"), ("data", b"{\"a\":")];
    cases.flat("broken session data", session, Dead("invalid_json"));
    let session: &[(&str, &[u8])] = &[("type", b"session"), ("sid", b"s"), ("data", b"\"\xff\"")];
    cases.flat("session data in bad UTF-8", session, Dead("invalid_json"));
    let deep = nested("[", "]", 100_000);
    let session: &[(&str, &[u8])] =
        &[("type", b"session"), ("sid", b"s"), ("data", deep.as_bytes())];
    cases.flat("deep session data", session, Dead("invalid_json"));
}

pub(super) fn messagepack(cases: &mut Cases) {
    let bad: [&[u8]; 13] = [
        b"\xc1",
        b"\x81",
        b"\x81\xa4type",
        b"\xa1",
        b"\x05",
        b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x80\x80",
        b"\x82\xa4type\xa9heartbeat\xa4user\xdb\xff\xff\xff\xff",
    ];
    for data in bad {
        cases.msgpack(
            &format!("as MessagePack {:?}", data.escape_ascii().to_string()),
            data,
            Dead("invalid_msgpack"),
        );
    }
    // Claims 4 billion elements, and contains some of them.
    let claims = [b"\xdd\xff\xff\xff\xff".to_vec(), vec![0xc0; 50_000]].concat();
    cases.msgpack("MessagePack of 4 billion elements", &claims, Dead("invalid_msgpack"));
    let deep = [vec![0x91; 100_000], vec![0xc0]].concat();
    cases.msgpack("MessagePack 100,000 deep", &deep, Dead("invalid_msgpack"));
    let with = |user: &str, depth: usize| {
        let mut data = packed(&json!({"type": "heartbeat", "user": user}));
        data[0] += 1;
        data.extend_from_slice(b"\xa1x");
        data.extend(vec![0x91; depth]);
        data.push(0xc0);
        data
    };
    cases.msgpack("MessagePack 128 deep", &with("mdeep", 127), present("mdeep"));
    cases.msgpack("MessagePack 129 deep", &with("x", 128), Dead("invalid_msgpack"));
    cases.msgpack(
        "binary as user",
        b"\x82\xa4type\xa9heartbeat\xa4user\xc4\x03bin",
        present("bin"),
    );
    cases.msgpack(
        "bad UTF-8 in MessagePack",
        b"\x82\xa4type\xa9heartbeat\xa4user\xa1\xff",
        Dead("invalid_utf8"),
    );
    cases.msgpack(
        "an integer as key",
        b"\x83\xa4type\xa9heartbeat\xa4user\xa4ikey\x01\x02",
        present("ikey"),
    );
    for (name, data) in [
        ("binary", &b"\xc4\x01a"[..]),
        ("no number", b"\xcb\x7f\xf8\0\0\0\0\0\0"),
        ("an extension", b"\xd6\x01\0\0\0\0"),
        ("an invalid date", b"\xd4\xff\xff"),
        ("an integer key", b"\x81\x01\x02"),
    ] {
        let session = [&b"\x83\xa4type\xa7session\xa3sid\xa1s\xa4data"[..], data].concat();
        cases.msgpack(&format!("{name} as session data"), &session, Dead("invalid_value"));
    }
}

pub(super) fn many_events(cases: &mut Cases) {
    let beats = |prefix: &str, count: usize| {
        Value::from_iter((0..count).map(|n| beat(&format!("{prefix}{n}"))))
    };
    cases.json("1,000 events", beats("k", 1_000).to_string(), present("k999"));
    cases.json("1,001 events", beats("x", 1_001).to_string(), Dead("too_many_events"));
    cases.msgpack("1,000 events in MessagePack", &packed(&beats("m", 1_000)), present("m999"));
    cases.msgpack(
        "1,001 events in MessagePack",
        &packed(&beats("x", 1_001)),
        Dead("too_many_events"),
    );
    cases.json("no events", "[]", Applied);
    let under_type = beats("x", 2).to_string();
    cases.flat(
        "an array under a type",
        &[("type", b"heartbeat"), ("data", under_type.as_bytes())],
        Dead("unexpected_array"),
    );
    let elements = [
        beat("p1").to_string(),
        " {\"type\":\"view\", \"user\":\"x\"}".to_owned(),
        "5".to_owned(),
        beat("p2").to_string(),
        "[]".to_owned(),
    ];
    let bad = vec![
        (1, "missing_field", elements[1].trim().as_bytes().to_vec()),
        (2, "invalid_json", b"5".to_vec()),
        (4, "invalid_json", b"[]".to_vec()),
    ];
    cases.json("bad elements among good", format!("[{}]", elements.join(",")), Elements(bad));
    let (good, bad) = (packed(&beat("p3")), packed(&json!({"type": "?", "user": "x"})));
    let both = [&b"\x92"[..], &bad, &good].concat();
    cases.msgpack("a bad element in MessagePack", &both, Elements(vec![(0, "unknown_type", bad)]));
    let twice: &[(&str, &[u8])] =
        &[("data", b"{}"), ("id", b"1"), ("data", br#"[{"type":"heartbeat","user":"p4"},7]"#)];
    cases.flat(
        "data named twice, packed",
        twice,
        Elements(vec![(1, "invalid_json", b"7".to_vec())]),
    );
    let views: Vec<Value> = (0..300)
        .map(|n| json!({"type": "view", "user": "v", "token": "tv", "item": format!("i{}", n % 7)}))
        .collect();
    cases.json("300 views of 7 items", Value::from(views).to_string(), Applied);
}

pub(super) fn times(cases: &mut Cases) {
    for time in [
        "yesterday",
        "1790000000",
        "17900000000000",
        "0000000000000",
        "999999999999.0",
        "1790000000000.5",
        "01790000000000",
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "2001-09-09T01:46:39.999Z",
        "2286-11-20T17:46:40Z",
        "9999-12-31T23:59:59Z",
        "-790000000000",
        "1e12",
        "2026-13-01T00:00:00Z",
        "2026-09-21",
        "０",
        "1790000000000 ",
    ] {
        cases.flat(
            &format!("the time {time:?}"),
            &[("type", b"heartbeat"), ("user", b"x"), ("time", time.as_bytes())],
            Dead("invalid_time"),
        );
    }
    for time in [
        "9999999999999",
        "2286-11-20T17:46:39.999999Z",
        "2099-01-01t00:00:00.999999999+23:59",
        "4102444800000.00",
    ] {
        let user = format!("at {time}");
        cases.flat(
            &user,
            &[("type", b"heartbeat"), ("user", user.as_bytes()), ("time", time.as_bytes())],
            present(&user),
        );
    }
    for time in ["1000000000000", "2001-09-09T01:46:40Z", "2001-09-08T21:46:40-04:00"] {
        let user = format!("at {time}");
        cases.flat(
            &user,
            &[
                ("type", b"login"),
                ("user", user.as_bytes()),
                ("token", user.as_bytes()),
                ("time", time.as_bytes()),
            ],
            Applied,
        );
    }
    cases.json(
        "a fraction as time",
        br#"{"type":"heartbeat","user":"x","time":1790000000000.5}"#,
        Dead("invalid_time"),
    );
    cases.json(
        "an array as time",
        br#"{"type":"heartbeat","user":"x","time":[1790000000000]}"#,
        Dead("invalid_time"),
    );
}
