//! The input of a check: one image, the credentials for it, and the limits.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::model::endpoint::{Endpoint, Host, Scheme};
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
    /// The image.
    pub reference: Reference,
    /// The platform whose image is selected from an index.
    pub platform: Platform,
    /// The pods that use the image, as far as known.
    pub pods: Vec<PodUse>,
    /// Secrets of the cluster that the user named.
    pub requested_secrets: Vec<RequestedSecret>,
    /// All known credentials.
    pub keyring: Arc<Keyring>,
    /// The container runtime of the node; `None` if unknown.
    pub runtime: Option<Runtime>,
    /// The node's kubelet; `None` if unknown.
    pub kubelet: Option<KubeletVersion>,
    /// Use plain http for the registry (hosts.toml `server = "http://…"`).
    pub plain_http: bool,
    /// Repeat the check without the proxy, if there is one.
    pub compare_direct: bool,
    /// Set if a pod names the image: what the check must not contact for it.
    pub guard: Option<Guard>,
    /// Optional parts and limits.
    pub effort: Effort,
}

/// An image that a pod names may lead to the node itself: to a service on loopback, on one of its addresses, or to the
/// metadata service. The owner of the pod would read that service through the report. Such an address is contacted
/// only for a host and port that the operator or containerd's own settings name.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Hosts and ports that are contacted all the same (`kubernetes.local_registries`).
    pub allowed: Vec<(String, u16)>,
    /// The node's addresses, which are not this machine's in the network of a pod.
    pub node: Vec<IpAddr>,
}

impl Guard {
    /// Whether the operator or the node's settings name this server.
    pub(super) fn allows(&self, endpoint: &Endpoint) -> bool {
        let host = endpoint.host.bare();
        let mut allowed = self.allowed.iter();
        allowed.any(|(name, port)| {
            *port == endpoint.port && Host::new(name).bare().eq_ignore_ascii_case(&host)
        })
    }
}

/// What a check does beyond predicting whether a pull would succeed, and what it omits.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Effort {
    /// Trace the routers on the path to each leg (`--hops`).
    pub hops: bool,
    /// The transfer test and its limits; `None`: no test.
    pub transfer: Option<Budget>,
    /// How many of a layer's first bytes are requested.
    pub layer_bytes: NonZeroU64,
    /// Send no request that may count against a rate limit: a manifest is not downloaded unless it is known already.
    pub only_free: bool,
    /// If a mirror serves the image, also query the host behind it, once.
    pub checks_upstream: bool,
    /// Also make a TLS handshake with the other addresses of each leg's name; otherwise only where that of the leg
    /// failed.
    pub all_addresses: bool,
    /// Credentials in their cooldown, which are not tried now, with the result of their last attempt.
    pub in_cooldown: Vec<Attempt>,
}

impl Effort {
    /// More than one packet of a layer, since a path may pass only small packets.
    const LAYER_BYTES: NonZeroU64 = NonZeroU64::new(4096).expect("not zero");

    /// The same for a repeated check.
    pub(super) fn without_extras(&self) -> Self {
        Self {
            hops: false,
            checks_upstream: false,
            all_addresses: false,
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
            checks_upstream: true,
            all_addresses: true,
            in_cooldown: Vec::new(),
        }
    }
}

impl Check {
    /// The image's own registry, as it is used without any `hosts.toml`.
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
    /// The host name, as in the URL.
    pub host: String,
    /// The port, as in the URL.
    pub port: u16,
    /// The address to connect to.
    pub address: IpAddr,
}

/// The limits of a transfer test.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Read all layers, whatever that takes; otherwise the first limit ends the test.
    pub full: bool,
    /// The maximum number of bytes.
    pub max_bytes: Bytes,
    /// The maximum duration.
    pub max_duration: Duration,
    /// How long the pull may take; it has no effect on the test itself.
    pub expected_within: Option<Duration>,
    /// A large file on another network, for comparison. No credential is sent there.
    pub control: Option<Url>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_named_is_allowed_however_its_address_is_written() {
        let guard = Guard {
            allowed: vec![
                ("::1".to_owned(), 5000),
                ("Registry.test".to_owned(), 443),
                ("[fd00::2]".to_owned(), 5000),
            ],
            node: Vec::new(),
        };
        let allows = |host: &str, port| {
            guard.allows(&Endpoint {
                scheme: Scheme::Https,
                host: Host::new(host),
                port,
            })
        };
        assert!(allows("[::1]", 5000) && allows("registry.test", 443) && allows("fd00::2", 5000));
        assert!(!allows("::1", 443) && !allows("127.0.0.1", 5000));
    }
}
