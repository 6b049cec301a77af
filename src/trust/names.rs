//! Names in certificates: whether one is valid for a host, and which names an authority may sign.

use std::net::IpAddr;

use ipnet::IpNet;

use super::build::{GoBuild, Quirk};
use super::der::Malformed;
use super::der::{Reader, SEQUENCE, constructed};

/// Whether `names` includes `host`, an address or a name as it is requested.
pub(super) fn are_for(names: &AlternativeNames, host: &str, build: &GoBuild) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return names.addresses.contains(&address.to_canonical());
    }
    let host = host.to_ascii_lowercase();
    let is_host = is_hostname(host.strip_suffix('.').unwrap_or(&host), false, build);
    names.dns.iter().any(|name| {
        if is_host && is_hostname(name, true, build) {
            matches(name, &host)
        } else {
            !["", "."].contains(&host.as_str()) && name.eq_ignore_ascii_case(&host)
        }
    })
}

/// A name of letters, digits, `-` and `_`; a pattern may also have `*` as its first label.
fn is_hostname(name: &str, is_pattern: bool, build: &GoBuild) -> bool {
    if name == "*" && !build.takes_bare_wildcard() {
        return false;
    }
    name.split('.').enumerate().all(|(index, label)| {
        if is_pattern && index == 0 && label == "*" {
            return true;
        }
        !label.is_empty()
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

fn matches(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let (mut of_pattern, mut of_host) = (pattern.split('.'), host.split('.'));
    let mut is_first = true;
    loop {
        match (of_pattern.next(), of_host.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) if is_first => {}
            (Some(a), Some(b)) if a.eq_ignore_ascii_case(b) => {}
            _ => return false,
        }
        is_first = false;
    }
}

/// Labels of printable characters, none of them empty; the empty string counts too.
pub(super) fn is_domain(name: &str) -> bool {
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| (33..=126).contains(&b));
    name.is_empty() || name.split('.').all(is_label)
}

/// Name constraints (RFC 5280, 4.2.1.10).
#[derive(Clone, Debug, Default)]
pub(super) struct Constraints {
    permitted: Subtrees,
    excluded: Subtrees,
}

#[derive(Clone, Debug, Default)]
struct Subtrees {
    dns: Vec<String>,
    networks: Vec<IpNet>,
    /// Constraints on mail addresses or URIs exist.
    has_others: bool,
}

/// Whether constraints allow a certificate's names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Allowed {
    Yes,
    No(String),
    Unknown(&'static str),
}

impl Constraints {
    /// Reads the extension. The flag: it has constraints of a kind that Go does not support.
    pub(super) fn read(mut value: Reader<'_>) -> Result<(Self, bool), Malformed> {
        const INVALID: Malformed = "invalid NameConstraints extension";
        let mut fields = value.read(SEQUENCE).ok_or(INVALID)?;
        let permitted = fields.optional(constructed(0)).ok_or(INVALID)?;
        let excluded = fields.optional(constructed(1)).ok_or(INVALID)?;
        if !value.is_empty() || !fields.is_empty() {
            return Err(INVALID);
        }
        if [&permitted, &excluded]
            .iter()
            .all(|trees| trees.is_none_or(|t| t.is_empty()))
        {
            return Err("empty name constraints extension");
        }
        let mut has_unknown = false;
        let mut read = |trees: Option<Reader<'_>>| {
            trees.map_or(Ok(Subtrees::default()), |t| {
                Subtrees::read(t, &mut has_unknown)
            })
        };
        let constraints = Self {
            permitted: read(permitted)?,
            excluded: read(excluded)?,
        };
        Ok((constraints, has_unknown))
    }

    /// Whether the authority may sign a certificate with these names.
    pub(super) fn allow(&self, names: &AlternativeNames, build: &GoBuild) -> Allowed {
        if names.has_others {
            return Allowed::Unknown(
                "an authority's name constraints were not evaluated: the certificate has mail or URI names",
            );
        }
        for address in &names.addresses {
            let is_in = |network: &IpNet| network.contains(address);
            let networks = &self.permitted.networks;
            if !networks.is_empty() && !networks.iter().any(is_in) {
                return Allowed::No(format!("{address} is not in the permitted subtrees"));
            }
            if self.excluded.networks.iter().any(is_in) {
                return Allowed::No(format!("{address} is in an excluded subtree"));
            }
        }
        for name in &names.dns {
            if !is_domain(name) {
                return Allowed::No(format!("'{name}' is not a domain name"));
            }
            let permitted = &self.permitted.dns;
            if !permitted.is_empty() && !permitted.iter().any(|tree| is_below(name, tree)) {
                return Allowed::No(format!("'{name}' is not in the permitted subtrees"));
            }
            let is_excluded = |tree: &String| {
                is_below(name, tree) || (build.excludes_wildcards_above() && is_sibling(name, tree))
            };
            if self.excluded.dns.iter().any(is_excluded) {
                return Allowed::No(format!("'{name}' is in an excluded subtree"));
            }
        }
        Allowed::Yes
    }
}

impl Subtrees {
    fn read(mut trees: Reader<'_>, has_unknown: &mut bool) -> Result<Self, Malformed> {
        const INVALID: Malformed = "invalid NameConstraints extension";
        let mut all = Self::default();
        while !trees.is_empty() {
            let base = trees
                .read(SEQUENCE)
                .ok_or(INVALID)?
                .element()
                .ok_or(INVALID)?;
            let text = || ascii(base.content).ok_or("invalid constraint value");
            match base.tag {
                0x81 | 0x86 => {
                    text()?;
                    all.has_others = true;
                }
                0x82 => {
                    let domain = text()?;
                    if !is_domain(domain.strip_prefix('.').unwrap_or(domain)) {
                        return Err("failed to parse dnsName constraint");
                    }
                    all.dns.push(domain.to_owned());
                }
                0x87 => {
                    let (network, mask) = base.content.split_at(base.content.len() / 2);
                    let network = address(network)
                        .zip(address(mask))
                        .and_then(|(network, mask)| IpNet::with_netmask(network, mask).ok());
                    all.networks.push(network.ok_or("invalid IP constraint")?);
                }
                _ => *has_unknown = true,
            }
        }
        Ok(all)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let sixteen = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    four.or(sixteen).ok()
}

fn ascii(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| text.is_ascii())
}

/// Whether `name` equals `tree` or is below it. A leading dot in `tree` means: only below.
fn is_below(name: &str, tree: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let tree = tree.to_ascii_lowercase();
    if tree.is_empty() {
        return true;
    }
    match name.strip_suffix(tree.trim_start_matches('.')) {
        Some("") => !tree.starts_with('.'),
        Some(rest) => rest.ends_with('.'),
        None => false,
    }
}

/// A wildcard that covers the excluded name among others.
fn is_sibling(name: &str, tree: &str) -> bool {
    let (Some(above), Some((_, of_tree))) = (name.strip_prefix("*."), tree.split_once('.')) else {
        return false;
    };
    above.eq_ignore_ascii_case(of_tree)
}

#[derive(Clone, Debug, Default)]
pub(super) struct AlternativeNames {
    pub(super) dns: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// Mail addresses or URIs are present.
    pub(super) has_others: bool,
    /// The encoded list, to compare certificates.
    pub(super) raw: Vec<u8>,
}

impl AlternativeNames {
    pub(super) fn read(mut value: Reader<'_>, quirks: &mut Vec<Quirk>) -> Result<Self, Malformed> {
        const INVALID: Malformed = "invalid subject alternative names";
        const MALFORMED: Malformed = "a subject alternative name is malformed";
        let mut list = value.read(SEQUENCE).ok_or(INVALID)?;
        let mut names = Self {
            raw: list.remaining().to_vec(),
            ..Self::default()
        };
        while !list.is_empty() {
            let name = list.element().ok_or(INVALID)?;
            let text = || ascii(name.content).ok_or(MALFORMED);
            match name.tag {
                0x81 => {
                    text()?;
                    names.has_others = true;
                }
                0x82 => names.dns.push(text()?.to_owned()),
                0x86 => {
                    if !is_plain_uri(text()?) {
                        quirks.push(Quirk::Uri);
                    }
                    names.has_others = true;
                }
                0x87 => {
                    let address =
                        address(name.content).ok_or("an IP address has an invalid length")?;
                    if address.to_canonical() != address {
                        quirks.push(Quirk::MappedAddress);
                    }
                    names.addresses.push(address.to_canonical());
                }
                _ => {}
            }
        }
        Ok(names)
    }
}

/// A URI that every release of Go accepts: a scheme, a plain host, plain characters.
fn is_plain_uri(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return false;
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_path = path
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b));
    is_scheme
        && is_path
        && is_domain(host)
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
}
