//! `rollcall serve` from the view of applications and browsers.

mod access;
mod api;
mod bounds;
pub mod client;
mod dead;
mod events;
mod faults;
mod openapi;
mod page;
mod pages;
mod rights;
mod source;
mod traces;

use rollcall::private_server::Options;

use self::client::Client;
use crate::harness::wait_until;
use crate::process::Worker;
use crate::scene::{SOON, Scene};

/// A server, a worker, and a process that serves.
pub struct Served {
    pub scene: Scene,
    pub serve: Worker,
    pub client: Client,
    worker: Option<Worker>,
}

impl Served {
    /// With these settings for both processes, and flags for the one that serves.
    pub fn start(flags: &[(&str, &str)], serve: &[&str]) -> Self {
        let scene = Scene::start(flags);
        let worker = scene.worker(&[]);
        let mut served = Self::beside(scene, serve);
        served.worker = Some(worker);
        served
    }

    /// Added events are not applied.
    pub fn without_worker(options: Options, serve: &[&str]) -> Self {
        Self::beside(Scene::start_with(&[], options), serve)
    }

    fn beside(scene: Scene, flags: &[&str]) -> Self {
        let (serve, client) = start(&scene, flags);
        Self { scene, serve, client, worker: None }
    }

    /// One more process that serves.
    pub fn another(&self, flags: &[&str]) -> (Worker, Client) {
        start(&self.scene, flags)
    }

    /// Adds events, and waits until they have had their effect.
    pub fn add(&self, events: &serde_json::Value) {
        let reply = self.client.post("/api/v1/events?wait=20s", &events.to_string());
        assert_eq!(reply.status, 200, "{reply:?}\n{}", self.serve.log());
    }
}

fn start(scene: &Scene, flags: &[&str]) -> (Worker, Client) {
    let serve = scene.serve(flags);
    let client = Client::new(&address(&serve));
    // Who may not read is refused before it shows whether Redis can be reached.
    let file = flags.iter().skip_while(|flag| **flag != "--read-token-file").nth(1);
    let tokens = file.map(|file| std::fs::read_to_string(file).unwrap());
    let token = tokens.as_ref().and_then(|tokens| tokens.lines().next());
    let reader = token.map_or_else(|| client.clone(), |token| client.bearer(token));
    wait_until(SOON, "serve reaches Redis", || {
        client.get("/api/v1/openapi.json").status == 200 && !reader.is_away()
    });
    (serve, client)
}

/// The address where a process serves, once it does.
pub fn address(process: &Worker) -> String {
    let mut address = String::new();
    wait_until(SOON, "the address is logged", || {
        let log = process.log();
        let found = log.split("serve=").nth(1).and_then(|rest| rest.split([' ', '\n']).next());
        address = found.unwrap_or_default().trim_matches('"').to_owned();
        !address.is_empty()
    });
    address
}
