//! Reads Secret manifests, as printed by `kubectl get secret -o yaml` or kept in a repository: YAML or JSON, several
//! documents, lists.

use base64::engine::DecodePaddingMode;
use serde_json::Value;

use crate::model::credential::{CredentialSource, Lint, LintRule, SourceProblem};
use crate::model::documents::{self, Document, ManifestNote, NoteKind};
use crate::model::text::printable;
use crate::pull_secret::docker_config::{self, ConfigFormat, DockerConfig};
use crate::pull_secret::keyring::LoadedSource;
use crate::pull_secret::lint;

/// Reads all Secrets of a file, in order; other objects are skipped. A file without a pull secret yields one source
/// with a problem, and so does a document that can't be read.
pub fn read(bytes: &[u8], path: &str) -> Vec<LoadedSource> {
    match documents::read_each(bytes) {
        Ok(documents) => of_documents(&documents, path),
        Err(reason) => vec![nameless(path, malformed(reason))],
    }
}

/// The same of documents that were read.
pub fn of_documents(documents: &[Result<Document, String>], path: &str) -> Vec<LoadedSource> {
    let (mut secrets, mut unread) = (Vec::new(), Vec::new());
    for (index, document) in documents.iter().enumerate() {
        match document {
            Ok(document) => collect(&document.value, path, "", &mut secrets, MAX_DEPTH),
            Err(reason) if documents.len() == 1 => unread.push(reason.clone()),
            Err(reason) => unread.push(format!("document {}: {reason}", index + 1)),
        }
    }
    // Somebody who names a single Secret means a pull secret.
    if let ([secret], [_]) = (secrets.as_mut_slice(), documents)
        && matches!(documents, [Ok(one)] if text(&one.value, "kind") == Some("Secret"))
    {
        secret.is_for_others = false;
    }
    if secrets.iter().all(|secret| secret.is_for_others) && unread.is_empty() {
        let reason = if has_docker_config(documents) {
            "it is a docker config, not a Secret: pass it with --docker-config, or with docker_config in the configuration"
        } else if secrets.is_empty() {
            "it contains no manifest of kind Secret"
        } else {
            "it contains no pull secret, only Secrets for other purposes"
        };
        unread.push(reason.to_owned());
    }
    secrets.extend(
        unread
            .into_iter()
            .map(|reason| nameless(path, malformed(reason))),
    );
    secrets
}

/// Whether a document is a docker config, which is the content of a Secret and not a Secret.
pub fn has_docker_config(documents: &[Result<Document, String>]) -> bool {
    let mut read = documents.iter().flatten();
    read.any(|document| document.value.get("auths").is_some())
}

/// What is worth knowing of a file beside its pull secrets: Secrets that were passed over, and keys that are given
/// twice.
pub fn notes(
    documents: &[Result<Document, String>],
    secrets: &[LoadedSource],
    path: &str,
) -> Vec<ManifestNote> {
    let note = |kind, text| ManifestNote {
        kind,
        place: printable(path),
        text,
    };
    let read = documents.iter().flatten();
    let twice = read.flat_map(|document| &document.duplicates).map(|key| {
        let text = format!("{key} is given more than once; the last value counts");
        note(NoteKind::Warning, text)
    });
    let others = secrets.iter().filter(|secret| secret.is_for_others);
    let passed = others.filter_map(|secret| {
        let problem = secret.problem.as_ref()?;
        let text = format!("{}: {problem}", secret.source);
        Some(note(NoteKind::PassedOver, text))
    });
    twice.chain(passed).collect()
}

/// `of_items`: the kind of the items of a typed list, which have none themselves.
fn collect(
    document: &Value,
    path: &str,
    of_items: &str,
    secrets: &mut Vec<LoadedSource>,
    depth: usize,
) {
    let version = text(document, "apiVersion").unwrap_or("v1");
    match text(document, "kind").unwrap_or(of_items) {
        // Other groups have kinds of this name, too.
        "Secret" if !version.contains('/') => {
            let mut secret = of_manifest(document, path);
            secret.is_for_others = is_for_others(document, &secret);
            secrets.push(secret);
        }
        list @ ("List" | "SecretList") if depth > 0 => {
            let items = document.get("items").and_then(Value::as_array);
            for item in items.into_iter().flatten() {
                let of_items = list.strip_suffix("List").unwrap_or_default();
                collect(item, path, of_items, secrets, depth - 1);
            }
        }
        _ => {}
    }
}

/// Whether it is neither of a pull secret's type nor has a docker config, as a pull secret of a wrong type has.
fn is_for_others(secret: &Value, loaded: &LoadedSource) -> bool {
    let is_config = |key: &String| {
        let key = key.trim_start_matches('.');
        ["dockerconfigjson", "dockercfg", "config.json"].contains(&key)
    };
    let has_config = ["data", "stringData"].iter().any(|data| {
        let data = secret.get(data).and_then(Value::as_object);
        data.is_some_and(|data| data.keys().any(is_config))
    });
    matches!(loaded.problem, Some(SourceProblem::WrongType { .. })) && !has_config
}

/// Reads one Secret, as the kubelet's `secretsToTrackedDockerConfigs` does. `path` names the file in reports.
pub fn of_manifest(secret: &Value, path: &str) -> LoadedSource {
    let metadata = secret.get("metadata");
    let of = |name| metadata.and_then(|m| text(m, name)).map(printable);
    let mut loaded = LoadedSource::new(CredentialSource::SecretFile {
        path: printable(path),
        namespace: of("namespace"),
        name: of("name").unwrap_or_default(),
    });
    let annotation = metadata
        .and_then(|m| m.get("annotations"))
        .and_then(|annotations| text(annotations, lint::SWR_EXPIRY));
    if let Some(annotation) = annotation {
        loaded.expiries.push(lint::annotated_expiry(annotation));
    }
    // The API server's default.
    let kind = text(secret, "type").unwrap_or("Opaque");
    let (key, flavour) = match kind {
        "kubernetes.io/dockerconfigjson" => (".dockerconfigjson", ConfigFormat::Secret),
        "kubernetes.io/dockercfg" => (".dockercfg", ConfigFormat::LegacySecret),
        other => {
            loaded.problem = Some(SourceProblem::WrongType {
                found: printable(other),
            });
            return loaded;
        }
    };
    let has = |data: &str| secret.get(data).is_some_and(|data| data.get(key).is_some());
    if has("data") && has("stringData") {
        loaded.lint.push(Lint {
            key: None,
            rule: LintRule::DataTwice,
        });
    }
    match config(secret, key, flavour) {
        Ok(Some(config)) => {
            loaded.entries = config.entries;
            loaded.lint.extend(config.lint);
        }
        Ok(None) => {
            loaded.problem = Some(SourceProblem::NoData {
                key: key.to_owned(),
            });
        }
        Err(reason) => {
            loaded.problem = Some(malformed(reason));
        }
    }
    loaded
}

/// The docker config under a data key. `stringData` has precedence over `data`, and is not base64.
fn config(
    secret: &Value,
    key: &str,
    flavour: ConfigFormat,
) -> Result<Option<DockerConfig>, String> {
    let under = |data: &str| secret.get(data).and_then(|data| data.get(key));
    let bytes = match (under("stringData"), under("data")) {
        (Some(Value::String(text)), _) => text.clone().into_bytes(),
        (None | Some(Value::Null), Some(Value::String(text))) => {
            docker_config::decode(text, DecodePaddingMode::RequireCanonical).ok_or_else(|| {
                let what = if docker_config::is_unfilled(text) {
                    docker_config::UNFILLED.trim_start_matches("it ")
                } else {
                    "is not base64"
                };
                format!("data '{key}' {what}; the API server rejects such a Secret")
            })?
        }
        (None | Some(Value::Null), None | Some(Value::Null)) => return Ok(None),
        _ => {
            return Err(format!(
                "'{key}' is not a string; the API server rejects such a Secret"
            ));
        }
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    docker_config::parse(&bytes, flavour)
        .map(Some)
        .map_err(|reason| {
            // `MakeDockerKeyring` then fails for all of the pod's Secrets, and the pull fails with it.
            format!(
                "'{key}': {reason}; the kubelet refuses every pull of a pod that names this Secret"
            )
        })
}

fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}

fn nameless(path: &str, problem: SourceProblem) -> LoadedSource {
    let source = CredentialSource::SecretFile {
        path: printable(path),
        namespace: None,
        name: String::new(),
    };
    LoadedSource::failed(source, problem)
}

fn malformed(reason: String) -> SourceProblem {
    SourceProblem::Malformed { reason }
}

/// Upper bound for lists within lists.
const MAX_DEPTH: usize = 3;

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    const CONFIG: &str = r#"{"auths":{"reg.example.com":{"username":"u","password":"hunter2"}}}"#;

    fn problem(text: &str) -> String {
        let read = read(text.as_bytes(), "s.yaml");
        assert_eq!(read.len(), 1);
        assert!(!format!("{read:?}").contains("hunter2"));
        read[0]
            .problem
            .as_ref()
            .map_or_else(String::new, ToString::to_string)
    }

    fn manifest(kind: &str, data: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: pull\n  namespace: shop\ntype: {kind}\n{data}\n"
        )
    }

    #[test]
    fn secrets_are_found_in_yaml_json_lists_and_several_documents() {
        let data = STANDARD.encode(CONFIG);
        let wrapped = format!(
            "data:\n  .dockerconfigjson: |\n    {}\n    {}",
            &data[..20],
            &data[20..]
        );
        let yaml = [
            manifest(
                "kubernetes.io/dockerconfigjson",
                &format!("data:\n  .dockerconfigjson: {data}"),
            ),
            "kind: ConfigMap\ndata:\n  n: 5\n".to_owned(),
            manifest("kubernetes.io/dockerconfigjson", &wrapped),
            manifest(
                "kubernetes.io/dockerconfigjson",
                &format!("stringData:\n  .dockerconfigjson: '{CONFIG}'"),
            ),
            manifest(
                "kubernetes.io/dockercfg",
                "stringData:\n  .dockercfg: '{\"reg\":{\"auth\":\"dTpw\"}}'",
            ),
        ]
        .join("---\n");
        let found = read(yaml.as_bytes(), "s.yaml");
        assert_eq!(found.len(), 4);
        for source in &found {
            assert_eq!((source.entries.len(), &source.problem), (1, &None));
            assert_eq!(source.source.to_string(), "secret shop/pull");
        }
        let json = serde_json::json!({"kind": "List", "items": [
            {"kind": "Pod"},
            {"kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
             "data": {".dockerconfigjson": data}},
        ]});
        let found = read(
            serde_json::to_string_pretty(&json).unwrap().as_bytes(),
            "s.json",
        );
        assert_eq!((found.len(), found[0].entries.len()), (1, 1));
        assert_eq!(found[0].source.to_string(), "secret in s.json");
    }

    #[test]
    fn what_is_wrong_is_said_without_what_is_in_it() {
        let right = "kubernetes.io/dockerconfigjson";
        let twice = STANDARD.encode(STANDARD.encode(CONFIG));
        for (text, part) in [
            (manifest("Opaque", "data: {}"), "type 'Opaque'"),
            ("kind: Secret\ndata: {}".to_owned(), "type 'Opaque'"),
            (
                manifest(right, "data:\n  .dockercfg: eA=="),
                "no data key '.dockerconfigjson'",
            ),
            (
                manifest(right, "data:\n  .dockerconfigjson: ''"),
                "no data key '.dockerconfigjson'",
            ),
            (
                manifest(right, "data:\n  .dockerconfigjson: 'hunter2!'"),
                "is not base64; the API server",
            ),
            (
                manifest(right, "data:\n  .dockerconfigjson: {hunter2: 1}"),
                "is not a string",
            ),
            (
                manifest(right, &format!("data:\n  .dockerconfigjson: {twice}")),
                "encoded twice",
            ),
            (
                manifest(
                    right,
                    "stringData:\n  .dockerconfigjson: '{\"auths\":{\"reg\":{\"auth\":\"hunter2!\"}}}'",
                ),
                "entry 'reg' is not base64; the kubelet refuses",
            ),
            (
                "kind: Secret\n  hunter2: : x\n".to_owned(),
                "YAML, at line 2",
            ),
            ("kind: Pod\n".to_owned(), "no manifest of kind Secret"),
            (String::new(), "no manifest of kind Secret"),
            (CONFIG.to_owned(), "--docker-config"),
        ] {
            let found = problem(&text);
            assert!(found.contains(part), "{text}: {found}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, "x");
        }

        #[test]
        fn any_text_in_a_manifest_is_read_or_refused(text in "[ -~\\n]{0,80}") {
            for source in read(manifest("kubernetes.io/dockerconfigjson", &text).as_bytes(), "x") {
                prop_assert!(source.problem.is_some());
            }
        }
    }
}
