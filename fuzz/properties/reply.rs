//! Any reply at all to a read: entries are taken from its bytes as the client library would take them, wherever they
//! are cut.

use redis::Value;
use rollcall::entry::{Entry, EntryId};
use rollcall::error::Error;
use rollcall::redis::feed::parse::{Bounds, Delivered, Parser};
use rollcall::redis::reply::unexpected;
use rollcall::redis::stream::entries;

/// Everything is kept.
const AMPLE: Bounds =
    Bounds { pairs: usize::MAX, entry_bytes: usize::MAX / 2, reply_bytes: usize::MAX };

/// Panics unless everything holds of the reply whose bytes are `input`.
pub fn holds(input: &[u8]) {
    let fed = feed(input);
    let Ok(value) = redis::parse_redis_value(input) else {
        assert!(!matches!(fed, Ok(Some(_))), "it is no reply: {fed:?}");
        return;
    };
    let error = unexpected("reading", &value).to_string();
    assert!(error.chars().count() <= 300, "{error}");
    check_fed(fed, &value);
    if let Some(read) = entries(&value) {
        check_size(&read, input);
        let reply = encode(&read);
        assert_eq!(entries(&parse(&reply)).as_ref(), Some(&read), "a reply of the same content");
        assert_eq!(feed(&reply).expect("the server says it so"), Some(read));
    }
}

/// The feed may refuse a form that the server does not use. What it takes, it takes as the client library does.
fn check_fed(fed: Result<Option<Vec<Entry>>, Error>, value: &Value) {
    match (fed, value.clone().extract_error()) {
        (Ok(Some(read)), Ok(value)) => assert_eq!(entries(&value), Some(read)),
        (Err(fed), Err(error)) if fed.redis().is_some() => assert_eq!(fed.redis(), Some(&error)),
        (Err(error), _) => assert!(error.to_string().chars().count() <= 300, "{error}"),
        other => panic!("a whole reply: {other:?}"),
    }
}

/// Nothing is made up, nothing is multiplied: each byte that is not UTF-8 becomes at most three.
fn check_size(read: &[Entry], input: &[u8]) {
    let bytes: usize = read.iter().map(Entry::size).sum();
    assert!(bytes <= input.len() * 3, "{bytes} bytes");
    let rows = read.len();
    let fields: usize = read.iter().map(|entry| entry.fields().len()).sum();
    assert!(rows + fields <= input.len(), "{rows} rows with {fields} fields");
}

fn parse(reply: &[u8]) -> Value {
    redis::parse_redis_value(reply).expect("it is well-formed")
}

/// What the feed makes of a reply: the same, whatever pieces it comes in.
fn feed(reply: &[u8]) -> Result<Option<Vec<Entry>>, Error> {
    let whole = feed_pieces(reply, reply.len().max(1));
    for size in [1, 2, 3, 7, 31] {
        match (feed_pieces(reply, size), &whole) {
            (Ok(read), Ok(whole)) => assert_eq!(&read, whole, "in pieces of {size}"),
            (Err(_), Err(_)) => {}
            other => panic!("in pieces of {size}: {other:?}"),
        }
    }
    whole
}

fn feed_pieces(reply: &[u8], size: usize) -> Result<Option<Vec<Entry>>, Error> {
    let (mut parser, mut buffer) = (Parser::new(AMPLE), Vec::new());
    for piece in reply.chunks(size) {
        buffer.extend_from_slice(piece);
        if let Some(Delivered { entries, is_cut }) = parser.read(&mut buffer)? {
            assert!(!is_cut, "there was room for all");
            return Ok(Some(entries));
        }
    }
    Ok(None)
}

/// What the server would have said, as RESP2.
fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut reply = b"*1\r\n*2\r\n$1\r\ns\r\n".to_vec();
    push_head(&mut reply, b'*', entries.len());
    for entry in entries {
        push_id(&mut reply, entry.id);
        push_head(&mut reply, b'*', entry.fields().len() * 2);
        for text in entry.fields().flat_map(|(name, value)| [name, value]) {
            push_text(&mut reply, text);
        }
    }
    reply
}

fn push_head(reply: &mut Vec<u8>, kind: u8, length: usize) {
    reply.push(kind);
    reply.extend(format!("{length}\r\n").bytes());
}

fn push_text(reply: &mut Vec<u8>, text: &[u8]) {
    push_head(reply, b'$', text.len());
    reply.extend_from_slice(text);
    reply.extend(b"\r\n");
}

/// The head of a row of two, and its id.
fn push_id(reply: &mut Vec<u8>, id: EntryId) {
    push_head(reply, b'*', 2);
    push_text(reply, id.to_string().as_bytes());
}
