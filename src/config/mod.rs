//! The configuration file (`--config`), in YAML. An unknown key or an invalid value is an error that
//! names the line and the fix, and rejects the whole file.

mod cluster;
mod daemon;
mod error;
mod kubernetes;
mod network;
mod on_demand;
mod spread;
mod targets;
mod values;

use error::ConfigError;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::reference::Reference;
use crate::model::slip;

pub use cluster::Cluster;
pub use daemon::{Budgets, History, Log, LogFormat, LogLevel, Schedule, VantageConfig};
pub use kubernetes::{Discover, Events, Kubernetes, SecretAccess, Switch};
pub use network::{Egress, MetadataMode, Network};
pub use on_demand::{OnDemand, OnDemandImages};
pub use spread::{Spread, SpreadBy};
pub use targets::{CredentialFiles, Expect, Target};
pub use values::{CountWithin, EchoUrl, HostPort, ListenAddress, NameServer, Size, StateSize};

/// Maximum size of the file in bytes; a configuration has some pages.
pub const MAX_CONFIG: u64 = 4 << 20;

/// The whole file. Every key is optional.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Pullpath's configuration")]
pub struct Config {
    /// The address of metrics, the status page and the API; default: `:9797`.
    pub listen: Option<ListenAddress>,
    /// The address of reload and on-demand checks; default: `127.0.0.1:9798`, loopback only, because the
    /// endpoint is unauthenticated.
    pub admin_listen: Option<ListenAddress>,
    /// A folder for state that outlives a restart: used budgets, cooldowns of rejected credentials,
    /// manifests. Without it, each start begins with empty state.
    pub state_dir: Option<std::path::PathBuf>,
    /// The most that is written to `state_dir`; the oldest manifests are deleted first. At least 16 MiB.
    #[serde(deserialize_with = "values::or_default")]
    pub state_size: StateSize,
    /// Format and level of the log.
    #[serde(deserialize_with = "values::or_default")]
    pub log: Log,
    /// The name of this node.
    #[serde(deserialize_with = "values::or_default")]
    pub vantage: VantageConfig,
    /// What the operator knows about the network, and where the node's settings are.
    #[serde(deserialize_with = "values::or_default")]
    pub network: Network,
    /// What is read from the API server.
    #[serde(deserialize_with = "values::or_default")]
    pub kubernetes: Kubernetes,
    /// How nodes that share a path to a registry share transfer tests.
    #[serde(deserialize_with = "values::or_default")]
    pub spread: Spread,
    /// Settings of `pullpath cluster`.
    #[serde(deserialize_with = "values::or_default")]
    pub cluster: Cluster,
    /// The images to check.
    #[serde(deserialize_with = "values::or_default")]
    pub targets: targets::Targets,
    /// How often checks run, and their time limits.
    #[serde(deserialize_with = "values::or_default")]
    pub schedule: Schedule,
    /// Upper bounds for checks, bytes and requests.
    #[serde(deserialize_with = "values::or_default")]
    pub budgets: Budgets,
    /// How many checks and reports are kept in memory.
    #[serde(deserialize_with = "values::or_default")]
    pub history: History,
    /// Which images are checked on request, and how many per minute.
    #[serde(deserialize_with = "values::or_default")]
    pub on_demand: OnDemand,
}

impl Config {
    /// Parses a file. An empty file is the default configuration.
    ///
    /// # Errors
    /// If the file is not YAML, has an unknown key or an invalid value, or if keys contradict each other.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let is_key = |key: &str| KEYS.contains(key);
        let config: Self =
            slip::read(text, is_key, true).map_err(|(slip, unknown)| match unknown {
                Some(key) => renamed(slip, &key, text),
                None => slip,
            })?;
        config.network.check()?;
        config.targets.check()?;
        config.schedule.check()?;
        config.kubernetes.check()?;
        Ok(config)
    }

    /// Adds images to check, with the defaults of a target. One that a target has already is not added.
    #[must_use]
    pub fn with_images(mut self, images: &[Reference]) -> Self {
        self.targets.add(images);
        self
    }

    /// Whether a file has no key at all: nothing, or only comments.
    pub fn is_blank(text: &str) -> bool {
        let mut lines = text.lines().map(str::trim);
        let names_nothing = ["", "---", "...", "{}", "null", "~"];
        lines.all(|line| line.starts_with('#') || names_nothing.contains(&line))
    }

    /// The JSON Schema of the file, for editors.
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// A file with every key, its default and its meaning.
    pub const EXAMPLE: &str = include_str!("example.yaml");
}

/// The names of all keys.
static KEYS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let mut keys = BTreeSet::new();
    if let Ok(schema) = serde_json::to_value(Config::schema()) {
        add_keys(&schema, &mut keys);
    }
    keys
});

fn add_keys(schema: &serde_json::Value, keys: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(properties)) = map.get("properties") {
                keys.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| add_keys(value, keys));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| add_keys(value, keys)),
        _ => {}
    }
}

/// A key of earlier versions. Indexes of lists are not part of a path.
struct Replaced {
    old: &'static str,
    /// Whether only the name differs.
    verb: &'static str,
    new: &'static str,
    /// What else differs, with the blank before it.
    note: &'static str,
}

/// All of them; CHANGELOG.md lists the same.
const REPLACED: &[Replaced] = &[
    Replaced {
        old: "network.egress.stun",
        verb: "was removed; use",
        new: "network.egress.echo",
        note: " (a URL that answers with the client's address)",
    },
    Replaced {
        old: "kubernetes.most_targets",
        verb: "was renamed to",
        new: "kubernetes.max_targets",
        note: "",
    },
    Replaced {
        old: "cluster.most_pairs",
        verb: "was renamed to",
        new: "cluster.max_pairs",
        note: "",
    },
    Replaced {
        old: "cluster.node_rate_mbit",
        verb: "was replaced by",
        new: "cluster.node_rates_mbit",
        note: " (a rate for each registry: `{registry.example.com: 100}`)",
    },
];

/// The same error, with the replacement if an earlier version had the unknown key.
fn renamed(slip: ConfigError, unknown: &str, text: &str) -> ConfigError {
    let file = serde_saphyr::from_str(text).unwrap_or(serde_json::Value::Null);
    let is_it =
        |key: &&Replaced| key.old.rsplit('.').next() == Some(unknown) && has_key(&file, key.old);
    match REPLACED.iter().find(is_it) {
        Some(Replaced {
            old,
            verb,
            new,
            note,
        }) => ConfigError {
            path: String::new(),
            what: format!("{old} {verb} {new}{note}"),
            ..slip
        },
        None => slip,
    }
}

fn has_key(value: &serde_json::Value, path: &str) -> bool {
    let (key, rest) = path.split_once('.').unwrap_or((path, ""));
    match value {
        serde_json::Value::Array(items) => items.iter().any(|item| has_key(item, path)),
        _ => value
            .get(key)
            .is_some_and(|value| rest.is_empty() || has_key(value, rest)),
    }
}

#[cfg(test)]
mod tests;
