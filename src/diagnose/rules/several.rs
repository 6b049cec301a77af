//! Rules for the addresses of one name: TLS works at some of them and fails at others.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::tls;
use crate::diagnose::Finding;
use crate::diagnose::level::Severity;
use crate::model::connect::{Connected, Tls};
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{Phase, TlsFault};
use crate::model::resolve::{Family, ResolutionSource};
use crate::model::step::Step;
use crate::model::text::joined;

/// TLS fails at a part of the addresses: a warning, or an addition to the finding of the address that the check used.
pub(super) fn addresses(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.walk.legs {
        let Some(all) = Addresses::of(leg) else {
            continue;
        };
        if let Some(fault) = leg.tls.outcome.fault() {
            let is_own = |finding: &&mut Finding| {
                finding.leg == Some(leg.role)
                    && finding.phase == Some(Phase::Tls)
                    && finding.severity == Severity::Critical
            };
            let own = findings.iter_mut().find(is_own);
            if let Some(own) = own.filter(|_| !fault.is_undecided() && !all.good.is_empty()) {
                own.evidence.push(all.share());
                own.evidence.push(format!(
                    "TLS succeeds at {}",
                    joined(all.good.iter().map(SocketAddr::ip))
                ));
                own.hint = all.hint();
            }
        } else {
            findings.extend(all.warnings(evidence));
        }
    }
}

/// The addresses of a leg's name with which TLS was tried.
struct Addresses<'a> {
    leg: &'a Leg,
    own: SocketAddr,
    good: Vec<SocketAddr>,
    bad: Vec<(SocketAddr, &'a Tls)>,
}

impl<'a> Addresses<'a> {
    /// `None` unless TLS was tried with several, and failed at one for sure.
    fn of(leg: &'a Leg) -> Option<Self> {
        let own = leg.connect.outcome.done()?.to;
        let others = leg.other_addresses.iter();
        let others = others.map(|trial| (trial.to, &trial.tls));
        let all: Vec<(SocketAddr, &Tls)> = std::iter::once((own, &leg.tls)).chain(others).collect();
        let is_bad = |tls: &Tls| {
            tls.outcome
                .fault()
                .is_some_and(|fault| !fault.is_undecided())
        };
        let is_good = |(_, tls): &&(SocketAddr, &Tls)| tls.outcome.done().is_some();
        let found = Self {
            leg,
            own,
            good: all.iter().filter(is_good).map(|(to, _)| *to).collect(),
            bad: all.iter().filter(|(_, tls)| is_bad(tls)).copied().collect(),
        };
        (all.len() > 1 && !found.bad.is_empty()).then_some(found)
    }

    /// A warning for each cause at an address that the check did not use.
    fn warnings(&self, evidence: &Evidence) -> Vec<Finding> {
        let mut found: Vec<Finding> = Vec::new();
        for (to, tls) in &self.bad {
            let (Some(own), Some(fault)) = (self.leg.connect.outcome.done(), tls.outcome.fault())
            else {
                continue;
            };
            let mut there = self.leg.clone();
            there.connect.outcome = Step::Done {
                value: Connected { to: *to, ..*own },
                took: Duration::ZERO,
            };
            there.tls = (*tls).clone();
            let Some(finding) = tls::handshake(evidence, &there) else {
                continue;
            };
            let line = format!("{to}: {fault}");
            if let Some(same) = found.iter_mut().find(|one| one.cause == finding.cause) {
                same.evidence.push(line);
                continue;
            }
            // The first fact names the server and not its address.
            let facts = finding.evidence.iter().skip(1).cloned();
            found.push(Finding {
                severity: Severity::Warning,
                evidence: [self.share(), line].into_iter().chain(facts).collect(),
                hint: self.hint(),
                ..finding
            });
        }
        found
    }

    /// How many addresses fail, and which share of pulls that hits.
    fn share(&self) -> String {
        let (bad, all) = (self.bad.len(), self.bad.len() + self.good.len());
        let host = self.leg.dialed();
        let fails = if bad == 1 { "fails" } else { "fail" };
        let count = format!("{bad} of the {all} addresses of '{host}' {fails} in TLS");
        if self.is_of_hosts_file() {
            return format!(
                "{count}; by the hosts file, a pull always dials {} first",
                self.own.ip()
            );
        }
        // The other family is dialed only where no address of the first works.
        let family = Family::of(self.own.ip());
        let of_family = |to: &SocketAddr| Family::of(to.ip()) == family;
        let bad = self.bad.iter().filter(|(to, _)| of_family(to)).count();
        let all = bad + self.good.iter().filter(|to| of_family(to)).count();
        let own = self.own.ip();
        match (bad, all) {
            (0, _) => format!(
                "{count}; none of them is dialed while an {family} address can be connected to"
            ),
            (bad, all) if bad == all => count,
            (bad, all) if self.rotates() => format!(
                "{count}; the name servers rotate the addresses, and a connection is made to the first: about {bad} of {all} connections fail, and a pull makes several"
            ),
            (bad, all) => format!(
                "{count}; a pull dials the first address of the name server's answer, now {own}; where answers rotate, about {bad} of {all} connections fail, and a pull makes several"
            ),
        }
    }

    fn is_of_hosts_file(&self) -> bool {
        let resolved = self.leg.resolve.outcome.done();
        resolved.is_some_and(|found| found.source == ResolutionSource::HostsFile)
    }

    /// Whether two answers had the same addresses in different orders.
    fn rotates(&self) -> bool {
        let answers: Vec<(&str, Family, Vec<_>)> = self
            .leg
            .resolve
            .queries
            .iter()
            .filter_map(|query| {
                let records = &query.outcome.done()?.records;
                let addresses = records.iter().map(|record| record.address).collect();
                Some((query.name.as_str(), query.family, addresses))
            })
            .collect();
        let sorted = |addresses: &[IpAddr]| {
            let mut sorted = addresses.to_vec();
            sorted.sort_unstable();
            sorted
        };
        answers.iter().any(|(name, family, one)| {
            answers.iter().any(|(other_name, other_family, other)| {
                name == other_name
                    && family == other_family
                    && one != other
                    && sorted(one) == sorted(other)
            })
        })
    }

    fn hint(&self) -> String {
        let host = self.leg.dialed();
        let bad = joined(self.bad.iter().map(|(to, _)| to.ip()));
        let them = if self.bad.len() == 1 { "it" } else { "them" };
        let place = if self.is_of_hosts_file() {
            "the hosts file"
        } else {
            "DNS"
        };
        // Certificates for other names.
        let foreign = self
            .bad
            .iter()
            .filter(|(_, tls)| matches!(tls.outcome.fault(), Some(TlsFault::NameMismatch { .. })));
        let foreign: Vec<IpAddr> = foreign.map(|(to, _)| to.ip()).collect();
        let owner = if foreign.is_empty() {
            String::new()
        } else {
            format!(
                " If the registry does not use {} any more, another owner may have {} by now.",
                joined(&foreign),
                if foreign.len() == 1 { "it" } else { "them" }
            )
        };
        format!(
            "Fix TLS at {bad}, or remove {them} from the addresses of '{host}' in {place}; the other addresses are fine.{owner}"
        )
    }
}
