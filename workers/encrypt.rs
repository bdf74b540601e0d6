//! `encrypt`: session data, encrypted with the first key.

use rollcall::config::{Config, ConfigError};
use rollcall::keep::sessions::{Tally, encrypt};
use rollcall::state::{AskError, State};
use serde::Serialize;

use crate::progress::Progress;
use crate::query::{Answer, Output, Query, QueryError, SessionFlags};
use crate::table::{Page, plural};

/// Encrypt stored session data with the first key of --session-key-file: data that is plain, and data under another
/// of the keys.
///
/// Run it after you switch encryption on, and after you rotate the key; then remove the old key. Expiries stay the same.
/// Workers can keep running. You can stop the command and run it again at any time.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Encrypt {
    /// Only report how many sessions it would encrypt
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: SessionFlags,
}

/// The results for session data.
#[derive(Serialize)]
pub(crate) struct Encrypted {
    dry_run: bool,
    #[serde(flatten)]
    tally: Tally,
}

impl Encrypt {
    /// Checks that there are keys.
    ///
    /// # Errors
    /// If no key file is named.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        match self.config()?.session_key_file {
            Some(_) => Ok(()),
            None => Err(QueryError::NoKeys),
        }
    }
}

impl Query for Encrypt {
    type Answer = Encrypted;

    fn config(&self) -> Result<Config, ConfigError> {
        self.flags.load()
    }

    fn output(&self) -> &Output {
        &self.output
    }

    async fn ask(&self, state: &mut State) -> Result<Encrypted, AskError> {
        let mut progress = Progress::new(self.output.json);
        let tally = match state.session_keys.clone() {
            Some(keys) => {
                let tell = |tally: &Tally| {
                    progress.show(|| {
                        format!("{} looked at, {} encrypted", tally.sessions, tally.encrypted)
                    });
                };
                encrypt(state, &keys, self.dry_run, tell).await?
            }
            None => Tally::default(),
        };
        progress.end();
        Ok(Encrypted { dry_run: self.dry_run, tally })
    }
}

impl Answer for Encrypted {
    fn show(&self, page: &mut Page) {
        let Tally { sessions, encrypted, current, gone, unknown_key, changed } = &self.tally;
        if *sessions == 0 {
            return page.line("No session has data.");
        }
        let data = format!("Data of {}", plural(*encrypted, "session", "sessions"));
        page.line(match self.dry_run {
            true => format!("{data} would be encrypted."),
            false => format!("{data} encrypted."),
        });
        for (count, words) in [
            (current, "already encrypted with the first key"),
            (gone, "ended or expired meanwhile"),
            (unknown_key, "left: encrypted, but with none of these keys"),
            (changed, "left: changed repeatedly; run it again"),
        ] {
            if *count > 0 {
                page.line(format!("{count} {words}"));
            }
        }
    }
}
