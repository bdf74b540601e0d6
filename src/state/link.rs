//! The connection of a partition, or the reason why there is none: one shard of a Cluster may be down while the
//! others are queried.

use std::io;
use std::sync::Arc;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisError, RedisFuture, Value};

use crate::error::Error;

/// A connection, or the reason why there is none; cheap to clone.
#[derive(Clone)]
pub enum Link {
    /// A connection to the partition's node.
    Open(MultiplexedConnection),
    /// The node cannot be reached, for this reason.
    Away(Arc<str>),
}

impl Link {
    /// The connection, if there is one.
    pub fn open(&mut self) -> Option<&mut MultiplexedConnection> {
        match self {
            Self::Open(connection) => Some(connection),
            Self::Away(_) => None,
        }
    }

    /// The connection.
    ///
    /// # Errors
    /// If there is none; the error has the reason.
    pub fn get(&mut self) -> Result<&mut MultiplexedConnection, Error> {
        match self {
            Self::Open(connection) => Ok(connection),
            Self::Away(why) => Err(Error::at("reaching the partition")(not_connected(why))),
        }
    }

    /// Why there is no connection.
    pub fn away(&self) -> Option<&str> {
        match self {
            Self::Open(_) => None,
            Self::Away(why) => Some(why),
        }
    }
}

impl From<MultiplexedConnection> for Link {
    fn from(connection: MultiplexedConnection) -> Self {
        Self::Open(connection)
    }
}

fn not_connected(why: &str) -> RedisError {
    io::Error::new(io::ErrorKind::NotConnected, why.to_owned()).into()
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Open(connection) => connection.req_packed_command(cmd),
            Self::Away(why) => {
                let error = not_connected(why);
                Box::pin(async move { Err(error) })
            }
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Open(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Away(why) => {
                let error = not_connected(why);
                Box::pin(async move { Err(error) })
            }
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Open(connection) => connection.get_db(),
            Self::Away(_) => 0,
        }
    }
}
