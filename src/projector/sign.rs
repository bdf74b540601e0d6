//! The owner's sign of life: a subscription that the server drops when the process dies, in whatever way.

use futures_util::StreamExt as _;
use redis::aio::PubSub;
use tokio::time::{Duration, timeout};
use tracing::debug;

use crate::config::Address;
use crate::error::Error;
use crate::redis::connect::subscribe;

/// The time limit of subscribing.
const WITHIN: Duration = Duration::from_secs(2);

/// A subscription to the channel of an owner's session.
pub(super) struct Sign(PubSub);

impl Sign {
    /// Subscribes; `None` if this user may not, or the server does not answer in time. Takeovers then depend on the
    /// owner's progress alone.
    pub(super) async fn raise(at: &Address, channel: &str) -> Option<Self> {
        match timeout(WITHIN, subscribe(at, channel)).await {
            Ok(Ok(subscription)) => Some(Self(subscription)),
            Ok(Err(error)) => {
                debug!(
                    channel,
                    error = crate::error::chain(&error),
                    "no subscription shows that this worker is alive"
                );
                None
            }
            Err(_) => None,
        }
    }

    /// Waits until the subscription is gone.
    pub(super) async fn lost(sign: &mut Option<Self>) -> Error {
        match sign {
            Some(Self(subscription)) => {
                let mut messages = subscription.on_message();
                // Messages on the channel have no meaning.
                while messages.next().await.is_some() {}
                Error::SignLost
            }
            None => std::future::pending().await,
        }
    }
}
