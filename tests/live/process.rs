//! The binary as a process, to be killed, stopped and read by a test.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::wait_until;
use crate::scene::SOON;

/// A running `rollcall`; killed when dropped.
pub struct Worker {
    child: Child,
    folder: TempDir,
}

impl Worker {
    /// `rollcall worker` against the server at `url`, with `--http off` unless the arguments say otherwise.
    pub fn start(url: &str, extra_args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start_as("worker", url, extra_args, env)
    }

    /// Any of the long-running roles.
    pub fn start_as(role: &str, url: &str, extra_args: &[&str], env: &[(&str, &str)]) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_rollcall"));
        Self::start_by(program, role, url, extra_args, env, None)
    }

    /// Any of them with another program, such as another version's.
    pub fn start_program(program: &Path, role: &str, url: &str, extra_args: &[&str]) -> Self {
        Self::start_by(Command::new(program), role, url, extra_args, &[], None)
    }

    /// The same in a shell after these words, such as `ulimit -n 256`.
    pub fn start_after(words: &str, role: &str, url: &str, extra_args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let line = format!("{words}; exec \"$0\" \"$@\"");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_rollcall")]);
        Self::start_by(shell, role, url, extra_args, &[], None)
    }

    /// The same with its standard error somewhere else than in the log.
    pub fn start_telling(
        stderr: Stdio,
        role: &str,
        url: &str,
        extra_args: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_rollcall"));
        Self::start_by(program, role, url, extra_args, env, Some(stderr))
    }

    fn start_by(
        mut command: Command,
        role: &str,
        url: &str,
        extra_args: &[&str],
        env: &[(&str, &str)],
        stderr: Option<Stdio>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
            command.env_remove(name);
        }
        command.args([role, "--redis-url", url]).args(extra_args).envs(env.iter().copied());
        if !extra_args.contains(&"--http") {
            command.args(["--http", "off"]);
        }
        let log = File::create(log_path(folder.path())).unwrap();
        let stderr = stderr.unwrap_or_else(|| log.into());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        Self { child: command.spawn().unwrap(), folder }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(log_path(self.folder.path())).unwrap()).into_owned()
    }

    /// Waits until it has logged a text; lines are written a moment after what they report.
    pub fn says(&self, text: &str) {
        wait_until(SOON, &format!("the log says: {text}"), || self.log().contains(text));
    }

    /// SIGKILL, if it is still running; returns how it ended, once it is gone.
    pub fn kill(&mut self) -> ExitStatus {
        let _already_gone = self.child.kill();
        self.child.wait().unwrap()
    }

    /// Sends a signal by its name, such as `STOP`, and waits until it has had its effect.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{name} {}", self.pid()))
            .status()
            .unwrap();
        assert!(status.success(), "kill -{name}");
        let start = Instant::now();
        while name == "STOP" && !self.is_stopped() {
            assert!(start.elapsed() < Duration::from_secs(10), "it does not stand still");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGTERM; returns its exit code, which must come within ten seconds.
    pub fn terminate(&mut self) -> i32 {
        self.signal("TERM");
        self.exit_code(Duration::from_secs(10))
    }

    /// Its exit code once it has ended by itself.
    pub fn exit_code(&mut self, deadline: Duration) -> i32 {
        let status = self.wait(deadline);
        status.code().unwrap_or_else(|| panic!("ended by a signal ({status}):\n{}", self.log()))
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < deadline, "still runs after {deadline:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The processor time it has used, including the system's for it, from `/proc` (100 ticks a second).
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name before it may contain spaces; `utime` and `stime` are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory in KiB from `/proc`: `VmRSS` now, `VmHWM` at its maximum.
    pub fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Whether it was stopped by SIGSTOP, or has ended.
    pub fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let stats =
            threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")));
        // A thread that has ended meanwhile runs no more either.
        stats.flatten().all(|stat| stat.rsplit_once(") ").unwrap().1.starts_with(['T', 'Z']))
    }

    /// Whether it is still running.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- log of {} ----\n{}", self.pid(), self.log());
        }
    }
}

/// Whether a line of a log reports a fault.
pub fn is_fault(line: &str) -> bool {
    line.contains(" WARN ") || line.contains(" ERROR ")
}

fn is_ours(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("ROLLCALL_") || name.starts_with("OTEL_"))
}

fn log_path(folder: &Path) -> std::path::PathBuf {
    folder.join("log")
}
