//! Saved evidence, judged by the rules of today: every case from the field becomes a folder here,
//! without code.
//!
//! `tests/cases/NAME/report.json` is what `pullpath probe --save` wrote, `expected.json` what is to be said of it,
//! and `expected.txt` in which words. `UPDATE_CASES=1 cargo test --test cases` writes the last two; read them before
//! you commit them.

#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::path::{Path, PathBuf};

use pullpath::diagnose::{Finding, Verdict};
use pullpath::model::settings_source::{KEYS, SettingsSource};
use pullpath::report::text::{self, Style};
use pullpath::report::{Document, Report, SCHEMA_VERSION};
use serde_json::{Value, json};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "there are no cases");
    cases
}

fn reports(case: &Path) -> Document {
    let path = case.join("report.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What must not change unnoticed: causes with severity, confidence, leg and phase; not the words.
fn shape(verdict: &Verdict) -> Value {
    let list = |findings: &[Finding]| -> Vec<Value> {
        findings
            .iter()
            .map(|finding| {
                json!({
                    "cause": finding.cause,
                    "severity": finding.severity,
                    "confidence": finding.confidence,
                    "leg": finding.leg,
                    "phase": finding.phase,
                })
            })
            .collect()
    };
    json!({
        "pull": verdict.pull,
        "findings": list(&verdict.findings),
        "consequences": list(&verdict.consequences),
    })
}

#[test]
fn the_daemons_report_names_keys_where_the_command_lines_names_flags() {
    let mut named = 0;
    for case in cases() {
        for report in reports(&case).reports {
            let mut evidence = report.evidence;
            let by_flags = serde_json::to_string(&Report::conclude(evidence.clone())).unwrap();
            evidence.vantage = evidence
                .vantage
                .with_settings(SettingsSource::Configuration);
            let by_keys = serde_json::to_string(&Report::conclude(evidence).verdict).unwrap();
            for (flag, key) in KEYS {
                let is_command = |at: usize| {
                    let before = &by_keys[..at];
                    before.matches('`').count() % 2 == 1
                };
                let word = format!("{flag} ");
                let mut left = by_keys.match_indices(&word);
                assert!(
                    left.all(|(at, _)| is_command(at)),
                    "{}: {flag}",
                    case.display()
                );
                named += usize::from(by_flags.contains(flag) && by_keys.contains(key));
            }
        }
    }
    assert!(named > 0, "no case names a setting");
}

#[test]
fn every_case_is_judged_as_expected() {
    let mut wrong = Vec::new();
    for case in cases() {
        let verdicts: Vec<Value> = reports(&case)
            .reports
            .into_iter()
            .map(|report| shape(&Report::conclude(report.evidence).verdict))
            .collect();
        let got = serde_json::to_string_pretty(&verdicts).unwrap() + "\n";
        wrong.extend(unexpected(&case.join("expected.json"), &got));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_case_reads_as_reviewed() {
    let mut wrong = Vec::new();
    for case in cases() {
        let texts: Vec<String> = reports(&case)
            .reports
            .into_iter()
            .map(|report| {
                text::render(
                    &Report::conclude(report.evidence),
                    Style { color: false },
                    false,
                )
            })
            .collect();
        wrong.extend(unexpected(&case.join("expected.txt"), &texts.join("\n")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What differs from the file, which is written first where that was asked for.
fn unexpected(path: &Path, got: &str) -> Option<String> {
    if std::env::var_os("UPDATE_CASES").is_some() {
        std::fs::write(path, got).unwrap();
    }
    let expected = std::fs::read_to_string(path)
        .unwrap_or_else(|e| panic!("{}: {e}; UPDATE_CASES=1 writes it", path.display()));
    (got != expected).then(|| format!("{}: {got}", path.display()))
}

/// The first value of the saved form that this version does not carry on; fields may be added.
fn lost(old: &Value, new: &Value, at: &str) -> Option<String> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => old.iter().find_map(|(key, value)| {
            let at = format!("{at}/{key}");
            match new.get(key) {
                Some(new) => lost(value, new, &at),
                None => Some(at),
            }
        }),
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => old
            .iter()
            .zip(new)
            .enumerate()
            .find_map(|(index, (old, new))| lost(old, new, &format!("{at}/{index}"))),
        _ if old == new => None,
        _ => Some(at.to_owned()),
    }
}

#[test]
fn nothing_of_a_case_is_lost_on_the_way_through() {
    let mut older = 0;
    for case in cases() {
        let text = std::fs::read_to_string(case.join("report.json")).unwrap();
        let before: Value = serde_json::from_str(&text).unwrap();
        if before["schema_version"] != SCHEMA_VERSION {
            // Its fields have other names now: what is read of it, the other tests show.
            older += 1;
            continue;
        }
        let after = serde_json::to_value(reports(&case)).unwrap();
        let lost = lost(&before["reports"], &after["reports"], "");
        assert_eq!(lost, None, "{}", case.display());
    }
    assert_eq!(older, 2, "reports of version 1");
}

/// Fields and values of version 1, each with its name now. Most have a default, so that one without an alias would be
/// lost without an error.
#[test]
fn names_of_version_1_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/healthy");
    let now = serde_json::to_value(reports(&folder)).unwrap();
    let walk = json!(now["reports"][0]["evidence"]);
    let host = json!(walk["host"]);
    let asked = json!([{"namespace": "shop", "name": "pull", "found": "absent"}]);
    let unseen = json!([{"what": "mirrors", "reason": "r"}]);
    let missing = json!([{"signal": "metadata", "reason": "r", "would_tell": "t"}]);
    for (pointer, old, new, value) in [
        ("", "asked_secrets", "requested_secrets", asked),
        ("", "not_asked", "not_contacted", json!([host])),
        ("", "behind", "upstream", walk.clone()),
        ("", "walked_as", "assumed_release", json!("containerd 1.6")),
        (
            "",
            "resolved_elsewhere",
            "resolved_by_other_host",
            json!(true),
        ),
        ("/host", "place", "position", json!(3)),
        ("/legs/0", "way", "proxy_route", json!({"kind": "loopback"})),
        (
            "/legs/0/tls",
            "trusted_itself",
            "leaf_trusted",
            json!("a.pem"),
        ),
        ("/attempts/0", "served_to_get", "get_succeeded", json!(true)),
        (
            "/attempts/0",
            "by_another_token",
            "get_used_other_token",
            json!(true),
        ),
        (
            "/attempts/0",
            "below_blobs",
            "via_blobs_endpoint",
            json!(true),
        ),
        ("/attempts/0/head/value", "by_get", "used_get", json!(true)),
        ("/vantage", "unseen", "not_observed", json!(["mirrors"])),
        ("/vantage", "unseen_because", "not_observed_because", unseen),
        ("/vantage", "missing", "missing", missing),
    ] {
        let mut document = now.clone();
        let at = format!("/reports/0/evidence{pointer}");
        let fields = document.pointer_mut(&at).and_then(Value::as_object_mut);
        let fields = fields.unwrap_or_else(|| panic!("{at}"));
        fields.remove(new);
        fields.insert(old.to_owned(), value.clone());
        let read: Document =
            serde_json::from_value(document).unwrap_or_else(|e| panic!("{old}: {e}"));
        let read = serde_json::to_value(read).unwrap();
        let found = &read.pointer(&at).unwrap()[new];
        assert!(!found.is_null(), "{old} is lost");
        // A nested `walk` has defaults of its own, and a renamed field has its new name.
        if !["behind", "not_asked", "missing", "asked_secrets"].contains(&old) {
            assert_eq!(*found, value, "{old}");
        }
    }
}
