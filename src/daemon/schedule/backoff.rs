//! Back-off of registries that answer 429 or 5xx. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::{Moment, hash, share};

/// The first wait after status 429 without `Retry-After`.
const TOO_MANY_FIRST: Duration = Duration::from_mins(1);
/// The longest wait after status 429 without `Retry-After`.
const TOO_MANY_MOST: Duration = Duration::from_hours(1);

/// The first wait after status 5xx: shorter, to detect the end of an outage.
const ERROR_FIRST: Duration = Duration::from_secs(30);
/// The longest wait after status 5xx.
const ERROR_MOST: Duration = Duration::from_mins(10);

/// The longest `Retry-After` that is respected.
const RETRY_AFTER_MOST: Duration = Duration::from_hours(24);

/// A registry's answer, as far as it decides when the next request may be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answered {
    /// Any answer but the others.
    Well,
    /// Status 429, or the error code TOOMANYREQUESTS.
    TooMany {
        /// `Retry-After` (RFC 9110, section 10.2.3); `None`: absent or invalid.
        retry_after: Option<Duration>,
    },
    /// Status 5xx.
    ServerError {
        /// `Retry-After` (RFC 9110, section 10.2.3); `None`: absent or invalid.
        retry_after: Option<Duration>,
    },
}

/// Until when no requests are sent to registries.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Backoffs {
    waits: BTreeMap<String, Wait>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    until: Moment,
    /// How often in a row.
    times: u32,
}

impl Backoffs {
    /// Until when no requests may be sent to a registry; `None`: now they may.
    pub fn until(&self, registry: &str, now: Moment) -> Option<Moment> {
        let until = self.waits.get(registry)?.until;
        (until > now).then_some(until)
    }

    /// Records a registry's answer. A wait without `Retry-After` doubles each time. Each wait is up to a half
    /// longer, by a different amount on each node.
    pub fn record(&mut self, node: &str, registry: &str, answered: Answered, now: Moment) {
        let (first, most, retry_after) = match answered {
            Answered::Well => {
                self.waits.remove(registry);
                return;
            }
            Answered::TooMany { retry_after } => (TOO_MANY_FIRST, TOO_MANY_MOST, retry_after),
            Answered::ServerError { retry_after } => (ERROR_FIRST, ERROR_MOST, retry_after),
        };
        let before = self.waits.get(registry);
        // Checks that ran at the same time count as one refusal.
        if before.is_some_and(|wait| wait.until > now) && retry_after.is_none() {
            return;
        }
        let times = before.map_or(0, |wait| wait.times);
        let wait = first.saturating_mul(1 << times.min(16)).min(most);
        let wait = retry_after.map_or(wait, |requested| requested.min(RETRY_AFTER_MOST).max(first));
        let draw = hash(&[node, registry, "wait", &now.0.as_nanos().to_string()]);
        let wait = wait.mul_f64(1.0 + 0.5 * share(draw));
        let until = now.after(wait);
        let until = before.map_or(until, |before| before.until.max(until));
        self.waits.insert(
            registry.to_owned(),
            Wait {
                until,
                times: times.saturating_add(1),
            },
        );
    }

    /// Drops registries that are no longer used.
    pub fn tidy(&mut self, registries: &dyn Fn(&str) -> bool) {
        self.waits.retain(|name, _| registries(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(86_400 * 20_000 + seconds))
    }

    #[test]
    fn waits_double_up_to_a_bound_and_end_with_a_good_answer() {
        let mut backoffs = Backoffs::default();
        let error = Answered::ServerError { retry_after: None };
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            backoffs.record("n", "r", error, now);
            let until = backoffs.until("r", now).unwrap();
            // Checks that ran at the same time change nothing.
            backoffs.record("n", "r", error, now.after(Duration::from_secs(1)));
            assert_eq!(backoffs.until("r", now), Some(until));
            waits.push(until.since(now).as_secs());
            now = until;
        }
        for (wait, least) in waits.iter().zip([30, 60, 120, 240, 480, 600, 600, 600]) {
            assert!((least..=least * 3 / 2).contains(wait), "{waits:?}");
        }
        assert_eq!(backoffs.until("s", now), None);
        backoffs.record("n", "r", Answered::Well, now);
        backoffs.record("n", "r", error, now);
        let until = backoffs.until("r", now).unwrap();
        assert!(until.since(now) <= Duration::from_secs(45));
    }

    #[test]
    fn retry_after_is_honoured_within_a_day() {
        for (asked, least, most) in [(300, 300, 450), (5, 60, 90), (1_000_000, 86_400, 129_600)] {
            let mut backoffs = Backoffs::default();
            let retry_after = Some(Duration::from_secs(asked));
            backoffs.record("n", "r", Answered::TooMany { retry_after }, at(0));
            let wait = backoffs.until("r", at(0)).unwrap().since(at(0)).as_secs();
            assert!((least..=most).contains(&wait), "{asked}: {wait}");
        }
    }
}
