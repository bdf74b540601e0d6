//! Notifications to systemd for a `Type=notify` service (`sd_notify(3)`): that it has started, that it is stopping,
//! and, as often as the unit asks, that it makes progress. Without `$NOTIFY_SOCKET` nothing is sent.
//!
//! Written by hand: the crate sd-notify does not support abstract names, and blocks on a supervisor that does not
//! read.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::health::Health;
use super::log::Throttle;

/// How often a persistent fault is logged.
const REMINDER: Duration = Duration::from_secs(60);
/// The pause before the start is reported again.
const AGAIN: Duration = Duration::from_millis(500);

/// The supervisor that wants notifications, if any.
#[derive(Debug)]
pub struct Supervisor {
    listener: Option<(UnixDatagram, SocketAddr)>,
    /// Notifications that could not be sent.
    unheard: Mutex<Throttle>,
    /// How often it wants to hear that the process makes progress, if at all.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The supervisor in the environment (`$NOTIFY_SOCKET`, `$WATCHDOG_USEC`, `$WATCHDOG_PID`).
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
        // A supervisor that does not read must not block the process.
        socket.set_nonblocking(true)?;
        Ok(Self { listener: Some((socket, address(&name)?)), watchdog, ..Self::silent() })
    }

    /// The process has started: its loops run and its pages are served. This is repeated until it is sent, because
    /// the supervisor would end a process that never starts.
    pub async fn started(&self) {
        while !self.tell("READY=1") {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The process finishes its current work and ends.
    pub fn stopping(&self) {
        let _unheard = self.tell("STOPPING=1");
    }

    /// Reports again and again that the process makes progress, while it does, at twice the requested rate.
    pub async fn watch(&self, health: &Health) {
        let Some(limit) = self.watchdog else { return };
        let mut told = Throttle::new(REMINDER);
        loop {
            let stuck = health.stuck();
            if stuck.is_empty() {
                let _unheard = self.tell("WATCHDOG=1");
            } else if told.add(1).is_some() {
                warn!("not notifying the watchdog: {}", stuck.join("; "));
            }
            tokio::time::sleep(limit / 2).await;
        }
    }

    /// Whether it was sent, or there is no supervisor.
    fn tell(&self, state: &str) -> bool {
        let Some((socket, address)) = &self.listener else { return true };
        let Err(error) = socket.send_to_addr(state.as_bytes(), address) else { return true };
        let mut unheard = self.unheard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = unheard.add(1) {
            warn!(state, times, "cannot notify the supervisor: {error}");
        }
        false
    }
}

/// The address in `$NOTIFY_SOCKET`: a path, or an abstract name (`@…`).
#[cfg(target_os = "linux")]
fn address(name: &OsString) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name),
        _ => SocketAddr::from_pathname(name),
    }
}

/// The address in `$NOTIFY_SOCKET`: a path.
#[cfg(not(target_os = "linux"))]
fn address(name: &OsString) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A socket like systemd's, and a supervisor that writes to it.
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
