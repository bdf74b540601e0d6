//! `heartbeat`: a user is there, perhaps with a token, in a session, in a document.

use super::write::Writer;
use super::{Limits, Members, Name, Rejection, Text};

/// A user is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat<'a> {
    /// Who.
    pub user: Text<'a>,
    /// From where; may be empty.
    pub ip: Text<'a>,
    /// User agent; may be empty.
    pub ua: Text<'a>,
    /// Page; may be empty.
    pub page: Text<'a>,
    /// Acts as a view without item.
    pub token: Option<Text<'a>>,
    /// Acts as a session update without data.
    pub sid: Option<Text<'a>>,
    /// Acts as a join.
    pub doc: Option<Text<'a>>,
    /// The connection that joins `doc`; may be empty.
    pub connection: Text<'a>,
}

impl<'a> Heartbeat<'a> {
    pub(super) fn read(members: &Members<'a>, limits: &Limits) -> Result<Self, Rejection> {
        Ok(Self {
            user: members.required_id(Name::User, limits)?,
            ip: members.optional_id(Name::Ip, limits)?.unwrap_or_default(),
            ua: members.text(Name::Ua, limits)?,
            page: members.text(Name::Page, limits)?,
            token: members.optional_id(Name::Token, limits)?,
            sid: members.optional_id(Name::Sid, limits)?,
            doc: members.optional_id(Name::Doc, limits)?,
            connection: members.optional_id(Name::Connection, limits)?.unwrap_or_default(),
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.text(Name::User, &self.user);
        to.text(Name::Ip, &self.ip);
        to.text(Name::Ua, &self.ua);
        to.text(Name::Page, &self.page);
        to.optional(Name::Token, self.token.as_deref());
        to.optional(Name::Sid, self.sid.as_deref());
        to.optional(Name::Doc, self.doc.as_deref());
        to.text(Name::Connection, &self.connection);
    }
}
