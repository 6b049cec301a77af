//! Rules for what a lookup costs and whether it succeeds each time, by the runtime's own resolver.

use std::time::Duration;

use super::finding::at;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Severity;
use crate::model::endpoint::Host;
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{Phase, show_server};
use crate::model::resolve::{Family, ResolutionSource};
use crate::model::resolver::ResolverSettings;
use crate::model::text::joined;
use crate::model::units::HumanDuration;
use crate::resolver::order::Order;
use crate::resolver::outlook::{DIAL_LIMIT, Result, Way, ways};
use crate::resolver::{Ending, Exchange, Lookup, Word};

/// Every way in which a lookup of a leg's name may go.
pub(super) struct Prospect<'a> {
    settings: &'a ResolverSettings,
    ways: Vec<Way<'a>>,
}

/// `None`: no server was asked, or the report is of a version without the settings.
pub(super) fn prospect<'a>(evidence: &'a Evidence, leg: &'a Leg) -> Option<Prospect<'a>> {
    let settings = evidence.vantage.resolver.as_deref()?;
    let queries = &leg.resolve.queries;
    let found = leg.resolve.outcome.done();
    let is_asked = found.is_none_or(|f| matches!(f.source, ResolutionSource::Server { .. }));
    let Host::Name(host) = leg.dialed() else {
        return None;
    };
    let has = |family| queries.iter().any(|query| query.family == family);
    let families: &[Family] = match (has(Family::V4), has(Family::V6)) {
        (true, true) => &[Family::V4, Family::V6],
        (true, false) => &[Family::V4],
        (false, true) => &[Family::V6],
        (false, false) => return None,
    };
    let lookup = Lookup {
        host,
        settings,
        families,
        queries,
    };
    is_asked.then(|| Prospect {
        settings,
        ways: ways(&lookup),
    })
}

impl Prospect<'_> {
    /// Neither does every way find addresses in time, nor does none.
    pub(super) fn is_open(&self) -> bool {
        let found = self.results().filter(|r| *r == Result::Found).count();
        self.results().any(|r| r == Result::Unknown) || (found > 0 && found < self.ways.len())
    }

    /// Every way takes longer than the limit of a dial, although servers answer.
    pub(super) fn is_too_late(&self) -> bool {
        let is_late = |way: &Way<'_>| way.result() == Result::TooLate && way.is_heard();
        self.ways.iter().all(is_late)
    }

    /// The same resolver finds addresses or not by the server that it begins with: how many ways do not, of how many.
    pub(super) fn by_chance(&self) -> Option<(usize, usize)> {
        let orders = self.ways.iter().map(|way| way.order);
        orders.into_iter().find_map(|order| {
            let same = || self.ways.iter().filter(move |way| way.order == order);
            let failed = same().filter(|way| way.result() != Result::Found).count();
            (failed > 0 && failed < same().count()).then(|| (failed, same().count()))
        })
    }

    /// libc may ask systemd-resolved instead of the name servers.
    pub(super) fn may_ask_resolved(&self) -> bool {
        self.settings.sources.has("resolve") && self.ways.iter().any(|w| w.order == Order::Libc)
    }

    /// The time of the slowest way.
    pub(super) fn longest(&self) -> Duration {
        self.slowest()
            .map_or(Duration::ZERO, |way| way.outcome.took)
    }

    fn results(&self) -> impl Iterator<Item = Result<'_>> {
        self.ways.iter().map(Way::result)
    }

    fn slowest(&self) -> Option<&Way<'_>> {
        self.ways.iter().max_by_key(|way| way.outcome.took)
    }
}

/// Whether the finding is about a name that resolves in some orders of the servers only.
pub(super) fn is_by_chance(evidence: &Evidence, finding: &Finding) -> bool {
    finding.cause == Cause::DnsSplitHorizon
        && legs(evidence, finding).any(|leg| {
            prospect(evidence, leg).is_some_and(|prospect| prospect.by_chance().is_some())
        })
}

/// Whether a pull may fail at a lookup that gave this check addresses: its time, its servers or its resolver differ.
pub(super) fn differs_from_check(evidence: &Evidence, finding: &Finding) -> bool {
    let is_of_lookup = matches!(finding.cause, Cause::DnsUndecided | Cause::DnsSlow)
        || is_by_chance(evidence, finding);
    is_of_lookup && legs(evidence, finding).any(|leg| leg.resolve.outcome.done().is_some())
}

fn legs<'a>(evidence: &'a Evidence, finding: &Finding) -> impl Iterator<Item = &'a Leg> {
    let role = finding.leg;
    let legs = evidence.walk.legs.iter();
    legs.filter(move |leg| Some(leg.role) == role)
}

/// The resolvers that the runtime may use have different results, or what decides was not observed.
pub(super) fn undecided(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    let prospect = prospect(evidence, leg)?;
    // `names::split` reports servers that differ.
    if !prospect.is_open()
        || (prospect.by_chance().is_some() && leg.resolve.disagreement().is_some())
    {
        return None;
    }
    let mut facts: Vec<String> = Vec::new();
    for way in &prospect.ways {
        let fact = said(way);
        if !facts.contains(&fact) {
            facts.push(fact);
        }
    }
    let mut orders: Vec<Order> = prospect.ways.iter().map(|way| way.order).collect();
    orders.dedup();
    let is_cut_off = |w: &Way<'_>| w.result() == Result::Unknown && w.not_asked.is_none();
    let source = evidence.vantage.resolver_name();
    let hint = if orders.len() > 1 {
        let reasons = reasons(prospect.settings, leg);
        facts.push(format!(
            "a Go program that is linked with libc hands this lookup to libc because of {reasons}"
        ));
        format!(
            "Run `go version -m` on the node's containerd: with CGO_ENABLED=0, Go's own resolver is used. Or change {reasons}, so that both have the same result."
        )
    } else if prospect.ways.iter().any(is_cut_off) {
        "Run again with a longer --timeout: the servers were too slow for this one.".to_owned()
    } else {
        format!(
            "Check the servers in {source}: how long a lookup takes depends on which of them is queried first."
        )
    };
    Some(
        at(Cause::DnsUndecided, leg.role, Phase::Resolve)
            .facts(facts)
            .hint(hint),
    )
}

/// A way in words.
fn said(way: &Way<'_>) -> String {
    let resolver = match way.order {
        Order::Libc => "libc's resolver",
        _ => "Go's own resolver",
    };
    let after = HumanDuration(way.outcome.took);
    match (way.result(), &way.outcome.ending) {
        (Result::TooLate, _) => format!(
            "{resolver} needs {after}, and containerd gives up after {}",
            HumanDuration(DIAL_LIMIT)
        ),
        (_, Ending::Found { answers, .. }) => {
            let records = answers.iter().flat_map(|(_, answer)| &answer.records);
            let addresses = records.map(|record| record.address).take(4);
            format!("{resolver} finds {} after {after}", joined(addresses))
        }
        (Result::Failed(fault), _) => format!("{resolver} fails after {after}: {fault}"),
        _ => match way.not_asked {
            Some(source) => format!(
                "{resolver} asks '{source}' of nsswitch.conf, which this check can't{}",
                if way.outcome.exchanges.is_empty() {
                    ", and then no name server"
                } else {
                    "; DNS alone has no address"
                }
            ),
            None => format!("{resolver}: the time of this check ended before its result was known"),
        },
    }
}

/// What makes Go hand the lookup to libc.
fn reasons(settings: &ResolverSettings, leg: &Leg) -> String {
    let words = settings.unusual.iter();
    let mut reasons: Vec<String> = words
        .map(|word| format!("'{}' in resolv.conf", word.word))
        .chain(settings.runtime.variables.iter().cloned())
        .collect();
    let usual = |name: &str| ["files", "dns", "myhostname"].contains(&name);
    let list = &settings.sources.list;
    let unusual = list
        .iter()
        .filter(|s| !usual(&s.name) || !s.actions.is_empty());
    reasons.extend(unusual.map(|source| format!("'{source}' in nsswitch.conf")));
    reasons.extend(
        settings
            .sources
            .problem
            .iter()
            .map(|problem| format!("nsswitch.conf ({problem})")),
    );
    if reasons.is_empty() {
        reasons.push(format!("the name '{}'", leg.dialed()));
    }
    joined(reasons)
}

/// The time of each lookup, if it is not explained by a silent server or family of the name that answers.
pub(super) fn slow(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    let prospect = prospect(evidence, leg)?;
    let way = prospect.slowest()?;
    let took = way.outcome.took;
    let found = leg.resolve.outcome.done();
    if prospect.is_open() || !(found.is_some() || prospect.is_too_late()) {
        return None;
    }
    let is_late = took >= DIAL_LIMIT;
    let is_own = |asked: &&Exchange<'_>| found.is_some_and(|found| asked.name == found.name);
    let is_other = |asked: &&Exchange<'_>| !is_own(asked);
    let lost = span(way.outcome.exchanges.iter().filter(is_other));
    let own = || way.outcome.exchanges.iter().filter(is_own);
    let has_silence = own().any(|asked| matches!(asked.reply.word, Word::Silence));
    let is_slow = lost >= NOTABLE || (took >= SLOW && !has_silence);
    if !is_slow && !is_late {
        return None;
    }
    let source = evidence.vantage.resolver_name();
    let host = leg.dialed();
    let limit = HumanDuration(DIAL_LIMIT);
    let is_other_way = |other: &Way<'_>| other.outcome.took + NOTABLE / 2 < took;
    let varies = prospect.ways.iter().any(is_other_way);
    let up_to = if varies { "up to " } else { "" };
    let mut finding = at(Cause::DnsSlow, leg.role, Phase::Resolve)
        .severity(if is_late {
            Severity::Critical
        } else {
            Severity::Warning
        })
        .fact(format!(
            "each lookup of '{host}' takes {up_to}{}; containerd allows {limit} for the lookup and the connection",
            HumanDuration(took)
        ));
    let settings = prospect.settings;
    if lost >= NOTABLE {
        let order = if host.to_string().matches('.').count() < settings.ndots {
            format!(
                "with ndots:{}, search domains are queried before the name as written",
                settings.ndots
            )
        } else {
            "the name as written is queried first, and search domains then".to_owned()
        };
        finding = finding.fact(order);
    }
    finding = finding.facts(waits(&way.outcome.exchanges));
    let domains: Vec<&str> = settings
        .search
        .iter()
        .filter(|domain| {
            let of = |e: &&Exchange<'_>| is_other(e) && e.name.ends_with(&format!(".{domain}"));
            span(way.outcome.exchanges.iter().filter(of)) >= NOTABLE
        })
        .map(|domain| domain.trim_end_matches('.'))
        .collect();
    if domains.is_empty() {
        return Some(finding.hint(format!(
            "Find out why these servers are slow, or list faster ones first in {source}."
        )));
    }
    let s = if domains.len() > 1 { "s" } else { "" };
    let more = match domains.len().saturating_sub(MOST_DOMAINS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let domains = format!("{}{more}", joined(domains.into_iter().take(MOST_DOMAINS)));
    Some(finding.hint(format!(
        "Remove the search domain{s} {domains} from {source}, or lower ndots there; or make the server answer for {domains}."
    )))
}

/// What took long, one line for each server and name.
fn waits(exchanges: &[Exchange<'_>]) -> Vec<String> {
    // Server and what it did, the families, and how often for the first.
    let mut lines: Vec<(String, Vec<&str>, usize)> = Vec::new();
    let long = |asked: &&Exchange<'_>| asked.reply.took >= NOTABLE / 2;
    for asked in exchanges.iter().filter(long) {
        let took = HumanDuration(asked.reply.took);
        let what = match asked.reply.word {
            Word::Silence => format!(": no answer for {took}"),
            Word::Trouble(fault) | Word::Nothing(fault) => format!(" after {took}: {fault}"),
            Word::Addresses(..) => format!(" after {took}: addresses"),
            Word::NotAsked => continue,
        };
        let name = asked.name.trim_end_matches('.');
        let line = format!("'{name}' at {}{what}", show_server(asked.server));
        let record = asked.family.record();
        match lines.iter_mut().find(|(known, ..)| *known == line) {
            Some((_, records, times)) if records[0] == record => *times += 1,
            Some((_, records, _)) if records.contains(&record) => {}
            Some((_, records, _)) => records.push(record),
            None => lines.push((line, vec![record], 1)),
        }
    }
    let lines = lines.into_iter().map(|(line, records, times)| {
        let times = match times {
            1 => String::new(),
            times => format!(", {times} times"),
        };
        format!("{} of {line}{times}", records.join(" and "))
    });
    lines.take(6).collect()
}

/// The time from the first begin to the last end.
fn span<'e>(exchanges: impl Iterator<Item = &'e Exchange<'e>>) -> Duration {
    let ends = exchanges.map(|asked| (asked.begins, asked.begins + asked.reply.took));
    let whole = ends.reduce(|(first, last), (begins, ends)| (first.min(begins), last.max(ends)));
    whole.map_or(Duration::ZERO, |(begins, ends)| ends.saturating_sub(begins))
}

/// Search domains that a hint names.
const MOST_DOMAINS: usize = 6;

/// Below this, time lost at other names is not worth a finding.
const NOTABLE: Duration = Duration::from_secs(1);

/// A cold cache may need a second.
pub(super) const SLOW: Duration = Duration::from_secs(2);
