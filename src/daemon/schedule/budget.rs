//! What checks may spend, what they have spent, and who is to be left alone. Pure; what must outlive
//! a restart is written down, so that a crash loop spends nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::schedule::{Moment, hash, share};
use crate::model::credential::CredentialId;
use crate::model::evidence::{Attempt, RateLimit};
use crate::model::units::Bytes;

/// What a node may spend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// By transfer tests, in a day (UTC).
    pub node_bytes_per_day: Bytes,
    pub target_bytes_per_day: Bytes,
    pub registry_bytes_per_day: Bytes,
    /// Towards one registry, its token service and its storage together; as many at once after a
    /// quiet minute.
    pub registry_requests_per_minute: u32,
    /// Below this share of a rate limit, only what is known to be free goes on.
    pub rate_limit_floor: f64,
}

/// Whose budget does not allow it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spent {
    Node,
    Target,
    Registry,
}

impl Spent {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node_bytes",
            Self::Target => "target_bytes",
            Self::Registry => "registry_bytes",
        }
    }
}

/// Bytes that a transfer test may read, taken from the budgets before it begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reserved {
    pub bytes: Bytes,
    day: u64,
}

/// A rate measured with less is not worth having (slow start, and 1.3 MB at 10 Mbit/s).
const LEAST_WORTH: Bytes = Bytes(2 << 20);

/// How long a credential that was rejected is not tried again, unless it changes: registries lock
/// accounts after some wrong passwords in a short time, and there are many nodes.
pub const REJECTED_REST: Duration = Duration::from_hours(1);

/// The same where nodes take turns with it: counted from when it was known last that another one has
/// tried it, since the API server may be away for long.
pub const REJECTED_REST_SHARED: Duration = Duration::from_hours(24);

/// The first wait after a registry said that it is too much (429), when it did not say how long.
const TOO_MANY_FIRST: Duration = Duration::from_mins(1);
const TOO_MANY_MOST: Duration = Duration::from_hours(1);

/// The same after an error of the server (5xx): shorter, since an outage's end should be seen.
const ERROR_FIRST: Duration = Duration::from_secs(30);
const ERROR_MOST: Duration = Duration::from_mins(10);

/// No `Retry-After` counts for more.
const RETRY_AFTER_MOST: Duration = Duration::from_hours(24);

/// The book. What an earlier version wrote besides is left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Ledger {
    /// That the bytes below were spent on, in days since the epoch.
    day: u64,
    node: Bytes,
    targets: BTreeMap<String, Bytes>,
    registries: BTreeMap<String, Bytes>,
    requests: BTreeMap<String, Tokens>,
    /// Registries that asked to be left alone.
    waits: BTreeMap<String, Wait>,
    /// By registry, then by source and key of the credential.
    rejected: BTreeMap<String, Vec<Rejected>>,
    /// Last transfer tests.
    transfers: BTreeMap<String, Moment>,
    #[serde(skip)]
    rate_limits: BTreeMap<String, RateLimit>,
}

/// A bucket of requests.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    left: f64,
    at: Moment,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    until: Moment,
    /// How often in a row.
    times: u32,
}

/// A credential that was rejected.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// Tells whether the credential is still the same: 16 bits of a keyed hash. Enough for that, and
    /// too few to find a password by.
    pub tag: u16,
    pub at: Moment,
    /// When another node was known to have tried it, for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Moment>,
    /// Until when this node may try it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_until: Option<Moment>,
    /// What the registry said then.
    pub attempt: Attempt,
}

impl Rejected {
    fn rests(&self, rest: Duration, now: Moment) -> bool {
        if now.since(self.at) < REJECTED_REST {
            return true;
        }
        if self.may_until.is_some_and(|until| now < until) {
            return false;
        }
        let last = self.confirmed.map_or(self.at, |at| at.max(self.at));
        now.since(last) < rest
    }
}

/// What a registry said, as far as it bears on when to ask again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answered {
    Well,
    TooMany { retry_after: Option<Duration> },
    ServerError { retry_after: Option<Duration> },
}

impl Ledger {
    /// Takes up to `wish` bytes from the three budgets.
    ///
    /// # Errors
    /// Whose budget is spent.
    pub fn reserve(
        &mut self,
        limits: &Limits,
        target: &str,
        registry: &str,
        wish: Bytes,
        now: Moment,
    ) -> Result<Reserved, Spent> {
        self.turn_page(now);
        let spent = |book: &BTreeMap<String, Bytes>, name| book.get(name).map_or(0, |b| b.0);
        let left = [
            (Spent::Node, limits.node_bytes_per_day, self.node.0),
            (
                Spent::Registry,
                limits.registry_bytes_per_day,
                spent(&self.registries, registry),
            ),
            (
                Spent::Target,
                limits.target_bytes_per_day,
                spent(&self.targets, target),
            ),
        ]
        .map(|(whose, limit, spent)| (limit.0.saturating_sub(spent), whose));
        let (least, whose) = left
            .into_iter()
            .min_by_key(|(left, _)| *left)
            .unwrap_or((0, Spent::Node));
        let bytes = Bytes(wish.0.min(least));
        if bytes.0 < LEAST_WORTH.0.min(wish.0) {
            return Err(whose);
        }
        self.add(target, registry, bytes);
        self.transfers.insert(target.to_owned(), now);
        Ok(Reserved {
            bytes,
            day: self.day,
        })
    }

    /// Gives back all that was taken for a test that was not made; `last` is when the one before was.
    pub fn give_back(
        &mut self,
        target: &str,
        registry: &str,
        reserved: Reserved,
        requests: u32,
        last: Option<Moment>,
        now: Moment,
    ) {
        self.settle(target, registry, reserved, Bytes(0), now);
        if let Some(tokens) = self.requests.get_mut(registry) {
            tokens.left += f64::from(requests);
        }
        match last {
            Some(last) => self.transfers.insert(target.to_owned(), last),
            None => self.transfers.remove(target),
        };
    }

    /// Gives back what a test did not read. More than was reserved counts too.
    pub fn settle(
        &mut self,
        target: &str,
        registry: &str,
        reserved: Reserved,
        used: Bytes,
        now: Moment,
    ) {
        self.turn_page(now);
        if used.0 > reserved.bytes.0 {
            self.add(target, registry, Bytes(used.0 - reserved.bytes.0));
        } else if self.day == reserved.day {
            let back = reserved.bytes.0 - used.0;
            self.node.0 = self.node.0.saturating_sub(back);
            for (book, name) in [
                (&mut self.targets, target),
                (&mut self.registries, registry),
            ] {
                if let Some(bytes) = book.get_mut(name) {
                    bytes.0 = bytes.0.saturating_sub(back);
                }
            }
        }
    }

    fn add(&mut self, target: &str, registry: &str, bytes: Bytes) {
        self.node.0 = self.node.0.saturating_add(bytes.0);
        for (book, name) in [
            (&mut self.targets, target),
            (&mut self.registries, registry),
        ] {
            let spent = book.entry(name.to_owned()).or_insert(Bytes(0));
            spent.0 = spent.0.saturating_add(bytes.0);
        }
    }

    /// A new day. A clock that went back gives nothing back.
    fn turn_page(&mut self, now: Moment) {
        if now.day() > self.day {
            self.day = now.day();
            self.node = Bytes(0);
            self.targets.clear();
            self.registries.clear();
        }
    }

    /// What transfer tests of this node may still read today.
    pub fn bytes_left(&self, limits: &Limits, now: Moment) -> Bytes {
        let spent = if now.day() > self.day { 0 } else { self.node.0 };
        Bytes(limits.node_bytes_per_day.0.saturating_sub(spent))
    }

    /// When the last transfer test of a target began.
    pub fn last_transfer(&self, target: &str) -> Option<Moment> {
        self.transfers.get(target).copied()
    }

    /// Takes requests from a registry's bucket.
    ///
    /// # Errors
    /// When there will be enough.
    pub fn take_requests(
        &mut self,
        limits: &Limits,
        registry: &str,
        requests: u32,
        now: Moment,
    ) -> Result<(), Moment> {
        let most = f64::from(limits.registry_requests_per_minute);
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

    /// Books requests that were sent beyond those that were taken; the bucket may owe some.
    pub fn charge(&mut self, registry: &str, requests: u32) {
        if let Some(tokens) = self.requests.get_mut(registry) {
            tokens.left -= f64::from(requests);
        }
    }

    /// Until when a registry is to be left alone.
    pub fn waits_until(&self, registry: &str, now: Moment) -> Option<Moment> {
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

    /// Keeps what became of a credential.
    pub fn reject(&mut self, registry: &str, rejected: Rejected) {
        let list = self.rejected.entry(registry.to_owned()).or_default();
        list.retain(|known| known.attempt.credential != rejected.attempt.credential);
        list.push(rejected);
    }

    /// The credential was let in.
    pub fn accept(&mut self, registry: &str, attempt: &Attempt) {
        if let Some(list) = self.rejected.get_mut(registry) {
            list.retain(|known| known.attempt.credential != attempt.credential);
            if list.is_empty() {
                self.rejected.remove(registry);
            }
        }
    }

    /// Credentials of a registry that rest for so long, the moment given being now.
    pub fn resting(&self, rest: Duration, registry: &str, now: Moment) -> Vec<&Rejected> {
        let list = self.rejected.get(registry).map_or(&[][..], Vec::as_slice);
        list.iter().filter(|known| known.rests(rest, now)).collect()
    }

    /// Another node has tried it, and rests.
    pub fn confirm(&mut self, registry: &str, credential: &CredentialId, now: Moment) {
        let list = self.rejected.get_mut(registry);
        for known in list.into_iter().flatten() {
            if known.attempt.credential.as_ref() == Some(credential) {
                known.confirmed = Some(now);
            }
        }
    }

    /// All credentials that were rejected, each with its registry.
    pub fn rejected(&self) -> impl Iterator<Item = (&str, &Rejected)> {
        let all = self.rejected.iter();
        all.flat_map(|(registry, list)| list.iter().map(move |one| (registry.as_str(), one)))
    }

    /// It may be tried until a moment, which tells whether it rests again. Not for longer: who could not
    /// try it, since the registry was away, would do so together with all whose turn came after.
    pub fn let_try(&mut self, registry: &str, credential: &CredentialId, until: Moment) {
        let list = self.rejected.get_mut(registry);
        for known in list.into_iter().flatten() {
            if known.attempt.credential.as_ref() == Some(credential) {
                known.may_until = Some(until);
            }
        }
    }

    /// What a registry said of its rate limit; it is not kept across restarts, since it costs nothing
    /// to hear again.
    pub fn note_rate_limit(&mut self, registry: &str, limit: &RateLimit) {
        self.rate_limits.insert(registry.to_owned(), limit.clone());
    }

    pub fn rate_limit(&self, registry: &str) -> Option<&RateLimit> {
        self.rate_limits.get(registry)
    }

    /// So little is left of a registry's rate limit that only what is free goes on.
    pub fn is_low(&self, limits: &Limits, registry: &str) -> bool {
        let known = self.rate_limits.get(registry);
        let Some((limit, left)) = known.and_then(|known| known.limit.zip(known.remaining)) else {
            return false;
        };
        #[expect(clippy::cast_precision_loss, reason = "limits are some hundreds")]
        let share = left as f64 / limit.max(1) as f64;
        share < limits.rate_limit_floor
    }

    /// Forgets what is of no use any more, so that the book stays as short as the list of targets.
    pub fn tidy(
        &mut self,
        targets: &dyn Fn(&str) -> bool,
        registries: &dyn Fn(&str) -> bool,
        rest: Duration,
        now: Moment,
    ) {
        self.turn_page(now);
        self.transfers.retain(|name, _| targets(name));
        self.requests.retain(|name, _| registries(name));
        self.waits.retain(|name, _| registries(name));
        self.rate_limits.retain(|name, _| registries(name));
        self.rejected.retain(|name, list| {
            list.retain(|known| {
                known.may_until.is_some_and(|until| now < until) || known.rests(rest, now)
            });
            registries(name) && !list.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::credential::CredentialSource;
    use crate::model::evidence::{Skip, Step};

    const LIMITS: Limits = Limits {
        node_bytes_per_day: Bytes(64 << 20),
        target_bytes_per_day: Bytes(32 << 20),
        registry_bytes_per_day: Bytes(48 << 20),
        registry_requests_per_minute: 60,
        rate_limit_floor: 0.1,
    };
    const TEST: Bytes = Bytes(16 << 20);

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(86_400 * 20_000 + seconds))
    }

    fn rejected(tag: u16, when: Moment) -> Rejected {
        Rejected {
            tag,
            at: when,
            confirmed: None,
            may_until: None,
            attempt: Attempt {
                challenge: None,
                served_to_get: false,
                credential: None,
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

    #[test]
    fn no_budget_is_overdrawn_and_a_new_day_fills_all() {
        let mut ledger = Ledger::default();
        let reserve = |ledger: &mut Ledger, target, registry, now| {
            ledger
                .reserve(&LIMITS, target, registry, TEST, now)
                .map(|reserved| reserved.bytes)
        };
        assert_eq!(reserve(&mut ledger, "a", "r", at(0)), Ok(TEST));
        assert_eq!(reserve(&mut ledger, "a", "r", at(1)), Ok(TEST));
        assert_eq!(reserve(&mut ledger, "a", "r", at(2)), Err(Spent::Target));
        assert_eq!(reserve(&mut ledger, "b", "r", at(3)), Ok(TEST));
        assert_eq!(reserve(&mut ledger, "b", "r", at(4)), Err(Spent::Registry));
        assert_eq!(reserve(&mut ledger, "c", "s", at(5)), Ok(TEST));
        assert_eq!(reserve(&mut ledger, "d", "s", at(6)), Err(Spent::Node));
        assert_eq!(ledger.bytes_left(&LIMITS, at(6)), Bytes(0));
        assert_eq!(reserve(&mut ledger, "a", "r", at(86_399)), Err(Spent::Node));
        assert_eq!(ledger.bytes_left(&LIMITS, at(86_400)), Bytes(64 << 20));
        assert_eq!(reserve(&mut ledger, "a", "r", at(86_400)), Ok(TEST));
        // The clock went back.
        assert_eq!(reserve(&mut ledger, "a", "r", at(3)), Ok(TEST));
        assert_eq!(reserve(&mut ledger, "a", "r", at(4)), Err(Spent::Target));
    }

    #[test]
    fn what_was_not_read_is_given_back_and_a_rest_too_small_is_not_spent() {
        let mut ledger = Ledger::default();
        let first = ledger.reserve(&LIMITS, "a", "r", TEST, at(0)).unwrap();
        ledger.settle("a", "r", first, Bytes(3 << 20), at(5));
        assert_eq!(ledger.bytes_left(&LIMITS, at(5)), Bytes(61 << 20));
        let second = ledger.reserve(&LIMITS, "a", "r", TEST, at(6)).unwrap();
        // More than allowed was read: that counts, too.
        ledger.settle("a", "r", second, Bytes(17 << 20), at(9));
        assert_eq!(ledger.bytes_left(&LIMITS, at(9)), Bytes(44 << 20));
        // 12 MiB are left of the target's 32.
        let third = ledger.reserve(&LIMITS, "a", "r", TEST, at(10)).unwrap();
        assert_eq!(third.bytes, Bytes(12 << 20));
        ledger.settle("a", "r", third, Bytes(11 << 20), at(12));
        assert_eq!(
            ledger.reserve(&LIMITS, "a", "r", TEST, at(13)),
            Err(Spent::Target)
        );
        // A small test asks for less than what is else worth having.
        assert!(
            ledger
                .reserve(&LIMITS, "a", "r", Bytes(1 << 20), at(13))
                .is_ok()
        );
    }

    #[test]
    fn what_is_given_back_after_midnight_is_not_tomorrows() {
        let mut ledger = Ledger::default();
        let late = ledger.reserve(&LIMITS, "a", "r", TEST, at(86_399)).unwrap();
        let early = ledger.reserve(&LIMITS, "b", "r", TEST, at(86_401)).unwrap();
        ledger.settle("a", "r", late, Bytes(0), at(86_402));
        assert_eq!(ledger.bytes_left(&LIMITS, at(86_402)), Bytes(48 << 20));
        ledger.settle("b", "r", early, TEST, at(86_403));
        assert_eq!(ledger.bytes_left(&LIMITS, at(86_403)), Bytes(48 << 20));
    }

    #[test]
    fn requests_come_back_with_time() {
        let mut ledger = Ledger::default();
        for _ in 0..15 {
            assert_eq!(ledger.take_requests(&LIMITS, "r", 4, at(0)), Ok(()));
        }
        let when = ledger.take_requests(&LIMITS, "r", 4, at(0)).unwrap_err();
        assert_eq!(when, at(4));
        assert_eq!(ledger.take_requests(&LIMITS, "s", 4, at(0)), Ok(()));
        assert_eq!(ledger.take_requests(&LIMITS, "r", 4, when), Ok(()));
        assert!(ledger.take_requests(&LIMITS, "r", 1, when).is_err());
        // More than a whole bucket: when it is full.
        assert_eq!(ledger.take_requests(&LIMITS, "r", 90, at(200)), Ok(()));
        let when = ledger.take_requests(&LIMITS, "r", 4, at(200)).unwrap_err();
        assert_eq!(when, at(234));
    }

    #[test]
    fn waits_double_up_to_a_bound_and_end_with_a_good_answer() {
        let mut ledger = Ledger::default();
        let error = Answered::ServerError { retry_after: None };
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            ledger.heard("n", "r", error, now);
            let until = ledger.waits_until("r", now).unwrap();
            // What was under way meanwhile changes nothing.
            ledger.heard("n", "r", error, now.after(Duration::from_secs(1)));
            assert_eq!(ledger.waits_until("r", now), Some(until));
            waits.push(until.since(now).as_secs());
            now = until;
        }
        for (wait, least) in waits.iter().zip([30, 60, 120, 240, 480, 600, 600, 600]) {
            assert!((least..=least * 3 / 2).contains(wait), "{waits:?}");
        }
        assert_eq!(ledger.waits_until("s", now), None);
        ledger.heard("n", "r", Answered::Well, now);
        ledger.heard("n", "r", error, now);
        let until = ledger.waits_until("r", now).unwrap();
        assert!(until.since(now) <= Duration::from_secs(45));
    }

    #[test]
    fn retry_after_is_honoured_within_a_day() {
        for (asked, least, most) in [(300, 300, 450), (5, 60, 90), (1_000_000, 86_400, 129_600)] {
            let mut ledger = Ledger::default();
            let retry_after = Some(Duration::from_secs(asked));
            ledger.heard("n", "r", Answered::TooMany { retry_after }, at(0));
            let wait = ledger
                .waits_until("r", at(0))
                .unwrap()
                .since(at(0))
                .as_secs();
            assert!((least..=most).contains(&wait), "{asked}: {wait}");
        }
    }

    #[test]
    fn a_rejected_credential_rests_an_hour() {
        let mut ledger = Ledger::default();
        ledger.reject("r", rejected(7, at(0)));
        assert_eq!(ledger.resting(REJECTED_REST, "r", at(3599)).len(), 1);
        assert_eq!(ledger.resting(REJECTED_REST, "r", at(3600)).len(), 0);
        assert_eq!(ledger.resting(REJECTED_REST, "s", at(0)).len(), 0);
        // The same one again: once.
        ledger.reject("r", rejected(8, at(10)));
        let resting = ledger.resting(REJECTED_REST, "r", at(20));
        assert_eq!((resting.len(), resting[0].tag), (1, 8));
        let attempt = resting[0].attempt.clone();
        ledger.accept("r", &attempt);
        assert_eq!(ledger.resting(REJECTED_REST, "r", at(20)).len(), 0);
    }

    #[test]
    fn a_shared_rest_is_as_long_as_others_try_and_ends_where_this_node_may() {
        let mut ledger = Ledger::default();
        let id = CredentialId {
            source: CredentialSource::CommandLine,
            key: "r".to_owned(),
        };
        let mut one = rejected(7, at(0));
        one.attempt.credential = Some(id.clone());
        ledger.reject("r", one);
        let day = REJECTED_REST_SHARED.as_secs();
        let rests = |ledger: &Ledger, when| {
            !ledger
                .resting(REJECTED_REST_SHARED, "r", at(when))
                .is_empty()
        };
        assert!(rests(&ledger, day - 1) && !rests(&ledger, day));
        ledger.confirm("r", &id, at(day - 1));
        assert!(rests(&ledger, day) && !rests(&ledger, 2 * day));
        ledger.let_try("s", &id, at(day + 600));
        assert!(rests(&ledger, day));
        ledger.let_try("r", &id, at(day + 600));
        assert!(!rests(&ledger, day) && rests(&ledger, day + 600));
        // Never twice in an hour.
        ledger.reject(
            "r",
            Rejected {
                attempt: ledger.rejected["r"][0].attempt.clone(),
                ..rejected(7, at(day))
            },
        );
        ledger.let_try("r", &id, at(day + 7200));
        assert!(rests(&ledger, day + 3599) && !rests(&ledger, day + 3600));
    }

    #[test]
    fn a_test_that_was_not_made_has_cost_nothing() {
        let mut ledger = Ledger::default();
        let whole = ledger.bytes_left(&LIMITS, at(0));
        for last in [None, Some(at(5))] {
            if let Some(last) = last {
                ledger.transfers.insert("a".to_owned(), last);
            }
            ledger.take_requests(&LIMITS, "r", 4, at(10)).unwrap();
            let reserved = ledger.reserve(&LIMITS, "a", "r", TEST, at(10)).unwrap();
            ledger.give_back("a", "r", reserved, 4, last, at(11));
            assert_eq!(ledger.bytes_left(&LIMITS, at(11)), whole);
            assert_eq!(ledger.last_transfer("a"), last);
            assert_eq!(ledger.take_requests(&LIMITS, "r", 60, at(11)), Ok(()));
            ledger.requests.clear();
        }
    }

    #[test]
    fn little_headroom_is_seen_and_unknown_is_not_little() {
        let mut ledger = Ledger::default();
        assert!(!ledger.is_low(&LIMITS, "r"));
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
            ledger.note_rate_limit("r", &known);
            assert_eq!(ledger.is_low(&LIMITS, "r"), low, "{limit:?} {remaining:?}");
        }
    }

    #[test]
    fn the_book_survives_being_written_and_stays_short() {
        let mut ledger = Ledger::default();
        ledger.reserve(&LIMITS, "a", "r", TEST, at(0)).unwrap();
        ledger.take_requests(&LIMITS, "r", 50, at(0)).unwrap();
        ledger.heard("n", "r", Answered::TooMany { retry_after: None }, at(0));
        ledger.reject("r", rejected(7, at(0)));
        let text = serde_json::to_string(&ledger).unwrap();
        let mut read: Ledger = serde_json::from_str(&text).unwrap();
        assert_eq!(read.bytes_left(&LIMITS, at(1)), Bytes(48 << 20));
        assert!(read.take_requests(&LIMITS, "r", 20, at(1)).is_err());
        // Written with microseconds.
        let [now, then] = [&ledger, &read].map(|book| book.waits_until("r", at(1)).unwrap());
        let apart = now.since(then).max(then.since(now));
        assert!(apart < Duration::from_micros(2), "{apart:?}");
        assert_eq!(read.resting(REJECTED_REST, "r", at(1)).len(), 1);
        assert_eq!(read.last_transfer("a"), Some(at(0)));
        read.tidy(&|_| false, &|_| false, REJECTED_REST, at(1));
        let empty = serde_json::to_value(&read).unwrap();
        for part in ["requests", "waits", "rejected", "transfers"] {
            assert_eq!(empty[part], serde_json::json!({}), "{part}");
        }
        // What was spent today stays spent, also by targets that are gone.
        assert_eq!(read.bytes_left(&LIMITS, at(1)), Bytes(48 << 20));
    }
}
