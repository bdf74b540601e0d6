//! `sessions`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::builder::NonEmptyStringValueParser;
use rollcall::state::sessions::{self, Clock, Session};
use rollcall::state::{AskError, Listed, State};
use serde::Serialize;

use super::{Answer, Limit, Output, Query, SessionFlags, settings};
use crate::table::{Page, Table, escape_json, length, plural, time};

/// Show a session and its data; without a session, list the active ones, the latest active first.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Sessions {
    /// The session
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    sid: Option<String>,
    /// Only sessions of this user
    #[arg(long, value_name = "USER", conflicts_with = "sid")]
    user: Option<String>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: SessionFlags,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum SessionsAnswer {
    All {
        now_ms: u64,
        count: u64,
        sessions: Vec<Session>,
    },
    /// `null` for a session that is not known.
    One(Option<Box<One>>),
}

/// One session. Its data is what was sent: JSON, unless it was declared as opaque or another writer stored it.
#[derive(Serialize)]
pub(crate) struct One {
    now_ms: u64,
    sid: String,
    active: bool,
    user: Option<String>,
    ip: Option<String>,
    ua: Option<String>,
    last_activity_ms: Option<u64>,
    expires_ms: Option<u64>,
    data: Option<String>,
    /// In place of `data` where that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    /// Whether that is encrypted, with none of the keys that were given.
    data_encrypted: bool,
    data_ttl_ms: Option<u64>,
}

impl Query for Sessions {
    type Answer = SessionsAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<SessionsAnswer, AskError> {
        match &self.sid {
            Some(sid) => one(state, sid).await,
            None => self.all(state).await,
        }
    }
}

impl Sessions {
    async fn all(&self, state: &mut State) -> Result<SessionsAnswer, AskError> {
        let (now_ms, limit) = (state.now_ms, self.limit.get());
        let clock = Clock { now_ms, usual_ms: state.deployment.session_ttl_ms };
        let mut parts = Vec::new();
        for partition in &mut state.partitions {
            let (connection, keys) = (&mut partition.connection, &partition.keys);
            let user = self.user.as_deref();
            parts.push(sessions::active(connection, keys, clock, user, limit).await?);
        }
        let Listed { count, items } = Listed::merged(parts, limit, Session::newest_first);
        Ok(SessionsAnswer::All { now_ms, count, sessions: items })
    }
}

async fn one(state: &mut State, sid: &str) -> Result<SessionsAnswer, AskError> {
    let (now_ms, usual_ms) = (state.now_ms, state.deployment.session_ttl_ms);
    let session_keys = state.session_keys.clone();
    let partition = state.partition_of(sid);
    let (connection, keys) = (&mut partition.connection, &partition.keys);
    let found = sessions::session(connection, keys, Clock { now_ms, usual_ms }, sid).await?;
    Ok(SessionsAnswer::One(found.map(|kept| {
        let kept = kept.unsealed(session_keys.as_ref());
        let last_activity_ms = kept.entry.as_ref().map(|entry| entry.last_activity_ms);
        let expires_ms = kept.entry.as_ref().map(|entry| entry.expires_ms);
        let (user, ip, ua) = match kept.entry {
            Some(entry) => (Some(entry.user), Some(entry.ip), Some(entry.ua)),
            None => (None, None, None),
        };
        let (data, data_base64) = match kept.data.map(String::from_utf8) {
            None => (None, None),
            Some(Ok(text)) => (Some(text), None),
            Some(Err(error)) => (None, Some(STANDARD.encode(error.as_bytes()))),
        };
        Box::new(One {
            now_ms,
            sid: sid.to_owned(),
            active: expires_ms.is_some_and(|ms| ms > now_ms),
            user,
            ip,
            ua,
            last_activity_ms,
            expires_ms,
            data,
            data_base64,
            data_encrypted: kept.data_encrypted,
            data_ttl_ms: kept.data_ttl_ms,
        })
    })))
}

impl Answer for SessionsAnswer {
    fn not_found(&self) -> Option<String> {
        matches!(self, Self::One(None))
            .then(|| "there is no such session: it never was, ended or expired".to_owned())
    }

    fn show(&self, page: &mut Page) {
        match self {
            Self::One(one) => one.iter().for_each(|one| one.show(page)),
            Self::All { count: 0, .. } => page.line("No active sessions."),
            Self::All { now_ms, count, sessions } => {
                page.line(plural(*count, "active session", "active sessions"));
                let mut table = Table::new(&[
                    "SESSION…",
                    "USER*",
                    "LAST ACTIVITY@",
                    "AGE",
                    "IP*",
                    "USER AGENT…",
                ]);
                for Session { sid, user, ip, ua, last_activity_ms, .. } in sessions {
                    let [at, age] = time(*last_activity_ms, *now_ms);
                    table.row([sid, user, &at, &age, ip, ua]);
                }
                page.table(&table);
                page.more(*count, sessions.len());
            }
        }
    }
}

impl One {
    fn show(&self, page: &mut Page) {
        let mut table = Table::new(&["", ""]);
        table.row(["session", &self.sid]);
        table.row(["user", self.user.as_deref().unwrap_or("")]);
        if let Some(ms) = self.last_activity_ms {
            let [at, age] = time(ms, self.now_ms);
            let state = if self.active { "" } else { "; expired" };
            table.row(["last activity", &format!("{at} ({age}{state})")]);
        }
        if let Some(ms) = self.expires_ms.filter(|_| self.active) {
            let left = length(ms.saturating_sub(self.now_ms));
            table.row(["expires", &format!("in {left} without activity")]);
        }
        table.row(["ip", self.ip.as_deref().unwrap_or("")]);
        table.row(["user agent", self.ua.as_deref().unwrap_or("")]);
        let kept = self.data_ttl_ms.map(|ms| format!("for {}", length(ms)));
        let has_data = self.data.is_some() || self.data_base64.is_some();
        match kept {
            _ if !has_data => table.row(["data", "none"]),
            Some(kept) => table.row(["data kept", &kept]),
            None => table.row(["data kept", "without an expiry"]),
        }
        if self.data_base64.is_some() {
            table.row(["data", "no text, here in base64"]);
        }
        if self.data_encrypted {
            table.row(["data", "encrypted; --session-key-file gives the keys to read it"]);
        }
        page.table(&table);
        if let Some(data) = self.data.as_ref().or(self.data_base64.as_ref()) {
            page.line(escape_json(data));
        }
    }
}
