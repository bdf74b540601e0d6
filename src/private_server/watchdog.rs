//! Cleans up after an owner that could not: killed with SIGKILL, aborted, or ended by `exit`.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A shell that outlives its owner for as long as it takes to kill the server and remove the folder.
#[derive(Debug)]
pub(super) struct Watchdog(Option<Child>);

impl Watchdog {
    /// `$1` is the folder; each line read is the process to kill, 0 for none.
    const SCRIPT: &str = r#"
        trap '' HUP INT TERM
        pid=0
        while read -r line; do pid=$line; done
        if [ "$pid" -gt 0 ]; then kill -KILL "$pid"; rm -rf -- "$1"; sleep 1; fi
        rm -rf -- "$1"
    "#;

    /// Without a shell there is no watchdog; the server still ends with its owner's `Drop`.
    pub(super) fn over(folder: &Path) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", Self::SCRIPT, "rollcall-watchdog"]).arg(folder).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(shell.spawn().ok())
    }

    /// Names the process to kill; 0 for none.
    pub(super) fn guard(&mut self, pid: u32) {
        if let Some(pipe) = self.0.as_mut().and_then(|shell| shell.stdin.as_mut()) {
            let _ = writeln!(pipe, "{pid}");
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(shell) = &mut self.0 {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
    }
}
