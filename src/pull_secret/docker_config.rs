//! Reads docker configs: `config.json`, containers' `auth.json`, and the content of pull secrets of both types.
//!
//! The rules are those of the kubelet (kubernetes `pkg/credentialprovider/config.go`): one bad entry makes the whole
//! config unusable. Error texts name keys and lines, never content.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use crate::model::credential::{Lint, LintRule};
use crate::pull_secret::entry::Entry;
use crate::pull_secret::key::mask_key;
use crate::pull_secret::placeholder::{is_placeholder, is_variable};
use crate::redact::Secret;

/// The form of a config; they differ in the fields that count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConfigFormat {
    /// `kubernetes.io/dockerconfigjson`.
    Secret,
    /// `kubernetes.io/dockercfg`: only the map that is `auths` in the others.
    LegacySecret,
    /// A file of the docker CLI or of podman, with identity tokens and helpers.
    File,
}

/// The content of a docker config.
#[derive(Clone, Debug, Default)]
pub struct DockerConfig {
    /// The logins of `auths`.
    pub entries: Vec<Entry>,
    /// `credsStore`: the helper for hosts without an entry in `credHelpers`; only in files.
    pub store: Option<String>,
    /// `credHelpers`: pairs of host and helper; only in files.
    pub helpers: Vec<(String, String)>,
    /// Content that is usable but probably a mistake: contradictions, a helper in a Secret.
    pub lint: Vec<Lint>,
}

/// Parses a docker config.
///
/// # Errors
/// If it can't be used. The text says where and why, and repeats nothing of the content.
pub fn parse(bytes: &[u8], flavour: ConfigFormat) -> Result<DockerConfig, String> {
    let top: Value = serde_json::from_slice(bytes).map_err(|error| {
        if looks_encoded(bytes) {
            "its content is base64 again: it was encoded twice".to_owned()
        } else if bytes.trim_ascii().is_empty() {
            "it is empty".to_owned()
        } else if std::str::from_utf8(bytes).is_ok_and(is_unfilled) {
            UNFILLED.to_owned()
        } else {
            format!(
                "it is not JSON, at line {} column {}",
                error.line(),
                error.column()
            )
        }
    })?;
    let empty = Map::new();
    let top = match &top {
        Value::Object(top) => top,
        // Go accepts null for any type.
        Value::Null => &empty,
        _ => return Err("it is not a JSON object".to_owned()),
    };
    let mut config = DockerConfig::default();
    let auths = if flavour == ConfigFormat::LegacySecret {
        top
    } else {
        if let Some(headers) = field(top, "HttpHeaders") {
            string_map(headers, "HttpHeaders")?;
        }
        match field(top, "auths") {
            Some(Value::Object(auths)) => auths,
            None | Some(Value::Null) => &empty,
            Some(_) => return Err("'auths' is not a JSON object".to_owned()),
        }
    };
    for (key, entry) in auths {
        let entry = read_entry(key, entry, flavour, &mut config.lint)?;
        config.entries.push(entry);
    }
    match flavour {
        ConfigFormat::File => {
            config.store = string(top, "credsStore", "")?.map(str::to_owned);
            if let Some(helpers) = field(top, "credHelpers") {
                config.helpers = string_map(helpers, "credHelpers")?;
            }
        }
        ConfigFormat::Secret => {
            if field(top, "credsStore")
                .or(field(top, "credHelpers"))
                .is_some()
            {
                config.lint.push(of_all(LintRule::HelperInSecret));
            } else if auths.is_empty() && !top.is_empty() && field(top, "auths").is_none() {
                config.lint.push(of_all(match as_text(top) {
                    Some(field) => LintRule::ConfigAsText {
                        field: field.to_owned(),
                    },
                    None => LintRule::NoAuths,
                }));
            }
        }
        ConfigFormat::LegacySecret => {
            if auths.contains_key("auths") {
                config.lint.push(of_all(LintRule::AuthsInLegacy));
            }
        }
    }
    Ok(config)
}

/// The name of the field that holds a docker config as text, if there is one; an unknown name is not repeated.
fn as_text(top: &Map<String, Value>) -> Option<&str> {
    let holds = |text: &str| {
        let inner: Option<Value> = serde_json::from_str(text).ok();
        inner.is_some_and(|inner| inner.get("auths").is_some_and(Value::is_object))
    };
    top.iter()
        .find(|(_, value)| value.as_str().is_some_and(holds))
        .map(|(field, _)| match field.as_str() {
            known @ ("value" | "auths" | ".dockerconfigjson" | "dockerconfigjson"
            | "config.json") => known,
            _ => "…",
        })
}

fn of_all(rule: LintRule) -> Lint {
    Lint { key: None, rule }
}

/// A field as Go's encoding/json finds it: by its exact name, else ignoring case.
pub(crate) fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| {
        let mut fields = object.iter();
        fields
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    })
}

/// Decodes base64 as Go's `StdEncoding` does: line breaks and trailing bits are ignored. `None`: it is not base64.
pub(crate) fn decode(text: &str, padding: DecodePaddingMode) -> Option<Vec<u8>> {
    let engine = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(padding)
            .with_decode_allow_trailing_bits(true),
    );
    engine.decode(text.replace(['\r', '\n'], "")).ok()
}

fn read_entry(
    key: &str,
    value: &Value,
    flavour: ConfigFormat,
    lint: &mut Vec<Lint>,
) -> Result<Entry, String> {
    let shown = mask_key(key);
    let empty = Map::new();
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Null => &empty,
        _ => return Err(format!("the entry '{shown}' is not a JSON object")),
    };
    let of = format!(" of the entry '{shown}'");
    string(fields, "email", &of)?;
    let username = string(fields, "username", &of)?.unwrap_or_default();
    let password = string(fields, "password", &of)?.unwrap_or_default();
    let auth = string(fields, "auth", &of)?.unwrap_or_default();
    let (mut username, mut password) = (username.to_owned(), Secret::new(password));
    if !auth.is_empty() {
        let pair = read_auth(auth).map_err(|why| format!("'auth'{of} {why}"))?;
        // An absent field is no contradiction.
        let differs = (!username.is_empty() && username != pair.0)
            || (!password.is_empty() && password != pair.1);
        if differs {
            lint.push(Lint {
                key: Some(shown.clone()),
                rule: LintRule::AuthContradicts,
            });
        }
        (username, password) = pair;
        if flavour == ConfigFormat::File {
            // The docker CLI pads with NUL.
            password = Secret::new(password.expose().trim_matches('\0'));
        }
    }
    let identity_token = match flavour {
        ConfigFormat::File => string(fields, "identitytoken", &of)?.unwrap_or_default(),
        // The kubelet has no such field.
        ConfigFormat::Secret | ConfigFormat::LegacySecret => {
            let token = field(fields, "identitytoken").and_then(Value::as_str);
            if token.is_some_and(|token| !token.is_empty()) && password.is_empty() {
                lint.push(Lint {
                    key: Some(shown),
                    rule: LintRule::IdentityToken,
                });
            }
            ""
        }
    };
    let identity_token = (!identity_token.is_empty()).then(|| Secret::new(identity_token));
    Ok(Entry::new(key, username, password, identity_token))
}

/// Whether the whole text is one that a tool or a shell was to replace.
pub(crate) fn is_unfilled(text: &str) -> bool {
    let text = text.trim();
    let is_one = text.starts_with(['{', '<', '$']) && !text.contains('\n');
    let variable = text.strip_prefix('$').is_some_and(is_variable);
    is_one && (variable || is_placeholder(text))
}

/// What such a text is.
pub(crate) const UNFILLED: &str = "it is a placeholder that nothing has filled in";

/// Reads `base64(user:password)`, padded or not; the password may contain colons.
fn read_auth(auth: &str) -> Result<(String, Secret), &'static str> {
    let padding = if auth.trim().ends_with('=') {
        DecodePaddingMode::RequireCanonical
    } else {
        DecodePaddingMode::RequireNone
    };
    let decoded = decode(auth, padding).ok_or_else(|| {
        if is_unfilled(auth) {
            "is a placeholder that nothing has filled in"
        } else {
            "is not base64"
        }
    })?;
    let decoded = zeroize::Zeroizing::new(decoded);
    let pair = std::str::from_utf8(&decoded).map_err(|_| "is not UTF-8 after base64 decoding")?;
    let (username, password) = pair.split_once(':').ok_or_else(|| {
        let inner = decode(pair.trim(), DecodePaddingMode::Indifferent);
        let inner = inner.map(zeroize::Zeroizing::new);
        if inner.is_some_and(|inner| inner.contains(&b':') && inner.is_ascii()) {
            "is base64 of base64: user and password were encoded twice"
        } else {
            "has no ':' between user and password after base64 decoding"
        }
    })?;
    Ok((username.to_owned(), Secret::new(password)))
}

/// A string field; Go treats `null` and absence alike.
pub(crate) fn string<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
    of: &str,
) -> Result<Option<&'a str>, String> {
    match field(fields, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("'{name}'{of} is not a string")),
    }
}

fn string_map(value: &Value, name: &str) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("'{name}' is not a JSON object of strings");
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) => Ok((key.clone(), text.clone())),
                Value::Null => Ok((key.clone(), String::new())),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}

/// Whether it looks like a JSON object in base64: that begins with `eyJ` or, if indented, with `ewo`, `eyA` or `ewk`.
fn looks_encoded(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii();
    [b"eyJ", b"ewo", b"eyA", b"ewk"]
        .iter()
        .any(|start| bytes.starts_with(*start))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(config: &Value, flavour: ConfigFormat) -> Result<DockerConfig, String> {
        parse(config.to_string().as_bytes(), flavour)
    }

    fn one(entry: &Value, flavour: ConfigFormat) -> Entry {
        let mut config = read(&json!({"auths": {"reg.example.com": entry}}), flavour).unwrap();
        config.entries.remove(0)
    }

    #[test]
    fn auth_counts_before_username_and_password() {
        for (entry, username, password) in [
            (json!({"username": "a", "password": "b:c"}), "a", "b:c"),
            (json!({"auth": STANDARD.encode("u:p:q")}), "u", "p:q"),
            (json!({"auth": STANDARD_NO_PAD.encode("u:pp")}), "u", "pp"),
            (
                json!({"auth": STANDARD.encode("u:p"), "username": "a", "password": "b"}),
                "u",
                "p",
            ),
            (
                json!({"Auth": "", "USERNAME": "a", "password": null}),
                "a",
                "",
            ),
            (json!({"auth": "dTpw\ndw=="}), "u", "pw"),
            (json!({}), "", ""),
            (Value::Null, "", ""),
        ] {
            let read = one(&entry, ConfigFormat::Secret);
            assert_eq!(
                (read.username.as_str(), read.password.expose()),
                (username, password),
                "{entry}"
            );
        }
    }

    #[test]
    fn identity_tokens_and_helpers_are_for_files() {
        let entry = json!({"auth": STANDARD.encode("u:"), "identitytoken": "t"});
        assert!(one(&entry, ConfigFormat::File).identity_token.is_some());
        assert!(one(&entry, ConfigFormat::Secret).identity_token.is_none());
        let config = json!({"credsStore": "pass", "credHelpers": {"a.example.com": "ecr-login"}});
        let file = read(&config, ConfigFormat::File).unwrap();
        assert_eq!(file.store.as_deref(), Some("pass"));
        assert_eq!(
            file.helpers,
            [("a.example.com".to_owned(), "ecr-login".to_owned())]
        );
        let secret = read(&config, ConfigFormat::Secret).unwrap();
        assert_eq!((secret.store, secret.helpers.len()), (None, 0));
        assert_eq!(secret.lint[0].rule, LintRule::HelperInSecret);

        let lints = |config: Value| read(&config, ConfigFormat::Secret).unwrap().lint;
        let of_azure = lints(json!({"auths": {"a.azurecr.io": entry}}));
        assert_eq!(of_azure[0].rule, LintRule::IdentityToken);
        let text = json!({"auths": {"a": {}}}).to_string();
        let field = "value".to_owned();
        assert_eq!(
            lints(json!({"value": text}))[0].rule,
            LintRule::ConfigAsText { field }
        );
        assert_eq!(lints(json!({"value": "a"}))[0].rule, LintRule::NoAuths);
    }

    #[test]
    fn a_bad_entry_spoils_the_whole_and_shows_nothing_of_it() {
        for (config, reason) in [
            (
                json!({"auths": {"ok": {}, "reg": {"auth": "hunter2!"}}}),
                "'auth' of the entry 'reg' is not base64",
            ),
            (
                json!({"auths": {"reg": {"auth": STANDARD.encode("hunter2")}}}),
                "'auth' of the entry 'reg' has no ':'",
            ),
            (
                json!({"auths": {"reg": {"auth": STANDARD.encode(b"u:hunter2\xff")}}}),
                "not UTF-8",
            ),
            (
                json!({"auths": {"reg": {"password": ["hunter2"]}}}),
                "'password' of the entry 'reg' is not a string",
            ),
            (
                json!({"auths": {"https://u:hunter2@reg": 5}}),
                "the entry 'https://***@reg' is not a JSON object",
            ),
            (json!({"auths": "hunter2"}), "'auths' is not a JSON object"),
            (json!({"HttpHeaders": {"X": ["hunter2"]}}), "'HttpHeaders'"),
            (json!("hunter2"), "not a JSON object"),
        ] {
            let error = read(&config, ConfigFormat::Secret).unwrap_err();
            assert!(
                error.contains(reason) && !error.contains("hunter2"),
                "{error}"
            );
        }
        for (text, reason) in [
            ("{\"auths\":\n {hunter2", "not JSON, at line 2 column 3"),
            (" \n", "empty"),
            ("eyJhdXRocyI6e319", "encoded twice"),
        ] {
            let error = parse(text.as_bytes(), ConfigFormat::Secret).unwrap_err();
            assert!(
                error.contains(reason) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_usable_and_probably_not_meant_is_said() {
        let entry = json!({"username": "u", "password": "x", "auth": STANDARD.encode("u:hunter2")});
        let config = read(&json!({"auths": {"reg": entry}}), ConfigFormat::Secret).unwrap();
        let said = config.lint[0].to_string();
        assert!(
            said.contains("differ") && !said.contains("hunter2"),
            "{said}"
        );
        let same = json!({"auths": {"reg": {"username": "u", "password": "p", "auth": STANDARD.encode("u:p")}}});
        assert!(read(&same, ConfigFormat::Secret).unwrap().lint.is_empty());
        assert!(
            !read(&json!({"reg": {"auth": "dTpw"}}), ConfigFormat::Secret)
                .unwrap()
                .lint
                .is_empty()
        );
        assert!(
            !read(&json!({"auths": {}}), ConfigFormat::LegacySecret)
                .unwrap()
                .lint
                .is_empty()
        );
    }

    #[test]
    fn the_legacy_form_is_the_bare_map() {
        let config = read(
            &json!({"reg": {"auth": "dTpw"}}),
            ConfigFormat::LegacySecret,
        )
        .unwrap();
        assert_eq!((config.entries.len(), config.lint.len()), (1, 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for flavour in [ConfigFormat::Secret, ConfigFormat::LegacySecret, ConfigFormat::File] {
                let _ = parse(&bytes, flavour);
            }
        }

        #[test]
        fn any_auth_is_read_or_refused(auth in "\\PC{0,40}", key in "\\PC{0,40}") {
            let mut auths = Map::new();
            auths.insert(key, json!({"auth": auth}));
            let _ = read(&json!({"auths": auths}), ConfigFormat::File);
        }

        #[test]
        fn a_pair_reads_back(user in "[a-z$]{1,20}", password in "[!-~]{0,40}") {
            let auth = STANDARD.encode(format!("{user}:{password}"));
            let entry = one(&json!({"auth": auth}), ConfigFormat::Secret);
            prop_assert_eq!((entry.username.as_str(), entry.password.expose()), (user.as_str(), password.as_str()));
        }

        #[test]
        fn no_password_gets_into_words(password in "hunter2[!-~]{4,20}", junk in "[{}\\[\\],:\"a-z]{0,9}") {
            let text = format!("{{\"auths\":{{\"reg\":{{\"password\":\"{password}\"{junk}}}}}}}");
            let shown = format!("{:?}", parse(text.as_bytes(), ConfigFormat::Secret));
            prop_assert!(!shown.contains("hunter2"), "{}", shown);
        }
    }
}
