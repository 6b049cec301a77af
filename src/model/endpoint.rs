//! Endpoints: scheme, host and port of an HTTP server.

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

/// What a pull uses an endpoint for.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The registry, or the mirror that is used in its place.
    Registry,
    /// The token service that the registry's challenge names (`realm`).
    Token,
    /// The blob storage that the registry redirects the download of a layer to.
    Blob,
}

impl Role {
    /// The JSON value and metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Token => "token",
            Self::Blob => "blob",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Scheme of an endpoint's URL.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain HTTP, without TLS.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443 (RFC 9110, 4.2.1 and 4.2.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port` at the last colon after the brackets. Neither part is
/// checked.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after_address = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_address..].rfind(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(after_address + colon);
            (host, Some(&port[1..]))
        }
        None => (authority, None),
    }
}

/// Go's `net.SplitHostPort`: host (without brackets) and port. `None` where Go returns an error: the port is
/// missing, or a host with colons is not in brackets.
pub fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let (host, has_colons) = match host.strip_prefix('[') {
        Some(rest) => (rest.strip_suffix(']')?, true),
        None => (host, false),
    };
    let is_stray = |c: char| matches!(c, '[' | ']') || (c == ':' && !has_colons);
    (!host.contains(is_stray) && !port.contains(['[', ']'])).then_some((host, port))
}

/// A host name (lower case; with a trailing dot only if it was written so) or an address.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
    /// A DNS name, not checked.
    Name(String),
}

impl Host {
    /// Reads `registry.example.com`, `10.0.3.9`, `::1` or `[::1]`.
    pub fn new(text: &str) -> Self {
        let bare = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        match bare.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(text.to_ascii_lowercase()),
        }
    }

    /// The host as text, an IPv6 address without brackets.
    pub fn bare(&self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Name(name) => name.clone(),
        }
    }

    /// Whether Go's resolver and containerd take it for this machine: `localhost`, 127.0.0.0/8 or `::1`.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name == "localhost" || name == "localhost.",
        }
    }
}

impl fmt::Display for Host {
    /// As in a URL: an IPv6 address is in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// One HTTP server. It never has a path or a query: those may be signed, and are secrets then.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub struct Endpoint {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Name or address of the server.
    pub host: Host,
    /// TCP port; the scheme's default port if the URL has none.
    pub port: u16,
}

impl Endpoint {
    /// The server part of a URL; `None` if the scheme is neither http nor https, or there is no host.
    pub fn of(url: &Url) -> Option<Self> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let host = Host::new(url.host_str()?);
        Some(Self {
            scheme,
            host,
            port: url.port_or_known_default()?,
        })
    }

    /// `host:port` as an HTTP `Host` field value: the scheme's default port is omitted (RFC 9110, 7.2).
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The URL of `path_and_query` on this server.
    ///
    /// # Errors
    ///
    /// If the host is not valid in a URL.
    pub fn url(&self, path_and_query: &str) -> Result<Url, url::ParseError> {
        Url::parse(&format!("{self}{path_and_query}"))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_prints_without_default_port_path_or_query() {
        for (url, text) in [
            (
                "https://registry.example.com/v2/?X-Amz-Signature=abc",
                "https://registry.example.com",
            ),
            (
                "https://Registry.Example.com:443/",
                "https://registry.example.com",
            ),
            ("http://10.0.3.9:5000/x", "http://10.0.3.9:5000"),
            ("https://[fd12::5]:8443/", "https://[fd12::5]:8443"),
        ] {
            let endpoint = Endpoint::of(&Url::parse(url).unwrap()).unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
        assert_eq!(Endpoint::of(&Url::parse("ftp://x/").unwrap()), None);
    }

    #[test]
    fn a_port_is_what_stands_behind_the_last_colon() {
        for (authority, host, port) in [
            ("registry.test", "registry.test", None),
            ("registry.test:5000", "registry.test", Some("5000")),
            ("registry.test:", "registry.test", Some("")),
            ("[fd12::5]", "[fd12::5]", None),
            ("[fd12::5]:5000", "[fd12::5]", Some("5000")),
            ("", "", None),
        ] {
            assert_eq!(split_port(authority), (host, port), "{authority}");
        }
    }

    /// Cases of `TestSplitHostPort` in Go's net/ip_test.go.
    #[test]
    fn host_and_port_are_split_as_go_does() {
        for (text, want) in [
            ("localhost:http", Some(("localhost", "http"))),
            ("localhost:", Some(("localhost", ""))),
            (":80", Some(("", "80"))),
            ("[::1]:80", Some(("::1", "80"))),
            ("[fe80::1%lo0]:", Some(("fe80::1%lo0", ""))),
            ("golang.org", None),
            ("127.0.0.1", None),
            ("[::1]", None),
            ("::1", None),
            ("[::1]80", None),
            ("[::1]:80:90", None),
            ("[foo:bar]baz", None),
            ("foo[bar:80", None),
            ("foo]bar:80", None),
            ("[foo]:[bar]:baz", None),
            ("[foo]bar:baz", None),
            ("foo:80]", None),
        ] {
            assert_eq!(split_host_port(text), want, "{text}");
        }
    }
}
