//! Why settings are refused. Every error names the setting, the source of its value, the value and the remedy. None
//! ever contains a secret.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment variable of this name.
    Env(String),
    /// A line of the settings file, counted from 1.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line that names the setting.
        line: usize,
    },
    /// No source: nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::File { path, line } => write!(f, "file {path:?} line {line}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Settings that cannot be used; the command exits with 64.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key in the file, or a variable in the environment, that names no setting.
    #[error("there is no setting {name:?} ({origin}); {}", remedy(nearest.as_deref()))]
    Unknown {
        /// What was given.
        name: String,
        /// Where.
        origin: Origin,
        /// A known name that is similar.
        nearest: Option<String>,
    },
    /// A value that a setting cannot have, alone or beside another setting.
    #[error("{setting} = {got} ({origin}): {why}")]
    Refused {
        /// The setting.
        setting: &'static str,
        /// Where the value came from.
        origin: Origin,
        /// The value, quoted; `"***"` for what is secret.
        got: String,
        /// What is wrong with it, and the remedy.
        why: String,
    },
    /// A settings file that is not TOML.
    #[error("{path:?} line {line} is not TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser expected. Its own error is not kept: it quotes the line, which may hold
        /// a password.
        message: String,
    },
    /// A file that cannot be read.
    #[error(
        "{setting} = {path:?} ({origin}): cannot read the file; name one that is readable text"
    )]
    Unreadable {
        /// The setting that names the file.
        setting: &'static str,
        /// Where that came from.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
}

fn remedy(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("did you mean {name}?"),
        None => "remove it (`rollcall config print` lists them all)".to_owned(),
    }
}

/// The candidate for which `name` is most likely a misspelling, if one is near enough.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let limit = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_name_that_was_meant() {
        let names = ["takeover", "keep", "batch", "standbys", "redis-url"];
        for (slip, meant) in [
            ("takeovr", Some("takeover")),
            ("redis_url", Some("redis-url")),
            ("kep", Some("keep")),
            ("batchs", Some("batch")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(slip, names).as_deref(), meant, "{slip}");
        }
    }
}
