//! Replication and Cluster: whether this is the server to write to, and whether it accepts writes.

use super::facts::Facts;
use super::finding::{Answer, Diagnosis, Unseen};
use crate::config::Deployment;
use crate::redis::connect::Node;
use crate::redis::reply;
use crate::state::ask;

pub(super) fn role(facts: &Facts) -> Answer {
    if facts.info("role")? == "master" {
        return Ok(Diagnosis::ok("a primary"));
    }
    let (host, port) = (facts.info("master_host")?, facts.info("master_port")?);
    let link = facts.info("master_link_status")?;
    let found = format!("a replica of {host}:{port}, its link is {link}");
    let means = "a replica accepts no writes, and its data may be old";
    Ok(Diagnosis::failure(found, means)
        .advise(format!("point --redis-url at {host}:{port}, or make this the primary:"))
        .run(facts.shell.redis_cli(&["REPLICAOF", "NO", "ONE"])))
}

pub(super) fn replicas(facts: &Facts) -> Answer {
    let connected = facts.number("connected_slaves")?;
    let states: Vec<&str> =
        (0..connected).filter_map(|n| facts.info(&format!("slave{n}")).ok()).collect();
    let away = states.iter().filter(|state| !state.contains("state=online")).count();
    let found = format!("{connected} connected, {away} of them not in sync");
    // INFO has the number of good replicas only if a minimum is configured.
    if let Ok(good) = facts.number("min_slaves_good_slaves") {
        let wanted = facts.parameter_number("min-replicas-to-write")?;
        if good < wanted {
            let found = format!("{good} good replicas where min-replicas-to-write is {wanted}");
            let diagnosis = Diagnosis::failure(found, "the server refuses all writes (NOREPLICAS)")
                .advise("bring the replicas back, or continue without them:");
            return Ok(facts.set(diagnosis, "min-replicas-to-write", "0"));
        }
    }
    if away > 0 {
        return Ok(Diagnosis::warning(
            found,
            "a failover now would lose what they have not received yet",
        )
        .advise("wait until they are in sync; their logs say what prevents it"));
    }
    Ok(Diagnosis::ok(found))
}

pub(super) async fn cluster(node: &mut Node, facts: &Facts, deployment: &Deployment) -> Answer {
    if facts.info("cluster_enabled")? != "1" {
        return Ok(Diagnosis::ok("no Cluster"));
    }
    if deployment.partitions == 1 && !has_hash_tag(&deployment.prefix) {
        let found = "a Cluster, one partition, and a prefix without a hash tag";
        return Ok(Diagnosis::failure(
            found,
            "the keys are in many slots, so no script can reach them all",
        )
        .advise("give --prefix a hash tag, such as '{acme}:', or use --partitions 2 or more"));
    }
    let said = reply::text(ask(&mut node.connection, &["CLUSTER", "INFO"]).await?);
    let said = said.unwrap_or_default();
    let get = |name: &str| {
        let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim_end).ok_or_else(|| Unseen::unsaid(name))
    };
    let (state, served) = (get("cluster_state")?, get("cluster_slots_ok")?);
    let found = format!("cluster_state is {state}, {served} of 16384 slots are served");
    if state == "ok" && deployment.partitions > 1 {
        return Ok(coverage(facts, found));
    }
    if state == "ok" {
        return Ok(Diagnosis::ok(found));
    }
    Ok(Diagnosis::failure(found, "the Cluster refuses commands (CLUSTERDOWN)")
        .advise("bring the missing nodes back, or see what is wrong:")
        .run(facts.shell.redis_cli(&["CLUSTER", "NODES"])))
}

/// Whether the loss of one shard stops the others; if that cannot be seen, it is not a finding.
fn coverage(facts: &Facts, found: String) -> Diagnosis {
    const SETTING: &str = "cluster-require-full-coverage";
    if facts.parameter(SETTING).ok() != Some("yes") {
        return Diagnosis::ok(found);
    }
    let found = format!("{found}; {SETTING} is yes");
    let means = "the loss of one whole shard also stops the partitions of all other shards";
    let diagnosis =
        Diagnosis::warning(found, means).advise("let the others continue; on every node:");
    facts.set(diagnosis, SETTING, "no")
}

/// Whether a Cluster uses only a part of the key for its slot.
fn has_hash_tag(key: &str) -> bool {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.is_some_and(|(tag, _)| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_tag_has_something_in_it() {
        assert!(has_hash_tag("{acme}:") && has_hash_tag("a{b}c"));
        assert!(!has_hash_tag("acme:") && !has_hash_tag("{}:") && !has_hash_tag("{a"));
    }
}
