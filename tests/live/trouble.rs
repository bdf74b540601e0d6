//! Trouble with the server: it forgets, refuses, stalls, dies, and other programs use its keys. Nothing that is still
//! in the stream is lost, nothing sticks, and no good entry is written off.

mod blame;
mod commands;
mod forgotten;
mod functions;
mod idle;
mod killers;
mod server;
mod settings;
mod strangers;
mod taken;

use std::time::Duration;

use fastrand::Rng;
use rollcall::entry::Field;

use crate::harness::wait_until;
use crate::scene::{SOON, Scene, Traffic, try_command};
use crate::support::events::field;

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

fn pairs(fields: &[(&str, &str)]) -> Vec<Field> {
    fields.iter().map(|(name, value)| field(name, value)).collect()
}

/// Two workers under traffic while something happens to the server repeatedly; afterwards all is well.
fn survives(what: &str, scene: &mut Scene, times: u32, mut blow: impl FnMut(&mut Scene, &mut Rng)) {
    let mut rng = Rng::with_seed(23);
    let workers = [scene.worker(&[]), scene.worker(&[])];
    let traffic = Traffic::start(scene, 23, 250);
    for _ in 0..times {
        std::thread::sleep(Duration::from_millis(rng.u64(20..250)));
        blow(scene, &mut rng);
    }
    wait_until(SOON, "traffic goes on after it", || {
        let mut conn = scene.connection();
        try_command::<u64>(&mut conn, &["XLEN", &scene.deployment.stream(0)])
            .is_ok_and(|len| len > 0)
    });
    traffic.stop();
    // The longest pause is five seconds.
    scene.wait_finished(SOON, what);
    scene.verify(what);
    drop(workers);
}

/// Makes the server slow to answer anybody: a script that runs until it is killed.
pub fn begin_slow_script(scene: &Scene) {
    command(scene, &["CONFIG", "SET", "busy-reply-threshold", "10"]);
    let mut conn = scene.connection();
    std::thread::spawn(move || {
        try_command::<redis::Value>(&mut conn, &["EVAL", "while true do end", "0"])
    });
    let client = redis::Client::open(scene.url()).unwrap();
    wait_until(SOON, "the server is busy", || {
        let conn = client.get_connection();
        conn.is_err() || try_command::<String>(&mut conn.unwrap(), &["PING"]).is_err()
    });
}

/// Ends what [`begin_slow_script`] began.
pub fn end_slow_script(scene: &Scene) {
    let client = redis::Client::open(scene.url()).unwrap();
    wait_until(SOON, "the script is killed", || {
        client.get_connection().is_ok_and(|mut conn| {
            let _told = try_command::<String>(&mut conn, &["SCRIPT", "KILL"]);
            try_command::<String>(&mut conn, &["PING"]).is_ok()
        })
    });
}

pub fn command(scene: &Scene, words: &[&str]) {
    try_command::<redis::Value>(&mut scene.connection(), words).unwrap();
}
