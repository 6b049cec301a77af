//! What containerd makes of `config.toml`, by release: how its files are merged, under which names the
//! CRI plugin's settings stand, and with which of them that plugin does not load. Pure.
//!
//! `tests/config_dump.rs` compares this to `containerd config dump` of three releases.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use super::behaviour::{Behaviour, Release};
use super::config_files::{ConfigFiles, Node, Unusable};
use super::go;
use crate::model::go_url;
use crate::model::hosts::{HostsEffect, HostsProblem};
use crate::model::text::printable;
use crate::redact::Secret;

/// The settings of the CRI plugin and of the transfer service that decide a pull, as decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CriSettings {
    pub config_path: String,
    /// `endpoint` of each namespace.
    pub mirrors: BTreeMap<String, Vec<String>>,
    pub configs: BTreeMap<String, HostSettings>,
    pub auths: BTreeMap<String, Auth>,
    pub headers: BTreeMap<String, Vec<Secret>>,
    /// `None`: not set.
    pub image_pull_progress_timeout: Option<String>,
    pub use_local_image_pull: bool,
    /// A setting that the transfer service does not know: the CRI plugin pulls locally then.
    pub needs_local_pull: bool,
    /// `disabled_plugins` names the CRI plugin.
    pub is_disabled: bool,
}

impl CriSettings {
    /// The CRI plugin pulls by itself, where there is a transfer service for it.
    fn pulls_locally(&self) -> bool {
        self.use_local_image_pull || self.needs_local_pull
    }
}

/// `registry.configs.HOST`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostSettings {
    pub auth: Option<Auth>,
    /// Read by containerd 1.
    pub tls: Option<Tls>,
    /// It is there, to be read or not.
    pub has_tls: bool,
}

/// A login.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Auth {
    pub username: String,
    pub password: Secret,
    pub auth: Secret,
    pub identity_token: Secret,
}

/// `registry.configs.HOST.tls`; containerd 2 has none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tls {
    pub insecure_skip_verify: bool,
    pub ca_file: String,
    pub cert_file: String,
    pub key_file: String,
}

/// Why there are no settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stop {
    /// containerd does not start, or its CRI plugin does not load.
    Refused(String),
    /// What decides is not to be seen from here.
    Unseen(String),
}

/// What holds for pulls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    /// `config_path` as it is taken; empty: none.
    pub folders: Vec<PathBuf>,
    /// Without `config_path`, and where the CRI plugin pulls itself, the hosts are those of
    /// `registry.mirrors`.
    pub by_mirrors: bool,
    pub mirrors: BTreeMap<String, Vec<String>>,
    pub configs: BTreeMap<String, HostSettings>,
    pub headers: Vec<(String, Secret)>,
}

/// The section of the CRI plugin by the version of the file.
const CRI_V1: &str = "cri";
const CRI_V2: &str = "io.containerd.grpc.v1.cri";
const CRI_V3: &str = "io.containerd.cri.v1.images";
const RUNTIME_V3: &str = "io.containerd.cri.v1.runtime";
/// Plugins that every containerd of a node has loaded.
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

/// All files as one.
struct Merged {
    version: i64,
    plugins: BTreeMap<String, Node>,
    disabled: Vec<String>,
    required: Vec<String>,
}

/// The settings as `containerd config dump` prints them.
///
/// # Errors
/// Why containerd does not start, or what was not to be read.
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

/// What the settings come to, and whether the CRI plugin loads with them.
///
/// # Errors
/// Why no image is pulled on this node.
pub fn validate(settings: CriSettings, behaviour: Behaviour) -> Result<Registry, String> {
    if settings.is_disabled {
        return Err(
            "'disabled_plugins' names the CRI plugin, so the kubelet has no runtime; take it out"
                .to_owned(),
        );
    }
    let is_2 = behaviour.release >= Release::V2_0;
    let has_folders = !settings.config_path.is_empty();
    if has_folders && !settings.mirrors.is_empty() {
        return Err(format!(
            "'registry.mirrors' stands beside 'registry.config_path' (`mirrors` cannot be set when \
             `config_path` is provided): {NOT_LOADED}; write the endpoints into hosts.toml below \
             config_path and take registry.mirrors out"
        ));
    }
    let has_tls = settings.configs.values().any(|host| host.tls.is_some());
    if has_folders && has_tls && !is_2 {
        return Err(format!(
            "'registry.configs.HOST.tls' stands beside 'registry.config_path' (`configs.tls` cannot be \
             set when `config_path` is provided): {NOT_LOADED}; write its files into hosts.toml below \
             config_path and take the table out"
        ));
    }
    let mut configs = settings.configs.clone();
    for (endpoint, auth) in &settings.auths {
        let url = go_url::parse_url(endpoint, behaviour.parses_strict_colons()).map_err(|reason| {
            format!("a key of 'registry.auths' is no URL ({reason}): {NOT_LOADED}; write https://HOST:PORT")
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
            return Err("'image_pull_progress_timeout' is empty, and every pull fails to parse it; write \"5m0s\"".to_owned());
        }
        if go::duration(text).is_none() {
            return Err(format!(
                "'image_pull_progress_timeout' is no duration of Go: {NOT_LOADED}; write for instance \"5m0s\""
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

/// A plugin without which containerd does not start, and of which it is not known whether it is there.
fn required(files: &ConfigFiles, merged: &Merged) -> Option<String> {
    let is_usual = |name: &&String| USUAL.contains(&name.as_str());
    let name = merged.required.iter().find(|name| !is_usual(name))?;
    // The containerd that runs has what it was started with.
    (!files.in_force).then(|| {
        format!(
            "'required_plugins' of {} names '{}': containerd does not start where that plugin is missing or does not \
             load, which is not seen from here",
            files.shown(),
            printable(name)
        )
    })
}

/// What in the files is not what it seems to be, for one release.
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
        0 => "which names no version and so is of version 1".to_owned(),
        version => format!("which is of version {version}"),
    };
    for other in [CRI_V1, CRI_V2, CRI_V3] {
        let has_registry = merged
            .plugins
            .get(other)
            .and_then(Node::table)
            .is_some_and(|table| table.contains_key("registry"));
        if has_registry && !sections.contains(&other) {
            // containerd 2 has renamed it.
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
                "'config_path' of {shown} is a list with a colon, which the transfer service takes for one \
                 folder: no hosts.toml is read and no mirror is asked; name one folder, and restart containerd"
        )));
    }
    if is_2 && settings.configs.values().any(|host| host.has_tls) {
        notes.push(ignored(format!(
                "'registry.configs.HOST.tls' of {shown} is no setting of containerd 2: write its files into \
                 hosts.toml below config_path"
        )));
    }
    let transfer = merged.plugins.get(TRANSFER).and_then(Node::table);
    let has_own_path = transfer.is_some_and(|table| table.contains_key("config_path"));
    if transfers && has_own_path && settings.config_path.is_empty() {
        notes.push(ignored(format!(
                "'config_path' of [plugins.'{TRANSFER}'] in {shown} does not count for pods: write it into \
                 [plugins.'{CRI_V3}'.registry], and restart containerd"
        )));
    }
    notes
}

fn ignored(reason: String) -> HostsProblem {
    HostsProblem::of_config(HostsEffect::Ignored, reason)
}

/// The CRI plugin pulls by itself, in a release that has the transfer service for it.
pub fn pulls_locally(files: &ConfigFiles, behaviour: Behaviour) -> bool {
    behaviour.release >= Release::V2_1
        && decode(files, behaviour).is_ok_and(|settings| settings.pulls_locally())
}

/// The file is of a version that is newer than the release: it was written for another.
pub fn is_too_new(files: &ConfigFiles, behaviour: Behaviour) -> bool {
    written_version(files) > newest_version(behaviour.release)
}

/// The main file has a section of this name.
fn names_plugin(files: &ConfigFiles, name: &str) -> bool {
    let plugins = files.top().and_then(|top| top.get("plugins")?.table());
    plugins.is_some_and(|plugins| plugins.contains_key(name))
}

/// The `version` of the main file, 0 where it names none.
fn written_version(files: &ConfigFiles) -> i64 {
    match files.top().and_then(|top| top.get("version")) {
        Some(Node::Integer(version)) => *version,
        _ => 0,
    }
}

fn used_section(behaviour: Behaviour, version: i64) -> &'static str {
    match behaviour.release {
        // One below zero is not that of version 1 to it.
        Release::V1_6 | Release::V1_7 if matches!(version, 0 | 1) => CRI_V1,
        Release::V1_6 | Release::V1_7 => CRI_V2,
        _ => CRI_V3,
    }
}

/// The newest version of the file that a release knows.
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
                    "line {line} is no TOML, and containerd does not start with it"
                )));
            }
            Some(Err(Unusable::Unread(reason))) => {
                return Err(Stop::Unseen(format!(
                    "{shown}, imported by config.toml, can't be read from here ({reason}); where the node \
                     lacks it as well, containerd does not start"
                )));
            }
            Some(Err(Unusable::Absent)) => {
                return Err(refused(
                    "it is imported by config.toml and is not there, and containerd does not start without it"
                        .to_owned(),
                ));
            }
            Some(Err(Unusable::TooMany)) | None => {
                return Err(Stop::Unseen(
                    "config.toml imports more files than are read".to_owned(),
                ));
            }
        };
        if let Some(line) = file.bracket_in_header.filter(|_| !is_2) {
            return Err(refused(format!(
                "the header in line {line} has a bracket in a name, which containerd 1 can't read even in quotes: it \
                 does not start; use a name in place of the IPv6 address, or containerd 2"
            )));
        }
        let mut one = top(&file.root).map_err(refused)?;
        if behaviour.release >= Release::V2_3 {
            if root_version == 0 {
                root_version = one.version;
            }
            if one.version > root_version {
                return Err(refused(format!(
                    "its version {} is above that of the file that imports it, and containerd does not start",
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

/// What containerd decodes of one file, whatever its version.
fn top(root: &Node) -> Result<Merged, String> {
    let table = root.table().ok_or("it is no table")?;
    let version = match table.get("version") {
        None => 0,
        Some(Node::Integer(version)) => *version,
        Some(_) => return Err("'version' is no number, and containerd does not start".to_owned()),
    };
    let plugins = match table.get("plugins") {
        None => BTreeMap::new(),
        Some(Node::Table(plugins)) => plugins.clone(),
        Some(_) => return Err("'plugins' is no table, and containerd does not start".to_owned()),
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

/// containerd 2.3 takes each file by itself to the newest version.
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

/// `v1Migrate`, as far as it concerns the CRI plugin.
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

/// `migrateConfig` of the CRI plugin's part for images.
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

/// `mergo`, as containerd 2 has it: tables are joined, all else is replaced.
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
            "{release} knows config.toml up to version {newest}, this is version {}, and containerd does not \
             start with it",
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
            "config.toml is of version {} and names the plugin '{}' as version 1 does (`invalid plugin key \
             URI`), with which {release} does not start; write [plugins.'{CRI_V2}'] for [plugins.cri]",
            merged.version,
            printable(name)
        ))),
    }
}

/// The section of the CRI plugin.
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
        Some(_) => return Err("'max_concurrent_downloads' is no number".to_owned()),
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
        settings.mirrors.insert(name, endpoints);
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
            return Err("an entry of 'registry.headers' is no list".to_owned());
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

/// What a key of a table holds; nothing where it is not there.
fn field<'a, T: Default>(
    table: &'a BTreeMap<String, Node>,
    key: &str,
    read: impl Fn(&'a Node, &str) -> Result<T, String>,
) -> Result<T, String> {
    let node = table.get(key);
    node.map_or_else(|| Ok(T::default()), |node| read(node, key))
}

fn table_of<'a>(node: &'a Node, key: &str) -> Result<&'a BTreeMap<String, Node>, String> {
    node.table().ok_or_else(|| format!("'{key}' is no table"))
}

fn text<'a>(node: &'a Node, key: &str) -> Result<&'a str, String> {
    match node {
        Node::Text(text) => Ok(text.expose()),
        _ => Err(format!("'{key}' is no text; write it in quotes")),
    }
}

fn flag(node: &Node, key: &str) -> Result<bool, String> {
    match node {
        Node::Bool(flag) => Ok(*flag),
        _ => Err(format!("'{key}' is neither true nor false (no quotes)")),
    }
}

fn texts(node: &Node, key: &str) -> Result<Vec<String>, String> {
    let Node::Array(values) = node else {
        return Err(format!("'{key}' is no list; write [\"…\"]"));
    };
    let values = values.iter().map(|value| Ok(text(value, key)?.to_owned()));
    values.collect()
}
