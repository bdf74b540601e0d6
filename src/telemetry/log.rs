//! Logs: structured lines on standard error that name the trace they belong to, a filter that can be changed while
//! the process runs, and a limit for lines that could flood. Nothing waits for them to be read.

use std::fmt;
use std::io::{IsTerminal as _, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{JsonFields, Writer, format};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, layer};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Registry, registry, reload};

use super::{lines, trace};
use crate::config::{LogConfig, LogFormat};

/// Starts logging to standard error.
///
/// # Errors
/// If the filter cannot be read.
pub fn install(config: &LogConfig) -> Result<Filter, ParseError> {
    let filter = EnvFilter::builder().parse(&config.filter)?;
    let (filter, handle) = reload::Layer::new(filter);
    let layer = layer().with_writer(|| lines::Line);
    let layer = match config.format {
        LogFormat::Text => {
            let format = format().with_ansi(stderr().is_terminal());
            layer.event_format(Traced { format, add: to_text }).boxed()
        }
        LogFormat::Json => {
            lines::use_json();
            let format = format().json().flatten_event(true);
            layer
                .fmt_fields(JsonFields::new())
                .event_format(Traced { format, add: to_json })
                .boxed()
        }
    };
    // A second call in the same process keeps the first one's settings.
    let _already = registry().with(filter).with(layer).try_init();
    Ok(Filter(handle))
}

/// The log filter, which can be changed while the process runs.
#[derive(Debug)]
pub struct Filter(reload::Handle<EnvFilter, Registry>);

impl Filter {
    /// Replaces the filter.
    ///
    /// # Errors
    /// If the filter cannot be read; the previous one then stays.
    pub fn set(&self, filter: &str) -> Result<(), ParseError> {
        let filter = EnvFilter::builder().parse(filter)?;
        // This fails only if nothing logs any more.
        let _gone = self.0.reload(filter);
        Ok(())
    }
}

/// Lines that name the trace and span they belong to, if any.
struct Traced<F> {
    format: F,
    add: fn(&str, trace::Ids) -> String,
}

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(ids) = trace::current() else {
            return self.format.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&(self.add)(&line, ids))
    }
}

fn to_text(line: &str, trace::Ids { trace_id, span_id }: trace::Ids) -> String {
    format!("{} trace_id={trace_id} span_id={span_id}\n", line.trim_end_matches('\n'))
}

/// The names are OpenTelemetry's for logs in other formats.
fn to_json(line: &str, trace::Ids { trace_id, span_id }: trace::Ids) -> String {
    let members = line.strip_prefix('{').unwrap_or(line);
    format!(r#"{{"trace_id":"{trace_id}","span_id":"{span_id}",{members}"#)
}

/// Passes one line per interval, and counts those it holds back.
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

    /// Adds `count` occurrences. If a line is due, returns how many it stands for.
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

/// Whether a line about a failed step may be written now, and how many failures it stands for. The limit is four
/// lines a second for the whole process, however many loops it has, and one in ten seconds once failures have lasted
/// for half a minute.
pub fn failure_line_due() -> Option<u64> {
    static FAILURES: Mutex<Failures> = Mutex::new(Failures::new());
    FAILURES.lock().unwrap_or_else(PoisonError::into_inner).add(Instant::now())
}

/// The time between lines about failures, and about failures that persist.
const LINES_APART: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Failures that last this long are reported less often.
const GO_ON: Duration = Duration::from_secs(30);
/// After this long without a failure the next one is news again.
const CALM: Duration = Duration::from_secs(15);

/// A series of failures.
struct Failures {
    throttle: Throttle,
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Failures {
    const fn new() -> Self {
        Self { throttle: Throttle::new(LINES_APART.0), since: None, last: None }
    }

    fn add(&mut self, now: Instant) -> Option<u64> {
        let last = self.last.replace(now);
        let is_news = last.is_none_or(|last| now.duration_since(last) > CALM);
        let since = *self.since.insert(self.since.filter(|_| !is_news).unwrap_or(now));
        let goes_on = now.duration_since(since) > GO_ON;
        self.throttle.interval = if goes_on { LINES_APART.1 } else { LINES_APART.0 };
        self.throttle.add(1)
    }
}

/// The same for entries that became dead letters: one line a second.
pub fn letters_line_due(count: u64) -> Option<u64> {
    static LETTERS: Shared = Shared::new(Duration::from_secs(1));
    LETTERS.add(count)
}

/// The same for unknown members.
pub fn unknown_members_line_due(count: u64) -> Option<u64> {
    static MEMBERS: Shared = Shared::new(Duration::from_secs(1));
    MEMBERS.add(count)
}

/// A throttle that all loops of the process share, and that outlives their sessions.
struct Shared(Mutex<Throttle>);

impl Shared {
    const fn new(interval: Duration) -> Self {
        Self(Mutex::new(Throttle::new(interval)))
    }

    fn add(&self, count: u64) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_go_on_are_reported_more_seldom() {
        let (mut failures, start) = (Failures::new(), Instant::now());
        assert_eq!(failures.add(start), Some(1));
        for seconds in 1..31 {
            failures.add(start + Duration::from_secs(seconds));
            assert_eq!(failures.throttle.interval, LINES_APART.0);
        }
        failures.add(start + Duration::from_secs(32));
        assert_eq!(failures.throttle.interval, LINES_APART.1);
        failures.add(start + Duration::from_secs(60));
        assert_eq!(failures.throttle.interval, LINES_APART.0, "it was calm in between");
    }

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
