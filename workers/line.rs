//! A line of text with parts in different styles, fitted to a width.
//!
//! Text from events goes through [`visible`] only, so no event can move the cursor.

use std::env;
use std::fmt::Write as _;

use crate::width::{beginning, columns};

/// How a part of a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Unstyled.
    Plain,
    /// A heading, or a number that counts.
    Bold,
    /// A label.
    Dim,
    /// Good, or new.
    Green,
    /// Worth a look.
    Yellow,
    /// Bad.
    Red,
    /// Something to copy.
    Cyan,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Red => "\x1b[31m",
            Self::Cyan => "\x1b[36m",
        }
    }
}

/// What the terminal and its user support and want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Colours and the like; off with `NO_COLOR`.
    pub colours: bool,
    /// Characters beyond ASCII in the program's own text.
    pub unicode: bool,
}

impl Look {
    /// From the environment: `NO_COLOR`, and the locale's character set.
    pub(crate) fn of_environment() -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let locale = locale.to_ascii_uppercase();
        let unicode = locale.contains("UTF-8") || locale.contains("UTF8");
        Self { colours: set("NO_COLOR").is_none(), unicode }
    }

    /// Separates two things on a line.
    pub(crate) fn dot(self) -> &'static str {
        if self.unicode { " · " } else { " | " }
    }

    /// Stands for text that does not fit.
    pub(crate) fn ellipsis(self) -> &'static str {
        if self.unicode { "…" } else { "~" }
    }

    /// Marks what has reached its threshold.
    pub(crate) fn mark(self) -> &'static str {
        if self.unicode { "▲" } else { "^" }
    }

    /// A bar per value, the highest full.
    pub(crate) fn bars(self, values: impl Iterator<Item = f64> + Clone) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        if !self.unicode {
            return String::new();
        }
        let highest = values.clone().fold(1.0, f64::max);
        values.map(|value| BARS[((value / highest * 7.0).round() as usize).min(7)]).collect()
    }
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    parts: Vec<(Style, String)>,
}

impl Line {
    /// This line and another part.
    pub(crate) fn with(mut self, style: Style, text: impl Into<String>) -> Self {
        self.parts.push((style, text.into()));
        self
    }

    /// This line and the parts of another.
    pub(crate) fn join(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// This line, exactly `width` wide.
    pub(crate) fn fitted(self, width: usize, look: Look) -> Self {
        let own = self.width();
        if own <= width {
            return self.with(Style::Plain, " ".repeat(width - own));
        }
        let mut left = width.saturating_sub(columns(look.ellipsis()));
        let mut line = Self::default();
        for (style, text) in self.parts {
            let part = beginning(&text, left);
            left -= columns(part);
            line.parts.push((style, part.to_owned()));
            if part.len() < text.len() {
                break;
            }
        }
        // A wide character may have exceeded the width by one column.
        let line = line.with(Style::Dim, if width > 0 { look.ellipsis() } else { "" });
        line.with(Style::Plain, " ".repeat(left))
    }

    /// How many columns it takes.
    pub(crate) fn width(&self) -> usize {
        self.parts.iter().map(|(_, text)| columns(text)).sum()
    }

    /// The line for the terminal, at most `width` wide.
    pub(crate) fn rendered(&self, width: usize, look: Look) -> String {
        let line =
            if self.width() > width { self.clone().fitted(width, look) } else { self.clone() };
        let mut text = String::new();
        for (style, part) in &line.parts {
            if look.colours && *style != Style::Plain {
                let _infallible = write!(text, "{}{part}\x1b[0m", style.code());
            } else {
                text.push_str(part);
            }
        }
        text
    }
}

/// Text from outside, with everything escaped that could act on the terminal or be invisible.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '"' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Look = Look { colours: false, unicode: true };

    #[test]
    fn nothing_an_identifier_holds_reaches_the_terminal_as_control() {
        assert_eq!(
            visible("ann\x1b[2J\r\n\0\u{202e}\u{9b}"),
            "ann\\u{1b}[2J\\r\\n\\0\\u{202e}\\u{9b}"
        );
        assert_eq!(visible("zoé o'hara"), "zoé o'hara");
    }

    #[test]
    fn lines_are_fitted() {
        let line = Line::default().with(Style::Bold, "abc").with(Style::Plain, "defg");
        assert_eq!(line.clone().fitted(9, LOOK).rendered(80, LOOK), "abcdefg  ");
        assert_eq!(line.clone().fitted(5, LOOK).rendered(80, LOOK), "abcd…");
        assert_eq!(line.rendered(2, LOOK), "a…");
        let wide = Line::default().with(Style::Plain, "日本語");
        assert_eq!(wide.clone().fitted(5, LOOK).rendered(80, LOOK), "日本…");
        assert_eq!(wide.fitted(4, LOOK).rendered(80, LOOK), "日… ");
        assert_eq!(line.rendered(0, LOOK), "");
        let colours = Look { colours: true, ..LOOK };
        assert_eq!(line.rendered(80, colours), "\x1b[1mabc\x1b[0mdefg");
    }

    #[test]
    fn bars_grow_with_their_values() {
        assert_eq!(LOOK.bars([0.0, 50.0, 100.0].into_iter()), "▁▅█");
    }
}
