//! The targets of the notifier: the `[[notify]]` tables of the settings file. They have no flags and no variables,
//! because a list of tables fits neither.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::duration::{Millis, at_least};
use super::error::{ConfigError, Origin, nearest};
use super::webhook::{self, Webhook};
use crate::change::ChangeKind;

/// The key of the tables in the file.
pub(super) const KEY: &str = "notify";

/// A target: which changes go where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name, under which its position is kept.
    pub name: String,
    /// Only these kinds of changes; all if empty.
    pub kinds: HashSet<ChangeKind>,
    /// Only changes of these users; of all if empty.
    pub users: HashSet<String>,
    /// Only changes in these documents; all if empty.
    pub docs: HashSet<String>,
    /// Where they go, and in which format.
    pub sink: Sink,
}

/// Where changes go, and in which format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// The channels of `@socket.io/redis-adapter`.
    SocketioRedis {
        /// What they begin with.
        channel: String,
        /// The namespace.
        namespace: String,
    },
    /// The channel of python-socketio's `RedisManager`, which Flask-SocketIO's message queue also uses.
    SocketioPython {
        /// The channel.
        channel: String,
        /// The namespace.
        namespace: String,
    },
    /// Any channel, as JSON.
    Pubsub {
        /// The channel.
        channel: String,
    },
    /// Calls over HTTP, according to Standard Webhooks.
    Webhook(Webhook),
}

/// A table as it is written in the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    name: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_private: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kinds: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    users: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    docs: Vec<String>,
}

/// The tables of a file; other keys are read elsewhere.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    notify: Vec<Spanned<Table>>,
}

/// The targets in the file, with their places.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables(Vec<(Table, Origin)>);

impl Tables {
    /// Reads the tables of a file; `origin` turns a byte offset into a place.
    ///
    /// # Errors
    /// If a table lacks a name or kind, or has a key or a type that no target has.
    pub(super) fn read(text: &str, origin: impl Fn(usize) -> Origin) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let at = origin(error.span().map_or(0, |span| span.start));
            let why = format!("{}; docs/notifier.md describes the table", error.message());
            refused("a table".to_owned(), at, why)
        })?;
        let table = |table: Spanned<Table>| {
            let at = origin(table.span().start);
            (table.into_inner(), at)
        };
        Ok(Self(file.notify.into_iter().map(table).collect()))
    }

    /// The targets.
    ///
    /// # Errors
    /// Names the table and the value that is impossible, and the remedy.
    pub(super) fn targets(&self) -> Result<Vec<Target>, ConfigError> {
        let mut names = HashSet::new();
        let mut targets = Vec::new();
        for (table, origin) in &self.0 {
            let refuse = |why: String| refused(format!("{:?}", table.name), origin.clone(), why);
            if !names.insert(table.name.as_str()) {
                return Err(refuse("two targets have this name; give each its own".to_owned()));
            }
            targets.push(table.target().map_err(refuse)?);
        }
        Ok(targets)
    }

    /// The tables, as TOML.
    pub(super) fn shown(&self) -> String {
        #[derive(Serialize)]
        struct All<'a> {
            notify: Vec<&'a Table>,
        }
        if self.0.is_empty() {
            return String::new();
        }
        let all = All { notify: self.0.iter().map(|(table, _)| table).collect() };
        // Tables of texts, lists and numbers can always be written.
        toml::to_string(&all).unwrap_or_default()
    }
}

/// The error if no target is configured where one is needed.
pub(super) fn none() -> ConfigError {
    let why = "no target is configured; add a [[notify]] table to the file that --config names, such as \
               name = \"chat\", kind = \"pubsub\", channel = \"changes\"";
    refused("no table".to_owned(), Origin::Default, why.to_owned())
}

/// Checks that the calls of a webhook can be signed.
pub(super) fn check_secrets(target: &Target) -> Result<(), ConfigError> {
    match &target.sink {
        Sink::Webhook(webhook) => webhook
            .secrets()
            .map(drop)
            .map_err(|why| refused(format!("{:?}", target.name), Origin::Default, why)),
        _ => Ok(()),
    }
}

fn refused(got: String, origin: Origin, why: String) -> ConfigError {
    ConfigError::Refused { setting: KEY, origin, got, why }
}

const KINDS: [&str; 4] = ["socketio-redis", "socketio-python", "pubsub", "webhook"];

const WEBHOOK_KEYS: [&str; 6] =
    ["url", "secret-file", "batch", "timeout", "attempts", "allow-private"];

impl Table {
    fn target(&self) -> Result<Target, String> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(is_plain) {
            return Err(
                "name must be 1 to 64 of a-z, 0-9, - and _; do not change it later, because the position is kept \
                 by it"
                    .to_owned(),
            );
        }
        let kind = |name: &String| {
            ChangeKind::from_name(name).ok_or_else(|| {
                let known = ChangeKind::ALL.iter().map(|kind| kind.name());
                unknown("kinds", name, &known.collect::<Vec<_>>())
            })
        };
        Ok(Target {
            name: self.name.clone(),
            kinds: self.kinds.iter().map(kind).collect::<Result<_, _>>()?,
            users: self.users.iter().cloned().collect(),
            docs: self.docs.iter().cloned().collect(),
            sink: self.sink()?,
        })
    }

    fn sink(&self) -> Result<Sink, String> {
        match self.kind.as_str() {
            "socketio-redis" => {
                self.only(&["channel", "namespace"])?;
                let (channel, namespace) = (self.channel_or("socket.io")?, self.namespace()?);
                Ok(Sink::SocketioRedis { channel, namespace })
            }
            "socketio-python" => {
                self.only(&["channel", "namespace"])?;
                let (channel, namespace) = (self.channel_or("socketio")?, self.namespace()?);
                Ok(Sink::SocketioPython { channel, namespace })
            }
            "webhook" => {
                self.only(&WEBHOOK_KEYS)?;
                self.webhook().map(Sink::Webhook)
            }
            "pubsub" => {
                self.only(&["channel"])?;
                let channel = self.channel.as_ref().map(|_| self.channel_or(""));
                let why = "a target of kind pubsub needs a channel, such as channel = \"changes\"";
                Ok(Sink::Pubsub { channel: channel.ok_or_else(|| why.to_owned())?? })
            }
            other => Err(unknown("kind", other, &KINDS)),
        }
    }

    /// Refuses keys that do not apply to the kind.
    fn only(&self, keys: &[&str]) -> Result<(), String> {
        let given = [
            ("channel", self.channel.is_some()),
            ("namespace", self.namespace.is_some()),
            ("url", self.url.is_some()),
            ("secret-file", self.secret_file.is_some()),
            ("batch", self.batch.is_some()),
            ("timeout", self.timeout.is_some()),
            ("attempts", self.attempts.is_some()),
            ("allow-private", self.allow_private.is_some()),
        ];
        match given.iter().find(|(key, is_given)| *is_given && !keys.contains(key)) {
            None => Ok(()),
            Some((key, _)) => Err(format!("{key} does not apply to kind {}; remove it", self.kind)),
        }
    }

    fn webhook(&self) -> Result<Webhook, String> {
        let needs = |key: &str| format!("a target of kind webhook needs {key}");
        let timeout = self.timeout.as_deref().unwrap_or("5s");
        let timeout = at_least::<100>(timeout).map_err(|why| format!("timeout: {why}"))?;
        let webhook = Webhook {
            url: webhook::url(self.url.as_deref().ok_or_else(|| needs("a url"))?)?,
            secret_file: self.secret_file.clone().ok_or_else(|| needs("a secret-file"))?,
            batch: self.batch.unwrap_or(1),
            timeout: timeout.into(),
            attempts: self.attempts.unwrap_or(5),
            allow_private: self.allow_private.unwrap_or(false),
        };
        if !(1..=1_000).contains(&webhook.batch) || webhook.attempts == 0 {
            return Err("batch must be 1 to 1000, and attempts at least 1".to_owned());
        }
        if timeout > Millis::new(60_000) {
            return Err(
                "timeout must be at most 60s, because calls are made one after another".to_owned()
            );
        }
        Ok(webhook)
    }

    fn channel_or(&self, default: &str) -> Result<String, String> {
        match self.channel.as_deref() {
            None => Ok(default.to_owned()),
            Some("") => Err("channel must not be empty".to_owned()),
            Some(channel) => Ok(channel.to_owned()),
        }
    }

    fn namespace(&self) -> Result<String, String> {
        match self.namespace.as_deref() {
            None => Ok("/".to_owned()),
            Some(namespace) if namespace.starts_with('/') => Ok(namespace.to_owned()),
            Some(_) => Err("namespace must begin with /, as in /admin".to_owned()),
        }
    }
}

fn unknown(key: &str, got: &str, known: &[&str]) -> String {
    match nearest(got, known.iter().copied()) {
        Some(name) => format!("{key} has no {got:?}; did you mean {name}?"),
        None => format!("{key} has no {got:?}; it may be {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(text: &str) -> Result<Vec<Target>, String> {
        let origin = |at: usize| {
            let line = text[..at].matches('\n').count() + 1;
            Origin::File { path: "f.toml".into(), line }
        };
        let tables = Tables::read(text, origin).map_err(|error| error.to_string())?;
        let targets = tables.targets().map_err(|error| error.to_string())?;
        let again = Tables::read(&tables.shown(), |_| Origin::Default).unwrap();
        assert_eq!(again.targets().unwrap(), targets, "what is shown can be read back");
        Ok(targets)
    }

    #[test]
    fn tables_become_targets_with_the_defaults_of_their_kind() {
        let text = r#"
            batch = 7
            [[notify]]
            name = "chat"
            kind = "socketio-redis"
            kinds = ["online", "offline"]
            [[notify]]
            name = "flask"
            kind = "socketio-python"
            channel = "flask-socketio"
            namespace = "/admin"
            docs = ["d"]
            [[notify]]
            name = "plain"
            kind = "pubsub"
            channel = "changes"
            [[notify]]
            name = "hook"
            kind = "webhook"
            url = "https://example.com/hook"
            secret-file = "/run/secrets/hook"
            batch = 10
        "#;
        let found = targets(text).unwrap();
        assert_eq!(found[0].kinds, [ChangeKind::Online, ChangeKind::Offline].into());
        let (channel, namespace) = ("socket.io".to_owned(), "/".to_owned());
        assert_eq!(found[0].sink, Sink::SocketioRedis { channel, namespace });
        let (channel, namespace) = ("flask-socketio".to_owned(), "/admin".to_owned());
        assert_eq!(found[1].sink, Sink::SocketioPython { channel, namespace });
        assert_eq!(found[1].docs, ["d".to_owned()].into());
        assert_eq!(found[2].sink, Sink::Pubsub { channel: "changes".to_owned() });
        let Sink::Webhook(hook) = &found[3].sink else { panic!("{:?}", found[3]) };
        assert_eq!((hook.host(), hook.port(), hook.batch), ("example.com", 443, 10));
        assert_eq!((hook.timeout.as_secs(), hook.attempts, hook.allow_private), (5, 5, false));
        assert_eq!(targets("batch = 7").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_the_remedy() {
        let table = |rest: &str| format!("\n[[notify]]\n{rest}");
        let named = |rest: &str| table(&format!("name = \"a\"\n{rest}"));
        for (text, words) in [
            (table("kind = \"pubsub\""), "missing field `name`"),
            (named("kind = \"pubsub\""), "needs a channel"),
            (named("kind = \"pubsup\""), "did you mean pubsub?"),
            (named("kind = \"pubsub\"\nchanel = \"c\""), "unknown field `chanel`"),
            (named("kind = \"pubsub\"\nchannel = \"c\"\nnamespace = \"/\""), "does not apply"),
            (named("kind = \"pubsub\"\nchannel = \"\""), "must not be empty"),
            (named("kind = \"socketio-redis\"\nnamespace = \"a\""), "begin with /"),
            (named("kind = \"socketio-redis\"\nkinds = [\"onlin\"]"), "did you mean online?"),
            (named("kind = \"webhook\""), "needs a url"),
            (named("kind = \"webhook\"\nurl = \"http://a\""), "needs a secret-file"),
            (named("kind = \"pubsub\"\nchannel = \"c\"\nurl = \"http://a\""), "does not apply"),
            (table("name = \"A b\"\nkind = \"pubsub\""), "a-z, 0-9"),
        ] {
            let error = targets(&text).unwrap_err();
            assert!(error.contains(words) && error.contains("f.toml\" line "), "{error}");
        }
        let one = named("kind = \"socketio-redis\"");
        assert!(targets(&format!("{one}{one}")).unwrap_err().contains("two targets"));
    }
}
