//! `viewed:`: how often each item was viewed.
//!
//! This is the one structure that counts, so it is not merged by value: the call that moves the cursor past a batch
//! counts its views, once.

use super::{Context, drain};
use crate::event::{Event, Kind};
use crate::op::{Plan, Sweep};

pub(super) const SWEEPS: &[Sweep] = &[drain("ranking")];

pub(super) fn fold<'a>(event: &Event<'a>, context: &Context, plan: &mut Plan<'a>) {
    if let Kind::View(view) = &event.kind
        && context.on
    {
        *plan.views.entry(view.item.clone()).or_default() += 1;
    }
}
