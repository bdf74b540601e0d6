//! The server's answers, taken in the order of the requests. A missing answer counts as empty.

use std::borrow::Cow;
use std::collections::BTreeSet;

use redis::Value;
use rollcall::key::unescape;
use rollcall::redis::reply::{array, integer, pairs, text};

use super::watch::Snapshot;

/// Answers that have not been taken yet.
#[derive(Debug)]
pub(super) struct Answers(std::vec::IntoIter<Value>);

/// A value of `presence:users`.
#[derive(serde::Deserialize)]
struct Presence {
    #[serde(rename = "lastSeen")]
    last_seen: u64,
    user: String,
}

impl Answers {
    /// These answers, none of them taken.
    pub(super) fn new(answers: Vec<Value>) -> Self {
        Self(answers.into_iter())
    }

    /// The next one.
    pub(super) fn next(&mut self) -> Value {
        self.0.next().unwrap_or(Value::Nil)
    }

    /// A number.
    pub(super) fn number(&mut self) -> i64 {
        integer(&self.next()).unwrap_or(0)
    }

    /// Texts.
    pub(super) fn texts(&mut self) -> Vec<String> {
        array(self.next()).unwrap_or_default().into_iter().filter_map(text).collect()
    }

    /// `TIME`, in ms since the epoch.
    pub(super) fn time_ms(&mut self) -> u64 {
        let parts: Vec<u64> = self.texts().iter().filter_map(|part| part.parse().ok()).collect();
        match parts[..] {
            [seconds, micros] => seconds * 1_000 + micros / 1_000,
            _ => 0,
        }
    }

    /// `XINFO GROUPS`: the position of the group named `group`.
    pub(super) fn group(&mut self, group: &str, seen: &mut Snapshot) {
        for about in array(self.next()).unwrap_or_default() {
            let about = pairs(about).unwrap_or_default();
            let about: Vec<_> =
                about.into_iter().filter_map(|(name, value)| Some((text(name)?, value))).collect();
            let find = |wanted: &str| {
                about.iter().find(|(name, _)| name == wanted).map(|(_, value)| value)
            };
            let count = |wanted: &str| find(wanted).and_then(integer);
            if find("name").cloned().and_then(text).as_deref() == Some(group) {
                seen.undelivered = count("lag");
                seen.applied = count("entries-read").unwrap_or(0);
            }
        }
    }

    /// `HSCAN` of the presence entries: the users last seen at `oldest_ms` or later.
    pub(super) fn users(&mut self, oldest_ms: u64) -> BTreeSet<String> {
        let mut page = array(self.next()).unwrap_or_default().into_iter().skip(1);
        let entries = page.next().and_then(pairs).unwrap_or_default().into_iter();
        let values = entries.filter_map(|(_, value)| text(value));
        let known = values.filter_map(|value| serde_json::from_str::<Presence>(&value).ok());
        known
            .filter(|presence| presence.last_seen >= oldest_ms)
            .map(|presence| presence.user)
            .collect()
    }

    /// `ZREVRANGE … WITHSCORES`.
    pub(super) fn scores(&mut self) -> Vec<(String, i64)> {
        let rows = pairs(self.next()).unwrap_or_default().into_iter();
        rows.filter_map(|(item, score)| {
            Some((text(item)?, text(score)?.parse::<f64>().ok()? as i64))
        })
        .collect()
    }

    /// `INFO memory`: bytes used.
    pub(super) fn memory(&mut self) -> i64 {
        let info = text(self.next()).unwrap_or_default();
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        used.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
    }
}

/// The document of a field of `rollcall:docs:levels`, `up:down:doc`.
pub(super) fn level_document(level: &str) -> Option<Cow<'_, str>> {
    level.splitn(3, ':').nth(2).map(unescape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Value {
        Value::Array(texts.iter().map(|text| Value::BulkString(text.as_bytes().to_vec())).collect())
    }

    #[test]
    fn answers_are_taken_in_order_and_missing_ones_are_empty() {
        let group = texts(&["name", "rollcall", "pending", "2", "entries-read", "10", "lag", "3"]);
        let fresh = r#"{"lastSeen":1790000000000,"user":"ann","ip":"","ua":"","page":""}"#;
        let stale = r#"{"lastSeen":1789999999999,"user":"bob","ip":"","ua":"","page":""}"#;
        let page = Value::Array(vec![
            texts(&[]),
            texts(&["ann|", fresh, "bob|", stale, "x|", "not JSON"]),
        ]);
        let mut answers = Answers::new(vec![
            texts(&["1790000000", "123456"]),
            Value::Array(vec![texts(&["name", "other", "pending", "9"]), group]),
            page,
            texts(&["lamp", "12", "mat", "3"]),
        ]);
        let mut seen = Snapshot::default();
        assert_eq!(answers.time_ms(), 1_790_000_000_123);
        answers.group("rollcall", &mut seen);
        assert_eq!((seen.undelivered, seen.applied), (Some(3), 10));
        assert_eq!(answers.users(1_790_000_000_000), BTreeSet::from(["ann".to_owned()]));
        assert_eq!(answers.scores(), [("lamp".to_owned(), 12), ("mat".to_owned(), 3)]);
        assert_eq!((answers.number(), answers.memory(), answers.time_ms()), (0, 0, 0));
        assert_eq!(level_document("3:1:a%7Cb").as_deref(), Some("a|b"));
    }
}
