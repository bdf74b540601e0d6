//! Stream entries: decoded, folded, and as dead letters.
#![no_main]

#[path = "../properties/decode.rs"]
mod decode;

libfuzzer_sys::fuzz_target!(|input: &[u8]| decode::holds(input));
