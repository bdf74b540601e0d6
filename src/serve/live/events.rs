//! `GET /api/v1/changes`: the changes as server-sent events.
//!
//! What a listener has not yet received is kept in the ring that all share, never for it alone: its own memory is
//! limited to one batch. A listener that falls behind the ring is dropped; it can come back with its `Last-Event-ID`.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::Live;
use super::query::Wanted;
use super::resume::{Resume, Step};
use super::sse::{self, End, HEARTBEAT, comment, retry};
use crate::changes::{Filter, Heard, Lines, Listener, Snapshot, SnapshotError, own_id};
use crate::error::chain;
use crate::serve::problem::Problem;
use crate::serve::{Caller, Context};
use crate::telemetry::log::failure_line_due;
use crate::telemetry::metrics::{ConnectionKind, Dropped, Open};

/// How long the response may wait for the feed.
const BEGINS_WITHIN: Duration = Duration::from_secs(1);
/// Pause after the server could not be queried.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes of one piece of a snapshot.
const PIECE: usize = 32 * 1024;

/// Answers with the changes as they come.
pub(super) async fn changes(
    State(context): State<Context>,
    Extension(live): Extension<Live>,
    caller: Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = Wanted::read(query.as_deref().unwrap_or_default(), &headers)?;
    wanted.check(&caller)?;
    let stage = begin(&live, &wanted).await;
    let events = Box::new(Events::new(context, live, caller, wanted, stage));
    let text = stream::unfold(events, async |mut events| {
        let text = events.next().await?;
        Some((Ok::<_, std::convert::Infallible>(text), events))
    });
    Ok(sse::response(text))
}

/// Where a listener begins. A listener to new changes is registered before the response begins, unless the server is
/// down.
async fn begin(live: &Live, wanted: &Wanted) -> Stage {
    live.hub.start();
    if let Some(position) = &wanted.position {
        return Stage::Resumes(Resume::new(position.clone()));
    }
    if wanted.snapshot {
        return Stage::Gathers;
    }
    let listener = timeout(BEGINS_WITHIN, live.hub.listen()).await;
    listener.map_or(Stage::Waits, Stage::Listens)
}

/// One listener, for as long as it is permitted.
struct Events {
    listening: Listening,
    /// The first text.
    greeting: Bytes,
    /// Completes when the listener's time is over, with the reason.
    ended: BoxFuture<'static, End>,
    /// When the next sign of life is due.
    heartbeat: Instant,
    /// Whether the listener's position has moved since it was last sent.
    is_moved: bool,
    _open: Open,
}

/// The subscription of one listener.
struct Listening {
    context: Context,
    live: Live,
    filter: Arc<Filter>,
    stage: Stage,
    /// Whether it keeps a copy of the state, and gets a new one after changes were erased, since it may never have
    /// received who is gone.
    keeps_copy: bool,
    /// When its last snapshot was begun.
    had: Option<std::time::Instant>,
}

/// The stage of a listener.
enum Stage {
    /// It waits until there is something to listen to.
    Waits,
    /// It catches up with the ring.
    Resumes(Resume),
    /// It is to get a snapshot.
    Gathers,
    /// Its snapshot is being gathered.
    Awaits(JoinHandle<Result<Arc<Snapshot>, SnapshotError>>),
    /// Its snapshot could not be gathered and is tried again.
    Pauses,
    /// Its snapshot is being sent.
    Takes(Arc<Snapshot>, Lines),
    /// It receives the changes as they come.
    Listens(Listener),
    /// The reason for the end was sent.
    Ends,
}

impl Events {
    fn new(context: Context, live: Live, caller: Caller, wanted: Wanted, stage: Stage) -> Self {
        let open = context.metrics.open(ConnectionKind::Sse);
        let ended = sse::ended(context.clone(), caller);
        let mut greeting = retry();
        if let Stage::Listens(listener) = &stage {
            greeting.extend_from_slice(&listener.id());
        }
        let (filter, keeps_copy) = (Arc::new(wanted.filter), wanted.snapshot);
        Self {
            listening: Listening { context, live, filter, stage, keeps_copy, had: None },
            greeting: greeting.into(),
            ended,
            heartbeat: Instant::now() + HEARTBEAT,
            is_moved: false,
            _open: open,
        }
    }

    /// The next text to send; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.greeting.is_empty() {
            return Some(std::mem::take(&mut self.greeting));
        }
        loop {
            if matches!(self.listening.stage, Stage::Ends) {
                return None;
            }
            let step = tokio::select! {
                biased;
                end = &mut self.ended => return self.end(&end),
                said = self.listening.step() => said,
                () = sleep_until(self.heartbeat) => {
                    Said::Text(self.listening.sign_of_life(self.is_moved))
                }
            };
            match step {
                Said::Text(text) if !text.is_empty() => {
                    self.heartbeat = Instant::now() + HEARTBEAT;
                    self.is_moved = false;
                    return Some(text);
                }
                Said::Text(_) => self.is_moved = true,
                Said::Dropped(why, words) => {
                    debug!(reason = why.name(), "dropped a listener");
                    self.listening.live.metrics.dropped(why);
                    self.listening.stage = Stage::Ends;
                    return Some(comment(words));
                }
            }
        }
    }

    /// The last text; none within a snapshot, which would be taken for complete.
    fn end(&mut self, end: &End) -> Option<Bytes> {
        let is_within = matches!(self.listening.stage, Stage::Takes(..));
        self.listening.stage = Stage::Ends;
        let words = end.words(&self.listening.live.metrics);
        (!is_within).then(|| comment(words))
    }
}

impl Listening {
    /// One step. The future may be dropped without losing anything.
    async fn step(&mut self) -> Said {
        match &mut self.stage {
            Stage::Waits => {
                let listener = self.live.hub.listen().await;
                let id = listener.id();
                self.stage = Stage::Listens(listener);
                Said::Text(id)
            }
            Stage::Resumes(resume) => {
                match resume.step(&self.live, &self.context.state, &self.filter).await {
                    Ok(Step::Text(text)) => {
                        let has_erased = resume.has_erased();
                        self.renew_after(has_erased);
                        Said::Text(text)
                    }
                    Ok(Step::Joined(listener)) => {
                        self.stage = Stage::Listens(listener);
                        Said::Text(Bytes::new())
                    }
                    Ok(Step::Gap) => self.gap(),
                    Err(error) => {
                        self.context.state.doubt();
                        let said = failed(&chain(&error));
                        sleep(PAUSE).await;
                        said
                    }
                }
            }
            Stage::Gathers => {
                self.stage = self.snapshot();
                Said::Text(Bytes::new())
            }
            Stage::Awaits(snapshot) => {
                let error = match snapshot.await {
                    Ok(Ok(snapshot)) => return self.take(snapshot),
                    Ok(Err(SnapshotError::TooLarge)) => {
                        let words = "the state is too large for a snapshot: request a part of it";
                        return Said::Dropped(Dropped::TooLarge, words);
                    }
                    Ok(Err(error)) => chain(&error),
                    Err(error) => chain(&error),
                };
                self.stage = Stage::Pauses;
                failed(&error)
            }
            Stage::Pauses => {
                sleep(PAUSE).await;
                self.stage = self.snapshot();
                Said::Text(Bytes::new())
            }
            Stage::Takes(snapshot, lines) => {
                let (mut text, is_last) = piece(lines);
                if is_last {
                    let position = snapshot.position().clone();
                    text.extend_from_slice(&own_id(&position));
                    self.stage = Stage::Resumes(Resume::new(position));
                }
                Said::Text(text.into())
            }
            Stage::Listens(listener) => match listener.next().await {
                Heard::Batch(batch) => {
                    let text = listener.text(&batch, &self.filter);
                    self.renew_after(batch.has_erased());
                    Said::Text(text)
                }
                Heard::Gap => self.gap(),
                Heard::TooSlow => {
                    let words = "too slow: reconnect with the id of the last event";
                    Said::Dropped(Dropped::Slow, words)
                }
            },
            Stage::Ends => Said::Text(Bytes::new()),
        }
    }

    /// A listener that keeps a copy of the state gets a new one if changes were erased, gathered from now on.
    fn renew_after(&mut self, has_erased: bool) {
        if has_erased && (self.keeps_copy || self.had.is_some()) {
            self.had = Some(std::time::Instant::now());
            self.stage = self.snapshot();
        }
    }

    /// Starts to gather a snapshot, later than the last one and than the last gap.
    fn snapshot(&self) -> Stage {
        let since = self.had.max(self.live.hub.last_gap());
        Stage::Awaits(self.live.snapshots.get(self.filter.clone(), since))
    }

    /// Starts to send a snapshot.
    fn take(&mut self, snapshot: Arc<Snapshot>) -> Said {
        self.had = Some(snapshot.started());
        let lines = snapshot.lines(self.filter.clone());
        self.stage = Stage::Takes(snapshot, lines);
        Said::Text(Bytes::from_static(b"event: snapshot\n"))
    }

    /// Reports that changes were lost; a snapshot follows.
    fn gap(&mut self) -> Said {
        self.stage = self.snapshot();
        Said::Text(Bytes::from_static(
            b"event: gap\ndata: {\"reason\":\"changes after this position are no longer kept\"}\n\n",
        ))
    }

    /// A comment; or, if a filter let nothing through for a while, the position: an event without data only moves the
    /// listener's `Last-Event-ID`.
    fn sign_of_life(&self, is_moved: bool) -> Bytes {
        match &self.stage {
            Stage::Listens(listener) if is_moved => listener.id(),
            Stage::Resumes(resume) if is_moved => own_id(resume.position()),
            _ => Bytes::from_static(b":\n\n"),
        }
    }
}

/// The result of a step.
enum Said {
    /// Text to send; empty if there was nothing for this listener.
    Text(Bytes),
    /// The listener is dropped and gets the reason.
    Dropped(Dropped, &'static str),
}

/// The next lines of a snapshot as data, and whether they are the last.
fn piece(lines: &mut Lines) -> (Vec<u8>, bool) {
    let mut text = Vec::new();
    while text.len() < PIECE {
        let before = text.len();
        text.extend_from_slice(b"data: ");
        let bare = text.len();
        if !lines.write(&mut text) {
            text.truncate(before);
            return (text, true);
        }
        if text.len() == bare {
            // The filter wanted nothing of this piece.
            text.truncate(before);
        } else {
            text.push(b'\n');
        }
    }
    (text, false)
}

/// A line that says why a listener has to wait.
fn failed(error: &str) -> Said {
    if let Some(times) = failure_line_due() {
        warn!(times, "a listener waits: {error}");
    }
    Said::Text(Bytes::new())
}
