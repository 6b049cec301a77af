//! Traces the hops on the path to a server: SYNs with a small TTL (IPv6: hop limit), and the ICMP errors that answer
//! them.
//!
//! No privilege is needed: `IP_RECVERR` and `IPV6_RECVERR` keep the errors for the socket that sent the packet (ip(7),
//! ipv6(7)), while other tools read them from a raw socket. SYNs to the port in question take the pull's path, and pass
//! filters that drop UDP and ping.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::kernel;
use super::tcp::from_io;
use crate::model::fault::IcmpError;
use crate::model::hops::{Hop, Trace, TraceEnd};
use crate::model::resolve::Family;
use crate::own;

/// The bounds of a trace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// The largest TTL that is sent.
    pub max_hops: u8,
    /// How long to wait for the answer to one SYN. The kernel repeats a SYN after 1 s; with waits up to that, each hop
    /// gets one packet.
    pub wait: Duration,
    /// SYNs that may be unanswered at the same time.
    pub side_by_side: usize,
    /// Stop after this many unanswered SYNs in a row beyond the last hop that answered.
    pub give_up_after_silent: u8,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_hops: 16,
            wait: Duration::from_secs(1),
            side_by_side: 4,
            give_up_after_silent: 4,
        }
    }
}

/// Traces the path to a server. It takes at most `max_hops / side_by_side + 1` waits, and less than two with the
/// default bounds if nothing answers.
///
/// The next TTL is sent as soon as the one before it is answered; if that one stays silent, a `side_by_side`th part of
/// `wait` later. So one connection opens at a server that answers sooner than that (250 ms with the default bounds),
/// and is closed at once, without sending a byte. At a slower server, one more opens for each such part of its time,
/// but never more than the smaller one of `side_by_side` and `give_up_after_silent`. Once a TTL has reached the server,
/// no larger one is sent.
pub async fn trace(to: SocketAddr, bounds: &Bounds) -> Trace {
    let wait = bounds.wait.min(LONGEST_WAIT);
    follow(to, bounds, |ttl| probe(to, ttl, wait)).await
}

/// The same with any probe of one TTL.
async fn follow<F>(to: SocketAddr, bounds: &Bounds, probe: impl Fn(u8) -> F) -> Trace
where
    F: Future<Output = Answer> + Send + 'static,
{
    let started = Instant::now();
    let side_by_side = bounds.side_by_side.max(1);
    let pace = bounds.wait.min(LONGEST_WAIT) / u32::try_from(side_by_side).unwrap_or(u32::MAX);
    let mut run = TraceRun::new(to, bounds);
    let mut probes: JoinSet<(u8, Answer)> = JoinSet::new();
    let mut handles: Vec<(u8, AbortHandle)> = Vec::new();
    let (mut due, mut is_due) = (started, true);
    loop {
        let next = run.next().filter(|_| probes.len() < side_by_side);
        if let Some(ttl) = next
            && (is_due || run.is_last_answered())
        {
            run.sent(ttl);
            let probe = probe(ttl);
            let probe = own::of_this_check(async move { (ttl, probe.await) });
            let handle = probes.spawn(probe);
            handles.push((ttl, handle));
            (due, is_due) = (Instant::now() + pace, false);
            continue;
        }
        if probes.is_empty() {
            break;
        }
        let joined = tokio::select! {
            biased;
            joined = probes.join_next() => joined,
            () = sleep_until(due), if next.is_some() => {
                // If this process was delayed, an answer may be waiting.
                let late = own::within(LAST_CALL, probes.join_next()).await;
                let late = late.ok().flatten();
                is_due = late.is_none();
                late
            }
        };
        match joined {
            Some(Ok((ttl, answer))) => {
                run.answered(ttl, answer);
                // Hops beyond the end are irrelevant, and would only open connections.
                if let Some(end) = run.end() {
                    let beyond = handles.iter().filter(|(ttl, _)| *ttl > end);
                    beyond.for_each(|(_, handle)| handle.abort());
                }
            }
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) | None => {}
        }
    }
    run.finish(started.elapsed())
}

// ---- the run of a trace: which TTL is next, and the result -------------------------------------

/// The result of one SYN; silence by default.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Answer {
    from: Option<IpAddr>,
    rtt: Option<Duration>,
    icmp: Option<IcmpError>,
    /// A larger TTL would give no more information.
    end: Option<TraceEnd>,
}

#[derive(Debug)]
struct TraceRun {
    to: SocketAddr,
    bounds: Bounds,
    /// The results of TTL 1, 2, 3, …; `None` while there is no answer yet.
    answers: Vec<Option<Answer>>,
}

impl TraceRun {
    fn new(to: SocketAddr, bounds: &Bounds) -> Self {
        Self {
            to,
            bounds: bounds.clone(),
            answers: Vec::new(),
        }
    }

    /// The TTL to send next, if there is one.
    fn next(&self) -> Option<u8> {
        let next = u8::try_from(self.answers.len() + 1).ok()?;
        (next <= self.bounds.max_hops && self.end().is_none() && !self.is_out_of_sight())
            .then_some(next)
    }

    fn sent(&mut self, ttl: u8) {
        debug_assert_eq!(Some(ttl), self.next());
        self.answers.push(None);
    }

    fn answered(&mut self, ttl: u8, answer: Answer) {
        self.answers[usize::from(ttl) - 1] = Some(answer);
    }

    /// Whether the largest TTL sent was answered, so that the next can be sent at once.
    fn is_last_answered(&self) -> bool {
        self.answers.last().is_none_or(Option::is_some)
    }

    /// The smallest TTL that reached an end.
    fn end(&self) -> Option<u8> {
        let is_end = |answer: &Option<Answer>| answer.as_ref().is_some_and(|a| a.end.is_some());
        let index = self.answers.iter().position(is_end)?;
        u8::try_from(index + 1).ok()
    }

    /// Whether the allowed number of silent TTLs in a row has been reached, beyond all that answered.
    fn is_out_of_sight(&self) -> bool {
        let silence = Answer::default();
        let open = |answer: &&Option<Answer>| answer.as_ref().is_none_or(|a| *a == silence);
        self.answers.iter().rev().take_while(open).count()
            >= self.bounds.give_up_after_silent.max(1).into()
    }

    fn finish(mut self, took: Duration) -> Trace {
        let last = self.end();
        if let Some(last) = last {
            self.answers.truncate(last.into());
        }
        let silent = self.is_out_of_sight();
        let (mut hops, mut reached) = (Vec::new(), None);
        let mut ended = if silent {
            TraceEnd::Silent
        } else {
            TraceEnd::MaxHops
        };
        for (ttl, answer) in (1..=u8::MAX).zip(self.answers) {
            let answer = answer.unwrap_or_default();
            if let Some(end) = answer.end {
                ended = end;
                if matches!(ended, TraceEnd::Local { .. }) {
                    break;
                }
                reached = (answer.from == Some(self.to.ip())).then_some(ttl);
            }
            hops.push(Hop {
                ttl,
                from: answer.from,
                rtt: answer.rtt,
                icmp: answer.icmp,
            });
        }
        Trace {
            to: self.to,
            hops,
            reached,
            ended,
            took,
        }
    }
}

// ---- one SYN ------------------------------------------------------------------------------------

async fn probe(to: SocketAddr, ttl: u8, wait: Duration) -> Answer {
    let started = Instant::now();
    let socket = match own::socket(|| begin(to, ttl)) {
        Ok(socket) => socket,
        Err(error) => return answer_of(Some(SynOutcome::of(&error)), to.ip(), started.elapsed()),
    };
    let met = own::within(wait, meet(&socket)).await;
    let took = started.elapsed();
    let met = met.unwrap_or_else(|_| kernel::icmp_error(&socket).map(SynOutcome::Icmp));
    answer_of(met, to.ip(), took)
    // The socket is closed here: with FIN if a connection opened, otherwise without a packet.
}

/// Sends a SYN. Afterwards the socket is connecting, or has failed to.
fn begin(to: SocketAddr, ttl: u8) -> io::Result<TcpStream> {
    let family = Family::of(to.ip());
    let domain = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(domain, SockType::Stream, flags, None)?;
    kernel::keep_icmp_errors(&socket, family)?;
    match family {
        Family::V4 => setsockopt(&socket, sockopt::Ipv4Ttl, &ttl.into())?,
        Family::V6 => setsockopt(&socket, sockopt::Ipv6Ttl, &ttl.into())?,
    }
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    // Only now: epoll(7) reports a socket that is not connecting yet as hung up.
    TcpStream::from_std(socket.into())
}

/// The result of a SYN at the socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SynOutcome {
    Icmp(IcmpError),
    /// As of connect(2); 0 if the error has none.
    Errno(i32),
    Connection,
}

impl SynOutcome {
    fn of(error: &io::Error) -> Self {
        Self::Errno(own::errno(error).unwrap_or_default())
    }
}

/// Waits for the result of the SYN. `None`: the runtime is shutting down.
async fn meet(socket: &TcpStream) -> Option<SynOutcome> {
    loop {
        let wanted = Interest::WRITABLE | Interest::ERROR;
        socket.ready(wanted).await.ok()?;
        // The queue first: SO_ERROR reports every ICMP error on the path as "no route to host".
        if let Some(icmp) = kernel::icmp_error(socket) {
            return Some(SynOutcome::Icmp(icmp));
        }
        match socket.take_error() {
            Ok(None) if socket.peer_addr().is_ok() => return Some(SynOutcome::Connection),
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Some(SynOutcome::of(&error)),
        }
        // Woken by an error that is neither in the queue nor in the socket. No such case is known, but the socket would
        // stay ready.
        sleep(LOOK_AGAIN).await;
    }
}

fn answer_of(met: Option<SynOutcome>, to: IpAddr, took: Duration) -> Answer {
    let rtt = (took < SYN_AGAIN).then_some(took);
    let (from, icmp, end) = match met {
        None | Some(SynOutcome::Errno(libc::ETIMEDOUT)) => return Answer::default(),
        Some(SynOutcome::Icmp(icmp)) if is_exceeded(&icmp) => (icmp.from, Some(icmp), None),
        Some(SynOutcome::Icmp(icmp)) => {
            (icmp.from, Some(icmp), Some(TraceEnd::Unreachable { icmp }))
        }
        Some(SynOutcome::Connection | SynOutcome::Errno(libc::ECONNREFUSED | libc::ECONNRESET)) => {
            (Some(to), None, Some(TraceEnd::Reached))
        }
        Some(SynOutcome::Errno(errno)) => {
            let fault = from_io(&io::Error::from_raw_os_error(errno), to, None);
            (None, None, Some(TraceEnd::Local { fault }))
        }
    };
    Answer {
        from,
        rtt,
        icmp,
        end,
    }
}

/// RFC 792 type 11 and RFC 4443 type 3, code 0: the TTL expired in transit.
fn is_exceeded(icmp: &IcmpError) -> bool {
    matches!((icmp.version, icmp.kind, icmp.code), (4, 11, 0) | (6, 3, 0))
}

/// When the kernel repeats a SYN for the first time (RFC 6298, 2.1; `TCP_TIMEOUT_INIT`).
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// The kernel gives up after about two minutes (`net.ipv4.tcp_syn_retries`).
const LONGEST_WAIT: Duration = Duration::from_mins(2);

/// Wait for an answer that this process has received but not handled yet.
const LAST_CALL: Duration = Duration::from_millis(5);

/// Pause before a socket that was woken without a result is checked again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::model::fault::TcpFault;

    const TO: &str = "192.0.2.9:443";

    fn icmp(from: &str, kind: u8, code: u8) -> IcmpError {
        let from: IpAddr = from.parse().unwrap();
        IcmpError {
            from: Some(from),
            version: if from.is_ipv4() { 4 } else { 6 },
            kind,
            code,
        }
    }

    fn router(n: u8) -> Answer {
        let icmp = icmp(&format!("10.0.0.{n}"), 11, 0);
        Answer {
            from: icmp.from,
            rtt: Some(Duration::from_millis(n.into())),
            icmp: Some(icmp),
            end: None,
        }
    }

    fn unreachable(icmp: IcmpError) -> Answer {
        Answer {
            from: icmp.from,
            icmp: Some(icmp),
            end: Some(TraceEnd::Unreachable { icmp }),
            ..Answer::default()
        }
    }

    fn reached() -> Answer {
        answer_of(
            Some(SynOutcome::Connection),
            TO.parse::<SocketAddr>().unwrap().ip(),
            SYN_AGAIN,
        )
    }

    fn course(max_hops: u8, give_up_after_silent: u8) -> TraceRun {
        let bounds = Bounds {
            max_hops,
            give_up_after_silent,
            ..Bounds::default()
        };
        TraceRun::new(TO.parse().unwrap(), &bounds)
    }

    /// The trace of a path with these answers, one TTL after the other; beyond the end, all is silent.
    fn walk(mut course: TraceRun, way: &[Answer]) -> Trace {
        while let Some(ttl) = course.next() {
            course.sent(ttl);
            let answer = way.get(usize::from(ttl) - 1).cloned();
            course.answered(ttl, answer.unwrap_or_default());
        }
        course.finish(Duration::from_millis(5))
    }

    fn senders(trace: &Trace) -> Vec<String> {
        trace
            .hops
            .iter()
            .map(|hop| {
                hop.from
                    .map_or_else(|| "*".to_owned(), |from| from.to_string())
            })
            .collect()
    }

    #[test]
    fn a_way_is_the_routers_and_then_the_server() {
        let trace = walk(
            course(16, 4),
            &[router(1), Answer::default(), router(3), reached()],
        );
        assert_eq!(
            senders(&trace),
            ["10.0.0.1", "*", "10.0.0.3", TO.trim_end_matches(":443")]
        );
        assert_eq!(
            (trace.reached, trace.ended.clone()),
            (Some(4), TraceEnd::Reached)
        );
        assert_eq!(trace.hops[0].rtt, Some(Duration::from_millis(1)));
        assert!(trace.hops[1].is_silent());
        assert_eq!(trace.hops[2].icmp, Some(icmp("10.0.0.3", 11, 0)));
        assert_eq!(trace.hops[3].icmp, None);
        assert_eq!(trace.took, Duration::from_millis(5));
    }

    #[test]
    fn silence_in_a_row_ends_it_and_silence_here_and_there_does_not() {
        let s = Answer::default();
        let trace = walk(course(16, 3), &[router(1)]);
        assert_eq!(senders(&trace), ["10.0.0.1", "*", "*", "*"]);
        assert_eq!((trace.reached, trace.ended), (None, TraceEnd::Silent));

        let way = [s.clone(), s.clone(), router(3), s.clone(), s, reached()];
        assert_eq!(walk(course(16, 3), &way).reached, Some(6));
        assert_eq!(walk(course(16, 2), &way).ended, TraceEnd::Silent);
        // A bound of zero is treated as one.
        assert_eq!(walk(course(16, 0), &way).hops.len(), 1);
    }

    #[test]
    fn hops_are_bounded() {
        let trace = walk(course(2, 4), &[router(1), router(2), reached()]);
        assert_eq!(
            (trace.hops.len(), trace.reached, trace.ended),
            (2, None, TraceEnd::MaxHops)
        );
        assert_eq!(walk(course(2, 4), &[]).ended, TraceEnd::MaxHops);
        assert_eq!(walk(course(0, 4), &[reached()]).hops, []);
        let long = vec![router(1); 300];
        assert_eq!(walk(course(255, 4), &long).hops.len(), 255);
    }

    #[test]
    fn an_icmp_error_of_the_server_itself_reaches_it_and_one_of_a_router_does_not() {
        for (from, far) in [("192.0.2.9", Some(2)), ("10.0.0.1", None)] {
            let said = icmp(from, 3, 13);
            let end = unreachable(said);
            let trace = walk(course(16, 4), &[router(1), end, reached()]);
            assert_eq!(
                (trace.hops.len(), trace.reached, trace.ended),
                (2, far, TraceEnd::Unreachable { icmp: said })
            );
        }
    }

    #[test]
    fn what_never_left_is_no_hop() {
        let fault = TcpFault::LocalPolicy { errno: libc::EPERM };
        let local = Answer {
            end: Some(TraceEnd::Local {
                fault: fault.clone(),
            }),
            ..Answer::default()
        };
        let trace = walk(course(16, 4), &[local]);
        assert_eq!((trace.hops.len(), trace.reached), (0, None));
        assert_eq!(trace.ended, TraceEnd::Local { fault });
    }

    #[test]
    fn the_smallest_ttl_that_got_there_counts_whatever_order_answers_come_in() {
        let mut course = course(16, 4);
        for ttl in 1..=4 {
            course.sent(ttl);
        }
        assert_eq!(course.next(), None, "four are out, and none has answered");
        course.answered(4, reached());
        assert_eq!(course.end(), Some(4));
        course.answered(3, reached());
        course.answered(1, router(1));
        assert_eq!((course.end(), course.next()), (Some(3), None));
        course.answered(2, Answer::default());
        let trace = course.finish(Duration::ZERO);
        assert_eq!(senders(&trace), ["10.0.0.1", "*", "192.0.2.9"]);
        assert_eq!(trace.reached, Some(3));
    }

    #[test]
    fn an_answer_after_the_second_syn_has_no_round_trip() {
        let to: SocketAddr = TO.parse().unwrap();
        let of = |met, ms| answer_of(Some(met), to.ip(), Duration::from_millis(ms));
        let rtt = Some(Duration::from_millis(999));
        let reached = |rtt| Answer { rtt, ..reached() };
        assert_eq!(of(SynOutcome::Connection, 999), reached(rtt));
        assert_eq!(of(SynOutcome::Connection, 1001), reached(None));
        assert_eq!(of(SynOutcome::Errno(libc::ECONNREFUSED), 999), reached(rtt));
        assert_eq!(
            of(SynOutcome::Errno(libc::ETIMEDOUT), 999),
            Answer::default()
        );
        assert!(matches!(
            of(SynOutcome::Errno(libc::EMFILE), 1).end,
            Some(TraceEnd::Local { .. })
        ));
        // Code 1 means missing fragments (RFC 792, page 6).
        for (icmp, is_hop) in [
            (icmp("10.0.0.1", 11, 0), true),
            (icmp("10.0.0.1", 11, 1), false),
            (icmp("10.0.0.1", 3, 0), false),
            (icmp("2001:db8::1", 3, 0), true),
            (icmp("2001:db8::1", 1, 0), false),
            (icmp("2001:db8::1", 11, 0), false),
        ] {
            let answer = of(SynOutcome::Icmp(icmp), 1);
            assert_eq!(answer.end.is_none(), is_hop, "{icmp:?}");
        }
    }

    fn any_answer() -> impl Strategy<Value = Answer> {
        let unreachable = unreachable(icmp("10.0.0.9", 3, 1));
        prop_oneof![
            6 => Just(Answer::default()),
            6 => (1..9u8).prop_map(router),
            1 => Just(reached()),
            1 => Just(unreachable),
        ]
    }

    proptest! {
        /// Whatever answers, and in whatever order, the bounds hold, and the trace equals that of one TTL after the
        /// other, as far as it got.
        #[test]
        fn a_course_keeps_its_bounds(
            way in prop::collection::vec(any_answer(), 0..24),
            (max_hops, silent, side_by_side) in (0..20u8, 1..6u8, 1..6usize),
            order in prop::collection::vec(any::<prop::sample::Index>(), 64),
        ) {
            let mut course = course(max_hops, silent);
            let mut out: Vec<u8> = Vec::new();
            let mut order = order.into_iter();
            loop {
                // Any number of SYNs before the next answer.
                let eager = order.next().map_or(1, |i| i.index(side_by_side) + 1);
                while out.len() < eager && let Some(ttl) = course.next() {
                    course.sent(ttl);
                    out.push(ttl);
                }
                if out.is_empty() {
                    break;
                }
                let ttl = out.remove(order.next().map_or(0, |i| i.index(out.len())));
                let answer = way.get(usize::from(ttl) - 1).cloned();
                course.answered(ttl, answer.unwrap_or_default());
                if let Some(end) = course.end() {
                    out.retain(|ttl| *ttl < end);
                }
            }
            let trace = course.finish(Duration::ZERO);
            prop_assert!(trace.hops.len() <= max_hops.into());
            let quiet = trace.hops.iter().rev().take_while(|hop| hop.is_silent()).count();
            prop_assert!(quiet <= silent.into());
            prop_assert_eq!(quiet == usize::from(silent), trace.ended == TraceEnd::Silent);
            for (hop, ttl) in trace.hops.iter().zip(1..) {
                prop_assert_eq!(hop.ttl, ttl);
            }
            if let Some(ttl) = trace.reached {
                prop_assert_eq!(usize::from(ttl), trace.hops.len());
                prop_assert!(way[usize::from(ttl) - 1].end.is_some());
                prop_assert!(!way[..usize::from(ttl) - 1].iter().any(|a| a.end.is_some()));
            }
        }
    }

    /// How many SYNs reach a server `far` hops away that takes this long to answer, behind routers that answer at once
    /// or never.
    async fn arrivals(far: u8, ms: u64, routers_answer: bool, bounds: &Bounds) -> usize {
        let arrived = Arc::new(AtomicUsize::new(0));
        let trace = follow(TO.parse().unwrap(), bounds, |ttl| {
            let wait = bounds.wait;
            if ttl >= far {
                arrived.fetch_add(1, Ordering::Relaxed);
            }
            async move {
                if ttl >= far {
                    sleep(Duration::from_millis(ms)).await;
                    return reached();
                }
                if routers_answer {
                    return router(ttl);
                }
                sleep(wait).await;
                Answer::default()
            }
        })
        .await;
        assert_eq!(
            (trace.reached, &trace.ended),
            (Some(far), &TraceEnd::Reached)
        );
        arrived.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn few_connections_reach_a_server_and_only_one_that_answers_soon() {
        let bounds = Bounds {
            wait: Duration::from_secs(1),
            ..Bounds::default()
        };
        for routers_answer in [true, false] {
            assert_eq!(arrivals(3, 20, routers_answer, &bounds).await, 1);
            // At 0, 250 and 500 ms; silent routers still occupy one of the four slots.
            let slow = arrivals(3, 600, routers_answer, &bounds).await;
            assert!((2..=3).contains(&slow), "{slow}");
        }
        let eager = Bounds {
            wait: Duration::from_millis(100),
            ..bounds
        };
        assert_eq!(arrivals(1, 500, true, &eager).await, 4);
        let one = Bounds {
            side_by_side: 1,
            ..eager
        };
        assert_eq!(arrivals(3, 500, true, &one).await, 1);
    }

    #[tokio::test]
    async fn a_neighbour_is_reached_at_once_with_an_open_port_and_with_a_closed_one() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(local).unwrap();
            let to = listener.local_addr().unwrap();
            let open = trace(to, &Bounds::default()).await;
            assert_eq!((open.reached, &open.ended), (Some(1), &TraceEnd::Reached));
            assert_eq!(open.hops.len(), 1);
            assert_eq!(open.hops[0].from, Some(to.ip()));
            assert!(open.hops[0].rtt.is_some());

            // One connection, closed without sending a byte.
            listener.set_nonblocking(true).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(false).unwrap();
            assert_eq!(
                io::Read::read(&mut stream, &mut [0]).unwrap(),
                0,
                "FIN, no RST"
            );
            let more = listener.accept().unwrap_err();
            assert_eq!(more.kind(), io::ErrorKind::WouldBlock);

            drop((listener, stream));
            let closed = trace(to, &Bounds::default()).await;
            assert_eq!(
                (closed.reached, &closed.ended),
                (Some(1), &TraceEnd::Reached)
            );
        }
    }

    #[tokio::test]
    async fn bounds_beyond_reason_are_no_panic() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let huge = Bounds {
            max_hops: u8::MAX,
            wait: Duration::MAX,
            side_by_side: usize::MAX,
            give_up_after_silent: u8::MAX,
        };
        assert_eq!(trace(to, &huge).await.reached, Some(1));
        let none = Bounds {
            max_hops: 0,
            wait: Duration::ZERO,
            side_by_side: 0,
            give_up_after_silent: 0,
        };
        assert_eq!(trace(to, &none).await.ended, TraceEnd::MaxHops);
    }
}
