//! What is wrong in a YAML file, without any of its content: a value, or a key in the wrong place, may be a secret.

use std::fmt::{self, Write as _};

use serde::de::DeserializeOwned;
use serde_path_to_error::{Deserializer, Path, Segment, Track};
use serde_saphyr::Error;

/// The first mistake in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Slip {
    /// Line and column, counted from 1; `None` if it has no single position.
    pub at: Option<(u64, u64)>,
    /// The path of the key, `network.cidrs[0].class`; empty at the top. A key that the program does not know is `*`.
    pub path: String,
    /// What is wrong and how to correct it.
    pub what: String,
}

impl fmt::Display for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.at {
            write!(f, "line {line} column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for Slip {}

impl Slip {
    /// Whether all that is wrong is that the file has several documents.
    pub fn is_second_document(&self) -> bool {
        self.what == SECOND_DOCUMENT
    }
}

const SECOND_DOCUMENT: &str = "a second document begins; write one";

/// Reads a file of one document. `is_key` knows the keys that may be repeated; `by_own_readers`: the readers of `T`'s
/// values are the program's own, and their messages repeat nothing.
///
/// # Errors
/// If it is not YAML, or is no `T`; with the unknown key, if that is what is wrong. It must not be shown.
pub fn read<T: DeserializeOwned>(
    text: &str,
    is_key: impl Fn(&str) -> bool,
    by_own_readers: bool,
) -> Result<T, (Slip, Option<String>)> {
    let mut track = Track::new();
    let read = serde_saphyr::with_deserializer_from_str(text, |yaml| {
        T::deserialize(Deserializer::new(yaml, &mut track))
    });
    read.map_err(|error| {
        let error = error.without_snippet();
        let error = match error {
            Error::AliasError { error, .. } => error.without_snippet(),
            other => other,
        };
        let unknown = match error {
            Error::SerdeUnknownField { field, .. } => Some(field.clone()),
            _ => None,
        };
        let slip = Slip {
            at: error.location().map(|at| (at.line(), at.column())),
            path: path(&track.path(), unknown.is_some(), is_key),
            what: what(error, by_own_readers),
        };
        (slip, unknown)
    })
}

/// The path to the value; to the map, if a key in it is unknown.
fn path(path: &Path, without_last: bool, is_key: impl Fn(&str) -> bool) -> String {
    let mut shown = String::new();
    let all = path.iter().count();
    for segment in path.iter().take(all - usize::from(without_last && all > 0)) {
        let name = match segment {
            Segment::Seq { index } => {
                let _ = write!(shown, "[{index}]");
                continue;
            }
            Segment::Map { key } if is_key(key) => key.as_str(),
            // Between a value and its position (`serde_saphyr::Spanned`).
            Segment::Map { key } if key == "value" => continue,
            Segment::Map { .. } => "*",
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        if !shown.is_empty() {
            shown.push('.');
        }
        shown += name;
    }
    shown
}

fn what(error: &Error, by_own_readers: bool) -> String {
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let near = expected.iter().find(|one| is_near(field, one));
            match near {
                Some(near) => format!("unknown key; did you mean {near}?"),
                None => format!("unknown key; the keys here are {}", expected.join(", ")),
            }
        }
        Error::SerdeUnknownVariant { expected, .. } => {
            format!("unknown value; write one of {}", expected.join(", "))
        }
        Error::SerdeInvalidType { unexpected, expected, .. } => match kind(unexpected) {
            Some(kind) => format!("expected {expected}, found {kind}"),
            None => format!("expected {expected}"),
        },
        Error::SerdeInvalidValue { expected, .. } | Error::SerdeInvalidLength { expected, .. } => {
            format!("invalid value; expected {expected}")
        }
        Error::SerdeMissingField { field, .. } => format!("the key {field} is missing"),
        Error::DuplicateMappingKey { .. } => "a key is given twice; keep one".to_owned(),
        Error::Unexpected { expected: "mapping start", .. } => {
            "expected keys with their values here: `key: value`".to_owned()
        }
        Error::Unexpected { expected: "sequence start", .. } => {
            "expected a list here: `[a, b]`, or lines that begin with `- `".to_owned()
        }
        Error::Unexpected { expected, .. } if expected.contains("scalar") => {
            "expected a single value here, not a list or a map".to_owned()
        }
        Error::Unexpected { expected, .. } => format!("expected {expected} here"),
        Error::InvalidScalar { ty, .. } => format!("invalid value; expected {ty}"),
        Error::NullIntoString { .. } => "expected a text, found nothing".to_owned(),
        Error::MultipleDocuments { .. } => SECOND_DOCUMENT.to_owned(),
        Error::Eof { .. } => "the file ends too early".to_owned(),
        Error::UnknownAnchor { .. } => "an alias names no anchor; quote a value that begins with `*`".to_owned(),
        Error::Budget { .. } => "it is too large or nested too deep".to_owned(),
        Error::Message { msg, .. } if by_own_readers => msg.clone(),
        Error::Message { .. } => "invalid value".to_owned(),
        _ => "not valid YAML; look for a missing blank after `:`, a tab, or a quote that is not closed".to_owned(),
    }
}

/// One or two typing errors away.
fn is_near(written: &str, key: &str) -> bool {
    strsim::damerau_levenshtein(written, key) <= 2
}

/// The kind of a value, from serde's words for it, which have the value itself behind the kind.
fn kind(unexpected: &str) -> Option<&'static str> {
    const KINDS: [(&str, &str); 8] = [
        ("boolean", "true or false"),
        ("integer", "a number"),
        ("floating point", "a number"),
        ("string", "a text"),
        ("character", "a text"),
        ("unit value", "nothing"),
        ("sequence", "a list"),
        ("map", "a map of keys"),
    ];
    let known = KINDS
        .iter()
        .find(|(begin, _)| unexpected.starts_with(begin));
    known.map(|(_, shown)| *shown)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is only read")]
    struct File {
        user: Option<Login>,
        count: Option<u8>,
        list: Option<Vec<Login>>,
        by_name: Option<BTreeMap<String, Login>>,
        mode: Option<Mode>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is only read")]
    struct Login {
        password: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        On,
        Off,
    }

    fn slip(text: &str) -> Slip {
        let is_key =
            |key: &str| ["user", "count", "list", "by_name", "mode", "password"].contains(&key);
        read::<File>(text, is_key, false).unwrap_err().0
    }

    #[test]
    fn a_mistake_is_named_by_path_line_and_kind_and_not_by_content() {
        for (text, shown) in [
            (
                "user:\n  password: [CANARY]\n",
                "line 2 column 13: user.password: expected a single value here, not a list or a map",
            ),
            (
                "user:\n  password: {CANARY: 1}\n",
                "line 2 column 13: user.password: expected a single value here, not a list or a map",
            ),
            (
                "user: CANARY\n",
                "line 1 column 7: user: expected keys with their values here: `key: value`",
            ),
            (
                "count: CANARY\n",
                "line 1 column 8: count: invalid value; expected u8",
            ),
            (
                "count: 300\n",
                "line 1 column 8: count: invalid value; expected u8",
            ),
            (
                "CANARY: 1\n",
                "line 1 column 1: unknown key; the keys here are user, count, list, by_name, mode",
            ),
            (
                "user: {pasword: CANARY}\n",
                "line 1 column 8: user: unknown key; did you mean password?",
            ),
            (
                "list:\n- password: a\n- CANARY: b\n",
                "line 3 column 3: list[1]: unknown key; the keys here are password",
            ),
            (
                "by_name:\n  CANARY: {password: [1]}\n",
                "line 2 column 22: by_name.*.password: expected a single value here, not a list or a map",
            ),
            (
                "mode: CANARY\n",
                "line 1 column 7: mode: unknown value; write one of on, off",
            ),
            (
                "user: {}\n",
                "line 1 column 7: user: the key password is missing",
            ),
        ] {
            assert_eq!(slip(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn no_content_is_in_an_error_of_the_syntax() {
        for text in [
            "CANARY",
            "- CANARY",
            "user: {password: 'CANARY}",
            "user:\n\tpassword: CANARY\n",
            "user: \"CANARY\\q\"",
            "user: \"\\xCANARY\"",
            "user: *CANARY",
            "user: &CANARY {password: *CANARY}",
            "user: !CANARY x",
            "user: %CANARY",
            "user: @CANARY",
            "user: `CANARY`",
            "user:\n  password: a\n  password: CANARY\n",
            "CANARY: 1\nCANARY: 2\n",
            "user: {password: a}\n---\nCANARY\n",
            "user:\n  password: CANARY\n password: x\n",
            "user: {password: a, password: CANARY",
            "{CANARY",
            "? CANARY",
            "user: |CANARY\n",
            "user: {password: a: CANARY: b}",
            "<<: CANARY\n",
            "%CANARY\n---\na: b\n",
            "count: !!int CANARY\n",
            "count: 1.5CANARY\n",
            "mode: {CANARY: 1}\n",
            "mode: [CANARY]\n",
            "by_name: {CANARY: CANARY}\n",
            "by_name: {[CANARY]: 1}\n",
        ] {
            let shown = slip(text).to_string();
            assert!(!shown.contains("CANARY"), "{text}: {shown}");
        }
    }
}
