//! Fernet tokens (<https://github.com/fernet/spec>): AES-128-CBC and HMAC-SHA256, in URL-safe base64.
//!
//! The specification uses random bytes as the initialisation vector; this uses a MAC over the session, the time of its
//! event and the data. Nobody without the key can predict it, it is the same each time, and different
//! events never share one.

use aes::Aes128;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::time::EventTime;

/// The first byte of every token.
const VERSION: u8 = 0x80;
/// The length of version and time.
const HEAD: usize = 9;
/// The length of a cipher block, and of an initialisation vector.
const BLOCK: usize = 16;
/// The length of a MAC.
const MAC: usize = 32;
/// The input of the MAC that makes an initialisation vector begins with this; that of a token's MAC begins with
/// [`VERSION`].
const IV_OF: &[u8] = b"rollcall session data\0";

/// A key: one half signs, the other encrypts.
pub(super) struct Key {
    /// Padded with zeros, as HMAC does with keys shorter than a block of the hash.
    sign: [u8; 64],
    encrypt: [u8; BLOCK],
}

impl Key {
    /// Reads 32 bytes in URL-safe base64.
    pub(super) fn read(text: &str) -> Option<Self> {
        let bytes: [u8; 2 * BLOCK] = URL_SAFE.decode(text).ok()?.try_into().ok()?;
        let (half, encrypt) = bytes.split_at(BLOCK);
        let mut sign = [0; 64];
        sign[..BLOCK].copy_from_slice(half);
        Some(Self { sign, encrypt: encrypt.try_into().ok()? })
    }

    fn mac(&self) -> Hmac<Sha256> {
        <Hmac<Sha256> as hmac::Mac>::new((&self.sign).into())
    }

    fn iv(&self, sid: &str, time: EventTime, data: &[u8]) -> [u8; BLOCK] {
        let mut mac = self.mac();
        mac.update(IV_OF);
        mac.update(&time.millis().to_be_bytes());
        mac.update(&(sid.len() as u64).to_be_bytes());
        mac.update(sid.as_bytes());
        mac.update(data);
        let mut iv = [0; BLOCK];
        iv.copy_from_slice(&mac.finalize().into_bytes()[..BLOCK]);
        iv
    }

    /// A token of the data, dated with the event's time in seconds.
    pub(super) fn seal(&self, sid: &str, time: EventTime, data: &[u8]) -> Vec<u8> {
        let iv = self.iv(sid, time, data);
        let padded = (data.len() / BLOCK + 1) * BLOCK;
        let mut token = Vec::with_capacity(HEAD + BLOCK + padded + MAC);
        token.push(VERSION);
        token.extend_from_slice(&time.seconds().to_be_bytes());
        token.extend_from_slice(&iv);
        token.extend_from_slice(data);
        token.resize(HEAD + BLOCK + padded, 0);
        let cipher = cbc::Encryptor::<Aes128>::new(&self.encrypt.into(), &iv.into());
        // There is room for the padding.
        let _padded = cipher.encrypt_padded_mut::<Pkcs7>(&mut token[HEAD + BLOCK..], data.len());
        let mut mac = self.mac();
        mac.update(&token);
        token.extend_from_slice(&mac.finalize().into_bytes());
        URL_SAFE.encode(token).into_bytes()
    }

    /// The content of a token, whatever its age; `None` if the token is not of this key.
    pub(super) fn open(&self, token: &[u8]) -> Option<Vec<u8>> {
        let mut token = decoded(token)?;
        let signed = token.len() - MAC;
        let mut mac = self.mac();
        mac.update(&token[..signed]);
        mac.verify_slice(&token[signed..]).ok()?;
        let (head, rest) = token[..signed].split_at_mut(HEAD + BLOCK);
        let iv: [u8; BLOCK] = head[HEAD..].try_into().ok()?;
        let cipher = cbc::Decryptor::<Aes128>::new(&self.encrypt.into(), &iv.into());
        cipher.decrypt_padded_mut::<Pkcs7>(rest).ok().map(<[u8]>::to_vec)
    }
}

/// The bytes of a value that has the form of a token.
fn decoded(token: &[u8]) -> Option<Vec<u8>> {
    // The version, and the beginning of a time whose seconds have fewer than 36 bits.
    let is_likely = token.starts_with(b"gAAAAA");
    let bytes = if is_likely { URL_SAFE.decode(token).ok()? } else { return None };
    let encrypted = bytes.len().checked_sub(HEAD + BLOCK + MAC)?;
    (encrypted > 0 && encrypted.is_multiple_of(BLOCK)).then_some(bytes)
}

/// Whether it has the form of a token.
pub(super) fn is_token(value: &[u8]) -> bool {
    decoded(value).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The specification's own example.
    const KEY: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const TOKEN: &str = "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";

    #[test]
    fn the_specification_s_token_is_read_and_a_broken_one_is_not() {
        let key = Key::read(KEY).unwrap();
        assert_eq!(key.open(TOKEN.as_bytes()), Some(b"hello".to_vec()));
        for n in 0..TOKEN.len() {
            let mut broken = TOKEN.as_bytes().to_vec();
            broken[n] = if broken[n] == b'B' { b'C' } else { b'B' };
            assert_eq!(key.open(&broken), None, "{n}");
        }
        for end in 0..TOKEN.len() {
            assert_eq!(key.open(&TOKEN.as_bytes()[..end]), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_again_and_is_the_same_each_time(
            data in proptest::collection::vec(any::<u8>(), 0..100),
            sid in ".{0,20}",
            ms in 1_000_000_000_000_u64..4_000_000_000_000,
        ) {
            let (key, time) = (Key::read(KEY).unwrap(), EventTime::from_millis(ms));
            let token = key.seal(&sid, time, &data);
            prop_assert_eq!(key.open(&token), Some(data.clone()));
            prop_assert!(is_token(&token));
            prop_assert_eq!(&key.seal(&sid, time, &data), &token);
            prop_assert_ne!(key.seal(&format!("{sid}x"), time, &data), token.clone());
            prop_assert_ne!(key.seal(&sid, EventTime::from_millis(ms + 1), &data), token);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = Key::read(KEY).unwrap();
            let _ = (key.open(&bytes), key.open(URL_SAFE.encode(&bytes).as_bytes()), is_token(&bytes));
        }
    }
}
