//! `status`: the server, the consumer group and the sizes of the state, at one look.

use rollcall::redis::query::status::{self, Backlog, Consumer, Server, Size, Work};
use rollcall::redis::query::{AskError, State};
use serde::Serialize;

use crate::query::{Answer, Output, Query, StreamFlags, settings};
use crate::table::{Page, Table, age, escape, length, plural};

/// Consumers that the page shows; JSON has all.
const SHOWN_CONSUMERS: usize = 20;

/// How the server, the consumer group and the state are.
///
/// Each figure costs the server the same however much there is. Undelivered entries are marked
/// "about" where the server's count may be wrong, after entries were deleted from the stream.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    flags: StreamFlags,
}

#[derive(Serialize)]
pub(crate) struct StatusAnswer {
    now_ms: u64,
    /// Whether a worker or janitor ever started here.
    found: bool,
    #[serde(skip)]
    address: String,
    /// `null` if this user may not ask.
    server: Option<Server>,
    stream: String,
    group: String,
    total: Total,
    sizes: Vec<Size>,
    partitions: Vec<Work>,
}

/// The partitions' figures together.
#[derive(Default, Serialize)]
struct Total {
    entries: u64,
    pending: u64,
    oldest_pending_age_s: Option<f64>,
    /// `null` if the server of any partition does not know.
    undelivered: Option<u64>,
    undelivered_is_exact: bool,
    oldest_undelivered_age_s: Option<f64>,
    consumers: usize,
    janitor_last_run_ms: Option<u64>,
    changes_seq: u64,
}

impl Total {
    fn of(partitions: &[Work]) -> Self {
        let mut total =
            Self { undelivered: Some(0), undelivered_is_exact: true, ..Self::default() };
        let oldest = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        for work in partitions {
            total.changes_seq += work.changes_seq;
            total.janitor_last_run_ms = total.janitor_last_run_ms.max(work.janitor_last_run_ms);
            let Some(stream) = &work.stream else { continue };
            total.entries += stream.entries;
            let Some(group) = &stream.group else {
                // What a group that does not exist yet will read.
                total.undelivered = total.undelivered.map(|sum| sum + stream.entries);
                continue;
            };
            total.pending += group.pending;
            total.undelivered = total.undelivered.zip(group.undelivered).map(|(a, b)| a + b);
            total.undelivered_is_exact &= group.undelivered_is_exact;
            total.consumers += group.consumers.len();
            total.oldest_pending_age_s =
                oldest(total.oldest_pending_age_s, group.oldest_pending_age_s);
            total.oldest_undelivered_age_s =
                oldest(total.oldest_undelivered_age_s, group.oldest_undelivered_age_s);
        }
        total
    }
}

impl Query for Status {
    type Answer = StatusAnswer;
    settings!();

    async fn ask(&self, state: &mut State) -> Result<StatusAnswer, AskError> {
        let server = match state.partitions.first_mut() {
            Some(first) => status::server(&mut first.connection).await?,
            None => None,
        };
        let sizes = status::sizes(state).await?;
        let mut partitions = Vec::with_capacity(state.partitions.len());
        for partition in &mut state.partitions {
            partitions.push(status::work(partition, &state.deployment, state.now_ms).await?);
        }
        Ok(StatusAnswer {
            now_ms: state.now_ms,
            found: state.found,
            address: state.address.clone(),
            server,
            stream: state.deployment.stream.clone(),
            group: state.deployment.group.clone(),
            total: Total::of(&partitions),
            sizes,
            partitions,
        })
    }
}

impl Answer for StatusAnswer {
    fn show(&self, page: &mut Page) {
        let mut about = Table::new(&["", ""]);
        if let Some(server) = &self.server {
            let Server { software, version, role, uptime_s, .. } = server;
            let up = length(uptime_s.saturating_mul(1000));
            about.row(["server", &format!("{software} {version}, {role}, up {up}")]);
            about.row(["memory", &memory(server)]);
        }
        if self.is_empty() {
            page.table(&about);
            let Self { address, .. } = self;
            return page.line(format!(
                "Nothing here yet: start a worker with `rollcall run --redis-url {address}`."
            ));
        }
        about.row([
            "stream",
            &format!("{}, {}", self.stream, plural(self.total.entries, "entry", "entries")),
        ]);
        about.row(["group", &self.group_line()]);
        let janitor = self.total.janitor_last_run_ms;
        let janitor =
            janitor.map_or("never ran".to_owned(), |ms| format!("ran {}", age(ms, self.now_ms)));
        about.row(["janitor", &janitor]);
        about.row(["changes", &format!("{} recorded", self.total.changes_seq)]);
        page.table(&about);
        self.warn(page);
        self.show_partitions(page);
        self.show_consumers(page);
        self.show_sizes(page);
    }
}

impl StatusAnswer {
    fn is_empty(&self) -> bool {
        let no_stream = self.partitions.iter().all(|work| work.stream.is_none());
        !self.found && no_stream && self.sizes.iter().all(|size| size.size == 0)
    }

    fn group_line(&self) -> String {
        let groups = self.partitions.iter().filter_map(|work| work.stream.as_ref()?.group.as_ref());
        if groups.count() == 0 {
            return format!("{}, not there yet: no worker has started", self.group);
        }
        let total = &self.total;
        let pending = with_oldest("pending", total.oldest_pending_age_s);
        let undelivered = with_oldest("undelivered", total.oldest_undelivered_age_s);
        let count = counted(total.undelivered, total.undelivered_is_exact);
        format!("{}, {} {pending}, {count} {undelivered}", self.group, total.pending)
    }

    /// What an operator must not overlook.
    fn warn(&self, page: &mut Page) {
        let Some(server) = &self.server else { return };
        let policy = server.maxmemory_policy.as_str();
        if !matches!(policy, "" | "noeviction") {
            let policy = escape(policy);
            page.line(format!(
                "WARNING: maxmemory-policy {policy} lets the server drop state and events; set noeviction"
            ));
        }
        if server.role == "slave" {
            page.line("WARNING: this is a replica; what it says may be out of date");
        }
    }

    fn show_partitions(&self, page: &mut Page) {
        if self.partitions.len() < 2 {
            return;
        }
        page.line("");
        let headings = [
            ">PARTITION",
            ">ENTRIES",
            ">PENDING",
            ">UNDELIVERED",
            ">CONSUMERS",
            "JANITOR",
            ">CHANGES",
        ];
        let mut table = Table::new(&headings);
        for work in &self.partitions {
            let group = work.stream.as_ref().and_then(|stream| stream.group.as_ref());
            let number = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
            let janitor = work.janitor_last_run_ms.map_or(String::new(), |ms| age(ms, self.now_ms));
            table.row([
                &work.partition.to_string(),
                &number(work.stream.as_ref().map(|stream| stream.entries)),
                &number(group.map(|group| group.pending)),
                &group.map_or(String::new(), undelivered),
                &number(group.map(|group| group.consumers.len() as u64)),
                &janitor,
                &work.changes_seq.to_string(),
            ]);
        }
        page.table(&table);
    }

    fn show_consumers(&self, page: &mut Page) {
        let mut table = Table::new(&["CONSUMER…", ">PARTITION", ">PENDING", ">IDLE", "HEARTBEAT"]);
        let mut shown = 0;
        for work in &self.partitions {
            let group = work.stream.as_ref().and_then(|stream| stream.group.as_ref());
            for consumer in group.iter().flat_map(|group| &group.consumers) {
                if shown < SHOWN_CONSUMERS {
                    let Consumer { name, pending, idle_ms, heartbeat_ms } = consumer;
                    let heartbeat =
                        heartbeat_ms.map_or("none".to_owned(), |ms| age(ms, self.now_ms));
                    let (partition, pending) = (work.partition.to_string(), pending.to_string());
                    table.row([name, &partition, &pending, &length(*idle_ms), &heartbeat]);
                    shown += 1;
                }
            }
        }
        if shown > 0 {
            page.line("");
            page.table(&table);
            let more = self.total.consumers - shown;
            if more > 0 {
                page.line(format!("… and {more} more (--json has all)"));
            }
        }
    }

    fn show_sizes(&self, page: &mut Page) {
        page.line("");
        let mut table = Table::new(&["STATE", ">SIZE", ">CAP", ">FULL"]);
        for Size { name, size, cap } in &self.sizes {
            let full = |cap: u64| format!("{} %", size.saturating_mul(100) / cap.max(1));
            let (cap, full) = (cap.map(|cap| cap.to_string()), cap.map(full));
            let name = name.replace('_', " ");
            table.row([
                &name,
                &size.to_string(),
                &cap.unwrap_or_default(),
                &full.unwrap_or_default(),
            ]);
        }
        page.table(&table);
    }
}

/// A number that the server may not know, or not exactly.
fn counted(count: Option<u64>, is_exact: bool) -> String {
    match count {
        Some(count) if is_exact => count.to_string(),
        Some(count) => format!("about {count}"),
        None => "unknown".to_owned(),
    }
}

fn with_oldest(what: &str, oldest_age_s: Option<f64>) -> String {
    match oldest_age_s {
        Some(seconds) => format!("{what} (oldest {})", length((seconds * 1000.0) as u64)),
        None => what.to_owned(),
    }
}

fn undelivered(group: &Backlog) -> String {
    counted(group.undelivered, group.undelivered_is_exact)
}

fn memory(server: &Server) -> String {
    let used = bytes(server.used_memory_bytes);
    let limit = match server.maxmemory_bytes {
        0 => "no limit".to_owned(),
        limit => format!("of {}", bytes(limit)),
    };
    format!("{used} used, {limit}, {}", server.maxmemory_policy)
}

/// Bytes in the largest unit that leaves a whole number before the point.
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rollcall::redis::query::status::Stream;

    fn work(undelivered: Option<u64>, exact: bool, age: Option<f64>) -> Work {
        let group = Backlog {
            pending: 1,
            oldest_pending_age_s: age,
            undelivered,
            undelivered_is_exact: exact,
            oldest_undelivered_age_s: None,
            consumers: Vec::new(),
        };
        let stream = Stream {
            key: "s".to_owned(),
            entries: 10,
            first_entry_age_s: None,
            last_id: "1-0".to_owned(),
            held: None,
            group: Some(group),
        };
        Work {
            partition: 0,
            stream: Some(stream),
            janitor_last_run_ms: None,
            janitor: None,
            changes_seq: 5,
        }
    }

    #[test]
    fn a_total_is_as_certain_as_its_least_certain_part() {
        let total = Total::of(&[work(Some(2), true, Some(1.5)), work(Some(3), false, Some(0.5))]);
        assert_eq!((total.entries, total.pending, total.undelivered), (20, 2, Some(5)));
        assert_eq!((total.undelivered_is_exact, total.oldest_pending_age_s), (false, Some(1.5)));
        let unknown = Total::of(&[work(Some(2), true, None), work(None, false, None)]);
        assert_eq!((unknown.undelivered, unknown.oldest_pending_age_s), (None, None));
        let waiting = Work { stream: None, ..work(None, true, None) };
        assert_eq!(Total::of(&[waiting]).undelivered, Some(0));
    }

    #[test]
    fn figures_are_for_people() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(3 << 40), "3.0 TiB");
        assert_eq!(counted(Some(4), false), "about 4");
        assert_eq!(counted(None, false), "unknown");
        assert_eq!(with_oldest("pending", Some(12.3)), "pending (oldest 12 s)");
    }
}
