//! The state is a function of the set of entries: the same entries in order, shuffled, repeated, in other
//! batches, and by several workers give what the reference model says, key by key, expiries included.

use std::time::Duration;

use fastrand::Rng;
use rollcall::entry::Entry;
use rollcall::projector::Projector;
use rollcall::telemetry::health::Health;
use tokio::sync::watch;

use crate::harness::{Deployment, id, wait_until};
use crate::support::dump;
use crate::support::events::Events;

/// Entries by partition, all within some seconds before now.
fn entries(
    deployment: &Deployment,
    seed: u64,
    count: u64,
    types: &[&'static str],
) -> Vec<Vec<Entry>> {
    let now = dump::server_now(&mut deployment.connection());
    let mut events = Events::new(seed, now);
    events.types = types.to_vec();
    events.partitions = deployment.partitions();
    let mut partitions = vec![Vec::new(); usize::from(deployment.partitions())];
    for n in 0..count {
        let (partition, fields) = events.entry();
        let entry = Entry { id: id(now - 5_000 + n / 3, n % 3), fields };
        partitions[usize::from(partition)].push(entry);
    }
    partitions
}

/// Applies all entries in this order, so many at a time, to an empty server; then compares.
async fn try_order(
    deployment: &Deployment,
    what: &str,
    entries: &[Vec<Entry>],
    order: impl Fn(&[Entry]) -> Vec<Vec<Entry>>,
) {
    redis::cmd("FLUSHALL").exec(&mut deployment.connection()).unwrap();
    for (partition, entries) in (0..).zip(entries) {
        deployment.add(partition, entries);
        let mut script = deployment.deliver_all(partition).await;
        let mut acknowledged = 0;
        for batch in order(entries) {
            acknowledged += script.apply(&batch).await.acknowledged;
        }
        assert_eq!(acknowledged, entries.len() as u64, "{what}: each entry is acknowledged once");
    }
    deployment.verify(what).await;
}

async fn converges(flags: &[(&str, &str)], types: &[&'static str]) {
    let deployment = Deployment::start(flags);
    for seed in 0..6 {
        let entries = entries(&deployment, seed, 240, types);
        let shuffled = |all: &[Entry], seed: u64| {
            let mut all = all.to_vec();
            Rng::with_seed(seed).shuffle(&mut all);
            all
        };
        let chunks =
            |all: &[Entry], n: usize| all.chunks(n).map(<[Entry]>::to_vec).collect::<Vec<_>>();
        let tell = |how: &str| format!("{types:?} seed {seed}, {how}");
        try_order(&deployment, &tell("in order, one by one"), &entries, |all| chunks(all, 1)).await;
        try_order(&deployment, &tell("in order, one batch"), &entries, |all| chunks(all, 1000))
            .await;
        try_order(&deployment, &tell("shuffled, by 7"), &entries, |all| {
            chunks(&shuffled(all, seed), 7)
        })
        .await;
        try_order(&deployment, &tell("reversed, by 50"), &entries, |all| {
            chunks(&all.iter().rev().cloned().collect::<Vec<_>>(), 50)
        })
        .await;
        try_order(&deployment, &tell("everything twice, shuffled, by 30"), &entries, |all| {
            let twice = [all, all].concat();
            chunks(&shuffled(&twice, seed + 1), 30)
        })
        .await;
    }
}

macro_rules! projections_converge {
    ($($test:ident: $types:expr;)*) => {
        $(#[tokio::test]
        async fn $test() {
            converges(&[("thresholds", "3:1,2:0"), ("viewed-cap", "5")], &$types).await;
        })*
    };
}

projections_converge! {
    heartbeats_and_logouts_converge: ["heartbeat", "logout"];
    tokens_and_ranking_converge: ["login", "view", "logout"];
    sessions_converge: ["session", "logout"];
    documents_converge: ["document"];
    all_types_together_converge: [];
}

#[tokio::test]
async fn four_partitions_with_a_prefix_converge() {
    converges(&[("partitions", "4"), ("prefix", "acme:"), ("thresholds", "2:1")], &[]).await;
}

#[tokio::test]
async fn any_selection_of_projections_converges() {
    for projections in ["presence", "online,activity", "tokens", "ranking", "sessions", "documents"]
    {
        let deployment = Deployment::start(&[("projections", projections)]);
        let entries = entries(&deployment, 7, 200, &[]);
        try_order(&deployment, projections, &entries, |all| {
            all.chunks(20).map(<[Entry]>::to_vec).collect()
        })
        .await;
    }
}

#[tokio::test]
async fn recent_tokens_over_the_cap_converge() {
    let deployment = Deployment::start(&[("recent-cap", "3"), ("ranking-cap", "10")]);
    for seed in 0..5 {
        let entries = entries(&deployment, seed, 150, &["login"]);
        for size in [1, 10, 150] {
            try_order(&deployment, "over the cap", &entries, |all| {
                all.chunks(size).map(<[Entry]>::to_vec).collect()
            })
            .await;
        }
    }
}

/// Runs so many projectors over what stands in the streams until nothing is left.
async fn run_workers(deployment: &Deployment, workers: usize) {
    let (stop, stopped) = watch::channel(false);
    let health = Health::new(Duration::from_secs(60));
    let mut running = Vec::new();
    for worker in 0..workers {
        for partition in 0..deployment.partitions() {
            let name = format!("w{worker}");
            let pulse = health.add(name.clone());
            running.push(tokio::spawn(
                Projector::new(&deployment.config, partition, name, pulse, stopped.clone()).run(),
            ));
        }
    }
    let deployment_url = deployment.server.url();
    let streams: Vec<String> = (0..deployment.partitions()).map(|p| deployment.stream(p)).collect();
    tokio::task::spawn_blocking(move || {
        let mut conn = dump::connect(&deployment_url);
        wait_until(Duration::from_secs(20), "the workers finish the stream", || {
            streams.iter().all(|stream| is_finished(&mut conn, stream))
        });
    })
    .await
    .unwrap();
    stop.send_replace(true);
    for running in running {
        running.await.unwrap().unwrap();
    }
}

/// Whether the group has read and acknowledged everything.
pub fn is_finished(conn: &mut redis::Connection, stream: &str) -> bool {
    let info: redis::RedisResult<Vec<std::collections::HashMap<String, redis::Value>>> =
        redis::cmd("XINFO").arg("GROUPS").arg(stream).query(conn);
    let last: Vec<(String, redis::Value)> = redis::cmd("XREVRANGE")
        .arg(stream)
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1)
        .query(conn)
        .unwrap();
    let Some((last, _)) = last.first() else { return true };
    info.is_ok_and(|groups| {
        groups.iter().any(|group| {
            let text = |name: &str| redis::from_redis_value::<String>(group[name].clone()).unwrap();
            text("pending") == "0" && text("last-delivered-id") == *last
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_and_three_workers_give_the_same_state() {
    for flags in [&[("batch", "7"), ("partitions", "1")], &[("batch", "20"), ("partitions", "4")]] {
        let deployment = Deployment::start(flags);
        for workers in [1, 3] {
            redis::cmd("FLUSHALL").exec(&mut deployment.connection()).unwrap();
            let entries = entries(&deployment, 11, 600, &[]);
            (0..).zip(&entries).for_each(|(partition, entries)| deployment.add(partition, entries));
            run_workers(&deployment, workers).await;
            deployment.verify(&format!("{workers} workers")).await;
        }
    }
}
