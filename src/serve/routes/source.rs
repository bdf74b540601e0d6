//! The endpoints of the source document, for front ends written for it: the same URLs, members and errors. The state
//! comes from the same keys as ever, and events take the usual path.

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use super::body::Body;
use super::method_not_allowed;
use crate::event::{Kind, Members, Name, Reason};
use crate::format::{Format, Member};
use crate::serve::context::Context;
use crate::serve::intake::Sender;
use crate::serve::problem::Problem;
use crate::serve::{Caller, Client};

/// The routes of the source document.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/api/heartbeat", post(heartbeat))
        .route("/api/session/update", post(update_session))
        .method_not_allowed_fallback(async || method_not_allowed().into_source_response())
}

type Extracted<T> = Result<T, Problem>;

async fn heartbeat(
    axum::extract::State(context): axum::extract::State<Context>,
    caller: Extracted<Caller>,
    client: Extracted<Client>,
    headers: HeaderMap,
    body: Extracted<Body>,
) -> Response {
    let event = Source { kind: b"heartbeat", names: &[Name::User, Name::Page], required: "User" };
    event.answer(context, caller, client, headers, body).await
}

async fn update_session(
    axum::extract::State(context): axum::extract::State<Context>,
    caller: Extracted<Caller>,
    client: Extracted<Client>,
    headers: HeaderMap,
    body: Extracted<Body>,
) -> Response {
    let event =
        Source { kind: b"session", names: &[Name::Sid, Name::User], required: "Session ID" };
    event.answer(context, caller, client, headers, body).await
}

/// An event in the form of the source document.
struct Source {
    /// Its type.
    kind: &'static [u8],
    /// Its members.
    names: &'static [Name],
    /// How its error names the required member.
    required: &'static str,
}

impl Source {
    async fn answer(
        &self,
        context: Context,
        caller: Extracted<Caller>,
        client: Extracted<Client>,
        headers: HeaderMap,
        body: Extracted<Body>,
    ) -> Response {
        match self.take(&context, caller, client, &headers, body).await {
            Ok(()) => success(),
            Err(problem) => problem.into_source_response(),
        }
    }

    async fn take(
        &self,
        context: &Context,
        caller: Extracted<Caller>,
        client: Extracted<Client>,
        headers: &HeaderMap,
        body: Extracted<Body>,
    ) -> Result<(), Problem> {
        let (caller, client) = (caller?, client?);
        context.check_right(&caller)?;
        let Body(body) = body?;
        context.check_rate(&caller, client, 1)?;
        let sender = Sender::client(&caller, client, headers);
        let limits = &context.state.facts().deployment.limits;
        let mut members = Members::default();
        let read = Format::Json.members(&body, |name, member| {
            if self.names.iter().any(|known| known.name().as_bytes() == name) {
                members.add(name, member);
            }
        });
        if let Err(malformed) = read {
            return Err(Problem::bad_request(format!("the body {malformed}")));
        }
        if let Some(subject) = &sender.subject {
            members.add(b"user", Member::flat(subject.as_bytes()));
        }
        let kind = Kind::read(self.kind, &members, limits).map_err(|rejection| match rejection
            .reason
        {
            Reason::MissingField => Problem::bad_request(format!("{} required", self.required)),
            _ => Problem::bad_request(rejection.detail),
        })?;
        context.intake.add(kind, &sender).await.map_err(Problem::from)?;
        Ok(())
    }
}

fn success() -> Response {
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (StatusCode::OK, [json], "{\"status\":\"success\"}").into_response()
}
