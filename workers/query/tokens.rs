//! `recent` and `viewed`.

use clap::builder::NonEmptyStringValueParser;
use rollcall::state::tokens::{self, Ranked, Token};
use rollcall::state::{AskError, Listed, State};
use serde::Serialize;

use super::{Answer, Limit, Output, Query, QueryFlags, settings};
use crate::table::{Page, Table, plural, time};

/// List recent login tokens, the latest used first.
///
/// Anybody who has a token can act as its user, so the table shows only its first characters. JSON has complete tokens.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Recent {
    /// Show complete tokens in the table too
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: QueryFlags,
}

#[derive(Serialize)]
pub(crate) struct RecentAnswer {
    now_ms: u64,
    count: u64,
    tokens: Vec<Token>,
    #[serde(skip)]
    full: bool,
}

impl Query for Recent {
    type Answer = RecentAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<RecentAnswer, AskError> {
        let limit = self.limit.get();
        let mut parts = Vec::new();
        for partition in &mut state.partitions {
            parts.push(tokens::recent(&mut partition.connection, &partition.keys, limit).await?);
        }
        let Listed { count, items } = Listed::merged(parts, limit, Token::newest_first);
        Ok(RecentAnswer { now_ms: state.now_ms, count, tokens: items, full: self.full })
    }
}

impl Answer for RecentAnswer {
    fn show(&self, page: &mut Page) {
        if self.count == 0 {
            return page.line("No recent tokens.");
        }
        page.line(plural(self.count, "recent token", "recent tokens"));
        let mut table = Table::new(&["TOKEN", "USER*", "LAST USED@", "AGE"]);
        for Token { token, user, last_seen_ms } in &self.tokens {
            let [at, age] = time(*last_seen_ms, self.now_ms);
            let token = if self.full { token.clone() } else { shortened(token) };
            table.row([&token, user.as_deref().unwrap_or(""), &at, &age]);
        }
        page.table(&table);
        page.more(self.count, self.tokens.len());
    }
}

/// How a token begins: at most six characters, and never more than half of it.
fn shortened(token: &str) -> String {
    let half = token.chars().count() / 2;
    let mut beginning: String = token.chars().take(half.min(6)).collect();
    beginning.push('…');
    beginning
}

/// List the items viewed with a token, the latest first; without a token, the most viewed items.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Viewed {
    /// The token; other users of the machine can see it in the list of processes
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    token: Option<String>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: QueryFlags,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum ViewedAnswer {
    Ranking {
        items: Vec<Ranked>,
    },
    /// `null` for a token that is not known.
    Token(Option<TokenAnswer>),
}

#[derive(Serialize)]
pub(crate) struct TokenAnswer {
    now_ms: u64,
    token: String,
    user: Option<String>,
    last_seen_ms: Option<u64>,
    count: u64,
    items: Vec<tokens::Viewed>,
}

impl Query for Viewed {
    type Answer = ViewedAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<ViewedAnswer, AskError> {
        let limit = self.limit.get();
        let Some(token) = &self.token else {
            let items = tokens::ranking(&mut state.partitions, limit).await?;
            return Ok(ViewedAnswer::Ranking { items });
        };
        // A token lies in its user's partition, and the user is not known.
        let mut parts = Vec::new();
        for partition in &mut state.partitions {
            let (connection, keys) = (&mut partition.connection, &partition.keys);
            parts.extend(tokens::viewed(connection, keys, token, limit).await?);
        }
        let views = tokens::merged_views(parts, limit);
        Ok(ViewedAnswer::Token(views.map(|views| TokenAnswer {
            now_ms: state.now_ms,
            token: token.clone(),
            user: views.user,
            last_seen_ms: views.last_seen_ms,
            count: views.viewed.count,
            items: views.viewed.items,
        })))
    }
}

impl Answer for ViewedAnswer {
    fn not_found(&self) -> Option<String> {
        matches!(self, Self::Token(None)).then(|| {
            "there is no such token: it never was, was logged out or is no longer recent".to_owned()
        })
    }

    fn show(&self, page: &mut Page) {
        match self {
            Self::Ranking { items } if items.is_empty() => {
                page.line("Nothing has been viewed yet.")
            }
            Self::Ranking { items } => {
                let mut table = Table::new(&[">RANK", ">VIEWS", "ITEM…"]);
                for (i, Ranked { item, views }) in items.iter().enumerate() {
                    table.row([&(i + 1).to_string(), &views.to_string(), item]);
                }
                page.table(&table);
            }
            Self::Token(token) => token.iter().for_each(|token| token.show(page)),
        }
    }
}

impl TokenAnswer {
    fn show(&self, page: &mut Page) {
        let mut about = Table::new(&["", ""]);
        about.row(["user", self.user.as_deref().unwrap_or("")]);
        if let Some(ms) = self.last_seen_ms {
            let [at, age] = time(ms, self.now_ms);
            about.row(["last used", &format!("{at} ({age})")]);
        }
        page.table(&about);
        if self.items.is_empty() {
            return page.line("It has viewed nothing.");
        }
        let mut table = Table::new(&["ITEM…", "VIEWED@", "AGE"]);
        for tokens::Viewed { item, viewed_ms } in &self.items {
            let [at, age] = time(*viewed_ms, self.now_ms);
            table.row([item, &at, &age]);
        }
        page.table(&table);
        page.more(self.count, self.items.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_token_is_of_no_use() {
        assert_eq!(shortened("0123456789abcdef"), "012345…");
        assert_eq!(shortened("täglich"), "täg…");
        assert_eq!((shortened("ab").as_str(), shortened("a").as_str()), ("a…", "…"));
    }
}
