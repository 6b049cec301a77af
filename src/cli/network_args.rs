//! The options that say how the network is used.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::error::Error;
use super::input;
use crate::config::{Config, NameServer};
use crate::net::dns::Families;
use crate::net::resolv;

#[derive(Args, Debug)]
#[command(next_help_heading = "Network")]
pub(super) struct NodeSettingsArgs {
    /// What is known of this network (YAML): ranges and how they are reached, metadata, egress; see docs/paths.md
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Trust these authorities too (PEM), as `ca` in containerd's hosts.toml does; repeatable
    #[arg(long, value_name = "FILE")]
    ca_file: Vec<PathBuf>,

    /// Ask this name server instead of those of resolv.conf; repeatable
    #[arg(long, value_name = "IP[:PORT]", value_parser = resolv::parse_nameserver)]
    nameserver: Vec<SocketAddr>,

    /// The resolver's settings, for instance the node's own file mounted into a pod [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE")]
    resolv_conf: Option<PathBuf>,

    /// The hosts file, read before any name server is asked [default: /etc/hosts]
    #[arg(long, value_name = "FILE")]
    hosts_file: Option<PathBuf>,

    /// IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,

    /// IPv6 only
    #[arg(short = '6')]
    ipv6: bool,
}

/// A configuration is some pages long.
const MAX_CONFIG: u64 = 4 << 20;

impl NodeSettingsArgs {
    /// The configuration, with the options in it, which count first.
    pub(super) fn load(&self) -> Result<Config, Error> {
        let config = self.config.as_deref().map(read_config).transpose()?;
        let mut config = config.unwrap_or_default();
        let network = &mut config.network;
        network.ca_files.extend(self.ca_file.iter().cloned());
        if !self.nameserver.is_empty() {
            network.nameservers = self.nameserver.iter().copied().map(NameServer).collect();
        }
        if self.resolv_conf.is_some() {
            network.resolv_conf.clone_from(&self.resolv_conf);
        }
        if self.hosts_file.is_some() {
            network.hosts_file.clone_from(&self.hosts_file);
        }
        if self.ipv4 {
            network.families = Families::V4Only;
        } else if self.ipv6 {
            network.families = Families::V6Only;
        }
        Ok(config)
    }
}

pub(super) fn read_config(path: &Path) -> Result<Config, Error> {
    let shown = input::shown(path);
    let failed = |reason: String| Error::Told(format!("{shown}, given with --config: {reason}"));
    let bytes = input::read(path, MAX_CONFIG).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| failed("it is no UTF-8".to_owned()))?;
    Config::parse(&text).map_err(|error| failed(error.to_string()))
}
