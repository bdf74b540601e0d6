//! The origin of a request according to the browser: its page's origin, and the name under which it knows the server.
//!
//! CORS keeps other sites' pages from reading answers, but not from sending simple requests or opening WebSockets;
//! and a site whose name resolves to 127.0.0.1 (DNS rebinding) has the same origin as the server. Without
//! credentials, requests from other origins and under other names are therefore refused.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

use crate::serve::problem::Problem;

/// Checks that a request uses a name of this machine, and comes from no other site's page.
pub(super) fn check_local(headers: &HeaderMap, allowed: &[String]) -> Result<(), Problem> {
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    if !host.is_some_and(is_loopback) {
        let detail = "without credentials this server answers only to the names localhost, 127.0.0.1 and [::1]; set \
                      read-token-file, write-token-file or jwt-key-file";
        return Err(Problem::forbidden(detail));
    }
    check_same_origin(headers, allowed)
}

/// Checks that a request comes from no page, from a page of this server, or from an allowed origin.
pub(super) fn check_same_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let site = origin.split_once("://").map(|(_, site)| site);
    let is_own = site.is_some() && site == own;
    if is_own || allowed.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    Err(Problem::forbidden("pages of this origin may not call; --cors-origin can allow it"))
}

/// Whether a name, with or without a port, is this machine's only.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let is_address = || name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    name.eq_ignore_ascii_case("localhost") || is_address()
}
