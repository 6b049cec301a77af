//! The evidence that all legs of a check share.

use crate::model::evidence::{Evidence, Walk};
use crate::model::network::{EgressMethod, ObservedEgress};
use crate::model::resolve::Family;
use crate::model::vantage::Vantage;

/// The evidence that all legs share.
pub(super) struct PathContext<'a> {
    pub(super) vantage: &'a Vantage,
    pub(super) walk: &'a Walk,
    /// Source addresses that others see, each with the method that showed it.
    pub(super) seen: Vec<(&'a str, ObservedEgress)>,
}

impl<'a> PathContext<'a> {
    pub(super) fn of(evidence: &'a Evidence, walk: &'a Walk) -> Self {
        let vantage = &evidence.vantage;
        let mut seen: Vec<_> = vantage
            .egress
            .iter()
            .filter_map(|trial| Some((trial.method.as_str(), *trial.seen()?)))
            .collect();
        // Docker Hub counts pulls for each address and reports it: the pull's own source address.
        let limit = walk.rate_limit.as_ref();
        let counted = limit.and_then(|limit| limit.source.as_deref()?.parse().ok());
        let first = walk.legs.first();
        let is_direct = first.is_some_and(|leg| leg.proxy_route.proxy().is_none());
        if let Some(address) = counted.filter(|_| is_direct) {
            let counted = ObservedEgress {
                address,
                port: None,
                local: None,
            };
            seen.push((EgressMethod::DockerHub.as_str(), counted));
        }
        Self {
            vantage,
            walk,
            seen,
        }
    }

    pub(super) fn seen_of(
        &self,
        family: Family,
    ) -> impl Iterator<Item = &(&'a str, ObservedEgress)> {
        let seen = self.seen.iter();
        seen.filter(move |(_, seen)| seen.family() == family)
    }
}
