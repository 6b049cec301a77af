//! containerd's `hosts.toml`: which hosts a pull queries, in which order, with which settings.
//!
//! It is parsed as containerd does (`core/remotes/docker/config/hosts.go`), quirks included: a file that containerd
//! can't decode is ignored as if it did not exist, `[host]` tables count in the order of their headers, and tables
//! written in another form are ignored.

use std::path::{Path, PathBuf};
use std::time::Duration;

use strsim::levenshtein;
use toml_edit::{Array, Document, Item, TableLike, Value};

use super::behaviour::{Behaviour, Release};
use super::go;
use super::node_files::line_at;
use crate::model::endpoint::{Endpoint, Host, Scheme, split_port};
use crate::model::go_url::{self, GoUrl};
use crate::model::hosts::{HostKind, HostsEffect, HostsProblem, RegistryHost};
use crate::model::text::printable;
use crate::pull_secret::entry::Credential;
use crate::pull_secret::key::mask_key;
use crate::redact::Secret;

/// One host as containerd's settings describe it: a [`RegistryHost`], and its files and secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfiguredHost {
    /// The host as evidence.
    pub host: RegistryHost,
    /// As in Go's `url.Host`: with a port only if one is written.
    pub authority: String,
    /// Files with additional roots, as absolute paths.
    pub ca: Vec<PathBuf>,
    /// A `ca` file without a certificate is ignored instead of failing the pull.
    pub ca_may_be_empty: bool,
    /// A file with certificate and key, or one file for each.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Sent with every request to the host.
    pub headers: Vec<(String, Secret)>,
    /// From `config.toml`; used if the kubelet sends no credential.
    pub login: Option<Credential>,
}

/// The hosts of a file, and its problems.
#[derive(Clone, Debug, Default)]
pub struct HostsFile {
    /// In containerd's order; the last is `server` or the registry itself.
    pub hosts: Vec<ConfiguredHost>,
    /// Settings that have no effect or an unexpected one.
    pub problems: Vec<HostsProblem>,
}

/// The folders below `config_path` that may configure a registry, in containerd's order; the first that exists is used
/// (`hostPaths`).
pub fn folder_names(domain: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((host, port)) = domain.rsplit_once(':')
        && !host.is_empty()
    {
        names.push(format!("{host}_{port}_"));
    }
    names.push(domain.to_owned());
    names.push("_default".to_owned());
    names
}

/// Whether a line has a key without a value.
pub fn lacks_value(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.lines().any(|line| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let key = line.strip_suffix('=').map_or("", str::trim);
        !key.is_empty() && !key.contains(['=', '[', '<'])
    })
}

/// Parses the `hosts.toml` in `folder`, for images of the registry `domain`.
///
/// # Errors
/// Why this release can't decode it. containerd then uses the certificates beside it ([`from_certificates`]), and only
/// its log shows that.
pub fn parse(
    bytes: &[u8],
    domain: &str,
    folder: &Path,
    behaviour: Behaviour,
) -> Result<HostsFile, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.starts_with('\u{feff}') && behaviour.release >= Release::V2_0 {
        return Err("it starts with a byte order mark, which containerd 2 can't parse".to_owned());
    }
    let document = Document::parse(text).map_err(|error| {
        // The parser's own message may quote a header's value.
        let at = error.span().map_or(0, |span| span.start);
        format!("it is not valid TOML, at line {}", line_at(bytes, at))
    })?;
    if let Some(line) = go::bracket_in_header(text).filter(|_| behaviour.release < Release::V2_0) {
        return Err(format!(
            "the header in line {line} has a bracket in a name, which containerd 1 can't parse even in quotes"
        ));
    }
    let root = document.as_table();
    let mut file = HostsFile::default();
    let tables = find(root, "host").map(|item| {
        item.as_table_like()
            .ok_or("'host' is not a table; write [host.\"https://mirror.example.com\"]")
    });
    let tables = tables.transpose()?;
    unknown_keys(root, "", &mut file.problems);
    if tables.is_none() && !behaviour.reads_server_alone() {
        return Err(
            "it has no [host.\"…\"] table (\"invalid `host` tree\"); add an empty [host] below the other \
             lines"
                .to_owned(),
        );
    }
    let reader = Reader {
        domain,
        folder,
        behaviour,
    };
    let order = if behaviour.release >= Release::V2_0 {
        order(root)
    } else {
        order_by_first(tables, root)
    };
    reader.look_over(tables, &order, &mut file.problems)?;
    for name in &order {
        let Some(table) = tables
            .and_then(|tables| tables.get(name))
            .and_then(Item::as_table_like)
        else {
            continue;
        };
        let shown = mask_key(name);
        let settings = reader.settings(table, &format!("of host '{shown}'"))?;
        let host = reader
            .configured(HostKind::Mirror, name, settings)
            .map_err(|reason| format!("host '{shown}' is not a URL: {reason}"))?;
        match host {
            Some(host) => file.hosts.push(host),
            None => file.problems.push(HostsProblem::of_hosts(
                HostsEffect::Doubtful,
                format!(
                    "host '{shown}' is not an http or https URL with a host; each pull tries it without success"
                ),
            )),
        }
    }
    reader.last(root, &mut file)?;
    file.problems.extend(odd_hosts(&order, &file.hosts));
    Ok(file)
}

/// Settings that are valid, but probably not intended.
fn odd_hosts(order: &[String], hosts: &[ConfiguredHost]) -> Vec<HostsProblem> {
    let mut reasons = Vec::new();
    if (1..order.len()).any(|at| order[..at].contains(&order[at])) {
        reasons.push(
            "the table of a host and its [host.\"…\".header] are separated by another host's \
             table: containerd 2 queries the host once for each; put them together"
                .to_owned(),
        );
    }
    let is_hub = |host: &&ConfiguredHost| host.authority == "docker.io";
    reasons.extend(hosts.iter().filter(is_hub).map(|host| {
        format!(
            "{} 'https://docker.io' is not a registry; Docker Hub's is https://registry-1.docker.io",
            host.host.kind.as_str()
        )
    }));
    let is_over = |host: &&ConfiguredHost| host.host.dial_timeout == Some(Duration::ZERO);
    reasons.extend(hosts.iter().filter(is_over).map(|host| {
        format!(
            "'dial_timeout' of {} is negative: every connection to it fails at once",
            host.host.endpoint
        )
    }));
    let problem = |reason| HostsProblem::of_hosts(HostsEffect::Doubtful, reason);
    reasons.into_iter().map(problem).collect()
}

/// Parses the tables of one file.
struct Reader<'a> {
    domain: &'a str,
    folder: &'a Path,
    behaviour: Behaviour,
}

impl Reader<'_> {
    /// Decodes every host, even one that is never queried, since a wrong type invalidates the file. Reports keys and
    /// tables that are ignored.
    fn look_over(
        &self,
        tables: Option<&dyn TableLike>,
        order: &[String],
        problems: &mut Vec<HostsProblem>,
    ) -> Result<(), String> {
        for (name, item) in tables.iter().flat_map(|tables| tables.iter()) {
            let shown = mask_key(name);
            if !order.iter().any(|known| known == name) {
                problems.push(HostsProblem::of_hosts(HostsEffect::Ignored, format!(
                    "host '{shown}' is not written as a table header; containerd 2 reads only those: write \
                     [host.\"{shown}\"]"
                )));
            }
            // Decoded as a whole: a wrong type invalidates the file, even in a table that is never used.
            let table = item
                .as_table_like()
                .ok_or_else(|| format!("host '{shown}' is not a table"))?;
            self.settings(table, &format!("of host '{shown}'"))?;
            unknown_keys(table, &format!(" of host '{shown}'"), problems);
            if find(table, "server").is_some() {
                problems.push(HostsProblem::of_hosts(HostsEffect::Ignored, format!(
                    "'server' is in the table of host '{shown}', where it has no effect: move it above \
                     the first [host]"
                )));
            }
        }
        Ok(())
    }

    /// Adds the host that is queried last: `server`, or the registry itself.
    fn last(&self, root: &dyn TableLike, file: &mut HostsFile) -> Result<(), String> {
        let settings = self.settings(root, "at the top")?;
        let server = string(root, "server", "at the top")?.unwrap_or_default();
        let shown = mask_key(server);
        let host = self
            .configured(HostKind::Server, server, settings.clone())
            .map_err(|reason| format!("'server' {shown} is not a URL: {reason}"))?;
        let is_lost = host.is_none() && !server.is_empty();
        let own = || default_host(self.domain, settings, self.behaviour);
        file.hosts.push(host.unwrap_or_else(own));
        if is_lost {
            file.problems.push(HostsProblem::of_hosts(HostsEffect::Doubtful, format!(
                "server '{shown}' is not an http or https URL with a host, so the registry itself is used"
            )));
        }
        Ok(())
    }

    /// Decodes the keys of a table.
    fn settings(&self, table: &dyn TableLike, of: &str) -> Result<Settings, String> {
        let folder = self.folder;
        let mut settings = Settings::default();
        let capabilities = match find(table, "capabilities") {
            Some(item) => strings(item, "capabilities", of)?,
            None => Vec::new(),
        };
        if !capabilities.is_empty() {
            let (mut pulls, mut resolves) = (false, false);
            for (index, capability) in capabilities.iter().enumerate() {
                match capability.to_ascii_lowercase().as_str() {
                    "pull" => pulls = true,
                    "resolve" => resolves = true,
                    "push" => {}
                    "referrers" if self.behaviour.release >= Release::V2_2 => {}
                    _ => {
                        return Err(format!(
                            "entry {} of 'capabilities' {of} is unknown; containerd supports pull, resolve, push \
                             (and referrers since 2.2)",
                            index + 1
                        ));
                    }
                }
            }
            // A host resolves tags only with both (`filterHosts`); content is requested from it anyway.
            settings.is_for_content_only = !(pulls && resolves);
        }
        if let Some(item) = find(table, "ca") {
            let files = one_or_more(item, "ca", of)?.into_iter();
            settings.ca = files.map(|file| folder.join(file)).collect();
        }
        settings.client = client(table, of, folder)?;
        settings.skip_verify = boolean(table, "skip_verify", of)?;
        settings.override_path = boolean(table, "override_path", of)?.unwrap_or(false);
        let headers = typed(table, "header", of, Item::as_table_like, "not a table")?;
        for (name, item) in headers.iter().flat_map(|headers| headers.iter()) {
            let values = one_or_more(item, &printable(name), of)?.into_iter();
            let headers = values.map(|value| (name.to_owned(), Secret::new(value)));
            settings.headers.extend(headers);
        }
        if self.behaviour.release >= Release::V2_0
            && let Some(text) = string(table, "dial_timeout", of)?.filter(|text| !text.is_empty())
        {
            let seconds = go::duration(text).ok_or_else(|| {
                format!("'dial_timeout' {of} is not a Go duration; write for example \"2s\"")
            })?;
            settings.sets_dial_timeout = true;
            // 0 means no timeout; a negative value makes every dial fail at once.
            settings.dial_timeout = match seconds {
                0.0 => None,
                seconds => Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)),
            };
        }
        Ok(settings)
    }

    /// A host of the file (`parseHostConfig`, `ConfigureHosts`); `None` if it can't be queried.
    ///
    /// # Errors
    /// Why Go does not parse its address as a URL, which invalidates the whole file.
    fn configured(
        &self,
        kind: HostKind,
        server: &str,
        settings: Settings,
    ) -> Result<Option<ConfiguredHost>, &'static str> {
        if server.is_empty() {
            return Ok(None);
        }
        let with_scheme = if server.starts_with("http") {
            server.to_owned()
        } else {
            format!("https://{server}")
        };
        let url = go_url::parse_url(&with_scheme, self.behaviour.parses_strict_colons())?;
        let Some(mut endpoint) = endpoint(&url) else {
            return Ok(None);
        };
        let override_path = settings.override_path;
        let path = if url.path.is_empty() {
            if override_path { "" } else { "/v2" }.to_owned()
        } else {
            let clean = go::clean_path(&url.path);
            if clean == "/" && override_path {
                // It is joined to what follows, as with `path.Join`.
                String::new()
            } else if clean.ends_with("/v2") || override_path {
                clean
            } else {
                go::clean_path(&format!("{clean}/v2"))
            }
        };
        let has_tls = !settings.ca.is_empty()
            || !settings.client.is_empty()
            || settings.skip_verify.is_some()
            || (settings.sets_dial_timeout && self.behaviour.release == Release::V2_0);
        let falls_back_to_http = endpoint.scheme == Scheme::Http
            && has_tls
            && self.behaviour.tries_tls_first
            && !url.host.ends_with(":80");
        if falls_back_to_http {
            // Without a written port, it is still http's.
            endpoint.scheme = Scheme::Https;
            if url.host == endpoint.host.to_string() {
                endpoint.port = Scheme::Https.default_port();
            }
        }
        let host = RegistryHost {
            path,
            kind,
            namespace: namespace(&url.host, self.domain),
            falls_back_to_http,
            ..RegistryHost::plain(endpoint)
        };
        Ok(Some(finish(host, url.host, settings)))
    }
}

/// The API host of a registry, with the port if one is written (`DefaultHost`).
pub fn api_host(domain: &str) -> &str {
    match domain {
        "docker.io" => "registry-1.docker.io",
        domain => domain,
    }
}

/// The value of `?ns=` for a host: the registry, if the host is another; otherwise `None`.
pub fn namespace(authority: &str, domain: &str) -> Option<String> {
    let is_own = authority == domain || authority == api_host(domain);
    (!is_own).then(|| domain.to_owned())
}

/// A folder without a usable `hosts.toml`: its certificates apply to the registry itself, with Docker's naming
/// (`loadCertFiles`). `files` are the names of the files in it.
pub fn from_certificates(
    files: &[String],
    domain: &str,
    folder: &Path,
    behaviour: Behaviour,
) -> ConfiguredHost {
    let mut settings = Settings::default();
    for name in files {
        if let Some(_stem) = name.strip_suffix(".crt") {
            settings.ca.push(folder.join(name));
        } else if let Some(stem) = name.strip_suffix(".cert") {
            let key = format!("{stem}.key");
            let key = files.contains(&key).then(|| folder.join(key));
            settings.client.push((folder.join(name), key));
        }
    }
    default_host(domain, settings, behaviour)
}

/// The registry itself, without any file about it.
pub fn without_file(domain: &str, behaviour: Behaviour) -> ConfiguredHost {
    default_host(domain, Settings::default(), behaviour)
}

/// The keys of a table, as containerd decodes them.
#[derive(Clone, Debug, Default)]
struct Settings {
    /// It does not resolve tags.
    is_for_content_only: bool,
    ca: Vec<PathBuf>,
    client: Vec<(PathBuf, Option<PathBuf>)>,
    skip_verify: Option<bool>,
    headers: Vec<(String, Secret)>,
    override_path: bool,
    dial_timeout: Option<Duration>,
    sets_dial_timeout: bool,
}

/// The keys at the top and in a host's table. `server` in a host's table is a common mistake with a problem of its own.
const KEYS: &[&str] = &[
    "server",
    "host",
    "capabilities",
    "ca",
    "client",
    "skip_verify",
    "header",
    "override_path",
    "dial_timeout",
];

fn client(
    table: &dyn TableLike,
    of: &str,
    folder: &Path,
) -> Result<Vec<(PathBuf, Option<PathBuf>)>, String> {
    let Some(item) = find(table, "client") else {
        return Ok(Vec::new());
    };
    if let Some(one) = item.as_str() {
        return Ok(vec![(folder.join(one), None)]);
    }
    let mut pairs = Vec::new();
    for value in list(item, "client", of)? {
        if let Some(one) = value.as_str() {
            pairs.push((folder.join(one), None));
            continue;
        }
        let pair: Vec<&str> = value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let [certificate, key] = pair[..] else {
            return Err(format!(
                "'client' {of} has an entry that is neither a file nor a pair of files"
            ));
        };
        // containerd makes even an empty name absolute, and then can't read the folder.
        pairs.push((folder.join(certificate), Some(folder.join(key))));
    }
    Ok(pairs)
}

/// The endpoint of an http or https URL; `None` for another scheme, or without a host.
pub fn endpoint(url: &GoUrl) -> Option<Endpoint> {
    let scheme = match url.scheme.as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let (name, port) = split_port(&url.host);
    let port = match port {
        None | Some("") => scheme.default_port(),
        Some(port) => port.parse().ok()?,
    };
    (!name.is_empty()).then(|| Endpoint {
        scheme,
        port,
        host: Host::new(name),
    })
}

/// The registry itself, with the settings at the top of the file or the certificates beside it.
fn default_host(domain: &str, settings: Settings, behaviour: Behaviour) -> ConfiguredHost {
    let server = api_host(domain);
    let (name, port) = split_port(server);
    let port = port.and_then(|port| port.parse().ok());
    let host = Host::new(name);
    let is_loopback = host.is_loopback();
    // On loopback, TLS is tried first and plain http if that fails, as for other hosts; older releases use plain http
    // only.
    let plain = is_loopback && (port == Some(80) || !behaviour.tries_tls_first);
    let scheme = if plain { Scheme::Http } else { Scheme::Https };
    let endpoint = Endpoint {
        scheme,
        port: port.unwrap_or(scheme.default_port()),
        host,
    };
    let mut host = finish(
        RegistryHost::plain(endpoint),
        server.to_owned(),
        Settings {
            is_for_content_only: false,
            ..settings
        },
    );
    host.host.falls_back_to_http = is_loopback && !plain && !matches!(port, None | Some(443));
    // As in containerd: certificates on loopback are not verified.
    host.host.skip_verify |= is_loopback && !plain;
    host
}

/// A host without settings of its own.
pub fn plain(host: RegistryHost, authority: String) -> ConfiguredHost {
    finish(host, authority, Settings::default())
}

fn finish(mut host: RegistryHost, authority: String, settings: Settings) -> ConfiguredHost {
    host.resolves = !settings.is_for_content_only;
    host.skip_verify = settings.skip_verify == Some(true);
    host.client_certificates = settings.client.len();
    host.ca_files = settings
        .ca
        .iter()
        .map(|path| printable(&path.to_string_lossy()))
        .collect();
    let mut names: Vec<String> = settings.headers.iter().map(|(n, _)| printable(n)).collect();
    names.dedup();
    host.headers = names;
    host.dial_timeout = settings.dial_timeout;
    ConfiguredHost {
        host,
        authority,
        ca: settings.ca,
        ca_may_be_empty: false,
        client: settings.client,
        headers: settings.headers,
        login: None,
    }
}

/// The hosts in the order of their table headers (`getSortedHosts`). The header of a nested table counts for its host
/// too; directly after the host's own it changes nothing.
fn order(root: &dyn TableLike) -> Vec<String> {
    // Exactly `host`, although the decoder accepts it in any case.
    let Some(hosts) = root.get("host").and_then(Item::as_table) else {
        return Vec::new();
    };
    let mut headers: Vec<(isize, &str)> = Vec::new();
    for (name, item) in hosts {
        collect_headers(item, name, &mut headers, MAX_DEPTH);
    }
    headers.sort_unstable();
    let mut order: Vec<String> = headers.into_iter().map(|(_, n)| n.to_owned()).collect();
    order.dedup();
    order
}

/// The hosts in the order of their first table or key (`getSortedHosts` of containerd 1), each once.
fn order_by_first(tables: Option<&dyn TableLike>, root: &dyn TableLike) -> Vec<String> {
    let headers = order(root);
    let mut order: Vec<String> = Vec::new();
    let written = tables
        .into_iter()
        .flat_map(|tables| tables.iter())
        .map(|(name, _)| name.to_owned());
    // Keys without a header count at the position of their table, before all headers below it.
    let without_header = written.filter(|name| !headers.contains(name));
    for name in without_header.chain(headers.iter().cloned()) {
        if !order.contains(&name) {
            order.push(name);
        }
    }
    order
}

fn collect_headers<'a>(item: &Item, name: &'a str, headers: &mut Vec<(isize, &'a str)>, depth: u8) {
    let Some(table) = item.as_table() else {
        return;
    };
    if !table.is_implicit()
        && !table.is_dotted()
        && let Some(position) = table.position()
    {
        headers.push((position, name));
    }
    if depth > 0 {
        for (_, item) in table {
            collect_headers(item, name, headers, depth - 1);
        }
    }
}

/// `[host."x".header]` is the deepest table with a meaning.
const MAX_DEPTH: u8 = 4;

fn unknown_keys(table: &dyn TableLike, of: &str, problems: &mut Vec<HostsProblem>) {
    for (key, _) in table.iter() {
        if KEYS.iter().any(|k| k.eq_ignore_ascii_case(key)) {
            continue;
        }
        let nearest = KEYS.iter().find(|k| {
            let bare = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
            bare(k) == bare(key) || levenshtein(k, key) <= 2
        });
        // An unknown key may be a password in the wrong place.
        let advice = nearest.map_or_else(String::new, |k| format!("; did you mean '{k}'?"));
        let what = format!("a key{of} is not a setting of hosts.toml{advice}");
        problems.push(HostsProblem::of_hosts(HostsEffect::Ignored, what));
    }
}

/// Finds a key as go-toml does: in any case.
fn find<'a>(table: &'a dyn TableLike, key: &str) -> Option<&'a Item> {
    let mut found = table.iter().filter(|(k, _)| k.eq_ignore_ascii_case(key));
    found
        .next()
        .map(|(_, item)| item)
        .filter(|item| !item.is_none())
}

/// The value of a key, which must have one type.
fn typed<'a, T>(
    table: &'a dyn TableLike,
    key: &str,
    of: &str,
    read: impl Fn(&'a Item) -> Option<T>,
    otherwise: &str,
) -> Result<Option<T>, String> {
    let wrong = || format!("'{key}' {of} is {otherwise}");
    let item = find(table, key);
    item.map(|item| read(item).ok_or_else(wrong)).transpose()
}

fn string<'a>(table: &'a dyn TableLike, key: &str, of: &str) -> Result<Option<&'a str>, String> {
    typed(table, key, of, Item::as_str, "not a string")
}

fn boolean(table: &dyn TableLike, key: &str, of: &str) -> Result<Option<bool>, String> {
    let otherwise = "neither true nor false (without quotes)";
    typed(table, key, of, Item::as_bool, otherwise)
}

fn list<'a>(item: &'a Item, key: &str, of: &str) -> Result<&'a Array, String> {
    item.as_array()
        .ok_or_else(|| format!("'{key}' {of} is not a list; write [\"…\"]"))
}

/// The strings of a list.
fn strings<'a>(item: &'a Item, key: &str, of: &str) -> Result<Vec<&'a str>, String> {
    let wrong = || format!("'{key}' {of} has an entry that is not a string");
    let values = list(item, key, of)?.iter();
    values.map(|v| v.as_str().ok_or_else(wrong)).collect()
}

/// A string, or the strings of a list.
fn one_or_more<'a>(item: &'a Item, key: &str, of: &str) -> Result<Vec<&'a str>, String> {
    item.as_str()
        .map_or_else(|| strings(item, key, of), |one| Ok(vec![one]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOMAIN: &str = "registry.example.com";

    fn read(text: &str) -> HostsFile {
        parse(text.as_bytes(), DOMAIN, Path::new("/certs"), by("2.1.9")).unwrap()
    }

    fn by(version: &str) -> Behaviour {
        let runtime = format!("containerd://{version}").parse().unwrap();
        Behaviour::candidates(Some(&runtime))[0]
    }

    fn shown(file: &HostsFile) -> Vec<String> {
        file.hosts
            .iter()
            .map(|h| {
                let resolve = if h.host.resolves { "" } else { " by digest" };
                let ns = h.host.namespace.as_ref();
                let ns = ns.map_or_else(String::new, |ns| format!(" ns={ns}"));
                format!("{}{}{ns}{resolve}", h.host.endpoint, h.host.path)
            })
            .collect()
    }

    #[test]
    fn a_key_without_a_value_is_found() {
        for (text, lacks) in [
            ("server =\n", true),
            ("  ca = # later\n", true),
            ("server = \"https://a\"\n", false),
            ("=======\n", false),
            ("<<<<<<< mine\n=\n", false),
        ] {
            assert_eq!(lacks_value(text.as_bytes()), lacks, "{text}");
        }
    }

    #[test]
    fn folders_are_looked_for_as_containerd_does() {
        assert_eq!(
            folder_names("reg.example.com:5000"),
            ["reg.example.com_5000_", "reg.example.com:5000", "_default"]
        );
        assert_eq!(folder_names("docker.io"), ["docker.io", "_default"]);
    }

    #[test]
    fn hosts_come_in_the_order_of_their_headers_and_the_server_last() {
        let file = read(
            "server = \"https://upstream.example.com\"\n\
             [host.\"https://b.example.com\"]\n\
             capabilities = [\"pull\"]\n\
             [host.\"http://a.example.com:5000/cache\"]\n\
             [host.\"https://c.example.com/v2/dockerhub\"]\n\
             override_path = true\n",
        );
        assert_eq!(
            shown(&file),
            [
                "https://b.example.com/v2 ns=registry.example.com by digest",
                "http://a.example.com:5000/cache/v2 ns=registry.example.com",
                "https://c.example.com/v2/dockerhub ns=registry.example.com",
                "https://upstream.example.com/v2 ns=registry.example.com",
            ]
        );
        assert_eq!(file.hosts[3].host.kind, HostKind::Server);
        assert!(file.problems.is_empty(), "{:?}", file.problems);
    }

    #[test]
    fn a_bare_slash_is_no_path() {
        for (text, want) in [
            ("[host.\"https://m/\"]\noverride_path = true\n", "https://m"),
            ("[host.\"https://m/\"]\n", "https://m/v2"),
        ] {
            let want = format!("{want} ns={DOMAIN}");
            assert_eq!(shown(&read(text))[0], want);
        }
    }

    #[test]
    fn without_a_server_the_registry_itself_comes_last() {
        for (domain, last) in [
            ("docker.io", "https://registry-1.docker.io/v2"),
            ("reg.example.com:5000", "https://reg.example.com:5000/v2"),
            ("[fd00::1]:5000", "https://[fd00::1]:5000/v2"),
            ("localhost:80", "http://localhost/v2"),
        ] {
            let text = "[host.\"https://m.example.com\"]\n";
            let file = parse(text.as_bytes(), domain, Path::new("/c"), by("2.1.9")).unwrap();
            assert_eq!(shown(&file)[1], last);
        }
        let fallback = parse(
            b"[host.x]\n",
            "localhost:5000",
            Path::new("/c"),
            by("2.1.9"),
        )
        .unwrap();
        assert!(fallback.hosts[1].host.falls_back_to_http);
    }

    #[test]
    fn settings_are_those_of_their_table() {
        let file = read(
            "ca = \"up.pem\"\n\
             [host.\"https://m.example.com\"]\n\
             ca = [\"/abs/ca.pem\", \"ca2.pem\"]\n\
             client = [[\"c.cert\", \"c.key\"], \"both.pem\"]\n\
             skip_verify = true\n\
             dial_timeout = \"1m1.5s\"\n\
             [host.\"https://m.example.com\".header]\n\
             x-token = [\"s3cret\", \"two\"]\n\
             [host.\"https://n.example.com\"]\n",
        );
        let m = &file.hosts[0];
        assert_eq!(m.host.ca_files, ["/abs/ca.pem", "/certs/ca2.pem"]);
        assert_eq!(
            m.client,
            [
                ("/certs/c.cert".into(), Some("/certs/c.key".into())),
                (PathBuf::from("/certs/both.pem"), None)
            ]
        );
        assert!(m.host.skip_verify);
        assert_eq!(m.host.dial_timeout, Some(Duration::from_millis(61_500)));
        assert_eq!(m.host.headers, ["x-token"]);
        assert_eq!(m.headers.len(), 2);
        assert!(!format!("{file:?}").contains("s3cret"));
        assert!(!file.hosts[1].host.skip_verify);
        assert_eq!(file.hosts[2].host.ca_files, ["/certs/up.pem"]);
        assert_eq!(file.hosts.len(), 3, "the table within a table is no host");
    }

    #[test]
    fn a_host_written_http_with_tls_settings_is_tried_by_tls_first() {
        for (host, want) in [
            (
                "http://m.example.com:5000",
                (
                    "https://m.example.com:5000/v2 ns=registry.example.com",
                    true,
                ),
            ),
            (
                "http://m.example.com",
                ("https://m.example.com/v2 ns=registry.example.com", true),
            ),
            (
                "http://m.example.com:80",
                ("http://m.example.com/v2 ns=registry.example.com", false),
            ),
        ] {
            let file = read(&format!("[host.\"{host}\"]\nskip_verify = false\n"));
            let got = (
                shown(&file)[0].clone(),
                file.hosts[0].host.falls_back_to_http,
            );
            assert_eq!((got.0.as_str(), got.1), want);
        }
    }

    #[test]
    fn the_registrys_own_host_gets_no_ns() {
        let text = "[host.\"https://registry-1.docker.io\"]\n";
        let hub = parse(text.as_bytes(), "docker.io", Path::new("/c"), by("2.1.9")).unwrap();
        assert_eq!(shown(&hub)[0], "https://registry-1.docker.io/v2");
        let own = parse(
            b"server = \"reg:5000\"\n[host]\n",
            "reg:5000",
            Path::new("/c"),
            by("2.1.9"),
        )
        .unwrap();
        assert_eq!(shown(&own), ["https://reg:5000/v2"]);
        // Go compares the text: a default port that is written makes it another host.
        let port = read("server = \"https://registry.example.com:443\"\n[host]\n");
        assert_eq!(port.hosts[0].host.namespace.as_deref(), Some(DOMAIN));
    }

    #[test]
    fn what_containerd_cannot_decode_is_an_error_with_its_place() {
        for (text, want) in [
            ("server = ", "at line 1"),
            ("a = 1\n[host\n", "at line 2"),
            (
                "[host.\"https://m\"]\ncapabilities = \"pull\"\n",
                "'capabilities' of host 'https://m' is not a list",
            ),
            (
                "[host.\"https://m\"]\ncapabilities = [\"fetch\"]\n",
                "entry 1 of 'capabilities'",
            ),
            (
                "[host.\"https://m\"]\nskip_verify = \"true\"\n",
                "neither true nor false",
            ),
            (
                "[host.\"https://m\"]\nca = 5\n",
                "'ca' of host 'https://m' is not a list",
            ),
            ("[host.\"https://m\"]\nclient = [[\"a\"]]\n", "'client'"),
            (
                "[host.\"https://m\"]\ndial_timeout = \"3\"\n",
                "not a Go duration",
            ),
            ("[host.\"https://m\"]\nheader = \"x\"\n", "'header'"),
            ("server = 5\n", "'server' at the top is not a string"),
            ("host = \"https://m\"\n", "'host' is not a table"),
            ("[host.a]\n[host.a]\n", "not valid TOML"),
            // Texts that Go does not parse as a URL.
            ("[host.\"https://m \"]\n", "host 'https://m ' is not a URL"),
            ("[host.\"https://m:50a0\"]\n", "its port is not a number"),
            (
                "server = \"https://${MIRROR}\"\n",
                "'server' https://${MIRROR} is not a URL",
            ),
            ("server = \"https://m\\n\"\n[host]\n", "a control character"),
        ] {
            let error = parse(text.as_bytes(), DOMAIN, Path::new("/c"), by("2.1.9")).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
        assert!(parse(b"\xff", DOMAIN, Path::new("/c"), by("2.1.9")).is_err());
    }

    #[test]
    fn releases_read_one_file_each_in_its_way() {
        let read = |version: &str, text: &str| {
            parse(text.as_bytes(), DOMAIN, Path::new("/c"), by(version))
                .map(|file| shown(&file))
                .map_err(|_| ())
        };
        let own = "https://registry.example.com/v2";
        let m = "https://m/v2 ns=registry.example.com";
        let n = "https://n/v2 ns=registry.example.com";
        let plain = "http://m:5000/v2 ns=registry.example.com";
        let by_tls = "https://m:5000/v2 ns=registry.example.com";
        for (text, versions) in [
            // A file with `server` only.
            (
                "server = \"https://m\"\n",
                &[("1.7.24", Err(())), ("2.0.0", Ok(vec![m]))][..],
            ),
            // Dotted keys, and a nested table that is separated from its host.
            (
                "host.\"https://m\".capabilities = [\"pull\", \"resolve\"]\n",
                &[("1.6.20", Ok(vec![m, own])), ("2.1.9", Ok(vec![own]))],
            ),
            (
                "[host.\"https://m\"]\n[host.\"https://n\"]\n[host.\"https://m\".header]\n",
                &[
                    ("1.7.24", Ok(vec![m, n, own])),
                    ("2.1.9", Ok(vec![m, n, m, own])),
                ],
            ),
            // Keys of later releases.
            (
                "[host.\"https://m\"]\ncapabilities = [\"pull\", \"resolve\", \"referrers\"]\n",
                &[("2.1.9", Err(())), ("2.2.0", Ok(vec![m, own]))],
            ),
            (
                "[host.\"https://m\"]\ndial_timeout = \"3\"\n",
                &[("1.7.24", Ok(vec![m, own])), ("2.1.9", Err(()))],
            ),
            (
                "[host.\"http://m:5000\"]\nskip_verify = true\n",
                &[
                    ("1.6.20", Ok(vec![plain, own])),
                    ("1.6.25", Ok(vec![by_tls, own])),
                ],
            ),
            (
                "[host.\"http://m:5000\"]\ndial_timeout = \"3s\"\n",
                &[
                    ("2.0.7", Ok(vec![by_tls, own])),
                    ("2.1.0", Ok(vec![plain, own])),
                ],
            ),
        ] {
            for (version, want) in versions {
                let want = want.clone().map(|hosts| {
                    hosts
                        .iter()
                        .map(|host| (*host).to_owned())
                        .collect::<Vec<_>>()
                });
                assert_eq!(read(version, text), want, "{version}: {text}");
            }
        }
    }

    #[test]
    fn a_registry_on_loopback_is_asked_by_tls_first_since_that_rule_came() {
        for (version, domain, want) in [
            (
                "1.6.20",
                "127.0.0.3:5000",
                ("http://127.0.0.3:5000", false, false),
            ),
            ("1.6.20", "127.0.0.3", ("http://127.0.0.3", false, false)),
            (
                "1.7.24",
                "127.0.0.3:5000",
                ("https://127.0.0.3:5000", true, true),
            ),
            ("1.7.24", "localhost", ("https://localhost", false, true)),
            (
                "1.7.24",
                "localhost:443",
                ("https://localhost", false, true),
            ),
            ("1.7.24", "localhost:80", ("http://localhost", false, false)),
            (
                "2.1.9",
                "10.0.0.1:5000",
                ("https://10.0.0.1:5000", false, false),
            ),
        ] {
            let host = without_file(domain, by(version)).host;
            let got = (
                host.endpoint.to_string(),
                host.falls_back_to_http,
                host.skip_verify,
            );
            assert_eq!((got.0.as_str(), got.1, got.2), want, "{version} {domain}");
        }
    }

    #[test]
    fn what_says_nothing_is_reported() {
        for (text, effect, want) in [
            (
                "[host.\"https://m\"]\nserver = \"https://u\"\n",
                HostsEffect::Ignored,
                "above the first [host]",
            ),
            (
                "[host.\"https://m\"]\nskip_verfiy = true\n",
                HostsEffect::Ignored,
                "did you mean 'skip_verify'",
            ),
            (
                "host.\"https://m\".capabilities = [\"pull\"]\n",
                HostsEffect::Ignored,
                "not written as a table header",
            ),
            (
                "[host.\"httpbin\"]\n[host.\"http:m\"]\n",
                HostsEffect::Doubtful,
                "without success",
            ),
            (
                "server = \"https://docker.io\"\n[host]\n",
                HostsEffect::Doubtful,
                "registry-1.docker.io",
            ),
            (
                "[host.\"https://m\"]\ndial_timeout = \"-1s\"\n",
                HostsEffect::Doubtful,
                "is negative",
            ),
            (
                "[host.\"https://m\"]\n[host.\"https://n\"]\n[host.\"https://m\".header]\n",
                HostsEffect::Doubtful,
                "queries the host once for each",
            ),
        ] {
            let file = read(text);
            let found = file.problems.iter().find(|p| p.reason.contains(want));
            assert_eq!(
                found.map(|p| p.effect),
                Some(effect),
                "{text}: {:?}",
                file.problems
            );
        }
    }

    #[test]
    fn a_user_and_password_in_a_host_are_not_shown() {
        for text in [
            "server = \"https://u:hunter2@\"\n",
            "[host.\"https://u:hunter2@m?hunter2\"]\nserver = \"x\"\nx = 1\n",
            "[host.\"https://u:hunter2@m:port\"]\n",
            "host.\"u:hunter2@m\".ca = \"x\"\n",
            "[host.\"u:hunter2@m\"]\nca = 5\n",
            "host = {\"u:hunter2@m\" = 5}\n",
        ] {
            let shown = format!(
                "{:?}",
                parse(text.as_bytes(), DOMAIN, Path::new("/c"), by("2.1.9"))
            );
            assert!(
                shown.contains("***@") && !shown.contains("hunter2"),
                "{shown}"
            );
        }
    }

    #[test]
    fn certificates_beside_count_for_the_registry_itself() {
        let files = ["ca.crt", "x.cert", "x.key", "y.cert", "README"].map(str::to_owned);
        let host = from_certificates(&files, DOMAIN, Path::new("/d"), by("2.1.9"));
        assert_eq!(host.host.ca_files, ["/d/ca.crt"]);
        assert_eq!(
            host.client,
            [
                ("/d/x.cert".into(), Some("/d/x.key".into())),
                (PathBuf::from("/d/y.cert"), None)
            ]
        );
        assert_eq!(host.host.kind, HostKind::Registry);
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, DOMAIN, Path::new("/c"), by("2.1.9"));
        }

        #[test]
        fn any_values_are_read_or_refused(
            host in "[ -~]{0,30}",
            key in prop::sample::select(KEYS),
            value in prop::sample::select(vec!["1", "true", "\"x\"", "[]", "[\"x\"]", "[[\"x\",\"y\"]]", "{}", "{a=1}", "1979-05-27"]),
        ) {
            let host = host.replace(['"', '\\'], "");
            let text = format!("{key} = {value}\n[host.\"{host}\"]\n{key} = {value}\n");
            if let Ok(file) = parse(text.as_bytes(), DOMAIN, Path::new("/c"), by("2.1.9")) {
                prop_assert!(!file.hosts.is_empty(), "the last is always there");
            }
        }
    }
}
