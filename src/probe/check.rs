//! What is asked of a walk: one image, with which credentials, and how much may be spent on it.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::model::endpoint::{Endpoint, Scheme};
use crate::model::evidence::Attempt;
use crate::model::hosts::RegistryHost;
use crate::model::kubelet::KubeletVersion;
use crate::model::platform::Platform;
use crate::model::reference::Reference;
use crate::model::runtime::Runtime;
use crate::model::units::Bytes;
use crate::model::workload::{PodUse, RequestedSecret};
use crate::pull_secret::keyring::Keyring;

/// One image to check.
#[derive(Clone, Debug)]
pub struct Check {
    pub reference: Reference,
    pub platform: Platform,
    /// Who wants it, as far as known.
    pub pods: Vec<PodUse>,
    /// Secrets of the cluster that whoever asked has named.
    pub asked_secrets: Vec<RequestedSecret>,
    pub keyring: Arc<Keyring>,
    /// The container runtime of the node, where it is known.
    pub runtime: Option<Runtime>,
    /// Its kubelet, where it is known.
    pub kubelet: Option<KubeletVersion>,
    /// Talk plain http to the registry (hosts.toml `server = "http://…"`).
    pub plain_http: bool,
    /// Walk again without the proxy, where there is one.
    pub compare_direct: bool,
    pub effort: Effort,
}

/// How much is done beyond what tells whether a pull would succeed, and what is left out.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Ask for the routers on the way to each leg (`--hops`).
    pub hops: bool,
    /// The transfer test, and what it may spend; `None`: none.
    pub transfer: Option<Budget>,
    /// The first bytes of a layer that are asked for.
    pub layer_bytes: NonZeroU64,
    /// Ask for nothing that may count against a rate limit: no manifest is fetched that is not known.
    pub only_free: bool,
    /// Ask the host behind a mirror that serves, once, what it would answer.
    pub asks_behind: bool,
    /// Credentials that are not to be tried now, with what came of it when they were.
    pub rested: Vec<Attempt>,
}

impl Effort {
    /// Of a layer, more than one packet holds, since a path may let small ones through only.
    const LAYER_BYTES: NonZeroU64 = NonZeroU64::new(4096).expect("not zero");

    /// The same for a walk that is made once more.
    pub(super) fn without_extras(&self) -> Self {
        Self {
            hops: false,
            asks_behind: false,
            transfer: self.transfer.clone().filter(|budget| budget.full),
            ..self.clone()
        }
    }
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            hops: false,
            transfer: None,
            layer_bytes: Self::LAYER_BYTES,
            only_free: false,
            asks_behind: true,
            rested: Vec::new(),
        }
    }
}

impl Check {
    /// The image's own registry, as one that no `hosts.toml` speaks of.
    pub(super) fn host(&self) -> RegistryHost {
        let (host, port) = self.reference.host();
        let scheme = if self.plain_http {
            Scheme::Http
        } else {
            Scheme::Https
        };
        RegistryHost::plain(Endpoint {
            scheme,
            port: port.unwrap_or(scheme.default_port()),
            host,
        })
    }
}

/// `--resolve HOST:PORT:ADDR`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Override {
    pub host: String,
    pub port: u16,
    pub address: IpAddr,
}

/// How much a test may spend.
#[derive(Clone, Debug)]
pub struct Budget {
    /// All layers, whatever that takes; else the first that ends it.
    pub full: bool,
    pub max_bytes: Bytes,
    pub max_duration: Duration,
    /// How long the pull may take; nothing of the test depends on it.
    pub expected_within: Option<Duration>,
    /// A large file on another network, to compare with. No credential goes there.
    pub control: Option<Url>,
}
