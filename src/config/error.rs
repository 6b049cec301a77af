//! What is wrong in a configuration: the line, the key and the fix.

use std::fmt::{self, Write as _};

use crate::model::text::clean;

/// What is wrong with a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// Line and column, counted from 1; `None` where they can't be told.
    pub at: Option<(u64, u64)>,
    pub message: String,
    /// The lines around it, drawn.
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
    /// Of no one line.
    pub(super) fn whole(message: String) -> Self {
        Self {
            at: None,
            message,
            snippet: None,
        }
    }

    /// One that was found after parsing.
    pub(super) fn at<T>(place: &serde_saphyr::Spanned<T>, message: String, text: &str) -> Self {
        let (line, column) = (place.referenced.line(), place.referenced.column());
        Self {
            at: Some((line, column)),
            message,
            snippet: drawn(text, line, column),
        }
    }
}

/// The line with the one before it, and a mark below.
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
        let shown = clean(&without_login(content), MOST_SHOWN);
        let _ = writeln!(out, "{:>width$} | {shown}", number + 1);
    }
    lines.get(index)?;
    let before = usize::try_from(column)
        .ok()?
        .saturating_sub(1)
        .min(MOST_SHOWN);
    let _ = write!(out, "{:>width$} | {}^", "", " ".repeat(before));
    Some(out)
}

/// Longer lines of a configuration are cut in what is shown.
const MOST_SHOWN: usize = 160;

/// What stands between `://` and `@` may be a password.
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
