//! The bytes that transfer tests may download in a day. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::clock::Moment;
use crate::config::Budgets;
use crate::model::units::Bytes;
use crate::workload::share;

/// Bytes that a transfer test may download, reserved before it starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reserved {
    /// At most `budgets.transfer_bytes`.
    pub bytes: Bytes,
    day: u64,
}

/// The least bytes for a useful measurement (slow start, and 1.3 MB at 10 Mbit/s).
const LEAST_WORTH: Bytes = Bytes(2 << 20);

/// Bytes that transfer tests have downloaded today.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ByteBudget {
    /// The day of the counts below, in days since the epoch.
    day: u64,
    node: Bytes,
    targets: BTreeMap<String, Bytes>,
    registries: BTreeMap<String, Bytes>,
    /// What the tests of each namespace have downloaded, by registry.
    namespaces: BTreeMap<String, BTreeMap<String, Bytes>>,
    /// The last transfer test of each target.
    transfers: BTreeMap<String, Moment>,
}

impl ByteBudget {
    /// Reserves what one transfer test may download from the three budgets, or what is left of them.
    ///
    /// # Errors
    /// If too little is left: the used-up budget, as a metric label.
    pub fn reserve(
        &mut self,
        budgets: &Budgets,
        account: &Account<'_>,
        now: Moment,
    ) -> Result<Reserved, &'static str> {
        self.start_day(now);
        let spent = |book: &BTreeMap<String, Bytes>, name| book.get(name).map_or(0, |b| b.0);
        let of_registry = spent(&self.registries, account.registry);
        let of_target = spent(&self.targets, account.target);
        let left = [
            ("node_bytes", budgets.node_bytes_per_day, self.node.0),
            (
                "registry_bytes",
                budgets.registry_bytes_per_day,
                of_registry,
            ),
            ("target_bytes", budgets.target_bytes_per_day, of_target),
        ]
        .map(|(whose, limit, spent)| (limit.0.0.saturating_sub(spent), whose));
        let (least, whose) = left.into_iter().min().unwrap_or_default();
        let requested = budgets.transfer_bytes.0.0;
        let worth = LEAST_WORTH.0.min(requested);
        if least < worth {
            return Err(whose);
        }
        let bytes = Bytes(
            requested
                .min(least)
                .min(self.left_of_share(budgets, account)),
        );
        if bytes.0 < worth {
            return Err("namespace_bytes");
        }
        self.add(account, bytes);
        self.transfers.insert(account.target.to_owned(), now);
        Ok(Reserved {
            bytes,
            day: self.day,
        })
    }

    /// What the namespace may use beside those that share the budgets with it.
    fn left_of_share(&self, budgets: &Budgets, account: &Account<'_>) -> u64 {
        if !account.is_shared() {
            return u64::MAX;
        }
        let own = self.namespaces.get(account.namespace);
        let own_here = own.and_then(|own| own.get(account.registry));
        let own = own.map_or(0, |own| own.values().map(|bytes| bytes.0).sum());
        let here = self.registries.get(account.registry);
        let bytes = |spent: Option<&Bytes>| spent.map_or(0, |bytes| bytes.0);
        let of_node = budgets.node_bytes_per_day.0.0;
        let of_node = share::left(of_node, self.node.0, own, account.of_node);
        let of_registry = budgets.registry_bytes_per_day.0.0;
        let sharers = account.of_registry;
        of_node.min(share::left(
            of_registry,
            bytes(here),
            bytes(own_here),
            sharers,
        ))
    }

    /// Returns what was reserved for a test that was not made. `last` is the time of the previous test.
    pub fn give_back(
        &mut self,
        account: &Account<'_>,
        reserved: Reserved,
        last: Option<Moment>,
        now: Moment,
    ) {
        self.settle(account, reserved, Bytes(0), now);
        match last {
            Some(last) => self.transfers.insert(account.target.to_owned(), last),
            None => self.transfers.remove(account.target),
        };
    }

    /// Returns what a test did not download. If it downloaded more than reserved, that is booked too.
    pub fn settle(&mut self, account: &Account<'_>, reserved: Reserved, used: Bytes, now: Moment) {
        self.start_day(now);
        if used.0 > reserved.bytes.0 {
            self.add(account, Bytes(used.0 - reserved.bytes.0));
        } else if self.day == reserved.day {
            let back = reserved.bytes.0 - used.0;
            self.change(account, |spent| spent.saturating_sub(back));
        }
    }

    fn add(&mut self, account: &Account<'_>, bytes: Bytes) {
        self.change(account, |spent| spent.saturating_add(bytes.0));
    }

    fn change(&mut self, account: &Account<'_>, to: impl Fn(u64) -> u64) {
        let registry = || account.registry.to_owned();
        let of_target = self.targets.entry(account.target.to_owned()).or_default();
        let of_registry = self.registries.entry(registry()).or_default();
        let own = self.namespaces.entry(account.namespace.to_owned());
        let own = own.or_default().entry(registry()).or_default();
        for spent in [&mut self.node, of_target, of_registry, own] {
            spent.0 = to(spent.0);
        }
    }

    /// Resets the counts on a new day. A clock that went back resets nothing.
    fn start_day(&mut self, now: Moment) {
        if now.day() > self.day {
            self.day = now.day();
            self.node = Bytes(0);
            self.targets.clear();
            self.registries.clear();
            self.namespaces.clear();
        }
    }

    /// What transfer tests of this node may still download today.
    pub fn left(&self, budgets: &Budgets, now: Moment) -> Bytes {
        let spent = if now.day() > self.day { 0 } else { self.node.0 };
        Bytes(budgets.node_bytes_per_day.0.0.saturating_sub(spent))
    }

    /// When the last transfer test of a target started; `None`: unknown.
    pub fn last_transfer(&self, target: &str) -> Option<Moment> {
        self.transfers.get(target).copied()
    }

    /// Drops targets that are no longer used. What was spent today stays spent.
    pub fn tidy(&mut self, targets: &dyn Fn(&str) -> bool, now: Moment) {
        self.start_day(now);
        self.transfers.retain(|name, _| targets(name));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Size;

    fn budgets() -> Budgets {
        Budgets {
            node_bytes_per_day: Size(Bytes(64 << 20)),
            target_bytes_per_day: Size(Bytes(32 << 20)),
            registry_bytes_per_day: Size(Bytes(48 << 20)),
            transfer_bytes: Size(TEST),
            ..Budgets::default()
        }
    }
    const TEST: Bytes = Bytes(16 << 20);

    fn of(target: &str) -> Account<'_> {
        Account::of_operator(target, "r")
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(86_400 * 20_000 + seconds))
    }

    #[test]
    fn no_budget_is_overdrawn_and_a_new_day_fills_all() {
        let mut budget = ByteBudget::default();
        let reserve = |budget: &mut ByteBudget, target, registry, now| {
            budget
                .reserve(&budgets(), &Account::of_operator(target, registry), now)
                .map(|reserved| reserved.bytes)
        };
        assert_eq!(reserve(&mut budget, "a", "r", at(0)), Ok(TEST));
        assert_eq!(reserve(&mut budget, "a", "r", at(1)), Ok(TEST));
        assert_eq!(reserve(&mut budget, "a", "r", at(2)), Err("target_bytes"));
        assert_eq!(reserve(&mut budget, "b", "r", at(3)), Ok(TEST));
        assert_eq!(reserve(&mut budget, "b", "r", at(4)), Err("registry_bytes"));
        assert_eq!(reserve(&mut budget, "c", "s", at(5)), Ok(TEST));
        assert_eq!(reserve(&mut budget, "d", "s", at(6)), Err("node_bytes"));
        assert_eq!(budget.left(&budgets(), at(6)), Bytes(0));
        assert_eq!(
            reserve(&mut budget, "a", "r", at(86_399)),
            Err("node_bytes")
        );
        assert_eq!(budget.left(&budgets(), at(86_400)), Bytes(64 << 20));
        assert_eq!(reserve(&mut budget, "a", "r", at(86_400)), Ok(TEST));
        // The clock went back.
        assert_eq!(reserve(&mut budget, "a", "r", at(3)), Ok(TEST));
        assert_eq!(reserve(&mut budget, "a", "r", at(4)), Err("target_bytes"));
    }

    #[test]
    fn what_was_not_read_is_given_back_and_a_rest_too_small_is_not_spent() {
        let mut budget = ByteBudget::default();
        let first = budget.reserve(&budgets(), &of("a"), at(0)).unwrap();
        budget.settle(&of("a"), first, Bytes(3 << 20), at(5));
        assert_eq!(budget.left(&budgets(), at(5)), Bytes(61 << 20));
        let second = budget.reserve(&budgets(), &of("a"), at(6)).unwrap();
        // More than allowed was read: that counts, too.
        budget.settle(&of("a"), second, Bytes(17 << 20), at(9));
        assert_eq!(budget.left(&budgets(), at(9)), Bytes(44 << 20));
        // 12 MiB are left of the target's 32.
        let third = budget.reserve(&budgets(), &of("a"), at(10)).unwrap();
        assert_eq!(third.bytes, Bytes(12 << 20));
        budget.settle(&of("a"), third, Bytes(11 << 20), at(12));
        assert_eq!(
            budget.reserve(&budgets(), &of("a"), at(13)),
            Err("target_bytes")
        );
        // A small test requests less than the usual least.
        let small = Budgets {
            transfer_bytes: Size(Bytes(1 << 20)),
            ..budgets()
        };
        assert!(budget.reserve(&small, &of("a"), at(13)).is_ok());
    }

    #[test]
    fn what_is_given_back_after_midnight_is_not_tomorrows() {
        let mut budget = ByteBudget::default();
        let late = budget.reserve(&budgets(), &of("a"), at(86_399)).unwrap();
        let early = budget.reserve(&budgets(), &of("b"), at(86_401)).unwrap();
        budget.settle(&of("a"), late, Bytes(0), at(86_402));
        assert_eq!(budget.left(&budgets(), at(86_402)), Bytes(48 << 20));
        budget.settle(&of("b"), early, TEST, at(86_403));
        assert_eq!(budget.left(&budgets(), at(86_403)), Bytes(48 << 20));
    }

    #[test]
    fn a_test_that_was_not_made_has_cost_nothing() {
        let mut budget = ByteBudget::default();
        let whole = budget.left(&budgets(), at(0));
        for last in [None, Some(at(5))] {
            if let Some(last) = last {
                budget.transfers.insert("a".to_owned(), last);
            }
            let reserved = budget.reserve(&budgets(), &of("a"), at(10)).unwrap();
            budget.give_back(&of("a"), reserved, last, at(11));
            assert_eq!(budget.left(&budgets(), at(11)), whole);
            assert_eq!(budget.last_transfer("a"), last);
        }
    }

    /// One namespace with very many images leaves three tenths to the others, and gets them if it is alone.
    #[test]
    fn no_namespace_uses_up_the_bytes_of_a_day() {
        let all = Budgets {
            registry_bytes_per_day: Size(Bytes(64 << 20)),
            transfer_bytes: Size(Bytes(8 << 20)),
            ..budgets()
        };
        let account = |target, namespace, sharers| Account {
            target,
            namespace,
            of_node: sharers,
            of_registry: sharers,
            ..of("")
        };
        let mut budget = ByteBudget::default();
        let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
        let mut total = 0;
        let mut refused = "";
        for name in &names {
            match budget.reserve(&all, &account(name, "big", 3), at(0)) {
                Ok(reserved) => total += reserved.bytes.0,
                Err(reason) => refused = reason,
            }
        }
        assert_eq!((total >> 20, refused), (44, "namespace_bytes"));
        let of_other = |budget: &mut ByteBudget, target, namespace, sharers| {
            let account = account(target, namespace, sharers);
            budget
                .reserve(&all, &account, at(1))
                .map(|one| one.bytes.0 >> 20)
        };
        assert_eq!(of_other(&mut budget, "x", "small", 3), Ok(8));
        assert_eq!(of_other(&mut budget, "c", "", 3), Ok(8));
        // The rest is for one that is alone meanwhile.
        assert_eq!(of_other(&mut budget, "y", "big", 3), Err("namespace_bytes"));
        assert_eq!(of_other(&mut budget, "y", "big", 1), Ok(3));
        assert_eq!(of_other(&mut budget, "z", "small", 3), Err("node_bytes"));
        let tomorrow = budget.reserve(&all, &account("0", "big", 3), at(86_400));
        assert_eq!(tomorrow.unwrap().bytes, all.transfer_bytes.0);
    }
}
