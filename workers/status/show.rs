//! The status as a page for people.

use std::collections::BTreeMap;

use rollcall::entry::EntryId;
use rollcall::state::clock_went_back;
use rollcall::state::status::{Backlog, Server, Size};

use super::{Rates, StatusAnswer};
use crate::query::Answer;
use crate::table::{Page, Table, age, escape, length, plural};

/// The maximum number of workers on the page; fewer if the screen is small. JSON has all.
const SHOWN_WORKERS: usize = 20;
/// The age in seconds from which an unfinished entry is shown.
const WAITING_S: f64 = 10.0;

impl Answer for StatusAnswer {
    fn show(&self, page: &mut Page) {
        self.show_within(page, SHOWN_WORKERS);
    }
}

impl StatusAnswer {
    /// The page with at most this many workers.
    pub(super) fn show_within(&self, page: &mut Page, workers: usize) {
        let mut about = Table::new(&["", ""]);
        if let Some(server) = &self.server {
            let Server { software, version, role, uptime_s, .. } = server;
            let up = length(uptime_s.saturating_mul(1000));
            about.row(["server", &format!("{software} {version}, {role}, up {up}")]);
            about.row(["memory", &memory(server)]);
        }
        if self.is_empty() {
            page.table(&about);
            page.line("Nothing here yet. Start a worker and a janitor:");
            return page.line(format!("    {}", self.shell.rollcall(&["run"])));
        }
        about.row(["stream", &self.stream_line()]);
        about.row(["group", &self.group_line()]);
        if let Some(held) = self.held_line() {
            about.row(["trimming", &held]);
        }
        about.row(["janitor", &self.janitor_line()]);
        about.row(["changes", &format!("{} recorded", self.total.changes_seq)]);
        if let Some(rates) = &self.rates {
            about.row(["rates", &rates_line(rates)]);
        }
        page.table(&about);
        self.warn(page);
        self.show_partitions(page);
        self.show_sizes(page);
        self.show_workers(page, workers);
    }

    fn stream_line(&self) -> String {
        let streams = self.partitions.iter().filter_map(|work| work.stream.as_ref());
        let oldest = streams.filter_map(|stream| stream.first_entry_age_s).reduce(f64::max);
        let entries = plural(self.total.entries, "entry", "entries");
        match oldest {
            Some(age_s) => format!("{}, {entries}, the oldest {}", self.stream, old(age_s)),
            None => format!("{}, {entries}", self.stream),
        }
    }

    /// The group that keeps the stream from being trimmed, unless its oldest unfinished entry is new.
    fn held_line(&self) -> Option<String> {
        let held = self.partitions.iter().filter_map(|work| work.stream.as_ref()?.held.as_ref());
        let held = held.filter(|held| held.age_s >= WAITING_S);
        let oldest = held.max_by(|a, b| a.age_s.total_cmp(&b.age_s))?;
        Some(format!(
            "not past group {}: an entry {} old is unfinished",
            oldest.group,
            seconds(oldest.age_s)
        ))
    }

    fn janitor_line(&self) -> String {
        let Some(last) = self.total.janitor_last_run_ms else { return "never ran".to_owned() };
        let mut names: Vec<&str> =
            self.partitions.iter().filter_map(|work| work.janitor.as_deref()).collect();
        names.sort_unstable();
        names.dedup();
        let names = names.join(", ");
        let by = if names.is_empty() { String::new() } else { format!(" ({names})") };
        format!("ran {}{by}", server_age(last, self.now_ms))
    }

    fn is_empty(&self) -> bool {
        let no_stream = self.partitions.iter().all(|work| work.stream.is_none());
        !self.found && no_stream && self.sizes.iter().all(|size| size.size == 0)
    }

    fn group_line(&self) -> String {
        let groups = self.partitions.iter().filter_map(|work| work.stream.as_ref()?.group.as_ref());
        if groups.count() == 0 {
            return format!("{}, not created yet: no worker has started", self.group);
        }
        let total = &self.total;
        let waiting = with_oldest("waiting", total.oldest_undelivered_age_s);
        let count = counted(total.undelivered, total.undelivered_is_exact);
        format!("{}, {count} {waiting}", self.group)
    }

    /// How far the newest id of any stream is ahead of the clock.
    fn clock_behind_ms(&self) -> Option<u64> {
        let streams = self.partitions.iter().filter_map(|work| work.stream.as_ref());
        let newest = streams.filter_map(|stream| stream.last_id.parse::<EntryId>().ok()).max()?;
        clock_went_back(newest.ms, self.now_ms)
    }

    /// Warnings for the operator.
    fn warn(&self, page: &mut Page) {
        if let Some(ahead_ms) = self.clock_behind_ms() {
            let ahead = ahead(ahead_ms);
            page.line(format!("WARNING: the newest entry's id is {ahead}; ages are too low"));
        }
        let Some(server) = &self.server else { return };
        let policy = server.maxmemory_policy.as_str();
        if !matches!(policy, "" | "noeviction") {
            let policy = escape(policy);
            page.line(format!(
                "WARNING: maxmemory-policy {policy} lets the server drop state and events; set noeviction"
            ));
        }
        if server.role == "slave" {
            page.line("WARNING: this server is a replica; its data may be out of date");
        }
    }

    fn show_partitions(&self, page: &mut Page) {
        if self.partitions.len() < 2 {
            return;
        }
        page.line("");
        let headings =
            [">PARTITION", ">ENTRIES", ">WAITING", "OWNER…", ">TERM", "JANITOR", ">CHANGES"];
        let mut table = Table::new(&headings);
        for work in &self.partitions {
            if work.away.is_some() {
                table.row([&*work.partition.to_string(), "", "away", "", "", "", ""]);
                continue;
            }
            let group = work.stream.as_ref().and_then(|stream| stream.group.as_ref());
            let number = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
            let janitor =
                work.janitor_last_run_ms.map_or(String::new(), |ms| server_age(ms, self.now_ms));
            table.row([
                &work.partition.to_string(),
                &number(work.stream.as_ref().map(|stream| stream.entries)),
                &group.map_or(String::new(), undelivered),
                group.and_then(|group| group.owner.as_deref()).unwrap_or("none"),
                &number(group.map(|group| group.term)),
                &janitor,
                &work.changes_seq.to_string(),
            ]);
        }
        page.table(&table);
    }

    fn show_workers(&self, page: &mut Page, most: usize) {
        let mut owned: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
        for work in &self.partitions {
            let Some(group) = work.stream.as_ref().and_then(|stream| stream.group.as_ref()) else {
                continue;
            };
            for name in &group.workers {
                owned.entry(name).or_default();
            }
            if let Some(owner) = &group.owner {
                owned.entry(owner).or_default().push(work.partition);
            }
        }
        if owned.is_empty() {
            return;
        }
        page.line("");
        let mut table = Table::new(&["WORKER…", ">OWNS", "PARTITIONS…"]);
        for (name, partitions) in owned.iter().take(most) {
            let list: Vec<String> = partitions.iter().map(u16::to_string).collect();
            table.row([*name, &partitions.len().to_string(), &list.join(" ")]);
        }
        page.table(&table);
        let more = owned.len().saturating_sub(most);
        if more > 0 {
            page.line(format!("… and {more} more (--json has all)"));
        }
    }

    /// Structures without a cap on the left, those with a cap on the right.
    fn show_sizes(&self, page: &mut Page) {
        page.line("");
        let mut table = Table::new(&["STATE", ">SIZE", "CAPPED", ">SIZE", ">CAP", ">FULL"]);
        let (capped, free): (Vec<&Size>, Vec<&Size>) =
            self.sizes.iter().partition(|size| size.cap.is_some());
        let blank = || " ".to_owned();
        for row in 0..capped.len().max(free.len()) {
            let [name, size] = free.get(row).map_or([blank(), blank()], |size| name_and_size(size));
            let [of, filled] =
                capped.get(row).map_or([blank(), blank()], |size| name_and_size(size));
            let (cap, full) = match capped.get(row).and_then(|size| Some((size.size, size.cap?))) {
                Some((size, cap)) => {
                    (cap.to_string(), format!("{} %", size.saturating_mul(100) / cap.max(1)))
                }
                None => (blank(), blank()),
            };
            table.row([&name, &size, &of, &filled, &cap, &full]);
        }
        page.table(&table);
    }
}

fn name_and_size(size: &Size) -> [String; 2] {
    [size.name.replace('_', " "), size.size.to_string()]
}

/// A number that the server may not know, or not exactly.
fn counted(count: Option<u64>, is_exact: bool) -> String {
    match count {
        Some(count) if is_exact => count.to_string(),
        Some(count) => format!("about {count}"),
        None => "unknown".to_owned(),
    }
}

fn rates_line(rates: &Rates) -> String {
    let finished = rates.finished_per_s.map_or("unknown".to_owned(), |rate| format!("{rate:.1}"));
    let Rates { added_per_s, changes_per_s, .. } = rates;
    format!("{added_per_s:.1} added, {finished} finished, {changes_per_s:.1} changes per second")
}

fn seconds(age_s: f64) -> String {
    length((age_s * 1000.0) as u64)
}

/// An age, or how far a time is ahead of the clock.
fn old(age_s: f64) -> String {
    if age_s < 0.0 { ahead((-age_s * 1000.0) as u64) } else { format!("{} old", seconds(age_s)) }
}

fn ahead(ms: u64) -> String {
    format!("{} ahead of the server's clock", length(ms))
}

/// How long ago something happened, by the server's clock. It may have happened after the server was asked for the time.
fn server_age(ms: u64, now_ms: u64) -> String {
    clock_went_back(ms, now_ms).map_or_else(|| age(ms.min(now_ms), now_ms), ahead)
}

fn with_oldest(what: &str, oldest_age_s: Option<f64>) -> String {
    match oldest_age_s {
        Some(age_s) if age_s < 0.0 => format!("{what} (oldest {})", old(age_s)),
        Some(age_s) => format!("{what} (oldest {})", seconds(age_s)),
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

/// Bytes, in the largest unit of which there is at least one.
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

    #[test]
    fn figures_are_for_people() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(3 << 40), "3.0 TiB");
        assert_eq!(counted(Some(4), false), "about 4");
        assert_eq!(counted(None, false), "unknown");
        assert_eq!(with_oldest("waiting", Some(12.3)), "waiting (oldest 12 s)");
        assert_eq!(
            with_oldest("waiting", Some(-12.3)),
            "waiting (oldest 12 s ahead of the server's clock)"
        );
        assert_eq!(server_age(9_000, 4_000), "0 s ago");
        assert_eq!(server_age(9_001, 4_000), "5 s ahead of the server's clock");
    }
}
