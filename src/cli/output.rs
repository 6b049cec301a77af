//! Prints results as text or JSON, and has the exit statuses.

use std::io::{self, IsTerminal as _, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::error::Error;
use crate::diagnose::Pull;
use crate::report::Document;
use crate::report::text::{self, Style};

/// Every pull would succeed.
pub(super) const SUCCESS: u8 = 0;

/// At least one pull would fail.
pub(super) const FAILURE: u8 = 1;

/// The result is unknown, or the command could not run.
pub(super) const UNKNOWN: u8 = 2;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    /// Text for people
    Text,
    /// JSON for programs; `pullpath schema` describes it
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Also in a file or a pipe
    Always,
    /// Not even on a terminal
    Never,
}

/// Indented JSON with a line break at the end.
pub(super) fn pretty_json(value: &impl Serialize) -> Result<String, Error> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::Write(e.into()))?;
    text.push('\n');
    Ok(text)
}

/// The options for printing a result.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Printing {
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,

    /// When to color the text
    #[arg(long, value_enum, default_value_t = When::Auto)]
    pub(super) color: When,
}

impl Printing {
    /// Prints a result: the text of `render`, or JSON.
    pub(super) fn print<D: Serialize>(
        self,
        document: &D,
        render: impl FnOnce(&D, Style) -> String,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let color = use_color(self.color);
        let text = match self.output {
            Output::Text => render(document, Style { color }),
            Output::Json => pretty_json(document)?,
        };
        out.write_all(text.as_bytes()).map_err(Error::Write)
    }

    /// Prints reports and returns the exit status for their verdicts.
    pub(super) fn print_reports(
        self,
        document: &Document,
        why: bool,
        out: &mut dyn Write,
    ) -> Result<u8, Error> {
        let all = |document: &Document, style| text::render_all(document, style, why);
        self.print(document, all, out)?;
        Ok(status(document.pull()))
    }
}

/// The exit status for a verdict.
pub(super) fn status(pull: Pull) -> u8 {
    match pull {
        Pull::WouldSucceed => SUCCESS,
        Pull::WouldFail => FAILURE,
        Pull::Unknown => UNKNOWN,
    }
}

/// https://no-color.org: `NO_COLOR` set and not empty means no color.
fn use_color(when: When) -> bool {
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
