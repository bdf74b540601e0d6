//! Operators' work on stored data, in small calls one after the other, so that other clients get their turn. All of
//! it can be killed at any moment and run again.

pub mod erase;
pub mod letters;
pub mod repartition;
pub mod sessions;
pub mod verify;

use crate::error::Error;
use crate::redis::scripts::layout::check_partition;
use crate::redis::scripts::repartition::Move;
use crate::state::{AskError, State};

/// Checks that the deployment has this number of partitions and is not being moved to another: members that have moved
/// are out of reach.
async fn check_not_moving(state: &mut State) -> Result<(), AskError> {
    let State { partitions, deployment, .. } = state;
    for partition in partitions.iter_mut().take(usize::from(deployment.partitions)) {
        let connection = partition.connection.get()?;
        match check_partition(connection, deployment, &partition.keys).await {
            Err(Error::Moving { moving, .. }) => {
                let moving = Move::stored(moving);
                let to = moving.to();
                return Err(AskError::Refused(format!(
                    "the deployment is being moved to {to} partitions; run this again once that is done, with \
                     --partitions {to}"
                )));
            }
            Err(Error::Partitions { key, stored, .. }) => {
                return Err(AskError::Partitions { key, stored });
            }
            checked => checked?,
        }
    }
    Ok(())
}
