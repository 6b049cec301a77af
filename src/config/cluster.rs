//! Section `cluster`: what `pullpath cluster` watches, and the Lease that keeps one replica active.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::kubernetes::Switch;
use super::values::{CountWithin, WaitWithin};

const HOUR: u64 = 3600;

/// Settings of `pullpath cluster`. The daemon on a node doesn't read them.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The namespace of the Lease; default: POD_NAMESPACE, the namespace of the pod's service account, or
    /// `pullpath`.
    pub namespace: Option<String>,
    /// The Lease that keeps one replica active.
    pub lease_name: String,
    /// How long the Lease lasts without renewal. After a crash, no replica watches for that long.
    pub lease_duration: WaitWithin<5, 300>,
    /// `on`: watches the Events of real pulls.
    pub events: Switch,
    /// `on`: checks workloads, their service accounts and Secrets before a pull. `kubernetes.secrets` selects the
    /// Secrets that are read for it.
    pub lint: Switch,
    /// The limit of pairs of registry and node with their own series.
    pub max_pairs: CountWithin<1, 20_000>,
    /// A pair is dropped after this long without a pull.
    pub forget_after: WaitWithin<600, { 7 * 24 * HOUR }>,
    /// The rate that nodes get from each registry, in Mbit/s, as their transfer tests measure it. A slow disk is
    /// detected only for the registries listed here.
    pub node_rates_mbit: BTreeMap<String, CountWithin<1, 1_000_000>>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            namespace: None,
            lease_name: "pullpath-cluster".to_owned(),
            lease_duration: WaitWithin(Duration::from_secs(15)),
            events: Switch::On,
            lint: Switch::Off,
            max_pairs: CountWithin(1000),
            forget_after: WaitWithin(Duration::from_secs(6 * HOUR)),
            node_rates_mbit: BTreeMap::new(),
        }
    }
}
