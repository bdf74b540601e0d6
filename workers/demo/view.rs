//! What the demo shows: a snapshot of the state → lines. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::watch::{Change, Snapshot, Watch};
use crate::line::{Line, Look, Style, visible};
use crate::load::Sent;
use crate::screen::Size;
use crate::width::{columns, wrapped};

/// How long a new user is shown as new, in milliseconds.
const NEW_MS: u64 = 3_000;
/// The frame's rows besides addresses, names, table and changes.
const FIXED_ROWS: usize = 7;
/// Columns of the labels at the left.
const LABEL: usize = 9;

/// What stays the same while the demo runs.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// The server's program.
    pub server: String,
    /// Its address.
    pub url: String,
    /// Where applications and browsers are served.
    pub serve: Option<String>,
    /// Where `/metrics` is, or why it is nowhere.
    pub metrics: String,
    /// A command that adds an event.
    pub example: String,
    /// The demo's own users; others are shown first.
    pub crowd: BTreeSet<String>,
    /// The number of users from which a document is marked.
    pub threshold: Option<u64>,
    /// How long the demo is to run.
    pub duration: Option<Duration>,
}

impl About {
    /// Where applications and browsers are served, or that they are not.
    pub(super) fn serve(&self) -> &str {
        self.serve.as_deref().unwrap_or("no port is free for applications and browsers")
    }
}

/// What one frame shows.
pub(super) struct View<'a> {
    /// What stays the same.
    pub about: &'a About,
    /// The state.
    pub watch: &'a Watch,
    /// What the producers sent.
    pub sent: Sent,
    /// The terminal's look.
    pub look: Look,
}

impl View<'_> {
    /// A frame for a terminal of this size; `ending` says how to end the demo.
    pub(super) fn frame(&self, size: Size, ending: &str) -> Vec<Line> {
        let addresses = self.addresses(size.width);
        let spare = size.height.saturating_sub(FIXED_ROWS + addresses.len());
        let names = (spare / 4).clamp(1, 3);
        let table = (spare * 2 / 5).clamp(4, 10);
        let changes = spare.saturating_sub(names + table);
        let mut frame = vec![self.title(ending)];
        frame.extend(addresses);
        frame.push(Line::default());
        frame.extend(self.online(size.width, names));
        frame.push(Line::default());
        frame.extend(self.flow());
        frame.push(Line::default());
        frame.extend(self.tables(size.width, table));
        frame.push(Line::default());
        frame.extend(self.changes(changes));
        frame
    }

    fn title(&self, ending: &str) -> Line {
        let time = match self.about.duration {
            Some(all) => format!("{} s of {} s", self.sent.within.as_secs(), all.as_secs()),
            None => format!("{} s", self.sent.within.as_secs()),
        };
        let rest = [self.about.server.as_str(), &time, ending];
        let rest = rest.map(|part| format!("{}{part}", self.look.dot())).concat();
        Line::default().with(Style::Bold, "Rollcall demo").with(Style::Dim, rest)
    }

    fn addresses(&self, width: usize) -> Vec<Line> {
        let About { url, metrics, example, .. } = self.about;
        let label = |text: &str| Line::default().with(Style::Dim, format!("{text:LABEL$}"));
        let mut lines = vec![
            label("redis").with(Style::Cyan, url.as_str()),
            label("serve").with(Style::Cyan, self.about.serve()),
            label("metrics").with(Style::Cyan, metrics.as_str()),
        ];
        // It is there to be copied: a shell also reads it over several lines.
        let parts = wrapped(example, width.saturating_sub(LABEL + 2));
        for (n, part) in parts.iter().enumerate() {
            let more = if n + 1 < parts.len() { " \\" } else { "" };
            let line = label(if n == 0 { "try" } else { "" });
            lines.push(line.with(Style::Cyan, format!("{part}{more}")));
        }
        lines
    }

    /// Who is present: users who are not the demo's own first, newcomers marked.
    fn online(&self, width: usize, rows: usize) -> Vec<Line> {
        let present = &self.seen().present;
        let (own, guests): (Vec<_>, Vec<_>) =
            present.iter().partition(|user| self.about.crowd.contains(*user));
        let new = self.newcomers();
        let mut lines =
            vec![Line::default().with(Style::Bold, format!("ONLINE {:<4}", present.len()))];
        let mut names = guests.into_iter().chain(own).peekable();
        let mut left = present.len();
        while let Some(user) = names.next() {
            let style = match (new.contains(user.as_str()), self.about.crowd.contains(user)) {
                (true, _) => Style::Green,
                (_, true) => Style::Plain,
                (_, false) => Style::Bold,
            };
            let (name, more) = (visible(user), format!(" {} {left} more", self.look.ellipsis()));
            let last = lines.len() == rows;
            let room = width.saturating_sub(if last && left > 1 { columns(&more) } else { 0 });
            let used = lines.last().map_or(0, Line::width);
            if used + columns(&name) + 2 > room {
                if last {
                    append(&mut lines, Style::Dim, more);
                    break;
                }
                lines.push(Line::default().with(Style::Plain, " ".repeat(11)));
            }
            append(&mut lines, style, name);
            append(&mut lines, Style::Plain, if names.peek().is_some() { "  " } else { "" });
            left -= 1;
        }
        lines.resize(rows, Line::default());
        lines
    }

    fn newcomers(&self) -> BTreeSet<&str> {
        let recent = |change: &&Change| change.time_ms + NEW_MS >= self.seen().now_ms;
        let came =
            self.watch.changes.iter().take_while(recent).filter(|change| change.kind == "online");
        came.filter_map(|change| change.get("user")).collect()
    }

    /// What came in, what was applied, and what is waiting.
    fn flow(&self) -> [Line; 2] {
        let seen = self.seen();
        let rate = self.sent.events as f64 / self.sent.within.as_secs_f64().max(1.0);
        let label = |text: &str| Line::default().with(Style::Bold, format!("{text:LABEL$}"));
        let waiting = seen.undelivered.map_or("unknown".to_owned(), |entries| entries.to_string());
        let quiet = |count: i64| if count == 0 { Style::Plain } else { Style::Yellow };
        let bars = self.look.bars(self.watch.rates.iter().copied());
        [
            label("EVENTS")
                .with(Style::Plain, format!("{rate:.0}/s sent, {} in all", self.sent.events))
                .with(
                    Style::Plain,
                    format!(
                        "   entries: {:.0}/s applied, {} in all ",
                        self.watch.rate(),
                        seen.applied
                    ),
                )
                .with(Style::Green, bars),
            label("LAG")
                .with(Style::Plain, format!("{waiting} waiting"))
                .with(Style::Dim, "   dead letters ")
                .with(quiet(seen.dead), seen.dead.to_string()),
        ]
    }

    fn tables(&self, width: usize, rows: usize) -> Vec<Line> {
        const GAP: usize = 2;
        let column = width.saturating_sub(2 * GAP) / 3;
        let columns = [self.state(column), self.items(column), self.documents(column)];
        let row = |row: usize| {
            let mut line = Line::default();
            for (n, cells) in columns.iter().enumerate() {
                let gap = if n > 0 { GAP } else { 0 };
                let cell = cells.get(row).cloned().unwrap_or_default();
                line = line.with(Style::Plain, " ".repeat(gap));
                line = line.join(cell.fitted(column, self.look));
            }
            line
        };
        (0..rows).map(row).collect()
    }

    fn state(&self, width: usize) -> Vec<Line> {
        let seen = self.seen();
        let number = |count: i64| count.to_string();
        let changes: u64 = self.watch.totals.values().sum();
        let rows = [
            ("presence:users", number(seen.presence)),
            ("sessions:active", number(seen.sessions)),
            ("recent:", number(seen.recent)),
            ("viewed:", number(seen.ranked)),
            ("login:", number(seen.logins)),
            ("seen this minute", number(seen.this_minute)),
            ("changes so far", changes.to_string()),
            ("events kept", number(seen.stream)),
            ("memory", format!("{:.1} MB", seen.memory as f64 / 1e6)),
        ];
        let rows = rows.map(|(name, count)| self.row(Style::Dim, name, width, &count));
        titled("STATE", rows)
    }

    fn items(&self, width: usize) -> Vec<Line> {
        let rows =
            self.seen().items.iter().map(|(item, views)| {
                self.row(Style::Plain, &visible(item), width, &views.to_string())
            });
        titled("MOST VIEWED", rows)
    }

    fn documents(&self, width: usize) -> Vec<Line> {
        let rows = self.seen().documents.iter().map(|(document, users, reached)| {
            let count = users.to_string();
            let line = self.row(Style::Plain, &visible(document), width.saturating_sub(2), &count);
            let mark = if *reached { self.look.mark() } else { "" };
            line.with(Style::Yellow, format!(" {mark}"))
        });
        let mut lines = titled("IN DOCUMENTS", rows);
        if let Some(threshold) = self.about.threshold {
            let legend = format!("  {} from {threshold}", self.look.mark());
            if columns("IN DOCUMENTS") + columns(&legend) <= width {
                append(&mut lines[..1], Style::Dim, legend);
            }
        }
        lines
    }

    /// A name, and a count at the end of the column.
    fn row(&self, style: Style, name: &str, width: usize, count: &str) -> Line {
        let name = Line::default().with(style, name);
        let name = name.fitted(width.saturating_sub(columns(count) + 1), self.look);
        name.with(Style::Plain, format!(" {count}"))
    }

    fn changes(&self, rows: usize) -> Vec<Line> {
        let heading = Line::default()
            .with(Style::Bold, "LATEST CHANGES")
            .with(Style::Dim, "  rollcall:changes, UTC");
        let changes = self.watch.changes.iter().map(|change| self.change(change));
        std::iter::once(heading).chain(changes).take(rows).collect()
    }

    fn change(&self, change: &Change) -> Line {
        let style = match change.kind.as_str() {
            "online" | "login" | "session_started" | "document_joined" => Style::Green,
            "threshold_reached" | "threshold_left" => Style::Yellow,
            _ => Style::Dim,
        };
        Line::default()
            .with(Style::Dim, time_of_day(change.time_ms))
            .with(style, format!("  {:18}", visible(&change.kind)))
            .with(Style::Plain, subject(change))
    }

    fn seen(&self) -> &Snapshot {
        &self.watch.latest
    }

    /// The same in one line, if there is no terminal.
    pub(super) fn plain(&self) -> String {
        let seen = self.seen();
        let latest = self.watch.changes.front();
        let latest = latest.map_or("none".to_owned(), |change| {
            format!("{} {}", visible(&change.kind), subject(change))
        });
        format!(
            "{:>4}s  online {}  sessions {}  logins {}  documents {}  sent {}  applied {} ({:.0}/s)  \
             waiting {}  dead {}  latest: {latest}",
            self.sent.within.as_secs(),
            seen.present.len(),
            seen.sessions,
            seen.logins,
            seen.documents.len(),
            self.sent.events,
            seen.applied,
            self.watch.rate(),
            seen.undelivered.map_or("?".to_owned(), |entries| entries.to_string()),
            seen.dead,
        )
    }
}

fn append(lines: &mut [Line], style: Style, text: impl Into<String>) {
    if let Some(line) = lines.last_mut() {
        *line = std::mem::take(line).with(style, text);
    }
}

fn titled(title: &str, rows: impl IntoIterator<Item = Line>) -> Vec<Line> {
    std::iter::once(Line::default().with(Style::Bold, title)).chain(rows).collect()
}

/// `14:13:20.123`.
fn time_of_day(ms: u64) -> String {
    let full = rollcall::time::format_time(ms);
    full.get(11..23).unwrap_or(&full).to_owned()
}

/// Whom or what a change is about.
fn subject(change: &Change) -> String {
    let said = |name: &str| change.get(name).filter(|value| !value.is_empty()).map(visible);
    let with = |word: &str, name: &str| said(name).map(|value| format!("{word} {value}"));
    let parts = match change.kind.as_str() {
        "online" | "offline" => vec![said("user"), with("from", "ip")],
        "login" | "logout" => vec![said("user"), with("with", "token")],
        "document_joined" | "document_left" => {
            vec![said("user"), with("in", "doc"), with("now", "count")]
        }
        "threshold_reached" => {
            vec![said("doc"), with("has", "count"), with("at threshold", "threshold")]
        }
        "threshold_left" => vec![said("doc"), with("has", "count"), with("left", "threshold")],
        _ => vec![said("sid"), with("of", "user")],
    };
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::process;
    use rollcall::entry::{Entry, EntryId};

    const NOW: u64 = 1_790_000_000_000;
    const EXAMPLE: &str = "redis-cli -p 23456 XADD rollcall:events '*' type heartbeat user you";
    const HOSTILE: &str = "\x1b[2Jann\n\u{202e}";

    fn entry(seq: u64, kind: &str, user: &str) -> Entry {
        let time = NOW.to_string();
        let fields = [("kind", kind), ("user", user), ("doc", HOSTILE), ("time", time.as_str())];
        Entry::new(EntryId { ms: NOW, seq }, fields)
    }

    fn watch() -> Watch {
        let config = process::settings("redis://127.0.0.1:1", 100, None).unwrap();
        let mut watch = Watch::over(config.redis.server(), &config.deployment);
        let many = (0..70).map(|n| format!("user-{n:02}"));
        watch.latest = Snapshot {
            now_ms: NOW,
            present: many.chain([HOSTILE.to_owned(), "you".to_owned()]).collect(),
            items: vec![
                (HOSTILE.to_owned(), 7),
                ("a-very-long-item-name-that-does-not-fit".to_owned(), 123_456),
            ],
            documents: vec![(HOSTILE.to_owned(), 3, true)],
            ..Snapshot::default()
        };
        watch.remember((0..40).map(|seq| entry(seq, "document_joined", "you")).collect());
        watch.remember(vec![entry(41, "online", HOSTILE)]);
        watch
    }

    fn about() -> About {
        About {
            server: "redis-server".to_owned(),
            url: "redis://127.0.0.1:23456".to_owned(),
            serve: None,
            metrics: "off".to_owned(),
            example: EXAMPLE.to_owned(),
            crowd: (0..70).map(|n| format!("user-{n:02}")).collect(),
            threshold: Some(3),
            duration: None,
        }
    }

    fn shown(size: Size, look: Look) -> Vec<String> {
        shown_of(&watch(), size, look)
    }

    fn shown_of(watch: &Watch, size: Size, look: Look) -> Vec<String> {
        let sent = Sent { events: 40, entries: 39, in_doubt: 0, within: Duration::from_secs(1) };
        let view = View { about: &about(), watch, sent, look };
        assert!(!view.plain().contains(char::is_control));
        view.frame(size, "q or Ctrl-C ends it")
            .iter()
            .map(|line| line.rendered(size.width, look))
            .collect()
    }

    #[test]
    fn a_frame_fits_its_terminal_and_holds_no_control_characters() {
        let look = Look { colours: false, unicode: true };
        for (width, height) in [(80, 24), (120, 40), (40, 12), (1, 1), (250, 80)] {
            let lines = shown(Size { width, height }, look);
            assert!(height < 20 || lines.len() <= height, "{} rows", lines.len());
            for line in &lines {
                assert!(columns(line) <= width, "{line}");
                assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
            }
        }
    }

    #[test]
    fn nothing_is_cut_that_has_room() {
        let look = Look { colours: false, unicode: true };
        let mut watch = watch();
        watch.latest.items = vec![("lamp".to_owned(), 7)];
        watch.latest.documents = vec![("plan".to_owned(), 3, true), ("list".to_owned(), 1, false)];
        watch.changes.clear();
        for width in 78..=200 {
            let lines = shown_of(&watch, Size { width, height: 30 }, look);
            for line in lines {
                assert!(!line.contains('…') || line.contains(" more"), "{width}: {line}");
                assert!(columns(&line) <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn the_command_to_try_is_whole_however_narrow_the_terminal() {
        let look = Look { colours: false, unicode: true };
        for width in [40, 60, 75, 76, 120] {
            let lines = shown(Size { width, height: 40 }, look);
            let from = lines.iter().position(|line| line.starts_with("try ")).unwrap();
            let mut command = String::new();
            for line in &lines[from..] {
                let part = &line[LABEL..];
                command.push_str(part.trim_end_matches('\\'));
                if !part.ends_with('\\') {
                    break;
                }
            }
            assert_eq!(command, EXAMPLE, "{width}");
        }
    }

    #[test]
    fn guests_come_first_and_what_happened_is_told() {
        let lines = shown(Size { width: 80, height: 24 }, Look { colours: false, unicode: false });
        let all = lines.join("\n");
        assert!(all.contains("ONLINE 72  \\u{1b}[2Jann\\n\\u{202e}  you  user-00"), "{all}");
        assert!(all.contains(" more\n") && all.contains(" 3 ^"), "{all}");
        assert!(all.contains("XADD rollcall:events '*' type heartbeat user you"), "{all}");
        let latest = lines.iter().position(|line| line.starts_with("LATEST CHANGES")).unwrap();
        assert!(lines[latest + 1].starts_with("14:13:20.000  online  "), "{all}");
        assert!(lines[latest + 2].contains("document_joined   you in"), "{all}");
    }
}
