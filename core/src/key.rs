//! Every key name, in one place.
//!
//! A key is `prefix` + (`{p<n>}:` with more than one partition) + name. With one partition and no prefix these are
//! the plain names that existing programs read. Identifiers stay byte for byte at the end of a key. Only where two
//! are joined, `%` and `|` are escaped, so that no identifier can produce another one's name.

use std::borrow::Cow;

/// The names of one partition's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    base: String,
}

/// Declares one method per key with a fixed name.
macro_rules! fixed_keys {
    ($($(#[$doc:meta])* $method:ident = $name:literal;)*) => {
        impl Keys {
            /// Every name declared here, with its method.
            pub const DECLARED: &[(&str, &str)] = &[$((stringify!($method), $name)),*];

            $($(#[$doc])* pub fn $method(&self) -> String { self.named($name) })*
        }
    };
}

fixed_keys! {
    /// Hash: token → user.
    login = "login:";
    /// Sorted set: token → last seen, epoch seconds with milliseconds.
    recent = "recent:";
    /// Sorted set: item → number of view events. Followed by a token: that token's viewed items.
    viewed = "viewed:";
    /// Hash: `user|ip` → presence JSON.
    presence = "presence:users";
    /// Hash: session id → session JSON.
    sessions = "sessions:active";
    /// Followed by a session id: that session's data.
    session_data = "session:";
    /// Followed by an epoch minute: the set of users seen in it.
    online = "online-users/";
    /// Followed by a user: epoch seconds of the last activity.
    activity = "user-activity/";
    /// Followed by a document and `:users` or `:count`.
    document = "sessions:doc:";
    /// Stream of entries that could not be decoded or applied.
    dead = "rollcall:dead";
    /// Stream of transitions.
    changes = "rollcall:changes";
    /// String: sequence number of the last change.
    changes_seq = "rollcall:changes:seq";
    /// Sorted set: number of an erased change → the same.
    changes_erased = "rollcall:changes:erased";
    /// Sorted set: digest of a blocked user → last millisecond of entry ids for which it applies.
    blocked = "rollcall:blocked";
    /// Followed by the digest of a user who is being erased: set of `t` and a token or `s` and a session of theirs,
    /// which nothing else may name any more.
    erasing = "rollcall:erasing:";
    /// Hash: state format, settings of the deployment, epoch, owner, cursor.
    meta = "rollcall:meta";
    /// Sorted set: presence field, or the beginning of a user's fields → time of the logout that ended the entry, or
    /// all of the user's, ms.
    presence_ended = "rollcall:presence:ended";
    /// Hash: user → the addresses of their presence entries, escaped, in order, joined by `|`; `%` if there
    /// are too many for that.
    presence_addresses = "rollcall:presence:addresses";
    /// Sorted set: presence fields of the users with too many addresses for a value of the hash, all with score 0.
    presence_crowds = "rollcall:presence:crowds";
    /// Sorted set: token → entry-id ms of its greatest ending.
    tokens_ended = "rollcall:tokens:ended";
    /// Sorted set: session id → entry-id ms of its greatest ending.
    sessions_ended = "rollcall:sessions:ended";
    /// Hash: session id → time of its stored data, thirteen digits.
    session_data_versions = "rollcall:sessions:data";
    /// Hash: session id → its own lifetime: when it was given (ms, thirteen digits), seconds (seven digits),
    /// last activity since (thirteen digits), joined by `:`.
    session_ttls = "rollcall:sessions:ttl";
    /// Sorted set: `doc|user|connection` → time of the join, ms.
    docs_joined = "rollcall:docs:joined";
    /// Sorted set: `doc|user|connection` → time of the leave, ms.
    docs_left = "rollcall:docs:left";
    /// Hash: `doc|user` → number of joined connections.
    docs_connections = "rollcall:docs:connections";
    /// Hash: `up:down:doc` → 1 while that threshold is reached.
    docs_levels = "rollcall:docs:levels";
    /// Hash: sweep cursors, a copy of the cursor, the janitor's latest results, the counts from which losses are
    /// computed.
    janitor = "rollcall:janitor";
    /// String with a TTL: which janitor has the turn to sweep.
    janitor_lease = "rollcall:janitor:lease";
    /// String with a TTL: which janitor has the turn to survey the server.
    janitor_survey = "rollcall:janitor:survey";
    /// Hash: worker → its own report, different each time.
    workers = "rollcall:workers";
    /// Hash: target of a notifier → its epoch, the number and the entry id of the last change that was sent to it.
    notifier = "rollcall:notifier";
    /// Followed by a target: string with a TTL, which notifier has it now.
    notifier_lease = "rollcall:notifier:lease:";
}

/// The maximum number of partitions of a deployment.
pub const MOST_PARTITIONS: u16 = 1024;

impl Keys {
    /// The names for partition `index` of `partitions`, behind `prefix`.
    pub fn new(prefix: &str, partitions: u16, index: u16) -> Self {
        let tag = if partitions > 1 { format!("{{p{index}}}:") } else { String::new() };
        Self { base: format!("{prefix}{tag}") }
    }

    /// The beginning of the names of all shadows of a partition; no name of the state begins like this.
    pub const SHADOWS: &str = "rollcall:shadow:";

    /// The names of a shadow of this partition, in the same slot.
    pub fn shadow(&self, name: &str) -> Self {
        Self { base: self.named(&format!("{}{name}:", Self::SHADOWS)) }
    }

    /// The beginning of every key of the partition.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Any name below this partition, such as the events' stream.
    pub fn named(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    /// The set of users seen in an epoch minute.
    pub fn online_minute(&self, minute: u64) -> String {
        format!("{}{minute}", self.online())
    }

    /// The set of users active in a document.
    pub fn document_users(&self, doc: &str) -> String {
        format!("{}{doc}:users", self.document())
    }

    /// The number of users active in a document.
    pub fn document_count(&self, doc: &str) -> String {
        format!("{}{doc}:count", self.document())
    }
}

/// One part of a joined name: `%` → `%25`, `|` → `%7C`.
pub fn escape(part: &str) -> Cow<'_, str> {
    if part.contains(['%', '|']) {
        Cow::Owned(part.replace('%', "%25").replace('|', "%7C"))
    } else {
        Cow::Borrowed(part)
    }
}

/// Undoes [`escape`].
pub fn unescape(part: &str) -> Cow<'_, str> {
    if part.contains('%') {
        Cow::Owned(part.replace("%7C", "|").replace("%25", "%"))
    } else {
        Cow::Borrowed(part)
    }
}

/// Joins parts to a name that no other parts can produce: `user|ip`, `doc|user|connection`.
pub fn join(parts: &[&str]) -> String {
    let mut name = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            name.push('|');
        }
        name.push_str(&escape(part));
    }
    name
}

/// The partition of an identifier: CRC16-XMODEM of its bytes, modulo the number of partitions.
pub fn partition_of(id: &str, partitions: u16) -> u16 {
    crc16_xmodem(id.as_bytes()) % partitions.max(1)
}

/// The slot of a key in a Redis Cluster: that of its hash tag, if it has one.
pub fn slot_of(key: &str) -> u16 {
    const SLOTS: u16 = 16_384;
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let hashed = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc16_xmodem(hashed.as_bytes()) % SLOTS
}

/// CRC16 as Redis Cluster uses it (XMODEM: polynomial 0x1021, no reflection, start 0).
fn crc16_xmodem(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_partition_keeps_the_plain_names() {
        let keys = Keys::new("", 1, 0);
        assert_eq!(keys.login(), "login:");
        assert_eq!(keys.online_minute(29_833_333), "online-users/29833333");
        assert_eq!(keys.document_users("d/1"), "sessions:doc:d/1:users");
        assert_eq!(Keys::new("acme:", 4, 3).presence(), "acme:{p3}:presence:users");
    }

    #[test]
    fn partitions_follow_the_cluster_checksum() {
        assert_eq!(crc16_xmodem(b"123456789"), 0x31C3);
        assert_eq!(partition_of("123456789", 4), 0x31C3 % 4);
        assert_eq!(partition_of("anyone", 1), 0);
    }

    #[test]
    fn slots_are_those_of_cluster_keyslot() {
        for (key, slot) in [
            ("123456789", 0x31C3),
            ("{p0}:rollcall:meta", 15_882),
            ("user{p0}{p1}", 15_882),
            ("a{}b", 13_694),
            ("{p0", 5_875),
        ] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    proptest! {
        #[test]
        fn joined_names_never_collide(a in ".*", b in ".*", c in ".*", d in ".*") {
            prop_assert_eq!(join(&[&a, &b]) == join(&[&c, &d]), a == c && b == d);
        }

        #[test]
        fn escaping_can_be_undone(a in "[%|7C25a]*") {
            let escaped = escape(&a).into_owned();
            prop_assert!(!escaped.contains('|'));
            prop_assert_eq!(unescape(&escaped), a);
        }
    }
}
