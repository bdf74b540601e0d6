//! Stored values: compact JSON whose first member is the version, so that comparing beginnings compares
//! versions.
//!
//! Every heartbeat writes one, so this is written by hand: texts without escapes, nearly all, are copied whole.

use crate::format::write_json_text;
use crate::time::EventTime;

/// A JSON object with a time in milliseconds and texts as its members, in this order. The names need no escapes.
pub(super) fn value<const N: usize>(
    (version, time): (&str, EventTime),
    texts: [(&str, &str); N],
) -> String {
    let bytes: usize = texts.iter().map(|(name, text)| name.len() + text.len() + 6).sum();
    let mut json = String::with_capacity(version.len() + 20 + bytes);
    json.push_str("{\"");
    json.push_str(version);
    json.push_str("\":");
    json.push_str(itoa::Buffer::new().format(time.millis()));
    for (name, text) in texts {
        json.push_str(",\"");
        json.push_str(name);
        json.push_str("\":");
        write_json_text(&mut json, text);
    }
    json.push('}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Serialize;

    #[derive(Serialize)]
    struct Value<'e> {
        #[serde(rename = "lastSeen")]
        last_seen: u64,
        user: &'e str,
        page: &'e str,
    }

    proptest! {
        #[test]
        fn values_are_what_serde_json_writes(
            ms in any::<u64>(),
            user in any::<String>(),
            page in "[\0-\u{1f}\"\\\\/\u{7f}é\u{2028}a]{0,40}",
        ) {
            let time = EventTime::from_millis(ms);
            let written = value(("lastSeen", time), [("user", &user), ("page", &page)]);
            let expected = Value { last_seen: time.millis(), user: &user, page: &page };
            prop_assert_eq!(written, serde_json::to_string(&expected).unwrap());
        }
    }
}
