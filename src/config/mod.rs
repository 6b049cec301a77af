//! The configuration file (`--config`), in YAML. An unknown key or a wrong value is an error that
//! names the line and the fix; nothing of such a file is used.

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
pub use values::{CountWithin, EchoUrl, HostPort, ListenAddress, NameServer, Size};

/// The whole file. Every part may be left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Pullpath's configuration")]
pub struct Config {
    /// Where metrics, the status page and the API are served; otherwise `:9797`.
    pub listen: Option<ListenAddress>,
    /// Where reload and checks on demand are served; otherwise `127.0.0.1:9798`, since nobody is asked
    /// for a password.
    pub admin_listen: Option<ListenAddress>,
    /// A folder for what must outlive a restart: budgets that are spent, credentials that rest,
    /// manifests. Without it, all that begins anew.
    pub state_dir: Option<std::path::PathBuf>,
    #[serde(deserialize_with = "values::or_default")]
    pub log: Log,
    #[serde(deserialize_with = "values::or_default")]
    pub vantage: VantageConfig,
    #[serde(deserialize_with = "values::or_default")]
    pub network: Network,
    #[serde(deserialize_with = "values::or_default")]
    pub kubernetes: Kubernetes,
    #[serde(deserialize_with = "values::or_default")]
    pub spread: Spread,
    /// Of `pullpath cluster`.
    #[serde(deserialize_with = "values::or_default")]
    pub cluster: Cluster,
    /// The images whose way is watched.
    #[serde(deserialize_with = "values::or_default")]
    pub targets: targets::Targets,
    #[serde(deserialize_with = "values::or_default")]
    pub schedule: Schedule,
    #[serde(deserialize_with = "values::or_default")]
    pub budgets: Budgets,
    #[serde(deserialize_with = "values::or_default")]
    pub history: History,
    #[serde(deserialize_with = "values::or_default")]
    pub on_demand: OnDemand,
}

impl Config {
    /// Reads it.
    ///
    /// # Errors
    /// In words that name the line, the key and the fix.
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

    /// Describes the file to editors.
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }

    /// A file with every key and its default, explained.
    pub const EXAMPLE: &str = include_str!("example.yaml");
}

/// The first line of what the parser says; what it draws may show a password.
fn from_parser(error: &serde_saphyr::Error, text: &str) -> ConfigError {
    let told = error.to_string();
    let first = told.lines().next().unwrap_or_default();
    let mut message = first.strip_prefix("error: ").unwrap_or(first);
    let at = error.location();
    // `line 3 column 5: …`, which is told in fields of its own.
    if let Some(rest) = message.strip_prefix("line ")
        && let Some((_, rest)) = rest.split_once(": ")
    {
        message = rest;
    }
    let message = match message {
        "expected mapping start" => "here keys are expected, each with its value: `key: value`",
        "expected sequence start" => {
            "here a list is expected: `[a, b]`, or lines that begin with `- `"
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

/// Keys of earlier versions, each with the key that replaces it. Lists have no part in a path.
const REPLACED: &[(&str, &str)] = &[
    ("network.egress.stun", "network.egress.echo"),
    ("kubernetes.most_targets", "kubernetes.max_targets"),
    ("cluster.most_pairs", "cluster.max_pairs"),
    ("cluster.node_rate_mbit", "cluster.node_rates_mbit"),
];

/// What to use instead of an unknown key that an earlier version had.
fn replaced(error: &serde_saphyr::Error, text: &str) -> Option<String> {
    let serde_saphyr::Error::SerdeUnknownField { field, .. } = error.without_snippet() else {
        return None;
    };
    let file: serde_json::Value = serde_saphyr::from_str(text).ok()?;
    let (old, new) = REPLACED
        .iter()
        .find(|(old, _)| old.rsplit('.').next() == Some(field) && has_key(&file, old))?;
    Some(format!("{old} no longer exists: use {new}"))
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
