//! A plain HTTP client: one request per connection, so that only what a test writes is sent.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends requests to one address.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: String,
    headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The end of the problem's `type`; fails if the reply is not a problem.
    pub fn problem(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        let kind = problem["type"].as_str().unwrap();
        kind.strip_prefix("urn:rollcall:problem:").unwrap().to_owned()
    }
}

impl Client {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), headers: Vec::new() }
    }

    /// The same with one more header.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.headers.push((name.to_owned(), value.to_owned()));
        other
    }

    pub fn bearer(&self, token: &str) -> Self {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, "")
    }

    pub fn post(&self, path: &str, body: &str) -> Reply {
        self.with("Content-Type", "application/json").request("POST", path, body)
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.request("DELETE", path, "")
    }

    pub fn request(&self, method: &str, path: &str, body: &str) -> Reply {
        self.try_request(method, path, body)
            .unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// `None` if no answer came.
    pub fn try_request(&self, method: &str, path: &str, body: &str) -> Option<Reply> {
        // Nothing is sent in chunks to a client of HTTP/1.0.
        let mut head = format!("{method} {path} HTTP/1.0\r\n");
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        self.raw(format!("{head}\r\n{body}").as_bytes())
    }

    /// Sends these bytes.
    pub fn raw(&self, bytes: &[u8]) -> Option<Reply> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A server may answer before everything is sent.
        let _broken = stream.write_all(bytes);
        read(&mut stream)
    }

    /// Whether it says that Redis is unreachable.
    pub fn is_away(&self) -> bool {
        self.get("/api/v1/stats").status == 503
    }
}

/// Reads an answer to its end.
pub fn read(stream: &mut TcpStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => return None,
        _ => {}
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    };
    Some(Reply { status, headers: lines.filter_map(header).collect(), body: body.to_owned() })
}
