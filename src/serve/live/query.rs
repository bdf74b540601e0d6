//! The request of a listener: the query of `GET /api/v1/changes`.

use axum::http::HeaderMap;

use crate::change::ChangeKind;
use crate::changes::{Filter, Position};
use crate::serve::Caller;
use crate::serve::problem::Problem;

/// How many users and documents one listener may name.
const MOST_NAMES: usize = 1_000;
/// The header in which a returning client sends the last position it received.
const LAST_EVENT_ID: &str = "last-event-id";

/// The request of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which changes.
    pub(super) filter: Filter,
    /// Whether it wants the state first.
    pub(super) snapshot: bool,
    /// Its position.
    pub(super) position: Option<Position>,
}

impl Wanted {
    /// Reads query and headers.
    ///
    /// # Errors
    /// 400 if they are invalid.
    pub(super) fn read(query: &str, headers: &HeaderMap) -> Result<Self, Problem> {
        let mut wanted = Self { filter: Filter::default(), snapshot: false, position: None };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            wanted.add(&name, value.into_owned())?;
        }
        let Filter { users, docs, .. } = &wanted.filter;
        if users.len() + docs.len() > MOST_NAMES {
            let detail = format!("at most {MOST_NAMES} users and documents can be named");
            return Err(Problem::bad_request(detail));
        }
        if let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
            let position = id.to_str().ok().and_then(|id| id.parse().ok());
            let invalid = crate::changes::InvalidPosition;
            wanted.position = Some(
                position
                    .ok_or_else(|| Problem::bad_request(format!("Last-Event-ID: {invalid}")))?,
            );
        }
        Ok(wanted)
    }

    fn add(&mut self, name: &str, value: String) -> Result<(), Problem> {
        match name {
            "kind" => {
                let kind = ChangeKind::from_name(&value).ok_or_else(|| {
                    let known: Vec<_> = ChangeKind::ALL.iter().map(|kind| kind.name()).collect();
                    Problem::bad_request(format!("kind must be one of {}", known.join(", ")))
                })?;
                self.filter.kinds.insert(kind);
            }
            "user" | "doc" if value.is_empty() => {
                return Err(Problem::bad_request(format!("{name} must not be empty")));
            }
            "user" => _ = self.filter.users.insert(value),
            "doc" => _ = self.filter.docs.insert(value),
            "snapshot" => {
                self.snapshot = match value.as_str() {
                    "1" | "true" => true,
                    "0" | "false" => false,
                    _ => return Err(Problem::bad_request("snapshot must be 1 or 0")),
                }
            }
            _ => {
                let detail = format!(
                    "unknown parameter {name:?}; the parameters are kind, user, doc and snapshot"
                );
                return Err(Problem::bad_request(detail));
            }
        }
        Ok(())
    }

    /// Checks that the caller may receive what it requests.
    ///
    /// # Errors
    /// 403 otherwise.
    pub(super) fn check(&self, caller: &Caller) -> Result<(), Problem> {
        let Filter { users, docs, .. } = &self.filter;
        let sees_users = !users.is_empty() && users.iter().all(|user| caller.may_see_user(user));
        let sees_docs = !docs.is_empty() && docs.iter().all(|doc| caller.may_see_document(doc));
        if caller.may_read || sees_users || sees_docs {
            return Ok(());
        }
        Err(Problem::forbidden(
            "this token may not receive all changes: name users or documents that it may see",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, id: &str) -> Result<Wanted, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(LAST_EVENT_ID, id.parse().unwrap());
        Wanted::read(query, &headers)
    }

    #[test]
    fn every_filter_can_be_repeated() {
        let query =
            "kind=online&kind=document_left&user=a%7Cb&user=c+d&doc=%F0%9F%98%80&snapshot=1";
        let Wanted { filter, snapshot, position } = read(query, "").unwrap();
        assert_eq!(filter.kinds.len(), 2);
        assert!(filter.users.contains("a|b") && filter.users.contains("c d"));
        assert!(filter.docs.contains("😀") && snapshot && position.is_none());
        assert_eq!(read("", "10.mubbs7i8").unwrap().position.unwrap().to_string(), "10.mubbs7i8");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let many: String = (0..=MOST_NAMES).map(|n| format!("user={n}&")).collect();
        for query in ["kind=on", "kind=", "user=", "doc=", "snapshot=yes", "usr=a", many.as_str()] {
            assert_eq!(read(query, "").unwrap_err().status, 400, "{query}");
        }
        for id in ["1", "x y", "-1.2"] {
            assert_eq!(read("", id).unwrap_err().status, 400, "{id}");
        }
    }
}
