//! Functions of Go that decide what text in containerd's files means: paths and `time.ParseDuration` of its standard
//! library, and the TOML parser of containerd 1.

use std::path::{Component, Path, PathBuf};

/// `filepath.Clean` of an absolute path.
pub fn clean(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

/// `path.Clean` for the path of a URL.
pub fn clean_path(path: &str) -> String {
    clean(Path::new(path)).to_string_lossy().into_owned()
}

/// The line, counted from 1, of a table header with a bracket in a quoted name, such as an IPv6 address. go-toml 1,
/// which containerd 1 uses, ignores quotes when it looks for the header's end, and rejects the file.
pub fn bracket_in_header(text: &str) -> Option<usize> {
    let mut lines = text.lines();
    lines.position(has_bracket).map(|index| index + 1)
}

fn has_bracket(line: &str) -> bool {
    let Some(header) = line.trim_start().strip_prefix('[') else {
        return false;
    };
    let header = header.strip_prefix('[').unwrap_or(header);
    let mut quote = None;
    for c in header.chars() {
        match (quote, c) {
            (None, ']' | '#') => return false,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if c == open => quote = None,
            (Some(_), '[' | ']') => return true,
            _ => {}
        }
    }
    false
}

/// `time.ParseDuration`, in seconds: `1.5h`, `2m30s`, `-500ms`. `None` if Go rejects the text.
pub fn duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Some(0.0);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[end..];
        total += number * unit;
    }
    // The range of an int64 of nanoseconds.
    (total < MAX_SECONDS).then_some(sign * total)
}

const MAX_SECONDS: f64 = 9_223_372_036.854_775;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, want) in [
            ("30s", Some(30.0)),
            ("1.5s", Some(1.5)),
            ("2m30s", Some(150.0)),
            ("500ms", Some(0.5)),
            ("-1s", Some(-1.0)),
            ("0", Some(0.0)),
            ("+0", Some(0.0)),
            ("", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1d", None),
            ("1s ", None),
            ("9999999h", None),
        ] {
            assert_eq!(duration(text), want, "{text}");
        }
    }
}
