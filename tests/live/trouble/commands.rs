//! Commands that were renamed or removed: what is missing is named, and no entry is condemned for it.

use rollcall::private_server::Options;

use super::HTTP;
use crate::harness::wait_until;
use crate::scene::{SOON, Scene, in_parallel, wait_for_page};

#[test]
fn a_server_without_a_command_condemns_no_entry_and_is_told_by_name() {
    let cases =
        [("SADD", "no command that a script calls"), ("ZINCRBY", "no command that a script calls")];
    in_parallel(cases, |(command, words)| {
        let extra_args = ["--rename-command", command, ""].map(str::to_owned).to_vec();
        let scene = Scene::start_with(&[], Options { extra_args, ..Options::default() });
        scene.add_heartbeat("alice");
        let worker = scene.worker(&HTTP);
        let body =
            wait_for_page(&worker, "/readyz", |status, body| status == 503 && body.contains(words));
        assert!(body.contains("renamed or removed"), "{body}");
        let doctor = format!("rollcall doctor --redis-url {}", scene.url());
        assert!(body.contains(&doctor), "it says who names it: {body}");
        wait_until(SOON, "it tries again", || worker.log().matches("not projecting").count() >= 2);
        assert!(scene.letters().is_empty(), "{command}");
        assert!(!scene.is_finished(), "{command}");
        let log = worker.log();
        assert!(log.contains(words) && log.contains("kind=\"no_command\""), "{log}");
    });
}

/// Commands that only the doctor and `status` use, or nobody.
#[test]
fn without_info_config_and_client_everything_works() {
    let names = ["INFO", "CONFIG", "CLIENT"];
    let extra_args = names.iter().flat_map(|name| ["--rename-command", name, ""]);
    let extra_args = extra_args.map(str::to_owned).collect();
    let scene = Scene::start_with(&[], Options { extra_args, ..Options::default() });
    let (worker, janitor) = (scene.worker(&HTTP), scene.janitor(&[]));
    scene.add_random(3, 100);
    scene.wait_finished(SOON, "it works");
    scene.verify("without INFO, CONFIG and CLIENT");
    let is_well = |log: &str| !log.contains("not projecting") && !log.contains("not sweeping");
    assert!(is_well(&worker.log()) && is_well(&janitor.log()), "{}", janitor.log());
    scene.drain(worker);
}
