//! The modules are floors: each imports from those below it only (src/lib.rs has the table).

#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::path::Path;

/// From the top; those of one line are side by side and don't know each other.
const FLOORS: &[&[&str]] = &[
    &["cli"],
    &["daemon", "cluster"],
    &["report", "serving"],
    &["probe", "surroundings", "lint"],
    &["credentials", "containerd", "config", "kubernetes"],
    &["pulls"],
    &["diagnose", "net", "registry", "workload"],
    &["redact"],
    &["model", "trust"],
];

fn floor(module: &str) -> usize {
    FLOORS
        .iter()
        .position(|modules| modules.contains(&module))
        .unwrap_or_else(|| panic!("{module} has no floor; give it one here and in src/lib.rs"))
}

fn files(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix("src")
                .unwrap()
                .to_string_lossy()
                .into_owned();
            found.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn imports_go_down() {
    let mut all = Vec::new();
    files(Path::new("src"), &mut all);
    let mut imports = 0;
    for (name, text) in &all {
        let module = name.split(['/', '.']).next().unwrap();
        // Tests may look at everything.
        let is_test = name.ends_with("tests.rs") || name.contains("/tests/");
        if ["lib", "main", "build"].contains(&module) || is_test {
            continue;
        }
        let here = floor(module);
        for (_, rest) in text
            .match_indices("crate::")
            .map(|(at, _)| text.split_at(at + 7))
        {
            let to: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
            // `crate::VERSION`, `crate::{…}` of macros, and one's own module.
            if to.is_empty() || to == module {
                continue;
            }
            imports += 1;
            assert!(
                floor(&to) > here,
                "{name} imports from {to}, which is not below {module}"
            );
        }
    }
    assert!(imports > 100, "the imports were not found");
}
