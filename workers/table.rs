//! Answers on the terminal: aligned columns, times, and text that cannot do anything to a terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use rollcall::time::format_time;

use crate::screen;

/// Columns that a cell keeps when it is cut.
const NARROWEST: usize = 6;
const GAP: usize = 2;

/// The text of an answer for people.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
    width: Option<usize>,
}

impl Page {
    /// An empty page. Wide cells are cut only on a terminal: what is piped on stays whole.
    pub(crate) fn new() -> Self {
        Self::within(io::stdout().is_terminal().then(|| screen::size().width))
    }

    /// An empty page that is so many columns wide.
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

    /// Says how much of a list is not shown.
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

/// Writes an answer to standard output. Whoever has read enough of it, such as `head`, may close it.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Rows of cells. A heading that begins with `>` aligns its column to the right, one that ends with
/// `…` lets it be cut where the terminal is too narrow.
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
    cut: bool,
}

impl Table {
    /// An empty table with these headings; without a line for them if all are empty.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        let column = |heading: &&'static str| {
            let (right, heading) =
                heading.strip_prefix('>').map_or((false, *heading), |h| (true, h));
            let (cut, heading) = heading.strip_suffix('…').map_or((false, heading), |h| (true, h));
            Column { heading, right, cut }
        };
        Self { columns: headings.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row; control characters are escaped, and nothing is shown as `-`.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        let shown =
            |cell: &&str| if cell.is_empty() { "-".into() } else { escape(cell).into_owned() };
        self.rows.push(Row { cells: cells.iter().map(shown).collect(), notes: Vec::new() });
    }

    /// Puts a line below the last row and its other lines.
    pub(crate) fn note(&mut self, text: &str) {
        if let Some(row) = self.rows.last_mut() {
            row.notes.push(format!("    {}", escape(text)));
        }
    }

    fn write(&self, out: &mut String, width: Option<usize>) {
        let widths = self.widths(width);
        let headings: Vec<&str> = self.columns.iter().map(|column| column.heading).collect();
        if headings.iter().any(|heading| !heading.is_empty()) {
            self.write_row(out, &headings, &widths);
        }
        for Row { cells, notes } in &self.rows {
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            self.write_row(out, &cells, &widths);
            for note in notes {
                out.push_str(&cut(note, width.unwrap_or(usize::MAX)));
                out.push('\n');
            }
        }
    }

    fn write_row(&self, out: &mut String, cells: &[&str], widths: &[usize]) {
        let mut line = String::new();
        for ((cell, column), width) in cells.iter().zip(&self.columns).zip(widths) {
            let cell = cut(cell, *width);
            let padding = " ".repeat(width.saturating_sub(columns(&cell)));
            let (before, after) =
                if column.right { (padding, String::new()) } else { (String::new(), padding) };
            line.extend([before.as_str(), &cell, &after, &" ".repeat(GAP)]);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }

    /// What each column gets: what it needs or, where that is too much, the widest ones less.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let needed = |(i, column): (usize, &Column)| {
            let cells =
                self.rows.iter().filter_map(|row| row.cells.get(i)).map(|cell| columns(cell));
            cells.max().unwrap_or(0).max(columns(column.heading))
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(needed).collect();
        let Some(limit) = limit else { return widths };
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > limit {
            let cuttable =
                |(i, width): &(usize, &mut usize)| self.columns[*i].cut && **width > NARROWEST;
            match widths.iter_mut().enumerate().filter(cuttable).max_by_key(|(_, width)| **width) {
                Some((_, width)) => *width -= 1,
                None => break,
            }
        }
        widths
    }
}

/// As much of the text as fits, with `…` for the rest.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if columns(text) <= width {
        return Cow::Borrowed(text);
    }
    let (mut kept, mut used) = (String::new(), 0);
    for c in text.chars() {
        used += columns_of(c);
        if used >= width {
            break;
        }
        kept.push(c);
    }
    kept.push('…');
    Cow::Owned(kept)
}

/// Columns of a terminal that the text takes.
fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Roughly Unicode's East Asian Width: enough to align, and no crate for it.
fn columns_of(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36F | 0x483..=0x489 | 0x591..=0x5BD | 0x64B..=0x65F | 0x200C..=0x200D => 0,
        0x20D0..=0x20FF | 0xFE00..=0xFE0F | 0xFE20..=0xFE2F | 0xE0100..=0xE01EF => 0,
        0x1100..=0x115F | 0x2E80..=0x303E | 0x3041..=0xA4CF | 0xAC00..=0xD7A3 => 2,
        0xF900..=0xFAFF | 0xFE30..=0xFE6F | 0xFF00..=0xFF60 | 0xFFE0..=0xFFE6 => 2,
        0x1F300..=0x1F64F | 0x1F680..=0x1F6FF | 0x1F900..=0x1FAFF | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

/// Text that is safe to print and has one meaning: what a terminal would obey, or a reader not see, as
/// in Rust's literals (`\n`, `\0`, `\u{1b}`), and a backslash twice. All other Unicode stays.
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

/// JSON as it was sent, but for what a terminal would obey: valid JSON is printed as it stands.
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
    // Control characters, and those that have no width or turn the writing round.
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

/// A length of time in the largest unit that says enough: `12 s`.
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
