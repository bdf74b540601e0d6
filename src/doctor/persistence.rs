//! Persistence: what a crash of the server would lose, and whether saving works.

use super::facts::Facts;
use super::finding::{Answer, Diagnosis};

pub(super) fn persistence(facts: &Facts) -> Answer {
    if facts.info("aof_enabled")? == "1" {
        return append_only(facts);
    }
    let means = "stream and state rewind together; what was added since is lost";
    let diagnosis = match facts.parameter("save") {
        Ok("") => Diagnosis::warning(
            "neither an append-only file nor snapshots",
            "a crash or restart of the server loses the stream and all state",
        ),
        Ok(save) => Diagnosis::warning(
            format!("snapshots only (save {save}); a crash loses what came after the last one"),
            means,
        ),
        Err(_) => {
            Diagnosis::warning("no append-only file; a crash loses what was not saved", means)
        }
    };
    Ok(facts.set(diagnosis, "appendonly", "yes"))
}

fn append_only(facts: &Facts) -> Answer {
    let fsync = facts.parameter("appendfsync")?;
    let found = format!("append-only file, appendfsync {fsync}");
    if fsync != "no" {
        return Ok(Diagnosis::ok(found));
    }
    let means =
        "a crash of the machine loses what the operating system has not written yet: often 30 s";
    Ok(facts.set(Diagnosis::warning(found, means), "appendfsync", "everysec"))
}

pub(super) fn saving(facts: &Facts) -> Answer {
    let failed = |name: &&str| facts.info(name).is_ok_and(|status| status != "ok");
    let snapshot = "rdb_last_bgsave_status";
    facts.info(snapshot)?;
    let names = [snapshot, "aof_last_write_status", "aof_last_bgrewrite_status"];
    let failing: Vec<&str> = names.into_iter().filter(failed).collect();
    if failing.is_empty() {
        return Ok(Diagnosis::ok("the last save worked"));
    }
    // Empty if the folder itself is gone.
    let folder = facts.parameter("dir").ok().filter(|folder| !folder.is_empty());
    let folder = folder.unwrap_or("the server's folder");
    let means = "the data in memory is not on disk, and the server may refuse all writes (MISCONF)";
    let command = if failing.contains(&snapshot) { "BGSAVE" } else { "BGREWRITEAOF" };
    Ok(Diagnosis::failure(format!("failed: {}", failing.join(", ")), means)
        .advise(format!("free some space in {folder} and let the server write there; its log says why it could not"))
        .run(facts.shell.redis_cli(&[command])))
}
