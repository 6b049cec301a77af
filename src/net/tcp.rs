//! The connect phase: every address of a host is tried, and the connection that a Go client would have chosen is kept.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpMaxSeg;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{kernel, order};
use crate::model::connect::{Connect, Connected, Connection, Dial};
use crate::model::fault::{IcmpError, TcpFault};
use crate::model::resolve::Family;
use crate::model::special;
use crate::model::step::Step;
use crate::own;

/// The result of the connect phase.
#[derive(Debug)]
pub struct Dialed {
    /// The attempts and their outcome, as evidence.
    pub connect: Connect,
    /// The connection to use; `None` if the phase failed.
    pub stream: Option<TcpStream>,
}

/// Bound for the addresses of one family that are tried. Registries behind large CDNs publish eight and more; four are
/// enough to distinguish a dead address from a dead network, and limit the load.
pub const MAX_ADDRESSES_PER_FAMILY: usize = 4;

/// RFC 8305 section 5 recommends 250 ms; Go's `net.Dialer` (FallbackDelay) waits 300 ms.
const GO_FALLBACK_DELAY: Duration = Duration::from_millis(300);

/// containerd's limit for a whole dial (`dial_timeout` of hosts.toml).
const GO_DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Go's dialer divides the time left among the addresses left, but gives each at least this.
const GO_SHORTEST_SHARE: Duration = Duration::from_secs(2);

/// A connection that has waited this long for the other attempts is opened again: servers close the connection of a
/// client that sends nothing, and that must not look like a fault of the server.
const STALE: Duration = Duration::from_secs(1);

/// Tries every address once, all at the same time, each for at most `limit`.
pub async fn connect(addresses: &[IpAddr], port: u16, limit: Duration) -> Dialed {
    connect_bounded(addresses, port, limit, None).await
}

/// The same with a bound on the size of segments in both directions. `TCP_MAXSEG`, set before connect, becomes the MSS
/// option of the SYN and limits what is sent (tcp(7), RFC 9293 3.7.1).
pub async fn connect_bounded(
    addresses: &[IpAddr],
    port: u16,
    limit: Duration,
    max_segment: Option<u32>,
) -> Dialed {
    let started = Instant::now();
    let (tried, not_tried) = bounded(addresses);
    let dials = tried
        .into_iter()
        .map(|address| dial(SocketAddr::new(address, port), limit, max_segment));
    let dials = join_all(dials).await.into_iter();
    let (attempts, mut streams): (Vec<Dial>, Vec<Option<Opened>>) = dials.unzip();
    let choice = go_choice(&attempts)
        .and_then(|(index, fallback)| Some((index, fallback, streams[index].take()?)));
    // Close the others at once, so that their servers need not wait.
    drop(streams);
    let (outcome, stream) = if let Some((index, fallback, (stream, opened))) = choice {
        let chosen = &attempts[index];
        let took = chosen.outcome.took().unwrap_or_default();
        let to = chosen.to;
        let stream = if opened.elapsed() > STALE {
            // If connecting again fails, the stale connection is used, which may still work.
            dial(to, limit, max_segment)
                .await
                .1
                .map_or(stream, |new| new.0)
        } else {
            stream
        };
        let value = Connected { to, fallback };
        (Step::Done { value, took }, Some(stream))
    } else {
        // Go reports the error of the first address of the first family.
        let own = attempts.iter().find_map(|dial| dial.outcome.own_limit());
        let first = attempts.first().and_then(|dial| dial.outcome.fault());
        let fault = own.map(TcpFault::from).or_else(|| first.cloned());
        let fault = fault.unwrap_or_else(|| TcpFault::Other {
            errno: None,
            error: "there is no address to connect to".to_owned(),
        });
        (Step::failed(fault, started.elapsed()), None)
    };
    Dialed {
        connect: Connect {
            attempts,
            not_tried,
            outcome,
        },
        stream,
    }
}

/// The first addresses of each family in their order, and how many are left out.
fn bounded(addresses: &[IpAddr]) -> (Vec<IpAddr>, usize) {
    let (mut v4, mut v6) = (0, 0);
    let tried: Vec<_> = addresses
        .iter()
        .copied()
        .filter(|address| {
            let count = match Family::of(*address) {
                Family::V4 => &mut v4,
                Family::V6 => &mut v6,
            };
            *count += 1;
            *count <= MAX_ADDRESSES_PER_FAMILY
        })
        .collect();
    let not_tried = addresses.len() - tried.len();
    (tried, not_tried)
}

/// The stream, and when it was opened.
type Opened = (TcpStream, Instant);

async fn dial(to: SocketAddr, limit: Duration, max_segment: Option<u32>) -> (Dial, Option<Opened>) {
    let started = Instant::now();
    let result = open(to, limit, max_segment).await;
    let took = started.elapsed();
    let (result, stream) = match result {
        Ok((connection, stream)) => (Ok(connection), Some((stream, Instant::now()))),
        Err(fault) => (Err(fault), None),
    };
    let outcome = Step::from_result(result, took);
    (Dial { to, outcome }, stream)
}

async fn open(
    to: SocketAddr,
    limit: Duration,
    max_segment: Option<u32>,
) -> Result<(Connection, TcpStream), TcpFault> {
    let family = Family::of(to.ip());
    let at_start = |error: io::Error| from_io(&error, to.ip(), None);
    let _place = own::place().await;
    let socket = own::tcp_socket(to.ip()).map_err(at_start)?;
    // Without this, errno still reports a refusal, but with less detail.
    if let Err(error) = kernel::keep_icmp_errors(&socket, family) {
        tracing::debug!(%error, %to, "the kernel does not keep ICMP errors");
    }
    socket.set_nodelay(true).map_err(at_start)?;
    if let Some(size) = max_segment {
        setsockopt(&socket, TcpMaxSeg, &size).map_err(|errno| at_start(errno.into()))?;
    }
    // A second descriptor of the same socket: `connect` closes the first one if it fails.
    let queue: Option<OwnedFd> = socket.as_fd().try_clone_to_owned().ok();
    let icmp = || queue.as_ref().and_then(kernel::icmp_error);

    match own::within(limit, socket.connect(to)).await {
        Ok(Ok(stream)) => {
            let local = stream.local_addr().map_err(at_start)?;
            let info = kernel::tcp_info(&stream).ok();
            let connection = Connection {
                local,
                rtt: info.and_then(|i| i.rtt),
                send_mss: info.and_then(|i| i.send_mss),
                syn_retransmits: info.and_then(|i| i.retransmits),
            };
            Ok((connection, stream))
        }
        Ok(Err(error)) => {
            let icmp = icmp();
            Err(match (own::errno(&error), icmp) {
                // This machine's netfilter rejects outgoing packets, with the machine's own address as source.
                (Some(errno), Some(icmp)) if is_own_reject(&icmp, to.ip()) => {
                    TcpFault::LocalPolicy { errno }
                }
                _ => from_io(&error, to.ip(), icmp),
            })
        }
        Err(elapsed) => Err(elapsed.or(TcpFault::Timeout)),
    }
}

/// The dial that a Go client would have used, and how long it would have waited before starting it; `None` if all
/// failed.
///
/// This is `net.Dialer.dialParallel`: the family of the first address is tried first, its addresses one after the
/// other; the other family starts 300 ms later, or as soon as the first family has failed; the first connection wins.
fn go_choice(dials: &[Dial]) -> Option<(usize, Option<Duration>)> {
    let first = Family::of(dials.first()?.to.ip());
    let (primaries, fallbacks): (Vec<usize>, Vec<usize>) =
        (0..dials.len()).partition(|i| Family::of(dials[*i].to.ip()) == first);
    let primary = go_serial(dials, &primaries, Duration::ZERO);
    let fallback_start = match primary {
        Serial::Connected { .. } => GO_FALLBACK_DELAY,
        Serial::Failed { at } => at.min(GO_FALLBACK_DELAY),
    };
    let fallback = go_serial(dials, &fallbacks, fallback_start);
    let best = match (primary, fallback) {
        (a @ Serial::Connected { at: one, .. }, b @ Serial::Connected { at: other, .. }) => {
            if one <= other { a } else { b }
        }
        (a @ Serial::Connected { .. }, Serial::Failed { .. }) => a,
        (Serial::Failed { .. }, b) => b,
    };
    match best {
        Serial::Connected { index, began, .. } => {
            Some((index, (index != primaries[0]).then_some(began)))
        }
        Serial::Failed { .. } => None,
    }
}

/// The result of one family; times count from the start of the whole dial.
#[derive(Clone, Copy)]
enum Serial {
    Connected {
        index: usize,
        began: Duration,
        at: Duration,
    },
    Failed {
        at: Duration,
    },
}

/// Go's `dialSerial`: one address after the other, each with its share of the time left.
fn go_serial(dials: &[Dial], order: &[usize], start: Duration) -> Serial {
    let mut now = start;
    for (tried, index) in order.iter().enumerate() {
        let left = GO_DIAL_TIMEOUT.saturating_sub(now);
        if left.is_zero() {
            break;
        }
        let addresses_left = u32::try_from(order.len() - tried).unwrap_or(u32::MAX);
        let share = (left / addresses_left).max(GO_SHORTEST_SHARE.min(left));
        let took = match &dials[*index].outcome {
            Step::Done { took, .. } if *took <= share => {
                return Serial::Connected {
                    index: *index,
                    began: now,
                    at: now + *took,
                };
            }
            // This dial stopped at its own limit; Go would have waited for its whole share.
            Step::Done { .. }
            | Step::Failed {
                fault: TcpFault::Timeout,
                ..
            } => share,
            Step::Failed { took, .. } => (*took).min(share),
            Step::Skipped { .. } => Duration::ZERO,
        };
        now += took;
    }
    Serial::Failed { at: now }
}

/// The fault for an error of connect(2), and for the ICMP error that caused it if one was queued.
///
/// Linux converts ICMP into errno (`icmp_err_convert`, `icmpv6_err_convert`): an administratively prohibited host looks
/// like an unreachable one, or over IPv6 like a local denial, unless the ICMP code is read.
pub fn from_io(error: &io::Error, to: IpAddr, icmp: Option<IcmpError>) -> TcpFault {
    if let Some(icmp) = icmp.filter(IcmpError::is_prohibited) {
        return TcpFault::Prohibited { icmp };
    }
    if let Some(limit) = own::limit_of(error) {
        return limit.into();
    }
    let errno = own::errno(error);
    match (errno, error.kind()) {
        (Some(libc::ECONNREFUSED), _) => TcpFault::Refused { icmp },
        (Some(libc::ETIMEDOUT), _) | (None, io::ErrorKind::TimedOut) => TcpFault::Timeout,
        (Some(libc::EHOSTUNREACH), _) => TcpFault::HostUnreachable { icmp },
        (Some(libc::ENETUNREACH), _) => TcpFault::NetUnreachable { icmp },
        (Some(errno @ (libc::EPERM | libc::EACCES)), _) => TcpFault::LocalPolicy { errno },
        // connect(2) over a route of type blackhole (fib_props in net/ipv4/fib_semantics.c; ip6_route_info_create). A
        // link-local address without its scope gives EINVAL as well.
        (Some(errno @ libc::EINVAL), _) if !(to.is_ipv6() && special::is_link_local(to)) => {
            TcpFault::LocalPolicy { errno }
        }
        // There is a source address, so it is the port that is missing.
        (Some(libc::EADDRNOTAVAIL), _) if order::source_for(to).is_some() => TcpFault::NoLocalPort,
        (Some(errno @ (libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)), _) => {
            TcpFault::NoLocalAddress { errno }
        }
        (Some(libc::ECONNRESET), _) => TcpFault::Reset,
        _ => TcpFault::Other {
            errno,
            error: error.to_string(),
        },
    }
}

/// Whether this machine's netfilter rejected an outgoing packet, with the machine's own address as source: as
/// prohibited, or as a closed port. (A neighbor that does not answer is also reported as "host unreachable" from an own
/// address.)
fn is_own_reject(icmp: &IcmpError, to: IpAddr) -> bool {
    let is_port = matches!((icmp.version, icmp.kind, icmp.code), (4, 3, 3) | (6, 1, 4));
    (is_port || icmp.is_prohibited()) && icmp.from.is_some_and(|from| from != to && is_own(from))
}

/// Whether the address is one of this machine. Only for such an address, the kernel chooses that address itself as the
/// source (connect(2) on a UDP socket; no packet is sent). Whether it can be bound shows nothing: with
/// `ip_nonlocal_bind`, every address can. If a limit of this process keeps that from being observed, it counts as one.
pub fn is_own(address: IpAddr) -> bool {
    let source = || {
        let socket = own::blocking_udp_socket((order::unspecified(address), 0).into())?;
        socket.connect((address, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    match source() {
        Ok(source) => source == address,
        Err(error) => own::limit_of(&error).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;
    use tokio::time::timeout;

    use super::*;
    use crate::model::own_limit::OwnLimit;

    fn ok(to: &str, ms: u64) -> Dial {
        Dial {
            to: SocketAddr::new(to.parse().unwrap(), 443),
            outcome: Step::Done {
                value: Connection {
                    local: "127.0.0.1:1".parse().unwrap(),
                    rtt: None,
                    send_mss: None,
                    syn_retransmits: None,
                },
                took: Duration::from_millis(ms),
            },
        }
    }

    fn bad(to: &str, fault: TcpFault, ms: u64) -> Dial {
        Dial {
            to: SocketAddr::new(to.parse().unwrap(), 443),
            outcome: Step::Failed {
                fault,
                took: Duration::from_millis(ms),
            },
        }
    }

    fn refused(to: &str, ms: u64) -> Dial {
        bad(to, TcpFault::Refused { icmp: None }, ms)
    }

    fn silent(to: &str) -> Dial {
        bad(to, TcpFault::Timeout, 5000)
    }

    #[test]
    fn the_connection_kept_is_the_one_a_go_client_would_have_used() {
        let ms = Duration::from_millis;
        for (name, dials, expected) in [
            ("nothing to dial", vec![], None),
            ("one address", vec![ok("10.0.0.1", 20)], Some((0, None))),
            (
                "order counts, not speed, within a family",
                vec![ok("10.0.0.1", 200), ok("10.0.0.2", 1)],
                Some((0, None)),
            ),
            (
                "a refusal costs its own time",
                vec![refused("10.0.0.1", 12), ok("10.0.0.2", 5)],
                Some((1, Some(ms(12)))),
            ),
            (
                "a silent address costs its share of 30 s",
                vec![silent("10.0.0.1"), ok("10.0.0.2", 5)],
                Some((1, Some(ms(15_000)))),
            ),
            (
                "silent ones share what is left",
                vec![silent("10.0.0.1"), silent("10.0.0.2"), ok("10.0.0.3", 5)],
                Some((2, Some(ms(20_000)))),
            ),
            (
                "a dead v6 costs 300 ms",
                vec![silent("fd00::1"), ok("10.0.0.1", 5)],
                Some((1, Some(ms(300)))),
            ),
            (
                "a dead v4 before v6 too",
                vec![silent("10.0.0.1"), ok("fd00::1", 5)],
                Some((1, Some(ms(300)))),
            ),
            (
                "a v6 without route costs nothing much",
                vec![
                    bad("fd00::1", TcpFault::NetUnreachable { icmp: None }, 0),
                    ok("10.0.0.1", 5),
                ],
                Some((1, Some(ms(0)))),
            ),
            (
                "a refused first family hands over at once",
                vec![
                    refused("fd00::1", 10),
                    ok("10.0.0.1", 5),
                    refused("fd00::2", 15),
                ],
                Some((1, Some(ms(25)))),
            ),
            (
                "the second of the first family beats the fallback",
                vec![refused("fd00::1", 10), ok("10.0.0.1", 5), ok("fd00::2", 15)],
                Some((2, Some(ms(10)))),
            ),
            (
                "slow but within the delay: no race",
                vec![ok("fd00::1", 290), ok("10.0.0.1", 1)],
                Some((0, None)),
            ),
            (
                "slower than delay and fallback together",
                vec![ok("fd00::1", 900), ok("10.0.0.1", 20)],
                Some((1, Some(ms(300)))),
            ),
            (
                "slower than the delay, yet first",
                vec![ok("fd00::1", 310), ok("10.0.0.1", 20)],
                Some((0, None)),
            ),
            (
                "the fallback family is serial too",
                vec![silent("fd00::1"), refused("10.0.0.1", 7), ok("10.0.0.2", 5)],
                Some((2, Some(ms(307)))),
            ),
            (
                "all dead",
                vec![silent("fd00::1"), refused("10.0.0.1", 7)],
                None,
            ),
        ] {
            assert_eq!(go_choice(&dials), expected, "{name}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn each_errno_of_connect_has_its_fault() {
        let icmp = |version, kind, code| {
            Some(IcmpError {
                from: Some("10.9.9.9".parse().unwrap()),
                version,
                kind,
                code,
            })
        };
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        let v6: IpAddr = "fd00::1".parse().unwrap();
        let scoped: IpAddr = "fe80::1".parse().unwrap();
        let prohibited = |version, kind, code| TcpFault::Prohibited {
            icmp: icmp(version, kind, code).unwrap(),
        };
        for (errno, to, icmp, fault) in [
            (
                libc::ECONNREFUSED,
                v4,
                None,
                TcpFault::Refused { icmp: None },
            ),
            (
                libc::ECONNREFUSED,
                v4,
                icmp(4, 3, 3),
                TcpFault::Refused {
                    icmp: icmp(4, 3, 3),
                },
            ),
            (libc::ETIMEDOUT, v4, None, TcpFault::Timeout),
            (
                libc::EHOSTUNREACH,
                v4,
                None,
                TcpFault::HostUnreachable { icmp: None },
            ),
            (
                libc::EHOSTUNREACH,
                v4,
                icmp(4, 3, 1),
                TcpFault::HostUnreachable {
                    icmp: icmp(4, 3, 1),
                },
            ),
            (libc::EHOSTUNREACH, v4, icmp(4, 3, 10), prohibited(4, 3, 10)),
            (libc::EHOSTUNREACH, v4, icmp(4, 3, 13), prohibited(4, 3, 13)),
            (libc::ENETUNREACH, v4, icmp(4, 3, 9), prohibited(4, 3, 9)),
            (
                libc::ENETUNREACH,
                v6,
                None,
                TcpFault::NetUnreachable { icmp: None },
            ),
            (
                libc::ENETUNREACH,
                v6,
                icmp(6, 1, 0),
                TcpFault::NetUnreachable {
                    icmp: icmp(6, 1, 0),
                },
            ),
            (libc::EACCES, v6, icmp(6, 1, 1), prohibited(6, 1, 1)),
            (libc::EACCES, v6, icmp(6, 1, 5), prohibited(6, 1, 5)),
            (libc::EACCES, v6, icmp(6, 1, 6), prohibited(6, 1, 6)),
            (
                libc::EACCES,
                v6,
                None,
                TcpFault::LocalPolicy {
                    errno: libc::EACCES,
                },
            ),
            (
                libc::EPERM,
                v4,
                None,
                TcpFault::LocalPolicy { errno: libc::EPERM },
            ),
            (
                libc::EINVAL,
                v4,
                None,
                TcpFault::LocalPolicy {
                    errno: libc::EINVAL,
                },
            ),
            // There is a source address for this one.
            (
                libc::EADDRNOTAVAIL,
                IpAddr::from([127, 0, 0, 1]),
                None,
                TcpFault::NoLocalPort,
            ),
            (
                libc::EMFILE,
                v4,
                None,
                TcpFault::OwnLimit {
                    limit: OwnLimit::OpenFiles,
                },
            ),
            (
                libc::EAFNOSUPPORT,
                v6,
                None,
                TcpFault::NoLocalAddress {
                    errno: libc::EAFNOSUPPORT,
                },
            ),
            (libc::ECONNRESET, v4, None, TcpFault::Reset),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(from_io(&error, to, icmp), fault, "{error} {icmp:?}");
        }
        for (errno, to) in [(libc::EINVAL, scoped), (libc::EIO, v4)] {
            let fault = from_io(&io::Error::from_raw_os_error(errno), to, None);
            assert!(
                matches!(fault, TcpFault::Other { errno: Some(e), .. } if e == errno),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn each_family_is_bounded_for_itself_and_the_rest_counted() {
        let addresses: Vec<IpAddr> = (1..=6)
            .map(|i| format!("10.0.0.{i}").parse().unwrap())
            .chain(["fd00::1".parse().unwrap()])
            .collect();
        let (tried, not_tried) = bounded(&addresses);
        assert_eq!(tried.len(), 5);
        assert_eq!(tried[4], addresses[6]);
        assert_eq!(not_tried, 2);
    }

    #[tokio::test]
    async fn a_listening_port_connects_and_tells_rtt_and_mss() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let dialed = connect(&[at.ip()], at.port(), Duration::from_secs(5)).await;
        let stream = dialed.stream.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), at);
        assert!(stream.nodelay().unwrap());
        let connected = dialed.connect.outcome.done().unwrap();
        assert_eq!((connected.to, connected.fallback), (at, None));
        let connection = dialed.connect.attempts[0].outcome.done().unwrap();
        assert!(connection.rtt.is_some() && connection.send_mss.is_some());
        assert_eq!(connection.local, stream.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_and_the_next_address_is_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let closed: IpAddr = "127.0.0.3".parse().unwrap();
        let limit = Duration::from_secs(5);
        let refused = TcpFault::Refused { icmp: None };

        let alone = connect(&[closed], at.port(), limit).await;
        assert!(alone.stream.is_none());
        assert_eq!(alone.connect.outcome.fault(), Some(&refused));

        let both = connect(&[closed, at.ip()], at.port(), limit).await;
        let dials = &both.connect.attempts;
        assert_eq!(dials[0].outcome.fault(), Some(&refused));
        let connected = both.connect.outcome.done().unwrap();
        assert_eq!(connected.to, at);
        assert_eq!(connected.fallback, dials[0].outcome.took());
        assert!(both.stream.is_some());
    }

    /// A port whose queue of connections is full: further SYNs are dropped.
    async fn silent_port(at: SocketAddr) -> (tokio::net::TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(at).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..16 {
            match timeout(Duration::from_millis(100), TcpStream::connect(at)).await {
                Ok(stream) => waiting.push(stream.unwrap()),
                Err(_) => return (listener, waiting),
            }
        }
        panic!("the queue of {at} does not fill");
    }

    #[tokio::test]
    async fn a_silent_address_is_a_timeout_and_does_not_make_the_other_stale() {
        let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let silent = SocketAddr::new("127.0.0.3".parse().unwrap(), at.port());
        let _full = silent_port(silent).await;

        let limit = STALE + Duration::from_millis(200);
        let dialed = connect(&[at.ip(), silent.ip()], at.port(), limit).await;
        let dials = &dialed.connect.attempts;
        assert_eq!(dials[1].outcome.fault(), Some(&TcpFault::Timeout));
        assert!(dials[1].outcome.took().unwrap() >= limit);
        let connected = dialed.connect.outcome.done().unwrap();
        assert_eq!((connected.to, connected.fallback), (at, None));
        assert_eq!(dialed.connect.outcome.took(), dials[0].outcome.took());
        let first = dials[0].outcome.done().unwrap().local;
        let stream = dialed.stream.unwrap();
        assert_ne!(stream.local_addr().unwrap(), first, "opened again");
    }

    #[tokio::test]
    async fn no_address_at_all_is_a_fault_and_no_panic() {
        let dialed = connect(&[], 443, Duration::from_secs(1)).await;
        assert!(dialed.connect.outcome.fault().is_some());
        assert_eq!(go_choice(&dialed.connect.attempts), None);
    }
}
