//! Repairs the live state where it differs from what the entries say, and changes a deployment's settings.

use std::collections::{BTreeSet, HashSet};

use serde::Serialize;

use super::compare::Comparison;
use super::finding::Place;
use super::report::{Difference, Progress, Report};
use super::{Order, begin};
use crate::config::Deployment;
use crate::key::Keys;
use crate::redis::reply;
use crate::redis::scripts::mend::change_settings;
use crate::state::{AskError, Link, Partition, State, adopt, ask};

/// How many attempts without any repair there may be before the rest is left.
const MOST_TRIES: u32 = 2;

/// What to do.
#[derive(Clone, Debug)]
pub struct Rebuild {
    /// How to compare.
    pub order: Order,
    /// Settings that first become the deployment's, as in `rollcall:meta`.
    pub settings: Vec<(&'static str, String)>,
    /// Whether nothing is changed.
    pub dry_run: bool,
}

/// The results of a rebuild.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Settings that were changed; in a dry run, those that would be.
    pub settings: Vec<Changed>,
    /// The differences.
    #[serde(flatten)]
    pub found: Report,
    /// How many of them were repaired.
    pub mended: u64,
    /// Differences that are left and cannot be repaired.
    pub left: Vec<Difference>,
}

/// A setting of the deployment that was changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Changed {
    /// Its name.
    pub name: String,
    /// Its old value.
    pub from: String,
    /// Its new value.
    pub to: String,
}

/// Repairs all partitions, one after the other, until `stop`; the shadow is removed in any case. Another run
/// continues with the rest.
///
/// # Errors
/// If the server refuses, no reply came, another process uses the shadow, or it was stopped.
pub async fn rebuild(
    state: &mut State,
    what: &Rebuild,
    stop: impl Future<Output = ()>,
    mut tell: impl FnMut(&Progress),
) -> Result<Rebuilt, AskError> {
    crate::keep::check_not_moving(state).await?;
    let mut stop = std::pin::pin!(stop);
    let mut done = Rebuilt { dry_run: what.dry_run, ..Rebuilt::default() };
    if !what.settings.is_empty() {
        done.settings = change(state, &what.settings, what.dry_run).await?;
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
        // Differences that others had hidden show only now.
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

/// The deployment's settings that can be changed.
pub fn changeable(
    deployment: &Deployment,
    is_given: impl Fn(&str) -> bool,
) -> Vec<(&'static str, String)> {
    let fields = deployment.meta_fields().into_iter();
    fields.filter(|(name, _)| is_given(name) && !Deployment::FIXED.contains(name)).collect()
}

/// Makes these the settings of the deployment, in all partitions.
async fn change(
    state: &mut State,
    settings: &[(&'static str, String)],
    dry_run: bool,
) -> Result<Vec<Changed>, AskError> {
    let mut changed = BTreeSet::new();
    for Partition { connection, keys, .. } in &mut state.partitions {
        let before = match dry_run {
            true => differing(connection, keys, settings).await?,
            false => change_settings(connection, keys, settings).await?,
        };
        for (name, from) in before {
            let to = settings.iter().find(|(given, _)| *given == name);
            let to = to.map(|(_, value)| value.clone()).unwrap_or_default();
            changed.insert(Changed { name, from, to });
        }
    }
    settings.iter().for_each(|(name, text)| adopt(&mut state.deployment, name, text));
    Ok(changed.into_iter().collect())
}

/// The settings of a partition that differ from these.
async fn differing(
    connection: &mut Link,
    keys: &Keys,
    settings: &[(&'static str, String)],
) -> Result<Vec<(String, String)>, AskError> {
    let meta = keys.meta();
    let mut words = vec!["HMGET", meta.as_str(), "format"];
    words.extend(settings.iter().map(|(name, _)| *name));
    let stored = reply::array(ask(connection, &words).await?).unwrap_or_default();
    let mut stored = stored.into_iter().map(reply::text);
    if stored.next().flatten().is_none() {
        return Ok(Vec::new());
    }
    let others =
        settings.iter().zip(stored).filter(|((_, own), stored)| stored.as_ref() != Some(own));
    Ok(others.map(|((name, _), stored)| ((*name).to_owned(), stored.unwrap_or_default())).collect())
}
