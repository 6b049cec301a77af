//! A traceroute by TCP SYN that needs no privilege: each socket keeps the ICMP errors that answer it
//! (ip(7), IP_RECVERR), and tells who used up its TTL.
//!
//! The last hop is the server, where a real connection opens and is closed at once: at most one for
//! each probe of a wave.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::kernel;
use crate::model::evidence::Family;
use crate::model::fault::IcmpError;
use crate::model::hops::{Hop, Trace, TraceEnd};

/// How far, and how patiently.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub max_hops: u8,
    /// For each answer. The kernel sends a SYN again after a second.
    pub wait: Duration,
    /// Hops in a row without an answer, after which the rest is not asked for.
    pub silent: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_hops: 16,
            wait: Duration::from_millis(900),
            silent: 4,
        }
    }
}

/// Probes that are on their way at the same time.
const WAVE: u8 = 4;

/// Asks for the hops to an address.
pub async fn trace(to: SocketAddr, bounds: &Bounds) -> Trace {
    let start = Instant::now();
    let mut hops = Vec::new();
    let mut end = None;
    let mut first = 1;
    while end.is_none() && first <= bounds.max_hops {
        let last = first.saturating_add(WAVE - 1).min(bounds.max_hops);
        let mut wave = JoinSet::new();
        for ttl in first..=last {
            let wait = bounds.wait;
            wave.spawn(async move { (ttl, probe(to, ttl, wait).await) });
        }
        let mut answers = Vec::new();
        while let Some(joined) = wave.join_next().await {
            answers.extend(joined);
        }
        answers.sort_by_key(|(ttl, _)| *ttl);
        end = take(&mut hops, answers, bounds);
        first = last.saturating_add(1);
    }
    // Silence at the end of the list is no hop.
    while hops.last().is_some_and(|hop: &Hop| hop.from.is_none()) {
        hops.pop();
    }
    Trace {
        to,
        hops,
        end: end.unwrap_or(TraceEnd::MaxHops),
        took: start.elapsed(),
    }
}

/// What became of one SYN.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Hop { icmp: IcmpError, rtt: Duration },
    Arrived,
    Refused { icmp: IcmpError },
    Silent,
    NotSent,
}

/// Adds the answers of a wave; why to stop, if so.
fn take(hops: &mut Vec<Hop>, answers: Vec<(u8, Fate)>, bounds: &Bounds) -> Option<TraceEnd> {
    for (ttl, fate) in answers {
        let (from, rtt) = match fate {
            Fate::Arrived => return Some(TraceEnd::Reached { ttl }),
            Fate::Refused { icmp } => return Some(TraceEnd::Unreachable { icmp }),
            Fate::NotSent => return Some(TraceEnd::NotSent),
            Fate::Hop { icmp, rtt } => (icmp.from, Some(rtt)),
            Fate::Silent => (None, None),
        };
        hops.push(Hop { ttl, from, rtt });
        let silent = hops.iter().rev().take_while(|hop| hop.from.is_none());
        if silent.count() >= bounds.silent {
            return Some(TraceEnd::Silent);
        }
    }
    None
}

async fn probe(to: SocketAddr, ttl: u8, wait: Duration) -> Fate {
    let Ok((socket, queue)) = open(to, ttl) else {
        return Fate::NotSent;
    };
    let start = Instant::now();
    let connected = timeout(wait, socket.connect(to)).await;
    let rtt = start.elapsed();
    let icmp = kernel::icmp_error(&queue);
    match (connected, icmp) {
        (Ok(Ok(_stream)), _) => Fate::Arrived,
        (_, Some(icmp)) if is_exceeded(&icmp) => Fate::Hop { icmp, rtt },
        // The server's own word that nothing listens.
        (_, Some(icmp)) if icmp.from == Some(to.ip()) => Fate::Arrived,
        (_, Some(icmp)) => Fate::Refused { icmp },
        (Ok(Err(error)), None) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET) => Fate::Arrived,
            Some(libc::ETIMEDOUT) => Fate::Silent,
            _ => Fate::NotSent,
        },
        (Err(_), None) => Fate::Silent,
    }
}

/// A socket with the TTL, and a second descriptor of it, since `connect` closes the first.
fn open(to: SocketAddr, ttl: u8) -> io::Result<(TcpSocket, OwnedFd)> {
    let family = Family::of(to.ip());
    let socket = match family {
        Family::V4 => TcpSocket::new_v4(),
        Family::V6 => TcpSocket::new_v6(),
    }?;
    kernel::keep_icmp_errors(&socket, family)?;
    match family {
        Family::V4 => setsockopt(&socket, sockopt::Ipv4Ttl, &ttl.into())?,
        Family::V6 => setsockopt(&socket, sockopt::Ipv6Ttl, &ttl.into())?,
    }
    let queue = socket.as_fd().try_clone_to_owned()?;
    Ok((socket, queue))
}

/// Time exceeded in transit: RFC 792; RFC 4443, 3.3.
fn is_exceeded(icmp: &IcmpError) -> bool {
    matches!((icmp.version, icmp.kind, icmp.code), (4, 11, 0) | (6, 3, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> Fate {
        Fate::Hop {
            icmp: IcmpError {
                from: Some([10, 0, 0, last].into()),
                version: 4,
                kind: 11,
                code: 0,
            },
            rtt: Duration::from_millis(1),
        }
    }

    fn taken(fates: &[Fate]) -> (usize, Option<TraceEnd>) {
        let mut hops = Vec::new();
        let answers = (1..).zip(fates.iter().copied()).collect();
        let end = take(&mut hops, answers, &Bounds::default());
        (hops.len(), end)
    }

    #[test]
    fn it_ends_where_the_destination_answers_or_somebody_says_no() {
        let icmp = IcmpError {
            from: None,
            version: 4,
            kind: 3,
            code: 13,
        };
        assert_eq!(
            taken(&[from(1), Fate::Arrived, Fate::Arrived]),
            (1, Some(TraceEnd::Reached { ttl: 2 }))
        );
        assert_eq!(
            taken(&[from(1), Fate::Refused { icmp }]),
            (1, Some(TraceEnd::Unreachable { icmp }))
        );
        assert_eq!(taken(&[Fate::NotSent]), (0, Some(TraceEnd::NotSent)));
        assert_eq!(taken(&[from(1), from(2), from(3), from(4)]), (4, None));
    }

    #[test]
    fn hops_that_hide_are_passed_over_and_silence_ends_it() {
        assert_eq!(
            taken(&[Fate::Silent, from(2), Fate::Silent, Fate::Arrived]),
            (3, Some(TraceEnd::Reached { ttl: 4 }))
        );
        let (seen, end) = taken(&[
            from(1),
            Fate::Silent,
            Fate::Silent,
            Fate::Silent,
            Fate::Silent,
        ]);
        assert_eq!((seen, end), (5, Some(TraceEnd::Silent)));
    }

    #[tokio::test]
    async fn this_machine_is_one_hop_away_whether_it_listens_or_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let reached = TraceEnd::Reached { ttl: 1 };
        let found = trace(to, &Bounds::default()).await;
        assert_eq!((found.end, found.hops.len()), (reached, 0));
        drop(listener);
        assert_eq!(trace(to, &Bounds::default()).await.end, reached);
    }
}
