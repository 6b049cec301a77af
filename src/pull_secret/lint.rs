//! Finds probable mistakes in a pull secret that can be read, and when its credentials expire. Pure.

use base64::engine::DecodePaddingMode;
use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use super::jwt;
use crate::model::credential::{Expiry, ExpirySign, Lint, LintRule};
use crate::pull_secret::docker_config;
use crate::pull_secret::entry::Entry;
use crate::pull_secret::key;
use crate::pull_secret::placeholder::{is_like_variable, is_no_value, is_placeholder, is_variable};

/// The annotation with the expiry time of `default-secret`, which CCE (Cloud Container Engine) creates (Huawei Cloud,
/// CCE: usermanual-cce-autopilot/cce_11_0388).
pub const SWR_EXPIRY: &str = "swr-auth-may-expires-at";

/// Probable mistakes in one entry: its server key, user and password.
pub fn entry(entry: &Entry) -> Vec<Lint> {
    let mut lint = Vec::new();
    let mut note = |rule| {
        lint.push(Lint {
            key: Some(entry.key.clone()),
            rule,
        });
    };
    if is_placeholder(&entry.key) || entry.key.strip_prefix('$').is_some_and(is_variable) {
        note(LintRule::Placeholder {
            part: "key".to_owned(),
        });
    } else if let Some(reason) = key::never_matches(&entry.key) {
        note(LintRule::NeverMatches {
            reason: reason.to_owned(),
        });
    }
    if is_hub_alias(&entry.key) {
        note(LintRule::HubAlias);
    }
    if entry.identity_token.is_none() {
        match (entry.username.is_empty(), entry.password.is_empty()) {
            (true, true) => note(LintRule::NoLogin),
            (false, true) => note(LintRule::EmptyPassword),
            (true, false) => note(LintRule::EmptyUser),
            (false, false) => {}
        }
    }
    let (user, password) = (entry.username.as_str(), entry.password.expose());
    // The quotes are around both in base64: `"user:password"`.
    let is_quoted_pair = ['"', '\'']
        .iter()
        .any(|quote| user.starts_with(*quote) && password.ends_with(*quote));
    for (text, part) in [(user, "user"), (password, "password")] {
        let part = part.to_owned();
        // Google's key file is sent as it is, in several lines.
        if part == "password" && is_key_file(user, text) == Some(true) {
            continue;
        }
        if text.ends_with('\n') {
            note(LintRule::EndsInNewline { part });
        } else if is_placeholder(text) {
            note(LintRule::Placeholder { part });
        } else if is_like_variable(text) {
            note(LintRule::LikeVariable { part });
        } else if is_no_value(text) {
            note(LintRule::NoValue { part });
        } else if part == "password" && is_key_file(user, text) == Some(false) {
            note(LintRule::KeyFile {
                in_base64: user != "_json_key",
            });
        } else if is_quoted_pair || is_quoted(text) {
            note(LintRule::Quoted { part });
        } else if text.chars().any(is_invisible) {
            note(LintRule::ControlCharacter { part });
        } else if text.trim() != text {
            note(LintRule::OuterBlanks { part });
        }
    }
    // At Quay, `robot+name` is a robot account of an organization of that name.
    if user == "robot" || user.starts_with("robot+") && !key::host(&entry.key).ends_with("quay.io")
    {
        note(LintRule::RobotCut);
    }
    if looks_like_auth(user, password) {
        note(LintRule::EncodedTwice);
    } else if is_encoded(user) {
        note(LintRule::EncodedUser);
    }
    lint
}

/// Whether the key is a host of Docker Hub other than the one that matches its images. An image reference could name
/// such a host, but that is very unlikely.
fn is_hub_alias(key: &str) -> bool {
    [
        "registry-1.docker.io",
        "registry.docker.io",
        "registry.hub.docker.com",
        "hub.docker.com",
        "docker.com",
        "auth.docker.io",
    ]
    .contains(&key::host(key))
}

fn is_quoted(text: &str) -> bool {
    let inner = |quote| {
        text.strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
    };
    let is_typographic = text.starts_with(['“', '”', '‘', '’']) && text.ends_with(['“', '”', '’']);
    ['"', '\''].into_iter().any(|quote| inner(quote).is_some()) || is_typographic
}

/// A character that is not meant: a control character, or what documents and chats put between letters.
fn is_invisible(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// Whether the password is the JSON key of a service account, in the form that the user of Google's registries needs.
/// `None`: it is another user, or there is no password.
fn is_key_file(user: &str, password: &str) -> Option<bool> {
    let is_its = |json: &[u8]| {
        let key: Option<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_slice(json).ok();
        key.is_some_and(|key| key.contains_key("private_key"))
    };
    match user {
        _ if password.is_empty() => None,
        "_json_key" => Some(is_its(password.as_bytes())),
        "_json_key_base64" => {
            let bytes = docker_config::decode(password, DecodePaddingMode::Indifferent);
            let bytes = bytes.map(zeroize::Zeroizing::new);
            Some(bytes.is_some_and(|bytes| is_its(&bytes)))
        }
        _ => None,
    }
}

/// Whether a user is the base64 of another text. Names end in no '='; without it, a name may look like base64.
fn is_encoded(user: &str) -> bool {
    let decoded = docker_config::decode(user, DecodePaddingMode::RequireCanonical);
    let is_text = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic);
    user.ends_with('=') && decoded.is_some_and(|bytes| is_text(&bytes))
}

/// Whether the password is a whole `user:password` in base64.
fn looks_like_auth(username: &str, password: &str) -> bool {
    if username.is_empty() || password.len() < 8 {
        return false;
    }
    docker_config::decode(password, DecodePaddingMode::Indifferent)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .is_some_and(|text| {
            text.split_once(':')
                .is_some_and(|(user, rest)| user == username && !rest.is_empty())
        })
}

/// When a token that is used as a password expires: from its claim `exp` (RFC 7519, 4.1.4), unverified, or from the
/// kind of token that the user indicates. `None`: it is not a known kind of token.
pub fn token_expiry(entry: &Entry) -> Option<Expiry> {
    let secret = entry.identity_token.as_ref().unwrap_or(&entry.password);
    let by = |sign, issued, expires| {
        let key = Some(entry.key.clone());
        Some(Expiry {
            key,
            sign,
            issued,
            expires,
        })
    };
    if let Some((issued, expires)) = jwt::validity(secret.expose()) {
        return by(ExpirySign::TokenClaim, issued, Some(expires));
    }
    // A placeholder is not a token.
    if is_placeholder(secret.expose()) {
        return None;
    }
    // GitLab's personal access tokens and deploy tokens don't expire with a job, whatever the user.
    let lasting = ["glpat-", "gldt-"];
    match entry.username.as_str() {
        "gitlab-ci-token"
            if lasting
                .iter()
                .any(|start| secret.expose().starts_with(start)) =>
        {
            None
        }
        "AWS" => by(
            ExpirySign::EcrToken,
            None,
            Some(ecr_expiry(secret.expose())?),
        ),
        "oauth2accesstoken" | "_dcgcloud_token" | "_token" => {
            by(ExpirySign::GoogleAccessToken, None, None)
        }
        "gitlab-ci-token" => by(ExpirySign::GitlabJobToken, None, None),
        _ if secret.expose().starts_with("ghs_") => by(ExpirySign::GithubJobToken, None, None),
        _ => None,
    }
}

/// `expiration` of the JSON in Amazon ECR's password, in Unix seconds.
fn ecr_expiry(password: &str) -> Option<Timestamp> {
    #[derive(serde::Deserialize)]
    struct Token {
        expiration: i64,
    }
    let bytes = docker_config::decode(password, DecodePaddingMode::Indifferent)?;
    let bytes = zeroize::Zeroizing::new(bytes);
    let token: Token = serde_json::from_slice(&bytes).ok()?;
    // ECR issued no tokens before that time.
    let is_time = token.expiration > 1_400_000_000;
    let end = Timestamp::from_second(token.expiration).ok();
    end.filter(|_| is_time)
}

/// The expiry time in CCE's annotation. Its format is not documented: RFC 3339, Go's format, and Unix seconds or
/// milliseconds are accepted. The time of issue is unknown: the Secret is renewed in place, so its creation time does
/// not show it.
pub fn annotated_expiry(text: &str) -> Expiry {
    Expiry {
        key: None,
        sign: ExpirySign::Annotation,
        issued: None,
        expires: time(text),
    }
}

fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    if let Ok(number) = text.parse::<i64>() {
        // Milliseconds of this century have 13 digits, seconds 10.
        return if number.unsigned_abs() >= 100_000_000_000 {
            Timestamp::from_millisecond(number).ok()
        } else {
            Timestamp::from_second(number).ok()
        };
    }
    // `2026-11-24 01:40:12.123 +0000 UTC m=+0.1`, as Go prints a time.
    let go = text.split(" m=").next().unwrap_or(text);
    let go = go.rsplit_once(' ').map_or(go, |(before, zone)| {
        if zone.chars().all(|c| c.is_ascii_alphabetic()) {
            before
        } else {
            go
        }
    });
    for format in ["%Y-%m-%d %H:%M:%S%.f %z", "%Y-%m-%dT%H:%M:%S%.f%z"] {
        if let Ok(at) = strtime::parse(format, go).and_then(|broken| broken.to_timestamp()) {
            return Some(at);
        }
    }
    // A time without a zone is read as UTC, which CCE's control plane uses.
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"] {
        if let Ok(at) = strtime::parse(format, go).and_then(|broken| broken.to_datetime()) {
            return TimeZone::UTC.to_timestamp(at).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;
    use crate::redact::Secret;

    fn rules(key: &str, user: &str, password: &str) -> Vec<String> {
        let entry_ = Entry::new(key, user, Secret::new(password), None);
        entry(&entry_).iter().map(ToString::to_string).collect()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn what_is_probably_not_meant_is_reported_without_showing_it() {
        for (key, user, password, want) in [
            ("reg.example.com", "u", "hunter2:with:colons", ""),
            ("reg.example.com", "u", "hunter2\n", "ends in a newline"),
            ("reg.example.com", "u\n", "hunter2", "ends in a newline"),
            ("reg.example.com", "u", "hunt\ter2", "control character"),
            ("reg.example.com", "u", " hunter2", "white space"),
            ("reg.example.com", "u", "{{ .hunter }}", "placeholder"),
            ("reg.example.com", "u", "${HUNTER2}", "placeholder"),
            ("reg.example.com", "$HUNTER", "pw", "looks like a variable"),
            ("reg.example.com", "robot+hunter", "pw", "'robot$NAME'"),
            ("reg.example.com", "u", "<no value>", "placeholder"),
            ("reg.example.com", "u", "${hunter.pass}", "placeholder"),
            (
                "reg.example.com",
                "u",
                "<path:secret/hunter#p>",
                "placeholder",
            ),
            (
                "reg.example.com",
                "u",
                "ENC[AES256_GCM,data:hunter,type:str]",
                "placeholder",
            ),
            ("reg.example.com", "u", "%HUNTER%", "looks like a variable"),
            (
                "reg.example.com",
                "u",
                "$env:HUNTER",
                "looks like a variable",
            ),
            ("reg.example.com", "u", "null", "have no value"),
            ("reg.example.com", "u", "********", "have no value"),
            ("reg.example.com", "u", "nullhunter", ""),
            (
                "reg.example.com",
                "u",
                "hunter2\u{200b}",
                "control character",
            ),
            (
                "gcr.io",
                "_json_key",
                "eyJodW50ZXIyIjogMX0=",
                "not the key file",
            ),
            (
                "gcr.io",
                "_json_key_base64",
                "{\n \"private_key\": \"hunter2\"\n}",
                "not the base64 of",
            ),
            (
                "gcr.io",
                "_json_key_base64",
                "eyJwcml2YXRlX2tleSI6ICJodW50ZXIyIn0=",
                "",
            ),
            ("reg.example.com", "u", "$1$hunter2", ""),
            ("reg.example.com", "u", "\"hunter2\"", "in quotes"),
            ("reg.example.com", "u", "'hunter2'", "in quotes"),
            ("reg.example.com", "u", "\"", ""),
            ("reg.example.com", "robot", "hunter2", "'robot$NAME'"),
            ("reg.example.com", "robot$hunter", "pw", ""),
            ("quay.io", "robot+hunter", "pw", ""),
            ("quay.io/team", "team+hunter", "pw", ""),
            ("nvcr.io", "$oauthtoken", "pw", ""),
            (
                "reg.example.com",
                "\"u",
                "hunter2\"",
                "user of the entry 'reg.example.com' is in quotes",
            ),
            ("reg.example.com", "u", "“hunter2”", "in quotes"),
            ("reg.example.com", "u", "a-{{ .hunter }}", "placeholder"),
            ("reg.example.com", "u", "<your-hunter>", "placeholder"),
            ("reg.example.com", "u", "<%hunter2>", ""),
            ("{{ .Values.registry }}", "u", "p", "the key of the entry"),
            ("$REGISTRY", "u", "p", "the key of the entry"),
            ("reg.example.com", "aHVudGVyMg==", "p", "base64 of a name"),
            ("reg.example.com", "hunter==", "p", ""),
            (
                "gcr.io",
                "_json_key",
                "{\n \"private_key\": \"hunter2\"\n}\n",
                "",
            ),
            (
                "gcr.io",
                "u",
                "{\n \"private_key\": \"hunter2\"\n}",
                "control character",
            ),
            ("reg.example.com", "u", "", "no password"),
            ("reg.example.com", "", "hunter2", "no user"),
            ("reg.example.com", "", "", "neither user nor password"),
            (
                "reg.example.com",
                "u",
                &STANDARD.encode("u:hunter2"),
                "itself user and password",
            ),
            ("reg.example.com:*", "u", "p", "can't match any image"),
            ("reg.example.com/v2", "u", "p", "can't match any image"),
            (
                "reg.example.com/team/app:1.0",
                "u",
                "p",
                "can't match any image",
            ),
            ("[", "u", "p", "can't match any image"),
            ("https://index.docker.io/v1/", "u", "p", ""),
            ("*.example.com/team", "u", "p", ""),
            (
                "https://registry-1.docker.io/v1/",
                "u",
                "p",
                "not Docker Hub's key",
            ),
            ("hub.docker.com", "u", "p", "not Docker Hub's key"),
        ] {
            let found = rules(key, user, password);
            if want.is_empty() {
                assert_eq!(found, [""; 0], "{key}");
            } else {
                let parts = if user.starts_with('"') { 2 } else { 1 };
                assert_eq!(found.len(), parts, "{key} {found:?}");
                assert!(found[0].contains(want), "{found:?}");
                assert!(!found[0].contains("hunt"), "{found:?}");
            }
        }
    }

    #[test]
    fn tokens_tell_their_end() {
        let payload = URL_SAFE_NO_PAD.encode("{\"iat\":1000,\"exp\":4600}");
        let jwt = format!("e30.{payload}.sig");
        let expiry = token_expiry(&Entry::new("r", "u", Secret::new(&jwt), None)).unwrap();
        assert_eq!(expiry.issued.unwrap().as_second(), 1000);
        assert_eq!(expiry.expires.unwrap().as_second(), 4600);
        let ecr = STANDARD.encode("{\"payload\":\"AA\",\"expiration\":1800000000}");
        let expiry = token_expiry(&Entry::new("r", "AWS", Secret::new(&ecr), None)).unwrap();
        assert_eq!(expiry.sign, ExpirySign::EcrToken);
        assert_eq!(expiry.expires.unwrap().as_second(), 1_800_000_000);
        let lasting = Entry::new("r", "gitlab-ci-token", Secret::new("glpat-x"), None);
        assert_eq!(token_expiry(&lasting), None);
        for (user, sign) in [
            ("oauth2accesstoken", ExpirySign::GoogleAccessToken),
            ("_dcgcloud_token", ExpirySign::GoogleAccessToken),
            ("gitlab-ci-token", ExpirySign::GitlabJobToken),
        ] {
            let expiry = token_expiry(&Entry::new("r", user, Secret::new("x"), None)).unwrap();
            assert_eq!((expiry.sign, expiry.expires), (sign, None));
        }
        let of_github = token_expiry(&Entry::new("ghcr.io", "ann", Secret::new("ghs_x"), None));
        assert_eq!(of_github.unwrap().sign, ExpirySign::GithubJobToken);
        assert_eq!(
            token_expiry(&Entry::new("r", "AWS", Secret::new("x"), None)),
            None
        );
        for other in ["hunter2", "a.b.c", &ecr, ""] {
            assert_eq!(
                token_expiry(&Entry::new("r", "u", Secret::new(other), None)),
                None
            );
        }
    }

    #[test]
    fn the_annotation_is_read_in_the_forms_that_clouds_write() {
        for text in [
            "2026-11-24T01:40:12Z",
            "2026-11-24T09:40:12+08:00",
            "2026-11-24 01:40:12 +0000 UTC",
            "2026-11-24 09:40:12.5 +0800 CST m=+3600.1",
            "2026-11-24 01:40:12",
            "1795484412",
            "1795484412000",
        ] {
            let at = annotated_expiry(text).expires;
            assert_eq!(at.map(Timestamp::as_second), Some(1_795_484_412), "{text}");
        }
        for text in ["", "soon", "2026-13-01T00:00:00Z", "-9223372036854775808"] {
            assert_eq!(annotated_expiry(text).expires, None, "{text}");
        }
    }
}
