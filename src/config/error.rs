//! Errors in a configuration: the line, the key and the fix.

use std::fmt::{self, Write as _};

use crate::model::text::clean;

/// The first error of a configuration file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// Line and column, counted from 1; `None` if it has no single position.
    pub at: Option<(u64, u64)>,
    /// The error and its fix, in one line.
    pub message: String,
    /// The line with the one before it, and a caret below; `None` without a position.
    pub snippet: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.at {
            write!(f, "line {line} column {column}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.snippet {
            Some(snippet) => write!(f, "\n{snippet}"),
            None => Ok(()),
        }
    }
}

impl ConfigError {
    /// An error that no single line has.
    pub(super) fn whole(message: String) -> Self {
        Self {
            at: None,
            message,
            snippet: None,
        }
    }

    /// An error that was found after parsing, at the position of `value`.
    pub(super) fn at<T>(value: &serde_saphyr::Spanned<T>, message: String, text: &str) -> Self {
        let (line, column) = (value.referenced.line(), value.referenced.column());
        Self {
            at: Some((line, column)),
            message,
            snippet: drawn(text, line, column),
        }
    }
}

/// The line with the one before it, and a caret below.
pub(super) fn drawn(text: &str, line: u64, column: u64) -> Option<String> {
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let lines: Vec<&str> = text.lines().collect();
    let width = line.to_string().len();
    let mut out = String::new();
    for (number, content) in lines
        .iter()
        .enumerate()
        .take(index + 1)
        .skip(index.saturating_sub(1))
    {
        let shown = clean(&without_login(content), MAX_SHOWN);
        let _ = writeln!(out, "{:>width$} | {shown}", number + 1);
    }
    lines.get(index)?;
    let before = usize::try_from(column)
        .ok()?
        .saturating_sub(1)
        .min(MAX_SHOWN);
    let _ = write!(out, "{:>width$} | {}^", "", " ".repeat(before));
    Some(out)
}

/// Characters shown of a line; the rest is cut.
const MAX_SHOWN: usize = 160;

/// Hides what is between `://` and `@`, which may be a password.
fn without_login(line: &str) -> String {
    let Some((before, rest)) = line.split_once("://") else {
        return line.to_owned();
    };
    let end = rest.find([' ', '"', '\'', ',', '/']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{before}://***{}", &rest[at..]),
        None => line.to_owned(),
    }
}
