//! A private `redis-server` or `valkey-server`: a free loopback port and a temporary folder, removed with its owner.
//! The demo and the tests use it.
//!
//! It blocks and needs no runtime, so any test can use it. It never touches a server that it did not start: an answer
//! on the port counts only if it comes from the child process.
//!
//! Nothing is left behind even if the owner is killed with SIGKILL: a shell reads a pipe whose other end only the
//! owner holds, and cleans up when the pipe ends. (The parent-death signal of `setpriv --pdeathsig` would not do: it
//! follows the *thread* that started the server.)

mod locate;
mod probe;
mod running;
mod watchdog;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use self::locate::{SERVER_VARIABLE, find_server, in_path, install_hint};
use self::probe::{Answer, probe};
use self::running::Running;
pub use self::running::ended_of_this_thread;
use self::watchdog::Watchdog;

const READY_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
const PORT_ATTEMPTS: usize = 8;

/// How a private server is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The binary: a path, or a name to look up in `PATH`. By default [`SERVER_VARIABLE`] decides, and without it the
    /// first of `redis-server` and `valkey-server` in `PATH`.
    pub binary: Option<PathBuf>,
    /// Keep an append-only file, so that [`PrivateServer::restart`] finds the data again.
    pub appendonly: bool,
    /// Also listen on a Unix socket in the folder.
    pub unix_socket: bool,
    /// More arguments, such as `--maxmemory 50mb`; they override the others.
    pub extra_args: Vec<String>,
}

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// There is no such program.
    #[error("no {wanted} found; get one with {}", install_hint())]
    NotFound {
        /// What was looked for.
        wanted: String,
    },
    /// There is no folder to run in, or no log in it.
    #[error("no temporary folder for a private server")]
    Folder(#[source] io::Error),
    /// No port is available.
    #[error("no free port on 127.0.0.1")]
    Port(#[source] io::Error),
    /// The program does not start.
    #[error("{} does not start", binary.display())]
    Spawn {
        /// The program.
        binary: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The server ended before it answered.
    #[error("the private server ended at once ({status}); its last words:\n{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The server runs but does not answer.
    #[error(
        "the private server gave no answer within {READY_WITHIN:?} ({seen}); its last words:\n{log}"
    )]
    Silent {
        /// What came instead of an answer.
        seen: String,
        /// The end of its log.
        log: String,
    },
}

/// A running server that ends when this value is dropped.
#[derive(Debug)]
pub struct PrivateServer {
    options: Options,
    binary: PathBuf,
    port: u16,
    child: Option<Running>,
    // Dropped in this order: the watchdog sees the pipe's end only when everything is gone.
    folder: TempDir,
    watchdog: Watchdog,
}

impl PrivateServer {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// If there is no binary, or the server does not answer; the error then has the end of its log.
    pub fn start(options: Options) -> Result<Self, ServerError> {
        let binary = find_server(options.binary.as_deref())?;
        let folder =
            tempfile::Builder::new().prefix("rollcall-").tempdir().map_err(ServerError::Folder)?;
        let watchdog = Watchdog::over(folder.path());
        let mut server = Self { options, binary, port: 0, child: None, folder, watchdog };
        for _ in 1..PORT_ATTEMPTS {
            server.port = free_port().map_err(ServerError::Port)?;
            match server.launch() {
                Err(error) if port_was_taken(&error) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
        server.port = free_port().map_err(ServerError::Port)?;
        server.launch().map(|()| server)
    }

    /// The address for a Redis client.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The address of the unix socket, if [`Options::unix_socket`] asked for one.
    pub fn unix_url(&self) -> Option<String> {
        self.options.unix_socket.then(|| format!("unix://{}", self.socket().display()))
    }

    /// The port on 127.0.0.1; a restart keeps it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Running::pid)
    }

    /// The folder that holds its files; a restart keeps it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The program that runs.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        tail(&self.log())
    }

    /// How the server ended, if it ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_ref().and_then(Running::ended)
    }

    /// Kills the server with SIGKILL and waits until it is gone; its folder stays.
    pub fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill();
            self.watchdog.guard(0);
        }
    }

    /// Starts the server again, on the same port and in the same folder, and waits until it answers. A server that is
    /// still running is killed first.
    ///
    /// # Errors
    /// As [`PrivateServer::start`].
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.kill();
        self.launch()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("server.sock")
    }

    fn launch(&mut self) -> Result<(), ServerError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(ServerError::Folder)?;
        let errors = log.try_clone().map_err(ServerError::Folder)?;
        let mut command = Command::new(&self.binary);
        command.args(self.arguments()).stdin(Stdio::null()).stdout(log).stderr(errors);
        // Outside the terminal's foreground group, so that Ctrl-C reaches only the owner.
        command.process_group(0);
        let spawned = command.spawn();
        let child =
            spawned.map_err(|source| ServerError::Spawn { binary: self.binary.clone(), source })?;
        self.watchdog.guard(child.id());
        self.child = Some(Running::new(child, self.port, self.log()));
        let ready = self.wait_until_ready();
        if ready.is_err() {
            self.kill();
        }
        ready
    }

    /// Its output is its log, so complaints about arguments are in it as well.
    fn arguments(&self) -> Vec<String> {
        let appendonly = if self.options.appendonly { "yes" } else { "no" };
        let (port, folder) = (self.port.to_string(), self.folder.path().display().to_string());
        let fixed = [
            ["--port", &port],
            ["--bind", "127.0.0.1"],
            ["--dir", &folder],
            ["--save", ""],
            ["--appendonly", appendonly],
            ["--daemonize", "no"],
            ["--maxmemory-policy", "noeviction"],
        ];
        let mut arguments: Vec<String> = fixed.into_iter().flatten().map(str::to_owned).collect();
        if self.options.unix_socket {
            arguments.extend(["--unixsocket".to_owned(), self.socket().display().to_string()]);
        }
        arguments.extend(self.options.extra_args.iter().cloned());
        arguments
    }

    fn wait_until_ready(&mut self) -> Result<(), ServerError> {
        let deadline = Instant::now() + READY_WITHIN;
        let pid = self.pid().unwrap_or_default();
        loop {
            if let Some(status) = self.ended() {
                return Err(ServerError::Ended { status, log: self.log_tail() });
            }
            match probe(self.port) {
                Ok(Answer::Ready(from)) if from.is_none_or(|from| from == pid) => return Ok(()),
                seen if Instant::now() > deadline => {
                    let seen =
                        seen.map_or_else(|error| error.to_string(), |answer| answer.to_string());
                    return Err(ServerError::Silent { seen, log: self.log_tail() });
                }
                _ => thread::sleep(POLL),
            }
        }
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines[lines.len().saturating_sub(12)..] {
        [] => "(none)".to_owned(),
        ref last => last.join("\n"),
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A free port below the range from which the system takes ports for outgoing connections. While a server is down, a
/// client that keeps trying a port of that range could be connected to itself.
fn free_port() -> io::Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let random = (0..32).find_map(|_| bind(fastrand::u16(20_000..32_000)).ok());
    random.map_or_else(|| bind(0), Ok)?.local_addr().map(|address| address.port())
}

fn port_was_taken(error: &ServerError) -> bool {
    matches!(error, ServerError::Ended { log, .. } if log.contains("Address already in use"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    fn ask(port: u16, command: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    fn eventually(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < deadline, "not within 10 s: {what}");
            thread::sleep(POLL);
        }
    }

    fn listens(port: u16) -> bool {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    }

    #[test]
    fn a_private_server_answers_and_leaves_nothing() {
        let server = PrivateServer::start(Options::default()).unwrap();
        assert!(ask(server.port(), "SET a 1").starts_with("+OK"));
        let (port, folder) = (server.port(), server.folder().to_path_buf());
        assert!(folder.join("server.log").exists());
        drop(server);
        assert!(!folder.exists());
        assert!(!listens(port));
    }

    #[test]
    fn a_restart_keeps_port_and_appended_data() {
        let options = Options { appendonly: true, unix_socket: true, ..Options::default() };
        let mut server = PrivateServer::start(options).unwrap();
        let (port, pid) = (server.port(), server.pid());
        assert!(ask(port, "SET a 1").starts_with("+OK"));
        server.kill();
        assert_eq!(server.pid(), None);
        assert!(!listens(port));
        server.restart().unwrap();
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), pid);
        assert!(ask(port, "GET a").starts_with("$1\r\n1"));
        assert!(server.folder().join("server.sock").exists());
    }

    #[test]
    fn the_watchdog_cleans_up_after_an_owner_that_never_dropped() {
        let mut server = PrivateServer::start(Options::default()).unwrap();
        let (port, folder) = (server.port(), server.folder().to_path_buf());
        // As when the owner is killed: the pipe ends, and no `Drop` has run.
        let child = server.child.take();
        drop(std::mem::replace(&mut server.watchdog, Watchdog::over(Path::new("/nonexistent"))));
        eventually("the server is killed", || !listens(port));
        assert!(!folder.exists());
        eventually("it is no more", || child.as_ref().unwrap().ended().is_some());
    }

    #[test]
    fn a_server_that_died_is_named_and_one_that_was_stopped_is_not() {
        let mut server = PrivateServer::start(Options::default()).unwrap();
        assert!(ended_of_this_thread().is_empty());
        server.kill();
        assert!(ended_of_this_thread().is_empty(), "that was meant");
        server.restart().unwrap();
        let kill = format!("kill -SEGV {}", server.pid().unwrap());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        eventually("it is named", || !ended_of_this_thread().is_empty());
        let [said] = &ended_of_this_thread()[..] else { panic!("more than one") };
        let port = server.port().to_string();
        assert!(said.contains(&port) && said.contains("signal"), "{said}");
        let elsewhere = thread::spawn(ended_of_this_thread).join().unwrap();
        assert!(elsewhere.is_empty(), "it is another's: {elsewhere:?}");
        drop(server);
        assert!(ended_of_this_thread().is_empty());
    }

    #[test]
    fn failures_say_what_to_do() {
        let missing = Options { binary: Some("no-such-server".into()), ..Options::default() };
        let error = PrivateServer::start(missing).unwrap_err().to_string();
        assert!(error.contains("no no-such-server found; get one with "), "{error}");
        let refused =
            Options { extra_args: vec!["--no-such-setting".into()], ..Options::default() };
        let error = PrivateServer::start(refused).unwrap_err().to_string();
        assert!(error.contains("no-such-setting"), "{error}");
    }

    #[test]
    fn another_server_on_the_port_is_not_taken_for_ours() {
        let first = PrivateServer::start(Options::default()).unwrap();
        let mut second = PrivateServer::start(Options::default()).unwrap();
        second.port = first.port();
        let error = second.restart().unwrap_err();
        assert!(port_was_taken(&error), "{error}");
        assert!(listens(first.port()));
    }
}
