//! Rights: what a user lacks is named, all of it and nothing else, and the remedy gives it.

use std::collections::BTreeSet;

use super::{Finding, Patient, examine};
use crate::acl::{Guarded, ROLES, commands};

/// The rights that the finding says are missing.
fn lacking(finding: &Finding) -> BTreeSet<String> {
    let (_, rights) = finding.found().split_once("lacks ").unwrap();
    rights.split(' ').map(str::to_owned).collect()
}

/// A server with the user of a role as it stands in deploy/acl, examined as that user.
fn patient(role: &str, rules: &str) -> Patient {
    let mut patient = Patient::with_args(&[]);
    let line = crate::acl::line(role).replace(">change-me", ">pw").replacen("user ", "", 1);
    patient.send(&format!("ACL SETUSER {}{rules}", line.trim_end()));
    let user = format!("rollcall-{role}");
    patient.examined_with(&["--role", role, "--redis-username", &user, "--redis-password", "pw"]);
    patient
}

#[test]
fn every_command_that_is_missing_is_named() {
    for role in ROLES {
        // What it takes to be told at all, and to tell a command from a key.
        let entrance = ["evalsha", "script|load", "hset", "type"];
        let all: Vec<String> = commands(role).into_iter().collect();
        let taken: Vec<&String> = if role == "producer" {
            all.iter().collect()
        } else {
            all.iter().filter(|command| !entrance.contains(&command.as_str())).collect()
        };
        let rules: String = taken.iter().map(|command| format!(" -{command}")).collect();
        let patient = patient(role, &rules);
        let finding = patient.suffers("rights", "failure", "lacks");
        let expected: BTreeSet<String> =
            taken.iter().map(|command| format!("+{command}")).collect();
        assert_eq!(lacking(&finding), expected, "{role}");
        finding.run_remedy();
        patient.is_well("rights");
    }
    for command in ["evalsha", "script|load"] {
        let patient = patient("worker", &format!(" -{command}"));
        patient.is_cured("rights", &[], "failure", &format!("lacks +{command}"));
    }
}

#[test]
fn every_key_that_is_out_of_reach_is_named() {
    for (role, keys, missing) in [
        ("worker", "~rollcall:* ~login: %R~recent: ~viewed:*", 7),
        ("janitor", "~rollcall:* %R~session:*", 9),
        ("reader", "%R~rollcall:* %R~login:", 8),
        ("producer", "%W~other", 1),
    ] {
        let patient = patient(role, &format!(" resetkeys {keys}"));
        let finding = patient.suffers("rights", "failure", "~");
        assert_eq!(lacking(&finding).len(), missing, "{role}: {}", finding.found());
        finding.run_remedy();
        patient.is_well("rights");
    }
}

#[test]
fn rights_hold_for_the_prefix_and_the_stream_that_are_used() {
    let mut patient = patient("worker", "");
    let user = ["--redis-username", "rollcall-worker", "--redis-password", "pw"];
    patient.examined_with(&[&user[..], &["--role", "worker", "--prefix", "ac*me:"]].concat());
    patient.is_cured("rights", &[], "failure", "~ac\\*me:login:");
    patient.examined_with(&[&user[..], &["--role", "worker", "--stream", "in"]].concat());
    patient.is_cured("rights", &[], "failure", "lacks ~in");
    let tagged = ["--role", "worker", "--prefix", "x:", "--partitions", "2"];
    patient.examined_with(&[&user[..], &tagged].concat());
    patient.is_cured("rights", &[], "failure", "~x:{p*}:login:");
}

/// On a managed server nobody may ask INFO or CONFIG: that is no failure, and it says what is missing.
#[test]
fn what_may_not_be_looked_at_is_a_warning_with_the_right_that_is_missing() {
    let mut patient = patient("worker", "");
    let user =
        ["--redis-username", "rollcall-worker", "--redis-password", "pw", "--role", "worker"];
    patient.examined_with(&user);
    let url = patient.server.url();
    let (code, report) = examine(&url, &user);
    assert_eq!((code, &report["level"]), (0, &"warning".into()), "{report}");
    for (check, right) in
        [("eviction", "'info'"), ("timeout", "'config|get'"), ("own keys", "'scan'")]
    {
        patient.is_cured(check, &[], "warning", right);
    }
    // Some rename or remove a command.
    patient = Patient::with_args(&["--rename-command", "CONFIG", ""]);
    let finding = patient.finding("timeout");
    assert_eq!(finding.level(), "warning");
    assert!(finding.found().contains("unknown command"), "{}", finding.found());
    patient.is_well("eviction");
}

/// The doctor's own user: enough to look at everything, no more than it asks for.
#[test]
fn the_doctor_s_user_may_look_at_everything_and_do_nothing() {
    let guarded = Guarded::start("");
    crate::readers::apply_everything(&guarded);
    guarded.called();
    let (code, report) = examine(&guarded.url("doctor"), &["--role", "doctor"]);
    assert_eq!(code, 0, "{report}");
    assert!(!report.to_string().contains("not permitted"), "{report}");
    guarded.nothing_was_refused(&[]);
    // What only a Cluster, or a group with pending entries, makes it ask.
    let elsewhere = ["cluster|info", "xpending"].map(str::to_owned);
    let called: BTreeSet<_> = guarded.called().into_iter().chain(elsewhere).collect();
    let idle: Vec<_> = commands("doctor").difference(&called).cloned().collect();
    assert!(idle.is_empty(), "the doctor is allowed what it does not do: {idle:?}");
}
