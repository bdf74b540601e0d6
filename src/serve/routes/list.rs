//! Common parts of lists: where a page begins, its length, and the result of the query.

use serde::{Deserialize, Serialize};

use crate::serve::context::Context;
use crate::serve::problem::Problem;
use crate::state::pages::{Cursor, MOST, Page, PageError};
use crate::state::{AskError, State};

/// The parameters of a list.
#[derive(Debug, Default, Deserialize)]
pub(super) struct List {
    limit: Option<String>,
    cursor: Option<String>,
}

impl List {
    /// The default length of a page.
    pub(super) const USUAL: usize = 100;

    /// The permitted length of a page.
    pub(super) fn limit(text: &str) -> Result<usize, Problem> {
        let limit = number(text, MOST as u64).and_then(|limit| usize::try_from(limit).ok());
        limit.ok_or_else(|| {
            Problem::bad_request(format!("limit must be a whole number from 1 to {MOST}"))
        })
    }

    /// Where the page begins, and how long it is.
    pub(super) fn read(&self) -> Result<(Option<Cursor>, usize), Problem> {
        let limit = match self.limit.as_deref() {
            None => Self::USUAL,
            Some(text) => Self::limit(text)?,
        };
        let cursor = match self.cursor.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(PageError::from).map_err(problem)?),
        };
        Ok((cursor, limit))
    }
}

/// A whole number from 1 to `most`, in digits only.
pub(super) fn number(text: &str, most: u64) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && (1..=most).contains(n))
}

/// A page as it is sent.
#[derive(Serialize)]
pub(super) struct Listed<T> {
    /// The server's time, epoch milliseconds.
    pub now_ms: u64,
    /// The total number; absent if it could only be found by walking the whole list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(flatten)]
    pub page: Page<T>,
}

impl Context {
    /// The state, for queries.
    pub(super) fn ask(&self) -> Result<State, Problem> {
        self.state.get().map_err(|away| {
            tracing::debug!("a query came while {away}");
            Problem::unavailable("the state cannot be read now: Redis is unreachable")
        })
    }

    /// The result of a query, or the problem that it met; in that case the connections are checked.
    pub(super) fn answer<T>(&self, answer: Result<T, impl Into<PageError>>) -> Result<T, Problem> {
        answer.map_err(|error| {
            let error = error.into();
            if matches!(error, PageError::Ask(_)) {
                self.state.doubt();
            }
            problem(error)
        })
    }
}

fn problem(error: PageError) -> Problem {
    match error {
        PageError::Cursor(error) => Problem::bad_request(error.to_string()),
        PageError::Ask(error) => unanswered(&error),
    }
}

/// The caller learns what is wrong; anything that may name keys or addresses goes to the log.
fn unanswered(error: &AskError) -> Problem {
    tracing::debug!("a query of the state failed: {}", crate::error::chain(error));
    match error {
        AskError::WrongType { .. } => {
            Problem::unavailable("a key of the state has another type; rollcall doctor names it")
        }
        _ => Problem::unavailable("the state cannot be read now"),
    }
}
