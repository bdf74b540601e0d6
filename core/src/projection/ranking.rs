//! `viewed:`: how often each item was viewed.
//!
//! The one structure that counts, and so the one that is not merged by value: a batch's views are counted in
//! the call that moves the cursor past it, once.

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
