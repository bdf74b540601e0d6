//! The layout of a deployment's state: its format, and its number of partitions.

use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use crate::config::{Deployment, Server};
use crate::decode::Former;
use crate::error::Error;
use crate::key::Keys;
use crate::redis::connect::connect;

/// How long a look at another layout may take. Its node may be down, which is no reason to wait long.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// The state format this version reads and writes.
pub const STATE_FORMAT: &str = "2";

/// The previous format, which a worker converts once nothing is pending in the group.
pub const FORMAT_BEFORE: &str = "1";

/// Layouts whose entries are forwarded, and until when (epoch milliseconds): `partitions:until …`.
pub fn forwarded_layouts(text: &str) -> Vec<Former> {
    let layout = |word: &str| {
        let (partitions, until) = word.split_once(':')?;
        Some(Former::new(partitions.parse().ok()?, until.parse().ok()?))
    };
    text.split(' ').filter_map(layout).collect()
}

/// Checks whether the deployment has another number of partitions than this process: whether there is state with one
/// partition if this process has several, or the other way round, and whether a partition that was never begun is
/// beyond those of the deployment. Keys differ then, so joining would not find the state. A look that fails proves
/// nothing.
///
/// # Errors
/// If there is such state.
pub async fn check_layout(
    server: &Server,
    connection: &mut MultiplexedConnection,
    deployment: &Deployment,
    keys: &Keys,
) -> Result<(), Error> {
    let other = if deployment.partitions == 1 { 2 } else { 1 };
    check_other(server, connection, deployment, &Keys::new(&deployment.prefix, other, 0)).await?;
    let first = Keys::new(&deployment.prefix, deployment.partitions, 0);
    let begun = partitions(connection, &keys.meta()).await;
    if *keys == first || !matches!(begun, Ok(None)) {
        return Ok(());
    }
    check_other(server, connection, deployment, &first).await
}

async fn check_other(
    server: &Server,
    connection: &mut MultiplexedConnection,
    deployment: &Deployment,
    keys: &Keys,
) -> Result<(), Error> {
    let key = keys.meta();
    let mut stored = partitions(connection, &key).await;
    // On a Cluster these keys are on another node.
    if stored.as_ref().is_err_and(|error| error.redirect_node().is_some())
        && let Ok(Ok(mut elsewhere)) =
            timeout(LOOK_TIMEOUT, connect(server, &key, LOOK_TIMEOUT)).await
    {
        stored = partitions(&mut elsewhere, &key).await;
    }
    match stored {
        // After a repartition, the previous layout says where its state is now.
        Ok(Some(stored)) if stored != deployment.partitions.to_string() => {
            Err(Error::Partitions { key, stored, own: deployment.partitions.to_string() })
        }
        _ => Ok(()),
    }
}

async fn partitions(
    connection: &mut MultiplexedConnection,
    meta: &str,
) -> Result<Option<String>, RedisError> {
    redis::cmd("HGET").arg(meta).arg("partitions").query_async(connection).await
}

/// Checks that a partition still belongs to this deployment and is not being moved to another number of partitions
/// (`HMGET`).
///
/// # Errors
/// If it does not or is, or the server refuses.
pub async fn check_partition(
    connection: &mut MultiplexedConnection,
    deployment: &Deployment,
    keys: &Keys,
) -> Result<(), Error> {
    let mut ask = redis::cmd("HMGET");
    let (key, own) = (keys.meta(), deployment.partitions.to_string());
    ask.arg(&key).arg(&["partitions", "moving"]);
    let found: (Option<String>, Option<String>) =
        ask.query_async(connection).await.map_err(Error::at("looking at the partition"))?;
    match found {
        (Some(stored), _) if stored != own => Err(Error::Partitions { key, stored, own }),
        (_, Some(moving)) => Err(Error::Moving { key, moving }),
        _ => Ok(()),
    }
}
