//! What operators see: metrics, health, logs.

pub mod health;
pub mod http;
pub mod log;
pub mod metrics;
