//! Secrets that can't print themselves, and scrubbing of text from the network.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::model::text::printable;

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

/// The secrets in use, so that none gets into evidence if a server repeats it.
#[derive(Clone, Default)]
pub struct Scrubber {
    /// Every form that a server might repeat, the longest first: the encoded pair of user and password must be
    /// replaced before the password that it may contain.
    forms: Vec<Secret>,
}

impl Scrubber {
    /// Hides a password or token from now on, as it is and in the forms in which it is sent.
    pub fn hide(&mut self, secret: &Secret) {
        let text = secret.expose();
        if text.is_empty() {
            return;
        }
        let form: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let quoted = serde_json::Value::from(text).to_string();
        let json = quoted[1..quoted.len() - 1].to_owned();
        self.forms.push(secret.clone());
        self.forms.extend(
            [
                percent_encoded(text, true),
                percent_encoded(text, false),
                form,
                json,
            ]
            .map(Secret::new),
        );
        self.add_base64(text.as_bytes());
        self.settle();
    }

    /// Hides a password, and the pair as Basic authentication sends it (RFC 7617, 2).
    pub fn hide_login(&mut self, username: &str, password: &Secret) {
        if password.is_empty() {
            return;
        }
        self.hide(password);
        let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
        self.add_base64(pair.as_bytes());
        self.settle();
    }

    /// Text as it may be shown: secrets hidden, control characters replaced, cut to 300 characters.
    pub fn clean(&self, text: &str) -> String {
        printable(&self.wash(text))
    }

    /// The same text with the secrets hidden and no other change.
    pub fn wash(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for form in &self.forms {
            text = hide_in(&text, form.expose());
        }
        text
    }

    fn add_base64(&mut self, bytes: &[u8]) {
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            self.forms.push(Secret::new(engine.encode(bytes)));
        }
    }

    fn settle(&mut self) {
        self.forms.sort_by(|a, b| {
            let by_length = b.expose().len().cmp(&a.expose().len());
            by_length.then_with(|| a.expose().cmp(b.expose()))
        });
        self.forms.dedup();
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scrubber({} forms)", self.forms.len())
    }
}

/// Replaces a secret. A short one may be a common word or a part of it, so it is hidden only as a whole word;
/// otherwise the gaps in the text would reveal it.
fn hide_in(text: &str, form: &str) -> String {
    if form.len() >= SHORT {
        return text.replace(form, "***");
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
            "***"
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
        let mut scrub = Scrubber::default();
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
        ] {
            assert_eq!(scrub.clean(&format!("got <{echoed}>.")), "got <***>.");
        }
        assert!(!format!("{scrub:?}").contains("ss w"));
    }

    #[test]
    fn short_secrets_do_not_riddle_the_text() {
        let mut scrub = Scrubber::default();
        scrub.hide(&Secret::new("an"));
        assert_eq!(
            scrub.clean("manifest of an image: an"),
            "manifest of *** image: ***"
        );
        scrub.hide(&Secret::new(""));
        assert_eq!(scrub.clean("x"), "x");
    }

    #[test]
    fn control_characters_are_replaced_and_long_text_is_cut() {
        assert_eq!(
            Scrubber::default().clean("a\u{1b}[31mb\u{9b}c\r\nd\u{202e}e\u{200b}f"),
            "a\u{fffd}[31mb\u{fffd}c  d\u{fffd}e\u{fffd}f"
        );
        let long = Scrubber::default().clean(&"ü".repeat(301));
        assert_eq!((long.chars().count(), long.ends_with('…')), (300, true));
        assert_eq!(printable(&"ü".repeat(300)), "ü".repeat(300));
    }

    proptest! {
        #[test]
        fn nothing_of_a_password_survives(
            before in ".{0,20}", password in "[!-~]{6,30}", after in ".{0,20}",
        ) {
            prop_assume!(!password.contains("**"));
            let mut scrub = Scrubber::default();
            scrub.hide_login("user", &Secret::new(password.clone()));
            let shown = scrub.clean(&format!("{before}{password}{after}"));
            prop_assert!(!shown.contains(&password));
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
