//! A name server on loopback, UDP and TCP on one port, that can misbehave name by name.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};

/// How a name is answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Answer {
    /// With the records it has; NODATA for a type it has none of.
    #[default]
    Records,
    NxDomain,
    /// NOERROR without records of any type (RFC 2308, 2.2).
    NoData,
    ServFail,
    Refused,
    /// Not at all, over UDP and TCP.
    Drop,
    /// A is answered, AAAA is not.
    DropAaaa,
    /// AAAA is answered by NXDOMAIN although A exists: some load balancers do (RFC 4074, 4.2).
    NxDomainAaaa,
    /// Only over TCP.
    DropUdp,
    /// Only over UDP.
    DropTcp,
    /// TC=1 and no records over UDP (RFC 2181, 9), the records over TCP.
    TruncateUdp,
    /// The same over UDP, and nothing over TCP.
    TruncateUdpDropTcp,
    /// Not at all if the question has EDNS.
    DropEdns,
    /// FORMERR if the question has EDNS.
    FormErrEdns,
    /// Bytes that are no DNS message.
    Garbage,
    /// The records, with the wrong ID: an answer to no question.
    WrongId,
    /// The records, late.
    After(Duration),
}

/// A question that came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// Lower case, without the dot at the end.
    pub name: String,
    pub kind: RecordType,
    pub tcp: bool,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    addresses: Vec<IpAddr>,
    alias: Option<String>,
    ttl: u32,
    answer: Answer,
}

#[derive(Default)]
struct Zone {
    names: HashMap<String, Entry>,
    questions: Vec<Question>,
}

/// The server; it stops when dropped.
pub struct Dns {
    pub addr: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    tasks: [JoinHandle<()>; 2],
}

/// What goes back for one question, and when.
enum Outcome {
    Nothing,
    Bytes(Vec<u8>, Duration),
}

/// Aliases followed for one answer; more is a loop of our own making.
const LONGEST_CHAIN: usize = 16;
/// What fits a UDP answer when the question has no EDNS (RFC 1035, 2.3.4).
const UDP_LIMIT: usize = 512;

impl Dns {
    /// Starts on a free port of 127.0.0.1; every name is NXDOMAIN.
    pub async fn start() -> Self {
        let (udp, tcp) = same_port().await;
        let addr = udp.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        let tasks = [
            tokio::spawn(serve_udp(udp, zone.clone())),
            tokio::spawn(serve_tcp(tcp, zone.clone())),
        ];
        Self { addr, zone, tasks }
    }

    /// Gives a name these addresses, in this order, with a TTL of 60 s.
    pub fn host(&self, name: &str, addresses: &[IpAddr]) {
        self.change(name, |e| e.addresses = addresses.to_vec());
    }

    /// Makes a name an alias (CNAME) of another.
    pub fn alias(&self, name: &str, target: &str) {
        self.change(name, |e| e.alias = Some(target.to_owned()));
    }

    pub fn ttl(&self, name: &str, seconds: u32) {
        self.change(name, |e| e.ttl = seconds);
    }

    /// How this name is answered from now on.
    pub fn answer(&self, name: &str, answer: Answer) {
        self.change(name, |e| e.answer = answer);
    }

    /// What was asked so far.
    pub fn questions(&self) -> Vec<Question> {
        self.zone.lock().unwrap().questions.clone()
    }

    /// The first IPv4 address behind a name, aliases followed: for peers that resolve by this zone.
    pub fn lookup(&self, name: &str) -> Option<IpAddr> {
        lookup(&self.zone.lock().unwrap(), name)
    }

    /// A function that looks names up as long as anybody needs it.
    pub fn resolver(&self) -> impl Fn(&str) -> Option<IpAddr> + Send + Sync + 'static {
        let zone = self.zone.clone();
        move |name| lookup(&zone.lock().unwrap(), name)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        let mut zone = self.zone.lock().unwrap();
        change(zone.names.entry(key(name)).or_insert_with(|| Entry {
            ttl: 60,
            ..Entry::default()
        }));
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// UDP and TCP on one free port. Another process may hold the TCP side of it: then the next.
async fn same_port() -> (UdpSocket, TcpListener) {
    for _ in 0..20 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port of 127.0.0.1 is free for both UDP and TCP");
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let socket = Arc::new(socket);
    let mut late = JoinSet::new();
    let mut buffer = [0; 4096];
    loop {
        // An ICMP error of an earlier answer may surface here: it is not a question.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        while late.try_join_next().is_some() {}
        if let Outcome::Bytes(bytes, delay) = respond(&zone, &buffer[..length], false) {
            let socket = socket.clone();
            late.spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = socket.send_to(&bytes, from).await;
            });
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(serve_connection(stream, zone.clone()));
    }
}

/// Messages with a length of two bytes before each (RFC 1035, 4.2.2), until the client goes.
async fn serve_connection(mut stream: TcpStream, zone: Arc<Mutex<Zone>>) {
    loop {
        let Ok(length) = stream.read_u16().await else {
            return;
        };
        let mut question = vec![0; usize::from(length)];
        if stream.read_exact(&mut question).await.is_err() {
            return;
        }
        if let Outcome::Bytes(bytes, delay) = respond(&zone, &question, true) {
            tokio::time::sleep(delay).await;
            let length = u16::try_from(bytes.len()).unwrap();
            let message = [&length.to_be_bytes()[..], &bytes].concat();
            if stream.write_all(&message).await.is_err() {
                return;
            }
        }
    }
}

fn respond(zone: &Mutex<Zone>, question: &[u8], tcp: bool) -> Outcome {
    let Ok(request) = Message::from_vec(question) else {
        return Outcome::Nothing;
    };
    let Some(query) = request.queries.first() else {
        return Outcome::Nothing;
    };
    let mut zone = zone.lock().unwrap();
    let name = key(&query.name().to_string());
    let kind = query.query_type();
    zone.questions.push(Question {
        name: name.clone(),
        kind,
        tcp,
    });
    let answer = zone.names.get(&name).map(|e| e.answer).unwrap_or_default();
    let delay = match answer {
        Answer::After(delay) => delay,
        _ => Duration::ZERO,
    };
    match answer {
        Answer::Drop => return Outcome::Nothing,
        Answer::DropAaaa if kind == RecordType::AAAA => return Outcome::Nothing,
        Answer::DropUdp if !tcp => return Outcome::Nothing,
        Answer::DropTcp | Answer::TruncateUdpDropTcp if tcp => return Outcome::Nothing,
        Answer::DropEdns if request.edns.is_some() => return Outcome::Nothing,
        Answer::Garbage => return Outcome::Bytes(b"not a DNS message".to_vec(), delay),
        _ => {}
    }

    let mut response = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    response.metadata.authoritative = true;
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_query(query.clone());
    response.edns.clone_from(&request.edns);
    let (code, answers) = match answer {
        Answer::FormErrEdns if request.edns.is_some() => (ResponseCode::FormErr, Vec::new()),
        _ => records(&zone, &name, kind),
    };
    response.metadata.response_code = code;
    let is_negative = answers.iter().all(|record| record.record_type() != kind);
    if matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) && is_negative {
        response.add_authority(start_of_authority());
    }
    response.add_answers(answers);
    if answer == Answer::WrongId {
        response.metadata.id = !request.metadata.id;
    }
    let bytes = response.to_vec().unwrap();
    let limit = request
        .edns
        .as_ref()
        .map_or(UDP_LIMIT, |edns| usize::from(edns.max_payload()));
    let is_cut = matches!(answer, Answer::TruncateUdp | Answer::TruncateUdpDropTcp);
    if !tcp && (is_cut || bytes.len() > limit) {
        return Outcome::Bytes(response.truncate().to_vec().unwrap(), delay);
    }
    Outcome::Bytes(bytes, delay)
}

/// The records of a name, its aliases followed. The code is that of the last name (RFC 6604, 3).
fn records(zone: &Zone, name: &str, kind: RecordType) -> (ResponseCode, Vec<Record>) {
    let mut answers = Vec::new();
    let mut name = name.to_owned();
    for _ in 0..LONGEST_CHAIN {
        let Some(entry) = zone.names.get(&name) else {
            return (ResponseCode::NXDomain, answers);
        };
        match entry.answer {
            Answer::NxDomain => return (ResponseCode::NXDomain, answers),
            Answer::NxDomainAaaa if kind == RecordType::AAAA => {
                return (ResponseCode::NXDomain, answers);
            }
            Answer::NoData => return (ResponseCode::NoError, answers),
            Answer::ServFail => return (ResponseCode::ServFail, answers),
            Answer::Refused => return (ResponseCode::Refused, answers),
            _ => {}
        }
        let owner = Name::from_ascii(format!("{name}.")).unwrap();
        if let Some(target) = &entry.alias {
            let target_name = Name::from_ascii(format!("{}.", key(target))).unwrap();
            let data = RData::CNAME(CNAME(target_name));
            answers.push(Record::from_rdata(owner, entry.ttl, data));
            if kind == RecordType::CNAME {
                return (ResponseCode::NoError, answers);
            }
            name = key(target);
            continue;
        }
        answers.extend(entry.addresses.iter().filter_map(|address| {
            let data = match (address, kind) {
                (IpAddr::V4(v4), RecordType::A) => RData::A(A(*v4)),
                (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(AAAA(*v6)),
                _ => return None,
            };
            Some(Record::from_rdata(owner.clone(), entry.ttl, data))
        }));
        return (ResponseCode::NoError, answers);
    }
    (ResponseCode::ServFail, answers)
}

/// What a negative answer carries (RFC 2308, 3).
fn start_of_authority() -> Record {
    let name = |text| Name::from_ascii(text).unwrap();
    let data = SOA::new(name("ns.test."), name("admin.test."), 1, 60, 60, 60, 60);
    Record::from_rdata(name("test."), 60, RData::SOA(data))
}

fn lookup(zone: &Zone, name: &str) -> Option<IpAddr> {
    records(zone, &key(name), RecordType::A)
        .1
        .iter()
        .find_map(|record| match &record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            _ => None,
        })
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
