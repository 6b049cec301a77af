//! What the kubelet did and said, beside what each face of Pullpath says of the same pod. Pure: texts in, differences
//! out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::operated::Metrics;
use crate::pods::{Case, Kubelet, SHOP};

/// All that is known of a cluster at one moment, as its API and Pullpath's have it.
#[derive(Default)]
pub struct Seen {
    /// Pods of the shop, and all Events of its namespace.
    pub pods: Vec<Value>,
    pub events: Vec<Value>,
    /// `/api/v1/targets` of the daemon.
    pub targets: Vec<Value>,
    /// `/api/v1/pulls` of the cluster role.
    pub pulls: Value,
    /// Findings of the cluster role's lint.
    pub lint: Vec<Value>,
    /// `images` of `why -o json`; `None`: not requested yet.
    pub why: Option<Vec<Value>>,
}

/// What all say of one pod.
#[derive(Debug, Default, PartialEq)]
pub struct Said {
    pub runs: bool,
    /// The reason of a container that waits.
    pub waits: Option<String>,
    /// Reasons and messages of the kubelet's Events.
    pub messages: Vec<String>,
    pub pull: Option<String>,
    pub causes: Vec<String>,
    /// Causes of Pullpath's Events on the pod.
    pub events: BTreeSet<String>,
    pub cluster: Option<String>,
    pub lint: BTreeSet<String>,
    /// `pull` and causes, where `why` lists the pod.
    pub why: Option<(String, Vec<String>)>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn causes(findings: &Value) -> Vec<String> {
    list(findings)
        .iter()
        .map(|one| text(&one["cause"]))
        .collect()
}

/// `IMAGE` in a pod, as a container's state in its status.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let of = |kind: &str| list(&pod["status"][kind]);
    of("initContainerStatuses")
        .iter()
        .chain(of("containerStatuses"))
}

impl Seen {
    fn pod(&self, name: &str) -> Option<&Value> {
        self.pods.iter().find(|pod| pod["metadata"]["name"] == name)
    }

    fn events_of(&self, pod: &str) -> impl Iterator<Item = &Value> {
        let pod = pod.to_owned();
        self.events
            .iter()
            .filter(move |event| event["involvedObject"]["name"] == *pod)
    }

    /// The target of the container that waits, else of the pod's own.
    fn target(&self, pod: &str) -> Option<&Value> {
        let use_of = |target: &&Value, waits: bool| {
            list(&target["uses"]).iter().any(|one| {
                one["pod"] == pod && one["namespace"] == SHOP && (one["waits"] == true || !waits)
            })
        };
        let mut waiting = self.targets.iter().filter(|target| use_of(target, true));
        let waiting = waiting.next();
        waiting.or_else(|| {
            self.targets.iter().find(|target| {
                list(&target["uses"]).iter().any(|one| {
                    one["pod"] == pod && one["namespace"] == SHOP && one["container"] == "app"
                })
            })
        })
    }

    pub fn of(&self, case: &Case) -> Said {
        let name = case.name;
        let mut said = Said::default();
        if let Some(pod) = self.pod(name) {
            said.runs = list(&pod["status"]["containerStatuses"])
                .iter()
                .all(|one| one["state"].get("running").is_some())
                && pod["status"]["phase"] == "Running";
            for container in containers(pod) {
                let waiting = &container["state"]["waiting"];
                if waiting.is_object()
                    && !["PodInitializing", "ContainerCreating"]
                        .contains(&text(&waiting["reason"]).as_str())
                {
                    said.waits = Some(text(&waiting["reason"]));
                }
            }
        }
        for event in self.events_of(name) {
            if event["source"]["component"] == "kubelet" {
                said.messages.push(format!(
                    "{}: {}",
                    text(&event["reason"]),
                    text(&event["message"])
                ));
            } else if event["reason"] == "ImagePullDiagnosed" {
                let message = text(&event["message"]);
                let code = message.split(':').next().unwrap_or_default();
                said.events.insert(code.to_owned());
            }
        }
        if let Some(target) = self.target(name) {
            said.pull = Some(text(&target["state"]));
            said.causes = causes(&target["findings"]);
        }
        let failing = list(&self.pulls["failing"]);
        let of_pod = |one: &&Value| one["pod"] == name && one["namespace"] == SHOP;
        said.cluster = failing.iter().find(of_pod).map(|one| text(&one["cause"]));
        for finding in &self.lint {
            let (kind, of) = (text(&finding["kind"]), text(&finding["name"]));
            let is_named = kind == "Secret" && case.secrets.contains(&of.as_str());
            if finding["namespace"] == SHOP && (kind == "Pod" && of == name || is_named) {
                said.lint.insert(text(&finding["cause"]));
            }
        }
        let of_why = |image: &&Value| {
            let pods = list(&image["pods"]);
            pods.iter()
                .any(|pod| pod["name"] == name && pod["namespace"] == SHOP)
        };
        if let Some(image) = self.why.iter().flatten().find(of_why) {
            let verdict = &image["check"]["report"]["verdict"];
            let failure = &image["check"]["failure"]["reason"];
            said.why = Some(if verdict.is_object() {
                (text(&verdict["pull"]), causes(&verdict["findings"]))
            } else {
                let reason = failure.as_str().map(str::to_owned);
                (text(&image["check"]["by"]), reason.into_iter().collect())
            });
        }
        said
    }
}

/// Faces, by which differences are sorted.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Face {
    Kubelet,
    Daemon,
    Event,
    Cluster,
    Lint,
    Why,
}

/// Where what is said is not what the line of the table has.
pub fn differences(case: &Case, said: &Said, with_why: bool) -> BTreeMap<Face, String> {
    let mut all = BTreeMap::new();
    match case.kubelet {
        Kubelet::Runs if !said.runs => {
            all.insert(Face::Kubelet, format!("does not run: {:?}", said.messages));
        }
        Kubelet::Fails(words)
            if !said.messages.iter().any(|message| message.contains(words))
                // While containerd was down.
                || matches!(said.waits.as_deref(), None | Some("ImageInspectError")) =>
        {
            all.insert(
                Face::Kubelet,
                format!("nothing of '{words}': {:?}", said.messages),
            );
        }
        _ => {}
    }
    let mut compare = |face: Face, expected: String, found: String| {
        if expected != found {
            all.insert(face, format!("{expected} expected, {found} said"));
        }
    };
    let verdict = |pull: Option<&str>, causes: &[String]| {
        format!("{} {}", pull.unwrap_or("no check"), causes.join("+"))
    };
    let expected_causes: Vec<String> = case.causes.iter().map(|one| (*one).to_owned()).collect();
    compare(
        Face::Daemon,
        verdict(case.pull, &expected_causes),
        verdict(said.pull.as_deref(), &said.causes),
    );
    let set = |all: &BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join("+");
    compare(
        Face::Event,
        case.event.unwrap_or_default().to_owned(),
        set(&said.events),
    );
    compare(
        Face::Cluster,
        case.cluster.unwrap_or_default().to_owned(),
        said.cluster.clone().unwrap_or_default(),
    );
    let lint: BTreeSet<String> = case.lint.iter().map(|one| (*one).to_owned()).collect();
    compare(Face::Lint, set(&lint), set(&said.lint));
    if with_why {
        let expected = if !case.fails_at_all() {
            String::new()
        } else if case.pull.is_none() {
            "not_needed ".to_owned()
        } else {
            verdict(case.pull, &expected_causes)
        };
        let found = said
            .why
            .as_ref()
            .map(|(pull, causes)| verdict(Some(pull), causes));
        compare(Face::Why, expected, found.unwrap_or_default());
    }
    all
}

/// A line of the table that the test prints.
pub fn line(case: &Case, said: &Said) -> String {
    let state = match (&said.waits, said.runs) {
        (Some(reason), _) => reason.as_str(),
        (None, true) => "runs",
        (None, false) => "-",
    };
    let set = |all: &BTreeSet<String>| all.iter().cloned().collect::<Vec<_>>().join("+");
    let daemon = format!(
        "{} {}",
        said.pull.as_deref().unwrap_or("no check"),
        said.causes.join("+")
    );
    let why = said
        .why
        .as_ref()
        .map_or_else(String::new, |(pull, causes)| {
            format!("{pull} {}", causes.join("+"))
        });
    format!(
        "{:<20} {:<18} {:<40} {:<24} {:<18} {:<24} {}",
        case.name,
        state,
        daemon,
        set(&said.events),
        said.cluster.as_deref().unwrap_or_default(),
        set(&said.lint),
        why
    )
}

/// Behind the registry of pulls that the kubelet refused to make, for its own rate.
pub const QPS: &str = " kubelet_qps";

/// Failures that the kubelet reported, by registry, with what it did not pull for want of a turn apart.
pub fn failures_by_events(events: &[Value]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for event in events
        .iter()
        .filter(|event| event["source"]["component"] == "kubelet")
    {
        let (reason, message) = (text(&event["reason"]), text(&event["message"]));
        let is_failure = message.starts_with("Failed to pull image")
            || ["ErrImageNeverPull", "InspectFailed"].contains(&reason.as_str());
        let Some(image) = message.split('"').nth(1).filter(|_| is_failure) else {
            continue;
        };
        let of_runtime = message.contains("containerd.sock");
        let is_valid = !message.contains("invalid reference format") && !of_runtime;
        let registry = image
            .split('/')
            .next()
            .filter(|_| is_valid)
            .unwrap_or_default();
        let late = if message.contains("pull QPS exceeded") {
            QPS
        } else {
            ""
        };
        *all.entry(format!("{registry}{late}")).or_default() +=
            event["count"].as_u64().unwrap_or(1);
    }
    all
}

/// The same, as the cluster role counts.
pub fn failures_by_metrics(metrics: &Metrics) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (series, value) in &metrics.series {
        let Some(labels) = series.strip_prefix("pullpath_real_pull_failures_total{") else {
            continue;
        };
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\"")).unwrap();
            rest.split('"').next().unwrap().to_owned()
        };
        let late = if label("cause") == "kubelet_qps" {
            QPS
        } else {
            ""
        };
        let count: u64 = format!("{value:.0}").parse().unwrap();
        if count > 0 {
            *all.entry(format!("{}{late}", label("registry")))
                .or_default() += count;
        }
    }
    all
}
