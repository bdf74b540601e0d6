//! The terminal: full-screen frames by plain control sequences. The terminal is restored in any case.
//!
//! Each frame overwrites the previous one without clearing it, so nothing flickers. Lines are never wrapped, so a
//! character of unexpected width cannot break the frame.

use std::io::{self, IsTerminal as _};

use terminal_size::{Height, Width};

use crate::keyboard::Keyboard;
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
    keyboard: Option<Keyboard>,
}

impl Screen {
    /// Takes the screen.
    ///
    /// # Errors
    /// If the thread that writes to it cannot be started.
    pub(crate) fn enter(look: Look) -> io::Result<Self> {
        let out = Out::open()?;
        let _unread = out.send(ENTER.to_owned());
        Ok(Self { look, size: size(), out, keyboard: Keyboard::take() })
    }

    /// How to end the program, in words.
    pub(crate) fn ending(&self) -> &'static str {
        if self.keyboard.is_some() { "q or Ctrl-C ends it" } else { "Ctrl-C ends it" }
    }

    /// How large it is.
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Measures its size again.
    pub(crate) fn resized(&mut self) {
        self.size = size();
    }

    /// Draws a frame, unless the previous one is still being drawn: a terminal may be stopped (Ctrl-S).
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
            // In a full row the cursor stays on the last character, which this would erase.
            if line.width() < self.size.width {
                text.push_str("\x1b[K");
            }
        }
        text.push_str("\x1b[J");
        self.out.offer(text)
    }
}

/// Waits until a key asks to leave the screen; endlessly if there is no keyboard.
pub(crate) async fn quit(screen: &mut Option<Screen>) {
    match screen.as_mut().and_then(|screen| screen.keyboard.as_mut()) {
        Some(keyboard) => keyboard.quit().await,
        None => std::future::pending().await,
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // After a hang-up the terminal is gone.
        let _unwritable = self.out.send(LEAVE.to_owned());
    }
}

/// Whether standard output is a terminal that can be drawn on.
pub(crate) fn can_draw() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && !dumb
}

/// The terminal's answer, else the environment's, else 80 × 24.
pub(crate) fn size() -> Size {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let asked = terminal_size::terminal_size().filter(|(Width(w), Height(h))| *w > 0 && *h > 0);
    match asked {
        Some((Width(width), Height(height))) => {
            Size { width: usize::from(width), height: usize::from(height) }
        }
        None => {
            Size { width: number("COLUMNS").unwrap_or(80), height: number("LINES").unwrap_or(24) }
        }
    }
}
