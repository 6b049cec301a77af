//! Exchanges a credential for a token as containerd does (`core/remotes/docker/auth/fetch.go`, `authorizer.go`;
//! distribution token and oauth specs).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Map, Value};
use url::Url;
use url::form_urlencoded::Serializer;

use crate::model::evidence::{Access, Grant};
use crate::model::fault::{HttpFault, TokenFault};
use crate::pull_secret::docker_config::{field, string};
use crate::pull_secret::entry::Credential;
use crate::pull_secret::jwt;
use crate::redact::{Scrubber, Secret};
use crate::registry::challenge::Bearer;

/// The client ID that token services receive in real pulls; some base statistics or rules on it.
const CLIENT_ID: &str = "containerd-client";
/// `Content-Type` of the token request by POST.
pub const FORM_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// The form of a token request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// OAuth2, with a credential (RFC 6749, 4.3 and 6).
    Post,
    /// Anonymous, or with Basic for services that don't support POST.
    Get,
}

impl Form {
    fn method(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Get => "GET",
        }
    }
}

/// The scopes that a pull requests: the repository's, and those in the challenge. Sorted, without duplicates.
pub fn scopes(repository: &str, challenged: Option<&str>) -> Vec<String> {
    let mut scopes = vec![format!("repository:{repository}:pull")];
    if let Some(challenged) = challenged {
        scopes.extend(challenged.split(' ').map(str::to_owned));
    }
    scopes.retain(|s| !s.is_empty());
    scopes.sort();
    scopes.dedup();
    scopes
}

/// The form body of the POST to the realm. An identity token is sent as a refresh token.
pub fn post_body(bearer: &Bearer, scopes: &[String], credential: &Credential) -> Secret {
    let (username, secret) = credential.login();
    let mut form = Serializer::new(String::new());
    form.append_pair("client_id", CLIENT_ID);
    if username.is_empty() {
        form.append_pair("grant_type", "refresh_token");
        form.append_pair("refresh_token", secret.expose());
    } else {
        form.append_pair("grant_type", "password");
        form.append_pair("password", secret.expose());
    }
    if !scopes.is_empty() {
        form.append_pair("scope", &scopes.join(" "));
    }
    form.append_pair("service", bearer.service.as_deref().unwrap_or_default());
    if !username.is_empty() {
        form.append_pair("username", username);
    }
    Secret::new(form.finish())
}

/// The URL of the GET: the realm's own query, plus service and scopes.
pub fn get_url(bearer: &Bearer, scopes: &[String]) -> Url {
    let mut url = bearer.realm.clone();
    let service = bearer.service.iter().map(|s| ("service", s));
    let scopes = scopes.iter().map(|s| ("scope", s));
    url.query_pairs_mut()
        .extend_pairs(service.filter(|(_, s)| !s.is_empty()))
        .extend_pairs(scopes);
    url
}

/// `Authorization` of the GET to the token service. containerd sends it whenever there is a secret, even without a
/// user.
pub fn token_authorization(credential: &Credential) -> Option<Secret> {
    let (username, secret) = credential.login();
    (!secret.is_empty()).then(|| basic(username, secret))
}

/// `Authorization` for a registry that requires Basic. `None` where containerd reports "no basic auth credentials": an
/// identity token is not a password.
pub fn registry_authorization(credential: &Credential) -> Option<Secret> {
    let (username, secret) = credential.login();
    (!username.is_empty() && !secret.is_empty()).then(|| basic(username, secret))
}

/// RFC 7617, 2.
fn basic(username: &str, secret: &Secret) -> Secret {
    let pair = Secret::new(format!("{username}:{}", secret.expose()));
    Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())))
}

/// `Authorization` with a token (RFC 6750, 2.1).
pub fn bearer_authorization(token: &Secret) -> Secret {
    Secret::new(format!("Bearer {}", token.expose()))
}

/// Whether a GET follows a POST that was answered with this status: services that don't support POST answer 404 (GCR),
/// 401 (Artifactory), 400 (ACR) or 405.
pub fn falls_back_to_get(status: StatusCode, has_username: bool) -> bool {
    match status.as_u16() {
        400 | 401 | 404 => true,
        405 => has_username,
        _ => false,
    }
}

/// Parses the response of a token service for what containerd takes from it. A POST must return `access_token`; a GET
/// returns `access_token` or `token`. The last value is the lifetime that the service states, in seconds; `None` if it
/// states none.
///
/// What the token allows is read from its payload without checking the signature: it is a hint for the diagnosis, and
/// no decision depends on it.
///
/// # Errors
/// If containerd would find no token in it.
pub fn read(
    body: &[u8],
    form: Form,
    repository: &str,
    scrub: &Scrubber,
) -> Result<(Secret, Grant, Option<u64>), TokenFault> {
    // containerd reads the first JSON value and ignores the rest.
    let first = serde_json::Deserializer::from_slice(body)
        .into_iter::<Value>()
        .next();
    let Some(Ok(Value::Object(fields))) = first else {
        return Err(malformed(
            "the token service's response is not a JSON object",
        ));
    };
    let expires_in = whole_number(&fields, "expires_in")?;
    if let Some(issued_at) = text(&fields, "issued_at")?
        && issued_at.parse::<jiff::Timestamp>().is_err()
    {
        return Err(malformed("'issued_at' is not an RFC 3339 time"));
    }
    text(&fields, "refresh_token")?;
    let access_token = text(&fields, "access_token")?;
    // A field that this form does not read may have any type.
    let token = match form {
        Form::Post => {
            text(&fields, "scope")?;
            access_token
        }
        Form::Get => {
            let token = text(&fields, "token")?;
            access_token.filter(|t| !t.is_empty()).or(token)
        }
    };
    let Some(token) = token.filter(|t| !t.is_empty()) else {
        return Err(TokenFault::NoToken {
            method: form.method().to_owned(),
            fields: fields.keys().take(20).map(|k| scrub.clean(k)).collect(),
        });
    };
    if !token.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(malformed(
            "the token has characters that are not allowed in an HTTP header",
        ));
    }
    let claims = jwt::claims(token);
    let grant = Grant {
        expires_in_seconds: expires_in.or_else(|| claims.as_ref().and_then(lifetime)),
        access: claims
            .as_ref()
            .map_or(Access::Unreadable, |c| access(c, repository)),
    };
    Ok((Secret::new(token), grant, expires_in.filter(|s| *s > 0)))
}

fn malformed(reason: &str) -> TokenFault {
    TokenFault::Http {
        fault: HttpFault::malformed(reason),
    }
}

/// A string field; `null` counts as missing. containerd rejects the whole response if the type is another.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, TokenFault> {
    string(fields, name, "").map_err(|reason| malformed(&reason))
}

/// Seconds. A negative number counts as missing; quotes or a fraction make containerd reject the whole response.
fn whole_number(fields: &Map<String, Value>, name: &str) -> Result<Option<u64>, TokenFault> {
    match field(fields, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(number.as_u64()),
        Some(_) => Err(malformed(&format!("'{name}' is not a whole number"))),
    }
}

/// `exp` minus `iat`: the lifetime, which needs no clock.
fn lifetime(claims: &Map<String, Value>) -> Option<u64> {
    let issued = claims.get("iat").or_else(|| claims.get("nbf"))?.as_u64()?;
    claims.get("exp")?.as_u64()?.checked_sub(issued)
}

/// What the token's `access` claim allows (distribution token spec).
fn access(claims: &Map<String, Value>, repository: &str) -> Access {
    let entries = match claims.get("access") {
        Some(Value::Array(entries)) => entries,
        // Services written in Go write an empty list as null.
        Some(Value::Null) => return Access::NoPull,
        _ => return Access::Unreadable,
    };
    for entry in entries {
        let text = |name| entry.get(name).and_then(Value::as_str);
        let (Some(kind), Some(name)) = (text("type"), text("name")) else {
            return Access::Unreadable;
        };
        // A type may have a class: `repository(plugin)`.
        if !kind.starts_with("repository") {
            continue;
        }
        if name.contains('*') {
            return Access::Unreadable;
        }
        let may_pull = entry
            .get("actions")
            .and_then(Value::as_array)
            .is_some_and(|a| a.iter().any(|a| a == "pull" || a == "*"));
        if name == repository && may_pull {
            return Access::Pull;
        }
    }
    Access::NoPull
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
    use proptest::prelude::*;

    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::model::credential::{CredentialId, CredentialSource};
    use crate::registry::challenge::{Wanted, wanted};

    fn bearer(line: &str) -> Bearer {
        let mut headers = HeaderMap::new();
        headers.insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_bytes(line.as_bytes()).unwrap(),
        );
        match wanted(&headers, &Scrubber::default()) {
            Wanted::Bearer(bearer) => *bearer,
            other => panic!("{other:?}"),
        }
    }

    fn credential(username: &str, password: &str, identity_token: Option<&str>) -> Credential {
        Credential {
            id: CredentialId {
                source: CredentialSource::CommandLine,
                key: String::new(),
            },
            username: username.to_owned(),
            password: Secret::new(password),
            identity_token: identity_token.map(Secret::new),
        }
    }

    fn jwt(payload: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()))
    }

    fn get(body: &Value) -> Result<(Secret, Grant, Option<u64>), TokenFault> {
        read(
            body.to_string().as_bytes(),
            Form::Get,
            "a/b",
            &Scrubber::default(),
        )
    }

    #[test]
    fn requests_are_those_of_containerd() {
        let bearer = bearer(r#"Bearer realm="https://a.example.com/t?x=1",service="reg ü""#);
        let scopes = scopes("a/b", None);
        assert_eq!(
            post_body(&bearer, &scopes, &credential("me", "p&w=1 %", None)).expose(),
            "client_id=containerd-client&grant_type=password&password=p%26w%3D1+%25\
             &scope=repository%3Aa%2Fb%3Apull&service=reg+%C3%BC&username=me"
        );
        assert_eq!(
            post_body(&bearer, &scopes, &credential("x", "", Some("id-token"))).expose(),
            "client_id=containerd-client&grant_type=refresh_token&refresh_token=id-token\
             &scope=repository%3Aa%2Fb%3Apull&service=reg+%C3%BC"
        );
        assert_eq!(
            get_url(&bearer, &scopes).as_str(),
            "https://a.example.com/t?x=1&service=reg+%C3%BC&scope=repository%3Aa%2Fb%3Apull"
        );
        let me = credential("Aladdin", "open sesame", None);
        let header = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(token_authorization(&me).unwrap().expose(), header);
        assert_eq!(registry_authorization(&me).unwrap().expose(), header);
        let identity = credential("", "", Some("t"));
        assert!(token_authorization(&identity).is_some());
        assert_eq!(registry_authorization(&identity), None);
        assert_eq!(token_authorization(&credential("me", "", None)), None);
    }

    #[test]
    fn the_scopes_are_those_of_the_repository_and_of_the_challenge() {
        assert_eq!(
            scopes("a/b", Some("repository:a/b:pull aws ")),
            ["aws", "repository:a/b:pull"]
        );
        assert_eq!(scopes("a/b", None), ["repository:a/b:pull"]);
    }

    #[test]
    fn a_post_falls_back_to_get_where_containerd_does() {
        for (status, with, without) in [
            (400, true, true),
            (401, true, true),
            (404, true, true),
            (405, true, false),
            (403, false, false),
            (429, false, false),
            (500, false, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(falls_back_to_get(status, true), with, "{status}");
            assert_eq!(falls_back_to_get(status, false), without, "{status}");
        }
    }

    #[test]
    fn each_form_reads_its_own_field() {
        let scrub = Scrubber::default();
        let only_token = br#"{"token":"abc","expires_in":300} trailing"#;
        let (token, grant, _) = read(only_token, Form::Get, "a/b", &scrub).unwrap();
        assert_eq!(
            (token.expose(), grant.expires_in_seconds),
            ("abc", Some(300))
        );
        assert_eq!(grant.access, Access::Unreadable);
        assert_eq!(
            read(only_token, Form::Post, "a/b", &scrub).unwrap_err(),
            TokenFault::NoToken {
                method: "POST".to_owned(),
                fields: vec!["expires_in".to_owned(), "token".to_owned()],
            }
        );
        let both = br#"{"token":"abc","Access_Token":"def"}"#;
        let (token, grant, _) = read(both, Form::Post, "a/b", &scrub).unwrap();
        assert_eq!((token.expose(), grant.expires_in_seconds), ("def", None));
        assert_eq!(
            read(both, Form::Get, "a/b", &scrub).unwrap().0.expose(),
            "def"
        );
    }

    #[test]
    fn an_answer_that_containerd_cannot_decode_is_malformed() {
        for body in [
            "",
            "<html>",
            "[]",
            "\"token\"",
            r#"{"token":5}"#,
            r#"{"token":"a","expires_in":"300"}"#,
            r#"{"token":"a","expires_in":1.5}"#,
            r#"{"token":"a","issued_at":"yesterday"}"#,
            r#"{"token":"a\nX: y"}"#,
        ] {
            let fault = read(body.as_bytes(), Form::Get, "a/b", &Scrubber::default()).unwrap_err();
            assert!(
                matches!(
                    fault,
                    TokenFault::Http {
                        fault: HttpFault::Malformed { .. }
                    }
                ),
                "{body}: {fault:?}"
            );
        }
        assert!(
            get(&serde_json::json!({"token": "a", "expires_in": null,
            "issued_at": "2026-11-23T01:02:03.456Z"}))
            .is_ok()
        );
    }

    #[test]
    fn the_access_claim_tells_a_missing_right() {
        let entry = |name: &str, actions: &[&str]| serde_json::json!({"type": "repository", "name": name, "actions": actions});
        for (payload, access) in [
            (
                serde_json::json!({"access": [entry("a/b", &["pull"])]}),
                Access::Pull,
            ),
            (
                serde_json::json!({"access": [entry("a/b", &["*"])]}),
                Access::Pull,
            ),
            (
                serde_json::json!({"access": [entry("x", &["pull"]), entry("a/b", &["push", "pull"])]}),
                Access::Pull,
            ),
            (
                serde_json::json!({"access": [entry("a/b", &["push"])]}),
                Access::NoPull,
            ),
            (
                serde_json::json!({"access": [entry("a/bc", &["pull"])]}),
                Access::NoPull,
            ),
            (serde_json::json!({"access": []}), Access::NoPull),
            (serde_json::json!({"access": null}), Access::NoPull),
            (serde_json::json!({"access": "all"}), Access::Unreadable),
            (
                serde_json::json!({"access": [entry("a/*", &["pull"])]}),
                Access::Unreadable,
            ),
            (serde_json::json!({"sub": "me"}), Access::Unreadable),
        ] {
            let grant = get(&serde_json::json!({"token": jwt(&payload)})).unwrap().1;
            assert_eq!(grant.access, access, "{payload}");
        }
        let timed = serde_json::json!({"iat": 1000, "exp": 1300});
        let grant = get(&serde_json::json!({"token": jwt(&timed)})).unwrap().1;
        assert_eq!(grant.expires_in_seconds, Some(300));
    }

    proptest! {
        #[test]
        fn any_answer_is_read(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&body, Form::Post, "a/b", &Scrubber::default());
        }

        #[test]
        fn any_token_is_read(token in "[ -~]{1,80}") {
            let (read, ..) = get(&serde_json::json!({"token": token})).unwrap();
            prop_assert_eq!(read.expose(), token);
        }
    }
}
