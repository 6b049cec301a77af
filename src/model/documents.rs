//! Reads the documents of a Kubernetes manifest file: YAML or JSON, one or several, in any Unicode encoding.
//!
//! What is legal is what kubectl takes: of a key that is given twice the last value counts, and aliases may be used as
//! often as PyYAML writes them. `tests/data/kubectl.json` has kubectl's own answers.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use schemars::JsonSchema;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Error, NonFiniteFloatPolicy, Options};

use super::text::printable;

/// One document of a file.
#[derive(Debug)]
pub struct Document {
    /// Its content, without what no reader needs.
    pub value: Value,
    /// Paths of keys that are given more than once; the last value counts.
    pub duplicates: Vec<String>,
}

/// What a file's reader has to say about a part of it beside the images and Secrets that it found.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ManifestNote {
    /// What it means for the result.
    pub kind: NoteKind,
    /// The file and, if it has several, the document in it.
    pub place: String,
    /// What is wrong or was passed over, in words that repeat nothing secret.
    pub text: String,
}

/// What a note on a manifest means for the result.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// An image, an object or a document that could not be read: the result is unknown for it.
    Unread,
    /// It was read, though something in it is probably a mistake.
    Warning,
    /// It has no image to check.
    PassedOver,
}

impl NoteKind {
    /// The word before the note.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unread => "not read",
            Self::Warning => "warning",
            Self::PassedOver => "passed over",
        }
    }
}

impl fmt::Display for ManifestNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Returns the documents in the order of the file; those without content are left out. A document that can't be read
/// is an error of its own, and the others are read.
///
/// # Errors
///
/// If the file is not text. No error repeats the content, which may be a Secret.
pub fn read_each(bytes: &[u8]) -> Result<Vec<Result<Document, String>>, String> {
    let text = decode(bytes)?;
    let is_json = text.trim_start().starts_with(['{', '[']);
    // kubectl writes JSON that some YAML readers reject.
    if is_json && let Some(documents) = of_json(&text) {
        return Ok(documents);
    }
    let chunks = split(&text);
    let documents = chunks.map(|(line, chunk)| of_yaml(chunk, line));
    let is_empty =
        |one: &Result<Document, String>| one.as_ref().is_ok_and(|one| one.value.is_null());
    Ok(documents.filter(|one| !is_empty(one)).collect())
}

/// The documents of a file that has to be right as a whole.
///
/// # Errors
///
/// If any of it can't be read. The error never repeats the content, which may be a Secret.
pub fn read(bytes: &[u8]) -> Result<Vec<Value>, String> {
    let documents = read_each(bytes)?;
    documents.into_iter().map(|one| Ok(one?.value)).collect()
}

/// The text of a file: UTF-8, or UTF-16 as PowerShell's redirection writes it, with or without a byte order mark.
fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units = pairs.iter().map(|pair| unit(*pair));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        match text {
            Ok(text) if rest.is_empty() => Ok(Cow::Owned(text)),
            _ => {
                Err("it begins as UTF-16 and is not UTF-16 throughout; save it as UTF-8".to_owned())
            }
        }
    };
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            Err("it is UTF-32; save it as UTF-8".to_owned())
        }
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        // Without a mark: the first character of a manifest is an ASCII one.
        [1..=0x7f, 0, _, ..] => wide(bytes, u16::from_le_bytes),
        [0, 1..=0x7f, _, ..] => wide(bytes, u16::from_be_bytes),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            match String::from_utf8_lossy(bytes) {
                // kubectl takes the bytes of another encoding in a comment, for instance.
                Cow::Owned(_) if bytes.contains(&0) => Err("it is not text in UTF-8".to_owned()),
                text => Ok(text),
            }
        }
    }
}

/// One JSON document, or several without anything between them. `None`: it is not JSON, but may be YAML.
fn of_json(text: &str) -> Option<Vec<Result<Document, String>>> {
    let mut documents = Vec::new();
    let mut rest = text;
    while !rest.trim_start().is_empty() {
        let mut json = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        let is_whole = json.next().is_some_and(|one| one.is_ok());
        let (document, after) = rest.split_at(json.byte_offset());
        if is_whole {
            let mut notes = Notes::default();
            let mut json = serde_json::Deserializer::from_str(document);
            let value = Node::root(&mut notes).deserialize(&mut json).ok()?;
            documents.push(Ok(notes.document(value)));
            rest = after;
        } else if documents.is_empty() || !rest.trim_start().starts_with('{') {
            return None;
        } else {
            let blank = rest.len() - rest.trim_start().len();
            let line = line_at(text, text.len() - rest.len() + blank);
            documents.push(Err(format!(
                "it can't be read as JSON; it begins at line {line}"
            )));
            break;
        }
    }
    Some(documents)
}

/// The number of the line that has this byte.
fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The parts of a YAML stream between lines of `---`, each with the number of its first line. Such a line can't be
/// part of any content (YAML 1.2.2, 9.1.2), so one bad document does not end the others.
fn split(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_marker = |line: &str, marker: &str| {
        let rest = line.strip_prefix(marker);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    };
    let mut chunks = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    // What follows `...` belongs to no document; kubectl does not read it.
    let mut end = None;
    // Directives precede the marker of their document.
    let mut is_prologue = false;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line, "---") && !is_prologue {
            chunks.push((first, &text[start..end.unwrap_or(at)]));
            (start, first, end) = (at, index + 1, None);
        } else if is_marker(line, "...") && end.is_none() {
            end = Some(at);
        }
        let is_blank = line.trim().is_empty() || line.starts_with('#');
        is_prologue = line.starts_with('%') && text[start..at].trim().is_empty()
            || is_prologue && (is_blank || line.starts_with('%'));
        at += line.len();
    }
    chunks.push((first, &text[start..end.unwrap_or(text.len())]));
    chunks.into_iter()
}

fn of_yaml(text: &str, line: usize) -> Result<Document, String> {
    let mut notes = Notes::default();
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| {
        Node::root(&mut notes).deserialize(yaml)
    });
    match read {
        Ok(value) => Ok(notes.document(value)),
        Err(error) => Err(reason(&error, line, text)),
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            // The size of the file is the limit of what it holds itself; these limit what it stands for.
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_aliases: usize::MAX,
            max_anchors: usize::MAX,
            max_recorded_anchor_events: MAX_REPLAYED,
            max_recorded_anchor_bytes: MAX_ANCHORED,
            max_depth: MAX_DEPTH,
            // The scanner is ahead of the depth that is counted.
            flow_nesting_limit: 8 * MAX_DEPTH,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
        },
        // Otherwise 33 lines of comments between a key and its value are an error.
        emit_comments: false,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

/// Upper bound for values that aliases stand for, in all.
const MAX_REPLAYED: usize = 1_000_000;

/// Upper bound for the text of values that have an anchor, in bytes.
const MAX_ANCHORED: usize = 64 << 20;

/// Upper bound for levels of maps and lists.
const MAX_DEPTH: usize = 64;

/// Why a document can't be read. The parser's message and its snippet may repeat the content; its line number does
/// not. `first` is the document's first line.
fn reason(error: &Error, first: usize, text: &str) -> String {
    let inner = match error {
        Error::AliasError { error, .. } => error,
        other => other,
    };
    let at = error.location().map_or_else(String::new, |location| {
        let line = usize::try_from(location.line()).unwrap_or(usize::MAX);
        format!(", at line {}", line.saturating_add(first - 1))
    });
    let limit = match inner {
        Error::AliasReplayLimitExceeded { .. } => Some(format!(
            "its aliases stand for more than {MAX_REPLAYED} values"
        )),
        Error::AliasReplayStackDepthExceeded { max_depth, .. } => Some(format!(
            "its aliases are nested more than {max_depth} levels deep"
        )),
        Error::Budget { breach, .. } => Some(match breach {
            BudgetBreach::Depth { .. } => format!("it is nested more than {MAX_DEPTH} levels deep"),
            BudgetBreach::MergeKeys { merge_keys } => {
                format!(
                    "it has more than {} merge keys (<<)",
                    merge_keys.saturating_sub(1)
                )
            }
            _ => format!(
                "its anchors hold more than {MAX_REPLAYED} values or {} MiB",
                MAX_ANCHORED >> 20
            ),
        }),
        _ => None,
    };
    if let Some(limit) = limit {
        return format!("it is too large to be read{at}: {limit}");
    }
    // Unquoted, `{{ .Values.image }}` is a map with a map as its key.
    let is_template = text.contains("{{") && text.contains("}}");
    let template = if is_template {
        "; it has '{{ }}': if it is a Helm template, pass what `helm template` prints"
    } else {
        ""
    };
    format!("it can't be read as YAML{at}{template}")
}

/// Fields of containers in which no reader is interested, and which are most of a manifest's size.
const BULK: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "volumeDevices",
    "volumeMounts",
];

/// The same of `metadata`, where `kubectl get` repeats all of the object.
const BULK_OF_METADATA: &[&str] = &["labels", "managedFields", "ownerReferences"];

/// The annotation of `kubectl apply`, which does so, too.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Paths of duplicate keys that are kept of a document.
const MAX_DUPLICATES: usize = 20;

/// What is noted while a document is read.
#[derive(Default)]
struct Notes {
    path: Vec<Step>,
    duplicates: Vec<String>,
}

enum Step {
    Key(String),
    Index(usize),
}

impl Notes {
    fn document(self, value: Value) -> Document {
        let duplicates = self.duplicates;
        Document { value, duplicates }
    }

    /// The path as the API server writes it: `spec.containers[0].image`.
    fn shown(&self, key: &str) -> String {
        let mut shown = String::new();
        for step in &self.path {
            // Writing to a String does not fail.
            let _ = match step {
                Step::Key(key) => write!(shown, "{}.", printable(key)),
                Step::Index(index) => {
                    shown.pop();
                    write!(shown, "[{index}].")
                }
            };
        }
        shown + &printable(key)
    }

    fn duplicate(&mut self, key: &str) {
        let path = self.shown(key);
        if self.duplicates.len() < MAX_DUPLICATES && !self.duplicates.contains(&path) {
            self.duplicates.push(path);
        }
    }

    /// Whether no reader needs the value of this key.
    fn is_bulk(&self, key: &str) -> bool {
        match self.path.as_slice() {
            [.., Step::Key(list), Step::Index(_)] if list.ends_with("ontainers") => {
                BULK.contains(&key)
            }
            [.., Step::Key(parent)] if parent == "metadata" => BULK_OF_METADATA.contains(&key),
            [.., Step::Key(parent)] if parent == "annotations" => key == LAST_APPLIED,
            [] => key == "status",
            [Step::Key(items), Step::Index(_)] if items == "items" => key == "status",
            _ => false,
        }
    }
}

/// Reads one value. If it is not kept, only its duplicate keys are noted.
struct Node<'a> {
    notes: &'a mut Notes,
    is_kept: bool,
}

impl<'a> Node<'a> {
    fn root(notes: &'a mut Notes) -> Self {
        Self {
            notes,
            is_kept: true,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(if self.is_kept {
            Value::String(value.to_owned())
        } else {
            Value::Null
        })
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(if self.is_kept {
            Value::String(value)
        } else {
            Value::Null
        })
    }

    fn visit_bytes<E: serde::de::Error>(self, value: &[u8]) -> Result<Value, E> {
        self.visit_str(&String::from_utf8_lossy(value))
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        for index in 0.. {
            self.notes.path.push(Step::Index(index));
            let seed = Node {
                notes: &mut *self.notes,
                is_kept: self.is_kept,
            };
            let value = list.next_element_seed(seed)?;
            self.notes.path.pop();
            match value {
                Some(value) if self.is_kept => values.push(value),
                Some(_) => {}
                None => break,
            }
        }
        Ok(if self.is_kept {
            Value::Array(values)
        } else {
            Value::Null
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if values.contains_key(&key) {
                self.notes.duplicate(&key);
            }
            let is_kept = self.is_kept && !self.notes.is_bulk(&key);
            self.notes.path.push(Step::Key(key));
            let seed = Node {
                notes: &mut *self.notes,
                is_kept,
            };
            let value = map.next_value_seed(seed)?;
            if let Some(Step::Key(key)) = self.notes.path.pop() {
                values.insert(key, value);
            }
        }
        Ok(if self.is_kept {
            Value::Object(values)
        } else {
            Value::Null
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(bytes: &[u8]) -> Vec<Value> {
        read(bytes).unwrap()
    }

    /// The error of each document that can't be read.
    fn errors(text: &str) -> Vec<String> {
        let all = read_each(text.as_bytes()).unwrap().into_iter();
        all.filter_map(Result::err).collect()
    }

    #[test]
    fn any_encoding_of_unicode_is_read() {
        let text = "kind: Pod # ü\n";
        let want = [json!({"kind": "Pod"})];
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (mark, content) in [
            (&b""[..], text.as_bytes()),
            (b"\xef\xbb\xbf", text.as_bytes()),
            (b"\xff\xfe", &little),
            (b"\xfe\xff", &big),
            (b"", &little),
            (b"", &big),
        ] {
            assert_eq!(values(&[mark, content].concat()), want);
        }
        assert_eq!(values(b"\xef\xbb\xbf{\"kind\": \"Pod\"}"), want);
        for (bytes, part) in [
            (&b"\xff\xfea"[..], "is not UTF-16 throughout"),
            (b"\xff\xfe\x00\xd8", "is not UTF-16 throughout"),
            (b"\xff\xfe\0\0a\0\0\0", "UTF-32"),
            (b"\x7fELF\xff\0", "not text in UTF-8"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_bad_document_leaves_the_others() {
        let text = "%YAML 1.1\n# first\n---\na: 1\n--- # second\nb: [\n---\n\n---\nc: |\n  ---\n...\nnot read\n---\nd: 4\n";
        let read = read_each(text.as_bytes()).unwrap();
        let found: Vec<_> = read
            .iter()
            .map(|one| one.as_ref().map(|one| one.value.clone()))
            .collect();
        let error = "it can't be read as YAML, at line ";
        assert_eq!(found[0], Ok(json!({"a": 1})));
        assert!(found[1].clone().unwrap_err().starts_with(error));
        assert_eq!(found[2], Ok(json!({"c": "---\n"})));
        assert_eq!(found[3], Ok(json!({"d": 4})));
        assert_eq!(found.len(), 4);
        // The line is the file's, not the document's.
        assert_eq!(errors("a: 1\n---\nb: 2\nc: : d\n"), [format!("{error}4")]);
        assert_eq!(
            errors("{\"a\": 1}\n{\"b\":\n 1,}\n"),
            ["it can't be read as JSON; it begins at line 2"]
        );
        assert_eq!(values(b"{\"a\": 1}\n{\"b\": 2}").len(), 2);
        assert_eq!(values(b"{\"a\": 1}\n---\n{\"b\": 2}").len(), 2);
    }

    #[test]
    fn of_a_key_given_twice_the_last_value_counts_and_its_path_is_noted() {
        for text in [
            "spec:\n  containers:\n  - image: a\n    image: b\n    env: [{name: a, name: b}]\n",
            "{\"spec\": {\"containers\": [{\"image\": \"a\", \"image\": \"b\", \"env\": [{\"name\": 1, \"name\": 2}]}]}}",
        ] {
            let read = read_each(text.as_bytes()).unwrap().remove(0).unwrap();
            assert_eq!(read.value["spec"]["containers"][0]["image"], "b");
            assert_eq!(
                read.duplicates,
                ["spec.containers[0].image", "spec.containers[0].env[0].name"]
            );
        }
    }

    #[test]
    fn aliases_are_read_as_often_as_pyyaml_writes_them_and_also_of_what_is_dropped() {
        let mut text = "containers:\n- image: &i a\n  env: &e [{name: &n x}]\n".to_owned();
        for _ in 0..5_000 {
            text += "- {image: *i, env: *e, name: *n}\n";
        }
        let read = values(text.as_bytes());
        let last = &read[0]["containers"][5_000];
        assert_eq!((&last["image"], &last["name"]), (&json!("a"), &json!("x")));
        assert_eq!(last["env"], Value::Null);
    }

    #[test]
    fn a_limit_is_named() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let of = format!("*a{}", level - 1);
            let of = [of.as_str(); 10].join(", ");
            writeln!(bomb, "a{level}: &a{level} [{of}]").unwrap();
        }
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for (text, part) in [
            (bomb, "more than 1000000 values"),
            (deep, "levels deep"),
            (
                "a: {{ .Values.a }}\n".to_owned(),
                "pass what `helm template` prints",
            ),
        ] {
            let error = errors(&text).remove(0);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn comments_may_have_any_length() {
        for before in [
            "metadata:\n",
            "metadata:\n  labels: {}\n",
            "",
            "metadata: {\n",
        ] {
            let comments = "  # image: a\n".repeat(2_000);
            let end = if before.ends_with("{\n") { "}" } else { "" };
            let text = format!("{before}{comments}  name: b\n{end}");
            let read = values(text.as_bytes()).remove(0);
            let name = read.pointer("/metadata/name").or(read.get("name"));
            assert_eq!(name, Some(&json!("b")), "{before}");
        }
    }

    #[test]
    fn numbers_are_as_they_can_be_and_no_document_fails_by_them() {
        let text = "a: .inf\nb: 1e999\nc: 123456789012345678901234567890\nd: 1.5\n1: x\n";
        let read = values(text.as_bytes()).remove(0);
        assert_eq!((&read["d"], &read["1"]), (&json!(1.5), &json!("x")));
    }
}
