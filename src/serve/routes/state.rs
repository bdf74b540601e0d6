//! The state in the API: lists, a page at a time.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body::Body;
use super::list::{List, Listed, number};
use super::parameters::{Path, Query};
use crate::key::Keys;
use crate::serve::Caller;
use crate::serve::context::Context;
use crate::serve::problem::Problem;
use crate::state::documents::{Document, Level, Member, levels};
use crate::state::history::{self, History};
use crate::state::pages::{self, MOST, Page, Person};
use crate::state::tokens::{Ranked, Token, Viewed};
use crate::state::users::Present;
use crate::state::{documents, status, tokens};

/// The default and maximum number of minutes: sets are kept for at most a day.
const MINUTES: (u64, u64) = (5, 1_440);

/// The routes that read the state.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/api/v1/online", get(online))
        .route("/api/v1/seen", get(seen))
        .route("/api/v1/users/query", post(query_users).get(user_query))
        .route("/api/v1/users/{user}", get(user))
        .route("/api/v1/presence", get(presence))
        .route("/api/v1/tokens/{token}", get(token))
        .route("/api/v1/tokens/{token}/viewed", get(viewed))
        .route("/api/v1/recent", get(recent))
        .route("/api/v1/most-viewed", get(most_viewed))
        .route("/api/v1/documents", get(all_documents))
        .route("/api/v1/documents/{doc}", get(document))
        .route("/api/v1/stats", get(stats))
        .route("/api/v1/status", get(whole_status))
}

type Answer<T> = Result<Json<T>, Problem>;

async fn online(
    State(context): State<Context>,
    caller: Caller,
    Query(list): Query<List>,
) -> Answer<Listed<Person>> {
    caller.must_read()?;
    let (cursor, limit) = list.read()?;
    let mut state = context.ask()?;
    let count = context.answer(pages::count(&mut state, "HLEN", Keys::presence_addresses).await)?;
    let page = context.answer(pages::online(&mut state, cursor, limit).await)?;
    Ok(Json(Listed { now_ms: state.now_ms, count: Some(count), page }))
}

#[derive(Deserialize)]
struct SeenQuery {
    minutes: Option<String>,
    #[serde(flatten)]
    list: List,
}

#[derive(Serialize)]
struct SeenUser {
    user: String,
}

async fn seen(
    State(context): State<Context>,
    caller: Caller,
    Query(query): Query<SeenQuery>,
) -> Answer<Listed<SeenUser>> {
    caller.must_read()?;
    let (cursor, limit) = query.list.read()?;
    let minutes = match query.minutes.as_deref() {
        None => MINUTES.0,
        Some(text) => number(text, MINUTES.1).ok_or_else(|| {
            let most = MINUTES.1;
            Problem::bad_request(format!("minutes must be a whole number from 1 to {most}"))
        })?,
    };
    let mut state = context.ask()?;
    let Page { items, cursor } =
        context.answer(pages::seen(&mut state, minutes, cursor, limit).await)?;
    let items = items.into_iter().map(|user| SeenUser { user }).collect();
    Ok(Json(Listed { now_ms: state.now_ms, count: None, page: Page { items, cursor } }))
}

async fn user(
    State(context): State<Context>,
    caller: Caller,
    Path(user): Path<String>,
) -> Answer<Person> {
    if !caller.may_see_user(&user) {
        return Err(Problem::forbidden("this token may not see this user"));
    }
    let mut state = context.ask()?;
    let mut found = context.answer(pages::people(&mut state, &[user]).await)?;
    found.pop().map(Json).ok_or_else(|| Problem::not_found("there is no such user"))
}

/// A user may have the same name as this route.
async fn user_query(context: State<Context>, caller: Caller) -> Answer<Person> {
    user(context, caller, Path("query".to_owned())).await
}

#[derive(Deserialize)]
struct Users {
    users: Vec<String>,
    changes: Option<usize>,
}

/// A contact list: what is known about up to a thousand users, in one call.
async fn query_users(
    State(context): State<Context>,
    caller: Caller,
    Body(body): Body,
) -> Answer<Value> {
    let Users { users, changes } = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("send {{\"users\": [\"…\"]}}: {error}")))?;
    if users.len() > MOST {
        return Err(Problem::bad_request(format!("name at most {MOST} users at once")));
    }
    if changes.is_some_and(|changes| !(1..=MOST).contains(&changes)) {
        let detail = format!("changes must be a whole number from 1 to {MOST}");
        return Err(Problem::bad_request(detail));
    }
    if let Some(hidden) = users.iter().find(|user| !caller.may_see_user(user)) {
        let detail = format!("this token may not see the user {hidden:?}");
        return Err(Problem::forbidden(detail));
    }
    let mut state = context.ask()?;
    let people = context.answer(pages::people(&mut state, &users).await)?;
    let mut answer = json!({ "now_ms": state.now_ms, "users": people });
    if let Some(most) = changes {
        let History { changes, since_ms } =
            context.answer(history::of_users(&mut state, &users, most).await)?;
        answer["changes"] = json!(changes);
        answer["changes_since_ms"] = json!(since_ms);
    }
    Ok(Json(answer))
}

async fn presence(
    State(context): State<Context>,
    caller: Caller,
    Query(list): Query<List>,
) -> Answer<Listed<Present>> {
    caller.must_read()?;
    let (cursor, limit) = list.read()?;
    let mut state = context.ask()?;
    let count = context.answer(pages::count(&mut state, "HLEN", Keys::presence).await)?;
    let page = context.answer(pages::presence(&mut state, cursor, limit).await)?;
    Ok(Json(Listed { now_ms: state.now_ms, count: Some(count), page }))
}

#[derive(Serialize)]
struct OneToken {
    token: String,
    user: Option<String>,
    last_seen_ms: Option<u64>,
    /// How many viewed items are kept.
    viewed: u64,
}

async fn token(
    State(context): State<Context>,
    caller: Caller,
    Path(token): Path<String>,
) -> Answer<OneToken> {
    caller.must_read()?;
    let mut state = context.ask()?;
    let mut parts = Vec::new();
    for partition in &mut state.partitions {
        let (connection, keys) = (&mut partition.connection, &partition.keys);
        parts.extend(context.answer(tokens::viewed(connection, keys, &token, 1).await)?);
    }
    let views = tokens::merged_views(parts, 1).ok_or_else(|| {
        Problem::not_found("there is no such token: it never existed, or it ended")
    })?;
    let (user, last_seen_ms) = (views.user, views.last_seen_ms);
    Ok(Json(OneToken { token, user, last_seen_ms, viewed: views.viewed.count }))
}

async fn viewed(
    State(context): State<Context>,
    caller: Caller,
    Path(token): Path<String>,
    Query(list): Query<List>,
) -> Answer<Listed<Viewed>> {
    caller.must_read()?;
    let (cursor, limit) = list.read()?;
    let mut state = context.ask()?;
    let page = context.answer(pages::viewed(&mut state, &token, cursor, limit).await)?;
    Ok(Json(Listed { now_ms: state.now_ms, count: None, page }))
}

async fn recent(
    State(context): State<Context>,
    caller: Caller,
    Query(list): Query<List>,
) -> Answer<Listed<Token>> {
    caller.must_read()?;
    let (cursor, limit) = list.read()?;
    let mut state = context.ask()?;
    let count = context.answer(pages::count(&mut state, "ZCARD", Keys::recent).await)?;
    let page = context.answer(pages::recent(&mut state, cursor, limit).await)?;
    Ok(Json(Listed { now_ms: state.now_ms, count: Some(count), page }))
}

async fn most_viewed(
    State(context): State<Context>,
    caller: Caller,
    Query(list): Query<List>,
) -> Answer<Listed<Ranked>> {
    caller.must_read()?;
    let (cursor, limit) = list.read()?;
    let mut state = context.ask()?;
    let page = context.answer(pages::most_viewed(&mut state, cursor, limit).await)?;
    Ok(Json(Listed { now_ms: state.now_ms, count: None, page }))
}

async fn all_documents(
    State(context): State<Context>,
    caller: Caller,
    Query(list): Query<List>,
) -> Answer<Listed<Document>> {
    caller.must_read()?;
    let (cursor, limit) = list.read()?;
    let mut state = context.ask()?;
    let page = context.answer(pages::documents(&mut state, cursor, limit).await)?;
    Ok(Json(Listed { now_ms: state.now_ms, count: None, page }))
}

#[derive(Serialize)]
struct OneDocument {
    doc: String,
    thresholds: Vec<Level>,
    /// The count that readers see, and a page of the users.
    #[serde(flatten)]
    users: Listed<Member>,
}

async fn document(
    State(context): State<Context>,
    caller: Caller,
    Path(doc): Path<String>,
    Query(list): Query<List>,
) -> Answer<OneDocument> {
    if !caller.may_see_document(&doc) {
        return Err(Problem::forbidden("this token may not see this document"));
    }
    let (cursor, limit) = list.read()?;
    let mut state = context.ask()?;
    let page = context.answer(pages::members(&mut state, &doc, cursor, limit).await)?;
    let (now_ms, known) = (state.now_ms, state.deployment.thresholds.clone());
    let partition = state.partition_of(&doc);
    let (connection, keys) = (&mut partition.connection, &partition.keys);
    let count = context.answer(documents::count(connection, keys, &doc).await)?;
    let thresholds = context.answer(levels(connection, keys, &doc, &known).await)?;
    let users = Listed { now_ms, count: Some(count), page };
    Ok(Json(OneDocument { doc, thresholds, users }))
}

async fn stats(State(context): State<Context>, caller: Caller) -> Answer<Value> {
    caller.must_read()?;
    let mut state = context.ask()?;
    let online =
        context.answer(pages::count(&mut state, "HLEN", Keys::presence_addresses).await)?;
    let structures = context.answer(status::sizes(&mut state).await)?;
    Ok(Json(json!({ "now_ms": state.now_ms, "online": online, "structures": structures })))
}

async fn whole_status(State(context): State<Context>, caller: Caller) -> Answer<Value> {
    caller.must_read()?;
    let mut state = context.ask()?;
    let server = match state.reachable() {
        Some(first) => context.answer(status::server(&mut first.connection).await)?,
        None => None,
    };
    let mut partitions = Vec::with_capacity(state.partitions.len());
    for partition in &mut state.partitions {
        let work = status::work(partition, &state.deployment, state.now_ms).await;
        partitions.push(context.answer(work)?);
    }
    Ok(Json(json!({
        "now_ms": state.now_ms,
        "found": state.found,
        "stream": state.deployment.stream,
        "group": state.deployment.group,
        "server": server,
        "partitions": partitions,
    })))
}
