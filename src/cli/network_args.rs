//! Options for the network of this node, and the configuration file that they override.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::error::Error;
use super::input;
use crate::config::{Config, MAX_CONFIG, NameServer};
use crate::files;
use crate::net::dns::Families;
use crate::net::resolv;

#[derive(Args, Debug)]
#[command(next_help_heading = "Network")]
pub(super) struct NodeSettingsArgs {
    /// Configuration of this network (YAML): address ranges and their path classes, metadata, egress; see docs/paths.md
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Trust these certificate authorities too (PEM), like `ca` in containerd's hosts.toml; repeatable
    #[arg(long, value_name = "FILE")]
    ca_file: Vec<PathBuf>,

    /// Use this name server instead of those in resolv.conf; repeatable
    #[arg(long, value_name = "IP[:PORT]", value_parser = resolv::parse_nameserver)]
    nameserver: Vec<SocketAddr>,

    /// The resolver's configuration, for instance the node's own file mounted into a pod [default: /etc/resolv.conf]
    #[arg(long, value_name = "FILE")]
    resolv_conf: Option<PathBuf>,

    /// The order of sources for host names [default: nsswitch.conf beside resolv.conf]
    #[arg(long, value_name = "FILE")]
    nsswitch_conf: Option<PathBuf>,

    /// The hosts file, used before any name server [default: /etc/hosts]
    #[arg(long, value_name = "FILE")]
    hosts_file: Option<PathBuf>,

    /// Use IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,

    /// Use IPv6 only
    #[arg(short = '6')]
    ipv6: bool,
}

impl NodeSettingsArgs {
    /// The configuration, overridden by the options.
    pub(super) fn load(&self) -> Result<Config, Error> {
        let read = |path: &Path| read_config(path, ConfigOrigin::Option);
        let config = self.config.as_deref().map(read).transpose()?;
        let mut config = config.unwrap_or_default();
        let network = &mut config.network;
        network.ca_files.extend(self.ca_file.iter().cloned());
        if !self.nameserver.is_empty() {
            network.nameservers = self.nameserver.iter().copied().map(NameServer).collect();
        }
        if self.resolv_conf.is_some() {
            network.resolv_conf.clone_from(&self.resolv_conf);
        }
        if self.nsswitch_conf.is_some() {
            network.nsswitch_conf.clone_from(&self.nsswitch_conf);
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

/// Where the path of a configuration file was given, for error messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ConfigOrigin {
    /// The option `--config`.
    Option,
    /// The environment variable `PULLPATH_CONFIG`.
    Environment,
    /// An argument: `config check FILE`.
    Argument,
}

impl ConfigOrigin {
    /// The origin of `--config` in commands that also read `PULLPATH_CONFIG`.
    pub(super) fn of(path: &Path) -> Self {
        Self::by_variable(path, std::env::var_os("PULLPATH_CONFIG").as_deref())
    }

    fn by_variable(path: &Path, variable: Option<&OsStr>) -> Self {
        if variable.is_some_and(|value| value == path.as_os_str()) {
            Self::Environment
        } else {
            Self::Option
        }
    }

    /// Follows the path in a message.
    fn describe(self) -> &'static str {
        match self {
            Self::Option => ", given with --config",
            Self::Environment => ", given with PULLPATH_CONFIG",
            Self::Argument => "",
        }
    }
}

/// Reads a configuration file; an error names the file and its origin.
pub(super) fn read_config(path: &Path, origin: ConfigOrigin) -> Result<Config, Error> {
    read_with(path, origin, input::read, Config::parse)
}

/// Reads the configuration of a long-running command: a regular file, within a bound of time.
pub(super) fn read_service_config(path: &Path, origin: ConfigOrigin) -> Result<Config, Error> {
    read_with(path, origin, files::read, Config::parse)
}

/// The same at a reload. An empty file is rejected: it is more likely one that is just being written than a request
/// for the defaults.
pub(super) fn read_config_again(path: &Path, origin: ConfigOrigin) -> Result<Config, Error> {
    read_with(path, origin, files::read, |text| {
        if Config::is_blank(text) {
            return Err(EMPTY.to_owned());
        }
        Config::parse(text).map_err(|error| error.to_string())
    })
}

const EMPTY: &str =
    "it has no key; to return to the defaults, write `targets: []` or restart with this file";

fn read_with<E: ToString>(
    path: &Path,
    origin: ConfigOrigin,
    read: impl Fn(&Path, u64) -> io::Result<Vec<u8>>,
    parse: impl Fn(&str) -> Result<Config, E>,
) -> Result<Config, Error> {
    let (shown, origin) = (input::shown(path), origin.describe());
    let failed = |reason: String| Error::Message(format!("{shown}{origin}: {reason}"));
    let bytes = read(path, MAX_CONFIG).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".to_owned()))?;
    parse(&text).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_where_the_file_was_given() {
        let path = Path::new("no/such/pullpath.yaml");
        let variable = |value: &'static str| Some(OsStr::new(value));
        for (origin, words) in [
            (
                ConfigOrigin::by_variable(path, None),
                "pullpath.yaml, given with --config: ",
            ),
            (
                ConfigOrigin::by_variable(path, variable("other.yaml")),
                "pullpath.yaml, given with --config: ",
            ),
            (
                ConfigOrigin::by_variable(path, variable("no/such/pullpath.yaml")),
                "pullpath.yaml, given with PULLPATH_CONFIG: ",
            ),
            (ConfigOrigin::Argument, "pullpath.yaml: "),
        ] {
            let error = read_config(path, origin).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
