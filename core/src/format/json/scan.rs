//! A scan of a JSON text (RFC 8259) that finds where each value ends and validates it.
//!
//! Written by hand because of two things that a parser does not offer: texts need not be UTF-8, so a user agent with
//! bad bytes does not affect a good user; and arrays and objects nest no deeper than [`MAX_DEPTH`].

use crate::format::{Format, MAX_DEPTH, Malformed, Member, Shape};

/// A position in a JSON text.
pub(super) struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// Skips an array; `each` skips one element.
    pub(super) fn array(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.open(b'[', "an array")?;
        if !self.skip(b']') {
            each(self)?;
            while self.skip(b',') {
                each(self)?;
            }
            self.expect(b']', "a comma or ]")?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Skips an object and passes on its members in order.
    pub(super) fn object(
        &mut self,
        mut each: impl FnMut(Member<'a>, Member<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.open(b'{', "an object")?;
        if !self.skip(b'}') {
            self.member(&mut each)?;
            while self.skip(b',') {
                self.member(&mut each)?;
            }
            self.expect(b'}', "a comma or }")?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn member(
        &mut self,
        each: &mut impl FnMut(Member<'a>, Member<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.peek();
        let name = self.string("a name in quotes")?;
        self.expect(b':', "a colon")?;
        each(name, self.value()?)
    }

    /// Skips a value.
    pub(super) fn value(&mut self) -> Result<Member<'a>, Malformed> {
        self.value_with(|_, _| Ok(()))
    }

    /// Skips a value, and passes on its members if it is an object.
    pub(super) fn value_with(
        &mut self,
        each: impl FnMut(Member<'a>, Member<'a>) -> Result<(), Malformed>,
    ) -> Result<Member<'a>, Malformed> {
        let first = self.peek();
        let start = self.at;
        let shape = match first {
            Some(b'"') => return self.string("a text"),
            Some(b'{') => self.object(each).map(|()| Shape::Object),
            Some(b'[') => self.array(|scan| scan.value().map(drop)).map(|()| Shape::Array),
            Some(b't') => self.word(b"true").map(|()| Shape::Boolean),
            Some(b'f') => self.word(b"false").map(|()| Shape::Boolean),
            Some(b'n') => self.word(b"null").map(|()| Shape::Null),
            _ => self.number(),
        }?;
        Ok(Member { shape, raw: &self.text[start..self.at], format: Format::Json, escaped: false })
    }

    /// Checks that nothing follows.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        if self.peek().is_none() { Ok(()) } else { Err(self.expected("the end")) }
    }

    fn open(&mut self, bracket: u8, what: &str) -> Result<(), Malformed> {
        self.expect(bracket, what)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let problem = format!("nested deeper than {MAX_DEPTH} at byte {}", self.at);
            return Err(super::syntax(problem));
        }
        Ok(())
    }

    fn string(&mut self, what: &str) -> Result<Member<'a>, Malformed> {
        let start = self.at;
        if !self.next_is(b'"') {
            return Err(self.expected(what));
        }
        let mut escaped = false;
        loop {
            self.at += plain(&self.text[self.at..]);
            if self.next_is(b'"') {
                let raw = &self.text[start..self.at];
                return Ok(Member { shape: Shape::Text, raw, format: Format::Json, escaped });
            }
            if !self.next_is(b'\\') {
                return Err(self.expected("a closing quote, and control characters escaped"));
            }
            self.escape()?;
            escaped = true;
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
        self.at += match &self.text[self.at..] {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 1,
            [b'u', a, b, c, d, ..] if hex(&[*a, *b, *c, *d]) => 5,
            _ => return Err(self.expected("an escape such as \\n or \\u000a")),
        };
        Ok(())
    }

    fn number(&mut self) -> Result<Shape, Malformed> {
        let mut shape = Shape::Integer;
        self.next_is(b'-');
        if !self.next_is(b'0') {
            self.digits("a value")?;
        }
        if self.next_is(b'.') {
            self.digits("a digit")?;
            shape = Shape::Number;
        }
        if self.next_is(b'e') || self.next_is(b'E') {
            let _sign = self.next_is(b'+') || self.next_is(b'-');
            self.digits("a digit")?;
            shape = Shape::Number;
        }
        Ok(shape)
    }

    fn digits(&mut self, what: &str) -> Result<(), Malformed> {
        let rest = &self.text[self.at..];
        match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
            0 => Err(self.expected(what)),
            digits => {
                self.at += digits;
                Ok(())
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Malformed> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(|byte| super::is_space(*byte)) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Skips `byte` and the white space before it, if it is next.
    fn skip(&mut self, byte: u8) -> bool {
        self.peek();
        self.next_is(byte)
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), Malformed> {
        if self.skip(byte) { Ok(()) } else { Err(self.expected(what)) }
    }

    /// Skips `byte`, if it is exactly the next one.
    fn next_is(&mut self, byte: u8) -> bool {
        let is = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(is);
        is
    }

    fn expected(&self, what: &str) -> Malformed {
        super::syntax(format!("expected {what} at byte {}", self.at))
    }
}

/// How many bytes at the beginning need no escape in JSON: those before a quote, a backslash or a control character.
/// Examines eight bytes at a time.
pub(super) fn plain(bytes: &[u8]) -> usize {
    const EACH: u64 = u64::MAX / 0xFF;
    // Sets the top bit of each byte that is less than `least`; in bytes after the first such one it may be set as
    // well.
    let less = |word: u64, least: u8| word.wrapping_sub(EACH * u64::from(least)) & !word;
    let equal = |word: u64, byte: u8| less(word ^ (EACH * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let special = less(word, b' ') | equal(word, b'"') | equal(word, b'\\');
        let first = (special & (EACH << 7)).trailing_zeros();
        if first < 64 {
            return i * 8 + first as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, ..b' ' | b'"' | b'\\');
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    /// Whether serde_json accepts it, unless it nests too deep.
    fn is_json(raw: &[u8]) -> bool {
        serde_json::from_slice::<IgnoredAny>(raw).is_ok()
    }

    fn scans(raw: &[u8]) -> bool {
        let mut scan = Scan::new(raw);
        scan.value().and_then(|_| scan.end()).is_ok()
    }

    #[test]
    fn what_cannot_stand_as_it_is_is_found_wherever_it_stands() {
        for length in 1..20 {
            for at in 0..length {
                let mut text = vec![b'a'; length];
                for byte in [0, 9, 0x1F, b'"', b'\\'] {
                    text[at] = byte;
                    assert_eq!(plain(&text), at, "{byte:#x} in {length}");
                }
                for byte in [b' ', 0x7F, 0x80, 0xFF] {
                    text[at] = byte;
                    assert_eq!(plain(&text), length, "{byte:#x} in {length}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_takes_what_serde_json_takes(raw in r#"[\[\]{}",:\\ untrfalse0-9.eE+\-\u{1}é]{0,12}"#) {
            prop_assert_eq!(scans(raw.as_bytes()), is_json(raw.as_bytes()), "{}", raw);
        }

        #[test]
        fn a_text_with_one_byte_changed_is_taken_or_not_as_by_serde_json(
            at in any::<proptest::sample::Index>(),
            byte in prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), Just(b'0'), Just(b'.'), Just(b',')],
        ) {
            let text = r#" {"a\u00e9\n" : [1.5e+7, -0 ,true,{"":null} , []], "b":"\"\\ a long text, é" } "#;
            let mut raw = text.as_bytes().to_vec();
            prop_assert!(scans(&raw) && is_json(&raw));
            *at.get_mut(&mut raw) = byte;
            prop_assert_eq!(scans(&raw), is_json(&raw), "{:?}", String::from_utf8_lossy(&raw));
        }
    }
}
