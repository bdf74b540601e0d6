//! The server's replies to reads and claims.
#![no_main]

#[path = "../properties/reply.rs"]
mod reply;

libfuzzer_sys::fuzz_target!(|input: &[u8]| reply::holds(input));
