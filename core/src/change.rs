//! A change: one real transition of the state, as an entry of `rollcall:changes` records it.

use serde::Serialize;

use crate::entry::{Entry, EntryId};

/// Declares the kinds of changes: variant and name.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        pub enum ChangeKind { $($(#[$doc])* #[serde(rename = $name)] $kind,)* }

        impl ChangeKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The name that the field `kind` carries.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// The kind of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
            }
        }
    };
}

kinds! {
    /// A presence entry appeared.
    Online = "online",
    /// A presence entry disappeared.
    Offline = "offline",
    /// A token entered `login:`.
    Login = "login",
    /// A token left `login:`.
    Logout = "logout",
    /// A session's entry appeared.
    SessionStarted = "session_started",
    /// A session was ended.
    SessionEnded = "session_ended",
    /// A session expired.
    SessionExpired = "session_expired",
    /// A user became active in a document.
    DocumentJoined = "document_joined",
    /// A user is no longer active in a document.
    DocumentLeft = "document_left",
    /// The number of users in a document reached a threshold.
    ThresholdReached = "threshold_reached",
    /// It fell to the threshold's lower level.
    ThresholdLeft = "threshold_left",
    /// Reported in place of a change that was erased with its user. It is never recorded.
    Erased = "erased",
}

/// One transition. Fields that do not apply to its kind are `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Its partition.
    pub partition: u16,
    /// Its number in the partition: gapless, from 1.
    pub seq: u64,
    /// When, in milliseconds since the epoch: the event's time, or the server's for a sweep.
    pub time: u64,
    /// The id of its entry in `rollcall:changes`.
    #[serde(skip)]
    pub id: EntryId,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The address of a presence entry; may be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// The document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
    /// Users active in the document after the call that made the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The threshold's upper level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u64>,
}

impl Change {
    /// The report in place of an erased change; `next` is the change that exists after it.
    pub fn erased(seq: u64, next: &Self) -> Self {
        let (partition, time, id) = (next.partition, next.id.ms, next.id.before());
        let (user, ip, token, sid, doc) = Default::default();
        let (count, threshold) = (None, None);
        let kind = ChangeKind::Erased;
        Self { kind, partition, seq, time, id, user, ip, token, sid, doc, count, threshold }
    }

    /// Whether the change was erased and only its number is left.
    pub fn is_erased(&self) -> bool {
        self.kind == ChangeKind::Erased
    }

    /// Reads an entry of a partition's `rollcall:changes`; `None` if it is not a change.
    pub fn read(entry: &Entry, partition: u16) -> Option<Self> {
        let field = |name: &str| {
            let mut fields = entry.fields();
            let (_, value) = fields.find(|(field, _)| *field == name.as_bytes())?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let number = |name: &str| field(name)?.parse().ok();
        Some(Self {
            kind: ChangeKind::from_name(&field("kind")?)?,
            partition,
            seq: number("seq")?,
            time: number("time")?,
            id: entry.id,
            user: field("user"),
            ip: field("ip"),
            token: field("token"),
            sid: field("sid"),
            doc: field("doc"),
            count: number("count"),
            threshold: number("threshold"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: EntryId = EntryId { ms: 1_790_000_000_000, seq: 0 };

    fn read(fields: &[(&str, &str)]) -> Option<Change> {
        Change::read(&Entry::new(ID, fields.iter().copied()), 3)
    }

    #[test]
    fn a_change_is_read_and_written_with_what_applies_to_it() {
        let fields = [
            ("seq", "7"),
            ("kind", "document_joined"),
            ("time", "1790000000001"),
            ("user", "ann"),
            ("doc", "d"),
            ("count", "2"),
        ];
        let change = read(&fields).unwrap();
        assert_eq!((change.kind, change.seq, change.id), (ChangeKind::DocumentJoined, 7, ID));
        assert_eq!(
            serde_json::to_string(&change).unwrap(),
            r#"{"kind":"document_joined","partition":3,"seq":7,"time":1790000000001,"user":"ann","doc":"d","count":2}"#
        );
    }

    #[test]
    fn what_is_no_change_is_none() {
        assert_eq!(read(&[("seq", "7"), ("kind", "moved"), ("time", "1790000000001")]), None);
        assert_eq!(read(&[("kind", "online"), ("time", "1790000000001")]), None);
    }
}
