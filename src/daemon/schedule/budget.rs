//! The bytes that transfer tests may download in a day. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::clock::Moment;
use crate::config::Budgets;
use crate::model::units::Bytes;

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
        target: &str,
        registry: &str,
        now: Moment,
    ) -> Result<Reserved, &'static str> {
        self.start_day(now);
        let spent = |book: &BTreeMap<String, Bytes>, name| book.get(name).map_or(0, |b| b.0);
        let of_registry = spent(&self.registries, registry);
        let of_target = spent(&self.targets, target);
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
        let requested = budgets.transfer_bytes.0;
        let bytes = Bytes(requested.0.min(least));
        if bytes.0 < LEAST_WORTH.0.min(requested.0) {
            return Err(whose);
        }
        self.add(target, registry, bytes);
        self.transfers.insert(target.to_owned(), now);
        Ok(Reserved {
            bytes,
            day: self.day,
        })
    }

    /// Returns what was reserved for a test that was not made. `last` is the time of the previous test.
    pub fn give_back(
        &mut self,
        target: &str,
        registry: &str,
        reserved: Reserved,
        last: Option<Moment>,
        now: Moment,
    ) {
        self.settle(target, registry, reserved, Bytes(0), now);
        match last {
            Some(last) => self.transfers.insert(target.to_owned(), last),
            None => self.transfers.remove(target),
        };
    }

    /// Returns what a test did not download. If it downloaded more than reserved, that is booked too.
    pub fn settle(
        &mut self,
        target: &str,
        registry: &str,
        reserved: Reserved,
        used: Bytes,
        now: Moment,
    ) {
        self.start_day(now);
        if used.0 > reserved.bytes.0 {
            self.add(target, registry, Bytes(used.0 - reserved.bytes.0));
        } else if self.day == reserved.day {
            let back = reserved.bytes.0 - used.0;
            self.change(target, registry, |spent| spent.saturating_sub(back));
        }
    }

    fn add(&mut self, target: &str, registry: &str, bytes: Bytes) {
        self.change(target, registry, |spent| spent.saturating_add(bytes.0));
    }

    fn change(&mut self, target: &str, registry: &str, to: impl Fn(u64) -> u64) {
        let target = self.targets.entry(target.to_owned()).or_default();
        let registry = self.registries.entry(registry.to_owned()).or_default();
        for spent in [&mut self.node, target, registry] {
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

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(86_400 * 20_000 + seconds))
    }

    #[test]
    fn no_budget_is_overdrawn_and_a_new_day_fills_all() {
        let mut budget = ByteBudget::default();
        let reserve = |budget: &mut ByteBudget, target, registry, now| {
            budget
                .reserve(&budgets(), target, registry, now)
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
        let first = budget.reserve(&budgets(), "a", "r", at(0)).unwrap();
        budget.settle("a", "r", first, Bytes(3 << 20), at(5));
        assert_eq!(budget.left(&budgets(), at(5)), Bytes(61 << 20));
        let second = budget.reserve(&budgets(), "a", "r", at(6)).unwrap();
        // More than allowed was read: that counts, too.
        budget.settle("a", "r", second, Bytes(17 << 20), at(9));
        assert_eq!(budget.left(&budgets(), at(9)), Bytes(44 << 20));
        // 12 MiB are left of the target's 32.
        let third = budget.reserve(&budgets(), "a", "r", at(10)).unwrap();
        assert_eq!(third.bytes, Bytes(12 << 20));
        budget.settle("a", "r", third, Bytes(11 << 20), at(12));
        assert_eq!(
            budget.reserve(&budgets(), "a", "r", at(13)),
            Err("target_bytes")
        );
        // A small test requests less than the usual least.
        let small = Budgets {
            transfer_bytes: Size(Bytes(1 << 20)),
            ..budgets()
        };
        assert!(budget.reserve(&small, "a", "r", at(13)).is_ok());
    }

    #[test]
    fn what_is_given_back_after_midnight_is_not_tomorrows() {
        let mut budget = ByteBudget::default();
        let late = budget.reserve(&budgets(), "a", "r", at(86_399)).unwrap();
        let early = budget.reserve(&budgets(), "b", "r", at(86_401)).unwrap();
        budget.settle("a", "r", late, Bytes(0), at(86_402));
        assert_eq!(budget.left(&budgets(), at(86_402)), Bytes(48 << 20));
        budget.settle("b", "r", early, TEST, at(86_403));
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
            let reserved = budget.reserve(&budgets(), "a", "r", at(10)).unwrap();
            budget.give_back("a", "r", reserved, last, at(11));
            assert_eq!(budget.left(&budgets(), at(11)), whole);
            assert_eq!(budget.last_transfer("a"), last);
        }
    }
}
