//! A client of server-sent events, strict about their form.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::Worker;
use crate::scene::SOON;

/// An event as it was dispatched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its `event:`, or empty.
    pub name: String,
    pub data: String,
    /// The last event id at its end.
    pub id: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
    /// The last event id, as a browser keeps it.
    pub last_id: String,
    /// The comments received.
    pub comments: Vec<String>,
    /// How long the next event may take, regardless of signs of life.
    pub patience: Duration,
}

/// The address where a process serves.
pub fn address(process: &Worker) -> SocketAddr {
    crate::serve::address(process).parse().unwrap()
}

impl Client {
    /// Requests the changes; `headers` are lines. The status must be 200.
    pub fn open(address: SocketAddr, query: &str, last_id: &str, headers: &str) -> Self {
        Self::try_open(address, query, last_id, headers).unwrap()
    }

    /// The same, if the process may be gone.
    pub fn try_open(
        address: SocketAddr,
        query: &str,
        last_id: &str,
        headers: &str,
    ) -> std::io::Result<Self> {
        let id = format!("Last-Event-ID: {last_id}\r\n");
        let id = if last_id.is_empty() { "" } else { &id };
        let mut client =
            Self::ask(address, &format!("/api/v1/changes?{query}"), &format!("{headers}{id}"))?;
        client.last_id = last_id.to_owned();
        Ok(client)
    }

    /// Requests any stream of events.
    pub fn ask(address: SocketAddr, target: &str, headers: &str) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        // HTTP/1.0, so that the text is not chunked.
        write!(stream, "GET {target} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n")?;
        let (mut reader, mut head) = (BufReader::new(stream), String::new());
        loop {
            let before = head.len();
            if reader.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if head.len() - before == 2 {
                break;
            }
        }
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        Ok(Self { reader, last_id: String::new(), comments: Vec::new(), patience: SOON })
    }

    /// The positions that come without an event, this many of them.
    pub fn ids(&mut self, count: usize) -> Vec<String> {
        let (mut ids, started) = (Vec::new(), Instant::now());
        while ids.len() < count {
            assert!(started.elapsed() < self.patience, "{ids:?}, comments {:?}", self.comments);
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            assert!(!line.starts_with("data"), "{line}");
            if let Some(id) = line.strip_prefix("id: ") {
                ids.push(id.trim_end().to_owned());
                self.last_id = ids[ids.len() - 1].clone();
            }
        }
        ids
    }

    /// The next event; `None` if the connection ends before it is complete, or it does not come in time.
    pub fn try_next(&mut self) -> Option<Event> {
        let (mut name, mut data) = (String::new(), VecDeque::new());
        let (mut id, started) = (None, Instant::now());
        while started.elapsed() < self.patience {
            let mut line = String::new();
            if self.reader.read_line(&mut line).ok()? == 0 || !line.ends_with('\n') {
                return None;
            }
            line.pop();
            assert!(!line.contains('\r'), "{line:?}");
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match (line.as_str(), field) {
                ("", _) => {
                    if let Some(id) = id.take() {
                        self.last_id = id;
                    }
                    if !data.is_empty() {
                        let data = Vec::from(data).join("\n");
                        return Some(Event { name, data, id: self.last_id.clone() });
                    }
                    assert!(name.is_empty(), "an event without data: {name}");
                }
                (_, "") => self.comments.push(value.to_owned()),
                (_, "event") => name = value.to_owned(),
                (_, "data") => {
                    assert!(id.is_none(), "data after the id");
                    data.push_back(value.to_owned());
                }
                (_, "id") => id = Some(value.to_owned()),
                (_, "retry") => assert!(value.parse::<u32>().is_ok(), "{line}"),
                _ => panic!("not of an event stream: {line:?}"),
            }
        }
        None
    }

    pub fn next(&mut self) -> Event {
        self.try_next().unwrap_or_else(|| panic!("nothing came; comments: {:?}", self.comments))
    }

    /// The next event, which must be a snapshot.
    pub fn snapshot(&mut self) -> Value {
        let event = self.next();
        assert_eq!(event.name, "snapshot", "{event:?}");
        let snapshot = event.json();
        assert_eq!(snapshot["position"], event.id);
        snapshot
    }

    /// The next event, which must be a change.
    pub fn change(&mut self) -> Value {
        let event = self.next();
        assert_eq!(event.name, "", "{event:?}");
        event.json()
    }

    /// Reads until the connection ends; returns the last comment, which has the reason.
    pub fn end(&mut self) -> String {
        while self.try_next().is_some() {}
        self.comments.last().cloned().unwrap_or_default()
    }

    /// How long the next event may take.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
        self.reader.get_ref().set_read_timeout(Some(patience)).unwrap();
    }
}
