//! STUN Binding requests (RFC 8489), over UDP and TCP: a server tells which address our packets come
//! from. No authentication is used, and none is asked for by public servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use super::tcp;
use crate::model::evidence::Step;
use crate::model::fault::TcpFault;
use crate::model::stun::{Mapping, StunFault};

/// Section 5.
const MAGIC_COOKIE: u32 = 0x2112_A442;
const HEADER: usize = 20;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

/// Section 18.3.
const MAPPED_ADDRESS: u16 = 0x0001;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// Those that must be understood are below it.
const OPTIONAL: u16 = 0x8000;
/// MESSAGE-INTEGRITY, and those that only a request answered with an error is about: known, and of
/// no use here.
const KNOWN: &[u16] = &[0x0006, 0x0008, 0x000A, 0x0014, 0x0015, 0x001C, 0x001E];

/// A response has some hundred bytes.
const MAX_MESSAGE: usize = 2048;

/// Section 6.2.1: the first wait; each later one is twice as long.
const RTO: Duration = Duration::from_millis(500);

type Transaction = [u8; 12];

/// A request without attributes.
pub fn encode_request(transaction: Transaction) -> [u8; HEADER] {
    let mut message = [0; HEADER];
    message[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
    message[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    message[8..].copy_from_slice(&transaction);
    message
}

/// The address in a response to the request of that transaction.
///
/// # Errors
/// When the bytes are no such response, or the server answers with an error.
pub fn decode_response(bytes: &[u8], transaction: Transaction) -> Result<SocketAddr, StunFault> {
    let malformed = |reason| StunFault::Malformed { reason };
    let header = bytes.get(..HEADER).ok_or(malformed("too short"))?;
    let kind = u16::from_be_bytes([header[0], header[1]]);
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[4..8] != MAGIC_COOKIE.to_be_bytes() {
        return Err(malformed("no magic cookie"));
    }
    if header[8..] != transaction {
        return Err(malformed("it answers another request"));
    }
    if kind != BINDING_SUCCESS && kind != BINDING_ERROR {
        return Err(malformed("not a response to a binding"));
    }
    if !length.is_multiple_of(4) {
        return Err(malformed("its length is no multiple of 4"));
    }
    let mut rest = bytes
        .get(HEADER..HEADER + length)
        .ok_or(malformed("shorter than it says"))?;
    let (mut xored, mut plain, mut code) = (None, None, None);
    while !rest.is_empty() {
        let head = rest.get(..4).ok_or(malformed("half an attribute"))?;
        let attribute = u16::from_be_bytes([head[0], head[1]]);
        let size = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest
            .get(4..4 + size)
            .ok_or(malformed("an attribute longer than the message"))?;
        match attribute {
            XOR_MAPPED_ADDRESS => {
                let address = read_address(value, Some(transaction));
                xored.get_or_insert(address.ok_or(malformed("an unreadable address"))?);
            }
            MAPPED_ADDRESS => {
                let address = read_address(value, None);
                plain.get_or_insert(address.ok_or(malformed("an unreadable address"))?);
            }
            ERROR_CODE => {
                let digits = value.get(2..4).ok_or(malformed("an unreadable error"))?;
                code = Some(u16::from(digits[0] & 7) * 100 + u16::from(digits[1]) % 100);
            }
            other if other < OPTIONAL && !KNOWN.contains(&other) && kind == BINDING_SUCCESS => {
                return Err(malformed("it has an attribute that must be understood"));
            }
            _ => {}
        }
        // Each is padded to four bytes; the last one's padding is within the length as well.
        let padded = 4 + size.next_multiple_of(4);
        rest = rest.get(padded..).ok_or(malformed("without its padding"))?;
    }
    if kind == BINDING_ERROR {
        return Err(code.map_or(malformed("an error without a code"), |code| {
            StunFault::ErrorResponse { code }
        }));
    }
    // A server of RFC 3489 has the plain one only.
    xored.or(plain).ok_or(malformed("it holds no address"))
}

/// Sections 14.1 and 14.2.
fn read_address(value: &[u8], transaction: Option<Transaction>) -> Option<SocketAddr> {
    let (family, port) = (value.get(1)?, value.get(2..4)?);
    let mut port = u16::from_be_bytes([port[0], port[1]]);
    let mut key = [0u8; 16];
    if let Some(transaction) = transaction {
        key[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        key[4..].copy_from_slice(&transaction);
        port ^= u16::from_be_bytes([key[0], key[1]]);
    }
    let address = match (family, value.len()) {
        (1, 8) => {
            let mut octets: [u8; 4] = value[4..].try_into().ok()?;
            octets.iter_mut().zip(key).for_each(|(o, k)| *o ^= k);
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        (2, 20) => {
            let mut octets: [u8; 16] = value[4..].try_into().ok()?;
            octets.iter_mut().zip(key).for_each(|(o, k)| *o ^= k);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// Asks over UDP, again and again until `wait` is over, as lost packets are to be expected.
pub async fn binding_udp(server: SocketAddr, wait: Duration) -> Step<Mapping, StunFault> {
    let start = Instant::now();
    let result = ask_udp(server, start + wait).await;
    Step::from_result(result, start.elapsed())
}

async fn ask_udp(server: SocketAddr, deadline: Instant) -> Result<Mapping, StunFault> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(|e| of_io(&e))?;
    // Connected, so that a closed port is told.
    socket.connect(server).await.map_err(|e| of_io(&e))?;
    let local = socket.local_addr().map_err(|e| of_io(&e))?;
    let transaction = transaction()?;
    let request = encode_request(transaction);
    let mut patience = RTO;
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        socket.send(&request).await.map_err(|e| of_io(&e))?;
        let until = (Instant::now() + patience).min(deadline);
        patience *= 2;
        while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
            let length = received.map_err(|e| of_io(&e))?;
            match decode_response(&buffer[..length], transaction) {
                Ok(mapped) => {
                    return Ok(Mapping {
                        server,
                        local,
                        mapped,
                    });
                }
                // Somebody else's word; the answer may still come.
                Err(StunFault::Malformed { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        if Instant::now() >= deadline {
            return Err(StunFault::Timeout);
        }
    }
}

/// Asks over TCP: the way that a pull's packets go, which may leave with another address.
pub async fn binding_tcp(server: SocketAddr, wait: Duration) -> Step<Mapping, StunFault> {
    let start = Instant::now();
    let result = match timeout(wait, ask_tcp(server, wait)).await {
        Ok(result) => result,
        Err(_) => Err(StunFault::Timeout),
    };
    Step::from_result(result, start.elapsed())
}

async fn ask_tcp(server: SocketAddr, wait: Duration) -> Result<Mapping, StunFault> {
    let dialed = tcp::connect(&[server.ip()], server.port(), wait).await;
    let Some(mut stream) = dialed.stream else {
        return Err(match dialed.connect.outcome.fault() {
            Some(TcpFault::Timeout) | None => StunFault::Timeout,
            Some(TcpFault::Refused { .. }) => StunFault::Refused,
            Some(other) => StunFault::Other {
                error: other.to_string(),
            },
        });
    };
    let local = stream.local_addr().map_err(|e| of_io(&e))?;
    let transaction = transaction()?;
    let request = encode_request(transaction);
    stream.write_all(&request).await.map_err(|e| of_io(&e))?;
    let mut message = vec![0; HEADER];
    stream
        .read_exact(&mut message)
        .await
        .map_err(|e| of_io(&e))?;
    let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
    if length > MAX_MESSAGE {
        return Err(StunFault::Malformed {
            reason: "far too long",
        });
    }
    message.resize(HEADER + length, 0);
    let body = stream.read_exact(&mut message[HEADER..]).await;
    body.map_err(|e| of_io(&e))?;
    let mapped = decode_response(&message, transaction)?;
    Ok(Mapping {
        server,
        local,
        mapped,
    })
}

/// Random, so that nobody off the path can answer for the server (section 5).
fn transaction() -> Result<Transaction, StunFault> {
    let mut transaction = [0; 12];
    aws_lc_rs::rand::fill(&mut transaction).map_err(|_| StunFault::Other {
        error: "there is no randomness".to_owned(),
    })?;
    Ok(transaction)
}

fn of_io(error: &io::Error) -> StunFault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => StunFault::Refused,
        io::ErrorKind::UnexpectedEof => StunFault::Malformed {
            reason: "the connection ended",
        },
        _ => StunFault::Other {
            error: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;

    /// The sample responses of RFC 5769, 2.2 and 2.3, with SOFTWARE, MESSAGE-INTEGRITY, FINGERPRINT.
    const SAMPLE_ID: Transaction = [
        0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
    ];
    const SAMPLE_V4: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20\
        \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
        \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
        \x80\x28\x00\x04\xc0\x7d\x4c\x96";
    const SAMPLE_V6: &[u8] = b"\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20\
        \x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\
        \x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\
        \x80\x28\x00\x04\xc8\xfb\x0b\x4c";

    fn answer(transaction: Transaction, to: SocketAddr) -> Vec<u8> {
        let mut value = vec![0, if to.is_ipv4() { 1 } else { 2 }];
        let mut key = MAGIC_COOKIE.to_be_bytes().to_vec();
        key.extend(transaction);
        let octets = match to.ip() {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        value.extend((to.port() ^ 0x2112).to_be_bytes());
        value.extend(octets.iter().zip(key).map(|(o, k)| o ^ k));
        message(BINDING_SUCCESS, transaction, &[(XOR_MAPPED_ADDRESS, value)])
    }

    fn message(kind: u16, transaction: Transaction, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (attribute, value) in attributes {
            body.extend(attribute.to_be_bytes());
            body.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut message = kind.to_be_bytes().to_vec();
        message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend(MAGIC_COOKIE.to_be_bytes());
        message.extend(transaction);
        message.extend(body);
        message
    }

    #[test]
    fn the_samples_of_the_rfc_are_read() {
        let read = |bytes| decode_response(bytes, SAMPLE_ID).unwrap().to_string();
        assert_eq!(read(SAMPLE_V4), "192.0.2.1:32853");
        assert_eq!(
            read(SAMPLE_V6),
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853"
        );
    }

    #[test]
    fn what_is_no_answer_to_this_request_is_refused() {
        let id = [7; 12];
        let good = answer(id, "121.36.1.2:4000".parse().unwrap());
        assert!(decode_response(&good, id).is_ok());
        let fault = |bytes: &[u8]| decode_response(bytes, id).unwrap_err().to_string();
        assert!(fault(&[]).contains("too short"));
        assert!(fault(&good[..good.len() - 1]).contains("shorter than it says"));
        assert!(
            decode_response(&good, [8; 12])
                .unwrap_err()
                .to_string()
                .contains("another")
        );
        assert!(fault(&encode_request(id)).contains("not a response"));
        let mut wrong = good.clone();
        wrong[4] ^= 1;
        assert!(fault(&wrong).contains("magic"));
        let must = message(BINDING_SUCCESS, id, &[(0x0027, vec![0; 4])]);
        assert!(fault(&must).contains("understood"));
        let none = message(BINDING_SUCCESS, id, &[(0x8022, b"coturn".to_vec())]);
        assert!(fault(&none).contains("no address"));
        let short = message(BINDING_SUCCESS, id, &[(XOR_MAPPED_ADDRESS, vec![0, 1, 2])]);
        assert!(fault(&short).contains("unreadable"));
        let error = message(BINDING_ERROR, id, &[(ERROR_CODE, vec![0, 0, 4, 20, b'x'])]);
        assert_eq!(
            decode_response(&error, id),
            Err(StunFault::ErrorResponse { code: 420 })
        );
    }

    #[test]
    fn a_server_of_rfc_3489_is_understood() {
        let id = [7; 12];
        let value = vec![0, 1, 0x0f, 0xa0, 121, 36, 1, 2];
        let old = message(BINDING_SUCCESS, id, &[(MAPPED_ADDRESS, value)]);
        let read = decode_response(&old, id).unwrap();
        assert_eq!(read, "121.36.1.2:4000".parse().unwrap());
    }

    proptest! {
        #[test]
        fn any_address_goes_both_ways(id: Transaction, v6: bool, bits: u128, port: u16) {
            let ip: IpAddr = if v6 {
                Ipv6Addr::from(bits).into()
            } else {
                Ipv4Addr::from(bits.to_be_bytes()[..4].first_chunk().copied().unwrap_or_default()).into()
            };
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(decode_response(&answer(id, address), id), Ok(address));
        }

        #[test]
        fn any_bytes_are_read_or_refused(id: Transaction, tail in proptest::collection::vec(any::<u8>(), 0..80), headed: bool) {
            let mut bytes = Vec::new();
            if headed {
                bytes.extend(BINDING_SUCCESS.to_be_bytes());
                bytes.extend(u16::try_from(tail.len()).unwrap_or_default().to_be_bytes());
                bytes.extend(MAGIC_COOKIE.to_be_bytes());
                bytes.extend(id);
            }
            bytes.extend(tail);
            let _ = decode_response(&bytes, id);
        }
    }

    fn id_of(request: &[u8]) -> Transaction {
        request[8..20].try_into().unwrap()
    }

    #[tokio::test]
    async fn over_udp_a_lost_answer_is_asked_for_again_and_strangers_are_not_heard() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = server.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 64];
            server.recv_from(&mut buffer).await.unwrap();
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!(length, HEADER);
            server.send_to(b"hello", from).await.unwrap();
            let id = id_of(&buffer);
            server.send_to(&answer([0; 12], at), from).await.unwrap();
            server.send_to(&answer(id, from), from).await.unwrap();
            from
        });
        let step = binding_udp(at, Duration::from_secs(5)).await;
        let from = serving.await.unwrap();
        let mapping = step.done().unwrap();
        assert_eq!((mapping.server, mapping.mapped), (at, from));
        assert_eq!(mapping.local.port(), from.port());
    }

    #[tokio::test]
    async fn a_closed_port_and_silence_are_told_apart() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = closed.local_addr().unwrap();
        let silent = binding_udp(at, Duration::from_millis(50)).await;
        assert_eq!(silent.fault(), Some(&StunFault::Timeout));
        drop(closed);
        let refused = binding_udp(at, Duration::from_secs(5)).await;
        assert_eq!(refused.fault(), Some(&StunFault::Refused));
        let refused = binding_tcp(at, Duration::from_secs(5)).await;
        assert_eq!(refused.fault(), Some(&StunFault::Refused));
    }

    #[tokio::test]
    async fn over_tcp_an_answer_may_come_in_pieces_or_end_too_early() {
        for cut in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut stream, from) = listener.accept().await.unwrap();
                let mut request = [0; HEADER];
                stream.read_exact(&mut request).await.unwrap();
                let mut bytes = answer(id_of(&request), from);
                if cut {
                    bytes.truncate(25);
                }
                for piece in bytes.chunks(3) {
                    stream.write_all(piece).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            let step = binding_tcp(at, Duration::from_secs(5)).await;
            match step.done() {
                Some(mapping) => assert!(!cut && mapping.mapped == mapping.local),
                None => assert!(cut, "{step:?}"),
            }
        }
    }
}
