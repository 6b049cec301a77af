//! Which legs use a proxy, with the rules of Go's net/http (`golang.org/x/net/http/httpproxy`), since containerd is a
//! Go program. Pure.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;

use super::builds;
use crate::model::endpoint::{Endpoint, Host, Scheme, split_host_port, split_port};
use crate::model::fault::ProxyFault;
use crate::model::go_url::{self, GoUrl, HostRules};
use crate::model::proxy::{
    IgnoredVariable, MissedException, Proxy, ProxyRoute, ProxySettings, written_as,
};
use crate::model::text::{clean, printable};
use crate::redact::Secret;
use crate::trust::GoBuild;

/// The proxies in force for a run.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    settings: ProxySettings,
    http: Option<Variable>,
    https: Option<Variable>,
    exceptions: Vec<Exception>,
    /// Those of `no_proxy`, if `NO_PROXY` is in force.
    shadowed: Vec<Exception>,
    /// `REQUEST_METHOD` is set.
    is_cgi: bool,
}

/// A variable with a proxy.
#[derive(Clone, Debug)]
struct Variable {
    /// As it was written: `HTTPS_PROXY` or `https_proxy`.
    name: String,
    value: Secret,
}

/// A proxy server, and the credentials that it requires.
#[derive(Clone, Debug)]
pub struct ProxyServer {
    /// The proxy as evidence.
    pub proxy: Proxy,
    /// The host to connect to.
    pub host: Host,
    /// The port to connect to; 0 if the URL's is invalid.
    pub port: u16,
    /// The user and password of the URL.
    pub login: Option<Login>,
}

/// The user and password for a proxy.
#[derive(Clone, Debug)]
pub struct Login {
    /// The user.
    pub user: Secret,
    /// The password; may be empty.
    pub password: Secret,
    /// Both in Basic encoding.
    pair: Secret,
    /// `Proxy-Authorization` (RFC 9110, 11.7.2).
    pub authorization: Secret,
}

impl Login {
    /// `user:password` of a URL.
    fn of(userinfo: &str) -> Self {
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let [user, password] = [user, password].map(|part| Secret::new(go_url::decoded(part)));
        let pair = format!("{}:{}", user.expose(), password.expose());
        let pair = Secret::new(STANDARD.encode(pair));
        Self {
            authorization: Secret::new(format!("Basic {}", pair.expose())),
            user,
            password,
            pair,
        }
    }
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug)]
struct Exception {
    /// As written.
    entry: String,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    /// `*`
    All,
    /// `10.0.0.0/8`: matches hosts that are written as addresses; names are not resolved for it.
    Network(IpNet),
    Address {
        address: IpAddr,
        port: String,
    },
    Domain {
        /// With a leading dot.
        suffix: String,
        port: String,
        /// The domain itself matches too, not only names below it.
        itself: bool,
    },
}

/// The server of an endpoint, as entries of `NO_PROXY` are compared with it.
struct Server {
    name: String,
    address: Option<IpAddr>,
    port: String,
}

impl Server {
    fn of(endpoint: &Endpoint) -> Self {
        let (name, address) = match &endpoint.host {
            Host::Address(address) => (address.to_string(), Some(address.to_canonical())),
            Host::Name(name) => (name.clone(), None),
        };
        Self {
            name,
            address,
            port: endpoint.port.to_string(),
        }
    }

    fn is_loopback(&self) -> bool {
        self.name == "localhost" || self.address.is_some_and(|address| address.is_loopback())
    }
}

impl Proxies {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, or their lower-case forms if those are unset or empty.
    pub fn new(
        source: &str,
        is_containerds: bool,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut settings = ProxySettings {
            source: source.to_owned(),
            is_containerds,
            ..ProxySettings::default()
        };
        let mut either = |upper: &str| {
            let lower = upper.to_ascii_lowercase();
            match (set(upper), set(&lower)) {
                (Some(value), shadowed) => {
                    if shadowed.as_ref().is_some_and(|other| *other != value) {
                        settings.ignored.push(IgnoredVariable {
                            reason: format!(
                                "not used: {upper} is set too, and Go reads that one first"
                            ),
                            hint: format!("Put its value into {upper}, or remove {upper}."),
                            variable: lower,
                        });
                    }
                    Some((upper.to_owned(), value, shadowed))
                }
                (None, value) => value.map(|value| (lower, value, None)),
            }
        };
        let [https, http] = ["HTTPS_PROXY", "HTTP_PROXY"].map(|upper| {
            let (name, value, _) = either(upper)?;
            let value = Secret::new(value);
            Some(Variable { name, value })
        });
        let no_proxy = either("NO_PROXY");
        let all = ["ALL_PROXY", "all_proxy"];
        let all = all.into_iter().filter(|name| set(name).is_some());
        settings.ignored.extend(
            all.map(|name| IgnoredVariable {
                variable: name.to_owned(),
                reason: "not used: Go, and so containerd, reads HTTPS_PROXY and HTTP_PROXY alone"
                    .to_owned(),
                hint: "Set HTTPS_PROXY to the same value.".to_owned(),
            }),
        );
        let mut proxies = Self {
            exceptions: no_proxy
                .as_ref()
                .map_or_else(Vec::new, |(_, value, _)| exceptions(value)),
            shadowed: no_proxy
                .as_ref()
                .and_then(|(.., shadowed)| shadowed.as_deref())
                .map_or_else(Vec::new, exceptions),
            is_cgi: set("REQUEST_METHOD").is_some(),
            settings,
            http,
            https,
        };
        proxies.settings.no_proxy = no_proxy.map(|(_, text, _)| clean(&text, MAX_SHOWN));
        proxies.settings = proxies.settings_of(&builds::candidates(None));
        proxies
    }

    /// The same settings, as these builds of containerd read them.
    pub fn settings_of(&self, builds: &[GoBuild]) -> ProxySettings {
        let mut settings = ProxySettings {
            problems: Vec::new(),
            ..self.settings.clone()
        };
        for (variable, proxy) in [
            (&self.https, &mut settings.https),
            (&self.http, &mut settings.http),
        ] {
            let Some(variable) = variable else { continue };
            let reading = variable.read(builds);
            let is_known = |one: &IgnoredVariable| one.variable == variable.name;
            match &reading {
                None if !settings.ignored.iter().any(is_known) => {
                    settings.ignored.push(variable.unread(variable.culprit()));
                }
                Some(server) if !variable.is_as_written(&server.proxy) => {
                    settings.problems.push(format!(
                        "{} is not a proxy URL, but Go treats it as {}; write http://HOST:PORT",
                        variable.name, server.proxy
                    ));
                }
                _ => {}
            }
            *proxy = reading.map(|server| server.proxy);
        }
        settings
    }

    /// Records messages about source files that changed after containerd started.
    pub(super) fn note_changed(&mut self, changed: Vec<String>) {
        self.settings.changed = changed;
    }

    /// Records what systemd drops of the source files.
    pub(super) fn note_dropped(&mut self, dropped: Vec<IgnoredVariable>) {
        self.settings.ignored.extend(dropped);
    }

    /// Whether containerd may have other proxies than these.
    pub fn are_changed(&self) -> bool {
        !self.settings.changed.is_empty()
    }

    /// The settings as evidence, for a containerd of which nothing is known.
    pub fn settings(&self) -> &ProxySettings {
        &self.settings
    }

    /// The route to a server by any of these builds, and the proxy on it, if any. If builds differ, the proxy's fault
    /// says that.
    pub fn route(
        &self,
        endpoint: &Endpoint,
        builds: &[GoBuild],
    ) -> (ProxyRoute, Option<ProxyServer>) {
        let variable = match endpoint.scheme {
            Scheme::Https => &self.https,
            Scheme::Http => &self.http,
        };
        let Some((variable, mut read)) = variable.as_ref().and_then(|v| Some((v, v.read(builds)?)))
        else {
            let server = Server::of(endpoint);
            let mut exceptions = self.exceptions.iter();
            let exempt = exceptions.find(|one| one.rule.matches(&server, false));
            let route = exempt.map_or(ProxyRoute::Direct, |exception| ProxyRoute::Exempt {
                entry: exception.entry.clone(),
            });
            return (route, None);
        };
        if endpoint.scheme == Scheme::Http && self.is_cgi {
            read.proxy.fault = Some(ProxyFault::Cgi {
                variable: variable.name.clone(),
            });
            return (proxied(read.proxy.clone(), Vec::new()), Some(read));
        }
        let server = Server::of(endpoint);
        if server.is_loopback() {
            return (ProxyRoute::Loopback, None);
        }
        // Go checks the addresses first; which entry matched makes no other difference.
        let excepted = |build: &GoBuild| {
            let by_name = build.compares_addresses_as_names();
            let matches = |one: &&Exception| one.rule.matches(&server, by_name);
            self.exceptions.iter().find(matches)
        };
        let mut decisions = builds.iter().map(|build| (build, excepted(build)));
        let Some((first, decision)) = decisions.next() else {
            return (ProxyRoute::Direct, None);
        };
        let differs = decisions.find(|(_, other)| other.is_some() != decision.is_some());
        match (decision, differs) {
            (Some(exception), None) => {
                let entry = exception.entry.clone();
                let proxy = read.proxy;
                (ProxyRoute::Excepted { entry, proxy }, None)
            }
            (None, None) => {
                let missed = self.missed(&server);
                (proxied(read.proxy.clone(), missed), Some(read))
            }
            (_, Some((other, entry))) => {
                let (keeps, uses) = match decision {
                    Some(_) => (first, other),
                    None => (other, first),
                };
                let entry = decision.or(entry).map_or("", |exception| &*exception.entry);
                read.proxy.fault = Some(ProxyFault::Undecided {
                    reason: format!(
                        "{keeps} takes the entry '{entry}' of NO_PROXY for this address, and {uses} does not"
                    ),
                });
                (proxied(read.proxy.clone(), Vec::new()), Some(read))
            }
        }
    }

    /// The entries of `NO_PROXY` that seem to mean a server, and do not match it.
    fn missed(&self, server: &Server) -> Vec<MissedException> {
        let entries = self.exceptions.iter();
        let near = entries.filter_map(|exception| {
            Some(MissedException {
                entry: exception.entry.clone(),
                reason: near_miss(&exception.entry, server)?,
            })
        });
        let shadowed = self.shadowed.iter();
        let shadowed = shadowed.filter(|exception| exception.rule.matches(server, false));
        near.chain(shadowed.map(|exception| MissedException {
            entry: exception.entry.clone(),
            reason: "it is in no_proxy, and Go reads NO_PROXY alone if both are set".to_owned(),
        }))
        .collect()
    }

    /// Whether entries of `NO_PROXY` are addresses or networks.
    pub fn have_networks(&self) -> bool {
        let is_network =
            |one: &Exception| matches!(one.rule, Rule::Network(_) | Rule::Address { .. });
        self.exceptions.iter().any(is_network)
    }

    /// The entries of `NO_PROXY` that would match a server if it were written as one of its addresses.
    pub fn missed_by_address(
        &self,
        endpoint: &Endpoint,
        addresses: &[IpAddr],
    ) -> Vec<MissedException> {
        let mut missed = Vec::new();
        for exception in &self.exceptions {
            let as_address = |address: &IpAddr| Server {
                name: address.to_string(),
                address: Some(address.to_canonical()),
                port: endpoint.port.to_string(),
            };
            let mut of = addresses.iter();
            let address = of.find(|a| exception.rule.matches(&as_address(a), false));
            if let (Some(address), false) = (address, matches!(exception.rule, Rule::All)) {
                missed.push(MissedException {
                    entry: exception.entry.clone(),
                    reason: format!(
                        "{} has the address {address}, but Go compares addresses with hosts that are written as \
                         addresses, and never resolves a name for that",
                        endpoint.host
                    ),
                });
            }
        }
        missed
    }

    /// Every secret in the settings.
    pub fn secrets(&self) -> impl Iterator<Item = Secret> {
        let variables = self.http.iter().chain(&self.https);
        variables.flat_map(|variable| {
            let login = variable.userinfo().map(|userinfo| Login::of(&userinfo));
            let login = login.into_iter();
            // What the operator meant as the password, whatever Go reads.
            let written = variable.userinfo();
            let written = written.as_deref().and_then(|text| text.split_once(':'));
            let written = written.map(|(_, password)| Secret::new(password.to_owned()));
            login
                .flat_map(|login| [login.password, login.pair, login.authorization])
                .chain(written)
                .filter(|secret| !secret.expose().is_empty())
        })
    }
}

fn proxied(proxy: Proxy, missed: Vec<MissedException>) -> ProxyRoute {
    ProxyRoute::Proxied { proxy, missed }
}

impl Variable {
    /// The proxy that these builds of Go read from it; `None` if they use none. If they differ, the first one's, with a
    /// fault that says so.
    fn read(&self, builds: &[GoBuild]) -> Option<ProxyServer> {
        let mut readings = builds.iter().map(|build| (build, self.read_by(build)));
        let (first, mut reading) = readings.next()?;
        let proxy = |server: &Option<ProxyServer>| server.as_ref().map(|s| s.proxy.clone());
        let mut other = readings.filter(|(_, other)| proxy(other) != proxy(&reading));
        if let Some((build, other)) = other.next() {
            let name = &self.name;
            let shown = |server: &Option<ProxyServer>| {
                proxy(server).map_or("no proxy".to_owned(), |proxy| proxy.to_string())
            };
            let reason = format!(
                "{first} takes {name} for {}, and {build} for {}",
                shown(&reading),
                shown(&other)
            );
            reading = reading.or(other);
            let server = reading.as_mut()?;
            server.proxy.fault = Some(ProxyFault::Undecided { reason });
        }
        reading
    }

    /// `parseProxy`: text that is not a URL with a host is parsed again with `http://` in front. That is right for
    /// `host:3128`, but turns `http://[host` into a proxy named `http`. Also returns the text that was parsed.
    fn url(&self, build: &GoBuild) -> Option<(String, GoUrl)> {
        let rules = HostRules {
            strict_colons: build.has_strict_colons(),
            strict_brackets: build.has_strict_brackets(),
        };
        let value = self.value.expose();
        let again = format!("http://{value}");
        let is_fit = |url: &GoUrl| {
            if build.takes_any_proxy_scheme() {
                !url.scheme.is_empty() && !url.host.is_empty()
            } else {
                matches!(&*url.scheme, "http" | "https" | "socks5")
            }
        };
        match go_url::parse(value, rules) {
            Ok(url) if is_fit(&url) => Some((value.to_owned(), url)),
            first => match go_url::parse(&again, rules) {
                Ok(url) => Some((again, url)),
                Err(_) => Some((value.to_owned(), first.ok()?)),
            },
        }
    }

    fn read_by(&self, build: &GoBuild) -> Option<ProxyServer> {
        let (text, url) = self.url(build)?;
        let misread = self.culprit().map(|culprit| ProxyFault::Misread {
            variable: self.name.clone(),
            character: culprit.0,
            encoded: culprit.1,
        });
        let unsure = (url.scheme == "socks5h" && !build.knows_socks5h()).then(|| {
            ProxyFault::Undecided {
                reason: format!("whether {build} speaks SOCKS5 to a socks5h:// proxy is not known; socks5:// means the same to Go, in all releases"),
            }
        });
        let (host, port) = host_and_port(&url);
        let login = url.userinfo.clone().map(|at| Login::of(&text[at]));
        let mut proxy = Proxy {
            scheme: url.scheme,
            authority: format!("{host}:{port}"),
            authenticated: login.is_some(),
            variable: self.name.clone(),
            fault: misread.or(unsure),
        };
        if matches!(proxy.fault, Some(ProxyFault::Misread { .. })) {
            // What Go takes for the host may be a part of the password.
            (proxy.scheme, proxy.authority) = self.meant();
        }
        Some(ProxyServer {
            proxy,
            host,
            port,
            login,
        })
    }

    /// The scheme, and what follows it.
    fn parts(&self) -> (&str, &str) {
        let value = self.value.expose();
        let parts = value.split_once("://");
        let parts = parts.filter(|(scheme, _)| !scheme.contains([':', '@', '/']));
        parts.unwrap_or(("http", value))
    }

    /// The user and password as they are meant: what precedes the last `@`.
    fn userinfo(&self) -> Option<String> {
        let (userinfo, _) = self.parts().1.rsplit_once('@')?;
        Some(userinfo.to_owned())
    }

    /// The scheme and `host:port` as they are meant.
    fn meant(&self) -> (String, String) {
        let (scheme, rest) = self.parts();
        let (_, host) = rest.rsplit_once('@').unwrap_or(("", rest));
        let host = host.split(['/', '?', '#']).next().unwrap_or_default();
        (printable(scheme), printable(host))
    }

    /// The first character of the user and password that Go does not take there, and how it is written instead.
    fn culprit(&self) -> Option<(String, String)> {
        let value = self.value.expose();
        // A slash is missing after the scheme: that is the mistake.
        let mut schemes = ["http", "https", "socks5"].into_iter();
        if !value.contains("://") && schemes.any(|one| value.starts_with(&format!("{one}:/"))) {
            return None;
        }
        let userinfo = self.userinfo()?;
        let is_encoded = |at: usize| {
            let digits = userinfo.as_bytes().get(at + 1..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        let mut characters = userinfo.char_indices();
        let (_, character) = characters.find(|(at, c)| match c {
            '%' => !is_encoded(*at),
            c => !go_url::is_of_userinfo(*c),
        })?;
        let mut bytes = [0; 4];
        let bytes = character.encode_utf8(&mut bytes).bytes();
        let encoded = bytes.fold(String::new(), |text, byte| text + &format!("%{byte:02X}"));
        let shown = match character {
            ' ' => "a blank".to_owned(),
            c if c.is_control() => "a control character".to_owned(),
            c => format!("'{c}'"),
        };
        Some((shown, encoded))
    }

    /// Go uses no proxy.
    fn unread(&self, culprit: Option<(String, String)>) -> IgnoredVariable {
        let name = &self.name;
        let (reason, hint) = match culprit {
            Some((character, encoded)) => (
                format!(
                    "Go can't read its user and password because of {character}, and uses no proxy"
                ),
                written_as(name, &character, &encoded),
            ),
            None => (
                "Go can't read it, and uses no proxy".to_owned(),
                format!("Write http://HOST:PORT into {name}, without blanks."),
            ),
        };
        IgnoredVariable {
            variable: name.clone(),
            reason,
            hint,
        }
    }

    /// Whether Go reads the host that is written.
    fn is_as_written(&self, proxy: &Proxy) -> bool {
        let (_, meant) = self.meant();
        let (meant, _) = split_port(&meant);
        let (read, _) = split_port(&proxy.authority);
        let is_encoded = !meant.is_ascii() || meant.contains('%');
        let value = self.value.expose();
        let is_whole = value.contains("://") || !value.contains("//");
        proxy.fault.is_some() || is_encoded || (is_whole && meant.eq_ignore_ascii_case(read))
    }
}

/// The host and port that Go dials for a URL. Port 0 if the port is invalid; loopback if there is no host.
fn host_and_port(url: &GoUrl) -> (Host, u16) {
    let (name, port) = split_port(&url.host);
    let port = match (port.unwrap_or_default(), url.scheme.as_str()) {
        ("", "http") => 80,
        ("", "https") => 443,
        ("", "socks5" | "socks5h") => 1080,
        (port, _) => port.parse().unwrap_or_default(),
    };
    let host = match name {
        "" => Host::Address(std::net::Ipv4Addr::LOCALHOST.into()),
        name if name.is_ascii() => Host::new(name),
        name => Host::new(&url::Host::parse(name).map_or(name.to_owned(), |host| host.to_string())),
    };
    (host, port)
}

impl Rule {
    /// `by_name`: addresses are compared with domains too.
    fn matches(&self, server: &Server, by_name: bool) -> bool {
        let is_port = |wanted: &str| wanted.is_empty() || wanted == server.port;
        match (self, server.address) {
            (Self::All, _) => true,
            (Self::Network(network), Some(address)) => network.contains(&address),
            (Self::Address { address: of, port }, Some(address)) => *of == address && is_port(port),
            (
                Self::Domain {
                    suffix,
                    port,
                    itself,
                },
                address,
            ) if address.is_none() || by_name => {
                let name = &server.name;
                (name.ends_with(suffix) || (*itself && name == &suffix[1..])) && is_port(port)
            }
            _ => false,
        }
    }
}

/// Parses `NO_PROXY` as `config.init` does; entries that it can't use are ignored silently.
fn exceptions(text: &str) -> Vec<Exception> {
    let mut exceptions = Vec::new();
    for entry in text.split(',') {
        let entry = entry.trim().to_lowercase();
        let Some(rule) = rule_of(&entry) else {
            continue;
        };
        let is_all = matches!(rule, Rule::All);
        exceptions.push(Exception {
            entry: printable(&entry),
            rule,
        });
        if is_all {
            break;
        }
    }
    exceptions
}

fn rule_of(entry: &str) -> Option<Rule> {
    if entry.is_empty() {
        return None;
    }
    if entry == "*" {
        return Some(Rule::All);
    }
    if let Ok(network) = entry.parse() {
        return Some(Rule::Network(in_ipv4(network)));
    }
    let (host, port) = match split_host_port(entry) {
        Some(("", _)) => return None,
        Some((host, port)) => (host, port.to_owned()),
        None => (entry, String::new()),
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        let address = address.to_canonical();
        return Some(Rule::Address { address, port });
    }
    let host = host
        .strip_prefix('*')
        .filter(|rest| rest.starts_with('.'))
        .unwrap_or(host);
    let itself = !host.starts_with('.');
    let suffix = if itself {
        format!(".{host}")
    } else {
        host.to_owned()
    };
    Some(Rule::Domain {
        suffix: ascii(&suffix),
        port,
        itself,
    })
}

/// A name with a leading dot, in the form that is asked for in DNS.
fn ascii(suffix: &str) -> String {
    if suffix.is_ascii() {
        return suffix.to_owned();
    }
    let host = url::Host::parse(&suffix[1..]);
    host.map_or_else(|_| suffix.to_owned(), |host| format!(".{host}"))
}

/// A network of IPv4 addresses in IPv6 form, as one of IPv4 addresses.
fn in_ipv4(network: IpNet) -> IpNet {
    let length = network.prefix_len().checked_sub(96);
    let address = network.addr().to_canonical();
    match (network, length) {
        (IpNet::V6(_), Some(length)) if address.is_ipv4() => {
            IpNet::new(address, length).unwrap_or(network)
        }
        _ => network,
    }
}

/// Why an entry that does not match a server seems to mean it; `None` if it does not.
fn near_miss(entry: &str, server: &Server) -> Option<String> {
    let matches =
        |text: &str, server: &Server| rule_of(text).is_some_and(|rule| rule.matches(server, false));
    let any_port = Server {
        name: server.name.clone(),
        port: String::new(),
        ..*server
    };
    let means = |text: &str| matches(text, server) || matches(without_port(text), &any_port);
    if !entry.contains('/') && matches(without_port(entry), &any_port) {
        return Some(format!("its port is not {}", server.port));
    }
    if let Some(parent) = entry.strip_prefix("*.").or(entry.strip_prefix('.'))
        && means(parent)
    {
        return Some(format!(
            "it means names below {parent}, not {parent} itself"
        ));
    }
    let is_separator = |c: char| c.is_whitespace() || matches!(c, ';' | '|');
    let mut words = entry.split(is_separator).peekable();
    if entry.contains(is_separator) && words.any(|word| means(bare(word))) {
        return Some("only commas separate entries".to_owned());
    }
    if let Some((_, rest)) = entry.split_once("://")
        && means(bare(rest))
    {
        return Some("an entry has no scheme".to_owned());
    }
    let unquoted = entry.trim_matches(['"', '\'']);
    if unquoted != entry && means(bare(unquoted)) {
        return Some("it has quotes, which Go does not remove".to_owned());
    }
    if means(bare(entry)) {
        let what = if entry.contains('/') {
            "a path"
        } else {
            "a dot at its end"
        };
        return Some(format!("it has {what}, and is compared with it"));
    }
    // `[2001:db8::1]` without a port.
    let inner = entry.strip_prefix('[').and_then(|e| e.strip_suffix(']'));
    if inner.is_some_and(means) {
        return Some("Go reads brackets only before a port".to_owned());
    }
    let is_pattern = entry.contains('*') && is_like(entry, &server.name);
    is_pattern.then(|| {
        "Go knows '*' alone and '*.' at the beginning of an entry, and no other pattern".to_owned()
    })
}

fn without_port(entry: &str) -> &str {
    split_host_port(entry).map_or(entry, |(host, _)| host)
}

/// An entry without scheme, quotes, path and last dot.
fn bare(entry: &str) -> &str {
    let entry = entry.trim_matches(['"', '\'']);
    let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let entry = entry.split('/').next().unwrap_or_default();
    entry.strip_suffix('.').unwrap_or(entry)
}

/// Whether a name matches a pattern in which each `*` stands for any text.
fn is_like(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            let mut ends = rest.char_indices().map(|(at, _)| at);
            ends.any(|at| is_like(after, &rest[at..])) || is_like(after, "")
        }),
    }
}

/// Characters of a `NO_PROXY` list that are shown in reports.
const MAX_SHOWN: usize = 2000;

#[cfg(test)]
mod tests;
