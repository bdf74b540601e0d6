//! Clients that are slow, large or many: each within its limits, and nobody else delayed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Served;
use super::client::read;
use crate::harness::wait_until;
use crate::scene::{SOON, metric};

const HEARTBEAT: &str = r#"{"user":"a"}"#;

fn connect(served: &Served) -> TcpStream {
    let stream = TcpStream::connect(&served.client.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[test]
fn a_head_or_a_body_that_trickles_in_is_given_up_and_delays_nobody() {
    let served = Served::start(&[], &[]);
    let begun = Instant::now();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let head = scope.spawn(|| {
            let mut stream = connect(&served);
            trickle(&mut stream, b"POST /api/heartbeat HTTP/1.1\r\nX: ")
        });
        let body = scope.spawn(|| {
            let mut stream = connect(&served);
            let address = &served.client.address;
            write!(
                stream,
                "POST /api/heartbeat HTTP/1.1\r\nHost: {address}\r\nContent-Length: 5000\r\n\r\n"
            )
            .unwrap();
            trickle(&mut stream, b"{")
        });
        let silent = scope.spawn(|| {
            let mut stream = connect(&served);
            trickle(&mut stream, b"")
        });
        for _ in 0..20 {
            let asked = Instant::now();
            assert_eq!(served.client.post("/api/heartbeat", HEARTBEAT).status, 200);
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        }
        [head, body, silent].into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    assert!(ended[1].contains("408") && ended[1].contains("\"status\":\"error\""), "{}", ended[1]);
}

/// One byte four times a second until the server has had enough; returns its answer.
fn trickle(stream: &mut TcpStream, begin: &[u8]) -> String {
    stream.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
    let mut said = Vec::new();
    let _closed = stream.write_all(begin);
    let deadline = Instant::now() + Duration::from_secs(50);
    while Instant::now() < deadline {
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => said.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        if !begin.is_empty() {
            let _closed = stream.write_all(b" ");
        }
    }
    assert!(Instant::now() < deadline, "it is still open");
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn heads_and_bodies_have_their_bounds() {
    let served = Served::start(&[], &[]);
    let address = &served.client.address;
    let long =
        format!("GET /online HTTP/1.1\r\nHost: {address}\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    assert_eq!(served.client.raw(long.as_bytes()).map(|reply| reply.status), Some(431));
    let many =
        format!("GET /online HTTP/1.1\r\nHost: {address}\r\n{}\r\n", "X: y\r\n".repeat(1_000));
    assert_eq!(served.client.raw(many.as_bytes()).map(|reply| reply.status), Some(431));
    let uri = format!("GET /{} HTTP/1.1\r\nHost: {address}\r\n\r\n", "x".repeat(70_000));
    let status = served.client.raw(uri.as_bytes()).map(|reply| reply.status);
    assert!(matches!(status, Some(414 | 431)), "{status:?}");
    // The request announces its size, and is refused before any of it was sent.
    let mut stream = connect(&served);
    write!(stream, "POST /api/heartbeat HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 99999999\r\n\r\n").unwrap();
    assert_eq!(read(&mut stream).unwrap().status, 413);
    // The request does not announce its size.
    let mut stream = connect(&served);
    write!(stream, "POST /api/v1/events HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    for _ in 0..20 {
        let _enough = write!(stream, "10000\r\n{}\r\n", " ".repeat(0x10000));
    }
    assert_eq!(read(&mut stream).unwrap().status, 413);
    for garbage in [
        "\u{16}\u{3}\u{1}",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let reply = served.client.raw(garbage.as_bytes());
        assert!(reply.is_none_or(|reply| reply.status >= 400), "{garbage:?}");
    }
    assert_eq!(served.client.post("/api/heartbeat", HEARTBEAT).status, 200);
    assert!(!served.serve.log().contains("ERROR"), "{}", served.serve.log());
}

#[test]
fn connections_beyond_their_number_are_closed_and_counted() {
    let flags = ["--max-client-connections", "5", "--http", "127.0.0.1:0"];
    let served = Served::start(&[], &flags);
    let mut open: Vec<TcpStream> = Vec::new();
    wait_until(SOON, "one is refused", || {
        let mut stream = connect(&served);
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let refused = matches!(stream.read(&mut [0; 1]), Ok(0));
        open.push(stream);
        refused
    });
    assert_eq!(open.len(), 6);
    assert!(metric(&served.serve, "rollcall_http_connections_refused_total") >= 1.0);
    drop(open);
    wait_until(SOON, "there is room again", || {
        served.client.try_request("GET", "/", "").is_some_and(|reply| reply.status == 200)
    });
}

#[test]
fn a_process_that_is_told_to_stop_answers_what_it_has_and_goes() {
    let mut served = Served::start(&[], &["--linger", "1s"]);
    let mut idle = connect(&served);
    let client = served.client.clone();
    let asked = std::thread::spawn(move || client.post("/api/heartbeat", HEARTBEAT));
    let mut conn = served.scene.connection();
    // It is in progress once its connection was accepted; the linger leaves a second for that.
    std::thread::sleep(Duration::from_millis(200));
    let code = served.serve.terminate();
    assert_eq!(code, 0, "{}", served.serve.log());
    assert_eq!(asked.join().unwrap().status, 200);
    assert_eq!(crate::harness::read_stream(&mut conn, "rollcall:events").len(), 1);
    assert_eq!(idle.read(&mut [0; 1]).unwrap_or(0), 0, "idle connections are closed");
}

#[test]
fn metrics_tell_what_was_served_and_all_series_are_there_from_the_start() {
    let served = Served::start(&[], &["--http", "127.0.0.1:0"]);
    let count = |name: &str| metric(&served.serve, name);
    assert_eq!(count("rollcall_intake_events_total"), 0.0);
    let page = crate::scene::page(&served.serve, "/metrics").1;
    for line in [
        "rollcall_http_requests_total{route=\"heartbeat\",class=\"5xx\"} 0",
        "rollcall_intake_refused_total{reason=\"in_doubt\"} 0",
        "rollcall_http_connections{kind=\"sse\"} 0",
        "rollcall_intake_buffer_used_ratio 0",
    ] {
        assert!(page.contains(line), "{line} is not in:\n{page}");
    }
    served.client.post("/api/heartbeat", HEARTBEAT);
    served.client.post("/api/heartbeat", "{}");
    served.client.post("/api/v1/events", r#"[{"type":"heartbeat","user":"a"},{"type":"x"}]"#);
    served.client.get("/nowhere");
    let page = crate::scene::page(&served.serve, "/metrics").1;
    for line in [
        "rollcall_http_requests_total{route=\"heartbeat\",class=\"2xx\"} 1",
        "rollcall_http_requests_total{route=\"heartbeat\",class=\"4xx\"} 1",
        "rollcall_http_requests_total{route=\"other\",class=\"4xx\"} 1",
        "rollcall_intake_events_total 2",
        "rollcall_intake_refused_total{reason=\"unknown_type\"} 1",
    ] {
        assert!(page.contains(line), "{line} is not in:\n{page}");
    }
}
