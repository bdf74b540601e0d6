//! The client of a request: the address at the other end, or the one that trusted proxies name.
//!
//! A proxy is believed only if its own address is in `--trusted-proxies`. Of the addresses that it names, the
//! rightmost one that is not a trusted proxy is the client; the client may have made up everything to the left of it.

use std::net::{IpAddr, SocketAddr};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, header};

use super::Context;
use super::problem::Problem;
use crate::config::Network;

/// The other end of a connection; each request carries it.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(pub IpAddr);

impl Client {
    /// The client of a request that came over a connection of this server.
    pub fn of(extensions: &Extensions, headers: &HeaderMap, trusted: &[Network]) -> Option<Self> {
        let Peer(peer) = extensions.get::<Peer>()?;
        Some(Self(behind_proxies(peer.ip().to_canonical(), headers, trusted)))
    }
}

impl FromRequestParts<Context> for Client {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Problem> {
        let trusted = &context.config.serve.trusted_proxies;
        Self::of(&parts.extensions, &parts.headers, trusted)
            .ok_or_else(|| Problem::bad_request("the connection has no address"))
    }
}

fn behind_proxies(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return peer;
    }
    let client = |name: HeaderName, read: fn(&str) -> Option<IpAddr>| {
        let lines: Vec<&str> =
            headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
        let mut nearest = None;
        for part in lines.join(",").rsplit(',').filter(|part| !part.trim().is_empty()) {
            // An unreadable address ends the chain, and the last readable one counts.
            let Some(address) = read(part.trim()) else { break };
            nearest = Some(address);
            if !is_trusted(address) {
                break;
            }
        }
        nearest
    };
    let x_forwarded_for = client(HeaderName::from_static("x-forwarded-for"), plain_address);
    let forwarded = client(header::FORWARDED, forwarded_for);
    match (x_forwarded_for, forwarded) {
        (Some(address), None) | (None, Some(address)) => address,
        (Some(one), Some(other)) if one == other => one,
        // A proxy writes one of them, and may pass on the other from the client.
        _ => peer,
    }
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1` or `[2001:db8::1]:4711`.
fn plain_address(text: &str) -> Option<IpAddr> {
    let bracketed = |text: &str| text.strip_prefix('[')?.split_once(']')?.0.parse().ok();
    let address: IpAddr = text
        .parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| bracketed(text))?;
    Some(address.to_canonical())
}

/// The `for` of an element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    plain_address(value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        behind_proxies(peer.parse().unwrap(), &map, &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let forged = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")];
        assert_eq!(client("203.0.113.9", &forged), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "198.51.100.7")]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        let chain = [("x-forwarded-for", "1.1.1.1, 198.51.100.7, 10.2.0.1")];
        assert_eq!(client("10.0.0.1", &chain), "198.51.100.7");
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "198.51.100.7:99")];
        assert_eq!(client("10.0.0.1", &lines), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "10.1.1.1, 10.2.0.1")]), "10.1.1.1");
        let broken = [("x-forwarded-for", "198.51.100.7, unknown, 10.2.0.1")];
        assert_eq!(client("10.0.0.1", &broken), "10.2.0.1");
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_has_it() {
        let chain =
            [("forwarded", "for=1.1.1.1, for=\"[2001:db8:2::7]:80\";proto=https, For=10.0.0.9")];
        assert_eq!(client("2001:db8:1::1", &chain), "2001:db8:2::7");
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=_hidden, for=10.0.0.2")]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[("forwarded", "proto=https")]), "10.0.0.1");
    }

    #[test]
    fn two_headers_that_disagree_count_as_none() {
        let both = |other: &str| {
            client("10.0.0.1", &[("x-forwarded-for", "198.51.100.7"), ("forwarded", other)])
        };
        assert_eq!(both("for=198.51.100.7"), "198.51.100.7");
        assert_eq!(both("for=1.1.1.1"), "10.0.0.1");
    }
}
