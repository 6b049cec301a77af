#![no_main]

#[path = "../logic.rs"]
#[allow(dead_code)]
mod logic;

libfuzzer_sys::fuzz_target!(|data: &[u8]| logic::stun(data));
