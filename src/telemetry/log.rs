//! Logs: structured lines on standard error, and a limit for those that could flood.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{LogConfig, LogFormat};

/// Starts logging to standard error.
///
/// # Errors
/// If the filter cannot be read.
pub fn install(config: &LogConfig) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(&config.filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call in the same process keeps the first one's settings.
    let _already = match config.format {
        LogFormat::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Lets one line through per interval, and counts what it holds back.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// At most one line per `interval`.
    pub const fn new(interval: Duration) -> Self {
        Self { interval, last: None, held_back: 0 }
    }

    /// Adds `count` occurrences. If a line is due, how many it stands for.
    pub fn add(&mut self, count: u64) -> Option<u64> {
        self.held_back += count;
        let due = self.last.is_none_or(|last| last.elapsed() >= self.interval);
        if !due || self.held_back == 0 {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.held_back))
    }
}

/// Whether a line about a failed step may be written now, and how many failures it stands for: at most
/// four lines a second from the whole process, whatever number of loops it has.
pub fn failure_line_due() -> Option<u64> {
    static FAILURES: Mutex<Throttle> = Mutex::new(Throttle::new(Duration::from_millis(250)));
    FAILURES.lock().unwrap_or_else(PoisonError::into_inner).add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_counts_what_it_holds_back() {
        let mut throttle = Throttle::new(Duration::from_secs(3600));
        assert_eq!(throttle.add(0), None);
        assert_eq!(throttle.add(2), Some(2));
        assert_eq!(throttle.add(3), None);
        let mut open = Throttle::new(Duration::ZERO);
        assert_eq!((open.add(1), open.add(4)), (Some(1), Some(4)));
    }
}
