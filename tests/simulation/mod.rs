//! A fleet of nodes whose time is counted, not waited for, and whose sockets are not opened: the real
//! schedule and the real ledger, with a registry that has an outage, a rollout that restarts every
//! daemon, and a target whose password is wrong.

#![allow(
    unreachable_pub,
    reason = "shared by several crates, which are no libraries"
)]
#![allow(dead_code, reason = "each uses a part")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use pullpath::daemon::ledger::{Answered, Ledger, Limits, Rejected, Reserved};
use pullpath::daemon::policy::{self, Heard, Then};
use pullpath::daemon::schedule::{Due, Moment, Rhythm, Schedule};
use pullpath::model::credential::{CredentialId, CredentialSource};
use pullpath::model::evidence::{Attempt, Skip, Step};
use pullpath::model::units::Bytes;

/// How large, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub nodes: usize,
    pub targets: usize,
    pub days: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Figures {
    pub checks: u64,
    pub transfers: u64,
    pub requests: u64,
    /// In a minute, over the whole time.
    pub mean: f64,
    /// In any 60 s, to the second.
    pub most: u64,
    pub most_at: Duration,
    /// While the registry was out.
    pub mean_in_outage: f64,
    /// The most that one node read in a day.
    pub most_bytes: u64,
    /// The shortest time between two logins with the wrong password at one node.
    pub rejected_again: Option<Duration>,
    pub logins: u64,
}

/// The beginning of the simulated time: a Monday, at midnight.
const BEGIN: u64 = 1_800_000_000 / 86_400 * 86_400;

/// The registry answers 503 for so long, on the third day.
const OUTAGE: (Duration, Duration) = (Duration::from_hours(50), Duration::from_hours(52));

/// Every daemon is restarted within this, on the second day: its ledger is written and read again.
const ROLLOUT: (Duration, Duration) = (Duration::from_hours(30), Duration::from_mins(30));

/// One of the targets of each node has a wrong password.
const WRONG: usize = 0;

pub fn limits() -> Limits {
    Limits {
        node_bytes_per_day: Bytes(256 << 20),
        target_bytes_per_day: Bytes(64 << 20),
        registry_bytes_per_day: Bytes(128 << 20),
        registry_requests_per_minute: 240,
        rate_limit_floor: 0.1,
    }
}

fn rhythm() -> Rhythm {
    Rhythm {
        reach: Duration::from_mins(2),
        path: Duration::from_hours(1),
        transfer: Some(Duration::from_hours(6)),
    }
}

struct Node {
    name: String,
    schedule: Schedule,
    ledger: Ledger,
    restarts: Moment,
    is_restarted: bool,
    day: (u64, u64),
    login: Option<Moment>,
}

const REGISTRY: &str = "registry.example.com";

/// How long a transfer test lasts, and what it reads: more than most do.
const TEST: (Duration, Bytes) = (Duration::from_secs(4), Bytes(9 << 20));

pub fn run(size: Size) -> Figures {
    let begin = Moment(Duration::from_secs(BEGIN));
    let end = begin.after(Duration::from_hours(24 * size.days));
    let names: Vec<Arc<str>> = (0..size.targets)
        .map(|i| Arc::from(format!("target-{i}")))
        .collect();
    let mut nodes: Vec<Node> = (0..size.nodes)
        .map(|i| node(i, size, &names, begin))
        .collect();
    let mut figures = Figures::default();
    let seconds = usize::try_from(24 * 3600 * size.days).unwrap();
    let mut by_second = vec![0u32; seconds + 120];
    // One queue of all nodes, by when each wants to do something next.
    let mut queue: BinaryHeap<Reverse<(Moment, usize)>> = BinaryHeap::new();
    for (index, node) in nodes.iter().enumerate() {
        queue.extend(node.schedule.next().map(|at| Reverse((at, index))));
    }
    while let Some(Reverse((at, index))) = queue.pop() {
        if at > end {
            break;
        }
        let node = &mut nodes[index];
        if !node.is_restarted && at > node.restarts {
            restart(node, &names, at);
        } else if let Some(due) = node.schedule.take(at) {
            let sent = step(node, &due, at, begin, &mut figures);
            let second = usize::try_from(at.since(begin).as_secs()).unwrap();
            by_second[second] += sent;
            figures.requests += u64::from(sent);
        }
        queue.extend(
            nodes[index]
                .schedule
                .next()
                .map(|next| Reverse((next.max(at), index))),
        );
    }
    sum_up(&by_second, seconds, &mut figures);
    figures
}

fn node(index: usize, size: Size, names: &[Arc<str>], begin: Moment) -> Node {
    let name = format!("node-{index}");
    let mut schedule = Schedule::new(&name);
    schedule.replace(
        names.iter().map(|name| (Arc::clone(name), rhythm(), None)),
        begin,
    );
    // A rolling update takes one node after the other.
    let share =
        f64::from(u32::try_from(index).unwrap()) / f64::from(u32::try_from(size.nodes).unwrap());
    Node {
        restarts: begin.after(ROLLOUT.0 + ROLLOUT.1.mul_f64(share)),
        name,
        schedule,
        ledger: Ledger::default(),
        is_restarted: false,
        day: (0, 0),
        login: None,
    }
}

/// Twice, as a daemon that crashes after its start does: all that is kept is the file.
fn restart(node: &mut Node, names: &[Arc<str>], now: Moment) {
    for _ in 0..2 {
        let written = serde_json::to_string(&node.ledger).unwrap();
        node.ledger = serde_json::from_str(&written).unwrap();
        node.schedule = Schedule::new(&node.name);
        let tasks = names
            .iter()
            .map(|name| (Arc::clone(name), rhythm(), node.ledger.last_transfer(name)));
        node.schedule.replace(tasks.collect::<Vec<_>>(), now);
    }
    node.is_restarted = true;
}

/// One check, as the daemon decides it; the requests that it sent.
fn step(node: &mut Node, due: &Due, now: Moment, begin: Moment, figures: &mut Figures) -> u32 {
    let limits = limits();
    let asked = policy::may(
        &mut node.ledger,
        &limits,
        Bytes(16 << 20),
        due,
        REGISTRY,
        false,
        now,
    );
    let reserved = match asked {
        Ok(reserved) => reserved,
        Err((_, Then::Later(until))) => {
            node.schedule.postpone(due, until);
            return 0;
        }
        Err((_, Then::NextTime(not_before))) => {
            node.schedule.done(due, now, not_before);
            return 0;
        }
    };
    figures.checks += 1;
    let is_wrong = *due.target == format!("target-{WRONG}");
    let elapsed = now.since(begin);
    let is_out = elapsed >= OUTAGE.0 && elapsed < OUTAGE.1;
    let mut heard = Heard {
        requests: 4,
        answered: Some(Answered::Well),
        ..Heard::default()
    };
    if is_out {
        // `/v2/` says 503, and nothing more is asked.
        heard.requests = 1;
        heard.answered = Some(Answered::ServerError { retry_after: None });
    } else if is_wrong {
        let rests = !node.ledger.resting(REGISTRY, now).is_empty();
        heard.requests = if rests { 1 } else { 2 };
        if !rests {
            figures.logins += 1;
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
    let not_before = policy::book(
        &mut node.ledger,
        &node.name,
        &due.target,
        REGISTRY,
        reserved,
        &heard,
        end,
    );
    node.schedule.done(due, end, not_before);
    requests
}

fn spend(
    node: &mut Node,
    reserved: Reserved,
    is_read: bool,
    now: Moment,
    heard: &mut Heard,
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

fn rejected(now: Moment) -> Rejected {
    Rejected {
        tag: 1,
        at: now,
        attempt: Attempt {
            credential: Some(CredentialId {
                source: CredentialSource::DockerConfig {
                    path: "/config.json".to_owned(),
                },
                key: REGISTRY.to_owned(),
            }),
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

fn sum_up(by_second: &[u32], seconds: usize, figures: &mut Figures) {
    let minutes = f64::from(u32::try_from(seconds / 60).unwrap());
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let mean = figures.requests as f64 / minutes;
    figures.mean = mean;
    let mut window: u64 = 0;
    for second in 0..seconds {
        window += u64::from(by_second[second]);
        if second >= 60 {
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

/// Asserts what was promised.
pub fn check(figures: &Figures) {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let ratio = figures.most as f64 / figures.mean;
    assert!(
        ratio <= 2.0,
        "{ratio} times the mean in one minute: {figures:?}"
    );
    assert!(
        figures.most_bytes <= limits().node_bytes_per_day.0,
        "{figures:?}"
    );
    let again = figures.rejected_again.expect("it was tried twice");
    assert!(again >= Duration::from_hours(1), "{again:?}");
    assert!(figures.transfers > 0 && figures.logins > 0, "{figures:?}");
    assert!(figures.mean_in_outage < figures.mean, "{figures:?}");
}

pub fn table(size: Size, figures: &Figures) -> String {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let ratio = figures.most as f64 / figures.mean;
    let rows: BTreeMap<&str, String> = [
        (
            "1 fleet",
            format!(
                "{} nodes, {} targets each, {} days",
                size.nodes, size.targets, size.days
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
    let lines: Vec<String> = rows
        .iter()
        .map(|(name, value)| format!("{:<34} {value}", &name[2..]))
        .collect();
    lines.join(
        "
",
    ) + "
"
}
