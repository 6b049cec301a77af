//! Where we stand: how the network is used from here, and what is seen of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Means, NodeTold, look_around};
use crate::config::{FamilyWish, Network};
use crate::containerd::{self, BaseTrust, Settings};
use crate::model::vantage::{NetworkView, Unseen, Vantage};
use crate::net::dns::Families;
use crate::net::netlink::Netlink;
use crate::net::resolv::{ResolverConfig, ResolverConfigError};
use crate::net::roots::{self, RootsError};

/// What it is made of.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Trusted too (PEM).
    pub ca_files: Vec<PathBuf>,
    /// Asked instead of those of `resolv_conf`, where there are any.
    pub nameservers: Vec<SocketAddr>,
    pub resolv_conf: PathBuf,
    pub hosts_file: PathBuf,
    pub families: Families,
    /// The longest that any single wait may last.
    pub wait: Duration,
}

impl Wishes {
    /// As a configuration has them.
    pub fn of(network: &Network, wait: Duration) -> Self {
        let or = |path: &Option<PathBuf>, usual: &str| path.clone().unwrap_or_else(|| usual.into());
        Self {
            ca_files: network.ca_files.clone(),
            nameservers: network.nameservers.iter().map(|server| server.0).collect(),
            resolv_conf: or(&network.resolv_conf, RESOLV_CONF),
            hosts_file: or(&network.hosts_file, HOSTS_FILE),
            families: match network.families {
                FamilyWish::Both => Families::Both,
                FamilyWish::Ipv4 => Families::V4Only,
                FamilyWish::Ipv6 => Families::V6Only,
            },
            wait,
        }
    }
}

/// containerd's files, as a configuration names them.
pub fn containerd_files(network: &Network) -> containerd::Request {
    containerd::Request {
        hosts_dir: network.hosts_dir.clone(),
        config: network.containerd_config.clone(),
        proxy_from: network.proxy_from.clone(),
    }
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS_FILE: &str = "/etc/hosts";

/// What was named and can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(transparent)]
    Resolver(#[from] ResolverConfigError),
    #[error(transparent)]
    Roots(#[from] RootsError),
}

/// What the wishes come to.
#[derive(Debug)]
pub struct Place {
    pub resolver: ResolverConfig,
    pub families: Families,
    pub trust: BaseTrust,
    wait: Duration,
}

impl Place {
    /// Reads the files.
    ///
    /// # Errors
    /// When one that was named can't be used.
    pub fn load(wishes: &Wishes) -> Result<Self, PlaceError> {
        let mut resolver = ResolverConfig::load(&wishes.resolv_conf, &wishes.hosts_file)?;
        if !wishes.nameservers.is_empty() {
            resolver = resolver.with_nameservers(wishes.nameservers.clone());
        }
        let (store, roots) = roots::load(&wishes.ca_files)?;
        Ok(Self {
            resolver,
            families: wishes.families,
            trust: BaseTrust::new(store, roots),
            wait: wishes.wait,
        })
    }

    /// The kernel's view; `None` where it can't be asked, which is told as missing evidence.
    pub async fn netlink() -> Option<Arc<Netlink>> {
        match Netlink::open().await {
            Ok(netlink) => Some(Arc::new(netlink)),
            Err(error) => {
                tracing::debug!(%error, "the kernel's routes can't be asked for");
                None
            }
        }
    }

    /// Looks around.
    pub async fn look(
        &self,
        base: Vantage,
        network: &Network,
        node: &NodeTold,
        netlink: Option<Arc<Netlink>>,
    ) -> Vantage {
        let means = Arc::new(Means {
            resolver: self.resolver.clone(),
            families: self.families,
            tls: self.trust.tls.clone(),
            wait: self.wait,
        });
        let environment = |name: &str| std::env::var(name).ok();
        look_around(base, network, node, netlink.as_deref(), means, environment).await
    }

    /// What can be told without asking anybody.
    pub fn vantage(&self, settings: &Settings) -> Vantage {
        vantage(&self.resolver, settings, &|name| std::env::var(name).ok())
    }
}

/// Where we stand, as far as the environment tells: Kubernetes sets KUBERNETES_SERVICE_HOST in
/// every pod; HOST_IP and POD_IP are what a manifest sets from the downward API.
fn vantage(
    resolver: &ResolverConfig,
    settings: &Settings,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Vantage {
    let network = match (
        environment("KUBERNETES_SERVICE_HOST"),
        environment("HOST_IP"),
        environment("POD_IP"),
    ) {
        (None, _, _) => NetworkView::Machine,
        (Some(_), Some(host), Some(pod)) if host == pod => NetworkView::Node,
        (Some(_), Some(_), Some(_)) => NetworkView::Pod,
        (Some(_), _, _) => NetworkView::PodOrNode,
    };
    let mut unseen = vec![Unseen::NodeCredentials];
    if !settings.knows_mirrors() {
        unseen.push(Unseen::Mirrors);
    }
    if !settings.proxies.settings().is_containerds {
        unseen.push(Unseen::Proxy);
    }
    unseen.push(Unseen::NodeRoots);
    if network != NetworkView::Node {
        unseen.push(Unseen::NodeResolver);
    }
    unseen.push(Unseen::ImageStore);
    Vantage::new(
        network,
        resolver.nameservers.clone(),
        resolver.source.clone(),
        unseen,
    )
}
