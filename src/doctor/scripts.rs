//! Scripts: whether they compile on this server, and whether the user may load and call them.

use super::finding::{Answer, Diagnosis, Unseen};
use crate::error::Error;
use crate::redis::reply;
use crate::redis::scripts::script::{Script, Way};
use crate::state::{AskError, Partition, ask};

pub(super) async fn scripts(partition: &mut Partition) -> Answer {
    let Some(connection) = partition.connection.open() else {
        return Err(Unseen::unsaid("anything: its node is away"));
    };
    for script in Script::ALL {
        let loaded = script.load(connection, Way::Digest).await;
        match loaded.map_err(|error| AskError::from(Error::at("loading a script")(error))) {
            Ok(()) => {}
            Err(error @ AskError::Server(Error::NoCommand { .. })) => return Err(error.into()),
            Err(error) if error.is_forbidden() => return Err(error.into()),
            Err(error) => {
                let found = crate::error::chain(&error);
                return Ok(Diagnosis::failure(found, "no worker and no janitor can work here")
                    .advise("use Redis 7.0 or later, or Valkey, with scripts enabled"));
            }
        }
    }
    // A script that has nothing to do.
    let digest = reply::text(ask(connection, &["SCRIPT", "LOAD", Script::RIGHTS]).await?);
    ask(connection, &["EVALSHA", &digest.unwrap_or_default(), "0"]).await?;
    Ok(Diagnosis::ok(format!("all {} load", Script::ALL.len())))
}
