//! Where we stand: the options that say how the network is used, and what is seen of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{Error, input};
use crate::config::Config;
use crate::containerd::{BaseTrust, Settings};
use crate::model::vantage::{NetworkView, Unseen, Vantage};
use crate::net::dns::Families;
use crate::net::netlink::Netlink;
use crate::net::resolv::{self, ResolverConfig};
use crate::net::roots;
use crate::surroundings::{self, Means};

#[derive(Args, Debug)]
#[command(next_help_heading = "Network")]
pub(super) struct PlaceArgs {
    /// What is known of this network (YAML): ranges and how they are reached, metadata, egress; see docs/paths.md
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Trust these authorities too (PEM), as `ca` in containerd's hosts.toml does; repeatable
    #[arg(long, value_name = "FILE")]
    ca_file: Vec<PathBuf>,

    /// Ask this name server instead of those of resolv.conf; repeatable
    #[arg(long, value_name = "IP[:PORT]", value_parser = nameserver)]
    nameserver: Vec<SocketAddr>,

    /// The resolver's settings, for instance the node's own file mounted into a pod
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,

    /// The hosts file, read before any name server is asked
    #[arg(long, value_name = "FILE", default_value = "/etc/hosts")]
    hosts_file: PathBuf,

    /// IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,

    /// IPv6 only
    #[arg(short = '6')]
    ipv6: bool,
}

/// What the options come to.
pub(super) struct Place {
    pub resolver: ResolverConfig,
    pub families: Families,
    pub trust: BaseTrust,
    config: Config,
    wait: Duration,
}

/// A configuration is some pages long.
const MAX_CONFIG: u64 = 4 << 20;

impl PlaceArgs {
    pub(super) fn load(&self, wait: Duration) -> Result<Place, Error> {
        let config = self.config.as_deref().map(read_config).transpose()?;
        let mut resolver = ResolverConfig::load(&self.resolv_conf, &self.hosts_file)?;
        if !self.nameserver.is_empty() {
            resolver = resolver.with_nameservers(self.nameserver.clone());
        }
        let (store, roots) = roots::load(&self.ca_file)?;
        let families = match (self.ipv4, self.ipv6) {
            (true, _) => Families::V4Only,
            (_, true) => Families::V6Only,
            _ => Families::Both,
        };
        Ok(Place {
            resolver,
            families,
            trust: BaseTrust::new(store, roots),
            config: config.unwrap_or_default(),
            wait,
        })
    }
}

impl Place {
    /// The kernel's view; `None` where it can't be asked, which is told as missing evidence.
    pub(super) async fn netlink() -> Option<Arc<Netlink>> {
        match Netlink::open().await {
            Ok(netlink) => Some(Arc::new(netlink)),
            Err(error) => {
                tracing::debug!(%error, "the kernel's routes can't be asked for");
                None
            }
        }
    }

    /// Looks around.
    pub(super) async fn look(
        self: Arc<Self>,
        base: Vantage,
        netlink: Option<Arc<Netlink>>,
    ) -> Vantage {
        let means = Arc::new(Means {
            resolver: self.resolver.clone(),
            families: self.families,
            tls: self.trust.tls.clone(),
            wait: self.wait,
        });
        let environment = |name: &str| std::env::var(name).ok();
        let wish = &self.config.network;
        surroundings::look_around(base, wish, netlink.as_deref(), means, environment).await
    }

    /// What can be told without asking anybody.
    pub(super) fn vantage(&self, settings: &Settings) -> Vantage {
        vantage(&self.resolver, settings, &|name| std::env::var(name).ok())
    }
}

fn read_config(path: &Path) -> Result<Config, Error> {
    let shown = input::shown(path);
    let failed = |reason: String| Error::Config {
        path: shown.clone(),
        reason,
    };
    let bytes = input::read(path, MAX_CONFIG).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| failed("it is no UTF-8".to_owned()))?;
    Config::parse(&text).map_err(failed)
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

fn nameserver(text: &str) -> Result<SocketAddr, String> {
    resolv::parse_nameserver(text).map_err(|error| error.to_string())
}
