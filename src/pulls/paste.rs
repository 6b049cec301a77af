//! Splits pasted text into error messages: Events as kubectl prints them, logs of the kubelet and of runtimes,
//! output of crictl, ctr, nerdctl, docker, podman, skopeo and BuildKit. Pure, and linear in the length of the
//! text.

use super::wrapped::image_of;
use crate::model::reference::Reference;

/// The maximum length of a pasted text, in bytes.
pub const MOST_PASTED: usize = 256 * 1024;

/// A message of a pasted text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pasted {
    /// The reason of an Event.
    pub reason: Option<String>,
    /// The node that reports it.
    pub node: Option<String>,
    /// The image that a log line names beside its error.
    pub image: Option<String>,
    /// The message.
    pub text: String,
    /// What a log line's `msg` has, if `text` is that of its error.
    pub beside: Option<String>,
}

/// The messages of a text, in order.
pub fn messages(text: &str) -> Vec<Pasted> {
    let lines: Vec<&str> = text.lines().collect();
    let widest = lines
        .iter()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or_default();
    let mut all: Vec<Pasted> = Vec::new();
    let (mut node, mut image) = (None, None);
    let mut is_open = false;
    let (mut last_width, mut ended_blank) = (0, false);
    for line in &lines {
        let width = line.chars().count();
        let plain = without_escapes(line);
        let trimmed = plain
            .trim_start_matches(['│', '|', '┃', ' ', '\t', '`'])
            .trim_end();
        if let Some(name) = node_of(trimmed) {
            node = Some(name);
        }
        if is_noise(trimmed) && !is_failure(trimmed) {
            if trimmed.starts_with("Unable to find image") {
                image = image.or_else(|| image_of(trimmed));
            }
            is_open = is_open && !trimmed.is_empty();
            last_width = 0;
            continue;
        }
        let record = record(trimmed);
        let is_begun = is_open && !record.is_start;
        match all.last_mut().filter(|_| is_begun) {
            Some(before) => {
                // A terminal breaks lines at its width, also within a word.
                let is_broken = last_width >= LEAST_WIDTH
                    && last_width == widest
                    && !line.starts_with([' ', '\t']);
                if !is_broken || ended_blank {
                    before.text.push(' ');
                }
                before.text.push_str(trimmed);
            }
            None => all.push(record.pasted),
        }
        is_open = true;
        last_width = width;
        ended_blank = line.ends_with([' ', '\t']);
    }
    for one in &mut all {
        finish(one);
        if one.node.is_none() {
            one.node.clone_from(&node);
        }
    }
    name_the_only_image(&mut all, image);
    all
}

/// Lines of one pull name its image once: the others are about the same.
fn name_the_only_image(all: &mut [Pasted], image: Option<String>) {
    let mut images = all.iter().filter_map(|one| one.image.clone()).chain(image);
    let Some(first) = images.next() else {
        return;
    };
    let whole = |image: &str| image.parse::<Reference>().map(|image| image.to_string());
    let name = whole(&first);
    if images.all(|other| other == first || (name.is_ok() && whole(&other) == name)) {
        for one in all.iter_mut().filter(|one| one.image.is_none()) {
            one.image = Some(first.clone());
        }
    }
}

/// Shorter lines are not broken by a terminal.
const LEAST_WIDTH: usize = 60;

/// A line without ANSI escapes.
fn without_escapes(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        if c != '\u{1b}' {
            kept.push(c);
            continue;
        }
        // `ESC [ … letter`
        if characters.next() == Some('[') {
            for c in characters.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        }
    }
    kept
}

/// `Node: node-1/10.0.0.1`, or `Successfully assigned shop/app to node-1`.
fn node_of(line: &str) -> Option<String> {
    let name = if let Some(rest) = line.strip_prefix("Node:") {
        rest.trim().split('/').next()?
    } else {
        let (_, rest) = line.split_once("Successfully assigned ")?;
        rest.split_once(" to ")?.1.split_whitespace().next()?
    };
    is_node_name(name).then(|| name.to_owned())
}

fn is_node_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

/// Whether an error follows on the line of a progress: `unpacking IMAGE (DIGEST)...time="…" level=… error="…"`.
fn is_failure(line: &str) -> bool {
    [
        "error=\"",
        "err=\"",
        "rpc error",
        "failed to ",
        "level=error",
        "level=fatal",
    ]
    .iter()
    .any(|words| line.contains(words))
}

/// Lines that are no part of a message: headings, rulers, progress, blank lines.
fn is_noise(line: &str) -> bool {
    const BEGINS: [&str; 16] = [
        "Unable to find image",
        "LAST SEEN",
        "FirstSeen",
        "Events:",
        "Using default tag",
        "Digest: ",
        "Status: ",
        "elapsed:",
        "unpacking ",
        "Node:",
        "Image is up to date",
        "Getting image source signatures",
        "Copying blob ",
        "Copying config ",
        "Writing manifest",
        "exit status ",
    ];
    const ENDS: [&str; 8] = [
        "Pull complete",
        "Already exists",
        "Pulling fs layer",
        "Download complete",
        "Verifying Checksum",
        "Extracting",
        "Waiting",
        "Pulling",
    ];
    let is_ruler = line
        .chars()
        .all(|c| matches!(c, '-' | '=' | ' ' | '\t' | '.' | '_'));
    let is_heading =
        line.starts_with("Type") && line.contains("Reason") && line.contains("Message");
    let is_progress = line.contains("|++++") || line.contains("[====") || line.contains("=>  ");
    // docker compose cancels the other pulls of one that fails.
    let is_of_others =
        line.starts_with("✔ ") || (line.starts_with("✘ ") && line.contains("context canceled"));
    is_ruler
        || is_of_others
        || line == ", error: exit status 1"
        || is_heading
        || is_progress
        || BEGINS.iter().any(|begin| line.starts_with(begin))
        || (line.len() < 60 && ENDS.iter().any(|end| line.ends_with(end)))
}

// ---- lines --------------------------------------------------------------------------------------

struct Record {
    /// The line begins a message.
    is_start: bool,
    pasted: Pasted,
}

fn start(text: &str) -> Record {
    Record {
        is_start: true,
        pasted: Pasted {
            text: text.to_owned(),
            ..Pasted::default()
        },
    }
}

/// How lines begin that begin a message.
const STARTS: [&str; 34] = [
    "✘ ",
    "[WARNING ImagePull]",
    "[ERROR ImagePull]",
    "Cancel pulling image",
    "Error response from daemon",
    "Error: ",
    "error: ",
    "ERROR: ",
    "Error ",
    "ERRO",
    "ctr: ",
    "docker: ",
    "Failed to ",
    "Back-off pulling image",
    "Container image \"",
    "Unable to retrieve",
    "rpc error: ",
    "[rpc error: ",
    "time=\"",
    "level=",
    "{\"",
    "Trying to pull ",
    "failed to pull and unpack image ",
    "failed to solve: ",
    "failed to register layer",
    "initializing source ",
    "Pulling from ",
    "ErrImagePull",
    "ImagePullBackOff",
    "Message:",
    "Reason:",
    "message: ",
    "reason: ",
    "$ ",
];

/// What a line begins, if it begins a message.
fn record(line: &str) -> Record {
    if let Some(found) = syslog(line) {
        return found;
    }
    if let Some(rest) = klog(line).or_else(|| leveled(line)) {
        return start(rest);
    }
    if let Some(found) = event(line) {
        return found;
    }
    if STARTS.iter().any(|begin| line.starts_with(begin)) || is_step(line) {
        let body = ["Message:", "message: ", "$ "]
            .iter()
            .find_map(|key| line.strip_prefix(key))
            .unwrap_or(line);
        return start(body.trim());
    }
    Record {
        is_start: false,
        ..start(line)
    }
}

/// BuildKit's `#5 ERROR: …`, ` => ERROR [internal] …`.
fn is_step(line: &str) -> bool {
    line.starts_with("=> ")
        || line.starts_with("> [")
        || line
            .strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// `E1117 23:31:29.830527    2326 remote_image.go:238] "…" err="…"`
fn klog(line: &str) -> Option<&str> {
    let bytes = line.as_bytes();
    let is_head = bytes.len() > 6
        && matches!(bytes[0], b'I' | b'W' | b'E' | b'F')
        && bytes[1..5].iter().all(u8::is_ascii_digit)
        && bytes[5] == b' ';
    let (_, rest) = line.split_once("] ").filter(|_| is_head)?;
    Some(rest)
}

/// logrus on a terminal: `FATA[0000] …`
fn leveled(line: &str) -> Option<&str> {
    let level = line.get(..4)?;
    let is_level = ["FATA", "ERRO", "WARN", "INFO", "DEBU"].contains(&level);
    let (_, rest) = line
        .split_once(']')
        .filter(|_| is_level && line[4..].starts_with('['))?;
    Some(rest.trim_start())
}

/// `Dec 01 10:00:00 node-1 kubelet[812]: …`, and the same with another time.
fn syslog(line: &str) -> Option<Record> {
    let (head, rest) = line.split_once("]: ")?;
    let (head, pid) = head.rsplit_once('[')?;
    let is_process = head.len() < 200 && !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
    let mut words = head.split_whitespace().rev();
    let _process = words.next().filter(|_| is_process)?;
    let node = words.next()?;
    let _time = words.next()?;
    let mut inner = record(rest.trim_start());
    inner.is_start = true;
    inner.pasted.node = Some(node.to_owned()).filter(|node| is_node_name(node));
    Some(inner)
}

/// An Event in a line of `kubectl describe` or `kubectl get events`.
fn event(line: &str) -> Option<Record> {
    const MESSAGES: [&str; 14] = [
        "(combined from similar events)",
        "Failed to ",
        "Failed create ",
        "Back-off ",
        "Error: ",
        "Error syncing pod",
        "Container image ",
        "Unable to retrieve",
        "Pulling image ",
        "pulling image ",
        "Successfully ",
        "error killing pod",
        "rpc error: ",
        "Created ",
    ];
    let kinds = ["Warning", "Normal"];
    let mut words = line.split_whitespace();
    let mut before = words
        .by_ref()
        .take(14)
        .take_while(|word| !kinds.contains(word));
    let skipped = before.by_ref().count();
    let reason = words.next()?;
    let is_reason = skipped < 13
        && reason.starts_with(|c: char| c.is_ascii_uppercase())
        && reason.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_reason {
        return None;
    }
    let at = line.find(reason)? + reason.len();
    let rest = &line[at..];
    let words = MESSAGES.iter().filter_map(|words| rest.find(words)).min();
    // Columns are separated by two blanks or more.
    let column = || rest.rfind("  ").map(|at| at + 2);
    let begin = words.or_else(column).unwrap_or_default();
    let (columns, message) = rest.split_at(begin);
    let mut found = start(message.trim());
    let node = columns.split_once("kubelet, ").map(|(_, node)| node);
    found.pasted.node = node
        .and_then(|node| node.split_whitespace().next())
        .filter(|node| is_node_name(node))
        .map(str::to_owned);
    found.pasted.reason = Some(reason.to_owned());
    Some(found)
}

// ---- log fields ---------------------------------------------------------------------------------

/// Takes the error out of the fields of a log line: `msg="…" error="…"`, `"…" err="…" image="…"`, JSON.
fn finish(one: &mut Pasted) {
    let text = one.text.trim();
    let error = [
        "err=\"",
        "error=\"",
        "\"err\":\"",
        "\"error\":\"",
        "\"error\": \"",
    ]
    .iter()
    .find_map(|key| field(text, key));
    let message = || {
        ["msg=\"", "\"msg\":\"", "\"message\":\"", "\"message\": \""]
            .iter()
            .find_map(|key| field(text, key))
    };
    let name = ["image=\"", "\"image\":\""]
        .iter()
        .find_map(|key| field(text, key));
    one.image = name.or_else(|| image_of(text));
    if let Some(inner) = error {
        // klog: the message is first, in quotes.
        let first = || text.starts_with('"').then(|| field(text, "\""))?;
        one.beside = message().or_else(first);
        one.text = inner;
    } else if let Some(inner) = message() {
        one.text = inner;
    } else {
        one.text = unquoted(text).to_owned();
    }
}

/// The value of a quoted field, without its escapes.
fn field(text: &str, key: &str) -> Option<String> {
    let at = text.match_indices(key).map(|(at, _)| at).find(|at| {
        // `err=` is also the end of another key.
        let before = text[..*at].chars().next_back();
        key.starts_with('"') || before.is_none_or(|c| c.is_whitespace() || c == ',')
    })?;
    let mut value = String::new();
    let rest = &text[at + key.len()..];
    let mut characters = rest.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            // Quotes within a value may have lost their escapes.
            '"' if is_end_of_field(&rest[at + 1..]) => return Some(value),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => {}
                other => {
                    if !matches!(other, '"' | '\\' | '/') {
                        value.push('\\');
                    }
                    value.push(other);
                }
            },
            c => value.push(c),
        }
    }
    // The end of the line was not pasted.
    Some(value)
}

/// Whether a quote ends the value of a field, by what follows it.
fn is_end_of_field(rest: &str) -> bool {
    // `": dial tcp …` follows a URL or an image, and no field.
    !rest.starts_with(|c: char| c == ':' || c.is_alphanumeric() || c == '/')
        && !rest.starts_with('"')
        || rest.starts_with("\" ")
}

/// A text that is quoted as a whole.
fn unquoted(text: &str) -> &str {
    let inner = |quote: char| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        (!inner.contains(quote)).then_some(inner)
    };
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}
