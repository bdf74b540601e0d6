//! `viewed:`: how often each item was viewed.
//!
//! The one structure that counts, and so the one that is not merged by value: the fold of a batch
//! hands each entry's views on with its acknowledgement, whose reply says whether they are new.

use super::{Context, drain};
use crate::event::{Event, Kind, Text};
use crate::op::{Plan, Sweep};

pub(super) const SWEEPS: &[Sweep] = &[drain("ranking")];

/// Nothing to merge: see [`viewed_item`].
pub(super) fn fold<'a>(_event: &Event<'a>, _context: &Context, _plan: &mut Plan<'a>) {}

/// The item an event counts as viewed.
pub fn viewed_item<'e, 'a>(kind: &'e Kind<'a>) -> Option<&'e Text<'a>> {
    match kind {
        Kind::View(event) => Some(&event.item),
        _ => None,
    }
}
