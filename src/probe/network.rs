//! What all walks of a run share: resolver, trust, settings of the runtime, and the vantage.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::check::Override;
use super::manifest::KnownManifests;
use crate::containerd::{BaseTrust, Settings};
use crate::model::endpoint::Role;
use crate::model::fault::Phase;
use crate::model::units::Bytes;
use crate::model::vantage::Vantage;
use crate::net::dns::Families;
use crate::net::netlink::Netlink;
use crate::net::resolv::ResolverConfig;

/// The way out into the world, shared by all checks of a run.
#[derive(Debug)]
pub struct ProbeNetwork {
    pub resolver: ResolverConfig,
    pub overrides: Vec<Override>,
    pub families: Families,
    pub trust: BaseTrust,
    /// What containerd is set to.
    pub settings: Settings,
    /// Keep every exchange (`--trace`).
    pub trace: bool,
    /// One transfer at a time: two would measure each other.
    pub transfer_turn: Mutex<()>,
    pub vantage: Vantage,
    /// The kernel's routes; `None` where they can't be read.
    pub netlink: Option<Arc<Netlink>>,
    /// The longest that any single wait on the network may last.
    pub wait: Duration,
    pub known: Arc<KnownManifests>,
}

/// Told what the walk is about to do, for a progress line.
pub trait Progress: Send + Sync {
    fn phase(&self, _role: Role, _phase: Phase) {}

    /// So much of all layers has been read, in this time (`--transfer full`).
    fn transferred(&self, _bytes: Bytes, _of: Bytes, _elapsed: Duration) {}
}

/// Of a walk that nothing is shown of.
#[derive(Debug)]
pub struct NoProgress;

impl Progress for NoProgress {}
