//! `spread`: what nodes that share a path to a registry divide among themselves.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{CountWithin, WaitWithin};

const DAY: u64 = 24 * 3600;

/// Which nodes test, of those that share a path.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Spread {
    /// Whether transfer tests, and trying rejected credentials again, are divided among nodes.
    pub transfers: SpreadBy,
    /// How many nodes of each path to a registry make a transfer test in an epoch.
    pub nodes_per_group: CountWithin<1, 100>,
    /// How long an epoch is; it counts instead of `schedule.transfer`.
    pub epoch: WaitWithin<10, { 7 * DAY }>,
    /// Where the Leases are; otherwise the pod's own namespace.
    pub namespace: Option<String>,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            transfers: SpreadBy::Off,
            nodes_per_group: CountWithin(2),
            epoch: WaitWithin(Duration::from_hours(5)),
            namespace: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum SpreadBy {
    /// Each node tests by itself.
    #[default]
    Off,
    /// By Leases of the cluster's API.
    Leases,
}
