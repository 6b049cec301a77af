//! The summary of a run: the parts of a report that metrics, page and schedule need. Pure.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::daemon::schedule::backoff::Answered;
use crate::diagnose::Finding;
use crate::diagnose::level::Confidence;
use crate::diagnose::throughput::Throughput;
use crate::model::endpoint::Role;
use crate::model::evidence::{Evidence, LargeHello, Leg, RateLimit, Walk};
use crate::model::fault::{HttpFault, ManifestFault, Phase, TokenFault};
use crate::model::path::PathClass;
use crate::model::step::Step;
use crate::model::units::Bytes;
use crate::registry::error;
use crate::report::Report;

/// The published part of a report.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// Phases that ran, one for each leg and phase.
    pub phases: Vec<PhaseSummary>,
    /// The path of each leg of the deciding host.
    pub paths: Vec<PathSummary>,
    /// Findings, the worst first; without those of the transfer test.
    pub findings: Vec<Finding>,
    /// When the first certificate of each leg's chain expires.
    pub certificates: Vec<(Role, Timestamp)>,
    /// When the credential in use expires; `None`: it does not state it, or no credential is used.
    pub credential: Option<Timestamp>,
    /// The registry's rate limit; `None`: it reported none.
    pub rate_limit: Option<RateLimit>,
    /// The compressed size of the platform's layers; `None`: no manifest was read.
    pub image: Option<Bytes>,
    /// The transfer test; `None`: none was made.
    pub transfer: Option<TransferSummary>,
    /// Bytes of layers that were downloaded, by the transfer test and beside it.
    pub downloaded: Bytes,
    /// Requests to the registry, its token service and its blob storage.
    pub requests: u32,
    /// `None`: there was no answer.
    pub answered: Option<Answered>,
}

/// A phase that ran.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseSummary {
    /// The leg.
    pub leg: Role,
    /// The phase.
    pub phase: Phase,
    /// Whether it succeeded.
    pub success: bool,
    /// How long it took.
    pub took: Duration,
}

/// The path of a leg.
#[derive(Clone, Debug, PartialEq)]
pub struct PathSummary {
    /// The leg.
    pub leg: Role,
    /// Its path class; `None`: unknown.
    pub class: Option<PathClass>,
    /// The confidence of that class.
    pub confidence: Confidence,
    /// The addresses of the server's name, sorted. They distinguish a new DNS answer from a new path.
    pub addresses: Vec<IpAddr>,
    /// The server, as `HOST` or `HOST:PORT`.
    pub server: String,
}

/// The result of a transfer test.
#[derive(Clone, Debug)]
pub struct TransferSummary {
    /// When its check started.
    pub at: Timestamp,
    /// The time from the first request for a layer to its first byte; `None`: none arrived.
    pub first_byte: Option<Duration>,
    /// The measured rates; `None`: too little was downloaded.
    pub rates: Option<Throughput>,
    /// Findings about the rate, the worst first.
    pub findings: Vec<Finding>,
}

impl RunSummary {
    /// Summarizes a report.
    pub fn of(report: &Report) -> Self {
        let (evidence, verdict) = (&report.evidence, &report.verdict);
        let walk = &evidence.walk;
        let mut findings: Vec<Finding> = verdict.findings.clone();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let (of_transfer, findings) = findings
            .into_iter()
            .partition(|finding| finding.cause.is_of_transfer());
        let paths = verdict.paths.iter().filter(|path| path.of_host.is_none());
        Self {
            phases: phases(walk),
            paths: paths
                .map(|path| PathSummary {
                    leg: path.role,
                    class: path.class,
                    confidence: path.confidence,
                    addresses: leg_of(walk, path.role).map(addresses).unwrap_or_default(),
                    server: path.endpoint.authority(),
                })
                .collect(),
            findings,
            certificates: walk.legs.iter().filter_map(certificate).collect(),
            credential: credential(evidence),
            rate_limit: walk.rate_limit.clone(),
            image: walk.manifest.done().map(|found| found.layers_size),
            transfer: walk.transfer.as_ref().map(|transfer| TransferSummary {
                at: evidence.started,
                first_byte: transfer
                    .streams
                    .first()
                    .and_then(|stream| stream.first_byte),
                rates: verdict.throughput.clone(),
                findings: of_transfer,
            }),
            downloaded: downloaded(evidence),
            requests: requests(walk)
                + hellos(walk, evidence.started)
                + repeats(walk, evidence.started),
            answered: answered(walk, evidence.started),
        }
    }
}

fn downloaded(evidence: &Evidence) -> Bytes {
    let walks = || std::iter::once(&evidence.walk).chain(&evidence.others);
    let layers = walks().flat_map(|walk| &walk.layers);
    let read = layers.filter_map(|layer| Some(layer.outcome.done()?.bytes.0));
    let transfers = walks().filter_map(|walk| Some(walk.transfer.as_ref()?.bytes().0));
    Bytes(read.chain(transfers).sum())
}

fn leg_of(walk: &Walk, role: Role) -> Option<&Leg> {
    walk.legs.iter().find(|leg| leg.role == role)
}

fn addresses(leg: &Leg) -> Vec<IpAddr> {
    let found = leg.resolve.outcome.done();
    let mut addresses = found.map_or_else(Vec::new, |found| found.addresses.clone());
    addresses.sort_unstable();
    addresses
}

/// Every phase that ran, once: the last one, if redirects led to several legs of a role.
fn phases(walk: &Walk) -> Vec<PhaseSummary> {
    let mut found: Vec<PhaseSummary> = Vec::new();
    let mut note = |leg, phase, ran: Option<(bool, Duration)>| {
        let Some((success, took)) = ran else { return };
        found.retain(|known: &PhaseSummary| (known.leg, known.phase) != (leg, phase));
        found.push(PhaseSummary {
            leg,
            phase,
            success,
            took,
        });
    };
    for leg in &walk.legs {
        note(leg.role, Phase::Resolve, ran(&leg.resolve.outcome));
        note(leg.role, Phase::Connect, ran(&leg.connect.outcome));
        note(leg.role, Phase::Tls, ran(&leg.tls.outcome));
    }
    note(Role::Registry, Phase::Ping, ran(&walk.ping));
    // The attempt that decided. One with a time is from an earlier run.
    if let Some(attempt) = walk.attempts.last().filter(|attempt| attempt.at.is_none()) {
        note(Role::Token, Phase::Token, ran(&attempt.token));
        let success = attempt.head.done().is_some() && walk.manifest.fault().is_none();
        let took = [attempt.head.took(), walk.manifest.took()];
        let took = took
            .into_iter()
            .flatten()
            .reduce(|head, fetched| head + fetched);
        let manifest = took.map(|took| (success, took));
        note(Role::Registry, Phase::Manifest, manifest);
    }
    note(Role::Blob, Phase::Blob, ran(&walk.blob));
    found
}

/// Whether a step succeeded, and how long it took; `None`: it did not run.
fn ran<T, F>(step: &Step<T, F>) -> Option<(bool, Duration)> {
    Some((step.done().is_some(), step.took()?))
}

fn certificate(leg: &Leg) -> Option<(Role, Timestamp)> {
    let expiries = leg
        .tls
        .chain
        .iter()
        .map(|certificate| certificate.not_after);
    Some((leg.role, expiries.min()?))
}

/// The expiry of the credential that was accepted, or else of the last one that was tried.
fn credential(evidence: &Evidence) -> Option<Timestamp> {
    let used = evidence.walk.attempts.last()?.credential.as_ref()?;
    let mut sources = evidence.keyring.sources.iter();
    let source = sources.find(|source| source.source == used.source)?;
    let is_for = |key: &Option<String>| key.as_ref().is_none_or(|key| *key == used.key);
    let expiries = source.expiries.iter().filter(|expiry| is_for(&expiry.key));
    expiries.filter_map(|expiry| expiry.expires).min()
}

fn requests(walk: &Walk) -> u32 {
    let ran = |took: Option<Duration>| usize::from(took.is_some());
    let tried = walk.attempts.iter().filter(|attempt| attempt.at.is_none());
    let of_attempts: usize = tried
        .map(|attempt| attempt.exchanges.len() + ran(attempt.head.took()))
        .sum();
    let fetched = walk.manifest.done().map_or(0, |found| found.fetched);
    let blob = ran(walk.blob.took()) + walk.blob.done().map_or(0, |found| found.redirects.len());
    let transfer = walk.transfer.as_ref();
    let transfer = transfer.map_or(0, |transfer| transfer.streams.len());
    let all = ran(walk.ping.took()) + of_attempts + fetched + blob + transfer;
    u32::try_from(all).unwrap_or(u32::MAX)
}

/// Connections of the trial of a large ClientHello; each counts as a request.
fn hellos(walk: &Walk, started: Timestamp) -> u32 {
    let trials = walk.legs.iter().filter_map(|leg| leg.large_hello.as_ref());
    trials
        .filter(|trial| trial.at >= started)
        .map(|trial| match trial.short {
            Some(_) => LargeHello::MOST_HANDSHAKES,
            None => 1,
        })
        .sum()
}

/// Connections of the trials of other addresses and of exchanges that failed; each counts as a request.
fn repeats(walk: &Walk, started: Timestamp) -> u32 {
    let addresses = walk.legs.iter().flat_map(|leg| &leg.other_addresses);
    let addresses = addresses.filter(|trial| trial.at >= started).count();
    let tried = walk.segments.as_ref();
    let trials = tried.map_or(0, |tried| tried.trials.len().saturating_sub(1));
    u32::try_from(addresses + trials).unwrap_or(u32::MAX)
}

/// What the servers' answers mean for the back-off; `None`: there was no answer.
pub fn answered(walk: &Walk, now: Timestamp) -> Option<Answered> {
    let mut faults: Vec<&HttpFault> = Vec::new();
    let mut let_in = walk.ping.done().is_some();
    faults.extend(walk.ping.fault());
    for attempt in walk.attempts.iter().filter(|attempt| attempt.at.is_none()) {
        let_in |= attempt.head.done().is_some();
        faults.extend(attempt.head.fault());
        let exchanges = attempt.exchanges.iter();
        faults.extend(exchanges.filter_map(|exchange| exchange.outcome.fault()));
        if let Some(TokenFault::Http { fault } | TokenFault::Rejected { fault }) =
            attempt.token.fault()
        {
            faults.push(fault);
        }
    }
    if let Some(ManifestFault::Http { fault }) = walk.manifest.fault() {
        faults.push(fault);
    }
    faults.extend(walk.blob.fault());
    let mut worst = let_in.then_some(Answered::Well);
    for fault in faults {
        let HttpFault::Status {
            status,
            code,
            retry_after,
            ..
        } = fault
        else {
            continue;
        };
        let retry_after = retry_after.as_deref().and_then(|text| wait_of(text, now));
        if *status == 429 || code.as_deref() == Some("TOOMANYREQUESTS") {
            return Some(Answered::TooMany { retry_after });
        }
        if *status >= 500 {
            worst = Some(Answered::ServerError { retry_after });
        } else {
            worst = worst.or(Some(Answered::Well));
        }
    }
    worst
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.
fn wait_of(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = error::http_date(text.trim())?;
    Duration::try_from(at.duration_since(now)).ok()
}

/// Attempts of this check whose login was rejected. Repeating them could lock an account.
pub fn rejected(walk: &Walk) -> impl Iterator<Item = &crate::model::evidence::Attempt> {
    walk.attempts.iter().filter(|attempt| {
        let refused_token = matches!(attempt.token.fault(), Some(TokenFault::Rejected { .. }));
        // With Basic there is no token: the registry itself refuses the password.
        let refused_login = matches!(attempt.token, Step::Skipped { .. })
            && matches!(
                attempt.head.fault(),
                Some(HttpFault::Status { status: 401, .. })
            );
        attempt.at.is_none() && attempt.credential.is_some() && (refused_token || refused_login)
    })
}
