//! `online`, `seen`, `user` and `presence`.

use clap::builder::NonEmptyStringValueParser;
use rollcall::config::Millis;
use rollcall::state::users::{self, Present};
use rollcall::state::{AskError, Listed, State};
use serde::Serialize;

use super::{Answer, Limit, Output, Query, QueryFlags, settings};
use crate::table::{Page, Table, escape, length, plural, time};

/// List users who are online, by name: those with a presence entry.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Online {
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: QueryFlags,
}

#[derive(Serialize)]
pub(crate) struct OnlineAnswer {
    count: u64,
    users: Vec<String>,
}

impl Query for Online {
    type Answer = OnlineAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<OnlineAnswer, AskError> {
        let (since_ms, limit) = (present_since_ms(state), self.limit.get());
        let mut parts = Vec::new();
        for partition in &mut state.partitions {
            let (connection, keys) = (&mut partition.connection, &partition.keys);
            parts.push(users::online(connection, keys, since_ms, limit).await?);
        }
        let Listed { count, items } = Listed::merged(parts, limit, String::cmp);
        Ok(OnlineAnswer { count, users: items })
    }
}

/// What was last seen before has left, though no janitor has taken it yet.
fn present_since_ms(state: &State) -> u64 {
    state.now_ms.saturating_sub(state.deployment.presence_ttl_ms)
}

impl Answer for OnlineAnswer {
    fn show(&self, page: &mut Page) {
        if self.count == 0 {
            return page.line("Nobody is online.");
        }
        page.line(format!("{} online", plural(self.count, "user", "users")));
        show_names(&self.users, self.count, page);
    }
}

fn show_names(users: &[String], count: u64, page: &mut Page) {
    for user in users {
        page.line(escape(user));
    }
    page.more(count, users.len());
}

/// List users seen in the last minutes, by name, whether or not they are still online.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Seen {
    /// Look back this many minutes, including the current one; minutes are kept for the deployment's online-window
    /// [default: that window]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: Option<u64>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: QueryFlags,
}

#[derive(Serialize)]
pub(crate) struct SeenAnswer {
    minutes: u64,
    count: u64,
    users: Vec<String>,
}

impl Query for Seen {
    type Answer = SeenAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<SeenAnswer, AskError> {
        let minutes = self.minutes.unwrap_or(state.deployment.online_window_ms / 60_000);
        let (now_ms, limit) = (state.now_ms, self.limit.get());
        let Listed { count, items } =
            users::seen_everywhere(&mut state.partitions, now_ms, minutes, limit).await?;
        Ok(SeenAnswer { minutes, count, users: items })
    }
}

impl Answer for SeenAnswer {
    fn show(&self, page: &mut Page) {
        let within = length(self.minutes * 60_000);
        if self.count == 0 {
            return page.line(format!("Nobody was seen in the last {within}."));
        }
        page.line(format!("{} seen in the last {within}", plural(self.count, "user", "users")));
        show_names(&self.users, self.count, page);
    }
}

/// Show when a user was last seen, and their presence entries.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct User {
    /// The user
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    user: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: QueryFlags,
}

#[derive(Serialize)]
pub(crate) struct UserAnswer {
    now_ms: u64,
    user: String,
    last_activity_ms: Option<u64>,
    presence: Vec<Present>,
}

impl Query for User {
    type Answer = UserAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<UserAnswer, AskError> {
        let now_ms = state.now_ms;
        let since_ms = present_since_ms(state);
        let partition = state.partition_of(&self.user);
        let (connection, keys) = (&mut partition.connection, &partition.keys);
        let last_activity = users::last_activity(connection, keys, &self.user).await?;
        let presence = users::presence_of(connection, keys, &self.user, since_ms).await?;
        let last_activity_ms = last_activity.map(|seconds| seconds.saturating_mul(1000));
        Ok(UserAnswer { now_ms, user: self.user.clone(), last_activity_ms, presence })
    }
}

impl Answer for UserAnswer {
    fn not_found(&self) -> Option<String> {
        let unknown = self.last_activity_ms.is_none() && self.presence.is_empty();
        unknown.then(|| {
            format!(
                "nothing is known of user {}: neither activity nor presence",
                escape(&self.user)
            )
        })
    }

    fn show(&self, page: &mut Page) {
        let user = escape(&self.user);
        match self.last_activity_ms {
            Some(ms) => {
                let [at, age] = time(ms, self.now_ms);
                page.line(format!("{user} was last active {at} ({age})."));
            }
            None => page.line(format!("{user} has no activity that is still kept.")),
        }
        if self.presence.is_empty() {
            return page.line("Not online.");
        }
        let mut table = Table::new(&["IP*", "LAST SEEN@", "AGE", "PAGE…", "USER AGENT…"]);
        for Present { ip, page, ua, last_seen_ms, .. } in &self.presence {
            let [at, age] = time(*last_seen_ms, self.now_ms);
            table.row([ip, &at, &age, page, ua]);
        }
        page.table(&table);
    }
}

/// List presence entries, one per user and address, the latest seen first.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Presence {
    /// Only entries last seen within this time, such as 5m [default: the deployment's presence-ttl]
    #[arg(long, value_name = "DURATION")]
    active: Option<Millis>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: QueryFlags,
}

#[derive(Serialize)]
pub(crate) struct PresenceAnswer {
    now_ms: u64,
    active_ms: u64,
    count: u64,
    presence: Vec<Present>,
}

impl Query for Presence {
    type Answer = PresenceAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<PresenceAnswer, AskError> {
        let (now_ms, limit) = (state.now_ms, self.limit.get());
        let active_ms = self.active.map_or(state.deployment.presence_ttl_ms, Millis::ms);
        let since_ms = now_ms.saturating_sub(active_ms);
        let mut parts = Vec::new();
        for partition in &mut state.partitions {
            let (connection, keys) = (&mut partition.connection, &partition.keys);
            parts.push(users::presence(connection, keys, since_ms, limit).await?);
        }
        let Listed { count, items } = Listed::merged(parts, limit, Present::newest_first);
        Ok(PresenceAnswer { now_ms, active_ms, count, presence: items })
    }
}

impl Answer for PresenceAnswer {
    fn show(&self, page: &mut Page) {
        let within = length(self.active_ms);
        if self.count == 0 {
            return page.line(format!("No presence entries in the last {within}."));
        }
        let entries = plural(self.count, "presence entry", "presence entries");
        page.line(format!("{entries} in the last {within}"));
        let mut table = Table::new(&["USER*", "IP*", "LAST SEEN@", "AGE", "PAGE…", "USER AGENT…"]);
        for Present { user, ip, page, ua, last_seen_ms } in &self.presence {
            let [at, age] = time(*last_seen_ms, self.now_ms);
            table.row([user, ip, &at, &age, page, ua]);
        }
        page.table(&table);
        page.more(self.count, self.presence.len());
    }
}
