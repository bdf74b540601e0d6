//! Standard error, written by a thread of its own, so that nobody who logs waits for a reader.
//!
//! Lines wait in memory up to a limit. Lines beyond it are dropped and counted; once there is room again, a line in
//! their place says how many there were.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use super::metrics::log_lines_lost;

/// How many bytes may wait; the writer may hold as many again.
const MOST_BYTES: usize = 1 << 20;
/// The pause before writing again to a non-blocking descriptor that is full.
const NO_ROOM: Duration = Duration::from_millis(20);

/// Writes a line to standard error as soon as there is room.
pub fn say(line: &str) {
    STDERR.push(format!("{line}\n").as_bytes());
}

/// Waits at most this long until all lines are written; returns whether they are.
pub fn flush(patience: Duration) -> bool {
    STDERR.flush(patience)
}

/// From now on the line about dropped lines is JSON.
pub(super) fn use_json() {
    STDERR.json.store(true, Ordering::Relaxed);
}

/// The target of log lines; each write is a whole line.
pub(super) struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        STDERR.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static STDERR: LazyLock<Arc<Lines>> = LazyLock::new(|| Lines::start(io::stderr(), MOST_BYTES));

/// Lines waiting for a reader.
struct Lines {
    most_bytes: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
    json: AtomicBool,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<u8>,
    /// Lines dropped since the last waiting one.
    lost: u64,
    is_writing: bool,
}

impl Lines {
    fn start(sink: impl Write + Send + 'static, most_bytes: usize) -> Arc<Self> {
        let lines = Arc::new(Self {
            most_bytes,
            queue: Mutex::default(),
            changed: Condvar::new(),
            json: AtomicBool::new(false),
        });
        let writing = lines.clone();
        // If the thread cannot be started, lines are dropped, as without a reader.
        let _unstarted = thread::Builder::new()
            .name("standard-error".to_owned())
            .spawn(move || writing.write_to(sink));
        lines
    }

    /// Adds a line, or drops it if too much is waiting.
    fn push(&self, line: &[u8]) {
        let mut queue = self.queue();
        let fits = queue.waiting.is_empty() || queue.waiting.len() + line.len() <= self.most_bytes;
        if fits {
            queue.waiting.extend_from_slice(line);
        } else {
            queue.lost += 1;
        }
        drop(queue);
        if fits {
            self.changed.notify_all();
        } else {
            log_lines_lost(1);
        }
    }

    fn flush(&self, patience: Duration) -> bool {
        let busy = |queue: &mut Queue| queue.is_writing || !queue.waiting.is_empty();
        let waited = self.changed.wait_timeout_while(self.queue(), patience, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn write_to(&self, mut sink: impl Write) {
        loop {
            let (bytes, lost) = self.take();
            let unwritten = write_all(&mut sink, &bytes).err().map_or(0, lines_in);
            let told = unwritten == 0
                && (lost == 0 || write_all(&mut sink, self.about_lost(lost).as_bytes()).is_ok());
            let mut queue = self.queue();
            queue.is_writing = false;
            // If the reader is gone, a later reader is told.
            queue.lost += unwritten + if told { 0 } else { lost };
            drop(queue);
            self.changed.notify_all();
            if unwritten > 0 {
                log_lines_lost(unwritten);
            }
        }
    }

    /// The waiting lines, and how many were dropped after them; waits until there is something.
    fn take(&self) -> (Vec<u8>, u64) {
        let empty = |queue: &mut Queue| queue.waiting.is_empty();
        let waited = self.changed.wait_while(self.queue(), empty);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        queue.is_writing = true;
        (std::mem::take(&mut queue.waiting), std::mem::take(&mut queue.lost))
    }

    fn about_lost(&self, lines: u64) -> String {
        let mut time = String::new();
        // Only its output could fail.
        let _infallible = SystemTime.format_time(&mut Writer::new(&mut time));
        let (target, words) =
            (module_path!(), "lines were dropped here: standard error was not read fast enough");
        if self.json.load(Ordering::Relaxed) {
            format!(
                "{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\"{words}\",\"lines\":{lines},\"target\":\"{target}\"}}\n"
            )
        } else {
            format!("{time}  WARN {target}: {words} lines={lines}\n")
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes everything, however long that takes.
///
/// # Errors
/// The rest that could not be written because the reader is gone.
fn write_all<'b>(sink: &mut impl Write, mut bytes: &'b [u8]) -> Result<(), &'b [u8]> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(bytes),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(NO_ROOM),
            Err(_) => return Err(bytes),
        }
    }
    Ok(())
}

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// Writes as much as each given result allows, and everything at the end.
    struct Sink {
        allowed: Receiver<io::Result<usize>>,
        written: Sender<String>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = self.allowed.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            let _gone = self.written.send(String::from_utf8_lossy(&bytes[..written]).into_owned());
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow(most_bytes: usize) -> (Arc<Lines>, Sender<io::Result<usize>>, Receiver<String>) {
        let ((allow, allowed), (written, read)) = (channel(), channel());
        (Lines::start(Sink { allowed, written }, most_bytes), allow, read)
    }

    #[test]
    fn lines_that_nobody_reads_are_lost_counted_and_told_in_their_place() {
        let (lines, allow, read) = slow(10);
        lines.push(b"1\n");
        // The writer does not report when it starts.
        while !lines.queue().is_writing {
            thread::yield_now();
        }
        for line in ["2_____\n", "3_____\n", "4_____\n"] {
            lines.push(line.as_bytes());
        }
        assert!(!lines.flush(Duration::from_millis(1)), "it waits no longer than it may");
        assert_eq!(lines.queue().lost, 2);
        allow.send(Ok(1)).unwrap();
        allow.send(Err(ErrorKind::Interrupted.into())).unwrap();
        allow.send(Err(ErrorKind::WouldBlock.into())).unwrap();
        drop(allow);
        let written = || read.recv().unwrap();
        assert_eq!([written(), written(), written()], ["1", "\n", "2_____\n"]);
        let told = written();
        assert!(told.contains(" WARN ") && told.ends_with(" lines=2\n"), "{told}");
        assert!(lines.flush(SOON), "all is written");
        lines.json.store(true, Ordering::Relaxed);
        let told: serde_json::Value = serde_json::from_str(&lines.about_lost(7)).unwrap();
        assert_eq!((&told["level"], &told["lines"]), (&"WARN".into(), &7.into()), "{told}");
    }

    #[test]
    fn a_line_of_any_size_passes_where_nothing_waits() {
        let (lines, allow, read) = slow(10);
        lines.push(&[b'x'; 100]);
        allow.send(Ok(usize::MAX)).unwrap();
        assert_eq!(read.recv().unwrap().len(), 100);
    }

    #[test]
    fn without_a_reader_lines_are_lost_until_there_is_one() {
        let (lines, allow, read) = slow(1_000);
        for line in [b"1\n", b"2\n"] {
            lines.push(line);
            allow.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
            assert!(lines.flush(SOON), "nothing is kept for nobody");
        }
        drop(allow);
        lines.push(b"3\n");
        assert_eq!(read.recv().unwrap(), "3\n");
        let told = read.recv().unwrap();
        assert!(told.ends_with(" lines=2\n"), "{told}");
    }
}
