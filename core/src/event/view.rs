//! `view`: the holder of a token looked at an item.

use super::write::Writer;
use super::{Limits, Members, Name, Rejection, Text};

/// The holder of a token looked at an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// Who.
    pub user: Text<'a>,
    /// With which token.
    pub token: Text<'a>,
    /// What was looked at.
    pub item: Text<'a>,
}

impl<'a> View<'a> {
    pub(super) fn read(members: &Members<'a>, limits: &Limits) -> Result<Self, Rejection> {
        Ok(Self {
            user: members.required_id(Name::User, limits)?,
            token: members.required_id(Name::Token, limits)?,
            item: members.required_id(Name::Item, limits)?,
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.text(Name::User, &self.user);
        to.text(Name::Token, &self.token);
        to.text(Name::Item, &self.item);
    }
}
