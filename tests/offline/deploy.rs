//! The systemd units in `deploy/`: they start existing commands, receive notifications, and do not restart with wrong
//! settings.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The settings of the unit's `[Service]` by name; of repeated ones, the last.
fn service() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/rollcall@.service");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("[Service]\n").unwrap();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let settings =
        lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_unit_starts_every_long_running_role() {
    let start = &service()["ExecStart"];
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words, ["/usr/local/bin/rollcall", "%i"]);
    for role in ["worker", "janitor", "run"] {
        let help = Command::new(env!("CARGO_BIN_EXE_rollcall")).args([role, "--help"]).output();
        assert!(help.unwrap().status.success(), "{role} is no command");
    }
}

#[test]
fn the_unit_listens_and_restarts_what_a_restart_can_help() {
    let service = service();
    let expected = [
        ("Type", "notify"),
        ("WatchdogSec", "30s"),
        ("Restart", "always"),
        ("RestartPreventExitStatus", "64"),
        ("LimitNOFILE", "65536"),
        ("DynamicUser", "yes"),
        ("ProtectSystem", "strict"),
        ("CapabilityBoundingSet", ""),
    ];
    for (name, value) in expected {
        assert_eq!(service.get(name).map(String::as_str), Some(value), "{name}");
    }
    // Start, progress and stop are sent over a Unix socket, and Redis may be behind one.
    assert!(service["RestrictAddressFamilies"].split(' ').any(|family| family == "AF_UNIX"));
}
