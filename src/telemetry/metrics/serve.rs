//! What `serve` counts and times, as handles that it gets once.

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

/// The routes by which requests are counted, with their names in the metric.
pub const ROUTES: &[(&str, &str)] = &[
    ("/", "page"),
    ("/admin/presence/redis", "source_presence"),
    ("/admin/redis/debug", "source_debug"),
    ("/admin/redis/stats", "source_stats"),
    ("/admin/sessions/redis", "source_sessions"),
    ("/api/heartbeat", "heartbeat"),
    ("/api/session/update", "update_session"),
    ("/api/v1/access", "access"),
    ("/api/v1/changes", "changes"),
    ("/api/v1/activity", "activity"),
    ("/api/v1/dead", "dead"),
    ("/api/v1/dead/drop", "drop_dead"),
    ("/api/v1/dead/retry", "retry_dead"),
    ("/api/v1/dead/{id}", "dead_letter"),
    ("/api/v1/documents", "documents"),
    ("/api/v1/documents/{doc}", "document"),
    ("/api/v1/events", "events"),
    ("/api/v1/login", "login"),
    ("/api/v1/logout", "logout"),
    ("/api/v1/most-viewed", "most_viewed"),
    ("/api/v1/online", "online"),
    ("/api/v1/openapi.json", "openapi"),
    ("/api/v1/presence", "presence"),
    ("/api/v1/recent", "recent"),
    ("/api/v1/seen", "seen"),
    ("/api/v1/sessions", "sessions"),
    ("/api/v1/sessions/{sid}", "session"),
    ("/api/v1/stats", "stats"),
    ("/api/v1/status", "status"),
    ("/api/v1/tokens/{token}", "token"),
    ("/api/v1/tokens/{token}/viewed", "viewed"),
    ("/api/v1/users/query", "query_users"),
    ("/api/v1/users/{user}", "user"),
    ("/online", "online_text"),
    ("/page/{file}", "page_file"),
    ("/socket.io/", "socketio"),
];
/// Requests to no route.
const OTHER: &str = "other";
/// Routes whose answers last as long as somebody listens, so their duration means nothing.
const OPEN_ENDED: [&str; 3] = ["activity", "changes", "socketio"];

/// The names of all routes.
pub(super) fn route_names() -> Vec<&'static str> {
    ROUTES.iter().map(|(_, name)| *name).chain([OTHER]).collect()
}

/// The classes of statuses by which answers are counted.
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

/// Why events were not added, in addition to the reasons of dead letters.
pub const TROUBLES: [&str; 6] =
    ["buffer_full", "redis_away", "in_doubt", "redis_refuses", RATE_LIMITED, FORBIDDEN];
/// Too many from one client in too short a time.
pub const RATE_LIMITED: &str = "rate_limited";
/// From a client that may not send events.
pub const FORBIDDEN: &str = "forbidden";

/// The metrics of a process that serves applications and browsers.
#[derive(Clone)]
pub struct ServeMetrics(Arc<Handles>);

struct Handles {
    /// By route, and by class.
    requests: Vec<(&'static str, [Counter; CLASSES.len()])>,
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
            requests: route_names().into_iter().map(|route| (route, of(route))).collect(),
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
        let known = |path: &str| ROUTES.iter().find(|(route, _)| *route == path);
        let known = route.and_then(known);
        debug_assert_eq!(known.is_some(), route.is_some(), "{route:?} is not listed");
        let name = known.map_or(OTHER, |(_, name)| name);
        let class = usize::from(status / 100).clamp(1, CLASSES.len()) - 1;
        if let Some((_, classes)) = self.0.requests.iter().find(|(route, _)| *route == name) {
            classes[class].increment(1);
        }
        if !OPEN_ENDED.contains(&name) {
            self.0.request_time.record(took);
        }
    }

    /// A connection of this kind is open until the result is dropped.
    pub fn open(&self, kind: ConnectionKind) -> Open {
        self.0.connections[kind as usize].fetch_add(1, Ordering::Relaxed);
        Open(self.clone(), kind)
    }

    /// A connection was refused because there were too many.
    pub fn connection_refused(&self) {
        self.0.connections_refused.increment(1);
    }

    /// Events are on the stream.
    pub fn events_taken(&self, count: u64) {
        self.0.taken.increment(count);
    }

    /// Events are not on the stream, or may not be.
    pub fn events_refused(&self, reason: &str, count: u64) {
        self.0.refused.add(reason, count);
    }

    /// An entry was added, after so long.
    pub fn entry_added(&self, took: Duration) {
        self.0.add_time.record(took);
    }

    /// Publishes the open connections and the buffer: events that wait, and the fraction of the buffer that they
    /// take.
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
