//! TLS in fleets: servers that require a client certificate, private authorities, names, renewal.

use std::path::Path;
use std::process::Command;

use rollcall::private_server::{Options, PrivateServer};
use tempfile::TempDir;

use super::tls::free_port;
use super::{Pages, SOON, add_heartbeats, presence};
use crate::failover::sentinels::{self, MASTER};
use crate::harness::wait_until;
use crate::process::Worker;
use crate::query::ground::ask_at;
use crate::support::dump;

const NAME: &str = "db.example.test";
const CURVE: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command.args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {said}");
}

/// A certificate for these names under the authority in the folder.
fn issue(folder: &Path, file: &str, names: &str, days: u32) {
    std::fs::write(folder.join("names"), format!("subjectAltName={names}\n")).unwrap();
    openssl(folder, &format!("req {CURVE} -keyout {file}.key -out {file}.csr -subj /CN={file}"));
    openssl(
        folder,
        &format!(
            "x509 -req -in {file}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {file}.pem -days {days} \
             -extfile names"
        ),
    );
}

/// An authority, a server's certificate for a name alone, and a client's.
fn certify(folder: &Path) {
    openssl(
        folder,
        &format!("req -x509 {CURVE} -keyout ca.key -out ca.pem -days 2 -subj /CN=own-ca"),
    );
    issue(folder, "server", &format!("DNS:{NAME}"), 2);
    issue(folder, "client", "DNS:rollcall", 2);
}

/// A server with TLS on a second port, and with `tls-auth-clients` at its default, yes.
struct Server {
    server: PrivateServer,
    folder: TempDir,
    port: u16,
}

fn server_args(folder: &Path, port: u16) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let args = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", file("server.pem")),
        ("--tls-key-file", file("server.key")),
        ("--tls-ca-cert-file", file("ca.pem")),
    ];
    args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certify(folder.path());
        let port = free_port();
        let mut extra_args = server_args(folder.path(), port);
        extra_args.extend(more.iter().map(|&word| word.to_owned()));
        let server = PrivateServer::start(Options { extra_args, ..Options::default() }).unwrap();
        Self { server, folder, port }
    }

    fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// All four settings, as flags.
    fn flags(&self) -> Vec<String> {
        let settings = [
            ("ca", self.file("ca.pem")),
            ("cert", self.file("client.pem")),
            ("key", self.file("client.key")),
            ("name", NAME.to_owned()),
        ];
        settings
            .into_iter()
            .flat_map(|(name, text)| [format!("--redis-tls-{name}"), text])
            .collect()
    }
}

fn words(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

#[test]
fn a_server_that_wants_a_client_certificate_is_served_and_renewed_files_are_read() {
    let mut tls = Server::start(&[]);
    add_heartbeats(&tls.server.url(), 5);
    let flags = tls.flags();
    let args = [&words(&flags)[..], &["--http", "127.0.0.1:0"]].concat();
    let mut process = Worker::start_as("run", &tls.url(), &args, &[]);
    wait_until(SOON, "it works", || presence(&mut dump::connect(&tls.server.url())) == 5);
    let pages = Pages::of(&process);
    wait_until(SOON, "ready", || pages.get("/readyz").0 == 200);
    // Another authority, and everything signed by it, in the same places.
    certify(tls.folder.path());
    tls.server.restart().unwrap();
    wait_until(SOON, "it works with the new files", || {
        add_heartbeats(&tls.server.url(), 7);
        presence(&mut dump::connect(&tls.server.url())) == 7
    });
    // Files that cannot be used for a while are reported.
    let key = std::fs::read(tls.file("client.key")).unwrap();
    std::fs::write(tls.file("client.key"), "half a ke").unwrap();
    tls.server.restart().unwrap();
    wait_until(SOON, "it says which file is bad", || {
        let (status, body) = pages.get("/readyz");
        status == 503
            && body.contains("redis-tls-key: ")
            && body.contains("contains no usable private key")
    });
    std::fs::write(tls.file("client.key"), &key).unwrap();
    wait_until(SOON, "ready again", || pages.get("/readyz").0 == 200);
    let log = process.log();
    assert_eq!(process.terminate(), 0, "{log}");
    let secret = String::from_utf8(key).unwrap().lines().nth(1).unwrap().to_owned();
    assert!(!log.contains("half a ke") && !log.contains(&secret), "{log}");
}

#[test]
fn what_is_wrong_with_tls_is_said_with_the_setting_that_mends_it() {
    let tls = Server::start(&[]);
    let open = Server::start(&["--tls-auth-clients", "no"]);
    issue(tls.folder.path(), "other", "DNS:other", 2);
    issue(open.folder.path(), "server", &format!("DNS:{NAME}"), 0);
    let expired = {
        let port = free_port();
        let mut extra_args = server_args(open.folder.path(), port);
        extra_args.extend(["--tls-auth-clients".to_owned(), "no".to_owned()]);
        let server = PrivateServer::start(Options { extra_args, ..Options::default() }).unwrap();
        (server, format!("rediss://127.0.0.1:{port}"))
    };
    let (ca, open_ca) = (tls.file("ca.pem"), open.file("ca.pem"));
    let named = ["--redis-tls-name", NAME];
    let trusting = [&["--redis-tls-ca", &open_ca][..], &named].concat();
    wait_until(SOON, "the certificate has expired", || {
        ask_at(&expired.1, &[&["online"][..], &trusting].concat()).0 == 1
    });
    let plain = format!("rediss://127.0.0.1:{}", tls.server.port());
    let not_plain = format!("redis://127.0.0.1:{}", tls.port);
    for (url, flags, why, remedy) in [
        (
            tls.url(),
            [&["--redis-tls-ca", &ca][..], &named].concat(),
            "received fatal alert",
            "--redis-tls-cert and --redis-tls-key",
        ),
        (open.url(), vec!["--redis-tls-ca", &open_ca], NAME, "--redis-tls-name"),
        (open.url(), named.to_vec(), "UnknownIssuer", "--redis-tls-ca"),
        (expired.1.clone(), trusting.clone(), "expired", "renew the server's certificate"),
        (plain, trusting, "connecting to 127.0.0.1:", "redis:// in place of rediss://"),
        (not_plain, Vec::new(), "this port speaks TLS", "rediss:// in place of redis://"),
    ] {
        let is_first = why == "received fatal alert";
        for command in ["status", "doctor"].iter().take(if is_first { 2 } else { 1 }) {
            let (code, out, error) = ask_at(&url, &[&[*command][..], &flags].concat());
            let said = format!("{out}{error}").split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(code, 1, "{url} {flags:?}: {said}");
            assert!(said.contains(why) && said.contains(remedy), "{url} {flags:?}: {said}");
        }
    }
    let secret = std::fs::read_to_string(tls.file("client.key")).unwrap();
    let secret = secret.lines().nth(1).unwrap().to_owned();
    let file = |name: &str| tls.file(name);
    let (cert, key, other) = (file("client.pem"), file("client.key"), file("other.key"));
    for (url, flags, why) in [
        (tls.url(), vec!["--redis-tls-ca", "/nowhere.pem"], "cannot be read"),
        (tls.url(), vec!["--redis-tls-ca", &key], "contains no certificate"),
        (tls.url(), vec!["--redis-tls-cert", &cert], "set its key with redis-tls-key"),
        (tls.url(), vec!["--redis-tls-key", &key], "set its certificate with redis-tls-cert"),
        (
            tls.url(),
            vec!["--redis-tls-cert", &cert, "--redis-tls-key", &cert],
            "contains no usable private key",
        ),
        (
            tls.url(),
            vec!["--redis-tls-cert", &cert, "--redis-tls-key", &other],
            "is not the key of the certificate",
        ),
        (tls.url(), vec!["--redis-tls-name", "a b"], "must be a host name"),
        ("redis://127.0.0.1:1".to_owned(), vec!["--redis-tls-ca", &ca], "does not ask for TLS"),
    ] {
        let (code, _, error) = ask_at(&url, &[&["online"][..], &flags].concat());
        let is_told = error.contains(why) && error.contains("redis-tls-");
        assert!(code == 64 && is_told, "{flags:?}: {code} {error}");
        assert!(!error.contains(&secret), "{error}");
    }
}

fn bus_port(node: &PrivateServer) -> u16 {
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg("cluster-port");
    let (_, port): (String, u16) = get.query(&mut dump::connect(&node.url())).unwrap();
    port
}

#[test]
fn sentinels_and_the_nodes_of_a_cluster_are_reached_with_the_same_certificates() {
    let tls = Server::start(&["--tls-replication", "yes"]);
    let flags = tls.flags();
    let rules = format!("sentinel monitor {MASTER} 127.0.0.1 {} 1\n", tls.port);
    let sentinel_port = free_port();
    let args = server_args(tls.folder.path(), sentinel_port);
    let args = [&words(&args)[..], &["--tls-replication", "yes"]].concat();
    let _sentinel = sentinels::start(tls.folder.path(), 0, &rules, &args);
    let url = format!("rediss+sentinel://127.0.0.1:{sentinel_port}/{MASTER}");
    let (code, _, error) = ask_at(&url, &[&["online"][..], &words(&flags)].concat());
    assert_eq!(code, 0, "{error}");
    let (code, _, error) = ask_at(&url, &["online", "--redis-tls-ca", &tls.file("ca.pem")]);
    assert!(code == 1 && error.contains("--redis-tls-name"), "{error}");
    // Two nodes; one is asked, and redirects to the other's TLS port.
    let args = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--tls-replication", "yes"];
    let nodes = [0, 1].map(|_| {
        let port = free_port();
        let mut extra_args = server_args(tls.folder.path(), port);
        extra_args.extend(args.map(str::to_owned));
        extra_args.extend(["--cluster-port".to_owned(), free_port().to_string()]);
        (PrivateServer::start(Options { extra_args, ..Options::default() }).unwrap(), port)
    });
    for (n, (node, _)) in nodes.iter().enumerate() {
        let (first, last) = [("0", "8191"), ("8192", "16383")][n];
        let mut conn = dump::connect(&node.url());
        let mut assign = redis::cmd("CLUSTER");
        assign.arg("ADDSLOTSRANGE").arg(first).arg(last).exec(&mut conn).unwrap();
        let mut epoch = redis::cmd("CLUSTER");
        epoch.arg("SET-CONFIG-EPOCH").arg(n + 1).exec(&mut conn).unwrap();
    }
    let mut conn = dump::connect(&nodes[0].0.url());
    let mut meet = redis::cmd("CLUSTER");
    meet.arg("MEET").arg("127.0.0.1").arg(nodes[1].1).arg(bus_port(&nodes[1].0));
    meet.exec(&mut conn).unwrap();
    wait_until(SOON, "the nodes know each other", || {
        nodes.iter().all(|(node, _)| {
            let mut conn = dump::connect(&node.url());
            let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut conn).unwrap();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2\r")
        })
    });
    let url = format!("rediss+cluster://127.0.0.1:1,127.0.0.1:{}", nodes[0].1);
    let args = [&["--partitions", "4"][..], &words(&flags)].concat();
    let (code, _, error) = ask_at(&url, &[&["online"][..], &args].concat());
    assert_eq!(code, 0, "{error}");
}
