//! The bytes that transfer tests may read in a day. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::clock::Moment;
use crate::model::units::Bytes;

/// What transfer tests may read in a day (UTC).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteLimits {
    pub node: Bytes,
    pub target: Bytes,
    pub registry: Bytes,
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

/// What was read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ByteBudget {
    /// That the bytes below were spent on, in days since the epoch.
    day: u64,
    node: Bytes,
    targets: BTreeMap<String, Bytes>,
    registries: BTreeMap<String, Bytes>,
    /// Last transfer tests.
    transfers: BTreeMap<String, Moment>,
}

impl ByteBudget {
    /// Takes up to `asked` bytes from the three budgets.
    ///
    /// # Errors
    /// Whose budget is spent.
    pub fn reserve(
        &mut self,
        limits: &ByteLimits,
        target: &str,
        registry: &str,
        asked: Bytes,
        now: Moment,
    ) -> Result<Reserved, Spent> {
        self.turn_page(now);
        let spent = |book: &BTreeMap<String, Bytes>, name| book.get(name).map_or(0, |b| b.0);
        let left = [
            (Spent::Node, limits.node, self.node.0),
            (
                Spent::Registry,
                limits.registry,
                spent(&self.registries, registry),
            ),
            (Spent::Target, limits.target, spent(&self.targets, target)),
        ]
        .map(|(whose, limit, spent)| (limit.0.saturating_sub(spent), whose));
        let (least, whose) = left
            .into_iter()
            .min_by_key(|(left, _)| *left)
            .unwrap_or((0, Spent::Node));
        let bytes = Bytes(asked.0.min(least));
        if bytes.0 < LEAST_WORTH.0.min(asked.0) {
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
        last: Option<Moment>,
        now: Moment,
    ) {
        self.settle(target, registry, reserved, Bytes(0), now);
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
    pub fn left(&self, limits: &ByteLimits, now: Moment) -> Bytes {
        let spent = if now.day() > self.day { 0 } else { self.node.0 };
        Bytes(limits.node.0.saturating_sub(spent))
    }

    /// When the last transfer test of a target began.
    pub fn last_transfer(&self, target: &str) -> Option<Moment> {
        self.transfers.get(target).copied()
    }

    /// Forgets targets that are gone. What was spent today stays spent.
    pub fn tidy(&mut self, targets: &dyn Fn(&str) -> bool, now: Moment) {
        self.turn_page(now);
        self.transfers.retain(|name, _| targets(name));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: ByteLimits = ByteLimits {
        node: Bytes(64 << 20),
        target: Bytes(32 << 20),
        registry: Bytes(48 << 20),
    };
    const TEST: Bytes = Bytes(16 << 20);

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(86_400 * 20_000 + seconds))
    }

    #[test]
    fn no_budget_is_overdrawn_and_a_new_day_fills_all() {
        let mut budget = ByteBudget::default();
        let reserve = |budget: &mut ByteBudget, target, registry, now| {
            budget
                .reserve(&LIMITS, target, registry, TEST, now)
                .map(|reserved| reserved.bytes)
        };
        assert_eq!(reserve(&mut budget, "a", "r", at(0)), Ok(TEST));
        assert_eq!(reserve(&mut budget, "a", "r", at(1)), Ok(TEST));
        assert_eq!(reserve(&mut budget, "a", "r", at(2)), Err(Spent::Target));
        assert_eq!(reserve(&mut budget, "b", "r", at(3)), Ok(TEST));
        assert_eq!(reserve(&mut budget, "b", "r", at(4)), Err(Spent::Registry));
        assert_eq!(reserve(&mut budget, "c", "s", at(5)), Ok(TEST));
        assert_eq!(reserve(&mut budget, "d", "s", at(6)), Err(Spent::Node));
        assert_eq!(budget.left(&LIMITS, at(6)), Bytes(0));
        assert_eq!(reserve(&mut budget, "a", "r", at(86_399)), Err(Spent::Node));
        assert_eq!(budget.left(&LIMITS, at(86_400)), Bytes(64 << 20));
        assert_eq!(reserve(&mut budget, "a", "r", at(86_400)), Ok(TEST));
        // The clock went back.
        assert_eq!(reserve(&mut budget, "a", "r", at(3)), Ok(TEST));
        assert_eq!(reserve(&mut budget, "a", "r", at(4)), Err(Spent::Target));
    }

    #[test]
    fn what_was_not_read_is_given_back_and_a_rest_too_small_is_not_spent() {
        let mut budget = ByteBudget::default();
        let first = budget.reserve(&LIMITS, "a", "r", TEST, at(0)).unwrap();
        budget.settle("a", "r", first, Bytes(3 << 20), at(5));
        assert_eq!(budget.left(&LIMITS, at(5)), Bytes(61 << 20));
        let second = budget.reserve(&LIMITS, "a", "r", TEST, at(6)).unwrap();
        // More than allowed was read: that counts, too.
        budget.settle("a", "r", second, Bytes(17 << 20), at(9));
        assert_eq!(budget.left(&LIMITS, at(9)), Bytes(44 << 20));
        // 12 MiB are left of the target's 32.
        let third = budget.reserve(&LIMITS, "a", "r", TEST, at(10)).unwrap();
        assert_eq!(third.bytes, Bytes(12 << 20));
        budget.settle("a", "r", third, Bytes(11 << 20), at(12));
        assert_eq!(
            budget.reserve(&LIMITS, "a", "r", TEST, at(13)),
            Err(Spent::Target)
        );
        // A small test asks for less than what is else worth having.
        assert!(
            budget
                .reserve(&LIMITS, "a", "r", Bytes(1 << 20), at(13))
                .is_ok()
        );
    }

    #[test]
    fn what_is_given_back_after_midnight_is_not_tomorrows() {
        let mut budget = ByteBudget::default();
        let late = budget.reserve(&LIMITS, "a", "r", TEST, at(86_399)).unwrap();
        let early = budget.reserve(&LIMITS, "b", "r", TEST, at(86_401)).unwrap();
        budget.settle("a", "r", late, Bytes(0), at(86_402));
        assert_eq!(budget.left(&LIMITS, at(86_402)), Bytes(48 << 20));
        budget.settle("b", "r", early, TEST, at(86_403));
        assert_eq!(budget.left(&LIMITS, at(86_403)), Bytes(48 << 20));
    }

    #[test]
    fn a_test_that_was_not_made_has_cost_nothing() {
        let mut budget = ByteBudget::default();
        let whole = budget.left(&LIMITS, at(0));
        for last in [None, Some(at(5))] {
            if let Some(last) = last {
                budget.transfers.insert("a".to_owned(), last);
            }
            let reserved = budget.reserve(&LIMITS, "a", "r", TEST, at(10)).unwrap();
            budget.give_back("a", "r", reserved, last, at(11));
            assert_eq!(budget.left(&LIMITS, at(11)), whole);
            assert_eq!(budget.last_transfer("a"), last);
        }
    }
}
