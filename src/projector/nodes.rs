//! The connections over which a worker watches partitions: one to each node, shared by all partitions there.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

use crate::config::Server;
use crate::error::Error;
use crate::redis::connect::{Node, locate};

/// One connection to each node that has been needed.
pub(super) struct Nodes {
    server: Server,
    response_timeout: Duration,
    known: Mutex<Vec<Node>>,
}

impl Nodes {
    /// Connections whose replies may take `response_timeout`.
    pub(super) fn new(server: Server, response_timeout: Duration) -> Self {
        Self { server, response_timeout, known: Mutex::new(Vec::new()) }
    }

    /// The connection to the node that holds `key`.
    pub(super) async fn connect(&self, key: &str) -> Result<MultiplexedConnection, Error> {
        // One at a time: the others find what the first has opened.
        let mut known = self.known.lock().await;
        let mut place = 0;
        while let Some(node) = known.get_mut(place) {
            match redis::cmd("EXISTS").arg(key).query_async::<i64>(&mut node.connection).await {
                Ok(_) => return Ok(node.connection.clone()),
                Err(error) if error.redirect_node().is_some() => place += 1,
                Err(_) => {
                    known.swap_remove(place);
                }
            }
        }
        let node = locate(&self.server, key, self.response_timeout).await?;
        let connection = node.connection.clone();
        known.push(node);
        Ok(connection)
    }

    /// Looks for the nodes anew where a server takes no writes any more: it answers, but others are masters now.
    pub(super) async fn heed(&self, error: &Error) {
        if error.is_of_replica() {
            self.forget().await;
        }
    }

    /// Looks for the nodes anew.
    pub(super) async fn forget(&self) {
        self.known.lock().await.clear();
    }
}
