//! `session`: a session was active, or ended.

use super::write::Writer;
use super::{Bytes, Limits, Members, Name, Rejection, Text};

/// A session was active, or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session<'a> {
    /// Which session.
    pub sid: Text<'a>,
    /// Whose; `unknown` if the producer did not say.
    pub user: Text<'a>,
    /// From where; may be empty.
    pub ip: Text<'a>,
    /// User agent; may be empty.
    pub ua: Text<'a>,
    /// How long it lives after its last activity, in seconds; `None` if the producer did not say.
    pub ttl: Option<u32>,
    /// What happened to it.
    pub action: SessionAction<'a>,
}

/// What happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAction<'a> {
    /// It was active; the data, JSON text or opaque bytes, replaces what it had.
    Update(Option<Bytes<'a>>),
    /// It ended for good.
    Terminate,
}

impl<'a> Session<'a> {
    /// The user of a session that nobody has claimed.
    pub const UNKNOWN_USER: &'static str = "unknown";
    /// The longest lifetime that a session can be given: 30 days, in seconds.
    pub const MAX_TTL: u32 = 2_592_000;

    pub(super) fn read(members: &Members<'a>, limits: &Limits) -> Result<Self, Rejection> {
        let action = match members.choice(Name::Action, &["update", "terminate"])? {
            Some("terminate") => SessionAction::Terminate,
            _ => SessionAction::Update(members.session_data(limits)?),
        };
        Ok(Self {
            sid: members.required_id(Name::Sid, limits)?,
            user: members.optional_id(Name::User, limits)?.unwrap_or(Self::UNKNOWN_USER.into()),
            ip: members.optional_id(Name::Ip, limits)?.unwrap_or_default(),
            ua: members.text(Name::Ua, limits)?,
            ttl: members.seconds(Name::Ttl, Self::MAX_TTL)?,
            action,
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.text(Name::Sid, &self.sid);
        to.text(Name::User, &self.user);
        to.text(Name::Ip, &self.ip);
        to.text(Name::Ua, &self.ua);
        if let Some(ttl) = self.ttl {
            to.number(Name::Ttl, ttl.into());
        }
        match &self.action {
            SessionAction::Terminate => to.text(Name::Action, "terminate"),
            SessionAction::Update(Some(data)) => to.data(data),
            SessionAction::Update(None) => {}
        }
    }
}
