//! The codec against the RFC's samples and whatever bytes, the edges against servers in process.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::net::TcpListener;

use super::*;
use crate::net::testing::{LONG, peer, reset};

type Attributes<'a> = &'a [(u16, Vec<u8>)];

/// RFC 5769: the transaction of all its samples.
const SAMPLE: [u8; 12] = [
    0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
];

/// RFC 5769, 2.2: an answer with SOFTWARE (padded with blanks), XOR-MAPPED-ADDRESS,
/// MESSAGE-INTEGRITY and FINGERPRINT.
const SAMPLE_V4: [u8; 80] = [
    0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, //
    0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae, //
    0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72,
    0x20, //
    0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43, //
    0x00, 0x08, 0x00, 0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9,
    0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b, 0xe7, 0xd7, //
    0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
];

/// RFC 5769, 2.3: the same for IPv6.
const SAMPLE_V6: [u8; 92] = [
    0x01, 0x01, 0x00, 0x48, 0x21, 0x12, 0xa4, 0x42, //
    0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae, //
    0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72,
    0x20, //
    0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79,
    0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9, //
    0x00, 0x08, 0x00, 0x14, 0xa3, 0x82, 0x95, 0x4e, 0x4b, 0xe6, 0x7b, 0xf1, 0x17, 0x84, 0xc9, 0x7c,
    0x82, 0x92, 0xc2, 0x75, 0xbf, 0xe3, 0xed, 0x41, //
    0x80, 0x28, 0x00, 0x04, 0xc8, 0xfb, 0x0b, 0x4c,
];

/// RFC 5769, 2.4: a request, with USERNAME, NONCE, REALM and MESSAGE-INTEGRITY; its head is enough.
const SAMPLE_REQUEST: [u8; 20] = [
    0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42, 0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72, 0xc0,
    0x29, 0xda, 0x41, 0x2e,
];

/// A message of this type, its attributes padded with a byte that is not zero.
fn message(kind: u16, transaction: [u8; 12], attributes: Attributes<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.to_be_bytes());
        body.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0x20);
    }
    let mut message = kind.to_be_bytes().to_vec();
    message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    message.extend(COOKIE.to_be_bytes());
    message.extend(transaction);
    message.extend(body);
    message
}

fn address(of: SocketAddr) -> Vec<u8> {
    let mut value = vec![0, if of.is_ipv4() { 1 } else { 2 }];
    value.extend(of.port().to_be_bytes());
    match of.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets()),
        IpAddr::V6(ip) => value.extend(ip.octets()),
    }
    value
}

fn xored(of: SocketAddr, transaction: [u8; 12]) -> (u16, Vec<u8>) {
    (XOR_MAPPED_ADDRESS, address(unmask(of, transaction)))
}

fn mapped(of: &str) -> (u16, Vec<u8>) {
    (MAPPED_ADDRESS, address(of.parse().unwrap()))
}

fn success(attributes: Attributes<'_>) -> Vec<u8> {
    message(BINDING_SUCCESS, SAMPLE, attributes)
}

// ---- the codec ----------------------------------------------------------------------------------

#[test]
fn a_request_is_a_header_and_nothing_else() {
    let mut transaction = [0; 12];
    transaction.copy_from_slice(&SAMPLE_REQUEST[8..]);
    assert_eq!(encode_request(transaction), SAMPLE_REQUEST);
}

#[test]
fn the_samples_of_rfc_5769_are_read() {
    for (sample, says) in [
        (&SAMPLE_V4[..], "192.0.2.1:32853"),
        (
            &SAMPLE_V6[..],
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        ),
    ] {
        assert_eq!(decode_response(sample, SAMPLE), Ok(says.parse().unwrap()));
        assert_eq!(
            decode_response(sample, [7; 12]),
            Err(StunError::OtherTransaction)
        );
        // Cut off anywhere it is no answer, and changed anywhere it is no panic.
        for end in 0..sample.len() {
            assert!(decode_response(&sample[..end], SAMPLE).is_err(), "{end}");
        }
        for bit in 0..sample.len() * 8 {
            let mut changed = sample.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let _ = decode_response(&changed, SAMPLE);
        }
    }
}

#[test]
fn an_answer_says_its_address_in_one_of_two_ways() {
    let one: SocketAddr = "198.51.100.7:1234".parse().unwrap();
    let x = || xored(one, SAMPLE);
    let other = || mapped("203.0.113.9:4321");
    let read = |attributes: Attributes<'_>| decode_response(&success(attributes), SAMPLE);
    for (name, attributes) in [
        ("alone", vec![x()]),
        ("before the plain one", vec![x(), other()]),
        ("after the plain one", vec![other(), x()]),
        (
            "the first of two",
            vec![x(), xored("192.0.2.1:1".parse().unwrap(), SAMPLE)],
        ),
        (
            "behind what need not be known",
            vec![(0x8022, b"sw".to_vec()), (0xffff, vec![]), x()],
        ),
        (
            "behind what a server of RFC 3489 says",
            vec![
                (0x0004, address(one)),
                (0x0005, address(one)),
                mapped("198.51.100.7:1234"),
            ],
        ),
        (
            "before what nobody vouches for",
            vec![x(), (0x0008, vec![0; 20]), (0x7fff, vec![])],
        ),
    ] {
        assert_eq!(read(&attributes), Ok(one), "{name}");
    }
    assert_eq!(read(&[other()]), Ok("203.0.113.9:4321".parse().unwrap()));
    assert_eq!(
        read(&[(0x001c, vec![0; 32]), x()]),
        Err(StunError::NoAddress)
    );
}

#[test]
fn what_is_no_good_answer_says_why() {
    let good = success(&[mapped("192.0.2.1:1")]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let read = |bytes: &[u8]| decode_response(bytes, SAMPLE).unwrap_err();
    assert_eq!(read(&[]), StunError::Short(0));
    assert_eq!(read(&good[..19]), StunError::Short(19));
    assert_eq!(
        read(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        StunError::NotStun
    );
    assert_eq!(read(&with(0, 0x81)), StunError::NotStun);
    assert_eq!(read(&with(4, 0x22)), StunError::NotStun);
    assert_eq!(read(&with(19, 0)), StunError::OtherTransaction);
    assert_eq!(read(&encode_request(SAMPLE)), StunError::NotAnAnswer(1));
    assert_eq!(read(&with(1, 0x11)), StunError::NoErrorCode);
    // Another method: TURN's Allocate.
    assert_eq!(read(&with(1, 0x03)), StunError::NotAnAnswer(0x0103));
    let length = |said, has| StunError::Length { said, has };
    assert_eq!(read(&with(3, 8)), length(8, 12));
    assert_eq!(read(&good[..28]), length(12, 8));
    let odd = [&with(3, 13)[..], &[0]].concat();
    assert_eq!(read(&odd), length(13, 13));

    // The attribute itself: its length, family and size.
    assert_eq!(read(&with(23, 9)), StunError::CutOff(1));
    assert_eq!(read(&with(22, 0xff)), StunError::CutOff(1));
    assert_eq!(read(&with(23, 7)), StunError::BadValue(1));
    assert_eq!(read(&with(25, 2)), StunError::BadValue(1));
    assert_eq!(read(&with(25, 0)), StunError::BadValue(1));
    assert_eq!(read(&success(&[(0x20, vec![])])), StunError::BadValue(0x20));
    assert_eq!(read(&success(&[])), StunError::NoAddress);
    let unknown = success(&[mapped("192.0.2.1:1"), (0x0021, vec![])]);
    assert_eq!(read(&unknown), StunError::Unknown(0x21));
}

#[test]
fn an_error_response_has_a_code() {
    let read = |value: Vec<u8>| {
        decode_response(&message(BINDING_ERROR, SAMPLE, &[(9, value)]), SAMPLE).unwrap_err()
    };
    let with_reason = [&[0, 0, 4, 20][..], b"Unknown Attribute"].concat();
    assert_eq!(read(with_reason), StunError::ErrorResponse(420));
    assert_eq!(read(vec![0, 0, 3, 0]), StunError::ErrorResponse(300));
    // The five bits before the class mean nothing.
    assert_eq!(read(vec![0, 0, 0xfe, 99]), StunError::ErrorResponse(699));
    for bad in [
        vec![],
        vec![0, 0, 4],
        vec![0, 0, 4, 100],
        vec![0, 0, 2, 0],
        vec![0, 0, 7, 0],
    ] {
        assert_eq!(read(bad), StunError::BadValue(9));
    }
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn what_a_server_writes_is_read(
        says in any_address(),
        transaction: [u8; 12],
        is_old: bool,
        around in prop::collection::vec((OPTIONAL..=u16::MAX, prop::collection::vec(any::<u8>(), 0..20)), 0..6),
        place: prop::sample::Index,
    ) {
        let mut attributes = around;
        let said = if is_old { (MAPPED_ADDRESS, address(says)) } else { xored(says, transaction) };
        attributes.insert(place.index(attributes.len() + 1), said);
        let bytes = message(BINDING_SUCCESS, transaction, &attributes);
        prop_assert_eq!(decode_response(&bytes, transaction), Ok(says));
        prop_assert_eq!(unmask(unmask(says, transaction), transaction), says);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes: Vec<u8>, kind in prop_oneof![Just(BINDING_SUCCESS), Just(BINDING_ERROR), any::<u16>()]) {
        let _ = decode_response(&bytes, SAMPLE);
        let mut body = bytes;
        body.truncate(body.len() / 4 * 4);
        let mut whole = message(kind, SAMPLE, &[]);
        whole[2..4].copy_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        whole.extend(body);
        if decode_response(&whole, SAMPLE).is_ok() {
            prop_assert_eq!(kind, BINDING_SUCCESS);
        }
    }
}

// ---- over UDP -----------------------------------------------------------------------------------

/// A good answer to a request from there.
fn answer(request: &[u8], from: SocketAddr) -> Vec<u8> {
    let transaction = request[8..].try_into().unwrap();
    message(BINDING_SUCCESS, transaction, &[xored(from, transaction)])
}

struct UdpPeer {
    at: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// Answers the nth request with the packets that `act` makes of it.
async fn udp_peer(
    local: &str,
    mut act: impl FnMut(usize, &[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
) -> UdpPeer {
    let socket = UdpSocket::bind(local).await.unwrap();
    let at = socket.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let request = &buffer[..length];
            let count = {
                let mut seen = record.lock().unwrap();
                seen.push(request.to_vec());
                seen.len()
            };
            for packet in act(count, request, from) {
                socket.send_to(&packet, from).await.unwrap();
            }
        }
    });
    UdpPeer { at, seen }
}

fn malformed(step: &Step<Mapping, StunFault>) -> &str {
    match step.fault() {
        Some(StunFault::Malformed { reason }) => reason,
        _ => panic!("{step:?}"),
    }
}

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn over_udp_the_address_is_told_at_once() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let peer = udp_peer(local, |_, request, from| vec![answer(request, from)]).await;
        let step = binding_udp(peer.at, LONG).await;
        let mapping = step.done().unwrap();
        assert_eq!(mapping.server, peer.at);
        assert_eq!(mapping.local.ip(), peer.at.ip());
        assert!(!mapping.is_translated(), "{mapping:?}");
        assert_eq!(peer.seen.lock().unwrap().len(), 1);
        let other = binding_udp(peer.at, LONG).await;
        assert!(other.done().is_some());
        let seen = peer.seen.lock().unwrap();
        assert_ne!(seen[0], seen[1], "each has a transaction of its own");
    }
}

#[tokio::test]
async fn a_request_that_is_lost_is_sent_again_the_same() {
    let act = |count, request: &[u8], from| match count {
        1 => vec![],
        _ => vec![answer(request, from)],
    };
    let peer = udp_peer("127.0.0.1:0", act).await;
    let step = binding_udp(peer.at, LONG).await;
    assert!(step.done().is_some(), "{step:?}");
    assert!(step.took().unwrap() >= RTO);
    let seen = peer.seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn silence_over_udp_is_a_timeout_and_no_flood() {
    let peer = udp_peer("127.0.0.1:0", |_, _, _| vec![]).await;
    let wait = Duration::from_millis(1200);
    let step = binding_udp(peer.at, wait).await;
    assert_eq!(step.fault(), Some(&StunFault::Timeout));
    assert!(step.took().unwrap() >= wait);
    assert_eq!(peer.seen.lock().unwrap().len(), 2, "at 0 s and at 0.5 s");
}

#[tokio::test]
async fn a_closed_udp_port_is_refused_at_once() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let socket = UdpSocket::bind(local).await.unwrap();
        let at = socket.local_addr().unwrap();
        drop(socket);
        let step = binding_udp(at, LONG).await;
        assert_eq!(step.fault(), Some(&StunFault::Refused));
        assert!(step.took().unwrap() < LONG / 2);
    }
}

#[tokio::test]
async fn packets_that_do_not_belong_are_passed_over() {
    type Spoil = fn(&mut Vec<u8>);
    let cases: [(&str, Spoil); 4] = [
        ("is to another request", |packet| packet[9] ^= 1),
        ("is no STUN message", |packet| packet[5] ^= 1),
        ("is no STUN message", |packet| packet[0] ^= 0x80),
        ("12 bytes are too few", |packet| packet.truncate(12)),
    ];
    for (said, spoil) in cases {
        for good_follows in [false, true] {
            let act = move |_, request: &[u8], from| {
                let good = answer(request, from);
                let mut bad = good.clone();
                spoil(&mut bad);
                if good_follows {
                    vec![bad, good]
                } else {
                    vec![bad]
                }
            };
            let peer = udp_peer("127.0.0.1:0", act).await;
            let wait = if good_follows { LONG } else { SHORT };
            let step = binding_udp(peer.at, wait).await;
            if good_follows {
                assert!(step.done().is_some(), "{step:?}");
            } else {
                assert!(malformed(&step).contains(said), "{step:?}");
                assert!(step.took().unwrap() >= SHORT);
            }
        }
    }
}

#[tokio::test]
async fn a_bad_answer_that_does_belong_is_not_waited_on() {
    let act = |_, request: &[u8], from| {
        let mut cut = answer(request, from);
        cut.truncate(24);
        vec![cut]
    };
    let peer = udp_peer("127.0.0.1:0", act).await;
    let step = binding_udp(peer.at, LONG).await;
    assert!(malformed(&step).contains("12 bytes and has 4"), "{step:?}");
    assert!(step.took().unwrap() < LONG / 2);

    // An echo service, which is none of STUN.
    let peer = udp_peer("127.0.0.1:0", |_, request, _| vec![request.to_vec()]).await;
    let step = binding_udp(peer.at, LONG).await;
    assert!(malformed(&step).contains("0x0001"), "{step:?}");

    let act = |_, request: &[u8], _| {
        let code = (ERROR_CODE, b"\0\0\x04\0Bad Request".to_vec());
        vec![message(
            BINDING_ERROR,
            request[8..].try_into().unwrap(),
            &[code],
        )]
    };
    let peer = udp_peer("127.0.0.1:0", act).await;
    let step = binding_udp(peer.at, LONG).await;
    assert_eq!(step.fault(), Some(&StunFault::ErrorResponse { code: 400 }));
}

// ---- over TCP -----------------------------------------------------------------------------------

/// Reads the request, and sends what `act` makes of it, a few bytes at a time; then it waits for the
/// client to close.
async fn tcp_peer(
    piece: usize,
    act: impl FnOnce(&[u8], SocketAddr) -> Vec<u8> + Send + 'static,
) -> SocketAddr {
    peer(async move |mut stream| {
        stream.set_nodelay(true).unwrap();
        let mut request = [0; HEADER];
        stream.read_exact(&mut request).await.unwrap();
        let bytes = act(&request, stream.peer_addr().unwrap());
        for piece in bytes.chunks(piece) {
            if stream.write_all(piece).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = stream.read(&mut request).await;
    })
    .await
}

#[tokio::test]
async fn over_tcp_an_answer_may_come_in_pieces_and_with_more_behind_it() {
    for (piece, behind) in [(1, 0), (7, 0), (1000, 0), (1000, 5)] {
        let at = tcp_peer(piece, move |request, from| {
            let mut bytes = answer(request, from);
            bytes.resize(bytes.len() + behind, 0xff);
            bytes
        })
        .await;
        let step = binding_tcp(at, LONG).await;
        let mapping = step.done().unwrap();
        assert_eq!(mapping.server, at);
        assert!(!mapping.is_translated(), "{mapping:?}");
    }
}

#[tokio::test]
async fn over_tcp_what_is_no_stun_is_told_from_its_first_bytes() {
    type Spoil = fn(&mut Vec<u8>);
    let cases: [(&str, Spoil); 5] = [
        ("is no STUN message", |bytes| {
            *bytes = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec();
        }),
        ("is no STUN message", |bytes| bytes[5] ^= 1),
        ("is to another request", |bytes| bytes[19] ^= 1),
        ("65283 bytes are too much", |bytes| {
            bytes[2..4].copy_from_slice(&[0xff, 0x03]);
        }),
        ("13 bytes and has 13", |bytes| {
            bytes[2..4].copy_from_slice(&[0, 13]);
            bytes.push(0);
        }),
    ];
    for (said, spoil) in cases {
        let at = tcp_peer(3, move |request, from| {
            let mut bytes = answer(request, from);
            spoil(&mut bytes);
            bytes
        })
        .await;
        let step = binding_tcp(at, LONG).await;
        assert!(malformed(&step).contains(said), "{step:?}");
        assert!(step.took().unwrap() < LONG / 2);
    }
}

#[tokio::test]
async fn a_tcp_server_may_hang_up_keep_silent_or_not_be_there() {
    let read = async |stream: &mut TcpStream| {
        stream.read_exact(&mut [0; HEADER]).await.unwrap();
    };
    let at = peer(async move |mut stream| read(&mut stream).await).await;
    let step = binding_tcp(at, LONG).await;
    assert!(
        matches!(step.fault(), Some(StunFault::Other { error }) if error.contains("without")),
        "{step:?}"
    );

    let at = peer(async move |mut stream| {
        read(&mut stream).await;
        stream.write_all(&SAMPLE_V4[..10]).await.unwrap();
    })
    .await;
    let step = binding_tcp(at, LONG).await;
    assert!(malformed(&step).contains("after 10 bytes"), "{step:?}");

    let at = peer(async move |mut stream| {
        read(&mut stream).await;
        reset(stream);
    })
    .await;
    let step = binding_tcp(at, LONG).await;
    assert!(
        matches!(step.fault(), Some(StunFault::Other { error }) if error.contains("ECONNRESET")),
        "{step:?}"
    );

    let at = tcp_peer(1, |_, _| vec![]).await;
    let step = binding_tcp(at, SHORT).await;
    assert_eq!(step.fault(), Some(&StunFault::Timeout));
    assert!(step.took().unwrap() >= SHORT);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let step = binding_tcp(at, LONG).await;
    assert_eq!(step.fault(), Some(&StunFault::Refused));
}
