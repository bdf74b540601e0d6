//! What `serve` counts and times.

use std::fmt;

/// The metrics of a process that serves applications and browsers.
#[derive(Clone)]
pub struct ServeMetrics {}

impl fmt::Debug for ServeMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServeMetrics")
    }
}

impl ServeMetrics {
    /// The handles; the recorder must be installed.
    pub fn registered() -> Self {
        Self {}
    }
}
