//! What is wrong with a server: memory, persistence, replication, limits; and what cannot be checked.

use std::process::Command;

use std::time::Duration;

use rollcall::private_server::Options;

use super::{Patient, examine, slow};
use crate::harness::wait_until;
use crate::query::ground::ask_at;
use crate::roles::cluster::Cluster;
use crate::scene::SOON;

#[test]
fn memory_is_limited_and_never_reclaimed_by_eviction() {
    let patient = Patient::with_args(&[]);
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let fault = format!("CONFIG SET maxmemory-policy {policy}");
        patient.is_cured("eviction", &[&fault], "failure", policy);
    }
    patient.is_cured("memory", &["CONFIG SET maxmemory 0"], "warning", "no maxmemory");
    let used = |patient: &Patient| {
        let info = redis::from_redis_value::<String>(patient.send("INFO memory")).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.parse::<u64>().unwrap()
    };
    let fault = format!("CONFIG SET maxmemory {}", used(&patient) * 100 / 88);
    patient.is_cured("memory", &[&fault], "warning", " %)");
    let fault = format!("CONFIG SET maxmemory {}", used(&patient) * 100 / 99);
    patient.is_cured("memory", &[&fault], "failure", " %)");
}

#[test]
fn what_a_crash_would_lose_is_said() {
    let patient = Patient::with_args(&[]);
    patient.suffers("persistence", "warning", "neither");
    let mut conn = crate::support::dump::connect(&patient.server.url());
    redis::cmd("CONFIG").arg(&["SET", "save", "3600 1"]).exec(&mut conn).unwrap();
    patient.is_cured("persistence", &[], "warning", "snapshots only (save 3600 1)");
    patient.is_cured("persistence", &["CONFIG SET appendfsync no"], "warning", "appendfsync no");
}

#[test]
fn saving_that_fails_is_a_failure() {
    let patient = Patient::with_args(&[]);
    patient.is_well("saving");
    let folder = patient.server.folder();
    let in_the_way = folder.join("dump.rdb");
    std::fs::create_dir(&in_the_way).unwrap();
    patient.send("BGSAVE");
    let status = |wanted: &str| {
        let info = redis::from_redis_value::<String>(patient.send("INFO persistence")).unwrap();
        info.contains(&format!("rdb_last_bgsave_status:{wanted}"))
            && info.contains("rdb_bgsave_in_progress:0")
    };
    wait_until(SOON, "the save fails", || status("err"));
    let finding = patient.suffers("saving", "failure", "rdb_last_bgsave_status");
    assert!(finding.advice().contains(folder.to_str().unwrap()), "{}", finding.advice());
    std::fs::remove_dir(&in_the_way).unwrap();
    finding.run_remedy();
    wait_until(SOON, "the save works", || status("ok"));
    patient.is_well("saving");
}

#[test]
fn limits_that_cut_workers_are_found() {
    let patient = Patient::with_args(&["--maxclients", "40"]);
    let mut idle: Vec<redis::Connection> = Vec::new();
    for check in ["clients", "timeout", "script limit", "output buffers"] {
        patient.is_well(check);
    }
    patient.is_cured("timeout", &["CONFIG SET timeout 5"], "warning", "5 s: idle");
    let fault = ["CONFIG SET busy-reply-threshold 50"];
    patient.is_cured("script limit", &fault, "warning", "50 ms");
    let client = redis::Client::open(patient.server.url()).unwrap();
    let limit = ["CONFIG", "SET", "client-output-buffer-limit", "normal 1mb 0 0"];
    let mut conn = client.get_connection().unwrap();
    redis::cmd(limit[0]).arg(&limit[1..]).exec(&mut conn).unwrap();
    patient.suffers("output buffers", "warning", "1048576 bytes").run_remedy();
    patient.is_well("output buffers");
    idle.extend((0..32).map(|_| client.get_connection().unwrap()));
    patient.is_cured("clients", &[], "warning", "of at most 40");
    drop(idle);
}

#[test]
fn a_replica_and_replicas_that_are_missing_are_found() {
    let (primary, replica) = (Patient::with_args(&[]), Patient::with_args(&[]));
    let port = primary.server.port();
    primary.is_well("role");
    primary.send("CONFIG SET repl-diskless-sync-delay 0");
    replica.send(&format!("REPLICAOF 127.0.0.1 {port}"));
    wait_until(SOON, "the replica is in step", || {
        replica.finding("role").found().contains("link is up")
    });
    // The primary notices a moment later.
    wait_until(SOON, "for the primary, too", || primary.finding("replicas").level() == "ok");
    let finding = replica.suffers("role", "failure", &format!("a replica of 127.0.0.1:{port}"));
    assert!(finding.advice().contains(&format!("--redis-url at 127.0.0.1:{port}")));
    primary.send("CONFIG SET min-replicas-to-write 1");
    primary.is_well("replicas");
    finding.run_remedy();
    replica.is_well("role");
    wait_until(SOON, "the primary misses it", || primary.finding("replicas").level() == "failure");
    primary.suffers("replicas", "failure", "0 good replicas").run_remedy();
    primary.is_well("replicas");
}

#[test]
fn a_cluster_needs_hash_tags_and_all_its_slots() {
    let mut cluster = Cluster::start();
    let url = cluster.url();
    let found = |args: &[&str]| {
        let (_, report) = examine(&url, args);
        let findings = report["findings"].as_array().unwrap().clone();
        let of = |check: &'static str| {
            findings.iter().filter(|f| f["check"] == check).cloned().collect::<Vec<_>>()
        };
        (of("cluster"), of("eviction"), of("group"))
    };
    let (tag, ..) = found(&[]);
    assert_eq!(tag[0]["level"], "failure");
    assert!(tag[0]["found"].as_str().unwrap().contains("without a hash tag"), "{tag:?}");
    let (tagged, ..) = found(&["--prefix", "{acme}:"]);
    assert_eq!((tagged.len(), &tagged[0]["level"]), (1, &"ok".into()), "{tagged:?}");
    // Three nodes have eight partitions: each node is examined once, each partition separately.
    let (nodes, eviction, groups) = found(&["--partitions", "8"]);
    assert_eq!((nodes.len(), eviction.len(), groups.len()), (3, 3, 8));
    // One lost shard would stop them all, and the remedy helps; without all slots that setting shows here, too.
    let level = |nodes: &[serde_json::Value], level: &str| {
        nodes.iter().all(|finding| finding["level"] == level)
    };
    assert!(level(&nodes, "warning"), "{nodes:?}");
    let run = |instead: &str| {
        for finding in &nodes {
            let command = finding["remedy"][1]["run"].as_str().unwrap().replace(" no", instead);
            assert!(Command::new("sh").args(["-c", &command]).output().unwrap().status.success());
        }
    };
    run(" no");
    let (mended, ..) = found(&["--partitions", "8"]);
    assert!(level(&mended, "ok"), "{mended:?}");
    run(" yes");
    cluster.lose_a_slot();
    wait_until(SOON, "the Cluster is down", || {
        let (code, report) = examine(&url, &["--prefix", "{acme}:"]);
        code == 1 && report.to_string().contains("CLUSTER NODES")
    });
}

#[test]
fn what_cannot_be_reached_is_a_finding_and_no_password_is_shown() {
    let patient = Patient::new(Options::default());
    patient.send("CONFIG SET requirepass hunter2");
    let port = patient.server.port();
    let url = format!("redis://:wrong-hunter3@127.0.0.1:{port}");
    for args in [&["doctor"][..], &["doctor", "--json"]] {
        let (code, out, error) = ask_at(&url, args);
        assert_eq!(code, 1, "{out}{error}");
        assert!(out.contains("reach") && out.contains("ROLLCALL_REDIS_PASSWORD"), "{out}");
        assert!(!format!("{out}{error}").contains("hunter"), "{out}{error}");
    }
    let url = format!("redis://:hunter2@127.0.0.1:{port}");
    for args in [&["doctor"][..], &["doctor", "--json"]] {
        let (code, out, error) = ask_at(&url, args);
        assert_eq!(code, 0, "{out}{error}");
        assert!(!format!("{out}{error}").contains("hunter"), "{out}{error}");
    }
    let (code, report) = examine("redis://127.0.0.1:1", &[]);
    assert_eq!((code, &report["level"]), (1, &"failure".into()));
    assert_eq!(report["findings"][0]["check"], "reach");
}

#[test]
fn a_slow_way_to_the_server_is_found() {
    let patient = Patient::with_args(&[]);
    patient.is_well("latency");
    let port = slow::forward(patient.server.port(), Duration::from_millis(60));
    let (code, report) = examine(&format!("redis://127.0.0.1:{port}"), &[]);
    let latency = report["findings"].as_array().unwrap().iter().find(|f| f["check"] == "latency");
    assert_eq!((code, &latency.unwrap()["level"]), (0, &"warning".into()), "{latency:?}");
}
