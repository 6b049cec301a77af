//! Cooldown: rejected credentials, and when each may be sent again. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::Moment;
use crate::model::credential::CredentialId;
use crate::model::evidence::Attempt;

/// How long a rejected credential is not sent again, unless it changes. Registries lock accounts after some
/// wrong passwords in a short time, and there are many nodes.
pub const COOLDOWN: Duration = Duration::from_hours(1);

/// The same if nodes share retries: counted from the last time that another node is known to have tried it,
/// since the API server may be unreachable for long.
pub const SHARED_COOLDOWN: Duration = Duration::from_hours(24);

/// The rejected credentials of each registry, by source and key.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Cooldowns {
    rejected: BTreeMap<String, Vec<Rejected>>,
}

/// A credential that was rejected.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// Detects whether the credential has changed: 16 bits of a keyed hash, too few to search for a password.
    pub tag: u16,
    /// When this node sent it.
    pub at: Moment,
    /// When another node was last known to have tried it, for all nodes; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Moment>,
    /// Until when this node may send it again; `None`: it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_until: Option<Moment>,
    /// The rejected attempt, which reports show again.
    pub attempt: Attempt,
}

impl Rejected {
    fn is_cooling(&self, cooldown: Duration, now: Moment) -> bool {
        if now.since(self.at) < COOLDOWN {
            return true;
        }
        if self.may_until.is_some_and(|until| now < until) {
            return false;
        }
        let last = self.confirmed.map_or(self.at, |at| at.max(self.at));
        now.since(last) < cooldown
    }
}

impl Cooldowns {
    /// Keeps a rejected credential, in place of an earlier rejection of it.
    pub fn reject(&mut self, registry: &str, rejected: Rejected) {
        let list = self.rejected.entry(registry.to_owned()).or_default();
        list.retain(|known| known.attempt.credential != rejected.attempt.credential);
        list.push(rejected);
    }

    /// Drops a credential that was accepted.
    pub fn accept(&mut self, registry: &str, attempt: &Attempt) {
        if let Some(list) = self.rejected.get_mut(registry) {
            list.retain(|known| known.attempt.credential != attempt.credential);
            if list.is_empty() {
                self.rejected.remove(registry);
            }
        }
    }

    /// Credentials of a registry that are in cooldown at `now`, if one lasts `cooldown`.
    pub fn cooling(&self, cooldown: Duration, registry: &str, now: Moment) -> Vec<&Rejected> {
        let list = self.rejected.get(registry).map_or(&[][..], Vec::as_slice);
        list.iter()
            .filter(|known| known.is_cooling(cooldown, now))
            .collect()
    }

    /// Records that another node tried it without success.
    pub fn confirm(&mut self, registry: &str, credential: &CredentialId, now: Moment) {
        for known in self.of(registry, credential) {
            known.confirmed = Some(now);
        }
    }

    fn of(
        &mut self,
        registry: &str,
        credential: &CredentialId,
    ) -> impl Iterator<Item = &mut Rejected> {
        let list = self.rejected.get_mut(registry).into_iter().flatten();
        list.filter(move |known| known.attempt.credential.as_ref() == Some(credential))
    }

    /// All credentials that were rejected, each with its registry.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Rejected)> {
        let all = self.rejected.iter();
        all.flat_map(|(registry, list)| list.iter().map(move |one| (registry.as_str(), one)))
    }

    /// Allows this node to send it until a moment. The permission ends, because nodes that could not use it while
    /// the registry was unreachable would otherwise send it together.
    pub fn let_try(&mut self, registry: &str, credential: &CredentialId, until: Moment) {
        for known in self.of(registry, credential) {
            known.may_until = Some(until);
        }
    }

    /// Drops credentials whose cooldown is over, and registries that are no longer used.
    pub fn tidy(&mut self, registries: &dyn Fn(&str) -> bool, cooldown: Duration, now: Moment) {
        self.rejected.retain(|name, list| {
            list.retain(|known| {
                known.may_until.is_some_and(|until| now < until) || known.is_cooling(cooldown, now)
            });
            registries(name) && !list.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::credential::CredentialSource;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(86_400 * 20_000 + seconds))
    }

    fn rejected(tag: u16, when: Moment) -> Rejected {
        Rejected {
            tag,
            at: when,
            confirmed: None,
            may_until: None,
            attempt: Attempt::default(),
        }
    }

    #[test]
    fn a_rejected_credential_is_not_tried_for_an_hour() {
        let mut cooldowns = Cooldowns::default();
        cooldowns.reject("r", rejected(7, at(0)));
        assert_eq!(cooldowns.cooling(COOLDOWN, "r", at(3599)).len(), 1);
        assert_eq!(cooldowns.cooling(COOLDOWN, "r", at(3600)).len(), 0);
        assert_eq!(cooldowns.cooling(COOLDOWN, "s", at(0)).len(), 0);
        // The same one again: once.
        cooldowns.reject("r", rejected(8, at(10)));
        let cooling = cooldowns.cooling(COOLDOWN, "r", at(20));
        assert_eq!((cooling.len(), cooling[0].tag), (1, 8));
        let attempt = cooling[0].attempt.clone();
        cooldowns.accept("r", &attempt);
        assert_eq!(cooldowns.cooling(COOLDOWN, "r", at(20)).len(), 0);
    }

    #[test]
    fn a_shared_cooldown_is_as_long_as_others_try_and_ends_where_this_node_may() {
        let mut cooldowns = Cooldowns::default();
        let id = CredentialId {
            source: CredentialSource::CommandLine,
            key: "r".to_owned(),
        };
        let mut one = rejected(7, at(0));
        one.attempt.credential = Some(id.clone());
        cooldowns.reject("r", one);
        let day = SHARED_COOLDOWN.as_secs();
        let cools = |cooldowns: &Cooldowns, when| {
            !cooldowns.cooling(SHARED_COOLDOWN, "r", at(when)).is_empty()
        };
        assert!(cools(&cooldowns, day - 1) && !cools(&cooldowns, day));
        cooldowns.confirm("r", &id, at(day - 1));
        assert!(cools(&cooldowns, day) && !cools(&cooldowns, 2 * day));
        cooldowns.let_try("s", &id, at(day + 600));
        assert!(cools(&cooldowns, day));
        cooldowns.let_try("r", &id, at(day + 600));
        assert!(!cools(&cooldowns, day) && cools(&cooldowns, day + 600));
        // Never twice in an hour.
        cooldowns.reject(
            "r",
            Rejected {
                attempt: cooldowns.rejected["r"][0].attempt.clone(),
                ..rejected(7, at(day))
            },
        );
        cooldowns.let_try("r", &id, at(day + 7200));
        assert!(cools(&cooldowns, day + 3599) && !cools(&cooldowns, day + 3600));
    }
}
