//! `rediss://`: TLS whose certificate is always verified, against a private authority if one is given.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use rollcall::private_server::{Options, PrivateServer, ServerError, find_server};
use tempfile::TempDir;

use super::{Pages, SOON, add_heartbeats, presence};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::support::dump;

/// A server with TLS on a second port, and its authority.
struct TlsServer {
    server: PrivateServer,
    folder: TempDir,
    port: u16,
}

impl TlsServer {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certify(folder.path());
        let port = free_port();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let args = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", file("server.pem")),
            ("--tls-key-file", file("server.key")),
            ("--tls-ca-cert-file", file("ca.pem")),
            ("--tls-auth-clients", "no".to_owned()),
        ];
        let extra_args =
            args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let server = PrivateServer::start(Options { extra_args, ..Options::default() });
        let server = server.unwrap_or_else(|error| panic!("{}", why_no_tls(&error)));
        Self { server, folder, port }
    }

    fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    fn authority(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }
}

/// Why a server with a port for TLS does not start: it may have been built without.
fn why_no_tls(error: &ServerError) -> String {
    let said = error.to_string();
    // Since 7.2 (and in Valkey); before, the setting did not exist.
    let without =
        ["Failed finding TLS support", "'tls-port"].iter().any(|words| said.contains(words));
    if !without {
        return said;
    }
    let binary = find_server(None).unwrap_or_default();
    format!(
        "{} was built without TLS: test with another server (Debian's has it), or leave these tests out \
         with `tests/run --test live -- --skip tls`",
        binary.display()
    )
}

#[test]
fn a_server_without_tls_is_told_from_one_that_fails() {
    let refused = |flag: &str| {
        let extra_args = vec![flag.to_owned(), "1".to_owned()];
        PrivateServer::start(Options { extra_args, ..Options::default() }).unwrap_err()
    };
    assert!(!why_no_tls(&refused("--no-such-setting")).contains("TLS"));
    let log = "Missing implement of connection type tls\n# Failed finding TLS support.".to_owned();
    let status = std::process::ExitStatus::default();
    assert!(why_no_tls(&ServerError::Ended { status, log }).contains("without TLS"));
}

/// Outside the range of outgoing connections, so that none of them takes it first.
pub fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..64).map(|_| fastrand::u16(20_000..32_000)).find(free).unwrap()
}

/// A private authority and a certificate for 127.0.0.1 from it.
pub fn certify(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    for arguments in [
        format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=rollcall-test"),
        format!("req {key} -keyout server.key -out server.csr -subj /CN=server"),
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 \
         -extfile names"
            .to_owned(),
    ] {
        let openssl = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
        let output = openssl.expect("the openssl command makes the certificates of this test: install it");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {said}");
    }
}

#[test]
fn tls_works_with_an_authority_that_is_trusted() {
    let tls = TlsServer::start();
    let mut conn = dump::connect(&tls.server.url());
    add_heartbeats(&tls.server.url(), 5);
    let args = ["--http", "127.0.0.1:0"];
    let mut trusting =
        Worker::start_as("run", &tls.url(), &args, &[("SSL_CERT_FILE", &tls.authority())]);
    wait_until(SOON, "it works", || presence(&mut conn) == 5);
    let pages = Pages::of(&trusting);
    wait_until(SOON, "it is ready", || pages.get("/readyz").0 == 200);
    assert_eq!(trusting.terminate(), 0, "{}", trusting.log());
}

#[test]
fn tls_with_an_unknown_authority_is_refused_and_says_so() {
    let tls = TlsServer::start();
    let stranger = tempfile::tempdir().unwrap();
    certify(stranger.path());
    let other_authority = stranger.path().join("ca.pem").display().to_string();
    let args = ["--http", "127.0.0.1:0"];
    let mut wary = Worker::start(&tls.url(), &args, &[("SSL_CERT_FILE", &other_authority)]);
    let pages = Pages::of(&wary);
    wait_until(SOON, "it says why it does not connect", || {
        let (status, body) = pages.get("/readyz");
        status == 503 && body.contains("certificate")
    });
    assert!(wary.runs(), "it waits for better days");
    assert_eq!(wary.terminate(), 0);
}
