//! Reads single keys as they are pressed. When this is dropped, even by a panic, the terminal reads whole lines
//! again. Ctrl-C and the like remain signals.

use std::io::{self, IsTerminal as _, Read as _};
use std::thread;

use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The keyboard, ours until dropped.
#[derive(Debug)]
pub(crate) struct Keyboard {
    before: Termios,
    keys: UnboundedReceiver<u8>,
}

impl Keyboard {
    /// Takes the keyboard; `None` if standard input is not a terminal, or another process has it.
    pub(crate) fn take() -> Option<Self> {
        let stdin = io::stdin();
        // The system stops a process in the background that touches the terminal.
        if !stdin.is_terminal() || tcgetpgrp(&stdin).ok()? != getpgrp() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut now = before.clone();
        now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        now.special_codes[SpecialCodeIndex::VMIN] = 1;
        now.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &now).ok()?;
        let (sender, keys) = unbounded_channel();
        // A blocking read cannot be cancelled, so the runtime must not wait for it.
        thread::spawn(move || {
            let pressed = io::stdin().lock().bytes().map_while(Result::ok);
            pressed.map_while(|key| sender.send(key).ok()).for_each(drop);
        });
        Some(Self { before, keys })
    }

    /// Waits until `q` is pressed; endlessly if no more keys can come.
    pub(crate) async fn quit(&mut self) {
        loop {
            match self.keys.recv().await {
                Some(b'q' | b'Q') => return,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // After a hang-up the terminal is gone.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
