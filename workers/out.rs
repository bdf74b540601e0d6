//! Standard output of commands that run until a signal comes, written by a thread of its own. A reader that stops
//! reading delays only this output, and not the end of the process.

use std::io::{self, ErrorKind, Write as _};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot::{self, error::TryRecvError};

/// How long the process waits at its end for output to be written.
const GRACE: Duration = Duration::from_secs(1);

type Written = oneshot::Receiver<io::Result<()>>;

/// Access to standard output.
#[derive(Debug)]
pub(crate) struct Out {
    /// `None` once it is being dropped.
    texts: Option<Sender<(String, oneshot::Sender<io::Result<()>>)>>,
    thread: JoinHandle<()>,
    /// The text that was offered last.
    under_way: Option<Written>,
}

impl Out {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn open() -> io::Result<Self> {
        let (texts, waiting) = channel::<(String, oneshot::Sender<_>)>();
        let writing = move || {
            for (text, done) in waiting {
                // The caller may have stopped waiting.
                let _nobody_waits = done.send(write(&text));
            }
        };
        let thread = thread::Builder::new().name("standard-output".to_owned()).spawn(writing)?;
        Ok(Self { texts: Some(texts), thread, under_way: None })
    }

    /// Writes a text, and waits until it is written.
    ///
    /// # Errors
    /// If nobody reads any more.
    pub(crate) async fn write(&self, text: String) -> io::Result<()> {
        self.send(text).await.unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))
    }

    /// Writes a text, unless the previously offered one is still waiting for its reader.
    ///
    /// # Errors
    /// If the reader of the previous text is gone.
    pub(crate) fn offer(&mut self, text: String) -> io::Result<()> {
        match self.under_way.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => return Ok(()),
            Some(Err(TryRecvError::Closed)) => return Err(ErrorKind::BrokenPipe.into()),
            Some(Ok(written)) => written?,
            None => {}
        }
        self.under_way = Some(self.send(text));
        Ok(())
    }

    /// Queues a text and does not wait until it is written.
    pub(crate) fn send(&self, text: String) -> Written {
        let (done, written) = oneshot::channel();
        if let Some(texts) = &self.texts {
            // The thread outlives its sender.
            let _never = texts.send((text, done));
        }
        written
    }
}

/// Waits briefly for the last text.
impl Drop for Out {
    fn drop(&mut self) {
        self.texts = None;
        let end = Instant::now() + GRACE;
        while !self.thread.is_finished() && Instant::now() < end {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
