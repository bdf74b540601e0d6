//! Single keys, as they are pressed. The terminal gives whole lines again in any case: when this is dropped, also
//! by a panic; Ctrl-C and the like stay signals.

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
    /// Takes the keyboard; `None` where standard input is no terminal, or another process has it.
    pub(crate) fn take() -> Option<Self> {
        let stdin = io::stdin();
        // A process in the background would be stopped for touching it.
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
        // A read cannot be called off, so it must not be the runtime that waits for it.
        thread::spawn(move || {
            let pressed = io::stdin().lock().bytes().map_while(Result::ok);
            pressed.map_while(|key| sender.send(key).ok()).for_each(drop);
        });
        Some(Self { before, keys })
    }

    /// Waits until `q` is pressed; for ever, where no key comes any more.
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
        // The terminal may be gone: that is what a hang-up means.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
