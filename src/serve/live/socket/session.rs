//! One connection to the namespace: a task that handles the client's messages in order, and sends the messages of its
//! rooms at the client's pace.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use serde_json::{Value, json};
use socketioxide::extract::{AckSender, Event, SocketRef, TryData};
use socketioxide::{SendError, SocketError};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Admitted;
use super::inbound::{From, Wish};
use crate::changes::rooms::Message;
use crate::serve::intake::Sender;
use crate::serve::live::Live;
use crate::serve::live::rooms::{Heard, Hearing, Stay};
use crate::serve::problem::Problem;
use crate::serve::{Caller, Client, Context};
use crate::telemetry::metrics::{ConnectionKind, Dropped, Open};

/// How many requests of one client may wait.
const WISHES: usize = 256;
/// How many events of one client may be on their way to the stream at once.
const ON_THE_WAY: usize = 256;
/// When a full connection is tried again.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a connection may be full before it is closed.
const FULL_FOR: Duration = Duration::from_secs(30);
/// How long a join may wait for the feed.
const FEED_WITHIN: Duration = Duration::from_secs(2);

/// A request, and how to answer it if the client asked for that.
struct Asked {
    wish: Result<Wish, String>,
    answer: AckSender,
}

/// The result for an event on its way to the stream.
struct Outcome {
    added: Result<(), Problem>,
    answer: AckSender,
}

/// The events on their way to the stream, started in order.
type OnTheWay = FuturesUnordered<BoxFuture<'static, Outcome>>;

/// Why a session ends.
enum End {
    /// The connection is closed.
    Closed,
    /// The client is too slow.
    TooSlow,
    /// Its token is no longer valid.
    Unauthorized(&'static str),
}

/// Messages from a client, and the notice that it is gone.
pub(super) struct Ears {
    asked: mpsc::Receiver<Asked>,
    closed: Arc<Notify>,
}

impl Ears {
    /// Starts to listen before the client learns that it is connected, so that none of its messages is missed.
    pub(super) fn open(socket: &SocketRef) -> Self {
        let (wishes, asked) = mpsc::channel(WISHES);
        let closed = Arc::new(Notify::new());
        let ended = Arc::clone(&closed);
        // Code outside the future runs as the message arrives, which keeps the order.
        socket.on_fallback(
            move |socket: SocketRef,
                  Event(event),
                  TryData(data): TryData<Value>,
                  answer: AckSender| {
                let wish = Wish::read(&event, &data.unwrap_or_default());
                let taken = wish.map(|wish| wishes.try_send(Asked { wish, answer }));
                if let Some(Err(_full)) = taken {
                    let _best_effort = error(&socket, "too many events at once");
                }
                std::future::ready(())
            },
        );
        socket.on_disconnect(move || {
            ended.notify_one();
            std::future::ready(())
        });
        Self { asked, closed }
    }
}

/// One connection to the namespace.
pub(super) struct Session {
    context: Context,
    live: Live,
    socket: SocketRef,
    caller: Caller,
    client: Client,
    sender: Arc<Sender>,
    hearing: Hearing,
    stays: HashMap<String, Stay>,
    _admitted: Admitted,
    _open: Open,
}

impl Session {
    /// Starts a session; it ends by itself.
    pub(super) fn begin(context: Context, live: Live, socket: SocketRef, admitted: Admitted) {
        let Some(Ears { asked, closed }) = admitted.take_ears() else { return };
        let sender = {
            let headers = &socket.req_parts().headers;
            Arc::new(Sender::client(&admitted.caller, admitted.client, headers))
        };
        let open = context.metrics.open(ConnectionKind::SocketIo);
        let session = Self {
            hearing: live.rooms.hear(),
            caller: admitted.caller.clone(),
            client: admitted.client,
            context,
            live,
            socket,
            sender,
            stays: HashMap::new(),
            _admitted: admitted,
            _open: open,
        };
        tokio::spawn(session.run(asked, closed));
    }

    async fn run(mut self, mut asked: mpsc::Receiver<Asked>, closed: Arc<Notify>) {
        let caller = self.caller.clone();
        let end = tokio::select! {
            () = closed.notified() => End::Closed,
            why = caller.ended() => End::Unauthorized(why),
            end = self.serve(&mut asked) => end,
        };
        match end {
            End::Closed => {}
            End::TooSlow => self.drop_for(Dropped::Slow, "too slow", &closed).await,
            End::Unauthorized(why) => self.drop_for(Dropped::Unauthorized, why, &closed).await,
        }
    }

    async fn serve(&mut self, asked: &mut mpsc::Receiver<Asked>) -> End {
        let mut on_the_way = OnTheWay::new();
        loop {
            let is_said = tokio::select! {
                biased;
                Some(Outcome { added, answer }) = on_the_way.next() => {
                    self.answer(added.map_err(|problem| problem.detail), answer).await
                }
                Some(asked) = asked.recv(), if on_the_way.len() < ON_THE_WAY => {
                    self.take(asked, &mut on_the_way).await
                }
                heard = self.hearing.next(), if !self.stays.is_empty() => match heard {
                    Heard::Message(message) => self.tell(&message).await,
                    Heard::TooSlow => Err(End::TooSlow),
                },
                else => Err(End::Closed),
            };
            if let Err(end) = is_said {
                return end;
            }
        }
    }

    async fn take(&mut self, asked: Asked, on_the_way: &mut OnTheWay) -> Result<(), End> {
        let Asked { wish, answer } = asked;
        match wish {
            Ok(Wish::Join(room)) => match self.join(&room).await {
                Ok(()) => {
                    self.say("joined_room", &json!({ "room": room })).await?;
                    self.answer(Ok(()), answer).await
                }
                Err(why) => self.answer(Err(why), answer).await,
            },
            Ok(Wish::Leave(room)) => {
                self.stays.remove(&room);
                self.say("left_room", &json!({ "room": room })).await?;
                self.answer(Ok(()), answer).await
            }
            Ok(Wish::Send(sent)) => {
                let (context, caller) = (self.context.clone(), self.caller.clone());
                let (client, sender) = (self.client, Arc::clone(&self.sender));
                on_the_way.push(Box::pin(async move {
                    let (context, caller, sender) = (&context, &caller, &*sender);
                    let from = From { context, caller, client, sender };
                    Outcome { added: sent.add(from).await, answer }
                }));
                Ok(())
            }
            Err(why) => self.answer(Err(why), answer).await,
        }
    }

    /// Enters a room.
    async fn join(&mut self, room: &str) -> Result<(), String> {
        if !self.caller.rooms.contain(room) {
            return Err(format!("this token does not name the room {room}"));
        }
        let limits = &self.context.state.facts().deployment.limits;
        if room.len() > limits.max_identifier_bytes + "user:".len() {
            return Err("the name of the room is too long".to_owned());
        }
        let most = self.context.config.live.get().max_rooms;
        if self.stays.len() >= most && !self.stays.contains_key(room) {
            return Err(format!("a connection may be in at most {most} rooms: leave one first"));
        }
        // From the confirmation of its join on, a client receives every change, unless the server is down.
        let _without = timeout(FEED_WITHIN, self.live.telling()).await;
        if self.stays.is_empty() {
            self.hearing.skip_to_end();
        }
        let rooms = &self.live.rooms;
        self.stays.entry(room.to_owned()).or_insert_with(|| rooms.enter(room));
        Ok(())
    }

    async fn tell(&self, message: &Message) -> Result<(), End> {
        if !self.stays.contains_key(&message.room) {
            return Ok(());
        }
        self.say(message.event, &*message.payload).await
    }

    /// Answers a request with the acknowledgement that the client asked for, if any; errors are sent in any case.
    async fn answer(&self, outcome: Result<(), String>, answer: AckSender) -> Result<(), End> {
        let said = match outcome {
            Ok(()) => json!({ "status": "success" }),
            Err(message) => {
                self.say("error", &json!({ "message": message })).await?;
                json!({ "status": "error", "message": message })
            }
        };
        // A client that lets its connection fill up does not get it.
        let _best_effort = answer.send(&said);
        Ok(())
    }

    /// Sends a message once the connection has room for it.
    async fn say(&self, event: &str, data: &(impl Serialize + ?Sized)) -> Result<(), End> {
        let said = async {
            loop {
                match self.socket.emit(event, data) {
                    Ok(()) => return Ok(()),
                    Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                        if !self.stays.is_empty() && self.hearing.is_too_slow() {
                            return Err(End::TooSlow);
                        }
                        sleep(PAUSE).await;
                    }
                    Err(error) => {
                        debug!("a connection ended early: {error}");
                        return Err(End::Closed);
                    }
                }
            }
        };
        timeout(FULL_FOR, said).await.unwrap_or(Err(End::TooSlow))
    }

    /// Ends the connection, and sends the reason if there is room.
    async fn drop_for(mut self, why: Dropped, words: &str, closed: &Notify) {
        debug!(reason = why.name(), "dropped a connection");
        self.live.metrics.dropped(why);
        // It has left its rooms, so that they do not count as used.
        self.stays.clear();
        let _best_effort = error(&self.socket, words);
        let disconnected = async {
            while let Err(SocketError::InternalChannelFull) = self.socket.clone().disconnect() {
                sleep(PAUSE).await;
            }
        };
        // A connection that never has room again ends with its heartbeat.
        tokio::select! {
            () = disconnected => {}
            () = closed.notified() => {}
        }
    }
}

fn error(socket: &SocketRef, message: &str) -> Result<(), SendError> {
    socket.emit("error", &json!({ "message": message }))
}
