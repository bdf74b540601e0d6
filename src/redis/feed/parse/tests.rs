//! Replies to reads, whole and in pieces, and what the bounds keep of them.

use super::*;

const REPLY: &[u8] = b"*1\r\n*2\r\n$1\r\ns\r\n*2\r\n\
    *2\r\n$3\r\n1-0\r\n*4\r\n$1\r\nb\r\n$2\r\n\r\n\r\n$1\r\nb\r\n$0\r\n\r\n\
    *2\r\n$3\r\n2-0\r\n*0\r\n";

const AMPLE: Bounds = Bounds { pairs: 10, entry_bytes: 100, reply_bytes: 1_000 };

/// The result for bytes that arrive in pieces of `size`.
fn read(bytes: &[u8], size: usize) -> Result<Option<Delivered>, Error> {
    read_within(AMPLE, bytes, size)
}

fn read_within(bounds: Bounds, bytes: &[u8], size: usize) -> Result<Option<Delivered>, Error> {
    let (mut parser, mut buffer) = (Parser::new(bounds), Vec::new());
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        if let Some(delivered) = parser.read(&mut buffer)? {
            return Ok(Some(delivered));
        }
    }
    Ok(None)
}

fn refused(bytes: &[u8]) -> String {
    assert!(read(bytes, 1).is_err(), "refused only as a whole");
    crate::error::chain(&read(bytes, bytes.len()).unwrap_err())
}

#[test]
fn entries_keep_order_and_duplicates_wherever_the_reply_is_cut() {
    let id = |ms, seq| EntryId { ms, seq };
    let expected = Delivered {
        entries: vec![
            Entry::new(id(1, 0), [("b", "\r\n"), ("b", "")]),
            Entry::new(id(2, 0), [("", ""); 0]),
        ],
        is_cut: false,
    };
    for size in 1..=REPLY.len() {
        assert_eq!(read(REPLY, size).unwrap().as_ref(), Some(&expected), "pieces of {size}");
    }
    assert_eq!(read(&REPLY[..REPLY.len() - 1], 1).unwrap(), None, "it is not whole");
}

/// A reply with an entry for each list of texts.
fn reply(entries: &[&[&str]]) -> Vec<u8> {
    let mut bytes = format!("*1\r\n*2\r\n$1\r\ns\r\n*{}\r\n", entries.len());
    for (n, texts) in entries.iter().enumerate() {
        bytes += &format!("*2\r\n$3\r\n{n}-0\r\n*{}\r\n", texts.len());
        texts.iter().for_each(|text| bytes += &format!("${}\r\n{text}\r\n", text.len()));
    }
    bytes.into_bytes()
}

#[test]
fn of_an_entry_that_is_too_large_only_its_measures_are_kept() {
    let long = "x".repeat(98);
    let many: Vec<&str> = vec![""; 22];
    let bytes = reply(&[&["a", "1"], &["a", "1", "bc", &long], &many, &["a", &long], &["b", "2"]]);
    let entry = |n, texts: [&'static str; 2]| Entry::new(EntryId { ms: n, seq: 0 }, [texts.into()]);
    let oversized =
        |n, pairs, bytes| Entry::oversized(EntryId { ms: n, seq: 0 }, Oversize { pairs, bytes });
    let expected = [
        entry(0, ["a", "1"]),
        oversized(1, 2, 102),
        oversized(2, 11, 0),
        Entry::new(EntryId { ms: 3, seq: 0 }, [("a", long.as_str())]),
        entry(4, ["b", "2"]),
    ];
    for size in [1, 2, 3, 7, 50, bytes.len()] {
        let delivered = read(&bytes, size).unwrap().unwrap();
        assert_eq!(delivered.entries, expected, "pieces of {size}");
        assert!(!delivered.is_cut);
    }
}

#[test]
fn a_reply_is_cut_where_it_is_too_large_and_never_before_its_first_entry() {
    let bytes = reply(&[&["a", "123456"], &["b", "1"], &["c", "1"]]);
    for (reply_bytes, kept) in [(0, 1), (6, 1), (7, 2), (8, 2), (9, 3), (100, 3)] {
        let bounds = Bounds { reply_bytes, ..AMPLE };
        for size in [1, 5, bytes.len()] {
            let delivered = read_within(bounds, &bytes, size).unwrap().unwrap();
            assert_eq!(delivered.entries.len(), kept, "{reply_bytes} bytes");
            assert_eq!(delivered.is_cut, kept < 3);
        }
    }
}

#[test]
fn nothing_came_within_the_time() {
    for nothing in [&b"*-1\r\n"[..], b"$-1\r\n", b"*1\r\n*2\r\n$1\r\ns\r\n*0\r\n"] {
        assert_eq!(read(nothing, 1).unwrap(), Some(Delivered::default()));
    }
}

#[test]
fn errors_of_the_server_are_what_the_client_makes_of_them() {
    let missing = read(b"-NOGROUP No such key 's'\r\n", 4).unwrap_err();
    assert_eq!(missing.kind(), "nogroup");
    let Error::Redis { source, .. } = read(b"-MOVED 1 h:7\r\n", 4).unwrap_err() else { panic!() };
    assert_eq!(source.redirect_node(), Some(("h:7", 1)));
    let said = refused(&[b'-'; LINE_BYTES]);
    assert!(said.contains("a line without end") && said.len() < 300, "{said}");
}

#[test]
fn what_has_another_form_is_refused_where_it_begins() {
    let whole = String::from_utf8(REPLY.to_vec()).unwrap();
    for (right, wrong, shown) in [
        ("*1", "HTTP/1.1 400", "HTTP/1.1 400"),
        ("*1", "*2", "*2"),
        ("*1", "*1\n", "*1\n"),
        ("*2", "*3", "*3"),
        ("$1\r\ns", "$1\r\nstream", "$1\r\nstream"),
        ("$1\r\ns", "*0", "*0"),
        ("$3\r\n1-0", "$1\r\n1", "$1\r\n1"),
        ("*4", "*3", "*3"),
        ("*4", "*", "*"),
        ("*4", "*+4", "*+4"),
        ("*4", "*-2", "*-2"),
        ("*4", "*00000000004", "*00000000004"),
        ("$1\r\nb", "$-1", "$-1"),
        ("*4", "*-1", "*-1"),
        ("$1\r\nb", ":1", ":1"),
        ("$1\r\nb", "$1073741825", "$1073741825"),
        ("$1\r\nb", "$99999999999999999999", "$99999999999999999999"),
    ] {
        let said = refused(whole.replacen(right, wrong, 1).as_bytes());
        let shown = format!("an unexpected reply: {}", shown.escape_default());
        assert!(said.contains(&shown), "{wrong:?}: {said}");
        assert!(said.len() < 300, "{said}");
    }
}
