//! The settings of the node's containerd: mirrors and per-host settings, logins, and proxies.
//!
//! This module finds and reads the files. [`config_toml`], [`hosts`], [`plan`] and [`proxy`] decide what they mean.

use node_files::read;
pub mod behaviour;
pub mod builds;
pub mod config_files;
pub mod config_toml;
pub mod go;
pub mod go_build;
pub mod hosts;
mod node_files;
pub mod plan;
pub mod proxy;
pub mod start;
mod unit;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::files;
use crate::model::connect::Roots;
use crate::model::endpoint::Endpoint;
use crate::model::hosts::{HostsConfig, HostsEffect, HostsProblem, RegistryHost};
use crate::model::proxy::ProxyRoute;
use crate::model::runtime::Runtime;
use crate::model::text::printable;
use crate::model::vantage::{NotObserved, NotObservedReason};
use crate::net::roots::{self, RootsError, RootsPlace};
use crate::net::tls::{ClientCertificates, TlsClient};
use crate::pull_secret::entry::Credential;
use crate::trust::{GoBuild, Pool};
use behaviour::{Behaviour, Release, Rules, SettingsInForce};
use config_files::ConfigFiles;
use config_toml::{CriSettings, Registry, Stop};
use hosts::ConfiguredHost;
use proxy::{Proxies, ProxyServer};
use unit::Environment;

/// The files to read.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `--hosts-dir` or `network.hosts_dir`: like `config_path`, folders separated by colons.
    pub hosts_dir: Option<PathBuf>,
    /// `--containerd-config` or `network.containerd_config`; `None`: the default path.
    pub config: Option<PathBuf>,
    /// `--proxy-from` or `network.proxy_from`, in order.
    pub proxy_from: Vec<PathBuf>,
    /// Where the node's `/` is mounted; `None` if it is this machine's own.
    pub root: Option<PathBuf>,
    /// Which of these files may be missing.
    pub may_lack: MayLack,
}

/// A configuration is written for many nodes: a file that one of them lacks is reported as not observed. A file that an
/// option names must exist.
#[derive(Clone, Copy, Debug, Default)]
pub struct MayLack {
    /// `hosts_dir` and `config`.
    pub hosts: bool,
    /// `proxy_from`.
    pub proxies: bool,
}

/// A file that was named can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file or folder can't be read.
    #[error("cannot read {path}, given with {by}: {source}")]
    Read {
        /// The option or configuration key that names it.
        by: &'static str,
        /// Printable.
        path: String,
        /// What the operating system reports.
        #[source]
        source: io::Error,
    },
    #[error(
        "{path}, given with {by}, is not a folder; name the folder that contains REGISTRY/hosts.toml"
    )]
    /// A file is given where a folder is required.
    NoFolder {
        /// The option or configuration key that names it.
        by: &'static str,
        /// Printable.
        path: String,
    },
    #[error(
        "{path} is not valid TOML, at line {line}: correct it, or name certs.d with --hosts-dir"
    )]
    /// `config.toml` is not valid TOML.
    Config {
        /// Printable.
        path: String,
        /// The first invalid line, counted from 1.
        line: usize,
    },
    #[error("{path}, named by {of}, can't be read: {source}")]
    /// An environment file can't be read.
    Include {
        /// Printable.
        path: String,
        /// The unit file that names it (`EnvironmentFile=`).
        of: String,
        /// What the operating system reports.
        #[source]
        source: io::Error,
    },
}

/// containerd's settings, as far as they could be read.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    source: Source,
    /// Messages about files that changed after containerd started, with both times.
    newer: Vec<String>,
    /// The proxies in force.
    pub proxies: Proxies,
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` of containerd's unit.
    pub roots: RootsPlace,
    /// What a configuration names but this node lacks.
    pub unseen: Vec<NotObservedReason>,
}

/// The source of the registry settings.
#[derive(Clone, Debug, Default)]
enum Source {
    /// No source was named or found.
    #[default]
    Unread,
    /// The folders used as `config_path`.
    Folder(PathBuf),
    Config(ConfigFiles),
}

/// The settings for pulls from one registry, for one release.
#[derive(Clone, Debug)]
struct Plan {
    config: HostsConfig,
    hosts: Vec<ConfiguredHost>,
    /// Whether every pull fails; `None` if that depends on something not observed.
    fails: Option<bool>,
    problems: Vec<HostsProblem>,
}

/// The plans of one registry, each made once: that reads files.
struct Plans<F> {
    of: F,
    made: RefCell<Vec<(Behaviour, Rc<Plan>)>>,
}

impl<F: Fn(Behaviour) -> Plan> Plans<F> {
    fn get(&self, behaviour: Behaviour) -> Rc<Plan> {
        let mut made = self.made.borrow_mut();
        if let Some((_, plan)) = made.iter().find(|(of, _)| *of == behaviour) {
            return Rc::clone(plan);
        }
        let plan = Rc::new((self.of)(behaviour));
        made.push((behaviour, Rc::clone(&plan)));
        plan
    }
}

/// One host to query, with everything needed to connect.
#[derive(Clone, Debug)]
pub struct HostClient {
    /// The host as evidence.
    pub host: RegistryHost,
    /// TLS with the host's own roots and client certificates.
    pub tls: TlsClient,
    /// TLS of Go's default client, which downloads content from the URLs in a descriptor.
    pub default_tls: TlsClient,
    /// The roots of `tls`, as evidence.
    pub roots: Roots,
    /// Sent with every request; the values may be secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// From `config.toml`; used if the kubelet sends no credential.
    pub login: Option<Credential>,
}

/// The trust that applies to every host before its own `ca`.
#[derive(Clone, Debug)]
pub struct BaseTrust {
    /// The trusted roots.
    pub store: Pool,
    /// Their sources, as evidence.
    pub roots: Roots,
    /// TLS with these roots.
    pub tls: TlsClient,
    /// The Go builds that the runtime may have.
    builds: Vec<GoBuild>,
}

impl BaseTrust {
    /// For an unknown runtime: all Go builds are candidates.
    pub fn new(store: Pool, roots: Roots) -> Self {
        let builds = builds::candidates(None);
        let tls = TlsClient::new(store.clone(), &builds);
        Self {
            store,
            roots,
            tls,
            builds,
        }
    }

    /// The same for this runtime's Go builds.
    #[must_use]
    pub fn of_runtime(&self, runtime: Option<&Runtime>) -> Self {
        let mut trust = self.clone();
        trust.builds = builds::candidates(runtime);
        trust.tls.builds = trust.builds.as_slice().into();
        trust
    }

    /// A client for a host without settings of its own.
    pub fn client(&self, host: RegistryHost) -> HostClient {
        HostClient {
            host,
            tls: self.tls.clone(),
            default_tls: self.tls.clone(),
            roots: self.roots.clone(),
            headers: Vec::new(),
            login: None,
        }
    }
}

/// The default path of containerd's configuration file.
const CONFIG: &str = "/etc/containerd/config.toml";

impl Settings {
    /// Reads the files in the request. `environment` is that of this process: its proxies are used if no file has
    /// containerd's.
    ///
    /// # Errors
    /// If a file that was named can't be read, unless the request says that it may be missing.
    pub fn load(
        request: &Request,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        let (unit, unread) = read_unit(request)?;
        let mut proxies = if unit.names.is_empty() {
            Proxies::new("the environment of this process", false, environment)
        } else {
            let is_whole = unread.is_empty() && unit.environment.passed.is_none();
            Proxies::new(&unit.names.join(", "), is_whole, |name| {
                unit.environment.value(name)
            })
        };
        settings.roots = RootsPlace::of(|name| unit.environment.value(name));
        let of_node = unit
            .files
            .iter()
            .filter(|path| request.may_lack.proxies || is_unit(path));
        proxies.note_dropped(unit.environment.dropped);
        proxies.note_changed(start::changed_since(of_node, request.root.as_deref()));
        settings.proxies = proxies;
        let unread = unread.iter().map(ToString::to_string);
        settings
            .unseen
            .extend(
                unread
                    .chain(unit.environment.passed)
                    .map(|reason| NotObservedReason {
                        what: NotObserved::Proxy,
                        reason,
                    }),
            );
        match settings.read_hosts(request) {
            Err(error) if request.may_lack.hosts => settings.unseen.push(NotObservedReason {
                what: NotObserved::Mirrors,
                reason: error.to_string(),
            }),
            result => result?,
        }
        // A file named by an option may be from another node.
        let is_nodes = request.may_lack.hosts || request.config.as_deref().is_none_or(is_usual);
        if let Source::Config(files) = &mut settings.source
            && is_nodes
        {
            settings.newer = start::changed_since(files.files.keys(), request.root.as_deref());
            if request.root.is_none()
                && let Some(started) = start::started_here()
            {
                files.are_of_this_node(started);
                files.in_force = settings.newer.is_empty();
            }
        }
        Ok(settings)
    }

    fn read_hosts(&mut self, request: &Request) -> Result<(), SettingsError> {
        let by = |option, key| {
            if request.may_lack.hosts { key } else { option }
        };
        if let Some(list) = &request.hosts_dir {
            let by = by("--hosts-dir", "network.hosts_dir");
            let folders: Vec<PathBuf> = std::env::split_paths(list).collect();
            for folder in &folders {
                let path = printable(&folder.to_string_lossy());
                match files::kind(folder) {
                    Err(source) => return Err(SettingsError::Read { by, path, source }),
                    Ok(files::Kind::Folder) => {}
                    Ok(_) => return Err(SettingsError::NoFolder { by, path }),
                }
            }
            self.source = Source::Folder(list.clone());
            return Ok(());
        }
        let path = request.config.as_deref().unwrap_or(Path::new(CONFIG));
        let shown = || printable(&path.to_string_lossy());
        let files = match read(path) {
            Ok(bytes) => ConfigFiles::load(path, &bytes).map_err(|line| SettingsError::Config {
                path: shown(),
                line,
            }),
            Err(source) => Err(SettingsError::Read {
                by: by("--containerd-config", "network.containerd_config"),
                path: shown(),
                source,
            }),
        };
        match files {
            Ok(files) => self.source = Source::Config(files),
            // The default file is optional; an unreadable one is reported as not observed.
            Err(_) if request.config.is_none() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The releases that the node's containerd may be, and the settings that each may have in force.
    pub fn candidates(&self, runtime: Option<&Runtime>) -> Vec<Behaviour> {
        let mut candidates = Behaviour::candidates(runtime);
        match &self.source {
            // The node's containerd runs with this file, so releases for which the file is too new are excluded.
            Source::Config(files) if candidates.len() > 1 => {
                let is_fit = |one: &Behaviour| !config_toml::is_too_new(files, *one);
                if candidates.iter().any(is_fit) {
                    candidates.retain(is_fit);
                }
            }
            Source::Config(_) | Source::Folder(_) | Source::Unread => {}
        }
        // A changed file may have had more settings than config_path before, or not even that one.
        let may_have_path = matches!(self.source, Source::Unread) || !self.newer.is_empty();
        let is_changed = !self.newer.is_empty() || self.proxies.are_changed();
        // The file also decides whether a release pulls with the CRI plugin.
        let mut before = candidates.clone();
        if let Source::Config(files) = &self.source {
            for one in &mut candidates {
                one.pulls_locally = config_toml::pulls_locally(files, *one);
            }
        }
        if self.newer.is_empty() {
            before.clone_from(&candidates);
        }
        if may_have_path {
            candidates.extend(
                before
                    .iter()
                    .map(|one| one.with(SettingsInForce::WithConfigPath)),
            );
        }
        if is_changed {
            candidates.extend(
                before
                    .iter()
                    .map(|one| one.with(SettingsInForce::BeforeChange)),
            );
        }
        candidates
    }

    /// The route to a server, and the proxy on it, if any.
    pub fn route(
        &self,
        endpoint: &Endpoint,
        rules: &Rules,
        builds: &[GoBuild],
    ) -> (ProxyRoute, Option<ProxyServer>) {
        let by = |behaviour: &Behaviour| {
            if behaviour.settings == SettingsInForce::BeforeChange && self.proxies.are_changed() {
                (ProxyRoute::Direct, None)
            } else {
                self.proxies.route(endpoint, builds)
            }
        };
        rules.decide(|behaviour| by(behaviour).0);
        by(rules.in_force())
    }

    /// Whether the mirrors are known, even if there are none.
    pub fn knows_mirrors(&self) -> bool {
        !matches!(self.source, Source::Unread)
    }

    /// The hosts that containerd would query for an image of this registry, in its order; `own` is the registry itself.
    /// Never empty.
    pub fn hosts(
        &self,
        domain: &str,
        own: &RegistryHost,
        base: &BaseTrust,
        rules: &Rules,
    ) -> (HostsConfig, Vec<HostClient>) {
        let plans = Plans {
            of: |behaviour| self.plan(domain, own, behaviour),
            made: RefCell::default(),
        };
        // Which folder it is makes no difference if it names no host.
        rules.decide(|behaviour| {
            let plan = plans.get(*behaviour);
            (plan.hosts.clone(), plan.fails)
        });
        let mut problems = problems(&plans, rules);
        let mut plan = Plan::clone(&plans.get(*rules.in_force()));
        let clients = plan
            .hosts
            .drain(..)
            .enumerate()
            .map(|(position, mut host)| {
                host.host.position = position;
                client(host, base, &mut problems)
            })
            .collect();
        match &mut plan.config {
            HostsConfig::Unread => {}
            HostsConfig::NoneFor { problems: all, .. }
            | HostsConfig::ConfigToml { problems: all, .. }
            | HostsConfig::Read { problems: all, .. } => *all = problems,
        }
        (plan.config, clients)
    }

    /// Whether the files name this registry itself, and not only all registries (`_default`, `*`).
    pub fn names(&self, domain: &str, behaviour: Behaviour) -> bool {
        let Ok(registry) = self.registry(behaviour, &mut Vec::new()) else {
            return false;
        };
        if registry.configs.contains_key(domain) {
            return true;
        }
        if registry.by_mirrors {
            return registry.mirrors.contains_key(domain);
        }
        let folder = find_folder(&registry.folders, domain);
        folder.is_some_and(|folder| !folder.ends_with("_default"))
    }

    /// The effect of the settings for one release and one registry.
    fn plan(&self, domain: &str, own: &RegistryHost, behaviour: Behaviour) -> Plan {
        let mut problems = Vec::new();
        if domain.starts_with('[') && !behaviour.takes_ipv6_references() {
            let reason = format!(
                "{} does not accept an IPv6 address in an image's name",
                behaviour.name()
            );
            problems.push(HostsProblem::of_config(HostsEffect::NameRefused, reason));
        }
        let registry = match self.registry(behaviour, &mut problems) {
            Ok(registry) => registry,
            Err(stop) => {
                let (effect, reason) = match stop {
                    Stop::Refused(reason) => (HostsEffect::PullsNothing, reason),
                    Stop::Unseen(reason) => (HostsEffect::Undecided, reason),
                };
                problems.push(HostsProblem::of_config(effect, reason));
                Registry::default()
            }
        };
        let (config, mut hosts) = self.looked_up(domain, &registry, behaviour, &mut problems);
        if let Source::Config(files) = &self.source
            && behaviour.settings == SettingsInForce::AsRead
        {
            plan::add_settings(&mut hosts, &registry, &files.main, &mut problems);
            problems.extend(plan::unused_logins(domain, &registry));
        }
        problems.extend(plan::drop_unsendable(&mut hosts));
        plan::make_plain(&mut hosts, own);
        let is = |effect| problems.iter().any(|problem| problem.effect == effect);
        let fails = (!is(HostsEffect::Undecided)).then(|| {
            let fatal = [
                HostsEffect::PullFails,
                HostsEffect::PullsNothing,
                HostsEffect::NameRefused,
            ];
            fatal.into_iter().any(is)
        });
        Plan {
            config,
            hosts,
            fails,
            problems,
        }
    }

    fn registry(
        &self,
        behaviour: Behaviour,
        problems: &mut Vec<HostsProblem>,
    ) -> Result<Registry, Stop> {
        let by_path = |config_path| CriSettings {
            config_path,
            ..CriSettings::default()
        };
        let is_changed =
            behaviour.settings == SettingsInForce::BeforeChange && !self.newer.is_empty();
        let with_path = behaviour.settings == SettingsInForce::WithConfigPath;
        let settings =
            match &self.source {
                Source::Unread if with_path => return Ok(Registry::default()),
                Source::Unread => CriSettings::default(),
                Source::Folder(list) => by_path(list.to_string_lossy().into_owned()),
                Source::Config(_) if is_changed => CriSettings::default(),
                Source::Config(files) if with_path => by_path(
                    config_toml::decode(files, behaviour)
                        .unwrap_or_default()
                        .config_path,
                ),
                Source::Config(files) => {
                    problems.extend(config_toml::notes(files, behaviour));
                    problems.extend(self.newer.iter().map(|reason| {
                        HostsProblem::of_config(HostsEffect::Changed, reason.clone())
                    }));
                    let settings = config_toml::decode(files, behaviour)?;
                    return config_toml::validate(settings, behaviour)
                        .map_err(|reason| Stop::Refused(format!("{}: {reason}", files.shown())));
                }
            };
        config_toml::validate(settings, behaviour).map_err(Stop::Refused)
    }

    /// The hosts from the registry's folder, or from `registry.mirrors`.
    fn looked_up(
        &self,
        domain: &str,
        registry: &Registry,
        behaviour: Behaviour,
        problems: &mut Vec<HostsProblem>,
    ) -> (HostsConfig, Vec<ConfiguredHost>) {
        let only = || vec![hosts::without_file(domain, behaviour)];
        if registry.by_mirrors {
            let hosts = plan::by_mirrors(domain, registry, behaviour).unwrap_or_else(|reason| {
                problems.push(HostsProblem::of_config(HostsEffect::PullFails, reason));
                only()
            });
            let is_configured = ["*", domain]
                .iter()
                .any(|name| registry.mirrors.contains_key(*name));
            let config = match &self.source {
                Source::Config(files) if is_configured => HostsConfig::ConfigToml {
                    file: files.shown(),
                    problems: Vec::new(),
                },
                Source::Unread => HostsConfig::Unread,
                _ => none_for(&[]),
            };
            return (config, hosts);
        }
        if matches!(self.source, Source::Unread) {
            return (HostsConfig::Unread, only());
        }
        let Some(folder) = find_folder(&registry.folders, domain) else {
            return (none_for(&registry.folders), only());
        };
        let (hosts, found) = read_folder(&folder, domain, behaviour);
        problems.extend(found);
        let config = HostsConfig::Read {
            folder: printable(&folder.to_string_lossy()),
            problems: Vec::new(),
        };
        (config, hosts)
    }
}

/// Problems in the files; a problem of some releases only names them.
fn problems(plans: &Plans<impl Fn(Behaviour) -> Plan>, rules: &Rules) -> Vec<HostsProblem> {
    let settings = rules.in_force().settings;
    let candidates: Vec<Behaviour> = rules
        .candidates()
        .iter()
        .copied()
        .filter(|one| one.settings == settings)
        .collect();
    let mut found: Vec<(HostsProblem, BTreeSet<&'static str>)> = Vec::new();
    for candidate in [rules.in_force()].into_iter().chain(&candidates).copied() {
        let name = candidate.release.name();
        for problem in &plans.get(candidate).problems {
            match found.iter_mut().find(|(known, _)| known == problem) {
                Some((_, releases)) => {
                    releases.insert(name);
                }
                None => found.push((problem.clone(), BTreeSet::from([name]))),
            }
        }
    }
    let all: BTreeSet<&str> = candidates.iter().map(|one| one.release.name()).collect();
    let current = rules.in_force().release.name();
    found
        .into_iter()
        .map(|(mut problem, releases)| {
            if releases.len() < all.len() {
                let numbers: Vec<&str> = releases
                    .iter()
                    .map(|name| name.trim_start_matches("containerd "))
                    .collect();
                problem.reason = format!("containerd {}: {}", numbers.join(", "), problem.reason);
            }
            if !releases.contains(&current) {
                problem.effect = HostsEffect::Doubtful;
            }
            problem
        })
        .collect()
}

/// Whether the path is where nodes have unit files and their environment.
fn is_unit(path: &Path) -> bool {
    const FOLDERS: [&str; 4] = ["/etc", "/run/systemd", "/usr/lib/systemd", "/lib/systemd"];
    FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// Whether the path is where nodes have containerd's configuration file.
fn is_usual(path: &Path) -> bool {
    path == Path::new(CONFIG) || path.ends_with("rancher/k3s/agent/etc/containerd/config.toml")
}

fn none_for(folders: &[PathBuf]) -> HostsConfig {
    HostsConfig::NoneFor {
        folders: folders
            .iter()
            .map(|folder| printable(&folder.to_string_lossy()))
            .collect(),
        problems: Vec::new(),
    }
}

/// `HostDirFromRoot`, for each of the folders.
fn find_folder(roots: &[PathBuf], domain: &str) -> Option<PathBuf> {
    let names = hosts::folder_names(domain);
    let folders = |root: &PathBuf| names.iter().map(|name| root.join(name)).collect();
    roots.iter().find_map(|root| files::first(folders(root)))
}

/// `loadHostDir`.
fn read_folder(
    folder: &Path,
    domain: &str,
    behaviour: Behaviour,
) -> (Vec<ConfiguredHost>, Vec<HostsProblem>) {
    let file = folder.join("hosts.toml");
    let problem = match read(&file) {
        Ok(bytes) if !bytes.is_empty() => match hosts::parse(&bytes, domain, folder, behaviour) {
            Ok(parsed) => return (parsed.hosts, parsed.problems),
            Err(reason) if behaviour.release == Release::V1_6 && hosts::lacks_value(&bytes) => {
                Some((
                    HostsEffect::PullFails,
                    format!(
                        "hosts.toml: {reason}: a key has no value, which makes containerd 1.6 crash"
                    ),
                ))
            }
            Err(reason) => Some((
                HostsEffect::Ignored,
                format!(
                    "hosts.toml: {reason}; containerd logs this and ignores the file: none of its \
                     mirrors is used, but certificates beside it are"
                ),
            )),
        },
        Ok(_) => None,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => None,
            io::ErrorKind::IsADirectory => Some((
                HostsEffect::PullFails,
                "hosts.toml is a folder, so containerd can't read it".to_owned(),
            )),
            _ => Some((
                HostsEffect::Undecided,
                format!(
                    "hosts.toml can't be read from here ({}), so the registry itself was queried; if containerd \
                     can't read it either, every pull fails",
                    files::reason(&error)
                ),
            )),
        },
    };
    let problem = problem.map(|(effect, reason)| HostsProblem::of_hosts(effect, reason));
    let names: Vec<String> = files::list(folder)
        .into_iter()
        .flatten()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| Some(entry.path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let host = hosts::from_certificates(&names, domain, folder, behaviour);
    (vec![host], Vec::from_iter(problem))
}

/// Prepares a host. If one of its files can't be read, containerd fails the whole pull; here that is a problem, and the
/// check continues without the file.
fn client(
    configured: ConfiguredHost,
    base: &BaseTrust,
    problems: &mut Vec<HostsProblem>,
) -> HostClient {
    let mut spoil = |effect, reason: String| problems.push(HostsProblem::of_hosts(effect, reason));
    let mut made = base.client(configured.host);
    made.login = configured.login;
    if !configured.ca.is_empty() {
        match roots::extend(&base.store, &base.roots, &configured.ca) {
            Ok((store, roots)) => {
                made.tls = TlsClient::new(store, &base.builds);
                made.roots = roots;
            }
            Err(RootsError::Empty { .. } | RootsError::Der { .. })
                if configured.ca_may_be_empty => {}
            Err(error) => {
                let effect = match &error {
                    RootsError::TooLarge { .. } => HostsEffect::Doubtful,
                    _ => HostsEffect::PullFails,
                };
                let words = error.to_string().replace("--ca-file", "`ca`");
                spoil(effect, format!("host {}: {words}", made.host.endpoint));
            }
        }
    }
    let mut certificates = ClientCertificates::default();
    for (certificate, key) in &configured.client {
        let shown = printable(&certificate.to_string_lossy());
        let loaded = read(certificate).and_then(|bytes| {
            let key = match key {
                Some(key) => read(key)?,
                None => bytes.clone(),
            };
            Ok((bytes, zeroize::Zeroizing::new(key)))
        });
        let reason = match loaded {
            Ok((certificate, key)) => match certificates.add(&certificate, &key) {
                Ok(()) => continue,
                Err(error) => error.to_string(),
            },
            Err(error) => format!("or its key can't be read: {}", files::reason(&error)),
        };
        spoil(
            HostsEffect::PullFails,
            format!("host {}: `client` {shown} {reason}", made.host.endpoint),
        );
    }
    if !configured.client.is_empty() {
        made.tls.client = Arc::new(certificates);
    }
    if made.host.skip_verify {
        made.tls.pardons = true;
    }
    for (name, value) in configured.headers {
        // A host with a header that can't be sent gets no request.
        if let (Ok(name), Some(header)) = (HeaderName::try_from(&name), value.header()) {
            made.headers.push((name, header));
        }
    }
    made
}

/// The settings of containerd's unit, and errors for what could not be read.
fn read_unit(request: &Request) -> Result<(Unit, Vec<SettingsError>), SettingsError> {
    let mut unread = Vec::new();
    let mut unit = Unit::default();
    for path in &request.proxy_from {
        match unit.read(path, request.may_lack.proxies) {
            Err(error) if request.may_lack.proxies => unread.push(error),
            result => result?,
        }
    }
    match unit.read_includes() {
        Err(error) if request.may_lack.proxies => unread.push(error),
        result => result?,
    }
    Ok((unit, unread))
}

/// A service's environment, as systemd would set it.
#[derive(Debug, Default)]
struct Unit {
    environment: Environment,
    /// The files and folders that were named.
    names: Vec<String>,
    /// The files that were read.
    files: Vec<PathBuf>,
}

impl Unit {
    fn read(&mut self, path: &Path, is_configured: bool) -> Result<(), SettingsError> {
        let unreadable = |source| SettingsError::Read {
            by: if is_configured {
                "network.proxy_from"
            } else {
                "--proxy-from"
            },
            path: printable(&path.to_string_lossy()),
            source,
        };
        let mut parts = vec![path.to_path_buf()];
        if matches!(files::kind(path), Ok(files::Kind::Folder)) {
            // A folder such as `containerd.service.d`: drop-ins apply in the order of their names (systemd.unit(5)).
            parts = files::list(path)
                .map_err(unreadable)?
                .into_iter()
                .map(|entry| entry.path)
                .filter(|p| p.extension().is_some_and(|extension| extension == "conf"))
                .collect();
        }
        for part in parts {
            let bytes = read(&part).map_err(unreadable)?;
            let of = printable(&part.to_string_lossy());
            self.environment.read(&String::from_utf8_lossy(&bytes), &of);
            self.files.push(part);
        }
        self.names.push(printable(&path.to_string_lossy()));
        Ok(())
    }

    /// Environment files take precedence over `Environment=`, whatever their order (systemd.exec(5)).
    fn read_includes(&mut self) -> Result<(), SettingsError> {
        for include in std::mem::take(&mut self.environment.includes) {
            match read(Path::new(&include.path)) {
                Ok(bytes) => {
                    let mut file = Environment::default();
                    file.read_file(&String::from_utf8_lossy(&bytes), &printable(&include.path));
                    self.environment.variables.extend(file.variables);
                    self.environment.dropped.extend(file.dropped);
                    self.files.push(include.path.into());
                }
                Err(_) if include.may_be_absent => {}
                Err(source) => {
                    return Err(SettingsError::Include {
                        path: printable(&include.path),
                        of: include.of,
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
