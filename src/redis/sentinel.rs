//! Finds a master through its sentinels, which are asked for every connection.

use std::time::Duration;

use redis::Value;

use super::connect::{Asked, Node, ask_for, moved, open};
use super::reply;
use crate::config::{Address, Place, Sentinels};
use crate::error::Error;

/// How long a sentinel has to accept the connection, and then to answer, before the next one is asked.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks one sentinel after the other until one names a server that really is a master.
pub(super) async fn follow(
    sentinels: &Sentinels,
    at: &Address,
    key: &str,
    response_timeout: Duration,
) -> Result<Node, Error> {
    let mut tried = Vec::new();
    let mut failed = Vec::new();
    for sentinel in &sentinels.nodes {
        let outcome = match ask_for_master(
            &Address { info: sentinel.clone(), tls: at.tls.clone() },
            &sentinels.master,
        )
        .await
        {
            Ok(master) if failed.contains(&master) => continue,
            Ok(master) => {
                let at_master = moved(at, &master);
                failed.push(master);
                connect_to_master(&at_master, key, response_timeout).await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(node) => return Ok(node),
            Err(error) => tried.push((sentinel.addr().to_string(), error)),
        }
    }
    Err(Error::NoMaster { master: sentinels.master.clone(), tried })
}

/// The master's place according to a sentinel (`SENTINEL GET-MASTER-ADDR-BY-NAME`).
async fn ask_for_master(sentinel: &Address, name: &str) -> Result<Place, Error> {
    const STEP: &str = "asking for the master";
    let mut connection = open(sentinel, SENTINEL_TIMEOUT, SENTINEL_TIMEOUT).await?;
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let value: Value = ask.query_async(&mut connection).await.map_err(Error::at(STEP))?;
    if value == Value::Nil {
        return Err(Error::UnknownMaster);
    }
    read_place(&value).ok_or_else(|| reply::unexpected(STEP, &value))
}

fn read_place(value: &Value) -> Option<Place> {
    let [host, port] = reply::elements(value)? else { return None };
    Some(Place { host: reply::text_of(host)?, port: reply::text_of(port)?.parse().ok()? })
}

/// Connects, and checks that the server is a master, since a sentinel may be behind. `HELLO` says what `ROLE` does,
/// and every user may call it.
async fn connect_to_master(
    at: &Address,
    key: &str,
    response_timeout: Duration,
) -> Result<Node, Error> {
    const STEP: &str = "asking for the role of";
    let (Asked::Here(mut node) | Asked::Elsewhere(mut node, _)) =
        ask_for(at, key, response_timeout).await?;
    let address = || at.info.addr().to_string();
    let value: Value = redis::cmd("HELLO")
        .query_async(&mut node.connection)
        .await
        .map_err(Error::of_server(STEP, address()))?;
    let about = reply::pairs_of(&value).unwrap_or_default();
    let role = about.iter().find_map(|[name, value]| {
        reply::text_of(name).filter(|name| name == "role").and_then(|_| reply::text_of(value))
    });
    match role.as_deref() {
        Some("master") => Ok(node),
        Some(role) => {
            Err(Error::Role { address: at.info.addr().to_string(), role: role.to_owned() })
        }
        None => Err(reply::unexpected(STEP, &value)),
    }
}
