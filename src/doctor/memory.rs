//! Memory: what the server does when memory runs short, and how close that is.

use super::facts::Facts;
use super::finding::{Answer, Diagnosis};

pub(super) fn eviction(facts: &Facts) -> Answer {
    let policy = facts.info("maxmemory_policy")?;
    let found = format!("maxmemory-policy is {policy}");
    if policy == "noeviction" {
        return Ok(Diagnosis::ok(found));
    }
    let means = "when memory runs short, the server evicts the stream, its group and the state: events are lost \
                 unnoticed";
    Ok(facts.set(Diagnosis::failure(found, means), "maxmemory-policy", "noeviction"))
}

pub(super) fn memory(facts: &Facts) -> Answer {
    let (used, most) = (facts.number("used_memory")?, facts.number("maxmemory")?);
    if most == 0 {
        let means = "the operating system kills the server when memory runs short";
        let diagnosis =
            Diagnosis::warning(format!("no maxmemory is set; {} in use", mib(used)), means);
        return Ok(match facts.number("total_system_memory") {
            Ok(total) => set_mib(diagnosis, facts, (total / 2).max(used * 2)),
            Err(_) => diagnosis.advise("set maxmemory to about half of the machine's memory"),
        });
    }
    let full = used.saturating_mul(100) / most;
    let found = format!("{} of {} in use ({full} %)", mib(used), mib(most));
    let means = "at maxmemory producers and workers are refused (OOM); entries in the stream wait, and none is lost";
    Ok(match full {
        0..80 => Diagnosis::ok(found),
        80..95 => set_mib(Diagnosis::warning(found, means), facts, used * 2),
        _ => set_mib(Diagnosis::failure(found, means), facts, used * 2),
    })
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

fn set_mib(diagnosis: Diagnosis, facts: &Facts, bytes: u64) -> Diagnosis {
    let value = format!("{}mb", bytes.div_ceil(1_048_576));
    facts.set(diagnosis, "maxmemory", &value)
}
