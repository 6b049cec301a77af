//! Words that no text for users may contain; each has a plainer one beside it. docs/glossary.md lists the terms to use.

#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A word or phrase in lower case, and what to write instead. `*` ends a stem.
const WORDS: &[(&str, &str)] = &[
    ("told", "reported, shown, known"),
    ("tell", "report, show"),
    ("tells", "reports, shows, infers"),
    ("telling", "reporting, showing"),
    ("nobody", "no client, no pod, no one who …"),
    ("whoever", "the caller, the user who …"),
    ("wish*", "expected, required, requested"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("sick", "failing, unhealthy"),
    ("anew", "again"),
    ("in vain", "without success"),
    ("of two minds", "return different answers"),
    ("held back", "deferred, limited"),
    ("holds back", "defers, limits"),
    ("hold back", "defer, limit"),
    ("come to", "amount to, reach"),
    ("comes to", "amounts to, reaches"),
    ("came to", "amounted to, reached"),
    ("came of", "the result of"),
    ("comes of", "results from"),
    ("would come", "would be pulled"),
    ("looked at", "inspected, checked"),
    ("not seen", "not observed"),
    ("is asked", "is queried, receives a request"),
    ("are asked", "are queried, receive requests"),
    ("walk", "check"),
    ("walks", "checks"),
    ("walked", "checked"),
    ("the way to", "the path to, the route to"),
    ("the way out", "egress"),
    ("goes by", "follows"),
    ("go by", "follow"),
    ("hangs on", "depends on"),
    ("hang on", "depend on"),
    ("leave away", "omit"),
    ("told apart", "distinguished"),
    ("stands in", "is in"),
    ("stand in", "are in"),
    ("will end", "expires"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a folder whose names end so, in order.
fn files(folder: &str, ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                folders.push(path);
            } else if ends.iter().any(|end| name.ends_with(end)) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{folder} has no {ends:?}");
    found
}

/// Lower case, words by single spaces, no punctuation but what separates sentences.
fn plain(text: &str) -> String {
    let mut plain = String::from(" ");
    for word in text.split_whitespace() {
        let (core, ends) = match word.trim_end_matches(['"', '\'', ')', '*', '_']) {
            core if core.ends_with(['.', ',', ':', ';', '!', '?']) => (core, true),
            core => (core, false),
        };
        plain.push_str(
            &core
                .trim_matches(|c: char| !c.is_alphanumeric())
                .to_lowercase(),
        );
        plain.push_str(if ends { " . " } else { " " });
    }
    plain
}

/// Each of the words that the text has, with what stands around it.
fn found(text: &str) -> Vec<String> {
    let text = plain(text);
    let mut found = Vec::new();
    for (word, instead) in WORDS {
        let searched = match word.strip_suffix('*') {
            Some(stem) => format!(" {stem}"),
            None => format!(" {word} "),
        };
        for (at, _) in text.match_indices(&searched) {
            let from = text[..at]
                .char_indices()
                .rev()
                .nth(40)
                .map_or(0, |(at, _)| at);
            let around: String = text[from..].chars().take(90).collect();
            found.push(format!("“{word}” ({instead}): …{around}…"));
        }
    }
    found
}

/// Markdown without fences and code spans: those are names, commands and output.
fn prose(text: &str) -> String {
    let mut prose = String::new();
    let mut is_fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    without_spans(&prose)
}

fn without_spans(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join(" x ")
}

/// HTML without its tags.
fn body(text: &str) -> String {
    text.split('<')
        .map(|part| part.split_once('>').map_or(part, |(_, text)| text))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The string literals of a source file before its tests; those without a blank are names.
fn literals(source: &str) -> Vec<String> {
    let code = source.split("\n#[cfg(test)]\nmod ").next().unwrap();
    let mut literals = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let before = rest[..at].chars().next_back();
        let from = &rest[at..];
        rest = if let Some(comment) = from.strip_prefix("//") {
            comment.find('\n').map_or("", |end| &comment[end..])
        } else if let Some(after) = from.strip_prefix('/') {
            after
        } else if let Some(after) = from.strip_prefix('\'') {
            // A character, or a lifetime.
            match after.chars().next() {
                Some('\\') => after[2..].split_once('\'').map_or("", |(_, after)| after),
                Some(c) => {
                    let behind = &after[c.len_utf8()..];
                    behind.strip_prefix('\'').unwrap_or(after)
                }
                None => "",
            }
        } else {
            let hashes = rest[..at].chars().rev().take_while(|c| *c == '#').count();
            let is_raw = rest[..at - hashes].ends_with('r') && (hashes > 0 || before == Some('r'));
            let end = if is_raw {
                let close = format!("\"{}", "#".repeat(hashes));
                from[1..]
                    .find(&close)
                    .map(|end| (end + 1, end + 1 + close.len()))
            } else {
                let mut escaped = false;
                from.char_indices().skip(1).find_map(|(at, c)| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends.then_some((at, at + 1))
                })
            };
            let (end, next) = end.expect("a literal ends");
            let text = from[1..end]
                .replace("\\n", " ")
                .replace("\\\"", " ")
                .replace("\\\n", " ");
            literals.push(text);
            &from[next..]
        };
    }
    literals.retain(|text| text.trim().contains(' '));
    literals
}

/// The descriptions in a JSON Schema; the rest of it is names.
fn descriptions(schema: &Value) -> String {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) if key == "description" => format!("{text} . "),
                value => descriptions(value),
            })
            .collect(),
        Value::Array(items) => items.iter().map(descriptions).collect(),
        _ => String::new(),
    }
}

/// The help of a command, and of those below it.
fn help(command: &[String], all: &mut Vec<(String, String)>) {
    let output = Command::new(env!("CARGO_BIN_EXE_pullpath"))
        .args(command)
        .arg("--help")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut below = Vec::new();
    if let Some((_, commands)) = text.split_once("\nCommands:\n") {
        let commands = commands.split("\n\n").next().unwrap();
        // Two blanks stand before a name, and more before what goes on with its description.
        let names = commands
            .lines()
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        below.extend(names.map(|line| line.split_whitespace().next().unwrap().to_owned()));
    }
    all.push((format!("pullpath {} --help", command.join(" ")), text));
    for name in below.into_iter().filter(|name| name != "help") {
        help(&[command, &[name]].concat(), all);
    }
}

/// Every text for users: where it is from, and what it says.
fn texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    help(&[], &mut texts);
    assert!(
        texts.len() > 12,
        "the commands of `pullpath --help` were not found"
    );
    let mut add = |path: &Path, text: String| {
        texts.push((
            path.strip_prefix(root()).unwrap().display().to_string(),
            text,
        ));
    };
    for name in ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
        add(&root().join(name), prose(&read(&root().join(name))));
    }
    for path in files("docs", &[".md"]) {
        add(&path, prose(&read(&path)));
    }
    for path in files("docs", &[".json"]) {
        let schema: Value = serde_json::from_str(&read(&path)).unwrap();
        add(&path, without_spans(&descriptions(&schema)));
    }
    for path in files("dashboards", &[".json"]) {
        add(&path, without_spans(&read(&path).replace("\\n", " ")));
    }
    for path in files("deploy", &[".yaml", ".md"]) {
        add(&path, without_spans(&read(&path)));
    }
    add(
        &root().join("src/config/example.yaml"),
        read(&root().join("src/config/example.yaml")),
    );
    for path in files("src", &[".html"]) {
        add(&path, body(&read(&path)));
    }
    let sources = files("src", &[".rs"]).into_iter();
    for path in sources.filter(|path| !path.ends_with("tests.rs") && !path.ends_with("fixture.rs"))
    {
        add(&path, without_spans(&literals(&read(&path)).join(" . ")));
    }
    texts
}

#[test]
fn texts_for_users_have_plain_words() {
    let wrong: BTreeSet<String> = texts()
        .into_iter()
        .flat_map(|(place, text)| {
            found(&text)
                .into_iter()
                .map(move |word| format!("{place}: {word}"))
        })
        .collect();
    let list: Vec<String> = wrong.iter().cloned().collect();
    assert!(
        wrong.is_empty(),
        "{} of them\n{}",
        wrong.len(),
        list.join("\n")
    );
}

#[test]
fn a_word_is_found_and_only_the_whole_of_it() {
    for (text, words) in [
        ("It is told\nhere.", 1),
        ("“Told”, she said", 1),
        ("Retold stories, a walkway, wishing", 1),
        ("They come\nto nothing", 1),
        ("They come. To nothing", 0),
    ] {
        assert_eq!(found(text).len(), words, "{text}: {:?}", found(text));
    }
    assert_eq!(
        prose("a `told` b\n```\ntold\n```\nc\n")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["a", "x", "b", "c"]
    );
    assert_eq!(
        body("<p class=\"told\">a<br>b</p>")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    let source = "const A: &str = \"one \\\"two\\\"\"; // \"no one\"\nfn f<'a>(c: &'a str) { c == '\"' || '\\'' ; r#\"three \"four\"#; \"five\" }\n#[cfg(test)]\nmod tests { \"six seven\" }";
    assert_eq!(literals(source), ["one  two ", "three \"four"]);
}
