//! The properties of the fuzz targets, without a fuzzer: their corpus, and random mutations of it.
//!
//! For a longer hunt, `ROLLCALL_TEST_SEED` and `ROLLCALL_TEST_ROUNDS` choose the mutations and their number; `fuzz/`
//! hunts with coverage to guide it.

#[path = "../../fuzz/properties/config.rs"]
mod config;
#[path = "../../fuzz/properties/decode.rs"]
mod decode;
#[path = "../../fuzz/properties/reply.rs"]
mod reply;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use fastrand::Rng;

/// The maximum number of changes to one input before the next is taken.
const MOST_CHANGES: usize = 6;

#[test]
fn any_entry_is_decoded_folded_or_dead_lettered() {
    hunt("decode", decode::holds, 4_000);
}

#[test]
fn any_reply_is_read_or_refused() {
    hunt("reply", reply::holds, 10_000);
}

#[test]
fn any_settings_file_is_resolved_or_refused_and_shows_no_password() {
    hunt("config", config::holds, 500);
}

/// Checks every file of the corpus of `target`, and mutations of them.
fn hunt(target: &str, holds: fn(&[u8]), rounds: u64) {
    let variable = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let seed = variable("ROLLCALL_TEST_SEED", 1);
    eprintln!("seed {seed}");
    let corpus = files(&format!("corpus/{target}"));
    let words = dictionary(target);
    let mut rng = Rng::with_seed(seed);
    corpus.iter().for_each(|input| check(holds, input));
    for _ in 0..variable("ROLLCALL_TEST_ROUNDS", rounds) {
        check(holds, &mutation(&mut rng, &corpus, &words));
    }
}

fn check(holds: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| holds(input))) {
        eprintln!("the input, as printf takes it: '{}'", input.escape_ascii());
        resume_unwind(panic);
    }
}

fn files(folder: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let mut paths: Vec<_> = fs::read_dir(path).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "{folder} is elsewhere now: tell this test where");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The words of a dictionary as libFuzzer reads it: in quotes, a line each, with `\xNN`.
fn dictionary(target: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/dictionaries");
    let text = fs::read_to_string(path.join(format!("{target}.dict"))).unwrap();
    let words = text.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    words.map(unescape).collect()
}

fn unescape(word: &str) -> Vec<u8> {
    let mut parts = word.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

/// An input of the corpus with a few changes.
fn mutation(rng: &mut Rng, corpus: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut input = rng.choice(corpus).unwrap().clone();
    for _ in 0..rng.usize(1..=MOST_CHANGES) {
        let at = rng.usize(0..=input.len());
        let end = rng.usize(at..=input.len().min(at + 16));
        match rng.u8(0..6) {
            0 => drop(input.drain(at..end)),
            1 => drop(input.splice(at..at, rng.choice(words).unwrap().iter().copied())),
            2 => input.insert(at, rng.u8(..)),
            3 => input.extend_from_within(at..end),
            4 if at < input.len() => input[at] ^= 1 << rng.u8(0..8),
            // Its own beginning, and the end of another input.
            _ => {
                let other = rng.choice(corpus).unwrap();
                input.truncate(at);
                input.extend_from_slice(&other[rng.usize(0..=other.len())..]);
            }
        }
    }
    input
}
