//! Publishes the cause that a check found as an Event on the pods that wait for that image
//! (`kubernetes.events: pods`): once per cause and hour, with a limit per minute, and without delaying a check.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::schedule::clock::hash;
use super::store::target::Target;
use super::store::targets::EventCounts;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Severity;
use crate::diagnose::{Finding, Pull};
use crate::kubernetes::publish::{MOST_MESSAGE, Note, PublishError, Published, publish, reason};
use crate::kubernetes::watch::View;
use crate::model::text::{clean, without_title};
use crate::model::vantage::NetworkView;
use crate::model::workload::ContainerKind;
use crate::report::Report;
use crate::workload::discovery::Use;
use crate::workload::pod::Pod;

/// While a cause lasts, its Event is published again after this: an API server drops Events after an hour.
const AGAIN: Duration = Duration::from_hours(1);

/// Maximum of Events of one node in a minute. If a registry fails, a hundred pods may wait on a node, and a
/// cluster may have thousands of nodes. Pods above the limit get their Event after the next check.
const MOST_A_MINUTE: usize = 10;

/// Maximum of Events that wait for the API server. Others are dropped, and published after the next check.
const MOST_WAITING: usize = 64;

/// Maximum of containers whose newest Event is remembered. A node has some hundred containers.
const MOST_KNOWN: usize = 1024;

/// Maximum length of a fact or a hint in a message, so that both fit.
const MOST_PART: usize = 350;

const MINUTE: Duration = Duration::from_mins(1);

/// The Event about a container or image volume of the pod with this UID. `None` as the cause revokes it.
fn note(one: &Use, uid: &str, cause: Option<&'static str>, message: &str) -> Note {
    // A volume may have the name of a container.
    let subject = match one.kind {
        ContainerKind::ImageVolume => format!("volume/{}", one.container),
        _ => one.container.clone(),
    };
    let number = hash(&[uid, &subject, reason(cause), cause.unwrap_or_default()]);
    // In a Kubernetes name, a part before a dot ends in a letter or digit.
    let pod: String = one.pod.chars().take(200).collect();
    Note {
        name: format!("{}.{number:016x}", pod.trim_end_matches(['-', '.'])),
        namespace: one.namespace.clone(),
        pod: one.pod.clone(),
        uid: uid.to_owned(),
        container: one.container.clone(),
        kind: one.kind,
        cause,
        message: message.to_owned(),
    }
}

/// The Events for the containers that wait for exactly the checked image; none if the report names no cause.
pub fn of(report: &Report, target: &Target, pods: &View<Pod>, node: &str) -> Vec<Note> {
    let image = target.reference.to_string();
    let waiting = target
        .uses
        .iter()
        .filter(|one| one.waits && one.image == image);
    let mut waiting = waiting.peekable();
    if waiting.peek().is_none() {
        return Vec::new();
    }
    let Some((cause, message)) = message_of(report, &image, node) else {
        return Vec::new();
    };
    waiting
        .filter_map(|one| {
            let (uid, _) = pods
                .objects
                .iter()
                .find(|(_, pod)| pod.namespace == one.namespace && pod.name == one.pod)?;
            Some(note(one, uid, cause, &message))
        })
        .collect()
}

fn message_of(report: &Report, image: &str, node: &str) -> Option<(Option<&'static str>, String)> {
    let verdict = &report.verdict;
    let vantage = vantage(report.evidence.vantage.network);
    if verdict.pull == Pull::WouldSucceed {
        let message = format!(
            "a pull of {image} would succeed now (checked on node {node} from {vantage}); the kubelet tries again within 5 minutes"
        );
        return Some((None, bounded(&message)));
    }
    let worst = verdict.findings.first()?;
    // A cause that Pullpath does not know helps no user.
    if worst.severity != Severity::Critical || worst.cause == Cause::Unexplained {
        return None;
    }
    let may = match verdict.pull {
        Pull::Unknown => "; until then it is unknown whether a pull would succeed",
        _ => "",
    };
    Some((
        Some(worst.cause.code()),
        bounded(&format!(
            "{}{may} ({image}, checked on node {node} from {vantage})",
            summary(worst)
        )),
    ))
}

/// The cause, one fact, and the fix.
fn summary(finding: &Finding) -> String {
    let mut text = finding.cause.code().to_owned();
    if let Some(fact) = finding.evidence.first() {
        text.push_str(": ");
        text.push_str(&clean(&without_title(fact), MOST_PART));
    }
    if !finding.hint.is_empty() {
        text.push_str(". hint: ");
        text.push_str(&clean(&finding.hint, MOST_PART));
    }
    text
}

fn vantage(network: NetworkView) -> &'static str {
    match network {
        NetworkView::Machine => "its own network",
        NetworkView::Node => "the node's network",
        NetworkView::Pod => "a pod's network, which pulls don't use",
        NetworkView::PodOrNode => "a pod's network or the node's",
    }
}

/// Cuts a text to the maximum size of an Event's message.
fn bounded(text: &str) -> String {
    let mut text = clean(text, MOST_MESSAGE);
    while text.len() > MOST_MESSAGE {
        text.pop();
    }
    text
}

/// The UID of a pod, and one of its containers.
type Subject = (String, ContainerKind, String);

/// The newest Event of each container.
#[derive(Debug, Default)]
struct EventLog {
    known: BTreeMap<Subject, Known>,
    /// When Events of the last minute were published.
    published: VecDeque<Instant>,
}

#[derive(Debug)]
struct Known {
    /// `None`: the cause was revoked.
    cause: Option<&'static str>,
    at: Instant,
    /// How often the Event was published (`count`).
    times: i32,
}

/// What to do with an Event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum EventAction {
    /// Publish it; with the count of the same Event before, if there was one.
    Publish(Option<i32>),
    /// It was published, and is still valid.
    Nothing,
    /// The limit per minute is reached.
    Limited,
}

impl EventLog {
    fn decide(&mut self, event: &Note, now: Instant) -> EventAction {
        self.published
            .retain(|at| now.saturating_duration_since(*at) < MINUTE);
        let key = (event.uid.clone(), event.kind, event.container.clone());
        let known = self.known.get(&key);
        let before = known.filter(|known| known.cause == event.cause);
        let is_valid = match (known, event.cause) {
            // There is nothing to revoke.
            (None, None) => true,
            (Some(known), None) => known.cause.is_none(),
            (_, Some(_)) => {
                before.is_some_and(|known| now.saturating_duration_since(known.at) < AGAIN)
            }
        };
        if is_valid {
            return EventAction::Nothing;
        }
        if self.published.len() >= MOST_A_MINUTE {
            return EventAction::Limited;
        }
        let times = before.map(|known| known.times);
        self.published.push_back(now);
        EventAction::Publish(times)
    }

    /// Remembers a published Event.
    fn note(&mut self, event: &Note, published: Published, now: Instant) {
        let times = match published {
            Published::Created => 1,
            Published::Counted { times } => times,
        };
        let key = (event.uid.clone(), event.kind, event.container.clone());
        let known = Known {
            cause: event.cause,
            at: now,
            times,
        };
        self.known.insert(key, known);
        if self.known.len() > MOST_KNOWN
            && let Some(oldest) = self.known.iter().min_by_key(|(_, known)| known.at)
        {
            let key = oldest.0.clone();
            self.known.remove(&key);
        }
    }
}

/// Queues Events and publishes those that are new.
#[derive(Clone, Debug)]
pub struct PodEvents {
    queue: mpsc::Sender<Note>,
    counts: EventCounts,
}

impl PodEvents {
    /// Publishes until `stop` is cancelled, and counts outcomes in `counts`.
    pub fn start(client: Client, node: &str, counts: EventCounts, stop: CancellationToken) -> Self {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let run = run(client, node.to_owned(), waiting, counts.clone());
        tokio::spawn(async move { stop.run_until_cancelled(run).await });
        Self { queue, counts }
    }

    /// Queues Events. It never waits: if the queue is full, they are dropped and counted.
    pub fn take(&self, events: Vec<Note>) {
        for event in events {
            if self.queue.try_send(event).is_err() {
                count(&self.counts, "dropped");
            }
        }
    }
}

fn count(counts: &EventCounts, outcome: &'static str) {
    counts.send_modify(|counts| *counts.entry(outcome).or_default() += 1);
}

async fn run(client: Client, node: String, mut waiting: mpsc::Receiver<Note>, counts: EventCounts) {
    let mut log = EventLog::default();
    let mut is_healthy = true;
    while let Some(event) = waiting.recv().await {
        let times = match log.decide(&event, Instant::now()) {
            EventAction::Publish(times) => times,
            EventAction::Nothing => continue,
            EventAction::Limited => {
                count(&counts, "limited");
                continue;
            }
        };
        let published = publish(&client, &node, &event, times).await;
        let outcome = match &published {
            Ok(Published::Created) => "created",
            Ok(Published::Counted { .. }) => "counted",
            Err(PublishError::Forbidden { .. }) => "forbidden",
            Err(PublishError::Late | PublishError::Refused(_)) => "failed",
        };
        count(&counts, outcome);
        match published {
            Ok(published) => {
                log.note(&event, published, Instant::now());
                is_healthy = true;
            }
            // Logged once, and again after a success.
            Err(error) => {
                if is_healthy {
                    tracing::warn!(%error, "an Event can't be published");
                }
                is_healthy = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::workload::PullPolicy;

    fn event(uid: &str, cause: Option<&'static str>) -> Note {
        note(&used("a"), uid, cause, "")
    }

    fn used(pod: &str) -> Use {
        Use {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            container: "app".to_owned(),
            kind: ContainerKind::Container,
            policy: PullPolicy::Always,
            image: "r.test/a:1".to_owned(),
            waits: true,
            is_present: false,
        }
    }

    #[test]
    fn a_cause_is_said_once_an_hour_and_another_one_at_once() {
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_mins(minutes);
        let mut log = EventLog::default();
        let mut step = |cause, minutes, published: Option<Published>| {
            let event = event("u1", cause);
            let then = log.decide(&event, at(minutes));
            if let Some(published) = published {
                log.note(&event, published, at(minutes));
            }
            then
        };
        assert_eq!(
            step(None, 0, None),
            EventAction::Nothing,
            "there is nothing to revoke"
        );
        let new = EventAction::Publish(None);
        // It failed the first time.
        assert_eq!(step(Some("auth_bad_cred"), 0, None), new);
        assert_eq!(
            step(Some("auth_bad_cred"), 2, Some(Published::Created)),
            new
        );
        assert_eq!(step(Some("auth_bad_cred"), 4, None), EventAction::Nothing);
        let again = step(
            Some("auth_bad_cred"),
            62,
            Some(Published::Counted { times: 2 }),
        );
        assert_eq!(again, EventAction::Publish(Some(1)));
        assert_eq!(step(Some("auth_bad_cred"), 64, None), EventAction::Nothing);
        assert_eq!(step(Some("tls_expired"), 66, Some(Published::Created)), new);
        assert_eq!(step(None, 68, Some(Published::Created)), new);
        assert_eq!(step(None, 70, None), EventAction::Nothing);
        assert_eq!(step(Some("tls_expired"), 72, None), new);
    }

    #[test]
    fn a_node_says_so_much_in_a_minute_and_remembers_so_many() {
        let now = Instant::now();
        let mut log = EventLog::default();
        for number in 0..MOST_A_MINUTE {
            let event = event(&number.to_string(), Some("tcp_timeout"));
            assert_eq!(log.decide(&event, now), EventAction::Publish(None));
        }
        let late = event("late", Some("tcp_timeout"));
        assert_eq!(log.decide(&late, now), EventAction::Limited);
        assert_eq!(log.decide(&late, now + MINUTE), EventAction::Publish(None));
        for number in 0..2 * MOST_KNOWN {
            let event = event(&number.to_string(), Some("tcp_timeout"));
            log.note(&event, Published::Created, now);
        }
        assert_eq!(log.known.len(), MOST_KNOWN);
    }

    #[test]
    fn what_is_the_same_has_the_same_name_which_is_one_of_kubernetes() {
        let one = event("u1", Some("tcp_timeout"));
        assert_eq!(one, event("u1", Some("tcp_timeout")));
        assert_ne!(one.name, event("u2", Some("tcp_timeout")).name);
        assert_ne!(one.name, event("u1", None).name);
        let long = used(&format!("{}-{}", "a".repeat(199), "b".repeat(50)));
        let name = note(&long, "u1", Some("tcp_timeout"), "").name;
        assert!(name.len() <= 253 && name.starts_with(&format!("{}.", "a".repeat(199))));
    }

    #[test]
    fn the_title_of_a_page_is_not_the_tenants() {
        let finding = Finding {
            cause: Cause::Fw403,
            severity: Severity::Critical,
            confidence: crate::diagnose::level::Confidence::Medium,
            leg: None,
            phase: None,
            evidence: vec!["HTTP 403: a page titled 'Sign in, ann@example.com'".to_owned()],
            hint: "Ask.".to_owned(),
        };
        assert_eq!(summary(&finding), "fw_403: HTTP 403: a page. hint: Ask.");
    }

    #[test]
    fn a_message_is_as_long_as_an_event_takes() {
        assert_eq!(bounded(&"ä".repeat(2000)).len(), MOST_MESSAGE);
        let finding = Finding {
            cause: Cause::AuthBadCred,
            severity: Severity::Critical,
            confidence: crate::diagnose::level::Confidence::High,
            leg: None,
            phase: None,
            evidence: vec!["e".repeat(5000), "second".to_owned()],
            hint: "h".repeat(5000),
        };
        let text = summary(&finding);
        assert!(text.starts_with("auth_bad_cred: eee") && text.contains("…. hint: hhh"));
        assert!(text.len() < MOST_MESSAGE && !text.contains("second"));
    }
}
