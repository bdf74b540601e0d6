//! JSON Web Tokens: verified, never issued. The key determines the algorithm, whatever a token claims.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;

use crate::serve::problem::Problem;

/// How far ahead the issuer's clock may be, in seconds.
const MAX_SKEW_S: f64 = 60.0;

/// A key, and the only algorithm that it is used for.
pub(super) struct JwtKey {
    key: DecodingKey,
    validation: Validation,
}

/// The claims of a token.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    /// The user.
    pub sub: String,
    /// When it expires, in seconds since the epoch.
    pub exp: Option<f64>,
    /// From when it is valid, in seconds since the epoch.
    pub nbf: Option<f64>,
    /// The rooms that its bearer may join.
    pub rooms: Option<BTreeSet<String>>,
}

impl JwtKey {
    /// A public key in PEM, or a secret.
    pub(super) fn read(text: &str) -> Result<Self, &'static str> {
        let trimmed = text.trim();
        if !trimmed.starts_with("-----BEGIN") {
            let secret = text.strip_suffix('\n').unwrap_or(text);
            let secret = secret.strip_suffix('\r').unwrap_or(secret);
            if secret.is_empty() {
                return Err("is empty; put the secret or the public key into it");
            }
            return Ok(Self::new(DecodingKey::from_secret(secret.as_bytes()), Algorithm::HS256));
        }
        if trimmed.contains("PRIVATE KEY-----") {
            return Err(
                "contains a private key; use the public key: only the issuer needs the private one",
            );
        }
        let pem = trimmed.as_bytes();
        // An uncompressed point of P-256; longer ones belong to curves of other algorithms.
        let is_p256 = |key: &DecodingKey| key.try_get_as_bytes().is_ok_and(|k| k.len() == 65);
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            Ok(Self::new(key, Algorithm::RS256))
        } else if let Some(key) = DecodingKey::from_ec_pem(pem).ok().filter(is_p256) {
            Ok(Self::new(key, Algorithm::ES256))
        } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            Ok(Self::new(key, Algorithm::EdDSA))
        } else {
            Err("is not a public key for RS256, ES256 (P-256) or EdDSA (Ed25519) in PEM")
        }
    }

    fn new(key: DecodingKey, algorithm: Algorithm) -> Self {
        let mut validation = Validation::new(algorithm);
        // Times are checked below; no setting names an audience.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        Self { key, validation }
    }

    /// The claims of a token, if it is signed with this key and valid now.
    pub(super) fn verify(
        &self,
        token: &str,
        now_s: f64,
        max_subject_bytes: usize,
    ) -> Result<Claims, Problem> {
        let refused = || Problem::unauthorized("the token is unknown or invalid");
        let claims: Claims =
            decode(token, &self.key, &self.validation).map_err(|_| refused())?.claims;
        if claims.exp.is_some_and(|exp| exp <= now_s) {
            return Err(Problem::unauthorized("the token has expired"));
        }
        if claims.nbf.is_some_and(|nbf| nbf > now_s + MAX_SKEW_S) {
            return Err(Problem::unauthorized("the token is not valid yet"));
        }
        if claims.sub.is_empty() || claims.sub.len() > max_subject_bytes {
            return Err(Problem::unauthorized("the token's sub is not an identifier of a user"));
        }
        Ok(claims)
    }
}
