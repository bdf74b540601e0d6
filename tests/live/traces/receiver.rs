//! A collector of OTLP over HTTP that keeps what it receives, for tests.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::harness::wait_until;
use crate::scene::SOON;

/// What has come in.
#[derive(Default)]
pub struct Seen {
    pub connections: usize,
    /// The head of each request, its first line included.
    pub heads: Vec<String>,
    pub resources: Vec<BTreeMap<String, String>>,
    pub spans: Vec<Span>,
}

pub struct Receiver {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Receiver {
    /// One that accepts everything, over plain HTTP.
    pub fn start() -> Self {
        Self::start_with(|stream| stream)
    }

    /// One that speaks HTTP over a connection that `wrap` has wrapped.
    pub fn start_with<S: Read + Write>(
        wrap: impl Fn(TcpStream) -> S + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Seen>>::default());
        let all = seen.clone();
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, wrap) = (all.clone(), wrap.clone());
                seen.lock().unwrap().connections += 1;
                std::thread::spawn(move || serve(BufReader::new(wrap(stream.unwrap())), &seen));
            }
        });
        Self { addr, seen }
    }

    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }

    /// All spans of this name so far.
    pub fn named(&self, name: &str) -> Vec<Span> {
        self.look(|seen| seen.spans.iter().filter(|span| span.name == name).cloned().collect())
    }

    /// Waits for a span of this name that is as expected.
    pub fn wait_for(&self, name: &str, is_right: impl Fn(&Span) -> bool) -> Span {
        let mut found = None;
        wait_until(SOON, &format!("a span {name} arrives"), || {
            found = self.named(name).into_iter().find(&is_right);
            found.is_some()
        });
        found.unwrap()
    }

    /// The children of a span, by name.
    pub fn children(&self, parent: &Span) -> BTreeMap<String, Span> {
        let is_child = |span: &&Span| {
            span.parent_span_id == parent.span_id && span.trace_id == parent.trace_id
        };
        let named = |span: &Span| (span.name.clone(), span.clone());
        self.look(|seen| seen.spans.iter().filter(is_child).map(named).collect())
    }
}

/// Answers requests until the client closes.
fn serve<S: Read + Write>(mut stream: BufReader<S>, seen: &Mutex<Seen>) {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = header(&head, "content-length").expect("a body of known length");
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        keep(&mut seen.lock().unwrap(), head, &body);
        let answer =
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
        stream.get_mut().flush().unwrap();
    }
}

fn keep(seen: &mut Seen, head: String, body: &[u8]) {
    seen.heads.push(head);
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    for group in request.resource_spans {
        seen.resources.push(attributes(&group.resource.unwrap().attributes));
        seen.spans.extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
}

/// The value of a header.
pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Attributes as text.
pub fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|v| v.value.clone()) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("an attribute of another type: {other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}

/// A collector that accepts connections and never answers.
pub fn black_hole() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            held.push(stream);
        }
    });
    addr
}
