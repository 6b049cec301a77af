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

use error::{ConfigError, drawn};

use schemars::JsonSchema;
use serde::Deserialize;

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
        let config: Self =
            serde_saphyr::from_str(text).map_err(|error| from_parser(&error, text))?;
        config.network.check(text)?;
        config.targets.check(text)?;
        config.schedule.check()?;
        config.kubernetes.check()?;
        Ok(config)
    }

    /// Whether a file has no key at all: nothing, or only comments.
    pub fn is_blank(text: &str) -> bool {
        let mut lines = text.lines().map(str::trim);
        lines.all(|line| line.is_empty() || line.starts_with('#') || ["---", "..."].contains(&line))
    }

    /// The JSON Schema of the file, for editors.
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// A file with every key, its default and its meaning.
    pub const EXAMPLE: &str = include_str!("example.yaml");
}

/// The first line of the parser's message. Its snippet is not used, since that may show a password.
fn from_parser(error: &serde_saphyr::Error, text: &str) -> ConfigError {
    let text_of_parser = error.to_string();
    let first = text_of_parser.lines().next().unwrap_or_default();
    let mut message = first.strip_prefix("error: ").unwrap_or(first);
    let at = error.location();
    // `line 3 column 5: …`, which has its own field.
    if let Some(rest) = message.strip_prefix("line ")
        && let Some((_, rest)) = rest.split_once(": ")
    {
        message = rest;
    }
    let message = match message {
        "expected mapping start" => "expected keys with their values here: `key: value`",
        "expected sequence start" => {
            "expected a list here: `[a, b]`, or lines that begin with `- `"
        }
        other => other,
    };
    let message = replaced(error, text).unwrap_or_else(|| message.to_owned());
    let at = at.map(|at| (at.line(), at.column()));
    ConfigError {
        at,
        message,
        snippet: at.and_then(|(line, column)| drawn(text, line, column)),
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

/// The message for an unknown key that an earlier version had; `None` for other errors.
fn replaced(error: &serde_saphyr::Error, text: &str) -> Option<String> {
    let serde_saphyr::Error::SerdeUnknownField { field, .. } = error.without_snippet() else {
        return None;
    };
    let file: serde_json::Value = serde_saphyr::from_str(text).ok()?;
    let is_it =
        |key: &&Replaced| key.old.rsplit('.').next() == Some(field) && has_key(&file, key.old);
    let Replaced {
        old,
        verb,
        new,
        note,
    } = REPLACED.iter().find(is_it)?;
    Some(format!("{old} {verb} {new}{note}"))
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
