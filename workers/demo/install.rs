//! Finds a server for the demo; on Debian and Ubuntu it installs one if there is none.

use std::env;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rollcall::private_server::{SERVER_VARIABLE, ServerError, find_server, in_path};
use rollcall::telemetry::lines;
use tokio::process::Command;

const SCRIPT: &str = include_str!("install.sh");
const POLICY: &str = "/usr/sbin/policy-rc.d";
const PACKAGE: &str = "redis-server";

/// The server binary to use. If none is named and none is found, the package is installed on Debian and Ubuntu if we
/// are root or have `sudo`; what happens is reported on standard error.
///
/// # Errors
/// [`ServerError::NotFound`], whose text says in one line how to get one.
pub(super) async fn server_binary(named: Option<&Path>) -> Result<PathBuf, ServerError> {
    let found = find_server(named);
    if found.is_ok() || named.is_some() || env::var_os(SERVER_VARIABLE).is_some() {
        return found;
    }
    let Some(mut install) = installer() else { return found };
    say(
        "no redis-server here; installing Debian's package (apt-get install redis-server), without its service",
    );
    match install.status().await {
        Ok(status) if status.success() => find_server(None),
        Ok(status) => {
            say(&format!("the installation failed ({status})"));
            found
        }
        Err(error) => {
            say(&format!("the installation did not start: {error}"));
            found
        }
    }
}

fn installer() -> Option<Command> {
    in_path("apt-get")?;
    // The owner of our entry in /proc is our user; the standard library does not tell.
    let root = std::fs::metadata("/proc/self").is_ok_and(|us| us.uid() == 0);
    let mut command = if root {
        Command::new("sh")
    } else {
        let mut sudo = Command::new(in_path("sudo")?);
        if !io::stdin().is_terminal() {
            sudo.arg("-n");
        }
        sudo.arg("sh");
        sudo
    };
    command.args(["-c", SCRIPT, "rollcall-install", POLICY, PACKAGE]);
    Some(command)
}

fn say(what: &str) {
    lines::say(&format!("rollcall demo: {what}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Output;

    /// Runs the script with an `apt-get` that only records its call, and the policy's answer then.
    fn install(folder: &Path, apt_get: &str) -> Output {
        let stub = format!(
            "#!/bin/sh\necho \"$@\" >> {0}/calls\n{0}/policy x start 2> /dev/null\necho $? >> {0}/calls\n{apt_get}\n",
            folder.display()
        );
        fs::write(folder.join("apt-get"), stub).unwrap();
        fs::set_permissions(folder.join("apt-get"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.join("update-rc.d"), "#!/bin/sh\n").unwrap();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", SCRIPT, "x"]).arg(folder.join("policy")).arg(PACKAGE);
        shell.env("PATH", format!("{}:/usr/bin:/bin", folder.display())).output().unwrap()
    }

    fn calls(folder: &Path) -> String {
        fs::read_to_string(folder.join("calls")).unwrap_or_default()
    }

    #[test]
    fn the_service_cannot_start_and_the_policy_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let done = install(folder.path(), "exit 0");
        assert!(done.status.success(), "{done:?}");
        assert!(done.stdout.is_empty());
        assert_eq!(
            calls(folder.path()),
            "install -y -qq --no-install-recommends redis-server\n101\n"
        );
        assert!(!folder.path().join("policy").exists());
    }

    #[test]
    fn lists_are_updated_where_the_package_is_not_found_and_failure_cleans_up() {
        let folder = tempfile::tempdir().unwrap();
        let done = install(folder.path(), "[ \"$1\" = update ]");
        assert!(!done.status.success());
        assert!(
            calls(folder.path()).contains("\nupdate -qq\n101\ninstall"),
            "{}",
            calls(folder.path())
        );
        assert!(!folder.path().join("policy").exists());
    }

    #[test]
    fn a_policy_of_the_machine_stays_and_decides() {
        for (text, succeeds) in [("#!/bin/sh\nexit 101\n", true), ("#!/bin/sh\nexit 0\n", false)] {
            let folder = tempfile::tempdir().unwrap();
            let policy = folder.path().join("policy");
            fs::write(&policy, text).unwrap();
            fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).unwrap();
            let done = install(folder.path(), "exit 0");
            assert_eq!(done.status.success(), succeeds, "{done:?}");
            assert_eq!(calls(folder.path()).is_empty(), !succeeds);
            assert_eq!(fs::read_to_string(&policy).unwrap(), text);
        }
    }
}
