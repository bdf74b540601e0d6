//! All that can happen to entries, in random order: whoever looks, and however often, the sum is right.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use rollcall::entry::{Entry, EntryId};

use super::{Bench, CONSUMER, GROUP, STREAM};

/// Where every entry is.
#[derive(Default)]
struct Book {
    entries: BTreeMap<EntryId, Entry>,
    there: BTreeSet<EntryId>,
    undelivered: BTreeSet<EntryId>,
    pending: BTreeSet<EntryId>,
    lost: u64,
}

impl Book {
    fn delete(&mut self, gone: &[EntryId]) {
        for id in gone {
            self.there.remove(id);
            self.lost += u64::from(self.undelivered.remove(id));
        }
    }

    fn deliver(&mut self) {
        self.pending.append(&mut self.undelivered);
    }
}

#[tokio::test]
async fn the_sum_is_right_whatever_happens() {
    for seed in 0..12 {
        eprintln!("seed {seed}");
        round(&mut Rng::with_seed(seed)).await;
    }
}

async fn round(rng: &mut Rng) {
    let mut bench = Bench::new().await;
    let mut book = Book::default();
    bench.apply(&[]).await;
    assert_eq!(bench.look().await.lost, 0);
    let mut told = 0;
    for _ in 0..60 {
        strike(rng, &mut bench, &mut book).await;
        if rng.bool() {
            told += bench.look().await.lost;
            assert!(told <= book.lost, "{told} told, {} lost", book.lost);
        }
    }
    // In the end nothing is unfinished, and everything is known.
    bench.deployment.script(0).await;
    book.deliver();
    forget(&mut bench, &mut book);
    let rest: Vec<_> = book.pending.iter().map(|id| book.entries[id].clone()).collect();
    bench.apply(&rest).await;
    told += bench.look().await.lost;
    assert_eq!(told, book.lost);
    assert_eq!(bench.look().await.lost, 0);
}

async fn strike(rng: &mut Rng, bench: &mut Bench, book: &mut Book) {
    match rng.u8(..9) {
        0..=2 => {
            for entry in bench.add(rng.u64(1..9)) {
                book.there.insert(entry.id);
                book.undelivered.insert(entry.id);
                book.entries.insert(entry.id, entry);
            }
        }
        3 => {
            bench.deployment.script(0).await;
            book.deliver();
        }
        4 | 5 => {
            let some: Vec<_> = book.pending.iter().copied().filter(|_| rng.bool()).collect();
            let entries: Vec<_> = some.iter().map(|id| book.entries[id].clone()).collect();
            bench.apply(&entries).await;
            book.deliver();
            some.iter().for_each(|id| {
                book.pending.remove(id);
            });
        }
        6 => {
            let keep = rng.usize(..=book.there.len());
            bench.command(&format!("XTRIM {STREAM} MAXLEN {keep}"));
            let gone: Vec<_> = book.there.iter().copied().collect();
            book.delete(&gone[..gone.len() - keep]);
        }
        7 => {
            let some: Vec<_> = book.there.iter().copied().filter(|_| rng.u8(..6) == 0).collect();
            for id in &some {
                bench.command(&format!("XDEL {STREAM} {id}"));
            }
            book.delete(&some);
        }
        _ if rng.bool() => forget(bench, book),
        _ => {
            bench.command(&format!("XGROUP DELCONSUMER {STREAM} {GROUP} {CONSUMER}"));
            book.lost += book.pending.len() as u64;
            book.pending.clear();
        }
    }
}

/// What a worker does with pending entries that are not there any more.
fn forget(bench: &mut Bench, book: &mut Book) {
    let gone: Vec<_> = book.pending.difference(&book.there).copied().collect();
    for id in gone {
        bench.command(&format!("XACK {STREAM} {GROUP} {id}"));
        book.pending.remove(&id);
        book.lost += 1;
    }
}
