//! Answers on the terminal: aligned columns, times, and text that cannot act on a terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use rollcall::time::format_time;

use crate::screen;
use crate::width::{columns, cut, wrapped};

/// The minimum width of a cell that is cut.
const NARROWEST: usize = 6;
/// The minimum width of a cell that is cut last: an IPv6 address.
const KEPT: usize = 39;
const GAP: usize = 2;
/// Before each line of a note.
const NOTE: &str = "    ";

/// The text of an answer for people.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
    width: Option<usize>,
}

impl Page {
    /// An empty page. Wide cells are cut only on a terminal; piped output stays complete.
    pub(crate) fn new() -> Self {
        Self::within(io::stdout().is_terminal().then(|| screen::size().width))
    }

    /// An empty page of this width.
    pub(crate) fn within(width: Option<usize>) -> Self {
        Self { text: String::new(), width }
    }

    /// Adds a line of text. Control characters in it must have been escaped.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, table: &Table) {
        table.write(&mut self.text, self.width);
    }

    /// Says how many items of a list are not shown.
    pub(crate) fn more(&mut self, count: u64, shown: usize) {
        let more = count.saturating_sub(shown as u64);
        if more > 0 {
            self.line(format!("… and {more} more (--limit 0 shows all)"));
        }
    }

    /// The text.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// Writes an answer to standard output. A reader such as `head` may close it early.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Rows of cells, fitted to the terminal. The last character of a heading says how its column shrinks: `…` is cut
/// first, `*` is cut last, `@` shortens its times and then leaves them out. A heading that begins with `>` aligns its
/// column to the right.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    cells: Vec<String>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Column {
    heading: &'static str,
    right: bool,
    gives: Gives,
}

/// How a column shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    Never,
    First,
    Last,
    Time,
}

impl Column {
    fn of(heading: &'static str) -> Self {
        let (right, heading) = heading.strip_prefix('>').map_or((false, heading), |h| (true, h));
        let marks = [('…', Gives::First), ('*', Gives::Last), ('@', Gives::Time)];
        let marked = |(mark, gives)| Some((heading.strip_suffix(mark)?, gives));
        let (heading, gives) =
            marks.into_iter().find_map(marked).unwrap_or((heading, Gives::Never));
        Self { heading, right, gives }
    }
}

impl Table {
    /// An empty table with these headings, or without a heading line if all are empty.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        let columns = headings.iter().map(|heading| Column::of(heading)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row. Control characters are escaped, and an empty cell is shown as `-`.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        let shown =
            |cell: &&str| if cell.is_empty() { "-".into() } else { escape(cell).into_owned() };
        self.rows.push(Row { cells: cells.iter().map(shown).collect(), notes: Vec::new() });
    }

    /// Adds a note below the last row and its other notes.
    pub(crate) fn note(&mut self, text: &str) {
        if let Some(row) = self.rows.last_mut() {
            row.notes.push(escape(text).into_owned());
        }
    }

    fn write(&self, out: &mut String, width: Option<usize>) {
        let layout = Layout::of(self, width);
        let headings = self.columns.iter().map(|column| Cow::Borrowed(column.heading));
        if headings.clone().any(|heading| !heading.is_empty()) {
            self.write_row(out, headings, &layout);
        }
        for Row { cells, notes } in &self.rows {
            let cells = cells.iter().zip(&self.columns);
            self.write_row(out, cells.map(|(cell, column)| layout.cell(cell, column)), &layout);
            let room = width.map_or(usize::MAX, |width| width.saturating_sub(NOTE.len()));
            for line in notes.iter().flat_map(|note| wrapped(note, room)) {
                out.extend([NOTE, &line, "\n"]);
            }
        }
    }

    fn write_row<'c>(
        &self,
        out: &mut String,
        cells: impl Iterator<Item = Cow<'c, str>>,
        layout: &Layout,
    ) {
        let mut line = String::new();
        for ((cell, column), width) in cells.zip(&self.columns).zip(&layout.widths) {
            let Some(width) = *width else { continue };
            let cell = cut(&cell, width);
            let padding = " ".repeat(width.saturating_sub(columns(&cell)));
            let (before, after) =
                if column.right { (padding, String::new()) } else { (String::new(), padding) };
            line.extend([before.as_str(), &cell, &after, &" ".repeat(GAP)]);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// The widths of a table's columns.
struct Layout {
    /// `None`: it is left out.
    widths: Vec<Option<usize>>,
    times: Times,
}

/// How times are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Whole,
    Short,
    LeftOut,
}

impl Layout {
    /// The widths that all columns need or, if that is too much, smaller ones for those that can shrink, step by
    /// step.
    fn of(table: &Table, limit: Option<usize>) -> Self {
        let mut layout = Self::measured(table, Times::Whole);
        let Some(limit) = limit else { return layout };
        if layout.total() <= limit {
            return layout;
        }
        let first = |gives| match gives {
            Gives::First => Some(NARROWEST),
            Gives::Last => Some(KEPT),
            _ => None,
        };
        for times in [Times::Short, Times::LeftOut] {
            layout = Self::measured(table, times);
            layout.shrink(table, limit, first);
            if layout.total() <= limit {
                return layout;
            }
        }
        layout.shrink(table, limit, |gives| (gives == Gives::Last).then_some(NARROWEST));
        layout
    }

    /// The widths that all columns need.
    fn measured(table: &Table, times: Times) -> Self {
        let layout = Self { widths: Vec::new(), times };
        let needed = |(i, column): (usize, &Column)| {
            if times == Times::LeftOut && column.gives == Gives::Time {
                return None;
            }
            let cells = table.rows.iter().filter_map(|row| row.cells.get(i));
            let widest = cells.map(|cell| columns(&layout.cell(cell, column))).max();
            Some(widest.unwrap_or(0).max(columns(column.heading)))
        };
        let widths = table.columns.iter().enumerate().map(needed).collect();
        Self { widths, times }
    }

    fn total(&self) -> usize {
        let shown = self.widths.iter().flatten();
        shown.clone().sum::<usize>() + GAP * shown.count().saturating_sub(1)
    }

    /// Narrows the widest of the columns that can shrink, down to the minimum of each kind.
    fn shrink(&mut self, table: &Table, limit: usize, least: impl Fn(Gives) -> Option<usize>) {
        while self.total() > limit {
            let columns = self.widths.iter_mut().zip(&table.columns);
            let widths = columns.filter_map(|(width, column)| {
                let width = width.as_mut()?;
                (*width > least(column.gives)?).then_some(width)
            });
            match widths.max_by_key(|width| **width) {
                Some(width) => *width -= 1,
                None => break,
            }
        }
    }

    /// A cell as it is written: `11-27 05:18:25` for `2026-11-27T05:18:25.123Z` if times are shortened.
    fn cell<'c>(&self, cell: &'c str, column: &Column) -> Cow<'c, str> {
        match cell.get(5..19) {
            Some(short) if self.times == Times::Short && column.gives == Gives::Time => {
                Cow::Owned(short.replacen('T', " ", 1))
            }
            _ => Cow::Borrowed(cell),
        }
    }
}

/// Text that is safe to print and unambiguous: characters that a terminal would obey or a reader not see are written
/// as in Rust's literals (`\n`, `\0`, `\u{1b}`), and a backslash is doubled. All other Unicode stays.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) { safe.push_str(&escape_char(c)) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

fn escape_char(c: char) -> String {
    match c {
        '\n' | '\r' | '\t' | '\\' => c.escape_default().to_string(),
        '\0' => "\\0".to_owned(),
        c => c.escape_unicode().to_string(),
    }
}

/// JSON as it was sent, except for characters that a terminal would obey. Valid JSON is printed unchanged.
pub(crate) fn escape_json(text: &str) -> String {
    let is_kept = |c: char| matches!(c, '\\' | '\n' | '\t') || !is_unsafe(c);
    let escaped = text.chars().map(|c| if is_kept(c) { c.to_string() } else { escape_char(c) });
    escaped.collect()
}

/// Bytes as [`escape`] prints them; those that are not UTF-8 as `\xff`.
pub(crate) fn escape_bytes(bytes: &[u8]) -> String {
    let mut safe = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        safe.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            safe.push_str(&format!("\\x{byte:02x}"));
        }
    }
    safe
}

fn is_unsafe(c: char) -> bool {
    // Control characters, and those that have no width or reverse the direction of writing.
    c == '\\'
        || c.is_control()
        || matches!(u32::from(c), 0xAD | 0x61C | 0x180E | 0x200B | 0x200E..=0x200F | 0x2028..=0x202E
            | 0x2060..=0x206F | 0xFEFF | 0xFFF9..=0xFFFB | 0xE0000..=0xE007F)
}

/// A time and its age, as two cells.
pub(crate) fn time(ms: u64, now_ms: u64) -> [String; 2] {
    [format_time(ms), age(ms, now_ms)]
}

/// How long ago a time is: `12 s ago`.
pub(crate) fn age(ms: u64, now_ms: u64) -> String {
    match now_ms.checked_sub(ms) {
        Some(passed) => format!("{} ago", length(passed)),
        None => format!("in {}", length(ms - now_ms)),
    }
}

/// A length of time in the largest unit that is precise enough: `12 s`.
pub(crate) fn length(ms: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(2 * 86_400, "d"), (2 * 3_600, "h"), (120, "min")];
    let seconds = ms / 1000;
    for ((from, unit), size) in UNITS.into_iter().zip([86_400, 3_600, 60]) {
        if seconds >= from {
            return format!("{} {unit}", seconds / size);
        }
    }
    format!("{seconds} s")
}

/// `1 user`, `2 users`.
pub(crate) fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &Table, width: Option<usize>) -> String {
        let mut out = String::new();
        table.write(&mut out, width);
        out
    }

    #[test]
    fn columns_are_aligned_whatever_is_in_them() {
        let mut table = Table::new(&["USER", ">VIEWS", "PAGE"]);
        table.row(["alice", "7", "/"]);
        table.row(["日本\n", "1234567", ""]);
        let expected = "USER      VIEWS  PAGE\nalice         7  /\n日本\\n  1234567  -\n";
        assert_eq!(written(&table, None), expected);
        let mut plain = Table::new(&["", ""]);
        plain.row(["role", "master"]);
        assert_eq!(written(&plain, None), "role  master\n");
    }

    #[test]
    fn only_what_may_be_cut_is_cut() {
        let mut table = Table::new(&["ID", "USER…", "UA…"]);
        table.row(["1790000000000-0", "alice", &"x".repeat(100)]);
        let cut = written(&table, Some(40));
        assert!(cut.lines().all(|line| line.chars().count() <= 40), "{cut}");
        assert!(cut.contains("1790000000000-0  alice  xxxx") && cut.ends_with("x…\n"), "{cut}");
        assert!(written(&table, Some(10)).contains("1790000000000-0  alice  xxxxx…"));
        assert!(written(&table, None).contains(&"x".repeat(100)));
    }

    #[test]
    fn where_it_is_narrow_users_and_addresses_stay_and_times_are_shortened() {
        let mut table = Table::new(&["USER*", "IP*", "LAST SEEN@", "AGE", "PAGE…", "USER AGENT…"]);
        let [at, age] = time(1_790_000_000_123, 1_790_000_005_123);
        table.row([
            "alice",
            "192.168.100.200",
            &at,
            &age,
            "/books/the-long-way",
            "Mozilla/5.0 (X11)",
        ]);
        let wide = written(&table, None);
        assert!(
            wide.contains("alice  192.168.100.200  2026-09-21T14:13:20.123Z  5 s ago"),
            "{wide}"
        );
        let narrow = written(&table, Some(80));
        assert!(
            narrow.contains("alice  192.168.100.200  09-21 14:13:20  5 s ago  /books/"),
            "{narrow}"
        );
        let least = written(&table, Some(48));
        assert!(least.contains("alice  192.168.100.200  5 s ago  /books…"), "{least}");
        for (text, width) in [(&narrow, 80), (&least, 48)] {
            assert!(text.lines().all(|line| columns(line) <= width), "{text}");
        }
        let mut long = Table::new(&["USER*", "PAGE…"]);
        long.row([&"u".repeat(100), "/page"]);
        assert!(written(&long, Some(60)).contains(&format!("{}…  /page", "u".repeat(52))));
    }

    #[test]
    fn notes_are_wrapped_on_a_terminal_only() {
        let mut table = Table::new(&["ID"]);
        table.row(["1-0"]);
        table.note("the field user is missing\n");
        assert!(written(&table, None).ends_with("    the field user is missing\\n\n"));
        assert!(written(&table, Some(20)).ends_with("    the field user\n    is missing\\n\n"));
    }

    #[test]
    fn nothing_printed_can_act_on_a_terminal() {
        for (text, safe) in [
            ("a|b/{}é日🙂", "a|b/{}é日🙂"),
            ("a\nb\0\u{1b}[2J", "a\\nb\\0\\u{1b}[2J"),
            ("\u{202e}evil\u{9b}1m", "\\u{202e}evil\\u{9b}1m"),
            ("a\\nb", "a\\\\nb"),
        ] {
            assert_eq!(escape(text), safe);
        }
        assert_eq!(escape_json("{\n\"a\":\"\\n\u{9b}\"}"), "{\n\"a\":\"\\n\\u{9b}\"}");
        assert_eq!(escape_bytes(b"a\xff\xfe\nz"), "a\\xff\\xfe\\nz");
    }

    #[test]
    fn ages_are_read_at_a_glance() {
        let now = 1_790_000_000_000;
        for (ago, text) in [
            (999, "0 s ago"),
            (12_345, "12 s ago"),
            (119_999, "119 s ago"),
            (120_000, "2 min ago"),
            (3 * 3_600_000, "3 h ago"),
            (5 * 86_400_000, "5 d ago"),
        ] {
            assert_eq!(age(now - ago, now), text);
        }
        assert_eq!(age(now + 5_000, now), "in 5 s");
        assert_eq!(plural(1, "user", "users"), "1 user");
    }
}
