//! The modules have levels: each imports only from those below it (src/lib.rs has the table), and no
//! two files import each other, directly or through others.

#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// From the top; those of one level don't import from each other.
const LEVELS: &[&[&str]] = &[
    &["cli"],
    &["daemon", "cluster"],
    &["report", "serving"],
    &["probe", "vantage", "lint", "doctor"],
    &["credentials", "containerd", "config", "kubernetes"],
    &["pulls"],
    &["diagnose", "net", "registry", "workload"],
    &["files", "pull_secret"],
    &["own", "redact", "resolver"],
    &["model", "trust"],
];

/// The modules of the daemon, from the top (src/daemon/mod.rs).
const DAEMON_LEVELS: &[&[&str]] = &[
    &["http"],
    &["runner"],
    &["check", "on_demand"],
    &["cluster"],
    &["pod_events"],
    &["coordination"],
    &["store"],
    &["schedule"],
];

#[test]
fn imports_go_down() {
    let graph = Graph::read();
    let name = |module: &str| module.split("::").next().unwrap().to_owned();
    check_levels(&graph, LEVELS, "src/lib.rs", |module| Some(name(module)));
}

#[test]
fn inside_the_daemon_imports_go_down() {
    let graph = Graph::read();
    check_levels(&graph, DAEMON_LEVELS, "src/daemon/mod.rs", |module| {
        let mut parts = module.split("::");
        (parts.next() == Some("daemon")).then(|| parts.next().map(str::to_owned))?
    });
}

/// What a check opens or waits for goes through `own` and `files`, which note the limits of this process: elsewhere, one could
/// look like a fault of the network. A failed phase is made by `Step::failed` for the same reason.
#[test]
fn what_a_check_opens_or_waits_for_goes_through_own_and_files() {
    const OF_CHECKS: &[&str] = &[
        "containerd/",
        "credentials/",
        "net/",
        "probe/",
        "resolver/",
        "vantage/",
        "daemon/check.rs",
    ];
    const ELSEWHERE: &[&str] = &[
        "File::open(",
        "fs::read(",
        "fs::read_to_string(",
        "TcpSocket::new",
        "TcpStream::connect(",
        "UdpSocket::bind(",
        ".spawn()",
        "spawn_blocking(",
        "thread::spawn(",
        " timeout(",
        ":timeout(",
        "timeout_at(",
        "raw_os_error()",
        "return Step::Failed",
        "= Step::Failed",
        "Some(Step::Failed",
        "(Step::Failed { fault",
    ];
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    let is_of_checks = |file: &str| OF_CHECKS.iter().any(|part| file.starts_with(part));
    let is_free = |file: &str| file == "net/testing.rs" || file.contains("tests");
    let mut seen = 0;
    for (file, text) in files
        .iter()
        .filter(|(file, _)| is_of_checks(file) && !is_free(file))
    {
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            seen += line.matches("own::").count();
            let found = ELSEWHERE.iter().find(|needle| line.contains(**needle));
            assert_eq!(found, None, "use own or files in src/{file}: {line}");
        }
    }
    assert!(seen > 30, "the uses were not found: {seen}");
}

#[test]
fn no_two_files_import_each_other() {
    let graph = Graph::read();
    let mut left = graph.imports.clone();
    // What imports nothing that is left is in no circle.
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, to| to.iter().any(|other| names.contains(other)));
        if left.len() == before {
            break;
        }
    }
    let names: BTreeSet<String> = left.keys().cloned().collect();
    for to in left.values_mut() {
        to.retain(|other| names.contains(other));
    }
    assert!(
        left.is_empty(),
        "these import each other, or import such; what they share wants a file of its own: {left:#?}"
    );
}

#[test]
fn a_circle_and_what_a_folder_re_exports_are_found() {
    let graph = Graph::of(&[
        (
            "a",
            "mod b;\npub mod c;\n#[cfg(test)]\nmod tests;\npub use b::{One, deep::Two as Three};\nuse c::Four;",
        ),
        ("a::b", "use super::c::{self, Five};"),
        ("a::c", "fn f() -> super::One { crate::d::go() }"),
        (
            "d",
            "use crate::{a::{One as Own, c}, d};\n// use crate::a::b;",
        ),
    ]);
    let to = |module: &str| {
        graph.imports[module]
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
    };
    assert_eq!(to("a"), ["a::c"]);
    assert_eq!(to("a::b"), ["a::c"]);
    assert_eq!(to("a::c"), ["a::b", "d"]);
    assert_eq!(to("d"), ["a::b", "a::c"]);
}

/// A file that others write may be a pipe, endless, or on a file system that hangs: `src/files.rs` reads with
/// bounds, and nothing else reads.
#[test]
fn only_the_module_for_files_uses_the_file_system() {
    const DIRECT: &[&str] = &[
        "fs::read(",
        "fs::read_to_string(",
        "fs::read_dir(",
        "fs::metadata(",
        "fs::symlink_metadata(",
        "fs::canonicalize(",
        "fs::write(",
        "fs::copy(",
        "tokio::fs",
        "File::open(",
        "OpenOptions",
        ".exists()",
        ".try_exists()",
        ".is_file()",
        ".is_dir()",
        ".metadata()",
        ".symlink_metadata()",
        ".canonicalize()",
        ".read_dir()",
        "load_certs_from_paths",
        "load_native_certs",
        "Kubeconfig::read",
        "Config::from_kubeconfig",
        "pem_file_iter",
    ];
    // What runs inside of `files::within`, and what the user of a command line names.
    const ALLOWED: &[(&str, &str)] = &[
        ("files.rs", ""),
        ("build.rs", ""),
        ("net/host_root.rs", ".symlink_metadata()"),
        ("probe/manifest.rs", "fs::read_dir("),
        ("probe/manifest.rs", ".metadata()"),
        ("probe/manifest.rs", ".is_file()"),
        ("cli/probe.rs", ".is_file()"),
    ];
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    let mut found = Vec::new();
    for (file, text) in &files {
        if file.ends_with("tests.rs") || file.contains("/tests/") {
            continue;
        }
        let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let line = line.trim();
            // It only takes the place of a file.
            let line = line.replace("File::open(\"/dev/null\")", "");
            let uses = |word: &&&str| line.contains(**word) && !line.starts_with("//");
            for word in DIRECT.iter().filter(uses) {
                let is_allowed =
                    |(name, what): &(&str, &str)| file == name && (what.is_empty() || what == word);
                if !ALLOWED.iter().any(is_allowed) {
                    found.push(format!("src/{file}:{}: {line}", number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "read them with crate::files: {found:#?}");
}

/// Every import goes from a level to one below it. `name`: what a module is called in `levels`, if it
/// is in them.
fn check_levels(
    graph: &Graph,
    levels: &[&[&str]],
    table: &str,
    name: impl Fn(&str) -> Option<String>,
) {
    let level = |name: &str| {
        let found = levels.iter().position(|names| names.contains(&name));
        found.unwrap_or_else(|| panic!("{name} has no level; give it one here and in {table}"))
    };
    let mut imports = 0;
    for (module, others) in &graph.imports {
        let Some(own) = name(module) else { continue };
        for other in others {
            let Some(to) = name(other).filter(|to| *to != own) else {
                continue;
            };
            imports += 1;
            assert!(
                level(&to) > level(&own),
                "{module} imports from {other}, which is not below {own}"
            );
        }
    }
    assert!(imports > 50, "the imports were not found");
}

/// Which files import from which: modules by path (`daemon::store`), tests left out.
struct Graph {
    imports: BTreeMap<String, BTreeSet<String>>,
}

/// What a module's text says of others.
#[derive(Default)]
struct Paths {
    /// By the name that it re-exports (`pub use`).
    re_exported: BTreeMap<String, String>,
    used: BTreeSet<String>,
}

impl Graph {
    fn read() -> Self {
        let mut files = Vec::new();
        collect(Path::new("src"), &mut files);
        let modules = files.iter().filter_map(|(file, text)| {
            let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
            // Tests may import everything, and the crate's own file is the table of modules.
            let is_test = module.split('/').any(|part| part == "tests");
            let is_left_out = is_test || ["lib", "main"].contains(&module);
            (!is_left_out).then(|| (module.replace('/', "::"), text.as_str()))
        });
        let modules: Vec<(String, &str)> = modules.collect();
        let modules: Vec<(&str, &str)> = modules
            .iter()
            .map(|(m, text)| (m.as_str(), *text))
            .collect();
        Self::of(&modules)
    }

    fn of(modules: &[(&str, &str)]) -> Self {
        let known: BTreeSet<&str> = modules.iter().map(|(module, _)| *module).collect();
        let paths: BTreeMap<&str, Paths> = modules
            .iter()
            .map(|(module, text)| (*module, paths(module, text, &known)))
            .collect();
        let imports = paths.iter().map(|(module, found)| {
            let homes = found.used.iter().filter_map(|path| home(path, &paths));
            let homes = homes.filter(|home| home != module).collect();
            ((*module).to_owned(), homes)
        });
        Self {
            imports: imports.collect(),
        }
    }
}

/// All Rust files below a folder, by their paths in `src`.
fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix("src").unwrap().to_string_lossy();
            found.push((name.into_owned(), std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The paths in a module's code, but for its tests.
fn paths(module: &str, text: &str, known: &BTreeSet<&str>) -> Paths {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    assert!(
        !code.contains("super::super::"),
        "{module} reaches up twice"
    );
    let mut found = Paths::default();
    let mut lines = code.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let (visibility, tree) = line.split_once("use ").unwrap_or(("", ""));
        let is_use = ["", "pub ", "pub(super) ", "pub(crate) "].contains(&visibility);
        if line.starts_with("//") {
            continue;
        }
        if !is_use || tree.is_empty() {
            let is_of_a_path = |c: char| c.is_alphanumeric() || "_:".contains(c);
            let words = line.split(|c| !is_of_a_path(c));
            let words = words.filter(|word| word.contains("::"));
            found
                .used
                .extend(words.filter_map(|word| absolute(module, word, known)));
            continue;
        }
        let mut tree = tree.to_owned();
        while !tree.contains(';') {
            tree += lines.next().unwrap();
        }
        for one in expand(tree.split(';').next().unwrap()) {
            let last = one.rsplit("::").next().unwrap();
            let (path, name) = one.split_once(" as ").unwrap_or((&one, last));
            let Some(path) = absolute(module, path, known) else {
                continue;
            };
            if visibility.is_empty() {
                found.used.insert(path);
            } else {
                found.re_exported.insert(name.to_owned(), path);
            }
        }
    }
    found
}

/// `a::{b, c::{d}}` → `a::b`, `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let Some(open) = tree.find('{') else {
        return vec![tree.trim().to_owned()];
    };
    let (head, group) = (&tree[..open], &tree[open + 1..tree.rfind('}').unwrap()]);
    let mut depth = 0;
    let branches = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let branches = branches.map(str::trim).filter(|branch| !branch.is_empty());
    branches
        .flat_map(|branch| expand(&format!("{head}{branch}")))
        .collect()
}

/// A path from the crate's root; `None` for one of other crates.
fn absolute(module: &str, path: &str, known: &BTreeSet<&str>) -> Option<String> {
    let (first, rest) = path.split_once("::").unwrap_or((path, ""));
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let base = match first {
        "crate" => "",
        "self" => module,
        "super" => parent,
        _ if known.contains(&*format!("{module}::{first}")) => {
            return Some(format!("{module}::{path}"));
        }
        _ => return None,
    };
    Some(format!("{base}::{rest}").trim_matches(':').to_owned())
}

/// The file that has what a path names, through what others hand on.
fn home(path: &str, paths: &BTreeMap<&str, Paths>) -> Option<String> {
    let mut module = path;
    while !paths.contains_key(module) {
        (module, _) = module.rsplit_once("::")?;
    }
    let rest = path[module.len()..].trim_start_matches("::");
    let (name, _) = rest.split_once("::").unwrap_or((rest, ""));
    match paths[module].re_exported.get(name) {
        Some(target) if target != path => home(target, paths),
        _ => Some(module.to_owned()),
    }
}
