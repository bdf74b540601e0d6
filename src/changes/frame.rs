//! Changes as text of an event stream (`text/event-stream`), written once for all listeners.

use std::io::Write as _;

use super::position::Position;
use crate::change::Change;

/// Adds the event of a change: its JSON, and the position after it. The `id:` comes last, so a client that has it
/// also has the data before it.
pub(super) fn write_change(text: &mut Vec<u8>, change: &Change, after: &Position) {
    text.extend_from_slice(b"data: ");
    // Writing to memory cannot fail.
    let _written = serde_json::to_writer(&mut *text, change);
    text.push(b'\n');
    write_id(text, after);
}

/// Adds an `id:` and the end of the event. Alone it moves a listener's position without an event.
pub(super) fn write_id(text: &mut Vec<u8>, position: &Position) {
    let _written = write!(text, "id: {position}\n\n");
}
