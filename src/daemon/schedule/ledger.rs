//! The ledger: what checks have spent, back-offs of registries, and cooldowns of credentials. It is saved in
//! `state_dir`, so that a crash loop spends no more than the budgets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff::Backoffs;
use super::budget::ByteBudget;
use super::clock::Moment;
use super::cooldown::Cooldowns;
use super::requests::RequestBuckets;

/// The ledger of one node. Unknown fields, as of earlier versions, are ignored.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Ledger {
    /// Bytes of transfer tests.
    #[serde(flatten)]
    pub bytes: ByteBudget,
    /// Requests per registry, and the registry's own rate limit.
    #[serde(flatten)]
    pub requests: RequestBuckets,
    /// Registries that answered 429 or 5xx.
    #[serde(flatten)]
    pub backoff: Backoffs,
    /// Credentials that were rejected.
    #[serde(flatten)]
    pub cooldown: Cooldowns,
}

impl Ledger {
    /// Drops what is no longer needed, so that the ledger stays as short as the list of targets. `targets` and
    /// `registries` decide which names are still in use.
    pub fn tidy(
        &mut self,
        targets: &dyn Fn(&str) -> bool,
        registries: &dyn Fn(&str) -> bool,
        cooldown: Duration,
        now: Moment,
    ) {
        self.bytes.tidy(targets, now);
        self.requests.tidy(registries);
        self.backoff.tidy(registries);
        self.cooldown.tidy(registries, cooldown, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Budgets;
    use crate::daemon::schedule::account::Account;
    use crate::daemon::schedule::backoff::Answered;
    use crate::model::units::Bytes;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(86_400 * 20_000 + seconds))
    }

    #[test]
    fn the_book_survives_being_written_and_stays_short() {
        let budgets = Budgets::default();
        let mut ledger = Ledger::default();
        let account = Account::of_operator("a", "r");
        ledger.bytes.reserve(&budgets, &account, at(0)).unwrap();
        ledger.requests.take(60, &account, 50, at(0)).unwrap();
        let too_many = Answered::TooMany { retry_after: None };
        ledger.backoff.record("n", "r", too_many, at(0));
        // An earlier version wrote more.
        let mut written = serde_json::to_value(&ledger).unwrap();
        written["learned"] = serde_json::json!({"r": {}});
        let mut read: Ledger = serde_json::from_str(&written.to_string()).unwrap();
        assert_eq!(read.bytes.left(&budgets, at(1)), Bytes(240 << 20));
        assert!(read.requests.take(60, &account, 20, at(1)).is_err());
        // Written with microseconds.
        let [now, then] = [&ledger, &read].map(|book| book.backoff.until("r", at(1)).unwrap());
        let apart = now.since(then).max(then.since(now));
        assert!(apart < Duration::from_micros(2), "{apart:?}");
        assert_eq!(read.bytes.last_transfer("a"), Some(at(0)));
        read.tidy(&|_| false, &|_| false, Duration::from_hours(1), at(1));
        let empty = serde_json::to_value(&read).unwrap();
        for part in ["requests", "waits", "rejected", "transfers"] {
            assert_eq!(empty[part], serde_json::json!({}), "{part}");
        }
        // What was spent today stays spent, also by targets that are gone.
        assert_eq!(read.bytes.left(&budgets, at(1)), Bytes(240 << 20));
    }
}
