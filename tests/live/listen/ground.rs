//! A deployment without a worker, whose changes the test records itself, as the scripts do.

use redis::Connection;

use super::{Client, address};
use crate::process::Worker;
use crate::scene::{Scene, try_command};

pub struct Ground {
    pub scene: Scene,
    pub serve: Worker,
    conn: Connection,
}

impl Ground {
    pub fn new(flags: &[&str]) -> Self {
        let scene = Scene::start(&[]);
        let (serve, conn) = (scene.serve(flags), scene.connection());
        Self { scene, serve, conn }
    }

    pub fn open(&self, query: &str, last_id: &str) -> Client {
        Client::open(address(&self.serve), query, last_id, "")
    }

    pub fn run<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        try_command(&mut self.conn, words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Records that this many users came; their names are the change's number and `name`.
    pub fn record(&mut self, count: u64, name: &str) {
        let record = "
            local seq = redis.call('INCRBY', KEYS[2], ARGV[1]) - ARGV[1]
            for i = 1, ARGV[1] do
              redis.call('XADD', KEYS[1], '*', 'seq', seq + i, 'kind', 'online', 'time', '1790000000000',
                'user', string.format('%d', seq + i) .. ARGV[2], 'ip', '')
            end";
        let (count, keys) = (count.to_string(), ["rollcall:changes", "rollcall:changes:seq"]);
        self.run::<()>(&["EVAL", record, "2", keys[0], keys[1], &count, name]);
    }
}

/// The resident memory of a process, in bytes.
pub fn resident(process: &Worker) -> u64 {
    let path = format!("/proc/{}/statm", process.pid());
    let pages = std::fs::read_to_string(path).unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
