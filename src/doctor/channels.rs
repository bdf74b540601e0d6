//! The channels that a role needs: a worker subscribes to those by which owners show that they are alive, a notifier
//! publishes on those of its targets.

use super::access::{Role, pattern_base};
use crate::config::{Config, Sink};
use crate::state::literal;

/// The channels of one kind, and an example.
pub(super) struct Channel {
    /// The pattern as `ACL SETUSER` takes it.
    pub(super) right: String,
    pub(super) name: String,
}

impl Channel {
    fn owner(config: &Config, base: &str) -> Self {
        let right = format!("&{}rollcall:owner:*", pattern_base(&config.deployment));
        Self { right, name: format!("{base}rollcall:owner:0") }
    }

    fn of(sink: &Sink) -> Option<Self> {
        Some(match sink {
            Sink::SocketioRedis { channel, .. } => {
                Self { right: format!("&{}#*", literal(channel)), name: format!("{channel}#0") }
            }
            Sink::SocketioPython { channel, .. } | Sink::Pubsub { channel } => {
                Self { right: format!("&{}", literal(channel)), name: channel.clone() }
            }
            Sink::Webhook(_) => return None,
        })
    }
}

/// The channels of a role with these settings; for a notifier without targets, those of a Node server.
pub(super) fn channels(config: &Config, role: Role, base: &str) -> Vec<Channel> {
    if role != Role::Notifier {
        return vec![Channel::owner(config, base)];
    }
    let usual = Sink::SocketioRedis { channel: "socket.io".to_owned(), namespace: "/".to_owned() };
    let targets: Vec<Channel> =
        config.notify.iter().filter_map(|target| Channel::of(&target.sink)).collect();
    if targets.is_empty() { Channel::of(&usual).into_iter().collect() } else { targets }
}
