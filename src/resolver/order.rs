//! Which resolver a Go program uses for a name, and in which order of sources (Go 1.19 to 1.27, `net/conf.go`:
//! `hostLookupOrder`, `lookupOrder`).

use crate::model::resolver::{NameSource, ResolverSettings};

/// Go's order of sources for one name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Order {
    /// The hosts file, then DNS, by Go's own resolver.
    FilesDns,
    /// DNS, then the hosts file.
    DnsFiles,
    /// Only the hosts file.
    Files,
    /// Only DNS.
    Dns,
    /// libc's resolver, with its own reading of nsswitch.conf.
    Libc,
}

/// A build of a Go program, as far as lookups depend on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Build {
    /// Linked with libc.
    pub cgo: bool,
    /// Go 1.20 or later: it knows more options, and takes unknown sources for DNS where it has no libc.
    pub go_1_20: bool,
}

/// The orders of all builds that the runtime may be; more than one if it is not known.
pub fn orders(host: &str, settings: &ResolverSettings) -> Vec<Order> {
    let either = |known: Option<bool>| known.map_or_else(|| vec![false, true], |one| vec![one]);
    let mut orders = Vec::new();
    for cgo in either(settings.runtime.cgo) {
        for go_1_20 in either(settings.runtime.go_1_20) {
            orders.push(order(host, settings, Build { cgo, go_1_20 }));
        }
    }
    orders.sort_unstable();
    orders.dedup();
    orders
}

/// Whether queries for this host have EDNS (RFC 6891); `None` if the builds that the runtime may be differ. `by_go`: the
/// same for Go's own resolver. libc's sends it with `options edns0` only.
pub fn sends_edns(host: &str, settings: &ResolverSettings, by_go: Option<bool>) -> Option<bool> {
    let by_libc = settings.unusual.iter().any(|one| one.word == "edns0");
    let orders = orders(host, settings);
    let mut answers = orders.iter().map(|order| match order {
        Order::Libc => Some(by_libc),
        _ => by_go,
    });
    let first = answers.next()??;
    answers.all(|one| one == Some(first)).then_some(first)
}

/// The order of one build.
pub fn order(host: &str, settings: &ResolverSettings, build: Build) -> Order {
    let runtime = &settings.runtime;
    let forced = runtime.netdns.as_deref();
    let may_use_libc = build.cgo && forced != Some("go");
    let fallback = if may_use_libc {
        Order::Libc
    } else {
        Order::FilesDns
    };
    let is_unusual = settings
        .unusual
        .iter()
        .any(|word| !(build.go_1_20 && word.known_since_1_20));
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_local = host.to_ascii_lowercase().ends_with(".local");
    let hands_over = forced == Some("cgo")
        || !runtime.variables.is_empty()
        || is_unusual
        || host.contains(['\\', '%'])
        || (is_local && !build.go_1_20);
    // Go 1.19 takes its fallback here whether libc is linked or not.
    if hands_over && (may_use_libc || !build.go_1_20) {
        return fallback;
    }
    let sources = &settings.sources;
    if sources.problem.is_some() {
        return fallback;
    }
    if sources.list.is_empty() {
        return Order::FilesDns;
    }
    by_sources(host, settings, build, may_use_libc).unwrap_or(fallback)
}

/// `None`: something that Go does not know.
fn by_sources(
    host: &str,
    settings: &ResolverSettings,
    build: Build,
    may_use_libc: bool,
) -> Option<Order> {
    // Without libc, Go 1.20 and later skip what they don't know.
    let is_strict = may_use_libc || !build.go_1_20;
    let sources = &settings.sources;
    let (mut files, mut dns) = (false, false);
    let mut is_dns_first = None;
    for source in &sources.list {
        let is_dns = match source.name.as_str() {
            "files" | "dns" => {
                if is_strict && !has_default_actions(source) {
                    return None;
                }
                source.name == "dns"
            }
            "myhostname" if is_strict => {
                if is_own_name(host, settings, build) {
                    return None;
                }
                continue;
            }
            name if is_strict => {
                // Go 1.20 hands .local over only if there is such a source.
                let is_local = host.to_ascii_lowercase().ends_with(".local");
                if !name.starts_with("mdns") || is_local {
                    return None;
                }
                continue;
            }
            _ if sources.has("dns") => continue,
            _ => true,
        };
        files |= !is_dns;
        dns |= is_dns;
        is_dns_first.get_or_insert(is_dns);
    }
    match (files, dns, is_dns_first) {
        (true, true, Some(true)) => Some(Order::DnsFiles),
        (true, true, _) => Some(Order::FilesDns),
        (true, false, _) => Some(Order::Files),
        (false, true, _) => Some(Order::Dns),
        (false, false, _) => None,
    }
}

/// A name that the source `myhostname` answers.
fn is_own_name(host: &str, settings: &ResolverSettings, build: Build) -> bool {
    let host = host.to_ascii_lowercase();
    let gateway = if build.go_1_20 { "_gateway" } else { "gateway" };
    ["localhost", "localhost.localdomain", gateway].contains(&host.as_str())
        || (build.go_1_20 && host == "_outbound")
        || host.ends_with(".localhost")
        || host.ends_with(".localhost.localdomain")
        || settings.host_name.is_empty()
        || host.eq_ignore_ascii_case(&settings.host_name)
}

/// Whether the actions in brackets are what holds without them.
fn has_default_actions(source: &NameSource) -> bool {
    let last = source.actions.len().saturating_sub(1);
    source.actions.iter().enumerate().all(|(index, action)| {
        match action.split_once('=') {
            Some(("success", action)) => action == "return",
            Some(("notfound" | "unavail" | "tryagain", action)) => {
                action == "continue" || (index == last && action == "return")
            }
            // With `!`, or unknown.
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resolver::{NameSources, UnusualWord};

    fn settings(hosts_line: &str) -> ResolverSettings {
        let mut list: Vec<NameSource> = Vec::new();
        for word in hosts_line.split_whitespace() {
            match word.strip_prefix('[').and_then(|w| w.strip_suffix(']')) {
                Some(action) => list.last_mut().unwrap().actions.push(action.to_owned()),
                None => list.push(NameSource {
                    name: word.to_owned(),
                    actions: Vec::new(),
                }),
            }
        }
        ResolverSettings {
            sources: NameSources {
                list,
                problem: None,
            },
            host_name: "node-1".to_owned(),
            ..ResolverSettings::default()
        }
    }

    #[test]
    fn the_order_is_gos() {
        use Order::{Dns, DnsFiles, Files, FilesDns, Libc};
        let name = "reg.corp.test";
        // CGO_ENABLED=0 and 1 of Go 1.19; of later releases.
        for (host, line, want) in [
            (name, "", [FilesDns, FilesDns, FilesDns, FilesDns]),
            (name, "files dns", [FilesDns, FilesDns, FilesDns, FilesDns]),
            (name, "dns files", [DnsFiles, DnsFiles, DnsFiles, DnsFiles]),
            (name, "files", [Files, Files, Files, Files]),
            (name, "dns", [Dns, Dns, Dns, Dns]),
            (
                name,
                "files mdns4_minimal [notfound=return] dns",
                [FilesDns; 4],
            ),
            (name, "files myhostname dns", [FilesDns; 4]),
            (
                "node-1",
                "files myhostname dns",
                [FilesDns, Libc, FilesDns, Libc],
            ),
            (
                "localhost",
                "files myhostname dns",
                [FilesDns, Libc, FilesDns, Libc],
            ),
            (
                "_gateway",
                "files myhostname dns",
                [FilesDns, FilesDns, FilesDns, Libc],
            ),
            (
                name,
                "files resolve [!unavail=return] dns",
                [FilesDns, Libc, FilesDns, Libc],
            ),
            (name, "resolve files", [FilesDns, Libc, DnsFiles, Libc]),
            (
                name,
                "files dns [notfound=return] wins",
                [FilesDns, Libc, FilesDns, Libc],
            ),
            (
                name,
                "files [notfound=return] dns",
                [FilesDns, FilesDns, FilesDns, FilesDns],
            ),
            (
                name,
                "files [success=continue] dns",
                [FilesDns, Libc, FilesDns, Libc],
            ),
            (
                "reg.local",
                "files dns",
                [FilesDns, Libc, FilesDns, FilesDns],
            ),
            (
                "reg.Local.",
                "files mdns4 dns",
                [FilesDns, Libc, FilesDns, Libc],
            ),
            (name, "mdns4", [FilesDns, Libc, Dns, Libc]),
        ] {
            let settings = settings(line);
            let builds = [(false, false), (true, false), (false, true), (true, true)];
            let found = builds.map(|(cgo, go_1_20)| order(host, &settings, Build { cgo, go_1_20 }));
            assert_eq!(found, want, "{host} {line}");
        }
    }

    #[test]
    fn what_go_does_not_know_is_handed_to_libc() {
        use Order::{FilesDns, Libc};
        let base = settings("files dns");
        let with = |change: &dyn Fn(&mut ResolverSettings)| {
            let mut settings = base.clone();
            change(&mut settings);
            orders("reg.corp.test", &settings)
        };
        let word = |known| {
            move |s: &mut ResolverSettings| {
                s.unusual.push(UnusualWord {
                    word: "x".to_owned(),
                    known_since_1_20: known,
                });
            }
        };
        assert_eq!(with(&|_| ()), [FilesDns]);
        assert_eq!(with(&word(false)), [FilesDns, Libc]);
        assert_eq!(with(&word(true)), [FilesDns, Libc]);
        let known = |cgo, go_1_20, netdns: Option<&'static str>| {
            move |s: &mut ResolverSettings| {
                word(true)(s);
                s.runtime.cgo = Some(cgo);
                s.runtime.go_1_20 = Some(go_1_20);
                s.runtime.netdns = netdns.map(str::to_owned);
            }
        };
        assert_eq!(with(&known(true, true, None)), [FilesDns]);
        assert_eq!(with(&known(true, false, None)), [Libc]);
        assert_eq!(with(&known(false, false, None)), [FilesDns]);
        assert_eq!(with(&known(true, true, Some("cgo"))), [Libc]);
        assert_eq!(with(&known(true, false, Some("go"))), [FilesDns]);
        assert_eq!(
            with(&|s| s.runtime.variables = vec!["LOCALDOMAIN".to_owned()]),
            [FilesDns, Libc]
        );
        assert_eq!(
            with(&|s| s.sources.problem = Some("no colon on line".to_owned())),
            [FilesDns, Libc]
        );
    }

    #[test]
    fn libc_sends_edns_only_with_its_option() {
        let mut settings = settings("files dns");
        let of = |settings: &ResolverSettings, by_go| sends_edns("reg.corp.test", settings, by_go);
        assert_eq!(of(&settings, Some(true)), Some(true));
        assert_eq!(of(&settings, Some(false)), Some(false));
        assert_eq!(of(&settings, None), None);
        settings.add_unusual("debug", false);
        assert_eq!(of(&settings, Some(true)), None, "Go's own or libc's");
        assert_eq!(of(&settings, Some(false)), Some(false));
        settings.runtime.cgo = Some(true);
        assert_eq!(of(&settings, Some(true)), Some(false), "libc's");
        settings.add_unusual("edns0", true);
        assert_eq!(of(&settings, Some(false)), Some(true));
    }
}
