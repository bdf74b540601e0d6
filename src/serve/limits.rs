//! Limits for one client: events per second, and connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::access::Caller;
use super::client::Client;
use crate::config::{Config, Live, RateLimit};

/// How many clients are remembered before those with their whole burst left are forgotten.
const REMEMBERED: usize = 10_000;

/// Limits for one client.
pub struct Limits {
    /// The current rate limit.
    live: Live,
    buckets: Mutex<HashMap<Key, Bucket>>,
    max_connections: usize,
    max_client_connections: usize,
    connections: Arc<Mutex<Connections>>,
}

/// Whose events are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Subject(Arc<str>),
    Address(IpAddr),
}

/// How many events a client may still send, and when that was computed.
#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

#[derive(Default)]
struct Connections {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place among the open connections, released when dropped.
pub struct Place {
    address: Option<IpAddr>,
    connections: Arc<Mutex<Connections>>,
}

impl Limits {
    /// The limits of the settings.
    pub fn new(config: &Config) -> Self {
        Self {
            live: config.live.clone(),
            buckets: Mutex::default(),
            max_connections: config.serve.max_connections,
            max_client_connections: config.serve.max_client_connections,
            connections: Arc::default(),
        }
    }

    /// Counts events of a caller: by the subject of its token, otherwise by its address.
    ///
    /// # Errors
    /// If that is too many; the error says how long to wait.
    pub fn take(&self, caller: &Caller, client: Client, events: usize) -> Result<(), Duration> {
        let Some(rate) = self.live.get().rate_limit else { return Ok(()) };
        let key = match &caller.subject {
            Some(subject) => Key::Subject(subject.clone()),
            None => Key::Address(network_of(client.0)),
        };
        let mut buckets = lock(&self.buckets);
        let now = Instant::now();
        if buckets.len() >= REMEMBERED {
            buckets.retain(|_, bucket| bucket.refilled(rate, now) < f64::from(rate.burst));
        }
        let full = Bucket { left: f64::from(rate.burst), at: now };
        let bucket = buckets.entry(key).or_insert(full);
        bucket.take(rate, events as f64, now)
    }

    /// A place for a connection from this address. The address `None` means a trusted proxy.
    pub fn connect(&self, address: Option<IpAddr>) -> Option<Place> {
        let address = address.map(network_of);
        let mut connections = lock(&self.connections);
        if connections.all >= self.max_connections {
            return None;
        }
        if let Some(address) = address {
            let own = connections.by_address.entry(address).or_default();
            if *own >= self.max_client_connections {
                return None;
            }
            *own += 1;
        }
        connections.all += 1;
        Some(Place { address, connections: self.connections.clone() })
    }
}

impl Bucket {
    fn refilled(&self, rate: RateLimit, now: Instant) -> f64 {
        let gained =
            now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate.per_second);
        (self.left + gained).min(f64::from(rate.burst))
    }

    /// A request for more than the burst is admitted only when the whole burst is available.
    fn take(&mut self, rate: RateLimit, events: f64, now: Instant) -> Result<(), Duration> {
        let left = self.refilled(rate, now);
        let needed = events.min(f64::from(rate.burst));
        if left < needed {
            let seconds = (needed - left) / f64::from(rate.per_second);
            return Err(Duration::from_secs_f64(seconds));
        }
        *self = Self { left: left - events, at: now };
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = lock(&self.connections);
        connections.all = connections.all.saturating_sub(1);
        let Some(address) = self.address else { return };
        if let Some(own) = connections.by_address.get_mut(&address) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                connections.by_address.remove(&address);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or the /64 network of an IPv6 address.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        address => address,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Gathered;

    const RATE: RateLimit = RateLimit { per_second: 10, burst: 20 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket { left: 20.0, at: start };
        assert_eq!(bucket.take(RATE, 15.0, start), Ok(()));
        assert_eq!(bucket.take(RATE, 5.0, start), Ok(()));
        assert_eq!(bucket.take(RATE, 1.0, start), Err(Duration::from_millis(100)));
        let later = start + Duration::from_millis(500);
        assert_eq!(bucket.take(RATE, 5.0, later), Ok(()));
        assert!(bucket.take(RATE, 1.0, later).is_err());
        let much_later = start + Duration::from_secs(60);
        assert_eq!(
            bucket.take(RATE, 50.0, much_later),
            Ok(()),
            "more than the burst, once it is full"
        );
        assert_eq!(bucket.take(RATE, 1.0, much_later), Err(Duration::from_millis(3_100)));
    }

    #[test]
    fn connections_are_counted_as_long_as_they_are_open() {
        let flags = [("max-connections", "3"), ("max-client-connections", "2")];
        let config = Config::resolve(&Gathered::from_flags(flags).unwrap()).unwrap();
        let limits = Limits::new(&config);
        let address = |text: &str| Some(text.parse().unwrap());
        let first = limits.connect(address("2001:db8::1")).unwrap();
        let _second = limits.connect(address("2001:db8::2")).unwrap();
        assert!(limits.connect(address("2001:db8::3")).is_none(), "two of one network");
        let _third = limits.connect(None).unwrap();
        assert!(limits.connect(address("192.0.2.1")).is_none(), "three in all");
        drop(first);
        assert!(limits.connect(address("2001:db8::3")).is_some());
    }
}
