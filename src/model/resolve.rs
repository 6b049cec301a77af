//! What resolving a name showed: questions, answers, and where they disagree.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::DnsFault;
use super::step::Step;
use super::text::joined;

#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Resolve {
    /// Every question put to every server, in the order of names, attempts, servers, families. A
    /// question that stayed unanswered and was put again is there once for each attempt.
    pub queries: Vec<Query>,
    #[serde(flatten)]
    pub outcome: Step<Resolution, DnsFault>,
}

impl Resolve {
    /// What each server that gave a word says of the first name and family that two of them say
    /// contrary things of; `None` when they agree as far as they answered.
    ///
    /// Contrary are: addresses with none in common, and addresses against NXDOMAIN, or, for IPv4,
    /// against NODATA. Sets that overlap agree, as servers rotate and shorten them. NODATA for AAAA
    /// agrees with anything: resolvers filter AAAA, or make them up (DNS64, RFC 6147). A server
    /// that gave no word (timeout, SERVFAIL, REFUSED) takes no part.
    ///
    /// Disjoint public addresses may come of load balancing by DNS, where each resolver is given
    /// the servers nearest to it; a private address against a public one, or against NXDOMAIN, is
    /// split horizon. The caller weighs that by the addresses.
    pub fn disagreement(&self) -> Option<Vec<(SocketAddr, NameAnswer)>> {
        self.queries.iter().find_map(|query| {
            let same = |other: &&Query| other.name == query.name && other.family == query.family;
            let word = |other: &Query| Some((other.server, NameAnswer::of(other)?));
            let said: Vec<_> = self.queries.iter().filter(same).filter_map(word).collect();
            let is_contrary = said.iter().enumerate().any(|(i, (_, a))| {
                let mut later = said[i + 1..].iter();
                later.any(|(_, b)| a.is_contrary_to(b, query.family))
            });
            is_contrary.then_some(said)
        })
    }
}

/// A server's word on one name and family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NameAnswer {
    Addresses(Vec<IpAddr>),
    NxDomain,
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
            // No address either way (some servers say NXDOMAIN where NODATA is due, RFC 8020).
            (Self::NxDomain | Self::NoData, Self::NxDomain | Self::NoData) => false,
        }
    }
}

impl std::fmt::Display for NameAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Addresses(addresses) => f.write_str(&joined(addresses)),
            Self::NxDomain => f.write_str("NXDOMAIN"),
            Self::NoData => f.write_str("NODATA"),
        }
    }
}

/// What a pull would dial.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Resolution {
    /// The full name that answered, after the search list.
    pub name: String,
    /// In the order a client tries them (RFC 6724).
    pub addresses: Vec<IpAddr>,
    /// CNAMEs from the name to the one that has the addresses.
    pub cnames: Vec<String>,
    pub source: ResolutionSource,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ResolutionSource {
    /// The server that a Go program would have had its answer from.
    Server {
        server: SocketAddr,
    },
    HostsFile,
    Literal,
    Override,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    V4,
    V6,
}

impl Family {
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

/// One question to one server.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Query {
    pub server: SocketAddr,
    /// The full name asked for, with its final dot.
    pub name: String,
    pub family: Family,
    /// UDP was truncated (RFC 1035, 4.1.1, TC) and the question asked again over TCP; or the
    /// resolver is set to TCP (`options use-vc`).
    pub tcp: bool,
    #[serde(flatten)]
    pub outcome: Step<Answer, DnsFault>,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Answer {
    pub records: Vec<AddressRecord>,
    pub cnames: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct AddressRecord {
    pub address: IpAddr,
    pub ttl_seconds: u32,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::step::Skip;

    /// Server's last octet, name, family, what it said.
    type Row<'a> = (u8, &'a str, Family, Result<&'a [&'a str], DnsFault>);

    fn queries(table: &[Row<'_>]) -> Resolve {
        let took = Duration::from_millis(1);
        let queries = table
            .iter()
            .map(|(server, name, family, said)| Query {
                server: SocketAddr::from(([10, 0, 0, *server], 53)),
                name: (*name).to_owned(),
                family: *family,
                tcp: false,
                outcome: Step::from_result(
                    said.clone().map(|addresses| Answer {
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
            queries,
            outcome: Step::Skipped {
                reason: Skip::NotNeeded,
            },
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
            let said = resolve.disagreement().unwrap_or_default().into_iter();
            let said: Vec<_> = said.map(|(at, said)| (at, said.to_string())).collect();
            assert_eq!(said, want, "{a:?} {b:?}");
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
        assert_eq!(found.len(), 2, "the silent server says nothing");
        assert!(
            found
                .iter()
                .all(|(_, said)| matches!(said, NameAnswer::Addresses(_)))
        );
    }
}
