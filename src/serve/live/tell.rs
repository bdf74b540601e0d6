//! From changes to rooms: one listener of the feed for all sockets of the process. It asks the state only for what
//! somebody in a room wants to know and the change does not say.

use std::collections::HashMap;

use tracing::warn;

use super::rooms::Rooms;
use crate::change::{Change, ChangeKind};
use crate::changes::rooms::{
    ADMIN, DOC, Details, Message, Payload, USER, event_in, messages, rooms,
};
use crate::changes::{Heard, Hub, Listener};
use crate::error::chain;
use crate::key::{self, Keys};
use crate::serve::Context;
use crate::state::documents::hash_values;
use crate::state::sessions::Session;
use crate::state::users::Present;
use crate::state::{AskError, Partition, State};
use crate::telemetry::log::failure_line_due;

/// Details asked for in one call.
const DETAILS: usize = 500;

/// Tells the rooms what the listener hears, for ever.
pub(super) async fn tell(context: Context, hub: Hub, rooms: Rooms, mut listener: Listener) {
    loop {
        match listener.next().await {
            Heard::Batch(batch) if rooms.is_empty() => drop(batch),
            Heard::Batch(batch) => rooms.tell(told(&context, &rooms, &batch.changes).await),
            Heard::Gap | Heard::TooSlow => {
                listener = hub.listen().await;
                let reason = "changes were lost: look at the state again";
                let payload = std::sync::Arc::new(Payload::Gap { reason });
                let message = |room: String| {
                    let event = event_in(&room, &payload);
                    Message { room, event, payload: payload.clone() }
                };
                rooms.tell(rooms.used().into_iter().map(message).collect::<Vec<_>>());
            }
        }
    }
}

/// What the rooms that somebody is in hear of these changes.
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
                warn!(times, "rooms hear of changes without their details: {}", chain(&error));
            }
            HashMap::new()
        }),
        // The log says why.
        Err(_away) => HashMap::new(),
    };
    let message = |change: &Change| {
        let details = details.remove(&(change.partition, change.seq));
        messages(change, details.unwrap_or(Details::Unknown))
    };
    wanted.into_iter().flat_map(message).collect()
}

/// What the state knows of those who came, by partition and number of the change.
type Known = HashMap<(u16, u64), Details>;

async fn details(state: &mut State, changes: &[&Change]) -> Result<Known, AskError> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let entry = |change: &Change| key::join(&[&text(&change.user), &text(&change.ip)]);
    let sid = |change: &Change| text(&change.sid);
    let present = |_: &str, json: &str| Present::read(json).map(Details::Present);
    let session = |sid: &str, json: &str| Session::read(sid, json).map(Details::Session);
    let mut known = Known::new();
    for partition in &mut state.partitions {
        let of = |kind: ChangeKind| {
            let is_of = move |change: &&&Change| change.kind == kind;
            let here = changes.iter().filter(|change| change.partition == partition.index);
            here.filter(is_of).copied().collect::<Vec<_>>()
        };
        let (came, began) = (of(ChangeKind::Online), of(ChangeKind::SessionStarted));
        look_up(partition, Keys::presence, &came, entry, present, &mut known).await?;
        look_up(partition, Keys::sessions, &began, sid, session, &mut known).await?;
    }
    Ok(known)
}

/// Looks changes up in a hash.
async fn look_up(
    partition: &mut Partition,
    key: fn(&Keys) -> String,
    changes: &[&Change],
    field: impl Fn(&Change) -> String,
    read: impl Fn(&str, &str) -> Option<Details>,
    known: &mut Known,
) -> Result<(), AskError> {
    let key = key(&partition.keys);
    for some in changes.chunks(DETAILS) {
        let fields: Vec<String> = some.iter().map(|change| field(change)).collect();
        let values = hash_values(&mut partition.connection, &key, fields.clone()).await?;
        for ((change, field), json) in some.iter().zip(&fields).zip(values) {
            if let Some(details) = json.and_then(|json| read(field, &json)) {
                known.insert((change.partition, change.seq), details);
            }
        }
    }
    Ok(())
}

/// Whether a room may exist at all.
pub(super) fn is_room(room: &str) -> bool {
    let is_named = |prefix: &str| room.len() > prefix.len() && room.starts_with(prefix);
    room == ADMIN || is_named(USER) || is_named(DOC)
}
