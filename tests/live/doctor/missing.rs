//! What a server does not have, or has no room for: commands that were renamed or removed, clients beyond its limit.

use std::time::Duration;

use rollcall::private_server::Options;

use super::{Patient, examine};
use crate::harness::wait_until;
use crate::query::ground::ask_at;
use crate::scene::SOON;

/// A server without these commands, examined for a role.
fn without(commands: &[&str], role: &str) -> Patient {
    let args: Vec<&str> =
        commands.iter().flat_map(|command| ["--rename-command", *command, ""]).collect();
    let mut patient = Patient::with_args(&args);
    patient.examined_with(&["--role", role]);
    patient
}

#[test]
fn a_command_that_no_role_needs_is_named_once_with_all_that_could_not_be_looked_at() {
    let patient = without(&["INFO", "CONFIG", "CLIENT"], "run");
    let (code, report) = examine(&patient.server.url(), &[]);
    let findings = report["findings"].as_array().unwrap();
    let gone: Vec<_> = findings.iter().filter(|one| one["check"] == "commands").collect();
    let said = |command: &str| {
        let words = format!("this server has no {command}; it was renamed or removed");
        gone.iter().find(|one| one["found"] == words.as_str()).unwrap()
    };
    // `run` needs INFO for its janitor's gauges.
    assert_eq!((code, &said("INFO")["level"]), (1, &"failure".into()), "{report}");
    assert_eq!(said("CONFIG")["level"], "warning", "{report}");
    for (command, checks) in [
        ("INFO", &["version", "eviction", "memory", "persistence", "clients"][..]),
        ("CONFIG", &["timeout", "script limit", "output buffers"]),
    ] {
        let means = said(command)["means"].as_str().unwrap();
        assert!(checks.iter().all(|check| means.contains(check)), "{command}: {means}");
    }
    assert_eq!(gone.len(), 2, "nothing hangs on CLIENT: {report}");
    let hindered = ["eviction", "timeout"];
    assert!(findings.iter().all(|one| !hindered.contains(&one["check"].as_str().unwrap())));
    // Commands that need less do without.
    let (code, page, error) = ask_at(&patient.server.url(), &["status"]);
    assert_eq!((code, error.as_str()), (0, ""), "{page}");
}

/// If the provider manages the settings, `CONFIG SET` is of no use.
#[test]
fn without_config_the_advice_is_about_the_provider_s_settings() {
    let args = ["--maxmemory-policy", "allkeys-lru", "--rename-command", "CONFIG", ""];
    let patient = Patient::with_args(&args);
    let finding = patient.suffers("eviction", "failure", "allkeys-lru");
    let advice = "set maxmemory-policy to noeviction in the provider's settings";
    assert!(finding.advice().contains(advice), "{}", finding.advice());
    assert!(finding.commands().is_empty(), "{:?}", finding.commands());
    // If only this user may not, both ways are shown.
    let mut patient = Patient::with_args(&args[..2]);
    patient.send("ACL SETUSER some on >pw ~* &* +@all -config");
    patient.examined_with(&["--redis-username", "some", "--redis-password", "pw"]);
    let finding = patient.suffers("eviction", "failure", "allkeys-lru");
    assert!(finding.advice().contains(advice), "{}", finding.advice());
    finding.run_remedy();
    patient.is_well("eviction");
}

#[test]
fn a_command_that_the_role_needs_is_a_failure() {
    for (command, role) in [
        ("EVALSHA", "worker"),
        ("EVALSHA", "doctor"),
        ("SCRIPT", "janitor"),
        ("TIME", "run"),
        ("INFO", "janitor"),
    ] {
        let patient = without(&[command], role);
        let words = format!("this server has no {command};");
        let finding = patient.suffers("commands", "failure", &words);
        assert!(finding.advice().contains("rename-command"), "{}", finding.advice());
    }
    // Commands that only scripts call are found, too.
    for (command, role) in
        [("ZINCRBY", "worker"), ("XTRIM", "janitor"), ("XADD", "producer"), ("SSCAN", "reader")]
    {
        let patient = without(&[command], role);
        patient.suffers("rights", "failure", &format!("this server has no {command};"));
    }
}

#[test]
fn a_server_with_no_room_for_a_client_is_told_from_one_that_refuses_the_password() {
    let args = ["--maxclients", "4", "--requirepass", "hunter2"];
    let extra_args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let patient = Patient::new(Options { extra_args, ..Options::default() });
    let port = patient.server.port();
    let url = format!("redis://:hunter2@127.0.0.1:{port}");
    let mut taken: Vec<std::net::TcpStream> = Vec::new();
    wait_until(SOON, "the server has no room", || {
        taken.push(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
        examine(&url, &[]).1.to_string().contains("max number of clients")
    });
    for url in [url, format!("redis://127.0.0.1:{port}")] {
        let (code, report) = examine(&url, &[]);
        let finding = &report["findings"][0];
        assert_eq!((code, &finding["check"]), (1, &"reach".into()), "{report}");
        let found = finding["found"].as_str().unwrap();
        assert!(found.starts_with(&format!("connecting to 127.0.0.1:{port} failed: ")), "{found}");
        assert!(found.contains("max number of clients reached"), "{found}");
        assert!(finding["remedy"].to_string().contains("raise maxclients"), "{report}");
        let (code, _, error) = ask_at(&url, &["online"]);
        assert_eq!(code, 1);
        assert!(
            error.contains("max number of clients") && !error.contains("authentication"),
            "{error}"
        );
    }
    drop(taken);
    // Now the password is wrong.
    let wrong = format!("redis://:hunter3@127.0.0.1:{port}");
    wait_until(Duration::from_secs(10), "there is room", || {
        ask_at(&wrong, &["online"]).2.contains("Password authentication failed")
    });
}
