//! The live state, put right where it is not what the entries say; and a deployment's settings changed.

use std::collections::HashSet;

use serde::Serialize;

use super::compare::Comparison;
use super::finding::Place;
use super::report::{Difference, Progress, Report};
use super::{Order, begin};
use crate::config::Deployment;
use crate::redis::scripts::mend::{FIXED, change_settings};
use crate::state::{AskError, State, ask};

/// How often nothing of what differs is put right before it is left.
const MOST_TRIES: u32 = 2;

/// What a rebuild is to do.
#[derive(Clone, Debug)]
pub struct Rebuild {
    /// How it compares.
    pub order: Order,
    /// Settings that become the deployment's first.
    pub settings: Option<Deployment>,
    /// Nothing is changed.
    pub dry_run: bool,
}

/// What a rebuild did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Settings that were changed; in a dry run, those that would be.
    pub settings: Vec<Changed>,
    /// What differed.
    #[serde(flatten)]
    pub found: Report,
    /// How much of that was put right.
    pub mended: u64,
    /// What is left, and cannot be put right.
    pub left: Vec<Difference>,
}

/// A setting of the deployment that was changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
}

/// Puts all partitions right, one after the other, until `stop`; the shadow is taken away in any case. Whoever begins
/// again finds the rest.
///
/// # Errors
/// If the server refuses, no reply came, somebody else uses the shadow, or it was stopped.
pub async fn rebuild(
    state: &mut State,
    what: &Rebuild,
    stop: impl Future<Output = ()>,
    mut tell: impl FnMut(&Progress),
) -> Result<Rebuilt, AskError> {
    let mut stop = std::pin::pin!(stop);
    let mut done = Rebuilt { dry_run: what.dry_run, ..Rebuilt::default() };
    if let Some(settings) = &what.settings {
        done.settings = change(state, settings, what.dry_run).await?;
    }
    for place in 0..state.partitions.len() {
        let Some(shadow) = begin(state, place, &what.order.into).await? else { continue };
        let ring = state.session_keys.as_ref().map(|keys| keys.get());
        let index = state.partitions[place].index;
        let mut comparison = Comparison::new(shadow, &what.order, ring, index);
        let ended = tokio::select! {
            ended = one(&mut comparison, state, what.dry_run, &mut done, &mut tell) => ended,
            () = &mut stop => Err(AskError::Stopped),
        };
        let removed = comparison.end().await;
        ended.and(removed)?;
    }
    Ok(done)
}

/// One partition.
async fn one(
    comparison: &mut Comparison,
    state: &State,
    dry_run: bool,
    done: &mut Rebuilt,
    tell: &mut impl FnMut(&Progress),
) -> Result<(), AskError> {
    comparison.find(&done.found, tell).await?;
    let mut findings = comparison.verdicts.findings.clone();
    comparison.tell_of(&mut done.found);
    if dry_run || findings.is_empty() {
        return Ok(());
    }
    if comparison.is_closed() {
        return Err(AskError::NoSessionKeys);
    }
    let mut in_vain = 0;
    while !findings.is_empty() && in_vain < MOST_TRIES {
        let (progress, before) = (comparison.progress(&done.found), done.mended);
        let mut mended = |n| tell(&Progress { mended: before + n, ..progress });
        comparison.mend(&findings, &state.session_keys, &mut mended).await?;
        // What was hidden by what was wrong comes to light only now.
        comparison.begin_again();
        comparison.find(&done.found, &mut |_: &Progress| ()).await?;
        let found = std::mem::take(&mut comparison.verdicts.findings);
        let places: HashSet<&Place> = found.iter().map(|finding| &finding.place).collect();
        let left = findings.iter().filter(|finding| places.contains(&finding.place)).count();
        done.mended += (findings.len() - left) as u64;
        in_vain = if left == findings.len() { in_vain + 1 } else { 0 };
        findings = found;
    }
    let left = findings.into_iter().map(|finding| comparison.difference(finding));
    done.left.extend(left);
    Ok(())
}

/// Makes settings the deployment's, in all partitions.
async fn change(
    state: &mut State,
    settings: &Deployment,
    dry_run: bool,
) -> Result<Vec<Changed>, AskError> {
    let Deployment { prefix, partitions, stream, group, .. } = state.deployment.clone();
    let settings = Deployment { prefix, partitions, stream, group, ..settings.clone() };
    let fields = settings.meta_fields();
    let mut changed = std::collections::BTreeSet::new();
    for partition in &mut state.partitions {
        let of = (&settings, &partition.keys);
        let before = match dry_run {
            true => differing(&mut partition.connection, of).await?,
            false => change_settings(&mut partition.connection, of).await?,
        };
        for (name, from) in before {
            let to = fields.iter().find(|(field, _)| *field == name);
            let to = to.map(|(_, value)| value.clone()).unwrap_or_default();
            changed.insert(Changed { name, from, to });
        }
    }
    state.deployment = settings;
    Ok(changed.into_iter().collect())
}

/// The settings of a partition that are others than these.
async fn differing(
    connection: &mut crate::state::Link,
    (settings, keys): (&Deployment, &crate::key::Keys),
) -> Result<Vec<(String, String)>, AskError> {
    let fields: Vec<_> =
        settings.meta_fields().into_iter().filter(|(name, _)| !FIXED.contains(name)).collect();
    let meta = keys.meta();
    let mut words = vec!["HMGET", meta.as_str(), "format"];
    words.extend(fields.iter().map(|(name, _)| *name));
    let stored = crate::redis::reply::array(ask(connection, &words).await?).unwrap_or_default();
    let mut stored = stored.into_iter().map(crate::redis::reply::text);
    if stored.next().flatten().is_none() {
        return Ok(Vec::new());
    }
    let pairs = fields.into_iter().zip(stored);
    let others = pairs.filter(|((_, own), stored)| stored.as_ref() != Some(own));
    Ok(others.map(|((name, _), stored)| (name.to_owned(), stored.unwrap_or_default())).collect())
}
