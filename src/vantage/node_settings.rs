//! Reads the node's settings (resolver, hosts file, trusted roots, kubelet's credentials) and builds the vantage point
//! from them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::clients::NetworkClients;
use super::{ClusterInput, observe};
use crate::config::Network;
use crate::containerd::{self, BaseTrust, Settings};
use crate::credentials::node::NodeCredentials;
use crate::model::vantage::{NetworkView, NotObserved, NotObservedReason, Vantage};
use crate::net::host_root;
use crate::net::netlink::Netlink;
use crate::net::resolv::{ResolverConfig, ResolverConfigError, ResolverFiles};
use crate::net::roots::{self, NodeBundle, RootsError, RootsPlace};

/// The paths of containerd's files, from the configuration.
pub fn containerd_files(network: &Network) -> containerd::Request {
    containerd::Request {
        hosts_dir: network.hosts_dir.clone(),
        config: network.containerd_config.clone(),
        proxy_from: network.proxy_from.clone(),
        root: network.host_root.clone(),
        may_lack: containerd::MayLack {
            hosts: true,
            proxies: true,
        },
    }
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS_FILE: &str = "/etc/hosts";
const NSSWITCH_CONF: &str = "/etc/nsswitch.conf";

/// Why a configured file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeSettingsError {
    /// The resolver's configuration or the hosts file.
    #[error(transparent)]
    Resolver(#[from] ResolverConfigError),
    /// A file of trusted roots.
    #[error(transparent)]
    Roots(#[from] RootsError),
}

/// The node's settings, read from the configured files.
#[derive(Debug)]
pub struct NodeSettings {
    /// For requests that observe the vantage point.
    pub means: NetworkClients,
    /// The trusted roots for registries without settings of their own.
    pub trust: BaseTrust,
    /// Where the node's own credentials are.
    pub node_credentials: NodeCredentials,
    /// Why the node's roots are not in use. `None`: they are, or none are configured.
    roots_not_observed: Option<String>,
    has_node_roots: bool,
}

impl NodeSettings {
    /// Reads the configured files. `wait` is the timeout of each single step; `settings` has the location of
    /// containerd's roots.
    ///
    /// # Errors
    /// If a configured file can't be used.
    pub fn load(
        network: &Network,
        wait: Duration,
        settings: &Settings,
    ) -> Result<Self, NodeSettingsError> {
        let or = |path: &Option<PathBuf>, usual: &str| path.clone().unwrap_or_else(|| usual.into());
        let mut resolver = ResolverConfig::load(ResolverFiles {
            resolv_conf: &or(&network.resolv_conf, RESOLV_CONF),
            nsswitch: nsswitch(network).as_deref(),
            hosts: &or(&network.hosts_file, HOSTS_FILE),
        })?;
        resolver.settings.runtime = containerd::go_build::resolver(network.host_root.as_deref());
        if !network.nameservers.is_empty() {
            let servers = network.nameservers.iter().map(|server| server.0);
            resolver = resolver.with_nameservers(servers.collect());
        }
        let of_unit = &settings.roots;
        let root = network.host_root.as_deref();
        // If the node's root is mounted: the path from containerd's unit, else the configured bundle.
        let named = of_unit.named();
        let paths = if root.is_some() && !named.is_empty() {
            named
        } else {
            network.node_ca_bundle.as_slice()
        };
        let bundle = (!paths.is_empty()).then_some(NodeBundle { paths, root });
        let place = if named.is_empty() {
            &RootsPlace::of(|name| std::env::var_os(name))
        } else {
            of_unit
        };
        let mut loaded = roots::load(bundle, place, &network.ca_files, Timestamp::now())?;
        let changed = containerd::start::changed_since(&loaded.bundle, root);
        loaded.note_changed(changed, &network.ca_files);
        let trust = BaseTrust::new(loaded.store, loaded.roots);
        Ok(Self {
            means: NetworkClients {
                resolver,
                families: network.families,
                tls: trust.tls.clone(),
                wait,
            },
            trust,
            node_credentials: NodeCredentials {
                docker_config: network.kubelet_docker_config.clone(),
                providers: network.kubelet_credential_providers.clone(),
                root: network.host_root.clone(),
            },
            has_node_roots: loaded.node == Some(Ok(())),
            roots_not_observed: loaded.node.and_then(Result::err),
        })
    }

    /// A netlink socket to the kernel. `None`: it can't be opened; the report then lists routes as missing evidence.
    pub async fn netlink() -> Option<Arc<Netlink>> {
        match Netlink::open().await {
            Ok(netlink) => Some(Arc::new(netlink)),
            Err(error) => {
                tracing::debug!(%error, "can't open a netlink socket to read the kernel's routes");
                None
            }
        }
    }

    /// Completes the vantage: routes, metadata service, baseline, controls and egress address. Sends the requests in
    /// parallel.
    pub async fn look(
        &self,
        base: Vantage,
        network: &Network,
        cluster: &ClusterInput,
        netlink: Option<Arc<Netlink>>,
    ) -> Vantage {
        let environment = |name: &str| std::env::var(name).ok();
        let (netlink, means) = (netlink.as_deref(), &self.means);
        observe(base, network, cluster, netlink, means, environment).await
    }

    /// The vantage as far as it is known without a request.
    pub fn vantage(&self, settings: &Settings) -> Vantage {
        let mut vantage = vantage(&self.means.resolver, settings, &|name| {
            std::env::var(name).ok()
        });
        let mut because = |what, reason| {
            vantage
                .not_observed_because
                .push(NotObservedReason { what, reason });
        };
        let of_credentials = self.node_credentials.not_observed();
        let are_known = of_credentials.is_empty();
        if self.node_credentials != NodeCredentials::default() {
            for reason in of_credentials {
                because(NotObserved::NodeCredentials, reason);
            }
        }
        if let Some(reason) = &self.roots_not_observed {
            because(NotObserved::NodeRoots, reason.clone());
        }
        vantage
            .not_observed_because
            .extend(settings.unseen.iter().cloned());
        vantage.not_observed.retain(|what| match what {
            NotObserved::NodeCredentials => !are_known,
            NotObserved::NodeRoots => !self.has_node_roots,
            _ => true,
        });
        vantage
    }
}

/// The nsswitch.conf that belongs to the resolv.conf in use: the configured one, that of the node's root, or the one in
/// the same folder. `None`: there is none.
fn nsswitch(network: &Network) -> Option<PathBuf> {
    if let Some(path) = &network.nsswitch_conf {
        return Some(path.clone());
    }
    let root = network.host_root.as_deref();
    let beside = match (root, &network.resolv_conf) {
        (Some(root), _) => root.join("etc/nsswitch.conf"),
        (None, Some(path)) => path.with_file_name("nsswitch.conf"),
        (None, None) => PathBuf::from(NSSWITCH_CONF),
    };
    host_root::resolve(root, &beside).ok()
}

/// The vantage as far as the environment shows it.
fn vantage(
    resolver: &ResolverConfig,
    settings: &Settings,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Vantage {
    let network = NetworkView::of(environment);
    let mut not_observed = vec![NotObserved::NodeCredentials];
    if !settings.knows_mirrors() {
        not_observed.push(NotObserved::Mirrors);
    }
    if !settings.proxies.settings().is_containerds {
        not_observed.push(NotObserved::Proxy);
    }
    // If containerd runs on this machine, its roots and its resolver are those of this machine.
    let is_beside = network == NetworkView::Machine && containerd::start::started_here().is_some();
    if !is_beside {
        not_observed.push(NotObserved::NodeRoots);
    }
    let has_its_resolver = is_beside && resolver.source == RESOLV_CONF;
    if network != NetworkView::Node && !has_its_resolver {
        not_observed.push(NotObserved::NodeResolver);
    }
    not_observed.push(NotObserved::ImageStore);
    Vantage {
        network,
        nameservers: resolver.settings.nameservers.clone(),
        resolver: Some(Box::new(resolver.settings.clone())),
        resolver_source: resolver.source.clone(),
        hosts_copied: resolver.hosts.is_of_kubelet,
        resolver_emulated: "go".to_owned(),
        not_observed,
        ..Vantage::default()
    }
}
