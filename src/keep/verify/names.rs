//! The names in the state or in the shadow, a page at a time.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use redis::aio::MultiplexedConnection;

use super::keyspace::Scan;
use super::table::Family;
use crate::config::Deployment;
use crate::key::{Keys, join, unescape};
use crate::redis::scripts::minute_expiry_ms;
use crate::state::{AskError, Link, Walk};

/// Names of one family.
pub(super) type Page = (Family, Vec<String>);

/// Names that were returned before, as digests; a collision is less likely than a hardware error.
#[derive(Default)]
pub(super) struct Met {
    state: RandomState,
    digests: HashSet<u64>,
}

impl Met {
    /// The names that were not returned before.
    pub(super) fn first(&mut self, family: Family, names: Vec<String>) -> Vec<String> {
        let mut is_first = |name: &String| self.digests.insert(self.state.hash_one((family, name)));
        names.into_iter().filter(|name| is_first(name)).collect()
    }
}

/// A structure that contains names.
enum Source {
    Hash(String, Family),
    Scores(String, Family),
    Set(String, Family),
    /// Members of a document's set.
    Users(String, String),
    /// Levels of documents' thresholds.
    Levels(String),
}

/// The names of one side, from the structures that contain names.
pub(super) struct Names {
    sources: Vec<Source>,
    link: Link,
}

impl Names {
    pub(super) fn new(keys: &Keys, deployment: &Deployment, now_ms: u64, link: Link) -> Self {
        let mut sources = vec![
            Source::Levels(keys.docs_levels()),
            Source::Hash(keys.docs_connections(), Family::Pair),
            Source::Scores(keys.docs_left(), Family::Connection),
            Source::Scores(keys.docs_joined(), Family::Connection),
            Source::Hash(keys.session_data_versions(), Family::Session),
            Source::Hash(keys.session_ttls(), Family::Session),
            Source::Scores(keys.sessions_ended(), Family::Session),
            Source::Hash(keys.sessions(), Family::Session),
            Source::Scores(keys.viewed(), Family::Item),
            Source::Scores(keys.tokens_ended(), Family::Token),
            Source::Scores(keys.recent(), Family::Token),
            Source::Hash(keys.login(), Family::Token),
            Source::Scores(keys.presence_ended(), Family::Departure),
            Source::Hash(keys.presence(), Family::Presence),
        ];
        for minute in minutes(deployment, now_ms) {
            sources.push(Source::Set(keys.online_minute(minute), Family::Minute(minute)));
        }
        Self { sources, link }
    }

    /// The sets of these documents.
    pub(super) fn of_documents(keys: &Keys, docs: &[String], link: Link) -> Self {
        let users = |doc: &String| Source::Users(keys.document_users(doc), doc.clone());
        Self { sources: docs.iter().map(users).collect(), link }
    }

    /// Returns the names of a structure; `false` at the end of all.
    pub(super) async fn next(
        &mut self,
        visit: &mut impl AsyncFnMut(Page) -> Result<(), AskError>,
    ) -> Result<bool, AskError> {
        let Some(source) = self.sources.pop() else { return Ok(false) };
        let mut walk = match &source {
            Source::Hash(key, _) | Source::Levels(key) => Walk::hash(key, None),
            Source::Scores(key, _) => Walk::scores(key, None),
            Source::Set(key, _) | Source::Users(key, _) => Walk::set(key),
        };
        loop {
            let page = match &source {
                Source::Set(..) | Source::Users(..) => walk.members(&mut self.link).await?,
                _ => {
                    let page = walk.fields(&mut self.link).await?;
                    page.map(|pairs| pairs.into_iter().map(|(name, _)| name).collect())
                }
            };
            let Some(names): Option<Vec<String>> = page else { return Ok(true) };
            let page = match &source {
                Source::Hash(_, family) | Source::Scores(_, family) | Source::Set(_, family) => {
                    (*family, names)
                }
                Source::Users(_, doc) => {
                    (Family::Pair, names.iter().map(|user| join(&[doc, user])).collect())
                }
                Source::Levels(_) => {
                    let doc = |level: &String| level.splitn(3, ':').nth(2).map(unescaped);
                    (Family::Document, names.iter().filter_map(doc).collect())
                }
            };
            visit(page).await?;
        }
    }
}

fn unescaped(name: &str) -> String {
    unescape(name).into_owned()
}

/// The minutes whose sets may exist.
pub(super) fn minutes(deployment: &Deployment, now_ms: u64) -> impl Iterator<Item = u64> {
    let last = (now_ms + deployment.max_skew_ms) / 60_000 + 1;
    let is_there = move |minute: &u64| minute_expiry_ms(deployment, *minute) > now_ms;
    // A skew of years would allow millions of minutes; no further ones are examined.
    let last = last.min(now_ms / 60_000 + 10_000);
    let mut first = now_ms / 60_000;
    while is_there(&first.saturating_sub(1)) && first > 0 {
        first -= 1;
    }
    first..=last
}

/// The names in keys of their own, on both sides.
pub(super) struct KeyNames {
    scan: Scan,
    bases: [String; 2],
}

impl KeyNames {
    pub(super) fn new(live: &Keys, shadow: &Keys) -> Self {
        let bases = [live.base().to_owned(), shadow.base().to_owned()];
        Self { scan: Scan::new(live.base()), bases }
    }

    /// The next names by family, and documents among them; `None` at the end.
    pub(super) async fn page(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<[Page; 3]>, AskError> {
        let Some(keys) = self.scan.page(connection).await? else { return Ok(None) };
        let (mut users, mut tokens, mut docs) = (Vec::new(), Vec::new(), Vec::new());
        for key in &keys {
            let [live, shadow] = &self.bases;
            let Some(name) = key.strip_prefix(shadow).or(key.strip_prefix(live)) else { continue };
            if let Some(user) = name.strip_prefix("user-activity/") {
                users.push(user.to_owned());
            } else if let Some(token) = name.strip_prefix("viewed:").filter(|t| !t.is_empty()) {
                tokens.push(token.to_owned());
            } else if let Some(doc) = name.strip_prefix("sessions:doc:") {
                let doc = doc.strip_suffix(":users").or(doc.strip_suffix(":count"));
                docs.extend(doc.map(str::to_owned));
            }
        }
        Ok(Some([(Family::Activity, users), (Family::Token, tokens), (Family::Document, docs)]))
    }
}
