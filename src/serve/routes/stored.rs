//! Lists for the source documents' pages, which read them whole. They are sent as they are found, page by page, so a
//! million entries take no more memory than a thousand.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream::poll_fn;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::method_not_allowed;
use crate::key::Keys;
use crate::serve::Caller;
use crate::serve::context::Context;
use crate::serve::problem::Problem;
use crate::state::pages::{self, Cursor, MOST, PageError};
use crate::state::sessions::Session;
use crate::state::users::Present;
use crate::state::{State, statistics};

/// How many stored values the page about Redis shows as samples.
const SAMPLES: usize = 3;

/// The routes that read the state for the source documents' pages.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/admin/presence/redis", get(presence))
        .route("/admin/sessions/redis", get(sessions))
        .route("/admin/redis/stats", get(stats))
        .route("/admin/redis/debug", get(debug))
        .method_not_allowed_fallback(async || method_not_allowed().into_source_response())
        .route("/online", get(online))
}

type Extracted = Result<Caller, Problem>;

async fn presence(Extract(context): Extract<Context>, caller: Extracted) -> Response {
    items(context, caller, List::Presence).await
}

async fn sessions(Extract(context): Extract<Context>, caller: Extracted) -> Response {
    items(context, caller, List::Sessions).await
}

async fn items(context: Context, caller: Extracted, list: List) -> Response {
    let end = |count: usize, now_ms: u64| {
        format!("],\"source\":\"redis\",\"timestamp\":{now_ms},\"count\":{count}}}")
    };
    let begin = "{\"status\":\"success\",\"items\":[";
    match Whole::begin(context, caller, list).await {
        Ok(whole) => whole.send(begin, ",", end, "application/json"),
        Err(problem) => problem.into_source_response(),
    }
}

/// `Online: a, b`: the users who were seen in the online window.
async fn online(Extract(context): Extract<Context>, caller: Extracted) -> Response {
    let minutes = context.state.facts().deployment.online_window_ms / 60_000;
    match Whole::begin(context, caller, List::Seen { minutes }).await {
        Ok(whole) => {
            whole.send("Online: ", ", ", |_, _| String::new(), "text/plain; charset=utf-8")
        }
        Err(problem) => problem.into_response(),
    }
}

/// A list that is sent whole.
#[derive(Clone, Copy)]
enum List {
    Presence,
    Sessions,
    Seen { minutes: u64 },
}

/// An item's name, and the item as it is sent.
type Item = (String, String);

impl List {
    async fn page(
        self,
        state: &mut State,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<Item>, Option<Cursor>), PageError> {
        Ok(match self {
            Self::Presence => {
                let page = pages::presence(state, cursor, MOST).await?;
                let item = |p: Present| {
                    let json = json!({
                        "user": p.user, "ip": p.ip, "ua": p.ua, "page": p.page,
                        "lastSeen": p.last_seen_ms,
                    });
                    (crate::key::join(&[&p.user, &p.ip]), json.to_string())
                };
                (page.items.into_iter().map(item).collect(), page.cursor)
            }
            Self::Sessions => {
                let page = pages::sessions(state, None, cursor, MOST).await?;
                let item = |s: Session| {
                    let json = json!({
                        "sid": s.sid, "session_id": s.sid, "user": s.user, "ip": s.ip, "ua": s.ua,
                        "last_activity": s.last_activity_ms,
                    });
                    (s.sid, json.to_string())
                };
                (page.items.into_iter().map(item).collect(), page.cursor)
            }
            Self::Seen { minutes } => {
                let page = pages::seen(state, minutes, cursor, MOST).await?;
                let item = |user: String| (user.clone(), user);
                (page.items.into_iter().map(item).collect(), page.cursor)
            }
        })
    }
}

/// A list whose first page was read, so that sending can begin.
struct Whole {
    state: State,
    list: List,
    items: Vec<Item>,
    cursor: Option<Cursor>,
}

impl Whole {
    async fn begin(context: Context, caller: Extracted, list: List) -> Result<Self, Problem> {
        caller?.must_read()?;
        let mut state = context.ask()?;
        let (items, cursor) = context.answer(list.page(&mut state, None).await)?;
        Ok(Self { state, list, items, cursor })
    }

    /// Sends it in pieces. A failure on the way breaks the connection, so that nobody takes a part for the whole.
    fn send(
        self,
        begin: &'static str,
        separator: &'static str,
        end: impl Fn(usize, u64) -> String + Send + 'static,
        media_type: &'static str,
    ) -> Response {
        let (sender, mut pieces) = mpsc::channel::<io::Result<Bytes>>(1);
        let Self { mut state, list, mut items, mut cursor } = self;
        tokio::spawn(async move {
            let (mut piece, mut sent) = (begin.to_owned(), Sent::default());
            loop {
                for (name, item) in std::mem::take(&mut items) {
                    if sent.is_first(&name) {
                        piece.extend([if sent.count() > 1 { separator } else { "" }, &item]);
                    }
                }
                if cursor.is_none() {
                    piece.push_str(&end(sent.count(), state.now_ms));
                }
                let piece = Bytes::from(std::mem::take(&mut piece));
                if sender.send(Ok(piece)).await.is_err() || cursor.is_none() {
                    return;
                }
                match list.page(&mut state, cursor).await {
                    Ok(page) => (items, cursor) = page,
                    Err(error) => {
                        let _gone = sender.send(Err(io::Error::other(error))).await;
                        return;
                    }
                }
            }
        });
        let body = Body::from_stream(poll_fn(move |context| pieces.poll_recv(context)));
        ([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))], body).into_response()
    }
}

/// Digests of what was sent, because a table that grows or shrinks meanwhile may return something twice.
#[derive(Default)]
struct Sent {
    state: RandomState,
    digests: HashSet<u64>,
}

impl Sent {
    fn is_first(&mut self, name: &str) -> bool {
        self.digests.insert(self.state.hash_one(name))
    }

    fn count(&self) -> usize {
        self.digests.len()
    }
}

async fn stats(Extract(context): Extract<Context>, caller: Extracted) -> Response {
    answer(async {
        caller?.must_read()?;
        let mut state = context.ask()?;
        let presence = context.answer(pages::count(&mut state, "HLEN", Keys::presence).await)?;
        let sessions = context.answer(pages::count(&mut state, "HLEN", Keys::sessions).await)?;
        let Some(first) = state.reachable() else { return Ok(Value::Null) };
        let server = context.answer(statistics(&mut first.connection).await)?;
        Ok(json!({ "status": "success", "stats": {
            "memory_used": server.memory_used,
            "connected_clients": server.connected_clients,
            "total_commands_processed": server.total_commands_processed,
            "keyspace_hits": server.keyspace_hits,
            "keyspace_misses": server.keyspace_misses,
            "presence_keys": presence,
            "sessions_keys": sessions,
            "db_size": server.db_size,
        } }))
    })
    .await
}

async fn debug(Extract(context): Extract<Context>, caller: Extracted) -> Response {
    answer(async {
        caller?.must_read()?;
        let mut state = context.ask()?;
        let [presence, sessions] = [Keys::presence as fn(&Keys) -> String, Keys::sessions];
        let presence_count = context.answer(pages::count(&mut state, "HLEN", presence).await)?;
        let sessions_count = context.answer(pages::count(&mut state, "HLEN", sessions).await)?;
        let presence = context.answer(pages::raw(&mut state, presence, None, MOST).await)?.items;
        let sessions = context.answer(pages::raw(&mut state, sessions, None, MOST).await)?.items;
        let keys = |rows: &[Item]| rows.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let sample = |rows: &[Item]| -> Map<String, Value> {
            rows.iter()
                .take(SAMPLES)
                .map(|(key, value)| (key.clone(), value.clone().into()))
                .collect()
        };
        Ok(json!({ "status": "success", "debug": {
            "presence_count": presence_count,
            "sessions_count": sessions_count,
            "presence_keys": keys(&presence),
            "sessions_keys": keys(&sessions),
            "sample_presence": sample(&presence),
            "sample_sessions": sample(&sessions),
        } }))
    })
    .await
}

async fn answer(answer: impl Future<Output = Result<Value, Problem>>) -> Response {
    match answer.await {
        Ok(value) => Json(value).into_response(),
        Err(problem) => problem.into_source_response(),
    }
}
