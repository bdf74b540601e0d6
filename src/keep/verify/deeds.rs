//! How a difference is repaired, and what else that affects. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Fault, Finding, Stored, Structure};
use super::table::{Family, parts};
use crate::key::{Keys, join, unescape};
use crate::redis::scripts::mend::Deed;
use crate::time::EventTime;

/// Names by family.
pub(super) type Related = BTreeMap<Family, BTreeSet<String>>;

/// The names in these findings, and the names that depend on them.
pub(super) fn related(findings: &[Finding], keys: &Keys) -> Related {
    let mut names = Related::new();
    for finding in findings {
        let place = &finding.place;
        let mut add = |family: Family, name: &str| {
            names.entry(family).or_default().insert(name.to_owned());
        };
        match place.structure {
            Structure::Minute => {
                if let Ok(minute) = place.sub.parse() {
                    add(Family::MinuteKey, &place.sub);
                    add(Family::Minute(minute), &place.name);
                }
            }
            Structure::Activity => add(Family::Activity, &place.name),
            Structure::Expiry if place.key.starts_with(&keys.online()) => {
                add(Family::MinuteKey, &place.name);
            }
            Structure::Expiry if place.key.starts_with(&keys.activity()) => {
                add(Family::Activity, &place.name);
            }
            Structure::Presence => add(Family::Presence, &place.name),
            Structure::PresenceEnded => add(Family::Departure, &place.name),
            Structure::Login | Structure::Recent | Structure::Viewed | Structure::TokenEnded => {
                add(Family::Token, &place.name)
            }
            Structure::Ranking => add(Family::Item, &place.name),
            Structure::Expiry
            | Structure::Session
            | Structure::SessionData
            | Structure::SessionTtl
            | Structure::SessionEnded => add(Family::Session, &place.name),
            Structure::Joined | Structure::Left => {
                let [doc, user, _] = connection(&place.name);
                add(Family::Connection, &place.name);
                add(Family::Pair, &join(&[&doc, &user]));
                add(Family::Document, &doc);
            }
            Structure::Connections | Structure::DocumentUser => {
                add(Family::Pair, &place.name);
                add(Family::Document, &parts(&place.name).0);
            }
            Structure::DocumentCount | Structure::Level => add(Family::Document, &place.name),
        }
    }
    names
}

fn connection(name: &str) -> [String; 3] {
    let mut parts = name.splitn(3, '|').map(|part| unescape(part).into_owned());
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// The repair before the entries are applied again; `None` if applying them is enough.
pub(super) fn deed(finding: &Finding, keys: &Keys) -> Option<Deed> {
    let Finding { place, fault, said, .. } = finding;
    let (name, member) = (place.name.as_str(), place.member.as_deref().unwrap_or_default());
    let of = |deed: &'static str, words: &[&str]| {
        Some((deed, words.iter().map(|word| word.as_bytes().to_vec()).collect()))
    };
    let is_merged = *fault == Fault::Behind;
    match (place.structure, said) {
        (Structure::Ranking, Some(said)) => {
            of("score", &[&place.key, member, &String::from_utf8_lossy(&said.value)])
        }
        (Structure::Expiry, Some(said)) => {
            of("expire", &[&place.key, &String::from_utf8_lossy(&said.shown)])
        }
        (Structure::Connections, said) => {
            let (doc, user) = parts(name);
            let count =
                said.as_ref().map_or("0".into(), |said| String::from_utf8_lossy(&said.shown));
            of("joined", &[&doc, &user, &count])
        }
        (Structure::DocumentUser, _) => {
            let (doc, user) = parts(name);
            of("joined", &[&doc, &user, &place.sub])
        }
        (Structure::DocumentCount | Structure::Level, _) => of("recount", &[name]),
        _ if is_merged || *fault == Fault::Torn => None,
        (Structure::Minute, _) => of("unseen", &[&place.key, member]),
        (Structure::Activity, _) => of("forget", &[&place.key]),
        (Structure::Presence, _) => of("absent", &[name]),
        (Structure::Recent, Some(said)) => of("score", &[&place.key, name, &score(said)]),
        (Structure::Login, Some(said)) => {
            of("holder", &[name, &String::from_utf8_lossy(&said.value), &said.t.to_string()])
        }
        (Structure::Recent | Structure::Login, None) => of("token", &[name]),
        (Structure::Viewed, Some(said)) => of("score", &[&place.key, member, &score(said)]),
        (Structure::Viewed, None) => of("unscore", &[&place.key, member]),
        (Structure::Session, Some(said)) => {
            Some(("entry", vec![name.as_bytes().to_vec(), said.value.clone()]))
        }
        (Structure::Session, None) => of("session", &[name]),
        (Structure::SessionData, _) => of("data", &[name]),
        (Structure::SessionTtl, _) => of("unset", &[&keys.session_ttls(), name]),
        (Structure::Joined, Some(said)) => of("rejoin", &[name, &said.t.to_string()]),
        (Structure::Joined, None) => {
            let [doc, user, _] = connection(name);
            of("unjoin", &[&doc, &user, name])
        }
        (
            Structure::PresenceEnded
            | Structure::TokenEnded
            | Structure::SessionEnded
            | Structure::Left,
            _,
        ) => of("unscore", &[&place.key, name]),
        (Structure::Ranking | Structure::Expiry, None) => None,
    }
}

/// The score of a time in seconds.
fn score(said: &Stored) -> String {
    EventTime::from_millis(said.t).score()
}
