//! The settings' flags of one command.
//!
//! Here clap only parses the command line. Values stay text and are read later, together with those of the
//! environment and the file, so that every error can say where its value came from.

use std::ffi::OsString;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::Config;
use super::error::{ConfigError, Origin};
use super::gather::{CONFIG_VARIABLE, Gathered, definitions};

/// The flags of the group `G` (see [`super::settings`]) and `--config`, to be flattened into a command.
pub struct Flags<G> {
    given: Vec<(&'static str, OsString)>,
    config: Option<OsString>,
    group: PhantomData<fn() -> G>,
}

impl<G> Flags<G> {
    /// Reads the environment and the file, and makes the configuration.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::resolve(&self.gather()?)
    }

    /// Reads the environment and the file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn gather(&self) -> Result<Gathered, ConfigError> {
        self.gather_with(std::env::vars_os().collect())
    }

    /// Reads these variables and the file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn gather_with(
        &self,
        variables: Vec<(OsString, OsString)>,
    ) -> Result<Gathered, ConfigError> {
        let mut gathered = Gathered::default();
        for (key, value) in &self.given {
            gathered.add_os(key, value, Origin::Flag)?;
        }
        let variable = variables
            .iter()
            .find(|(name, value)| name == CONFIG_VARIABLE && !value.is_empty())
            .map(|(_, value)| (PathBuf::from(value), Origin::Env(CONFIG_VARIABLE.to_owned())));
        let flag = self.config.as_ref().map(|path| (PathBuf::from(path), Origin::Flag));
        gathered.add_environment(variables)?;
        if let Some((path, origin)) = flag.or(variable) {
            gathered.add_file(&path, origin)?;
        }
        Ok(gathered)
    }
}

/// Values may be secret: only the names are shown.
impl<G> fmt::Debug for Flags<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.given.iter().map(|(key, _)| key)).finish()
    }
}

impl<G> Clone for Flags<G> {
    fn clone(&self) -> Self {
        Self { given: self.given.clone(), config: self.config.clone(), group: PhantomData }
    }
}

/// The flags of `G`. Their values stay text, and help does not show the values of their variables.
fn arguments<G: Args>() -> impl Iterator<Item = Arg> {
    let group = G::augment_args(Command::new("settings"));
    let arguments: Vec<Arg> = group.get_arguments().cloned().collect();
    arguments.into_iter().map(|arg| {
        arg.value_parser(clap::value_parser!(OsString)).hide_env_values(true).required(false)
    })
}

fn config_argument() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env(CONFIG_VARIABLE)
        .hide_env_values(true)
        .value_parser(clap::value_parser!(OsString))
        .help("TOML file of settings, with the flags' names as keys; flags and environment override it")
}

impl<G: Args> Args for Flags<G> {
    fn augment_args(command: Command) -> Command {
        command.arg(config_argument()).args(arguments::<G>())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<G: Args> FromArgMatches for Flags<G> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flag = |id: &str| match matches.value_source(id) {
            Some(ValueSource::CommandLine) => matches.get_one::<OsString>(id).cloned(),
            _ => None,
        };
        let given = arguments::<G>().filter_map(|arg| {
            let value = flag(arg.get_id().as_str())?;
            let key = definitions().iter().find(|d| Some(d.key.as_str()) == arg.get_long())?;
            Some((key.key.as_str(), value))
        });
        Ok(Self { given: given.collect(), config: flag("config"), group: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
