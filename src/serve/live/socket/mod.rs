//! Socket.IO at `/socket.io/` (protocol 5): the rooms and events of the source document.
//!
//! A handshake carries no credentials: they come with the connection to the namespace, in `auth`. Until then a
//! session may do nothing, and it is closed soon.

mod inbound;
mod session;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use socketioxide::extract::{SocketRef, TryData};
use socketioxide::handler::ConnectHandler as _;
use socketioxide::{SocketIo, TransportType};

use self::session::{Ears, Session};
use super::Live;
use crate::serve::limits::Place;
use crate::serve::problem::Problem;
use crate::serve::{Caller, Client, Context};

/// The maximum size of a client's message, and of a polling request.
const MESSAGE_BYTES: usize = 64 << 10;
/// How many packets wait in a connection; the rest waits in the ring that all share.
const PACKETS: usize = 256;
/// How many bytes a WebSocket connection reads at once.
const READ_BYTES: usize = 4 << 10;
/// How often a connection is pinged, and how long its answer may take.
const PING: Duration = Duration::from_secs(25);
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// How long an upgrade from polling to WebSocket may take.
const UPGRADE_WITHIN: Duration = Duration::from_secs(10);
/// How long a session may be without a namespace.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The routes of Socket.IO.
pub(super) fn router(context: &Context, live: &Live) -> Router<Context> {
    let (service, io) = SocketIo::builder()
        .req_path("/socket.io")
        .transports([TransportType::Polling, TransportType::Websocket])
        .max_payload(MESSAGE_BYTES as u64)
        .max_buffer_size(PACKETS)
        .ws_read_buffer_size(READ_BYTES)
        .ws_max_message_size(MESSAGE_BYTES)
        .ws_max_frame_size(MESSAGE_BYTES)
        .ping_interval(PING)
        .ping_timeout(PONG_WITHIN)
        .upgrade_timeout(UPGRADE_WITHIN)
        .connect_timeout(CONNECT_WITHIN)
        .build_svc();
    let (let_in, live) = (context.clone(), live.clone());
    let admit = move |socket: SocketRef, TryData(auth): TryData<Auth>| {
        let admitted = admit(&let_in, &socket, &auth.unwrap_or_default());
        std::future::ready(admitted.map_err(|problem| problem.detail))
    };
    let connected = context.clone();
    let begin = move |socket: SocketRef| {
        if let Some(admitted) = socket.extensions.remove::<Admitted>() {
            Session::begin(connected, live, socket, admitted);
        }
        std::future::ready(())
    };
    io.ns("/", begin.with(admit));
    tokio::spawn(close(context.clone(), io));
    let guard = Guard { context: context.clone(), handshakes: Arc::default() };
    Router::new().route_service("/socket.io/", service).layer(from_fn_with_state(guard, guarded))
}

/// Closes all connections once the process stops.
async fn close(context: Context, io: SocketIo) {
    context.stopped().await;
    io.close().await;
}

/// What a client sends when it connects to the namespace.
#[derive(Debug, Default, Deserialize)]
struct Auth {
    #[serde(default)]
    token: Option<String>,
}

/// An admitted client: its identity, its address, and its place among the connections.
#[derive(Clone)]
struct Admitted {
    caller: Caller,
    client: Client,
    ears: Arc<Mutex<Option<Ears>>>,
    _place: Arc<Place>,
}

impl Admitted {
    fn take_ears(&self) -> Option<Ears> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Admits a client, if it may connect.
fn admit(context: &Context, socket: &SocketRef, auth: &Auth) -> Result<(), Problem> {
    let parts = socket.req_parts();
    let caller = match &auth.token {
        Some(token) => {
            context.access.check_source(&parts.headers)?;
            context.access.of_token(Some(token))?
        }
        None => context.access.of_headers(&parts.headers)?,
    };
    let trusted = &context.config.serve.trusted_proxies;
    let client = Client::of(&parts.extensions, &parts.headers, trusted)
        .ok_or_else(|| Problem::bad_request("the connection has no address"))?;
    let place = context.limits.connect(Some(client.0)).ok_or_else(|| {
        context.metrics.connection_refused();
        Problem::unavailable("too many connections are open")
    })?;
    let ears = Arc::new(Mutex::new(Some(Ears::open(socket))));
    socket.extensions.insert(Admitted { caller, client, ears, _place: Arc::new(place) });
    Ok(())
}

/// Runs before every request of Socket.IO.
#[derive(Clone)]
struct Guard {
    context: Context,
    /// When the sessions were opened that may still be without a namespace.
    handshakes: Arc<Mutex<VecDeque<Instant>>>,
}

/// Refuses requests from forbidden origins, and more new sessions than there may be connections.
async fn guarded(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if let Err(problem) = guard.context.access.check_source(request.headers()) {
        return problem.into_response();
    }
    let query = request.uri().query().unwrap_or_default();
    let is_known = query.split('&').any(|pair| pair.starts_with("sid="));
    if !is_known && !guard.may_open() {
        return Problem::unavailable("too many connections are being opened").into_response();
    }
    next.run(request).await
}

impl Guard {
    /// Records a new session, unless too many may still be without a namespace.
    fn may_open(&self) -> bool {
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        while handshakes.front().is_some_and(|at| at.elapsed() > CONNECT_WITHIN) {
            handshakes.pop_front();
        }
        let is_free = handshakes.len() < self.context.config.serve.max_connections;
        if is_free {
            handshakes.push_back(Instant::now());
        }
        is_free
    }
}
