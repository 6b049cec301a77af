//! Lookups against name servers in this process, and tables for the pure parts.

use std::sync::{Arc, Mutex};

use hickory_proto::op::OpCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use proptest::prelude::*;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::*;
use crate::model::resolve::NameAnswer;
use crate::net::resolv::HostsFile;

// ---- a name server in this process ------------------------------------------------------------

/// How a test's server answers a query.
enum Act {
    Answer(Box<Message>),
    /// Packets as they are; the query's ID is put in front if the flag is `true`.
    Packets(Vec<(bool, Vec<u8>)>),
    Silence,
    /// Like silence, but TCP is closed at once.
    Close,
}

struct Peer {
    address: SocketAddr,
    /// `A a.example. udp`, in the order of arrival.
    seen: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Peer {
    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn peer(act: impl Fn(&Message, bool) -> Act + Send + Sync + 'static) -> Peer {
    // The port that UDP gets may be in use for TCP.
    let mut sockets = None;
    for _ in 0..20 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            sockets = Some((udp, tcp));
            break;
        }
    }
    let (udp, tcp) = sockets.expect("a port that is free for UDP and TCP");
    let address = udp.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let serve = Arc::new(move |packet: &[u8], is_tcp: bool| -> Option<Vec<Vec<u8>>> {
        let request = Message::from_vec(packet).unwrap();
        let query = &request.queries[0];
        log.lock().unwrap().push(format!(
            "{} {} {}",
            query.query_type(),
            query.name().to_ascii(),
            if is_tcp { "tcp" } else { "udp" }
        ));
        match act(&request, is_tcp) {
            Act::Answer(message) => Some(vec![message.to_vec().unwrap()]),
            Act::Packets(packets) => Some(
                packets
                    .into_iter()
                    .map(|(with_id, bytes)| {
                        if with_id {
                            [&request.id.to_be_bytes()[..], &bytes].concat()
                        } else {
                            bytes
                        }
                    })
                    .collect(),
            ),
            Act::Silence => Some(Vec::new()),
            Act::Close => None,
        }
    });
    let mut tasks = JoinSet::new();
    let udp_serve = Arc::clone(&serve);
    tasks.spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            for packet in udp_serve(&buffer[..length], false).into_iter().flatten() {
                udp.send_to(&packet, from).await.unwrap();
            }
        }
    });
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut packet).await.unwrap();
            let Some(packets) = serve(&packet, true) else {
                continue;
            };
            for packet in packets {
                let length = u16::try_from(packet.len()).unwrap();
                stream.write_u16(length).await.unwrap();
                stream.write_all(&packet).await.unwrap();
            }
            // The client ends the connection, by closing or by resetting it.
            let _ = stream.read(&mut [0; 1]).await;
        }
    });
    Peer {
        address,
        seen,
        _tasks: tasks,
    }
}

fn reply(request: &Message, code: ResponseCode, records: &[(&str, RData)]) -> Message {
    let mut message = Message::response(request.id, OpCode::Query);
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.add_queries(request.queries.iter().cloned());
    for (owner, data) in records {
        let owner = Name::from_ascii(owner).unwrap();
        message.add_answer(Record::from_rdata(owner, 300, data.clone()));
    }
    message
}

fn answer(request: &Message, records: &[(&str, RData)]) -> Act {
    Act::Answer(Box::new(reply(request, ResponseCode::NoError, records)))
}

fn code(request: &Message, code: ResponseCode) -> Act {
    Act::Answer(Box::new(reply(request, code, &[])))
}

fn is_a(request: &Message) -> bool {
    request.queries[0].query_type() == RecordType::A
}

fn asked(request: &Message) -> String {
    request.queries[0].name().to_ascii()
}

fn a(address: &str) -> RData {
    RData::A(A(address.parse().unwrap()))
}

fn aaaa(address: &str) -> RData {
    RData::AAAA(AAAA(address.parse().unwrap()))
}

fn cname(target: &str) -> RData {
    RData::CNAME(CNAME(Name::from_ascii(target).unwrap()))
}

/// Answers A with this address, and AAAA with NODATA.
async fn gives(address: &'static str) -> Peer {
    peer(move |request, _| {
        let name = asked(request);
        if is_a(request) {
            answer(request, &[(&name, a(address))])
        } else {
            answer(request, &[])
        }
    })
    .await
}

async fn says(with: ResponseCode) -> Peer {
    peer(move |request, _| code(request, with)).await
}

async fn silent() -> Peer {
    peer(|_, _| Act::Silence).await
}

fn config(servers: &[SocketAddr]) -> ResolverConfig {
    ResolverConfig {
        settings: ResolverSettings {
            nameservers: servers.to_vec(),
            ..ResolverSettings::default()
        },
        ..ResolverConfig::default()
    }
}

const LIMIT: Duration = Duration::from_millis(200);
/// For tests that need some answers within the limit, even on a busy machine.
const ROOMY: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);

async fn lookup(config: &ResolverConfig, families: Families, limit: Duration) -> Resolve {
    resolve(&Host::new("reg.example"), config, &[], families, limit).await
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(resolve: &Resolve) -> Vec<String> {
    let resolution = resolve.outcome.done();
    resolution.map_or_else(Vec::new, |r| {
        r.addresses.iter().map(ToString::to_string).collect()
    })
}

/// `A reg.example. timeout`: the record in short form.
fn shown(resolve: &Resolve) -> Vec<String> {
    resolve
        .queries
        .iter()
        .map(|q| {
            let said = match &q.outcome {
                Step::Done { value, .. } => {
                    let all: Vec<String> = value
                        .records
                        .iter()
                        .map(|r| r.address.to_string())
                        .collect();
                    all.join(" ")
                }
                Step::Failed { fault, .. } => format!("{fault:?}"),
                Step::Skipped { .. } => "skipped".to_owned(),
            };
            format!("{} {} {said}", q.family.record(), q.name)
        })
        .collect()
}

// ---- edges ------------------------------------------------------------------------------------

#[tokio::test]
async fn a_chain_of_aliases_leads_to_the_addresses() {
    let server = peer(|request, _| {
        let mut records = vec![
            ("REG.example.", cname("lb.example.")),
            ("lb.example.", cname("edge.cdn.example.")),
        ];
        if is_a(request) {
            records.push(("edge.cdn.example.", a("10.0.3.9")));
            records.push(("edge.cdn.example.", a("10.0.3.10")));
        }
        answer(request, &records)
    })
    .await;
    let found = lookup(&config(&[server.address]), Families::Both, LONG).await;
    let resolution = found.outcome.done().unwrap();
    assert_eq!(resolution.name, "reg.example.");
    assert_eq!(resolution.addresses, [ip("10.0.3.9"), ip("10.0.3.10")]);
    assert_eq!(resolution.cnames, ["lb.example.", "edge.cdn.example."]);
    let source = ResolutionSource::Server {
        server: server.address,
    };
    assert_eq!(resolution.source, source);
    let first = found.queries[0].outcome.done().unwrap();
    assert_eq!(first.records[0].ttl_seconds, 300);
    assert_eq!(
        found.queries[1].outcome.fault(),
        Some(&DnsFault::NoData),
        "an alias alone"
    );
    assert!(found.queries.iter().all(|q| !q.tcp));
}

#[tokio::test]
async fn a_servers_word_is_reported_by_its_code() {
    let other = |name: &str| DnsFault::OtherCode {
        code: name.to_owned(),
    };
    for (with, fault) in [
        (ResponseCode::NoError, DnsFault::NoData),
        (ResponseCode::NXDomain, DnsFault::NxDomain),
        (ResponseCode::ServFail, DnsFault::ServFail),
        (ResponseCode::Refused, DnsFault::Refused),
        (ResponseCode::FormErr, other("FORMERR")),
        (ResponseCode::NotImp, other("NOTIMP")),
        (ResponseCode::Unknown(12), other("RCODE 12")),
    ] {
        let server = says(with).await;
        let found = lookup(&config(&[server.address]), Families::Both, LONG).await;
        assert_eq!(found.outcome.fault(), Some(&fault));
        assert_eq!(
            found.queries.len(),
            2,
            "queried once only: {:?}",
            shown(&found)
        );
        for query in &found.queries {
            assert_eq!(query.outcome.fault(), Some(&fault));
        }
    }
}

#[tokio::test]
async fn a_code_with_upper_bits_is_read_whole() {
    let server = peer(|request, _| {
        let mut message = reply(request, ResponseCode::BADVERS, &[]);
        message.set_edns(Edns::new());
        Act::Answer(Box::new(message))
    })
    .await;
    let found = lookup(&config(&[server.address]), Families::V4Only, LONG).await;
    let fault = DnsFault::OtherCode {
        code: "BADVERS".to_owned(),
    };
    assert_eq!(found.outcome.fault(), Some(&fault));
}

#[tokio::test]
async fn a_server_that_offers_nothing_is_passed_over() {
    let lame = peer(|request, _| {
        let mut message = reply(request, ResponseCode::NoError, &[]);
        message.metadata.recursion_available = false;
        Act::Answer(Box::new(message))
    })
    .await;
    let good = gives("10.0.3.9").await;
    let both = config(&[lame.address, good.address]);
    let found = lookup(&both, Families::V4Only, LONG).await;
    assert_eq!(addresses(&found), ["10.0.3.9"]);
    let fault = found.queries[0].outcome.fault().unwrap();
    assert!(matches!(fault, DnsFault::Malformed { reason } if reason.contains("lame")));
}

#[tokio::test]
async fn a_negative_answer_keeps_its_aliases_and_its_zone() {
    use hickory_proto::rr::rdata::SOA;
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let server = peer(move |request, _| {
            let name = asked(request);
            let chain = [
                (&*name, cname("b.example.")),
                ("b.example.", cname("c.link.example.")),
            ];
            let mut message = reply(request, code, &chain);
            let name = |text| Name::from_ascii(text).unwrap();
            let soa = SOA::new(name("ns."), name("a."), 1, 60, 60, 60, 60);
            let owner = name("link.example.");
            message.add_authority(Record::from_rdata(owner, 60, RData::SOA(soa)));
            Act::Answer(Box::new(message))
        })
        .await;
        let found = lookup(&config(&[server.address]), Families::V4Only, LONG).await;
        let negative = found.queries[0].negative.as_ref().unwrap();
        assert_eq!(negative.cnames, ["b.example.", "c.link.example."]);
        assert_eq!(negative.zone.as_deref(), Some("link.example."));
        let plain = says(code).await;
        let found = lookup(&config(&[plain.address]), Families::V4Only, LONG).await;
        assert_eq!(found.queries[0].negative, None);
    }
}

#[tokio::test]
async fn queries_have_edns_unless_the_runtime_sends_none() {
    // As a server that can't read EDNS.
    let server = || {
        peer(|request, _| {
            if request.edns.is_some() {
                code(request, ResponseCode::FormErr)
            } else {
                answer(request, &[("reg.example.", a("10.0.3.9"))])
            }
        })
    };
    for sends_edns in [None, Some(true)] {
        let server = server().await;
        let config = ResolverConfig {
            sends_edns,
            ..config(&[server.address])
        };
        let found = lookup(&config, Families::V4Only, LONG).await;
        assert!(
            matches!(found.outcome.fault(), Some(DnsFault::OtherCode { code }) if code == "FORMERR")
        );
        assert_eq!(found.sends_edns, sends_edns);
        let trials = edns_trials(&found.queries, &config, LONG).await;
        let [trial] = &trials[..] else {
            panic!("{trials:?}");
        };
        assert!(trial.is_proof());
        assert_eq!(server.seen().len(), 3, "with, without, and with again");
    }
    let server = server().await;
    let config = ResolverConfig {
        sends_edns: Some(false),
        ..config(&[server.address])
    };
    let found = lookup(&config, Families::V4Only, LONG).await;
    assert_eq!(addresses(&found), ["10.0.3.9"]);
    let trials = edns_trials(&found.queries, &config, LONG).await;
    assert_eq!(trials, []);
    // One answer of another family or name shows that the server reads EDNS.
    let half = peer(|request, _| {
        if is_a(request) {
            code(request, ResponseCode::FormErr)
        } else {
            answer(request, &[])
        }
    })
    .await;
    let config = self::config(&[half.address]);
    let found = lookup(&config, Families::Both, LONG).await;
    let trials = edns_trials(&found.queries, &config, LONG).await;
    assert_eq!(trials, []);
}

#[tokio::test]
async fn silence_is_a_timeout_within_the_limit() {
    let server = silent().await;
    let started = Instant::now();
    let found = lookup(&config(&[server.address]), Families::Both, LIMIT).await;
    assert_eq!(found.outcome.fault(), Some(&DnsFault::Timeout));
    assert!(started.elapsed() < LIMIT * 5, "{:?}", started.elapsed());
    assert!(found.outcome.took().unwrap() >= LIMIT);
    assert_eq!(found.queries.len(), 2);
    assert_eq!(server.seen().len(), 2, "no query was repeated");
    // One more, without EDNS.
    let trials = edns_trials(&found.queries, &config(&[server.address]), LIMIT).await;
    assert_eq!(server.seen().len(), 3);
    let [trial] = &trials[..] else {
        panic!("{trials:?}");
    };
    assert!(!trial.is_proof());
    assert_eq!(trial.with, Step::default(), "there was nothing to compare");
}

#[tokio::test]
async fn a_lost_question_is_put_again_on_the_record() {
    let count = Mutex::new(0);
    let server = peer(move |request, _| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count == 1 {
            Act::Silence
        } else {
            answer(request, &[("reg.example.", a("10.0.3.9"))])
        }
    })
    .await;
    let mut custom = config(&[server.address]);
    custom.settings.timeout = ROOMY / 4;
    let found = lookup(&custom, Families::V4Only, LONG).await;
    assert_eq!(
        shown(&found),
        ["A reg.example. Timeout", "A reg.example. 10.0.3.9"]
    );
    assert_eq!(addresses(&found), ["10.0.3.9"]);

    let dead = silent().await;
    let mut custom = config(&[dead.address]);
    custom.settings.timeout = LIMIT;
    custom.settings.attempts = 3;
    let found = lookup(&custom, Families::V4Only, LONG).await;
    assert_eq!(found.queries.len(), 3);
    assert_eq!(found.outcome.fault(), Some(&DnsFault::Timeout));
}

#[tokio::test]
async fn one_family_is_enough_when_the_other_is_dropped() {
    let server = peer(|request, _| {
        if is_a(request) {
            answer(request, &[("reg.example.", a("10.0.3.9"))])
        } else {
            Act::Silence
        }
    })
    .await;
    let found = lookup(&config(&[server.address]), Families::Both, ROOMY).await;
    assert_eq!(addresses(&found), ["10.0.3.9"]);
    assert_eq!(
        shown(&found),
        ["A reg.example. 10.0.3.9", "AAAA reg.example. Timeout"]
    );

    let found = lookup(&config(&[server.address]), Families::V4Only, LONG).await;
    assert_eq!(found.queries.len(), 1);
    assert!(found.outcome.took().unwrap() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_family_that_was_lost_is_asked_for_again_though_the_other_is_known() {
    let count = Mutex::new(0);
    let server = peer(move |request, _| {
        if is_a(request) {
            return answer(request, &[("reg.example.", a("127.0.0.1"))]);
        }
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count == 1 {
            Act::Silence
        } else {
            answer(request, &[("reg.example.", aaaa("::1"))])
        }
    })
    .await;
    let mut custom = config(&[server.address]);
    custom.settings.timeout = ROOMY / 4;
    let found = lookup(&custom, Families::Both, LONG).await;
    let want = [
        "A reg.example. 127.0.0.1",
        "AAAA reg.example. Timeout",
        "AAAA reg.example. ::1",
    ];
    assert_eq!(shown(&found), want);
    assert_eq!(addresses(&found).len(), 2);
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp() {
    let server = peer(|request, is_tcp| {
        if is_tcp {
            let all: Vec<(&str, RData)> = (1..=100)
                .map(|n| ("reg.example.", a(&format!("10.0.3.{n}"))))
                .collect();
            answer(request, &all)
        } else {
            let mut message = reply(request, ResponseCode::NoError, &[]);
            message.metadata.truncation = true;
            Act::Answer(Box::new(message))
        }
    })
    .await;
    let found = lookup(&config(&[server.address]), Families::V4Only, LONG).await;
    assert!(found.queries[0].tcp);
    assert_eq!(addresses(&found).len(), 100);
    assert_eq!(server.seen(), ["A reg.example. udp", "A reg.example. tcp"]);
}

#[tokio::test]
async fn the_trouble_of_tcp_is_reported_when_udp_was_truncated() {
    let truncated = |request: &Message| {
        let mut message = reply(request, ResponseCode::NoError, &[]);
        message.metadata.truncation = true;
        Act::Answer(Box::new(message))
    };
    let noise = |with_id, bytes: &[u8]| Some(vec![(with_id, bytes.to_vec())]);
    for (packets, limit, fault) in [
        (Some(Vec::new()), LIMIT, DnsFault::Timeout),
        (
            None,
            LONG,
            malformed("the server closed the TCP connection before the response was complete"),
        ),
        (
            noise(true, &[0x80]),
            LONG,
            malformed("the response is not a DNS message"),
        ),
        (
            noise(false, &[0; 12]),
            LONG,
            malformed("the packet is a DNS query, not a response"),
        ),
    ] {
        let server = peer(move |request, is_tcp| match &packets {
            _ if !is_tcp => truncated(request),
            Some(packets) => Act::Packets(packets.clone()),
            None => Act::Close,
        })
        .await;
        let found = lookup(&config(&[server.address]), Families::V4Only, limit).await;
        assert!(found.queries[0].tcp);
        assert_eq!(found.outcome.fault(), Some(&fault));
    }

    // A server with UDP only: the port is closed for TCP.
    let udp = UdpSocket::bind("127.9.9.8:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = [0; 2048];
        let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
        let request = Message::from_vec(&buffer[..length]).unwrap();
        let mut message = reply(&request, ResponseCode::NoError, &[]);
        message.metadata.truncation = true;
        udp.send_to(&message.to_vec().unwrap(), from).await.unwrap();
    });
    let found = lookup(&config(&[address]), Families::V4Only, LONG).await;
    task.await.unwrap();
    assert!(found.queries[0].tcp);
    assert_eq!(found.outcome.fault(), Some(&DnsFault::PortClosed));
}

#[tokio::test]
async fn tcp_is_used_from_the_start_when_the_settings_say_so() {
    let server = gives("10.0.3.9").await;
    let mut custom = config(&[server.address]);
    custom.settings.use_tcp = true;
    let found = lookup(&custom, Families::V4Only, LONG).await;
    assert_eq!(addresses(&found), ["10.0.3.9"]);
    assert_eq!(server.seen(), ["A reg.example. tcp"]);
}

#[tokio::test]
async fn a_closed_port_is_heard_of_at_once() {
    // A separate address: no other test can get the port meanwhile.
    let closed = {
        let socket = UdpSocket::bind("127.9.9.9:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let found = lookup(&config(&[closed]), Families::Both, LONG).await;
    assert_eq!(found.outcome.fault(), Some(&DnsFault::PortClosed));
    assert!(found.outcome.took().unwrap() < Duration::from_secs(5));

    let good = gives("10.0.3.9").await;
    let found = lookup(&config(&[closed, good.address]), Families::V4Only, LONG).await;
    assert_eq!(
        shown(&found),
        ["A reg.example. PortClosed", "A reg.example. 10.0.3.9"]
    );
    assert_eq!(addresses(&found), ["10.0.3.9"]);
}

#[tokio::test]
async fn servers_that_disagree_are_all_heard_and_the_first_word_counts() {
    let private = gives("10.0.3.9").await;
    let public = gives("52.0.0.1").await;
    let both = config(&[private.address, public.address]);
    let found = lookup(&both, Families::Both, LONG).await;
    assert_eq!(addresses(&found), ["10.0.3.9"]);
    let said = [(&private, "10.0.3.9"), (&public, "52.0.0.1")]
        .map(|(peer, address)| (peer.address, NameAnswer::Addresses(vec![ip(address)])));
    assert_eq!(found.disagreement(), Some(said.to_vec()));

    // NXDOMAIN of the first server is final for Go, whatever the second one answers.
    let without = says(ResponseCode::NXDomain).await;
    let both = config(&[without.address, private.address]);
    let found = lookup(&both, Families::Both, LONG).await;
    assert_eq!(found.outcome.fault(), Some(&DnsFault::NxDomain));
    assert_eq!(found.disagreement().unwrap().len(), 2);

    // SERVFAIL is not.
    let broken = says(ResponseCode::ServFail).await;
    let both = config(&[broken.address, private.address]);
    let found = lookup(&both, Families::Both, LONG).await;
    assert_eq!(addresses(&found), ["10.0.3.9"]);
}

#[tokio::test]
async fn names_are_asked_in_the_order_of_the_search_list() {
    let server = peer(|request, _| {
        let name = asked(request);
        match name.as_str() {
            "reg.example." if is_a(request) => answer(request, &[(&name, a("10.0.3.9"))]),
            "reg.example." => answer(request, &[]),
            _ => code(request, ResponseCode::NXDomain),
        }
    })
    .await;
    let mut custom = config(&[server.address]);
    custom.settings.search = vec!["svc.local.".to_owned(), "local.".to_owned()];
    for (ndots, want) in [
        (1, vec!["reg.example."]),
        (
            5,
            vec![
                "reg.example.svc.local.",
                "reg.example.local.",
                "reg.example.",
            ],
        ),
    ] {
        custom.settings.ndots = ndots;
        server.seen.lock().unwrap().clear();
        let found = lookup(&custom, Families::V4Only, LONG).await;
        assert_eq!(addresses(&found), ["10.0.3.9"]);
        assert_eq!(found.outcome.done().unwrap().name, "reg.example.");
        let want: Vec<String> = want.iter().map(|name| format!("A {name} udp")).collect();
        assert_eq!(server.seen(), want, "ndots {ndots}");
    }
}

#[tokio::test]
async fn a_wildcard_in_a_search_domain_is_what_go_would_dial() {
    let server = gives("10.9.9.9").await;
    let mut custom = config(&[server.address]);
    custom.settings.search = vec!["corp.example.".to_owned()];
    custom.settings.ndots = 5;
    let found = lookup(&custom, Families::Both, LONG).await;
    let name = &found.outcome.done().unwrap().name;
    assert_eq!(name, "reg.example.corp.example.");
    assert_eq!(
        found.queries.len(),
        2,
        "Go queries no other name: {:?}",
        shown(&found)
    );
}

/// Knows `reg.example` alone, which no search domain completes.
async fn of_the_bare_name() -> Peer {
    peer(|request, _| {
        let name = asked(request);
        match name.as_str() {
            "reg.example." if is_a(request) => answer(request, &[(&name, a("10.0.3.9"))]),
            "reg.example." => answer(request, &[]),
            _ => code(request, ResponseCode::NXDomain),
        }
    })
    .await
}

#[tokio::test]
async fn a_dead_server_does_not_use_up_the_time_of_later_names() {
    let dead = silent().await;
    let live = of_the_bare_name().await;
    let mut custom = config(&[dead.address, live.address]);
    custom.settings.search = ["a.local.", "b.local.", "c.local."]
        .map(str::to_owned)
        .to_vec();
    custom.settings.ndots = 5;
    let found = lookup(&custom, Families::Both, ROOMY).await;
    assert_eq!(addresses(&found), ["10.0.3.9"]);
    assert_eq!(found.queries.len(), 4 * 2 * 2, "{:?}", shown(&found));
    let names: Vec<&str> = found
        .queries
        .iter()
        .step_by(4)
        .map(|q| q.name.as_str())
        .collect();
    let want = [
        "reg.example.a.local.",
        "reg.example.b.local.",
        "reg.example.c.local.",
        "reg.example.",
    ];
    assert_eq!(names, want);
    let servers: Vec<SocketAddr> = found.queries[..4].iter().map(|q| q.server).collect();
    let (d, l) = (dead.address, live.address);
    assert_eq!(servers, [d, d, l, l]);
}

/// The sockets of a check are bounded: those that wait for a silent server are not all of them.
#[tokio::test]
async fn a_silent_server_leaves_sockets_for_the_others() {
    let dead = silent().await;
    let live = of_the_bare_name().await;
    let mut custom = config(&[dead.address, live.address]);
    custom.settings.search = (0..32).map(|n| format!("{n}.local.")).collect();
    custom.settings.ndots = 5;
    custom.settings.timeout = 2 * ROOMY;
    let made = lookup(&custom, Families::Both, 4 * ROOMY);
    let (found, _) = own::scope(made).await;
    let queries = |of: &Peer| {
        let all = found.queries.iter();
        let own = all.filter(|query| query.server == of.address);
        own.map(|query| query.outcome.clone()).collect::<Vec<_>>()
    };
    let is_answered = |outcome: &Step<Answer, DnsFault>| {
        let fault = outcome.fault();
        outcome.done().is_some() || matches!(fault, Some(DnsFault::NxDomain | DnsFault::NoData))
    };
    assert_eq!(queries(&live).len(), 33 * 2, "{:?}", shown(&found));
    assert!(
        queries(&live).iter().all(is_answered),
        "{:?}",
        shown(&found)
    );
    // What was not sent is no silence, and such a lookup has no result.
    let deadline = Some(OwnLimit::Deadline);
    let not_sent = queries(&dead);
    let mut not_sent = not_sent.iter().filter(|one| one.own_limit() == deadline);
    assert!(not_sent.next().is_some(), "{:?}", shown(&found));
    assert_eq!(found.outcome.own_limit(), deadline, "{:?}", shown(&found));
}

#[tokio::test]
async fn silent_search_domains_leave_time_for_the_name_as_written() {
    let server = peer(|request, _| {
        let name = asked(request);
        match name.as_str() {
            "reg.example." if is_a(request) => answer(request, &[(&name, a("10.0.3.9"))]),
            "reg.example." => answer(request, &[]),
            _ => Act::Silence,
        }
    })
    .await;
    let mut custom = config(&[server.address]);
    custom.settings.search = (0..12).map(|n| format!("{n}.local.")).collect();
    custom.settings.ndots = 5;
    let found = lookup(&custom, Families::Both, ROOMY).await;
    assert_eq!(addresses(&found), ["10.0.3.9"], "{:?}", shown(&found));
}

/// Many names and orders of servers must not take the time of the answers.
#[tokio::test]
async fn a_long_search_list_with_rotate_is_soon_decided() {
    let gives = |address| {
        move |request: &Message, _| match asked(request).as_str() {
            name @ "reg.example." if is_a(request) => answer(request, &[(name, a(address))]),
            "reg.example." => answer(request, &[]),
            _ => code(request, ResponseCode::NXDomain),
        }
    };
    let [one, two, three] = [
        peer(gives("10.0.3.9")).await,
        peer(gives("10.0.3.9")).await,
        peer(gives("10.0.3.9")).await,
    ];
    let mut custom = config(&[one.address, two.address, three.address]);
    custom.settings.search = (0..32).map(|n| format!("{n}.local.")).collect();
    custom.settings.ndots = 5;
    custom.settings.rotate = true;
    let found = lookup(&custom, Families::Both, LONG).await;
    assert_eq!(addresses(&found), ["10.0.3.9"], "{:?}", shown(&found));
    assert_eq!(found.queries.len(), 33 * 6);
}

#[tokio::test]
async fn names_that_time_left_no_room_for_are_not_called_missing() {
    // AAAA is dropped, and A of the searched name has no data: Go would continue to wait, name by name.
    let server = peer(|request, _| {
        if is_a(request) {
            answer(request, &[])
        } else {
            Act::Silence
        }
    })
    .await;
    let mut custom = config(&[server.address]);
    custom.settings.search = (0..200).map(|n| format!("{n}.local.")).collect();
    custom.settings.ndots = 5;
    let found = lookup(&custom, Families::Both, ROOMY).await;
    assert_eq!(
        found.outcome.fault(),
        Some(&DnsFault::Timeout),
        "{:?}",
        shown(&found)
    );
    assert!(found.queries.len() < 200, "{:?}", shown(&found));
}

#[tokio::test]
async fn packets_that_do_not_belong_to_the_question_are_passed_over() {
    // A forged response with another ID, one without a question, and noise, before the real one.
    let server = peer(|request, _| {
        let real = reply(
            request,
            ResponseCode::NoError,
            &[("reg.example.", a("10.0.3.9"))],
        );
        let mut forged = reply(
            request,
            ResponseCode::NoError,
            &[("reg.example.", a("6.6.6.6"))],
        );
        forged.metadata.id = request.id.wrapping_add(1);
        let mut other = reply(
            request,
            ResponseCode::NoError,
            &[("reg.example.", a("6.6.6.6"))],
        );
        other.queries = vec![op::Query::query(
            Name::from_ascii("b.").unwrap(),
            RecordType::A,
        )];
        Act::Packets(vec![
            (false, vec![]),
            (false, b"garbage".to_vec()),
            (false, vec![0xff; 600]),
            (false, forged.to_vec().unwrap()),
            (false, other.to_vec().unwrap()),
            (false, real.to_vec().unwrap()),
        ])
    })
    .await;
    let found = lookup(&config(&[server.address]), Families::V4Only, LONG).await;
    assert_eq!(addresses(&found), ["10.0.3.9"]);
}

#[tokio::test]
async fn an_answer_that_can_not_be_read_is_malformed() {
    // Header: response, one question, one answer. Question: reg.example A IN.
    let head = |flags: [u8; 2]| {
        let mut bytes = flags.to_vec();
        bytes.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
        bytes.extend_from_slice(b"\x03reg\x07example\x00\x00\x01\x00\x01");
        bytes
    };
    let with = |tail: &[u8]| [&head([0x81, 0x80])[..], tail].concat();
    let start = u8::try_from(2 + head([0, 0]).len()).unwrap();
    let id = "the response has a different ID than the query";
    let cut = "the response is cut off";
    for (what, with_id, packet, reason) in [
        ("no record", true, with(&[]), cut),
        // Owner: a pointer to itself (RFC 1035, 4.1.4, allows only prior occurrences).
        (
            "a loop",
            true,
            with(&[0xc0, start, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]),
            cut,
        ),
        (
            "two pointers at each other",
            true,
            with(&[0xc0, start + 2, 0xc0, start, 0, 1]),
            cut,
        ),
        (
            "a record longer than the packet",
            true,
            with(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0xff, 0xff, 1]),
            cut,
        ),
        ("another id", false, [&[0, 0][..], &with(&[])].concat(), id),
    ] {
        let server = peer(move |request, _| {
            let mut packet = packet.clone();
            if !with_id {
                packet[..2].copy_from_slice(&request.id.wrapping_add(1).to_be_bytes());
            }
            Act::Packets(vec![(with_id, packet)])
        })
        .await;
        let limit = if with_id { LONG } else { ROOMY };
        let started = Instant::now();
        let found = lookup(&config(&[server.address]), Families::V4Only, limit).await;
        assert_eq!(found.outcome.fault(), Some(&malformed(reason)), "{what}");
        assert!(started.elapsed() < Duration::from_secs(5), "{what}");
    }
}

#[tokio::test]
async fn both_families_come_in_the_order_they_are_dialled() {
    let server = peer(|request, _| {
        if is_a(request) {
            answer(
                request,
                &[
                    ("reg.example.", a("127.0.0.1")),
                    ("reg.example.", a("127.0.0.1")),
                ],
            )
        } else {
            answer(request, &[("reg.example.", aaaa("::1"))])
        }
    })
    .await;
    let found = lookup(&config(&[server.address]), Families::Both, LONG).await;
    let want = if order::source_for(ip("::1")).is_some() {
        ["::1", "127.0.0.1"]
    } else {
        ["127.0.0.1", "::1"]
    };
    assert_eq!(addresses(&found), want);
}

#[tokio::test]
async fn what_is_known_is_not_asked_for() {
    let server = gives("10.9.9.9").await;
    let mut custom = config(&[server.address]);
    custom.hosts = HostsFile::parse("10.0.3.9 reg.example\nfd00::1 six.example\n");
    let given = [ip("10.0.3.8"), ip("10.0.3.7")];
    let known = |source, addresses: &[&str]| Ok((source, addresses.join(" ")));
    for (host, overrides, families, want) in [
        (
            "10.0.3.1",
            &[][..],
            Families::Both,
            known(ResolutionSource::Literal, &["10.0.3.1"]),
        ),
        (
            "[::1]",
            &given,
            Families::V4Only,
            known(ResolutionSource::Literal, &["::1"]),
        ),
        (
            "reg.example",
            &given,
            Families::Both,
            known(ResolutionSource::Override, &["10.0.3.8", "10.0.3.7"]),
        ),
        (
            "reg.example",
            &given,
            Families::V6Only,
            Err(DnsFault::NoData),
        ),
        (
            "REG.example",
            &[],
            Families::Both,
            known(ResolutionSource::HostsFile, &["10.0.3.9"]),
        ),
        (
            "reg.example.",
            &[],
            Families::V4Only,
            known(ResolutionSource::HostsFile, &["10.0.3.9"]),
        ),
        ("six.example", &[], Families::V4Only, Err(DnsFault::NoData)),
        ("no..name", &[], Families::Both, Err(DnsFault::NxDomain)),
        ("hidden.onion", &[], Families::Both, Err(DnsFault::NxDomain)),
    ] {
        let found = resolve(&Host::new(host), &custom, overrides, families, LONG).await;
        let got = match &found.outcome {
            Step::Done { value, .. } => Ok((value.source, addresses(&found).join(" "))),
            Step::Failed { fault, .. } => Err(fault.clone()),
            Step::Skipped { .. } => panic!("{host} was skipped"),
        };
        assert_eq!(got, want, "{host}");
        assert!(found.queries.is_empty(), "{host}");
    }
    assert!(server.seen().is_empty());

    let none = lookup(&config(&[]), Families::Both, LONG).await;
    assert_eq!(none.outcome.fault(), Some(&DnsFault::NoServers));
}

// ---- pure parts -------------------------------------------------------------------------------

#[test]
fn errors_of_sockets_are_reported_by_their_number() {
    for (errno, fault) in [
        (Errno::ECONNREFUSED, DnsFault::PortClosed),
        (Errno::ETIMEDOUT, DnsFault::Timeout),
        (
            Errno::ENETUNREACH,
            DnsFault::Unreachable {
                error: "Network is unreachable (ENETUNREACH)".to_owned(),
            },
        ),
        (
            Errno::EPERM,
            DnsFault::Unreachable {
                error: "Operation not permitted (EPERM)".to_owned(),
            },
        ),
    ] {
        assert_eq!(io_fault(&io::Error::from(errno)), fault);
    }
}

/// Parses a record: `1 A 5000 TIMEOUT | local. 2 AAAA 1 fd00::1` has for each query the search domain (if any), the
/// server's last octet, the type, the duration in milliseconds, and the answer.
fn record(text: &str) -> Vec<Query> {
    let queries = text.split('|').map(str::trim).filter(|q| !q.is_empty());
    queries
        .map(|query| {
            let mut fields: Vec<&str> = query.split_whitespace().collect();
            let domain = if fields.len() == 5 {
                fields.remove(0)
            } else {
                ""
            };
            let [server, kind, took, word] = fields[..] else {
                panic!("{query}");
            };
            let said = match word {
                "NODATA" => Err(DnsFault::NoData),
                "NXDOMAIN" => Err(DnsFault::NxDomain),
                "SERVFAIL" => Err(DnsFault::ServFail),
                "REFUSED" => Err(DnsFault::Refused),
                "TIMEOUT" => Err(DnsFault::Timeout),
                "CLOSED" => Err(DnsFault::PortClosed),
                address => Ok(Answer {
                    records: vec![AddressRecord {
                        address: ip(address),
                        ttl_seconds: 1,
                    }],
                    cnames: vec![format!("alias-of-{server}.")],
                }),
            };
            Query {
                server: SocketAddr::from(([10, 0, 0, server.parse().unwrap()], 53)),
                name: format!("r.{domain}"),
                family: if kind == "A" { Family::V4 } else { Family::V6 },
                tcp: false,
                truncated_after: None,
                large_answer_bytes: None,
                negative: None,
                outcome: Step::from_result(said, Duration::from_millis(took.parse().unwrap())),
            }
        })
        .collect()
}

/// `r. from 10.0.0.1: 10.0.3.9`, or the fault.
fn concluded(host: &str, settings: &ResolverSettings, families: Families, text: &str) -> String {
    let record = record(text);
    let mut settings = settings.clone();
    for query in &record {
        if !settings.nameservers.contains(&query.server) {
            settings.nameservers.push(query.server);
        }
    }
    settings
        .nameservers
        .push(SocketAddr::from(([10, 0, 0, 9], 53)));
    if !record.is_empty() {
        settings.nameservers.pop();
    }
    match conclude(host, &settings, families, &record) {
        Ok(resolution) => {
            let ResolutionSource::Server { server } = resolution.source else {
                panic!("{:?}", resolution.source);
            };
            let last = server.ip().to_string().split_off("10.0.0.".len());
            assert_eq!(resolution.cnames, [format!("alias-of-{last}.")]);
            let addresses = &resolution.addresses;
            format!("{} from {last}: {addresses:?}", resolution.name)
        }
        Err(fault) => format!("{fault:?}"),
    }
}

#[test]
fn the_outcome_is_what_go_would_have() {
    let own = &ResolverSettings::default();
    let list = ResolverSettings {
        search: vec!["local.".to_owned()],
        ..ResolverSettings::default()
    };
    for (why, text, want) in [
        (
            "the first server's answer",
            "1 A 1 10.0.0.1 | 2 A 1 10.0.0.2",
            "r. from 1: [10.0.0.1]",
        ),
        (
            "trouble leads to the next server",
            "1 A 1 REFUSED | 2 A 1 CLOSED | 3 A 1 10.0.0.3",
            "r. from 3: [10.0.0.3]",
        ),
        (
            "a word of nothing does not",
            "1 A 1 NODATA | 2 A 1 10.0.0.2",
            "NoData",
        ),
        (
            "a second attempt counts",
            "1 A 1 TIMEOUT | 2 A 1 SERVFAIL | 1 A 1 10.0.0.1",
            "r. from 1: [10.0.0.1]",
        ),
        (
            "the fault of the last server is reported",
            "1 A 1 TIMEOUT | 2 A 1 REFUSED",
            "Refused",
        ),
    ] {
        assert_eq!(concluded("r", own, Families::V4Only, text), want, "{why}");
    }
    for (why, text, want) in [
        (
            "one family is enough",
            "1 A 9 TIMEOUT | 1 AAAA 1 fd00::1",
            "r. from 1: [fd00::1]",
        ),
        (
            "families may come from different servers",
            "1 A 1 10.0.0.1 | 1 AAAA 1 SERVFAIL | 2 A 1 10.0.0.2 | 2 AAAA 1 fd00::2",
            "r. from 1: [10.0.0.1, fd00::2]",
        ),
        (
            "the last error is reported",
            "1 A 1 NODATA | 1 AAAA 5000 TIMEOUT",
            "Timeout",
        ),
        (
            "whichever family has it",
            "1 A 5000 TIMEOUT | 1 AAAA 1 NODATA",
            "Timeout",
        ),
        ("nothing queried in time", "", "Timeout"),
    ] {
        assert_eq!(concluded("r", own, Families::Both, text), want, "{why}");
    }
    for (why, text, want) in [
        (
            "an error leads to the next name",
            "local. 1 A 1 SERVFAIL | 1 A 1 10.0.0.1",
            "r. from 1: [10.0.0.1]",
        ),
        (
            "the first name with an address ends it",
            "local. 1 A 1 10.9.9.9 | 1 A 1 10.0.0.1",
            "r.local. from 1: [10.9.9.9]",
        ),
        (
            "the name as written gives the fault",
            "local. 1 A 1 NXDOMAIN | 1 A 1 SERVFAIL",
            "ServFail",
        ),
        (
            "a name that was not queried in time is not missing",
            "local. 1 A 1 NXDOMAIN",
            "Timeout",
        ),
    ] {
        assert_eq!(concluded("r", &list, Families::V4Only, text), want, "{why}");
    }
    let swapped = ResolverSettings {
        ndots: 0,
        ..list.clone()
    };
    let text = "1 A 1 SERVFAIL | local. 1 A 1 NXDOMAIN";
    assert_eq!(
        concluded("r", &swapped, Families::V4Only, text),
        "ServFail",
        "also if it arrives first"
    );
    assert_eq!(concluded("x.onion.", own, Families::Both, ""), "NxDomain");
}

#[test]
fn a_rooted_name_keeps_the_first_error() {
    let own = &ResolverSettings::default();
    let text = "1 A 5000 TIMEOUT | 1 AAAA 1 NODATA";
    assert_eq!(concluded("r.", own, Families::Both, text), "NoData");
}

#[test]
fn aliases_are_followed_from_the_name_and_end_where_they_loop() {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let records = |pairs: &[(&str, &str)]| -> Vec<Record> {
        pairs
            .iter()
            .map(|(owner, target)| Record::from_rdata(name(owner), 1, cname(target)))
            .collect()
    };
    for (pairs, want) in [
        (vec![("b.", "c."), ("A.", "b.")], vec!["b.", "c."]),
        (vec![("x.", "y.")], vec![]),
        (vec![("a.", "a.")], vec![]),
        (vec![("a.", "b."), ("b.", "a.")], vec!["b."]),
        (
            vec![("a.", "b."), ("b.", "c."), ("c.", "b.")],
            vec!["b.", "c."],
        ),
    ] {
        assert_eq!(aliases(&name("a."), &records(&pairs)), want, "{pairs:?}");
    }
    let long: Vec<(String, String)> = (0..99)
        .map(|n| (format!("n{n}."), format!("n{}.", n + 1)))
        .collect();
    let long: Vec<(&str, &str)> = long.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(aliases(&name("n0."), &records(&long)).len(), ALIASES_SHOWN);
}

#[test]
fn names_of_the_network_are_shown_without_control_characters() {
    let label = [b'a', 0x1b, b'[', 0xff, b'\n', b'b'];
    let name = Name::from_labels([&label[..]]).unwrap();
    let text = show_name(&name);
    assert!(
        text.is_ascii() && !text.chars().any(char::is_control),
        "{text:?}"
    );
    assert_eq!((ttl(300), ttl(0x8000_0000)), (300, 0));
}

proptest! {
    #[test]
    fn no_packet_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), family in 0..2) {
        let family = if family == 0 { Family::V4 } else { Family::V6 };
        let question = Question::new("reg.example.", family, true).unwrap();
        prop_assert!(question.header_of_answer(&bytes).is_err());
        let _ = read_answer(&bytes, family);
        // After a valid header, so that records are parsed at all.
        let mut packet = question.packet.clone();
        packet[2] |= 0x80;
        packet[6..8].copy_from_slice(&[0, 9]);
        packet.extend_from_slice(&bytes);
        prop_assert!(question.header_of_answer(&packet).is_ok());
        let _ = read_answer(&packet, family);
    }
}
