//! Sessions in the API: listed, read and ended.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::events::{Wait, accepted};
use super::list::{List, Listed};
use super::parameters::{Path, Query};
use crate::event::{Kind, Session as SessionEvent, SessionAction};
use crate::key::Keys;
use crate::serve::context::Context;
use crate::serve::intake::{Sender, Taken};
use crate::serve::problem::Problem;
use crate::serve::{Caller, Client};
use crate::state::pages;
use crate::state::sessions::{self, Kept, Session};

/// The maximum number of sessions of one user that one request ends.
const MOST_ENDED: usize = 10_000;

/// The routes of sessions.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/api/v1/sessions", get(list).delete(end_all))
        .route("/api/v1/sessions/{sid}", get(one).delete(end))
}

#[derive(Deserialize)]
struct OfUser {
    user: Option<String>,
    #[serde(flatten)]
    list: List,
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    Query(query): Query<OfUser>,
) -> Result<Json<Listed<Session>>, Problem> {
    let user = query.user.as_deref();
    if !user.is_some_and(|user| caller.may_see_user(user)) {
        caller.must_read()?;
    }
    let (cursor, limit) = query.list.read()?;
    let mut state = context.ask()?;
    let count = match user {
        None => Some(context.answer(pages::count(&mut state, "HLEN", Keys::sessions).await)?),
        Some(_) => None,
    };
    let page = context.answer(pages::sessions(&mut state, user, cursor, limit).await)?;
    Ok(Json(Listed { now_ms: state.now_ms, count, page }))
}

/// A session and its data.
#[derive(Serialize)]
struct One {
    sid: String,
    active: bool,
    user: Option<String>,
    ip: Option<String>,
    ua: Option<String>,
    last_activity_ms: Option<u64>,
    expires_ms: Option<u64>,
    /// The text that was sent.
    data: Option<String>,
    /// Instead of `data`, bytes that are not text.
    data_base64: Option<String>,
    /// Whether the data is encrypted, with none of the keys that this process has.
    data_encrypted: bool,
    data_ttl_ms: Option<u64>,
}

impl One {
    fn of(sid: String, kept: Kept, now_ms: u64) -> Self {
        let Kept { entry, data, data_encrypted, data_ttl_ms } = kept;
        let (data, data_base64) = match data.map(String::from_utf8) {
            None => (None, None),
            Some(Ok(text)) => (Some(text), None),
            Some(Err(error)) => (None, Some(STANDARD.encode(error.as_bytes()))),
        };
        let text = |of: fn(&Session) -> &String| entry.as_ref().map(|entry| of(entry).clone());
        let expires_ms = entry.as_ref().map(|entry| entry.expires_ms);
        Self {
            sid,
            active: expires_ms.is_some_and(|ms| ms > now_ms),
            user: text(|entry| &entry.user),
            ip: text(|entry| &entry.ip),
            ua: text(|entry| &entry.ua),
            last_activity_ms: entry.as_ref().map(|entry| entry.last_activity_ms),
            expires_ms,
            data,
            data_base64,
            data_encrypted,
            data_ttl_ms,
        }
    }
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    Path(sid): Path<String>,
) -> Result<Json<One>, Problem> {
    let (kept, now_ms) = kept(&context, &sid).await?;
    let user = kept.as_ref().and_then(|kept| kept.entry.as_ref()).map(|entry| &entry.user);
    // Even its existence is shown only to callers who may see it.
    if !user.is_some_and(|user| caller.may_see_user(user)) {
        caller.must_read()?;
    }
    let kept = kept.ok_or_else(|| {
        Problem::not_found("there is no such session: it never existed, or it ended")
    })?;
    Ok(Json(One::of(sid, kept, now_ms)))
}

async fn kept(context: &Context, sid: &str) -> Result<(Option<Kept>, u64), Problem> {
    let mut state = context.ask()?;
    let (clock, now_ms) = (state.session_clock(), state.now_ms);
    let partition = state.partition_of(sid);
    let (connection, keys) = (&mut partition.connection, &partition.keys);
    let kept = context.answer(sessions::session(connection, keys, clock, sid).await)?;
    let session_keys = context.session_keys.as_ref();
    Ok((kept.map(|kept| kept.unsealed(session_keys)), now_ms))
}

/// Checks that a caller may end this session.
///
/// # Errors
/// 403 otherwise.
pub(in crate::serve) async fn may_end(
    context: &Context,
    caller: &Caller,
    sid: &str,
) -> Result<(), Problem> {
    if caller.may_end_any_session() {
        return Ok(());
    }
    let (kept, _) = kept(context, sid).await?;
    let user = kept.and_then(|kept| kept.entry).map(|entry| entry.user);
    if user.is_none() || user.as_deref() != caller.subject.as_deref() {
        return Err(context.not_its_own_session());
    }
    Ok(())
}

/// Ends a session with an event on the stream, whether the session is known or not.
async fn end(
    State(context): State<Context>,
    caller: Caller,
    client: Client,
    Path(sid): Path<String>,
    Query(wait): Query<Wait>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    context.check_right(&caller)?;
    let wait = wait.read()?;
    may_end(&context, &caller, &sid).await?;
    context.check_rate(&caller, client, 1)?;
    let sender = Sender::caller(&caller, client, &headers);
    let taken = terminate(&context, &sid, &sender).await?;
    Ok(accepted(&context, taken, wait).await)
}

/// Ends all sessions of a user that are known now.
async fn end_all(
    State(context): State<Context>,
    caller: Caller,
    client: Client,
    Query(query): Query<OfUser>,
    Query(wait): Query<Wait>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    context.check_right(&caller)?;
    let wait = wait.read()?;
    let user = query.user.filter(|user| !user.is_empty()).ok_or_else(|| {
        Problem::bad_request(
            "name the user whose sessions are to end: DELETE /api/v1/sessions?user=…",
        )
    })?;
    if !caller.may_end_any_session() && caller.subject.as_deref() != Some(&user) {
        return Err(context.not_its_own_session());
    }
    let mut state = context.ask()?;
    let found = context.answer(pages::sessions_of(&mut state, &user, MOST_ENDED).await)?;
    context.check_rate(&caller, client, found.len())?;
    let sender = Sender::caller(&caller, client, &headers);
    let mut taken = Taken::default();
    // Concurrently, so that they are packed into few entries.
    let ends = found.iter().map(|session| terminate(&context, &session.sid, &sender));
    for ended in futures_util::future::join_all(ends).await {
        let ended = ended?;
        taken.entries.extend(ended.entries);
        taken.failed.extend(ended.failed);
    }
    taken.entries.sort_unstable();
    taken.entries.dedup();
    Ok(accepted(&context, taken, wait).await)
}

async fn terminate(context: &Context, sid: &str, sender: &Sender) -> Result<Taken, Problem> {
    let limits = &context.state.facts().deployment.limits;
    if sid.is_empty() || sid.len() > limits.max_identifier_bytes {
        let detail = format!("a session id has 1 to {} bytes", limits.max_identifier_bytes);
        return Err(Problem::bad_request(detail));
    }
    let event = SessionEvent {
        sid: sid.into(),
        user: SessionEvent::UNKNOWN_USER.into(),
        ip: "".into(),
        ua: "".into(),
        ttl: None,
        action: SessionAction::Terminate,
    };
    Ok(context.intake.add(Kind::Session(event), sender).await?)
}
