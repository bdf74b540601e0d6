//! The doctor: examines a server and a deployment on it, and says what is wrong and what to do.
//!
//! It only reads; it leaves nothing on a server but loaded scripts. If its user may not look at something, that is a
//! finding too. Each check is one function, in a file by theme; [`examine`] calls them in order.

mod access;
mod channels;
mod facts;
mod finding;
mod group;
mod keys;
mod memory;
mod persistence;
mod replication;
mod report;
mod scripts;
mod server;
mod settings;
mod stream;

use self::facts::Facts;
use self::finding::Unseen;
use self::group::Place;
use self::report::Report;
use crate::config::Config;
use crate::redis::connect::Node;
use crate::redis::nodes::Nodes;
use crate::state::status::work;
use crate::state::{Partition, RESPONSE_TIMEOUT, find_all, server_time};

pub use self::access::Role;
pub use self::finding::{Diagnosis, Finding, Level, Step};

/// Makes all checks. Whatever cannot be reached or examined is among the findings.
pub async fn examine(config: &Config, role: Role) -> Vec<Finding> {
    let server = config.redis.server();
    let mut report = Report::new(config, role);
    let nodes = Nodes::new(server, RESPONSE_TIMEOUT);
    let mut reached: Vec<(Node, Partition)> = Vec::new();
    let mut missed = Vec::new();
    for (index, keys, found) in find_all(&nodes, &config.deployment).await {
        match found {
            Ok(node) => {
                let connection = node.connection.clone().into();
                reached.push((node, Partition { index, keys, connection }));
            }
            Err(error) => missed.push((index, error)),
        }
    }
    let is_whole = reached.is_empty();
    for (index, error) in missed.into_iter().take(if is_whole { 1 } else { usize::MAX }) {
        report.partition = index;
        report.add("reach", Ok(server::unreachable(&error, is_whole, &report.shell)));
    }
    let mut examined = Vec::new();
    for (node, partition) in &mut reached {
        if !examined.contains(node.at.info.addr()) {
            examined.push(node.at.info.addr().clone());
            report.turn_to(node, partition.index);
            examine_node(&mut report, node, config).await;
        }
    }
    for (node, partition) in &mut reached {
        report.turn_to(node, partition.index);
        examine_partition(&mut report, partition, config, role).await;
    }
    report.finish()
}

async fn examine_node(report: &mut Report, node: &mut Node, config: &Config) {
    let facts = Facts::gather(node, report.shell.clone()).await;
    report.add("version", server::version(&facts));
    report.add("latency", server::latency(node, &facts.shell).await);
    report.add("clock", server::clock(node, config).await);
    report.add("eviction", memory::eviction(&facts));
    report.add("memory", memory::memory(&facts));
    report.add("persistence", persistence::persistence(&facts));
    report.add("saving", persistence::saving(&facts));
    report.add("role", replication::role(&facts));
    report.add("replicas", replication::replicas(&facts));
    report.add("cluster", replication::cluster(node, &facts, &config.deployment).await);
    report.add("clients", server::clients(&facts));
    report.add("timeout", server::timeout(&facts));
    report.add("script limit", server::script_limit(&facts));
    report.add("output buffers", server::output_buffers(&facts, config));
    if report.partition == 0 {
        report.add("partitions", settings::layout(node, &config.deployment).await);
    }
}

async fn examine_partition(
    report: &mut Report,
    partition: &mut Partition,
    config: &Config,
    role: Role,
) {
    let (shell, user) = (report.shell.clone(), report.user.clone());
    let deployment = &config.deployment;
    report.add("rights", access::rights(partition, config, role, &shell, &user).await);
    if role.runs_scripts() {
        report.add("scripts", scripts::scripts(partition).await);
    }
    report.add("settings", settings::settings(partition, deployment, &shell).await);
    report.add("shared keys", keys::shared(partition, &deployment.stream, &shell).await);
    report.add("own keys", keys::sample(partition, &shell).await);
    report.add("entries", stream::entries(partition, deployment, &shell).await);
    let now_ms = match server_time(&mut partition.connection).await {
        Ok(now_ms) => now_ms,
        Err(error) => return report.add("group", Err(Unseen::from(error))),
    };
    let expiries = keys::expiries(partition, &deployment.stream, now_ms, &shell).await;
    report.add("expiries", expiries);
    report.add("caps", keys::caps(partition, deployment, now_ms, &shell).await);
    match settings::repartition(partition, &shell).await {
        Ok(None) => {}
        Ok(Some(moving)) => return report.add("repartition", Ok(moving)),
        Err(why) => return report.add("repartition", Err(why)),
    }
    match work(partition, deployment, now_ms).await {
        Ok(work) => {
            let place = Place { config, work: &work, now_ms, shell: &shell };
            report.add("ids", Ok(stream::ids(&work, deployment, now_ms, &shell)));
            report.add("group", Ok(group::group(&place)));
            report.add("owner", group::owner(partition, &place).await);
            report.add("trouble", group::trouble(partition, &place).await);
            report.add("trimming", Ok(group::trimming(&place)));
            report.add("janitor", Ok(group::janitor(&place)));
        }
        Err(error) => report.add("group", Err(Unseen::from(error))),
    }
}
