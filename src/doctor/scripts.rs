//! Scripts: whether they compile here, and whether this is allowed to load them.

use super::finding::{Answer, Diagnosis};
use crate::error::Error;
use crate::redis::scripts::{Script, ensure_loaded};
use crate::state::{AskError, Partition};

pub(super) async fn scripts(partition: &mut Partition) -> Answer {
    for script in Script::ALL {
        let loaded = ensure_loaded(&mut partition.connection, script).await;
        match loaded.map_err(|error| AskError::from(Error::at("loading a script")(error))) {
            Ok(()) => {}
            Err(error) if error.is_forbidden() => return Err(error.into()),
            Err(error) => {
                let found = crate::error::chain(&error);
                return Ok(Diagnosis::failure(found, "no worker and no janitor can work here")
                    .advise("use Redis 7.0 or later, or Valkey, with scripts switched on"));
            }
        }
    }
    Ok(Diagnosis::ok(format!("all {} load", Script::ALL.len())))
}
