//! The words of errors of the API server's client, without anything secret: kube's own messages repeat values of the
//! kubeconfig, what an exec plugin printed, and answers.

use std::error::Error;
use std::iter;

use kube::client::AuthError;
use kube::config::{Kubeconfig, KubeconfigError, LoadDataError};

use crate::model::slip;

type Any = dyn Error + 'static;

/// The error's text with the texts of its sources.
pub(crate) fn with_sources(error: &Any) -> String {
    let mut chain = iter::successors(Some(error), |&error| error.source());
    if let Some(words) = chain.clone().find_map(of_secrets) {
        return words;
    }
    let mut text = chain.next().map_or_else(String::new, ToString::to_string);
    for source in chain {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
    }
    text
}

/// What is wrong in the text of a kubeconfig that kube does not read.
pub(super) fn in_kubeconfig(error: &Any, text: &str) -> String {
    let is_key = |key: &str| KEYS.contains(&key);
    let slip = slip::read::<Kubeconfig>(text, is_key, false).err();
    // A kubeconfig may have several documents.
    let slip = slip.filter(|(slip, _)| !slip.is_second_document());
    slip.map_or_else(|| with_sources(error), |(slip, _)| slip.to_string())
}

/// The words for an error whose own text may have a secret.
fn of_secrets(error: &Any) -> Option<String> {
    if let Some(error) = error.downcast_ref() {
        return Some(of_kubeconfig(error));
    }
    if let Some(error) = error.downcast_ref() {
        return Some(of_login(error));
    }
    if let Some(error) = error.downcast_ref::<serde_saphyr::Error>() {
        return Some(not_yaml(error));
    }
    if let Some(error) = error.downcast_ref::<serde_json::Error>() {
        let (line, column) = (error.line(), error.column());
        return Some(format!("unexpected JSON at line {line} column {column}"));
    }
    match error.downcast_ref()? {
        kube::Error::ProxyProtocolUnsupported { .. }
        | kube::Error::ProxyProtocolDisabled { .. } => Some(
            "the proxy of the API server (proxy-url or HTTPS_PROXY) has a scheme that this program does not support"
                .to_owned(),
        ),
        _ => None,
    }
}

fn not_yaml(error: &serde_saphyr::Error) -> String {
    match error.location() {
        Some(at) => format!(
            "unexpected YAML at line {} column {}",
            at.line(),
            at.column()
        ),
        None => "unexpected YAML".to_owned(),
    }
}

fn of_kubeconfig(error: &KubeconfigError) -> String {
    use KubeconfigError as E;
    match error {
        E::CurrentContextNotSet => "it has no current-context".to_owned(),
        E::KindMismatch => "its documents have different kinds".to_owned(),
        E::ApiVersionMismatch => "its documents have different values of apiVersion".to_owned(),
        E::LoadContext(_) => {
            "contexts has no context of the name to be used (current-context, or --context)"
                .to_owned()
        }
        E::LoadClusterOfContext(_) => {
            "clusters has no cluster of the name in the context".to_owned()
        }
        E::FindPath => "there is no home folder to look in".to_owned(),
        E::ReadConfig(error, _) => format!("it can't be read: {error}"),
        E::Parse(error) => not_yaml(error),
        E::MissingClusterUrl => "clusters[].cluster.server is missing".to_owned(),
        E::ParseClusterUrl(_) => "clusters[].cluster.server is not a URL".to_owned(),
        E::ParseProxyUrl(_) => "clusters[].cluster.proxy-url is not a URL".to_owned(),
        E::LoadCertificateAuthority(error) => {
            of_data("clusters[].cluster.certificate-authority", error)
        }
        E::LoadClientCertificate(error) => of_data("users[].user.client-certificate", error),
        E::LoadClientKey(error) => of_data("users[].user.client-key", error),
        E::ParseCertificates(_) => {
            "clusters[].cluster.certificate-authority has no certificates in PEM form".to_owned()
        }
        #[allow(unreachable_patterns, reason = "features of kube add variants")]
        _ => "it can't be used".to_owned(),
    }
}

fn of_data(key: &str, error: &LoadDataError) -> String {
    match error {
        LoadDataError::DecodeBase64(_) => format!("{key}-data is not base64"),
        // The path may be a key or token that was pasted there.
        LoadDataError::ReadFile(error, _) => format!("the file of {key} can't be read: {error}"),
        LoadDataError::NoBase64DataOrFile => format!("{key} and {key}-data are both missing"),
    }
}

fn of_login(error: &AuthError) -> String {
    use AuthError as E;
    match error {
        E::InvalidBasicAuth(_) => {
            "users[].user.username or password has characters that HTTP does not allow".to_owned()
        }
        E::InvalidBearerToken(_) => {
            "the token of the user has characters that HTTP does not allow, for instance a line break".to_owned()
        }
        E::UnrefreshableTokenResponse => "the user's login gave no token that can be renewed".to_owned(),
        E::ExecPluginFailed => "the output of the exec plugin has no status".to_owned(),
        E::MalformedTokenExpirationDate(_) => {
            "the time at which the user's token expires is not a time".to_owned()
        }
        E::AuthExecStart(error) => format!(
            "the exec plugin (users[].user.exec.command) can't be started: {error}"
        ),
        E::AuthExecRun { out, .. } => format!(
            "the exec plugin (users[].user.exec) failed with {}; run it by hand to see its output",
            out.status
        ),
        E::AuthExecParse(_) => {
            "the output of the exec plugin (users[].user.exec) is not an ExecCredential".to_owned()
        }
        E::AuthExecSerialize(_) => "the input of the exec plugin can't be written".to_owned(),
        E::AuthExec(_) => "the login of the user (users[].user.auth-provider) failed".to_owned(),
        E::ReadTokenFile(error, _) => format!(
            "the file of users[].user.tokenFile can't be read: {error}"
        ),
        E::ParseTokenKey(_) => "users[].user.auth-provider gave no token".to_owned(),
        E::MissingCommand => "users[].user.exec.command is missing".to_owned(),
        E::ExecMissingClusterInfo => "users[].user.exec needs the cluster's data".to_owned(),
        E::NoValidNativeRootCA(error) => {
            format!("this machine has no trusted roots: {error}")
        }
        #[allow(unreachable_patterns, reason = "features of kube add variants")]
        _ => "the login of the user failed".to_owned(),
    }
}

/// The keys of a kubeconfig.
const KEYS: [&str; 45] = [
    "apiVersion",
    "kind",
    "preferences",
    "colors",
    "clusters",
    "cluster",
    "name",
    "server",
    "insecure-skip-tls-verify",
    "certificate-authority",
    "certificate-authority-data",
    "proxy-url",
    "disable-compression",
    "tls-server-name",
    "extensions",
    "extension",
    "users",
    "user",
    "username",
    "password",
    "token",
    "tokenFile",
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "act-as",
    "act-as-uid",
    "act-as-groups",
    "act-as-user-extra",
    "as",
    "as-uid",
    "as-groups",
    "as-user-extra",
    "auth-provider",
    "config",
    "exec",
    "command",
    "args",
    "env",
    "installHint",
    "interactiveMode",
    "provideClusterInfo",
    "contexts",
    "context",
];

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: v1
kind: Config
current-context: here
clusters:
- name: here
  cluster: {server: 'https://127.0.0.1:1'}
contexts:
- name: here
  context: {cluster: here, user: me}
users:
- name: me
  user: {token: CANARY}
";

    async fn words(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        let connected = super::super::client::connect(Some(&path), None).await;
        connected.map_or_else(
            |error| format!("{error} {error:?}"),
            |_| "connected".to_owned(),
        )
    }

    #[tokio::test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    async fn no_value_of_a_kubeconfig_is_in_an_error() {
        let mut wrong = Vec::new();
        for (from, to, says) in [
            (
                "token: CANARY",
                "token: [CANARY]",
                "users[0].user.token: expected",
            ),
            ("token: CANARY", "token: {CANARY: 1}", "line 12 column"),
            ("{token: CANARY}", "CANARY", "users[0].user"),
            ("{token: CANARY}", "[CANARY]", "users[0].user"),
            ("{token: CANARY}", "{token: a, CANARY", "line 1"),
            (
                "{token: CANARY}",
                "{token: a, as-groups: CANARY}",
                "users[0].user.as-groups: expected",
            ),
            ("{token: CANARY}", "{tokenFile: /no/CANARY}", "tokenFile"),
            ("{token: CANARY}", "{token: \"CANARY\\q\"}", "line 12"),
            (
                "{token: CANARY}",
                "{token: \"CANARY\\nX\"}",
                "characters that HTTP does not allow",
            ),
            (
                "{token: CANARY}",
                "{client-certificate-data: 'CANARY!', client-key-data: 'CANARY!'}",
                "not base64",
            ),
            (
                "{token: CANARY}",
                "{client-certificate: /no/CANARY, client-key: /no/CANARY}",
                "can't be read",
            ),
            (
                "{token: CANARY}",
                "{client-key-data: Q0FOQVJZ, client-certificate-data: Q0FOQVJZ}",
                "",
            ),
            (
                "{token: CANARY}",
                "{exec: {apiVersion: client.authentication.k8s.io/v1, command: /no/CANARY}}",
                "exec.command",
            ),
            (
                "{token: CANARY}",
                "{exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, 'echo CANARY; echo CANARY >&2; exit 3']}}",
                "exit status: 3",
            ),
            (
                "{token: CANARY}",
                "{exec: {apiVersion: client.authentication.k8s.io/v1, command: echo, args: [CANARY]}}",
                "not an ExecCredential",
            ),
            (
                "{token: CANARY}",
                "{exec: {apiVersion: client.authentication.k8s.io/v1, command: echo, args: ['{\"apiVersion\": \"v1\", \"status\": {\"token\": [\"CANARY\"]}}']}}",
                "not an ExecCredential",
            ),
            (
                "{token: CANARY}",
                "{exec: {apiVersion: client.authentication.k8s.io/v1, command: echo, args: ['{\"apiVersion\": \"v1\", \"status\": {\"token\": \"CANARY\", \"expirationTimestamp\": \"CANARY\"}}']}}",
                "",
            ),
            (
                "{server: 'https://127.0.0.1:1'}",
                "{server: 'https://u:CANARY@h h'}",
                "server is not a URL",
            ),
            (
                "{server: 'https://127.0.0.1:1'}",
                "{server: 'https://127.0.0.1:1', proxy-url: 'ftp://u:CANARY@127.0.0.1:1'}",
                "proxy",
            ),
            (
                "{server: 'https://127.0.0.1:1'}",
                "{server: 'https://u:CANARY@127.0.0.1:1', proxy-url: 'ftp://127.0.0.1:1'}",
                "proxy",
            ),
            (
                "{server: 'https://127.0.0.1:1'}",
                "{server: 'https://127.0.0.1:1', proxy-url: 'http://u:CANARY@ x'}",
                "proxy-url is not a URL",
            ),
            (
                "{server: 'https://127.0.0.1:1'}",
                "{server: 'https://127.0.0.1:1', certificate-authority-data: CANARY}",
                "certificate",
            ),
            (
                "current-context: here",
                "current-context: CANARY",
                "no context",
            ),
            ("cluster: here, user", "cluster: CANARY, user", "no cluster"),
            ("kind: Config", "CANARY", "line 2"),
            ("kind: Config", "kind: Config\nkind: CANARY", "given twice"),
        ] {
            assert!(FILE.contains(from), "{from}");
            let text = FILE.replace(from, to);
            let words = words(&text).await;
            let is_shown = words.contains("CANARY") || words.contains("Q0FOQVJZ");
            if is_shown || !words.contains(says) {
                wrong.push(format!("{to}: {words}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn an_answer_is_not_repeated() {
        let error = serde_json::from_str::<Vec<u8>>("{\"data\": \"CANARY\"").unwrap_err();
        let error = kube::Error::SerdeError(error);
        assert_eq!(with_sources(&error), "unexpected JSON at line 1 column 0");
    }
}
