//! How many columns of a terminal a text takes, and text cut or wrapped to a width.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Columns that the text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// The beginning of the text that fits into this many columns.
pub(crate) fn beginning(text: &str, width: usize) -> &str {
    let mut used = 0;
    let too_much = |(_, c): &(usize, char)| {
        used += c.width().unwrap_or(0);
        used > width
    };
    text.char_indices().find(too_much).map_or(text, |(at, _)| &text[..at])
}

/// As much of the text as fits, with `…` for the rest.
pub(crate) fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if columns(text) <= width {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}…", beginning(text, width.saturating_sub(1))))
}

/// The text in lines of this many columns, broken between words, and within words that are longer.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    // Some characters take two.
    let width = width.max(2);
    let mut lines: Vec<String> = Vec::new();
    for mut word in text.split(' ').filter(|word| !word.is_empty()) {
        if let Some(line) = lines.last_mut()
            && columns(line) + 1 + columns(word) <= width
        {
            line.push(' ');
            line.push_str(word);
            continue;
        }
        while columns(word) > width {
            let part = beginning(word, width);
            lines.push(part.to_owned());
            word = &word[part.len()..];
        }
        lines.push(word.to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_columns() {
        assert_eq!(columns("日本é🙂"), 7);
        assert_eq!((cut("日本語", 6), cut("日本語", 5)), ("日本語".into(), "日本…".into()));
        assert_eq!((cut("日本語", 4), cut("abc", 2)), ("日…".into(), "a…".into()));
        // A mark belongs to the letter before it.
        assert_eq!(cut("e\u{301}ab", 2), "e\u{301}…");
    }

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("日本 語", 5), ["日本", "語"]);
        assert_eq!(wrapped("x abcdefg h", 3), ["x", "abc", "def", "g h"]);
        assert!(wrapped("", 3).is_empty());
        assert_eq!(wrapped("日", 1), ["日"]);
    }
}
