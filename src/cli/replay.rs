//! `pullpath replay`: diagnoses the evidence of saved reports again with the rules of this version.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::error::Error;
use super::input;
use super::output::Printing;
use super::remote::{harmless, version_of};
use crate::model::text::printable;
use crate::report::{Document, READABLE_VERSIONS, Report, SCHEMA_VERSION};

/// Exit status: the same as of `probe`.
#[derive(Args, Debug)]
pub(super) struct Replay {
    /// Reports as `probe -o json` prints them, or `--save` saves them; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    printing: Printing,

    /// Show the evidence for each leg's path class, and the evidence against it
    #[arg(long)]
    why: bool,
}

pub(super) fn run(args: &Replay, out: &mut dyn Write) -> Result<u8, Error> {
    let mut reports = Vec::new();
    for path in &args.files {
        for report in read(path)? {
            reports.push(Report::conclude(report.evidence));
        }
    }
    let document = Document::new(reports);
    args.printing.print_reports(&document, args.why, out)
}

fn read(path: &Path) -> Result<Vec<Report>, Error> {
    let shown = input::shown(path);
    let wrong = |why: String| Error::Message(format!("{shown} {why}"));
    let bytes = input::read(path, MAX_FILE)
        .map_err(|error| Error::Message(format!("can't read {shown}: {error}")))?;
    let no_report = |error: serde_json::Error| {
        let text = error.to_string();
        // The message already has line and column.
        let reason = text.split(" at line ").next().unwrap_or_default();
        wrong(format!(
            "is not a report of pullpath, at line {} column {}: {}; give a file that `probe -o json` printed",
            error.line(),
            error.column(),
            printable(reason)
        ))
    };
    // The version first: a newer report may not be readable at all.
    let found = version_of(&bytes).map_err(no_report)?;
    if !READABLE_VERSIONS.contains(&found) {
        return Err(wrong(format!(
            "has schema_version {found}, but this program reads 1 to {SCHEMA_VERSION}; replay it with the version of pullpath that wrote it"
        )));
    }
    // Parsed unchanged first, so that an error names its line.
    let _: Document = serde_json::from_slice(&bytes).map_err(no_report)?;
    let document = harmless(&bytes).map_err(no_report)?;
    if document.reports.is_empty() {
        return Err(wrong("has no report".to_owned()));
    }
    Ok(document.reports)
}

/// In bytes. A report has some ten KiB, with a trace some hundred.
const MAX_FILE: u64 = 64 << 20;
