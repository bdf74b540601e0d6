//! Finds the node that has a key: the only one, or on a Redis Cluster one of several, of which some may be dead.
//! Nodes that may know are asked in turn, the likeliest first, and a redirect is followed at once. If a node does not
//! answer soon, the next one is asked as well.
//!
//! The nodes' view of the whole Cluster (`CLUSTER SHARDS`, or `CLUSTER SLOTS` on servers without it) is remembered
//! while the process runs, so that it finds its way when all named nodes are gone.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use tokio::time::{sleep, timeout};

use super::connect::{Asked, Node, ask_for, moved};
use super::reply;
use crate::config::{Address, Known, Place, Server, Shard};
use crate::error::Error;
use crate::key::slot_of;

/// How long a node has to answer before another is asked as well.
const PATIENCE: Duration = Duration::from_millis(400);
/// The maximum number of nodes asked.
const MOST_ASKED: usize = 24;
/// How long a node may take to return its view.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);

/// Connects to the node that holds `key`, starting with the named and the known nodes.
pub(super) async fn find(
    server: &Server,
    at: &Address,
    key: &str,
    response_timeout: Duration,
) -> Result<Node, Error> {
    let Some(first) = Place::of(at.info.addr()) else {
        return at_socket(at, key, response_timeout).await;
    };
    let (known, slot) = (&server.known, slot_of(key));
    let named: Vec<Place> = std::iter::once(first).chain(server.others.iter().cloned()).collect();
    let mut search = Search {
        waiting: known.candidates(slot, &named).into(),
        asked: HashSet::new(),
        tried: Vec::new(),
    };
    let ask = |place: Place| {
        let at = moved(at, &place);
        Box::pin(async move { (place, ask_for(&at, key, response_timeout).await) })
    };
    let mut under_way = FuturesUnordered::new();
    loop {
        let next = search.next();
        let has_more = next.is_some();
        under_way.extend(next.map(ask));
        let answer = tokio::select! {
            answer = under_way.next() => answer,
            () = sleep(PATIENCE), if has_more => continue,
        };
        let Some((place, answer)) = answer else {
            known.doubt();
            return Err(search.failure(slot));
        };
        match answer {
            Ok(Asked::Here(mut node)) => {
                known.reached(&place);
                refresh(known, &mut node).await;
                return Ok(node);
            }
            Ok(Asked::Elsewhere(mut node, to)) => {
                known.reached(&place);
                known.set_cluster(true);
                if known.master_of(slot).is_none_or(|master| master.to_string() != to) {
                    known.doubt();
                }
                refresh(known, &mut node).await;
                search.follow(target(&to, &place, known.master_of(slot)), &place);
            }
            Err(error) => {
                known.failed(place);
                search.tried.push(error);
            }
        }
    }
}

/// A Unix socket leads to one server. If the key is elsewhere, nothing tells the socket of that node.
async fn at_socket(at: &Address, key: &str, response_timeout: Duration) -> Result<Node, Error> {
    match ask_for(at, key, response_timeout).await? {
        Asked::Here(node) => Ok(node),
        Asked::Elsewhere(_, to) => Err(Error::Redirect { from: at.info.addr().to_string(), to }),
    }
}

/// The search for a key's node: whom to ask, and what they answered.
struct Search {
    waiting: VecDeque<Place>,
    asked: HashSet<Place>,
    tried: Vec<Error>,
}

impl Search {
    fn next(&mut self) -> Option<Place> {
        loop {
            let place = self.waiting.pop_front()?;
            if self.asked.len() < MOST_ASKED && self.asked.insert(place.clone()) {
                return Some(place);
            }
        }
    }

    /// Asks `place` next, to which `from` redirected.
    fn follow(&mut self, place: Place, from: &Place) {
        if self.asked.contains(&place) {
            self.tried.push(Error::Redirect { from: from.to_string(), to: place.to_string() });
        }
        self.waiting.push_front(place);
    }

    fn failure(mut self, slot: u16) -> Error {
        match self.tried.pop() {
            Some(only) if self.tried.is_empty() => only,
            last => Error::NoNode { slot, tried: self.tried.into_iter().chain(last).collect() },
        }
    }
}

/// Where a redirect leads. A server that does not know its own name leaves the host out, or writes `?`.
fn target(to: &str, from: &Place, known: Option<Place>) -> Place {
    let (host, port) = to.rsplit_once(':').unwrap_or((to, ""));
    let port = port.parse().unwrap_or(from.port);
    match host {
        "?" => known
            .filter(|known| known.port == port)
            .unwrap_or_else(|| Place { host: from.host.clone(), port }),
        "" => Place { host: from.host.clone(), port },
        host => Place { host: host.to_owned(), port },
    }
}

/// Asks a node for its view of the Cluster, if it is time to.
pub(super) async fn refresh(known: &Known, node: &mut Node) {
    if known.is_cluster().is_none()
        && let Some(is_cluster) = is_cluster(&mut node.connection).await
    {
        known.set_cluster(is_cluster);
    }
    let Some(place) = Place::of(node.at.info.addr()).filter(|_| known.is_due()) else { return };
    let is_tls = matches!(node.at.info.addr(), redis::ConnectionAddr::TcpTls { .. });
    match timeout(VIEW_TIMEOUT, view(&mut node.connection, &place, is_tls)).await {
        Ok(Ok(Some(shards))) => known.learn(shards),
        Ok(Err(error)) if error.code() == Some("NOPERM") => known.set_refused(),
        _ => {}
    }
}

/// Whether a server is a node of a Cluster, according to `HELLO`, which every user may call; `None` without an
/// answer.
async fn is_cluster(connection: &mut MultiplexedConnection) -> Option<bool> {
    let hello = redis::cmd("HELLO");
    let about = match timeout(VIEW_TIMEOUT, hello.query_async::<Value>(connection)).await.ok()? {
        Ok(about) => reply::pairs(about).unwrap_or_default(),
        Err(error) => return error.code().map(|_| false),
    };
    let mut about = about.into_iter();
    let mode = about.find(|(name, _)| is(name, "mode")).and_then(|(_, mode)| reply::text(mode));
    Some(mode.as_deref() == Some("cluster"))
}

async fn view(
    connection: &mut MultiplexedConnection,
    from: &Place,
    is_tls: bool,
) -> RedisResult<Option<Vec<Shard>>> {
    let ask = |what: &str| {
        let mut ask = redis::cmd("CLUSTER");
        ask.arg(what);
        ask
    };
    if let Ok(value) = ask("SHARDS").query_async(connection).await {
        return Ok(shards(value, from, is_tls));
    }
    Ok(slots(ask("SLOTS").query_async(connection).await?, from))
}

fn is(value: &Value, text: &str) -> bool {
    match value {
        Value::BulkString(bytes) => bytes == text.as_bytes(),
        Value::SimpleString(own) => own == text,
        _ => false,
    }
}

/// The reply to `CLUSTER SHARDS`.
fn shards(value: Value, from: &Place, is_tls: bool) -> Option<Vec<Shard>> {
    reply::array(value)?.into_iter().map(|shard| read_shard(shard, from, is_tls)).collect()
}

fn read_shard(shard: Value, from: &Place, is_tls: bool) -> Option<Shard> {
    let (mut slots, mut nodes) = (Vec::new(), Vec::new());
    for (name, value) in reply::pairs(shard)? {
        if is(&name, "slots") {
            let ends: Option<Vec<u16>> = reply::array(value)?.iter().map(slot).collect();
            slots = ends?.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        } else if is(&name, "nodes") {
            nodes = reply::array(value)?
                .into_iter()
                .map(|node| read_node(node, from, is_tls))
                .collect::<Option<Vec<_>>>()?;
        }
    }
    // The master first, and a node that is down last.
    nodes.sort_by_key(|node| node.0);
    Some(Shard { slots, nodes: nodes.into_iter().flat_map(|(_, places)| places).collect() })
}

/// A node's places, with its sort key.
fn read_node(node: Value, from: &Place, is_tls: bool) -> Option<((bool, bool), Vec<Place>)> {
    let fields: Vec<(String, Value)> = reply::pairs(node)?
        .into_iter()
        .filter_map(|(name, value)| Some((reply::text(name)?, value)))
        .collect();
    let get = |name: &str| fields.iter().find(|(own, _)| own == name).map(|(_, value)| value);
    let text = |name: &str| get(name).cloned().and_then(reply::text);
    let port = |name: &str| get(name).and_then(reply::number).filter(|port| *port != 0);
    let port = if is_tls { port("tls-port").or_else(|| port("port")) } else { port("port") };
    let port = port.or_else(|| get("tls-port").and_then(reply::number))?;
    let places = places([text("endpoint"), text("ip")], u16::try_from(port).ok()?, from);
    let is_down = text("health").is_some_and(|health| health == "fail");
    let is_replica = text("role").is_some_and(|role| role != "master");
    Some(((is_down, is_replica), places))
}

/// The reply to `CLUSTER SLOTS`.
fn slots(value: Value, from: &Place) -> Option<Vec<Shard>> {
    reply::array(value)?.into_iter().map(|range| read_range(range, from)).collect()
}

fn read_range(range: Value, from: &Place) -> Option<Shard> {
    let mut parts = reply::array(range)?.into_iter();
    let slots = vec![(slot(&parts.next()?)?, slot(&parts.next()?)?)];
    let node = |node: Value| {
        let mut parts = reply::array(node)?.into_iter();
        let (host, port) = (reply::text(parts.next()?), reply::number(&parts.next()?)?);
        let more = parts.nth(1).and_then(reply::pairs).unwrap_or_default();
        let ip = more.into_iter().find(|(name, _)| is(name, "ip"));
        let ip = ip.and_then(|(_, ip)| reply::text(ip));
        Some(places([host, ip], u16::try_from(port).ok()?, from))
    };
    let nodes: Option<Vec<Vec<Place>>> = parts.map(node).collect();
    Some(Shard { slots, nodes: nodes?.into_iter().flatten().collect() })
}

/// A node under its name and its address. If it gives neither, it is the node that we asked.
fn places(hosts: [Option<String>; 2], port: u16, from: &Place) -> Vec<Place> {
    let is_known = |host: &String| !host.is_empty() && host != "?";
    let mut hosts: Vec<String> = hosts.into_iter().flatten().filter(is_known).collect();
    hosts.dedup();
    if hosts.is_empty() {
        hosts.push(from.host.clone());
    }
    hosts.into_iter().map(|host| Place { host, port }).collect()
}

fn slot(value: &Value) -> Option<u16> {
    reply::number(value).and_then(|slot| u16::try_from(slot).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Place {
        Place { host: "asked".to_owned(), port: 7000 }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn names(shard: &Shard) -> Vec<String> {
        shard.nodes.iter().map(ToString::to_string).collect()
    }

    fn node(port: i64, endpoint: Value, ip: &str, role: &str, health: &str) -> Value {
        let fields = [
            (text("port"), Value::Int(port)),
            (text("tls-port"), Value::Int(port + 1)),
            (text("ip"), text(ip)),
            (text("endpoint"), endpoint),
            (text("role"), text(role)),
            (text("health"), text(health)),
        ];
        Value::Array(fields.into_iter().flat_map(|(name, value)| [name, value]).collect())
    }

    #[test]
    fn cluster_shards_is_read_with_every_kind_of_endpoint() {
        let nodes = vec![
            node(7002, Value::Nil, "10.0.0.2", "replica", "online"),
            node(7003, text("?"), "10.0.0.3", "master", "fail"),
            node(7004, text("db.local"), "10.0.0.4", "master", "online"),
            node(7005, text(""), "", "replica", "online"),
        ];
        let ranges = [0, 99, 200, 300].map(Value::Int).to_vec();
        let shard = [text("slots"), Value::Array(ranges), text("nodes"), Value::Array(nodes)];
        let reply = Value::Array(vec![Value::Array(shard.to_vec())]);
        let read = shards(reply.clone(), &here(), false).unwrap();
        assert_eq!(read[0].slots, [(0, 99), (200, 300)]);
        let expected =
            ["db.local:7004", "10.0.0.4:7004", "10.0.0.2:7002", "asked:7005", "10.0.0.3:7003"];
        assert_eq!(names(&read[0]), expected);
        let tls = shards(reply, &here(), true).unwrap();
        assert_eq!(names(&tls[0])[0], "db.local:7005");
        assert_eq!(shards(Value::Okay, &here(), false), None);
    }

    #[test]
    fn cluster_slots_is_read_as_servers_without_shards_give_it() {
        let more = Value::Array(vec![text("ip"), text("10.0.0.2")]);
        let range = vec![
            Value::Int(0),
            Value::Int(99),
            Value::Array(vec![text("10.0.0.1"), Value::Int(7001), text("id")]),
            Value::Array(vec![text("?"), Value::Int(7002), text("id"), more]),
            Value::Array(vec![Value::Nil, Value::Int(7003), text("id"), Value::Array(Vec::new())]),
        ];
        let read = slots(Value::Array(vec![Value::Array(range)]), &here()).unwrap();
        assert_eq!(read[0].slots, [(0, 99)]);
        assert_eq!(names(&read[0]), ["10.0.0.1:7001", "10.0.0.2:7002", "asked:7003"]);
    }

    #[test]
    fn a_redirect_leads_somewhere_even_if_it_names_no_host() {
        let known = |port| Some(Place { host: "known".to_owned(), port });
        for (to, known, expected) in [
            ("10.0.0.1:7001", None, "10.0.0.1:7001"),
            ("db.local:7001", known(7001), "db.local:7001"),
            ("::1:7001", None, "::1:7001"),
            (":7001", known(7001), "asked:7001"),
            ("?:7001", known(7001), "known:7001"),
            ("?:7001", known(7002), "asked:7001"),
            ("?:7001", None, "asked:7001"),
        ] {
            assert_eq!(target(to, &here(), known).to_string(), expected, "{to}");
        }
    }
}
