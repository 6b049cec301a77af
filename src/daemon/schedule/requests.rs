//! Requests to a registry per minute, and the registry's own rate limit. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::Moment;
use crate::model::evidence::RateLimit;

/// A token bucket for each registry, which its token service and blob storage share.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct RequestBuckets {
    requests: BTreeMap<String, Tokens>,
    #[serde(skip)]
    rate_limits: BTreeMap<String, RateLimit>,
}

/// A token bucket of requests.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    left: f64,
    at: Moment,
}

impl RequestBuckets {
    /// Takes requests from a registry's bucket, which holds those of a minute.
    ///
    /// # Errors
    /// If there are not enough: the moment at which there will be.
    pub fn take(
        &mut self,
        per_minute: u32,
        registry: &str,
        requests: u32,
        now: Moment,
    ) -> Result<(), Moment> {
        let most = f64::from(per_minute);
        let a_second = most / 60.0;
        let tokens = self.requests.entry(registry.to_owned()).or_insert(Tokens {
            left: most,
            at: now,
        });
        tokens.left = (tokens.left + now.since(tokens.at).as_secs_f64() * a_second).min(most);
        tokens.at = tokens.at.max(now);
        // A check that needs more than the bucket holds waits until it is full.
        let needed = f64::from(requests).min(most);
        if tokens.left + 1e-9 < needed {
            let wait = (needed - tokens.left) / a_second.max(1e-9);
            return Err(now.after(Duration::from_secs_f64(wait.min(3600.0))));
        }
        tokens.left -= f64::from(requests);
        Ok(())
    }

    /// Books requests that were sent beyond those taken; the bucket may become negative. A negative number
    /// returns requests that were not sent.
    pub fn charge(&mut self, registry: &str, requests: f64) {
        if let Some(tokens) = self.requests.get_mut(registry) {
            tokens.left -= requests;
        }
    }

    /// Keeps a registry's rate limit. It is not saved over restarts, since the next response has it again.
    pub fn note_rate_limit(&mut self, registry: &str, limit: &RateLimit) {
        self.rate_limits.insert(registry.to_owned(), limit.clone());
    }

    /// Whether less than `floor` of a registry's rate limit is left, so that only free requests may be sent.
    pub fn is_low(&self, floor: f64, registry: &str) -> bool {
        let known = self.rate_limits.get(registry);
        let Some((limit, left)) = known.and_then(|known| known.limit.zip(known.remaining)) else {
            return false;
        };
        #[expect(clippy::cast_precision_loss, reason = "limits are some hundreds")]
        let share = left as f64 / limit.max(1) as f64;
        share < floor
    }

    /// Drops registries that are no longer used.
    pub fn tidy(&mut self, registries: &dyn Fn(&str) -> bool) {
        self.requests.retain(|name, _| registries(name));
        self.rate_limits.retain(|name, _| registries(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(86_400 * 20_000 + seconds))
    }

    #[test]
    fn requests_come_back_with_time() {
        let mut buckets = RequestBuckets::default();
        for _ in 0..15 {
            assert_eq!(buckets.take(60, "r", 4, at(0)), Ok(()));
        }
        let when = buckets.take(60, "r", 4, at(0)).unwrap_err();
        assert_eq!(when, at(4));
        assert_eq!(buckets.take(60, "s", 4, at(0)), Ok(()));
        assert_eq!(buckets.take(60, "r", 4, when), Ok(()));
        assert!(buckets.take(60, "r", 1, when).is_err());
        // More than a whole bucket: when it is full.
        assert_eq!(buckets.take(60, "r", 90, at(200)), Ok(()));
        let when = buckets.take(60, "r", 4, at(200)).unwrap_err();
        assert_eq!(when, at(234));
        // As if they had not been sent.
        buckets.charge("r", -34.0);
        assert_eq!(buckets.take(60, "r", 4, at(200)), Ok(()));
    }

    #[test]
    fn little_headroom_is_seen_and_unknown_is_not_little() {
        let mut buckets = RequestBuckets::default();
        assert!(!buckets.is_low(0.1, "r"));
        for (limit, remaining, low) in [
            (Some(100), Some(9), true),
            (Some(100), Some(10), false),
            (Some(100), None, false),
            (None, Some(0), false),
            (Some(0), Some(0), true),
        ] {
            let known = RateLimit {
                limit,
                remaining,
                window_seconds: None,
                source: None,
            };
            buckets.note_rate_limit("r", &known);
            assert_eq!(buckets.is_low(0.1, "r"), low, "{limit:?} {remaining:?}");
        }
    }
}
