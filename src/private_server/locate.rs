//! Which server binary to use, and how to get one if there is none.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::ServerError;

/// Names the server binary to use instead of the one in `PATH`: a path, or a name to look up.
pub const SERVER_VARIABLE: &str = "ROLLCALL_TEST_SERVER";

const NAMES: [&str; 2] = ["redis-server", "valkey-server"];

/// The command that installs a server on this machine, according to the package manager in `PATH`.
pub fn install_hint() -> &'static str {
    let hints = [
        ("apt-get", "apt-get install redis-server"),
        ("dnf", "dnf install redis"),
        ("apk", "apk add redis"),
        ("pacman", "pacman -S valkey"),
        ("zypper", "zypper install redis"),
        ("brew", "brew install redis"),
    ];
    let known = hints.into_iter().find(|(manager, _)| in_path(manager).is_some());
    let elsewhere =
        if cfg!(target_os = "macos") { "brew install redis" } else { "your package manager" };
    known.map_or(elsewhere, |(_, hint)| hint)
}

/// The server binary that [`PrivateServer::start`](super::PrivateServer::start) would use; `named` is [`Options::binary`](super::Options::binary).
///
/// # Errors
/// [`ServerError::NotFound`], whose text says in one line how to get one.
pub fn find_server(named: Option<&Path>) -> Result<PathBuf, ServerError> {
    let variable = env::var_os(SERVER_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    match named.map(Path::to_path_buf).or(variable) {
        Some(path) if path.components().count() > 1 => {
            Some(path.clone()).filter(|p| executable(p)).ok_or(path)
        }
        Some(name) => in_path(name.as_os_str()).ok_or(name),
        None => NAMES.iter().find_map(in_path).ok_or_else(|| PathBuf::from(NAMES.join(" or "))),
    }
    .map_err(|wanted| ServerError::NotFound { wanted: wanted.display().to_string() })
}

/// The first executable program of that name in the folders of `PATH`.
pub fn in_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .map(|folder| folder.join(name.as_ref()))
        .find(|path| executable(path))
}

fn executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
