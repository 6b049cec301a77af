//! Finds the addresses of a host: queries every server directly, and determines what a Go program would conclude from
//! the answers.
//!
//! containerd and the kubelet use Go's resolver, which queries one server after the other and reports only the last
//! problem. Here all servers are queried, and each query is recorded separately. [`conclude`] then goes through the
//! record as Go would have gone through the servers (Go 1.25, `net/dnsclient_unix.go`: `goLookupIPCNAME`,
//! `tryOneName`). `hickory-proto` encodes and decodes DNS messages; the sockets are our own, because only a connected
//! UDP socket receives the error of a closed port (ICMP port unreachable), and because no query may be repeated without
//! being recorded.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hickory_proto::op::{self, Edns, Header, Message, MessageType, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use nix::errno::Errno;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use super::order;
use super::resolv::{ResolverConfig, is_domain_name, name_list};
use crate::model::endpoint::Host;
use crate::model::fault::DnsFault;
use crate::model::resolve::{
    AddressRecord, Answer, EdnsTrial, Family, NegativeAnswer, Query, Resolution, ResolutionSource,
    Resolve,
};
use crate::model::step::Step;
use crate::model::text::clean;

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
/// servers. As in Go, a name in the hosts file is not queried, even if the file has no address of the requested family.
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
        Known::Lookup(name) => query_servers(name, config, families, started, limit).await,
    };
    let outcome = Step::from_result(result, started.elapsed());
    Resolve {
        sends_edns: config.sends_edns.filter(|_| !queries.is_empty()),
        edns_trials: Vec::new(),
        without_edns: None,
        queries,
        outcome,
    }
}

/// Repeats a query without EDNS whose answer only fits with it, if the runtime may send none: such a build needs TCP.
pub async fn large_answer_without_edns(
    queries: &[Query],
    config: &ResolverConfig,
    limit: Duration,
) -> Option<Box<Query>> {
    let bound = config.timeout.min(limit).min(LONGEST_TRIAL);
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
    let bound = config.timeout.min(limit).min(LONGEST_TRIAL);
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
                config.use_tcp,
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
    let config = ResolverConfig {
        attempts: 1,
        ..config.clone()
    };
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
    let found = |mut addresses: Vec<IpAddr>, source| {
        addresses.retain(|a| source == ResolutionSource::Literal || families.has(*a));
        dedup(&mut addresses);
        if addresses.is_empty() {
            return Known::Result(Err(DnsFault::NoData));
        }
        Known::Result(Ok(Resolution {
            name: host.bare(),
            addresses,
            cnames: Vec::new(),
            source,
        }))
    };
    let name = match host {
        Host::Address(address) => return found(vec![*address], ResolutionSource::Literal),
        Host::Name(name) => name,
    };
    if !overrides.is_empty() {
        return found(overrides.to_vec(), ResolutionSource::Override);
    }
    let in_file = config.hosts.lookup(name);
    if !in_file.is_empty() {
        return found(order::order(in_file.to_vec()), ResolutionSource::HostsFile);
    }
    if is_domain_name(name) {
        Known::Lookup(name)
    } else {
        // Go queries no server for text that can't be a name, and reports "no such host".
        Known::Result(Err(DnsFault::NxDomain))
    }
}

async fn query_servers(
    host: &str,
    config: &ResolverConfig,
    families: Families,
    started: Instant,
    limit: Duration,
) -> (Vec<Query>, Result<Resolution, DnsFault>) {
    if config.nameservers.is_empty() {
        return (Vec::new(), Err(DnsFault::NoServers));
    }
    let names = name_list(host, &config.search, config.ndots);
    let survey = Survey {
        names: &names,
        families: families.list(),
        config,
        bound: config.timeout.min(limit),
        deadline: started + limit.min(LONGEST_LIMIT),
    };
    let queries = survey.run().await;
    let result = conclude(host, &names, families, &queries).map(|mut resolution| {
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
    names: &'a [String],
    families: &'static [Family],
    config: &'a ResolverConfig,
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
    /// Queries until the result is certain, every query is answered, or time is up.
    async fn run(&self) -> Vec<Query> {
        let mut record = QueryLog::new();
        let mut tasks = FuturesUnordered::new();
        let mut begun = 0;
        loop {
            while begun < self.names.len()
                && self.has_time()
                && (0..begun).all(|name| self.continues_after(name, &record))
            {
                for server in 0..self.config.nameservers.len() {
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
            let Some((place, query)) = tasks.next().await else {
                break;
            };
            record.insert(place, Some(query));
            for place in self.to_repeat(place, &record) {
                record.insert(place, None);
                tasks.push(self.query(place));
            }
            if let Some(last) = self.answering(begun, &record) {
                // Go would not have queried the names after it.
                record.retain(|place, _| place.name <= last);
                break;
            }
        }
        record.into_values().flatten().collect()
    }

    /// Whether there is time for one more query: at least half of its wait, since less would show little.
    fn has_time(&self) -> bool {
        self.deadline.saturating_duration_since(Instant::now()) * 2 >= self.bound
    }

    async fn query(&self, place: QueryIndex) -> (QueryIndex, Query) {
        let server = self.config.nameservers[place.server];
        let family = self.families[place.family];
        let name = self.names[place.name].clone();
        let (bound, deadline, use_tcp) = (self.bound, self.deadline, self.config.use_tcp);
        let with_edns = self.config.sends_edns != Some(false);
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

    /// The name that Go would take its addresses from, once no answer can change that.
    fn answering(&self, begun: usize, record: &QueryLog) -> Option<usize> {
        (0..begun)
            .take_while(|name| queries_for(*name, record).all(|(_, query)| query.is_some()))
            .find(|name| self.has_addresses(*name, record))
    }

    fn has_addresses(&self, name: usize, record: &QueryLog) -> bool {
        (0..self.families.len())
            .any(|family| matches!(walk_of(name, family, record).ending, Ending::Answer(..)))
    }

    /// The queries to repeat after the one at `place`: those of its attempt that were not answered, if no server has
    /// given a final answer for Go. Go would also repeat those that were answered with an error; the same error a
    /// moment later is not informative.
    fn to_repeat(&self, place: QueryIndex, record: &QueryLog) -> Vec<QueryIndex> {
        let attempt = || {
            queries_for(place.name, record)
                .filter(|(p, _)| p.family == place.family && p.attempt == place.attempt)
        };
        if place.attempt + 1 >= self.config.attempts
            || !self.has_time()
            || attempt().any(|(_, query)| query.is_none())
            || !matches!(
                walk_of(place.name, place.family, record).ending,
                Ending::Failed(_)
            )
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

fn walk_of(name: usize, family: usize, record: &QueryLog) -> Walk<'_> {
    walk(
        queries_for(name, record)
            .filter(|(place, _)| place.family == family)
            .filter_map(|(_, query)| query),
    )
}

fn queries_for(
    name: usize,
    record: &QueryLog,
) -> impl Iterator<Item = (&QueryIndex, Option<&Query>)> {
    let of_name = record.iter().filter(move |(place, _)| place.name == name);
    of_name.map(|(place, query)| (place, query.as_ref()))
}

fn fault_of(query: Option<&Query>) -> Option<&DnsFault> {
    query?.outcome.fault()
}

// ---- what Go would conclude ---------------------------------------------------------------------

/// How Go's pass over the servers ends for one name and family (`tryOneName`).
#[derive(Debug)]
struct Walk<'q> {
    ending: Ending<'q>,
    /// How long Go would have taken, querying one server after the other.
    took: Duration,
}

#[derive(Debug)]
enum Ending<'q> {
    Answer(&'q Query, &'q Answer),
    /// A server's answer that there is nothing: Go queries no other server.
    Negative(&'q DnsFault),
    /// No server gave an answer; the fault of the last one.
    Failed(&'q DnsFault),
    NotQueried,
}

/// Goes through the queries of one name and family in the order of attempts and servers.
fn walk<'q>(queries: impl Iterator<Item = &'q Query>) -> Walk<'q> {
    let mut walk = Walk {
        ending: Ending::NotQueried,
        took: Duration::ZERO,
    };
    for query in queries {
        walk.took += query.outcome.took().unwrap_or_default();
        walk.ending = match &query.outcome {
            Step::Done { value, .. } if value.records.is_empty() => {
                Ending::Negative(&DnsFault::NoData)
            }
            Step::Done { value, .. } => Ending::Answer(query, value),
            Step::Failed { fault, .. } => match fault {
                DnsFault::NxDomain | DnsFault::NoData => Ending::Negative(fault),
                _ => Ending::Failed(fault),
            },
            Step::Skipped { .. } => continue,
        };
        if !matches!(walk.ending, Ending::Failed(_)) {
            break;
        }
    }
    walk
}

/// What a Go program would get from these queries: the addresses of the first name that has any, A before AAAA, or else
/// the fault that it would report.
///
/// `names` is the whole list for `host` ([`name_list`]), `queries` the record in its order. One family with addresses
/// is enough: the fault of the other one is only in the record.
///
/// # Errors
/// The fault that Go would report, if no name has an address.
pub fn conclude(
    host: &str,
    names: &[String],
    families: Families,
    queries: &[Query],
) -> Result<Resolution, DnsFault> {
    let as_written = format!("{host}.");
    let mut reported: Option<&DnsFault> = None;
    let mut all_queried = true;
    for name in names {
        let mut walks: Vec<Walk<'_>> = families
            .list()
            .iter()
            .map(|family| {
                walk(
                    queries
                        .iter()
                        .filter(|q| q.name == *name && q.family == *family),
                )
            })
            .collect();
        let answers: Vec<(&Query, &Answer)> = walks
            .iter()
            .filter_map(|walk| match walk.ending {
                Ending::Answer(query, answer) => Some((query, answer)),
                _ => None,
            })
            .collect();
        if let Some((query, first)) = answers.first() {
            let mut addresses: Vec<IpAddr> = answers
                .iter()
                .flat_map(|(_, answer)| answer.records.iter().map(|r| r.address))
                .collect();
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
        // Go takes the families in the order of their answers. It keeps the first error of all, but the last one for
        // the name as written.
        walks.sort_by_key(|walk| walk.took);
        for walk in walks {
            match walk.ending {
                Ending::Negative(fault) | Ending::Failed(fault) => {
                    if reported.is_none() || *name == as_written {
                        reported = Some(fault);
                    }
                }
                Ending::NotQueried => all_queried = false,
                Ending::Answer(..) => {}
            }
        }
    }
    // The end of this check's time is not a server's answer.
    if !all_queried {
        return Err(DnsFault::Timeout);
    }
    // There is no name to query: it is .onion, or too long. Go reports "no such host".
    Err(reported.cloned().unwrap_or(DnsFault::NxDomain))
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
    let started = Instant::now();
    let mut tcp = use_tcp;
    let (mut truncated_after, mut large_answer_bytes, mut negative) = (None, None, None);
    let left = || bound.min(deadline.saturating_duration_since(Instant::now()));
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
        let packet = timeout(left(), over_tcp(server, &question))
            .await
            .unwrap_or(Err(DnsFault::Timeout))?;
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
        let socket = UdpSocket::bind((order::unspecified(server.ip()), 0)).await?;
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
    match timeout(bound, exchange).await {
        Ok(result) => result.map_err(|error: io::Error| io_fault(&error)),
        Err(_) => Err(stray.map_or(DnsFault::Timeout, malformed)),
    }
}

/// RFC 7766, 8: each message follows its length.
async fn over_tcp(server: SocketAddr, question: &Question) -> Result<Vec<u8>, DnsFault> {
    let mut stream = TcpStream::connect(server)
        .await
        .map_err(|error| io_fault(&error))?;
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
    match error.raw_os_error().map(Errno::from_raw) {
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

/// Longer chains are cut off; resolvers stop at about this many.
const ALIASES_SHOWN: usize = 16;

/// A name has at most 253 characters, more with escapes.
const NAME_SHOWN: usize = 255;

#[cfg(test)]
mod tests;
