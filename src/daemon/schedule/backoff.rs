//! Registries that asked to be left alone, or fail. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::{Moment, hash, share};

/// The first wait after a registry said that it is too much (429), when it did not say how long.
const TOO_MANY_FIRST: Duration = Duration::from_mins(1);
const TOO_MANY_MOST: Duration = Duration::from_hours(1);

/// The same after an error of the server (5xx): shorter, since an outage's end should be seen.
const ERROR_FIRST: Duration = Duration::from_secs(30);
const ERROR_MOST: Duration = Duration::from_mins(10);

/// No `Retry-After` counts for more.
const RETRY_AFTER_MOST: Duration = Duration::from_hours(24);

/// What a registry said, as far as it bears on when to ask again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answered {
    Well,
    TooMany { retry_after: Option<Duration> },
    ServerError { retry_after: Option<Duration> },
}

/// Until when registries are left alone.
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
    /// Until when a registry is to be left alone.
    pub fn until(&self, registry: &str, now: Moment) -> Option<Moment> {
        let until = self.waits.get(registry)?.until;
        (until > now).then_some(until)
    }

    /// What a registry said. A wait that it did not ask for doubles each time, and is longer by up to
    /// a half at some nodes than at others.
    pub fn heard(&mut self, node: &str, registry: &str, answered: Answered, now: Moment) {
        let (first, most, retry_after) = match answered {
            Answered::Well => {
                self.waits.remove(registry);
                return;
            }
            Answered::TooMany { retry_after } => (TOO_MANY_FIRST, TOO_MANY_MOST, retry_after),
            Answered::ServerError { retry_after } => (ERROR_FIRST, ERROR_MOST, retry_after),
        };
        let before = self.waits.get(registry);
        // Checks that were under way together are one refusal, not many.
        if before.is_some_and(|wait| wait.until > now) && retry_after.is_none() {
            return;
        }
        let times = before.map_or(0, |wait| wait.times);
        let wait = first.saturating_mul(1 << times.min(16)).min(most);
        let wait = retry_after.map_or(wait, |asked| asked.min(RETRY_AFTER_MOST).max(first));
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

    /// Forgets registries that are gone.
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
            backoffs.heard("n", "r", error, now);
            let until = backoffs.until("r", now).unwrap();
            // What was under way meanwhile changes nothing.
            backoffs.heard("n", "r", error, now.after(Duration::from_secs(1)));
            assert_eq!(backoffs.until("r", now), Some(until));
            waits.push(until.since(now).as_secs());
            now = until;
        }
        for (wait, least) in waits.iter().zip([30, 60, 120, 240, 480, 600, 600, 600]) {
            assert!((least..=least * 3 / 2).contains(wait), "{waits:?}");
        }
        assert_eq!(backoffs.until("s", now), None);
        backoffs.heard("n", "r", Answered::Well, now);
        backoffs.heard("n", "r", error, now);
        let until = backoffs.until("r", now).unwrap();
        assert!(until.since(now) <= Duration::from_secs(45));
    }

    #[test]
    fn retry_after_is_honoured_within_a_day() {
        for (asked, least, most) in [(300, 300, 450), (5, 60, 90), (1_000_000, 86_400, 129_600)] {
            let mut backoffs = Backoffs::default();
            let retry_after = Some(Duration::from_secs(asked));
            backoffs.heard("n", "r", Answered::TooMany { retry_after }, at(0));
            let wait = backoffs.until("r", at(0)).unwrap().since(at(0)).as_secs();
            assert!((least..=most).contains(&wait), "{asked}: {wait}");
        }
    }
}
