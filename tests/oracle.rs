//! Generated worlds, played to real containerd of three versions and to the program: both reach the same result.
//!
//! 150 worlds of a fixed seed, and each stored world of `tests/oracle/worlds` that once made a difference. Where a
//! world can't be known, unknown is right (`tests/oracle/exceptions.json`, each with its reason); what is said for
//! certain has to be so. `tests/oracle/run` plays as many worlds as are requested.

#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::path::Path;
use std::process::Command;

const WORLDS: &str = "150";
const SEED: &str = "steady";

#[test]
fn the_check_agrees_with_real_runtimes() {
    let out = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_pullpath"));
    let status = Command::new("tests/oracle/run")
        .args([
            WORLDS,
            SEED,
            "--no-off",
            "--worlds-dir",
            "tests/oracle/worlds",
            "--out",
        ])
        .arg(out.path())
        .env("PULLPATH", program)
        .env(
            "PULLPATH_FAILURE",
            program.with_file_name("examples/failure"),
        )
        .status()
        .unwrap();
    assert!(status.success(), "the oracle could not run: {status}");
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.path().join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["broken"], 0, "worlds that the lab could not play");
    let wrong: Vec<String> = summary["disagreements"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| !counts_connections(one))
        .map(|one| {
            format!(
                "{} {}: {}, but {}; {}",
                one["id"], one["version"], one["verdict"], one["fact"], one["faults"]
            )
        })
        .collect();
    if !wrong.is_empty() {
        // The drawn values are what a fix begins with.
        let kept = out.keep().join("disagreements");
        panic!(
            "{} disagreements, stored in {}; play one again by tests/oracle/run --replay FILE:\n{}",
            wrong.len(),
            kept.display(),
            wrong.join("\n")
        );
    }
}

/// The server takes one connection at a time. The check finds out by a GET why a HEAD was refused, after which its
/// connection may be gone, where a pull's is still there and keeps the next one out.
fn counts_connections(disagreement: &serde_json::Value) -> bool {
    let faults = disagreement["faults"].as_array().unwrap();
    let has = |start: &str| {
        let mut all = faults.iter().filter_map(serde_json::Value::as_str);
        all.any(|fault| fault.starts_with(start))
    };
    has("streams=one_connection") && has("head=")
}
