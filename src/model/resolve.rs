//! Evidence of resolving a name: queries, answers, and where servers return different answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::DnsFault;
use super::step::Step;
use super::text::joined;
use super::units::OptionalSeconds;

/// The resolution of one name. For a name in the hosts file, the queries show what DNS has; no pull makes them.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Resolve {
    /// Every query to every server, in the order of names, attempts, servers, families. A query that was
    /// repeated because it was not answered is listed once for each attempt.
    pub queries: Vec<Query>,
    /// Whether the runtime's resolver sends EDNS (RFC 6891) with its queries; absent if that depends on its
    /// build, which is unknown. Queries here have EDNS unless this is `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sends_edns: Option<bool>,
    /// Further queries to servers that answered none with EDNS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edns_trials: Vec<EdnsTrial>,
    /// The same query without EDNS for an answer that only fits with it, if the runtime may send none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_edns: Option<Box<Query>>,
    /// If the lookup failed: the answers of servers that no pull queries, because resolv.conf lists more than three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beyond: Vec<Query>,
    /// The addresses that a pull would connect to, or why there are none.
    #[serde(flatten)]
    pub outcome: Step<Resolution, DnsFault>,
}

impl Resolve {
    /// The addresses in the answers of the servers; for a name in the hosts file, no pull uses them.
    pub fn dns_addresses(&self) -> BTreeSet<IpAddr> {
        let answers = self.queries.iter().filter_map(|query| query.outcome.done());
        let records = answers.flat_map(|answer| &answer.records);
        records.map(|record| record.address).collect()
    }

    /// The IPv4 addresses in those answers.
    pub fn v4_addresses(&self) -> Vec<Ipv4Addr> {
        let all = self.dns_addresses().into_iter();
        all.filter_map(|address| match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        })
        .collect()
    }

    /// The addresses of the hosts file that DNS does not have, although it has others: of their family, or of the other
    /// one only, if none of the entries is in DNS.
    pub fn stale_pins(&self) -> Vec<IpAddr> {
        let dns = self.dns_addresses();
        let has_family = |family| dns.iter().any(|one| Family::of(*one) == family);
        let pinned = || self.pinned().unwrap_or_default().iter().copied();
        let agrees = pinned().any(|one| dns.contains(&one));
        let lacks_family = |family| {
            let mut queries = self.queries.iter().filter(|query| query.family == family);
            !dns.is_empty() && queries.any(Query::is_answered)
        };
        let differs = |family| has_family(family) || (!agrees && lacks_family(family));
        pinned()
            .filter(|one| differs(Family::of(*one)) && !dns.contains(one))
            .collect()
    }

    /// What the hosts file and DNS have, in words; `None` if the hosts file does not decide.
    pub fn pin(&self) -> Option<String> {
        let pinned = self.pinned()?;
        let dns = self
            .in_dns()
            .map_or_else(String::new, |dns| format!(", {dns}"));
        Some(format!(
            "the address is pinned by the hosts file ({}){dns}",
            joined(pinned)
        ))
    }

    /// What DNS has for a name in the hosts file, in words; `None` if it was not queried.
    pub fn in_dns(&self) -> Option<String> {
        let pinned = self.pinned()?;
        let dns = self.dns_addresses();
        self.queries.first()?;
        Some(
            if !dns.is_empty() && pinned.iter().all(|one| dns.contains(one)) {
                "as in DNS".to_owned()
            } else if !dns.is_empty() {
                format!("DNS has {}", joined(&dns))
            } else if self.queries.iter().any(Query::is_answered) {
                "DNS has no address for the name".to_owned()
            } else {
                "the name servers do not answer".to_owned()
            },
        )
    }

    fn pinned(&self) -> Option<&[IpAddr]> {
        let found = self.outcome.done()?;
        (found.source == ResolutionSource::HostsFile).then_some(&*found.addresses)
    }

    /// The answers of all servers for the first name and family for which two of them contradict each other;
    /// `None` if all answers agree.
    ///
    /// Answers contradict each other if both have addresses and none in common, or if one has addresses and the
    /// other NXDOMAIN or, for IPv4, NODATA. Overlapping sets agree, as servers rotate and shorten them. NODATA
    /// for AAAA agrees with anything: resolvers filter AAAA, or make them up (DNS64, RFC 6147). A server
    /// without an answer (timeout, SERVFAIL, REFUSED) does not count.
    ///
    /// Disjoint public addresses may be load balancing by DNS, where each resolver receives the servers nearest
    /// to it; a private address against a public one, or against NXDOMAIN, is split-horizon DNS. The caller
    /// decides from the addresses.
    pub fn disagreement(&self) -> Option<Vec<(SocketAddr, NameAnswer)>> {
        self.queries.iter().find_map(|query| {
            let same = |other: &&Query| other.name == query.name && other.family == query.family;
            let answer = |other: &Query| Some((other.server, NameAnswer::of(other)?));
            let answers: Vec<_> = self
                .queries
                .iter()
                .filter(same)
                .filter_map(answer)
                .collect();
            let is_contrary = answers.iter().enumerate().any(|(i, (_, a))| {
                let mut later = answers[i + 1..].iter();
                later.any(|(_, b)| a.is_contrary_to(b, query.family))
            });
            is_contrary.then_some(answers)
        })
    }
}

/// A server's answer for one name and family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NameAnswer {
    /// Its records of that family.
    Addresses(Vec<IpAddr>),
    /// The name does not exist (RFC 2308, 2.1).
    NxDomain,
    /// The name exists without a record of that family (RFC 2308, 2.2).
    NoData,
}

impl NameAnswer {
    fn of(query: &Query) -> Option<Self> {
        match &query.outcome {
            Step::Done { value, .. } => Some(Self::Addresses(
                value.records.iter().map(|r| r.address).collect(),
            )),
            Step::Failed { fault, .. } => match fault {
                DnsFault::NxDomain => Some(Self::NxDomain),
                DnsFault::NoData => Some(Self::NoData),
                _ => None,
            },
            Step::Skipped { .. } => None,
        }
    }

    fn is_contrary_to(&self, other: &Self, family: Family) -> bool {
        match (self, other) {
            (Self::Addresses(a), Self::Addresses(b)) => {
                !a.iter().any(|address| b.contains(address))
            }
            (Self::Addresses(_), Self::NxDomain) | (Self::NxDomain, Self::Addresses(_)) => true,
            (Self::Addresses(_), Self::NoData) | (Self::NoData, Self::Addresses(_)) => {
                family == Family::V4
            }
            // Neither has an address (some servers send NXDOMAIN where NODATA is due, RFC 8020).
            (Self::NxDomain | Self::NoData, Self::NxDomain | Self::NoData) => false,
        }
    }
}

impl std::fmt::Display for NameAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Addresses(addresses) if addresses.is_empty() => f.write_str("without an address"),
            Self::Addresses(addresses) => f.write_str(&joined(addresses)),
            Self::NxDomain => f.write_str("NXDOMAIN"),
            Self::NoData => f.write_str("NODATA"),
        }
    }
}

/// The addresses that a pull would connect to.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Resolution {
    /// The full name that has the addresses, after applying the search list.
    pub name: String,
    /// The addresses, in the order in which a client tries them (RFC 6724).
    pub addresses: Vec<IpAddr>,
    /// CNAMEs from that name to the one that has the addresses.
    pub cnames: Vec<String>,
    /// Where the addresses are from.
    pub source: ResolutionSource,
}

/// Where the addresses of a name are from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ResolutionSource {
    /// A name server: the one whose answer a Go program would have used.
    Server {
        /// Its address and port.
        server: SocketAddr,
    },
    /// The hosts file (hosts(5)).
    HostsFile,
    /// The host is an address.
    Literal,
    /// An override for this host (`--resolve`).
    Override,
}

/// Address family.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// The DNS record type of the family.
    pub fn record(self) -> &'static str {
        match self {
            Self::V4 => "A",
            Self::V6 => "AAAA",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// One query to one server.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Query {
    /// Address and port of the name server.
    pub server: SocketAddr,
    /// The full name that was queried, with its final dot.
    pub name: String,
    /// The family that was queried: A or AAAA records.
    pub family: Family,
    /// Whether TCP was used: the answer over UDP was truncated (RFC 1035, 4.1.1, TC), or the resolver is set to
    /// TCP (`options use-vc`).
    pub tcp: bool,
    /// When the truncated answer over UDP arrived that led to TCP; absent if there was none.
    #[serde(
        rename = "truncated_after_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub truncated_after: Option<Duration>,
    /// The size of an answer over UDP that only fits with EDNS: more than 512 bytes (RFC 1035, 4.2.1). Absent for
    /// others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_answer_bytes: Option<usize>,
    /// The aliases in a negative answer; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative: Option<NegativeAnswer>,
    /// The answer, or why there is none.
    #[serde(flatten)]
    pub outcome: Step<Answer, DnsFault>,
}

impl Query {
    /// Whether the server answered about the name: with addresses, or that there are none.
    pub fn is_answered(&self) -> bool {
        is_answer(&self.outcome)
    }
}

fn is_answer(outcome: &Step<Answer, DnsFault>) -> bool {
    matches!(
        outcome,
        Step::Done { .. }
            | Step::Failed {
                fault: DnsFault::NoData | DnsFault::NxDomain,
                ..
            }
    )
}

/// What a negative answer (RFC 2308) states beside its code: the name is an alias, and the last name of the chain
/// has no address.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NegativeAnswer {
    /// The CNAMEs in the answer, in the order of the chain; the last one has no address.
    pub cnames: Vec<String>,
    /// The zone that the server looked in: the owner of the SOA record; absent if the answer has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// One query without EDNS and the same with EDNS again, to a server that had answered none with EDNS.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct EdnsTrial {
    /// Address and port of the name server.
    pub server: SocketAddr,
    /// The outcome without EDNS.
    pub without: Step<Answer, DnsFault>,
    /// The outcome with EDNS, after that; skipped if there was no answer without.
    pub with: Step<Answer, DnsFault>,
}

impl EdnsTrial {
    /// Whether EDNS made the difference.
    pub fn is_proof(&self) -> bool {
        is_answer(&self.without) && self.with.fault().is_some_and(DnsFault::may_be_edns)
    }
}

/// A server's answer with addresses.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Answer {
    /// The A or AAAA records.
    pub records: Vec<AddressRecord>,
    /// The CNAMEs in the answer, in the order of the chain.
    pub cnames: Vec<String>,
}

/// An A or AAAA record.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct AddressRecord {
    /// The address.
    pub address: IpAddr,
    /// Time to live, in seconds (RFC 1035, 3.2.1).
    pub ttl_seconds: u32,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Server's last octet, name, family, its answer.
    type Row<'a> = (u8, &'a str, Family, Result<&'a [&'a str], DnsFault>);

    fn queries(table: &[Row<'_>]) -> Resolve {
        let took = Duration::from_millis(1);
        let queries = table
            .iter()
            .map(|(server, name, family, answer)| Query {
                server: SocketAddr::from(([10, 0, 0, *server], 53)),
                name: (*name).to_owned(),
                family: *family,
                tcp: false,
                truncated_after: None,
                large_answer_bytes: None,
                negative: None,
                outcome: Step::from_result(
                    answer.clone().map(|addresses| Answer {
                        records: addresses
                            .iter()
                            .map(|a| AddressRecord {
                                address: a.parse().unwrap(),
                                ttl_seconds: 60,
                            })
                            .collect(),
                        cnames: Vec::new(),
                    }),
                    took,
                ),
            })
            .collect();
        Resolve {
            beyond: Vec::new(),
            queries,
            ..Resolve::default()
        }
    }

    #[test]
    fn servers_disagree_when_their_words_exclude_each_other() {
        use DnsFault::{NoData, NxDomain, Refused, ServFail, Timeout};
        use Family::{V4, V6};
        let private: Result<&[&str], DnsFault> = Ok(&["10.0.3.9", "10.0.3.10"]);
        let overlap: Result<&[&str], DnsFault> = Ok(&["10.0.3.10"]);
        let public: Result<&[&str], DnsFault> = Ok(&["52.0.0.1"]);
        let v6: Result<&[&str], DnsFault> = Ok(&["2001:db8::1"]);
        let both = "10.0.3.9, 10.0.3.10";
        for (family, a, b, want) in [
            (V4, &private, &private, None),
            (V4, &private, &overlap, None),
            (V4, &private, &public, Some((both, "52.0.0.1"))),
            (V4, &Err(NxDomain), &private, Some(("NXDOMAIN", both))),
            (V4, &private, &Err(NxDomain), Some((both, "NXDOMAIN"))),
            (V4, &private, &Err(NoData), Some((both, "NODATA"))),
            (V6, &v6, &Err(NoData), None),
            (V6, &v6, &Err(NxDomain), Some(("2001:db8::1", "NXDOMAIN"))),
            (V4, &Err(NxDomain), &Err(NoData), None),
            (V4, &private, &Err(Timeout), None),
            (V4, &private, &Err(ServFail), None),
            (V4, &Err(Refused), &Err(NxDomain), None),
        ] {
            let resolve = queries(&[(1, "a.", family, a.clone()), (2, "a.", family, b.clone())]);
            let want: Vec<(SocketAddr, String)> = want.map_or_else(Vec::new, |(a, b)| {
                vec![
                    (SocketAddr::from(([10, 0, 0, 1], 53)), a.to_owned()),
                    (SocketAddr::from(([10, 0, 0, 2], 53)), b.to_owned()),
                ]
            });
            let found = resolve.disagreement().unwrap_or_default().into_iter();
            let found: Vec<_> = found.map(|(at, answer)| (at, answer.to_string())).collect();
            assert_eq!(found, want, "{a:?} {b:?}");
        }
    }

    #[test]
    fn only_words_on_the_same_name_and_family_are_compared() {
        use Family::{V4, V6};
        let resolve = queries(&[
            (1, "a.svc.", V4, Err(DnsFault::NxDomain)),
            (2, "a.svc.", V4, Err(DnsFault::NxDomain)),
            (1, "a.", V4, Ok(&["10.0.3.9"])),
            (1, "a.", V6, Err(DnsFault::NoData)),
            (2, "a.", V4, Err(DnsFault::Timeout)),
            (2, "a.", V6, Err(DnsFault::NxDomain)),
            (2, "a.", V4, Ok(&["10.0.3.9"])),
        ]);
        assert_eq!(resolve.disagreement(), None);
        assert_eq!(queries(&[]).disagreement(), None);

        let resolve = queries(&[
            (1, "a.", V4, Ok(&["10.0.3.9"])),
            (2, "a.", V4, Err(DnsFault::Timeout)),
            (3, "a.", V4, Ok(&["52.0.0.1"])),
            (1, "b.", V4, Err(DnsFault::NxDomain)),
            (3, "b.", V4, Ok(&["52.0.0.1"])),
        ]);
        let found = resolve.disagreement().unwrap();
        assert_eq!(found.len(), 2, "the silent server does not count");
        assert!(
            found
                .iter()
                .all(|(_, answer)| matches!(answer, NameAnswer::Addresses(_)))
        );
    }
}
