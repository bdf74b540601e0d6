//! From changes to rooms: one listener of the feed for all sockets of the process. It queries the state only for
//! details that somebody in a room needs and the change does not contain.

use tracing::warn;

use super::rooms::Rooms;
use crate::change::Change;
use crate::changes::details::{Known, look_up};
use crate::changes::rooms::{
    ADMIN, DOC, Details, Message, Payload, USER, event_in, messages, rooms,
};
use crate::changes::{Heard, Hub, Listener};
use crate::error::chain;
use crate::serve::Context;
use crate::state::{AskError, State};
use crate::telemetry::log::failure_line_due;

/// Sends the rooms what the listener receives; never returns.
pub(super) async fn tell(context: Context, hub: Hub, rooms: Rooms, mut listener: Listener) {
    loop {
        match listener.next().await {
            Heard::Batch(batch) if rooms.is_empty() => drop(batch),
            Heard::Batch(batch) => {
                rooms.tell(told(&context, &rooms, &batch.changes).await);
                if batch.has_erased() {
                    tell_all(&rooms, Payload::ERASED);
                }
            }
            Heard::Gap | Heard::TooSlow => {
                listener = hub.listen().await;
                let reason = "changes were lost: read the state again";
                tell_all(&rooms, Payload::Gap { reason });
            }
        }
    }
}

/// Sends a message to every occupied room.
fn tell_all(rooms: &Rooms, payload: Payload) {
    let payload = std::sync::Arc::new(payload);
    let message = |room: String| {
        let event = event_in(&room, &payload);
        Message { room, event, payload: payload.clone() }
    };
    rooms.tell(rooms.used().into_iter().map(message).collect::<Vec<_>>());
}

/// The messages for these changes to the occupied rooms.
async fn told(context: &Context, used: &Rooms, changes: &[Change]) -> Vec<Message> {
    let wanted = |change: &&Change| {
        let mut rooms = rooms(change);
        used.retain_used(&mut rooms);
        !rooms.is_empty()
    };
    let wanted: Vec<&Change> = changes.iter().filter(wanted).collect();
    let mut details = match context.state.get() {
        Ok(mut state) => details(&mut state, &wanted).await.unwrap_or_else(|error| {
            context.state.doubt();
            if let Some(times) = failure_line_due() {
                warn!(times, "rooms receive changes without details: {}", chain(&error));
            }
            Known::new()
        }),
        // The log has the reason.
        Err(_away) => Known::new(),
    };
    let message = |change: &Change| {
        let details = details.remove(&(change.partition, change.seq));
        messages(change, details.unwrap_or(Details::Unknown))
    };
    wanted.into_iter().flat_map(message).collect()
}

async fn details(state: &mut State, changes: &[&Change]) -> Result<Known, AskError> {
    let mut known = Known::new();
    for partition in &mut state.partitions {
        look_up(partition, changes, &mut known).await?;
    }
    Ok(known)
}

/// Whether a room may exist at all.
pub(super) fn is_room(room: &str) -> bool {
    let is_named = |prefix: &str| room.len() > prefix.len() && room.starts_with(prefix);
    room == ADMIN || is_named(USER) || is_named(DOC)
}
