//! Dead letters in the API: listed, shown, retried and dropped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::body::Body;
use super::list::{List, number};
use super::parameters::{Path, Query};
use crate::config::Moment;
use crate::entry::{EntryId, PlacedId};
use crate::keep::letters::{Bookmark, Deed, Order, Report, Walk};
use crate::serve::Caller;
use crate::serve::context::Context;
use crate::serve::problem::Problem;
use crate::state::AskError;
use crate::state::dead::{self, Filter, Header, Whole};
use crate::state::pages::MOST;

/// How long one request runs; the next one continues.
const WITHIN: Duration = Duration::from_secs(2);
/// The maximum number of letters that one request examines.
const MOST_SEEN: u64 = 10_000;
/// How many letters can be named at once.
const MOST_NAMED: usize = 1_000;

/// The routes of dead letters.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/api/v1/dead", get(list))
        .route("/api/v1/dead/{id}", get(one))
        .route("/api/v1/dead/retry", post(retry))
        .route("/api/v1/dead/drop", post(discard))
}

/// Which letters.
#[derive(Default, Deserialize)]
struct Which {
    reason: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    entry_id: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

impl Which {
    fn filter(&self, now_ms: u64) -> Result<Filter, Problem> {
        let ms = |name: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => match text.parse::<Moment>() {
                Ok(moment) => Ok(Some(moment.ms(now_ms))),
                Err(error) => Err(Problem::bad_request(format!("{name} is {error}"))),
            },
        };
        let (since_ms, until_ms) = (ms("since", &self.since)?, ms("until", &self.until)?);
        let entry = self.entry_id.as_deref().map(str::parse::<EntryId>).transpose();
        let entry = entry.map_err(|error| Problem::bad_request(format!("entry_id is {error}")))?;
        let (reason, kind) = (self.reason.clone(), self.kind.clone());
        Ok(Filter { reason, kind, entry, since_ms, until_ms })
    }

    fn is_empty(&self) -> bool {
        let Self { reason, kind, entry_id, since, until } = self;
        [reason, kind, entry_id, since, until].iter().all(|part| part.is_none())
    }
}

#[derive(Deserialize)]
struct Listing {
    #[serde(flatten)]
    which: Which,
    limit: Option<String>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Letters {
    now_ms: u64,
    count: u64,
    items: Vec<Header>,
    cursor: Option<String>,
}

async fn list(
    State(context): State<Context>,
    caller: Caller,
    Query(query): Query<Listing>,
) -> Result<Json<Letters>, Problem> {
    caller.must_read()?;
    let limit = match query.limit.as_deref() {
        None => List::USUAL,
        Some(text) => List::limit(text)?,
    };
    let after = position(query.cursor.as_deref())?;
    let mut state = context.ask()?;
    let filter = query.which.filter(state.now_ms)?;
    let after = after.and_then(Bookmark::after);
    let (letters, next) =
        context.answer(dead::page(&mut state, &filter, after, limit.min(MOST)).await)?;
    let count = context.answer(dead::count(&mut state).await)?;
    let items = letters.into_iter().map(Header::from).collect();
    let cursor = next.map(|(partition, id)| Bookmark::behind(partition, id).to_string());
    Ok(Json(Letters { now_ms: state.now_ms, count, items, cursor }))
}

fn position(cursor: Option<&str>) -> Result<Option<Bookmark>, Problem> {
    let cursor = cursor.filter(|text| !text.is_empty());
    let position = cursor.map(str::parse::<Bookmark>).transpose();
    position.map_err(|error| Problem::bad_request(format!("cursor is {error}")))
}

#[derive(Serialize)]
struct Shown {
    now_ms: u64,
    items: Vec<Whole>,
}

async fn one(
    State(context): State<Context>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Shown>, Problem> {
    caller.must_read()?;
    let id = letter_id(&id)?;
    let mut state = context.ask()?;
    let found = context.answer(dead::show(&mut state, id).await)?;
    let items: Vec<_> = found.into_iter().map(Whole::from).collect();
    if items.is_empty() {
        let detail = "there is no dead letter with this id, nor one of an entry with this id";
        return Err(Problem::not_found(detail));
    }
    Ok(Json(Shown { now_ms: state.now_ms, items }))
}

fn letter_id(text: &str) -> Result<PlacedId, Problem> {
    let id = text.parse::<PlacedId>();
    id.map_err(|error| Problem::bad_request(format!("the id is {error}")))
}

/// What to do with which letters. Unknown members are refused, since a misspelt one could select more letters than
/// intended.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Request {
    ids: Vec<String>,
    all: bool,
    reason: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    entry_id: Option<String>,
    since: Option<String>,
    until: Option<String>,
    set: BTreeMap<String, String>,
    dry_run: bool,
    limit: Option<u64>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    report: Report,
    cursor: Option<String>,
}

async fn retry(
    State(context): State<Context>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<Answer>, Problem> {
    play(&context, &caller, &body, |set| Deed::Retry { set }).await
}

async fn discard(
    State(context): State<Context>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<Answer>, Problem> {
    play(&context, &caller, &body, |_| Deed::Drop).await
}

async fn play(
    context: &Context,
    caller: &Caller,
    body: &[u8],
    deed: impl FnOnce(Vec<(String, String)>) -> Deed,
) -> Result<Json<Answer>, Problem> {
    caller.must_write_for_all()?;
    let request: Request = serde_json::from_slice(body).map_err(|error| {
        Problem::bad_request(format!(
            "send {{\"ids\": [\"…\"]}}, a filter, or {{\"all\": true}}: {error}"
        ))
    })?;
    let Request { reason, kind, entry_id, since, until, .. } = request;
    let which = Which { reason, kind, entry_id, since, until };
    let is_some = !request.ids.is_empty() || !which.is_empty();
    if is_some == request.all {
        let detail = "name the letters: ids, reason, type, entry_id, since, until, or all alone";
        return Err(Problem::bad_request(detail));
    }
    if request.ids.len() > MOST_NAMED {
        return Err(Problem::bad_request(format!("name at most {MOST_NAMED} letters at once")));
    }
    let limit = match request.limit {
        Some(limit) => number(&limit.to_string(), MOST_SEEN).ok_or_else(|| {
            Problem::bad_request(format!("limit must be a whole number from 1 to {MOST_SEEN}"))
        })?,
        None => MOST_SEEN,
    };
    let ids = request.ids.iter().map(|id| letter_id(id)).collect::<Result<_, _>>()?;
    let position = position(request.cursor.as_deref())?.unwrap_or_default();
    let mut state = context.ask()?;
    let filter = which.filter(state.now_ms)?;
    let deed = deed(request.set.into_iter().collect());
    let order = Order { ids, filter, deed, dry_run: request.dry_run };
    let mut walk = Walk::new(&state, order, position);
    let begun = Instant::now();
    while walk.tally.seen < limit && begun.elapsed() < WITHIN {
        walk.limit_page((limit - walk.tally.seen) as usize);
        let step = walk.step(&mut state).await;
        if let Err(error) = &step
            && error.is_forbidden()
        {
            return Err(forbidden(error));
        }
        if !context.answer(step)? {
            break;
        }
    }
    let cursor = walk.position(&state).map(|position| position.to_string());
    Ok(Json(Answer { report: walk.report(), cursor }))
}

/// The caller may do this, but this process may not.
fn forbidden(error: &AskError) -> Problem {
    tracing::warn!("dead letters are left: {}", crate::error::chain(error));
    let detail = "the Redis user of this server may not remove dead letters; deploy/acl/README.md lists the rights \
                  for that";
    Problem::forbidden(detail)
}
