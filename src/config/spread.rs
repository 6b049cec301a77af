//! Section `spread`: how nodes with the same path to a registry share transfer tests.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{CountWithin, WaitWithin};

const DAY: u64 = 24 * 3600;

/// How transfer tests are divided among nodes with the same path; docs/spread.md.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Spread {
    /// `leases`: a few nodes make transfer tests, and one retries a rejected credential.
    pub transfers: SpreadBy,
    /// How many nodes of each path to a registry make a transfer test in an epoch.
    pub nodes_per_group: CountWithin<1, 100>,
    /// The length of an epoch; it replaces `schedule.transfer`.
    pub epoch: WaitWithin<10, { 7 * DAY }>,
    /// The namespace of the Leases; default: the pod's own.
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

/// `spread.transfers`: how nodes agree on who tests.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum SpreadBy {
    /// They don't: each node makes its own tests.
    #[default]
    Off,
    /// Through Leases at the API server.
    Leases,
}
