//! Sockets to a server: TCP, TLS or Unix.
//!
//! TLS is made here and not by the client library, which can check no name other than the host's and reports every
//! failure as an input/output error. Files are read for each connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::AsyncStream;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{ConnectionAddr, RedisError};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connect::CONNECTING;
use crate::config::Address;
use crate::error::Error;

/// The time limit of a handshake: a server without TLS waits silently for the end of a line.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// How long sent data may stay unacknowledged before the connection counts as dead.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// A connected socket of any kind.
pub(super) type Socket = Pin<Box<dyn AsyncStream + Send + Sync>>;

/// Connects to a server, without sending anything.
pub(super) async fn dial(at: &Address) -> Result<Socket, Error> {
    let address = || at.info.addr().to_string();
    let failed = |error: io::Error| Error::of_server(CONNECTING, address())(error.into());
    match at.info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            Ok(Box::pin(dial_any(host, *port).await.map_err(failed)?))
        }
        ConnectionAddr::TcpTls { host, port, .. } => {
            let config = at.tls.client()?;
            let name = at.tls.name.as_deref().unwrap_or(host);
            let name = ServerName::try_from(name.to_owned())
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let socket = dial_any(host, *port).await.map_err(failed)?;
            let connector = TlsConnector::from(Arc::new(config));
            match timeout(HANDSHAKE, connector.connect(name, socket)).await {
                Ok(Ok(socket)) => Ok(Box::pin(socket)),
                Ok(Err(error)) => Err(handshake_failed(at, error)),
                Err(_) => {
                    let why = "the server does not answer the handshake".to_owned();
                    Err(Error::Tls { address: address(), why, remedy: NO_TLS })
                }
            }
        }
        ConnectionAddr::Unix(path) => {
            Ok(Box::pin(UnixStream::connect(path).await.map_err(failed)?))
        }
        _ => Err(failed(io::ErrorKind::Unsupported.into())),
    }
}

/// Whether a port that was addressed without TLS speaks TLS.
pub(super) async fn speaks_tls(at: &Address) -> bool {
    let ConnectionAddr::Tcp(host, port) = at.info.addr() else { return false };
    let (Ok(config), Ok(name)) = (at.tls.client(), ServerName::try_from(host.clone())) else {
        return false;
    };
    let Ok(socket) = dial_any(host, *port).await else { return false };
    match TlsConnector::from(Arc::new(config)).connect(name, socket).await {
        Ok(_) => true,
        // It has shown a certificate, or asked for one.
        Err(error) => matches!(
            tls_error(&error),
            Some(TlsError::InvalidCertificate(_) | TlsError::AlertReceived(_))
        ),
    }
}

/// Connects to the address of a host that answers first: some may not be reachable.
async fn dial_any(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut dials: JoinSet<_> = lookup_host((host, port)).await?.map(TcpStream::connect).collect();
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    while let Some(dialed) = dials.join_next().await {
        match dialed? {
            Ok(socket) => return set(&socket).map(|()| socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn set(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

fn handshake_failed(at: &Address, error: io::Error) -> Error {
    let was_ended =
        [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset].contains(&error.kind());
    if was_ended && tls_error(&error).is_none() {
        let why = "the server ended the connection in the midst of the handshake".to_owned();
        return Error::Tls { address: at.info.addr().to_string(), why, remedy: NO_TLS };
    }
    refused_by_tls(at, &error)
        .unwrap_or_else(|| Error::of_server(CONNECTING, at.info.addr().to_string())(error.into()))
}

const NO_TLS: &str = "if this port does not speak TLS, write redis:// in place of rediss://, or the port that tls-port \
                      of redis.conf names";
const NO_CERTIFICATE: &str = "the server wants a client certificate of an authority that it knows (tls-auth-clients \
                              yes): give --redis-tls-cert and --redis-tls-key";

/// The error that TLS failed, if an error of a socket means that.
pub(super) fn refused_by_tls(at: &Address, error: &io::Error) -> Option<Error> {
    use CertificateError as Bad;
    let found = tls_error(error)?;
    let remedy = match found {
        TlsError::InvalidCertificate(Bad::UnknownIssuer) => {
            "name the file of the authority that signed it with --redis-tls-ca"
        }
        TlsError::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "name what the certificate is for with --redis-tls-name, or have one issued for this address"
        }
        TlsError::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "renew the server's certificate, and check the clock of this machine"
        }
        TlsError::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "check the clock of this machine, and from when the server's certificate is valid"
        }
        TlsError::InvalidCertificate(_) => "have a new certificate issued for the server",
        TlsError::InvalidMessage(_) => NO_TLS,
        TlsError::AlertReceived(AlertDescription::CertificateExpired) => {
            "renew the client certificate that --redis-tls-cert names"
        }
        TlsError::AlertReceived(_) => NO_CERTIFICATE,
        _ => "see the server's log, and which versions of TLS it takes",
    };
    Some(Error::Tls { address: at.info.addr().to_string(), why: found.to_string(), remedy })
}

fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

/// The error that this server did not answer in time.
pub(super) fn timed_out(at: &Address) -> Error {
    let late = RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
    Error::of_server(CONNECTING, at.info.addr().to_string())(late)
}
