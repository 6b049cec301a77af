//! Whose check is paid for from the budgets. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// One target in the books.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// The target.
    pub target: &'a str,
    /// Its registry.
    pub registry: &'a str,
    /// The namespace that the check is for; empty: the operator, who is bound by no share.
    pub namespace: &'a str,
    /// How many have a share of what the node may use, this one among them.
    pub of_node: usize,
    /// How many have a share of what is for this registry.
    pub of_registry: usize,
}

impl<'a> Account<'a> {
    /// A target of the configuration, if there are no others.
    pub fn of_operator(target: &'a str, registry: &'a str) -> Self {
        Self {
            target,
            registry,
            namespace: "",
            of_node: 1,
            of_registry: 1,
        }
    }

    /// Whether it is bound by a share.
    pub(super) fn is_shared(&self) -> bool {
        !self.namespace.is_empty()
    }
}

/// Who has targets, by registry.
#[derive(Clone, Debug, Default)]
pub struct Sharers {
    all: BTreeSet<String>,
    by_registry: BTreeMap<String, BTreeSet<String>>,
}

impl Sharers {
    /// From the registry and the namespace of each target.
    pub fn of<'a>(targets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut sharers = Self::default();
        for (registry, namespace) in targets {
            sharers.all.insert(namespace.to_owned());
            let here = sharers.by_registry.entry(registry.to_owned()).or_default();
            here.insert(namespace.to_owned());
        }
        sharers
    }

    /// The account of a target of this namespace.
    pub fn account<'a>(
        &self,
        target: &'a str,
        registry: &'a str,
        namespace: &'a str,
    ) -> Account<'a> {
        let with = |all: &BTreeSet<String>| all.len() + usize::from(!all.contains(namespace));
        Account {
            target,
            registry,
            namespace,
            of_node: with(&self.all),
            of_registry: self.by_registry.get(registry).map_or(1, with),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_have_targets_share() {
        let sharers = Sharers::of([("r", "a"), ("r", "a"), ("r", ""), ("s", "b")]);
        let of = |registry, namespace| {
            let account = sharers.account("t", registry, namespace);
            (account.of_node, account.of_registry)
        };
        assert_eq!(of("r", "a"), (3, 2));
        assert_eq!(of("s", "b"), (3, 1));
        // One that has none yet.
        assert_eq!(of("s", "c"), (4, 2));
        assert_eq!(of("t", "c"), (4, 1));
        assert!(!sharers.account("t", "r", "").is_shared());
    }
}
