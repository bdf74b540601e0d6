//! The structures of a partition that are moved member by member, and where each member belongs.

use std::borrow::Cow;

use crate::key::{Keys, unescape};
use crate::redis::scripts::repartition::Kind;

/// A structure under one key.
pub(super) struct Structure {
    pub(super) kind: Kind,
    /// Whether it is a sorted set; otherwise it is a hash.
    pub(super) is_sorted: bool,
    /// Its key.
    pub(super) key: fn(&Keys) -> String,
    /// The identifier that determines a member's partition, from the member and its value.
    pub(super) id: for<'m> fn(&'m str, &'m str) -> Cow<'m, str>,
}

const fn hash(
    kind: Kind,
    key: fn(&Keys) -> String,
    id: for<'m> fn(&'m str, &'m str) -> Cow<'m, str>,
) -> Structure {
    Structure { kind, is_sorted: false, key, id }
}

const fn sorted(
    kind: Kind,
    key: fn(&Keys) -> String,
    id: for<'m> fn(&'m str, &'m str) -> Cow<'m, str>,
) -> Structure {
    Structure { kind, is_sorted: true, key, id }
}

/// All of them. Sets and texts with keys of their own are found by their names.
pub(super) const STRUCTURES: [Structure; 16] = [
    hash(Kind::Field, Keys::presence, first_part),
    sorted(Kind::Score, Keys::presence_ended, first_part),
    hash(Kind::Field, Keys::presence_addresses, whole),
    sorted(Kind::Score, Keys::presence_crowds, first_part),
    hash(Kind::Token, Keys::login, value),
    sorted(Kind::Copy, Keys::tokens_ended, whole),
    sorted(Kind::Copy, Keys::blocked, whole),
    sorted(Kind::Count, Keys::viewed, whole),
    hash(Kind::Field, Keys::sessions, whole),
    sorted(Kind::Score, Keys::sessions_ended, whole),
    hash(Kind::Data, Keys::session_data_versions, whole),
    hash(Kind::Field, Keys::session_ttls, whole),
    sorted(Kind::Joined, Keys::docs_joined, first_part),
    sorted(Kind::Score, Keys::docs_left, first_part),
    hash(Kind::Field, Keys::docs_connections, first_part),
    hash(Kind::Field, Keys::docs_levels, behind_levels),
];

/// The member itself.
fn whole<'m>(member: &'m str, _: &'m str) -> Cow<'m, str> {
    member.into()
}

/// The value.
fn value<'m>(_: &'m str, value: &'m str) -> Cow<'m, str> {
    value.into()
}

/// The first part of a joined name.
fn first_part<'m>(member: &'m str, _: &'m str) -> Cow<'m, str> {
    unescape(member.split('|').next().unwrap_or(member))
}

/// The part after `up:down:`.
fn behind_levels<'m>(member: &'m str, _: &'m str) -> Cow<'m, str> {
    member.splitn(3, ':').nth(2).unwrap_or(member).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::join;

    #[test]
    fn a_member_belongs_where_its_identifier_does() {
        let odd = "a|b%:c";
        assert_eq!(first_part(&join(&[odd, "::1"]), "{}"), odd);
        assert_eq!(first_part(&join(&[odd]), "5"), odd);
        assert_eq!(behind_levels("10:5:x:y", "1"), "x:y");
        assert_eq!(value("token", "ann"), "ann");
    }
}
