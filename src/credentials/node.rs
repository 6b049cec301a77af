//! The node's own credentials, which the kubelet tries after those of the pod: its docker config, and its credential
//! provider plugins.
//!
//! The plugins are not run: their credentials are for the kubelet only. Their configuration shows for which images the
//! kubelet runs them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{LoadedSource, read_to_limit};
use crate::model::credential::{CredentialSource, SourceProblem};
use crate::model::documents;
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::net::host_root::{self, NodeFile};
use crate::own;
use crate::pull_secret::docker_config::{self, ConfigFormat};
use crate::pull_secret::key;

/// Where the node's credentials are. `None`: not configured, so it is unknown whether there are any.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeCredentials {
    /// `config.json` in the kubelet's folder (`network.kubelet_docker_config`).
    pub docker_config: Option<NodeFile>,
    /// A file of kind `CredentialProviderConfig`, the kubelet's `--image-credential-provider-config`
    /// (`network.kubelet_credential_providers`).
    pub providers: Option<NodeFile>,
    /// Where the node's `/` is mounted (`network.host_root`); `None`: paths are those of this machine.
    pub root: Option<PathBuf>,
}

/// The node's credentials that were found.
#[derive(Clone, Debug, Default)]
struct NodeSources {
    sources: Vec<LoadedSource>,
    /// Reasons why there may be others.
    not_observed: Vec<String>,
}

impl NodeCredentials {
    /// Reads the node's credentials for an image; the kubelet tries them after all others.
    pub async fn load(&self, reference: &Reference) -> Vec<LoadedSource> {
        if *self == Self::default() {
            return Vec::new();
        }
        let (own, image) = (self.clone(), reference.name());
        let read = own::blocking(move || own.read_all(Some(&image)));
        read.await.unwrap_or_default().sources
    }

    /// Reasons why the node may have credentials that are not known here; empty: all are known.
    pub fn not_observed(&self) -> Vec<String> {
        self.read_all(None).not_observed
    }

    fn read_all(&self, image: Option<&str>) -> NodeSources {
        let mut found = NodeSources::default();
        match &self.docker_config {
            None => found
                .not_observed
                .push("network.kubelet_docker_config is not set; set it to the path of the kubelet's docker config, or to none".to_owned()),
            Some(NodeFile::None) => {}
            Some(NodeFile::At(path)) => self.docker_config(path, &mut found),
        }
        match &self.providers {
            None => found
                .not_observed
                .push("network.kubelet_credential_providers is not set; set it to the path of the kubelet's CredentialProviderConfig, or to none".to_owned()),
            Some(NodeFile::None) => {}
            Some(NodeFile::At(path)) => self.providers(path, image, &mut found),
        }
        found
    }

    /// Reads it as the kubelet does, which ignores helpers and identity tokens.
    fn docker_config(&self, path: &Path, found: &mut NodeSources) {
        let shown = printable(&path.to_string_lossy());
        let mut source = LoadedSource::new(CredentialSource::NodeConfig {
            path: shown.clone(),
        });
        match self.read(path) {
            Ok(bytes) => match docker_config::parse(&bytes, ConfigFormat::Secret) {
                Ok(config) => {
                    source.entries = config.entries;
                    source.lint = config.lint;
                }
                Err(reason) => source.problem = Some(SourceProblem::Malformed { reason }),
            },
            Err(Missing::Absent(reason)) => {
                found.not_observed.push(reason);
                return;
            }
            Err(Missing::Unreadable(reason)) => {
                source.problem = Some(SourceProblem::Unread {
                    reason: reason.clone(),
                });
                found.not_observed.push(reason);
            }
        }
        found.sources.push(source);
    }

    fn providers(&self, path: &Path, image: Option<&str>, found: &mut NodeSources) {
        let shown = printable(&path.to_string_lossy());
        let providers = self
            .read(path)
            .and_then(|bytes| read_providers(&bytes).map_err(Missing::Unreadable));
        let unread = |name: String, reason: String| {
            let path = shown.clone();
            let source = CredentialSource::NodeProvider { name, path };
            LoadedSource::failed(source, SourceProblem::Unread { reason })
        };
        match providers {
            Ok(providers) if providers.is_empty() => {}
            Ok(providers) => {
                let names: Vec<&str> = providers.iter().map(|p| p.name.as_str()).collect();
                found.not_observed.push(format!(
                    "only the kubelet can run its credential providers ({} in {shown})",
                    names.join(", ")
                ));
                for provider in &providers {
                    let image = image.filter(|image| provider.is_run_for(image));
                    if image.is_some() {
                        found.sources.push(unread(
                            provider.name.clone(),
                            "the kubelet runs it for this image, and only the kubelet can run it"
                                .to_owned(),
                        ));
                    }
                }
            }
            Err(Missing::Absent(reason)) => found.not_observed.push(reason),
            Err(Missing::Unreadable(reason)) => {
                found.not_observed.push(format!("{shown}: {reason}"));
                found.sources.push(unread(String::new(), reason));
            }
        }
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, Missing> {
        let resolved =
            host_root::resolve(self.root.as_deref(), path).map_err(|error| match error {
                host_root::Unresolved::Unreadable { .. } => Missing::Unreadable(error.to_string()),
                _ => Missing::Absent(error.to_string()),
            })?;
        read_to_limit(&resolved).map_err(|source| {
            let path = resolved;
            Missing::Unreadable(host_root::Unresolved::Unreadable { path, source }.to_string())
        })
    }
}

enum Missing {
    /// It does not exist here. The node may still have it: it may not be mounted.
    Absent(String),
    Unreadable(String),
}

/// A plugin, and the images that the kubelet runs it for.
#[derive(Debug)]
struct Provider {
    name: String,
    /// Patterns like server keys (kubernetes `pkg/credentialprovider/plugin`).
    images: Vec<String>,
}

impl Provider {
    fn is_run_for(&self, image: &str) -> bool {
        let mut images = self.images.iter();
        images.any(|pattern| key::pattern_matches(pattern, image))
    }
}

/// Reads a `CredentialProviderConfig` of `kubelet.config.k8s.io`.
fn read_providers(bytes: &[u8]) -> Result<Vec<Provider>, String> {
    let documents = documents::read(bytes)?;
    let config = documents
        .iter()
        .find(|document| document["kind"] == "CredentialProviderConfig")
        .ok_or("it is not a CredentialProviderConfig")?;
    let list = match &config["providers"] {
        Value::Array(list) => list.as_slice(),
        Value::Null => &[],
        _ => return Err("'providers' is not a list".to_owned()),
    };
    let text = |value: &Value| value.as_str().map(printable);
    Ok(list
        .iter()
        .take(MOST_PROVIDERS)
        .map(|provider| Provider {
            name: text(&provider["name"]).unwrap_or_default(),
            images: provider["matchImages"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(text)
                .collect(),
        })
        .collect())
}

/// Upper bound of the plugins; a cloud has one.
const MOST_PROVIDERS: usize = 32;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const PROVIDERS: &str = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: ecr\n  \
         matchImages: ['*.dkr.ecr.*.amazonaws.com', registry.example.org/team]\n  defaultCacheDuration: 12h\n";

    fn node() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/lib/kubelet")).unwrap();
        root
    }

    fn at(
        root: &tempfile::TempDir,
        docker_config: Option<&str>,
        providers: Option<&str>,
    ) -> NodeCredentials {
        let file = |path: Option<&str>| {
            path.map(|path| match path {
                "none" => NodeFile::None,
                _ => NodeFile::At(root.path().join("var/lib/kubelet").join(path)),
            })
        };
        NodeCredentials {
            docker_config: file(docker_config),
            providers: file(providers),
            root: Some(root.path().to_owned()),
        }
    }

    fn write(root: &tempfile::TempDir, name: &str, text: &str) {
        fs::write(root.path().join("var/lib/kubelet").join(name), text).unwrap();
    }

    async fn described(of: &NodeCredentials, image: &str) -> Vec<String> {
        let sources = of.load(&image.parse().unwrap()).await;
        assert!(!format!("{sources:?}").contains("hunter2"));
        sources
            .iter()
            .map(|s| format!("{} {} {:?}", s.source, s.entries.len(), s.problem))
            .collect()
    }

    #[tokio::test]
    async fn they_are_known_when_both_files_were_read_or_are_said_not_to_be() {
        let root = node();
        write(
            &root,
            "config.json",
            r#"{"auths":{"reg.example.com":{"auth":"dTpodW50ZXIy"}},"credsStore":"pass"}"#,
        );
        write(
            &root,
            "empty.yaml",
            "kind: CredentialProviderConfig\nproviders: []\n",
        );
        symlink(
            "/var/lib/kubelet/config.json",
            root.path().join("var/lib/kubelet/link.json"),
        )
        .unwrap();
        for (docker_config, providers, sources) in [
            ("config.json", "none", 1),
            ("link.json", "empty.yaml", 1),
            ("none", "none", 0),
        ] {
            let of = at(&root, Some(docker_config), Some(providers));
            assert_eq!(of.not_observed(), [""; 0], "{docker_config}");
            assert_eq!(described(&of, "reg.example.com/a").await.len(), sources);
        }
        let one = at(&root, Some("config.json"), Some("none"));
        let sources = one.load(&"reg.example.com/a".parse().unwrap()).await;
        assert_eq!(sources[0].serves("reg.example.com/a"), Ok(()));
    }

    #[tokio::test]
    async fn what_is_not_said_absent_or_unreadable_stays_unseen() {
        let root = node();
        write(&root, "broken.json", "{hunter2");
        fs::create_dir(root.path().join("var/lib/kubelet/folder")).unwrap();
        for (docker_config, providers, wanted, sources) in [
            (
                None,
                None,
                vec!["kubelet_docker_config", "kubelet_credential_providers"],
                0,
            ),
            (
                Some("gone.json"),
                Some("none"),
                vec!["gone.json does not exist"],
                0,
            ),
            (Some("folder"), Some("none"), vec!["can't be read"], 1),
            (
                Some("none"),
                Some("gone.yaml"),
                vec!["gone.yaml does not exist"],
                0,
            ),
            (
                Some("none"),
                Some("broken.json"),
                vec!["broken.json: it"],
                1,
            ),
        ] {
            let of = at(&root, docker_config, providers);
            let reasons = of.not_observed();
            assert_eq!(reasons.len(), wanted.len(), "{reasons:?}");
            for (reason, part) in reasons.iter().zip(wanted) {
                assert!(
                    reason.contains(part) && !reason.contains("hunter2"),
                    "{reason}"
                );
            }
            assert_eq!(
                described(&of, "reg.example.com/a").await.len(),
                sources,
                "{docker_config:?} {providers:?}"
            );
        }
        // The kubelet ignores a file that it can't decode: its content is known to give no credential.
        let broken = at(&root, Some("broken.json"), Some("none"));
        assert_eq!(broken.not_observed(), [""; 0]);
        assert!(described(&broken, "a").await[0].contains("Malformed"));
    }

    #[tokio::test]
    async fn a_provider_may_have_a_credential_for_the_images_that_it_is_asked_for() {
        let root = node();
        write(&root, "providers.yaml", PROVIDERS);
        let of = at(&root, Some("none"), Some("providers.yaml"));
        assert!(
            of.not_observed()[0].contains("ecr in"),
            "{:?}",
            of.not_observed()
        );
        for (image, is_asked) in [
            ("123.dkr.ecr.eu-west-1.amazonaws.com/a:1", true),
            ("registry.example.org/team/a", true),
            ("registry.example.org/other/a", false),
            ("reg.example.com/a", false),
            ("nginx", false),
        ] {
            let found = described(&of, image).await;
            assert_eq!(found.len(), usize::from(is_asked), "{image}: {found:?}");
        }
        let source = &described(&of, "registry.example.org/team/a").await[0];
        assert!(
            source.contains("credential provider ecr")
                && source.contains("only the kubelet can run it"),
            "{source}"
        );
    }
}
