//! The machine: which cores are used for what, and the processor time of this process.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";

static PINNED: OnceLock<bool> = OnceLock::new();

/// Pins this process, and what it starts from now on, to the clients' core, if there are two cores and `taskset`.
pub(crate) fn pin_clients() {
    PINNED.get_or_init(|| cores() >= 2 && pin(std::process::id(), CLIENT_CORE));
}

/// Pins a server to its own core, if clients are pinned to theirs.
pub(crate) fn pin_server(pid: u32) {
    if *PINNED.get_or_init(|| false) {
        assert!(pin(pid, SERVER_CORE), "the server cannot be pinned though the clients could");
    }
}

/// Which process runs where, in words.
pub(crate) fn pinning() -> String {
    if *PINNED.get_or_init(|| false) {
        format!("servers on core {SERVER_CORE}, clients on core {CLIENT_CORE} (taskset)")
    } else {
        "none: this needs two cores and taskset".to_owned()
    }
}

fn pin(pid: u32, core: &str) -> bool {
    let taskset = Command::new("taskset").args(["-acp", core, &pid.to_string()]).output();
    taskset.is_ok_and(|output| output.status.success())
}

/// Cores of the machine, including those this process may not use.
pub(crate) fn cores() -> usize {
    let listed = lines_of("/proc/cpuinfo", "processor").len();
    if listed > 0 { listed } else { std::thread::available_parallelism().map_or(1, Into::into) }
}

/// The processor's name.
pub(crate) fn cpu_model() -> String {
    lines_of("/proc/cpuinfo", "model name")
        .pop()
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The text after the colon of every line with this beginning; none if there is no such file.
pub(crate) fn lines_of(path: &str, beginning: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with(beginning));
    lines.filter_map(|line| Some(line.split_once(':')?.1.trim().to_owned())).collect()
}

/// Seconds of processor time that this process has used, by `getrusage`.
pub(crate) fn own_cpu_s() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}
