//! Whether a check may be made now, and what is booked after it. Pure: the runner and the simulation of a fleet
//! (tests/simulation) act on it.

use std::time::Duration;

use jiff::Timestamp;

use super::account::Account;
use super::backoff::Answered;
use super::budget::Reserved;
use super::clock::Moment;
use super::cooldown::Rejected;
use super::ledger::Ledger;
use super::requests::USUAL_REQUESTS;
use super::timetable::{Due, Tier};
use crate::config::Budgets;
use crate::model::evidence::{Attempt, RateLimit};
use crate::model::units::Bytes;

/// How long a transfer test is postponed while another one runs.
const TRANSFER_TURN: Duration = Duration::from_secs(30);

/// Why a check that was due is not made now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deferred {
    /// The metric label.
    pub reason: &'static str,
    /// When it may be made; `None`: unknown.
    pub until: Option<Timestamp>,
}

/// When a deferred check is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NextAttempt {
    /// It is postponed until then.
    Later(Moment),
    /// It is skipped. The next scheduled one is made, not before this moment.
    NextTime(Option<Moment>),
}

/// What a check has spent, and the registry's answer.
#[derive(Clone, Debug, Default)]
pub struct CheckUsage {
    /// Requests to the registry, its token service and its blob storage.
    pub requests: u32,
    /// Bytes downloaded by a transfer test; `None`: unknown, so everything reserved may be used.
    pub read: Option<Bytes>,
    /// `None`: there was no answer.
    pub answered: Option<Answered>,
    /// The rate limit that the registry reported; `None`: it reported none.
    pub rate_limit: Option<RateLimit>,
    /// Credentials that were rejected.
    pub rejected: Vec<Rejected>,
    /// The attempt that was accepted; `None`: none was.
    pub accepted: Option<Attempt>,
}

/// Reserves what a check may need: requests, and bytes for a transfer test.
///
/// # Errors
/// If it may not be made now: the reason, and when it is made.
pub fn may(
    ledger: &mut Ledger,
    budgets: &Budgets,
    due: &Due,
    account: &Account<'_>,
    is_transfer_under_way: bool,
    now: Moment,
) -> Result<Option<Reserved>, (Deferred, NextAttempt)> {
    let deferred = |reason, until: Option<Moment>, then| {
        let until = until.and_then(Moment::timestamp);
        (Deferred { reason, until }, then)
    };
    let later = |until| match due.tier {
        Tier::Reach => NextAttempt::NextTime(Some(until)),
        Tier::Path | Tier::Transfer => NextAttempt::Later(until),
    };
    let registry = account.registry;
    if let Some(until) = ledger.backoff.until(registry, now) {
        return Err(deferred("registry_backoff", Some(until), later(until)));
    }
    if due.tier == Tier::Transfer {
        if is_transfer_under_way {
            let until = now.after(TRANSFER_TURN);
            return Err(deferred(
                "transfer_running",
                Some(until),
                NextAttempt::Later(until),
            ));
        }
        if ledger.requests.is_low(budgets.rate_limit_floor.0, registry) {
            return Err(deferred(
                "rate_limit_floor",
                None,
                NextAttempt::NextTime(None),
            ));
        }
    }
    let per_minute = budgets.registry_requests_per_minute.0;
    ledger
        .requests
        .take(per_minute, account, USUAL_REQUESTS, now)
        .map_err(|none| deferred(none.reason, Some(none.until), later(none.until)))?;
    if due.tier != Tier::Transfer {
        return Ok(None);
    }
    let reserved = ledger.bytes.reserve(budgets, account, now);
    reserved
        .map(Some)
        .map_err(|spent| deferred(spent, None, NextAttempt::NextTime(None)))
}

/// Returns what was reserved for a transfer test that was not made. `last` is the time of the previous test.
pub fn give_back(
    ledger: &mut Ledger,
    budgets: &Budgets,
    account: &Account<'_>,
    reserved: Reserved,
    last: Option<Moment>,
    now: Moment,
) {
    ledger.bytes.give_back(account, reserved, last, now);
    let (per_minute, usual) = (
        budgets.registry_requests_per_minute.0,
        f64::from(USUAL_REQUESTS),
    );
    ledger.requests.charge(per_minute, account, -usual);
}

/// Books what a check has spent and the registry's answer. Returns until when the registry is in back-off.
pub fn book(
    ledger: &mut Ledger,
    budgets: &Budgets,
    node: &str,
    account: &Account<'_>,
    reserved: Option<Reserved>,
    usage: &CheckUsage,
    now: Moment,
) -> Option<Moment> {
    let registry = account.registry;
    if let Some(reserved) = reserved {
        let used = usage.read.unwrap_or(reserved.bytes);
        ledger.bytes.settle(account, reserved, used, now);
    }
    let beyond = usage.requests.saturating_sub(USUAL_REQUESTS);
    let per_minute = budgets.registry_requests_per_minute.0;
    ledger
        .requests
        .charge(per_minute, account, f64::from(beyond));
    if let Some(limit) = &usage.rate_limit {
        ledger.requests.note_rate_limit(registry, limit);
    }
    for rejected in &usage.rejected {
        ledger.cooldown.reject(registry, rejected.clone());
    }
    if let Some(accepted) = &usage.accepted {
        ledger.cooldown.accept(registry, accepted);
    }
    if let Some(answered) = usage.answered {
        ledger.backoff.record(node, registry, answered, now);
    }
    ledger.backoff.until(registry, now)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{CountWithin, Size};
    use crate::daemon::schedule::timetable::{Planned, Rhythm, Timetable};

    fn budgets() -> Budgets {
        Budgets {
            node_bytes_per_day: Size(Bytes(64 << 20)),
            target_bytes_per_day: Size(Bytes(16 << 20)),
            registry_bytes_per_day: Size(Bytes(64 << 20)),
            registry_requests_per_minute: CountWithin(8),
            ..Budgets::default()
        }
    }
    const NOW: Moment = Moment(Duration::from_hours(500_000));

    fn due(tier: Tier) -> Due {
        Due {
            target: Arc::from("a"),
            tier,
            at: NOW,
        }
    }

    fn of(due: &Due) -> Account<'_> {
        Account::of_operator(&due.target, "r")
    }

    fn ask(
        ledger: &mut Ledger,
        tier: Tier,
        busy: bool,
    ) -> Result<Option<Bytes>, (&'static str, NextAttempt)> {
        let due = due(tier);
        let admitted = may(ledger, &budgets(), &due, &of(&due), busy, NOW);
        admitted
            .map(|reserved| reserved.map(|reserved| reserved.bytes))
            .map_err(|(deferred, then)| (deferred.reason, then))
    }

    #[test]
    fn each_budget_holds_back_what_it_is_for() {
        let mut ledger = Ledger::default();
        let turn = NOW.after(TRANSFER_TURN);
        assert_eq!(
            ask(&mut ledger, Tier::Transfer, true),
            Err(("transfer_running", NextAttempt::Later(turn)))
        );
        assert_eq!(
            ask(&mut ledger, Tier::Transfer, false),
            Ok(Some(Bytes(16 << 20)))
        );
        assert_eq!(
            ask(&mut ledger, Tier::Transfer, false),
            Err(("target_bytes", NextAttempt::NextTime(None)))
        );
        // Two of four requests each a minute: the third waits for its tokens.
        let soon = NOW.after(Duration::from_secs(30));
        assert_eq!(
            ask(&mut ledger, Tier::Reach, false),
            Err(("registry_requests", NextAttempt::NextTime(Some(soon))))
        );
        assert_eq!(
            ask(&mut ledger, Tier::Path, false),
            Err(("registry_requests", NextAttempt::Later(soon)))
        );
    }

    /// 240 requests a minute are a check a second, and 60 at once in the beginning.
    #[test]
    fn a_thousand_targets_get_their_first_result_as_budgets_allow() {
        let (mut ledger, budgets) = (Ledger::default(), Budgets::default());
        let rhythm = Rhythm {
            reach: Duration::from_mins(2),
            path: Duration::from_hours(1),
            transfer: None,
        };
        let mut timetable = Timetable::new("n1");
        let targets = (0..1000).map(|number| Planned {
            target: Arc::from(format!("t{number}")),
            rhythm,
            last_transfer: None,
            has_result: false,
        });
        let first = Duration::from_secs(15);
        timetable.replace(targets.collect::<Vec<_>>(), first, NOW);
        let (mut results, mut checks) = (std::collections::BTreeMap::new(), 0_u32);
        while let Some(at) = timetable.next().filter(|_| results.len() < 1000) {
            let due = timetable.take(at).unwrap();
            match may(&mut ledger, &budgets, &due, &of(&due), false, at) {
                Ok(_) => {
                    checks += 1;
                    results.entry(Arc::clone(&due.target)).or_insert(at);
                    timetable.has_result(&due.target, at);
                    timetable.done(&due, at, None);
                }
                Err((_, NextAttempt::Later(until))) => timetable.postpone(&due, until),
                Err((_, NextAttempt::NextTime(until))) => {
                    timetable.done(&due, at, until);
                }
            }
            let minutes = at.since(NOW).as_secs_f64() / 60.0;
            assert!(4.0 * f64::from(checks) <= 240.0 * (minutes + 1.0) + 1.0);
        }
        let soon = results.values().filter(|at| at.since(NOW) < first);
        assert!(soon.count() >= 60);
        let last = results.values().max().unwrap().since(NOW);
        assert!(last < Duration::from_mins(40), "{last:?}");
    }

    #[test]
    fn a_registry_that_has_too_much_is_left_alone_and_its_checks_come_later() {
        let mut ledger = Ledger::default();
        let usage = CheckUsage {
            answered: Some(Answered::TooMany {
                retry_after: Some(Duration::from_mins(5)),
            }),
            ..CheckUsage::default()
        };
        let until = book(
            &mut ledger,
            &budgets(),
            "n",
            &of(&due(Tier::Reach)),
            None,
            &usage,
            NOW,
        )
        .unwrap();
        assert!(until.since(NOW) >= Duration::from_mins(5));
        assert_eq!(
            ask(&mut ledger, Tier::Reach, false),
            Err(("registry_backoff", NextAttempt::NextTime(Some(until))))
        );
        assert_eq!(
            ask(&mut ledger, Tier::Path, false),
            Err(("registry_backoff", NextAttempt::Later(until)))
        );
    }

    #[test]
    fn a_test_that_showed_nothing_may_have_read_all() {
        let mut ledger = Ledger::default();
        let reserved = may(
            &mut ledger,
            &budgets(),
            &due(Tier::Transfer),
            &of(&due(Tier::Transfer)),
            false,
            NOW,
        )
        .unwrap();
        book(
            &mut ledger,
            &budgets(),
            "n",
            &of(&due(Tier::Transfer)),
            reserved,
            &CheckUsage::default(),
            NOW,
        );
        assert_eq!(ledger.bytes.left(&budgets(), NOW), Bytes(48 << 20));
    }
}
