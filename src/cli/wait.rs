//! `pullpath wait`: for an init container. It ends when the pod's EIP is bound, where the pod asks for
//! one, and a pull of the image would succeed.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::access::ClusterArgs;
use super::credential::{CredentialArgs, Credentials};
use super::ground::{ContainerdArgs, Ground, NetworkArgs, runtime};
use super::place::PlaceArgs;
use super::{
    CANNOT_TELL, Error, FAILURE, Output, SUCCESS, When, duration, long_duration, use_color,
};
use crate::daemon::schedule::backoff::Answered;
use crate::daemon::store::summary;
use crate::diagnose::{Pull, Severity, Verdict};
use crate::model::endpoint::Role;
use crate::model::evidence::Attempt;
use crate::model::fault::Phase;
use crate::model::network::PodEip;
use crate::model::platform::Platform;
use crate::model::reference::Reference;
use crate::model::units::Took;
use crate::model::vantage::Vantage;
use crate::probe::{self, Check, Effort, Progress};
use crate::registry::keyring::{Credential, Keyring};
use crate::report::Report;
use crate::report::text::Style;
use crate::report::wait::{Eip, WaitDocument, render_wait};
use crate::surroundings::pod_eip;

/// An EIP is bound within some seconds of the pod's start; its annotation reaches a file with the
/// kubelet's next round, up to 90 s later. To look costs nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Between two walks: a way that opens is seen at once, one that stays closed costs 4 walks a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// After 429 without `Retry-After`, as the daemon has it.
const TOO_MANY_PAUSE: Duration = Duration::from_mins(1);

/// Nobody waits here for longer (`--timeout`), whatever a registry asks for.
const LONGEST_ASKED: Duration = Duration::from_hours(24);

/// A credential that was rejected is tried again after these, and then no more unless it changes: some
/// registries lock an account after five wrong passwords.
const TRY_AGAIN: [Duration; 2] = [Duration::from_mins(1), Duration::from_mins(5)];

/// The same is said again after this, so that a log shows that somebody is still waiting.
const SAY_AGAIN: Duration = Duration::from_mins(1);

#[derive(Args, Debug)]
#[command(
    after_help = "For an init container. It can't help the pull of its own image, nor of image volumes, which the kubelet has\n\
                  pulled before it runs; images of the main containers are pulled only after all init containers have ended.\n\n\
                  Exit status: 0 the way is open, 1 it was not at the timeout (the report says why),\n\
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

    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// When to colour the text
    #[arg(long, value_enum, default_value_t = When::Auto)]
    color: When,

    /// The platform whose image is wanted [default: linux on this machine's processor]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,

    #[command(flatten)]
    credentials: CredentialArgs,

    #[command(flatten)]
    cluster: ClusterArgs,

    #[command(flatten)]
    containerd: ContainerdArgs,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    place: PlaceArgs,
}

pub(super) fn run(args: &WaitArgs, out: &mut dyn Write) -> Result<u8, Error> {
    runtime()?.block_on(wait(args, out))
}

/// Nobody looks on: what is waited for is said in lines.
struct Unwatched;

impl Progress for Unwatched {
    fn phase(&self, _: Role, _: Phase) {}
}

async fn wait(args: &WaitArgs, out: &mut dyn Write) -> Result<u8, Error> {
    let begun = Instant::now();
    let deadline = begun + args.timeout;
    let credentials = args.credentials.prepare(&args.cluster).await?;
    let mut ground = Ground::prepare(
        &args.place,
        &args.containerd,
        &args.network,
        args.answer_timeout,
        false,
    )
    .await?;
    if let Some(path) = &args.pod_annotations {
        ground.network.pod_annotations = Some(path.clone());
    }
    let network = ground.edges.vantage.network;
    let mut talk = Talk::default();
    let mut walker = Walker {
        args,
        looking: Some(ground.look()),
        ground,
        credentials,
        tried: Vec::new(),
        vantage: None,
        walks: 0,
    };
    let mut pace = Pace::default();
    let mut report: Option<Report> = None;
    let mut was_missing = false;
    let is_open = loop {
        let seen = pod_eip(&walker.ground.network, network);
        let eip = eip_of(seen.as_ref(), args.require_eip);
        let is_missing = eip.is_missing();
        if was_missing && !is_missing {
            // Another way now: the classes are another's too.
            pace.begin_anew();
            walker.looking = Some(walker.ground.look());
        }
        was_missing = is_missing;
        let now = Instant::now();
        // Without the EIP one walk tells what else is wrong.
        let is_due = pace.is_due(now) && (!is_missing || report.is_none());
        if is_due {
            let walk = Box::pin(walker.walk(seen));
            let Ok(newest) = timeout_at(deadline.into(), walk).await else {
                break false;
            };
            let newest = newest?;
            let answered = summary::answered(&newest.evidence.walk, Timestamp::now());
            pace.walked(answered, Instant::now());
            report = Some(newest);
        }
        let is_well = report
            .as_ref()
            .is_some_and(|report| report.verdict.pull == Pull::WouldSucceed);
        if is_well && !is_missing {
            break true;
        }
        let now = Instant::now();
        let lacking = lacking(&eip, report.as_ref().map(|report| &report.verdict));
        if let Some(line) = talk.line(&lacking, now.duration_since(begun)) {
            let _ = writeln!(io::stderr(), "{line}");
        }
        if now >= deadline {
            break false;
        }
        let next = if is_missing { now + LOOK } else { pace.next };
        tokio::time::sleep_until(next.min(deadline).min(talk.again(begun)).into()).await;
    };
    let eip = eip_of(
        pod_eip(&walker.ground.network, network).as_ref(),
        args.require_eip,
    );
    let document = WaitDocument::new(
        args.reference.to_string(),
        is_open,
        begun.elapsed(),
        walker.walks,
        eip,
        report,
    );
    print(&document, args, out)
}

fn print(document: &WaitDocument, args: &WaitArgs, out: &mut dyn Write) -> Result<u8, Error> {
    let text = match args.output {
        Output::Text => render_wait(
            document,
            Style {
                color: use_color(args.color),
            },
        ),
        Output::Json => super::pretty_json(document)?,
    };
    out.write_all(text.as_bytes()).map_err(Error::Write)?;
    let pull = document.report.as_ref().map(|report| report.verdict.pull);
    Ok(match (document.is_open, document.eip.is_missing(), pull) {
        (true, ..) => SUCCESS,
        (false, true, _) | (_, _, Some(Pull::WouldFail)) => FAILURE,
        _ => CANNOT_TELL,
    })
}

/// Walks again and again, with what was learnt before.
struct Walker<'a> {
    args: &'a WaitArgs,
    ground: Ground,
    credentials: Credentials,
    tried: Vec<Tried>,
    looking: Option<JoinHandle<Vantage>>,
    vantage: Option<Vantage>,
    walks: u32,
}

/// A credential that was rejected.
struct Tried {
    credential: Credential,
    attempt: Attempt,
    at: Instant,
    times: usize,
}

impl Walker<'_> {
    async fn walk(&mut self, eip: Option<PodEip>) -> Result<Report, Error> {
        // Read anew: whoever mends a Secret does not have to tell.
        let of_cluster = self.credentials.fetch().await;
        let reference = &self.args.reference;
        let mut sources = self.credentials.load(&of_cluster, reference, false).await?;
        sources.extend(self.ground.of_node(reference).await);
        let keyring = Keyring::new(sources);
        let (candidates, _) = keyring.lookup(reference);
        self.tried
            .retain(|tried| candidates.contains(&tried.credential));
        let resting = self
            .tried
            .iter()
            .filter(|tried| rests(tried.times, tried.at.elapsed()))
            .map(|tried| tried.attempt.clone());
        let platform = self.args.platform.clone();
        let check = Check {
            reference: reference.clone(),
            platform: platform.unwrap_or_else(Platform::local),
            pods: Vec::new(),
            asked_secrets: of_cluster.asked,
            runtime: self.args.containerd.runtime.clone(),
            kubelet: None,
            plain_http: self.args.network.plain_http,
            compare_direct: false,
            effort: Effort {
                rested: resting.collect(),
                ..Effort::default()
            },
            keyring: Arc::new(keyring),
        };
        let started = Timestamp::now();
        let mut evidence = probe::pull(&check, &self.ground.edges, &Unwatched, started).await;
        self.walks += 1;
        for attempt in summary::rejected(&evidence.walk) {
            let of_it = candidates
                .iter()
                .find(|candidate| Some(&candidate.id) == attempt.credential.as_ref());
            let Some(credential) = of_it else { continue };
            let attempt = Attempt {
                at: Some(started),
                ..attempt.clone()
            };
            let known = self
                .tried
                .iter_mut()
                .find(|tried| tried.credential == *credential);
            match known {
                Some(tried) => {
                    tried.attempt = attempt;
                    tried.at = Instant::now();
                    tried.times += 1;
                }
                None => self.tried.push(Tried {
                    credential: credential.clone(),
                    attempt,
                    at: Instant::now(),
                    times: 1,
                }),
            }
        }
        if let Some(looking) = self.looking.take() {
            self.vantage = Some(looking.await.map_err(|_| Error::Panicked)?);
        }
        if let Some(vantage) = &mut self.vantage {
            vantage.pod_eip = eip;
            evidence.vantage.clone_from(vantage);
        }
        Ok(Report::conclude(evidence))
    }
}

/// A credential that was rejected so often, the last time so long ago, is not sent.
fn rests(times: usize, since: Duration) -> bool {
    match times.checked_sub(1).map(|index| TRY_AGAIN.get(index)) {
        None => false,
        Some(Some(wait)) => since < *wait,
        Some(None) => true,
    }
}

/// When the next walk is due.
struct Pace {
    pause: Duration,
    next: Instant,
    /// Not before, whatever else changes: the registry has said so.
    asked_for: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pause: FIRST_PAUSE,
            next: Instant::now(),
            asked_for: None,
        }
    }
}

impl Pace {
    fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Something has changed that may have opened the way.
    fn begin_anew(&mut self) {
        self.pause = FIRST_PAUSE;
        let now = Instant::now();
        self.next = self.asked_for.map_or(now, |at| at.max(now));
    }

    fn walked(&mut self, answered: Option<Answered>, now: Instant) {
        self.asked_for = match answered {
            Some(Answered::TooMany { retry_after }) => {
                Some(now + retry_after.unwrap_or(TOO_MANY_PAUSE).min(LONGEST_ASKED))
            }
            Some(Answered::ServerError { retry_after }) => {
                retry_after.map(|wait| now + wait.min(LONGEST_ASKED))
            }
            _ => None,
        };
        let next = now + self.pause;
        self.next = self.asked_for.map_or(next, |at| at.max(next));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Lines for people, when something changes and each minute.
#[derive(Default)]
struct Talk {
    said: Option<(String, Duration)>,
}

impl Talk {
    /// The line that is to be written, if one is, so long after the beginning.
    fn line(&mut self, lacking: &str, since: Duration) -> Option<String> {
        let line = match &self.said {
            Some((said, at)) if said == lacking => {
                if since < *at + SAY_AGAIN {
                    return None;
                }
                format!("still waiting after {}: {lacking}", rounded(since))
            }
            _ => format!("waiting: {lacking}"),
        };
        self.said = Some((lacking.to_owned(), since));
        Some(line)
    }

    /// When the same is to be said again.
    fn again(&self, begun: Instant) -> Instant {
        let at = self.said.as_ref().map_or(Duration::ZERO, |(_, at)| *at);
        begun + at + SAY_AGAIN
    }
}

/// `12 s`, `2 m 5 s`.
fn rounded(time: Duration) -> String {
    match (time.as_secs() / 60, time.as_secs() % 60) {
        (0, _) => Took(time).to_string(),
        (minutes, 0) => format!("{minutes} m"),
        (minutes, seconds) => format!("{minutes} m {seconds} s"),
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
        None => "the way was not tried yet".to_owned(),
        Some(verdict) => match verdict.pull {
            Pull::WouldSucceed => "the way is open".to_owned(),
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
    fn walks_come_less_and_less_often_and_a_registry_is_obeyed() {
        let mut pace = Pace::default();
        let start = pace.next;
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pace.walked(Some(Answered::Well), now);
            pauses.push(pace.next.duration_since(now).as_secs());
            now = pace.next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15]);
        let asked = |retry_after| Some(Answered::TooMany { retry_after });
        pace.walked(asked(Some(Duration::from_mins(2))), now);
        assert_eq!(pace.next.duration_since(now).as_secs(), 120);
        pace.walked(asked(None), now);
        assert_eq!(pace.next.duration_since(now).as_secs(), 60);
        pace.walked(asked(Some(Duration::MAX)), now);
        assert_eq!(pace.next.duration_since(now), LONGEST_ASKED);
        pace.walked(asked(Some(Duration::from_secs(2))), now);
        assert_eq!(pace.next.duration_since(now).as_secs(), 15);
        // A new EIP changes nothing of what the registry has asked for.
        let far = Instant::now() + Duration::from_hours(1);
        pace.walked(asked(Some(Duration::from_hours(1))), Instant::now());
        pace.begin_anew();
        assert!(pace.next + Duration::from_secs(5) > far);
    }

    #[test]
    fn a_wrong_password_is_sent_three_times_at_most() {
        for (times, since, want) in [
            (0, 0, false),
            (1, 59, true),
            (1, 60, false),
            (2, 60, true),
            (2, 300, false),
            (3, 100_000, true),
        ] {
            assert_eq!(rests(times, Duration::from_secs(since)), want, "{times}");
        }
    }

    #[test]
    fn what_is_lacking_is_said_when_it_changes_and_each_minute() {
        let mut talk = Talk::default();
        let mut at = |seconds, text: &str| talk.line(text, Duration::from_secs(seconds));
        assert_eq!(at(0, "a").as_deref(), Some("waiting: a"));
        assert_eq!(at(59, "a"), None);
        assert_eq!(at(60, "a").as_deref(), Some("still waiting after 1 m: a"));
        assert_eq!(at(61, "b").as_deref(), Some("waiting: b"));
        assert_eq!(at(120, "b"), None);
        assert_eq!(
            at(125, "b").as_deref(),
            Some("still waiting after 2 m 5 s: b")
        );
    }
}
