//! Encryption of stored session data: the keys in a file, and their use.
//!
//! A worker encrypts what it stores under `session:<sid>`; commands and `serve` decrypt it if they have the keys.
//! Nothing here shows a key, and no error quotes one.

mod fernet;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use fernet::Key;

use crate::files::{FileError, Watched};
use crate::time::EventTime;

/// The setting that names the file.
pub const SETTING: &str = "session-key-file";

/// The keys in the file, which is read again when it changes; cheap to clone.
#[derive(Clone)]
pub struct SessionKeys(Arc<Watched<Ring>>);

/// The keys in the file at one time: the first encrypts, all decrypt.
pub struct Ring {
    first: Key,
    others: Vec<Key>,
}

/// The content of a session's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// No token of one of the keys: plain, or encrypted with another key.
    Plain,
    /// Encrypted with the first key.
    ByFirst(Vec<u8>),
    /// Encrypted with another of the keys.
    ByOther(Vec<u8>),
}

impl SessionKeys {
    /// The keys in a file; `None` if no file is named.
    ///
    /// # Errors
    /// If it cannot be read, or a line is not a key.
    pub fn open(path: &Option<PathBuf>) -> Result<Option<Self>, FileError> {
        Ok(Watched::open(SETTING, path, Ring::read)?.map(|file| Self(Arc::new(file))))
    }

    /// The current keys in the file.
    pub fn get(&self) -> Arc<Ring> {
        self.0.get()
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys")
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ring")
    }
}

impl Ring {
    fn read(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Option<Vec<Key>> = lines.map(Key::read).collect();
        let keys = keys.ok_or(
            "a line is no Fernet key; write one per line, each 32 bytes in URL-safe base64, as Python's \
             Fernet.generate_key() and `openssl rand -base64 32 | tr /+ _-` make them",
        )?;
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or("the file is empty; write a Fernet key into it")?;
        Ok(Self { first, others: keys.collect() })
    }

    /// The data of a session at the time of its event, as a token under the first key. The same event gives the same
    /// token, whoever makes it.
    pub fn seal(&self, sid: &str, time: EventTime, data: &[u8]) -> Vec<u8> {
        self.first.seal(sid, time, data)
    }

    /// The content of a stored value.
    pub fn open(&self, stored: &[u8]) -> Opened {
        if let Some(data) = self.first.open(stored) {
            return Opened::ByFirst(data);
        }
        let other = self.others.iter().find_map(|key| key.open(stored));
        other.map_or(Opened::Plain, Opened::ByOther)
    }
}

impl Opened {
    /// The decrypted data, if it was encrypted with one of the keys.
    pub fn data(self) -> Option<Vec<u8>> {
        match self {
            Self::Plain => None,
            Self::ByFirst(data) | Self::ByOther(data) => Some(data),
        }
    }
}

/// Whether a stored value looks like a Fernet token under any key.
pub fn is_token(stored: &[u8]) -> bool {
    fernet::is_token(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 2] = [
        "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
        "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    ];

    fn ring(keys: &[&str]) -> Ring {
        Ring::read(&keys.join("\n")).unwrap()
    }

    #[test]
    fn after_a_rotation_the_former_key_still_decrypts() {
        let time = EventTime::from_millis(1_790_000_000_123);
        let token = ring(&KEYS[..1]).seal("s", time, b"{}");
        assert!(is_token(&token));
        let rotated = ring(&[KEYS[1], KEYS[0]]);
        assert_eq!(rotated.open(&token), Opened::ByOther(b"{}".to_vec()));
        assert_eq!(ring(&KEYS[1..]).open(&token), Opened::Plain);
        assert_eq!(rotated.open(b"{\"cart\":[]}"), Opened::Plain);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        assert_eq!(ring(&["", KEYS[0], "  ", KEYS[1], ""]).others.len(), 1);
        for text in ["", "\n \n", "secret", &KEYS[0][1..], &format!("{}x", KEYS[0]), "# cw_0x689R"]
        {
            let why = Ring::read(text).unwrap_err();
            assert!(!why.contains("secret") && why.contains("Fernet key"), "{why}");
        }
        let shown = format!("{:?}", ring(&KEYS));
        assert_eq!(shown, "Ring");
    }
}
