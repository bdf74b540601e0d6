//! Rights: whether the user this process logs in as may do everything its role needs. `deploy/acl/` has the needs,
//! one line for each role.
//!
//! Roles that run scripts ask a script, which checks and runs nothing (`redis.acl_check_cmd`). The others try: a
//! reader reads a key that never exists, a producer adds an entry with an id that no server accepts.

use redis::Value;

use super::channels::{Channel, channels};
use super::finding::{Answer, Diagnosis, Unseen};
use super::report::ALLOW;
use crate::config::{Config, Deployment, Shell};
use crate::error::Error;
use crate::redis::reply;
use crate::redis::scripts::script::Script;
use crate::state::{AskError, Link, Partition, ask, literal};

/// The role of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// `rollcall worker`
    Worker,
    /// `rollcall janitor`
    Janitor,
    /// Producers of events
    Producer,
    /// Programs that read the state, and Rollcall's queries
    Reader,
    /// `rollcall serve`
    Serve,
    /// `rollcall notifier`
    Notifier,
    /// `rollcall run`
    Run,
    /// `rollcall doctor`
    Doctor,
}

impl Role {
    /// The line with the rights it needs.
    fn line(self) -> &'static str {
        match self {
            Self::Worker => include_str!("../../deploy/acl/worker.acl"),
            Self::Janitor => include_str!("../../deploy/acl/janitor.acl"),
            Self::Producer => include_str!("../../deploy/acl/producer.acl"),
            Self::Reader => include_str!("../../deploy/acl/reader.acl"),
            Self::Serve => include_str!("../../deploy/acl/serve.acl"),
            Self::Notifier => include_str!("../../deploy/acl/notifier.acl"),
            Self::Run => include_str!("../../deploy/acl/run.acl"),
            Self::Doctor => include_str!("../../deploy/acl/doctor.acl"),
        }
    }

    pub(super) fn runs_scripts(self) -> bool {
        !matches!(self, Self::Producer | Self::Reader | Self::Serve)
    }

    /// The commands it sends, as `ACL SETUSER` names them.
    fn commands(self) -> impl Iterator<Item = &'static str> {
        self.line().split_whitespace().filter_map(|rule| rule.strip_prefix('+'))
    }

    /// Whether it sends this command or one of its subcommands.
    pub(super) fn needs(self, command: &str) -> bool {
        let own = |rule: &str| rule.split('|').any(|word| word.eq_ignore_ascii_case(command));
        self.commands().any(own)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Janitor => "janitor",
            Self::Producer => "producer",
            Self::Reader => "reader",
            Self::Serve => "serve",
            Self::Notifier => "notifier",
            Self::Run => "run",
            Self::Doctor => "doctor",
        }
    }
}

/// Keys that a role reaches: a pattern, and one key that matches it.
struct Reach {
    /// The pattern as `ACL SETUSER` takes it.
    right: String,
    key: String,
    writes: bool,
}

/// The beginning of every pattern of a deployment.
pub(super) fn pattern_base(deployment: &Deployment) -> String {
    let tag = if deployment.partitions > 1 { "{p*}:" } else { "" };
    format!("{}{tag}", literal(&deployment.prefix))
}

pub(super) async fn rights(
    partition: &mut Partition,
    config: &Config,
    role: Role,
    shell: &Shell,
    user: &str,
) -> Answer {
    let commands: Vec<&str> = role.commands().collect();
    let base = partition.keys.base();
    let keys = reaches(role, &config.deployment, base);
    let channels = channels(config, role, base);
    let connection = &mut partition.connection;
    let lacking = match role {
        Role::Producer => tried_to_add(connection, &keys).await?,
        Role::Reader => tried_to_read(connection, &commands, &keys).await?,
        Role::Serve => {
            let (written, read): (Vec<Reach>, Vec<Reach>) =
                keys.into_iter().partition(|reach| reach.writes);
            let reading: Vec<&str> = commands.into_iter().filter(|c| *c != "xadd").collect();
            let mut lacking = tried_to_read(connection, &reading, &read).await?;
            lacking.join(tried_to_add(connection, &written).await?);
            lacking
        }
        _ => match asked_a_script(connection, &commands, &keys, &channels).await {
            Err(error) if error.is_forbidden() => {
                let missing = Unseen::from(error).into_right().into_iter().collect();
                Lacking { missing, gone: Vec::new() }
            }
            lacking => lacking?,
        },
    };
    Ok(lacking.diagnosis(role.name(), shell, user))
}

/// What prevents a role from its work.
#[derive(Default)]
struct Lacking {
    /// Rights that the user does not have.
    missing: Vec<String>,
    /// Commands that the server does not have.
    gone: Vec<String>,
}

impl Lacking {
    fn diagnosis(self, role: &str, shell: &Shell, user: &str) -> Diagnosis {
        let Self { missing, gone } = self;
        if missing.is_empty() && gone.is_empty() {
            return Diagnosis::ok(format!(
                "user {user} may do everything that the role {role} needs"
            ));
        }
        let mut found = Vec::new();
        if !gone.is_empty() {
            let gone = gone.join(", ").to_ascii_uppercase();
            found.push(format!("this server has no {gone}; it was renamed or removed"));
        }
        if !missing.is_empty() {
            found.push(format!("user {user} lacks {}", missing.join(" ")));
        }
        let means = format!("the role {role} fails when it needs them");
        let mut diagnosis = Diagnosis::failure(found.join("; "), means);
        if !gone.is_empty() {
            diagnosis = diagnosis.advise(ALLOW);
        }
        if missing.is_empty() {
            return diagnosis;
        }
        let rules: Vec<&str> = missing.iter().map(String::as_str).collect();
        diagnosis.run(shell.redis_cli(&[&["ACL", "SETUSER", user], &rules[..]].concat())).advise(
            format!("add them to the user's line in the ACL file, as in deploy/acl/{role}.acl"),
        )
    }
}

/// The keys that a role's line names, under this deployment's prefix and stream.
fn reaches(role: Role, deployment: &Deployment, base: &str) -> Vec<Reach> {
    let pattern_base = pattern_base(deployment);
    let patterns = role.line().split_whitespace().filter_map(|rule| rule.split_once('~'));
    // The role looks at the layout of another number of partitions, and does without if it cannot.
    let patterns = patterns.filter(|(_, pattern)| !pattern.starts_with("{p0}"));
    let reach = |access: &str, pattern: &str, key: String| Reach {
        right: format!("{access}~{pattern_base}{pattern}"),
        key,
        writes: access != "%R",
    };
    let named = patterns.filter(|(access, _)| *access != "%W").map(|(access, pattern)| {
        reach(access, pattern, format!("{base}{}", pattern.replace('*', "0")))
    });
    let access = match role {
        Role::Producer => "%W",
        Role::Reader | Role::Doctor => "%R",
        _ => "",
    };
    let stream = &deployment.stream;
    let events = reach(access, &literal(stream), format!("{base}{stream}"));
    // A notifier reads changes, not events.
    named.chain((role != Role::Notifier).then_some(events)).collect()
}

async fn tried_to_add(connection: &mut Link, keys: &[Reach]) -> Result<Lacking, AskError> {
    let mut lacking = Lacking::default();
    for Reach { right, key, .. } in keys {
        let tried = denied(connection, &["XADD", key, "NOMKSTREAM", "0-0", "type", "none"]).await?;
        lacking.add(tried, "xadd", right);
    }
    Ok(lacking)
}

async fn tried_to_read(
    connection: &mut Link,
    commands: &[&str],
    keys: &[Reach],
) -> Result<Lacking, AskError> {
    let never = keys.iter().find(|reach| reach.right.ends_with("online-users/*"));
    let key = never.map_or("online-users/0", |reach| &reach.key);
    let mut lacking = Lacking::default();
    for command in commands {
        let words: Vec<&str> = command.split('|').collect();
        // With the number of arguments that the command takes; with others it is refused before rights are checked.
        for arguments in [&[key, "0", "0"][..], &[key, "0"], &[key], &[]] {
            match denied(connection, &[&words, arguments].concat()).await {
                Ok(Some(Denied::Key)) => {}
                Ok(tried) => lacking.add(tried, command, ""),
                Err(error) if is_other_arity(&error) => continue,
                Err(error) => return Err(error),
            }
            break;
        }
    }
    for Reach { right, key, .. } in keys {
        if let Some(Denied::Key) = denied(connection, &["GET", key]).await? {
            lacking.missing.push(right.clone());
        }
    }
    Ok(lacking)
}

impl Lacking {
    fn join(&mut self, other: Self) {
        self.missing.extend(other.missing);
        self.gone.extend(other.gone);
    }

    /// Adds the result of trying a command; `right` is a right to the key.
    fn add(&mut self, tried: Option<Denied>, command: &str, right: &str) {
        match tried {
            Some(Denied::Command) => self.missing.push(format!("+{command}")),
            Some(Denied::Key) => self.missing.push(right.to_owned()),
            Some(Denied::Gone) => self.gone.push(command.replace('|', " ")),
            None => {}
        }
    }
}

/// The reason of a refusal.
enum Denied {
    Command,
    Key,
    /// The server does not have the command.
    Gone,
}

/// Sends a command that has no effect; returns whether, and why, this user may not.
async fn denied(connection: &mut Link, words: &[&str]) -> Result<Option<Denied>, AskError> {
    match ask(connection, words).await {
        Err(error) if error.is_forbidden() => {
            let of_command = Unseen::from(error).into_right().is_some();
            Ok(Some(if of_command { Denied::Command } else { Denied::Key }))
        }
        Err(AskError::Server(Error::NoCommand { .. })) => Ok(Some(Denied::Gone)),
        // It was permitted, and had nothing to do.
        Err(error) if is_other_arity(&error) || !is_answer(&error) => Err(error),
        _ => Ok(None),
    }
}

fn is_other_arity(error: &AskError) -> bool {
    matches!(error, AskError::Server(Error::Redis { source, .. })
        if source.detail().is_some_and(|detail| detail.contains("wrong number of arguments")))
}

/// Whether the server answered, if only that the arguments make no sense.
fn is_answer(error: &AskError) -> bool {
    match error {
        AskError::Server(Error::Redis { source, .. }) => source.code().is_some(),
        _ => true,
    }
}

async fn asked_a_script(
    connection: &mut Link,
    commands: &[&str],
    keys: &[Reach],
    channels: &[Channel],
) -> Result<Lacking, AskError> {
    // A key may be written or read if any command that does so is permitted; the commands themselves are checked
    // next.
    let writing = ["set", "hset", "unlink"];
    let reading = ["get", "hget", "type"];
    let ways = |reach: &Reach| if reach.writes { writing } else { reading };
    let of_keys = keys.iter().flat_map(|reach| {
        ways(reach).map(|command| [command, &reach.key, &reach.key, &reach.key].join("\t"))
    });
    let allowed = script(connection, of_keys.collect()).await?;
    let is_open = |ways: &[Allowed]| ways.contains(&Allowed::Yes);
    let open: Vec<bool> = allowed.chunks(writing.len()).map(is_open).collect();
    let pairs = || keys.iter().zip(&open);
    let key =
        pairs().find(|(reach, open)| reach.writes && **open).map_or(&keys[0], |(reach, _)| reach);
    let on = |command| if is_about_channels(command) { channels } else { &channels[..1] };
    let asked: Vec<(&str, &Channel)> = commands
        .iter()
        .flat_map(|command| on(command).iter().map(move |channel| (*command, channel)))
        .collect();
    let calls = asked.iter().map(|(command, channel)| call(command, &key.key, &channel.name));
    let allowed = script(connection, calls.collect()).await?;
    let missing = pairs().filter(|(_, open)| !**open).map(|(reach, _)| reach.right.clone());
    let mut lacking = Lacking { missing: missing.collect(), gone: Vec::new() };
    for ((command, channel), allowed) in asked.into_iter().zip(allowed) {
        let tried = match allowed {
            Allowed::Yes => None,
            Allowed::No => Some(Denied::Command),
            Allowed::Gone => Some(Denied::Gone),
        };
        if is_about_channels(command) && allowed == Allowed::No {
            // The server does not say which of the two is missing.
            lacking.missing.push(channel.right.clone());
        }
        lacking.add(tried, command, "");
    }
    lacking.missing.dedup();
    Ok(lacking)
}

fn is_about_channels(command: &str) -> bool {
    ["subscribe", "publish"].contains(&command)
}

/// The script's answer about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    No,
    Yes,
    /// The server does not have it.
    Gone,
}

/// A whole command on one key or channel, its words joined by tabs.
fn call(command: &str, key: &str, channel: &str) -> String {
    match command {
        "evalsha" | "fcall" => [command, "0", "0"].join("\t"),
        "xread" => ["xread", "STREAMS", key, "0"].join("\t"),
        "subscribe" => ["subscribe", channel].join("\t"),
        "publish" => ["publish", channel, "0"].join("\t"),
        _ => [command.replace('|', "\t").as_str(), key, key, key].join("\t"),
    }
}

async fn script(connection: &mut Link, calls: Vec<String>) -> Result<Vec<Allowed>, AskError> {
    let digest = reply::text(ask(connection, &["SCRIPT", "LOAD", Script::RIGHTS]).await?);
    let mut words = vec!["EVALSHA", digest.as_deref().unwrap_or_default(), "0"];
    words.extend(calls.iter().map(String::as_str));
    let value = ask(connection, &words).await?;
    let of = |one: &Value| match one {
        Value::Int(1) => Allowed::Yes,
        Value::Int(2) => Allowed::Gone,
        _ => Allowed::No,
    };
    match reply::elements(&value).filter(|answers| answers.len() == calls.len()) {
        Some(answers) => Ok(answers.iter().map(of).collect()),
        None => Err(reply::unexpected("asking for rights", &value).into()),
    }
}
