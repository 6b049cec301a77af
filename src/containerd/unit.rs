//! The environment of containerd's service: systemd's units, drop-ins and environment files, with the rules of
//! systemd's parsers (systemd.syntax(7), systemd.exec(5)), which drop what they can't read and continue. Pure.

use crate::model::proxy::IgnoredVariable;
use crate::model::text::printable;
use crate::redact::Secret;

/// The variables that files set, in order (later ones win), and further files that they name.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    /// The values may be passwords.
    pub variables: Vec<(String, Secret)>,
    /// The environment files that units name.
    pub includes: Vec<Include>,
    /// `UnsetEnvironment=`, which is applied last: names, or names with values.
    unset: Vec<Secret>,
    /// Lines about proxies that systemd drops.
    pub dropped: Vec<IgnoredVariable>,
    /// Where a unit takes proxies from systemd's own environment (`PassEnvironment=`).
    pub passed: Option<String>,
}

/// `EnvironmentFile=` of a unit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Include {
    /// The file.
    pub path: String,
    /// The path has the prefix `-`: the file is optional.
    pub may_be_absent: bool,
    /// The file that names it.
    pub of: String,
}

impl Environment {
    /// The value of a variable in the service.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        let (_, value) = self.variables.iter().rev().find(|(n, _)| n == name)?;
        let value = value.expose();
        let is_it = |unset: &Secret| match unset.expose().split_once('=') {
            None => unset.expose() == name,
            Some((of, text)) => of == name && text == value,
        };
        (!self.unset.iter().any(is_it)).then(|| value.to_owned())
    }

    /// Reads a unit or drop-in, or an environment file: one without sections and without `Environment=`.
    pub(super) fn read(&mut self, text: &str, of: &str) {
        let is_of_unit = |line: &str| {
            let line = line.trim_start_matches('\u{feff}').trim();
            line.starts_with('[')
                || line.starts_with("Environment=")
                || line.starts_with("EnvironmentFile=")
        };
        if text.lines().any(is_of_unit) {
            self.read_unit(text, of);
        } else {
            self.read_file(text, of);
        }
    }

    /// Records what systemd drops, if `line` names a proxy variable.
    fn drop(&mut self, line: &str, at: &Place<'_>, reason: &str, hint: &str) {
        let named = named(line);
        if !named.is_empty() {
            self.dropped.push(IgnoredVariable {
                variable: named.join(" and "),
                reason: format!("{}, line {}: {reason}", at.file, at.line),
                hint: format!(
                    "In line {} of {}, {hint}; then run `systemctl daemon-reload` and restart containerd.",
                    at.line, at.file
                ),
            });
        }
    }

    /// `config_parse`.
    fn read_unit(&mut self, text: &str, of: &str) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut section = None;
        for (number, line) in logical_lines(text) {
            let at = Place {
                file: of,
                line: number,
            };
            let line = line.trim_matches(BLANKS);
            if line.is_empty() {
                continue;
            }
            if let Some(header) = line.strip_prefix('[') {
                let Some(name) = header.strip_suffix(']') else {
                    // systemd reads no further.
                    self.drop(
                        text,
                        &at,
                        "systemd stops there, because the section's header has no ']' at its end",
                        "close the header with ']'",
                    );
                    return;
                };
                section = Some(name.to_owned());
                continue;
            }
            match section.as_deref() {
                Some("Service") => self.assign(line, &at),
                None => self.drop(
                    line,
                    &at,
                    "systemd ignores what precedes the first section",
                    "put [Service] in a line above it",
                ),
                Some(other) if sets_variables(line) && !other.starts_with("X-") => {
                    let reason = format!(
                        "systemd reads Environment= in [Service], not in [{}]",
                        printable(other)
                    );
                    self.drop(line, &at, &reason, "put [Service] in a line above it");
                }
                Some(_) => {}
            }
        }
    }

    /// One line of the section `[Service]`.
    fn assign(&mut self, line: &str, at: &Place<'_>) {
        let Some((key, value)) = line.split_once('=') else {
            self.drop(
                line,
                at,
                "the line has no '='",
                "write Environment=\"NAME=VALUE\"",
            );
            return;
        };
        let value = value.trim_matches(BLANKS);
        match key.trim_matches(BLANKS) {
            // An empty value takes back what was set before, in other files as well.
            "Environment" if value.is_empty() => self.variables.clear(),
            "Environment" => self.set(value, at),
            "EnvironmentFile" if value.is_empty() => self.includes.clear(),
            "EnvironmentFile" => {
                let path = value.strip_prefix('-').unwrap_or(value);
                if let Some(path) = expanded(path).filter(|path| path.starts_with('/')) {
                    self.includes.push(Include {
                        path,
                        may_be_absent: value.starts_with('-'),
                        of: at.file.to_owned(),
                    });
                } else {
                    self.drop(
                        "HTTPS_PROXY, NO_PROXY",
                        at,
                        "EnvironmentFile= has no absolute path, so systemd reads no file",
                        "write the whole path",
                    );
                }
            }
            "UnsetEnvironment" if value.is_empty() => self.unset.clear(),
            "UnsetEnvironment" => {
                let words = Words(value).map_while(Result::ok);
                self.unset
                    .extend(words.filter_map(|word| Some(Secret::new(expanded(&word)?))));
            }
            "PassEnvironment" if !named(value).is_empty() => {
                self.passed = Some(format!(
                    "{}, line {}: PassEnvironment= takes {} from systemd's own environment, which was not read",
                    at.file,
                    at.line,
                    named(value).join(" and ")
                ));
            }
            other if sets_variables(other) => {
                let reason = format!(
                    "systemd does not know the key {} in [Service]",
                    printable(other)
                );
                self.drop(line, at, &reason, "write Environment=\"NAME=VALUE\"");
            }
            _ => {}
        }
    }

    /// `config_parse_environ`: words in C-like escapes, in each of which specifiers are replaced.
    fn set(&mut self, value: &str, at: &Place<'_>) {
        for word in Words(value) {
            let Ok(word) = word else {
                self.drop(
                    value,
                    at,
                    "a quote is not closed, or a backslash is not followed by an escape that systemd knows; systemd drops the rest of the line",
                    "put the whole assignment in straight double quotes, and write a backslash as two",
                );
                return;
            };
            let Some(resolved) = expanded(&word) else {
                self.drop(
                    &word,
                    at,
                    "systemd takes '%' for the beginning of a specifier, does not know this one, and drops the variable",
                    "write each % as %%",
                );
                continue;
            };
            match resolved.split_once('=') {
                Some((name, value)) if is_name(name) => {
                    if resolved != word.replace("%%", "%") {
                        self.drop(
                            name,
                            at,
                            "systemd replaces a '%' of its value, as a specifier",
                            "write % as %% if a percent sign is meant",
                        );
                    }
                    let value = Secret::new(value.to_owned());
                    self.variables.retain(|(known, _)| known != name);
                    self.variables.push((name.to_owned(), value));
                }
                _ if self.continues_list(&word) => self.drop(
                    "NO_PROXY",
                    at,
                    "systemd drops what follows a blank, because the assignment has no quotes around it",
                    "put the whole assignment in quotes (\"NO_PROXY=a, b\"), or remove the blank",
                ),
                _ if let Some(name) = self.ends_early(&word) => self.drop(
                    name,
                    at,
                    "systemd drops what follows a blank, because the assignment has no quotes around it",
                    "put the whole assignment in double quotes, with a blank of the user or password as %%20",
                ),
                _ => {
                    let (reason, hint) = if word.contains(TYPOGRAPHIC) {
                        (
                            "typographic quotes are letters to systemd, which drops the assignment",
                            "write straight quotes (\")",
                        )
                    } else {
                        (
                            "this is no assignment to systemd, which drops it",
                            "write Environment=\"NAME=VALUE\", without blanks around the second '='",
                        )
                    };
                    self.drop(&word, at, reason, hint);
                }
            }
        }
    }

    /// Whether a word may be the rest of the last assignment, a list of hosts.
    fn continues_list(&self, word: &str) -> bool {
        let last = self.variables.last();
        let is_open = |(name, value): &(String, Secret)| {
            let is_list = value.expose().ends_with(',') || word.contains(['.', ',']);
            name.eq_ignore_ascii_case("no_proxy") && is_list
        };
        named(word).is_empty() && last.is_some_and(is_open)
    }

    /// The variable of the last assignment, if a word may be the rest of its proxy URL.
    fn ends_early(&self, word: &str) -> Option<&'static str> {
        let (name, value) = self.variables.last()?;
        let is_rest = word.contains('@') && !value.expose().contains('@') && named(word).is_empty();
        let name = named(name).into_iter().next()?;
        (is_rest && name != "NO_PROXY").then_some(name)
    }

    /// `parse_env_file`: a shell-like file, in which systemd replaces nothing.
    pub(super) fn read_file(&mut self, text: &str, of: &str) {
        for (line, key, value) in assignments(text) {
            if is_name(&key) {
                self.variables.push((key, Secret::new(value)));
                continue;
            }
            let at = Place { file: of, line };
            self.drop(
                &key,
                &at,
                "the name is not that of a variable, so systemd drops the line (`export` is not known there)",
                "write NAME=VALUE alone",
            );
        }
    }
}

/// Whether a line's key is meant to set variables: `Environment=`, something like it, or a variable itself.
fn sets_variables(line: &str) -> bool {
    let key = line.split('=').next().unwrap_or_default();
    let key = key.trim_matches(BLANKS).to_ascii_lowercase();
    key.starts_with("env") || key.ends_with("_proxy")
}

/// A line of a file.
struct Place<'a> {
    file: &'a str,
    line: usize,
}

/// systemd's `WHITESPACE`.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

const TYPOGRAPHIC: [char; 4] = ['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}'];

/// The proxy variables that a text names.
fn named(text: &str) -> Vec<&'static str> {
    let upper = text.to_ascii_uppercase().replace('-', "_");
    let names = ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY"];
    let is_named = |name: &&str| upper.contains(name);
    names.into_iter().filter(is_named).collect()
}

fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(is_letter)
}

/// The lines of a unit with their numbers. A line that ends in a backslash is joined to the next; comments between
/// them are left out.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start_matches(BLANKS).starts_with(['#', ';']) {
            continue;
        }
        match lines.last_mut().filter(|_| is_open) {
            Some((number, open)) => {
                open.push_str(line);
                *number = index + 1;
            }
            None => lines.push((index + 1, line.to_owned())),
        }
        let Some((_, last)) = lines.last_mut() else {
            continue;
        };
        let backslashes = last.len() - last.trim_end_matches('\\').len();
        is_open = backslashes % 2 == 1;
        if is_open {
            last.pop();
            last.push(' ');
        }
    }
    lines
}

/// `extract_first_word` with quotes and C escapes. An error ends the line.
struct Words<'a>(&'a str);

impl Iterator for Words<'_> {
    type Item = Result<String, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.trim_start_matches(BLANKS);
        if text.is_empty() {
            return None;
        }
        let mut word = Vec::new();
        let mut quote = None;
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match (quote, c) {
                (Some(q), c) if c == q => quote = None,
                (None, '"' | '\'') => quote = Some(c),
                (_, '\\') => {
                    let Some(length) = unescape(rest, &mut word) else {
                        self.0 = "";
                        return Some(Err(()));
                    };
                    rest = &rest[length..];
                }
                (None, c) if BLANKS.contains(&c) => break,
                (_, c) => word.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        self.0 = rest;
        if quote.is_some() {
            self.0 = "";
            return Some(Err(()));
        }
        Some(Ok(String::from_utf8_lossy(&word).into_owned()))
    }
}

/// `cunescape_one`: adds what an escape stands for, and returns its length after the backslash.
fn unescape(text: &str, word: &mut Vec<u8>) -> Option<usize> {
    let number = |from: usize, length: usize, radix: u32| {
        let digits = text.get(from..from + length)?;
        let is_digit = |c: char| c.is_digit(radix);
        digits
            .chars()
            .all(is_digit)
            .then(|| u32::from_str_radix(digits, radix).ok())?
    };
    let simple = |byte: u8| Some((vec![byte], 1));
    let character = |code: Option<u32>, length: usize| {
        let character = char::from_u32(code.filter(|code| *code > 0)?)?;
        Some((character.to_string().into_bytes(), length))
    };
    let byte = |code: Option<u32>, length: usize| {
        let byte = u8::try_from(code.filter(|code| *code > 0)?).ok()?;
        Some((vec![byte], length))
    };
    let (bytes, length) = match text.chars().next()? {
        'a' => simple(7),
        'b' => simple(8),
        'f' => simple(12),
        'n' => simple(b'\n'),
        'r' => simple(b'\r'),
        't' => simple(b'\t'),
        'v' => simple(11),
        's' => simple(b' '),
        c @ ('\\' | '"' | '\'') => simple(u8::try_from(c).ok()?),
        'x' => byte(number(1, 2, 16), 3),
        'u' => character(number(1, 4, 16), 5),
        'U' => character(number(1, 8, 16), 9),
        '0'..='7' => byte(number(0, 3, 8), 3),
        _ => None,
    }?;
    word.extend(bytes);
    Some(length)
}

/// `unit_env_printf`: replaces the specifiers of a service named containerd (systemd.unit(5)); `None` if one is not
/// known. Values that only the node has (its host name, its machine ID) are not the right ones.
fn expanded(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match characters.next() {
            None | Some('%') => out.push('%'),
            Some(c) if c.is_ascii_alphanumeric() => out.push_str(specifier(c)?),
            Some(c) => {
                out.push('%');
                out.push(c);
            }
        }
    }
    Some(out)
}

fn specifier(letter: char) -> Option<&'static str> {
    Some(match letter {
        'n' => "containerd.service",
        'N' | 'p' | 'P' | 'j' | 'J' => "containerd",
        'i' | 'I' => "",
        'f' => "/containerd",
        'u' | 'g' => "root",
        'U' | 'G' => "0",
        'h' => "/root",
        's' => "/bin/sh",
        't' => "/run",
        'S' => "/var/lib",
        'C' => "/var/cache",
        'L' => "/var/log",
        'E' => "/etc",
        'T' => "/tmp",
        'V' => "/var/tmp",
        'd' => "/run/credentials/containerd.service",
        'y' | 'Y' => "/etc/systemd/system",
        'a' | 'A' | 'b' | 'B' | 'H' | 'l' | 'm' | 'M' | 'o' | 'q' | 'v' | 'w' | 'W' => {
            "of-this-node"
        }
        _ => return None,
    })
}

/// `parse_env_file_internal`: the assignments of an environment file, with the lines on which they end.
fn assignments(text: &str) -> Vec<(usize, String, String)> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        BeforeKey,
        Key,
        BeforeValue,
        Value,
        Escape,
        Single,
        Double,
        DoubleEscape,
        Comment,
        CommentEscape,
    }
    let mut found = Vec::new();
    let (mut state, mut line) = (State::BeforeKey, 1);
    let (mut key, mut value) = (String::new(), String::new());
    // Blanks after this length are at the end of an unquoted value.
    let mut kept = 0;
    let is_end = |c: char| matches!(c, '\n' | '\r');
    for c in text.chars() {
        state = match state {
            State::BeforeKey if matches!(c, '#' | ';') => State::Comment,
            State::BeforeKey if BLANKS.contains(&c) => State::BeforeKey,
            State::BeforeKey => {
                key = c.to_string();
                value.clear();
                kept = 0;
                State::Key
            }
            State::Key if is_end(c) => State::BeforeKey,
            State::Key if c == '=' => State::BeforeValue,
            State::Key => {
                key.push(c);
                State::Key
            }
            State::BeforeValue | State::Value if is_end(c) => {
                value.truncate(kept);
                let key = key.trim_end_matches(BLANKS).to_owned();
                found.push((line, key, std::mem::take(&mut value)));
                State::BeforeKey
            }
            State::BeforeValue if c == '\'' => State::Single,
            State::BeforeValue if c == '"' => State::Double,
            State::BeforeValue | State::Value if c == '\\' => State::Escape,
            State::BeforeValue if BLANKS.contains(&c) => State::BeforeValue,
            State::BeforeValue | State::Value => {
                value.push(c);
                if !BLANKS.contains(&c) {
                    kept = value.len();
                }
                State::Value
            }
            State::Escape => {
                if !is_end(c) {
                    value.push(c);
                }
                kept = value.len();
                State::Value
            }
            State::Single if c == '\'' => State::BeforeValue,
            State::Double if c == '"' => State::BeforeValue,
            State::Double if c == '\\' => State::DoubleEscape,
            State::Single | State::Double => {
                value.push(c);
                kept = value.len();
                state
            }
            State::DoubleEscape => {
                if matches!(c, '"' | '\\' | '`' | '$') {
                    value.push(c);
                } else if c != '\n' {
                    value.extend(['\\', c]);
                }
                kept = value.len();
                State::Double
            }
            State::Comment if c == '\\' => State::CommentEscape,
            State::Comment | State::CommentEscape if is_end(c) => State::BeforeKey,
            State::Comment | State::CommentEscape => State::Comment,
        };
        line += usize::from(c == '\n');
    }
    if !matches!(
        state,
        State::BeforeKey | State::Key | State::Comment | State::CommentEscape
    ) {
        // The last line has no end, or a quote is not closed.
        value.truncate(kept);
        found.push((line, key.trim_end_matches(BLANKS).to_owned(), value));
    }
    found
}

#[cfg(test)]
mod tests;
