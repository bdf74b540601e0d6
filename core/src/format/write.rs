//! Objects and arrays, put together again after additions.

use super::{Format, json};

impl Format {
    /// The object `raw` with these texts as its last members. `None` if it is not an object, or is malformed at its end.
    pub fn with_texts(self, raw: &[u8], texts: &[(&str, &str)]) -> Option<Vec<u8>> {
        if !self.is_object(raw) {
            return None;
        }
        match self {
            Self::MessagePack => map_with_texts(raw, texts),
            Self::Json | Self::Flat => object_with_texts(raw, texts),
        }
    }

    /// The array of these elements.
    pub fn array_of<T: AsRef<[u8]>>(self, elements: &[T]) -> Vec<u8> {
        let mut array = Vec::new();
        match self {
            Self::MessagePack => {
                write_head(&mut array, elements.len(), (0x90, 16), [0xDC, 0xDD]);
                elements.iter().for_each(|element| array.extend_from_slice(element.as_ref()));
            }
            Self::Json | Self::Flat => {
                array.push(b'[');
                for (n, element) in elements.iter().enumerate() {
                    array.extend_from_slice(if n > 0 { b"," } else { b"" });
                    array.extend_from_slice(element.as_ref());
                }
                array.push(b']');
            }
        }
        array
    }
}

fn object_with_texts(raw: &[u8], texts: &[(&str, &str)]) -> Option<Vec<u8>> {
    let inside = raw.trim_ascii_end().strip_suffix(b"}")?;
    let mut is_empty = inside.trim_ascii() == b"{";
    let mut members = String::new();
    for (name, text) in texts {
        members.push_str(if std::mem::take(&mut is_empty) { "" } else { "," });
        json::write_text(&mut members, name);
        members.push(':');
        json::write_text(&mut members, text);
    }
    Some([inside, members.as_bytes(), b"}"].concat())
}

fn map_with_texts(raw: &[u8], texts: &[(&str, &str)]) -> Option<Vec<u8>> {
    let mut members = raw;
    let count = rmp::decode::read_map_len(&mut members).ok()?;
    let mut map = Vec::with_capacity(raw.len() + 64);
    write_head(&mut map, usize::try_from(count).ok()? + texts.len(), (0x80, 16), [0xDE, 0xDF]);
    map.extend_from_slice(members);
    for part in texts.iter().flat_map(|(name, text)| [name, text]) {
        write_head(&mut map, part.len(), (0xA0, 32), [0xDA, 0xDB]);
        map.extend_from_slice(part.as_bytes());
    }
    Some(map)
}

/// Writes the head of a text, an array or a map: its length in one byte if it fits, otherwise in two or four bytes
/// after a marker.
fn write_head(to: &mut Vec<u8>, length: usize, (short, fits): (u8, usize), [two, four]: [u8; 2]) {
    if length < fits {
        to.push(short | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        to.push(two);
        to.extend_from_slice(&length.to_be_bytes());
    } else {
        to.push(four);
        to.extend_from_slice(&(length as u32).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::format::Piece;

    /// The texts of an object by name; the last of a name counts.
    fn texts(format: Format, raw: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut found = BTreeMap::new();
        let each = |name: &[u8], member: crate::format::Member<'_>| {
            found.insert(name.to_vec(), member.value().unwrap().into_owned());
        };
        format.members(raw, each).unwrap();
        found
    }

    #[test]
    fn what_is_no_object_stays_alone() {
        for raw in ["", "[]", "{", "7", "{} x", "\"{}\""] {
            assert_eq!(Format::Json.with_texts(raw.as_bytes(), &[("a", "b")]), None, "{raw}");
        }
        assert_eq!(Format::MessagePack.with_texts(b"\x90", &[("a", "b")]), None);
        let written = Format::Json.with_texts(b" { } \n", &[("a", "b")]).unwrap();
        assert_eq!(texts(Format::Json, &written), texts(Format::Json, br#"{"a":"b"}"#));
    }

    #[test]
    fn an_array_holds_its_elements() {
        for (format, one) in
            [(Format::Json, &b"{\"a\":7}"[..]), (Format::MessagePack, b"\x81\xa1a\x07")]
        {
            for count in [0, 1, 15, 16, 70_000] {
                let mut found = 0;
                let each = |piece: Piece<'_, '_>| {
                    if let Piece::Element(element) = piece {
                        assert_eq!(element.raw, one);
                        found += 1;
                    }
                };
                format.elements(&format.array_of(&vec![one; count]), each).unwrap();
                assert_eq!(found, count);
            }
        }
    }

    proptest! {
        #[test]
        fn members_are_added_and_nothing_else_changes(
            object in proptest::collection::btree_map("[a-z]{1,3}", ".{0,40}", 0..20),
            added in proptest::collection::btree_map("[a-z]{1,3}", ".{0,300}", 0..4),
        ) {
            let mut expected = BTreeMap::new();
            for (name, text) in object.iter().chain(&added) {
                expected.insert(name.as_bytes().to_vec(), text.as_bytes().to_vec());
            }
            let added: Vec<_> = added.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
            let json = serde_json::to_vec_pretty(&object).unwrap();
            let msgpack = rmp_serde::to_vec(&object).unwrap();
            for (format, raw) in [(Format::Json, json), (Format::MessagePack, msgpack)] {
                let written = format.with_texts(&raw, &added).unwrap();
                prop_assert_eq!(&texts(format, &written), &expected);
            }
        }

    }
}
