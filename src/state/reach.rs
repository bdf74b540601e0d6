//! Reaches all partitions at once, each independently: a node that hangs does not delay the others for long.

use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

use super::{AskError, Link, Partition, State, ask, number};
use crate::config::Deployment;
use crate::error::{Error, chain};
use crate::key::{Keys, MOST_PARTITIONS};
use crate::redis::connect::Node;
use crate::redis::nodes::Nodes;

/// How long to wait for further partitions once some are reached.
const FURTHER: Duration = Duration::from_secs(2);

/// Finds the nodes of all partitions, in their order. Those that do not answer in time count as unreachable.
pub(crate) async fn find_all(
    nodes: &Nodes,
    deployment: &Deployment,
) -> Vec<(u16, Keys, Result<Node, Error>)> {
    let keys = |index| Keys::new(&deployment.prefix, deployment.partitions, index);
    let mut looks: FuturesUnordered<_> = (0..deployment.partitions)
        .map(|index| {
            let meta = keys(index).meta();
            Box::pin(async move { (index, nodes.node(&meta).await) })
        })
        .collect();
    let mut found: Vec<Option<Result<Node, Error>>> = Vec::new();
    found.resize_with(usize::from(deployment.partitions), || None);
    let mut is_any_there = false;
    loop {
        let next = if is_any_there {
            timeout(FURTHER, looks.next()).await.ok().flatten()
        } else {
            looks.next().await
        };
        let Some((index, outcome)) = next else { break };
        is_any_there |= outcome.is_ok();
        found[usize::from(index)] = Some(outcome);
    }
    let silent = || {
        let late = io::Error::from(io::ErrorKind::TimedOut).into();
        Err(Error::at("looking for its node")(late))
    };
    let all =
        (0..).zip(found).map(|(index, found)| (index, keys(index), found.unwrap_or_else(silent)));
    all.collect()
}

/// Connects to the nodes of all partitions, and returns those nodes. Partitions on a node that cannot be reached are
/// marked as such.
///
/// # Errors
/// If none can be reached.
pub(super) async fn reach(
    nodes: &Nodes,
    deployment: &Deployment,
) -> Result<(Vec<Partition>, Vec<Node>), Error> {
    let (mut partitions, mut places, mut first_error) = (Vec::new(), Vec::<Node>::new(), None);
    for (index, keys, found) in find_all(nodes, deployment).await {
        let connection = match found {
            Ok(node) => {
                let connection = node.connection.clone();
                if places.iter().all(|known| known.at.info.addr() != node.at.info.addr()) {
                    places.push(node);
                }
                connection.into()
            }
            Err(error) => {
                let link = Link::Away(chain(&error).into());
                first_error.get_or_insert(error);
                link
            }
        };
        partitions.push(Partition { index, keys, connection });
    }
    match first_error {
        Some(error) if places.is_empty() => Err(error),
        _ => Ok((partitions, places)),
    }
}

impl State {
    /// The partitions of earlier layouts, of which streams of events and changes are left; none before the first
    /// repartition. Their index is 0: in a stream of several layouts it says nothing.
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub(crate) async fn earlier_partitions(&mut self) -> Result<Vec<Partition>, AskError> {
        let Some(Partition { connection, keys, .. }) = self.reachable() else {
            return Ok(Vec::new());
        };
        let moved = ask(connection, &["HEXISTS", &keys.meta(), "forwarded"]).await?;
        if number(&moved) != Some(1) {
            return Ok(Vec::new());
        }
        let (prefix, count) = (self.deployment.prefix.clone(), self.deployment.partitions);
        let mut earlier = Vec::new();
        if count > 1 {
            earlier.extend(self.left_behind(Keys::new(&prefix, 1, 0)).await?);
        }
        // A layout has all partitions up to its last.
        for index in if count > 1 { count } else { 0 }..MOST_PARTITIONS {
            let Some(partition) =
                self.left_behind(Keys::new(&prefix, MOST_PARTITIONS, index)).await?
            else {
                break;
            };
            earlier.push(partition);
        }
        Ok(earlier)
    }

    async fn left_behind(&self, keys: Keys) -> Result<Option<Partition>, AskError> {
        let mut connection = Link::from(self.nodes.connect(&keys.meta()).await?);
        let exists = ask(&mut connection, &["EXISTS", &keys.meta()]).await?;
        Ok((number(&exists) == Some(1)).then_some(Partition { index: 0, keys, connection }))
    }
}
