//! The body of a request, limited in size and in time.

use std::time::Duration;

use axum::body::{Bytes, HttpBody as _, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use tokio::time::timeout;

use crate::serve::context::Context;
use crate::serve::problem::Problem;

/// The time limit of a body.
const WITHIN: Duration = Duration::from_secs(30);

/// The whole body of a request.
pub(super) struct Body(pub Bytes);

impl FromRequest<Context> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, context: &Context) -> Result<Self, Problem> {
        let limit = context.state.facts().deployment.limits.max_data_bytes;
        let too_large = || {
            let detail =
                format!("the body may have at most {limit} bytes; send fewer events at once");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
        };
        let body = request.into_body();
        // A body that will be refused need not be sent.
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        match timeout(WITHIN, to_bytes(body, limit)).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(error)) if is_limit(&error) => Err(too_large()),
            Ok(Err(_)) => Err(Problem::bad_request("the body ended before it was complete")),
            Err(_) => {
                let detail = format!("the body was not complete within {} s", WITHIN.as_secs());
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", detail))
            }
        }
    }
}

fn is_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
