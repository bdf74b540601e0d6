//! What `serve` counts and times: handles it gets once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram, counter};

use super::board::{self, Sample, Topic};
use super::inventory::{
    ADD_TIME, BUFFER_USED, BUFFERED, CONNECTIONS, CONNECTIONS_REFUSED, REFUSED, REQUEST_TIME,
    REQUESTS, TAKEN,
};
use super::{ByLabel, own_counter, own_histogram};

/// The routes that requests are counted by; `other` is everything that is none.
pub const ROUTES: &[&str] = &[
    "/",
    "/admin/presence/redis",
    "/admin/redis/debug",
    "/admin/redis/stats",
    "/admin/sessions/redis",
    "/api/heartbeat",
    "/api/session/update",
    "/api/v1/changes",
    "/api/v1/documents",
    "/api/v1/documents/{doc}",
    "/api/v1/events",
    "/api/v1/login",
    "/api/v1/logout",
    "/api/v1/most-viewed",
    "/api/v1/online",
    "/api/v1/openapi.json",
    "/api/v1/presence",
    "/api/v1/recent",
    "/api/v1/seen",
    "/api/v1/sessions",
    "/api/v1/sessions/{sid}",
    "/api/v1/stats",
    "/api/v1/status",
    "/api/v1/tokens/{token}",
    "/api/v1/tokens/{token}/viewed",
    "/api/v1/users/query",
    "/api/v1/users/{user}",
    "/online",
    "/socket.io/",
    OTHER_ROUTE,
];
const OTHER_ROUTE: &str = "other";
/// Routes whose answers go on for as long as somebody listens: their time says nothing.
const OPEN_ENDED: [&str; 2] = ["/api/v1/changes", "/socket.io/"];

/// The classes of statuses that answers are counted by.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    /// Any connection to the listener.
    Http,
    /// A listener to server-sent events.
    Sse,
    /// A client of Socket.IO.
    SocketIo,
}

impl ConnectionKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Http, Self::Sse, Self::SocketIo];

    /// Its name, the label of the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Sse => "sse",
            Self::SocketIo => "socketio",
        }
    }
}

/// Why events were not added, beyond what dead letters have as their reasons.
pub const TROUBLES: [&str; 6] =
    ["buffer_full", "redis_away", "in_doubt", "redis_refuses", "rate_limited", "forbidden"];

/// The metrics of a process that serves applications and browsers.
#[derive(Clone)]
pub struct ServeMetrics(Arc<Handles>);

struct Handles {
    /// By place among the routes, and by class.
    requests: Vec<[Counter; CLASSES.len()]>,
    request_time: Histogram,
    connections: [AtomicUsize; ConnectionKind::ALL.len()],
    connections_refused: Counter,
    taken: Counter,
    refused: ByLabel,
    add_time: Histogram,
}

impl fmt::Debug for ServeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServeMetrics")
    }
}

/// A connection that is open until this is dropped.
#[derive(Debug)]
pub struct Open(ServeMetrics, ConnectionKind);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.connections[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

impl ServeMetrics {
    /// The handles; the recorder must be installed.
    pub fn registered() -> Self {
        let of = |route: &'static str| {
            CLASSES.map(|class| counter!(REQUESTS.name, "route" => route, "class" => class))
        };
        Self(Arc::new(Handles {
            requests: ROUTES.iter().map(|route| of(route)).collect(),
            request_time: own_histogram(REQUEST_TIME),
            connections: [const { AtomicUsize::new(0) }; ConnectionKind::ALL.len()],
            connections_refused: own_counter(CONNECTIONS_REFUSED),
            taken: own_counter(TAKEN),
            refused: ByLabel::new(REFUSED),
            add_time: own_histogram(ADD_TIME),
        }))
    }

    /// A request to a route was answered with this status, after so long.
    pub fn answered(&self, route: Option<&str>, status: u16, took: Duration) {
        let place = |wanted: &str| ROUTES.iter().position(|route| *route == wanted);
        debug_assert!(route.is_none_or(|route| ROUTES.contains(&route)), "{route:?} is not listed");
        let place = route.and_then(place).or_else(|| place(OTHER_ROUTE)).unwrap_or_default();
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        self.0.requests[place][class].increment(1);
        if !OPEN_ENDED.contains(&ROUTES[place]) {
            self.0.request_time.record(took);
        }
    }

    /// A connection of this kind is open from now on.
    pub fn open(&self, kind: ConnectionKind) -> Open {
        self.0.connections[kind as usize].fetch_add(1, Ordering::Relaxed);
        Open(self.clone(), kind)
    }

    /// A connection was one too many.
    pub fn connection_refused(&self) {
        self.0.connections_refused.increment(1);
    }

    /// Events are on the stream.
    pub fn events_taken(&self, count: u64) {
        self.0.taken.increment(count);
    }

    /// Events are not on the stream, or not for sure.
    pub fn events_refused(&self, reason: &str, count: u64) {
        self.0.refused.add(reason, count);
    }

    /// An entry was added, after so long.
    pub fn entry_added(&self, took: Duration) {
        self.0.add_time.record(took);
    }

    /// Shows what is open and what waits: events, and the part of the buffer that they take.
    pub fn show(&self, (events, part): (usize, f64)) {
        let open = ConnectionKind::ALL.map(|kind| {
            let count = self.0.connections[kind as usize].load(Ordering::Relaxed);
            Sample::new(CONNECTIONS, &[&kind.name()], count as f64)
        });
        let waiting =
            [Sample::new(BUFFERED, &[], events as f64), Sample::new(BUFFER_USED, &[], part)];
        board::put(Topic::Serve, 0, open.into_iter().chain(waiting).collect());
    }
}
