#![no_main]

#[path = "../listener.rs"]
#[allow(dead_code)]
mod listener;

libfuzzer_sys::fuzz_target!(|data: &[u8]| listener::http_request(data));
