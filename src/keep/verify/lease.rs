//! The lease of a shadow: a key with a short expiry, renewed while the process is alive.

use std::time::{Duration, Instant};

use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;

use crate::key::Keys;
use crate::redis::reply;
use crate::state::{AskError, ask};

/// How long it outlives a killed process.
const LIFE_MS: &str = "2500";
/// How often it is renewed.
const PAUSE: Duration = Duration::from_millis(500);
/// How long to wait for a lease whose process may be dead.
const PATIENCE: Duration = Duration::from_secs(4);

/// Held until dropped.
pub(super) struct Lease(JoinHandle<()>);

impl Lease {
    pub(super) fn key(keys: &Keys) -> String {
        keys.named("lease")
    }

    /// Takes the lease as soon as nobody has it.
    ///
    /// # Errors
    /// If another process keeps it, the server refuses, or no reply came.
    pub(super) async fn take(
        mut connection: MultiplexedConnection,
        keys: &Keys,
    ) -> Result<Self, AskError> {
        let (key, token) = (Self::key(keys), format!("{:016x}", fastrand::u64(..)));
        let begun = Instant::now();
        while ask(&mut connection, &["SET", &key, &token, "NX", "PX", LIFE_MS]).await? == Value::Nil
        {
            if begun.elapsed() > PATIENCE {
                return Err(AskError::ShadowInUse { key: keys.base().to_owned() });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(Self(tokio::spawn(renew(connection, key, token))))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Renews the lease until another process has it. That process removes the shadow, which its owner will notice.
async fn renew(mut connection: MultiplexedConnection, key: String, token: String) {
    loop {
        tokio::time::sleep(PAUSE).await;
        match ask(&mut connection, &["GET", &key]).await.map(reply::text) {
            Ok(Some(found)) if found != token => return,
            Ok(_) => {
                // If it fails, it is tried again while there is time.
                let _renewed = ask(&mut connection, &["SET", &key, &token, "PX", LIFE_MS]).await;
            }
            Err(_) => {}
        }
    }
}
