//! What commands print, and the exit code that says what it comes to.

use std::io::{self, IsTerminal as _, Write};

use clap::ValueEnum;

use super::error::Error;
use crate::diagnose::Pull;
use crate::report::Document;
use crate::report::text::{self, Style};

/// Every pull would succeed.
pub(super) const SUCCESS: u8 = 0;

/// At least one pull would fail.
pub(super) const FAILURE: u8 = 1;

/// It could not be told, or the probe could not run.
pub(super) const CANNOT_TELL: u8 = 2;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    /// For a person
    Text,
    /// For a program; `pullpath schema` describes it
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

/// As a program reads it.
pub(super) fn pretty_json(value: &impl serde::Serialize) -> Result<String, Error> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::Write(e.into()))?;
    text.push('\n');
    Ok(text)
}

/// Prints a document and says what it comes to.
pub(super) fn print(
    document: &Document,
    output: Output,
    color: When,
    why: bool,
    out: &mut dyn Write,
) -> Result<u8, Error> {
    match output {
        Output::Text => {
            let style = Style {
                color: use_color(color),
            };
            for (index, report) in document.reports.iter().enumerate() {
                if index > 0 {
                    out.write_all(b"\n").map_err(Error::Write)?;
                }
                out.write_all(
                    if why {
                        text::render_why(report, style)
                    } else {
                        text::render(report, style)
                    }
                    .as_bytes(),
                )
                .map_err(Error::Write)?;
            }
        }
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, document)
                .map_err(|e| Error::Write(e.into()))?;
            out.write_all(b"\n").map_err(Error::Write)?;
        }
    }
    Ok(match document.pull() {
        Pull::WouldSucceed => SUCCESS,
        Pull::WouldFail => FAILURE,
        Pull::Unknown => CANNOT_TELL,
    })
}

/// https://no-color.org: set and not empty means no colour.
pub(super) fn use_color(when: When) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
            !refused && !dumb && io::stdout().is_terminal()
        }
    }
}
