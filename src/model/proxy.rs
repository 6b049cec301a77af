//! Proxy settings, and which of them apply to a leg.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::fault::ProxyFault;

/// The proxy settings that were applied, without any user and password in them.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ProxySettings {
    /// Where they were read: `the environment`, or files.
    pub source: String,
    /// Whether they are containerd's own (`--proxy-from`); those of this process's environment may differ.
    pub is_containerds: bool,
    /// The proxy for https: `HTTPS_PROXY`; absent if there is none.
    pub https: Option<Proxy>,
    /// The proxy for plain http: `HTTP_PROXY`; absent if there is none.
    pub http: Option<Proxy>,
    /// `NO_PROXY`, as written; absent if it is not set.
    pub no_proxy: Option<String>,
    /// What could not be used, and why.
    pub problems: Vec<String>,
    /// Files of these settings that were changed after containerd started, with the time of the change.
    /// containerd uses what it read at its start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}

/// One proxy.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Proxy {
    /// `http`, `https`, `socks5`, or a scheme that Go does not support.
    pub scheme: String,
    /// `host:port`.
    pub authority: String,
    /// Whether a user and password are sent to it.
    pub authenticated: bool,
    /// The variable that sets it, as it was written.
    pub variable: String,
}

impl Proxy {
    /// Why this kind of proxy can't be checked; `None` if it can.
    pub fn unspoken(&self) -> Option<ProxyFault> {
        let scheme = self.scheme.clone();
        match scheme.as_str() {
            "http" | "https" => None,
            "socks5" | "socks5h" => Some(ProxyFault::Unsupported { scheme }),
            _ => Some(ProxyFault::Undecided {
                reason: format!(
                    "containerd built with Go before 1.24 takes {self} for a proxy named '{scheme}'; built with Go 1.24 or later, it speaks plain HTTP to it"
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

/// Whether a leg uses a proxy, and why (Go, `golang.org/x/net/http/httpproxy`).
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProxyRoute {
    /// No proxy is set for the scheme.
    #[default]
    Direct,
    /// localhost and loopback addresses never use a proxy.
    Loopback,
    /// Direct, because an entry of `NO_PROXY` matches.
    Excepted {
        /// That entry.
        entry: String,
        /// The proxy that would be used otherwise.
        proxy: Proxy,
    },
    /// Through a proxy; no entry of `NO_PROXY` matches.
    Proxied {
        /// The proxy.
        proxy: Proxy,
    },
    /// Direct, although the settings have a proxy, because that was requested (`--compare-direct`).
    Forced {
        /// The proxy that the settings have.
        proxy: Proxy,
    },
}

impl ProxyRoute {
    /// The proxy that the leg uses; `None` if it is direct.
    pub fn proxy(&self) -> Option<&Proxy> {
        match self {
            Self::Proxied { proxy } => Some(proxy),
            _ => None,
        }
    }
}

/// A proxy's answer to `CONNECT` (RFC 9110, 9.3.6).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Tunnel {
    /// The server that the proxy was requested to connect to. The proxy resolves its name.
    pub to: Endpoint,
    /// HTTP status of the answer.
    pub status: u16,
}
