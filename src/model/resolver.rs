//! The settings of name resolution: resolv.conf and nsswitch.conf as a Go program and libc read them, and what is known
//! of the runtime's own resolver.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Seconds;

/// The settings for DNS lookups.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the options of resolv.conf are independent"
)]
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ResolverSettings {
    /// Queried in this order; never more than three from a file.
    pub nameservers: Vec<SocketAddr>,
    /// Servers in the file that are not queried, because at most three are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_servers: Vec<SocketAddr>,
    /// Search suffixes, each with its final dot.
    pub search: Vec<String>,
    /// A name with at least this many dots is tried as written before the search list.
    pub ndots: usize,
    /// Time limit for one query to one server.
    #[serde(rename = "timeout_seconds", with = "Seconds")]
    #[schemars(with = "Seconds")]
    pub timeout: Duration,
    /// How often the whole list of servers is tried, as the file has it: Go makes 0 to 1, libc then asks nothing.
    pub attempts: usize,
    /// `options rotate`: each lookup starts with another server.
    pub rotate: bool,
    /// `options single-request` or `single-request-reopen`: A and AAAA are queried one after the other.
    pub single_request: bool,
    /// `options use-vc`: queries use TCP from the start.
    pub use_tcp: bool,
    /// `options no-aaaa`: libc queries no AAAA records; Go's own resolver does not know it.
    pub no_aaaa: bool,
    /// Options and keywords that some or all Go releases do not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unusual: Vec<UnusualWord>,
    /// The line `hosts:` of nsswitch.conf.
    pub sources: NameSources,
    /// The host name of the vantage point; empty if unknown.
    pub host_name: String,
    /// What is known of the runtime's resolver.
    #[serde(default)]
    pub runtime: RuntimeResolver,
    /// What the files have that is ignored or unusual, one sentence each, with file and line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A word of resolv.conf at which a Go program that is linked with libc hands lookups to libc.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct UnusualWord {
    /// The option or keyword.
    pub word: String,
    /// Whether Go 1.20 and later know it.
    pub known_since_1_20: bool,
}

/// The sources of host names, in the order of nsswitch.conf.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NameSources {
    /// The sources; empty if the file or the line does not exist.
    pub list: Vec<NameSource>,
    /// Why the file can't be used, in Go's reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One source of host names.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NameSource {
    /// `files`, `dns`, `resolve`, `mdns4_minimal`, …
    pub name: String,
    /// What follows in brackets, in lower case: `notfound=return`, `!unavail=return`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
}

/// What decides whether the runtime uses Go's own resolver or libc's. What is unknown is `None`.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct RuntimeResolver {
    /// Whether it is linked with libc (built with CGO_ENABLED=1).
    pub cgo: Option<bool>,
    /// Whether its Go release is 1.20 or later.
    pub go_1_20: Option<bool>,
    /// `netdns` of its GODEBUG: `go`, `cgo`.
    pub netdns: Option<String>,
    /// Variables in its environment that send lookups to libc: RES_OPTIONS, LOCALDOMAIN, HOSTALIASES.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
}

impl Default for ResolverSettings {
    /// What Go assumes without a file.
    fn default() -> Self {
        Self {
            nameservers: Vec::new(),
            ignored_servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            single_request: false,
            use_tcp: false,
            no_aaaa: false,
            unusual: Vec::new(),
            sources: NameSources::default(),
            host_name: String::new(),
            runtime: RuntimeResolver::default(),
            notes: Vec::new(),
        }
    }
}

impl ResolverSettings {
    /// Adds a word that makes Go programs use libc's resolver.
    pub fn add_unusual(&mut self, word: &str, known_since_1_20: bool) {
        self.unusual.push(UnusualWord {
            word: word.to_owned(),
            known_since_1_20,
        });
    }
}

impl NameSources {
    /// Whether the list has this source.
    pub fn has(&self, name: &str) -> bool {
        self.list.iter().any(|source| source.name == name)
    }
}

impl std::fmt::Display for NameSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if self.actions.is_empty() {
            return Ok(());
        }
        write!(f, " [{}]", self.actions.join(" ").to_ascii_uppercase())
    }
}
