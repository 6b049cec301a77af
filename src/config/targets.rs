//! `targets`: the images whose way is watched.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::daemon::Interval;
use super::error::ConfigError;
use super::values::{CountWithin, Image, PlatformText, Wait, WaitWithin};
use crate::model::path::PathClass;
use crate::model::text::printable;

/// All of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Targets(#[schemars(with = "Vec<Target>")] Vec<Spanned<Target>>);

impl Targets {
    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        self.0.iter().map(|target| &target.value)
    }

    /// What one entry alone can't show.
    pub(super) fn check(&self, text: &str) -> Result<(), ConfigError> {
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        for entry in &self.0 {
            let fail = |message: String| Err(ConfigError::at(entry, message, text));
            let (name, line) = (entry.value.name.as_str(), entry.referenced.line());
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_plain) {
                return fail(format!(
                    "the name '{}' of a target is a label of its metrics: 1 to {MAX_NAME} letters, digits, '-', '_' or '.'",
                    printable(name)
                ));
            }
            if let Some(before) = seen.insert(name, line) {
                return fail(format!(
                    "two targets have the name '{name}', the other one at line {before}"
                ));
            }
            let credential = &entry.value.credential;
            if credential.username.is_some() != credential.password_file.is_some() {
                return fail(format!(
                    "the credential of target '{name}' has only one of username and password_file; give both"
                ));
            }
        }
        Ok(())
    }
}

/// As long as the name of a Kubernetes object.
const MAX_NAME: usize = 253;

/// One of `targets`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Stands for the image in metrics and on the page.
    pub name: String,
    /// Written as in a pod's `image:`.
    pub image: Image,
    #[serde(default)]
    pub credential: CredentialFiles,
    #[serde(default)]
    pub expect: Expect,
    /// The platform whose image is wanted, for instance `linux/arm64`; otherwise this machine's.
    #[serde(default)]
    pub platform: Option<PlatformText>,
    /// Talk plain HTTP to the registry, as hosts.toml with `server = "http://…"` does.
    #[serde(default)]
    pub plain_http: bool,
    /// As `schedule.reach`, for this target.
    #[serde(default)]
    pub reach: Option<WaitWithin<10, 86_400>>,
    /// As `schedule.path`, for this target.
    #[serde(default)]
    pub path: Option<WaitWithin<60, 604_800>>,
    /// As `schedule.transfer`, for this target.
    #[serde(default)]
    pub transfer: Option<Interval>,
}

/// Where a target's credential is. Files are read again when they change; nobody else's are looked
/// for.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialFiles {
    /// A docker `config.json`, or a mounted Secret's `.dockerconfigjson`.
    pub docker_config: Option<PathBuf>,
    /// Secret manifests (YAML or JSON), in the pod's order.
    pub secret_files: Vec<PathBuf>,
    /// A user, with `password_file`.
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
}

/// What is wished of a target's way.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// Classes that its legs may have.
    pub class: Vec<PathClass>,
    /// The least rate of its layers, in Mbit/s.
    pub throughput_mbit: Option<CountWithin<1, 1_000_000>>,
    /// The longest that its layers may take.
    pub pull_within: Option<Wait>,
}
