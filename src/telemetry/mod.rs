//! What operators see: metrics, health, logs, traces.

pub mod health;
pub mod http;
pub mod log;
pub mod metrics;
pub mod trace;
