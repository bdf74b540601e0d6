//! `document`.

use rollcall::state::documents::{self, Level, Member};
use rollcall::state::{AskError, Listed, State};
use serde::Serialize;

use super::{Answer, Limit, Output, Query, QueryFlags, settings};
use crate::table::{Page, Table, escape, plural};

/// Show who is in a document and which thresholds are reached; without a document, list those with the most users.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Document {
    /// The document
    doc: Option<String>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: QueryFlags,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum DocumentAnswer {
    All {
        count: u64,
        documents: Vec<documents::Document>,
    },
    /// `null` for a document that nobody is in.
    One(Option<One>),
}

#[derive(Serialize)]
pub(crate) struct One {
    doc: String,
    count: u64,
    users: Vec<Member>,
    thresholds: Vec<Level>,
}

impl Query for Document {
    type Answer = DocumentAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<DocumentAnswer, AskError> {
        let limit = self.limit.get();
        if let Some(doc) = &self.doc {
            return one(state, doc, limit).await;
        }
        let mut parts = Vec::new();
        for partition in &mut state.partitions {
            let (connection, keys) = (&mut partition.connection, &partition.keys);
            parts.push(documents::documents(connection, keys, limit).await?);
        }
        let Listed { count, items } =
            Listed::merged(parts, limit, documents::Document::fullest_first);
        Ok(DocumentAnswer::All { count, documents: items })
    }
}

async fn one(state: &mut State, doc: &str, limit: usize) -> Result<DocumentAnswer, AskError> {
    let thresholds = state.deployment.thresholds.clone();
    let partition = state.partition_of(doc);
    let (connection, keys) = (&mut partition.connection, &partition.keys);
    let members = documents::document(connection, keys, doc, &thresholds, limit).await?;
    Ok(DocumentAnswer::One(members.map(|members| One {
        doc: doc.to_owned(),
        count: members.users.count,
        users: members.users.items,
        thresholds: members.levels,
    })))
}

impl Answer for DocumentAnswer {
    fn not_found(&self) -> Option<String> {
        matches!(self, Self::One(None)).then(|| "nobody is in this document".to_owned())
    }

    fn show(&self, page: &mut Page) {
        match self {
            Self::One(one) => one.iter().for_each(|one| one.show(page)),
            Self::All { count: 0, .. } => page.line("Nobody is in any document."),
            Self::All { count, documents } => {
                page.line(format!("{} with users", plural(*count, "document", "documents")));
                let mut table = Table::new(&[">USERS", "DOCUMENT…"]);
                for documents::Document { doc, users } in documents {
                    table.row([&users.to_string(), doc]);
                }
                page.table(&table);
                page.more(*count, documents.len());
            }
        }
    }
}

impl One {
    fn show(&self, page: &mut Page) {
        page.line(format!("{} in {}", plural(self.count, "user", "users"), escape(&self.doc)));
        for Level { up, down, reached } in &self.thresholds {
            let level = if *reached { "reached" } else { "not reached" };
            page.line(format!("threshold {up}:{down} {level}"));
        }
        let mut table = Table::new(&["USER*", ">CONNECTIONS"]);
        for Member { user, connections } in &self.users {
            table.row([user, &connections.map_or(String::new(), |n| n.to_string())]);
        }
        page.table(&table);
        page.more(self.count, self.users.len());
    }
}
