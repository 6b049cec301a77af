//! Why pods wait for their images: what a check says first, then what the kubelet said, then the legs.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nodes::NodeFailure;
use super::text::{Ink, Page, Style};
use super::{Report, SCHEMA_VERSION, Tool, said, worst};
use crate::diagnose::Pull;
use crate::diagnose::catalogue::Cause;
use crate::model::text::joined;
use crate::model::workload::{ContainerKind, Found};

/// What `why -o json` prints.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath why")]
pub struct WhyDocument {
    pub schema_version: u32,
    pub pullpath: Tool,
    pub at: Timestamp,
    /// Each image on each node with the same Secrets once.
    pub images: Vec<WhyImage>,
    /// Pods that wait for something else.
    pub others: Vec<WhyOther>,
    /// What could not be read or was left out, and why.
    pub notes: Vec<String>,
}

/// An image that pods of one node wait for.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct WhyImage {
    pub image: String,
    pub node: String,
    pub pods: Vec<WhyPod>,
    /// `imagePullSecrets` of the pods, in order, and whether they are there.
    pub secrets: Vec<WhySecret>,
    /// Of the first pods' Events, the newest first.
    pub kubelet: Vec<KubeletMessage>,
    pub check: WhyCheck,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct WhyPod {
    pub namespace: String,
    pub name: String,
    pub container: String,
    pub container_kind: ContainerKind,
    /// The kubelet's reason, or how far the pull is.
    pub state: String,
    /// Since when it is being pulled, where that is what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulling_since: Option<Timestamp>,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct WhySecret {
    pub namespace: String,
    pub name: String,
    #[serde(flatten)]
    pub found: Found,
}

/// An Event.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct KubeletMessage {
    pub pod: String,
    pub reason: String,
    pub message: String,
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
    pub count: u64,
    /// What its text comes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<Meaning>,
}

/// Causes that fit a text.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Meaning {
    pub cause: Cause,
    /// The text fits these as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub or: Vec<Cause>,
    pub facts: Vec<String>,
    pub hint: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum WhyCheck {
    /// The node's daemon has walked.
    Node { pod: String, report: Box<Report> },
    /// This program has, from here: another place.
    Local { report: Box<Report> },
    /// Nobody has, and why.
    Nobody { failure: NodeFailure },
    /// No check tells more: it fails whatever a registry says.
    NotNeeded { reason: String, hint: String },
}

impl WhyCheck {
    fn report(&self) -> Option<&Report> {
        match self {
            Self::Node { report, .. } | Self::Local { report } => Some(report),
            Self::Nobody { .. } | Self::NotNeeded { .. } => None,
        }
    }

    fn pull(&self) -> Pull {
        match self {
            Self::Node { report, .. } | Self::Local { report } => report.verdict.pull,
            Self::Nobody { .. } => Pull::Unknown,
            Self::NotNeeded { .. } => Pull::WouldFail,
        }
    }
}

/// A pod that waits for no image.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct WhyOther {
    pub namespace: String,
    pub pod: String,
    pub container: Option<String>,
    pub reason: String,
    pub message: String,
    /// It is the image of the pod's sandbox, which the node pulls for itself.
    #[serde(default)]
    pub is_sandbox_image: bool,
}

impl WhyDocument {
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

    /// The worst of all: fail before unknown before success, which is also where nothing waits.
    pub fn pull(&self) -> Pull {
        let of_images = self.images.iter().map(|image| image.check.pull());
        let sandboxes = self.others.iter().filter(|other| other.is_sandbox_image);
        worst(of_images.chain(sandboxes.map(|_| Pull::WouldFail)))
    }
}

/// Pods that wait for the same image: so many are named.
const NAMED: usize = 3;

/// For people.
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
        page.line("nothing waits for an image");
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
            WhyCheck::Node { pod, .. } => {
                format!(", checked on that node by its daemon (pod {pod})")
            }
            WhyCheck::Local { .. } => ", checked from HERE, which is another place than that node: its network, resolver, mirrors and roots are not seen".to_owned(),
            WhyCheck::Nobody { .. } | WhyCheck::NotNeeded { .. } => String::new(),
        };
        self.prose("", &format!("{verdict}{by}"));
        for pod in image.pods.iter().take(NAMED) {
            let since = said(pod.pulling_since, |since| {
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
            WhyCheck::Nobody { failure } => {
                self.why_meaning(image);
                self.item(&format!("not checked: {}", failure.reason));
                self.hint(
                    "Let the node's daemon check (docs/on-demand.md), or walk from here, which is another place: --local.",
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
                    self.why_well(image);
                }
            }
        }
        self.why_secrets(image);
        self.why_kubelet(image, at);
        if let Some(report) = image.check.report() {
            self.details(report);
        }
    }

    /// Nothing is wrong any more, or nothing that a check sees.
    fn why_well(&mut self, image: &WhyImage) {
        let is_pulling = image.pods.iter().all(|pod| pod.pulling_since.is_some());
        self.line("");
        if is_pulling {
            self.prose(
                "  ",
                "Nothing is wrong with the way: the pull goes on, or waits for others on this node. How fast layers come is told by `pullpath probe IMAGE --node NODE --transfer auto`.",
            );
            return;
        }
        self.why_meaning(image);
        self.hint(
            "The kubelet tries again by itself, at most 5 minutes after its last try; delete the pod to have it tried at once. If it fails again, the kubelet sees what the check does not: the disk, the node's own credentials, another mirror.",
        );
    }

    /// What the newest words of the kubelet come to.
    fn why_meaning(&mut self, image: &WhyImage) {
        let Some(meaning) = image.kubelet.iter().find_map(|word| word.meaning.as_ref()) else {
            return;
        };
        let or = said(meaning.or.first(), |_| {
            let or = meaning.or.iter().map(|cause| cause.code());
            format!(" (or {})", joined(or))
        });
        let entry = meaning.cause.entry();
        let code = self.style.paint(Ink::of(entry.severity), entry.code);
        self.item(&format!(
            "by the kubelet's words it was {code}{or}: {}",
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
                Found::Here => "there".to_owned(),
                Found::Absent => {
                    "NOT THERE: the pull goes on without it (secret_missing)".to_owned()
                }
                Found::Elsewhere { namespaces } => format!(
                    "NOT THERE, but in namespace {}: Secrets do not cross namespaces (secret_other_namespace)",
                    namespaces.join(", ")
                ),
                Found::Unread { reason } => format!("whether it is there is not known: {reason}"),
                Found::NotGiven { .. } => "not looked for".to_owned(),
            };
            self.item(&format!("{}/{}: {found}", secret.namespace, secret.name));
        }
    }

    fn why_kubelet(&mut self, image: &WhyImage, at: Timestamp) {
        self.section("the kubelet said");
        if image.kubelet.is_empty() {
            self.prose(
                "  ",
                "nothing that is still there: Events are kept for an hour",
            );
        }
        for word in &image.kubelet {
            let when = word.last.map_or_else(
                || format!("in the status of {}", word.pod),
                |last| format!("{} ago", ago(last, at)),
            );
            let times = if word.count > 1 {
                format!(", {} times", word.count)
            } else {
                String::new()
            };
            self.item(&format!("{when}{times}, {}: {}", word.reason, word.message));
        }
    }

    fn why_others(&mut self, others: &[WhyOther]) {
        let (sandbox, others): (Vec<_>, Vec<_>) =
            others.iter().partition(|other| other.is_sandbox_image);
        for other in sandbox {
            let name = self.style.paint(Ink::Bold, "the sandbox's image");
            let text = format!(
                "{name} (pause) can't be pulled, for Pod {}/{}; no Secret of the pod counts for it",
                other.namespace, other.pod
            );
            self.prose("", &text);
            self.item(&other.message);
            self.hint(
                "It is named in containerd's config.toml (sandbox_image, or sandbox under [plugins.'io.containerd.cri.v1.images'.pinned_images]): name one that this node can reach, or load it there.",
            );
        }
        if others.is_empty() {
            return;
        }
        self.heading("not for an image");
        for other in others {
            let container = said(other.container.as_ref(), |name| {
                format!(", container {name}")
            });
            let message = match other.message.as_str() {
                "" => String::new(),
                message => format!(": {message}"),
            };
            self.item(&format!(
                "Pod {}/{}{container} waits for another reason than its image, {}{message}",
                other.namespace, other.pod, other.reason
            ));
        }
    }
}

/// `12 s`, `4 m`, `2 h`.
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
                    facts: vec!["dialled 10.0.3.9:443".to_owned()],
                    hint: "Open the way.".to_owned(),
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
        };
        let nobody = WhyCheck::Nobody {
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
    fn a_time_is_told_as_people_do() {
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
