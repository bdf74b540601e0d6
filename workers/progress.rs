//! A line on the terminal that tells how far a command is.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often the line is written.
const PAUSE: Duration = Duration::from_millis(200);

/// The line; none where nobody watches, or a program reads the answer.
pub(crate) struct Progress {
    is_shown: bool,
    last: Option<Instant>,
}

impl Progress {
    /// A line, unless it is to be quiet.
    pub(crate) fn new(is_quiet: bool) -> Self {
        Self { is_shown: !is_quiet && io::stderr().is_terminal(), last: None }
    }

    /// Writes the line again, if it is time.
    pub(crate) fn show(&mut self, line: impl FnOnce() -> String) {
        if self.is_shown && self.last.is_none_or(|last| last.elapsed() >= PAUSE) {
            self.last = Some(Instant::now());
            // A terminal that is gone ends nothing.
            let _gone = write!(io::stderr(), "\r\x1b[K{}", line());
        }
    }

    /// Takes the line away.
    pub(crate) fn end(&self) {
        if self.last.is_some() {
            let _gone = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
