//! The result of `pullpath why`: for each image that pods wait for, the verdict of a check, then the kubelet's
//! messages, then the legs.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nodes::NodeFailure;
use super::text::{Ink, Page, Style};
use super::{Report, SCHEMA_VERSION, Tool, optional, worst};
use crate::diagnose::Pull;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Confidence;
use crate::diagnose::secrets::SecretOutcome;
use crate::model::text::joined;
use crate::model::workload::{ContainerKind, Found};
use crate::pulls::failure::is_on_node;

/// What `why -o json` prints.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath why")]
pub struct WhyDocument {
    /// The version of this document's fields.
    pub schema_version: u32,
    /// The program that wrote it.
    pub pullpath: Tool,
    /// When the pods were read, by the local clock.
    pub at: Timestamp,
    /// One for each combination of image, node and Secrets.
    pub images: Vec<WhyImage>,
    /// Pods that wait for something else.
    pub others: Vec<WhyOther>,
    /// What could not be read or was skipped, and why.
    pub notes: Vec<String>,
}

/// An image that pods of one node wait for.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct WhyImage {
    /// The image reference with its domain; as in the pod if it is invalid.
    pub image: String,
    /// The name of the node; empty if the pods are not scheduled.
    pub node: String,
    /// The containers that wait for it.
    pub pods: Vec<WhyPod>,
    /// `imagePullSecrets` of the pods, in order, and whether they exist.
    pub secrets: Vec<WhySecret>,
    /// The kubelet's messages from the first pods' Events and status, the newest first.
    pub kubelet: Vec<KubeletMessage>,
    /// The check of the image, or why there is none.
    pub check: WhyCheck,
}

/// A container that waits for an image.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct WhyPod {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The container's name; for an image volume, the volume's.
    pub container: String,
    /// Which list of the pod's spec it is in.
    pub container_kind: ContainerKind,
    /// The kubelet's reason, such as `ImagePullBackOff`, or the progress of the pull.
    pub state: String,
    /// When the pull started, if the container waits for a running pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulling_since: Option<Timestamp>,
}

/// A pull secret that a pod names.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct WhySecret {
    /// The pod's namespace.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
    /// Whether it exists there.
    #[serde(flatten)]
    pub found: Found,
}

/// A message of the kubelet: an Event, or the state of a container in the pod's status.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct KubeletMessage {
    /// The name of the pod.
    pub pod: String,
    /// `reason` of the Event or the status, such as `Failed` or `ErrImagePull`.
    pub reason: String,
    /// Its text, with credentials masked.
    pub message: String,
    /// When the Event occurred first; absent for a status.
    pub first: Option<Timestamp>,
    /// When the Event occurred last; absent for a status.
    pub last: Option<Timestamp>,
    /// How often the Event occurred; 1 for a status.
    pub count: u64,
    /// What the text means; absent if it is no failure or matches no known cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<Meaning>,
}

/// Causes that match a text of the kubelet.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Meaning {
    /// The likeliest cause.
    pub cause: Cause,
    /// Other causes that match the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub or: Vec<Cause>,
    /// Facts in the text, such as the address that was dialed.
    pub facts: Vec<String>,
    /// How to fix the cause.
    pub hint: String,
    /// How sure the cause is; absent in documents of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
}

/// The check of an image that pods wait for.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum WhyCheck {
    /// The daemon of the pods' node made the check.
    Node {
        /// The daemon's pod.
        pod: String,
        /// Its report.
        report: Box<Report>,
        /// The report is the newest of the daemon's schedule, since it makes no further check now.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        scheduled: bool,
    },
    /// This program made the check from its own machine (`--local`).
    Local {
        /// The report.
        report: Box<Report>,
    },
    /// No check was made.
    NotMade {
        /// Why the daemon could not make it.
        failure: NodeFailure,
    },
    /// No check is needed: the pull fails, whatever a registry answers.
    NotNeeded {
        /// Why it fails.
        reason: String,
        /// How to fix it.
        hint: String,
    },
}

impl WhyCheck {
    fn report(&self) -> Option<&Report> {
        match self {
            Self::Node { report, .. } | Self::Local { report } => Some(report),
            Self::NotMade { .. } | Self::NotNeeded { .. } => None,
        }
    }

    fn pull(&self) -> Pull {
        match self {
            Self::Node { report, .. } | Self::Local { report } => report.verdict.pull,
            Self::NotMade { .. } => Pull::Unknown,
            Self::NotNeeded { .. } => Pull::WouldFail,
        }
    }
}

/// A pod that waits for something else than the image of a container.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct WhyOther {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container that waits; absent if the whole pod does.
    pub container: Option<String>,
    /// The reason in the pod's status or Event, such as `Unschedulable`.
    pub reason: String,
    /// The message beside the reason; empty if there is none.
    pub message: String,
    /// The pod waits for the image of its sandbox, which containerd pulls with the node's own credentials.
    #[serde(default)]
    pub is_sandbox_image: bool,
    /// What the message about the sandbox's image means; absent if it matches no known cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<Meaning>,
}

impl WhyDocument {
    /// A document of this program and the current version.
    pub fn new(
        at: Timestamp,
        images: Vec<WhyImage>,
        others: Vec<WhyOther>,
        notes: Vec<String>,
    ) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            at,
            images,
            others,
            notes,
        }
    }

    /// The worst of all: fail before unknown before success. Success if no pod waits for an image.
    pub fn pull(&self) -> Pull {
        let of_images = self.images.iter().map(|image| image.check.pull());
        let sandboxes = self.others.iter().filter(|other| other.is_sandbox_image);
        worst(of_images.chain(sandboxes.map(|_| Pull::WouldFail)))
    }
}

/// The maximum number of pods that are named for one image.
const NAMED: usize = 3;

/// The text for people.
pub fn render(document: &WhyDocument, style: Style) -> String {
    let mut page = Page::new(style);
    for (index, image) in document.images.iter().enumerate() {
        if index > 0 {
            page.line("");
        }
        page.why_image(image, document.at);
    }
    if !document.others.is_empty() {
        if !document.images.is_empty() {
            page.line("");
        }
        page.why_others(&document.others);
    }
    if document.images.is_empty() && document.others.is_empty() {
        page.line("no pod waits for an image");
    }
    if !document.notes.is_empty() {
        page.line("");
        for note in &document.notes {
            page.prose("note: ", note);
        }
    }
    page.out
}

impl Page {
    fn why_image(&mut self, image: &WhyImage, at: Timestamp) {
        self.beside(&image.image, &format!("on node {}", image.node));
        let verdict = self.verdict(image.check.pull(), "a pull would succeed now");
        let by = match &image.check {
            WhyCheck::Node {
                pod,
                report,
                scheduled,
            } => {
                let started = scheduled.then_some(report.evidence.started);
                let age = optional(started, |started| {
                    format!(
                        " {} ago, on its schedule: it makes no further check now (on_demand.per_minute, or a budget)",
                        ago(started, at)
                    )
                });
                format!(", checked on that node by its daemon (pod {pod}){age}")
            }
            WhyCheck::Local { .. } => ", checked from THIS MACHINE, not from that node: the node's network, resolver, mirrors and trusted roots were not observed".to_owned(),
            WhyCheck::NotMade { .. } | WhyCheck::NotNeeded { .. } => String::new(),
        };
        self.prose("", &format!("{verdict}{by}"));
        for pod in image.pods.iter().take(NAMED) {
            let since = optional(pod.pulling_since, |since| {
                format!(" for {}", ago(since, at))
            });
            let kind = pod.container_kind.as_str();
            let text = format!(
                "Pod {}/{}, {kind} {} ({}{since})",
                pod.namespace, pod.name, pod.container, pod.state
            );
            self.prose("for ", &text);
        }
        let more = image.pods.len().saturating_sub(NAMED);
        if more > 0 {
            self.line(&format!("    and {more} more"));
        }
        match &image.check {
            WhyCheck::NotMade { failure } => {
                self.why_meaning(image);
                self.item(&format!("not checked: {}", failure.reason));
                self.hint(
                    "Let the node's daemon check (docs/on-demand.md), or check from this machine with --local.",
                );
            }
            WhyCheck::NotNeeded { reason, hint } => {
                self.item(reason);
                self.hint(hint);
            }
            WhyCheck::Node { report, .. } | WhyCheck::Local { report } => {
                self.paths(report, false);
                for finding in &report.verdict.findings {
                    self.finding(finding);
                }
                if report.verdict.pull == Pull::WouldSucceed {
                    self.why_healthy(image);
                }
            }
        }
        self.why_secrets(image);
        self.why_kubelet(image, at);
        if let Some(report) = image.check.report() {
            self.details(report, true);
            self.undecided(report);
        }
    }

    /// The problem is gone, or a check can't observe it.
    fn why_healthy(&mut self, image: &WhyImage) {
        let is_pulling = image.pods.iter().all(|pod| pod.pulling_since.is_some());
        self.line("");
        if is_pulling {
            self.prose(
                "  ",
                "The path works: the pull is running, or waits for other pulls on this node. To measure how fast layers download, use `pullpath probe IMAGE --node NODE --transfer auto`.",
            );
            return;
        }
        self.why_meaning(image);
        // The check observes the network, and the message is about the node.
        let mut meanings = image.kubelet.iter().filter_map(|one| one.meaning.as_ref());
        if let Some(meaning) = meanings.next().filter(|one| is_on_node(one.cause)) {
            self.hint(&meaning.hint);
            return;
        }
        if pulled_without_secrets(image) {
            self.hint(
                "Wait for the kubelet's next try, or delete the pod. A kubelet that has just started pulls once without Secrets, because it has not read them yet (its log: 'failed to sync secret cache'). The pod's Secret is accepted.",
            );
            return;
        }
        self.hint(
            "Wait for the kubelet's next try, at most 5 minutes after its last one, or delete the pod to try at once. If it fails again, the reason is something that the check doesn't observe: the disk, the node's own credentials, another mirror.",
        );
    }

    /// What the newest message of the kubelet means.
    fn why_meaning(&mut self, image: &WhyImage) {
        let mut messages = image.kubelet.iter();
        let Some(meaning) = messages.find_map(|message| message.meaning.as_ref()) else {
            return;
        };
        let or = optional(meaning.or.first(), |_| {
            let or = meaning.or.iter().map(|cause| cause.code());
            format!(" (or {})", joined(or))
        });
        let entry = meaning.cause.entry();
        let code = self.style.paint(Ink::of(entry.severity), entry.code);
        self.item(&format!(
            "the kubelet's message means {code}{or}: {}",
            entry.title
        ));
        for fact in &meaning.facts {
            self.prose("    - ", fact);
        }
        if !matches!(image.check.pull(), Pull::WouldSucceed) {
            self.hint(&meaning.hint);
        }
    }

    fn why_secrets(&mut self, image: &WhyImage) {
        if image.secrets.is_empty() {
            return;
        }
        self.section("imagePullSecrets");
        for secret in &image.secrets {
            let found = match &secret.found {
                Found::Here => "exists".to_owned(),
                Found::Absent => {
                    "MISSING: the kubelet pulls without it (secret_missing)".to_owned()
                }
                Found::Elsewhere { namespaces } => format!(
                    "MISSING, but exists in namespace {}: a pod can only use Secrets of its own namespace (secret_other_namespace)",
                    namespaces.join(", ")
                ),
                Found::Unread { reason } => format!("unknown whether it exists: {reason}"),
                Found::NotGiven { .. } => "not requested".to_owned(),
            };
            self.item(&format!("{}/{}: {found}", secret.namespace, secret.name));
        }
    }

    fn why_kubelet(&mut self, image: &WhyImage, at: Timestamp) {
        self.section("messages of the kubelet");
        if image.kubelet.is_empty() {
            self.prose("  ", "none any more: Events are kept for an hour");
        }
        for message in &image.kubelet {
            let when = message.last.map_or_else(
                || format!("in the status of {}", message.pod),
                |last| format!("{} ago", ago(last, at)),
            );
            let times = if message.count > 1 {
                format!(", {} times", message.count)
            } else {
                String::new()
            };
            let (reason, text) = (&message.reason, &message.message);
            self.item(&format!("{when}{times}, {reason}: {text}"));
        }
    }

    fn why_others(&mut self, others: &[WhyOther]) {
        let (sandbox, others): (Vec<_>, Vec<_>) =
            others.iter().partition(|other| other.is_sandbox_image);
        for other in sandbox {
            let name = self.style.paint(Ink::Bold, "the sandbox's image");
            let text = format!(
                "{name} (pause) can't be pulled for Pod {}/{}; the pod's Secrets are not used for it",
                other.namespace, other.pod
            );
            self.prose("", &text);
            self.item(&other.message);
            if let Some(meaning) = &other.meaning {
                let entry = meaning.cause.entry();
                let code = self.style.paint(Ink::of(entry.severity), entry.code);
                self.item(&format!("the message means {code}: {}", entry.title));
            }
            self.hint(
                "In containerd's config.toml (sandbox_image, or sandbox under [plugins.'io.containerd.cri.v1.images'.pinned_images]), name a sandbox image that this node can reach; or load the image on the node.",
            );
        }
        if others.is_empty() {
            return;
        }
        self.heading("waiting for other reasons");
        for other in others {
            let container = optional(other.container.as_ref(), |name| {
                format!(", container {name}")
            });
            let message = match other.message.as_str() {
                "" => String::new(),
                message => format!(": {message}"),
            };
            self.item(&format!(
                "Pod {}/{}{container} doesn't wait for its image: {}{message}",
                other.namespace, other.pod, other.reason
            ));
        }
    }
}

/// `12 s`, `4 m`, `2 h`.
/// The check's login with a Secret of the pod is accepted, and the kubelet's newest failure was that it had none.
fn pulled_without_secrets(image: &WhyImage) -> bool {
    let mut meanings = image.kubelet.iter().filter_map(|one| one.meaning.as_ref());
    let was_without = meanings
        .next()
        .is_some_and(|meaning| [Cause::AuthNoCred, Cause::AuthUnknown].contains(&meaning.cause));
    let accepted = image.check.report().is_some_and(|report| {
        let mut secrets = report.verdict.secrets.iter();
        secrets.any(|one| one.outcome == SecretOutcome::Accepted)
    });
    was_without && accepted
}

fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} m", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::nodes::FailureKind;

    fn report() -> Report {
        let text = std::fs::read_to_string("tests/cases/healthy/report.json").unwrap();
        let document: super::super::Document = serde_json::from_str(&text).unwrap();
        Report::conclude(document.reports[0].evidence.clone())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn image(node: &str, pods: usize, check: WhyCheck) -> WhyImage {
        WhyImage {
            image: "registry.test/team/app:1.0".to_owned(),
            node: node.to_owned(),
            pods: (1..=pods)
                .map(|number| WhyPod {
                    namespace: "shop".to_owned(),
                    name: format!("web-{number}"),
                    container: "app".to_owned(),
                    container_kind: ContainerKind::Container,
                    state: "ImagePullBackOff".to_owned(),
                    pulling_since: None,
                })
                .collect(),
            secrets: vec![WhySecret {
                namespace: "shop".to_owned(),
                name: "pull".to_owned(),
                found: Found::Absent,
            }],
            kubelet: vec![KubeletMessage {
                pod: "web-1".to_owned(),
                reason: "Failed".to_owned(),
                message: "Failed to pull image \"registry.test/team/app:1.0\": rpc error: dial tcp 10.0.3.9:443: i/o timeout".to_owned(),
                first: None,
                last: Some(at("2026-11-23T08:56:00Z")),
                count: 12,
                meaning: Some(Meaning {
                    cause: Cause::TcpTimeout,
                    or: Vec::new(),
                    facts: vec!["dialed 10.0.3.9:443".to_owned()],
                    hint: "Open the route.".to_owned(),
                    confidence: Some(Confidence::High),
                }),
            }],
            check,
        }
    }

    #[test]
    fn the_answer_reads_as_reviewed() {
        let by_node = WhyCheck::Node {
            pod: "pullpath-x".to_owned(),
            report: Box::new(report()),
            scheduled: false,
        };
        let nobody = WhyCheck::NotMade {
            failure: NodeFailure {
                kind: FailureKind::NoDaemon,
                reason: "no daemon of Pullpath is there".to_owned(),
            },
        };
        let never = WhyCheck::NotNeeded {
            reason: "imagePullPolicy is Never".to_owned(),
            hint: "Load the image.".to_owned(),
        };
        let other = |pod: &str, reason: &str, message: &str, is_sandbox_image| WhyOther {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            container: None,
            reason: reason.to_owned(),
            message: message.to_owned(),
            is_sandbox_image,
            meaning: None,
        };
        let mut document = WhyDocument::new(
            at("2026-11-23T09:00:00Z"),
            vec![image("n1", 5, by_node), image("n2", 1, nobody)],
            vec![
                other("lost", "Unschedulable", "0/3 nodes are available", false),
                other(
                    "pause",
                    "FailedCreatePodSandBox",
                    "failed to get sandbox image \"pause:3.9\"",
                    true,
                ),
            ],
            vec!["Events can't be read".to_owned()],
        );
        let text = render(&document, Style { color: false });
        insta::with_settings!({snapshot_path => "../../tests/snapshots", prepend_module_to_snapshot => false, omit_expression => true,
            filters => vec![(r"(\d{4}-\d\d-\d\d) \d\d:\d\d:\d\d UTC", "[instant]"), (r"(registry|auth|blobs)\.test:\d+", "$1.test:[port]"), (r"127\.0\.0\.1:\d+", "127.0.0.1:[port]")]}, {
            insta::assert_snapshot!("why", text);
        });
        let again: WhyDocument =
            serde_json::from_str(&serde_json::to_string(&document).unwrap()).unwrap();
        assert_eq!(again, document);

        // The exit status: fail before unknown before success; nothing that waits is success.
        assert_eq!(document.pull(), Pull::WouldFail, "the sandbox's image");
        document.others.pop();
        assert_eq!(document.pull(), Pull::Unknown);
        document.images.pop();
        assert_eq!(document.pull(), Pull::WouldSucceed);
        document.images.push(image("n1", 1, never));
        assert_eq!(document.pull(), Pull::WouldFail);
        document.images.clear();
        assert_eq!(document.pull(), Pull::WouldSucceed);
    }

    #[test]
    fn a_time_is_reported_as_people_do() {
        let now = at("2026-11-23T09:00:00Z");
        for (then, want) in [
            ("2026-11-23T08:59:48Z", "12 s"),
            ("2026-11-23T08:56:01Z", "3 m"),
            ("2026-11-23T06:00:00Z", "3 h"),
            ("2026-11-23T09:00:05Z", "0 s"),
        ] {
            assert_eq!(ago(at(then), now), want);
        }
    }
}
