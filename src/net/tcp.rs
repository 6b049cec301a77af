//! Connections to the addresses of a name: each tried once and at the same time, and the one taken
//! that a Go client would have used.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::kernel;
use crate::model::evidence::{Connect, Connected, Connection, Dial, Family, Skip, Step};
use crate::model::fault::{IcmpError, TcpFault};

/// Addresses tried of one family. Registries behind a CDN have up to a dozen; four show whether
/// some are dead, and a client rarely gets further.
pub const MAX_ADDRESSES_PER_FAMILY: usize = 4;

/// Go's `net.Dialer.FallbackDelay`: what the second family waits for the first (RFC 6555, 300 ms).
pub const FALLBACK_DELAY: Duration = Duration::from_millis(300);

/// What came of the addresses of a name.
#[derive(Debug)]
pub struct Dialed {
    pub connect: Connect,
    /// The connection that a Go client would have used.
    pub stream: Option<TcpStream>,
}

/// Tries the addresses, at most [`MAX_ADDRESSES_PER_FAMILY`] of each family, all at once.
pub async fn connect(addresses: &[IpAddr], port: u16, limit: Duration) -> Dialed {
    let start = Instant::now();
    let mut left = [MAX_ADDRESSES_PER_FAMILY; 2];
    let chosen: Vec<IpAddr> = addresses
        .iter()
        .copied()
        .filter(|address| {
            let left = &mut left[usize::from(address.is_ipv6())];
            let has_room = *left > 0;
            *left = left.saturating_sub(1);
            has_room
        })
        .collect();
    let mut dials = JoinSet::new();
    for (index, address) in chosen.iter().enumerate() {
        let to = SocketAddr::new(*address, port);
        dials.spawn(async move {
            let start = Instant::now();
            let result = dial(to, limit).await;
            (index, start.elapsed(), result)
        });
    }
    let mut streams: Vec<Option<TcpStream>> = chosen.iter().map(|_| None).collect();
    let mut attempts: Vec<Dial> = chosen
        .iter()
        .map(|address| Dial {
            to: SocketAddr::new(*address, port),
            outcome: Step::Skipped {
                reason: Skip::NotNeeded,
            },
        })
        .collect();
    while let Some(joined) = dials.join_next().await {
        let Ok((index, took, result)) = joined else {
            continue;
        };
        attempts[index].outcome = match result {
            Ok((stream, connection)) => {
                streams[index] = Some(stream);
                Step::Done {
                    value: connection,
                    took,
                }
            }
            Err(fault) => Step::Failed { fault, took },
        };
    }
    let (outcome, stream) = if let Some((index, fallback)) = go_choice(&attempts) {
        let took = attempts[index].outcome.took().unwrap_or_default();
        let value = Connected {
            to: attempts[index].to,
            fallback,
        };
        (Step::Done { value, took }, streams[index].take())
    } else {
        let fault = attempts
            .iter()
            .find_map(|dial| dial.outcome.fault())
            .cloned();
        let fault = fault.unwrap_or_else(|| TcpFault::Other {
            errno: None,
            error: "there is no address to connect to".to_owned(),
        });
        (
            Step::Failed {
                fault,
                took: start.elapsed(),
            },
            None,
        )
    };
    let not_tried = addresses.len() - chosen.len();
    Dialed {
        connect: Connect {
            attempts,
            not_tried,
            outcome,
        },
        stream,
    }
}

/// The attempt whose connection Go's dialer would have returned, and how much later than the first
/// choice's own time (`net.sysDialer.dialParallel`, `dialSerial`): the addresses of the first one's family are
/// tried one after the other; the other family starts when they have all failed or after
/// [`FALLBACK_DELAY`], and whoever connects first wins.
pub fn go_choice(attempts: &[Dial]) -> Option<(usize, Option<Duration>)> {
    let first = Family::of(attempts.first()?.to.ip());
    let serial = |primary: bool| {
        let mut waited = Duration::ZERO;
        for (index, dial) in attempts.iter().enumerate() {
            if (Family::of(dial.to.ip()) == first) != primary {
                continue;
            }
            let took = dial.outcome.took().unwrap_or_default();
            if dial.outcome.done().is_some() {
                return (Some((index, waited, waited + took)), waited + took);
            }
            waited += took;
        }
        (None, waited)
    };
    let (primary, primary_ended) = serial(true);
    let (secondary, _) = serial(false);
    let head_start = match primary {
        Some(_) => FALLBACK_DELAY,
        None => FALLBACK_DELAY.min(primary_ended),
    };
    let (index, waited) = match (primary, secondary) {
        (Some((index, waited, ready)), Some((other, other_waited, other_ready))) => {
            if ready <= head_start + other_ready {
                (index, waited)
            } else {
                (other, head_start + other_waited)
            }
        }
        (Some((index, waited, _)), None) => (index, waited),
        (None, Some((other, other_waited, _))) => (other, head_start + other_waited),
        (None, None) => return None,
    };
    Some((index, (index != 0).then_some(waited)))
}

async fn dial(to: SocketAddr, limit: Duration) -> Result<(TcpStream, Connection), TcpFault> {
    let fault = |error: &io::Error| from_io(error, None);
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(|e| fault(&e))?;
    kernel::keep_icmp_errors(&socket, to.is_ipv6()).map_err(|e| fault(&e))?;
    socket.set_nodelay(true).map_err(|e| fault(&e))?;
    // A second descriptor: the first is gone with the attempt, and the error queue with it.
    let queue = std::os::fd::AsFd::as_fd(&socket)
        .try_clone_to_owned()
        .map_err(|e| fault(&e))?;
    let stream = match tokio::time::timeout(limit, socket.connect(to)).await {
        Err(_) => return Err(TcpFault::Timeout),
        Ok(Err(error)) => return Err(from_io(&error, kernel::take_icmp_error(&queue))),
        Ok(Ok(stream)) => stream,
    };
    let info = kernel::tcp_info(&stream).ok();
    let connection = Connection {
        local: stream.local_addr().map_err(|e| fault(&e))?,
        rtt: info.and_then(|i| i.rtt),
        send_mss: info.and_then(|i| i.send_mss),
    };
    Ok((stream, connection))
}

/// connect(2)'s errno as a fault.
fn from_io(error: &io::Error, icmp: Option<IcmpError>) -> TcpFault {
    if let Some(icmp) = icmp.filter(IcmpError::is_prohibited) {
        return TcpFault::Prohibited { icmp };
    }
    let Some(errno) = error.raw_os_error() else {
        return TcpFault::Other {
            errno: None,
            error: error.to_string(),
        };
    };
    match errno {
        libc::ECONNREFUSED => TcpFault::Refused { icmp },
        libc::ETIMEDOUT => TcpFault::Timeout,
        libc::EHOSTUNREACH => TcpFault::HostUnreachable { icmp },
        libc::ENETUNREACH => TcpFault::NetUnreachable { icmp },
        // EINVAL is what a `blackhole` route gives (ip-route(8)).
        libc::EPERM | libc::EACCES | libc::EINVAL => TcpFault::LocalPolicy { errno },
        libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT => TcpFault::NoLocalAddress { errno },
        libc::ECONNRESET => TcpFault::Reset,
        _ => TcpFault::Other {
            errno: Some(errno),
            error: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial_of(to: &str, done: bool, millis: u64) -> Dial {
        let to: SocketAddr = to.parse().unwrap();
        let took = Duration::from_millis(millis);
        let connection = Connection {
            local: to,
            rtt: None,
            send_mss: None,
        };
        let outcome = if done {
            Step::Done {
                value: connection,
                took,
            }
        } else {
            Step::Failed {
                fault: TcpFault::Timeout,
                took,
            }
        };
        Dial { to, outcome }
    }

    #[test]
    fn the_connection_is_the_one_that_go_would_use() {
        const A6: &str = "[2001:db8::1]:443";
        const B6: &str = "[2001:db8::2]:443";
        const A4: &str = "192.0.2.1:443";
        const B4: &str = "192.0.2.2:443";
        let ms = Duration::from_millis;
        for (attempts, chosen) in [
            (vec![], None),
            (vec![dial_of(A4, true, 5)], Some((0, None))),
            (vec![dial_of(A4, false, 5)], None),
            // A refusal costs its own time.
            (
                vec![dial_of(A4, false, 5), dial_of(B4, true, 5)],
                Some((1, Some(ms(5)))),
            ),
            // Dead IPv6: the fallback delay.
            (
                vec![dial_of(A6, false, 10_000), dial_of(A4, true, 5)],
                Some((1, Some(ms(300)))),
            ),
            // IPv6 refused at once: no delay but its own.
            (
                vec![dial_of(A6, false, 2), dial_of(A4, true, 5)],
                Some((1, Some(ms(2)))),
            ),
            // Slow but within the head start.
            (
                vec![dial_of(A6, true, 200), dial_of(A4, true, 1)],
                Some((0, None)),
            ),
            // Slower than that: the other wins.
            (
                vec![dial_of(A6, true, 900), dial_of(A4, true, 1)],
                Some((1, Some(ms(300)))),
            ),
            (
                vec![
                    dial_of(A6, false, 2),
                    dial_of(B6, true, 2),
                    dial_of(A4, true, 1),
                ],
                Some((1, Some(ms(2)))),
            ),
        ] {
            assert_eq!(go_choice(&attempts), chosen, "{attempts:?}");
        }
    }

    #[test]
    fn every_errno_of_connect_has_its_fault() {
        let prohibited = IcmpError {
            from: None,
            version: 4,
            kind: 3,
            code: 13,
        };
        let port = IcmpError {
            from: None,
            version: 4,
            kind: 3,
            code: 3,
        };
        for (errno, icmp, fault) in [
            (libc::ECONNREFUSED, None, TcpFault::Refused { icmp: None }),
            (
                libc::ECONNREFUSED,
                Some(port),
                TcpFault::Refused { icmp: Some(port) },
            ),
            (
                libc::EHOSTUNREACH,
                Some(prohibited),
                TcpFault::Prohibited { icmp: prohibited },
            ),
            (
                libc::EHOSTUNREACH,
                None,
                TcpFault::HostUnreachable { icmp: None },
            ),
            (
                libc::ENETUNREACH,
                None,
                TcpFault::NetUnreachable { icmp: None },
            ),
            (libc::ETIMEDOUT, None, TcpFault::Timeout),
            (
                libc::EACCES,
                None,
                TcpFault::LocalPolicy {
                    errno: libc::EACCES,
                },
            ),
            (
                libc::EPERM,
                None,
                TcpFault::LocalPolicy { errno: libc::EPERM },
            ),
            (
                libc::EADDRNOTAVAIL,
                None,
                TcpFault::NoLocalAddress {
                    errno: libc::EADDRNOTAVAIL,
                },
            ),
            (libc::ECONNRESET, None, TcpFault::Reset),
        ] {
            assert_eq!(from_io(&io::Error::from_raw_os_error(errno), icmp), fault);
        }
    }

    #[tokio::test]
    async fn an_open_port_connects_and_a_closed_one_refuses() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let loopback = [IpAddr::from([127, 0, 0, 1])];
        let dialed = connect(&loopback, port, Duration::from_secs(5)).await;
        let connection = dialed.connect.attempts[0].outcome.done().unwrap();
        assert!(connection.rtt.is_some() && connection.send_mss.is_some());
        assert!(dialed.stream.is_some());
        drop((listener, dialed));
        let dialed = connect(&loopback, port, Duration::from_secs(5)).await;
        assert_eq!(
            dialed.connect.outcome.fault(),
            Some(&TcpFault::Refused { icmp: None })
        );
    }

    #[tokio::test]
    async fn no_more_than_the_bound_is_tried() {
        let many: Vec<IpAddr> = (1..=7).map(|n| IpAddr::from([127, 0, 0, n])).collect();
        let dialed = connect(&many, 1, Duration::from_secs(1)).await;
        assert_eq!(
            (dialed.connect.attempts.len(), dialed.connect.not_tried),
            (MAX_ADDRESSES_PER_FAMILY, 3)
        );
    }
}
