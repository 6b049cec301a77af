//! When a ClientHello of two packets is tried at an endpoint, and the result of the last trial. Pure: the time is
//! an argument. Kept in memory only; after a restart, the first trial waits for its time as well.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::{Moment, hash, share};
use crate::model::endpoint::Endpoint;
use crate::model::evidence::LargeHello;

/// An endpoint is tried at most once in this time.
const PERIOD: Duration = Duration::from_hours(1);

/// Maximum extra delay, different for each node, endpoint and hour, so that many nodes don't try together.
const SPREAD: Duration = Duration::from_mins(15);

/// An endpoint that no check has used for this long is dropped.
const FORGET_AFTER: Duration = Duration::from_hours(24);

/// Maximum of endpoints; others are not tried.
const MAX_ENDPOINTS: usize = 1024;

/// The trials of one node.
#[derive(Debug)]
pub struct LargeHellos {
    node: String,
    endpoints: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    next: Moment,
    used: Moment,
    last: Option<LargeHello>,
}

impl LargeHellos {
    /// No endpoints yet. `node` decides the times of trials.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            endpoints: BTreeMap::new(),
        }
    }

    /// Whether a trial at this endpoint is due now; if so, the next one is planned.
    pub fn take(&mut self, endpoint: &Endpoint, now: Moment) -> bool {
        let name = endpoint.to_string();
        let Some(known) = self.endpoints.get_mut(&name) else {
            self.add(name, now);
            return false;
        };
        known.used = now;
        if now < known.next {
            return false;
        }
        let second = now.0.as_secs().to_string();
        let jitter = share(hash(&[&self.node, &name, &second]));
        known.next = now.after(PERIOD).after(SPREAD.mul_f64(jitter));
        true
    }

    /// Plans the first trial within a period from now.
    fn add(&mut self, name: String, now: Moment) {
        self.endpoints
            .retain(|_, known| now.since(known.used) < FORGET_AFTER);
        if self.endpoints.len() < MAX_ENDPOINTS {
            let wait = PERIOD.mul_f64(share(hash(&[&self.node, &name, "large hello"])));
            let known = Known {
                next: now.after(wait),
                used: now,
                last: None,
            };
            self.endpoints.insert(name, known);
        }
    }

    /// Keeps the result of a trial, and counts drops in a row.
    pub fn learn(&mut self, endpoint: &Endpoint, mut trial: LargeHello) {
        let Some(known) = self.endpoints.get_mut(&endpoint.to_string()) else {
            return;
        };
        let before = known.last.as_ref().map_or(0, |last| last.in_a_row);
        if trial.is_dropped() {
            trial.in_a_row = before.saturating_add(1);
        }
        known.last = Some(trial);
    }

    /// The result of the last trial; `None` before the first.
    pub fn last(&self, endpoint: &Endpoint) -> Option<&LargeHello> {
        self.endpoints.get(&endpoint.to_string())?.last.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::connect::Session;
    use crate::model::endpoint::{Host, Scheme};
    use crate::model::fault::TlsFault;
    use crate::model::step::Step;
    use crate::model::units::Bytes;

    const SECOND: Duration = Duration::from_secs(1);
    const START: Moment = Moment(Duration::from_hours(500_000));

    fn endpoint(name: &str) -> Endpoint {
        Endpoint {
            scheme: Scheme::Https,
            host: Host::new(name),
            port: 443,
        }
    }

    fn trial(passes: bool) -> LargeHello {
        let answered = || Step::Done {
            value: Session {
                protocol: "TLSv1.3".to_owned(),
                cipher_suite: "TLS_AES_128_GCM_SHA256".to_owned(),
                key_exchange: None,
                alpn: None,
            },
            took: SECOND,
        };
        let lost = Step::Failed {
            fault: TlsFault::Timeout { received: Bytes(0) },
            took: SECOND,
        };
        LargeHello {
            at: Timestamp::UNIX_EPOCH,
            to: "203.0.113.9:443".parse().unwrap(),
            bytes: Bytes(1486),
            large: if passes { answered() } else { lost },
            short: (!passes).then(answered),
            in_a_row: u32::from(!passes),
        }
    }

    /// The seconds at which an endpoint is tried, if a check uses it every second.
    fn tried(hellos: &mut LargeHellos, name: &str, seconds: u32) -> Vec<u32> {
        let endpoint = endpoint(name);
        let at = |second: &u32| START.after(SECOND * *second);
        (0..seconds)
            .filter(|second| hellos.take(&endpoint, at(second)))
            .collect()
    }

    #[test]
    fn an_endpoint_is_tried_once_an_hour_at_most_and_not_much_less_often() {
        let mut hellos = LargeHellos::new("node-1");
        let tried = tried(&mut hellos, "registry.test", 100 * 3600);
        assert!(tried[0] <= 3600, "{tried:?}");
        for two in tried.windows(2) {
            let apart = two[1] - two[0];
            assert!((3600..=3600 + 900).contains(&apart), "{tried:?}");
        }
        let mut apart: Vec<u32> = tried.windows(2).map(|two| two[1] - two[0]).collect();
        apart.sort_unstable();
        apart.dedup();
        assert!(apart.len() > 10, "no jitter: {apart:?}");
    }

    #[test]
    fn nodes_and_endpoints_have_their_own_turns_and_a_restart_has_none_at_once() {
        let first = |node: &str, name: &str| tried(&mut LargeHellos::new(node), name, 3601)[0];
        let mut all: Vec<u32> = (0..20)
            .flat_map(|node| ["a.test", "b.test"].map(|name| first(&format!("node-{node}"), name)))
            .collect();
        all.sort_unstable();
        assert!(all[0] > 0);
        assert!(all[39] - all[0] > 1800, "{all:?}");
        let mut hellos = LargeHellos::new("node-1");
        assert!(!hellos.take(&endpoint("a.test"), START));
    }

    #[test]
    fn what_came_of_it_is_remembered_and_losses_in_a_row_are_counted() {
        let mut hellos = LargeHellos::new("node-1");
        let at = endpoint("registry.test");
        hellos.learn(&at, trial(false));
        assert_eq!(hellos.last(&at), None, "no trial was requested");
        hellos.take(&at, START);
        for (passes, in_a_row) in [(false, 1), (false, 2), (true, 0), (false, 1)] {
            hellos.learn(&at, trial(passes));
            assert_eq!(hellos.last(&at).unwrap().in_a_row, in_a_row);
        }
        assert_eq!(hellos.last(&endpoint("other.test")), None);
    }

    #[test]
    fn memory_is_bounded_and_endpoints_that_are_gone_make_room() {
        let mut hellos = LargeHellos::new("node-1");
        for number in 0..2 * MAX_ENDPOINTS {
            hellos.take(&endpoint(&format!("r{number}.test")), START);
        }
        assert_eq!(hellos.endpoints.len(), MAX_ENDPOINTS);
        let later = START.after(FORGET_AFTER);
        hellos.take(&endpoint("new.test"), later);
        assert_eq!(hellos.endpoints.len(), 1);
    }
}
