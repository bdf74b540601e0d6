//! What a server says of itself and how it is set, asked once for all checks.

use std::collections::HashMap;

use redis::Value;

use super::finding::{Cli, Unseen};
use crate::redis::connect::Node;
use crate::redis::reply;
use crate::state::ask;

/// The parameters that checks look at: none of them is secret.
const PARAMETERS: &[&str] = &[
    "appendfsync",
    "busy-reply-threshold",
    "client-output-buffer-limit",
    "dir",
    "min-replicas-to-write",
    "save",
    "timeout",
];

/// What is known of a server.
pub(super) struct Facts {
    pub(super) cli: Cli,
    info: Result<HashMap<String, String>, Unseen>,
    parameters: Result<HashMap<String, String>, Unseen>,
}

impl Facts {
    pub(super) async fn gather(node: &mut Node) -> Self {
        let info = ask(&mut node.connection, &["INFO"]).await;
        let parameters =
            ask(&mut node.connection, &[&["CONFIG", "GET"], PARAMETERS].concat()).await;
        Self {
            cli: Cli::of(&node.info),
            info: info.map(read_info).map_err(Unseen::from),
            parameters: parameters.map(read_pairs).map_err(Unseen::from),
        }
    }

    /// Says what `INFO` has under this name.
    pub(super) fn info(&self, name: &str) -> Result<&str, Unseen> {
        let info = self.info.as_ref().map_err(Unseen::clone)?;
        info.get(name).map(String::as_str).ok_or_else(|| Unseen::unsaid(name))
    }

    /// A number that `INFO` has under this name.
    pub(super) fn number(&self, name: &str) -> Result<u64, Unseen> {
        self.info(name)?.parse().map_err(|_| Unseen::unsaid(name))
    }

    /// Says how a parameter is set (`CONFIG GET`).
    pub(super) fn parameter(&self, name: &str) -> Result<&str, Unseen> {
        let parameters = self.parameters.as_ref().map_err(Unseen::clone)?;
        parameters.get(name).map(String::as_str).ok_or_else(|| Unseen::unsaid(name))
    }

    /// How a parameter that is a number is set.
    pub(super) fn parameter_number(&self, name: &str) -> Result<u64, Unseen> {
        self.parameter(name)?.parse().map_err(|_| Unseen::unsaid(name))
    }
}

fn read_info(reply: Value) -> HashMap<String, String> {
    let text = reply::text(reply).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn read_pairs(reply: Value) -> HashMap<String, String> {
    let pairs = reply::pairs(reply).unwrap_or_default().into_iter();
    pairs.filter_map(|(name, value)| reply::text(name).zip(reply::text(value))).collect()
}

/// Facts as a test wants them.
#[cfg(test)]
pub(super) fn facts(info: &[(&str, &str)], parameters: &[(&str, &str)]) -> Facts {
    use redis::IntoConnectionInfo as _;
    let map = |pairs: &[(&str, &str)]| {
        Ok(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    };
    let cli = Cli::of(&"redis://localhost".into_connection_info().unwrap());
    Facts { cli, info: map(info), parameters: map(parameters) }
}
