//! How each containerd release interprets `config.toml`: how it merges files, which sections hold the CRI plugin's
//! settings, and which settings prevent that plugin from loading. Pure.
//!
//! `tests/config_dump.rs` compares this with `containerd config dump` of three releases.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use super::behaviour::{Behaviour, Release};
use super::config_files::{ConfigFiles, Node, Unusable};
use super::go;
use crate::model::go_url;
use crate::model::hosts::{HostsEffect, HostsProblem};
use crate::model::text::printable;
use crate::redact::Secret;

/// The settings of the CRI plugin and of the transfer service that affect pulls, as decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CriSettings {
    /// `registry.config_path`; empty if unset.
    pub config_path: String,
    /// `registry.mirrors`: the `endpoint` list of each registry. A URL may have a password.
    pub mirrors: BTreeMap<String, Vec<Secret>>,
    /// `registry.configs`, by host.
    pub configs: BTreeMap<String, HostSettings>,
    /// `registry.auths`, by URL or host.
    pub auths: BTreeMap<String, Auth>,
    /// `registry.headers`, by name.
    pub headers: BTreeMap<String, Vec<Secret>>,
    /// `None`: unset.
    pub image_pull_progress_timeout: Option<String>,
    /// `use_local_image_pull` (containerd 2.1 and later).
    pub use_local_image_pull: bool,
    /// A setting that the transfer service does not support: the CRI plugin then pulls locally.
    pub needs_local_pull: bool,
    /// `disabled_plugins` includes the CRI plugin.
    pub is_disabled: bool,
}

impl CriSettings {
    /// Whether the CRI plugin pulls by itself, in releases that have the transfer service for it.
    fn pulls_locally(&self) -> bool {
        self.use_local_image_pull || self.needs_local_pull
    }
}

/// `registry.configs.HOST`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostSettings {
    /// `auth`; `None` if absent.
    pub auth: Option<Auth>,
    /// `tls`; only containerd 1 reads it, so `None` for containerd 2.
    pub tls: Option<Tls>,
    /// Whether `tls` is present, even if it is not read.
    pub has_tls: bool,
}

/// A login: `registry.configs.HOST.auth` or an entry of `registry.auths`. Missing keys are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Auth {
    /// `username`.
    pub username: String,
    /// `password`.
    pub password: Secret,
    /// `auth`: base64 of USER:PASSWORD.
    pub auth: Secret,
    /// `identitytoken`.
    pub identity_token: Secret,
}

/// `registry.configs.HOST.tls`, which containerd 2 does not have. Missing keys are empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tls {
    /// Certificates are not verified.
    pub insecure_skip_verify: bool,
    /// Path of additional roots.
    pub ca_file: String,
    /// Path of the client certificate.
    pub cert_file: String,
    /// Path of its key.
    pub key_file: String,
}

/// Why the settings can't be determined.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stop {
    /// containerd does not start, or its CRI plugin does not load.
    Refused(String),
    /// It depends on something that can't be observed from here.
    Unseen(String),
}

/// The settings that apply to pulls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    /// The folders of `config_path`; empty if there are none.
    pub folders: Vec<PathBuf>,
    /// The hosts are those of `registry.mirrors`: there is no `config_path`, and the CRI plugin pulls itself.
    pub by_mirrors: bool,
    /// `registry.mirrors`: the `endpoint` list of each registry. A URL may have a password.
    pub mirrors: BTreeMap<String, Vec<Secret>>,
    /// `registry.configs`, by host, with the logins of `registry.auths`.
    pub configs: BTreeMap<String, HostSettings>,
    /// `registry.headers`: name and value, sent to every host.
    pub headers: Vec<(String, Secret)>,
}

/// The section of the CRI plugin, by the version of the file.
const CRI_V1: &str = "cri";
const CRI_V2: &str = "io.containerd.grpc.v1.cri";
const CRI_V3: &str = "io.containerd.cri.v1.images";
const RUNTIME_V3: &str = "io.containerd.cri.v1.runtime";
/// Plugins that the containerd of every node has loaded.
const USUAL: [&str; 7] = [
    CRI_V1,
    CRI_V2,
    "io.containerd.content.v1.content",
    "io.containerd.metadata.v1.bolt",
    "io.containerd.runtime.v2.task",
    "io.containerd.snapshotter.v1.overlayfs",
    "overlayfs",
];
const TRANSFER: &str = "io.containerd.transfer.v1.local";

/// All files, merged.
struct Merged {
    version: i64,
    plugins: BTreeMap<String, Node>,
    disabled: Vec<String>,
    required: Vec<String>,
}

/// Decodes the settings as `containerd config dump` prints them.
///
/// # Errors
/// If containerd does not start with the files, or a file could not be read.
pub fn decode(files: &ConfigFiles, behaviour: Behaviour) -> Result<CriSettings, Stop> {
    let mut merged = merge(files, behaviour)?;
    check_version(&merged, behaviour)?;
    let is_2 = behaviour.release >= Release::V2_0;
    if is_2 && merged.version < 3 {
        migrate(&mut merged.plugins);
    }
    let names: &[&str] = match (is_2, merged.version) {
        (true, _) => &[CRI_V2, CRI_V3, RUNTIME_V3],
        (false, 0 | 1) => &[CRI_V1],
        (false, _) => &[CRI_V2],
    };
    let section = merged.plugins.get(used_section(behaviour, merged.version));
    let mut settings = match section {
        Some(section) => plugin(section, behaviour).map_err(Stop::Refused)?,
        None => CriSettings::default(),
    };
    settings.is_disabled = merged
        .disabled
        .iter()
        .any(|name| names.contains(&name.as_str()));
    Ok(settings)
}

/// Checks the settings, and returns those that apply to pulls.
///
/// # Errors
/// Why no image is pulled on this node.
pub fn validate(settings: CriSettings, behaviour: Behaviour) -> Result<Registry, String> {
    if settings.is_disabled {
        return Err(
            "'disabled_plugins' includes the CRI plugin, so the kubelet has no runtime; remove it from the list"
                .to_owned(),
        );
    }
    let is_2 = behaviour.release >= Release::V2_0;
    let has_folders = !settings.config_path.is_empty();
    if has_folders && !settings.mirrors.is_empty() {
        return Err(format!(
            "'registry.mirrors' and 'registry.config_path' are both set (`mirrors` cannot be set when \
             `config_path` is provided): {NOT_LOADED}; move the endpoints to hosts.toml below \
             config_path and remove registry.mirrors"
        ));
    }
    let has_tls = settings.configs.values().any(|host| host.tls.is_some());
    if has_folders && has_tls && !is_2 {
        return Err(format!(
            "'registry.configs.HOST.tls' and 'registry.config_path' are both set (`configs.tls` cannot be \
             set when `config_path` is provided): {NOT_LOADED}; move its files to hosts.toml below \
             config_path and remove the table"
        ));
    }
    let mut configs = settings.configs.clone();
    for (endpoint, auth) in &settings.auths {
        let url = go_url::parse_url(endpoint, behaviour.parses_strict_colons()).map_err(|reason| {
            format!("a key of 'registry.auths' is not a URL ({reason}): {NOT_LOADED}; write https://HOST:PORT")
        })?;
        let host = if url.scheme.is_empty() {
            endpoint.clone()
        } else {
            url.host
        };
        configs.entry(host).or_default().auth = Some(auth.clone());
    }
    if behaviour.release >= Release::V1_7
        && let Some(text) = &settings.image_pull_progress_timeout
    {
        if text.is_empty() {
            return Err(
                "'image_pull_progress_timeout' is empty, so every pull fails to parse it; write \"5m0s\""
                    .to_owned(),
            );
        }
        if go::duration(text).is_none() {
            return Err(format!(
                "'image_pull_progress_timeout' is not a Go duration: {NOT_LOADED}; write for example \"5m0s\""
            ));
        }
    }
    let pulls_itself = behaviour.release < Release::V2_1 || settings.pulls_locally();
    let mut path = settings.config_path;
    if path.is_empty() && behaviour.has_default_config_path() && settings.mirrors.is_empty() {
        DEFAULT_CONFIG_PATH.clone_into(&mut path);
    }
    let mut folders: Vec<PathBuf> = if pulls_itself {
        std::env::split_paths(&path).collect()
    } else {
        // The transfer service does not split it.
        vec![PathBuf::from(&path)]
    };
    folders.retain(|folder| !folder.as_os_str().is_empty());
    let headers = settings.headers.into_iter();
    Ok(Registry {
        by_mirrors: pulls_itself && path.is_empty(),
        folders,
        mirrors: settings.mirrors,
        configs,
        headers: headers
            .flat_map(|(name, values)| values.into_iter().map(move |value| (name.clone(), value)))
            .collect(),
    })
}

const NOT_LOADED: &str = "the CRI plugin does not load, and the node pulls nothing";
const DEFAULT_CONFIG_PATH: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";

/// A required plugin that the node may not have, as a message: containerd does not start without it.
fn required(files: &ConfigFiles, merged: &Merged) -> Option<String> {
    let is_usual = |name: &&String| USUAL.contains(&name.as_str());
    let name = merged.required.iter().find(|name| !is_usual(name))?;
    // The running containerd has the plugins that it was started with.
    (!files.in_force).then(|| {
        format!(
            "'required_plugins' of {} includes '{}': containerd does not start if that plugin is missing or does not \
             load, which can't be observed from here",
            files.shown(),
            printable(name)
        )
    })
}

/// Settings that have no effect for one release, although they look as if they did.
pub fn notes(files: &ConfigFiles, behaviour: Behaviour) -> Vec<HostsProblem> {
    let Ok(merged) = merge(files, behaviour) else {
        return Vec::new();
    };
    let shown = files.shown();
    let mut notes = Vec::new();
    let is_2 = behaviour.release >= Release::V2_0;
    let written = written_version(files);
    let mut sections = vec![used_section(behaviour, merged.version)];
    let takes_v2 = match behaviour.release {
        Release::V1_6 | Release::V1_7 => false,
        Release::V2_0 | Release::V2_1 | Release::V2_2 => merged.version < 3,
        Release::V2_3 => written < 4,
    };
    if takes_v2 {
        sections.push(CRI_V2);
    }
    if let Some(reason) = required(files, &merged) {
        let effect = HostsEffect::Undecided;
        notes.push(HostsProblem::of_config(effect, reason));
    }
    let version = match written {
        0 => "which has no 'version' and so is version 1".to_owned(),
        version => format!("which is version {version}"),
    };
    for other in [CRI_V1, CRI_V2, CRI_V3] {
        let has_registry = merged
            .plugins
            .get(other)
            .and_then(Node::table)
            .is_some_and(|table| table.contains_key("registry"));
        if has_registry && !sections.contains(&other) {
            // containerd 2 has renamed the section.
            let other = if is_2 && other == CRI_V2 && names_plugin(files, CRI_V1) {
                CRI_V1
            } else {
                other
            };
            let (section, newest) = if is_2 { (CRI_V3, 3) } else { (CRI_V2, 2) };
            let used = format!(
                "write it as [plugins.'{section}'.registry] in a file with 'version = {newest}'"
            );
            notes.push(ignored(format!(
                    "[plugins.'{other}'.registry] of {shown}, {version}, is ignored, config_path and mirrors \
                     included; {used}, and restart containerd"
            )));
        }
    }
    let Ok(settings) = decode(files, behaviour) else {
        return notes;
    };
    let transfers = behaviour.release >= Release::V2_1 && !settings.pulls_locally();
    let is_list = std::env::split_paths(&settings.config_path).count() > 1;
    if transfers && is_list {
        notes.push(ignored(format!(
                "'config_path' of {shown} is a list with a colon, which the transfer service treats as one \
                 folder: no hosts.toml is read and no mirror is used; set one folder, and restart containerd"
        )));
    }
    if is_2 && settings.configs.values().any(|host| host.has_tls) {
        notes.push(ignored(format!(
                "'registry.configs.HOST.tls' of {shown} is not a setting of containerd 2: move its files to \
                 hosts.toml below config_path"
        )));
    }
    let transfer = merged.plugins.get(TRANSFER).and_then(Node::table);
    let has_own_path = transfer.is_some_and(|table| table.contains_key("config_path"));
    if transfers && has_own_path && settings.config_path.is_empty() {
        notes.push(ignored(format!(
            "'config_path' of [plugins.'{TRANSFER}'] in {shown} does not apply to pods: move it to \
                 [plugins.'{CRI_V3}'.registry], and restart containerd"
        )));
    }
    notes
}

fn ignored(reason: String) -> HostsProblem {
    HostsProblem::of_config(HostsEffect::Ignored, reason)
}

/// Whether the CRI plugin pulls by itself, in a release that has the transfer service for it.
pub fn pulls_locally(files: &ConfigFiles, behaviour: Behaviour) -> bool {
    behaviour.release >= Release::V2_1
        && decode(files, behaviour).is_ok_and(|settings| settings.pulls_locally())
}

/// Whether the file's version is newer than the release supports: it was written for another release.
pub fn is_too_new(files: &ConfigFiles, behaviour: Behaviour) -> bool {
    written_version(files) > newest_version(behaviour.release)
}

/// Whether the main file has a section of this name.
fn names_plugin(files: &ConfigFiles, name: &str) -> bool {
    let plugins = files.top().and_then(|top| top.get("plugins")?.table());
    plugins.is_some_and(|plugins| plugins.contains_key(name))
}

/// The `version` of the main file; 0 if it has none.
fn written_version(files: &ConfigFiles) -> i64 {
    match files.top().and_then(|top| top.get("version")) {
        Some(Node::Integer(version)) => *version,
        _ => 0,
    }
}

fn used_section(behaviour: Behaviour, version: i64) -> &'static str {
    match behaviour.release {
        // A version below zero does not count as version 1.
        Release::V1_6 | Release::V1_7 if matches!(version, 0 | 1) => CRI_V1,
        Release::V1_6 | Release::V1_7 => CRI_V2,
        _ => CRI_V3,
    }
}

/// The newest version of the file that a release supports.
fn newest_version(release: Release) -> i64 {
    match release {
        Release::V1_6 | Release::V1_7 => 2,
        Release::V2_0 | Release::V2_1 | Release::V2_2 => 3,
        Release::V2_3 => 4,
    }
}

/// `LoadConfig`.
fn merge(files: &ConfigFiles, behaviour: Behaviour) -> Result<Merged, Stop> {
    let is_2 = behaviour.release >= Release::V2_0;
    let mut merged = Merged {
        version: if is_2 {
            newest_version(behaviour.release)
        } else {
            1
        },
        plugins: BTreeMap::new(),
        disabled: Vec::new(),
        required: Vec::new(),
    };
    let mut pending = VecDeque::from([files.main.clone()]);
    let mut loaded = BTreeSet::new();
    let mut root_version = 0;
    while let Some(path) = pending.pop_front() {
        if !loaded.insert(path.clone()) {
            continue;
        }
        let shown = printable(&path.to_string_lossy());
        let refused = |reason: String| Stop::Refused(format!("{shown}: {reason}"));
        let file = match files.files.get(&path) {
            Some(Ok(file)) => file,
            Some(Err(Unusable::Malformed { line })) => {
                return Err(refused(format!(
                    "line {line} is not valid TOML, so containerd does not start"
                )));
            }
            Some(Err(Unusable::Unread(reason))) => {
                return Err(Stop::Unseen(format!(
                    "{shown}, imported by config.toml, can't be read from here ({reason}); if the node \
                     lacks it too, containerd does not start"
                )));
            }
            Some(Err(Unusable::Absent)) => {
                return Err(refused(
                    "config.toml imports it, but it does not exist, so containerd does not start"
                        .to_owned(),
                ));
            }
            Some(Err(Unusable::TooMany)) | None => {
                return Err(Stop::Unseen(
                    "config.toml imports more files than this program reads".to_owned(),
                ));
            }
        };
        if let Some(line) = file.bracket_in_header.filter(|_| !is_2) {
            return Err(refused(format!(
                "the header in line {line} has a bracket in a name, which containerd 1 can't parse even in quotes: it \
                 does not start; use a DNS name instead of the IPv6 address, or containerd 2"
            )));
        }
        let mut one = top(&file.root).map_err(refused)?;
        if behaviour.release >= Release::V2_3 {
            if root_version == 0 {
                root_version = one.version;
            }
            if one.version > root_version {
                return Err(refused(format!(
                    "its version {} is higher than that of the file that imports it, so containerd does not start",
                    one.version
                )));
            }
            upgrade(&mut one, merged.version);
        } else if is_2 && one.version <= 1 {
            if merged.version >= 2 {
                rename(&mut one);
            }
            one.version = merged.version;
        }
        if one.version != 0 {
            merged.version = one.version;
        }
        for (name, section) in one.plugins {
            match merged.plugins.get_mut(&name) {
                Some(old) if is_2 => overlay(old, section),
                _ => {
                    merged.plugins.insert(name, section);
                }
            }
        }
        merged.disabled.extend(one.disabled);
        merged.required.extend(one.required);
        for import in &file.imports {
            pending.extend(
                if behaviour.resolves_globs_beside_file {
                    &import.beside
                } else {
                    &import.from_root
                }
                .iter()
                .cloned(),
            );
        }
    }
    Ok(merged)
}

/// The keys of one file that containerd decodes for any version.
fn top(root: &Node) -> Result<Merged, String> {
    let table = root.table().ok_or("it is not a table")?;
    let version = match table.get("version") {
        None => 0,
        Some(Node::Integer(version)) => *version,
        Some(_) => return Err("'version' is not a number, so containerd does not start".to_owned()),
    };
    let plugins = match table.get("plugins") {
        None => BTreeMap::new(),
        Some(Node::Table(plugins)) => plugins.clone(),
        Some(_) => return Err("'plugins' is not a table, so containerd does not start".to_owned()),
    };
    if let Some(imports) = table.get("imports") {
        texts(imports, "imports")?;
    }
    let names = |key: &str| field(table, key, texts);
    Ok(Merged {
        version,
        plugins,
        disabled: names("disabled_plugins")?,
        required: names("required_plugins")?,
    })
}

/// containerd 2.3 upgrades each file to the newest version separately.
fn upgrade(one: &mut Merged, to: i64) {
    if one.version >= to {
        return;
    }
    if one.version <= 1 {
        rename(one);
    }
    migrate(&mut one.plugins);
    one.version = to;
}

/// `v1Migrate`, the part that affects the CRI plugin.
fn rename(one: &mut Merged) {
    if let Some(section) = one.plugins.remove(CRI_V1) {
        one.plugins.insert(CRI_V2.to_owned(), section);
    }
    for name in one.disabled.iter_mut().chain(&mut one.required) {
        if name == CRI_V1 {
            CRI_V2.clone_into(name);
        }
    }
}

/// `migrateConfig` of the CRI plugin, the part for images.
fn migrate(plugins: &mut BTreeMap<String, Node>) {
    let Some(Node::Table(from)) = plugins.get(CRI_V2).cloned() else {
        return;
    };
    let into = plugins
        .entry(CRI_V3.to_owned())
        .or_insert_with(|| Node::Table(BTreeMap::new()));
    let Node::Table(into) = into else {
        return;
    };
    let mut take = |table: &BTreeMap<String, Node>, keys: &[&str]| {
        for key in keys {
            if let Some(value) = table.get(*key) {
                into.insert((*key).to_owned(), value.clone());
            }
        }
    };
    take(
        &from,
        &[
            "registry",
            "max_concurrent_downloads",
            "image_pull_progress_timeout",
            "image_pull_with_sync_fs",
        ],
    );
    if let Some(Node::Table(containerd)) = from.get("containerd")
        && containerd.contains_key("runtimes")
    {
        take(
            containerd,
            &["disable_snapshot_annotations", "discard_unpacked_layers"],
        );
    }
}

/// `mergo` as containerd 2 uses it: tables are merged, everything else is replaced.
fn overlay(old: &mut Node, new: Node) {
    match (old, new) {
        (Node::Table(old), Node::Table(new)) => {
            for (key, value) in new {
                match old.get_mut(&key) {
                    Some(there) => overlay(there, value),
                    None => {
                        old.insert(key, value);
                    }
                }
            }
        }
        (old, new) => *old = new,
    }
}

/// `ValidateV2` and `ValidateVersion`.
fn check_version(merged: &Merged, behaviour: Behaviour) -> Result<(), Stop> {
    let release = behaviour.release.name();
    let newest = newest_version(behaviour.release);
    if merged.version > newest && behaviour.refuses_newer_config {
        return Err(Stop::Refused(format!(
            "{release} supports config.toml up to version {newest}, but this is version {}, so containerd does not \
             start",
            merged.version
        )));
    }
    let is_2 = behaviour.release >= Release::V2_0;
    if merged.version < 2 && !is_2 {
        return Ok(());
    }
    let names = merged.disabled.iter();
    let is_uri = |name: &str| match behaviour.release {
        Release::V1_6 => name.split('.').count() >= 4,
        Release::V1_7 => name.starts_with("io.containerd.") && name.split('.').count() >= 4,
        _ => name.contains('.'),
    };
    let keys = merged.plugins.keys().filter(|_| !is_2);
    match names.chain(keys).find(|name| !is_uri(name)) {
        None => Ok(()),
        Some(name) => Err(Stop::Refused(format!(
            "config.toml is version {} but names the plugin '{}' as in version 1 (`invalid plugin key \
             URI`), so {release} does not start; write [plugins.'{CRI_V2}'] instead of [plugins.cri]",
            merged.version,
            printable(name)
        ))),
    }
}

/// Decodes the CRI plugin's section.
fn plugin(section: &Node, behaviour: Behaviour) -> Result<CriSettings, String> {
    let table = table_of(section, "the CRI plugin's section")?;
    let is_2 = behaviour.release >= Release::V2_0;
    let mut settings = CriSettings::default();
    if let Some(registry) = table.get("registry") {
        read_registry(table_of(registry, "registry")?, is_2, &mut settings)?;
    }
    let timeout = table.get("image_pull_progress_timeout");
    if behaviour.release >= Release::V1_7
        && let Some(timeout) = timeout
    {
        let text = text(timeout, "image_pull_progress_timeout")?;
        settings.image_pull_progress_timeout = Some(text.to_owned());
    }
    if behaviour.release < Release::V2_1 {
        return Ok(settings);
    }
    let is_set = |key: &str| field(table, key, flag);
    settings.use_local_image_pull = is_set("use_local_image_pull")?;
    let downloads = match table.get("max_concurrent_downloads") {
        None => 3,
        Some(Node::Integer(number)) => *number,
        Some(_) => return Err("'max_concurrent_downloads' is not a number".to_owned()),
    };
    // `CheckLocalImagePullConfigs`.
    settings.needs_local_pull = [
        table.contains_key("disable_snapshot_annotations")
            && !is_set("disable_snapshot_annotations")?,
        is_set("discard_unpacked_layers")?,
        !settings.mirrors.is_empty(),
        !settings.configs.is_empty(),
        !settings.auths.is_empty(),
        downloads != 3,
        is_set("image_pull_with_sync_fs")?,
    ]
    .contains(&true);
    Ok(settings)
}

fn read_registry(
    registry: &BTreeMap<String, Node>,
    is_2: bool,
    settings: &mut CriSettings,
) -> Result<(), String> {
    let tables = |key: &str| field(registry, key, |node, key| table_of(node, key).cloned());
    field(registry, "config_path", text)?.clone_into(&mut settings.config_path);
    for (name, mirror) in tables("mirrors")? {
        let mirror = table_of(&mirror, "registry.mirrors")?;
        let endpoints = field(mirror, "endpoint", texts)?;
        let endpoints = endpoints.into_iter().map(Secret::new);
        settings.mirrors.insert(name, endpoints.collect());
    }
    for (name, host) in tables("configs")? {
        let host = table_of(&host, "registry.configs")?;
        let mut one = HostSettings::default();
        if let Some(auth) = host.get("auth") {
            one.auth = Some(read_auth(auth)?);
        }
        one.has_tls = host.contains_key("tls");
        if let Some(tls) = host.get("tls")
            && !is_2
        {
            one.tls = Some(read_tls(tls)?);
        }
        settings.configs.insert(name, one);
    }
    for (name, auth) in tables("auths")? {
        settings.auths.insert(name, read_auth(&auth)?);
    }
    for (name, values) in tables("headers")? {
        let Node::Array(values) = values else {
            return Err("an entry of 'registry.headers' is not a list".to_owned());
        };
        let values: Result<_, String> = values
            .iter()
            .map(|value| Ok(Secret::new(text(value, "registry.headers")?)))
            .collect();
        settings.headers.insert(name, values?);
    }
    Ok(())
}

fn read_auth(node: &Node) -> Result<Auth, String> {
    let table = table_of(node, "auth")?;
    let field = |key: &str| field(table, key, text);
    Ok(Auth {
        username: field("username")?.to_owned(),
        password: Secret::new(field("password")?),
        auth: Secret::new(field("auth")?),
        identity_token: Secret::new(field("identitytoken")?),
    })
}

fn read_tls(node: &Node) -> Result<Tls, String> {
    let table = table_of(node, "tls")?;
    let path = |key: &str| field(table, key, text).map(str::to_owned);
    Ok(Tls {
        insecure_skip_verify: field(table, "insecure_skip_verify", flag)?,
        ca_file: path("ca_file")?,
        cert_file: path("cert_file")?,
        key_file: path("key_file")?,
    })
}

/// The value of a key; the default if it is absent.
fn field<'a, T: Default>(
    table: &'a BTreeMap<String, Node>,
    key: &str,
    read: impl Fn(&'a Node, &str) -> Result<T, String>,
) -> Result<T, String> {
    let node = table.get(key);
    node.map_or_else(|| Ok(T::default()), |node| read(node, key))
}

fn table_of<'a>(node: &'a Node, key: &str) -> Result<&'a BTreeMap<String, Node>, String> {
    node.table()
        .ok_or_else(|| format!("'{key}' is not a table"))
}

fn text<'a>(node: &'a Node, key: &str) -> Result<&'a str, String> {
    match node {
        Node::Text(text) => Ok(text.expose()),
        _ => Err(format!("'{key}' is not a string; write it in quotes")),
    }
}

fn flag(node: &Node, key: &str) -> Result<bool, String> {
    match node {
        Node::Bool(flag) => Ok(*flag),
        _ => Err(format!("'{key}' must be true or false (without quotes)")),
    }
}

fn texts(node: &Node, key: &str) -> Result<Vec<String>, String> {
    let Node::Array(values) = node else {
        return Err(format!("'{key}' is not a list; write [\"…\"]"));
    };
    let values = values.iter().map(|value| Ok(text(value, key)?.to_owned()));
    values.collect()
}
