//! Functions: if they cannot be loaded or called, scripts are called by their digests; other versions' are removed.

use rollcall::entry::Entry;
use rollcall::private_server::Options;
use rollcall::redis::scripts::script::drop_others;

use super::{HTTP, command};
use crate::harness::{Deployment, id, wait_until};
use crate::scene::{SOON, Scene, in_parallel, wait_for_page};
use crate::support::dump;

/// Rollcall's libraries on a server.
fn libraries(scene: &Scene) -> Vec<String> {
    let list: Vec<std::collections::HashMap<String, redis::Value>> =
        scene.command(&["FUNCTION", "LIST"]);
    let name = |library: &std::collections::HashMap<String, redis::Value>| {
        redis::from_redis_value_ref(&library["library_name"]).unwrap()
    };
    list.iter().map(name).collect()
}

#[test]
fn where_functions_are_refused_scripts_do_the_same() {
    let commands = [Some("FCALL"), Some("FUNCTION"), None];
    in_parallel(commands, |renamed| {
        let extra_args = renamed.into_iter().flat_map(|name| ["--rename-command", name, ""]);
        let extra_args = extra_args.map(str::to_owned).collect();
        let scene = Scene::start_with(&[], Options { extra_args, ..Options::default() });
        if renamed.is_none() {
            command(&scene, &["ACL", "SETUSER", "default", "-fcall"]);
        }
        let (worker, janitor) = (scene.worker(&[]), scene.janitor(&[]));
        scene.add_random(3, 100);
        scene.wait_finished(SOON, "it works");
        scene.verify("by digest");
        let is_well = |log: &str| !log.contains("not projecting") && !log.contains("not sweeping");
        assert!(is_well(&worker.log()) && is_well(&janitor.log()), "{}", worker.log());
        let calls: String = scene.command(&["INFO", "commandstats"]);
        assert!(calls.contains("cmdstat_evalsha"), "{calls}");
        scene.drain(worker);
    });
}

/// At full memory the server accepts no function, but a script.
#[test]
fn a_worker_that_begins_at_full_memory_goes_on_once_there_is_room() {
    let scene = Scene::start(&[]);
    scene.add_heartbeat("alice");
    command(&scene, &["CONFIG", "SET", "maxmemory", "1"]);
    let worker = scene.worker(&HTTP);
    wait_for_page(&worker, "/readyz", |status, body| status == 503 && body.contains("memory"));
    assert_eq!(libraries(&scene), [""; 0]);
    command(&scene, &["CONFIG", "SET", "maxmemory", "0"]);
    scene.wait_finished(SOON, "there is room");
    assert!(scene.letters().is_empty());
}

#[test]
fn without_functions_and_scripts_no_entry_is_condemned_and_it_is_told_by_name() {
    in_parallel([["EVALSHA", "FCALL"], ["SCRIPT", "FUNCTION"]], |commands| {
        let extra_args = commands.iter().flat_map(|name| ["--rename-command", name, ""]);
        let extra_args = extra_args.map(str::to_owned).collect();
        let scene = Scene::start_with(&[], Options { extra_args, ..Options::default() });
        scene.add_heartbeat("alice");
        let worker = scene.worker(&HTTP);
        let words = format!("no {}", commands[0]);
        wait_for_page(&worker, "/readyz", |status, body| status == 503 && body.contains(&words));
        wait_until(SOON, "it tries again", || worker.log().matches("not projecting").count() >= 2);
        assert!(scene.letters().is_empty() && !scene.is_finished(), "{commands:?}");
    });
}

#[tokio::test]
async fn libraries_of_other_versions_go_and_what_is_in_use_comes_back() {
    let scene = Scene::start(&[]);
    let worker = scene.worker(&[]);
    scene.add_heartbeat("alice");
    scene.wait_finished(SOON, "it works");
    for name in ["rollcall_apply_0123456789ab", "another"] {
        let text = format!("#!lua name={name}\nredis.register_function('{name}', function() end)");
        command(&scene, &["FUNCTION", "LOAD", &text]);
    }
    let own = libraries(&scene).len() - 2;
    let client = redis::Client::open(scene.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    assert_eq!(drop_others(&mut connection).await.unwrap(), 1);
    let left = libraries(&scene);
    assert!(left.contains(&"another".to_owned()), "others' stay: {left:?}");
    assert_eq!(left.len(), own + 1, "{left:?}");
    command(
        &scene,
        &["FUNCTION", "DELETE", left.iter().find(|name| name.contains("_apply_")).unwrap()],
    );
    scene.add_heartbeat("bob");
    scene.wait_finished(SOON, "what is in use is loaded again");
    assert_eq!(libraries(&scene).len(), own + 1);
    scene.drain(worker);
}

/// The script unpacks a plan on its stack, which does not hold all values of this one.
#[tokio::test]
async fn a_plan_with_more_values_than_the_stack_holds_is_merged_whole() {
    let deployment = Deployment::start(&[]);
    let (mut script, mut conn) = (deployment.script(0).await, deployment.connection());
    let now = dump::server_now(&mut conn);
    let view = |n| format!(r#"{{"type":"view","user":"u{n}","token":"t{n}","item":"i{}"}}"#, n % 7);
    let entries = [0..1000, 1000..2000, 2000..3000].map(|part| {
        let (seq, views) = (part.start, part.map(view).collect::<Vec<_>>().join(","));
        Entry::new(id(now - 1000, seq), [("data", format!("[{views}]").as_str())])
    });
    script.merge(&entries).await;
    let mut ask = |words: &[&str]| -> Option<u64> {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut conn).unwrap()
    };
    assert_eq!(ask(&["ZCARD", "recent:"]), Some(3000));
    assert_eq!(ask(&["HLEN", "login:"]), Some(3000));
    assert_eq!(ask(&["ZSCORE", "viewed:", "i0"]), Some(429));
    assert_eq!(
        ask(&["EXISTS", "user-activity/u0", "user-activity/u2999", "viewed:t2999"]),
        Some(3)
    );
}
