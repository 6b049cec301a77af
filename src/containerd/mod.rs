//! What the node's containerd is set to: mirrors and per-host settings, and its proxies.
//!
//! What the files mean is judged in [`hosts`] and [`proxy`]; here they are found and read.

pub mod behaviour;
pub mod builds;
pub mod hosts;
pub mod proxy;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};
use toml_edit::{Document, Item};

use crate::model::endpoint::Scheme;
use crate::model::evidence::Roots;
use crate::model::hosts::{HostKind, HostsConfig, HostsEffect, HostsProblem, RegistryHost};
use crate::model::runtime::Runtime;
use crate::model::text::printable;
use crate::model::vantage::{Unseen, UnseenBecause};
use crate::net::roots::{self, RootsError};
use crate::net::tls::{ClientCertificates, TlsClient};
use crate::registry::scrub::Secret;
use crate::trust::{GoBuild, Pool};
use hosts::ConfiguredHost;
use proxy::Proxies;

/// Which files are to be read.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `--hosts-dir`: as `config_path`, folders with a colon between.
    pub hosts_dir: Option<PathBuf>,
    /// `--containerd-config`, or the usual place.
    pub config: Option<PathBuf>,
    /// `--proxy-from`, in order.
    pub proxy_from: Vec<PathBuf>,
    pub may_lack: MayLack,
}

/// What a configuration names is named for many nodes: where one of them lacks it, that is told as not
/// seen. What an option names is meant, and an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct MayLack {
    /// `hosts_dir` and `config`.
    pub hosts: bool,
    pub proxies: bool,
}

/// What was named and can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read {path}, given with {by}: {source}")]
    Read {
        /// An option, or a configuration's key.
        by: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path}, given with {by}, is no folder; name the one that holds REGISTRY/hosts.toml")]
    NoFolder { by: &'static str, path: String },
    #[error(
        "{path} can't be read as TOML, at line {line}: correct it, or name certs.d with --hosts-dir"
    )]
    Config { path: String, line: usize },
    #[error("{path}, named by {of}, can't be read: {source}")]
    Include {
        path: String,
        of: String,
        #[source]
        source: io::Error,
    },
}

/// containerd's settings, as far as they could be read.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The folders of `config_path`; `None`: not known.
    folders: Option<Vec<PathBuf>>,
    /// What there is to say of config.toml, for every registry.
    notes: Vec<HostsProblem>,
    pub proxies: Proxies,
    /// What a configuration names and this node lacks.
    pub unseen: Vec<UnseenBecause>,
}

/// One host to be asked, ready to be spoken to.
#[derive(Clone, Debug)]
pub struct HostClient {
    pub host: RegistryHost,
    pub tls: TlsClient,
    pub roots: Roots,
    /// Go with every request; their values may be secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub header_values: Vec<Secret>,
}

/// The trust that every host has before its own `ca`.
#[derive(Clone, Debug)]
pub struct BaseTrust {
    pub store: Pool,
    pub roots: Roots,
    pub tls: TlsClient,
    /// Of the runtime whose pull is walked.
    builds: Vec<GoBuild>,
}

impl BaseTrust {
    /// Of a runtime that is not known.
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

    /// The same by the rules of this runtime.
    #[must_use]
    pub fn of_runtime(&self, runtime: Option<&Runtime>) -> Self {
        let builds = builds::candidates(runtime);
        Self {
            tls: self.tls.clone().with_builds(&builds),
            builds,
            ..self.clone()
        }
    }

    /// A client for a host without settings of its own.
    pub fn client(&self, host: RegistryHost) -> HostClient {
        HostClient {
            host,
            tls: self.tls.clone(),
            roots: self.roots.clone(),
            headers: Vec::new(),
            header_values: Vec::new(),
        }
    }
}

/// Where containerd's own file is, unless it is started with another.
pub const CONFIG: &str = "/etc/containerd/config.toml";

impl Settings {
    /// Reads what the request names. `environment` is that of this process: its proxies are taken
    /// where no file names containerd's.
    ///
    /// # Errors
    /// When something that was named can't be read.
    pub fn load(
        request: &Request,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        let (proxies, unread) = proxies(request, environment)?;
        settings.proxies = proxies;
        settings
            .unseen
            .extend(unread.iter().map(|error| UnseenBecause {
                what: Unseen::Proxy,
                reason: error.to_string(),
            }));
        match settings.read_hosts(request) {
            Err(error) if request.may_lack.hosts => settings.unseen.push(UnseenBecause {
                what: Unseen::Mirrors,
                reason: error.to_string(),
            }),
            result => result?,
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
                match folder.metadata() {
                    Err(source) => return Err(SettingsError::Read { by, path, source }),
                    Ok(metadata) if !metadata.is_dir() => {
                        return Err(SettingsError::NoFolder { by, path });
                    }
                    Ok(_) => {}
                }
            }
            self.folders = Some(folders);
            return Ok(());
        }
        let (path, is_named) = match &request.config {
            Some(path) => (path.as_path(), true),
            None => (Path::new(CONFIG), false),
        };
        match read(path) {
            Ok(bytes) => match self.read_config(&bytes, path) {
                // Nobody named it, so it stops nobody; that it can't be read is told as not seen.
                Err(_) if !is_named => Ok(()),
                result => result,
            },
            Err(_) if !is_named => Ok(()),
            Err(source) => Err(SettingsError::Read {
                by: by("--containerd-config", "network.containerd_config"),
                path: printable(&path.to_string_lossy()),
                source,
            }),
        }
    }

    /// The mirrors are known, be there any or none.
    pub fn knows_mirrors(&self) -> bool {
        self.folders.is_some()
    }

    /// `config_path` of containerd 2.x and 1.x (docs/hosts.md).
    fn read_config(&mut self, bytes: &[u8], path: &Path) -> Result<(), SettingsError> {
        let shown = printable(&path.to_string_lossy());
        let text = String::from_utf8_lossy(bytes);
        let document = Document::parse(text.as_ref()).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
            SettingsError::Config {
                path: shown.clone(),
                line,
            }
        })?;
        let plugins = document.as_table().get("plugins");
        let registries = REGISTRY_SECTIONS.iter().filter_map(|plugin| {
            let section = plugins?.as_table_like()?.get(plugin)?.as_table_like()?;
            section.get("registry")?.as_table_like()
        });
        let mut folders = Vec::new();
        for registry in registries {
            if let Some(list) = registry.get("config_path").and_then(Item::as_str)
                && folders.is_empty()
            {
                folders = std::env::split_paths(list)
                    .filter(|folder| !folder.as_os_str().is_empty())
                    .collect();
            }
            for old in ["mirrors", "configs"] {
                let is_set = registry
                    .get(old)
                    .and_then(Item::as_table_like)
                    .is_some_and(|table| !table.is_empty());
                if is_set && folders.is_empty() {
                    self.notes.push(HostsProblem {
                        effect: HostsEffect::Doubtful,
                        reason: format!(
                            "{shown} sets registry.{old}, the form before hosts.toml; it is not read here, and \
                             a pull goes by it"
                        ),
                    });
                }
            }
        }
        if document.as_table().contains_key("imports") && folders.is_empty() {
            self.notes.push(HostsProblem {
                effect: HostsEffect::Doubtful,
                reason: format!(
                    "{shown} imports other files, which are not read here; name the folder with --hosts-dir"
                ),
            });
        }
        self.folders = Some(folders);
        Ok(())
    }

    /// The hosts that containerd would ask for an image of this registry, in its order; `own` is the
    /// registry itself. Never empty.
    pub fn hosts(
        &self,
        domain: &str,
        own: &RegistryHost,
        base: &BaseTrust,
    ) -> (HostsConfig, Vec<HostClient>) {
        let only = || vec![base.client(own.clone())];
        let Some(folders) = &self.folders else {
            return (HostsConfig::Unread, only());
        };
        let found = folders
            .iter()
            .flat_map(|root| {
                hosts::folder_names(domain)
                    .into_iter()
                    .map(|n| root.join(n))
            })
            .find(|folder| match folder.metadata() {
                Ok(_) => true,
                // One that is there and can't be looked into decides as well.
                Err(error) => !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ),
            });
        let Some(folder) = found else {
            let config = HostsConfig::NoneFor {
                folders: folders
                    .iter()
                    .map(|folder| printable(&folder.to_string_lossy()))
                    .collect(),
                problems: self.notes.clone(),
            };
            return (config, only());
        };
        let (configured, mut problems) = read_folder(&folder, domain);
        problems.extend(self.notes.iter().cloned());
        let clients = configured
            .into_iter()
            .map(|mut host| {
                // `--plain-http` speaks of the registry itself.
                if host.host.kind == HostKind::Registry && own.endpoint.scheme == Scheme::Http {
                    host.host.endpoint = own.endpoint.clone();
                }
                host
            })
            .enumerate()
            .map(|(place, mut host)| {
                host.host.place = place;
                client(host, base, &mut problems)
            })
            .collect();
        let folder = printable(&folder.to_string_lossy());
        (HostsConfig::Read { folder, problems }, clients)
    }
}

/// `loadHostDir`.
fn read_folder(folder: &Path, domain: &str) -> (Vec<ConfiguredHost>, Vec<HostsProblem>) {
    let file = folder.join("hosts.toml");
    let mut problems = Vec::new();
    match read(&file) {
        Ok(bytes) if !bytes.is_empty() => match hosts::parse(&bytes, domain, folder) {
            Ok(parsed) => return (parsed.hosts, parsed.problems),
            Err(reason) => problems.push(HostsProblem {
                effect: HostsEffect::Ignored,
                reason: format!(
                    "hosts.toml: {reason}; containerd logs that and goes on as if the file were not there"
                ),
            }),
        },
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => problems.push(HostsProblem {
            effect: HostsEffect::Doubtful,
            reason: format!(
                "hosts.toml can't be read from here ({}); the registry itself was asked",
                error.kind()
            ),
        }),
    }
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .take(MAX_FILES)
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let is_file = entry.file_type().is_ok_and(|kind| !kind.is_dir());
            is_file.then(|| entry.file_name().to_string_lossy().into_owned())
        })
        .collect();
    names.sort();
    let host = hosts::from_certificates(&names, domain, folder);
    (vec![host], problems)
}

/// Makes a host ready. What can't be read of its files spoils the pull as a whole in containerd, and
/// is a problem here; the walk goes on without it.
fn client(
    configured: ConfiguredHost,
    base: &BaseTrust,
    problems: &mut Vec<HostsProblem>,
) -> HostClient {
    let ConfiguredHost {
        host,
        ca,
        client: pairs,
        headers,
    } = configured;
    let mut spoil = |effect, reason: String| problems.push(HostsProblem { effect, reason });
    let mut made = base.client(host);
    if !ca.is_empty() {
        match roots::extend(&base.store, &base.roots, &ca) {
            Ok((store, roots)) => {
                made.tls = TlsClient::new(store, &base.builds);
                made.roots = roots;
            }
            Err(error) => {
                let effect = match &error {
                    RootsError::Unreadable { .. }
                    | RootsError::Empty { .. }
                    | RootsError::Der { .. } => HostsEffect::PullFails,
                    _ => HostsEffect::Doubtful,
                };
                let words = error.to_string().replace("--ca-file", "`ca`");
                spoil(effect, format!("host {}: {words}", made.host.endpoint));
            }
        }
    }
    let mut certificates = ClientCertificates::default();
    for (certificate, key) in &pairs {
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
            Err(error) => format!("or its key can't be read: {}", error.kind()),
        };
        spoil(
            HostsEffect::PullFails,
            format!("host {}: `client` {shown} {reason}", made.host.endpoint),
        );
    }
    if !pairs.is_empty() {
        made.tls = made.tls.with_client_certificates(certificates);
    }
    if made.host.skip_verify {
        made.tls = made.tls.pardoning();
    }
    for (name, value) in headers {
        let pair = HeaderName::try_from(&name).ok().zip({
            let value = HeaderValue::from_str(value.expose()).ok();
            value.map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        match pair {
            Some(pair) => made.headers.push(pair),
            None => spoil(
                HostsEffect::PullFails,
                format!(
                    "host {}: header '{}' can't be sent: a name or value that HTTP does not allow",
                    made.host.endpoint,
                    printable(&name)
                ),
            ),
        }
        made.header_values.push(value);
    }
    made
}

/// The proxies, and what could not be read of the files that name them.
fn proxies(
    request: &Request,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(Proxies, Vec<SettingsError>), SettingsError> {
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
    if unit.names.is_empty() {
        let own = Proxies::new("the environment of this process", false, environment);
        return Ok((own, unread));
    }
    let proxies = Proxies::new(&unit.names.join(", "), unread.is_empty(), |name| {
        unit.value(name)
    });
    Ok((proxies, unread))
}

/// What systemd would make of a service's environment.
#[derive(Debug, Default)]
struct Unit {
    variables: Vec<(String, String)>,
    includes: Vec<Include>,
    /// `UnsetEnvironment=` counts before all others.
    unset: Vec<String>,
    /// The files that were read.
    names: Vec<String>,
}

/// `EnvironmentFile=`.
#[derive(Debug)]
struct Include {
    path: String,
    may_be_absent: bool,
    /// Which file names it.
    of: String,
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
        if path.is_dir() {
            // A `containerd.service.d`: drop-ins apply in the order of their names (systemd.unit(5)).
            parts = std::fs::read_dir(path)
                .map_err(unreadable)?
                .take(MAX_FILES)
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|p| p.extension().is_some_and(|extension| extension == "conf"))
                .collect();
            parts.sort();
        }
        for part in parts {
            let bytes = read(&part).map_err(unreadable)?;
            let file = proxy::read_file(&String::from_utf8_lossy(&bytes));
            if file.resets {
                self.variables.clear();
            }
            if file.resets_includes {
                self.includes.clear();
            }
            self.variables.extend(file.variables);
            self.unset.extend(file.unset);
            let of = printable(&part.to_string_lossy());
            self.includes
                .extend(file.includes.into_iter().map(|(path, may)| Include {
                    path,
                    may_be_absent: may,
                    of: of.clone(),
                }));
        }
        self.names.push(printable(&path.to_string_lossy()));
        Ok(())
    }

    /// Files count before `Environment=`, whatever their order (systemd.exec(5)).
    fn read_includes(&mut self) -> Result<(), SettingsError> {
        for include in std::mem::take(&mut self.includes) {
            match read(Path::new(&include.path)) {
                Ok(bytes) => {
                    let file = proxy::read_file(&String::from_utf8_lossy(&bytes));
                    self.variables.extend(file.variables);
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

    fn value(&self, name: &str) -> Option<String> {
        let is_unset = self.unset.iter().any(|unset| unset == name);
        let set = self.variables.iter().rev().find(|(n, _)| n == name);
        set.filter(|_| !is_unset).map(|(_, value)| value.clone())
    }
}

/// Settings and certificates are some KiB; this is a guard against `/dev/zero`.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)?;
    if read as u64 > MAX_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

const REGISTRY_SECTIONS: [&str; 2] = ["io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri"];

const MAX_FILE: u64 = 4 << 20;

/// Files of one folder that are looked at.
const MAX_FILES: usize = 1000;
