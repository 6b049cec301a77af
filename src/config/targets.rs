//! Section `targets`: the images to check.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::daemon::Interval;
use super::error::{self, ConfigError};
use super::values::{CountWithin, Image, PlatformText, Wait, WaitWithin};
use crate::model::path::PathClass;
use crate::model::reference::Reference;

/// All targets, each with its position in the file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Targets(#[schemars(with = "Vec<Target>")] Vec<Spanned<Target>>);

impl Targets {
    /// The targets in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        self.0.iter().map(|target| &target.value)
    }

    /// Adds a target with defaults for each image that has none yet.
    pub(super) fn add(&mut self, images: &[Reference]) {
        for image in images {
            if !self.iter().any(|target| target.image.0 == *image) {
                let added = Target::of(image.clone());
                self.0
                    .push(Spanned::new(added, Location::UNKNOWN, Location::UNKNOWN));
            }
        }
    }

    /// Checks names and credentials.
    ///
    /// # Errors
    /// If a name is no metric label or is used twice, or if a credential has only one of user and password.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        for (index, entry) in self.0.iter().enumerate() {
            let fail = |message: String| Err(error::at(entry, "targets", index, message));
            if let Some(name) = &entry.value.name {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_plain) {
                    return fail(format!(
                        "invalid name: it is a label in metrics, so use 1 to {MAX_NAME} letters, digits, '-', '_' or '.'"
                    ));
                }
            }
            if let Some(before) = seen.insert(entry.value.name(), entry.referenced.line()) {
                // A name of the file has no '/', which that of an image always has: both are of one kind.
                return fail(match &entry.value.name {
                    Some(_) => format!(
                        "two targets have the same name; rename this one or the one at line {before}"
                    ),
                    None => format!(
                        "two targets have the same image and no name; give this one or the one at line {before} a name"
                    ),
                });
            }
            let credential = &entry.value.credential;
            if credential.username.is_some() != credential.password_file.is_some() {
                return fail(
                    "the credential has only one of username and password_file; set both"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// As for names of Kubernetes objects.
const MAX_NAME: usize = 253;

/// One of `targets`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Names the target in metrics, on the page and in URLs; unique. Default: the image with its registry and its
    /// tag or digest, for example `docker.io/library/nginx:1.29`.
    #[serde(default)]
    pub name: Option<String>,
    /// Written as in a pod's `image:`.
    pub image: Image,
    /// Where the credential is; default: an anonymous pull.
    #[serde(default)]
    pub credential: CredentialFiles,
    /// The expected path classes, rate and duration.
    #[serde(default)]
    pub expect: Expect,
    /// The platform to check, for example `linux/arm64`; default: this machine's.
    #[serde(default)]
    pub platform: Option<PlatformText>,
    /// Uses plain HTTP for the registry, as hosts.toml with `server = "http://…"` does.
    #[serde(default)]
    pub plain_http: bool,
    /// As `schedule.reach`, for this target only.
    #[serde(default)]
    pub reach: Option<WaitWithin<10, 86_400>>,
    /// As `schedule.path`, for this target only.
    #[serde(default)]
    pub path: Option<WaitWithin<60, 604_800>>,
    /// As `schedule.transfer`, for this target only.
    #[serde(default)]
    pub transfer: Option<Interval>,
}

impl Target {
    /// The target of an image, with defaults.
    fn of(image: Reference) -> Self {
        Self {
            name: None,
            image: Image(image),
            credential: CredentialFiles::default(),
            expect: Expect::default(),
            platform: None,
            plain_http: false,
            reach: None,
            path: None,
            transfer: None,
        }
    }

    /// Its name, which no other target has. It follows from this target alone, so no other target changes it.
    pub fn name(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| self.image.0.to_string())
    }
}

/// Where a target's credential is. The files are read for each check; no other credentials are
/// searched for.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialFiles {
    /// A docker `config.json`, or a mounted Secret's `.dockerconfigjson`.
    pub docker_config: Option<PathBuf>,
    /// Secret manifests (YAML or JSON), in the pod's order.
    pub secret_files: Vec<PathBuf>,
    /// A user; requires `password_file`.
    pub username: Option<String>,
    /// A file that holds the user's password.
    pub password_file: Option<PathBuf>,
}

/// What is expected of a target's legs and layers. A finding reports a deviation.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// The path classes that its legs may have.
    pub class: Vec<PathClass>,
    /// The least download rate of its layers, in Mbit/s.
    pub throughput_mbit: Option<CountWithin<1, 1_000_000>>,
    /// The longest download of its layers.
    pub pull_within: Option<Wait>,
}
