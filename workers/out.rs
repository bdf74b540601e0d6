//! Standard output of commands that run until a signal comes, written by a thread of its own: a reader who stops
//! reading holds up what it would read, and nothing else; not the end of the process either.

use std::io::{self, ErrorKind, Write as _};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot::{self, error::TryRecvError};

/// How long the end waits for what is still to be written.
const GRACE: Duration = Duration::from_secs(1);

type Written = oneshot::Receiver<io::Result<()>>;

/// The way to standard output.
#[derive(Debug)]
pub(crate) struct Out {
    /// Nothing once it ends.
    texts: Option<Sender<(String, oneshot::Sender<io::Result<()>>)>>,
    thread: JoinHandle<()>,
    /// What was offered last.
    under_way: Option<Written>,
}

impl Out {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub(crate) fn open() -> io::Result<Self> {
        let (texts, waiting) = channel::<(String, oneshot::Sender<_>)>();
        let writing = move || {
            for (text, done) in waiting {
                // Whoever asked may have gone on.
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

    /// Writes a text unless the one offered before is still waiting for its reader.
    ///
    /// # Errors
    /// If nobody has read the one before.
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

    /// Writes a text once all before it is written, and does not wait for that.
    pub(crate) fn send(&self, text: String) -> Written {
        let (done, written) = oneshot::channel();
        if let Some(texts) = &self.texts {
            // The thread outlives its sender.
            let _never = texts.send((text, done));
        }
        written
    }
}

/// Waits for the last text a little.
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
