//! The identity of a request or a connection, and its rights.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::jwt::Claims;
use super::{Access, now_s};
use crate::serve::Context;
use crate::serve::problem::Problem;

/// How often an open connection checks whether its token is still valid.
const LOOK: Duration = Duration::from_secs(5);

/// Which rooms a caller may join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rooms {
    /// All of them.
    All,
    /// All but `admin`, for a JSON Web Token that names no rooms.
    AllButAdmin,
    /// The rooms that a JSON Web Token names, or none for a token that may only write.
    Named(Arc<BTreeSet<String>>),
}

/// The room whose members see everything.
pub const ADMIN: &str = "admin";

/// The identity of a request or a connection, and its rights.
#[derive(Clone)]
pub struct Caller {
    /// Whether it may read all state and the whole feed.
    pub may_read: bool,
    /// Whether it may send events; with a subject, only that user's.
    pub may_write: bool,
    /// The user of a JSON Web Token: *the* user of every event that it sends.
    pub subject: Option<Arc<str>>,
    /// The rooms it may join.
    pub rooms: Rooms,
    /// When its token expires, in seconds since the epoch.
    pub expires_at: Option<f64>,
    /// The token, to be checked again while a connection is open.
    token: Option<(Access, Arc<str>)>,
}

impl Caller {
    /// Anybody on this machine, if no credentials are configured.
    pub(super) fn anybody() -> Self {
        Self {
            may_read: true,
            may_write: true,
            subject: None,
            rooms: Rooms::All,
            expires_at: None,
            token: None,
        }
    }

    pub(super) fn of_token(access: Access, token: &str, may_read: bool, may_write: bool) -> Self {
        let rooms = if may_read { Rooms::All } else { Rooms::Named(Arc::default()) };
        let token = Some((access, token.into()));
        Self { may_read, may_write, subject: None, rooms, expires_at: None, token }
    }

    pub(super) fn of_claims(access: Access, token: &str, claims: Claims) -> Self {
        let rooms = claims.rooms.map_or(Rooms::AllButAdmin, |rooms| Rooms::Named(Arc::new(rooms)));
        let may_read = rooms.contain(ADMIN);
        Self {
            may_read,
            may_write: true,
            subject: Some(claims.sub.into()),
            rooms,
            expires_at: claims.exp,
            token: Some((access, token.into())),
        }
    }

    /// Whether it may see a user's state: because it may see all, it is that user, or it may join the room
    /// `user:<user>`.
    pub fn may_see_user(&self, user: &str) -> bool {
        self.may_read
            || self.subject.as_deref() == Some(user)
            || self.rooms.contain(&format!("user:{user}"))
    }

    /// Whether it may see a document: because it may see all, or it may join the room `doc:<doc>`.
    pub fn may_see_document(&self, doc: &str) -> bool {
        self.may_read || self.rooms.contain(&format!("doc:{doc}"))
    }

    /// Whether it may end sessions of users other than its own.
    pub fn may_end_any_session(&self) -> bool {
        self.may_write && (self.subject.is_none() || self.may_read)
    }

    /// Checks that it may read everything.
    ///
    /// # Errors
    /// 403 otherwise.
    pub fn must_read(&self) -> Result<(), Problem> {
        let detail = "this token may not read the whole state: use one from read-token-file, or a JSON Web Token \
                      whose rooms contain admin";
        if self.may_read { Ok(()) } else { Err(Problem::forbidden(detail)) }
    }

    /// Checks that it may send events.
    ///
    /// # Errors
    /// 403 otherwise.
    pub fn must_write(&self) -> Result<(), Problem> {
        let detail = "this token may only read: use one from write-token-file, or a JSON Web Token";
        if self.may_write { Ok(()) } else { Err(Problem::forbidden(detail)) }
    }

    /// Checks that it may change what concerns everybody.
    ///
    /// # Errors
    /// 403 otherwise.
    pub fn must_write_for_all(&self) -> Result<(), Problem> {
        self.must_write()?;
        let detail = "this token may send only its own user's events: use one from write-token-file, or a JSON Web \
                      Token whose rooms contain admin";
        if self.may_end_any_session() { Ok(()) } else { Err(Problem::forbidden(detail)) }
    }

    /// Waits until its token has expired or is no longer valid, and returns which; an open connection then ends.
    pub async fn ended(&self) -> &'static str {
        let Some((access, token)) = &self.token else { return pending().await };
        loop {
            let left = self.expires_at.map(|at| (at - now_s()).max(0.0));
            if left == Some(0.0) {
                return "the token has expired";
            }
            let left = left.map_or(LOOK, |left| Duration::from_secs_f64(left.min(60.0)));
            tokio::time::sleep(left.min(LOOK)).await;
            let is_expired = self.expires_at.is_some_and(|at| at <= now_s());
            if !is_expired && access.of_token(Some(token)).is_err() {
                return "the token is no longer valid";
            }
        }
    }
}

impl Rooms {
    /// Whether the room may be joined.
    pub fn contain(&self, room: &str) -> bool {
        match self {
            Self::All => true,
            Self::AllButAdmin => room != ADMIN,
            Self::Named(rooms) => rooms.contains(room),
        }
    }
}

impl FromRequestParts<Context> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Problem> {
        context.access.of_headers(&parts.headers)
    }
}
