//! The feed: the connection for new entries. A blocking read occupies it, so nothing else uses it.
//!
//! It is a plain socket, and [`parse`] parses its replies: the client library, which serves all other commands, takes
//! four microseconds of processor time to read an event, more than everything else in a worker.

pub mod parse;

use std::io;
use std::time::Duration;

use redis::{Cmd, RedisConnectionInfo, RedisResult, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::timeout;

use self::parse::{Bounds, Delivered, Parser, STEP, answer};
use super::connect::{CONNECT_TIMEOUT, CONNECTING, failed};
use super::dial::{Socket, dial, timed_out};
use super::login::refused;
use super::reply;
use crate::config::Address;
use crate::error::Error;

/// The size of each read from the socket: about what the server sends at once.
const PIECE_BYTES: usize = 64 << 10;
/// The buffer that is kept between replies.
const KEPT_BYTES: usize = 4 * PIECE_BYTES;

/// The source of new entries.
pub struct Feed {
    plain: Plain,
    response_timeout: Duration,
}

impl Feed {
    /// Connects to exactly the node that [`locate`](super::connect::locate) found. Replies may take
    /// `response_timeout`.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses the credentials.
    pub async fn open(at: &Address, response_timeout: Duration) -> Result<Self, Error> {
        let opened = async {
            let mut plain = Plain { socket: dial(at).await?, buffer: Vec::new() };
            match plain.log_in(at.info.redis_settings()).await {
                Ok(()) => Ok(plain),
                Err(error) => Err(failed(at, CONNECTING, error).await),
            }
        };
        let plain =
            timeout(CONNECT_TIMEOUT, opened).await.unwrap_or_else(|_| Err(timed_out(at)))?;
        Ok(Self { plain, response_timeout })
    }

    /// The value of a hash field; `None` if there is none (`HGET`).
    ///
    /// # Errors
    /// If the server refuses, or no reply came.
    pub async fn field(&mut self, key: &str, field: &str) -> Result<Option<String>, Error> {
        let mut get = redis::cmd("HGET");
        get.arg(key).arg(field);
        let step = "asking the reading connection for its server";
        let value = within(self.response_timeout, self.plain.ask(&get)).await;
        Ok(reply::text(value.map_err(Error::at(step))?))
    }

    /// Reads new entries from one stream. If there is a `gate`, the reply is parsed only while it is held for
    /// reading.
    ///
    /// # Errors
    /// If the server refuses, or no reply came. This connection must not be read from after that.
    pub async fn read(
        &mut self,
        read: &Cmd,
        bounds: Bounds,
        gate: Option<&RwLock<()>>,
    ) -> Result<Delivered, Error> {
        let delivered = self.plain.read(read, bounds, gate);
        let delivered = within(self.response_timeout, async { Ok(delivered.await) });
        delivered.await.map_err(Error::at(STEP))?
    }
}

/// Waits at the gate, if there is one, and holds it for reading.
async fn pass(gate: Option<&RwLock<()>>) -> Option<RwLockReadGuard<'_, ()>> {
    match gate {
        Some(gate) => Some(gate.read().await),
        None => None,
    }
}

/// Times out like the client library.
async fn within<T>(time: Duration, call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    timeout(time, call).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// A socket, and the bytes received so far.
struct Plain {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Plain {
    async fn log_in(&mut self, login: &RedisConnectionInfo) -> RedisResult<()> {
        if let Some(password) = login.password() {
            let mut auth = redis::cmd("AUTH");
            self.ask(auth.arg(login.username()).arg(password)).await.map_err(refused)?;
        }
        if login.db() != 0 {
            self.ask(redis::cmd("SELECT").arg(login.db())).await?;
        }
        Ok(())
    }

    /// Sends a command whose reply is one line or one text.
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
        self.socket.write_all(&command.get_packed_command()).await?;
        // With TLS, sent bytes may wait for this.
        Ok(self.socket.flush().await?)
    }

    async fn receive(&mut self) -> RedisResult<()> {
        self.buffer.reserve(PIECE_BYTES);
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }
}
