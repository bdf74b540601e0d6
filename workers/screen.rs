//! The terminal: full-screen frames by plain control sequences, restored in any case.
//!
//! Frames are drawn over one another without clearing, so that nothing flickers, and lines are
//! never wrapped, so that a character of unexpected width cannot push the frame out of shape.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::process::{Command, Stdio};

use crate::line::{Line, Look};
use crate::out::Out;

/// Alternate screen, no cursor, no wrapping.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// The screen, ours until dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    look: Look,
    size: Size,
    out: Out,
}

impl Screen {
    /// Takes the screen.
    ///
    /// # Errors
    /// If there can be no further thread, which writes to it.
    pub(crate) fn enter(look: Look) -> io::Result<Self> {
        let out = Out::open()?;
        let _unread = out.send(ENTER.to_owned());
        Ok(Self { look, size: size(), out })
    }

    /// How large it is.
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Finds out how large it is now.
    pub(crate) fn resized(&mut self) {
        self.size = size();
    }

    /// Draws a frame, unless the one before is not drawn yet: a terminal may stand still (Ctrl-S).
    ///
    /// # Errors
    /// If the terminal could not be written to.
    pub(crate) fn draw(&mut self, frame: &[Line]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (row, line) in frame.iter().take(self.size.height).enumerate() {
            if row > 0 {
                text.push_str("\r\n");
            }
            text.push_str(&line.rendered(self.size.width, self.look));
            // In a full row the cursor stays on the last character: this would erase it.
            if line.width() < self.size.width {
                text.push_str("\x1b[K");
            }
        }
        text.push_str("\x1b[J");
        self.out.offer(text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone: that is what a hang-up means.
        let _unwritable = self.out.send(LEAVE.to_owned());
    }
}

/// Whether standard output is a terminal that can be drawn on.
pub(crate) fn can_draw() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && !dumb
}

/// What `stty` says, else what the environment says, else 80 × 24.
pub(crate) fn size() -> Size {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (width, height) = stty_size()
        .unwrap_or_else(|| (number("COLUMNS").unwrap_or(80), number("LINES").unwrap_or(24)));
    Size { width, height }
}

fn stty_size() -> Option<(usize, usize)> {
    let terminal = File::open("/dev/tty").ok()?;
    let mut stty = Command::new("stty");
    let said = stty.arg("size").stdin(terminal).stderr(Stdio::null()).output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (rows, columns) = said.trim().split_once(' ')?;
    Some((columns.parse().ok()?, rows.parse().ok()?))
        .filter(|(width, height)| *width > 0 && *height > 0)
}
