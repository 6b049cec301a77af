//! Requests to a registry per minute, and the registry's own rate limit. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::clock::Moment;
use crate::model::evidence::RateLimit;
use crate::workload::share::KEPT;

/// Requests of a usual check: `/v2/`, token, manifest, layer.
pub const USUAL_REQUESTS: u32 = 4;

/// A token bucket for each registry, which its token service and blob storage share.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct RequestBuckets {
    requests: BTreeMap<String, Tokens>,
    #[serde(skip)]
    rate_limits: BTreeMap<String, RateLimit>,
}

/// A token bucket of requests.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    left: f64,
    at: Moment,
    /// What each namespace has left of its share; one that is not listed has all of it. Negative: it owes requests that
    /// others had no part in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    shares: BTreeMap<String, f64>,
}

/// Why requests can't be sent now, and when they can.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exhausted {
    /// The metric label.
    pub reason: &'static str,
    /// An estimate if others use the bucket meanwhile.
    pub until: Moment,
}

impl RequestBuckets {
    /// Takes requests from a registry's bucket, which holds those of a minute. A namespace that has had its share leaves
    /// a part to the others.
    ///
    /// # Errors
    /// If there are not enough.
    pub fn take(
        &mut self,
        per_minute: u32,
        account: &Account<'_>,
        requests: u32,
        now: Moment,
    ) -> Result<(), Exhausted> {
        let most = f64::from(per_minute);
        let tokens = self.requests.entry(account.registry.to_owned());
        let tokens = tokens.or_insert_with(|| Tokens {
            left: most,
            at: now,
            shares: BTreeMap::new(),
        });
        let bounds = Bounds::of(most, account);
        tokens.fill(&bounds, now);
        tokens.may_take(&bounds, account, f64::from(requests), now)?;
        tokens.left -= f64::from(requests);
        if account.is_shared() {
            let own = tokens.own(&bounds, account) - f64::from(requests);
            tokens
                .shares
                .insert(account.namespace.to_owned(), own.max(0.0));
        }
        Ok(())
    }

    /// Books requests that were sent beyond those taken. The bucket may become negative, but what is kept for other
    /// namespaces stays theirs: the rest is owed by this one. A negative number returns requests that were not sent.
    pub fn charge(&mut self, per_minute: u32, account: &Account<'_>, requests: f64) {
        let bounds = Bounds::of(f64::from(per_minute), account);
        let Some(tokens) = self.requests.get_mut(account.registry) else {
            return;
        };
        if !account.is_shared() {
            tokens.left -= requests;
            return;
        }
        let above = (tokens.left - bounds.kept).max(0.0);
        let from_all = if bounds.kept > 0.0 {
            requests.min(above)
        } else {
            requests
        };
        tokens.left -= from_all;
        let own = tokens.own(&bounds, account);
        let own = (own - from_all).max(own.min(0.0)) - (requests - from_all);
        let own = own.min(bounds.share);
        tokens.shares.insert(account.namespace.to_owned(), own);
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

/// How a bucket is shared.
struct Bounds {
    most: f64,
    /// The share of one namespace.
    share: f64,
    /// For those that have not had their share.
    kept: f64,
}

impl Bounds {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a node has some hundred namespaces"
    )]
    fn of(most: f64, account: &Account<'_>) -> Self {
        let sharers = account.of_registry.max(1);
        let is_alone = sharers == 1 || !account.is_shared();
        Self {
            most,
            share: most / sharers as f64,
            // Enough for a check, however small the budget is.
            kept: if is_alone {
                0.0
            } else {
                (most * KEPT).max(f64::from(USUAL_REQUESTS)).min(most)
            },
        }
    }
}

impl Tokens {
    /// Adds what has come back since the last time: first what is kept, then what is owed, then the rest.
    fn fill(&mut self, bounds: &Bounds, now: Moment) {
        let seconds = now.since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let mut more = seconds * bounds.most / 60.0;
        let of_kept = (bounds.kept - self.left).clamp(0.0, more);
        self.left += of_kept;
        more -= of_kept;
        for own in self.shares.values_mut() {
            let owed = (-*own).clamp(0.0, more);
            more -= owed;
            if *own < 0.0 {
                *own += owed;
            } else {
                *own += seconds * bounds.share / 60.0;
            }
        }
        self.shares.retain(|_, own| *own < bounds.share);
        self.left = (self.left + more).min(bounds.most);
    }

    fn own(&self, bounds: &Bounds, account: &Account<'_>) -> f64 {
        let own = self.shares.get(account.namespace).copied();
        own.unwrap_or(bounds.share)
    }

    fn may_take(
        &self,
        bounds: &Bounds,
        account: &Account<'_>,
        requests: f64,
        now: Moment,
    ) -> Result<(), Exhausted> {
        // A check that needs more than the bucket holds waits until it is full.
        let needed = requests.min(bounds.most);
        let needed_with_kept = (requests + bounds.kept).min(bounds.most);
        let needed_of_share = requests.min(bounds.share);
        let own = self.own(bounds, account);
        let is_within = |has: f64, needed: f64| has + 1e-9 >= needed;
        let has = is_within(self.left, needed);
        let may = own >= 0.0
            && (is_within(own, needed_of_share) || is_within(self.left, needed_with_kept));
        if has && may {
            return Ok(());
        }
        let a_second = (bounds.most / 60.0).max(1e-9);
        let owed: f64 = self.shares.values().map(|own| (-own).max(0.0)).sum();
        let lacks = |needed: f64| (needed - self.left).max(0.0) / a_second;
        let with_others = lacks(needed_with_kept) + owed / a_second;
        let of_share = (needed_of_share - own.max(0.0)) / (bounds.share / 60.0).max(1e-9);
        let wait = if own < 0.0 {
            with_others
        } else {
            with_others.min(of_share.max(lacks(needed)))
        };
        Err(Exhausted {
            reason: if has {
                "namespace_requests"
            } else {
                "registry_requests"
            },
            until: now.after(Duration::from_secs_f64(wait.clamp(1e-3, 3600.0))),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(86_400 * 20_000 + seconds))
    }

    fn of(registry: &str) -> Account<'_> {
        Account::of_operator("t", registry)
    }

    fn take(
        buckets: &mut RequestBuckets,
        registry: &str,
        requests: u32,
        now: Moment,
    ) -> Result<(), Moment> {
        let taken = buckets.take(60, &of(registry), requests, now);
        taken.map_err(|exhausted| exhausted.until)
    }

    #[test]
    fn requests_come_back_with_time() {
        let mut buckets = RequestBuckets::default();
        for _ in 0..15 {
            assert_eq!(take(&mut buckets, "r", 4, at(0)), Ok(()));
        }
        let when = take(&mut buckets, "r", 4, at(0)).unwrap_err();
        assert_eq!(when, at(4));
        assert_eq!(take(&mut buckets, "s", 4, at(0)), Ok(()));
        assert_eq!(take(&mut buckets, "r", 4, when), Ok(()));
        assert!(take(&mut buckets, "r", 1, when).is_err());
        // More than a whole bucket: when it is full.
        assert_eq!(take(&mut buckets, "r", 90, at(200)), Ok(()));
        let when = take(&mut buckets, "r", 4, at(200)).unwrap_err();
        assert_eq!(when, at(234));
        // As if they had not been sent.
        buckets.charge(60, &of("r"), -34.0);
        assert_eq!(take(&mut buckets, "r", 4, at(200)), Ok(()));
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

    fn shared(namespace: &str, sharers: usize) -> Account<'_> {
        Account {
            namespace,
            of_node: sharers,
            of_registry: sharers,
            ..of("r")
        }
    }

    /// How many checks of four requests a namespace can make at once, and why not more.
    fn checks(
        buckets: &mut RequestBuckets,
        account: &Account<'_>,
        now: Moment,
    ) -> (usize, Exhausted) {
        let mut made = 0;
        loop {
            match buckets.take(100, account, 4, now) {
                Ok(()) => made += 1,
                Err(exhausted) => return (made, exhausted),
            }
        }
    }

    #[test]
    fn a_namespace_that_had_its_share_leaves_the_rest_to_the_others() {
        let mut buckets = RequestBuckets::default();
        let (made, why) = checks(&mut buckets, &shared("big", 3), at(0));
        assert_eq!((made, why.reason), (17, "namespace_requests"));
        // Two more requests come back to all sooner than four to its share.
        assert_eq!(why.until, at(0).after(Duration::from_secs_f64(1.2)));
        let (made, why) = checks(&mut buckets, &shared("small", 3), at(0));
        assert_eq!((made, why.reason), (8, "registry_requests"));
        // Alone, or as the operator, it has all.
        for account in [shared("big", 1), shared("", 3)] {
            let mut buckets = RequestBuckets::default();
            let (made, why) = checks(&mut buckets, &account, at(0));
            assert_eq!((made, why.reason), (25, "registry_requests"));
        }
    }

    #[test]
    fn a_check_with_very_many_requests_is_paid_for_by_its_own_namespace() {
        let (mut buckets, big) = (RequestBuckets::default(), shared("big", 3));
        buckets.take(100, &big, 4, at(0)).unwrap();
        buckets.charge(100, &big, 400.0);
        let (made, why) = checks(&mut buckets, &shared("small", 3), at(0));
        assert_eq!((made, why.reason), (7, "registry_requests"));
        // What is kept for others comes back first, and then what big owes.
        let mut whole = buckets.clone();
        assert_eq!(checks(&mut whole, &shared("other", 3), at(18)).0, 7);
        let mut owed = buckets.clone();
        let (made, why) = checks(&mut owed, &big, at(18));
        assert_eq!((made, why.reason), (0, "namespace_requests"));
        assert!(why.until > at(180), "{why:?}");
        assert_eq!(checks(&mut owed, &big, why.until).0, 1);
        // Restored from a file, it still owes.
        let written = serde_json::to_string(&buckets).unwrap();
        let mut read: RequestBuckets = serde_json::from_str(&written).unwrap();
        assert_eq!(checks(&mut read, &big, at(18)).0, 0);
    }

    #[test]
    fn what_was_not_sent_is_returned_to_the_share() {
        let (mut buckets, big) = (RequestBuckets::default(), shared("big", 3));
        let before = checks(&mut buckets.clone(), &big, at(0));
        buckets.take(100, &big, 4, at(0)).unwrap();
        buckets.charge(100, &big, -4.0);
        assert_eq!(checks(&mut buckets, &big, at(0)), before);
    }

    proptest! {
        /// Whatever one sends: another that had nothing gets a check at once, and each gets one if it waits.
        #[test]
        fn each_namespace_can_make_checks(
            per_minute in 4_u32..600,
            sharers in 2_usize..60,
            steps in proptest::collection::vec((0_u64..30, 0_u32..300), 1..50),
        ) {
            let (mut buckets, mut now) = (RequestBuckets::default(), at(0));
            let (big, small) = (shared("big", sharers), shared("small", sharers));
            for (seconds, beyond) in steps {
                now = now.after(Duration::from_secs(seconds));
                if buckets.take(per_minute, &big, 4, now).is_ok() {
                    buckets.charge(per_minute, &big, f64::from(beyond));
                }
                prop_assert!(buckets.requests["r"].left <= f64::from(per_minute));
            }
            if f64::from(per_minute) * KEPT >= 4.0 {
                prop_assert_eq!(buckets.clone().take(per_minute, &small, 4, now), Ok(()));
            }
            for account in [&small, &big] {
                let mut waits = 0;
                while let Err(exhausted) = buckets.take(per_minute, account, 4, now) {
                    prop_assert!(exhausted.until > now && waits < 40, "{exhausted:?}");
                    now = exhausted.until;
                    waits += 1;
                }
            }
        }
    }
}
