//! Logs in with commands of its own. The client library takes every refusal for a wrong password, even that of a
//! server with too many clients. A server's reply to `AUTH` may repeat the password, so its text is shown only if it
//! is known.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisConnectionInfo, RedisError, RedisResult, Value};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::connect::CONNECTING;
use super::dial::{dial, refused_by_tls, speaks_tls};
use super::feed::parse::line;
use crate::config::Address;
use crate::error::{Error, MOST_CLIENTS};

/// How long to wait for a server that refuses a client to say why; it does so at once.
const REFUSAL: Duration = Duration::from_millis(300);
/// What a server answers to `AUTH` for reasons other than the password: words, and codes.
const OTHER_WORDS: [&str; 2] = [MOST_CLIENTS, "without any password configured"];
const OTHER_CODES: [&str; 5] = ["LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "DENIED"];

/// The settings of a connection that has not logged in yet.
pub(super) fn nobody() -> RedisConnectionInfo {
    let protocol = redis::ProtocolVersion::RESP2;
    RedisConnectionInfo::default().set_protocol(protocol).set_skip_set_lib_name()
}

/// Logs in, selects the database, and names this client, in one round trip.
pub(super) async fn log_in(
    connection: &mut MultiplexedConnection,
    login: &RedisConnectionInfo,
) -> RedisResult<()> {
    let mut pipe = redis::pipe();
    pipe.ignore_errors();
    if let Some(password) = login.password() {
        pipe.cmd("AUTH").arg(login.username()).arg(password);
    }
    if login.db() != 0 {
        pipe.cmd("SELECT").arg(login.db());
    }
    // Servers before 7.2 do not know this, and some users may not call it; nothing depends on it.
    pipe.cmd("CLIENT").arg(&["SETINFO", "LIB-NAME", "rollcall"]);
    pipe.cmd("CLIENT").arg(&["SETINFO", "LIB-VER", env!("CARGO_PKG_VERSION")]);
    let answers: Vec<RedisResult<Value>> = pipe.query_async(connection).await?;
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
    if login.password().is_some() {
        next().map_err(refused)?;
    }
    if login.db() != 0 {
        next()?;
    }
    Ok(())
}

/// Why a server refused the login, in a text that contains no password.
pub(super) fn refused(error: RedisError) -> RedisError {
    let says = |words: &&str| error.detail().is_some_and(|detail| detail.contains(*words));
    let said = match error.code() {
        None => return error,
        Some(code) if OTHER_CODES.contains(&code) => return error,
        Some("ERR") if OTHER_WORDS.iter().any(says) => return error,
        Some("WRONGPASS") => "Password authentication failed",
        Some(_) => "the server refused the login, and not for the password",
    };
    (ErrorKind::AuthenticationFailed, said).into()
}

/// Why a server closed a connection that it had just accepted. With too many clients, or a client from elsewhere, it
/// reads no command, and its message is lost to a client that is sending. `None` if it says nothing.
pub(super) async fn reason(at: &Address) -> Option<Error> {
    if let Some(reason) = timeout(REFUSAL, last_words(at)).await.ok().flatten() {
        return Some(reason);
    }
    let speaks_tls = timeout(REFUSAL, speaks_tls(at)).await.unwrap_or(false);
    speaks_tls.then(|| Error::Tls {
        address: at.info.addr().to_string(),
        why: "this port speaks TLS".to_owned(),
        remedy: "write rediss:// in place of redis:// in --redis-url",
    })
}

/// What a server sends to a new client that only listens.
async fn last_words(at: &Address) -> Option<Error> {
    let mut socket = match dial(at).await {
        Ok(socket) => socket,
        Err(error) => return matches!(error, Error::Tls { .. }).then_some(error),
    };
    let mut buffer = Vec::new();
    loop {
        match socket.read_buf(&mut buffer).await {
            Ok(0) => return None,
            Ok(_) => {}
            // Only after the handshake is it known whether a server accepts a certificate.
            Err(error) => return refused_by_tls(at, &error),
        }
        match line(&mut buffer) {
            Ok(None) => {}
            said => {
                let known = said.err().and_then(|error| known_reason(&error))?;
                return Some(Error::of_server(CONNECTING, at.info.addr().to_string())(known));
            }
        }
    }
}

/// The known reasons for which servers refuse a client; the text for protected mode is a page long.
fn known_reason(error: &RedisError) -> Option<RedisError> {
    let said = match error.code()? {
        "DENIED" => "-DENIED the server runs in protected mode\r\n",
        "ERR" if error.detail()?.contains(MOST_CLIENTS) => "-ERR max number of clients reached\r\n",
        _ => return None,
    };
    redis::parse_redis_value(said.as_bytes()).ok()?.extract_error().err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_that_are_known_are_told() {
        let said = |reply: &str| {
            let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
            refused(value.extract_error().unwrap_err())
        };
        for reply in [
            "WRONGPASS invalid username-password pair or user is disabled.",
            "ERR unknown command 'AUTH', with args beginning with: 'hunter2' ",
            "ERR hunter2",
            "hunter2 is wrong",
        ] {
            let error = said(reply);
            assert_eq!(error.kind(), ErrorKind::AuthenticationFailed, "{reply}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        assert!(said("ERR max number of clients reached").to_string().contains("max number"));
        assert!(said("LOADING Redis is loading the dataset in memory").code() == Some("LOADING"));
        assert!(said("WRONGPASS invalid").to_string().contains("Password authentication failed"));
    }
}
