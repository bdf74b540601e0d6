//! Connections to the nodes of a deployment, one to each, shared by everything in a process that makes short
//! requests. A request waits only for the node that it needs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use super::cluster::refresh;
use super::connect::{Node, locate};
use crate::config::{Place, Server};
use crate::error::Error;
use crate::key::slot_of;

/// How long to wait for another task to open a connection that may be the right one.
const SHARED_WAIT: Duration = Duration::from_secs(1);

/// Where a connection leads; `None` for the only server, or while nothing is known.
type At = Option<Place>;
/// A node's connection, once there is one; locked while it is being opened.
type Kept = Arc<tokio::sync::Mutex<Option<Node>>>;

/// One connection to each node that has been needed.
pub struct Nodes {
    server: Server,
    response_timeout: Duration,
    kept: Mutex<HashMap<At, Kept>>,
}

impl Nodes {
    /// Connections whose replies may take `response_timeout`.
    pub fn new(server: Server, response_timeout: Duration) -> Self {
        Self { server, response_timeout, kept: Mutex::default() }
    }

    /// The connection to the node that holds `key`.
    ///
    /// # Errors
    /// If no node leads there.
    pub async fn connect(&self, key: &str) -> Result<MultiplexedConnection, Error> {
        Ok(self.node(key).await?.connection)
    }

    /// The node that holds `key`.
    ///
    /// # Errors
    /// If no node leads there.
    pub async fn node(&self, key: &str) -> Result<Node, Error> {
        let mut at = self.server.known.master_of(slot_of(key));
        let mut kept = loop {
            // One task opens it at a time, and the others use the result. None waits long for one that is stuck.
            let Ok(kept) = timeout(SHARED_WAIT, self.kept(&at).lock_owned()).await else {
                return locate(&self.server, key, self.response_timeout).await;
            };
            // The previous holder may have learned where the key is.
            let now = self.server.known.master_of(slot_of(key));
            if std::mem::replace(&mut at, now.clone()) == now {
                break kept;
            }
        };
        if let Some(node) = kept.as_mut() {
            match redis::cmd("EXISTS").arg(key).query_async::<i64>(&mut node.connection).await {
                Ok(_) => {
                    refresh(&self.server.known, node).await;
                    return Ok(node.clone());
                }
                // The connection is good, but the view was wrong.
                Err(error) if error.redirect_node().is_some() => self.server.known.doubt(),
                Err(_) => *kept = None,
            }
        }
        let node = locate(&self.server, key, self.response_timeout).await?;
        // On a Cluster the connection is stored under the place that the current view has for the key.
        let found = self.server.known.master_of(slot_of(key));
        if found == at {
            *kept = Some(node.clone());
        } else if let Ok(mut kept) = self.kept(&found).try_lock() {
            kept.get_or_insert_with(|| node.clone());
        }
        Ok(node)
    }

    /// Forgets the nodes if a server accepts no writes any more: it still answers, but others are masters now.
    pub fn heed(&self, error: &Error) {
        if error.is_of_replica() {
            self.forget();
        }
    }

    /// Forgets the nodes, so that they are searched again.
    pub fn forget(&self) {
        self.server.known.doubt();
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn kept(&self, at: &At) -> Kept {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry(at.clone()).or_default().clone()
    }
}
