//! The feed: the connection over which new entries come. A blocking read holds it, so nothing else uses it.
//!
//! Over TCP and unix sockets it is a plain socket whose replies [`parse`] takes apart: the client library, which
//! serves all other commands, spends four microseconds of processor time on what it reads of an event, more
//! than all the rest of a worker. Under TLS, whose cipher is the greater part anyway, the library reads.

pub mod parse;

use std::io;
use std::pin::Pin;
use std::time::Duration;

use redis::aio::{AsyncStream, MultiplexedConnection};
use redis::io::tcp::{TcpSettings, socket2::SockRef};
use redis::{Cmd, ConnectionAddr, ConnectionInfo, RedisResult, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::parse::{Bounds, Delivered, Parser, STEP, answer};
use super::connect::{CONNECT_TIMEOUT, CONNECTING, failed, open, with_tcp_settings};
use super::login::refused;
use super::{reply, stream};
use crate::error::Error;

/// Room for each piece that is received: what the server sends at once.
const PIECE_BYTES: usize = 64 << 10;
/// Room that is kept between replies.
const KEPT_BYTES: usize = 4 * PIECE_BYTES;

/// Where new entries come from.
pub struct Feed {
    connection: Connection,
    response_timeout: Duration,
}

enum Connection {
    Plain(Plain),
    Tls(MultiplexedConnection),
}

impl Feed {
    /// Connects to the very node that [`locate`](super::connect::locate) found. Replies may take
    /// `response_timeout`.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses the credentials.
    pub async fn open(info: &ConnectionInfo, response_timeout: Duration) -> Result<Self, Error> {
        let plain = within(CONNECT_TIMEOUT, Plain::open(&with_tcp_settings(info))).await;
        let connection = match plain {
            Ok(Some(plain)) => Connection::Plain(plain),
            Ok(None) => Connection::Tls(open(info, CONNECT_TIMEOUT, response_timeout).await?),
            Err(error) => return Err(failed(info, CONNECTING, error).await),
        };
        Ok(Self { connection, response_timeout })
    }

    /// The value of a hash field; `None` if there is none (`HGET`).
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn field(&mut self, key: &str, field: &str) -> Result<Option<String>, Error> {
        let mut get = redis::cmd("HGET");
        get.arg(key).arg(field);
        let step = "asking the reading connection for its server";
        let value = match &mut self.connection {
            Connection::Plain(plain) => {
                let value = within(self.response_timeout, plain.ask(&get));
                value.await.map_err(Error::at(step))?
            }
            Connection::Tls(connection) => {
                get.query_async(connection).await.map_err(Error::at(step))?
            }
        };
        Ok(reply::text(value))
    }

    /// What the server delivers to a read of new entries from one stream. What came is looked into while `gate`
    /// is held for reading, if there is one.
    ///
    /// # Errors
    /// If the server refuses, or no reply came. This connection must not be read from again then.
    pub async fn read(
        &mut self,
        read: &Cmd,
        bounds: Bounds,
        gate: Option<&RwLock<()>>,
    ) -> Result<Delivered, Error> {
        match &mut self.connection {
            Connection::Plain(plain) => {
                let delivered = plain.read(read, bounds, gate);
                let delivered = within(self.response_timeout, async { Ok(delivered.await) });
                delivered.await.map_err(Error::at(STEP))?
            }
            Connection::Tls(connection) => {
                let value = read.query_async(connection).await.map_err(Error::at(STEP))?;
                let _held = pass(gate).await;
                let entries = stream::entries(value);
                let entries = entries.ok_or_else(|| reply::unexpected(STEP, &Value::Nil))?;
                Ok(Delivered { entries, is_cut: false })
            }
        }
    }
}

/// Waits at the gate, if there is one, and holds it for reading.
async fn pass(gate: Option<&RwLock<()>>) -> Option<RwLockReadGuard<'_, ()>> {
    match gate {
        Some(gate) => Some(gate.read().await),
        None => None,
    }
}

/// Gives up after a while, as the client library does.
async fn within<T>(time: Duration, call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    timeout(time, call).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

type Socket = Pin<Box<dyn AsyncStream + Send + Sync>>;

/// A socket, and what has come over it.
struct Plain {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Plain {
    /// Connects and logs in; `None` where that takes TLS.
    async fn open(info: &ConnectionInfo) -> RedisResult<Option<Self>> {
        let Some(socket) = dial(info).await? else { return Ok(None) };
        let mut plain = Self { socket, buffer: Vec::new() };
        let login = info.redis_settings();
        if let Some(password) = login.password() {
            let mut auth = redis::cmd("AUTH");
            plain.ask(auth.arg(login.username()).arg(password)).await.map_err(refused)?;
        }
        if login.db() != 0 {
            plain.ask(redis::cmd("SELECT").arg(login.db())).await?;
        }
        Ok(Some(plain))
    }

    /// Sends a command that is answered with a line or a text.
    async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.send(command).await?;
        loop {
            if let Some(value) = answer(&mut self.buffer)? {
                return Ok(value);
            }
            self.receive().await?;
        }
    }

    async fn read(
        &mut self,
        read: &Cmd,
        bounds: Bounds,
        gate: Option<&RwLock<()>>,
    ) -> Result<Delivered, Error> {
        self.send(read).await.map_err(Error::at(STEP))?;
        let mut parser = Parser::new(bounds);
        loop {
            self.receive().await.map_err(Error::at(STEP))?;
            let _held = pass(gate).await;
            if let Some(delivered) = parser.read(&mut self.buffer)? {
                self.buffer.shrink_to(KEPT_BYTES);
                return Ok(delivered);
            }
        }
    }

    async fn send(&mut self, command: &Cmd) -> RedisResult<()> {
        Ok(self.socket.write_all(&command.get_packed_command()).await?)
    }

    async fn receive(&mut self) -> RedisResult<()> {
        self.buffer.reserve(PIECE_BYTES);
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }
}

pub(super) async fn dial(info: &ConnectionInfo) -> io::Result<Option<Socket>> {
    Ok(match info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            let socket = dial_any(host, *port).await?;
            set(&socket, info.tcp_settings())?;
            Some(Box::pin(socket))
        }
        ConnectionAddr::Unix(path) => Some(Box::pin(UnixStream::connect(path).await?)),
        _ => None,
    })
}

/// Whichever address of a host answers first: one of them may lead nowhere.
async fn dial_any(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut dials: JoinSet<_> = lookup_host((host, port)).await?.map(TcpStream::connect).collect();
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    while let Some(dialed) = dials.join_next().await {
        match dialed? {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn set(socket: &TcpStream, settings: &TcpSettings) -> io::Result<()> {
    socket.set_nodelay(settings.nodelay())?;
    let socket = SockRef::from(socket);
    if let Some(keepalive) = settings.keepalive() {
        socket.set_tcp_keepalive(keepalive)?;
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(settings.user_timeout())?;
    Ok(())
}
