//! Finds the addresses of a host: queries every server directly, and determines what a Go program would conclude from
//! the answers.
//!
//! containerd and the kubelet use Go's resolver, which queries one server after the other and reports only the last
//! problem. Here all servers are queried, and each query is recorded separately. [`conclude`] then goes through the
//! record as the runtime would have gone through the servers ([`crate::resolver`]). `hickory-proto` encodes and decodes
//! DNS messages; the sockets are our own, because only a connected UDP socket receives the error of a closed port (ICMP
//! port unreachable), and because no query may be repeated without being recorded.

mod places;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use hickory_proto::op::{self, Edns, Header, Message, MessageType, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use nix::errno::Errno;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use self::places::Places;
use super::order;
use super::resolv::ResolverConfig;
use crate::model::endpoint::Host;
use crate::model::fault::DnsFault;
use crate::model::own_limit::OwnLimit;
use crate::model::resolve::{
    AddressRecord, Answer, EdnsTrial, Family, NegativeAnswer, Query, Resolution, ResolutionSource,
    Resolve,
};
use crate::model::resolver::ResolverSettings;
use crate::model::step::Step;
use crate::model::text::clean;
use crate::own;
use crate::resolver::names::{is_domain_name, name_list};
use crate::resolver::order::{Build, Order, order};
use crate::resolver::outlook::{Way, ways};
use crate::resolver::{Ending, Lookup};

// The address families to look up. The doc comment below is the text of the configuration's schema.
/// `network.families`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "FamilyWish")]
pub enum Families {
    #[default]
    /// IPv4 and IPv6; the default.
    Both,
    #[serde(rename = "ipv4")]
    /// `ipv4`: only A records.
    V4Only,
    #[serde(rename = "ipv6")]
    /// `ipv6`: only AAAA records.
    V6Only,
}

impl Families {
    /// The families, in the order of their queries.
    fn list(self) -> &'static [Family] {
        match self {
            Self::V4Only => &[Family::V4],
            Self::V6Only => &[Family::V6],
            Self::Both => &[Family::V4, Family::V6],
        }
    }

    fn has(self, address: IpAddr) -> bool {
        self.list().contains(&Family::of(address))
    }
}

/// Resolves a host within `limit`.
///
/// An address needs no lookup. `overrides` (`--resolve`) come first and keep their order, then the hosts file, then the
/// servers, unless nsswitch.conf has another order. As in Go, a name in the hosts file is not queried, even if the file
/// has no address of the requested family.
///
/// One query to one server waits for `config.timeout` or `limit`, whichever is shorter. An unanswered query is repeated
/// up to `config.attempts` times, as Go does, each time as a [`Query`] of its own; repeating it, and the later names of
/// the search list, need time left in `limit`.
pub async fn resolve(
    host: &Host,
    config: &ResolverConfig,
    overrides: &[IpAddr],
    families: Families,
    limit: Duration,
) -> Resolve {
    let started = Instant::now();
    let (queries, result) = match without_query(host, config, overrides, families) {
        Known::Result(result) => (Vec::new(), result),
        Known::Lookup(name) => {
            let (queries, mut result) = query_servers(name, config, families, started, limit).await;
            let in_file = config.hosts.lookup(name);
            if result.is_err()
                && own_order(name, &config.settings) == Order::DnsFiles
                && !in_file.is_empty()
            {
                result = of_hosts_file(host, in_file, families);
            }
            (queries, result)
        }
    };
    let mut met = queries.iter().filter_map(|query| query.outcome.own_limit());
    let result = result.map_err(|fault| met.next().map_or(fault, DnsFault::from));
    let mut beyond = Vec::new();
    if result.is_err() && !queries.is_empty() {
        beyond = query_ignored(&host.to_string(), config, families, limit).await;
    }
    let outcome = Step::from_result(result, started.elapsed());
    Resolve {
        sends_edns: config.sends_edns.filter(|_| !queries.is_empty()),
        edns_trials: Vec::new(),
        without_edns: None,
        queries,
        beyond,
        outcome,
    }
}

/// Repeats a query without EDNS whose answer only fits with it, if the runtime may send none: such a build needs TCP.
pub async fn large_answer_without_edns(
    queries: &[Query],
    config: &ResolverConfig,
    limit: Duration,
) -> Option<Box<Query>> {
    let bound = config.settings.timeout.min(limit).min(LONGEST_TRIAL);
    let mut queries = queries.iter().filter(|_| config.sends_edns.is_none());
    let large = queries.find(|query| query.large_answer_bytes.is_some())?;
    let (name, deadline) = (large.name.clone(), Instant::now() + bound);
    let query = query_server(
        large.server,
        name,
        large.family,
        bound,
        deadline,
        false,
        false,
    );
    Some(Box::new(query.await))
}

/// Queries each server that answered none of the queries with EDNS once without, and then with EDNS again. What it
/// answers decides no lookup.
pub async fn edns_trials(
    queries: &[Query],
    config: &ResolverConfig,
    limit: Duration,
) -> Vec<EdnsTrial> {
    if config.sends_edns == Some(false) {
        return Vec::new();
    }
    let bound = config.settings.timeout.min(limit).min(LONGEST_TRIAL);
    let mut suspects: Vec<&Query> = Vec::new();
    for query in queries {
        let mut same = queries.iter().filter(|other| other.server == query.server);
        if suspects.iter().all(|other| other.server != query.server)
            && same.all(|other| other.outcome.fault().is_some_and(DnsFault::may_be_edns))
        {
            suspects.push(query);
        }
    }
    let trials = suspects.into_iter().map(async |query| {
        let once = async |with_edns| {
            let (server, name, deadline) =
                (query.server, query.name.clone(), Instant::now() + bound);
            let family = query.family;
            query_server(
                server,
                name,
                family,
                bound,
                deadline,
                config.settings.use_tcp,
                with_edns,
            )
            .await
        };
        let without = once(false).await;
        let with = if without.is_answered() {
            once(true).await.outcome
        } else {
            Step::default()
        };
        EdnsTrial {
            server: query.server,
            without: without.outcome,
            with,
        }
    });
    futures_util::future::join_all(trials).await
}

/// What the servers answer that no resolver queries, because the file has more than three: for the name as written.
async fn query_ignored(
    name: &str,
    config: &ResolverConfig,
    families: Families,
    limit: Duration,
) -> Vec<Query> {
    let name = format!("{}.", name.trim_end_matches('.'));
    let deadline = Instant::now() + limit;
    let bound = config.settings.timeout.min(limit).min(PATIENCE_FOR_IGNORED);
    let servers = config.settings.ignored_servers.iter().take(3);
    let queries = servers.flat_map(|server| {
        families.list().iter().map(|family| {
            let use_tcp = config.settings.use_tcp;
            let with_edns = config.sends_edns != Some(false);
            query_server(
                *server,
                name.clone(),
                *family,
                bound,
                deadline,
                use_tcp,
                with_edns,
            )
        })
    });
    futures_util::future::join_all(queries).await
}

/// The order of sources of Go's own resolver.
fn own_order(name: &str, settings: &ResolverSettings) -> Order {
    let build = Build {
        cgo: false,
        go_1_20: settings.runtime.go_1_20.unwrap_or(true),
    };
    order(name, settings, build)
}

/// What the servers answer for a name that is in the hosts file, each query sent once. No pull queries them, but the
/// answer shows whether the entry is outdated.
pub async fn query_despite_hosts_file(
    name: &str,
    config: &ResolverConfig,
    families: Families,
    limit: Duration,
) -> Vec<Query> {
    if !is_domain_name(name) {
        return Vec::new();
    }
    // With a final dot: the search list would make other names of it.
    let name = format!("{}.", name.trim_end_matches('.'));
    let mut config = config.clone();
    config.settings.attempts = 1;
    let limit = limit.min(LONGEST_TRIAL);
    let (queries, _) = query_servers(&name, &config, families, Instant::now(), limit).await;
    queries
}

enum Known<'a> {
    Result(Result<Resolution, DnsFault>),
    Lookup(&'a str),
}

/// The result that needs no server.
fn without_query<'a>(
    host: &'a Host,
    config: &ResolverConfig,
    overrides: &[IpAddr],
    families: Families,
) -> Known<'a> {
    let name = match host {
        Host::Address(address) => {
            let source = ResolutionSource::Literal;
            return Known::Result(found(host, vec![*address], families, source));
        }
        Host::Name(name) => name,
    };
    if !overrides.is_empty() {
        let source = ResolutionSource::Override;
        return Known::Result(found(host, overrides.to_vec(), families, source));
    }
    let order = own_order(name, &config.settings);
    let in_file = config.hosts.lookup(name);
    if !in_file.is_empty() && matches!(order, Order::FilesDns | Order::Files) {
        return Known::Result(of_hosts_file(host, in_file, families));
    }
    if is_domain_name(name) && order != Order::Files {
        Known::Lookup(name)
    } else {
        // Go queries no server for text that can't be a name, and reports "no such host".
        Known::Result(Err(DnsFault::NxDomain))
    }
}

fn of_hosts_file(
    host: &Host,
    addresses: &[IpAddr],
    families: Families,
) -> Result<Resolution, DnsFault> {
    let addresses = order::order(addresses.to_vec());
    found(host, addresses, families, ResolutionSource::HostsFile)
}

fn found(
    host: &Host,
    mut addresses: Vec<IpAddr>,
    families: Families,
    source: ResolutionSource,
) -> Result<Resolution, DnsFault> {
    addresses.retain(|a| source == ResolutionSource::Literal || families.has(*a));
    dedup(&mut addresses);
    if addresses.is_empty() {
        return Err(DnsFault::NoData);
    }
    Ok(Resolution {
        name: host.bare(),
        addresses,
        cnames: Vec::new(),
        source,
    })
}

async fn query_servers(
    host: &str,
    config: &ResolverConfig,
    families: Families,
    started: Instant,
    limit: Duration,
) -> (Vec<Query>, Result<Resolution, DnsFault>) {
    let settings = &config.settings;
    if settings.nameservers.is_empty() {
        return (Vec::new(), Err(DnsFault::NoServers));
    }
    let mut servers = settings.nameservers.clone();
    let mut seen = std::collections::HashSet::new();
    servers.retain(|server| seen.insert(*server));
    let survey = Survey {
        places: Places::new(servers.len(), own::places()),
        host,
        names: &name_list(host, &settings.search, settings.ndots),
        families: families.list(),
        servers: &servers,
        settings,
        with_edns: config.sends_edns != Some(false),
        bound: settings.timeout.min(limit),
        deadline: started + limit.min(LONGEST_LIMIT),
    };
    let queries = survey.run().await;
    let result = conclude(host, settings, families, &queries).map(|mut resolution| {
        resolution.addresses = order::order(resolution.addresses);
        resolution
    });
    (queries, result)
}

fn dedup(addresses: &mut Vec<IpAddr>) {
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
}

// ---- what to query, and when --------------------------------------------------------------------

/// All queries for one host.
struct Survey<'a> {
    places: Places,
    host: &'a str,
    names: &'a [String],
    families: &'static [Family],
    /// Each of them once.
    servers: &'a [SocketAddr],
    settings: &'a ResolverSettings,
    with_edns: bool,
    /// Time limit for one query.
    bound: Duration,
    deadline: Instant,
}

/// A query's position in the record: by name, attempt, server, family.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct QueryIndex {
    name: usize,
    attempt: usize,
    server: usize,
    family: usize,
}

/// The queries so far; `None` while there is no answer yet.
type QueryLog = BTreeMap<QueryIndex, Option<Query>>;

impl Survey<'_> {
    /// Queries until the result is certain, every query is answered, or time is up. A name that is not answered soon
    /// does not hold up the ones after it: what it costs a pull is computed from its own queries.
    async fn run(&self) -> Vec<Query> {
        let mut record = QueryLog::new();
        let mut tasks = FuturesUnordered::new();
        let mut begun = 0;
        let mut impatient = false;
        loop {
            while begun < self.names.len()
                && self.has_time()
                && (std::mem::take(&mut impatient)
                    || (0..begun).all(|name| self.continues_after(name, &record))
                    || (tasks.is_empty() && self.last_needed(&record).is_none()))
            {
                for server in 0..self.servers.len() {
                    for family in 0..self.families.len() {
                        let place = QueryIndex {
                            name: begun,
                            attempt: 0,
                            server,
                            family,
                        };
                        record.insert(place, None);
                        tasks.push(self.query(place));
                    }
                }
                begun += 1;
            }
            let next = if begun < self.names.len() {
                own::within(self.patience(), tasks.next()).await
            } else {
                Ok(tasks.next().await)
            };
            let Ok(next) = next else {
                impatient = true;
                continue;
            };
            let Some((place, query)) = next else {
                break;
            };
            record.insert(place, Some(query));
            for place in self.to_repeat(place, &record) {
                record.insert(place, None);
                tasks.push(self.query(place));
            }
            if self.may_be_certain(place.name, begun, &record) && self.is_certain(&record) {
                break;
            }
        }
        if let Some(last) = self.last_needed(&record) {
            // No resolver would have queried the names after it.
            record.retain(|place, _| place.name <= last);
        }
        record.into_values().flatten().collect()
    }

    /// How long a silent name holds up the next one: all that a kubelet writes are queried in a third of the wait for
    /// one.
    fn patience(&self) -> Duration {
        let names = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.bound / names.saturating_mul(3).clamp(8, 96)
    }

    /// Whether [`Self::is_certain`] is worth its time, after an answer for `name`: all others for it are there, and it
    /// is the last name, or some query got more than silence and the word that there is nothing.
    fn may_be_certain(&self, name: usize, begun: usize, record: &QueryLog) -> bool {
        let is_more = |query: &Query| match query.outcome.fault() {
            Some(DnsFault::NxDomain | DnsFault::NoData | DnsFault::Timeout) => false,
            Some(_) => true,
            None => query.outcome.done().is_some_and(|a| !a.records.is_empty()),
        };
        queries_for(name, record).all(|(_, query)| query.is_some())
            && (begun == self.names.len() || record.values().flatten().any(is_more))
    }

    /// Whether there is time for one more query: at least half of its wait, since less would show little.
    fn has_time(&self) -> bool {
        self.deadline.saturating_duration_since(Instant::now()) * 2 >= self.bound
    }

    async fn query(&self, place: QueryIndex) -> (QueryIndex, Query) {
        let server = self.servers[place.server];
        let family = self.families[place.family];
        let name = self.names[place.name].clone();
        let (bound, deadline, use_tcp) = (self.bound, self.deadline, self.settings.use_tcp);
        let with_edns = self.with_edns;
        let held = in_time(self.places.take(place.server), bound, deadline);
        let Some(_held) = held.await else {
            return (place, not_sent(server, name, family, use_tcp));
        };
        let query = query_server(server, name, family, bound, deadline, use_tcp, with_edns).await;
        (place, query)
    }

    /// Whether Go would continue with the next name after this one. Decided as soon as it is likely: a server that does
    /// not answer must not use up the time of the remaining names.
    fn continues_after(&self, name: usize, record: &QueryLog) -> bool {
        let queries = || queries_for(name, record);
        if queries().all(|(_, query)| query.is_some()) {
            return !self.has_addresses(name, record);
        }
        let has_fault = |family: usize, fault: &DnsFault| {
            queries().any(|(at, query)| at.family == family && fault_of(query) == Some(fault))
        };
        let families = || 0..self.families.len();
        queries().all(|(_, query)| query.is_none_or(|q| q.outcome.done().is_none()))
            && (families().any(|family| has_fault(family, &DnsFault::NxDomain))
                || families().all(|family| has_fault(family, &DnsFault::NoData)))
    }

    /// Whether the answers so far decide every way of the lookup, and no query of those names is under way.
    fn is_certain(&self, record: &QueryLog) -> bool {
        let last = self.last_needed(record);
        last.is_some_and(|last| {
            (0..=last).all(|name| queries_for(name, record).all(|(_, query)| query.is_some()))
        })
    }

    /// The last name that any way of the lookup asks for; `None` if a query that decides was not made.
    fn last_needed(&self, record: &QueryLog) -> Option<usize> {
        let queries: Vec<Query> = record.values().flatten().cloned().collect();
        let ways = ways(&Lookup {
            host: self.host.to_owned(),
            settings: self.settings,
            families: self.families,
            queries: &queries,
        });
        let is_known = |way: &Way<'_>| !matches!(way.outcome.ending, Ending::Unknown);
        let asked = ways.iter().flat_map(|way| &way.outcome.exchanges);
        ways.iter().all(is_known).then(|| {
            let names = asked.filter_map(|asked| self.names.iter().position(|n| *n == asked.name));
            names.max().unwrap_or_default()
        })
    }

    fn has_addresses(&self, name: usize, record: &QueryLog) -> bool {
        (0..self.families.len())
            .any(|family| matches!(walk_of(name, family, record), Some(Walk::Addresses)))
    }

    /// The queries to repeat after the one at `place`: those of its attempt that were not answered, if no server has
    /// given a final answer for Go. Go would also repeat those that were answered with an error; the same error a
    /// moment later is not informative.
    fn to_repeat(&self, place: QueryIndex, record: &QueryLog) -> Vec<QueryIndex> {
        let attempt = || {
            queries_for(place.name, record)
                .filter(|(p, _)| p.family == place.family && p.attempt == place.attempt)
        };
        if place.attempt + 1 >= self.settings.attempts.max(1)
            || !self.has_time()
            || attempt().any(|(_, query)| query.is_none())
            || walk_of(place.name, place.family, record) != Some(Walk::Failed)
        {
            return Vec::new();
        }
        attempt()
            .filter(|(_, query)| fault_of(*query) == Some(&DnsFault::Timeout))
            .map(|(p, _)| QueryIndex {
                attempt: p.attempt + 1,
                ..*p
            })
            .collect()
    }
}

/// How a pass over the servers ends, from the first on; `None`: there is no answer yet.
fn walk_of(name: usize, family: usize, record: &QueryLog) -> Option<Walk> {
    let queries = queries_for(name, record).filter(|(place, _)| place.family == family);
    let mut ending = None;
    for query in queries.filter_map(|(_, query)| query) {
        ending = Some(match &query.outcome {
            Step::Done { value, .. } if !value.records.is_empty() => return Some(Walk::Addresses),
            Step::Failed {
                fault: DnsFault::NxDomain | DnsFault::NoData,
                ..
            }
            | Step::Done { .. } => return Some(Walk::Nothing),
            Step::Failed { .. } => Walk::Failed,
            Step::Skipped { .. } => continue,
        });
    }
    ending
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Walk {
    Addresses,
    /// A server's answer that there is nothing: Go queries no other server.
    Nothing,
    /// No server gave an answer.
    Failed,
}

fn queries_for(
    name: usize,
    record: &QueryLog,
) -> impl Iterator<Item = (&QueryIndex, Option<&Query>)> {
    let first = |name| QueryIndex {
        name,
        attempt: 0,
        server: 0,
        family: 0,
    };
    let of_name = record.range(first(name)..first(name + 1));
    of_name.map(|(place, query)| (place, query.as_ref()))
}

fn fault_of(query: Option<&Query>) -> Option<&DnsFault> {
    query?.outcome.fault()
}

// ---- what the runtime would conclude -------------------------------------------------------------

/// What a runtime would get from these queries: the addresses of the first name that has any, A before AAAA, or else
/// the fault that it would report. If resolvers or the order of servers differ in that, the first that finds addresses
/// counts; whether all do is for the verdict.
///
/// `queries` is the record in its order. One family with addresses is enough: the fault of the other one is only in the
/// record.
///
/// # Errors
/// The fault that Go would report, if no name has an address.
pub fn conclude(
    host: &str,
    settings: &ResolverSettings,
    families: Families,
    queries: &[Query],
) -> Result<Resolution, DnsFault> {
    let ways = ways(&Lookup {
        host: host.to_owned(),
        settings,
        families: families.list(),
        queries,
    });
    for way in &ways {
        if let Ending::Found { name, answers } = &way.outcome.ending
            && let Some((query, first)) = answers.first()
        {
            let records = answers.iter().flat_map(|(_, answer)| &answer.records);
            let mut addresses: Vec<IpAddr> = records.map(|record| record.address).collect();
            dedup(&mut addresses);
            return Ok(Resolution {
                name: name.clone(),
                addresses,
                cnames: first.cnames.clone(),
                source: ResolutionSource::Server {
                    server: query.server,
                },
            });
        }
    }
    Err(match ways.first().map(|way| &way.outcome.ending) {
        Some(Ending::Failed(fault)) => fault.clone(),
        // The end of this check's time is not a server's answer.
        _ => DnsFault::Timeout,
    })
}

// ---- one query to one server --------------------------------------------------------------------

async fn query_server(
    server: SocketAddr,
    name: String,
    family: Family,
    bound: Duration,
    deadline: Instant,
    use_tcp: bool,
    with_edns: bool,
) -> Query {
    let left = || bound.min(deadline.saturating_duration_since(Instant::now()));
    let Some(_place) = in_time(own::place(), bound, deadline).await else {
        return not_sent(server, name, family, use_tcp);
    };
    let started = Instant::now();
    let mut tcp = use_tcp;
    let (mut truncated_after, mut large_answer_bytes, mut negative) = (None, None, None);
    let result = async {
        let question = Question::new(&name, family, with_edns)?;
        if !tcp {
            match over_udp(server, &question, left()).await? {
                Reply::Whole(packet) => {
                    large_answer_bytes =
                        Some(packet.len()).filter(|length| *length > PLAIN_DATAGRAM);
                    negative = negative_answer(&packet);
                    return read_answer(&packet, family);
                }
                Reply::Truncated => {
                    truncated_after = Some(started.elapsed());
                    tcp = true;
                }
            }
        }
        let packet = own::within(left(), over_tcp(server, &question)).await;
        let packet = packet.unwrap_or_else(|elapsed| Err(elapsed.or(DnsFault::Timeout)))?;
        negative = negative_answer(&packet);
        read_answer(&packet, family)
    }
    .await;
    Query {
        server,
        name,
        family,
        tcp,
        truncated_after,
        large_answer_bytes,
        negative: negative.filter(|_| matches!(result, Err(DnsFault::NxDomain | DnsFault::NoData))),
        outcome: Step::from_result(result, started.elapsed()),
    }
}

/// Waits for a place for a query that waits for `bound`. `None`: too little time is left after the wait.
async fn in_time<T>(
    place: impl Future<Output = T>,
    bound: Duration,
    deadline: Instant,
) -> Option<T> {
    let mut place = pin!(place);
    if let Some(place) = place.as_mut().now_or_never() {
        return Some(place);
    }
    let left = || deadline.saturating_duration_since(Instant::now());
    let place = own::within(left(), place).await.ok()?;
    // In less than half of its time, silence would show little.
    (left() * 2 >= bound).then_some(place)
}

/// A query for which no socket was free in time.
fn not_sent(server: SocketAddr, name: String, family: Family, tcp: bool) -> Query {
    Query {
        server,
        name,
        family,
        tcp,
        truncated_after: None,
        large_answer_bytes: None,
        negative: None,
        outcome: Step::failed(OwnLimit::Deadline.into(), Duration::ZERO),
    }
}

/// A query, ready to be sent.
struct Question {
    id: u16,
    query: op::Query,
    packet: Vec<u8>,
}

enum Reply {
    Whole(Vec<u8>),
    /// TC is set (RFC 1035, 4.1.1): repeat over TCP (RFC 7766, 5).
    Truncated,
}

impl Question {
    fn new(name: &str, family: Family, with_edns: bool) -> Result<Self, DnsFault> {
        let unfit = |_| malformed("the name does not fit into a query");
        let query = op::Query::query(
            Name::from_ascii(name).map_err(unfit)?,
            match family {
                Family::V4 => RecordType::A,
                Family::V6 => RecordType::AAAA,
            },
        );
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        if with_edns {
            let mut edns = Edns::new();
            edns.set_max_payload(LARGEST_DATAGRAM);
            message.set_edns(edns);
        }
        Ok(Self {
            id: message.id,
            query,
            packet: message.to_vec().map_err(unfit)?,
        })
    }

    /// The header of a response that belongs to this query; otherwise why it does not.
    fn header_of_answer(&self, packet: &[u8]) -> Result<Header, &'static str> {
        let mut decoder = BinDecoder::new(packet);
        let header = Header::read(&mut decoder).map_err(|_| "the response is not a DNS message")?;
        if header.message_type != MessageType::Response {
            return Err("the packet is a DNS query, not a response");
        }
        if header.id != self.id {
            return Err("the response has a different ID than the query");
        }
        let query = op::Query::read(&mut decoder).map_err(|_| match header.response_code {
            ResponseCode::FormErr => "the response is FORMERR without the question",
            _ => "the response has no question section",
        })?;
        // Names compare without case.
        if header.counts.queries != 1 || query != self.query {
            return Err("the response is for another question");
        }
        Ok(header)
    }
}

/// Sends once, and waits for the response. Packets that do not belong to the query are ignored while there is time:
/// they may be forged (RFC 5452, 4).
async fn over_udp(
    server: SocketAddr,
    question: &Question,
    bound: Duration,
) -> Result<Reply, DnsFault> {
    let mut stray = None;
    let exchange = async {
        let socket = own::udp_socket((order::unspecified(server.ip()), 0).into()).await?;
        socket.connect(server).await?;
        socket.send(&question.packet).await?;
        let mut buffer = [0; LARGEST_DATAGRAM as usize];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let packet = &buffer[..length];
            match question.header_of_answer(packet) {
                Ok(header) if header.truncation => return Ok(Reply::Truncated),
                Ok(_) => return Ok(Reply::Whole(packet.to_vec())),
                Err(reason) => stray = Some(reason),
            }
        }
    };
    match own::within(bound, exchange).await {
        Ok(result) => result.map_err(|error: io::Error| io_fault(&error)),
        Err(elapsed) => Err(elapsed.or(stray.map_or(DnsFault::Timeout, malformed))),
    }
}

/// RFC 7766, 8: each message follows its length.
async fn over_tcp(server: SocketAddr, question: &Question) -> Result<Vec<u8>, DnsFault> {
    let socket = own::tcp_socket(server.ip()).map_err(|error| io_fault(&error))?;
    let connected = socket.connect(server).await;
    let mut stream = connected.map_err(|error| io_fault(&error))?;
    let exchange = async {
        let length = u16::try_from(question.packet.len())
            .map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&question.packet);
        stream.write_all(&framed).await?;
        let mut packet = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut packet).await?;
        Ok(packet)
    };
    let packet = exchange
        .await
        .map_err(|error: io::Error| match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                malformed("the server closed the TCP connection before the response was complete")
            }
            _ => io_fault(&error),
        })?;
    question.header_of_answer(&packet).map_err(malformed)?;
    Ok(packet)
}

/// The fault for an errno of a socket (connect(2), udp(7)).
fn io_fault(error: &io::Error) -> DnsFault {
    if let Some(limit) = own::limit_of(error) {
        return limit.into();
    }
    match own::errno(error).map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => DnsFault::PortClosed,
        Some(Errno::ETIMEDOUT) => DnsFault::Timeout,
        Some(errno) => DnsFault::Unreachable {
            error: format!("{} ({errno:?})", errno.desc()),
        },
        None => DnsFault::Unreachable {
            error: error.kind().to_string(),
        },
    }
}

fn malformed(reason: &str) -> DnsFault {
    DnsFault::Malformed {
        reason: reason.to_owned(),
    }
}

// ---- one answer ---------------------------------------------------------------------------------

/// The result of a packet that arrives as the response to a query with this ID: everything except the sockets, for
/// tests that construct packets. `None`: it is truncated (TC), which over UDP means to repeat the query over TCP.
#[doc(hidden)]
///
/// # Errors
/// The fault that the packet means for the query.
pub fn read_packet(
    packet: &[u8],
    id: u16,
    name: &str,
    family: Family,
    tcp: bool,
) -> Result<Option<Answer>, DnsFault> {
    let question = Question {
        id,
        ..Question::new(name, family, true)?
    };
    let header = question.header_of_answer(packet).map_err(malformed)?;
    if header.truncation && !tcp {
        return Ok(None);
    }
    read_answer(packet, family).map(Some)
}

/// Parses a response that belongs to its query (Go: `checkHeader`, `skipToAnswer`).
fn read_answer(packet: &[u8], family: Family) -> Result<Answer, DnsFault> {
    let unreadable = |_| malformed("the response can't be decoded");
    let mut decoder = BinDecoder::new(packet);
    let header = Header::read(&mut decoder).map_err(unreadable)?;
    let mut asked = None;
    for _ in 0..header.counts.queries {
        asked = Some(op::Query::read(&mut decoder).map_err(unreadable)?);
    }
    let (records, is_whole) = read_records(&mut decoder, header.counts.answers);
    let mut code = header.response_code;
    let mut has_more = false;
    // Of the sections after the answers, only the upper bits of the code matter (RFC 6891, 6.1.3).
    if is_whole && read_records(&mut decoder, header.counts.authorities).1 {
        let (additionals, _) = read_records(&mut decoder, header.counts.additionals);
        has_more = !additionals.is_empty();
        if let Some(opt) = additionals
            .iter()
            .find(|r| r.record_type() == RecordType::OPT)
        {
            code = ResponseCode::from(Edns::from(opt).rcode_high(), code.low());
        }
    }
    match code {
        ResponseCode::NXDomain => return Err(DnsFault::NxDomain),
        _ if records.is_empty() && !is_whole => return Err(malformed("the response is cut off")),
        ResponseCode::NoError => {}
        ResponseCode::ServFail => return Err(DnsFault::ServFail),
        ResponseCode::Refused => return Err(DnsFault::Refused),
        other => {
            return Err(DnsFault::OtherCode {
                code: code_name(other),
            });
        }
    }
    let is_lame = !header.authoritative && !header.recursion_available && !has_more;
    if records.is_empty() && is_lame {
        return Err(malformed(
            "the server gives no answer and offers no recursion (lame referral)",
        ));
    }
    let addresses: Vec<AddressRecord> = records
        .iter()
        .filter_map(|record| {
            let address = match (&record.data, family) {
                (RData::A(a), Family::V4) => IpAddr::V4(a.0),
                (RData::AAAA(aaaa), Family::V6) => IpAddr::V6(aaaa.0),
                _ => return None,
            };
            Some(AddressRecord {
                address,
                ttl_seconds: ttl(record.ttl),
            })
        })
        .collect();
    match addresses.is_empty() {
        true if is_whole => Err(DnsFault::NoData),
        true => Err(malformed("the response is cut off")),
        false => Ok(Answer {
            records: addresses,
            cnames: asked.map_or_else(Vec::new, |query| aliases(query.name(), &records)),
        }),
    }
}

/// The aliases in an answer without addresses, and the zone of its SOA record.
fn negative_answer(packet: &[u8]) -> Option<NegativeAnswer> {
    let mut decoder = BinDecoder::new(packet);
    let header = Header::read(&mut decoder).ok()?;
    let mut asked = None;
    for _ in 0..header.counts.queries {
        asked = Some(op::Query::read(&mut decoder).ok()?);
    }
    let (records, is_whole) = read_records(&mut decoder, header.counts.answers);
    let cnames = aliases(asked?.name(), &records);
    if cnames.is_empty() {
        return None;
    }
    let authorities = if is_whole {
        read_records(&mut decoder, header.counts.authorities).0
    } else {
        Vec::new()
    };
    let mut soa = authorities.iter();
    let soa = soa.find(|record| record.record_type() == RecordType::SOA);
    let zone = soa.map(|record| show_name(&record.name));
    Some(NegativeAnswer { cnames, zone })
}

/// Parses up to `count` records; the flag: there were that many.
fn read_records(decoder: &mut BinDecoder<'_>, count: u16) -> (Vec<Record>, bool) {
    let mut records = Vec::new();
    for _ in 0..count {
        match Record::read(decoder) {
            Ok(record) => records.push(record),
            Err(_) => return (records, false),
        }
    }
    (records, true)
}

/// The chain of CNAMEs from a name, in order; a loop ends where it closes.
fn aliases(name: &Name, records: &[Record]) -> Vec<String> {
    let mut chain: Vec<&Name> = Vec::new();
    let mut current = name;
    while let Some(next) = records.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if record.name == *current => Some(&target.0),
        _ => None,
    }) {
        if next == name || chain.contains(&next) || chain.len() == ALIASES_SHOWN {
            break;
        }
        chain.push(next);
        current = next;
    }
    chain.into_iter().map(show_name).collect()
}

fn show_name(name: &Name) -> String {
    clean(&name.to_ascii(), NAME_SHOWN)
}

/// RFC 2181, 8: a TTL with the top bit set counts as 0.
fn ttl(seconds: u32) -> u32 {
    if seconds > i32::MAX.unsigned_abs() {
        0
    } else {
        seconds
    }
}

/// The mnemonics of IANA's registry of RCODEs.
fn code_name(code: ResponseCode) -> String {
    let name = match u16::from(code) {
        1 => "FORMERR",
        4 => "NOTIMP",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        16 => "BADVERS",
        23 => "BADCOOKIE",
        number => return format!("RCODE {number}"),
    };
    name.to_owned()
}

/// Keeps sums of times in range; no longer wait is useful.
const LONGEST_LIMIT: Duration = Duration::from_hours(24);

/// A trial without EDNS follows a lookup that has used up its time, and a name in the hosts file needs no answer.
const LONGEST_TRIAL: Duration = Duration::from_secs(2);

/// The UDP payload size that is advertised: Go's number, recommended by DNS flag day 2020, which no path fragments.
const LARGEST_DATAGRAM: u16 = 1232;

/// The largest answer over UDP without EDNS (RFC 1035, 4.2.1).
const PLAIN_DATAGRAM: usize = 512;
/// For servers that no pull queries.
const PATIENCE_FOR_IGNORED: Duration = Duration::from_secs(2);

/// Longer chains are cut off; resolvers stop at about this many.
const ALIASES_SHOWN: usize = 16;

/// A name has at most 253 characters, more with escapes.
const NAME_SHOWN: usize = 255;

#[cfg(test)]
mod tests;
