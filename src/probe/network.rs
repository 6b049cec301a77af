//! What all checks of a run share: resolver, trust, the runtime's settings, and the vantage.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Mutex;

use super::check::Override;
pub use super::large_documents::LargeDocuments;
use super::manifest::KnownManifests;
use crate::containerd::{BaseTrust, Settings};
use crate::model::endpoint::Role;
use crate::model::fault::Phase;
use crate::model::own_limit::OwnLimit;
use crate::model::units::Bytes;
use crate::model::vantage::Vantage;
use crate::net::dns::Families;
use crate::net::netlink::Netlink;
use crate::net::resolv::ResolverConfig;

/// The network access that all checks of a run share.
#[derive(Debug)]
pub struct ProbeNetwork {
    /// The DNS settings.
    pub resolver: ResolverConfig,
    /// The addresses of `--resolve`.
    pub overrides: Vec<Override>,
    /// The address families to use.
    pub families: Families,
    /// Prefixes of this network's NAT64, beside the well-known ones.
    pub nat64: Vec<IpNet>,
    /// The trusted roots.
    pub trust: BaseTrust,
    /// containerd's settings.
    pub settings: Settings,
    /// Record every exchange (`--trace`).
    pub trace: bool,
    /// One transfer at a time: two would measure each other.
    pub transfer_lock: Mutex<()>,
    /// Who may read a manifest or a configuration of more than 1 MiB.
    pub large_documents: LargeDocuments,
    /// Where the checks run, and what can be observed there.
    pub vantage: Vantage,
    /// The kernel's routes; `None` if they can't be read.
    pub netlink: Option<Arc<Netlink>>,
    /// The bound of each single wait on the network.
    pub wait: Duration,
    /// Manifests that need not be downloaded again.
    pub known: Arc<KnownManifests>,
    /// Limits of this process that were met while the settings were read.
    pub own_limits: Vec<OwnLimit>,
}

/// Receives the progress of a check, for a progress line.
pub trait Progress: Send + Sync {
    /// The next phase at a leg starts.
    fn phase(&self, _role: Role, _phase: Phase) {}

    /// With `--transfer full`: so many bytes of all layers have been read, in this time.
    fn transferred(&self, _bytes: Bytes, _of: Bytes, _elapsed: Duration) {}
}

/// For checks without a progress line.
#[derive(Debug)]
pub struct NoProgress;

impl Progress for NoProgress {}
