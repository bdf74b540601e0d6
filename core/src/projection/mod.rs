//! The projections: each a fold of events into merge operations, and a sweep. One file and one line each.

mod activity;
mod documents;
mod online;
mod presence;
mod ranking;
mod sessions;
mod stored;
mod tokens;

use std::fmt;
use std::str::FromStr;

use crate::event::Event;
use crate::op::{Plan, Set, Sweep, SweepKind};

pub use presence::field as presence_field;

/// Turns an event into merge operations. If the projection is off, only endings are merged, because they are needed
/// once it is switched on.
type Fold = for<'a> fn(&Event<'a>, &Context, &mut Plan<'a>);

/// The input of a fold besides the event.
struct Context {
    /// Milliseconds of the entry's id.
    entry_ms: u64,
    /// Whether the deployment keeps the projection's state.
    on: bool,
}

/// Declares the projections: variant, name, module.
macro_rules! projections {
    ($($(#[$doc:meta])* $variant:ident = $module:ident,)*) => {
        /// A part of the state that a deployment keeps or leaves out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Projection { $($(#[$doc])* $variant,)* }

        impl Projection {
            /// All projections.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in settings.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($module),)* }
            }

            fn fold(self) -> Fold {
                match self { $(Self::$variant => $module::fold,)* }
            }
        }

        /// All sweeps, whichever projections are on.
        pub fn sweeps() -> impl Iterator<Item = Sweep> {
            [$($module::SWEEPS,)*].into_iter().flatten().copied()
        }
    };
}

projections! {
    /// Users seen, by minute.
    Online = online,
    /// When each user was last seen.
    Activity = activity,
    /// Presence entries.
    Presence = presence,
    /// Login tokens, recent tokens and their viewed items.
    Tokens = tokens,
    /// View counts by item.
    Ranking = ranking,
    /// Sessions and their data.
    Sessions = sessions,
    /// Documents, their active users, counts and thresholds.
    Documents = documents,
}

impl Projection {
    /// The number of merge operations in a plan that belong to this projection.
    pub fn operations(self, plan: &Plan<'_>) -> u64 {
        let count = match self {
            Self::Online => plan.minutes.values().map(Set::len).sum(),
            Self::Activity => plan.activity.len(),
            Self::Presence => plan.presence.len() + plan.departed.len(),
            Self::Tokens => plan.tokens.values().map(|token| 1 + token.items.len()).sum(),
            Self::Ranking => plan.views.len(),
            Self::Sessions => plan.sessions.len(),
            Self::Documents => plan.connections.len(),
        };
        count as u64
    }

    /// The projection of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|projection| projection.name() == name)
    }
}

/// The projections that a deployment keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Projections(u32);

/// Each projection is a bit.
const _: () = assert!(Projection::ALL.len() <= u32::BITS as usize);

impl Projections {
    /// All of them.
    pub fn all() -> Self {
        Projection::ALL.iter().copied().collect()
    }

    /// Whether one is kept.
    pub fn contains(self, projection: Projection) -> bool {
        self.0 & (1 << projection as u8) != 0
    }

    /// The others.
    #[must_use]
    pub fn without(self, projection: Projection) -> Self {
        Self(self.0 & !(1 << projection as u8))
    }

    /// Those that are kept, in order.
    pub fn iter(self) -> impl Iterator<Item = Projection> {
        Projection::ALL.iter().copied().filter(move |projection| self.contains(*projection))
    }

    /// Adds what an event of an entry with `entry_ms` does to the plan.
    pub fn fold<'a>(self, event: &Event<'a>, entry_ms: u64, plan: &mut Plan<'a>) {
        for projection in Projection::ALL {
            let context = Context { entry_ms, on: self.contains(*projection) };
            projection.fold()(event, &context, plan);
        }
    }
}

impl fmt::Display for Projections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().map(Projection::name).collect::<Vec<_>>().join(","))
    }
}

/// The name of no projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be all, or names out of online, activity, presence, tokens, ranking, sessions and \
     documents, separated by commas"
)]
pub struct UnknownProjection;

/// `all`, or names separated by commas; none at all is refused.
impl FromStr for Projections {
    type Err = UnknownProjection;

    fn from_str(text: &str) -> Result<Self, UnknownProjection> {
        if text == "all" {
            return Ok(Self::all());
        }
        let one = |name: &str| Projection::from_name(name.trim()).ok_or(UnknownProjection);
        text.split(',').map(one).collect()
    }
}

impl FromIterator<Projection> for Projections {
    fn from_iter<I: IntoIterator<Item = Projection>>(projections: I) -> Self {
        Self(projections.into_iter().fold(0, |set, projection| set | 1 << projection as u8))
    }
}

const fn walk(name: &'static str) -> Sweep {
    Sweep { name, kind: SweepKind::Walk }
}

const fn patrol(name: &'static str) -> Sweep {
    Sweep { name, kind: SweepKind::Patrol }
}

const fn drain(name: &'static str) -> Sweep {
    Sweep { name, kind: SweepKind::Drain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projections_are_a_set_with_one_text() {
        let some: Projections = "tokens, online,tokens".parse().unwrap();
        assert_eq!(some.to_string(), "online,tokens");
        assert!(some.contains(Projection::Tokens) && !some.contains(Projection::Ranking));
        assert_eq!("all".parse(), Ok(Projections::all()));
        assert_eq!(Projections::all().to_string().parse(), Ok(Projections::all()));
        assert_eq!(Projection::ALL.iter().copied().collect::<Projections>(), Projections::all());
        for bad in ["", "online,", "Online", "everything"] {
            assert_eq!(bad.parse::<Projections>(), Err(UnknownProjection), "{bad}");
        }
    }
}
