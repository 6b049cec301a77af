//! `pullpath wait`: for an init container. It ends when the pod's EIP is bound, where the pod asks for
//! one, and a pull of the image would succeed.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::args::{duration, long_duration};
use super::credential::Credentials;
use super::error::Error;
use super::output::{CANNOT_TELL, FAILURE, Printing, SUCCESS};
use super::probe_context::{CheckArgs, ProbeContext, runtime};
use crate::daemon::schedule::backoff::Answered;
use crate::daemon::schedule::cooldown::COOLDOWN;
use crate::daemon::store::summary;
use crate::diagnose::level::Severity;
use crate::diagnose::{Pull, Verdict};
use crate::model::evidence::Attempt;
use crate::model::network::PodEip;
use crate::model::reference::Reference;
use crate::model::units::HumanDuration;
use crate::model::vantage::Vantage;
use crate::probe;
use crate::probe::check::{Check, Effort};
use crate::probe::network::NoProgress;
use crate::pull_secret::entry::Credential;
use crate::pull_secret::keyring::Keyring;
use crate::report::wait::{Eip, WaitDocument, render_wait};
use crate::report::{Report, SCHEMA_VERSION, Tool};
use crate::vantage::pod_eip;

/// An EIP is bound within some seconds of the pod's start; its annotation reaches a file with the
/// kubelet's next round, up to 90 s later. To look costs nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Between two checks: a path that opens is noticed at once, one that stays closed costs 4 checks a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// After 429 without `Retry-After`, as the daemon has it.
const TOO_MANY_PAUSE: Duration = Duration::from_mins(1);

/// Nobody waits here for longer (`--timeout`), whatever a registry asks for.
const LONGEST_ASKED: Duration = Duration::from_hours(24);

/// The same is said again after this, so that a log shows that somebody is still waiting.
const SAY_AGAIN: Duration = Duration::from_mins(1);

#[derive(Args, Debug)]
#[command(
    after_help = "For an init container. It can't help the pull of its own image, nor of image volumes, which the kubelet has\n\
                  pulled before it runs; images of the main containers are pulled only after all init containers have ended.\n\n\
                  Exit status: 0 the path is open, 1 it was not at the timeout (the report says why),\n\
                  2 it could not be told, or nothing could be tried."
)]
pub(super) struct WaitArgs {
    /// The image that is to be pulled next, as in a pod's `image:`
    #[arg(value_name = "REFERENCE")]
    reference: Reference,

    /// Give up after this
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = long_duration)]
    timeout: Duration,

    /// The longest wait for any single answer from the network
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    answer_timeout: Duration,

    /// The pod's annotations, from a downward API volume [default: /etc/podinfo/annotations, if it is there]
    #[arg(long, value_name = "FILE")]
    pod_annotations: Option<PathBuf>,

    /// Wait for an EIP also where the file does not tell that the pod asks for one (a file of the one annotation)
    #[arg(long)]
    require_eip: bool,

    #[command(flatten)]
    printing: Printing,

    #[command(flatten)]
    check: CheckArgs,
}

pub(super) fn run(args: &WaitArgs, out: &mut dyn Write) -> Result<u8, Error> {
    runtime()?.block_on(wait(args, out))
}

async fn wait(args: &WaitArgs, out: &mut dyn Write) -> Result<u8, Error> {
    let begun = Instant::now();
    let deadline = begun + args.timeout;
    let mut check = RepeatedCheck::prepare(args).await?;
    let (mut pace, mut lines) = (Pace::default(), StatusLines::default());
    let mut report: Option<Report> = None;
    let mut was_missing = false;
    let is_open = loop {
        let eip = eip_of(check.pod_eip().as_ref(), args.require_eip);
        let is_missing = eip.is_missing();
        if was_missing && !is_missing {
            // Another path now: the classes are another's too.
            pace.begin_anew();
            check.looking = Some(check.ground.look());
        }
        was_missing = is_missing;
        // Without the EIP one check shows what else is wrong.
        if pace.next <= Instant::now() && (!is_missing || report.is_none()) {
            let Ok(newest) = timeout_at(deadline.into(), Box::pin(check.make())).await else {
                break false;
            };
            let newest = newest?;
            let answered = summary::answered(&newest.evidence.walk, Timestamp::now());
            pace.checked(answered, Instant::now());
            report = Some(newest);
        }
        let verdict = report.as_ref().map(|report| &report.verdict);
        if !is_missing && verdict.is_some_and(|verdict| verdict.pull == Pull::WouldSucceed) {
            break true;
        }
        let now = Instant::now();
        if let Some(line) = lines.next(&lacking(&eip, verdict), now - begun) {
            let _ = writeln!(io::stderr(), "{line}");
        }
        if now >= deadline {
            break false;
        }
        let next = if is_missing { now + LOOK } else { pace.next };
        let next = next.min(deadline).min(now + SAY_AGAIN);
        tokio::time::sleep_until(next.into()).await;
    };
    let document = WaitDocument {
        schema_version: SCHEMA_VERSION,
        pullpath: Tool::this(),
        image: args.reference.to_string(),
        is_open,
        waited: begun.elapsed(),
        checks: check.made,
        eip: eip_of(check.pod_eip().as_ref(), args.require_eip),
        report,
    };
    args.printing.print(&document, render_wait, out)?;
    let pull = document.report.as_ref().map(|report| report.verdict.pull);
    Ok(match (document.is_open, document.eip.is_missing(), pull) {
        (true, ..) => SUCCESS,
        (false, true, _) | (_, _, Some(Pull::WouldFail)) => FAILURE,
        _ => CANNOT_TELL,
    })
}

/// The check that `probe` makes, again and again.
struct RepeatedCheck<'a> {
    args: &'a WaitArgs,
    ground: ProbeContext,
    credentials: Credentials,
    rejected: Vec<(Credential, Attempt, Instant)>,
    looking: Option<JoinHandle<Vantage>>,
    vantage: Option<Vantage>,
    made: u32,
}

impl<'a> RepeatedCheck<'a> {
    async fn prepare(args: &'a WaitArgs) -> Result<Self, Error> {
        let credentials = args.check.credentials.prepare(&args.check.cluster).await?;
        let mut ground = args.check.ground(args.answer_timeout, false).await?;
        if let Some(path) = &args.pod_annotations {
            ground.network.pod_annotations = Some(path.clone());
        }
        Ok(Self {
            args,
            looking: Some(ground.look()),
            ground,
            credentials,
            rejected: Vec::new(),
            vantage: None,
            made: 0,
        })
    }

    fn pod_eip(&self) -> Option<PodEip> {
        pod_eip(&self.ground.network, self.ground.edges.vantage.network)
    }

    async fn make(&mut self) -> Result<Report, Error> {
        // Read anew: a Secret may have been corrected.
        let of_cluster = self.credentials.fetch().await;
        let reference = &self.args.reference;
        let mut sources = self.credentials.load(&of_cluster, reference, false).await?;
        sources.extend(self.ground.of_node(reference).await);
        let keyring = Keyring::new(sources);
        let (candidates, _) = keyring.lookup(reference);
        self.rejected
            .retain(|(one, _, at)| at.elapsed() < COOLDOWN && candidates.contains(one));
        let rested = self.rejected.iter().map(|(_, attempt, _)| attempt.clone());
        let effort = Effort {
            rested: rested.collect(),
            ..Effort::default()
        };
        let check = Check {
            asked_secrets: of_cluster.asked,
            ..self.args.check.of(reference.clone(), keyring, effort)
        };
        let started = Timestamp::now();
        let mut evidence = probe::pull(&check, &self.ground.edges, &NoProgress, started).await;
        self.made += 1;
        for attempt in summary::rejected(&evidence.walk) {
            let is_used =
                |candidate: &&Credential| Some(&candidate.id) == attempt.credential.as_ref();
            if let Some(credential) = candidates.iter().find(is_used) {
                let attempt = Attempt {
                    at: Some(started),
                    ..attempt.clone()
                };
                self.rejected
                    .push((credential.clone(), attempt, Instant::now()));
            }
        }
        if let Some(looking) = self.looking.take() {
            self.vantage = Some(looking.await.map_err(|_| Error::Panicked)?);
        }
        if let Some(vantage) = &self.vantage {
            evidence.vantage.clone_from(vantage);
            evidence.vantage.pod_eip = self.pod_eip();
        }
        Ok(Report::conclude(evidence))
    }
}

/// When the next check is due.
struct Pace {
    pause: Duration,
    next: Instant,
    /// Not before, whatever else changes: the registry has said so.
    not_before: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pause: FIRST_PAUSE,
            next: Instant::now(),
            not_before: None,
        }
    }
}

impl Pace {
    /// Something has changed that may have opened the path.
    fn begin_anew(&mut self) {
        self.pause = FIRST_PAUSE;
        let now = Instant::now();
        self.next = self.not_before.map_or(now, |at| at.max(now));
    }

    fn checked(&mut self, answered: Option<Answered>, now: Instant) {
        let asked_for = match answered {
            Some(Answered::TooMany { retry_after }) => Some(retry_after.unwrap_or(TOO_MANY_PAUSE)),
            Some(Answered::ServerError { retry_after }) => retry_after,
            _ => None,
        };
        self.not_before = asked_for.map(|wait| now + wait.min(LONGEST_ASKED));
        let next = now + self.pause;
        self.next = self.not_before.map_or(next, |at| at.max(next));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Lines for people, when something changes and each minute.
#[derive(Default)]
struct StatusLines {
    last: Option<(String, Duration)>,
}

impl StatusLines {
    /// The line that is to be written, if one is, so long after the beginning.
    fn next(&mut self, lacking: &str, since: Duration) -> Option<String> {
        let line = match &self.last {
            Some((last, at)) if last == lacking => {
                if since < *at + SAY_AGAIN {
                    return None;
                }
                format!("still waiting after {}: {lacking}", HumanDuration(since))
            }
            _ => format!("waiting: {lacking}"),
        };
        self.last = Some((lacking.to_owned(), since));
        Some(line)
    }
}

/// What the pod's annotations come to. `is_required`: an EIP is waited for unless one is there.
fn eip_of(seen: Option<&PodEip>, is_required: bool) -> Eip {
    let Some(seen) = seen else {
        return if is_required {
            Eip::Missing {
                source: None,
                reason: "there is no file with the pod's annotations; mount a downward API volume with metadata.annotations at /etc/podinfo"
                    .to_owned(),
            }
        } else {
            Eip::NotWanted
        };
    };
    let missing = |reason: &str| Eip::Missing {
        source: Some(seen.source.clone()),
        reason: reason.to_owned(),
    };
    let bound = |address: IpAddr| Eip::Bound { address };
    match (seen.allocated, seen.wanted) {
        (Some(address), _) => bound(address),
        (None, _) if seen.problem.is_some() => missing(seen.problem.as_deref().unwrap_or_default()),
        (None, Some(true)) => missing(
            "the pod asks for an EIP and has none yet (yangtse.io/allocated-ipv4-eip is not written)",
        ),
        (None, Some(false)) if is_required => {
            missing("the pod asks for no EIP (yangtse.io/pod-with-eip is not \"true\")")
        }
        (None, Some(false)) => Eip::NotWanted,
        (None, None) if is_required => missing("the pod's EIP is not written yet"),
        (None, None) => Eip::NotTold {
            source: seen.source.clone(),
        },
    }
}

/// In one line.
fn lacking(eip: &Eip, verdict: Option<&Verdict>) -> String {
    let path = match verdict {
        None => "the path was not tried yet".to_owned(),
        Some(verdict) => match verdict.pull {
            Pull::WouldSucceed => "the path is open".to_owned(),
            Pull::WouldFail => worst(verdict),
            Pull::Unknown => format!("it can't be told: {}", worst(verdict)),
        },
    };
    match eip {
        Eip::Missing { source, reason } => {
            let by = source
                .as_ref()
                .map_or_else(String::new, |source| format!(" ({source})"));
            format!("{reason}{by}; {path}")
        }
        Eip::NotTold { source } => format!(
            "{path}; whether the pod asks for an EIP is not told by {source}, --require-eip waits for one"
        ),
        Eip::NotWanted | Eip::Bound { .. } => path,
    }
}

/// The first of the critical findings; times are not of it, so that the same is the same.
fn worst(verdict: &Verdict) -> String {
    let critical = verdict
        .findings
        .iter()
        .find(|finding| finding.severity == Severity::Critical);
    let Some(finding) = critical else {
        return "nothing that was seen says why".to_owned();
    };
    let leg = finding
        .leg
        .map_or_else(String::new, |leg| format!(", {leg} leg"));
    format!(
        "{} ({}{leg})",
        finding.cause.entry().title,
        finding.cause.code()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(wanted: Option<bool>, allocated: Option<&str>) -> PodEip {
        PodEip {
            source: "annotations".to_owned(),
            wanted,
            allocated: allocated.map(|a| a.parse().unwrap()),
            ..PodEip::default()
        }
    }

    #[test]
    fn an_eip_is_waited_for_where_the_pod_asks_for_one() {
        for (pod, required, missing) in [
            (None, false, false),
            (None, true, true),
            (Some(seen(Some(true), None)), false, true),
            (Some(seen(Some(true), Some("203.0.113.9"))), true, false),
            (Some(seen(Some(false), None)), false, false),
            (Some(seen(Some(false), None)), true, true),
            (Some(seen(None, None)), false, false),
            (Some(seen(None, None)), true, true),
            (Some(seen(None, Some("203.0.113.9"))), false, false),
        ] {
            let eip = eip_of(pod.as_ref(), required);
            assert_eq!(eip.is_missing(), missing, "{pod:?} {required}");
        }
        let untold = lacking(&eip_of(Some(&seen(None, None)), false), None);
        assert!(untold.contains("--require-eip"), "{untold}");
        let unreadable = PodEip {
            problem: Some("it can't be read: denied".to_owned()),
            ..seen(None, None)
        };
        assert!(lacking(&eip_of(Some(&unreadable), false), None).contains("denied"));
    }

    #[test]
    fn checks_are_made_less_and_less_often_and_never_before_a_registry_allows() {
        let mut pace = Pace::default();
        let start = pace.next;
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pace.checked(Some(Answered::Well), now);
            pauses.push(pace.next.duration_since(now).as_secs());
            now = pace.next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15]);
        let asked = |retry_after| Some(Answered::TooMany { retry_after });
        pace.checked(asked(Some(Duration::from_mins(2))), now);
        assert_eq!(pace.next.duration_since(now).as_secs(), 120);
        pace.checked(asked(None), now);
        assert_eq!(pace.next.duration_since(now).as_secs(), 60);
        pace.checked(asked(Some(Duration::MAX)), now);
        assert_eq!(pace.next.duration_since(now), LONGEST_ASKED);
        pace.checked(asked(Some(Duration::from_secs(2))), now);
        assert_eq!(pace.next.duration_since(now).as_secs(), 15);
        // A new EIP changes nothing of what the registry has asked for.
        let far = Instant::now() + Duration::from_hours(1);
        pace.checked(asked(Some(Duration::from_hours(1))), Instant::now());
        pace.begin_anew();
        assert!(pace.next + Duration::from_secs(5) > far);
    }

    #[test]
    fn what_is_lacking_is_said_when_it_changes_and_each_minute() {
        let mut lines = StatusLines::default();
        let mut at = |seconds, text: &str| lines.next(text, Duration::from_secs(seconds));
        assert_eq!(at(0, "a").as_deref(), Some("waiting: a"));
        assert_eq!(at(59, "a"), None);
        assert_eq!(at(60, "a").as_deref(), Some("still waiting after 60 s: a"));
        assert_eq!(at(61, "b").as_deref(), Some("waiting: b"));
        assert_eq!(at(120, "b"), None);
        assert_eq!(
            at(125, "b").as_deref(),
            Some("still waiting after 125 s: b")
        );
    }
}
