#![no_main]

#[path = "../cluster.rs"]
#[allow(dead_code)]
mod cluster;

#[path = "../logic.rs"]
#[allow(dead_code)]
mod logic;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cluster::workloads(data));
