//! The doctor: looks at a server and a deployment on it, and says what is wrong and what to do.
//!
//! It only reads: the one thing it leaves on a server are loaded scripts. What a user may not look at is a
//! finding, too. Each check is one function, in a file by theme; [`examine`] has them in their order.

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
use crate::state::status::work;
use crate::state::{Partition, RESPONSE_TIMEOUT, Reached, reach, server_time};

pub use self::access::Role;
pub use self::finding::{Diagnosis, Finding, Level, Step};

/// Makes every check; what cannot be reached or looked at is among the findings.
pub async fn examine(config: &Config, role: Role) -> Vec<Finding> {
    let server = config.redis.server();
    let mut report = Report::new(config, role);
    let Reached { mut nodes, mut partitions, node_of } =
        match reach(&server, &config.deployment, RESPONSE_TIMEOUT).await {
            Ok(reached) => reached,
            Err(error) => {
                report.add("reach", Ok(server::unreachable(&error, &report.shell)));
                return report.finish();
            }
        };
    for (place, node) in nodes.iter_mut().enumerate() {
        let first = node_of.iter().position(|of| *of == place).unwrap_or(0);
        report.turn_to(node, first as u16);
        examine_node(&mut report, node, config).await;
    }
    for (partition, place) in partitions.iter_mut().zip(node_of) {
        report.turn_to(&nodes[place], partition.index);
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
