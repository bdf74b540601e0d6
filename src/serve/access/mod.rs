//! Authentication and authorisation.
//!
//! Without configured credentials, everybody on this machine may do everything, and nobody else anything: the
//! listener is on loopback, and `source` keeps other sites' pages out. With credentials, a request must carry a
//! token: one from a file, or a JSON Web Token, in the header `Authorization` or in the cookie that the page got for
//! it. A Socket.IO connection carries it in `auth`. Files are read again when they change.

mod caller;
mod cookie;
mod jwt;
mod source;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

pub use caller::{ADMIN, Caller, Rooms};
pub use cookie::{clear_cookie, set_cookie};

use self::jwt::JwtKey;
use super::problem::Problem;
use crate::config::ServeConfig;
use crate::files::{FileError, Watched};

/// The access rules from the settings and the files they name; cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Parts>);

struct Parts {
    read_tokens: Option<Watched<Tokens>>,
    write_tokens: Option<Watched<Tokens>>,
    jwt_key: Option<Watched<JwtKey>>,
    origins: Vec<String>,
    max_subject_bytes: usize,
}

/// Digests of the tokens of a file, so that the time of a lookup reveals nothing about other tokens.
struct Tokens(HashSet<[u8; 32]>);

impl Access {
    /// Reads the files.
    ///
    /// # Errors
    /// If one cannot be read or contains no key; the error names the setting.
    pub fn new(config: &ServeConfig, max_subject_bytes: usize) -> Result<Self, FileError> {
        let ServeConfig { read_token_file, write_token_file, jwt_key_file, .. } = config;
        Ok(Self(Arc::new(Parts {
            read_tokens: Watched::open("read-token-file", read_token_file, Tokens::read)?,
            write_tokens: Watched::open("write-token-file", write_token_file, Tokens::read)?,
            jwt_key: Watched::open("jwt-key-file", jwt_key_file, JwtKey::read)?,
            origins: config.cors_origins.clone(),
            max_subject_bytes,
        })))
    }

    /// Whether no credentials are configured.
    pub fn is_open(&self) -> bool {
        let Parts { read_tokens, write_tokens, jwt_key, .. } = &*self.0;
        read_tokens.is_none() && write_tokens.is_none() && jwt_key.is_none()
    }

    /// The caller of a request with these headers.
    ///
    /// # Errors
    /// 401 without a valid token, 403 if it comes from a forbidden origin.
    pub fn of_headers(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        self.check_source(headers)?;
        if self.is_open() {
            return Ok(Caller::anybody());
        }
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let token = value.to_str().ok().and_then(bearer).ok_or_else(|| {
                Problem::unauthorized("the header Authorization must be Bearer and a token")
            })?;
            return self.of_token(Some(token));
        }
        let cookie = cookie::token(headers);
        if cookie.is_some() {
            // Browsers send it by themselves, so only the server's own pages count.
            source::check_same_origin(headers, &self.0.origins)?;
        }
        self.of_token(cookie.as_deref())
    }

    /// The caller with a token; none is needed if no credentials are configured.
    ///
    /// # Errors
    /// 401 if it is not valid.
    pub fn of_token(&self, token: Option<&str>) -> Result<Caller, Problem> {
        if self.is_open() {
            return Ok(Caller::anybody());
        }
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            let detail =
                "credentials are required: send the header Authorization with Bearer and a token";
            return Err(Problem::unauthorized(detail));
        };
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let holds = |file: &Option<Watched<Tokens>>| {
            file.as_ref().is_some_and(|file| file.get().0.contains(&digest))
        };
        let (may_read, may_write) = (holds(&self.0.read_tokens), holds(&self.0.write_tokens));
        if may_read || may_write {
            return Ok(Caller::of_token(self.clone(), token, may_read, may_write));
        }
        let key = self.0.jwt_key.as_ref().ok_or_else(unknown_token)?;
        let claims = key.get().verify(token, now_s(), self.0.max_subject_bytes)?;
        Ok(Caller::of_claims(self.clone(), token, claims))
    }

    /// Checks the origin of a request. Without credentials it may come neither from another site's page nor under a
    /// name other than this machine's.
    ///
    /// # Errors
    /// 403 otherwise.
    pub fn check_source(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.is_open() { source::check_local(headers, &self.0.origins) } else { Ok(()) }
    }
}

fn unknown_token() -> Problem {
    Problem::unauthorized("the token is unknown or no longer valid")
}

/// The token of `Bearer <token>`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Tokens {
    /// One token per line, except empty lines and those that begin with `#`.
    fn read(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim);
        let tokens = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(Self(tokens.map(|token| Sha256::digest(token.as_bytes()).into()).collect()))
    }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests;
