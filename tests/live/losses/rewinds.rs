//! A server that went back in time: only other processes know what it had before.

use rollcall::entry::{Entry, EntryId};
use rollcall::redis::scripts::losses::{Rewind, StreamEnd};

use super::Bench;

/// The memory of one process between its looks.
#[derive(Default)]
struct Memory(Option<StreamEnd>);

impl Memory {
    async fn look(&mut self, bench: &mut Bench) -> Option<Rewind> {
        let look = bench.losses.look(&mut bench.looking, self.0.as_ref()).await.unwrap();
        assert_eq!(look.lost, 0, "nothing but a rewind");
        let mut rewind = None;
        if let Some(seen) = &self.0 {
            rewind = bench.losses.rewound(&mut bench.looking, seen, &look).await.unwrap();
        }
        self.0 = Some(look.position);
        rewind
    }

    async fn lost(&mut self, bench: &mut Bench) -> u64 {
        self.look(bench).await.map_or(0, |rewind| rewind.lost)
    }
}

impl Bench {
    /// Back to the last `SAVE`.
    async fn rewind(&mut self) {
        self.deployment.server.restart().unwrap();
        self.conn = self.deployment.connection();
        self.looking = self.deployment.async_connection(0).await;
    }
}

#[tokio::test]
async fn what_a_server_has_no_more_is_counted_by_the_first_who_looks() {
    let mut bench = Bench::new().await;
    let (mut one, mut other) = (Memory::default(), Memory::default());
    let kept = bench.add(10);
    bench.apply(&kept).await;
    assert_eq!((one.lost(&mut bench).await, other.lost(&mut bench).await), (0, 0));
    bench.command("SAVE");
    bench.add(25);
    assert_eq!((other.lost(&mut bench).await, one.lost(&mut bench).await), (0, 0));
    bench.rewind().await;
    let rewind = one.look(&mut bench).await.unwrap();
    assert_eq!(rewind, Rewind { lost: 25, after: Some(kept[9].id) });
    assert_eq!((other.lost(&mut bench).await, one.lost(&mut bench).await), (0, 0), "told once");
    bench.add(1);
    assert_eq!((other.lost(&mut bench).await, one.lost(&mut bench).await), (0, 0), "goes on");
}

/// More was added since than was lost, and a process that never saw the lost entries looked first.
#[tokio::test]
async fn neither_new_entries_nor_newcomers_hide_a_rewind() {
    let mut bench = Bench::new().await;
    let mut memory = Memory::default();
    bench.add(10);
    bench.command("SAVE");
    bench.add(25);
    memory.look(&mut bench).await;
    bench.rewind().await;
    bench.add(140);
    assert_eq!(Memory::default().lost(&mut bench).await, 0, "saw nothing before");
    assert_eq!(memory.lost(&mut bench).await, 25);
    // If the new entries are deleted as well, the exact number cannot be known.
    bench.rewind().await;
    bench.add(140);
    bench.command("XTRIM rollcall:events MAXLEN 3");
    let lost = memory.lost(&mut bench).await;
    assert!((1..=140).contains(&lost), "{lost} of the 140 that were seen");
}

#[tokio::test]
async fn a_server_that_came_back_empty_lost_all_each_time() {
    let mut bench = Bench::new().await;
    let (mut one, mut other) = (Memory::default(), Memory::default());
    for _ in 0..3 {
        bench.add(7);
        assert_eq!((one.lost(&mut bench).await, other.lost(&mut bench).await), (0, 0));
        bench.command("FLUSHALL");
        assert_eq!(one.look(&mut bench).await, Some(Rewind { lost: 7, after: None }));
        assert_eq!(other.lost(&mut bench).await, 0);
    }
}

#[tokio::test]
async fn what_only_looks_like_a_rewind_is_none() {
    let mut bench = Bench::new().await;
    let (mut one, mut other) = (Memory::default(), Memory::default());
    let all = bench.add(10);
    bench.apply(&all).await;
    one.look(&mut bench).await;
    other.look(&mut bench).await;
    for command in [
        &*format!("XDEL rollcall:events {}", all[9].id),
        "XTRIM rollcall:events MAXLEN 0",
        "DEL rollcall:janitor",
        "XGROUP DESTROY rollcall:events rollcall",
        "DEL rollcall:events",
    ] {
        bench.command(command);
        assert_eq!(one.lost(&mut bench).await, 0, "{command}");
        let new = bench.add(60);
        bench.apply(&new).await;
        assert_eq!(other.lost(&mut bench).await, 0, "{command}, and more was added");
        assert_eq!(one.lost(&mut bench).await, 0, "{command}, and more was added");
    }
    let greatest = EntryId { ms: u64::MAX, seq: u64::MAX };
    let entry = Entry::new(greatest, [("type", "x")]);
    bench.deployment.add(0, std::slice::from_ref(&entry));
    bench.apply(&[entry]).await;
    assert_eq!((one.lost(&mut bench).await, other.lost(&mut bench).await), (0, 0));
    bench.command(&format!("XDEL rollcall:events {greatest}"));
    assert_eq!((one.lost(&mut bench).await, other.lost(&mut bench).await), (0, 0));
}
