//! `login`: a user got a token.

use super::write::Writer;
use super::{Limits, Members, Name, Rejection, Text};

/// A user got a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login<'a> {
    /// Who.
    pub user: Text<'a>,
    /// The token.
    pub token: Text<'a>,
    /// From where; may be empty.
    pub ip: Text<'a>,
    /// User agent; may be empty.
    pub ua: Text<'a>,
    /// Acts as a session update without data.
    pub sid: Option<Text<'a>>,
}

impl<'a> Login<'a> {
    /// The page a presence entry shows after a login.
    pub const PAGE: &'static str = "/";

    pub(super) fn read(members: &Members<'a>, limits: &Limits) -> Result<Self, Rejection> {
        Ok(Self {
            user: members.required_id(Name::User, limits)?,
            token: members.required_id(Name::Token, limits)?,
            ip: members.optional_id(Name::Ip, limits)?.unwrap_or_default(),
            ua: members.text(Name::Ua, limits)?,
            sid: members.optional_id(Name::Sid, limits)?,
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.text(Name::User, &self.user);
        to.text(Name::Token, &self.token);
        to.text(Name::Ip, &self.ip);
        to.text(Name::Ua, &self.ua);
        to.optional(Name::Sid, self.sid.as_deref());
    }
}
