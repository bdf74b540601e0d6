//! What operators see: metrics, health, logs, traces, and the notifications to systemd.

pub mod health;
pub mod http;
pub mod lines;
pub mod log;
pub mod metrics;
pub mod systemd;
pub mod trace;
