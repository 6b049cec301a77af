//! The resolver settings as a Go program reads them: `resolv.conf` and the hosts file.
//!
//! containerd and the kubelet are Go programs, so the rules here are those of Go's own resolver (Go 1.25,
//! `net/dnsconfig_unix.go`, `net/hosts.go`). A line that Go ignores is ignored and noted here: a
//! pull continues without it, and so does a check.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::nsswitch;
use crate::files;
use crate::model::resolver::ResolverSettings;
use crate::model::text::clean;

/// Bound for a word of a file in a message, in characters.
const WORD_SHOWN: usize = 80;

/// The settings for DNS lookups, with the content of the hosts file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ResolverConfig {
    /// What resolv.conf and nsswitch.conf have.
    pub settings: ResolverSettings,
    /// Whether the runtime's resolver sends EDNS (RFC 6891); `None` if its builds differ. Queries have EDNS unless
    /// this is `Some(false)`.
    pub sends_edns: Option<bool>,
    /// The content of the hosts file.
    pub hosts: HostsFile,
    /// The source of the servers: a file's path, or `--nameserver`.
    pub source: String,
}

/// The files of a node's resolver.
#[derive(Clone, Copy, Debug)]
pub struct ResolverFiles<'a> {
    /// `/etc/resolv.conf`.
    pub resolv_conf: &'a Path,
    /// `/etc/nsswitch.conf`; `None`: it is taken to be absent.
    pub nsswitch: Option<&'a Path>,
    /// `/etc/hosts`.
    pub hosts: &'a Path,
}

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ResolverConfigError {
    /// The file exists, but can't be read.
    #[error("can't read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system reports.
        #[source]
        source: std::io::Error,
    },
    /// The file exceeds a bound.
    #[error("{} is larger than {limit} bytes and can't be a resolver configuration", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound in bytes.
        limit: u64,
    },
}

/// Why text is not a name server's address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameserverError {
    /// It is not an IP address with an optional port.
    #[error(
        "'{0}' is not a name server: give an address with or without a port, such as 10.0.0.2, 10.0.0.2:5353, \
         ::1 or [::1]:53"
    )]
    NotAnAddress(String),
    /// The port is 0.
    #[error("'{0}' has port 0: give a port from 1 to 65535, or no port for 53")]
    Port(String),
    /// The zone of an IPv6 address (RFC 4007) is not an interface of this machine.
    #[error("'{text}' names the interface '{scope}', which does not exist")]
    NoInterface {
        /// The address as given.
        text: String,
        /// The zone.
        scope: String,
    },
}

impl ResolverConfig {
    /// Reads the files. If one does not exist, Go's defaults apply.
    ///
    /// # Errors
    /// If `resolv_conf` exists but can't be read, or is too large. Another file that can't be read is only noted.
    pub fn load(files: ResolverFiles<'_>) -> Result<Self, ResolverConfigError> {
        let host_name = files::kernel(Path::new(HOST_NAME_FILE)).unwrap_or_default();
        let text = read(files.resolv_conf, RESOLV_CONF_LIMIT)?;
        let mut config = Self::parse(text.as_deref(), files.resolv_conf, host_name.trim());
        let cause = |error: &ResolverConfigError| {
            std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
        };
        match files.nsswitch.map(|path| read(path, RESOLV_CONF_LIMIT)) {
            Some(Ok(Some(text))) => config.settings.sources = nsswitch::parse(&text),
            Some(Ok(None)) | None => {}
            Some(Err(error)) => {
                let problem = format!("{error}: {}", cause(&error));
                config.settings.sources.problem = Some(problem);
            }
        }
        if let (Some(path), Some(problem)) = (files.nsswitch, &config.settings.sources.problem) {
            let note = format!("{}: {problem}", path.display());
            config.settings.notes.push(note);
        }
        match read(files.hosts, HOSTS_LIMIT) {
            Ok(text) => config.hosts = HostsFile::parse(&text.unwrap_or_default()),
            // Go continues without it; but the node's containerd may be able to read it.
            Err(error) => config
                .settings
                .notes
                .push(format!("{error}: {}; its names are unknown", cause(&error))),
        }
        Ok(config)
    }

    /// The same settings with other servers (`--nameserver`).
    #[must_use]
    pub fn with_nameservers(mut self, nameservers: Vec<SocketAddr>) -> Self {
        self.settings.nameservers = nameservers;
        self.settings.ignored_servers.clear();
        "--nameserver".clone_into(&mut self.source);
        self
    }

    /// Parses the text of a `resolv.conf`; `None` if there is no file.
    fn parse(text: Option<&str>, path: &Path, host_name: &str) -> Self {
        let mut config = Self {
            source: path.display().to_string(),
            ..Self::default()
        };
        let settings = &mut config.settings;
        host_name.clone_into(&mut settings.host_name);
        for (index, line) in text.unwrap_or_default().lines().enumerate() {
            let line_number = index + 1;
            for problem in read_line(settings, line) {
                let note = format!("{}:{line_number}: {problem}", path.display());
                settings.notes.push(note);
            }
        }
        if settings.nameservers.is_empty() {
            settings.nameservers = vec![
                (Ipv4Addr::LOCALHOST, DNS_PORT).into(),
                (Ipv6Addr::LOCALHOST, DNS_PORT).into(),
            ];
            settings.notes.push(format!(
                "{} {}; Go's resolver then queries 127.0.0.1 and ::1",
                path.display(),
                if text.is_some() {
                    "names no server"
                } else {
                    "does not exist"
                }
            ));
        }
        if settings.search.is_empty() {
            // resolv.conf(5): by default, the search list is the local domain.
            settings.search = host_name
                .split_once('.')
                .filter(|(_, domain)| !domain.is_empty())
                .map(|(_, domain)| rooted(domain))
                .into_iter()
                .collect();
        }
        config
    }
}

/// Applies one line; returns notes about it.
fn read_line(settings: &mut ResolverSettings, line: &str) -> Vec<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let Some((&keyword, values)) = fields.split_first() else {
        return Vec::new();
    };
    let note = match (keyword, values) {
        ("options", options) => {
            return options
                .iter()
                .filter_map(|o| read_option(settings, o))
                .collect();
        }
        _ if line.starts_with(['#', ';']) => None,
        // Neither Go nor libc takes it for a comment; but nobody means it as a setting.
        _ if keyword.starts_with(['#', ';']) => {
            settings.add_unusual(keyword, false);
            None
        }
        ("nameserver", [server, ..]) => match socket_address(server) {
            // Go accepts only a bare address, never one with a port.
            Ok((address, false)) if settings.nameservers.len() == SERVERS_READ => {
                settings.ignored_servers.push(address);
                Some(format!(
                    "server {} is not queried: at most {SERVERS_READ} are",
                    address.ip()
                ))
            }
            Ok((address, false)) => {
                let is_twice = settings.nameservers.contains(&address);
                settings.nameservers.push(address);
                is_twice.then(|| {
                    format!(
                        "server {} is listed twice: if it is silent, each lookup waits for it twice as often",
                        address.ip()
                    )
                })
            }
            Err(error @ NameserverError::NoInterface { .. }) => Some(error.to_string()),
            _ => Some(format!(
                "'{}' is ignored: only an IPv4 or IPv6 address without a port is allowed",
                clean(server, WORD_SHOWN)
            )),
        },
        ("nameserver", []) => Some("'nameserver' without an address is ignored".to_owned()),
        ("domain", [domain, ..]) => {
            settings.search = vec![rooted(domain)];
            None
        }
        ("search", domains) => {
            let rooted = domains.iter().map(|d| rooted(d));
            settings.search = rooted.filter(|d| d != ".").collect();
            None
        }
        // 'lookup' is OpenBSD's order of sources, which Go reads on any system.
        ("domain", []) | ("lookup", _) => None,
        _ => Some(unknown(settings, keyword)),
    };
    note.into_iter().collect()
}

/// Applies one option; returns a note about it.
fn read_option(settings: &mut ResolverSettings, option: &str) -> Option<String> {
    match option.split_once(':') {
        Some(("ndots", number)) => settings.ndots = leading_number(number).min(15),
        Some(("timeout", number)) => {
            // More than a day is never useful, and the bound keeps sums of times in range.
            let seconds = leading_number(number).clamp(1, 86_400);
            settings.timeout = Duration::from_secs(seconds as u64);
        }
        Some(("attempts", number)) => settings.attempts = leading_number(number),
        _ => match option {
            "rotate" => settings.rotate = true,
            "single-request" | "single-request-reopen" => settings.single_request = true,
            "use-vc" | "usevc" | "tcp" => settings.use_tcp = true,
            "edns0" | "trust-ad" | "no-reload" => settings.add_unusual(option, true),
            _ => {
                settings.no_aaaa |= option == "no-aaaa";
                return Some(unknown(settings, option));
            }
        },
    }
    None
}

/// Parses `10.0.0.2`, `10.0.0.2:5353`, `::1`, `[::1]:53`, `fe80::1%eth0`. The port is 53 if none is given.
///
/// # Errors
/// If the text is not an address, the port is 0, or the interface does not exist.
pub fn parse_nameserver(text: &str) -> Result<SocketAddr, NameserverError> {
    let (address, _) = socket_address(text.trim())?;
    Ok(address)
}

/// Parses an address; the flag: a port was written.
fn socket_address(text: &str) -> Result<(SocketAddr, bool), NameserverError> {
    let wrong = || NameserverError::NotAnAddress(clean(text, WORD_SHOWN));
    let (plain, scope) = match text.split_once('%') {
        Some((before, rest)) => {
            let (scope, after) = rest.split_at(rest.find(']').unwrap_or(rest.len()));
            (format!("{before}{after}"), Some(scope))
        }
        None => (text.to_owned(), None),
    };
    let is_bare = plain.parse::<IpAddr>().is_ok();
    let mut address: SocketAddr = plain
        .parse()
        .or_else(|_| format!("{plain}:{DNS_PORT}").parse())
        .or_else(|_| format!("[{plain}]:{DNS_PORT}").parse())
        .map_err(|_| wrong())?;
    if address.port() == 0 {
        return Err(NameserverError::Port(clean(text, WORD_SHOWN)));
    }
    match (&mut address, scope) {
        (_, None) => {}
        (SocketAddr::V4(_), Some(_)) => return Err(wrong()),
        (SocketAddr::V6(address), Some(scope)) => {
            let id = scope_id(scope).ok_or_else(|| NameserverError::NoInterface {
                text: clean(text, WORD_SHOWN),
                scope: clean(scope, WORD_SHOWN),
            })?;
            address.set_scope_id(id);
        }
    }
    Ok((address, !is_bare))
}

/// The index of an interface given by name or number (RFC 4007, 11.2).
fn scope_id(scope: &str) -> Option<u32> {
    match scope.parse() {
        Ok(0) => None,
        Ok(index) => Some(index),
        Err(_) if scope.is_empty() => None,
        Err(_) => nix::net::if_::if_nametoindex(scope).ok(),
    }
}

/// The hosts file: addresses by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostsFile {
    by_name: HashMap<String, Vec<IpAddr>>,
    /// The kubelet wrote it at the start of this pod.
    pub is_of_kubelet: bool,
}

impl HostsFile {
    /// Parses hosts(5). Lines without an address and a name are ignored, as Go does.
    pub fn parse(text: &str) -> Self {
        let mut hosts = Self {
            is_of_kubelet: text.starts_with("# Kubernetes-managed hosts file"),
            ..Self::default()
        };
        for line in text.lines() {
            let line = line.split_once('#').map_or(line, |(before, _)| before);
            let mut fields = line.split_ascii_whitespace();
            let Some(address) = fields.next().and_then(hosts_address) else {
                continue;
            };
            for name in fields {
                hosts
                    .by_name
                    .entry(hosts_key(name))
                    .or_default()
                    .push(address);
            }
        }
        hosts
    }

    /// The addresses of a name in the order of the file; empty if the file does not have it.
    pub fn lookup(&self, name: &str) -> &[IpAddr] {
        self.by_name
            .get(&hosts_key(name))
            .map_or(&[], Vec::as_slice)
    }
}

/// An IPv6 address may name its interface (RFC 4007, 11).
fn hosts_address(text: &str) -> Option<IpAddr> {
    match text.split_once('%') {
        Some((_, "")) => None,
        Some((address, _)) => address.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// Go (`absDomainName`) ignores case, and the final dot of a name that has other dots.
fn hosts_key(name: &str) -> String {
    let mut key = name.to_ascii_lowercase();
    if key.contains('.') && !key.ends_with('.') {
        key.push('.');
    }
    key
}

fn rooted(name: &str) -> String {
    if name.ends_with('.') {
        name.to_owned()
    } else {
        format!("{name}.")
    }
}

/// The number at the start of the text; 0 if there is none (Go, `dtoi`).
fn leading_number(text: &str) -> usize {
    const LARGEST: usize = 0xFF_FFFF;
    text.bytes()
        .take_while(u8::is_ascii_digit)
        .fold(0, |n, b| (n * 10 + usize::from(b - b'0')).min(LARGEST))
}

fn unknown(settings: &mut ResolverSettings, word: &str) -> String {
    settings.add_unusual(&clean(word, WORD_SHOWN), false);
    format!(
        "Go's resolver does not support '{}': a Go program that is linked with libc then uses libc's resolver",
        clean(word, WORD_SHOWN)
    )
}

/// The text of a file; `None` if it does not exist.
fn read(path: &Path, limit: u64) -> Result<Option<String>, ResolverConfigError> {
    let read = files::text(path, limit);
    let path = path.to_owned();
    match read {
        Ok(text) => Ok(Some(text)),
        Err(source) => match source.kind() {
            ErrorKind::NotFound => Ok(None),
            ErrorKind::FileTooLarge => Err(ResolverConfigError::TooLarge { path, limit }),
            _ => Err(ResolverConfigError::Read { path, source }),
        },
    }
}

const DNS_PORT: u16 = 53;

/// Go reads as many servers as glibc does (resolv.conf(5), MAXNS).
const SERVERS_READ: usize = 3;

/// Bytes. A kubelet writes some hundred (at most 32 search domains, 2048 characters).
const RESOLV_CONF_LIMIT: u64 = 1 << 20;

/// Bytes. Block lists make hosts files of several megabytes.
const HOSTS_LIMIT: u64 = 16 << 20;

/// The host name as of gethostname(2), in this process's UTS namespace.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> ResolverConfig {
        ResolverConfig::parse(Some(text), Path::new("/etc/resolv.conf"), "node-1")
    }

    fn load(resolv_conf: &Path, hosts: &Path) -> Result<ResolverConfig, ResolverConfigError> {
        ResolverConfig::load(ResolverFiles {
            resolv_conf,
            nsswitch: None,
            hosts,
        })
    }

    fn servers(config: &ResolverConfig) -> Vec<String> {
        config
            .settings
            .nameservers
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_kubelets_resolv_conf_is_read_whole() {
        let config = parse(
            "search default.svc.cluster.local svc.cluster.local. cluster.local\n\
             nameserver 10.247.3.10\noptions ndots:5 single-request-reopen timeout:2 attempts:3 use-vc\n",
        );
        assert_eq!(servers(&config), ["10.247.3.10:53"]);
        assert_eq!(
            config.settings.search,
            [
                "default.svc.cluster.local.",
                "svc.cluster.local.",
                "cluster.local."
            ]
        );
        assert_eq!(config.settings.ndots, 5);
        assert_eq!(config.settings.timeout, Duration::from_secs(2));
        assert_eq!(config.settings.attempts, 3);
        assert!(config.settings.use_tcp);
        assert_eq!(config.source, "/etc/resolv.conf");
        assert!(config.settings.single_request && !config.settings.rotate);
        assert!(config.settings.notes.is_empty() && config.settings.unusual.is_empty());
    }

    #[test]
    fn settings_that_are_not_there_are_gos_own() {
        for text in [
            None,
            Some(""),
            Some("# nothing\n; here\n\n  # nor here\noptions edns0\n"),
        ] {
            let config = ResolverConfig::parse(text, Path::new("r"), "node-1");
            assert_eq!(servers(&config), ["127.0.0.1:53", "[::1]:53"]);
            assert_eq!(config.settings.ndots, 1);
            assert_eq!(config.settings.timeout, Duration::from_secs(5));
            assert_eq!(config.settings.attempts, 2);
            assert!(config.settings.search.is_empty() && !config.settings.use_tcp);
            assert_eq!(
                config.settings.notes.len(),
                1,
                "{:?}",
                config.settings.notes
            );
        }
    }

    #[test]
    fn the_search_list_falls_back_to_the_hosts_own_domain() {
        for (text, host_name, search) in [
            ("", "node-1.region.internal", vec!["region.internal."]),
            ("", "node-1", vec![]),
            ("", "node-1.", vec![]),
            ("search .\n", "node-1.internal", vec!["internal."]),
            ("domain a.b\n", "node-1.internal", vec!["a.b."]),
            ("search x\ndomain a.b\n", "n", vec!["a.b."]),
            ("domain a.b\nsearch x y.\n", "n", vec!["x.", "y."]),
        ] {
            let config = ResolverConfig::parse(Some(text), Path::new("r"), host_name);
            assert_eq!(config.settings.search, search, "{text:?}");
        }
    }

    #[test]
    fn lines_that_go_passes_over_are_noted_with_their_place() {
        for (text, asked, note) in [
            (
                "nameserver dns.example.com\nnameserver 10.0.0.2\n",
                vec!["10.0.0.2:53"],
                "/etc/resolv.conf:1: 'dns.example.com' is ignored: only an IPv4 or IPv6 address without a port is allowed",
            ),
            (
                "nameserver 10.0.0.2\nnameserver 10.0.0.3:53\n",
                vec!["10.0.0.2:53"],
                "/etc/resolv.conf:2: '10.0.0.3:53' is ignored: only an IPv4 or IPv6 address without a port is allowed",
            ),
            (
                "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n",
                vec!["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"],
                "/etc/resolv.conf:4: server 10.0.0.4 is not queried: at most 3 are",
            ),
            (
                "nameserver\nnameserver ::1 # local\n",
                vec!["[::1]:53"],
                "/etc/resolv.conf:1: 'nameserver' without an address is ignored",
            ),
            (
                "nameserver 10.0.0.1\noptions no-aaaa\n",
                vec!["10.0.0.1:53"],
                "/etc/resolv.conf:2: Go's resolver does not support 'no-aaaa': a Go program that is linked with libc then uses libc's resolver",
            ),
        ] {
            let config = parse(text);
            assert_eq!(servers(&config), asked, "{text:?}");
            assert_eq!(config.settings.notes, [note], "{text:?}");
        }
    }

    #[test]
    fn numbers_of_options_are_bounded_as_go_bounds_them() {
        for (options, ndots, timeout, attempts) in [
            ("ndots:0", 0, 5, 2),
            ("ndots:99 timeout:0 attempts:0", 15, 1, 0),
            ("ndots:x timeout:x", 0, 1, 2),
            ("ndots:3x", 3, 5, 2),
            ("timeout:99999999999999999999", 1, 86_400, 2),
        ] {
            let config = parse(&format!("nameserver 10.0.0.2\noptions {options}\n"));
            assert_eq!(
                (
                    config.settings.ndots,
                    config.settings.timeout.as_secs(),
                    config.settings.attempts
                ),
                (ndots, timeout, attempts),
                "{options}"
            );
        }
    }

    #[test]
    fn a_scope_is_kept_as_the_index_of_its_interface() {
        let config =
            parse("nameserver fe80::1%lo\nnameserver fe80::2%7\nnameserver fe80::3%no-such0\n");
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        let scopes: Vec<u32> = config
            .settings
            .nameservers
            .iter()
            .map(|s| match s {
                SocketAddr::V6(v6) => v6.scope_id(),
                SocketAddr::V4(_) => 0,
            })
            .collect();
        assert_eq!(scopes, [lo, 7]);
        assert!(
            config.settings.notes[0].contains("no-such0"),
            "{:?}",
            config.settings.notes
        );
    }

    #[test]
    fn a_name_server_may_be_given_with_or_without_a_port() {
        for (text, want) in [
            ("10.0.0.2", "10.0.0.2:53"),
            ("10.0.0.2:5353", "10.0.0.2:5353"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[::1]:53", "[::1]:53"),
            ("[fe80::1%7]:5353", "[fe80::1%7]:5353"),
            (" 10.0.0.2 ", "10.0.0.2:53"),
        ] {
            assert_eq!(
                parse_nameserver(text).map(|a| a.to_string()),
                Ok(want.to_owned())
            );
        }
        for text in [
            "",
            ":",
            "dns",
            "dns:53",
            "10.0.0",
            "10.0.0.2:",
            "10.0.0.2:x",
            "10.0.0.2:+53",
            "10.0.0.2:65536",
            "10.0.0.2:0",
            "[::1",
            "[::1]53",
            "[10.0.0.2%lo]:53",
            "fe80::1%",
            "10.0.0.2\u{1b}[31m",
        ] {
            let error = parse_nameserver(text).unwrap_err().to_string();
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
    }

    #[test]
    fn files_that_are_not_there_leave_the_defaults_and_unreadable_ones_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let (conf, hosts) = (
            folder.path().join("resolv.conf"),
            folder.path().join("hosts"),
        );
        let config = load(&conf, &hosts).unwrap();
        assert_eq!(servers(&config), ["127.0.0.1:53", "[::1]:53"]);
        assert!(config.hosts.lookup("localhost").is_empty());

        std::fs::write(&conf, "nameserver 10.0.0.2\n").unwrap();
        std::fs::write(&hosts, "10.0.3.9 registry\n").unwrap();
        let config = load(&conf, &hosts).unwrap();
        assert_eq!(config.hosts.lookup("registry").len(), 1);
        assert!(
            config.settings.notes.is_empty(),
            "{:?}",
            config.settings.notes
        );
        let config = config.with_nameservers(vec!["10.0.0.9:53".parse().unwrap()]);
        assert_eq!(config.source, "--nameserver");
        assert_eq!(servers(&config), ["10.0.0.9:53"]);

        // A folder can be opened but not read.
        let error = load(folder.path(), &hosts).unwrap_err();
        assert!(matches!(error, ResolverConfigError::Read { .. }), "{error}");
        let config = load(&conf, folder.path()).unwrap();
        assert_eq!(
            config.settings.notes.len(),
            1,
            "{:?}",
            config.settings.notes
        );

        std::fs::write(&conf, vec![b'#'; 1 << 21]).unwrap();
        let error = load(&conf, &hosts).unwrap_err();
        assert!(matches!(error, ResolverConfigError::TooLarge { .. }));
    }

    #[test]
    fn the_hosts_file_is_read_as_go_reads_it() {
        let hosts = HostsFile::parse(
            "127.0.0.1 localhost # not.this\n\
             # 10.9.9.9 registry.example.com\n\
             10.0.3.9\tRegistry.Example.com registry\r\n\
             fd00::9 registry.example.com.\n\
             fe80::1%eth0 gw\n\
             127.1 old\n 10.0.0.1\n256.1.1.1 bad\n10.0.0.1%eth0 bad\nfe80::1% bad\n",
        );
        for (name, want) in [
            ("localhost", vec!["127.0.0.1"]),
            ("localhost.", vec![]),
            ("not.this", vec![]),
            ("registry.example.com", vec!["10.0.3.9", "fd00::9"]),
            ("REGISTRY.example.com.", vec!["10.0.3.9", "fd00::9"]),
            ("registry", vec!["10.0.3.9"]),
            ("gw", vec!["fe80::1"]),
            ("old", vec![]),
            ("bad", vec![]),
            ("", vec![]),
        ] {
            let found: Vec<String> = hosts.lookup(name).iter().map(ToString::to_string).collect();
            assert_eq!(found, want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(?s).{0,400}") {
            let config = parse(&text);
            prop_assert!((1..=3).contains(&config.settings.nameservers.len()));
            HostsFile::parse(&text);
            let _ = parse_nameserver(&text);
        }
    }
}
