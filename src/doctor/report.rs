//! The findings so far. What a user may not look at, and commands that a server does not have, are reported once at
//! the end, however many checks they prevent.

use super::access::Role;
use super::finding::{Answer, Diagnosis, Finding, Unseen};
use crate::config::{Config, Shell};
use crate::redis::connect::Node;

/// The remedy for a command that was renamed or removed.
pub(super) const ALLOW: &str = "allow it: in redis.conf (rename-command) or, on a managed server, in the provider's \
                                settings";

/// The findings so far, and the shell commands for remedies.
pub(super) struct Report {
    findings: Vec<Finding>,
    /// Reaches the node being examined.
    pub(super) shell: Shell,
    /// Reaches the deployment.
    everywhere: Shell,
    pub(super) user: String,
    role: Role,
    pub(super) partition: u16,
    /// Commands that the user may not send, and the checks that need them.
    forbidden: Hindered,
    /// Commands that the server does not have, and the checks that need them.
    gone: Hindered,
}

impl Report {
    pub(super) fn new(config: &Config, role: Role) -> Self {
        let shell = Shell::of(&config.redis, &config.deployment);
        let server = config.redis.server();
        Self {
            findings: Vec::new(),
            everywhere: shell.clone(),
            shell,
            user: server.info.redis_settings().username().unwrap_or("default").to_owned(),
            role,
            partition: 0,
            forbidden: Hindered::default(),
            gone: Hindered::default(),
        }
    }

    pub(super) fn turn_to(&mut self, node: &Node, partition: u16) {
        self.shell = self.everywhere.at(&node.at.info);
        self.partition = partition;
    }

    pub(super) fn add(&mut self, check: &'static str, answer: Answer) {
        let diagnosis = match answer {
            Ok(diagnosis) => diagnosis,
            Err(Unseen::Forbidden(command)) => {
                return self.forbidden.add(command.as_deref().unwrap_or("keys"), check);
            }
            Err(Unseen::NoCommand(command)) => return self.gone.add(&command, check),
            Err(Unseen::Unsaid(name)) => {
                Diagnosis::warning(format!("the server does not report {name}"), NOT_SEEN)
            }
            Err(Unseen::Failed(why)) => Diagnosis::failure(why, NOT_SEEN),
        };
        self.push(check, diagnosis);
    }

    fn push(&mut self, check: &'static str, diagnosis: Diagnosis) {
        self.findings.push(Finding { check, partition: self.partition, diagnosis });
    }

    /// All findings.
    pub(super) fn finish(mut self) -> Vec<Finding> {
        self.partition = 0;
        for (command, checks) in std::mem::take(&mut self.gone).0 {
            self.push("commands", self.without(&command, &checks));
        }
        if !self.forbidden.0.is_empty() {
            self.push("not looked at", self.not_permitted());
        }
        self.findings
    }

    /// The finding that the server does not have this command.
    fn without(&self, command: &str, checks: &[&str]) -> Diagnosis {
        let found = format!("this server has no {command}; it was renamed or removed");
        let unmade = format!("not checked: {}", checks.join(", "));
        if self.role.needs(command) {
            let means = format!("the role {} cannot work without it; {unmade}", self.role.name());
            return Diagnosis::failure(found, means).advise(ALLOW);
        }
        Diagnosis::warning(found, unmade)
            .advise("on a managed server, look at its settings in the provider's console")
    }

    /// The finding that the user may not look; a role does not need the rights that only the doctor uses.
    fn not_permitted(&self) -> Diagnosis {
        let (user, Hindered(forbidden)) = (&self.user, &self.forbidden);
        let commands: Vec<&str> = forbidden.iter().map(|(command, _)| command.as_str()).collect();
        let mut checks: Vec<&str> = Vec::new();
        for check in forbidden.iter().flat_map(|(_, checks)| checks) {
            if !checks.contains(check) {
                checks.push(check);
            }
        }
        let found = format!("user {user} may not look at {}", checks.join(", "));
        let means = format!(
            "not permitted: {}; the check rights says whether the role lacks anything",
            commands.join(", ")
        );
        let words = ["doctor", "--role", "doctor", "--redis-username", "rollcall-doctor"];
        Diagnosis::warning(found, means)
            .advise("to have them checked, run the doctor as the user of deploy/acl/doctor.acl:")
            .run(self.everywhere.rollcall(&words))
    }
}

const NOT_SEEN: &str = "this could not be checked";

/// What is missing, and the checks that it prevented, both in order of appearance.
#[derive(Default)]
struct Hindered(Vec<(String, Vec<&'static str>)>);

impl Hindered {
    fn add(&mut self, command: &str, check: &'static str) {
        let known = self.0.iter_mut().find(|(known, _)| known == command);
        match known {
            Some((_, checks)) if checks.contains(&check) => {}
            Some((_, checks)) => checks.push(check),
            None => self.0.push((command.to_owned(), vec![check])),
        }
    }
}
