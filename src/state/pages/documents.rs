//! Documents, and their users.

use std::collections::HashSet;

use super::scan::{Listing, PageError, Row, Source, page};
use super::{Cursor, Page};
use crate::key;
use crate::state::ask::{AskError, ask, number};
use crate::state::documents::{Document, Member, members as with_connections};
use crate::state::{Partition, State, list};

/// Documents with users, found by the users in them.
struct Documents;

impl Listing for Documents {
    type Item = Document;

    fn source(&self, partition: &Partition, step: u16) -> Option<Source> {
        (step == 0).then(|| Source::hash(partition.keys.docs_connections()))
    }

    async fn read(
        &self,
        partition: &mut Partition,
        _step: u16,
        rows: Vec<Row>,
    ) -> Result<Vec<(usize, Document)>, AskError> {
        let mut seen = HashSet::new();
        let docs: Vec<(usize, String)> = rows
            .iter()
            .enumerate()
            .filter_map(|(row, (pair, _))| Some((row, pair.split_once('|')?.0)))
            .filter(|(_, doc)| seen.insert(*doc))
            .map(|(row, doc)| (row, key::unescape(doc).into_owned()))
            .collect();
        if docs.is_empty() {
            return Ok(Vec::new());
        }
        let counts: Vec<String> =
            docs.iter().map(|(_, doc)| partition.keys.document_count(doc)).collect();
        let words = ["MGET"].into_iter().chain(counts.iter().map(String::as_str));
        let counts = list(ask(&mut partition.connection, &words.collect::<Vec<_>>()).await?);
        let documents = docs.into_iter().zip(&counts);
        Ok(documents
            .filter_map(|((row, doc), count)| {
                let users = number(count).filter(|count| *count > 0)?;
                Some((row, Document { doc, users }))
            })
            .collect())
    }
}

/// A page of the documents with users, unordered. They are found by their users, so a document whose users are on
/// several pages is on each of these.
///
/// # Errors
/// If the cursor does not belong to this list, the server refuses, or no reply came.
pub async fn documents(
    state: &mut State,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Document>, PageError> {
    page(state, &Documents, cursor, limit).await
}

/// The users who are active in a document.
struct Members<'d> {
    doc: &'d str,
    /// The document's partition.
    partition: u16,
}

impl Listing for Members<'_> {
    type Item = Member;

    fn source(&self, partition: &Partition, step: u16) -> Option<Source> {
        let is_there = step == 0 && partition.index == self.partition;
        is_there.then(|| Source::set(partition.keys.document_users(self.doc)))
    }

    async fn read(
        &self,
        partition: &mut Partition,
        _step: u16,
        rows: Vec<Row>,
    ) -> Result<Vec<(usize, Member)>, AskError> {
        let users = rows.into_iter().map(|(user, _)| user).collect();
        let (connection, keys) = (&mut partition.connection, &partition.keys);
        let members = with_connections(connection, keys, self.doc, users).await?;
        Ok(members.into_iter().enumerate().collect())
    }
}

/// A page of the users who are active in a document, unordered.
///
/// # Errors
/// If the cursor belongs to another list, the server refuses, or no reply came.
pub async fn members(
    state: &mut State,
    doc: &str,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<Member>, PageError> {
    let partition = key::partition_of(doc, state.deployment.partitions);
    page(state, &Members { doc, partition }, cursor, limit).await
}
