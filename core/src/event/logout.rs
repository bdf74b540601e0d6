//! `logout`: a user's presence ends, at one address or everywhere, and with it the token and the session
//! it names.

use super::write::Writer;
use super::{Limits, Members, Name, Rejection, Text};

/// A user left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logout<'a> {
    /// Who.
    pub user: Text<'a>,
    /// The address whose presence entry ends; `None`: all of the user's entries.
    pub ip: Option<Text<'a>>,
    /// The token that ends for good.
    pub token: Option<Text<'a>>,
    /// The session that ends for good.
    pub sid: Option<Text<'a>>,
}

impl<'a> Logout<'a> {
    pub(super) fn read(members: &Members<'a>, limits: &Limits) -> Result<Self, Rejection> {
        Ok(Self {
            user: members.required_id(Name::User, limits)?,
            ip: members.optional_id(Name::Ip, limits)?,
            token: members.optional_id(Name::Token, limits)?,
            sid: members.optional_id(Name::Sid, limits)?,
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.text(Name::User, &self.user);
        to.optional(Name::Ip, self.ip.as_deref());
        to.optional(Name::Token, self.token.as_deref());
        to.optional(Name::Sid, self.sid.as_deref());
    }
}
