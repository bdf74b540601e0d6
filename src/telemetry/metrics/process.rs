//! The process's own use of resources, under Prometheus's standard names, and its runtime. Read at each scrape;
//! without `/proc` there are no figures.
//!
//! Written by hand: metrics-process uses counters of the crate metrics, which are whole numbers, and seconds of CPU
//! are not.

use std::fs;

use super::board::Sample;
use super::inventory::{
    BUILD, CPU, MAX_FDS, Metric, OPEN_FDS, RESIDENT, RUNTIME_QUEUE, RUNTIME_TASKS, RUNTIME_WORKERS,
    START_TIME, VIRTUAL,
};

/// Ticks a second in `/proc`: `USER_HZ`, the same on every Linux.
const TICKS: f64 = 100.0;

/// Whether a metric's figures come only from here, and not from the recorder.
pub(super) fn is_own(metric: &Metric) -> bool {
    metric.name == CPU.name
}

/// The current figures.
pub(super) fn samples() -> Vec<Sample> {
    let mut samples = vec![Sample::new(BUILD, &[&env!("CARGO_PKG_VERSION")], 1.0)];
    let read = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").ok().map(|folder| folder.count() as f64);
    let figures = [
        (CPU, cpu_seconds(&read("self/stat"))),
        (RESIDENT, memory_bytes(&read("self/status"), "VmRSS:")),
        (VIRTUAL, memory_bytes(&read("self/status"), "VmSize:")),
        (OPEN_FDS, open),
        (MAX_FDS, max_fds(&read("self/limits"))),
        (START_TIME, start_time(&read("self/stat"), &read("stat"))),
    ];
    let known = figures.into_iter().filter_map(|(metric, value)| Some((metric, value?)));
    samples.extend(known.chain(runtime()).map(|(metric, value)| Sample::new(metric, &[], value)));
    samples
}

fn runtime() -> Vec<(Metric, f64)> {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Vec::new() };
    let metrics = runtime.metrics();
    vec![
        (RUNTIME_WORKERS, metrics.num_workers() as f64),
        (RUNTIME_TASKS, metrics.num_alive_tasks() as f64),
        (RUNTIME_QUEUE, metrics.global_queue_depth() as f64),
    ]
}

/// A field of `/proc/self/stat` with the number of `proc(5)`, from 3 on. The name before it may contain anything.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS)
}

/// `system` is `/proc/stat`, which says when the machine started.
fn start_time(stat: &str, system: &str) -> Option<f64> {
    let booted: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    Some(booted + stat_field(stat, 22)? / TICKS)
}

fn memory_bytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        soft => soft.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_whatever_the_process_is_called() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 4200 1 2";
        let stat = format!("7 (a) b) {rest}");
        assert_eq!(cpu_seconds(&stat), Some(2.0));
        assert_eq!(start_time(&stat, "cpu 1 2\nbtime 1790000000\n"), Some(1_790_000_042.0));
        assert_eq!(memory_bytes("Name:\tx\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2_097_152.0));
        let limits = "Limit Soft Hard\nMax open files            1024      4096      files\n";
        assert_eq!(max_fds(limits), Some(1024.0));
        assert_eq!((cpu_seconds(""), start_time("", ""), max_fds("")), (None, None, None));
    }
}
