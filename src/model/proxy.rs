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
    /// Variables that are set and that containerd does not use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<IgnoredVariable>,
    /// Files of these settings that were changed after containerd started, with the time of the change.
    /// containerd uses what it read at its start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}

/// A variable, or a line that would set one, that containerd does not use, or not as it is meant.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct IgnoredVariable {
    /// Its name, as it was written; a dropped line may set several.
    pub variable: String,
    /// Why, in words.
    pub reason: String,
    /// What to write instead.
    pub hint: String,
}

impl IgnoredVariable {
    /// Whether it would set the proxy for a scheme (`https`, `http`), or for all.
    pub fn is_proxy_of(&self, scheme: &str) -> bool {
        let name = self.variable.to_ascii_lowercase();
        name.contains("all_proxy") || name.contains(&format!("{scheme}_proxy"))
    }
}

/// The hint for a character of a proxy's user or password that Go does not take as it is.
pub fn written_as(variable: &str, character: &str, encoded: &str) -> String {
    format!(
        "Write {character} as {encoded} in the user or password of {variable} (in a systemd unit as %{encoded}), and \
         other special characters likewise; then restart containerd."
    )
}

impl std::fmt::Display for IgnoredVariable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.variable, self.reason)
    }
}

/// One proxy.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Proxy {
    /// `http`, `https`, `socks5`, or another scheme, to which Go 1.23 and later speak plain HTTP.
    pub scheme: String,
    /// `host:port`.
    pub authority: String,
    /// Whether a user and password are sent to it.
    pub authenticated: bool,
    /// The variable that sets it, as it was written.
    pub variable: String,
    /// Why containerd can't use it, or why that is unknown; such a proxy is not contacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<ProxyFault>,
}

impl Proxy {
    /// Whether it speaks SOCKS5.
    pub fn is_socks(&self) -> bool {
        matches!(&*self.scheme, "socks5" | "socks5h")
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
    /// No proxy is set for the scheme, and an entry of `NO_PROXY` matches besides.
    Exempt {
        /// That entry.
        entry: String,
    },
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
        /// Entries of `NO_PROXY` that seem to mean this server, and do not match it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missed: Vec<MissedException>,
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
            Self::Proxied { proxy, .. } => Some(proxy),
            _ => None,
        }
    }

    /// Entries of `NO_PROXY` that seem to mean the server, and do not match it.
    pub fn missed(&self) -> &[MissedException] {
        match self {
            Self::Proxied { missed, .. } => missed,
            _ => &[],
        }
    }
}

/// An entry of `NO_PROXY` that seems to mean a server, and does not match it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct MissedException {
    /// The entry, as written.
    pub entry: String,
    /// Why it does not match, in words.
    pub reason: String,
}

/// A proxy's answer to `CONNECT` (RFC 9110, 9.3.6; with SOCKS5: RFC 1928, 4).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Tunnel {
    /// The server that the proxy was requested to connect to. The proxy resolves its name.
    pub to: Endpoint,
    /// HTTP status of the answer; 0 (succeeded) of SOCKS5.
    pub status: u16,
}
