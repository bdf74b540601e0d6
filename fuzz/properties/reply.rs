//! Any reply at all: what the readers of `XREADGROUP` and `XAUTOCLAIM` replies make of it.

use redis::Value;
use rollcall::entry::{Entry, EntryId};
use rollcall::redis::reply::{Delivered, unexpected};
use rollcall::redis::stream::{claimed, delivered};

/// Panics unless everything holds of the reply whose bytes are `input`.
pub fn holds(input: &[u8]) {
    let Ok(value) = redis::parse_redis_value(input) else { return };
    let error = unexpected("reading", &value).to_string();
    assert!(error.chars().count() <= 300, "{error}");
    if let Some(read) = delivered(value.clone()) {
        check_size(&read, input);
        let again = delivered(parse(&encode(&read)));
        assert_eq!(again, Some(read), "another reply of the same content");
    }
    if let Some(claimed) = claimed(value) {
        check_size(&claimed.delivered, input);
        assert_ne!(claimed.next.as_deref(), Some("0-0"), "the end is no place to go on");
    }
}

/// Nothing is made up, nothing is multiplied: each byte that is not UTF-8 becomes at most three.
fn check_size(read: &Delivered, input: &[u8]) {
    let bytes: usize = read.entries.iter().map(Entry::size).sum();
    assert!(bytes <= input.len() * 3, "{bytes} bytes");
    let rows = read.entries.len() + read.lost.len();
    let fields: usize = read.entries.iter().map(|entry| entry.fields.len()).sum();
    assert!(rows + fields <= input.len(), "{rows} rows with {fields} fields");
}

fn parse(reply: &[u8]) -> Value {
    redis::parse_redis_value(reply).expect("it is well-formed")
}

/// What the server would have said, as RESP2.
fn encode(Delivered { entries, lost }: &Delivered) -> Vec<u8> {
    let mut reply = b"*1\r\n*2\r\n$1\r\ns\r\n".to_vec();
    push_head(&mut reply, b'*', entries.len() + lost.len());
    for Entry { id, fields } in entries {
        push_id(&mut reply, *id);
        push_head(&mut reply, b'*', fields.len() * 2);
        for text in fields.iter().flat_map(|(name, value)| [name, value]) {
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
