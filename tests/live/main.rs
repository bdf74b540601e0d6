//! Tests against real servers, each started by the test that needs it, on a free port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod acl;
mod changes;
mod chaos;
mod clients;
mod clock;
mod cluster;
mod crash;
mod crowd;
#[path = "../support/dashboards.rs"]
mod dashboards;
mod dead;
mod demo;
mod doctor;
mod erase;
mod failover;
mod feed;
mod grafana;
mod harness;
mod hostile;
mod janitor;
mod listen;
mod logs;
mod losses;
mod metrics;
mod migration;
mod notifier;
mod others;
mod position;
mod process;
mod property;
mod query;
mod reader;
mod reload;
mod repartition;
mod replica;
mod roles;
mod scene;
mod sealed;
mod seed_readers;
mod serve;
mod sizes;
mod stalled;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
mod traces;
mod trouble;
mod upgrade;
mod verify;
