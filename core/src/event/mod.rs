//! The six event types: one file each, and the line below that names it.
//!
//! An event contains only what has an effect for its type; everything else that a producer sent is ignored.

mod document;
mod heartbeat;
mod login;
mod logout;
mod members;
mod rejection;
mod session;
mod unknown;
mod view;
mod write;

use std::borrow::Cow;

pub use document::{Document, DocumentAction};
pub use heartbeat::Heartbeat;
pub use login::Login;
pub use logout::Logout;
pub use members::{Limits, Members, Name, Reason};
pub use rejection::Rejection;
pub use session::{Session, SessionAction};
pub use unknown::{REST_OF, RETRY_OF, Unknown};
pub use view::View;

use crate::time::EventTime;

/// Text of an event, borrowed from its entry if it is unescaped there.
pub type Text<'a> = Cow<'a, str>;

/// Bytes of an event, borrowed in the same way.
pub type Bytes<'a> = Cow<'a, [u8]>;

/// Declares the event types: the name on the wire, the struct that reads its members, and the member whose checksum
/// selects the partition.
macro_rules! event_types {
    ($($wire:literal => $kind:ident by $routing:ident),* $(,)?) => {
        /// What happened.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Kind<'a> {
            $(#[doc = concat!("`type ", $wire, "`")] $kind($kind<'a>),)*
        }

        /// The names of all event types, as `type` carries them.
        pub const TYPES: &[&str] = &[$($wire),*];

        /// The member that selects the partition of an event of this type; `None` for no type.
        pub fn routing_member(wire: &str) -> Option<&'static str> {
            match wire {
                $($wire => Some(stringify!($routing)),)*
                _ => None,
            }
        }

        impl<'a> Kind<'a> {
            /// Reads the members that have an effect for the event type `wire`.
            ///
            /// # Errors
            /// The reason why they are not events, for the dead letter.
            pub fn read(wire: &[u8], members: &Members<'a>, limits: &Limits) -> Result<Self, Rejection> {
                $(if wire == $wire.as_bytes() { return $kind::read(members, limits).map(Self::$kind); })*
                Err(Rejection::unknown_type(wire))
            }

            fn write(&self, to: &mut write::Writer<'_>) {
                match self {
                    $(Self::$kind(event) => event.write(to),)*
                }
            }

            /// The event type's place in [`TYPES`].
            pub fn place(&self) -> usize {
                enum Place { $($kind,)* }
                match self {
                    $(Self::$kind(_) => Place::$kind as usize,)*
                }
            }

            /// The identifier whose checksum selects the partition: the document's, the session's, or otherwise the
            /// user's.
            pub fn routing_id(&self) -> &str {
                match self {
                    $(Self::$kind(event) => &event.$routing,)*
                }
            }
        }
    };
}

event_types! {
    "heartbeat" => Heartbeat by user,
    "login" => Login by user,
    "logout" => Logout by user,
    "view" => View by user,
    "session" => Session by sid,
    "document" => Document by doc,
}

/// One event: what happened, and the time that counts for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Event time, already limited by the time of its entry.
    pub time: EventTime,
    /// Whether the event claimed a time later than that limit.
    pub from_future: bool,
    /// The members that nothing reads.
    pub unknown: Unknown,
    /// What happened.
    pub kind: Kind<'a>,
}

impl<'a> Kind<'a> {
    /// The user whom the event shows to be active, if any.
    pub fn seen_user(&self) -> Option<&Text<'a>> {
        match self {
            Self::Heartbeat(event) => Some(&event.user),
            Self::Login(event) => Some(&event.user),
            Self::View(event) => Some(&event.user),
            Self::Logout(_) | Self::Session(_) | Self::Document(_) => None,
        }
    }
}

impl<'a> Kind<'a> {
    /// The user to whom the event belongs; a session's may be [`Session::UNKNOWN_USER`].
    pub fn user(&self) -> &Text<'a> {
        match self {
            Self::Heartbeat(event) => &event.user,
            Self::Login(event) => &event.user,
            Self::Logout(event) => &event.user,
            Self::View(event) => &event.user,
            Self::Session(event) => &event.user,
            Self::Document(event) => &event.user,
        }
    }

    /// The login token that it names.
    pub fn token(&self) -> Option<&Text<'a>> {
        match self {
            Self::Heartbeat(event) => event.token.as_ref(),
            Self::Login(event) => Some(&event.token),
            Self::Logout(event) => event.token.as_ref(),
            Self::View(event) => Some(&event.token),
            Self::Session(_) | Self::Document(_) => None,
        }
    }

    /// The session that it names.
    pub fn sid(&self) -> Option<&Text<'a>> {
        match self {
            Self::Heartbeat(event) => event.sid.as_ref(),
            Self::Login(event) => event.sid.as_ref(),
            Self::Logout(event) => event.sid.as_ref(),
            Self::Session(event) => Some(&event.sid),
            Self::View(_) | Self::Document(_) => None,
        }
    }
}

/// The members about the sender of an event, for writing.
#[derive(Debug)]
pub struct SenderMut<'k, 'a> {
    /// The user.
    pub user: &'k mut Text<'a>,
    /// The address; empty if absent. A logout has none here, since its address says what ends.
    pub ip: Option<&'k mut Text<'a>>,
    /// The user agent; an absent one is empty.
    pub ua: Option<&'k mut Text<'a>>,
}

impl<'a> Kind<'a> {
    /// The members about its sender, if its type has them.
    pub fn sender_mut(&mut self) -> SenderMut<'_, 'a> {
        let (user, from) = match self {
            Self::Heartbeat(Heartbeat { user, ip, ua, .. })
            | Self::Login(Login { user, ip, ua, .. })
            | Self::Session(Session { user, ip, ua, .. }) => (user, Some((ip, ua))),
            Self::Logout(Logout { user, .. })
            | Self::View(View { user, .. })
            | Self::Document(Document { user, .. }) => (user, None),
        };
        let (ip, ua) = from.unzip();
        SenderMut { user, ip, ua }
    }

    /// Drops what a user's event says about a session or a document. With several partitions those are elsewhere, out
    /// of reach of an atomic call.
    pub fn without_foreign_parts(mut self) -> Self {
        match &mut self {
            Self::Heartbeat(event) => (event.sid, event.doc) = (None, None),
            Self::Login(event) => event.sid = None,
            Self::Logout(event) => event.sid = None,
            Self::View(_) | Self::Session(_) | Self::Document(_) => {}
        }
        self
    }

    /// What [`without_foreign_parts`](Self::without_foreign_parts) drops, as events of their own. Session and
    /// document then receive the same as from the whole event with one partition.
    pub fn foreign_parts(&self) -> Vec<Self> {
        let session = |sid: &Text<'a>, user: &Text<'a>, ip: Text<'a>, ua: Text<'a>, action| {
            Self::Session(Session {
                sid: sid.clone(),
                user: user.clone(),
                ip,
                ua,
                ttl: None,
                action,
            })
        };
        let touched = |sid, user, ip: &Text<'a>, ua: &Text<'a>| {
            session(sid, user, ip.clone(), ua.clone(), SessionAction::Update(None))
        };
        let (session, document) = match self {
            Self::Heartbeat(Heartbeat { user, ip, ua, sid, doc, connection, .. }) => {
                let join = |doc: &Text<'a>| {
                    let (doc, user, connection) = (doc.clone(), user.clone(), connection.clone());
                    Self::Document(Document { doc, user, connection, action: DocumentAction::Join })
                };
                let touched = sid.as_ref().map(|sid| touched(sid, user, ip, ua));
                (touched, doc.as_ref().map(join))
            }
            Self::Login(Login { user, ip, ua, sid, .. }) => {
                (sid.as_ref().map(|sid| touched(sid, user, ip, ua)), None)
            }
            Self::Logout(Logout { user, ip, sid, .. }) => {
                let ip = ip.clone().unwrap_or_default();
                let end = |sid| session(sid, user, ip, Text::default(), SessionAction::Terminate);
                (sid.as_ref().map(end), None)
            }
            Self::View(_) | Self::Session(_) | Self::Document(_) => (None, None),
        };
        session.into_iter().chain(document).collect()
    }
}
