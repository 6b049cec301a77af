//! Which legs use a proxy, with the rules of Go's net/http (`golang.org/x/net/http/httpproxy`), since containerd is a
//! Go program; and the files that set containerd's proxies. Pure.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use ipnet::IpNet;

use crate::model::endpoint::{Endpoint, Host, Scheme, split_host_port, split_port};
use crate::model::go_url::{self, GoUrl};
use crate::model::proxy::{Proxy, ProxyRoute, ProxySettings};
use crate::model::text::{clean, printable};
use crate::redact::Secret;

/// The proxies in force for a run.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    settings: ProxySettings,
    http: Option<ProxyServer>,
    https: Option<ProxyServer>,
    exceptions: Vec<Exception>,
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
    /// `Proxy-Authorization` (RFC 9110, 11.7.2), from the user and password of the URL.
    pub authorization: Option<Secret>,
    /// The password alone, to be removed from all output.
    pub password: Option<Secret>,
    /// The user and password in Basic encoding, for the same purpose.
    pub pair: Option<Secret>,
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

impl Proxies {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, or their lower-case forms if those are unset or empty.
    pub fn new(
        source: &str,
        is_containerds: bool,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let either = |name: &str| {
            [name.to_owned(), name.to_ascii_lowercase()]
                .into_iter()
                .find_map(|n| Some((variable(&n).filter(|v| !v.is_empty())?, n)))
        };
        let mut problems = Vec::new();
        let mut server = |name: &str| {
            let (value, variable) = either(name)?;
            let server = parse_proxy(&value, &variable);
            // The value may contain a password.
            let reading = match &server {
                None => "so none is used".to_owned(),
                Some((server, false)) => format!("but Go treats it as {}", server.proxy),
                Some((_, true)) => return server.map(|(server, _)| server),
            };
            problems.push(format!(
                "{variable} is not a proxy URL, {reading}; write http://HOST:PORT"
            ));
            server.map(|(server, _)| server)
        };
        let https = server("HTTPS_PROXY");
        let http = server("HTTP_PROXY");
        let no_proxy = either("NO_PROXY").map(|(value, _)| value);
        let exceptions = no_proxy.as_deref().map_or_else(Vec::new, exceptions);
        Self {
            settings: ProxySettings {
                source: source.to_owned(),
                is_containerds,
                https: https.as_ref().map(|s: &ProxyServer| s.proxy.clone()),
                http: http.as_ref().map(|s: &ProxyServer| s.proxy.clone()),
                no_proxy: no_proxy.map(|text| clean(&text, MAX_SHOWN)),
                problems,
                changed: Vec::new(),
            },
            http,
            https,
            exceptions,
        }
    }

    /// Records messages about source files that changed after containerd started.
    pub(super) fn note_changed(&mut self, changed: Vec<String>) {
        self.settings.changed = changed;
    }

    /// Whether containerd may have other proxies than these.
    pub fn are_changed(&self) -> bool {
        !self.settings.changed.is_empty()
    }

    /// The settings as evidence.
    pub fn settings(&self) -> &ProxySettings {
        &self.settings
    }

    /// The route to a server, and the proxy on it, if any.
    pub fn route(&self, endpoint: &Endpoint) -> (ProxyRoute, Option<&ProxyServer>) {
        let server = match endpoint.scheme {
            Scheme::Https => &self.https,
            Scheme::Http => &self.http,
        };
        let Some(server) = server else {
            return (ProxyRoute::Direct, None);
        };
        let (name, address) = match &endpoint.host {
            Host::Address(address) => (address.to_string(), Some(*address)),
            Host::Name(name) => (name.clone(), None),
        };
        if name == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return (ProxyRoute::Loopback, None);
        }
        let port = endpoint.port.to_string();
        // Go checks the addresses first; which entry matched makes no other difference.
        let excepted = self
            .exceptions
            .iter()
            .find(|exception| exception.rule.matches(&name, address, &port));
        let proxy = server.proxy.clone();
        match excepted {
            Some(exception) => {
                let entry = exception.entry.clone();
                (ProxyRoute::Excepted { entry, proxy }, None)
            }
            None => (ProxyRoute::Proxied { proxy }, Some(server)),
        }
    }

    /// Every secret in the settings.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let servers = self.http.iter().chain(&self.https);
        servers.flat_map(|s| s.password.iter().chain(&s.pair).chain(&s.authorization))
    }
}

impl Rule {
    fn matches(&self, name: &str, address: Option<IpAddr>, port: &str) -> bool {
        let is_port = |wanted: &str| wanted.is_empty() || wanted == port;
        match (self, address) {
            (Self::All, _) => true,
            (Self::Network(network), Some(address)) => network.contains(&address.to_canonical()),
            (Self::Address { address: of, port }, Some(address)) => {
                *of == address.to_canonical() && is_port(port)
            }
            (
                Self::Domain {
                    suffix,
                    port,
                    itself,
                },
                None,
            ) => (name.ends_with(suffix) || (*itself && name == &suffix[1..])) && is_port(port),
            _ => false,
        }
    }
}

/// Parses a proxy as `parseProxy` does; the flag: its URL was used as written. Text that is not a URL with a host is
/// parsed again with `http://` in front, as Go does: that is right for `host:3128`, but turns `http://[host` into a
/// proxy named `http`. `None`: Go uses no proxy, or a part of a password would be shown.
fn parse_proxy(value: &str, variable: &str) -> Option<(ProxyServer, bool)> {
    let again = format!("http://{value}");
    let is_known = |url: &GoUrl| ["http", "https", "socks5", "socks5h"].contains(&&*url.scheme);
    let (text, url) = match go_url::parse_url(value, false) {
        Ok(url) if is_known(&url) || !url.host.is_empty() => (value, url),
        first => match go_url::parse_url(&again, false) {
            Ok(url) => (&*again, url),
            Err(_) => (value, first.ok()?),
        },
    };
    let is_as_written = text == value || !value.contains("://");
    let rest = text.split_once("//").map_or("", |(_, rest)| rest);
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // An unencoded '/' or '#' in a password ends the authority in the middle of it.
    if rest.contains('@') && !authority.ends_with(':') {
        return None;
    }
    let (user, _) = authority.rsplit_once('@').unzip();
    let (host, port) = host_and_port(&url);
    let (authorization, login) = user.map(login).unzip();
    let (password, pair) = login.unzip();
    let server = ProxyServer {
        proxy: Proxy {
            authority: format!("{host}:{port}"),
            authenticated: authorization.is_some(),
            scheme: if url.host.is_empty() && !is_known(&url) {
                "http".to_owned()
            } else {
                url.scheme
            },
            variable: variable.to_owned(),
        },
        host,
        port,
        authorization,
        password: password.filter(|password| !password.is_empty()),
        pair,
    };
    Some((server, is_as_written))
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

/// The value of `Proxy-Authorization` for `user:password` of a URL; then the password and the pair.
fn login(user: &str) -> (Secret, (Secret, Secret)) {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let password = Secret::new(go_url::decoded(password));
    let pair = format!("{}:{}", go_url::decoded(user), password.expose());
    let pair = Secret::new(STANDARD.encode(pair));
    let authorization = Secret::new(format!("Basic {}", pair.expose()));
    (authorization, (password, pair))
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
        return Some(Rule::Network(network));
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
        suffix,
        port,
        itself,
    })
}

/// The variables that files set, in order (later ones win), and further files that they name.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The values may be passwords.
    pub variables: Vec<(String, Secret)>,
    /// The environment files that units name.
    pub includes: Vec<Include>,
    /// `UnsetEnvironment=`, which is applied last.
    pub unset: Vec<String>,
}

/// `EnvironmentFile=` of a unit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Include {
    /// The file.
    pub path: String,
    /// The path has the prefix `-`: the file is optional.
    pub may_be_absent: bool,
    /// The file that names it.
    pub of: String,
}

impl Environment {
    /// Reads a systemd unit or drop-in (systemd.exec(5), `Environment=`), or an environment file.
    pub fn read(&mut self, text: &str, of: &str) {
        let lines = logical_lines(text);
        let is_unit = lines.iter().any(|line| {
            let line = line.trim();
            line.eq_ignore_ascii_case("[service]")
                || line.starts_with("Environment=")
                || line.starts_with("EnvironmentFile=")
        });
        for line in &lines {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';', '[']) {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let (key, value) = (key.trim(), value.trim());
            if !is_unit {
                let key = key.strip_prefix("export ").unwrap_or(key).trim();
                let value = words(value).into_iter().next().unwrap_or_default();
                self.variables.push((key.to_owned(), Secret::new(value)));
                continue;
            }
            match key {
                // An empty value resets what was set before, in other files as well.
                "Environment" if value.is_empty() => self.variables.clear(),
                "Environment" => {
                    for word in words(value) {
                        if let Some((name, value)) = word.split_once('=') {
                            // A unit writes a literal percent sign as two (systemd.unit(5), specifiers).
                            let value = Secret::new(value.replace("%%", "%"));
                            self.variables.push((name.to_owned(), value));
                        }
                    }
                }
                "EnvironmentFile" if value.is_empty() => self.includes.clear(),
                "EnvironmentFile" => self.includes.push(Include {
                    path: value.strip_prefix('-').unwrap_or(value).to_owned(),
                    may_be_absent: value.starts_with('-'),
                    of: of.to_owned(),
                }),
                "UnsetEnvironment" => self.unset.extend(words(value)),
                _ => {}
            }
        }
    }
}

/// Lines; a line that ends in a backslash is joined to the next.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut continued = false;
    for line in text.lines() {
        let (part, more) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| continued) {
            Some(last) => {
                last.push(' ');
                last.push_str(part);
            }
            None => lines.push(part.to_owned()),
        }
        continued = more;
    }
    lines
}

/// Words without quotes, split as systemd and shells do.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None | Some('"'), '\\') => {
                word.get_or_insert_default()
                    .push(chars.next().unwrap_or('\\'));
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Characters of a `NO_PROXY` list that are shown in reports.
const MAX_SHOWN: usize = 2000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    fn proxies(https: &str, no_proxy: &str) -> Proxies {
        Proxies::new("test", true, |name| match name {
            "HTTPS_PROXY" => Some(https.to_owned()),
            "NO_PROXY" => Some(no_proxy.to_owned()),
            _ => None,
        })
    }

    fn read(text: &str) -> Environment {
        let before = Include {
            path: "/before".to_owned(),
            may_be_absent: false,
            of: "another".to_owned(),
        };
        let mut environment = Environment {
            variables: vec![("BEFORE".to_owned(), Secret::new("1"))],
            includes: vec![before],
            unset: Vec::new(),
        };
        environment.read(text, "test");
        environment
    }

    fn set(environment: &Environment) -> Vec<String> {
        let variables = environment.variables.iter();
        variables
            .map(|(name, value)| format!("{name}={}", value.expose()))
            .collect()
    }

    fn included(environment: &Environment) -> Vec<(&str, bool)> {
        let includes = environment.includes.iter();
        includes
            .map(|one| (&*one.path, one.may_be_absent))
            .collect()
    }

    fn way(no_proxy: &str, url: &str) -> ProxyRoute {
        let endpoint = Endpoint::of(&Url::parse(url).unwrap()).unwrap();
        proxies("http://10.0.0.8:3128", no_proxy).route(&endpoint).0
    }

    /// The rows of the tables in x/net/http/httpproxy, by their meaning.
    #[test]
    fn a_proxys_login_is_hidden_as_it_travels() {
        let proxies = proxies("http://user:hunter22@10.0.0.8:3128", "");
        let mut scrub = crate::redact::Scrubber::default();
        for secret in proxies.secrets() {
            scrub.hide(secret);
        }
        let pair = STANDARD.encode("user:hunter22");
        let shown = scrub.clean(&format!("Basic {pair} <{pair}> hunter22"));
        assert_eq!(shown, "*** <***> ***");
    }

    #[test]
    fn an_empty_environment_file_takes_back_those_before() {
        let text = "[Service]\nEnvironmentFile=/etc/a\nEnvironmentFile=\nEnvironmentFile=-/etc/b\n";
        assert_eq!(included(&read(text)), [("/etc/b", true)]);
    }

    #[test]
    fn no_proxy_matches_as_go_does() {
        for (no_proxy, url, excepted) in [
            ("", "https://a.example.com", None),
            ("example.com", "https://example.com", Some("example.com")),
            ("example.com", "https://a.example.com", Some("example.com")),
            ("example.com", "https://badexample.com", None),
            (".example.com", "https://example.com", None),
            (
                ".example.com",
                "https://a.example.com",
                Some(".example.com"),
            ),
            (
                "*.example.com",
                "https://a.example.com",
                Some("*.example.com"),
            ),
            ("*.example.com", "https://example.com", None),
            (
                "EXAMPLE.com , x",
                "https://a.example.com",
                Some("example.com"),
            ),
            (
                "example.com:5000",
                "https://example.com:5000",
                Some("example.com:5000"),
            ),
            ("example.com:5000", "https://example.com", None),
            (
                "example.com:443",
                "https://example.com",
                Some("example.com:443"),
            ),
            ("10.0.0.0/8", "https://10.1.2.3", Some("10.0.0.0/8")),
            ("10.0.0.0/8", "https://registry.example.com", None),
            ("10.1.2.3", "https://10.1.2.3:5000", Some("10.1.2.3")),
            ("10.1.2.3:443", "https://10.1.2.3:5000", None),
            ("10.1.2", "https://10.1.2.3", None),
            ("fd00::/8", "https://[fd12::1]", Some("fd00::/8")),
            ("[fd12::1]:443", "https://[fd12::1]", Some("[fd12::1]:443")),
            ("fd12::1", "https://[fd12::1]", Some("fd12::1")),
            ("*", "https://a.example.com", Some("*")),
            ("x,*,y", "https://10.1.2.3", Some("*")),
            (":443, ,/", "https://a.example.com", None),
            ("0.0.0.0/0", "https://8.8.8.8", Some("0.0.0.0/0")),
            ("::/0", "https://8.8.8.8", None),
        ] {
            let got = way(no_proxy, url);
            let entry = match &got {
                ProxyRoute::Excepted { entry, .. } => Some(entry.as_str()),
                ProxyRoute::Proxied { .. } => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(entry, excepted, "NO_PROXY={no_proxy} {url}");
        }
        for url in [
            "https://localhost:5000",
            "https://127.3.2.1",
            "https://[::1]",
        ] {
            assert_eq!(way("", url), ProxyRoute::Loopback, "{url}");
        }
        assert_eq!(
            way("", "http://a.example.com"),
            ProxyRoute::Direct,
            "HTTP_PROXY is unset"
        );
    }

    #[test]
    fn a_proxy_is_read_as_go_does_and_its_password_kept_apart() {
        for (value, want) in [
            ("http://10.0.0.8:3128", Some("http://10.0.0.8:3128")),
            ("10.0.0.8:3128", Some("http://10.0.0.8:3128")),
            ("proxy.corp", Some("http://proxy.corp:80")),
            ("https://proxy.corp/", Some("https://proxy.corp:443")),
            ("socks5://proxy.corp", Some("socks5://proxy.corp:1080")),
            ("HTTPS://Proxy.corp:8443", Some("https://proxy.corp:8443")),
            ("http://[fd12::1]", Some("http://[fd12::1]:80")),
            (
                "http://bücher.example:1",
                Some("http://xn--bcher-kva.example:1"),
            ),
            ("http://", Some("http://127.0.0.1:80")),
            ("ftp://me:hunter22@10.0.0.8:1", Some("ftp://10.0.0.8:1")),
            ("http://a%zz", None),
        ] {
            let got = proxies(value, "");
            let shown = got.settings().https.as_ref().map(ToString::to_string);
            assert_eq!(shown.as_deref(), want, "{value}");
            assert_eq!(got.settings().problems.len(), usize::from(want.is_none()));
        }
        // Parsed again, with http:// in front.
        for (value, want) in [
            ("http://[10.0.0.8:3128", "http://http:80"),
            ("http://me:hun/ter22@10.0.0.8:3128", "http://http:80"),
            ("http://a b", "http://http:80"),
        ] {
            let got = proxies(value, "");
            let shown = got.settings().https.as_ref().map(ToString::to_string);
            assert_eq!(shown.as_deref(), Some(want), "{value}");
            assert!(got.settings().problems[0].contains(want), "{value}");
        }
        // With a trailing blank, the port is invalid, and the text before it becomes the scheme.
        let shown = proxies("proxy.corp:3128 ", "").settings().https.clone();
        assert_eq!(shown.unwrap().to_string(), "http://127.0.0.1:0");
        let hidden = proxies("http://me:22#hunter@10.0.0.8:3128", "");
        assert_eq!(hidden.settings().https, None);
        let secret = proxies("http://me:hunter%322@proxy.corp:3128", "");
        let server = secret.https.as_ref().unwrap();
        assert_eq!(server.password.as_ref().unwrap().expose(), "hunter22");
        let authorization = server.authorization.as_ref().unwrap().expose().to_owned();
        assert_eq!(
            authorization,
            format!("Basic {}", STANDARD.encode("me:hunter22"))
        );
        assert!(!format!("{secret:?}").contains("hunter"));
        assert_eq!(secret.secrets().count(), 3);
    }

    #[test]
    fn upper_case_comes_first_unless_it_is_empty() {
        let get = |upper: &'static str| {
            move |name: &str| match name {
                "HTTPS_PROXY" => Some(upper.to_owned()),
                "https_proxy" => Some("http://lower:1".to_owned()),
                _ => None,
            }
        };
        let https = |upper| {
            Proxies::new("t", false, get(upper))
                .settings()
                .https
                .clone()
                .unwrap()
        };
        assert_eq!(https("http://upper:1").variable, "HTTPS_PROXY");
        assert_eq!(https("").variable, "https_proxy");
    }

    #[test]
    fn drop_ins_and_environment_files_are_read() {
        let unit = "# by hand\n[Service]\nEnvironment=OLD=1\nEnvironment=\n\
                    Environment=\"HTTPS_PROXY=http://u:p%%40w@10.0.0.8:3128\" 'NO_PROXY=a,\\\n.b' X=y\n\
                    EnvironmentFile=-/etc/default/containerd\nUnsetEnvironment=X\n";
        let all = read(unit);
        assert_eq!(
            set(&all),
            [
                "HTTPS_PROXY=http://u:p%40w@10.0.0.8:3128",
                "NO_PROXY=a, .b",
                "X=y"
            ]
        );
        assert_eq!(all.unset, ["X"]);
        assert_eq!(
            included(&all),
            [("/before", false), ("/etc/default/containerd", true)]
        );
        assert!(!format!("{all:?}").contains("p%40w"));
        let plain = read(
            "# c\nexport HTTP_PROXY=\"http://a:1\"\nNO_PROXY='x,y'\nhttps_proxy=http://b:2 # c\n",
        );
        assert_eq!(
            set(&plain),
            [
                "BEFORE=1",
                "HTTP_PROXY=http://a:1",
                "NO_PROXY=x,y",
                "https_proxy=http://b:2"
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,200}", host in "[a-z0-9.:]{1,20}") {
            let _ = read(&text);
            let proxies = proxies(&text, &text);
            if let Ok(url) = Url::parse(&format!("https://{host}/"))
                && let Some(endpoint) = Endpoint::of(&url)
            {
                let _ = proxies.route(&endpoint);
            }
        }
    }
}
