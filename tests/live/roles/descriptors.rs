//! File descriptors: clients of the pages do not take those needed for Redis, and a limit that is too low is
//! reported.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{Pages, SOON, server};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::{Scene, in_parallel};

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

fn open_descriptors(process: &Worker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count()
}

/// The soft and the hard limit.
fn limits(process: &Worker) -> (String, String) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

/// Clients that connect to the pages and send only this.
fn clients(address: SocketAddr, count: usize, request: &str) -> Vec<TcpStream> {
    let client = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    (0..count).map(client).collect()
}

#[test]
fn clients_of_the_pages_take_no_descriptor_from_redis() {
    let scene = Scene::start(&[]);
    let mut process = Worker::start_after("ulimit -n 256", "run", &scene.url(), &HTTP);
    let pages = Pages::of(&process);
    wait_until(SOON, "ready", || pages.get("/readyz").0 == 200);
    for request in ["", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let _waiting = clients(pages.address, 300, request);
        assert_eq!(pages.get("/livez").0, 200, "a probe is answered beside 300 others");
        let most = 64 + 32;
        wait_until(SOON, "the pages have a part of them", || open_descriptors(&process) < most);
        let connects = || {
            ["worker", "janitor"].map(|role| {
                pages.metric(&format!("rollcall_redis_connects_total{{role={role:?}}}"))
            })
        };
        let before = connects();
        scene.command::<u64>(&["CLIENT", "KILL", "TYPE", "normal"]);
        let again = || connects().iter().zip(before).all(|(now, before)| *now > before);
        wait_until(SOON, "both roles are back", again);
        wait_until(SOON, "ready again", || pages.get("/readyz").0 == 200);
        scene.add_random(3, 50);
        scene.wait_finished(SOON, "applied");
    }
    assert_eq!(process.terminate(), 0);
}

#[test]
fn a_connection_to_the_pages_ends_within_ten_seconds_whatever_its_client_does() {
    let server = server();
    let process = Worker::start_as("run", &server.url(), &HTTP, &[]);
    let address = Pages::of(&process).address;
    let requests = [
        "",
        "G",
        "GET /livez HTTP/1.1\r\nHost: x\r\n",
        "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    in_parallel(requests, |request| {
        let begun = Instant::now();
        let mut client = clients(address, 1, request).remove(0);
        client.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let mut answer = Vec::new();
        // It may be reset if the request was not read completely.
        let _end = client.read_to_end(&mut answer);
        let lasted = begun.elapsed();
        assert!(lasted < Duration::from_secs(12), "{request:?} lasted {lasted:?}");
        let answer = String::from_utf8(answer).unwrap();
        let answers = answer.matches("HTTP/1.1 200 OK").count();
        assert!(answers <= 1, "{answer}");
        assert_eq!(answers == 1, request.contains("\r\n\r\n") && request.starts_with("GET"));
    });
}

#[test]
fn the_limit_is_raised_and_one_that_stays_too_low_is_told() {
    let server = server();
    let start = |ulimit: &str, partitions: &str| {
        let args = [&HTTP[..], &["--partitions", partitions, "--prefix", partitions]].concat();
        let process = Worker::start_after(ulimit, "run", &server.url(), &args);
        // The warning comes at the start.
        let pages = Pages::of(&process);
        wait_until(SOON, "it has connected", || pages.get("/livez").0 == 200);
        process
    };
    let raised = start("ulimit -Sn 64; ulimit -Hn 300", "1");
    assert_eq!(limits(&raised), ("300".to_owned(), "300".to_owned()));
    assert!(!raised.log().contains("descriptors"), "{}", raised.log());
    let tight = start("ulimit -n 300", "80");
    let words = ["limit=300", "needed=656", "partitions=80", "LimitNOFILE="];
    wait_until(SOON, "it warns", || words.iter().all(|word| tight.log().contains(word)));
    assert_eq!(tight.log().matches("too few file descriptors").count(), 1);
}
