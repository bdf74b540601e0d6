//! Logging in, by commands of our own: the client library takes every refusal for a wrong password, also the one
//! that a server gives for want of room. What a server says to `AUTH` may repeat the password, so its words are
//! told only where they are known.

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

/// How long a server that refuses a client has to say why: it does so at once.
const REFUSAL: Duration = Duration::from_millis(300);
/// What a server says to `AUTH` for other reasons than the password: words, and codes.
const OTHER_WORDS: [&str; 2] = [MOST_CLIENTS, "without any password configured"];
const OTHER_CODES: [&str; 5] = ["LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "DENIED"];

/// The settings of a connection that is not logged in yet.
pub(super) fn nobody() -> RedisConnectionInfo {
    let protocol = redis::ProtocolVersion::RESP2;
    RedisConnectionInfo::default().set_protocol(protocol).set_skip_set_lib_name()
}

/// Logs in, chooses the database, and says who we are, in one round trip.
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
    // Servers before 7.2 do not know this, and some users may not: nothing hangs on it.
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

/// Why a server refused to log us in, in words that hold no password.
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

/// Why a server ended a connection that it had just taken: of a client too many, or of one from elsewhere, it
/// takes no command, and what it says then is lost to whoever was sending one. `None` where it says nothing.
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

/// What a server says to whoever comes and listens.
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
            // Whether a server takes a certificate is known only after the handshake.
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

/// The reasons for which servers refuse whoever comes; that of protected mode is a page long.
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
