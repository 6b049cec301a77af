//! The bounds of the HTTP listeners, and who goes when one is reached. Pure; both roles share them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Time for the head of a request, from the first byte; and from the connection's start for its first request.
pub const HEAD: Duration = Duration::from_secs(10);

/// Time between two requests of a connection: longer than the usual interval of a scrape.
pub const IDLE: Duration = Duration::from_secs(75);

/// Time for the body of a request, after its head.
const BODY: Duration = Duration::from_secs(30);

/// Time to close a connection after its last answer.
pub const CLOSING: Duration = Duration::from_secs(5);

/// A client that reads an answer has this time in any case, and a second more for each [`BYTES_A_SECOND`].
const READING: Duration = Duration::from_secs(10);

/// The lowest rate at which a client may read an answer.
const BYTES_A_SECOND: u64 = 16 << 10;

/// The longest head of a request, in bytes; and a connection's buffer for its answer. The HTTP library allows 100
/// headers.
pub const HEAD_BYTES: usize = 16 << 10;

/// The kernel's buffers of a connection, in bytes; the kernel doubles both for its own overhead.
pub const SEND_BUFFER: usize = 32 << 10;
/// See [`SEND_BUFFER`].
pub const RECEIVE_BUFFER: usize = 16 << 10;

/// Connections that the kernel queues until they are accepted; at most `net.core.somaxconn`.
pub const QUEUE: i32 = 4096;

/// Connections that are accepted before those accepted earlier are read.
pub const BATCH: usize = 16;

/// Files that a listener keeps in reserve for the time when the process has no more.
pub const SPARE_FILES: usize = 4;

/// The limit of open files for which the bounds below are meant.
const USUAL_FILES: u64 = 1024;

/// What a connection does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// It waits for a request, or for the end of one's head.
    Waiting,
    /// It is answered.
    Answer,
    /// It is answered at `/healthz`, `/readyz` or `/metrics`, which have places of their own.
    Vital,
}

impl Kind {
    /// The kind of a request by its path.
    pub fn of(path: &str) -> Self {
        match path {
            "/healthz" | "/readyz" | "/metrics" => Self::Vital,
            _ => Self::Answer,
        }
    }
}

/// How many connections of one kind there may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Places {
    /// Of all peers together.
    pub all: usize,
    /// Of one peer.
    pub by_peer: usize,
}

/// How many connections a listener has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Those that wait for a request.
    pub waiting: Places,
    /// Those that are answered.
    pub answers: Places,
    /// Those that are answered at `/healthz`, `/readyz` or `/metrics`.
    pub vital: Places,
}

impl Limits {
    fn of(&self, kind: Kind) -> Places {
        match kind {
            Kind::Waiting => self.waiting,
            Kind::Answer => self.answers,
            Kind::Vital => self.vital,
        }
    }

    /// The most files that the listener has open: its connections, those that are being closed, and its reserve.
    fn files(&self) -> usize {
        1 + self.waiting.all + self.answers.all + self.vital.all + BATCH + SPARE_FILES
    }
}

/// The bounds of all listeners of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnectionLimits {
    /// `listen`.
    pub public: Limits,
    /// `admin_listen`.
    pub admin: Limits,
}

impl ConnectionLimits {
    /// The most files that the listeners have open, out of the process's limit.
    pub fn files(&self) -> usize {
        self.public.files() + self.admin.files()
    }
}

/// The listeners' share of a process that may open `files` files: a third of 1,024, in proportion below, and no
/// more above, because memory is a bound as well.
pub fn connection_limits(files: u64) -> ConnectionLimits {
    let scaled = |usual: usize| {
        let share = usual as u64 * files.min(USUAL_FILES) / USUAL_FILES;
        usize::try_from(share).unwrap_or(usual).max(2)
    };
    let places = |all, by_peer| Places {
        all: scaled(all),
        by_peer: scaled(by_peer),
    };
    ConnectionLimits {
        public: Limits {
            waiting: places(192, 160),
            answers: places(48, 24),
            vital: places(32, 28),
        },
        admin: Limits {
            waiting: places(16, 16),
            answers: places(8, 8),
            vital: places(4, 4),
        },
    }
}

/// Where a connection comes from: an IPv4 address, or the /64 of an IPv6 address, because a host usually has all of it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Peer(IpAddr);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// An open connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Where it comes from.
    pub peer: Peer,
    /// What it does.
    pub kind: Kind,
    /// Since when it does that.
    pub since: Instant,
    /// When it goes if it still waits, or its request has not arrived; `None` while it is answered.
    pub until: Option<Instant>,
    /// The first bytes of a head have arrived.
    pub has_begun: bool,
    /// The answer was made; it may not all be written.
    pub is_made: bool,
    /// When the first bytes of the answer were ready; `None` before.
    pub written_since: Option<Instant>,
    /// Bytes of the answer that the kernel has taken.
    pub written: u64,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(peer: Peer, now: Instant) -> Self {
        Self {
            peer,
            kind: Kind::Waiting,
            since: now,
            until: Some(now + HEAD),
            has_begun: false,
            is_made: false,
            written_since: None,
            written: 0,
        }
    }

    /// Bytes have arrived.
    pub fn has_read(&mut self, now: Instant) {
        if self.kind == Kind::Waiting && !self.has_begun {
            self.has_begun = true;
            self.since = now;
            self.until = Some(now + HEAD);
        }
    }

    /// The kernel took bytes of the answer; none if the client has to read first.
    pub fn has_written(&mut self, bytes: usize, now: Instant) {
        self.written_since.get_or_insert(now);
        self.written += bytes as u64;
    }

    /// The head of a request arrived, and `has_body` if more follows.
    pub fn is_asked(&mut self, kind: Kind, has_body: bool, now: Instant) {
        self.kind = kind;
        self.since = now;
        self.until = has_body.then_some(now + BODY);
        self.is_made = false;
        self.written_since = None;
        self.written = 0;
    }

    /// The whole request has arrived, or the rest is not wanted.
    pub fn has_request(&mut self) {
        if self.kind != Kind::Waiting {
            self.until = None;
            if !self.is_made {
                // `100 Continue` was no answer.
                (self.written_since, self.written) = (None, 0);
            }
        }
    }

    /// It waits for the next request, or for the client to close it.
    pub fn waits(&mut self, time: Duration, now: Instant) {
        self.kind = Kind::Waiting;
        self.since = now;
        self.until = Some(now + time);
        self.has_begun = false;
        self.is_made = false;
    }

    /// Why it has had its time; `None` if it has not.
    pub fn overdue(&self, now: Instant) -> Option<Overdue> {
        if let Some(until) = self.until {
            let is_idle = !self.has_begun && self.written_since.is_some();
            let why = if self.kind == Kind::Waiting && is_idle {
                Overdue::Idle
            } else {
                Overdue::SlowRequest
            };
            return (until <= now).then_some(why);
        }
        let reading = now.duration_since(self.written_since?);
        let allowed = READING + Duration::from_secs(self.written / BYTES_A_SECOND);
        (reading > allowed).then_some(Overdue::SlowReader)
    }
}

/// Why a connection has had its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overdue {
    /// It sent no whole head or body in time.
    SlowRequest,
    /// It sent no further request, or its client did not close it.
    Idle,
    /// Its client reads too slowly.
    SlowReader,
}

/// What happens to a connection that wants a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// It gets a free one.
    Free,
    /// It gets that of another connection, which goes.
    InsteadOf(u64),
    /// It gets none.
    Refused,
}

/// Whether a connection of `peer` gets a place of this kind beside those that are `open`. At the peer's limit, its own
/// oldest connection goes; at the limit of all, the oldest of the peer that has the most. An answer is never broken off
/// for another one, except those of `/healthz`, `/readyz` and `/metrics`: they take a moment, and the oldest is read
/// slowly.
pub fn admit<'a>(
    limits: &Limits,
    open: impl Iterator<Item = (u64, &'a Connection)>,
    peer: Peer,
    kind: Kind,
) -> Admission {
    let places = limits.of(kind);
    // Of each peer: how many it has, and its oldest.
    let mut peers: BTreeMap<Peer, (usize, Instant, u64)> = BTreeMap::new();
    let mut all = 0;
    for (id, one) in open.filter(|(_, one)| one.kind == kind) {
        all += 1;
        let of_peer = peers.entry(one.peer).or_insert((0, one.since, id));
        of_peer.0 += 1;
        if (one.since, id) < (of_peer.1, of_peer.2) {
            (of_peer.1, of_peer.2) = (one.since, id);
        }
    }
    let own = peers.get(&peer).filter(|own| own.0 >= places.by_peer);
    let most = || {
        let by_count = |of_peer: &&(usize, Instant, u64)| (of_peer.0, std::cmp::Reverse(of_peer.1));
        peers.values().max_by_key(by_count)
    };
    let goes = own.or_else(|| if all >= places.all { most() } else { None });
    match goes {
        None => Admission::Free,
        Some(_) if kind == Kind::Answer => Admission::Refused,
        Some((_, _, id)) => Admission::InsteadOf(*id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        waiting: Places { all: 6, by_peer: 4 },
        answers: Places { all: 3, by_peer: 2 },
        vital: Places { all: 3, by_peer: 2 },
    };

    #[test]
    fn an_interim_response_is_no_answer() {
        let now = Instant::now();
        let mut connection = Connection::new(peer("10.0.0.1"), now);
        connection.is_asked(Kind::Answer, true, now);
        connection.has_written(25, now);
        connection.has_request();
        assert_eq!(connection.overdue(now + Duration::from_mins(1)), None);
    }

    fn peer(address: &str) -> Peer {
        Peer::from(address.parse::<IpAddr>().unwrap())
    }

    /// Connections by address and kind, the oldest first; numbered from 0.
    fn open(start: Instant, all: &[(&str, Kind)]) -> Vec<Connection> {
        let all = all.iter().zip(0..);
        all.map(|((address, kind), second)| {
            let at = start + Duration::from_secs(second);
            let mut one = Connection::new(peer(address), at);
            one.kind = *kind;
            one
        })
        .collect()
    }

    fn decide(all: &[(&str, Kind)], address: &str, kind: Kind) -> Admission {
        let open = open(Instant::now(), all);
        admit(&LIMITS, (0..).zip(&open), peer(address), kind)
    }

    #[test]
    fn the_oldest_that_waits_goes_for_a_new_one() {
        use Admission::{Free, InsteadOf};
        use Kind::{Answer, Vital, Waiting};
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        assert_eq!(decide(&[], a, Waiting), Free);
        assert_eq!(decide(&[(a, Waiting); 3], a, Waiting), Free);
        // At its own limit: its own, also if another has an older one.
        let all = [
            (b, Waiting),
            (a, Answer),
            (a, Waiting),
            (a, Waiting),
            (a, Waiting),
            (a, Waiting),
        ];
        assert_eq!(decide(&all, a, Waiting), InsteadOf(2));
        // At the limit of all: of the peer with the most.
        let all = [
            (b, Waiting),
            (c, Waiting),
            (c, Vital),
            (a, Waiting),
            (a, Waiting),
            (a, Waiting),
            (b, Waiting),
        ];
        assert_eq!(decide(&all, c, Waiting), InsteadOf(3));
        assert_eq!(decide(&all, "2001:db8::1", Waiting), InsteadOf(3));
        // Of several with as many, the oldest.
        let addresses = [
            "192.0.2.9",
            "192.0.2.8",
            "192.0.2.7",
            "192.0.2.6",
            "192.0.2.5",
            "192.0.2.4",
        ];
        let all = addresses.map(|address| (address, Waiting));
        assert_eq!(decide(&all, a, Waiting), InsteadOf(0));
    }

    #[test]
    fn no_answer_is_broken_off_for_another_except_at_the_vital_paths() {
        use Admission::{Free, InsteadOf, Refused};
        use Kind::{Answer, Vital};
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        assert_eq!(decide(&[(a, Answer), (a, Answer)], a, Answer), Refused);
        assert_eq!(decide(&[(a, Answer), (a, Answer)], b, Answer), Free);
        let all = [(a, Answer), (a, Answer), (b, Answer)];
        assert_eq!(decide(&all, c, Answer), Refused);
        assert_eq!(decide(&all, c, Vital), Free);
        assert_eq!(decide(&[(a, Vital), (a, Vital)], a, Vital), InsteadOf(0));
        let all = [(c, Vital), (a, Vital), (a, Vital)];
        assert_eq!(decide(&all, b, Vital), InsteadOf(1));
        for (path, kind) in [
            ("/metrics", Vital),
            ("/healthz", Vital),
            ("/readyz", Vital),
            ("/", Answer),
            ("/metrics/", Answer),
            ("/healthz/x", Answer),
            ("*", Answer),
        ] {
            assert_eq!(Kind::of(path), kind, "{path}");
        }
    }

    #[test]
    fn a_peer_is_an_ipv4_address_or_a_network_of_ipv6() {
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:0:0:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::1"), peer("::2"));
        assert_ne!(peer("::1"), peer("127.0.0.1"));
    }

    #[test]
    fn bytes_of_a_head_buy_no_time_and_read_answers_do() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut one = Connection::new(peer("192.0.2.1"), start);
        assert_eq!(one.overdue(after(9)), None);
        assert_eq!(one.overdue(after(10)), Some(Overdue::SlowRequest));
        for second in 5..15 {
            one.has_read(after(second));
        }
        assert_eq!(one.overdue(after(14)), None);
        assert_eq!(one.overdue(after(15)), Some(Overdue::SlowRequest));

        one.is_asked(Kind::Answer, true, after(15));
        one.has_read(after(30));
        assert_eq!(one.overdue(after(45)), Some(Overdue::SlowRequest));
        one.has_request();
        assert_eq!(one.overdue(after(600)), None, "a check may take its time");
        one.has_written(4 * 16 * 1024, after(600));
        assert_eq!(one.overdue(after(614)), None);
        assert_eq!(one.overdue(after(615)), Some(Overdue::SlowReader));
        one.has_written(16 * 1024, after(615));
        assert_eq!(one.overdue(after(615)), None);

        one.waits(IDLE, after(620));
        assert_eq!(one.overdue(after(694)), None);
        assert_eq!(one.overdue(after(695)), Some(Overdue::Idle));
        one.has_read(after(694));
        assert_eq!(one.overdue(after(703)), None);
        assert_eq!(one.overdue(after(704)), Some(Overdue::SlowRequest));
        // The rate counts for each answer, also if nothing of it can be written.
        one.is_asked(Kind::Vital, false, after(704));
        one.has_written(0, after(704));
        assert_eq!(one.overdue(after(715)), Some(Overdue::SlowReader));
    }

    #[test]
    fn the_listeners_have_a_third_of_the_files() {
        assert_eq!(connection_limits(1024).files(), 342);
        assert_eq!(connection_limits(1 << 20), connection_limits(1024));
        let few = connection_limits(256);
        assert_eq!(
            few.public.waiting,
            Places {
                all: 48,
                by_peer: 40
            }
        );
        assert!(few.files() < 128, "{}", few.files());
        let none = connection_limits(0);
        assert_eq!(none.public.vital, Places { all: 2, by_peer: 2 });
    }
}
