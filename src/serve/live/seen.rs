//! `GET /api/v1/activity`: events as they come, for people who watch. It sends no more of them than people can read,
//! and no position: for every change, use the changes.

use std::convert::Infallible;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, stream};
use tokio::time::{Instant, sleep_until};

use super::Live;
use super::rooms::{Heard, Hearing, Stay};
use super::sse::{self, End, HEARTBEAT, comment, retry};
use crate::changes::rooms::{EVENTS, Message, Payload};
use crate::serve::problem::Problem;
use crate::serve::{Caller, Context};
use crate::telemetry::metrics::{ConnectionKind, Dropped, Open};

/// Answers with the events as they come.
pub(super) async fn activity(
    State(context): State<Context>,
    Extension(live): Extension<Live>,
    caller: Caller,
) -> Result<Response, Problem> {
    caller.must_read()?;
    let watcher = Watcher::new(&context, live, caller);
    let text = stream::unfold(watcher, async |mut watcher| {
        let text = watcher.next().await?;
        Some((Ok::<_, Infallible>(text), watcher))
    });
    Ok(sse::response(text))
}

/// One watcher, for as long as it is permitted.
struct Watcher {
    live: Live,
    hearing: Hearing,
    greeting: Bytes,
    /// Completes once rooms receive messages.
    telling: Option<BoxFuture<'static, ()>>,
    ended: BoxFuture<'static, End>,
    is_over: bool,
    _stay: Stay,
    _open: Open,
}

impl Watcher {
    fn new(context: &Context, live: Live, caller: Caller) -> Self {
        let told = live.clone();
        Self {
            hearing: live.rooms.hear(),
            greeting: retry().into(),
            telling: Some(async move { told.telling().await }.boxed()),
            ended: sse::ended(context.clone(), caller),
            is_over: false,
            _stay: live.rooms.enter(EVENTS),
            _open: context.metrics.open(ConnectionKind::Sse),
            live,
        }
    }

    /// The next text to send; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if !self.greeting.is_empty() {
            return Some(std::mem::take(&mut self.greeting));
        }
        let silence = Instant::now() + HEARTBEAT;
        loop {
            let begun = async {
                match &mut self.telling {
                    Some(telling) => telling.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                end = &mut self.ended => {
                    self.is_over = true;
                    return Some(comment(end.words(&self.live.metrics)));
                }
                () = begun => self.telling = None,
                heard = self.hearing.next() => match heard {
                    Heard::Message(message) if message.room == EVENTS => {
                        if let Some(text) = text(&message) {
                            return Some(text);
                        }
                    }
                    Heard::Message(_) => {}
                    Heard::TooSlow => {
                        self.live.metrics.dropped(Dropped::Slow);
                        self.is_over = true;
                        return Some(comment("too slow: reconnect"));
                    }
                },
                () = sleep_until(silence) => return Some(Bytes::from_static(b":\n\n")),
            }
        }
    }
}

/// An event, or how many were left out. Lost changes do not matter to a watcher of events.
fn text(message: &Message) -> Option<Bytes> {
    let name = match &*message.payload {
        Payload::Event(_) => "",
        Payload::LeftOut { .. } => "event: left_out\n",
        _ => return None,
    };
    let data = serde_json::to_string(&*message.payload).ok()?;
    Some(format!("{name}data: {data}\n\n").into())
}
