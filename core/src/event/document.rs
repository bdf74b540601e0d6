//! `document`: a user's connection joined a document, or left it.

use super::write::Writer;
use super::{Limits, Members, Name, Rejection, Text};

/// A user's connection joined a document, or left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// Which document.
    pub doc: Text<'a>,
    /// Who.
    pub user: Text<'a>,
    /// Through which connection; may be empty.
    pub connection: Text<'a>,
    /// What happened.
    pub action: DocumentAction,
}

/// What a connection did with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentAction {
    /// It joined, or is still there.
    Join,
    /// It left.
    Leave,
}

impl<'a> Document<'a> {
    pub(super) fn read(members: &Members<'a>, limits: &Limits) -> Result<Self, Rejection> {
        let action = match members.choice(Name::Action, &["join", "leave"])? {
            Some("join") => DocumentAction::Join,
            Some(_) => DocumentAction::Leave,
            None => {
                return Err(Rejection::missing(Name::Action, "send action join or action leave"));
            }
        };
        Ok(Self {
            doc: members.required_id(Name::Doc, limits)?,
            user: members.required_id(Name::User, limits)?,
            connection: members.optional_id(Name::Connection, limits)?.unwrap_or_default(),
            action,
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.text(Name::Doc, &self.doc);
        to.text(Name::User, &self.user);
        to.text(Name::Connection, &self.connection);
        let action = match self.action {
            DocumentAction::Join => "join",
            DocumentAction::Leave => "leave",
        };
        to.text(Name::Action, action);
    }
}
