//! Gathers the settings: flags override the environment, which overrides the file. Everything else has its default.
//!
//! The table of settings is read from clap's definitions, so there is no second list to maintain. Commands accept
//! only some flags, but the environment and the file may hold every setting for every command.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::LazyLock;

use clap::{Arg, CommandFactory as _};
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin, nearest};
use super::notify::{self, Tables, Target};
use super::serve::{Networks, Origins};
use super::settings::Settings;
use super::url::{RedisUrl, Secret};
use super::values::Thresholds;
use crate::projection::Projections;

/// Every environment variable begins with this.
const VARIABLES: &str = "ROLLCALL_";

/// The environment variable that names the settings file.
pub(super) const CONFIG_VARIABLE: &str = "ROLLCALL_CONFIG";

/// A setting, as its definition for clap describes it.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its name: the flag without `--`, and the key in the file.
    pub key: String,
    /// Its environment variable.
    pub env: String,
    /// The heading under which help lists it.
    pub heading: String,
    /// The text of its default, if that is a constant.
    pub default: Option<String>,
    /// How it is written in a file.
    pub kind: Kind,
}

/// How a setting is written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As a number.
    Number,
    /// As text in quotes.
    Text,
    /// As text in quotes, or an array.
    List,
    /// As text in quotes; never shown.
    Secret,
    /// As text in quotes; a part of it is never shown.
    Url,
}

impl Definition {
    fn of(arg: &Arg) -> Self {
        let text = |text: &OsStr| text.to_string_lossy().into_owned();
        let parsed = arg.get_value_parser().type_id();
        let is = |types: &[TypeId]| types.iter().any(|id| parsed == *id);
        let kind = if is(&[TypeId::of::<Secret>()]) {
            Kind::Secret
        } else if is(&[TypeId::of::<RedisUrl>()]) {
            Kind::Url
        } else if is(&[TypeId::of::<Projections>(), TypeId::of::<Thresholds>()])
            || is(&[TypeId::of::<Origins>(), TypeId::of::<Networks>()])
        {
            Kind::List
        } else if is(&[TypeId::of::<u16>(), TypeId::of::<u64>(), TypeId::of::<usize>()]) {
            Kind::Number
        } else {
            Kind::Text
        };
        Self {
            key: arg.get_long().unwrap_or_default().to_owned(),
            env: arg.get_env().map(text).unwrap_or_default(),
            heading: arg.get_help_heading().unwrap_or_default().to_owned(),
            default: arg.get_default_values().first().map(|value| text(value)),
            kind,
        }
    }

    /// `text` as it may be shown, without secrets.
    fn shown(&self, text: &str) -> String {
        match self.kind {
            Kind::Secret => "***".to_owned(),
            Kind::Url => RedisUrl::from(text.to_owned()).to_string(),
            _ => text.to_owned(),
        }
    }
}

/// Every setting, in the order of help.
pub fn definitions() -> &'static [Definition] {
    static ALL: LazyLock<Vec<Definition>> =
        LazyLock::new(|| Settings::command().get_arguments().map(Definition::of).collect());
    &ALL
}

/// The setting of this name.
fn definition(key: &str) -> Option<&'static Definition> {
    definitions().iter().find(|definition| definition.key == key)
}

/// A value somebody set.
#[derive(Clone, Debug)]
struct Given {
    text: Secret,
    origin: Origin,
}

/// What was set, and by whom. The first value that is added wins.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    settings: BTreeMap<&'static str, Given>,
    notify: Tables,
}

impl Gathered {
    /// The settings given by flags, as pairs of name and text, such as `("batch", "100")`.
    ///
    /// # Errors
    /// If there is no such setting.
    pub fn from_flags<K: AsRef<str>, V: AsRef<str>>(
        flags: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, ConfigError> {
        let mut gathered = Self::default();
        for (key, text) in flags {
            gathered.add(key.as_ref(), text.as_ref(), Origin::Flag)?;
        }
        Ok(gathered)
    }

    /// Adds what the environment sets. An empty variable counts as absent, as everywhere in Rollcall. A variable that
    /// begins with `ROLLCALL_` and is not a setting is refused, except those of tests and those that Kubernetes makes
    /// for a service named `rollcall`.
    ///
    /// # Errors
    /// Names the variable that is unknown or not text.
    pub fn add_environment(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            if !name.starts_with(VARIABLES) || name == CONFIG_VARIABLE || is_foreign(&name, &value)
            {
                continue;
            }
            let Some(definition) = definitions().iter().find(|d| d.env == name) else {
                let known = definitions().iter().map(|d| d.env.as_str());
                let nearest = nearest(&name, known.chain([CONFIG_VARIABLE]));
                return Err(ConfigError::Unknown {
                    origin: Origin::Env(name.clone()),
                    name,
                    nearest,
                });
            };
            if !value.is_empty() {
                self.add_os(&definition.key, &value, Origin::Env(name))?;
            }
        }
        Ok(())
    }

    /// Adds what the file at `path` sets; `origin` is who named the file.
    ///
    /// # Errors
    /// If it cannot be read or is not TOML, has an unknown key or a value of an impossible shape.
    pub fn add_file(&mut self, path: &Path, origin: Origin) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            let path = path.to_owned();
            ConfigError::Unreadable { setting: "config", origin, path, source }
        })?;
        self.add_toml(&text, path)
    }

    /// Adds the settings in `text`, the content of the file at `path`.
    ///
    /// # Errors
    /// If it is not TOML, has an unknown key or a value of an impossible shape.
    pub fn add_toml(&mut self, text: &str, path: &Path) -> Result<(), ConfigError> {
        let line = |at: usize| text.bytes().take(at).filter(|b| *b == b'\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line(span.start)),
            message: error.message().to_owned(),
        })?;
        for (key, value) in table.get_ref() {
            let origin = |at: usize| Origin::File { path: path.to_owned(), line: line(at) };
            if key.get_ref() == notify::KEY {
                self.notify = Tables::read(text, origin)?;
                continue;
            }
            let origin = origin(key.span().start);
            let kind = definition(key.get_ref()).map(|definition| definition.kind);
            match text_of(value.get_ref(), kind) {
                Some(text) => self.add(key.get_ref(), &text, origin)?,
                None => return Err(misshapen(key.get_ref(), origin)),
            }
        }
        Ok(())
    }

    /// Adds a value unless it is set already.
    fn add(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let definition = definition(key).ok_or_else(|| unknown(key, origin.clone()))?;
        let given = Given { text: Secret::from(text.to_owned()), origin };
        self.settings.entry(&definition.key).or_insert(given);
        Ok(())
    }

    /// [`Gathered::add`] for values of the operating system, which may not be text.
    pub(super) fn add_os(
        &mut self,
        key: &'static str,
        value: &OsStr,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let Some(text) = value.to_str() else {
            let why = "must be valid UTF-8".to_owned();
            let got = "bytes that are not text".to_owned();
            return Err(ConfigError::Refused { setting: key, origin, got, why });
        };
        self.add(key, text, origin)
    }

    /// The text of a setting or of its default, without secrets.
    pub fn shown(&self, definition: &Definition) -> Option<String> {
        let given = self.settings.get(definition.key.as_str()).map(|given| given.text.expose());
        given.or(definition.default.as_deref()).map(|text| definition.shown(text))
    }

    /// The settings that have another value than in `other`, by name.
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        fn text<'g>(of: &'g Gathered, definition: &'g Definition) -> Option<&'g str> {
            let given = of.settings.get(definition.key.as_str()).map(|given| given.text.expose());
            given.or(definition.default.as_deref())
        }
        let differ = definitions().iter().filter(|one| text(self, one) != text(other, one));
        differ.map(|one| one.key.as_str()).collect()
    }

    /// Where a setting's value comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.settings.get(key).map_or(Origin::Default, |given| given.origin.clone())
    }

    /// The settings that somebody set, by name.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.settings.keys().copied()
    }

    /// The targets of the notifier.
    ///
    /// # Errors
    /// Names the table and what is wrong with it.
    pub(super) fn targets(&self) -> Result<Vec<Target>, ConfigError> {
        self.notify.targets()
    }

    /// The tables of the notifier's targets, as TOML.
    pub fn targets_shown(&self) -> String {
        self.notify.shown()
    }

    /// What was set, as arguments for clap's parser of the definitions.
    pub(super) fn arguments(&self) -> impl Iterator<Item = String> {
        self.settings.iter().map(|(key, given)| format!("--{key}={}", given.text.expose()))
    }

    /// The error for a refused value of `key`.
    pub(super) fn refuse(&self, key: &str, why: impl ToString) -> ConfigError {
        let Some(definition) = definition(key) else { return unknown(key, Origin::Default) };
        let shown = self.shown(definition);
        let got = shown.map_or("nothing".to_owned(), |text| format!("{:?}", cut(&text)));
        let (origin, why) = (self.origin(key), why.to_string());
        ConfigError::Refused { setting: &definition.key, origin, got, why }
    }
}

fn unknown(key: &str, origin: Origin) -> ConfigError {
    let known = definitions().iter().map(|definition| definition.key.as_str());
    let known = known.chain([notify::KEY]);
    ConfigError::Unknown { nearest: nearest(key, known), name: cut(key).to_owned(), origin }
}

/// The error for a value in the file that no flag could have. The value is not shown: it may contain a secret at any
/// depth.
fn misshapen(key: &str, origin: Origin) -> ConfigError {
    let Some(definition) = definition(key) else { return unknown(key, origin) };
    let why = match definition.kind {
        Kind::Number => "must be a number",
        Kind::List => {
            "must be text in quotes or an array, such as [\"online\"] for projections or \
             [{ up = 10, down = 5 }] for thresholds"
        }
        Kind::Text | Kind::Secret | Kind::Url => "must be text in quotes",
    };
    let got = "a value of another type".to_owned();
    ConfigError::Refused { setting: &definition.key, origin, got, why: why.to_owned() }
}

/// The first 80 characters, so that an error fits on a line.
fn cut(text: &str) -> &str {
    text.char_indices().nth(80).map_or(text, |(at, _)| &text[..at])
}

/// Whether a variable with our prefix is not ours: those of tests, and the links that Kubernetes makes for every
/// service (`ROLLCALL_SERVICE_HOST`, `ROLLCALL_PORT_9464_TCP_ADDR`, …). `ROLLCALL_HTTP_PORT=9000` is a mistake; the
/// value of a link would be `tcp://…`.
fn is_foreign(name: &str, value: &OsStr) -> bool {
    let link = || value.to_string_lossy().contains("://");
    let numbered = |port: &str| port.starts_with(|c: char| c.is_ascii_digit());
    name.starts_with("ROLLCALL_TEST_")
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT") && link()
        || name.split_once("_PORT_").is_some_and(|(_, port)| numbered(port))
}

/// A value of the file as the text of a flag; `None` if no text can express its shape.
fn text_of(value: &DeValue<'_>, kind: Option<Kind>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if kind != Some(Kind::List) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string())
        }
        DeValue::Array(items) if kind == Some(Kind::List) => {
            let items: Option<Vec<_>> = items.iter().map(|item| item_of(item.get_ref())).collect();
            Some(items?.join(","))
        }
        _ => None,
    }
}

/// An element of a list: a name, or `{ up = 10, down = 5 }`.
fn item_of(item: &DeValue<'_>) -> Option<String> {
    match item {
        DeValue::String(name) => Some(name.to_string()),
        DeValue::Table(pair) if pair.len() == 2 => {
            let number = |key: &str| text_of(pair.get(key)?.get_ref(), Some(Kind::Number));
            Some(format!("{}:{}", number("up")?, number("down")?))
        }
        _ => None,
    }
}
