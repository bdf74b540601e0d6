//! Details that changes lack and rooms need: the user agent and page of a new presence entry, the address of a
//! session.

use std::collections::HashMap;

use super::rooms::Details;
use crate::change::{Change, ChangeKind};
use crate::key::{self, Keys};
use crate::state::documents::hash_values;
use crate::state::sessions::Session;
use crate::state::users::Present;
use crate::state::{AskError, Partition};

/// Details requested in one call.
const PAGE: usize = 500;

/// What the state knows about new entries, by partition and number of the change.
pub type Known = HashMap<(u16, u64), Details>;

/// Looks up what the state knows about the entries that appeared in this partition with these changes.
///
/// # Errors
/// If the server refuses, or no reply came.
pub async fn look_up(
    partition: &mut Partition,
    changes: &[&Change],
    known: &mut Known,
) -> Result<(), AskError> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let entry = |change: &Change| key::join(&[&text(&change.user), &text(&change.ip)]);
    let sid = |change: &Change| text(&change.sid);
    let present = |_: &str, json: &str| Present::read(json).map(Details::Present);
    let session = |sid: &str, json: &str| Session::read(sid, json).map(Details::Session);
    let of = |kind: ChangeKind| {
        let is_of = move |change: &&&Change| change.kind == kind;
        let here = changes.iter().filter(|change| change.partition == partition.index);
        here.filter(is_of).copied().collect::<Vec<_>>()
    };
    let (came, began) = (of(ChangeKind::Online), of(ChangeKind::SessionStarted));
    look_up_in(partition, Keys::presence, &came, entry, present, known).await?;
    look_up_in(partition, Keys::sessions, &began, sid, session, known).await
}

/// Looks changes up in a hash.
async fn look_up_in(
    partition: &mut Partition,
    key: fn(&Keys) -> String,
    changes: &[&Change],
    field: impl Fn(&Change) -> String,
    read: impl Fn(&str, &str) -> Option<Details>,
    known: &mut Known,
) -> Result<(), AskError> {
    let key = key(&partition.keys);
    for some in changes.chunks(PAGE) {
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
