//! `pullpath wait`, for an init container: checks an image again and again until a pull would succeed and the
//! pod's EIP is bound, if the pod requests one.

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
use super::output::{FAILURE, Printing, SUCCESS, UNKNOWN};
use super::probe_context::{CheckArgs, ProbeContext, runtime};
use crate::daemon::schedule::backoff::Answered;
use crate::daemon::schedule::cooldown::COOLDOWN;
use crate::daemon::store::summary;
use crate::diagnose::level::Severity;
use crate::diagnose::{Pull, Unseen, Verdict, rests_on};
use crate::model::evidence::Attempt;
use crate::model::network::PodEip;
use crate::model::reference::Reference;
use crate::model::units::HumanDuration;
use crate::model::vantage::{NetworkView, Vantage};
use crate::probe;
use crate::probe::check::{Check, Effort};
use crate::probe::network::NoProgress;
use crate::pull_secret::entry::Credential;
use crate::pull_secret::keyring::Keyring;
use crate::report::wait::{Eip, WaitDocument, render_wait};
use crate::report::{Report, SCHEMA_VERSION, Tool};
use crate::vantage::pod_eip;

/// How often the annotations are read. An EIP is bound within some seconds of the pod's start; its annotation
/// reaches the file with the kubelet's next sync, up to 90 s later.
const EIP_INTERVAL: Duration = Duration::from_secs(1);

/// The pause between two checks grows between these bounds: a path that opens soon is noticed at once, one that
/// stays closed costs 4 checks a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The pause after 429 without `Retry-After`, the same as the daemon's.
const TOO_MANY_PAUSE: Duration = Duration::from_mins(1);

/// Upper bound for `Retry-After`: the longest `--timeout`.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// A status line without changes is repeated after this, so that a log shows that the command still waits.
const REPEAT_STATUS: Duration = Duration::from_mins(1);

#[derive(Args, Debug)]
#[command(
    after_help = "For an init container. The kubelet pulls the init container's own image and image volumes before this command\n\
                  runs, so it can't help these; it pulls the images of the main containers after all init containers have ended.\n\n\
                  Exit status: 0 a pull would succeed, or, in a pod, only what can't be observed there may prevent it;\n\
                  1 at the timeout it would still fail (the report shows why), or the EIP is missing;\n\
                  2 outside of a pod: unknown at the timeout; anywhere: no check could be made."
)]
pub(super) struct WaitArgs {
    /// The image to wait for, written as in a pod's `image:`
    #[arg(value_name = "REFERENCE")]
    reference: Reference,

    /// Stop waiting after this time
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = long_duration)]
    timeout: Duration,

    /// Timeout for any single answer from the network
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    answer_timeout: Duration,

    /// A file with the pod's annotations, from a downward API volume [default: /etc/podinfo/annotations, if it exists]
    #[arg(long, value_name = "FILE")]
    pod_annotations: Option<PathBuf>,

    /// Wait for an EIP also if the file doesn't show that the pod requests one, for instance a file with only the EIP's annotation
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
    let started = Instant::now();
    let deadline = started + args.timeout;
    let mut check = RepeatedCheck::prepare(args).await?;
    let (mut pace, mut lines) = (Pace::default(), StatusLines::default());
    let mut report: Option<Report> = None;
    let mut was_missing = false;
    let is_pod = check.is_pod();
    let is_open = loop {
        let eip = eip_of(check.pod_eip().as_ref(), args.require_eip);
        let is_missing = eip.is_missing();
        if was_missing && !is_missing {
            // The pod has another path now, whose classes are observed again.
            pace.restart();
            check.observing = Some(check.context.observe());
        }
        was_missing = is_missing;
        // One check without the EIP shows what else is wrong.
        if pace.next <= Instant::now() && (!is_missing || report.is_none()) {
            let Ok(newest) = timeout_at(deadline.into(), Box::pin(check.make())).await else {
                break !is_missing && lets_go(report.as_ref(), is_pod, true);
            };
            let newest = newest?;
            let answered = summary::answered(&newest.evidence.walk, Timestamp::now());
            pace.checked(answered, Instant::now());
            report = Some(newest);
        }
        let verdict = report.as_ref().map(|report| &report.verdict);
        let now = Instant::now();
        if !is_missing && lets_go(report.as_ref(), is_pod, now >= deadline) {
            break true;
        }
        if let Some(line) = lines.next(&status(&eip, verdict), now - started) {
            let _ = writeln!(io::stderr(), "{line}");
        }
        if now >= deadline {
            break false;
        }
        let next = if is_missing {
            now + EIP_INTERVAL
        } else {
            pace.next
        };
        let next = next.min(deadline).min(now + REPEAT_STATUS);
        tokio::time::sleep_until(next.into()).await;
    };
    let document = WaitDocument {
        schema_version: SCHEMA_VERSION,
        pullpath: Tool::this(),
        image: args.reference.to_string(),
        is_open,
        waited: started.elapsed(),
        checks: check.made,
        eip: eip_of(check.pod_eip().as_ref(), args.require_eip),
        report,
    };
    args.printing.print(&document, render_wait, out)?;
    let pull = document.report.as_ref().map(|report| report.verdict.pull);
    Ok(match (document.is_open, document.eip.is_missing(), pull) {
        (true, ..) => SUCCESS,
        (false, true, _) | (_, _, Some(Pull::WouldFail)) => FAILURE,
        _ => UNKNOWN,
    })
}

/// Whether to end with success. In a pod, any other exit status keeps the pod from starting. So there, only what is
/// certain may do that: not what rests on what a pod can't observe of its node, nor what is unknown. Time does not
/// change settings of the node, but a connection may still open until the timeout, and what is unknown may become known.
fn lets_go(report: Option<&Report>, is_pod: bool, is_over: bool) -> bool {
    let Some(report) = report else {
        return is_pod && is_over;
    };
    match rests_on(&report.evidence, &report.verdict) {
        _ if report.verdict.pull == Pull::WouldSucceed => true,
        Some(Unseen::Settings) => true,
        Some(Unseen::Connection) => is_over,
        None => is_pod && is_over && report.verdict.pull == Pull::Unknown,
    }
}

/// The check of `probe`, repeated.
struct RepeatedCheck<'a> {
    args: &'a WaitArgs,
    context: ProbeContext,
    credentials: Credentials,
    /// Credentials that a registry rejected, with the attempt and its time: in cooldown.
    rejected: Vec<(Credential, Attempt, Instant)>,
    /// An observation of the vantage point that is still running.
    observing: Option<JoinHandle<Vantage>>,
    /// The last observation; `None` before the first is complete.
    vantage: Option<Vantage>,
    /// How many checks were made.
    made: u32,
}

impl<'a> RepeatedCheck<'a> {
    async fn prepare(args: &'a WaitArgs) -> Result<Self, Error> {
        let credentials = args.check.credentials.prepare(&args.check.cluster).await?;
        let mut context = args.check.context(args.answer_timeout, false).await?;
        if let Some(path) = &args.pod_annotations {
            context.network.pod_annotations = Some(path.clone());
        }
        Ok(Self {
            args,
            observing: Some(context.observe()),
            context,
            credentials,
            rejected: Vec::new(),
            vantage: None,
            made: 0,
        })
    }

    /// Whether this is a pod's view of the network, as far as the environment shows it.
    fn is_pod(&self) -> bool {
        let view = self.context.probe_network.vantage.network;
        matches!(view, NetworkView::Pod | NetworkView::PodOrNode)
    }

    fn pod_eip(&self) -> Option<PodEip> {
        pod_eip(
            &self.context.network,
            self.context.probe_network.vantage.network,
        )
    }

    async fn make(&mut self) -> Result<Report, Error> {
        // Read again for each check: a Secret may have been corrected.
        let of_cluster = self.credentials.fetch().await;
        let reference = &self.args.reference;
        let mut sources = self.credentials.load(&of_cluster, reference, false).await?;
        sources.extend(self.context.of_node(reference).await);
        let keyring = Keyring::new(sources);
        let (candidates, _) = keyring.lookup(reference);
        self.rejected
            .retain(|(one, _, at)| at.elapsed() < COOLDOWN && candidates.contains(one));
        let in_cooldown = self.rejected.iter().map(|(_, attempt, _)| attempt.clone());
        let effort = Effort {
            in_cooldown: in_cooldown.collect(),
            ..Effort::default()
        };
        let check = Check {
            requested_secrets: of_cluster.requested,
            ..self.args.check.of(reference.clone(), keyring, effort)
        };
        let started = Timestamp::now();
        let mut evidence =
            probe::pull(&check, &self.context.probe_network, &NoProgress, started).await;
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
        if let Some(observing) = self.observing.take() {
            self.vantage = Some(observing.await.map_err(|_| Error::Panicked)?);
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
    /// No check before this time, which a registry has requested with 429 or `Retry-After`.
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
    /// Checks as soon as allowed: something changed that may have opened the path.
    fn restart(&mut self) {
        self.pause = FIRST_PAUSE;
        let now = Instant::now();
        self.next = self.not_before.map_or(now, |at| at.max(now));
    }

    fn checked(&mut self, answered: Option<Answered>, now: Instant) {
        let requested = match answered {
            Some(Answered::TooMany { retry_after }) => Some(retry_after.unwrap_or(TOO_MANY_PAUSE)),
            Some(Answered::ServerError { retry_after }) => retry_after,
            _ => None,
        };
        self.not_before = requested.map(|wait| now + wait.min(MAX_RETRY_AFTER));
        let next = now + self.pause;
        self.next = self.not_before.map_or(next, |at| at.max(next));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Status lines for people: one when the status changes, and one each minute.
#[derive(Default)]
struct StatusLines {
    last: Option<(String, Duration)>,
}

impl StatusLines {
    /// The line to write, if one is due. `since` is the time since the start.
    fn next(&mut self, status: &str, since: Duration) -> Option<String> {
        let line = match &self.last {
            Some((last, at)) if last == status => {
                if since < *at + REPEAT_STATUS {
                    return None;
                }
                format!("still waiting after {}: {status}", HumanDuration(since))
            }
            _ => format!("waiting: {status}"),
        };
        self.last = Some((status.to_owned(), since));
        Some(line)
    }
}

/// The state of the EIP according to the pod's annotations. `is_required`: an EIP that is not bound is missing
/// even if the pod is not known to request one.
fn eip_of(pod_eip: Option<&PodEip>, is_required: bool) -> Eip {
    let Some(pod_eip) = pod_eip else {
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
        source: Some(pod_eip.source.clone()),
        reason: reason.to_owned(),
    };
    let bound = |address: IpAddr| Eip::Bound { address };
    match (pod_eip.allocated, pod_eip.wanted) {
        (Some(address), _) => bound(address),
        (None, _) if pod_eip.problem.is_some() => {
            missing(pod_eip.problem.as_deref().unwrap_or_default())
        }
        (None, Some(true)) => missing(
            "the pod requests an EIP and has none yet (yangtse.io/allocated-ipv4-eip is not set)",
        ),
        (None, Some(false)) if is_required => {
            missing("the pod requests no EIP (yangtse.io/pod-with-eip is not \"true\")")
        }
        (None, Some(false)) => Eip::NotWanted,
        (None, None) if is_required => missing("the file doesn't have the pod's EIP yet"),
        (None, None) => Eip::Unknown {
            source: pod_eip.source.clone(),
        },
    }
}

/// What the command waits for, in one line.
fn status(eip: &Eip, verdict: Option<&Verdict>) -> String {
    let path = match verdict {
        None => "no check was made yet".to_owned(),
        Some(verdict) => match verdict.pull {
            Pull::WouldSucceed => "a pull would succeed".to_owned(),
            Pull::WouldFail => worst(verdict),
            Pull::Unknown => format!("unknown whether a pull would succeed: {}", worst(verdict)),
        },
    };
    match eip {
        Eip::Missing { source, reason } => {
            let from = source
                .as_ref()
                .map_or_else(String::new, |source| format!(" ({source})"));
            format!("{reason}{from}; {path}")
        }
        Eip::Unknown { source } => format!(
            "{path}; {source} doesn't show whether the pod requests an EIP; --require-eip waits for one"
        ),
        Eip::NotWanted | Eip::Bound { .. } => path,
    }
}

/// The first critical finding, without times, so that an unchanged status gives the same text.
fn worst(verdict: &Verdict) -> String {
    let critical = verdict
        .findings
        .iter()
        .find(|finding| finding.severity == Severity::Critical);
    let Some(finding) = critical else {
        return "the check found no cause".to_owned();
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
        let unknown = status(&eip_of(Some(&seen(None, None)), false), None);
        assert!(unknown.contains("--require-eip"), "{unknown}");
        let unreadable = PodEip {
            problem: Some("it can't be read: denied".to_owned()),
            ..seen(None, None)
        };
        assert!(status(&eip_of(Some(&unreadable), false), None).contains("denied"));
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
        assert_eq!(pace.next.duration_since(now), MAX_RETRY_AFTER);
        pace.checked(asked(Some(Duration::from_secs(2))), now);
        assert_eq!(pace.next.duration_since(now).as_secs(), 15);
        // A new EIP does not shorten the pause that the registry has requested.
        let far = Instant::now() + Duration::from_hours(1);
        pace.checked(asked(Some(Duration::from_hours(1))), Instant::now());
        pace.restart();
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
