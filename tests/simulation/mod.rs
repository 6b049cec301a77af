//! A fleet of nodes whose time is counted, not waited for, and whose sockets are not opened: the real
//! schedule and the real ledger, with a registry that has an outage, a rollout that restarts every
//! daemon, and a target whose password is wrong.

#![allow(
    unreachable_pub,
    reason = "shared by several crates, which are no libraries"
)]
#![allow(dead_code, reason = "each uses a part")]

mod sharing;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use pullpath::config::Budgets;
use pullpath::daemon::schedule::account::Account;
use pullpath::daemon::schedule::admission::{self, CheckUsage, NextAttempt};
use pullpath::daemon::schedule::backoff::Answered;
use pullpath::daemon::schedule::budget::Reserved;
use pullpath::daemon::schedule::clock::Moment;
use pullpath::daemon::schedule::cooldown::Rejected;
use pullpath::daemon::schedule::ledger::Ledger;
use pullpath::daemon::schedule::timetable::{Due, Planned, Rhythm, Timetable};
use pullpath::model::credential::{CredentialId, CredentialSource};
use pullpath::model::evidence::Attempt;
use pullpath::model::step::{Skip, Step};
use pullpath::model::units::Bytes;
use sharing::{Sharing, Store};

/// How large, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub nodes: usize,
    pub targets: usize,
    pub hours: u64,
    /// When the rollout begins.
    pub rollout: Duration,
    /// Whether transfer tests, and the wrong password, are shared by Leases; the registry takes the
    /// password in the end, then, and the API server is away for some hours.
    pub shared: bool,
}

/// The results.
#[derive(Debug, Default)]
pub struct Figures {
    pub checks: u64,
    pub transfers: u64,
    pub requests: u64,
    /// In a minute, over the whole time.
    pub mean: f64,
    /// In a second of the first round, which all nodes begin at the same moment.
    pub most_at_start: u32,
    /// In a second of the rollout, which restarts a tenth of the nodes at the same moment.
    pub most_in_rollout: u32,
    /// The longest time from a start to the first result of a target, at the beginning and in the rollout.
    pub first_result: Duration,
    /// In any 60 s after the first round, to the second.
    pub most: u64,
    pub most_at: Duration,
    /// While the registry was out.
    pub mean_in_outage: f64,
    /// The most that one node read in a day.
    pub most_bytes: u64,
    /// The shortest time between two logins with the wrong password at one node.
    pub rejected_again: Option<Duration>,
    pub logins: u64,
    pub shared: Shared,
}

/// The results of sharing.
#[derive(Debug, Default)]
pub struct Shared {
    /// Requests to the API server.
    pub api: u64,
    pub conflicts: u64,
    pub by_lease: u64,
    pub wanted_by_lease: u64,
    /// Tests that were begun while another of the same NAT was under way.
    pub at_once: u64,
    /// Slots that came while the API server was away.
    pub skipped_while_away: u64,
    pub died: u64,
    /// Tests that could not be written down, since the API server went away meanwhile.
    pub uncounted: u64,
    pub most_in_epoch: u32,
    /// Beyond the places of a group in an epoch, and its holders that died.
    pub too_many_in_epoch: u64,
    /// Logins with the wrong password in an hour of the Lease, after the first two.
    pub most_logins: u64,
    /// Nodes that were let in after the password was taken again, and how long that lasted.
    pub recovered: usize,
    pub recovered_after: Duration,
}

/// The beginning of the simulated time: a Monday, at midnight.
const BEGIN: u64 = 1_800_000_000 / 86_400 * 86_400;

/// The registry answers 503 for so long, on the third day.
const OUTAGE: (Duration, Duration) = (Duration::from_hours(50), Duration::from_hours(52));

/// A target without a result is checked within this, as `schedule.first_check` has it by default.
const FIRST: Duration = Duration::from_secs(15);

/// Every daemon is restarted within this, a tenth of them at once: its ledger is written and read again, and it has no
/// results.
const ROLLOUT: Duration = Duration::from_mins(30);

/// On the second day, unless only the rollout is of interest.
pub const SECOND_DAY: Duration = Duration::from_hours(30);

/// One of the targets of each node has a wrong password.
const WRONG: usize = 0;

fn rhythm(shared: bool) -> Rhythm {
    Rhythm {
        reach: Duration::from_mins(2),
        path: Duration::from_hours(1),
        transfer: (!shared).then(|| Duration::from_hours(6)),
    }
}

struct Node {
    name: String,
    index: usize,
    names: Vec<Arc<str>>,
    began: Moment,
    without_result: BTreeSet<Arc<str>>,
    sharing: Option<Sharing>,
    lives: u32,
    has_recovered: bool,
    schedule: Timetable,
    ledger: Ledger,
    restarts: Moment,
    is_restarted: bool,
    day: (u64, u64),
    login: Option<Moment>,
}

/// Of a usual check.
const REQUESTS: usize = 4;

const REGISTRY: &str = "registry.example.com";

/// How long a transfer test lasts, and what it reads: more than most do.
const TEST: (Duration, Bytes) = (Duration::from_secs(4), Bytes(9 << 20));

pub fn run(size: Size) -> Figures {
    let begin = Moment(Duration::from_secs(BEGIN));
    let end = begin.after(Duration::from_hours(size.hours));
    let names: Vec<Arc<str>> = (0..size.targets)
        .map(|i| Arc::from(format!("target-{i}")))
        .collect();
    let mut nodes: Vec<Node> = (0..size.nodes)
        .map(|i| node(i, size, &names, begin))
        .collect();
    let mut figures = Figures::default();
    let seconds = usize::try_from(3600 * size.hours).unwrap();
    let mut by_second = vec![0u32; seconds + 120];
    // One queue of all nodes, by when each wants to do something next.
    let mut queue: BinaryHeap<Reverse<(Moment, usize)>> = BinaryHeap::new();
    for (index, node) in nodes.iter().enumerate() {
        queue.extend(node.next().map(|at| Reverse((at, index))));
    }
    let mut store = Store::new();
    while let Some(Reverse((at, index))) = queue.pop() {
        if at > end {
            break;
        }
        let node = &mut nodes[index];
        let sent = if !node.is_restarted && at > node.restarts {
            restart(node, at);
            Some(0)
        } else if node.is_dead(at) {
            None
        } else {
            sharing::act(node, at, &mut store, &mut figures).or_else(|| {
                let due = node.schedule.take(at)?;
                Some(step(node, &due, at, size, &mut store, &mut figures))
            })
        };
        if let Some(sent) = sent {
            let second = usize::try_from(at.since(begin).as_secs()).unwrap();
            by_second[second] += sent;
            figures.requests += u64::from(sent);
        }
        queue.extend(node.next().map(|next| Reverse((next.max(at), index))));
    }
    sum_up(&by_second, seconds, size, &mut figures);
    if size.shared {
        sharing::sum_up(&store, &size, &mut figures);
        figures.shared.recovered = nodes.iter().filter(|node| node.has_recovered).count();
    }
    figures
}

impl Node {
    /// Between its death in a test and its restart.
    fn is_dead(&self, now: Moment) -> bool {
        self.lives > 0 && !self.is_restarted && now <= self.restarts
    }

    fn next(&self) -> Option<Moment> {
        if self.lives > 0 && !self.is_restarted {
            return Some(self.restarts.after(Duration::from_nanos(1)));
        }
        let shared = self.sharing.as_ref().and_then(Sharing::next);
        let restart = (!self.is_restarted).then(|| self.restarts.after(Duration::from_nanos(1)));
        let next = self.schedule.next().into_iter();
        next.chain(shared).chain(restart).min()
    }
}

fn node(index: usize, size: Size, names: &[Arc<str>], begin: Moment) -> Node {
    let name = format!("node-{index}");
    // A rolling update takes a tenth of the nodes at a time.
    let tenth = u32::try_from(index * 10 / size.nodes).unwrap();
    let mut node = Node {
        restarts: begin.after(size.rollout + ROLLOUT * tenth / 10),
        sharing: size.shared.then(|| Sharing::new(&name, index, 0, begin)),
        index,
        names: names.to_vec(),
        lives: 0,
        has_recovered: false,
        schedule: Timetable::new(&name),
        name,
        began: begin,
        without_result: BTreeSet::new(),
        ledger: Ledger::default(),
        is_restarted: false,
        day: (0, 0),
        login: None,
    };
    plan(&mut node, begin);
    node
}

/// Nothing is known of any target, but when its last transfer test was.
fn plan(node: &mut Node, now: Moment) {
    let rhythm = rhythm(node.sharing.is_some());
    let targets = node.names.iter().map(|name| Planned {
        target: Arc::clone(name),
        rhythm,
        last_transfer: node.ledger.bytes.last_transfer(name),
        has_result: false,
    });
    node.schedule = Timetable::new(&node.name);
    node.schedule
        .replace(targets.collect::<Vec<_>>(), FIRST, now);
    node.began = now;
    node.without_result = node.names.iter().cloned().collect();
}

/// Twice, as a daemon that crashes after its start does: all that is kept is the file.
fn restart(node: &mut Node, now: Moment) {
    for _ in 0..2 {
        let written = serde_json::to_string(&node.ledger).unwrap();
        node.ledger = serde_json::from_str(&written).unwrap();
        plan(node, now);
        node.lives += 1;
        if node.sharing.is_some() {
            node.sharing = Some(Sharing::new(&node.name, node.index, node.lives, now));
            sharing::share_retries(node);
        }
    }
    node.is_restarted = true;
}

/// One check, as the daemon decides it; the requests that it sent.
fn step(
    node: &mut Node,
    due: &Due,
    now: Moment,
    size: Size,
    store: &mut Store,
    figures: &mut Figures,
) -> u32 {
    let begin = Moment(Duration::from_secs(BEGIN));
    let asked = admission::may(
        &mut node.ledger,
        &Budgets::default(),
        due,
        &Account::of_operator(&due.target, REGISTRY),
        false,
        now,
    );
    let reserved = match asked {
        Ok(reserved) => reserved,
        Err((_, NextAttempt::Later(until))) => {
            node.schedule.postpone(due, until);
            return 0;
        }
        Err((_, NextAttempt::NextTime(not_before))) => {
            node.schedule.done(due, now, not_before);
            return 0;
        }
    };
    figures.checks += 1;
    let elapsed = now.since(begin);
    let is_out = is_out(now);
    let has_password = *due.target == format!("target-{WRONG}");
    let is_fixed = node.sharing.is_some() && elapsed >= sharing::FIXED;
    let is_wrong = has_password && !is_fixed;
    let mut is_accepted = false;
    let mut heard = CheckUsage {
        requests: 4,
        answered: Some(Answered::Well),
        ..CheckUsage::default()
    };
    if is_out {
        // `/v2/` returns 503, and nothing more is requested.
        heard.requests = 1;
        heard.answered = Some(Answered::ServerError { retry_after: None });
    } else if has_password {
        let rest = sharing::rest(node);
        let rests = !node.ledger.cooldown.cooling(rest, REGISTRY, now).is_empty();
        is_accepted = !rests && !is_wrong;
        heard.requests = if rests { 1 } else { 2 };
        if is_accepted {
            heard.accepted = Some(rejected(now).attempt);
            if !node.has_recovered {
                node.has_recovered = true;
                let after = elapsed.saturating_sub(sharing::FIXED);
                let known = &mut figures.shared.recovered_after;
                *known = after.max(*known);
            }
        } else if !rests {
            figures.logins += 1;
            store.log_in(now);
            if let Some(before) = node.login.replace(now) {
                let again = now.since(before);
                figures.rejected_again = Some(
                    figures
                        .rejected_again
                        .map_or(again, |known| known.min(again)),
                );
            }
            heard.rejected.push(rejected(now));
        }
    }
    let requests = heard.requests;
    if let Some(reserved) = reserved {
        spend(
            node,
            reserved,
            !is_out && !is_wrong,
            now,
            &mut heard,
            figures,
        );
    }
    let end = if reserved.is_some() {
        now.after(TEST.0)
    } else {
        now.after(Duration::from_millis(200))
    };
    let not_before = admission::book(
        &mut node.ledger,
        &Budgets::default(),
        &node.name,
        &Account::of_operator(&due.target, REGISTRY),
        reserved,
        &heard,
        end,
    );
    if node.without_result.remove(&due.target) {
        // Besides, nodes that died come back at any time.
        let elapsed = node.began.since(begin);
        if elapsed.is_zero() || (size.rollout..=size.rollout + ROLLOUT).contains(&elapsed) {
            figures.first_result = figures.first_result.max(end.since(node.began));
        }
    }
    node.schedule.has_result(&due.target, end);
    node.schedule.done(due, end, not_before);
    if node.sharing.is_some() && has_password && !is_out {
        sharing::report_login(node, is_accepted, now);
    }
    requests
}

fn is_out(now: Moment) -> bool {
    let elapsed = now.since(Moment(Duration::from_secs(BEGIN)));
    elapsed >= OUTAGE.0 && elapsed < OUTAGE.1
}

/// What a shared test reported: the registry's outage, or its rate.
fn heard_of_test(
    node: &mut Node,
    due: &Due,
    reserved: Option<Reserved>,
    now: Moment,
    figures: &mut Figures,
) -> CheckUsage {
    let is_out = is_out(now);
    let mut heard = CheckUsage {
        requests: if is_out { 1 } else { 4 },
        answered: Some(if is_out {
            Answered::ServerError { retry_after: None }
        } else {
            Answered::Well
        }),
        ..CheckUsage::default()
    };
    let is_wrong = *due.target == format!("target-{WRONG}");
    if let Some(reserved) = reserved {
        spend(
            node,
            reserved,
            !is_out && !is_wrong,
            now,
            &mut heard,
            figures,
        );
    }
    heard
}

fn spend(
    node: &mut Node,
    reserved: Reserved,
    is_read: bool,
    now: Moment,
    heard: &mut CheckUsage,
    figures: &mut Figures,
) {
    let read = if is_read {
        TEST.1.0.min(reserved.bytes.0)
    } else {
        0
    };
    heard.read = Some(Bytes(read));
    heard.requests += if is_read { 6 } else { 0 };
    figures.transfers += 1;
    if node.day.0 != now.day() {
        node.day = (now.day(), 0);
    }
    node.day.1 += read;
    figures.most_bytes = figures.most_bytes.max(node.day.1);
}

fn credential() -> CredentialId {
    CredentialId {
        source: CredentialSource::DockerConfig {
            path: "/config.json".to_owned(),
        },
        key: REGISTRY.to_owned(),
    }
}

fn rejected(now: Moment) -> Rejected {
    Rejected {
        tag: 1,
        at: now,
        confirmed: None,
        may_until: None,
        attempt: Attempt {
            challenge: None,
            get_succeeded: false,
            get_used_other_token: false,
            via_blobs_endpoint: false,
            credential: Some(credential()),
            token: Step::Skipped {
                reason: Skip::NotNeeded,
            },
            exchanges: Vec::new(),
            head: Step::Skipped {
                reason: Skip::NotNeeded,
            },
            at: None,
        },
    }
}

fn sum_up(by_second: &[u32], seconds: usize, size: Size, figures: &mut Figures) {
    let minutes = f64::from(u32::try_from(seconds / 60).unwrap());
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let mean = figures.requests as f64 / minutes;
    figures.mean = mean;
    let most = |from: Duration, to: Duration| {
        let [from, to] = [from, to].map(|at| usize::try_from(at.as_secs()).unwrap().min(seconds));
        by_second[from..to]
            .iter()
            .copied()
            .max()
            .unwrap_or_default()
    };
    figures.most_at_start = most(Duration::ZERO, FIRST);
    figures.most_in_rollout = most(size.rollout, size.rollout + ROLLOUT);
    let mut window: u64 = 0;
    let first = usize::try_from(FIRST.as_secs()).unwrap() + 1;
    for second in first..seconds {
        window += u64::from(by_second[second]);
        if second >= first + 60 {
            window -= u64::from(by_second[second - 60]);
        }
        if window > figures.most {
            figures.most = window;
            figures.most_at = Duration::from_secs(second as u64);
        }
    }
    let [from, to] =
        [OUTAGE.0, OUTAGE.1].map(|at| usize::try_from(at.as_secs()).unwrap().min(seconds));
    let out: u64 = by_second[from..to]
        .iter()
        .map(|count| u64::from(*count))
        .sum();
    if to > from {
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        let mean = out as f64 * 60.0 / (to - from) as f64;
        figures.mean_in_outage = mean;
    }
}

/// Asserts what was promised of the start of many daemons.
pub fn check_start(size: Size, figures: &Figures) {
    // Each target is checked within 15 s, and the checks of all nodes are spread over these.
    assert!(
        figures.first_result <= FIRST + TEST.0,
        "{:?}",
        figures.first_result
    );
    let first_round = f64::from(u32::try_from(REQUESTS * size.nodes * size.targets).unwrap());
    let even = first_round / FIRST.as_secs_f64();
    let usual = figures.mean / 60.0;
    let at_start = f64::from(figures.most_at_start);
    assert!(
        (0.5 * even..by_chance(even + usual)).contains(&at_start),
        "{at_start} in one second, where {even} are even: {figures:?}"
    );
    // A tenth of the nodes at once add a tenth of that.
    let in_rollout = f64::from(figures.most_in_rollout);
    assert!(
        (usual..by_chance(usual + even / 10.0)).contains(&in_rollout),
        "{in_rollout} in one second, where {usual} are usual: {figures:?}"
    );
}

/// More requests in a second than this are no chance, where so many are even and each check is drawn by itself.
fn by_chance(even: f64) -> f64 {
    let of_a_check = f64::from(u32::try_from(REQUESTS).unwrap());
    even + 6.0 * of_a_check * (even / of_a_check).sqrt()
}

/// And of all else.
pub fn check(size: Size, figures: &Figures) {
    check_start(size, figures);
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let ratio = figures.most as f64 / figures.mean;
    assert!(
        ratio <= 2.0,
        "{ratio} times the mean in one minute: {figures:?}"
    );
    assert!(
        figures.most_bytes <= Budgets::default().node_bytes_per_day.0.0,
        "{figures:?}"
    );
    let again = figures.rejected_again.expect("it was tried twice");
    assert!(again >= Duration::from_hours(1), "{again:?}");
    assert!(figures.transfers > 0 && figures.logins > 0, "{figures:?}");
    assert!(figures.mean_in_outage < figures.mean, "{figures:?}");
}

/// And what sharing promises besides.
pub fn check_shared(size: Size, figures: &Figures) {
    let shared = &figures.shared;
    // Leases keep it while they can be had.
    assert_eq!(
        (shared.at_once, shared.too_many_in_epoch),
        (0, 0),
        "{figures:?}"
    );
    // All nodes that should test do, but for epochs in which the API server was away; and a dead holder's
    // place is another's.
    let away =
        sharing::AWAY.1.saturating_sub(sharing::AWAY.0).as_secs() / sharing::EPOCH.as_secs() + 2;
    let epochs = 3600 * size.hours / sharing::EPOCH.as_secs();
    let least = shared.wanted_by_lease * (epochs - away - 1) / epochs;
    assert!(shared.by_lease >= least, "{least}: {figures:?}");
    assert!(
        shared.died > 0 && shared.skipped_while_away > 0,
        "{figures:?}"
    );
    assert_eq!(
        shared.most_logins, 1,
        "in an hour, of all nodes: {figures:?}"
    );
    assert_eq!(shared.recovered, size.nodes, "{figures:?}");
    assert!(
        shared.recovered_after <= Duration::from_hours(3),
        "{figures:?}"
    );
}

pub fn table(size: Size, figures: &Figures) -> String {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let ratio = figures.most as f64 / figures.mean;
    let rows: BTreeMap<&str, String> = [
        (
            "1 fleet",
            format!(
                "{} nodes, {} targets each, {} hours",
                size.nodes, size.targets, size.hours
            ),
        ),
        ("2 checks", figures.checks.to_string()),
        (
            "3 requests",
            format!(
                "{}, {:.0} a minute on average",
                figures.requests, figures.mean
            ),
        ),
        (
            "31 in the first round",
            format!(
                "{} a second at most, where all nodes start at once",
                figures.most_at_start
            ),
        ),
        (
            "32 in the rollout",
            format!(
                "{} a second at most, with a tenth of the nodes at a time; {:.0} a second on average",
                figures.most_in_rollout,
                figures.mean / 60.0
            ),
        ),
        (
            "33 first result of a target",
            format!(
                "within {:.1} s of a start",
                figures.first_result.as_secs_f64()
            ),
        ),
        (
            "4 most in any 60 s",
            format!(
                "{} ({ratio:.2} times the mean), {:.1} h after the beginning",
                figures.most,
                figures.most_at.as_secs_f64() / 3600.0
            ),
        ),
        (
            "5 while the registry is out",
            format!("{:.0} a minute", figures.mean_in_outage),
        ),
        ("6 transfer tests", figures.transfers.to_string()),
        (
            "7 most bytes of a node in a day",
            format!("{:.1} MiB", figures.most_bytes as f64 / f64::from(1 << 20)),
        ),
        (
            "8 wrong password",
            format!(
                "sent {} times, {:.0} min apart at least",
                figures.logins,
                figures.rejected_again.unwrap_or_default().as_secs_f64() / 60.0
            ),
        ),
    ]
    .into();
    let mut rows = rows;
    if size.shared {
        rows.extend(shared_rows(figures));
    }
    let lines: Vec<String> = rows
        .iter()
        .map(|(name, value)| {
            format!(
                "{:<34} {value}",
                name.trim_start_matches(|c: char| c.is_ascii_digit())
                    .trim_start()
            )
        })
        .collect();
    lines.join(
        "
",
    ) + "
"
}

fn shared_rows(figures: &Figures) -> [(&'static str, String); 6] {
    let shared = &figures.shared;
    [
        (
            "91 tests by Lease",
            format!(
                "{} of {} places; {} holders died, {} not counted; {} at most in an epoch",
                shared.by_lease,
                shared.wanted_by_lease,
                shared.died,
                shared.uncounted,
                shared.most_in_epoch
            ),
        ),
        ("92 at once behind one NAT", shared.at_once.to_string()),
        (
            "93 slots skipped",
            format!(
                "{} while the API server was away",
                shared.skipped_while_away
            ),
        ),
        (
            "94 requests for Leases",
            format!("{}, {} conflicts", shared.api, shared.conflicts),
        ),
        (
            "95 wrong password in an hour",
            format!("{} at most, of all nodes", shared.most_logins),
        ),
        (
            "96 once it is taken again",
            format!(
                "{} nodes know within {:.1} h",
                shared.recovered,
                shared.recovered_after.as_secs_f64() / 3600.0
            ),
        ),
    ]
}
