//! Rights: exactly what a user lacks is named, and the remedy grants it.

use std::collections::BTreeSet;

use super::{Finding, Patient, examine};
use crate::acl::{Guarded, ROLES, commands};
use crate::query::ground::ask_at;

/// The rights that the finding says are missing.
fn lacking(finding: &Finding) -> BTreeSet<String> {
    let (_, rights) = finding.found().split_once("lacks ").unwrap();
    rights.split(' ').map(str::to_owned).collect()
}

/// A server with the user of a role as in deploy/acl, examined as that user.
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
        // The minimum for checks at all, and for telling a command from a key.
        let key = if role == "notifier" { "get" } else { "type" };
        let entrance = ["evalsha", "script|load", "hset", key];
        let all: Vec<String> = commands(role).into_iter().collect();
        let taken: Vec<&String> = if role == "producer" {
            all.iter().collect()
        } else {
            all.iter().filter(|command| !entrance.contains(&command.as_str())).collect()
        };
        let rules: String = taken.iter().map(|command| format!(" -{command}")).collect();
        let patient = patient(role, &rules);
        let finding = patient.suffers("rights", "failure", "lacks");
        let mut expected: BTreeSet<String> =
            taken.iter().map(|command| format!("+{command}")).collect();
        if ["worker", "run"].contains(&role) {
            // The server does not distinguish a command from its channel.
            expected.insert("&rollcall:owner:*".to_owned());
        }
        if role == "notifier" {
            expected.insert("&socket.io#*".to_owned());
        }
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

/// A role need not examine the server: that it may not is one line, and no request for more rights.
#[test]
fn what_a_role_may_not_look_at_is_said_in_one_line() {
    for role in ["worker", "janitor", "run", "reader"] {
        let patient = patient(role, "");
        let user = format!("rollcall-{role}");
        let login = ["--redis-username", &user, "--redis-password", "pw", "--role", role];
        let (code, report) = examine(&patient.server.url(), &login);
        assert_eq!((code, &report["level"]), (0, &"warning".into()), "{report}");
        let findings = report["findings"].as_array().unwrap();
        let unseen = findings.iter().filter(|one| one.to_string().contains("may not look"));
        let [unseen] = unseen.collect::<Vec<_>>()[..] else { panic!("not one line: {report}") };
        assert_eq!(unseen["check"], "not looked at");
        let found = unseen["found"].as_str().unwrap();
        let start = format!("user {user} may not look at ");
        assert!(found.starts_with(&start) && found.contains("timeout"), "{role}: {found}");
        assert!(unseen["means"].as_str().unwrap().contains("config|get"), "{unseen}");
        assert!(!report.to_string().contains("SETUSER"), "{role}: {report}");
        patient.is_well("rights");
        // The finding says how to have it checked.
        let finding = patient.suffers("not looked at", "warning", &start);
        let expected = format!(
            "rollcall doctor --role doctor --redis-username rollcall-doctor --redis-url {}",
            patient.server.url()
        );
        assert_eq!(finding.commands(), [expected]);
    }
}

#[test]
fn partitions_that_say_the_same_are_one_line_for_people() {
    let patient = patient("worker", "");
    let login = ["--redis-username", "rollcall-worker", "--redis-password", "pw"];
    let more = ["doctor", "--role", "worker", "--prefix", "x:", "--partitions", "8"];
    let (code, page, _) = ask_at(&patient.server.url(), &[&more[..], &login].concat());
    assert_eq!(code, 1, "{page}");
    let lines_with = |words: &str| page.lines().filter(|line| line.contains(words)).count();
    assert_eq!(lines_with("rights p0-p7"), 1, "{page}");
    assert_eq!(lines_with("lacks ~"), 1, "{page}");
    assert_eq!(lines_with("SETUSER"), 1, "{page}");
    let (_, page, _) = ask_at(&patient.server.url(), &["doctor", "--partitions", "8"]);
    let lines_with = |words: &str| page.lines().filter(|line| line.contains(words)).count();
    for words in ["group p0-p7", "janitor p0-p7", "nobody has added an event"] {
        assert_eq!(lines_with(words), 1, "{words}: {page}");
    }
    let command = format!("rollcall worker --redis-url {} --partitions 8", patient.server.url());
    assert_eq!(lines_with(&command), 1, "{page}");
}

/// The doctor's own user: enough rights to examine everything, and no more than it uses.
#[test]
fn the_doctor_s_user_may_look_at_everything_and_do_nothing() {
    let guarded = Guarded::start("");
    crate::seed_readers::apply_everything(&guarded);
    guarded.called();
    let (code, report) = examine(&guarded.url("doctor"), &["--role", "doctor"]);
    assert_eq!(code, 0, "{report}");
    assert!(!report.to_string().contains("not permitted"), "{report}");
    guarded.nothing_was_refused(&[]);
    // Commands used only on a Cluster, for a group with pending entries, or for a live owner.
    let elsewhere = ["cluster|info", "xpending", "pubsub|numsub"].map(str::to_owned);
    let called: BTreeSet<_> = guarded.called().into_iter().chain(elsewhere).collect();
    let idle: Vec<_> = commands("doctor").difference(&called).cloned().collect();
    assert!(idle.is_empty(), "the doctor is allowed what it does not do: {idle:?}");
}
