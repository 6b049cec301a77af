//! The ledger with its file. What a check may spend is saved before it is spent.

use std::io;
use std::sync::Arc;

use crate::config::{Budgets, Config};
use crate::daemon::check::{CheckResult, Job};
use crate::daemon::schedule::account::Sharers;
use crate::daemon::schedule::admission::{self, CheckUsage, Deferred, NextAttempt};
use crate::daemon::schedule::backoff::Answered;
use crate::daemon::schedule::budget::Reserved;
use crate::daemon::schedule::clock::Moment;
use crate::daemon::schedule::ledger::Ledger;
use crate::daemon::schedule::state::{PersistedState, StateFile};
use crate::daemon::schedule::timetable::Due;
use crate::daemon::store::summary::RunSummary;
use crate::daemon::store::target::Target;
use crate::daemon::store::targets::BudgetStatus;

/// The ledger and its file.
pub(super) struct LedgerStore {
    state: PersistedState,
    file: Option<StateFile>,
    is_unsaved: bool,
    /// Who has targets.
    sharers: Sharers,
}

impl LedgerStore {
    pub(super) fn open(node: &str, file: Option<StateFile>) -> Self {
        let (state, aside) = match &file {
            Some(file) => file.load(node),
            None => (PersistedState::new(node), None),
        };
        if let Some(reason) = aside {
            tracing::warn!(
                reason,
                "the state file is not used; starting with empty state"
            );
        }
        Self {
            state,
            file,
            is_unsaved: false,
            sharers: Sharers::default(),
        }
    }

    /// Sets the targets whose namespaces share the budgets.
    pub(super) fn share_among(&mut self, targets: &[Arc<Target>]) {
        let all = targets.iter();
        self.sharers = Sharers::of(all.map(|target| (&*target.registry, target.namespace())));
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    /// For a change, which the next save writes.
    pub(super) fn ledger_mut(&mut self) -> &mut Ledger {
        self.is_unsaved = true;
        &mut self.state.ledger
    }

    pub(super) fn status(&self, config: &Config, now: Moment) -> BudgetStatus {
        BudgetStatus {
            bytes_left: self.ledger().bytes.left(&config.budgets, now),
            bytes_a_day: config.budgets.node_bytes_per_day.0,
            declared: declared(config),
        }
    }

    /// Reserves what a check of this registry may need. The caller saves the reservation of a transfer test at
    /// once.
    pub(super) fn admit(
        &mut self,
        budgets: &Budgets,
        due: &Due,
        target: &Target,
        is_testing: bool,
        now: Moment,
    ) -> Result<Option<Reserved>, (Deferred, NextAttempt)> {
        let reserved = admission::may(
            &mut self.state.ledger,
            budgets,
            due,
            &target.account(&self.sharers),
            is_testing,
            now,
        )?;
        self.is_unsaved = true;
        Ok(reserved)
    }

    /// Returns the reservation of a transfer test that was not made.
    pub(super) fn give_back(
        &mut self,
        budgets: &Budgets,
        target: &Target,
        reserved: Reserved,
        last: Option<Moment>,
        now: Moment,
    ) {
        let account = target.account(&self.sharers);
        self.is_unsaved = true;
        let ledger = &mut self.state.ledger;
        admission::give_back(ledger, budgets, &account, reserved, last, now);
    }

    /// Books what a check has spent and the registry's answer. Returns the earliest time of the next check.
    pub(super) fn settle(
        &mut self,
        budgets: &Budgets,
        target: &Target,
        reserved: Option<Reserved>,
        result: Option<(&CheckResult, &RunSummary)>,
        now: Moment,
    ) -> Option<Moment> {
        let usage = result.map_or_else(CheckUsage::default, |(result, summary)| CheckUsage {
            requests: summary.requests,
            read: Some(summary.downloaded),
            answered: summary.answered,
            rate_limit: summary.rate_limit.clone(),
            rejected: result.rejected.clone(),
            accepted: result.accepted.clone(),
        });
        let is_failing = usage
            .answered
            .is_some_and(|answered| answered != Answered::Well);
        self.is_unsaved |= reserved.is_some() || !usage.rejected.is_empty() || is_failing;
        admission::book(
            &mut self.state.ledger,
            budgets,
            &self.state.node,
            &target.account(&self.sharers),
            reserved,
            &usage,
            now,
        )
    }

    /// The job of a check, with what the ledger knows. `cooldown`: how long rejected credentials are not sent.
    pub(super) fn job(
        &self,
        budgets: &Budgets,
        due: &Due,
        reserved: Option<Reserved>,
        target: Arc<Target>,
        cooldown: std::time::Duration,
        now: Moment,
    ) -> Job {
        let ledger = self.ledger();
        let cooling = ledger.cooldown.cooling(cooldown, &target.registry, now);
        Job {
            tier: due.tier,
            reserved,
            cooling: cooling.into_iter().cloned().collect(),
            only_free: ledger
                .requests
                .is_low(budgets.rate_limit_floor.0, &target.registry),
            hops: Vec::new(),
            addresses: Vec::new(),
            image: None,
            key: self.state.key,
            now,
            target,
        }
    }

    /// Makes the next save write the file.
    pub(super) fn must_save(&mut self) {
        self.is_unsaved = true;
    }

    /// Writes the file if something has changed.
    pub(super) fn save(&mut self) -> io::Result<()> {
        if let Some(file) = self.file.as_ref().filter(|_| self.is_unsaved) {
            file.save(&self.state)?;
            self.is_unsaved = false;
        }
        Ok(())
    }
}

fn declared(config: &Config) -> Option<f64> {
    let mbit = config.network.declared().eip_bandwidth_mbit?;
    Some(f64::from(u32::try_from(mbit).unwrap_or(u32::MAX)) * 1e6 / 8.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::daemon::schedule::timetable::Tier;
    use crate::model::workload::{ContainerKind, PullPolicy};
    use crate::workload::discovery::{Use, Wanted};

    const NOW: Moment = Moment(Duration::from_hours(500_000));

    fn target(image: &str, namespaces: &[&str]) -> Arc<Target> {
        let used = |namespace: &&str| Use {
            namespace: (*namespace).to_owned(),
            pod: "a".to_owned(),
            container: "app".to_owned(),
            kind: ContainerKind::Container,
            policy: PullPolicy::Always,
            image: image.to_owned(),
            waits: true,
            is_present: false,
        };
        let wanted = Wanted {
            name: image.to_owned(),
            witness: image.parse().unwrap(),
            secrets: None,
            uses: namespaces.iter().map(used).collect(),
        };
        Arc::new(Target::discovered(&wanted, &Config::parse("{}").unwrap()))
    }

    /// A namespace with fifty images at a registry has its checks deferred, with that reason; others have theirs.
    #[test]
    fn the_namespaces_of_pods_share_the_requests_to_a_registry() {
        let mut book = LedgerStore::open("n1", None);
        let image = |number: usize| format!("r.test/big/{number}:1");
        let mut targets: Vec<_> = (0..50).map(|one| target(&image(one), &["big"])).collect();
        let small = target("r.test/small/a:1", &["small"]);
        let configured = Config::parse("targets: [{name: own, image: 'r.test/own:1'}]").unwrap();
        let configured = Target::all(&configured, &[]).remove(0);
        targets.extend([Arc::clone(&small), Arc::clone(&configured)]);
        book.share_among(&targets);
        let mut admit = |target: &Arc<Target>| {
            let due = Due {
                target: Arc::clone(&target.name),
                tier: Tier::Reach,
                at: NOW,
            };
            let admitted = book.admit(&Budgets::default(), &due, target, false, NOW);
            admitted
                .map(|_| ())
                .map_err(|(deferred, _)| deferred.reason)
        };
        let refused: Vec<_> = targets[..50]
            .iter()
            .filter_map(|one| admit(one).err())
            .collect();
        assert_eq!(refused, vec!["namespace_requests"; 8]);
        for _ in 0..9 {
            assert_eq!(admit(&small), Ok(()));
            assert_eq!(admit(&configured), Ok(()));
        }
        assert_eq!(admit(&configured), Err("registry_requests"));
    }

    #[test]
    fn what_several_namespaces_use_is_paid_for_by_one_and_not_always_the_same() {
        let names = ["a", "b", "c"];
        let payers = (0..50).map(|number| {
            let target = target(&format!("r.test/{number}:1"), &names);
            target.namespace().to_owned()
        });
        let payers: std::collections::BTreeSet<String> = payers.collect();
        assert_eq!(payers.into_iter().collect::<Vec<_>>(), names);
    }
}
