//! Settings: whether this process would be accepted, and whether the state has the same layout.

use super::finding::{Answer, Diagnosis, Unseen};
use crate::config::{Deployment, Server, Shell};
use crate::error::Error;
use crate::key::Keys;
use crate::redis::connect::Node;
use crate::redis::reply;
use crate::redis::scripts::layout::{FORMAT_BEFORE, STATE_FORMAT, check_layout};
use crate::redis::scripts::repartition::Move;
use crate::state::{Partition, ask};

/// Compares this process's settings with the deployment's.
pub(super) async fn settings(
    partition: &mut Partition,
    deployment: &Deployment,
    shell: &Shell,
) -> Answer {
    let own: Vec<(&str, String)> =
        [("format", STATE_FORMAT.to_owned())].into_iter().chain(deployment.meta_fields()).collect();
    let meta = partition.keys.meta();
    let mut words = vec!["HMGET", meta.as_str()];
    words.extend(own.iter().map(|(name, _)| *name));
    let stored = reply::array(ask(&mut partition.connection, &words).await?).unwrap_or_default();
    let stored: Vec<Option<String>> = stored.into_iter().map(reply::text).collect();
    if stored.iter().all(Option::is_none) {
        return Ok(Diagnosis::ok(format!(
            "{meta} does not exist yet: the first process to start writes it"
        )));
    }
    let differ = own.iter().zip(&stored).filter_map(|((name, own), stored)| {
        stored.as_ref().filter(|stored| *stored != own).map(|stored| (*name, own, stored))
    });
    let differ: Vec<_> = differ.collect();
    if differ.is_empty() {
        return Ok(Diagnosis::ok(format!("as in {meta}")));
    }
    if differ.iter().all(|(name, _, stored)| *name == "format" && *stored == FORMAT_BEFORE) {
        let stream = partition.keys.named(&deployment.stream);
        return Ok(Diagnosis::warning(
            format!("the state has format {FORMAT_BEFORE}, that of the previous version"),
            "the first worker of this version converts it once nothing is pending in the group",
        )
        .advise("stop the workers of the previous version with SIGTERM; see whether anything is pending:")
        .run(shell.redis_cli(&["XPENDING", &stream, &deployment.group])));
    }
    let said: Vec<String> = differ
        .iter()
        .map(|(name, own, stored)| format!("{name} is {own} here, {stored} in the deployment"))
        .collect();
    let flags: Vec<String> =
        differ.iter().map(|(name, _, stored)| format!("--{name} {stored}")).collect();
    let means = "a worker or janitor with these settings is refused";
    let diagnosis = Diagnosis::failure(said.join("; "), means);
    if differ.iter().any(|(name, ..)| matches!(*name, "format" | "partitions")) {
        return Ok(diagnosis.advise(
            "use the version and the --partitions that wrote the state, or another --prefix for a new deployment",
        ));
    }
    let diagnosis = diagnosis.advise(format!("use the deployment's: {}", flags.join(" ")));
    let names: Vec<&str> = differ.iter().map(|(name, ..)| *name).collect();
    if names.iter().any(|name| Deployment::FIXED.contains(name)) {
        return Ok(diagnosis
            .advise(
                "or stop every worker and janitor, and let the next one to start write its own:",
            )
            .run(shell.redis_cli(&[&["HDEL", meta.as_str()], &names[..]].concat())));
    }
    let own: Vec<String> =
        differ.iter().flat_map(|(name, own, _)| [format!("--{name}"), (*own).clone()]).collect();
    let own = own.iter().map(String::as_str);
    let words: Vec<&str> =
        ["rebuild", "--yes", "--change-settings"].into_iter().chain(own).collect();
    Ok(diagnosis.advise("or make these the deployment's:").run(shell.rollcall(&words)))
}

/// Whether there is state with one partition although several are configured, or the other way round.
pub(super) async fn layout(node: &mut Node, deployment: &Deployment) -> Answer {
    let at = Server { tls: node.at.tls.clone(), ..Server::at(node.at.info.clone()) };
    let keys = Keys::new(&deployment.prefix, deployment.partitions, 0);
    match check_layout(&at, &mut node.connection, deployment, &keys).await {
        Err(Error::Partitions { key, stored, own }) => {
            let found = format!("{key} has partitions = {stored}, but this process has {own}");
            let means = "each layout has its own keys: neither sees what the other writes";
            Ok(Diagnosis::failure(found, means).advise(format!(
                "use --partitions {stored}, or another --prefix for a new deployment"
            )))
        }
        _ => Ok(Diagnosis::ok(format!(
            "{} here, and no state with another number",
            deployment.partitions
        ))),
    }
}

/// Whether the partition is paused for a repartition; nobody works on it until that is done.
pub(super) async fn repartition(
    partition: &mut Partition,
    shell: &Shell,
) -> Result<Option<Diagnosis>, Unseen> {
    let words = ["HMGET", &partition.keys.meta(), "moving"];
    let stored = reply::array(ask(&mut partition.connection, &words).await?).unwrap_or_default();
    let Some(moving) = stored.into_iter().find_map(reply::text) else { return Ok(None) };
    let moving = Move::stored(moving);
    let (from, to) = (moving.from(), moving.to());
    let found = format!("the deployment is being moved from {from} to {to} partitions");
    let diagnosis = Diagnosis::failure(found, "until that is done, no worker and no janitor works")
        .advise("wait for it or, if it was stopped, run it again:")
        .run(shell.rollcall(&["repartition", "--yes", "--to", to]));
    Ok(Some(diagnosis))
}
