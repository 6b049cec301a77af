//! Secrets that can't print themselves, and scrubbing of text from the network.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::model::foreign::Source;
use crate::model::text::{hex, printable};

/// A password, a token, or a text made from one. It has no `Display` and is never serialized.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret; its memory is overwritten when it is dropped.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself, for the code that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is the empty text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secret as a header value that no library prints; `None` if it is not valid in a header.
    pub fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.0).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// The secrets in use, so that none gets into evidence if a server repeats it. Clones share what [`Self::hide`] adds: a
/// token that one connection gets is hidden in what all of them receive.
#[derive(Clone, Default)]
pub struct Scrubber {
    /// Every form that a server might repeat, the longest first: the encoded pair of user and password must be
    /// replaced before the password that it may contain.
    forms: Arc<Mutex<Vec<Secret>>>,
    /// Values that this clone alone hides: those of a signed query are often common words.
    own: Vec<Secret>,
}

impl Scrubber {
    /// Hides a password or token from now on, as it is and in the forms in which it is sent.
    pub fn hide(&self, secret: &Secret) {
        self.add(forms(secret.expose()));
    }

    /// Hides a password, and the pair as Basic authentication sends it (RFC 7617, 2).
    pub fn hide_login(&self, username: &str, password: &Secret) {
        if password.is_empty() {
            return;
        }
        self.hide(password);
        let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
        self.add(encoded(pair.as_bytes()).collect());
    }

    /// Hides a value in texts of this clone alone.
    pub fn hide_here(&mut self, secret: &Secret) {
        self.own.extend(with_lower_case(forms(secret.expose())));
        settle(&mut self.own);
    }

    /// Text as it may be shown: secrets hidden, control characters escaped, cut to 300 characters.
    pub fn clean(&self, text: &str) -> String {
        printable(&self.wash(text))
    }

    /// The same text with the secrets hidden and no other change.
    pub fn wash(&self, text: &str) -> String {
        let mut text = Cow::Borrowed(text);
        for form in self.lock().iter().chain(&self.own) {
            if is_in(&text, form.expose()) {
                text = Cow::Owned(hide_in(&text, form.expose()));
            }
        }
        text.into_owned()
    }

    /// A text of the other side as it enters evidence. Most were washed when they were received; this is where none is
    /// forgotten. `known` has the names that were there before anything was received: a password may be a common word.
    pub fn enter(&self, source: Source, text: &str, known: &str) -> String {
        if source == Source::Host {
            return self.wash_host(text, known);
        }
        // A fault in words may have first bytes as well.
        let washed = self.wash_bytes(text);
        match washed.strip_suffix('…') {
            Some(cut) => self.without_begun(cut) + "…",
            None => washed,
        }
    }

    /// A host's name is in lower case, whatever the server wrote.
    fn wash_host(&self, host: &str, known: &str) -> String {
        let mut host = Cow::Borrowed(host);
        let forms = self.lock();
        let all = forms.iter().map(Secret::expose);
        for form in all {
            if form.len() > host.len() {
                continue;
            }
            let form = form.to_ascii_lowercase();
            if is_in(&host, &form) && !known.contains(&form) {
                host = Cow::Owned(hide_in(&host, &form));
            }
        }
        host.into_owned()
    }

    /// A text that may have first bytes, as they are and in hexadecimal: they may end within a secret.
    fn wash_bytes(&self, text: &str) -> String {
        let is_secret = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let has_long = |form: &Secret| {
                let form = form.expose();
                form.len() >= SHORT && is_in(&text, form)
            };
            // A short secret stands in any bytes by chance.
            self.lock().iter().chain(&self.own).any(has_long) || self.without_begun(&text) != text
        };
        let words = text.split(|c: char| !c.is_ascii_hexdigit());
        // One byte is no secret.
        let mut words = words.filter(|word| word.len() > 2);
        if words.any(|word| unhex(word).is_some_and(|bytes| is_secret(&bytes))) {
            let own = text.split("; it begins with").next().unwrap_or_default();
            return if own.len() < text.len() { own } else { HIDDEN }.to_owned();
        }
        self.wash(text)
    }

    /// Hides the beginning of a secret at the end of a text that was cut.
    fn without_begun(&self, text: &str) -> String {
        for form in self.lock().iter() {
            let form = form.expose();
            let lengths = (SHORT..form.len().min(text.len() + 1)).rev();
            // Most end otherwise.
            let ends = |length: &usize| form.as_bytes().get(length - 1) == text.as_bytes().last();
            let mut begun = lengths.filter(ends).filter_map(|length| form.get(..length));
            if let Some(begun) = begun.find(|begun| text.ends_with(begun)) {
                return text[..text.len() - begun.len()].to_owned() + HIDDEN;
            }
        }
        text.to_owned()
    }

    fn add(&self, forms: Vec<Secret>) {
        let mut all = self.lock();
        all.extend(with_lower_case(forms));
        settle(&mut all);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Secret>> {
        self.forms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands for a secret.
const HIDDEN: &str = "***";

/// A secret in the forms in which a server may repeat it.
fn forms(text: &str) -> Vec<Secret> {
    if text.is_empty() {
        return Vec::new();
    }
    let quoted = serde_json::Value::from(text).to_string();
    let html = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let html = html.replace('"', "&#34;").replace('\'', "&#39;");
    let written = [
        text.to_owned(),
        percent_encoded(text, true),
        percent_encoded(text, false),
        url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
        quoted[1..quoted.len() - 1].to_owned(),
        html,
        text.escape_debug().to_string(),
        printable(text),
    ];
    let written = written.into_iter().map(Secret::new);
    written.chain(encoded(text.as_bytes())).collect()
}

/// The same forms in lower case as well: names of hosts, headers, schemes and platforms are read so.
fn with_lower_case(forms: Vec<Secret>) -> impl Iterator<Item = Secret> {
    forms.into_iter().flat_map(|form| {
        let lower = Secret::new(form.expose().to_ascii_lowercase());
        [form, lower]
    })
}

/// Bytes in base64 and in hexadecimal.
fn encoded(bytes: &[u8]) -> impl Iterator<Item = Secret> {
    let base64 = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
    let hex = hex(bytes);
    let hex = [hex.to_ascii_uppercase(), hex];
    base64
        .map(|engine| engine.encode(bytes))
        .into_iter()
        .chain(hex)
        .map(Secret::new)
}

fn unhex(word: &str) -> Option<Vec<u8>> {
    let digits = word.as_bytes().chunks(2);
    let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect()
}

fn settle(forms: &mut Vec<Secret>) {
    forms.sort_by(|a, b| {
        let by_length = b.expose().len().cmp(&a.expose().len());
        by_length.then_with(|| a.expose().cmp(b.expose()))
    });
    forms.dedup();
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scrubber({} forms)", self.lock().len())
    }
}

/// Whether a text contains a form of a secret. Most texts are shorter than most forms; a search prepares more than it takes
/// to look through one of some dozens of bytes.
fn is_in(text: &str, form: &str) -> bool {
    let (bytes, wanted) = (text.as_bytes(), form.as_bytes());
    let Some((first, last)) = wanted.first().zip(bytes.len().checked_sub(wanted.len())) else {
        return false;
    };
    if bytes.len() > LONG {
        return text.contains(form);
    }
    let mut places = bytes[..=last].iter().enumerate();
    places.any(|(at, byte)| byte == first && bytes[at..].starts_with(wanted))
}

/// Replaces a secret. A short one may be a common word or a part of it, so it is hidden only as a whole word;
/// otherwise the gaps in the text would reveal it.
fn hide_in(text: &str, form: &str) -> String {
    if form.len() >= SHORT {
        return text.replace(form, HIDDEN);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(form) {
        let before = rest[..at].chars().next_back().or(shown.chars().next_back());
        let after = rest[at + form.len()..].chars().next();
        shown.push_str(&rest[..at]);
        let joined = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        shown.push_str(if joined(before) || joined(after) {
            form
        } else {
            HIDDEN
        });
        rest = &rest[at + form.len()..];
    }
    shown + rest
}

/// RFC 3986, 2.1: everything but unreserved characters, the hexadecimal digits in either case.
fn percent_encoded(text: &str, upper: bool) -> String {
    use fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = if upper {
                write!(encoded, "%{byte:02X}")
            } else {
                write!(encoded, "%{byte:02x}")
            };
        }
    }
    encoded
}

/// In a text of more bytes, a search is worth its preparation.
const LONG: usize = 512;

/// Secrets of fewer bytes are hidden as whole words only.
const SHORT: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret:?} {:?}", Some(&secret)),
            "Secret(***) Some(Secret(***))"
        );
    }

    #[test]
    fn every_form_a_password_travels_in_is_hidden() {
        let password = "p@ss wörd/+\"";
        let scrub = Scrubber::default();
        scrub.hide_login("me", &Secret::new(password));
        for echoed in [
            password.to_owned(),
            "p%40ss%20w%C3%B6rd%2F%2B%22".to_owned(),
            "p%40ss%20w%c3%b6rd%2f%2b%22".to_owned(),
            "p%40ss+w%C3%B6rd%2F%2B%22".to_owned(),
            "p@ss wörd/+\\\"".to_owned(),
            STANDARD.encode(format!("me:{password}")),
            URL_SAFE_NO_PAD.encode(format!("me:{password}")),
            STANDARD.encode(password),
            hex(password.as_bytes()),
            hex(format!("me:{password}").as_bytes()).to_ascii_uppercase(),
            "p@ss wörd/+&#34;".to_owned(),
        ] {
            assert_eq!(scrub.clean(&format!("got <{echoed}>.")), "got <***>.");
        }
        assert!(!format!("{scrub:?}").contains("ss w"));
    }

    #[test]
    fn short_secrets_do_not_riddle_the_text() {
        let scrub = Scrubber::default();
        scrub.hide(&Secret::new("an"));
        assert_eq!(
            scrub.clean("manifest of an image: an"),
            "manifest of *** image: ***"
        );
        scrub.hide(&Secret::new(""));
        assert_eq!(scrub.clean("x"), "x");
    }

    #[test]
    fn a_short_secret_hides_no_digest() {
        let scrub = Scrubber::default();
        scrub.hide(&Secret::new("x"));
        let digest = "sha256:ff78ff00".to_owned() + &"ab".repeat(28);
        assert_eq!(scrub.enter(Source::Digest, &digest, ""), digest);
    }

    #[test]
    fn control_characters_are_replaced_and_long_text_is_cut() {
        assert_eq!(
            Scrubber::default().clean("a\u{1b}[31mb\u{9b}c\r\nd\u{202e}e\u{200b}f"),
            "a\\u{1b}[31mb\\u{9b}c  d\\u{202e}e\\u{200b}f"
        );
        let long = Scrubber::default().clean(&"ü".repeat(301));
        assert_eq!((long.chars().count(), long.ends_with('…')), (300, true));
        assert_eq!(printable(&"ü".repeat(300)), "ü".repeat(300));
    }

    #[test]
    fn a_cut_text_ends_with_no_part_of_a_secret() {
        let scrub = Scrubber::default();
        scrub.hide_login("me", &Secret::new("hunter2-hunter2"));
        let enter = |source, text: &str| scrub.enter(source, text, "reg.test/app");
        assert_eq!(enter(Source::ErrorMessage, "got hunter2-hun…"), "got ***…");
        assert_eq!(
            enter(Source::ErrorMessage, "got hunter2-hun"),
            "got hunter2-hun"
        );
        let hex = "736179 68756e746572322d687561";
        assert_eq!(enter(Source::FirstBytes, &hex[7..23]), "***");
        assert_eq!(
            enter(Source::FirstBytes, "5353482d322e30"),
            "5353482d322e30"
        );
        let first = "the response is not HTTP; it begins with \"say hunter2-\" (hex 7361792068756e746572322d)";
        assert_eq!(enter(Source::FirstBytes, first), "the response is not HTTP");
        let echoed = Scrubber::default();
        echoed.hide(&Secret::new("HunTer22"));
        assert_eq!(
            echoed.enter(Source::Host, "hunter22.evil.test", ""),
            "***.evil.test"
        );
        // A password that is a word of the registry's own name.
        let weak = Scrubber::default();
        weak.hide(&Secret::new("example"));
        assert_eq!(
            weak.enter(Source::Host, "auth.example.com", "registry.example.com/app"),
            "auth.example.com"
        );
    }

    #[test]
    fn clones_share_what_is_hidden_except_the_values_of_a_query() {
        let scrub = Scrubber::default();
        let mut one = scrub.clone();
        one.hide(&Secret::new("token-1234"));
        one.hide_here(&Secret::new("us-east-1"));
        assert_eq!(scrub.wash("token-1234 us-east-1"), "*** us-east-1");
        assert_eq!(one.wash("token-1234 us-east-1"), "*** ***");
    }

    proptest! {
        #[test]
        fn nothing_of_a_password_survives(
            before in ".{0,20}", password in "[!-~]{6,30}", after in ".{0,20}",
        ) {
            prop_assume!(!password.contains("**"));
            let scrub = Scrubber::default();
            scrub.hide_login("user", &Secret::new(password.clone()));
            let shown = scrub.clean(&format!("{before}{password}{after}"));
            prop_assert!(!shown.contains(&password));
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
