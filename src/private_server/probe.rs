//! Finds out whether a server that accepts commands listens on a port, and which.
//!
//! A plain socket without a client library: it must work before anything else does.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The answer of what listens on a port.
pub(super) enum Answer {
    /// It accepts commands; its process id, if it gives one.
    Ready(Option<u32>),
    /// It answers PING with something else, such as `-LOADING`.
    Other(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(pid) => write!(f, "another server, process {pid:?}, answers on the port"),
            Self::Other(line) => write!(f, "PING was answered with {line:?}"),
        }
    }
}

/// Sends a request to `port` of 127.0.0.1.
pub(super) fn probe(port: u16) -> io::Result<Answer> {
    const PATIENCE: Duration = Duration::from_millis(500);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let pong = ask(&mut stream, "PING", |reply| reply.ends_with("\r\n"))?;
    if pong.starts_with("-NOAUTH") || pong.starts_with("-NOPERM") {
        return Ok(Answer::Ready(None));
    }
    if pong != "+PONG\r\n" {
        return Ok(Answer::Other(pong));
    }
    let about =
        ask(&mut stream, "INFO server", |reply| reply.starts_with('-') || pid_in(reply).is_some())?;
    Ok(Answer::Ready(pid_in(&about)))
}

fn pid_in(info: &str) -> Option<u32> {
    info.split_once("process_id:")?.1.split_once('\r')?.0.parse().ok()
}

fn ask(stream: &mut TcpStream, command: &str, done: impl Fn(&str) -> bool) -> io::Result<String> {
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let (mut reply, mut part) = (String::new(), [0; 4096]);
    while !done(&reply) {
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => reply.push_str(&String::from_utf8_lossy(&part[..n])),
        }
    }
    Ok(reply)
}
