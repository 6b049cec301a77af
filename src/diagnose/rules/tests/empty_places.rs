//! No text of a verdict has a place where a value is missing ("not for X but for "), whatever the evidence lacks.
//!
//! The evidence is that of the fixture, of the labelled paths, of saved reports and of generated faults. Of each, every
//! field is left out, one at a time and several at random.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::Rng as _;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{TestRng, TestRunner};
use serde::Deserialize as _;
use serde_json::Value;

use super::{Evidence, Verdict, healthy, judge, odd, spoilt};
use crate::diagnose::{catalogue, path};

/// What is left where a value is missing, wherever it is in the text.
const GAPS: [&str; 24] = [
    "  ", "()", "``", "''", "\"\"", "[]", "{}", "( ", " )", " ,", " ;", " :", ",,", ", .", ",.",
    ":.", ": .", ": ,", ": ;", "(,", "(;", "(:", "; .", "Some(",
];

/// Words that need another one after them, before a text or a part of it ends.
const OPEN: [&str; 13] = [
    "of", "the", "an", "and", "or", "but", "for", "has", "than", "between", "from", "at", "named",
];

/// Ends that have such a word, and lack nothing.
const ENDS: [&str; 5] = [
    "to connect from",
    "connects from",
    "start from",
    "it has",
    "this account or",
];

/// Words that take a noun, and words that are none.
const TAKES: [&str; 7] = ["of", "the", "an", "from", "for", "between", "named"];
const NO_NOUN: [&str; 9] = ["but", "and", "or", "is", "are", "has", "of", "for", "from"];

/// What stands for a value that is absent.
const ABSENT: [&str; 4] = ["None", "null,", "null ", "no server was asked"];

/// The empty place of a text, if it has one.
fn empty_place(text: &str) -> Option<String> {
    if text.is_empty() || text.trim() != text {
        return Some("a blank at an end, or nothing at all".to_owned());
    }
    if text.contains(" . ") || text.ends_with(" .") {
        return Some("nothing before '.'".to_owned());
    }
    if let Some((_, after)) = text.split_once('<')
        && after.contains('>')
    {
        return Some("a placeholder".to_owned());
    }
    let mut gaps = GAPS.iter().chain(&ABSENT);
    if let Some(gap) = gaps.find(|gap| text.contains(**gap)) {
        return Some(format!("'{gap}'"));
    }
    let words: Vec<&str> = text.split(' ').collect();
    for (index, word) in words.iter().enumerate() {
        let bare = word.trim_start_matches(['(', '\'', '`']);
        let word = bare.trim_end_matches(['.', ',', ';', ':', ')']);
        let until = words[..=index].join(" ");
        let until = until.trim_end_matches(['.', ',', ';', ':', ')']);
        let is_end = word != bare || index + 1 == words.len();
        if is_end && OPEN.contains(&word) && !ENDS.iter().any(|end| until.ends_with(end)) {
            return Some(format!("nothing after '{word}'"));
        }
        let next = words.get(index + 1).copied().unwrap_or_default();
        if !is_end && TAKES.contains(&word) && NO_NOUN.contains(&next) {
            return Some(format!("nothing between '{word}' and '{next}'"));
        }
    }
    None
}

/// The texts of a verdict, each with what it is.
fn texts(verdict: &Verdict) -> Vec<(String, &str)> {
    let mut all = Vec::new();
    for finding in verdict.findings.iter().chain(&verdict.consequences) {
        let code = finding.cause.code();
        let facts = finding.evidence.iter();
        all.extend(facts.map(|fact| (format!("{code}, evidence"), fact.as_str())));
        all.push((format!("{code}, hint"), finding.hint.as_str()));
    }
    for path in &verdict.paths {
        let facts = path.evidence.iter().chain(&path.contradictions);
        all.extend(facts.map(|fact| ("path, evidence".to_owned(), fact.message.as_str())));
        let fixes = path.fixes.iter();
        all.extend(fixes.map(|fix| ("path, fix".to_owned(), fix.action.as_str())));
        let suggestions = path.suggestions.iter();
        all.extend(suggestions.map(|one| ("path, suggestion".to_owned(), one.message.as_str())));
    }
    if let Some(failover) = &verdict.failover {
        all.push(("failover, answer".to_owned(), &failover.answer));
        all.push(("failover, cost".to_owned(), &failover.cost));
    }
    let secrets = verdict.secrets.iter();
    all.extend(secrets.map(|secret| ("secret".to_owned(), secret.message.as_str())));
    if let Some(throughput) = &verdict.throughput {
        let unknown = throughput
            .unknown_because
            .iter()
            .chain(&throughput.disturbed);
        all.extend(unknown.map(|text| ("throughput".to_owned(), text.as_str())));
    }
    all
}

/// Evidence of all kinds, in its saved form.
fn bases() -> Vec<Value> {
    let mut runner = TestRunner::deterministic();
    let mut all = vec![healthy()];
    all.extend(path::tests::labelled());
    all.extend((0..FAULTS).map(|_| spoilt().new_tree(&mut runner).unwrap().current()));
    all.extend((0..FAULTS / 8).map(|_| odd().new_tree(&mut runner).unwrap().current()));
    let mut all: Vec<Value> = all
        .iter()
        .map(|evidence| serde_json::to_value(evidence).unwrap())
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path().join("report.json"))
        .filter(|file| file.exists())
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let mut document: Value = serde_json::from_str(&text).unwrap();
        let reports = document["reports"].as_array_mut().unwrap();
        all.extend(reports.iter_mut().map(|report| report["evidence"].take()));
    }
    all
}

/// How a field is left out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Loss {
    /// It is not in the saved form.
    Removed,
    Null,
    /// An empty list or text.
    Empty,
}

/// Texts of this program, the configuration or the image reference, which are never empty: a server has no part in
/// them.
const NEVER_EMPTY: [&str; 48] = [
    "action",
    "algorithm",
    "authority",
    "by",
    "character",
    "component",
    "container",
    "device",
    "digest",
    "encoded",
    "error",
    "expected",
    "fault",
    "feature",
    "file",
    "first_bytes",
    "folder",
    "from",
    "got",
    "host",
    "image",
    "interface",
    "key",
    "kind",
    "method",
    "name",
    "namespace",
    "path",
    "peer",
    "place",
    "platform",
    "platform_digest",
    "reason",
    "reference",
    "release",
    "resolver_emulated",
    "server",
    "sha256",
    "source",
    "subject_key",
    "suite",
    "tag",
    "to",
    "url",
    "value",
    "variable",
    "what",
    "zone",
];

/// Whether the text at this place may be empty.
fn may_be_empty(at: &str) -> bool {
    let field = at.rsplit('/').find(|part| part.parse::<usize>().is_err());
    field.is_none_or(|field| !NEVER_EMPTY.contains(&field))
}

/// All places of a value, as JSON pointers.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    if !at.is_empty() {
        all.push(at.to_owned());
    }
    match value {
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                places(value, &format!("{at}/{index}"), all);
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{at}/{key}"), all);
            }
        }
        _ => {}
    }
}

/// Leaves a field out; `false` if there is nothing to leave out.
fn lose(evidence: &mut Value, at: &str, loss: Loss) -> bool {
    let Some((parent, key)) = at.rsplit_once('/') else {
        return false;
    };
    let key = key.replace("~1", "/").replace("~0", "~");
    match (loss, evidence.pointer_mut(at)) {
        (Loss::Null, Some(value)) => !value.take().is_null(),
        (Loss::Empty, Some(Value::Array(list))) => !std::mem::take(list).is_empty(),
        (Loss::Empty, Some(Value::String(text))) => {
            may_be_empty(at) && !std::mem::take(text).is_empty()
        }
        (_, None) | (Loss::Empty, Some(_)) => false,
        (Loss::Removed, Some(_)) => match evidence.pointer_mut(parent) {
            Some(Value::Object(map)) => map.remove(&key).is_some(),
            Some(Value::Array(list)) => key.parse().is_ok_and(|index: usize| {
                list.remove(index);
                true
            }),
            _ => false,
        },
    }
}

/// The shape of a place: its elements of lists without their numbers.
fn shape(at: &str) -> String {
    let part = |part: &str| {
        if part.parse::<usize>().is_ok() {
            "*"
        } else {
            part
        }
        .to_owned()
    };
    at.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// What was found, and how much was judged.
#[derive(Default)]
struct Search {
    found: BTreeSet<String>,
    /// Each empty place is reported once for each kind of text.
    seen: BTreeSet<(String, String)>,
    judged: usize,
}

impl Search {
    /// Judges evidence, if what is left of it is evidence; returns the worst cause.
    fn judge(&mut self, evidence: &Value, how: &dyn Fn() -> String) -> Option<String> {
        let evidence = Evidence::deserialize(evidence).ok()?;
        self.judged += 1;
        let verdict = judge(&evidence);
        for (what, text) in texts(&verdict) {
            if let Some(problem) = empty_place(text)
                && self.seen.insert((what.clone(), problem.clone()))
            {
                self.found
                    .insert(format!("{what}: {problem} in: {text}\n    {}", how()));
            }
        }
        let findings = verdict.findings.iter().chain(&verdict.consequences);
        let codes: Vec<&str> = findings.map(|finding| finding.cause.code()).collect();
        Some(codes.first().copied().unwrap_or_default().to_owned())
    }
}

/// The number of generated faults. All of it takes some seconds in a debug build.
const FAULTS: usize = 48;
/// Variants of each evidence with several fields left out.
const VARIANTS: usize = 4;
/// The most fields that such a variant lacks.
const MAX_LOST: usize = 6;

/// An index of a list of so many.
fn any_of(random: &mut TestRng, count: usize) -> usize {
    usize::try_from(random.next_u64() % u64::try_from(count).unwrap()).unwrap()
}

#[test]
fn no_text_of_a_verdict_has_an_empty_place() {
    let mut search = Search::default();
    // Seeded: each run is the same.
    let mut runner = TestRunner::deterministic();
    let random = runner.rng();
    // Fields without which evidence can't be read.
    let mut unread: BTreeSet<(String, Loss)> = BTreeSet::new();
    let mut tried: BTreeSet<(String, String, Loss)> = BTreeSet::new();
    for (number, base) in bases().iter().enumerate() {
        let cause = search.judge(base, &|| format!("evidence {number}"));
        let cause = cause.expect("evidence that was saved is read");
        let mut all = Vec::new();
        places(base, "", &mut all);
        let mut value = base.clone();
        for at in &all {
            for loss in [Loss::Removed, Loss::Null, Loss::Empty] {
                // The same field beside the same cause once.
                if !tried.insert((cause.clone(), shape(at), loss)) {
                    continue;
                }
                let required = (shape(at), loss);
                if unread.contains(&required) {
                    continue;
                }
                let parent = at.rsplit_once('/').map_or("", |(parent, _)| parent);
                let whole = value.pointer(parent).cloned();
                if !lose(&mut value, at, loss) {
                    continue;
                }
                let how = || format!("evidence {number}, {loss:?} {at}");
                if search.judge(&value, &how).is_none() {
                    unread.insert(required);
                }
                if let Some((lost, whole)) = value.pointer_mut(parent).zip(whole) {
                    *lost = whole;
                }
            }
        }
        for _ in 0..VARIANTS {
            let mut value = base.clone();
            let mut without = Vec::new();
            while without.len() < MAX_LOST {
                let at = &all[any_of(random, all.len())];
                let loss = [Loss::Removed, Loss::Null, Loss::Empty][any_of(random, 3)];
                if !unread.contains(&(shape(at), loss)) {
                    lose(&mut value, at, loss);
                    without.push(format!("{loss:?} {at}"));
                }
            }
            search.judge(&value, &|| {
                format!("evidence {number}, {}", without.join(", "))
            });
        }
    }
    assert!(search.judged > 2000, "only {} were judged", search.judged);
    let found: Vec<String> = search.found.into_iter().collect();
    assert!(
        found.is_empty(),
        "{} empty places:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn no_text_of_the_catalogue_has_an_empty_place() {
    for cause in catalogue::Cause::ALL {
        let entry = cause.entry();
        for text in [entry.title, entry.cause, entry.detection, entry.fix] {
            assert_eq!(empty_place(text), None, "{}: {text}", cause.code());
        }
    }
}

#[test]
fn an_empty_place_is_found_and_a_sentence_is_not() {
    for text in [
        "",
        " registry.test",
        "certificate is not for registry.test but for ",
        "certificate is not for  but for registry.test",
        "the required platform is linux/amd64, the index has ",
        "the required platform is linux/amd64, the index has .",
        "Forward the zone on no server was asked, or remove it from the list.",
        "Remove it from the list ().",
        "Run `` here.",
        "Check '' in resolv.conf.",
        "Check the servers in .",
        "HTTP 404 : manifest unknown",
        "presented: CN=a issued by , valid until 2026",
        "not for but for registry.test",
        "Ask the owner of, then try again.",
        "limit None, 3 remaining",
        "Set <name> in hosts.toml.",
        "expired Some(3) days ago",
    ] {
        assert!(empty_place(text).is_some(), "{text}");
    }
    for text in [
        "certificate is not for registry.test but for other.test, b.test",
        "This machine has no local address or port to connect from",
        "If not, look for a firewall.",
        "Run `dig +tcp @10.0.0.2 -p 53 registry.test` here: an answer means that UDP is dropped.",
        "/v2/: HTTP 404 (Retry-After: 3); no `ca` in hosts.toml",
    ] {
        assert_eq!(empty_place(text), None, "{text}");
    }
}
