//! File descriptors: as many as the system allows, and whether they are enough.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use rollcall::config::Config;

use crate::run::Roles;

/// Connections to the pages at the same time, if there is room for them.
const MOST_PAGES: u64 = 64;
/// What a process opens besides connections: files, the runtime's own descriptors, name lookups.
const OTHERS: u64 = 32;

/// Raises the limit to the highest that the system allows this process.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    // A limit that cannot be raised is taken into account below.
    let _unchanged = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// How many descriptors this process may have open.
pub(crate) fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections the pages may have at the same time: few enough to leave descriptors for Redis.
pub(crate) fn for_pages(limit: u64) -> usize {
    (limit / 4).clamp(1, MOST_PAGES) as usize
}

/// Warns if the connections of all partitions will not fit.
pub(crate) fn check(config: &Config, roles: Roles) {
    let (limit, needed) = (limit(), needed(config, roles));
    if needed > limit {
        let partitions = config.deployment.partitions;
        warn!(
            limit,
            needed,
            partitions,
            "too few file descriptors for all partitions, so some will not be served: raise the hard limit \
             (LimitNOFILE= of a systemd unit, --ulimit nofile= of a container, ulimit -Hn of a shell)"
        );
    }
}

/// How many connections applications and browsers may have at the same time. The process's own connections come
/// first.
pub(crate) fn for_clients(config: &Config, roles: Roles) -> usize {
    let spare = limit().saturating_sub(needed(config, roles)).max(1);
    usize::try_from(spare).unwrap_or(usize::MAX).min(config.serve.max_connections)
}

/// A worker has three connections for each partition: for reading, for applying, and for the subscription that shows
/// that it is alive. A janitor has one. `serve` has three: for adding events, for following changes, and for reading
/// events. A notifier has two for each target: for reading and for publishing.
fn needed(config: &Config, roles: Roles) -> u64 {
    let targets = config.notify.len() as u64;
    let each = 3 * u64::from(roles.worker)
        + u64::from(roles.janitor)
        + 3 * u64::from(roles.serve)
        + 2 * targets * u64::from(roles.notifier);
    u64::from(config.deployment.partitions) * each + MOST_PAGES + OTHERS
}

#[cfg(test)]
mod tests {
    use super::*;
    use rollcall::config::Gathered;

    #[test]
    fn pages_leave_room_for_redis() {
        assert_eq!([0, 64, 256, 1024, u64::MAX].map(for_pages), [1, 16, 64, 64, 64]);
        let config = |partitions: &str| {
            let gathered = Gathered::from_flags([("partitions", partitions)]).unwrap();
            Config::resolve(&gathered).unwrap()
        };
        assert_eq!(needed(&config("1"), Roles { worker: true, ..Roles::NONE }), 99);
        let both = Roles { worker: true, janitor: true, ..Roles::NONE };
        assert_eq!(needed(&config("400"), both), 1696);
    }
}
