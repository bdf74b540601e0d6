//! A line on the terminal that shows a command's progress.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often the line is written.
const PAUSE: Duration = Duration::from_millis(200);

/// The line; none if nobody watches, or a program reads the answer.
pub(crate) struct Progress {
    is_shown: bool,
    last: Option<Instant>,
}

impl Progress {
    /// A progress line, unless `is_quiet`.
    pub(crate) fn new(is_quiet: bool) -> Self {
        Self { is_shown: !is_quiet && io::stderr().is_terminal(), last: None }
    }

    /// Rewrites the line, if it is time.
    pub(crate) fn show(&mut self, line: impl FnOnce() -> String) {
        if self.is_shown && self.last.is_none_or(|last| last.elapsed() >= PAUSE) {
            self.last = Some(Instant::now());
            // A terminal that is gone must not end the command.
            let _gone = write!(io::stderr(), "\r\x1b[K{}", line());
        }
    }

    /// Removes the line.
    pub(crate) fn end(&self) {
        if self.last.is_some() {
            let _gone = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
