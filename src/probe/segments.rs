//! Tries an exchange again that hung or was cut: are large packets lost on the path, or do servers that take turns behind
//! the address differ?

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::leg::{Connections, StalledExchange};
use crate::model::evidence::{SegmentTrial, SegmentTrials};
use crate::model::fault::Phase;
use crate::model::units::Bytes;

/// The segment size of the trials. Below 1100 bytes with headers, which fits any IPv6 tunnel (1280, RFC 8200 5) and the
/// IPv4 tunnels in use; and above the size that filters drop as an attack with small segments (CVE-2019-11479).
const SMALL: u32 = 1000;

/// Enough of a response to fill several packets.
const ENOUGH: Bytes = Bytes(16 << 10);

/// Which trials use small segments. Servers that take turns in any period would give two trials of different sizes to
/// the same one.
const PLAN: [bool; SegmentTrials::PLANNED] = {
    const S: bool = true;
    const L: bool = false;
    [S, S, L, L, L, S, L, S, S, L, S, L]
};

/// All trials together; the size is then not proven.
const BUDGET: Duration = Duration::from_secs(40);

/// A trial is given up after this time at the earliest: several retransmissions of a first packet.
const SHORTEST: Duration = Duration::from_secs(2);

/// Further connections, at the same time, where one could not be established.
const SYNS: usize = 4;

/// How long each of them may take: a SYN is repeated after one second.
const SYN: Duration = Duration::from_millis(2500);

/// The failure of the check, and then the plan, as far as it can still show something.
pub(super) async fn test(lines: &Connections<'_>, suspect: StalledExchange) -> SegmentTrials {
    let began = Instant::now();
    let mut tried = SegmentTrials {
        role: suspect.role,
        phase: suspect.phase,
        endpoint: suspect.endpoint.clone(),
        to: suspect.to,
        trials: vec![SegmentTrial {
            max_segment: None,
            fault: Some(suspect.fault.clone()),
            is_silent: suspect.is_silent,
            took: suspect.took,
        }],
    };
    let wait = lines.probe_network.wait;
    if suspect.phase == Phase::Connect {
        // Neither their size nor their order matters to SYNs.
        let limit = SYN.min(wait);
        let trials = (0..SYNS).map(|_| lines.trial(&suspect, None, ENOUGH, limit));
        tried.trials.extend(join_all(trials).await);
        return tried;
    }
    while is_open(&tried, suspect.request.is_some()) && began.elapsed() < BUDGET {
        let is_small = suspect.is_silent && PLAN[tried.trials.len() - 1];
        let limit = limit(&tried, suspect.round_trip, wait);
        let trial = lines.trial(&suspect, is_small.then_some(SMALL), ENOUGH, limit);
        tried.trials.push(trial.await);
    }
    tried
}

/// Whether a further trial can show something. `is_request`: each is a request to the server.
fn is_open(tried: &SegmentTrials, is_request: bool) -> bool {
    let made = tried.trials.len() - 1;
    let enough = if tried.failed() == tried.trials.len() {
        // Nothing passes, so far.
        if is_request { 2 } else { 4 }
    } else if tried.is_by_size() {
        SegmentTrials::PLANNED
    } else if is_request {
        4
    } else {
        6
    };
    made < enough
}

/// How long the next trial may take: much longer than one that passed. Without one, the first trial has all the time.
fn limit(tried: &SegmentTrials, round_trip: Option<Duration>, wait: Duration) -> Duration {
    let passed = tried.trials.iter().filter(|trial| trial.passed());
    let usual = match passed.map(|trial| trial.took).max() {
        Some(slowest) => Some(slowest * 8),
        None if tried.trials.len() > 1 => round_trip.map(|trip| trip * 10),
        None => None,
    };
    usual.map_or(wait, |usual| usual.max(SHORTEST).min(wait))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::endpoint::{Endpoint, Host, Role, Scheme};

    /// Makes the plan where `passes` decides from the number of the connection, the check's own being 0, and whether its
    /// segments are small.
    fn run(is_silent: bool, passes: impl Fn(usize, bool) -> bool) -> SegmentTrials {
        let trial = |number: usize, is_small: bool| SegmentTrial {
            max_segment: is_small.then_some(SMALL),
            fault: (!passes(number, is_small)).then(|| "no answer".to_owned()),
            is_silent,
            took: Duration::from_millis(20),
        };
        let mut tried = SegmentTrials {
            role: Role::Registry,
            phase: Phase::Tls,
            endpoint: Endpoint {
                scheme: Scheme::Https,
                host: Host::new("registry.test"),
                port: 443,
            },
            to: "203.0.113.9:443".parse().unwrap(),
            trials: vec![trial(0, false)],
        };
        while is_open(&tried, false) {
            let made = tried.trials.len();
            tried.trials.push(trial(made, is_silent && PLAN[made - 1]));
        }
        tried
    }

    #[test]
    fn a_limit_for_the_size_is_proven_by_the_whole_plan_only() {
        let tried = run(true, |_, is_small| is_small);
        assert!(tried.is_proof() && !tried.is_in_turn());
        assert_eq!(tried.trials.len(), 1 + SegmentTrials::PLANNED);
        for length in 1..tried.trials.len() {
            let mut cut = tried.clone();
            cut.trials.truncate(length);
            assert!(!cut.is_proof() && !cut.is_in_turn(), "{length}");
            assert_eq!(cut.is_by_size(), length > 1);
        }
    }

    #[test]
    fn servers_that_take_turns_are_never_a_limit_for_the_size() {
        // Any of up to seven servers in turn, of which any are dead; the check's own request got a dead one.
        for period in 2..=7_usize {
            for dead in 1..(1_u32 << period) - 1 {
                for offset in 0..period {
                    let passes = |number: usize| dead >> ((number + offset) % period) & 1 == 0;
                    if passes(0) {
                        continue;
                    }
                    let tried = run(true, |number, _| passes(number));
                    assert!(!tried.is_proof(), "{period} {dead:b} {offset}");
                    // Nobody waits for twelve servers that hang.
                    assert!(tried.trials.len() <= 1 + SegmentTrials::PLANNED);
                    if period == 2 {
                        assert!(tried.is_in_turn(), "{tried:?}");
                        assert!(tried.trials.len() <= 7);
                        assert!(run(false, |number, _| passes(number)).is_in_turn());
                    }
                }
            }
        }
    }

    #[test]
    fn what_fails_always_or_once_or_until_a_moment_is_not_in_turn() {
        let always = run(true, |_, _| false);
        assert_eq!((always.trials.len(), always.is_in_turn()), (5, false));
        for until in 1..4 {
            let tried = run(true, |number, _| number >= until);
            assert!(!tried.is_in_turn() && !tried.is_proof(), "{until}");
        }
    }

    #[test]
    fn a_trial_may_take_much_longer_than_one_that_passed() {
        let wait = Duration::from_secs(10);
        let trip = Some(Duration::from_millis(300));
        let mut tried = run(true, |_, _| false);
        tried.trials.truncate(1);
        assert_eq!(limit(&tried, trip, wait), wait);
        tried = run(true, |_, _| false);
        assert_eq!(limit(&tried, trip, wait), Duration::from_secs(3));
        assert_eq!(limit(&tried, None, wait), wait);
        let mut passed = run(true, |_, is_small| is_small);
        assert_eq!(limit(&passed, trip, wait), SHORTEST);
        passed.trials[1].took = Duration::from_secs(1);
        assert_eq!(limit(&passed, trip, wait), Duration::from_secs(8));
        assert_eq!(
            limit(&passed, trip, Duration::from_secs(1)),
            Duration::from_secs(1)
        );
    }
}
