//! Decides when an observed path class is published: at once if the addresses are new, otherwise when two
//! consecutive checks agree, so that one odd check changes no metric.

use std::net::IpAddr;

use crate::model::path::PathClass;

/// The published class of a leg, and the candidate to replace it.
#[derive(Clone, Debug, Default)]
pub struct Published {
    current: Option<PathClass>,
    candidate: Option<PathClass>,
    known: Option<Vec<IpAddr>>,
}

impl Published {
    /// The published class; `None` before the first check that found one.
    pub fn class(&self) -> Option<PathClass> {
        self.current
    }

    /// Takes the result of another check of a leg; returns whether the name has other addresses than before.
    /// `class` is `None` if the check could not determine it: the published class then stays.
    pub fn see(&mut self, class: Option<PathClass>, mut addresses: Vec<IpAddr>) -> bool {
        let Some(class) = class else {
            // An interruption: the checks before and after it are not consecutive.
            self.candidate = None;
            return false;
        };
        addresses.sort_unstable();
        addresses.dedup();
        let is_moved = self.known.as_ref().is_some_and(|known| *known != addresses);
        self.known = Some(addresses);
        if self.current.is_none() || is_moved || self.candidate == Some(class) {
            self.current = Some(class);
            self.candidate = None;
        } else {
            self.candidate = (self.current != Some(class)).then_some(class);
        }
        is_moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathClass::{PublicEip, PublicSnat, PublicUnknown};

    /// The class that is published after these rounds, the oldest first.
    fn rounds(seen: &[(Option<PathClass>, &str)]) -> Option<PathClass> {
        let mut published = Published::default();
        for (class, addresses) in seen {
            let addresses = addresses.split(' ').map(|a| a.parse().unwrap());
            published.see(*class, addresses.collect());
        }
        published.class()
    }

    #[test]
    fn one_odd_round_changes_nothing_and_two_do() {
        let (snat, eip) = (Some(PublicSnat), Some(PublicEip));
        let a = "52.0.0.1";
        assert_eq!(rounds(&[]), None);
        assert_eq!(rounds(&[(None, a)]), None);
        assert_eq!(rounds(&[(snat, a)]), snat);
        assert_eq!(rounds(&[(snat, a), (eip, a)]), snat);
        assert_eq!(rounds(&[(snat, a), (eip, a), (snat, a)]), snat);
        assert_eq!(rounds(&[(snat, a), (eip, a), (eip, a)]), eip);
        // Two that differ from each other are no agreement.
        let unknown = Some(PublicUnknown);
        assert_eq!(rounds(&[(snat, a), (eip, a), (unknown, a)]), snat);
        assert_eq!(
            rounds(&[(snat, a), (eip, a), (unknown, a), (unknown, a)]),
            unknown
        );
    }

    #[test]
    fn new_addresses_count_at_once_and_their_order_does_not() {
        let (snat, eip) = (Some(PublicSnat), Some(PublicEip));
        assert_eq!(rounds(&[(snat, "52.0.0.1"), (eip, "52.0.0.2")]), eip);
        assert_eq!(
            rounds(&[(snat, "52.0.0.1 52.0.0.2"), (eip, "52.0.0.2 52.0.0.1")]),
            snat
        );
    }

    #[test]
    fn a_round_without_a_class_keeps_the_one_before() {
        let (snat, eip) = (Some(PublicSnat), Some(PublicEip));
        let a = "52.0.0.1";
        assert_eq!(rounds(&[(snat, a), (None, a)]), snat);
        assert_eq!(rounds(&[(snat, a), (eip, a), (None, a), (eip, a)]), snat);
    }
}
