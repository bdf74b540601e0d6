//! An event as facts: one for each thing that can merge, expire and be switched off by itself. This is the table of
//! event types, and of what is late.

use rollcall::entry::EntryId;
use rollcall::event::{DocumentAction, Event, Kind, SessionAction};
use rollcall::key::{escape, join};

use super::settings::Settings;

/// One statement, with its time and its entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    /// Event time in milliseconds.
    pub(super) t: u64,
    /// The milliseconds of the entry's id.
    pub(super) entry_ms: u64,
    /// The server's clock when it was applied, at least.
    pub(super) applied_ms: u64,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The user was seen in that minute.
    SeenInMinute { user: String },
    /// The user was active.
    Active { user: String },
    /// A presence entry and the value it would have.
    Present { field: String, value: String },
    /// A presence entry ended.
    Absent { field: String },
    /// All presence entries of a user ended. The user's name as it begins those fields.
    UserAbsent { user: String },
    /// A token was used by a user.
    TokenUsed { token: String, user: String },
    /// An item was viewed with a token.
    Viewed { token: String, item: String },
    /// An item was viewed, for the ranking.
    ViewCounted { item: String },
    /// A token ended.
    TokenEnded { token: String },
    /// A session was active, with the value of its entry and the lifetime in milliseconds that it was given.
    Touched { sid: String, value: String, ttl_ms: Option<u64> },
    /// A session got data.
    Data { sid: String, data: Vec<u8> },
    /// A session ended.
    SessionEnded { sid: String },
    /// A user's connection joined a document.
    Joined(Connection),
    /// A user's connection left a document.
    Left(Connection),
}

/// One connection of one user to one document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Connection {
    pub(super) doc: String,
    pub(super) user: String,
    pub(super) connection: String,
}

impl Fact {
    /// The facts of an event.
    pub(super) fn of_event(event: &Event<'_>, entry: EntryId, applied_ms: u64) -> Vec<Self> {
        let t = event.time.millis();
        of_kind(&event.kind, t)
            .into_iter()
            .map(|what| Self { t, entry_ms: entry.ms, applied_ms, what })
            .collect()
    }

    /// Whether it has an effect if applied at `now`: its projection is on, and it is not late.
    pub(super) fn counts(&self, settings: &Settings, now: u64) -> bool {
        let is_on = self.is_ending() || settings.projections.contains(self.projection());
        let is_late = self.expiry(settings).is_some_and(|expiry| expiry <= now);
        is_on && !is_late
    }

    /// When its effect expires natively; endings of tokens and sessions, tokens and counts never do. When a session's
    /// activity and data expire depends on other facts: see `sessions.rs`.
    pub(super) fn expiry(&self, settings: &Settings) -> Option<u64> {
        match self.what {
            What::SeenInMinute { .. } => {
                Some(self.minute() * 60_000 + settings.online_window_ms + 70_000)
            }
            What::Active { .. } => Some(self.t / 1000 * 1000 + settings.online_window_ms + 10_000),
            What::Present { .. } | What::Absent { .. } | What::UserAbsent { .. } => {
                Some(self.t + settings.presence_ttl_ms)
            }
            What::Joined(_) | What::Left(_) => Some(self.t + settings.document_ttl_ms),
            What::TokenUsed { .. } | What::Viewed { .. } | What::ViewCounted { .. } => None,
            What::Touched { .. } | What::Data { .. } => None,
            What::TokenEnded { .. } | What::SessionEnded { .. } => None,
        }
    }

    /// The epoch minute.
    pub(super) fn minute(&self) -> u64 {
        self.t / 60_000
    }

    fn projection(&self) -> &'static str {
        match self.what {
            What::SeenInMinute { .. } => "online",
            What::Active { .. } => "activity",
            What::Present { .. } | What::Absent { .. } | What::UserAbsent { .. } => "presence",
            What::TokenUsed { .. } | What::Viewed { .. } | What::TokenEnded { .. } => "tokens",
            What::ViewCounted { .. } => "ranking",
            What::Touched { .. } | What::Data { .. } | What::SessionEnded { .. } => "sessions",
            What::Joined(_) | What::Left(_) => "documents",
        }
    }

    /// Endings leave tombstones, which are kept even if a projection is off.
    fn is_ending(&self) -> bool {
        matches!(
            self.what,
            What::Absent { .. }
                | What::UserAbsent { .. }
                | What::TokenEnded { .. }
                | What::SessionEnded { .. }
                | What::Left(_)
        )
    }
}

/// The table of the event types and their effects.
fn of_kind(kind: &Kind<'_>, t: u64) -> Vec<What> {
    let mut said = Vec::new();
    match kind {
        Kind::Heartbeat(event) => {
            said.extend(seen(&event.user));
            said.push(present(t, &event.user, &event.ip, &event.ua, &event.page));
            said.extend(event.token.as_ref().map(|token| used(token, &event.user)));
            let touch = |sid| touched(t, sid, &event.user, &event.ip, &event.ua);
            said.extend(event.sid.as_deref().map(touch));
            let join = |doc| What::Joined(connection(doc, &event.user, &event.connection));
            said.extend(event.doc.as_deref().map(join));
        }
        Kind::Login(event) => {
            said.extend(seen(&event.user));
            said.push(present(t, &event.user, &event.ip, &event.ua, "/"));
            said.push(used(&event.token, &event.user));
            let touch = |sid| touched(t, sid, &event.user, &event.ip, &event.ua);
            said.extend(event.sid.as_deref().map(touch));
        }
        Kind::Logout(event) => {
            said.push(match &event.ip {
                Some(ip) => What::Absent { field: join(&[&event.user, ip]) },
                None => What::UserAbsent { user: escape(&event.user).into_owned() },
            });
            let token = event.token.as_ref().map(ToString::to_string);
            said.extend(token.map(|token| What::TokenEnded { token }));
            let sid = event.sid.as_ref().map(ToString::to_string);
            said.extend(sid.map(|sid| What::SessionEnded { sid }));
        }
        Kind::View(event) => {
            let (token, item) = (event.token.to_string(), event.item.to_string());
            said.extend(seen(&event.user));
            said.push(used(&token, &event.user));
            said.push(What::ViewCounted { item: item.clone() });
            said.push(What::Viewed { token, item });
        }
        Kind::Session(event) => match &event.action {
            SessionAction::Update(data) => {
                let mut touch = touched(t, &event.sid, &event.user, &event.ip, &event.ua);
                if let What::Touched { ttl_ms, .. } = &mut touch {
                    *ttl_ms = event.ttl.map(|seconds| u64::from(seconds) * 1000);
                }
                said.push(touch);
                let data = data.as_ref().map(|data| data.to_vec());
                said.extend(data.map(|data| What::Data { sid: event.sid.to_string(), data }));
            }
            SessionAction::Terminate => {
                said.push(What::SessionEnded { sid: event.sid.to_string() })
            }
        },
        Kind::Document(event) => {
            let connection = connection(&event.doc, &event.user, &event.connection);
            said.push(match event.action {
                DocumentAction::Join => What::Joined(connection),
                DocumentAction::Leave => What::Left(connection),
            });
        }
    }
    said
}

fn seen(user: &str) -> [What; 2] {
    [What::SeenInMinute { user: user.to_owned() }, What::Active { user: user.to_owned() }]
}

fn used(token: &str, user: &str) -> What {
    What::TokenUsed { token: token.to_owned(), user: user.to_owned() }
}

fn connection(doc: &str, user: &str, connection: &str) -> Connection {
    let (doc, user, connection) = (doc.to_owned(), user.to_owned(), connection.to_owned());
    Connection { doc, user, connection }
}

fn present(t: u64, user: &str, ip: &str, ua: &str, page: &str) -> What {
    let [u, i, a, p] = [user, ip, ua, page].map(json);
    let value = format!(r#"{{"lastSeen":{t},"user":{u},"ip":{i},"ua":{a},"page":{p}}}"#);
    What::Present { field: join(&[user, ip]), value }
}

fn touched(t: u64, sid: &str, user: &str, ip: &str, ua: &str) -> What {
    let [s, u, i, a] = [sid, user, ip, ua].map(json);
    let value = format!(
        r#"{{"last_activity":{t},"sid":{s},"session_id":{s},"user":{u},"ip":{i},"ua":{a}}}"#
    );
    What::Touched { sid: sid.to_owned(), value, ttl_ms: None }
}

fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}
