//! `cluster`: what `pullpath cluster` watches, and how one of its replicas is the active one.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::kubernetes::Switch;
use super::values::{CountWithin, WaitWithin};

const HOUR: u64 = 3600;

/// Of the role for the whole cluster; nodes do not read it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Where the Lease is; otherwise POD_NAMESPACE, the namespace of the pod's service account, or
    /// `pullpath`.
    pub namespace: Option<String>,
    /// The Lease that keeps one replica active.
    pub lease_name: String,
    /// How long it lasts when it is not renewed: so long nobody watches after a crash.
    pub lease_duration: WaitWithin<5, 300>,
    /// Whether Events of real pulls are watched.
    pub events: Switch,
    /// Whether workloads, their service accounts and Secrets are looked at before anybody pulls. Which
    /// Secrets are read for it, `kubernetes.secrets` says.
    pub lint: Switch,
    /// Pairs of registry and node that have figures of their own.
    pub max_pairs: CountWithin<1, 20_000>,
    /// A pair without a pull for so long is forgotten.
    pub forget_after: WaitWithin<600, { 7 * 24 * HOUR }>,
    /// By registry, what nodes get of it over their network, in Mbit/s, as their transfer tests measure it.
    /// Only then it is told that a disk is slow, and of no other registry.
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
