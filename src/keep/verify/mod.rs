//! Compares the live state with the entries still in the stream.
//!
//! The same fold and the same apply script make a shadow of those entries, and each name is compared at one cursor:
//! the live state is read at one instant, together with its cursor; the shadow is then brought to exactly that entry,
//! and is read. Workers keep running meanwhile, and the live state is not written.

mod claims;
mod compare;
mod deeds;
mod finding;
mod judge;
mod keyspace;
mod lease;
mod mend;
mod names;
mod rebuild;
mod report;
mod shadow;
mod table;

use compare::Comparison;
use shadow::Shadow;

pub use self::rebuild::{Changed, Rebuild, Rebuilt, changeable, rebuild};
pub use self::report::{Difference, Progress, Report};
use crate::config::JanitorConfig;
use crate::state::{AskError, State};

/// What to do.
#[derive(Clone, Debug)]
pub struct Order {
    /// The name of the shadow.
    pub into: String,
    /// How long endings are remembered, and the janitor's other settings.
    pub janitor: JanitorConfig,
}

/// Checks the name of a shadow.
///
/// # Errors
/// What the name must be.
pub fn shadow_name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (1..=64).contains(&text.len()) && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("1 to 64 letters, digits, hyphens and underscores".to_owned())
}

/// Compares all partitions, one after the other, until `stop`; the shadow is removed in any case.
///
/// # Errors
/// If the server refuses, no reply came, another process uses the shadow, or it was stopped.
pub async fn verify(
    state: &mut State,
    order: &Order,
    stop: impl Future<Output = ()>,
    mut tell: impl FnMut(&Progress),
) -> Result<Report, AskError> {
    crate::keep::check_not_moving(state).await?;
    let mut stop = std::pin::pin!(stop);
    let mut report = Report::default();
    for place in 0..state.partitions.len() {
        let Some(shadow) = begin(state, place, &order.into).await? else { continue };
        let ring = state.session_keys.as_ref().map(|keys| keys.get());
        let mut comparison = Comparison::new(shadow, order, ring, state.partitions[place].index);
        let ended = tokio::select! {
            ended = comparison.run(&mut report, &mut tell) => ended,
            () = &mut stop => Err(AskError::Stopped),
        };
        let removed = comparison.end().await;
        ended.and(removed)?;
    }
    Ok(report)
}

async fn begin(state: &mut State, place: usize, name: &str) -> Result<Option<Shadow>, AskError> {
    let partition = &mut state.partitions[place];
    let Some(connection) = partition.connection.open().cloned() else {
        return Err(away(partition.connection.away().unwrap_or_default()));
    };
    let parts = (&state.deployment, &partition.keys, partition.index);
    Shadow::begin(connection, parts, name, state.session_keys.clone()).await
}

fn away(why: &str) -> AskError {
    let error = std::io::Error::new(std::io::ErrorKind::NotConnected, why.to_owned());
    crate::error::Error::at("reaching the partition")(error.into()).into()
}
