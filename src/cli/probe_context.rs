//! The context of checks from this machine: its network as options and configuration describe it, and its
//! vantage.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::access::ClusterArgs;
use super::credential::CredentialArgs;
use super::error::Error;
use super::network_args::NodeSettingsArgs;
use crate::config::Network;
use crate::containerd::{self, Settings};
use crate::model::kubelet::KubeletVersion;
use crate::model::own_limit::OwnLimit;
use crate::model::platform::Platform;
use crate::model::reference::Reference;
use crate::model::runtime::Runtime;
use crate::model::vantage::Vantage;
use crate::own;
use crate::probe::check::{Check, Effort, Override};
use crate::probe::manifest::KnownManifests;
use crate::probe::network::{LargeDocuments, ProbeNetwork};
use crate::pull_secret::keyring::{Keyring, LoadedSource};
use crate::vantage::ClusterInput;
use crate::vantage::node_settings::{NodeSettings, containerd_files};

#[derive(Args, Debug, Default)]
#[command(next_help_heading = "containerd's settings")]
pub(super) struct ContainerdArgs {
    /// The folder of containerd's REGISTRY/hosts.toml (its `config_path`) [default: the one in config.toml]
    #[arg(long, value_name = "DIR")]
    hosts_dir: Option<PathBuf>,

    /// containerd's configuration, read for `config_path` [default: /etc/containerd/config.toml, if it exists]
    #[arg(long, value_name = "FILE", conflicts_with = "hosts_dir")]
    containerd_config: Option<PathBuf>,

    /// The node's container runtime, as `kubectl get node -o wide` shows it: the check follows the rules of that release, otherwise those of each release that could apply
    #[arg(long, value_name = "NAME://VERSION")]
    pub(super) runtime: Option<Runtime>,

    /// Read the proxies from this file, not from this process: a systemd unit, drop-in or folder of them, or an environment file; repeatable
    #[arg(long, value_name = "FILE")]
    proxy_from: Vec<PathBuf>,
}

impl ContainerdArgs {
    /// The files that the options name, otherwise those of the configuration.
    fn or(&self, network: &Network) -> containerd::Request {
        let mut request = containerd_files(network);
        if self.hosts_dir.is_some() || self.containerd_config.is_some() {
            request.hosts_dir.clone_from(&self.hosts_dir);
            request.config.clone_from(&self.containerd_config);
            request.may_lack.hosts = false;
        }
        if !self.proxy_from.is_empty() {
            request.proxy_from.clone_from(&self.proxy_from);
            request.may_lack.proxies = false;
        }
        request
    }
}

#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Network")]
pub(super) struct NetworkArgs {
    /// Use plain HTTP for the registry, as hosts.toml with `server = "http://…"` does
    #[arg(long)]
    pub(super) plain_http: bool,

    /// Use this address for a host and port, without resolving the name; repeatable
    #[arg(long, value_name = "HOST:PORT:ADDR", value_parser = override_of)]
    resolve: Vec<Override>,
}

/// Options that `probe` and `wait` share.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The platform of the image to check [default: linux with this machine's CPU architecture]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", help_heading = None::<&str>)]
    platform: Option<Platform>,

    #[command(flatten)]
    pub(super) credentials: CredentialArgs,

    #[command(flatten)]
    pub(super) cluster: ClusterArgs,

    #[command(flatten)]
    containerd: ContainerdArgs,

    /// The version of the node's kubelet, as `kubectl get node` shows it: from v1.35 on, a kubelet may pull to verify that a pod may use an image that the node has
    #[arg(long, value_name = "VERSION", help_heading = "Kubelet")]
    kubelet_version: Option<KubeletVersion>,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    place: NodeSettingsArgs,
}

impl CheckArgs {
    /// Reads the files that the options name. `wait` is the timeout for any single answer.
    pub(super) async fn context(&self, wait: Duration, trace: bool) -> Result<ProbeContext, Error> {
        ProbeContext::prepare(&self.place, &self.containerd, &self.network, wait, trace).await
    }

    /// The check of one image, without a pod.
    pub(super) fn of(&self, reference: Reference, keyring: Keyring, effort: Effort) -> Check {
        Check {
            reference,
            platform: self.platform.clone().unwrap_or_else(Platform::local),
            pods: Vec::new(),
            requested_secrets: Vec::new(),
            runtime: self.containerd.runtime.clone(),
            kubelet: self.kubelet_version.clone(),
            plain_http: self.network.plain_http,
            compare_direct: false,
            guard: None,
            effort,
            keyring: Arc::new(keyring),
        }
    }
}

/// This machine as the vantage point of checks.
pub(super) struct ProbeContext {
    pub(super) probe_network: Arc<ProbeNetwork>,
    pub(super) network: Network,
    place: Arc<NodeSettings>,
}

impl ProbeContext {
    /// Reads the files that the options name. `wait` is the timeout for any single answer.
    pub(super) async fn prepare(
        place: &NodeSettingsArgs,
        containerd: &ContainerdArgs,
        network: &NetworkArgs,
        wait: Duration,
        trace: bool,
    ) -> Result<Self, Error> {
        let config = place.load()?;
        let (read, own_limits) = own::scope_of_settings(|| {
            let settings = Settings::load(&containerd.or(&config.network), |name| {
                std::env::var(name).ok()
            })?;
            let place = NodeSettings::load(&config.network, wait, &settings)?;
            Ok::<_, Error>((settings, place))
        });
        let (settings, place) = read?;
        let probe_network = ProbeNetwork {
            resolver: place.means.resolver.clone(),
            overrides: network.resolve.clone(),
            families: place.means.families,
            nat64: config.network.declared().nat64_prefixes,
            trust: place.trust.clone(),
            vantage: place.vantage(&settings),
            settings,
            trace,
            transfer_lock: Mutex::new(()),
            large_documents: LargeDocuments::default(),
            netlink: NodeSettings::netlink().await,
            wait,
            known: Arc::new(KnownManifests::default()),
            own_limits,
        };
        Ok(Self {
            probe_network: Arc::new(probe_network),
            network: config.network,
            place: Arc::new(place),
        })
    }

    /// The kubelet's own credentials for an image, if their files are mounted. They come after all others.
    pub(super) async fn of_node(&self, reference: &Reference) -> Vec<LoadedSource> {
        self.place.node_credentials.load(reference).await
    }

    /// Observes this vantage point in a task of its own; checks don't wait for it.
    pub(super) fn observe(&self) -> JoinHandle<Vantage> {
        let (place, network) = (Arc::clone(&self.place), self.network.clone());
        let (base, netlink) = (
            self.probe_network.vantage.clone(),
            self.probe_network.netlink.clone(),
        );
        tokio::spawn(async move {
            place
                .look(base, &network, &ClusterInput::NOT_ASKED, netlink)
                .await
        })
    }
}

/// Files and sockets that a runtime opens.
const FILES_OF_RUNTIME: usize = 7;

/// A runtime with one thread: a check waits most of the time and needs little CPU.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    // The runtime itself can't report that these are missing.
    own::room_for_files(FILES_OF_RUNTIME).map_err(|error| {
        let fix = own::limit_of(&error).map_or("", OwnLimit::fix);
        Error::Message(format!("can't start: {error}. {fix}"))
    })?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // A thread that exists can do what is next if no other may start (EAGAIN).
        .thread_keep_alive(Duration::from_hours(24))
        .build()
        .map_err(|error| Error::Message(format!("can't start the runtime: {error}")))
}

fn override_of(text: &str) -> Result<Override, String> {
    let wrong = || {
        format!("'{text}' is not HOST:PORT:ADDR, for instance registry.example.com:443:10.0.3.9")
    };
    let mut parts = text.splitn(3, ':');
    let (Some(host), Some(port), Some(address)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let bare = address
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'))
        .unwrap_or(address);
    let address: IpAddr = bare.parse().map_err(|_| wrong())?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok(Override {
        host: host.to_owned(),
        port,
        address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_read_host_port_address() {
        let read = override_of("reg.test:443:::1").unwrap();
        assert_eq!(
            (read.host.as_str(), read.port, read.address),
            ("reg.test", 443, "::1".parse().unwrap())
        );
        assert!(override_of("reg.test:443:[fd00::1]").is_ok());
        for wrong in [
            "reg.test",
            "reg.test:443",
            "reg.test:x:127.0.0.1",
            ":443:127.0.0.1",
            "reg.test:0:127.0.0.1",
            "r:1:h",
        ] {
            assert!(override_of(wrong).is_err(), "{wrong}");
        }
    }
}
