//! The node's own credentials, which the kubelet tries behind those of the pod: its docker config, and the
//! plugins that it may ask.
//!
//! The plugins are not run: their answers are for the kubelet. Which images they are asked for stands in
//! their configuration.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{LoadedSource, read_to_limit};
use crate::model::credential::{CredentialSource, SourceProblem};
use crate::model::documents;
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::net::host_root::{self, NodeFile};
use crate::pull_secret::docker_config::{self, ConfigFormat};
use crate::pull_secret::key;

/// Where they are, as far as that was said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeCredentials {
    /// `config.json` of the kubelet's folder.
    pub docker_config: Option<NodeFile>,
    /// A file of kind `CredentialProviderConfig` (`--image-credential-provider-config`).
    pub providers: Option<NodeFile>,
    /// Where the node's `/` is mounted.
    pub root: Option<PathBuf>,
}

/// What a node has.
#[derive(Clone, Debug, Default)]
struct NodeSources {
    sources: Vec<LoadedSource>,
    /// Why it is not all of it.
    unseen: Vec<String>,
}

impl NodeCredentials {
    /// Those that count for an image, behind all others.
    pub async fn load(&self, reference: &Reference) -> Vec<LoadedSource> {
        if *self == Self::default() {
            return Vec::new();
        }
        let (own, image) = (self.clone(), reference.name());
        let told = tokio::task::spawn_blocking(move || own.look(Some(&image)));
        told.await.unwrap_or_default().sources
    }

    /// Why there may be others; none: they are known.
    pub fn unseen(&self) -> Vec<String> {
        self.look(None).unseen
    }

    fn look(&self, image: Option<&str>) -> NodeSources {
        let mut told = NodeSources::default();
        match &self.docker_config {
            None => told
                .unseen
                .push("network.kubelet_docker_config does not say where the kubelet's docker config is, or that there is none".to_owned()),
            Some(NodeFile::None) => {}
            Some(NodeFile::At(path)) => self.docker_config(path, &mut told),
        }
        match &self.providers {
            None => told
                .unseen
                .push("network.kubelet_credential_providers does not say where the kubelet's credential providers are configured, or that there are none".to_owned()),
            Some(NodeFile::None) => {}
            Some(NodeFile::At(path)) => self.providers(path, image, &mut told),
        }
        told
    }

    /// As the kubelet reads it: helpers and identity tokens count for nothing.
    fn docker_config(&self, path: &Path, told: &mut NodeSources) {
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
                told.unseen.push(reason);
                return;
            }
            Err(Missing::Unreadable(reason)) => {
                source.problem = Some(SourceProblem::Unread {
                    reason: reason.clone(),
                });
                told.unseen.push(reason);
            }
        }
        told.sources.push(source);
    }

    fn providers(&self, path: &Path, image: Option<&str>, told: &mut NodeSources) {
        let shown = printable(&path.to_string_lossy());
        let found = self
            .read(path)
            .and_then(|bytes| read_providers(&bytes).map_err(Missing::Unreadable));
        let unread = |name: String, reason: String| {
            let path = shown.clone();
            let source = CredentialSource::NodeProvider { name, path };
            LoadedSource::failed(source, SourceProblem::Unread { reason })
        };
        match found {
            Ok(providers) if providers.is_empty() => {}
            Ok(providers) => {
                let names: Vec<&str> = providers.iter().map(|p| p.name.as_str()).collect();
                told.unseen.push(format!(
                    "what the kubelet's credential providers give is for the kubelet alone ({} in {shown})",
                    names.join(", ")
                ));
                for provider in &providers {
                    let image = image.filter(|image| provider.is_asked_for(image));
                    if image.is_some() {
                        told.sources.push(unread(
                            provider.name.clone(),
                            "the kubelet asks it for this image, and nobody else can".to_owned(),
                        ));
                    }
                }
            }
            Err(Missing::Absent(reason)) => told.unseen.push(reason),
            Err(Missing::Unreadable(reason)) => {
                told.unseen.push(format!("{shown}: {reason}"));
                told.sources.push(unread(String::new(), reason));
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
    /// Whether the node has one is not known: it may not be mounted.
    Absent(String),
    Unreadable(String),
}

/// A plugin, and the images that it is asked for.
#[derive(Debug)]
struct Provider {
    name: String,
    /// As server keys (kubernetes `pkg/credentialprovider/plugin`).
    images: Vec<String>,
}

impl Provider {
    fn is_asked_for(&self, image: &str) -> bool {
        let mut images = self.images.iter();
        images.any(|pattern| key::pattern_matches(pattern, image))
    }
}

/// `kubelet.config.k8s.io`, `CredentialProviderConfig`.
fn read_providers(bytes: &[u8]) -> Result<Vec<Provider>, String> {
    let documents = documents::read(bytes)?;
    let config = documents
        .iter()
        .find(|document| document["kind"] == "CredentialProviderConfig")
        .ok_or("it is no CredentialProviderConfig")?;
    let list = match &config["providers"] {
        Value::Array(list) => list.as_slice(),
        Value::Null => &[],
        _ => return Err("'providers' is no list".to_owned()),
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

/// A cloud has one.
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

    async fn told(of: &NodeCredentials, image: &str) -> Vec<String> {
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
            assert_eq!(of.unseen(), [""; 0], "{docker_config}");
            assert_eq!(told(&of, "reg.example.com/a").await.len(), sources);
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
        for (docker_config, providers, unseen, sources) in [
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
            let reasons = of.unseen();
            assert_eq!(reasons.len(), unseen.len(), "{reasons:?}");
            for (reason, part) in reasons.iter().zip(unseen) {
                assert!(
                    reason.contains(part) && !reason.contains("hunter2"),
                    "{reason}"
                );
            }
            assert_eq!(
                told(&of, "reg.example.com/a").await.len(),
                sources,
                "{docker_config:?} {providers:?}"
            );
        }
        // The kubelet passes over one that it can't decode: it is known, and gives nothing.
        let broken = at(&root, Some("broken.json"), Some("none"));
        assert_eq!(broken.unseen(), [""; 0]);
        assert!(told(&broken, "a").await[0].contains("Malformed"));
    }

    #[tokio::test]
    async fn a_provider_may_have_a_credential_for_the_images_that_it_is_asked_for() {
        let root = node();
        write(&root, "providers.yaml", PROVIDERS);
        let of = at(&root, Some("none"), Some("providers.yaml"));
        assert!(of.unseen()[0].contains("ecr in"), "{:?}", of.unseen());
        for (image, is_asked) in [
            ("123.dkr.ecr.eu-west-1.amazonaws.com/a:1", true),
            ("registry.example.org/team/a", true),
            ("registry.example.org/other/a", false),
            ("reg.example.com/a", false),
            ("nginx", false),
        ] {
            let told = told(&of, image).await;
            assert_eq!(told.len(), usize::from(is_asked), "{image}: {told:?}");
        }
        let source = &told(&of, "registry.example.org/team/a").await[0];
        assert!(
            source.contains("credential provider ecr") && source.contains("nobody else can"),
            "{source}"
        );
    }
}
