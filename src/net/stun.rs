//! A STUN binding request (RFC 8489), over UDP and over TCP: from which address and port do this
//! machine's packets come, to a server elsewhere?
//!
//! No part of STUN's authentication is here: who forges an answer has seen the request's 96 random
//! bits, or is the server.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use crate::model::evidence::Step;
use crate::model::stun::{Mapping, StunFault};

/// Asks over UDP within `wait`. The request is sent again as RFC 8489, 6.2.1 says: 0.5 s after the
/// first, then after twice the time before, seven times in all (at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and
/// 31.5 s), as far as there is time.
///
/// Packets that don't belong to the request are passed over; they are told of only if nothing
/// better comes.
pub async fn binding_udp(server: SocketAddr, wait: Duration) -> Step<Mapping, StunFault> {
    let started = Instant::now();
    let mut stray = None;
    let result = match timeout(wait, over_udp(server, &mut stray)).await {
        Ok(result) => result,
        Err(_) => Err(stray.map_or(StunFault::Timeout, StunFault::from)),
    };
    Step::from_result(result, started.elapsed())
}

/// Asks over TCP within `wait`, connection included. TCP itself sends again what is lost; the
/// connection is closed afterwards.
pub async fn binding_tcp(server: SocketAddr, wait: Duration) -> Step<Mapping, StunFault> {
    let started = Instant::now();
    let result = timeout(wait, over_tcp(server))
        .await
        .unwrap_or(Err(StunFault::Timeout));
    Step::from_result(result, started.elapsed())
}

async fn over_udp(server: SocketAddr, stray: &mut Option<StunError>) -> Result<Mapping, StunFault> {
    let transaction = transaction()?;
    let request = encode_request(transaction);
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let failed = |error: io::Error| io_fault(&error);
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    // Only a connected socket hears of a closed port (ICMP port unreachable, udp(7)).
    socket.connect(server).await.map_err(failed)?;
    let local = socket.local_addr().map_err(failed)?;
    let mut buffer = [0; MAX_MESSAGE];
    for sent in 0..REQUESTS {
        socket.send(&request).await.map_err(failed)?;
        let pause = if sent + 1 < REQUESTS {
            RTO * (1 << sent)
        } else {
            RTO * LAST_WAIT
        };
        let until = Instant::now() + pause;
        while let Ok(length) = tokio::time::timeout_at(until, socket.recv(&mut buffer)).await {
            match decode_response(&buffer[..length.map_err(failed)?], transaction) {
                Ok(mapped) => {
                    return Ok(Mapping {
                        server,
                        local,
                        mapped,
                    });
                }
                Err(error) if error.is_stray() => *stray = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Err(stray.take().map_or(StunFault::Timeout, StunFault::from))
}

async fn over_tcp(server: SocketAddr) -> Result<Mapping, StunFault> {
    let transaction = transaction()?;
    let failed = |error: io::Error| io_fault(&error);
    let mut stream = TcpStream::connect(server).await.map_err(failed)?;
    let local = stream.local_addr().map_err(failed)?;
    stream
        .write_all(&encode_request(transaction))
        .await
        .map_err(failed)?;
    let mut message = vec![0; HEADER];
    read_whole(&mut stream, &mut message, 0).await?;
    // The length of what is no STUN is no length.
    let header = Header::read(&message, transaction)?;
    if header.length > MAX_MESSAGE - HEADER {
        return Err(StunFault::Malformed {
            reason: format!("{} bytes are too much for an answer", header.length),
        });
    }
    message.resize(HEADER + header.length, 0);
    read_whole(&mut stream, &mut message, HEADER).await?;
    let mapped = decode_response(&message, transaction)?;
    Ok(Mapping {
        server,
        local,
        mapped,
    })
}

/// Fills the rest of a message, `have` bytes of which are there.
async fn read_whole(
    stream: &mut TcpStream,
    message: &mut [u8],
    mut have: usize,
) -> Result<(), StunFault> {
    while have < message.len() {
        have += match stream.read(&mut message[have..]).await {
            Ok(0) if have == 0 => {
                return Err(StunFault::Other {
                    error: "the server closed the connection without an answer".to_owned(),
                });
            }
            Ok(0) => {
                return Err(StunFault::Malformed {
                    reason: format!("the connection ended after {have} bytes of an answer"),
                });
            }
            Ok(length) => length,
            Err(error) => return Err(io_fault(&error)),
        };
    }
    Ok(())
}

/// What an errno of a socket says of the server (connect(2), udp(7)).
fn io_fault(error: &io::Error) -> StunFault {
    match (error.raw_os_error().map(Errno::from_raw), error.kind()) {
        (Some(Errno::ECONNREFUSED), _) => StunFault::Refused,
        (Some(Errno::ETIMEDOUT), _) | (None, ErrorKind::TimedOut) => StunFault::Timeout,
        (Some(errno), _) => StunFault::Other {
            error: format!("{} ({errno:?})", errno.desc()),
        },
        (None, kind) => StunFault::Other {
            error: kind.to_string(),
        },
    }
}

/// 96 bits by chance (RFC 8489, 5).
fn transaction() -> Result<[u8; 12], StunFault> {
    let mut bytes = [0; 12];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StunFault::Other {
        error: "no random bytes are to be had".to_owned(),
    })?;
    Ok(bytes)
}

/// RFC 8489, 6.2.1: RTO, Rc and Rm.
const RTO: Duration = Duration::from_millis(500);
const REQUESTS: u32 = 7;
const LAST_WAIT: u32 = 16;

/// Answers to a binding request have some hundred bytes.
const MAX_MESSAGE: usize = 4096;

// ---- messages -----------------------------------------------------------------------------------

/// Why bytes are no answer that says an address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StunError {
    #[error("{0} bytes are too few for a STUN message")]
    Short(usize),
    /// The first bits, or the magic cookie.
    #[error("what came is no STUN message")]
    NotStun,
    #[error("the answer is to another request")]
    OtherTransaction,
    /// Message type in hexadecimal: a request, an indication, or of another method.
    #[error("a message of type {0:#06x} is no answer to a binding request")]
    NotAnAnswer(u16),
    #[error("the message says that it has {said} bytes and has {has}")]
    Length { said: usize, has: usize },
    #[error("attribute {0:#06x} ends beyond the message")]
    CutOff(u16),
    #[error("attribute {0:#06x} has a value of another form than it should")]
    BadValue(u16),
    /// One that an agent must not pass over (RFC 8489, 6.3.1).
    #[error("attribute {0:#06x} is not known, and must not be passed over")]
    Unknown(u16),
    #[error("the answer says no address")]
    NoAddress,
    #[error("an error response without an error code")]
    NoErrorCode,
    /// What the server answered instead: 300 to 699.
    #[error("error {0}")]
    ErrorResponse(u16),
}

impl StunError {
    /// The bytes have nothing to do with the request; who got that may have sent others.
    fn is_stray(&self) -> bool {
        matches!(
            self,
            Self::Short(_) | Self::NotStun | Self::OtherTransaction
        )
    }
}

impl From<StunError> for StunFault {
    fn from(error: StunError) -> Self {
        match error {
            StunError::ErrorResponse(code) => Self::ErrorResponse { code },
            error => Self::Malformed {
                reason: error.to_string(),
            },
        }
    }
}

/// A binding request without attributes (RFC 8489, 5).
pub fn encode_request(transaction: [u8; 12]) -> [u8; 20] {
    let mut request = [0; HEADER];
    request[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
    request[4..8].copy_from_slice(&COOKIE.to_be_bytes());
    request[8..].copy_from_slice(&transaction);
    request
}

/// The address that an answer to this request says: `XOR-MAPPED-ADDRESS` (RFC 8489, 14.2), or the
/// `MAPPED-ADDRESS` of servers that know RFC 3489 only.
///
/// `bytes` are one whole message. Of an attribute that comes twice the first counts, and what stands
/// behind `MESSAGE-INTEGRITY` does not count at all (RFC 8489, 14 and 14.5).
pub fn decode_response(bytes: &[u8], transaction: [u8; 12]) -> Result<SocketAddr, StunError> {
    let header = Header::read(bytes, transaction)?;
    let has = bytes.len() - HEADER;
    if header.length != has || !has.is_multiple_of(4) {
        let said = header.length;
        return Err(StunError::Length { said, has });
    }
    let (mut xored, mut plain, mut code) = (None, None, None);
    let mut is_signed = false;
    let mut rest = &bytes[HEADER..];
    while let Some((kind, value, behind)) = next_attribute(rest)? {
        rest = behind;
        match kind {
            _ if is_signed => {}
            MESSAGE_INTEGRITY | MESSAGE_INTEGRITY_SHA256 => is_signed = true,
            XOR_MAPPED_ADDRESS if xored.is_none() => {
                let address = read_address(value).ok_or(StunError::BadValue(kind))?;
                xored = Some(unmask(address, transaction));
            }
            MAPPED_ADDRESS if plain.is_none() => {
                plain = Some(read_address(value).ok_or(StunError::BadValue(kind))?);
            }
            ERROR_CODE if code.is_none() => {
                code = Some(read_code(value).ok_or(StunError::BadValue(kind))?);
            }
            _ if kind >= OPTIONAL || PASSED_OVER.contains(&kind) => {}
            _ => return Err(StunError::Unknown(kind)),
        }
    }
    if header.is_error {
        return Err(code.map_or(StunError::NoErrorCode, StunError::ErrorResponse));
    }
    xored.or(plain).ok_or(StunError::NoAddress)
}

/// What is of use in the first 20 bytes of an answer.
struct Header {
    is_error: bool,
    /// Bytes that follow.
    length: usize,
}

impl Header {
    fn read(bytes: &[u8], transaction: [u8; 12]) -> Result<Self, StunError> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(StunError::Short(bytes.len()));
        };
        let kind = u16::from_be_bytes([header[0], header[1]]);
        if kind & 0xc000 != 0 || header[4..8] != COOKIE.to_be_bytes() {
            return Err(StunError::NotStun);
        }
        if header[8..] != transaction {
            return Err(StunError::OtherTransaction);
        }
        if kind != BINDING_SUCCESS && kind != BINDING_ERROR {
            return Err(StunError::NotAnAnswer(kind));
        }
        Ok(Self {
            is_error: kind == BINDING_ERROR,
            length: u16::from_be_bytes([header[2], header[3]]).into(),
        })
    }
}

/// Type and value of the first attribute, and what follows it and its padding.
type Attribute<'b> = (u16, &'b [u8], &'b [u8]);

fn next_attribute(bytes: &[u8]) -> Result<Option<Attribute<'_>>, StunError> {
    // The whole is a multiple of four, and so is each attribute with its padding.
    let Some((&[a, b, c, d], rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let kind = u16::from_be_bytes([a, b]);
    let length = usize::from(u16::from_be_bytes([c, d]));
    let behind = rest.get(length.next_multiple_of(4)..);
    let value = rest.get(..length);
    match (value, behind) {
        (Some(value), Some(behind)) => Ok(Some((kind, value, behind))),
        _ => Err(StunError::CutOff(kind)),
    }
}

/// RFC 8489, 14.1: a byte of nothing, family, port, address.
fn read_address(value: &[u8]) -> Option<SocketAddr> {
    let (&[_, family, high, low], address) = value.split_first_chunk()?;
    let ip = match family {
        1 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        2 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
}

/// RFC 8489, 14.2: the port XOR the cookie's upper half; IPv4 XOR the cookie, IPv6 XOR the cookie
/// and the transaction. The same masks and unmasks.
fn unmask(address: SocketAddr, transaction: [u8; 12]) -> SocketAddr {
    let [a, b, c, d] = COOKIE.to_be_bytes();
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::from((ip.to_bits() ^ COOKIE).to_be_bytes()),
        IpAddr::V6(ip) => {
            let mut mask = [0; 16];
            mask[..4].copy_from_slice(&[a, b, c, d]);
            mask[4..].copy_from_slice(&transaction);
            IpAddr::from((ip.to_bits() ^ u128::from_be_bytes(mask)).to_be_bytes())
        }
    };
    SocketAddr::new(ip, address.port() ^ u16::from_be_bytes([a, b]))
}

/// RFC 8489, 14.8: 21 bits of nothing, the hundreds in three bits, the rest in a byte, a reason.
fn read_code(value: &[u8]) -> Option<u16> {
    let (&[_, _, class, number], _reason) = value.split_first_chunk()?;
    let class = class & 7;
    ((3..=6).contains(&class) && number < 100).then(|| u16::from(class) * 100 + u16::from(number))
}

const HEADER: usize = 20;
const COOKIE: u32 = 0x2112_a442;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const MAPPED_ADDRESS: u16 = 0x0001;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// Attributes from here on may be passed over by who does not know them (RFC 8489, 14).
const OPTIONAL: u16 = 0x8000;

/// Attributes below that which are known, and say nothing that is of use here.
const PASSED_OVER: &[u16] = &[
    MAPPED_ADDRESS,
    ERROR_CODE,
    XOR_MAPPED_ADDRESS,
    // RFC 3489, 11.2, of servers that know no other: RESPONSE-ADDRESS, CHANGE-REQUEST,
    // SOURCE-ADDRESS, CHANGED-ADDRESS, PASSWORD, REFLECTED-FROM.
    0x0002,
    0x0003,
    0x0004,
    0x0005,
    0x0007,
    0x000b,
    // RFC 8489, 18.3.1: USERNAME, UNKNOWN-ATTRIBUTES, REALM, NONCE, PASSWORD-ALGORITHM, USERHASH.
    0x0006,
    0x000a,
    0x0014,
    0x0015,
    0x001d,
    0x001e,
];

#[cfg(test)]
mod tests;
