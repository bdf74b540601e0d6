//! The cookie in which a browser keeps the token that was entered on the page: scripts cannot read it, and it is sent
//! to no other site. It contains the token itself, because instances keep no sessions.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const NAME: &str = "rollcall_token";

/// The token in the cookie.
pub(super) fn token(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|p| p.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == NAME)?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()
}

/// The header that sets the cookie for a token; `is_secure` if it may only be sent over TLS.
pub fn set_cookie(token: &str, is_secure: bool) -> Option<HeaderValue> {
    cookie(&URL_SAFE_NO_PAD.encode(token), "", is_secure)
}

/// The header that removes it.
pub fn clear_cookie(is_secure: bool) -> Option<HeaderValue> {
    cookie("", "; Max-Age=0", is_secure)
}

fn cookie(value: &str, age: &str, is_secure: bool) -> Option<HeaderValue> {
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{NAME}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{age}").parse().ok()
}
