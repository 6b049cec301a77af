//! The modules are floors: each imports from those below it only (src/lib.rs has the table).

#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// From the top; those of one line are side by side and don't know each other.
const FLOORS: &[&[&str]] = &[
    &["cli"],
    &["daemon", "cluster"],
    &["report", "serving"],
    &["probe", "vantage", "lint"],
    &["credentials", "containerd", "config", "kubernetes"],
    &["pulls"],
    &["diagnose", "net", "registry", "workload"],
    &["pull_secret"],
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
            let to: String = rest
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
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

/// The rooms of the daemon, from the top (src/daemon/mod.rs).
const ROOMS: &[&[&str]] = &[
    &["http"],
    &["runner"],
    &["check", "on_demand"],
    &["cluster"],
    &["pod_events"],
    &["coordination"],
    &["store"],
    &["schedule"],
];

/// Modules of a folder by path, each with its code but for its tests.
fn modules(folder: &str) -> BTreeMap<String, String> {
    let mut all = Vec::new();
    files(&Path::new("src").join(folder), &mut all);
    all.retain(|(name, _)| !name.ends_with("tests.rs"));
    let all = all.into_iter().map(|(name, text)| {
        let name = name.trim_end_matches(".rs").trim_end_matches("/mod");
        let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        (name.replace('/', "::"), code.to_owned())
    });
    all.collect()
}

/// The modules that a module imports, of those that are known.
fn imports(module: &str, code: &str, known: &BTreeMap<String, String>) -> BTreeSet<String> {
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = BTreeSet::new();
    for (prefix, base) in [("crate::", ""), ("super::", parent), ("self::", module)] {
        for (at, _) in code.match_indices(prefix) {
            let is_path = |c: &char| c.is_ascii_lowercase() || *c == '_' || *c == ':';
            let rest: String = code[at + prefix.len()..]
                .chars()
                .take_while(is_path)
                .collect();
            let path = format!("{base}::{rest}");
            let mut path = path.trim_matches(':');
            while !known.contains_key(path) {
                path = path.rsplit_once("::").map_or("", |(above, _)| above);
                if path.is_empty() {
                    break;
                }
            }
            if path.contains("::") && path != module {
                found.insert(path.to_owned());
            }
        }
    }
    found
}

#[test]
fn inside_the_daemon_imports_go_down_and_in_no_circle() {
    let known = modules("daemon");
    let room = |module: &str| {
        let name = module.split("::").nth(1).unwrap_or_default().to_owned();
        let place = ROOMS.iter().position(|rooms| rooms.contains(&&*name));
        let place = place.unwrap_or_else(|| panic!("{module} has no room; give it one"));
        (place, name)
    };
    let mut left: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (module, code) in known.iter().filter(|(module, _)| *module != "daemon") {
        assert!(!code.contains("super::super::"), "{module} reaches up");
        let to = imports(module, code, &known);
        let (place, name) = room(module);
        for other in &to {
            let (below, other_name) = room(other);
            let goes_down = name == other_name || below > place;
            assert!(
                goes_down,
                "{module} imports from {other}, which is not below"
            );
        }
        left.insert(module, to);
    }
    let imports: usize = left.values().map(BTreeSet::len).sum();
    assert!(imports > 50, "the imports were not found");
    // Whatever imports nothing that is left is in no circle.
    loop {
        let names: BTreeSet<String> = left.keys().map(ToString::to_string).collect();
        let before = left.len();
        left.retain(|_, to| to.iter().any(|other| names.contains(other)));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "these import each other: {left:#?}");
}
