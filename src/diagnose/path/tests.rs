//! Labelled cases: each file of tests/paths is one, and a reader adds one without writing code
//! (tests/paths/README.md). All go through the decision alone.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::classify;
use super::leg_path::{LegPath, Reachability};
use crate::config::Config;
use crate::diagnose::diagnose;
use crate::diagnose::fixture::{self, done, failed, ms};
use crate::diagnose::level::Confidence;
use crate::model::connect::{Connect, Connected, Connection, Dial, Tls};
use crate::model::endpoint::Role;
use crate::model::evidence::{Evidence, Leg, RateLimit, SegmentTrial, SegmentTrials, Transport};
use crate::model::fault::{DnsFault, IcmpError, Phase, TcpFault, TlsFault};
use crate::model::hops::{Hop, Trace, TraceEnd};
use crate::model::nat64::Nat64Prefixes;
use crate::model::network::{
    Baseline, BaselineKind, Control, EgressMethod, EgressTrial, Link, Metadata, MetadataFacts,
    ObservedEgress, PodEip, Provider, ProviderBy, ProviderSign, ReversePathDrops, Route,
    RouteLookup, RouteOutcome,
};
use crate::model::path::{PathAttributes, PathClass};
use crate::model::proxy::{Proxy, ProxyRoute};
use crate::model::resolve::Family;
use crate::model::step::{Skip, Step};
use crate::model::vantage::{NetworkView, Vantage};

/// A whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    /// What it is about, in a sentence.
    says: String,
    #[serde(default)]
    place: PlaceFile,
    legs: Vec<LegFile>,
    #[serde(default)]
    findings: Vec<String>,
}

/// Where the probe stands.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PlaceFile {
    network: Option<NetworkView>,
    /// A configuration, as --config takes it.
    config: String,
    provider: Option<Provider>,
    /// The provider is only guessed, by name servers.
    provider_is_a_guess: bool,
    service_host: Option<IpAddr>,
    links: Vec<LinkFile>,
    /// The devices with a default route.
    uplinks: Vec<String>,
    metadata: Option<MetadataFile>,
    pod_eip: Option<PodEipFile>,
    egress: Vec<EgressFile>,
    /// `docker-ratelimit-source`.
    docker_hub_sees: Option<IpAddr>,
    baseline_mss: Option<u32>,
    /// Public hosts that were tried: whether each answers.
    controls: Vec<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkFile {
    name: String,
    kind: Option<String>,
    /// The bridge that it is a part of.
    master: Option<String>,
    #[serde(default)]
    addresses: Vec<ipnet::IpNet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MetadataFile {
    /// It gives no answer.
    silent: bool,
    vpc_cidrs: Vec<ipnet::IpNet>,
    subnet_cidrs: Vec<ipnet::IpNet>,
    /// Absent: no word on it.
    public: Option<Vec<IpAddr>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PodEipFile {
    wanted: Option<bool>,
    allocated: Option<IpAddr>,
    container_age_seconds: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EgressFile {
    sees: IpAddr,
    #[serde(default)]
    port_changed: bool,
    /// The echo shows the address alone.
    #[serde(default)]
    no_port: bool,
    /// That of an older report; otherwise an HTTP echo.
    method: Option<EgressMethod>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LegFile {
    #[serde(default = "registry")]
    role: Role,
    #[serde(default = "host")]
    host: String,
    /// The address of the proxy, when one is used.
    proxy: Option<SocketAddr>,
    /// The name has none.
    dns: Option<DnsFile>,
    #[serde(default)]
    addresses: Vec<AddressFile>,
    #[serde(default)]
    hops: Vec<IpAddr>,
    /// The trace got to the server.
    #[serde(default)]
    hops_reach_it: bool,
    /// The certificate is by an authority that is not trusted.
    #[serde(default)]
    strange_issuer: bool,
    /// The certificate is for another name.
    #[serde(default)]
    other_name: bool,
    /// What the reverse path filter dropped.
    drops: Option<DropsFile>,
    /// The prefixes of NAT64 that the name servers reveal; absent if they were not queried.
    nat64: Option<Vec<ipnet::IpNet>>,
    /// Further connections at the same time, of which the first is the leg's own: whether each is established.
    #[serde(default)]
    retries: Vec<bool>,
    /// The segments received with data.
    receive_mss: Option<u32>,
    class: Option<PathClass>,
    #[serde(default)]
    attributes: PathAttributes,
    reachability: Reachability,
    /// One, or several that are good.
    #[serde(default)]
    confidence: Vec<Confidence>,
    #[serde(default)]
    needs: Vec<PathClass>,
    /// Words that the evidence, the contradictions, the candidates, the fixes or what would decide must have.
    #[serde(default)]
    evidence: Vec<String>,
    #[serde(default)]
    contradictions: Vec<String>,
    #[serde(default)]
    candidates: Vec<String>,
    #[serde(default)]
    fixes: Vec<String>,
    #[serde(default)]
    decides: Vec<String>,
    /// Words that no fix may have.
    #[serde(default)]
    never: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DropsFile {
    dropped: u64,
    #[serde(default)]
    before: u64,
    #[serde(default)]
    strict: Vec<String>,
}

fn registry() -> Role {
    Role::Registry
}

fn host() -> String {
    fixture::REGISTRY.to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DnsFile {
    NxDomain,
    Timeout,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressFile {
    address: IpAddr,
    #[serde(default)]
    answers: Answers,
    #[serde(default)]
    rtt_ms: Option<f64>,
    #[serde(default)]
    mss: Option<u32>,
    #[serde(default)]
    local: Option<IpAddr>,
    #[serde(default)]
    route: Option<RouteFile>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Answers {
    #[default]
    Connects,
    TimesOut,
    Refuses,
    Prohibited,
    LocalPolicy,
    NoRoute,
    NoRouteAtRouter,
    HostUnreachable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteFile {
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    matched: Option<ipnet::IpNet>,
    #[serde(default)]
    mtu: Option<u32>,
    /// An address of this machine.
    #[serde(default)]
    local: bool,
    #[serde(default)]
    source: Option<IpAddr>,
    #[serde(default)]
    table: Option<u32>,
    /// The type of a route that rejects the packets.
    #[serde(default)]
    denied: Option<String>,
}

impl CaseFile {
    fn evidence(&self) -> Evidence {
        let mut evidence = fixture::healthy();
        evidence.vantage = self.place.vantage();
        evidence.walk.rate_limit = self.place.docker_hub_sees.map(|address| RateLimit {
            limit: Some(100),
            remaining: Some(99),
            window_seconds: None,
            source: Some(address.to_string()),
        });
        evidence.walk.legs = self.legs.iter().map(LegFile::leg).collect();
        evidence.walk.segments = self.legs.iter().find_map(LegFile::retries);
        evidence
    }
}

impl PlaceFile {
    fn vantage(&self) -> Vantage {
        let network = self.network.unwrap_or(NetworkView::Node);
        let mut vantage = Vantage {
            network,
            ..Vantage::default()
        };
        let config = Config::parse(&self.config).unwrap_or_else(|error| panic!("{error}"));
        vantage.declared = config.network.declared();
        vantage.node_external_ips = config.network.node_external_ips();
        vantage.provider = self.provider.map(|provider| ProviderSign {
            provider,
            by: if self.provider_is_a_guess {
                ProviderBy::NameServers
            } else {
                ProviderBy::ProviderId
            },
        });
        vantage.service_host = self.service_host;
        let link = |link: &LinkFile| Link {
            name: link.name.clone(),
            kind: link.kind.clone(),
            mtu: Some(1500),
            is_up: true,
            master: link.master.clone(),
            addresses: link.addresses.clone(),
        };
        vantage.links = self.links.iter().map(link).collect();
        let default = |device: &String| Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            gateway: Some("10.0.1.1".parse().unwrap()),
            device: Some(device.clone()),
            table: 254,
        };
        vantage.routes = self.uplinks.iter().map(default).collect();
        if let Some(metadata) = &self.metadata {
            let provider = self.provider.unwrap_or(Provider::Huawei);
            vantage.metadata = if metadata.silent {
                Metadata::NoAnswer {
                    provider,
                    fault: "no answer".to_owned(),
                    took: ms(1000),
                }
            } else {
                Metadata::Answered {
                    facts: MetadataFacts {
                        provider,
                        vpc_id: None,
                        vpc_cidrs: metadata.vpc_cidrs.clone(),
                        subnet_cidrs: metadata.subnet_cidrs.clone(),
                        private: Vec::new(),
                        public: metadata.public.clone(),
                        max_bandwidth_mbit: None,
                    },
                    took: ms(3),
                }
            };
        }
        vantage.pod_eip = self.pod_eip.as_ref().map(|eip| PodEip {
            source: "annotations".to_owned(),
            wanted: eip.wanted,
            allocated: eip.allocated,
            container_age: eip.container_age_seconds.map(Duration::from_secs),
            ..PodEip::default()
        });
        vantage.egress = self.egress.iter().map(EgressFile::trial).collect();
        vantage.baseline = self.baseline_mss.map(|mss| Baseline {
            to: "10.0.0.1:443".parse().unwrap(),
            what: BaselineKind::Declared,
            outcome: done(Connection {
                local: "10.0.1.7:40000".parse().unwrap(),
                rtt: Some(ms(1)),
                send_mss: Some(mss),
                syn_retransmits: None,
            }),
        });
        vantage.controls = (1u8..)
            .zip(&self.controls)
            .map(|(number, answers)| {
                // Of both families.
                let v4 = SocketAddr::from(([52, 0, 0, number], 443));
                let v6 = format!("[2600:1f18::{number}]:443").parse().unwrap();
                let dial = |to: SocketAddr| {
                    let fault = (!answers).then_some(TcpFault::Timeout);
                    Dial {
                        to,
                        ..fixture::dial(&to.ip().to_string(), fault)
                    }
                };
                Control {
                    host: format!("control{number}.test:443"),
                    unresolved: None,
                    attempts: vec![dial(v4), dial(v6)],
                }
            })
            .collect();
        vantage
    }
}

impl EgressFile {
    fn trial(&self) -> EgressTrial {
        let local = if self.sees.is_ipv4() {
            "10.0.1.7:40000"
        } else {
            "[fd12::5]:40000"
        };
        EgressTrial {
            method: self.method.clone().unwrap_or(EgressMethod::HttpEcho),
            server: "echo.test:443".to_owned(),
            outcome: done(ObservedEgress {
                address: self.sees,
                port: (!self.no_port).then_some(if self.port_changed { 1024 } else { 40000 }),
                local: Some(local.parse().unwrap()),
            }),
        }
    }
}

impl LegFile {
    fn leg(&self) -> Leg {
        let addresses: Vec<String> = self
            .addresses
            .iter()
            .map(|a| a.address.to_string())
            .collect();
        let words: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut leg = fixture::leg(self.role, &self.host, "192.0.2.1");
        leg.resolve = fixture::resolved(&self.host, &words);
        if let Some(fault) = &self.dns {
            let fault = match fault {
                DnsFile::NxDomain => DnsFault::NxDomain,
                DnsFile::Timeout => DnsFault::Timeout,
            };
            leg.resolve.outcome = failed(fault);
            let reason = Skip::Blocked {
                role: self.role,
                phase: Phase::Resolve,
            };
            leg.connect = Connect {
                attempts: Vec::new(),
                not_tried: 0,
                outcome: Step::Skipped { reason },
            };
            return leg;
        }
        let attempts: Vec<Dial> = self.addresses.iter().map(AddressFile::dial).collect();
        let good = attempts.iter().find(|dial| dial.outcome.done().is_some());
        let outcome = match good {
            Some(dial) => done(Connected {
                to: dial.to,
                fallback: None,
            }),
            None => failed(attempts[0].outcome.fault().unwrap().clone()),
        };
        leg.connect = Connect {
            attempts,
            not_tried: 0,
            outcome,
        };
        leg.routes = self
            .addresses
            .iter()
            .filter_map(AddressFile::route)
            .collect();
        leg.transport = self.receive_mss.map(|mss| Transport {
            min_rtt: None,
            send_mss: None,
            receive_mss: Some(mss),
            path_mtu: None,
            retransmits: None,
        });
        self.observe(&mut leg);
        if self.strange_issuer {
            leg.tls = Tls {
                outcome: failed(TlsFault::UnknownIssuer {
                    issuer: "CN=Corporate CA".to_owned(),
                }),
                ..leg.tls
            };
        }
        if !self.hops.is_empty() {
            leg.hops = Some(Trace {
                to: leg.connect.attempts[0].to,
                hops: (1..)
                    .zip(&self.hops)
                    .map(|(ttl, from)| Hop {
                        ttl,
                        from: Some(*from),
                        rtt: None,
                        icmp: None,
                    })
                    .collect(),
                reached: None,
                ended: if self.hops_reach_it {
                    TraceEnd::Reached
                } else {
                    TraceEnd::Silent
                },
                took: ms(100),
            });
        }
        if let Some(proxy) = self.proxy {
            leg.proxy_route = ProxyRoute::Proxied {
                proxy: Proxy {
                    scheme: "http".to_owned(),
                    authority: proxy.to_string(),
                    authenticated: false,
                    variable: "HTTPS_PROXY".to_owned(),
                    fault: None,
                },
                missed: Vec::new(),
            };
        }
        leg
    }
}

impl LegFile {
    /// Adds what this machine, the name servers and the server show.
    fn observe(&self, leg: &mut Leg) {
        leg.reverse_path = self.drops.as_ref().map(|drops| ReversePathDrops {
            dropped: drops.dropped,
            before: drops.before,
            uptime: Duration::from_secs(100_000),
            took: Duration::from_secs(5),
            strict: drops.strict.clone(),
        });
        leg.nat64 = self.nat64.as_ref().map(|prefixes| Nat64Prefixes {
            prefixes: prefixes.clone(),
            fault: None,
        });
        if self.other_name {
            leg.tls = Tls {
                outcome: failed(TlsFault::NameMismatch {
                    expected: self.host.clone(),
                    presented: vec!["other.example.org".to_owned()],
                }),
                ..leg.tls.clone()
            };
        }
    }

    fn retries(&self) -> Option<SegmentTrials> {
        let trial = |passes: &bool| SegmentTrial {
            max_segment: None,
            fault: (!passes).then(|| TcpFault::Timeout.to_string()),
            is_silent: !passes,
            took: ms(2500),
        };
        (!self.retries.is_empty()).then(|| SegmentTrials {
            role: self.role,
            phase: Phase::Connect,
            endpoint: fixture::endpoint(&self.host),
            to: SocketAddr::new(self.addresses[0].address, 443),
            trials: self.retries.iter().map(trial).collect(),
        })
    }
}

impl AddressFile {
    fn dial(&self) -> Dial {
        let local = self
            .local
            .unwrap_or_else(|| match Family::of(self.address) {
                Family::V4 => "10.0.1.7".parse().unwrap(),
                Family::V6 => "fd12::5".parse().unwrap(),
            });
        let outcome = match self.answers {
            Answers::Connects => done(Connection {
                local: SocketAddr::new(local, 40000),
                rtt: self.rtt_ms.map(|ms| Duration::from_secs_f64(ms / 1e3)),
                send_mss: self.mss,
                syn_retransmits: None,
            }),
            Answers::TimesOut => failed(TcpFault::Timeout),
            Answers::Refuses => failed(TcpFault::Refused { icmp: None }),
            Answers::Prohibited => failed(TcpFault::Prohibited {
                icmp: IcmpError {
                    from: Some("10.0.0.1".parse().unwrap()),
                    version: 4,
                    kind: 3,
                    code: 13,
                },
            }),
            Answers::LocalPolicy => failed(TcpFault::LocalPolicy { errno: 1 }),
            Answers::NoRoute => failed(TcpFault::NetUnreachable { icmp: None }),
            Answers::NoRouteAtRouter => failed(TcpFault::NetUnreachable {
                icmp: Some(IcmpError {
                    from: Some("10.0.0.1".parse().unwrap()),
                    version: 4,
                    kind: 3,
                    code: 0,
                }),
            }),
            Answers::HostUnreachable => failed(TcpFault::HostUnreachable { icmp: None }),
        };
        Dial {
            to: SocketAddr::new(self.address, 443),
            outcome,
        }
    }

    fn route(&self) -> Option<RouteLookup> {
        let route = self.route.as_ref()?;
        let device = route.device.clone().unwrap_or_else(|| "eth0".to_owned());
        let outcome = if route.local {
            RouteOutcome::Local { device }
        } else if let Some(by) = &route.denied {
            RouteOutcome::Denied {
                by: by.clone(),
                matched: route.matched,
                table: route.matched.map(|_| 254),
                set_by: None,
            }
        } else {
            RouteOutcome::Unicast {
                device,
                device_kind: route.kind.clone(),
                gateway: route.gateway,
                source: route.source,
                table: route.table.unwrap_or(254),
                matched: route.matched,
                mtu: route.mtu,
            }
        };
        Some(RouteLookup {
            to: self.address,
            outcome,
        })
    }
}

/// What a case wants of a leg and does not get.
fn misses(wanted: &LegFile, path: &LegPath) -> Vec<String> {
    let mut misses = Vec::new();
    let mut check = |what: &str, ok: bool| {
        if !ok {
            misses.push(what.to_owned());
        }
    };
    check("class", path.class == wanted.class);
    check(
        "attributes",
        path.attributes
            == PathAttributes {
                via_proxy: wanted.proxy.is_some(),
                ..wanted.attributes
            },
    );
    check("reachability", path.reachability == wanted.reachability);
    check(
        "confidence",
        wanted.confidence.is_empty() || wanted.confidence.contains(&path.confidence),
    );
    check(
        "needs",
        path.needs.iter().copied().collect::<Vec<_>>() == {
            let mut needs = wanted.needs.clone();
            needs.sort_unstable();
            needs
        },
    );
    let facts = |facts: &[super::leg_path::Fact]| {
        let words: Vec<String> = facts.iter().map(|fact| fact.message.clone()).collect();
        words.join("\n")
    };
    let candidates: Vec<String> = path
        .candidates
        .iter()
        .map(|candidate| format!("{} {:?}", candidate.class, candidate.confidence).to_lowercase())
        .collect();
    let fixes: Vec<String> = path.fixes.iter().map(|fix| fix.action.clone()).collect();
    let knobs: Vec<String> = path
        .suggestions
        .iter()
        .map(|knob| format!("{knob:?}"))
        .collect();
    for (what, wanted, found) in [
        ("evidence", &wanted.evidence, facts(&path.evidence)),
        (
            "contradictions",
            &wanted.contradictions,
            facts(&path.contradictions),
        ),
        ("candidates", &wanted.candidates, candidates.join("\n")),
        ("fixes", &wanted.fixes, fixes.join("\n")),
        ("what decides", &wanted.decides, knobs.join("\n")),
    ] {
        for words in wanted {
            check(&format!("{what}: {words}"), found.contains(words.as_str()));
        }
    }
    let fixes = fixes.join("\n");
    for words in &wanted.never {
        check(&format!("no fix: {words}"), !fixes.contains(words.as_str()));
    }
    check(
        "no contradiction",
        wanted.contradictions.is_empty() == path.contradictions.is_empty(),
    );
    misses
}

#[test]
fn every_labelled_case_is_classed_as_labelled() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/paths");
    let mut failures = Vec::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        cases += 1;
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let case: CaseFile =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(case.says.len() > 20, "{name} says nothing");
        let evidence = case.evidence();
        let paths = classify(&evidence);
        assert_eq!(paths.len(), case.legs.len(), "{name}");
        for (wanted, path) in case.legs.iter().zip(&paths) {
            let misses = misses(wanted, path);
            if !misses.is_empty() {
                failures.push(format!("{name} ({}): {misses:?}\n{path:#?}", wanted.role));
            }
        }
        // About the path alone: the rest of the check is that of the fixture.
        let mut codes: Vec<&str> = diagnose(&evidence)
            .findings
            .iter()
            .map(|finding| finding.cause.code())
            .filter(|code| PATH_CODES.contains(code))
            .collect();
        codes.sort_unstable();
        let mut wanted: Vec<&str> = case.findings.iter().map(String::as_str).collect();
        wanted.sort_unstable();
        if codes != wanted {
            failures.push(format!("{name}: findings {codes:?}, not {wanted:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(cases >= 140, "only {cases} cases were found");
}

/// The findings that a case lists: all that it has of these.
const PATH_CODES: &[&str] = &[
    "address_overlap",
    "eip_annotation_stale",
    "no_egress",
    "path_mixed",
    "path_unexpected",
    "private_unmapped",
    "reverse_path_filter",
    "snat_exhaust",
    "source_address",
];

#[test]
fn a_score_has_its_word() {
    for (score, want) in [
        (1.0, Confidence::High),
        (0.9, Confidence::High),
        (0.95 - 0.05, Confidence::High),
        (0.89, Confidence::Medium),
        (0.6, Confidence::Medium),
        (0.8 - 0.2, Confidence::Medium),
        (0.59, Confidence::Low),
        (0.0, Confidence::Low),
    ] {
        assert_eq!(Confidence::of(score), want, "{score}");
    }
}

/// The evidence of every labelled case, in the order of their names.
pub(in crate::diagnose) fn labelled() -> Vec<Evidence> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/paths");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "yaml"));
    files.sort();
    let read = |path| {
        let text = std::fs::read_to_string(path).unwrap();
        serde_saphyr::from_str::<CaseFile>(&text)
            .unwrap()
            .evidence()
    };
    files.iter().map(read).collect()
}
