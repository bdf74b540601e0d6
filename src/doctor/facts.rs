//! A server's description of itself and its configuration, read once for all checks.

use std::collections::HashMap;

use redis::Value;

use super::finding::{Diagnosis, Unseen};
use crate::config::Shell;
use crate::redis::connect::Node;
use crate::redis::reply;
use crate::state::ask;

/// The parameters that checks need; none of them is secret.
const PARAMETERS: &[&str] = &[
    "appendfsync",
    "busy-reply-threshold",
    "client-output-buffer-limit",
    "cluster-require-full-coverage",
    "dir",
    "min-replicas-to-write",
    "save",
    "timeout",
];

/// The facts about a server.
pub(super) struct Facts {
    pub(super) shell: Shell,
    info: Result<HashMap<String, String>, Unseen>,
    parameters: Result<HashMap<String, String>, Unseen>,
}

impl Facts {
    pub(super) async fn gather(node: &mut Node, shell: Shell) -> Self {
        let info = ask(&mut node.connection, &["INFO"]).await;
        let parameters =
            ask(&mut node.connection, &[&["CONFIG", "GET"], PARAMETERS].concat()).await;
        Self {
            shell,
            info: info.map(read_info).map_err(Unseen::from),
            parameters: parameters.map(read_pairs).map_err(Unseen::from),
        }
    }

    /// The value of this name in `INFO`.
    pub(super) fn info(&self, name: &str) -> Result<&str, Unseen> {
        let info = self.info.as_ref().map_err(Unseen::clone)?;
        info.get(name).map(String::as_str).ok_or_else(|| Unseen::unsaid(name))
    }

    /// A number of this name in `INFO`.
    pub(super) fn number(&self, name: &str) -> Result<u64, Unseen> {
        self.info(name)?.parse().map_err(|_| Unseen::unsaid(name))
    }

    /// The value of a parameter (`CONFIG GET`).
    pub(super) fn parameter(&self, name: &str) -> Result<&str, Unseen> {
        let parameters = self.parameters.as_ref().map_err(Unseen::clone)?;
        parameters.get(name).map(String::as_str).ok_or_else(|| Unseen::unsaid(name))
    }

    /// The value of a numeric parameter.
    pub(super) fn parameter_number(&self, name: &str) -> Result<u64, Unseen> {
        self.parameter(name)?.parse().map_err(|_| Unseen::unsaid(name))
    }

    /// Advises to set a parameter of the server, now and permanently; on a managed server, in the provider's
    /// settings.
    pub(super) fn set(&self, diagnosis: Diagnosis, parameter: &str, value: &str) -> Diagnosis {
        let provider = format!("set {parameter} to {value} in the provider's settings");
        match &self.parameters {
            Err(Unseen::NoCommand(_)) => diagnosis.advise(format!(
                "this server has no CONFIG: {provider} or, if the server is your own, in redis.conf"
            )),
            Err(_) => self
                .configured(diagnosis, parameter, value)
                .advise(format!("if this user may not because the server is managed: {provider}")),
            Ok(_) => self.configured(diagnosis, parameter, value),
        }
    }

    fn configured(&self, diagnosis: Diagnosis, parameter: &str, value: &str) -> Diagnosis {
        diagnosis
            .run(self.shell.redis_cli(&["CONFIG", "SET", parameter, value]))
            .configure(format!("{parameter} {value}"))
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

/// Facts for a test.
#[cfg(test)]
pub(super) fn facts(info: &[(&str, &str)], parameters: &[(&str, &str)]) -> Facts {
    use crate::config::{Config, Gathered};
    let map = |pairs: &[(&str, &str)]| {
        Ok(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    };
    let config = Config::resolve(&Gathered::default()).unwrap();
    let shell = Shell::of(&config.redis, &config.deployment);
    Facts { shell, info: map(info), parameters: map(parameters) }
}
