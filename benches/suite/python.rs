//! `plain.py`, in a Python environment that is created when it is first needed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::meter::Took;

/// A Python that has redis-py.
#[derive(Clone, Debug)]
pub(crate) struct Python {
    program: PathBuf,
    /// Such as `redis-py 8.1.0, Python 3.11.7`.
    pub(crate) version: String,
}

impl Python {
    /// Creates the environment, or finds it.
    ///
    /// # Errors
    /// Why there is none, for the report: no `python3`, or no way to get the package.
    pub(crate) fn find() -> Result<Self, String> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plain-python");
        let program = folder.join("bin/python3");
        let version = Command::new(&program).args(["-c", VERSION]).output();
        let ready = version.is_ok_and(|output| output.status.success());
        if !ready {
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
            run(Command::new(&program).args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "redis[hiredis]",
            ]))?;
        }
        let output = run(Command::new(&program).args(["-c", VERSION]))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Self { program, version })
    }

    /// Writes everything in the stream, up to `batch` entries at a time.
    pub(crate) fn write_all(&self, port: u16, batch: u32) -> Took {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/suite/plain.py");
        let mut command = Command::new(&self.program);
        command.arg(script).arg(port.to_string()).arg(batch.to_string());
        let output = run(&mut command).unwrap();
        let took: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let seconds = |name: &str| took[name].as_f64().unwrap();
        Took { wall_s: seconds("wall_s"), client_s: seconds("client_s") }
    }
}

const VERSION: &str = "import redis, hiredis, platform; \
    print(f'redis-py {redis.__version__} with hiredis, Python {platform.python_version()}')";

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", errors.lines().last().unwrap_or_default()))
}
