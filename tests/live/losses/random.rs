//! Everything that can happen to entries, in random order: whoever looks, and however often, the balance is right.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use rollcall::entry::{Entry, EntryId};

use super::{Bench, GROUP, STREAM};

/// Where every entry is.
#[derive(Default)]
struct Book {
    there: BTreeMap<EntryId, Entry>,
    /// Entries that are not applied.
    behind: BTreeSet<EntryId>,
    lost: u64,
}

impl Book {
    fn delete(&mut self, gone: &[EntryId]) {
        for id in gone {
            self.there.remove(id);
            self.lost += u64::from(self.behind.remove(id));
        }
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
    // At the end everything is finished and known.
    bench.apply_rest().await;
    told += bench.look().await.lost;
    assert_eq!(told, book.lost);
    assert_eq!(bench.look().await.lost, 0);
}

async fn strike(rng: &mut Rng, bench: &mut Bench, book: &mut Book) {
    match rng.u8(..9) {
        0..=2 => {
            for entry in bench.add(rng.u64(1..9)) {
                book.behind.insert(entry.id);
                book.there.insert(entry.id, entry);
            }
        }
        3..=5 => {
            let next: Vec<_> = book.behind.iter().copied().take(rng.usize(1..9)).collect();
            let entries: Vec<_> = next.iter().map(|id| book.there[id].clone()).collect();
            bench.apply(&entries).await;
            next.iter().for_each(|id| {
                book.behind.remove(id);
            });
        }
        6 => {
            let keep = rng.usize(..=book.there.len());
            bench.command(&format!("XTRIM {STREAM} MAXLEN {keep}"));
            let gone: Vec<_> = book.there.keys().copied().collect();
            book.delete(&gone[..gone.len() - keep]);
        }
        7 => {
            let some: Vec<_> = book.there.keys().copied().filter(|_| rng.u8(..6) == 0).collect();
            for id in &some {
                bench.command(&format!("XDEL {STREAM} {id}"));
            }
            book.delete(&some);
        }
        _ => bench
            .command(&format!("XGROUP SETID {STREAM} {GROUP} {}", rng.choice(["0", "$"]).unwrap())),
    }
}
