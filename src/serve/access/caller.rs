//! Who a request or a connection is, and what it may do.

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

/// How often an open connection looks whether its token still holds.
const LOOK: Duration = Duration::from_secs(5);

/// Which rooms a caller may join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rooms {
    /// All of them.
    All,
    /// All but `admin`: a JSON Web Token that names no rooms.
    AllButAdmin,
    /// These: what a JSON Web Token names, or none for a token that may only write.
    Named(Arc<BTreeSet<String>>),
}

/// The room whose members see everything.
pub const ADMIN: &str = "admin";

/// Who a request or a connection is, and what it may do.
#[derive(Clone)]
pub struct Caller {
    /// All state, the whole feed.
    pub may_read: bool,
    /// Events; with a subject, only that user's.
    pub may_write: bool,
    /// The user that a JSON Web Token is about: *the* user of every event that it sends.
    pub subject: Option<Arc<str>>,
    /// The rooms it may join.
    pub rooms: Rooms,
    /// When its token ends, in seconds since the epoch.
    pub expires_at: Option<f64>,
    /// The token, to look at again while a connection is open.
    token: Option<(Access, Arc<str>)>,
}

impl Caller {
    /// Whoever is on this machine, where nobody has to say who they are.
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

    /// Whether it may see what concerns a user: all of it, its own, or what the room `user:<user>` shows.
    pub fn may_see_user(&self, user: &str) -> bool {
        self.may_read
            || self.subject.as_deref() == Some(user)
            || self.rooms.contain(&format!("user:{user}"))
    }

    /// Whether it may see a document: all of it, or what the room `doc:<doc>` shows.
    pub fn may_see_document(&self, doc: &str) -> bool {
        self.may_read || self.rooms.contain(&format!("doc:{doc}"))
    }

    /// Whether it may end sessions of others than its own user.
    pub fn may_end_any_session(&self) -> bool {
        self.may_write && (self.subject.is_none() || self.may_read)
    }

    /// That it may read everything.
    ///
    /// # Errors
    /// 403 if not.
    pub fn must_read(&self) -> Result<(), Problem> {
        let detail = "this token may not read the whole state: it takes one of read-token-file, or \
                      a JSON Web Token whose rooms name admin";
        if self.may_read { Ok(()) } else { Err(Problem::forbidden(detail)) }
    }

    /// That it may send events.
    ///
    /// # Errors
    /// 403 if not.
    pub fn must_write(&self) -> Result<(), Problem> {
        let detail =
            "this token may only read: it takes one of write-token-file, or a JSON Web Token";
        if self.may_write { Ok(()) } else { Err(Problem::forbidden(detail)) }
    }

    /// That it may change what concerns everybody.
    ///
    /// # Errors
    /// 403 if not.
    pub fn must_write_for_all(&self) -> Result<(), Problem> {
        self.must_write()?;
        let detail = "this token may send only its own user's events: it takes one of write-token-file, or a \
                      JSON Web Token whose rooms name admin";
        if self.may_end_any_session() { Ok(()) } else { Err(Problem::forbidden(detail)) }
    }

    /// Waits until its token has expired or is no longer valid, and says which: an open connection ends then.
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
