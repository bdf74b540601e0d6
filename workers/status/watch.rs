//! `status --watch`: repeats the page. On a terminal it redraws the page in place; elsewhere it prints one after the other.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use rollcall::config::Config;
use rollcall::error::chain;
use rollcall::telemetry::{lines, log};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{Rates, Status, StatusAnswer};
use crate::line::{Line, Look, Style};
use crate::out::Out;
use crate::query::{Answer as _, Query as _, QueryError, ask, json};
use crate::screen::{Screen, can_draw, quit};
use crate::signals;
use crate::table::{Page, escape};

/// The minimum number of workers shown, however small the screen is.
const FEWEST_WORKERS: usize = 2;

/// Queries repeatedly until a signal comes or the reader is gone. A failure after the first query is shown, and the
/// query is retried, since the server may come back.
#[tokio::main(flavor = "current_thread")]
pub(super) async fn run(status: &Status, every: Duration) -> Result<(), QueryError> {
    let config = status.config()?;
    // The filter was read once already, when the settings were checked.
    let _checked = log::install(&config.log);
    let mut stop = pin!(signals::stop_or_hangup());
    let mut resizes = signals::resizes();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut view = View::new(status, every)?;
    loop {
        tokio::select! {
            _ = &mut stop => return Ok(()),
            () = quit(&mut view.screen) => return Ok(()),
            () = signals::received(&mut resizes) => view.screen.iter_mut().for_each(Screen::resized),
            look = look(status, &config, &mut ticks) => view.take(look)?,
        }
        let shown = tokio::select! {
            // A slow reader must not keep the process from ending.
            _ = &mut stop => return Ok(()),
            shown = view.show() => shown,
        };
        match shown {
            // The reader is gone: `rollcall status --watch | head`, or a closed terminal.
            Err(QueryError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
                return Ok(());
            }
            shown => shown?,
        }
    }
}

/// The next query. It uses a new connection, so that it finds a server that was down, and reads its settings again.
async fn look(
    status: &Status,
    config: &Config,
    ticks: &mut Interval,
) -> Result<StatusAnswer, QueryError> {
    ticks.tick().await;
    ask(status, config).await
}

/// What is shown, and where.
struct View {
    out: Out,
    screen: Option<Screen>,
    json: bool,
    every: Duration,
    latest: Option<StatusAnswer>,
    /// Why the last query failed.
    trouble: Option<String>,
}

impl View {
    fn new(status: &Status, every: Duration) -> Result<Self, QueryError> {
        let draws = !status.output.json && can_draw();
        let screen = draws.then(|| Screen::enter(Look::of_environment())).transpose()?;
        let (out, json) = (Out::open()?, status.output.json);
        Ok(Self { out, screen, json, every, latest: None, trouble: None })
    }

    fn take(&mut self, look: Result<StatusAnswer, QueryError>) -> Result<(), QueryError> {
        match look {
            Ok(mut answer) => {
                let earlier = self.latest.as_ref();
                answer.rates = earlier.and_then(|earlier| Rates::between(earlier, &answer));
                self.latest = Some(answer);
                self.trouble = None;
            }
            Err(error) if self.latest.is_none() => return Err(error),
            Err(error) => self.trouble = Some(chain(&error)),
        }
        Ok(())
    }

    async fn show(&mut self) -> Result<(), QueryError> {
        let Some(latest) = &self.latest else { return Ok(()) };
        if let Some(screen) = &self.screen {
            let frame = self.frame(latest, screen);
            return Ok(self.screen.iter_mut().try_for_each(|screen| screen.draw(&frame))?);
        }
        if let Some(trouble) = &self.trouble {
            lines::say(&format!("rollcall: {trouble}"));
            return Ok(());
        }
        let text = if self.json {
            json(latest)?
        } else {
            let mut page = Page::new();
            latest.show(&mut page);
            page.into_text() + "\n"
        };
        Ok(self.out.write(text).await?)
    }

    /// One screen; on a small one, fewer workers are shown.
    fn frame(&self, latest: &StatusAnswer, screen: &Screen) -> Vec<Line> {
        let (every, size) = (self.every.as_secs_f64(), screen.size());
        let title = format!("rollcall status, every {every} s; {}", screen.ending());
        let mut lines = vec![Line::default().with(Style::Bold, title)];
        if let Some(trouble) = &self.trouble {
            lines.push(Line::default().with(Style::Red, escape(trouble)));
        }
        let rest = lines.len() + text(latest, size.width, 0).lines().count();
        // An empty line, the headings, and the number of workers that are not shown.
        let workers = size.height.saturating_sub(rest + 3).max(FEWEST_WORKERS);
        lines.extend(text(latest, size.width, workers).lines().map(|line| {
            let style = if line.starts_with("WARNING") { Style::Yellow } else { Style::Plain };
            Line::default().with(style, line)
        }));
        lines
    }
}

fn text(answer: &StatusAnswer, width: usize, workers: usize) -> String {
    let mut page = Page::within(Some(width));
    answer.show_within(&mut page, workers);
    page.into_text()
}
