//! Proxies: which one a leg went by, and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::fault::ProxyFault;

/// The proxy settings in force, without the user and password they may hold.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ProxySettings {
    /// Where they come from: `the environment`, or files.
    pub source: String,
    /// They are said to be containerd's own (`--proxy-from`); those of the environment may not be.
    pub is_containerds: bool,
    /// For https: `HTTPS_PROXY`.
    pub https: Option<Proxy>,
    /// For plain http: `HTTP_PROXY`.
    pub http: Option<Proxy>,
    pub no_proxy: Option<String>,
    /// What could not be used of them.
    pub problems: Vec<String>,
    /// Files of them that were changed after containerd started, and when: it goes by what it read then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}

/// One proxy.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Proxy {
    /// `http`, `https`, `socks5`, or what Go does not know.
    pub scheme: String,
    /// `host:port`.
    pub authority: String,
    /// A user and password go along.
    pub authenticated: bool,
    /// The variable that names it, as it was written.
    pub variable: String,
}

impl Proxy {
    /// Why nothing can be said of its like before it is spoken to.
    pub fn unspoken(&self) -> Option<ProxyFault> {
        let scheme = self.scheme.clone();
        match scheme.as_str() {
            "http" | "https" => None,
            "socks5" | "socks5h" => Some(ProxyFault::Unsupported { scheme }),
            _ => Some(ProxyFault::Undecided {
                reason: format!(
                    "builds of containerd with older Go take {self} for a proxy named '{scheme}', those with Go 1.24 and later speak plain HTTP to it"
                ),
            }),
        }
    }
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// How a leg's server is got at (Go, `golang.org/x/net/http/httpproxy`).
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProxyRoute {
    /// No proxy is set for the scheme.
    #[default]
    Direct,
    /// localhost and loopback addresses never go by a proxy.
    Loopback,
    /// This entry of `NO_PROXY` matched.
    Excepted { entry: String, proxy: Proxy },
    /// By this proxy; no entry of `NO_PROXY` matched.
    Proxied { proxy: Proxy },
    /// Without the proxy that the settings ask for, because that was asked for.
    Forced { proxy: Proxy },
}

impl ProxyRoute {
    pub fn proxy(&self) -> Option<&Proxy> {
        match self {
            Self::Proxied { proxy } => Some(proxy),
            _ => None,
        }
    }
}

/// What a proxy said to `CONNECT` (RFC 9110, 9.3.6).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Tunnel {
    /// The server the proxy was asked to connect to, and what is resolved there.
    pub to: Endpoint,
    pub status: u16,
}
