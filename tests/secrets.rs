//! `pullpath secret check`: the program as a user runs it, on good and bad Secrets.

#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use pullpath::report::secret::SecretDocument;
use serde_json::{Value, json};

const PASSWORD: &str = "canary-7f3a9c";
const CCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cce-secret.yaml");

struct Outcome {
    code: i32,
    text: String,
}

/// Runs it on one file, given on standard input; no password may be in what it prints.
fn check(manifest: &str, args: &[&str]) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pullpath"))
        .args(["secret", "check", "-"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(manifest.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap()
    );
    for secret in [PASSWORD.to_owned(), STANDARD.encode(PASSWORD)] {
        assert!(!text.contains(&secret), "{text}");
    }
    Outcome {
        code: output.status.code().unwrap(),
        text,
    }
}

fn secret(config: &Value) -> String {
    raw(&format!(
        "data:\n  .dockerconfigjson: {}",
        STANDARD.encode(config.to_string())
    ))
}

fn raw(data: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: regcred\n  namespace: shop\n\
         type: kubernetes.io/dockerconfigjson\n{data}\n"
    )
}

fn one(key: &str, entry: &Value) -> String {
    secret(&json!({"auths": {key: entry}}))
}

fn login(password: &str) -> Value {
    json!({"username": "u", "password": password})
}

fn jwt(issued: Option<i64>, expires: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let mut claims = json!({"exp": now + expires});
    if let Some(issued) = issued {
        claims["iat"] = (now + issued).into();
    }
    format!(
        "e30.{}.{PASSWORD}",
        URL_SAFE_NO_PAD.encode(claims.to_string())
    )
}

#[test]
fn the_secret_that_kubectl_makes_is_well() {
    let manifest = std::fs::read_to_string(CCE).unwrap();
    let image = "www.example.com/janedoe/awesomeapp:v1";
    let outcome = check(&manifest, &["--image", image]);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert_eq!(
        outcome.text,
        "secret default/test  no problem found\n  for www.example.com\n  \
         matches www.example.com/janedoe/awesomeapp:v1 with 'www.example.com'\n  \
         The file doesn't show whether a registry accepts the password: `pullpath probe IMAGE\n    \
         --secret-file FILE` sends it to the registry.\n"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_slip_is_named_with_its_severity() {
    let twice = STANDARD.encode(STANDARD.encode("{\"auths\":{}}"));
    let encoded = |text: &str| STANDARD.encode(text);
    let key = "reg.example.com";
    for (what, manifest, code, wanted) in [
        (
            "wrong type",
            one(key, &login(PASSWORD)).replace("dockerconfigjson\nd", "x\nd"),
            1,
            "type 'kubernetes.io/x'",
        ),
        (
            "opaque",
            one(key, &login(PASSWORD)).replace("type: kubernetes.io/dockerconfigjson\n", ""),
            1,
            "type 'Opaque'",
        ),
        (
            "no data key",
            raw("data: {config.json: e30=}"),
            1,
            "no data key '.dockerconfigjson'",
        ),
        (
            "not base64",
            raw(&format!(
                "data: {{.dockerconfigjson: '{{\"auths\":\"{PASSWORD}\"}}'}}"
            )),
            1,
            "not base64",
        ),
        (
            "double base64",
            raw(&format!("data: {{.dockerconfigjson: {twice}}}")),
            1,
            "encoded twice",
        ),
        (
            "base64 in stringData",
            raw(&format!(
                "stringData: {{.dockerconfigjson: {}}}",
                encoded("{\"auths\":{}}")
            )),
            1,
            "encoded twice",
        ),
        (
            "both data",
            raw(
                "stringData: {.dockerconfigjson: '{\"auths\":{\"r\":{\"auth\":\"dTpw\"}}}'}\ndata: {.dockerconfigjson: e30=}",
            ),
            0,
            "API server uses 'stringData'",
        ),
        (
            "not JSON",
            raw(&format!(
                "data: {{.dockerconfigjson: {}}}",
                encoded("auths:\n  x")
            )),
            1,
            "not JSON, at line 1",
        ),
        (
            "auth contradicts",
            one(
                key,
                &json!({"username": "u", "password": "x", "auth": encoded(&format!("u:{PASSWORD}"))}),
            ),
            0,
            "'auth' is used",
        ),
        (
            "no colon",
            one(key, &json!({"auth": encoded(PASSWORD)})),
            1,
            "no ':'",
        ),
        (
            "newline",
            one(key, &json!({"auth": encoded(&format!("u:{PASSWORD}\n"))})),
            1,
            "ends in a newline",
        ),
        (
            "control",
            one(key, &login(&format!("a\u{7}{PASSWORD}"))),
            0,
            "control character",
        ),
        (
            "empty password",
            one(key, &login("")),
            1,
            "there is no password",
        ),
        (
            "empty",
            one(key, &json!({})),
            1,
            "neither user nor password",
        ),
        (
            "credsStore",
            secret(&json!({"credsStore": "desktop"})),
            1,
            "which the kubelet does not run",
        ),
        (
            "no auths",
            secret(&json!({"reg": {"auth": "dTpw"}})),
            1,
            "no 'auths'",
        ),
        (
            "can't match",
            one("reg.example.com:*", &login(PASSWORD)),
            1,
            "can't match any image",
        ),
        (
            "auth twice",
            one(
                key,
                &json!({"auth": encoded(&encoded(&format!("u:{PASSWORD}")))}),
            ),
            1,
            "base64 of base64",
        ),
        (
            "data of a template",
            raw("data: {.dockerconfigjson: '{{ .Values.config }}'}"),
            1,
            "data '.dockerconfigjson' is a placeholder that nothing has filled in",
        ),
        (
            "stringData of a template",
            raw("stringData: {.dockerconfigjson: '$DOCKER_CONFIG'}"),
            1,
            "is a placeholder that nothing has filled in",
        ),
        (
            "no template",
            raw("data:\n  .dockerconfigjson: {{ .Values.config }}"),
            2,
            "pass what `helm template` prints",
        ),
        (
            "ECR",
            one(
                key,
                &json!({"username": "AWS", "password": encoded(&json!({"payload": PASSWORD, "expiration": 1_700_000_000}).to_string())}),
            ),
            1,
            "credential_expired",
        ),
        (
            "ACR",
            one(
                key,
                &json!({"username": "00000000-0000-0000-0000-000000000000", "password": jwt(Some(-20_000), -9000)}),
            ),
            1,
            "credential_expired",
        ),
        (
            "Google's access token",
            one(
                key,
                &json!({"username": "oauth2accesstoken", "password": PASSWORD}),
            ),
            0,
            "Google access token",
        ),
        (
            "a job's token",
            one(
                key,
                &json!({"username": "gitlab-ci-token", "password": PASSWORD}),
            ),
            0,
            "until the CI job",
        ),
        (
            "expired",
            one(key, &login(&jwt(Some(-7200), -3600))),
            1,
            "credential_expired",
        ),
        (
            "soon",
            one(key, &login(&jwt(Some(-86_400), 3600))),
            0,
            "credential_expiring",
        ),
        (
            "no Secret",
            "kind: Pod\n".to_owned(),
            2,
            "no manifest of kind Secret",
        ),
        ("no YAML", "{".to_owned(), 2, "can't be read as YAML"),
    ] {
        let outcome = check(&manifest, &[]);
        let text = outcome.text.replace("\n    ", " ");
        assert!(text.contains(wanted), "{what}: {text}");
        assert_eq!(outcome.code, code, "{what}: {text}");
    }
}

#[test]
fn what_is_well_is_left_alone() {
    let key = "reg.example.com";
    for (what, manifest) in [
        ("colons", one(key, &login(&format!("{PASSWORD}:with:colons")))),
        ("stringData", raw("stringData: {.dockerconfigjson: '{\"auths\":{\"r\":{\"auth\":\"dTpw\"}}}'}")),
        ("an hour-lived token", one(key, &login(&jwt(Some(-1800), 1800)))),
        ("one without a beginning", one(key, &login(&jwt(None, 7200)))),
        ("Docker Hub", one("https://index.docker.io/v1/", &login(PASSWORD))),
        ("wildcard", one("*.example.com/team", &login(PASSWORD))),
        (
            "Google's key file",
            one("gcr.io", &json!({"username": "_json_key", "password": format!("{{\n \"private_key\": \"{PASSWORD}\\n\"\n}}\n")})),
        ),
        ("a robot at Quay", one("quay.io", &json!({"username": "robot+ci", "password": PASSWORD}))),
        (
            "CCE's own",
            one(key, &login(PASSWORD)).replace("name: regcred", "name: default-secret").replace(
                "  namespace: shop",
                "  namespace: shop\n  annotations: {swr-auth-may-expires-at: '2099-01-01T00:00:00Z'}",
            ),
        ),
    ] {
        let outcome = check(&manifest, &[]);
        assert_eq!(outcome.code, 0, "{what}");
        assert!(outcome.text.contains("no problem found"), "{what}: {}", outcome.text);
    }
}

#[test]
fn secrets_for_other_purposes_are_passed_over_beside_a_pull_secret() {
    let item = |manifest: &str| format!("- {}", manifest.trim_end().replace('\n', "\n  "));
    let good = one("reg.example.com", &login(PASSWORD));
    let tls = "apiVersion: v1\nkind: Secret\nmetadata: {name: tls}\ntype: kubernetes.io/tls\ndata: {tls.crt: eA==}\n";
    let opaque = "apiVersion: v1\nkind: Secret\nmetadata: {name: other}\ndata: {token: eA==}\n";
    let list = |items: &[&str]| {
        let items: Vec<String> = items.iter().map(|one| item(one)).collect();
        format!("apiVersion: v1\nkind: List\nitems:\n{}\n", items.join("\n"))
    };
    let typed = list(&[&good, tls]).replace("kind: List", "kind: SecretList");
    let typed = typed.replace("- apiVersion: v1\n  kind: Secret\n", "- immutable: false\n");
    for (what, manifest, code, wanted) in [
        (
            "a list",
            list(&[&good, tls, opaque]),
            0,
            "passed over: standard input: secret tls: type 'kubernetes.io/tls'",
        ),
        (
            "documents",
            [good.as_str(), opaque].join("---\n"),
            0,
            "secret other: type 'Opaque'",
        ),
        ("a typed list", typed, 0, "secret tls: type"),
        (
            "beside a workload",
            format!("kind: Pod\n---\n{tls}"),
            2,
            "contains no pull secret",
        ),
        (
            "nothing else",
            list(&[tls, opaque]),
            2,
            "contains no pull secret",
        ),
        ("alone", tls.to_owned(), 1, "secret_format"),
        // It has a docker config, so its type is a mistake.
        (
            "of a wrong type",
            list(&[
                &good,
                &good.replace("kubernetes.io/dockerconfigjson", "Opaque"),
            ]),
            1,
            "type 'Opaque'",
        ),
        // Of another group.
        (
            "other group",
            format!("{good}---\n{}", tls.replace("v1", "vault.example/v1")),
            0,
            "no problem found",
        ),
        // The rest is checked.
        (
            "a bad document",
            format!("{good}---\na: [\n"),
            2,
            "secret shop/regcred  no problem found",
        ),
        (
            "twice",
            good.replace("kind: Secret\n", "kind: Secret\nkind: Secret\n"),
            0,
            "warning: standard input: kind is given more than once",
        ),
    ] {
        let outcome = check(&manifest, &[]);
        let text = outcome.text.replace("\n  ", " ");
        assert!(text.contains(wanted), "{what}: {text}");
        assert_eq!(outcome.code, code, "{what}: {text}");
    }
}

#[test]
fn keys_are_matched_with_images_as_the_kubelet_does() {
    for (key, image, matches) in [
        ("reg.example.com:5000", "reg.example.com:5000/a", true),
        ("reg.example.com", "reg.example.com:5000/a", false),
        ("docker.io", "nginx", true),
        ("https://index.docker.io/v1/", "nginx", true),
        ("registry-1.docker.io", "nginx", false),
        ("reg.example.com/team", "reg.example.com/teamwork/a", true),
        ("*.example.com", "a.b.example.com/x", false),
    ] {
        let outcome = check(&one(key, &login(PASSWORD)), &["--image", image]);
        assert_eq!(
            outcome.code,
            i32::from(!matches),
            "{key} {image}: {}",
            outcome.text
        );
    }
    let text = check(&one("docker.com", &login(PASSWORD)), &["--image", "nginx"]).text;
    assert!(
        text.contains("--docker-server=https://index.docker.io/v1/"),
        "{text}"
    );
}

#[test]
fn a_copy_of_cces_secret_is_reported_before_and_after_its_expiry() {
    for (at, code) in [
        ("2026-01-01T00:00:00Z", 1),
        ("2099-01-01 00:00:00 +0000 UTC", 0),
    ] {
        let manifest = one("swr.cn-north-4.myhuaweicloud.com", &login(PASSWORD)).replace(
            "  namespace: shop",
            &format!("  namespace: shop\n  annotations: {{swr-auth-may-expires-at: '{at}'}}"),
        );
        let outcome = check(&manifest, &[]);
        assert!(
            outcome.text.contains("secret_copy_expired"),
            "{}",
            outcome.text
        );
        assert_eq!(outcome.code, code);
    }
}

#[test]
fn the_json_form_is_a_versioned_document() {
    let outcome = check(
        &one("reg.example.com", &login("x\n")),
        &["-o", "json", "--image", "nginx"],
    );
    let document: SecretDocument = serde_json::from_str(&outcome.text).unwrap();
    assert_eq!(document.schema_version, 2);
    let secret = &document.secrets[0];
    assert_eq!(secret.secret.server_keys, ["reg.example.com"]);
    let codes: Vec<&str> = secret.findings.iter().map(|f| f.cause.code()).collect();
    assert_eq!(codes, ["secret_format", "secret_key_mismatch"]);
    let missing = Command::new(env!("CARGO_BIN_EXE_pullpath"))
        .args(["secret", "check", "no/such/file"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn a_docker_config_is_refused_with_what_this_command_can_do_with_it() {
    let config = json!({"auths": {"reg.example.com": login(PASSWORD)}}).to_string();
    let outcome = check(&config, &[]);
    assert_eq!(outcome.code, 2, "{}", outcome.text);
    let text = outcome
        .text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(
        text.contains("it is a docker config, not a Secret"),
        "{text}"
    );
    assert!(text.contains("| pullpath secret check -`"), "{text}");
    assert!(!text.contains("--docker-config"), "{text}");
}
