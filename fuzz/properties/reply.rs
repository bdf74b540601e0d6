//! Any reply at all: what the readers of `XREADGROUP` and `XAUTOCLAIM` replies make of it, and that new entries
//! are read from its bytes as the client library would read them, wherever they are cut.

use redis::Value;
use rollcall::entry::{Entry, EntryId};
use rollcall::error::Error;
use rollcall::redis::feed::parse::Parser;
use rollcall::redis::reply::{Delivered, unexpected};
use rollcall::redis::stream::{claimed, delivered};

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
    if let Some(read) = delivered(value.clone()) {
        check_size(&read, input);
        let reply = encode(&read);
        assert_eq!(delivered(parse(&reply)).as_ref(), Some(&read), "a reply of the same content");
        assert_eq!(feed(&reply).expect("the server says it so"), Some(read));
    }
    if let Some(claimed) = claimed(value) {
        check_size(&claimed.delivered, input);
        assert_ne!(claimed.next.as_deref(), Some("0-0"), "the end is no place to go on");
    }
}

/// The feed may refuse a form that the server does not use. What it takes, it takes as the client library does.
fn check_fed(fed: Result<Option<Delivered>, Error>, value: &Value) {
    match (fed, value.clone().extract_error()) {
        (Ok(Some(read)), Ok(value)) => assert_eq!(delivered(value), Some(read)),
        (Err(fed), Err(error)) if fed.redis().is_some() => assert_eq!(fed.redis(), Some(&error)),
        (Err(error), _) => assert!(error.to_string().chars().count() <= 300, "{error}"),
        other => panic!("a whole reply: {other:?}"),
    }
}

/// Nothing is made up, nothing is multiplied: each byte that is not UTF-8 becomes at most three.
fn check_size(read: &Delivered, input: &[u8]) {
    let bytes: usize = read.entries.iter().map(Entry::size).sum();
    assert!(bytes <= input.len() * 3, "{bytes} bytes");
    let rows = read.entries.len() + read.lost.len();
    let fields: usize = read.entries.iter().map(|entry| entry.fields().len()).sum();
    assert!(rows + fields <= input.len(), "{rows} rows with {fields} fields");
}

fn parse(reply: &[u8]) -> Value {
    redis::parse_redis_value(reply).expect("it is well-formed")
}

/// What the feed makes of a reply: the same, whatever pieces it comes in.
fn feed(reply: &[u8]) -> Result<Option<Delivered>, Error> {
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

fn feed_pieces(reply: &[u8], size: usize) -> Result<Option<Delivered>, Error> {
    let (mut parser, mut buffer) = (Parser::default(), Vec::new());
    for piece in reply.chunks(size) {
        buffer.extend_from_slice(piece);
        if let Some(read) = parser.read(&mut buffer)? {
            return Ok(Some(read));
        }
    }
    Ok(None)
}

/// What the server would have said, as RESP2.
fn encode(Delivered { entries, lost }: &Delivered) -> Vec<u8> {
    let mut reply = b"*1\r\n*2\r\n$1\r\ns\r\n".to_vec();
    push_head(&mut reply, b'*', entries.len() + lost.len());
    for entry in entries {
        push_id(&mut reply, entry.id);
        push_head(&mut reply, b'*', entry.fields().len() * 2);
        for text in entry.fields().flat_map(|(name, value)| [name, value]) {
            push_text(&mut reply, text);
        }
    }
    for id in lost {
        push_id(&mut reply, *id);
        reply.extend(b"*-1\r\n");
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
