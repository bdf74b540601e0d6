//! What systemd is told of a `Type=notify` service (`sd_notify(3)`): that it has started, that it stops, and,
//! as often as the unit asks, that it gets on. Without `$NOTIFY_SOCKET` nothing is sent.
//!
//! By hand: the crate sd-notify knows no names without a path, and waits for a supervisor that does not listen.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::health::Health;
use super::log::Throttle;

/// How often a lasting fault is logged.
const REMINDER: Duration = Duration::from_secs(60);
/// The pause before the start is told again.
const AGAIN: Duration = Duration::from_millis(500);

/// Whoever started the process and wants to hear of it, or nobody.
#[derive(Debug)]
pub struct Supervisor {
    listener: Option<(UnixDatagram, SocketAddr)>,
    /// What it could not be told.
    unheard: Mutex<Throttle>,
    /// How often it wants to hear that the process gets on, if it does.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names (`$NOTIFY_SOCKET`, `$WATCHDOG_USEC`, `$WATCHDOG_PID`).
    ///
    /// # Errors
    /// If its address is of a kind that cannot be used here.
    pub fn from_env() -> io::Result<Self> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self::silent());
        };
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|_| meant).map(Duration::from_micros);
        Self::new(name, watchdog)
    }

    fn silent() -> Self {
        Self { listener: None, unheard: Mutex::new(Throttle::new(REMINDER)), watchdog: None }
    }

    fn new(name: OsString, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A supervisor that does not listen must not hold the process up.
        socket.set_nonblocking(true)?;
        Ok(Self { listener: Some((socket, address(&name)?)), watchdog, ..Self::silent() })
    }

    /// The process has started: its loops run, its pages are served. Said again until the supervisor has room to
    /// hear it, because it would end a process that never starts.
    pub async fn started(&self) {
        while !self.tell("READY=1") {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The process finishes what it has in hand, and ends.
    pub fn stopping(&self) {
        let _unheard = self.tell("STOPPING=1");
    }

    /// Says again and again that the process gets on, while it does, at twice the pace that is asked for.
    pub async fn watch(&self, health: &Health) {
        let Some(limit) = self.watchdog else { return };
        let mut told = Throttle::new(REMINDER);
        loop {
            let stuck = health.stuck();
            if stuck.is_empty() {
                let _unheard = self.tell("WATCHDOG=1");
            } else if told.add(1).is_some() {
                warn!("not telling the watchdog that all is well: {}", stuck.join("; "));
            }
            tokio::time::sleep(limit / 2).await;
        }
    }

    /// Whether it was told, or nobody wants to hear.
    fn tell(&self, state: &str) -> bool {
        let Some((socket, address)) = &self.listener else { return true };
        let Err(error) = socket.send_to_addr(state.as_bytes(), address) else { return true };
        let mut unheard = self.unheard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = unheard.add(1) {
            warn!(state, times, "cannot tell the supervisor: {error}");
        }
        false
    }
}

/// The address of `$NOTIFY_SOCKET`: a path, or a name without one (`@…`).
#[cfg(target_os = "linux")]
fn address(name: &OsString) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name),
        _ => SocketAddr::from_pathname(name),
    }
}

/// The address of `$NOTIFY_SOCKET`: a path.
#[cfg(not(target_os = "linux"))]
fn address(name: &OsString) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A socket as systemd has it, and a supervisor that speaks to it.
    fn pair(watchdog: Duration) -> (tempfile::TempDir, UnixDatagram, Supervisor) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_read_timeout(Some(SOON)).unwrap();
        let supervisor = Supervisor::new(path.into(), Some(watchdog)).unwrap();
        (folder, listener, supervisor)
    }

    fn heard(listener: &UnixDatagram) -> io::Result<String> {
        let mut bytes = [0; 256];
        let length = listener.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_watchdog_hears_nothing_while_a_loop_is_stuck() {
        let (_folder, listener, supervisor) = pair(Duration::from_millis(20));
        let health = Health::default();
        let pulse = health.add("a".to_owned(), Duration::from_secs(3600));
        let stuck = health.clone();
        let watching = tokio::spawn(async move { supervisor.watch(&health).await });
        assert_eq!(heard(&listener).unwrap(), "WATCHDOG=1");
        assert_eq!(heard(&listener).unwrap(), "WATCHDOG=1", "again and again");
        drop(pulse);
        let _never_speaks = stuck.add("b".to_owned(), Duration::ZERO);
        listener.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        while let Ok(state) = heard(&listener) {
            assert_eq!(state, "WATCHDOG=1");
            assert!(!watching.is_finished());
        }
        watching.abort();
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_socket_may_have_a_name_without_a_path() {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("rollcall-test-{}-{:x}", std::process::id(), fastrand::u64(..));
        let bound = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&bound).unwrap();
        listener.set_read_timeout(Some(SOON)).unwrap();
        let supervisor = Supervisor::new(format!("@{name}").into(), None).unwrap();
        supervisor.started().await;
        supervisor.stopping();
        assert_eq!(heard(&listener).unwrap(), "READY=1");
        assert_eq!(heard(&listener).unwrap(), "STOPPING=1");
    }
}
