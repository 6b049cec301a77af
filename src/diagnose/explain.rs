//! Prints entries of the catalogue: on a terminal, on the page, and in the documentation.

use std::fmt::Write as _;

use super::catalogue::{Cause, Detected, Entry};
use crate::model::settings_source::KEYS;
use crate::model::text::{joined, wrapped};

/// The width of an entry on a terminal, in columns.
const WIDTH: usize = 80;

/// The catalogue's entry for a cause as text for a terminal, wrapped at 80 columns.
pub fn explain(cause: Cause) -> String {
    let entry = cause.entry();
    let mut text = format!("{}  ({})\n", entry.code, entry.severity.as_str());
    text += &wrapped("  ", 2, WIDTH, entry.title);
    for (heading, body) in parts(entry) {
        let _ = writeln!(text, "\n{heading}");
        text += &wrapped("  ", 2, WIDTH, &body);
    }
    text
}

/// The areas of the catalogue, each with its causes.
fn areas() -> impl Iterator<Item = (&'static str, &'static [Cause])> {
    let parts = Cause::ALL.chunk_by(|one, next| one.entry().area == next.entry().area);
    parts.map(|causes| (causes[0].entry().area, causes))
}

/// The list of causes as text: a heading for each area, and one line with code, severity and title for each
/// cause.
pub fn list() -> String {
    let widths = Cause::ALL.iter().map(|cause| cause.code().len());
    let width = widths.max().unwrap_or_default();
    let mut text = String::new();
    for (area, causes) in areas() {
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}{area}");
        for entry in causes.iter().map(|cause| cause.entry()) {
            let later = match entry.detected {
                Detected::Now | Detected::ByTransfer => "",
                Detected::Later => " (not detected by this version)",
            };
            let _ = writeln!(
                text,
                "  {:width$}  {:8}  {}{later}",
                entry.code,
                entry.severity.as_str(),
                entry.title
            );
        }
    }
    text
}

/// The whole catalogue as Markdown: docs/causes.md.
pub fn markdown() -> String {
    let mut text = "# Causes\n\nEvery finding of Pullpath has one of these codes. `pullpath explain CODE` prints the \
                    same text.\nCodes are stable: a renamed code stays valid for `pullpath explain`, and no code is \
                    used again for something else.\n\nTexts name the flags of the command line; the daemon's report \
                    and pages name instead:\n\n| flag | in the daemon |\n|---|---|\n"
        .to_owned();
    for (flag, key) in KEYS {
        let _ = writeln!(text, "| `{flag}` | `{key}` |");
    }
    for (area, causes) in areas() {
        let _ = writeln!(text, "\n## {area}");
        for entry in causes.iter().map(|cause| cause.entry()) {
            let _ = writeln!(
                text,
                "\n### {}\n\n**{}** ({})",
                entry.code,
                entry.title,
                entry.severity.as_str()
            );
            for (heading, body) in parts(entry) {
                let _ = writeln!(text, "\n*{heading}.* {body}");
            }
        }
    }
    text
}

/// The parts of an entry, each with its heading.
pub(crate) fn parts(entry: &Entry) -> Vec<(&'static str, String)> {
    let mut parts = vec![
        ("What you see", entry.symptom.to_owned()),
        ("What happens", entry.cause.to_owned()),
        ("How Pullpath detects it", entry.detection.to_owned()),
        ("What to do", entry.fix.to_owned()),
    ];
    if entry.detected == Detected::Later {
        let text = "This version does not detect it: that requires a comparison of several nodes.";
        parts.push(("Not detected yet", text.to_owned()));
    }
    if !entry.masked_by.is_empty() {
        let causes = joined(entry.masked_by.iter().map(|cause| cause.code()));
        parts.push(("Follows from", causes));
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_written_one_way() {
        let mut seen = HashSet::new();
        for cause in Cause::ALL {
            let code = cause.code();
            assert!(seen.insert(code), "{code} twice");
            assert!(
                code.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{code}"
            );
            assert_eq!(code.parse(), Ok(*cause));
            assert_eq!(
                serde_json::to_value(cause).unwrap(),
                code,
                "the JSON value is the code"
            );
        }
        assert_eq!("TLS-Unknown-CA".parse(), Ok(Cause::TlsUnknownCa));
    }

    #[test]
    fn every_entry_says_all_four_things_and_no_cause_masks_itself() {
        for cause in Cause::ALL {
            let entry = cause.entry();
            for text in [
                entry.title,
                entry.symptom,
                entry.cause,
                entry.detection,
                entry.fix,
            ] {
                assert!(
                    text.len() > 3 && text == text.trim(),
                    "{}: '{text}'",
                    entry.code
                );
            }
            assert!(!entry.masked_by.contains(cause), "{}", entry.code);
        }
    }

    #[test]
    fn no_hint_switches_verification_off() {
        let text = markdown().to_lowercase();
        for bad in [
            "insecure-skip",
            "skip_verify = true",
            "skip_verify=true",
            "insecure_skip_verify",
        ] {
            assert!(!text.contains(bad), "{bad}");
        }
    }

    #[test]
    fn the_documentation_is_this_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/causes.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap() == markdown(),
            "docs/causes.md differs from the catalogue; UPDATE_DOCS=1 cargo test writes it"
        );
    }
}
