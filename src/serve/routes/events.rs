//! Events into the API: one, many or line by line.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::parameters::Query;
use crate::config::Millis;
use crate::entry::{EntryId, PlacedId};
use crate::event::Rejection;
use crate::serve::context::Context;
use crate::serve::intake::{self, Refusal, Sender, Taken, Trouble};
use crate::serve::problem::Problem;
use crate::serve::{Caller, Client};

/// The longest time to wait for an effect.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// The routes that take events.
pub(super) fn router() -> Router<Context> {
    Router::new().route("/api/v1/events", post(events))
}

/// How long to wait until events have had their effect.
#[derive(Deserialize)]
pub(super) struct Wait {
    wait: Option<String>,
}

impl Wait {
    pub(super) fn read(&self) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.wait.as_deref() else { return Ok(None) };
        let length: Duration = text
            .parse::<Millis>()
            .map_err(|error| Problem::bad_request(format!("wait is {error}")))?
            .into();
        if length > MOST_WAIT {
            return Err(Problem::bad_request("wait must be at most 30s"));
        }
        Ok(Some(length))
    }
}

async fn events(
    State(context): State<Context>,
    caller: Caller,
    client: Client,
    Query(wait): Query<Wait>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    context.check_right(&caller)?;
    let wait = wait.read()?;
    let body = kind_of_body(&headers, &body)?;
    let count = count(body);
    context.check_rate(&caller, client, count)?;
    let sender = Sender::caller(&caller, client, &headers);
    let taken = context.intake.take(body, &sender).await?;
    Ok(accepted(&context, taken, wait).await)
}

/// How many events a body contains, at least; they have not been decoded.
fn count(body: intake::Body<'_>) -> usize {
    match body {
        intake::Body::Lines(lines) => lines.split(|byte| *byte == b'\n').count(),
        intake::Body::Json(json) => {
            let format = crate::format::Format::Json;
            let mut count = 0;
            let each = |piece: crate::format::Piece<'_, '_>| {
                count += usize::from(matches!(piece, crate::format::Piece::Element(_)));
            };
            if format.is_array(json) && format.elements(json, each).is_ok() { count } else { 1 }
        }
    }
}

/// The form of the body, according to its media type.
fn kind_of_body<'b>(headers: &HeaderMap, body: &'b [u8]) -> Result<intake::Body<'b>, Problem> {
    let Some(media_type) = headers.get(header::CONTENT_TYPE) else {
        return Ok(intake::Body::Json(body));
    };
    let text = String::from_utf8_lossy(media_type.as_bytes()).to_ascii_lowercase();
    match text.split(';').next().unwrap_or_default().trim() {
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines" => Ok(intake::Body::Lines(body)),
        // sendBeacon and curl -d send these types as well.
        "application/json"
        | "text/json"
        | "text/plain"
        | "application/x-www-form-urlencoded"
        | "" => Ok(intake::Body::Json(body)),
        other if other.ends_with("+json") => Ok(intake::Body::Json(body)),
        _ => {
            let detail = "send application/json (one event or an array) or application/x-ndjson";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail))
        }
    }
}

/// The answer for accepted events; after they have had their effect, if the client waits for that.
pub(super) async fn accepted(context: &Context, taken: Taken, wait: Option<Duration>) -> Response {
    let is_one = context.state.facts().deployment.partitions == 1;
    let id = |&(partition, id): &(u16, EntryId)| {
        PlacedId { partition: (!is_one).then_some(partition), id }.to_string()
    };
    let mut ids: Vec<String> = taken.entries.iter().map(id).collect();
    ids.dedup();
    let refused = taken.refused.iter().map(|(place, rejection)| refused(*place, rejection));
    let failed = taken.failed.iter().map(|(place, trouble)| {
        json!({ "index": place, "reason": trouble.name(), "detail": trouble.words() })
    });
    let errors: Vec<Value> = refused.chain(failed).collect();
    let mut body = json!({ "ids": ids, "errors": errors });
    let mut status = StatusCode::ACCEPTED;
    if let Some(wait) = wait {
        let applied = context.intake.applied(&taken.entries, wait).await;
        body["applied"] = applied.into();
        if applied {
            status = StatusCode::OK;
        }
    }
    (status, Json(body)).into_response()
}

fn refused(place: usize, rejection: &Rejection) -> Value {
    json!({ "index": place, "reason": rejection.reason.name(), "detail": rejection.detail })
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(rejected) => {
                let errors: Vec<Value> = rejected.iter().map(|(n, r)| refused(*n, r)).collect();
                let detail = match &*rejected {
                    [] => "the request contains no events".to_owned(),
                    [(_, only)] => only.detail.clone(),
                    all => format!("none of the {} elements is an event", all.len()),
                };
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "no-event", detail)
                    .with("errors", errors)
            }
            Refusal::Malformed(rejection) => {
                Self::bad_request(rejection.detail).with("reason", rejection.reason.name())
            }
            Refusal::Failed(trouble) => {
                let problem = Self::unavailable(trouble.words());
                let kind = match trouble {
                    Trouble::InDoubt => "in-doubt",
                    _ => problem.kind,
                };
                Self { kind, ..problem }.after(trouble.retry_after()).with("reason", trouble.name())
            }
        }
    }
}
