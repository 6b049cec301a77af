//! `pullpath why`: finds pods that wait for their images, shows the kubelet's messages, and checks each image
//! from the node that has to pull it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use kube::Client;

use super::access::{ClusterArgs, DaemonArgs};
use super::error::Error;
use super::network_args::NodeSettingsArgs;
use super::nodes::pod_of;
use super::output::{Printing, status};
use super::probe_context::{ContainerdArgs, NetworkArgs, ProbeContext, runtime};
use super::remote::{self, Question, Tier};
use super::tasks::in_order;
use crate::diagnose::catalogue::Cause;
use crate::kubernetes::events;
use crate::kubernetes::forward::Admin;
use crate::kubernetes::lookup::{self, DaemonPod};
use crate::kubernetes::objects::{
    CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, JOBS, REPLICA_SETS, ResourceName, STATEFUL_SETS,
};
use crate::kubernetes::request::RequestError;
use crate::kubernetes::secrets::{self, SecretKey};
use crate::model::platform::Platform;
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::model::workload::{
    Found, Namespaced, PodUse, PullPolicy, SecretLookup, SecretRefs, is_name,
};
use crate::probe;
use crate::probe::check::{Check, Effort};
use crate::probe::network::NoProgress;
use crate::pull_secret::keyring::Keyring;
use crate::pulls::failure::ParsedFailure;
use crate::pulls::{advice, event, failure};
use crate::redact;
use crate::report::Report;
use crate::report::nodes::{FailureKind, NodeFailure};
use crate::report::why::{
    KubeletMessage, Meaning, WhyCheck, WhyDocument, WhyImage, WhyOther, WhyPod, WhySecret, render,
};
use crate::workload::pending_pods::{self, ImageWait, ImageWhy, Wait};
use crate::workload::pod::{ContainerState, Event, Pod, ReasonMessage};
use crate::workload::reasons::is_undecodable_secret;

/// Requests to the API server, and checks on nodes, at the same time.
const AT_ONCE: usize = 8;

/// The maximum number of pods if none is named: where more pods wait, they have one cause, or a few.
const MAX_PODS: usize = 200;

/// In seconds. If no pod is named, a pull that has taken less is not reported.
const LONG_PULL: i64 = 60;

/// Pods of a group whose Events are shown; those of the others are the same.
const EVENTS_OF: usize = 3;

/// The maximum number of the kubelet's messages for one image.
const MAX_MESSAGES: usize = 6;

#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 nothing waits for an image, or a pull would succeed now, 1 at least one would fail,\n\
                  2 unknown. The node's daemon makes the check; it is requested by port-forward with your own rights\n\
                  (get and create of pods/portforward)."
)]
pub(super) struct WhyArgs {
    /// POD, or deploy/NAME, sts/NAME, ds/NAME, job/NAME, cronjob/NAME [default: all pods in the namespace that wait for images]
    #[arg(value_name = "POD|KIND/NAME", value_parser = target)]
    target: Option<Target>,

    /// The namespace of the pods [default: the namespace of the kubeconfig's context]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,

    /// Check the pods of all namespaces that wait for images
    #[arg(short = 'A', long, conflicts_with_all = ["target", "namespace"])]
    all_namespaces: bool,

    /// Check from this machine, whose network may differ from the node's, without the daemons
    #[arg(long)]
    local: bool,

    #[command(flatten)]
    printing: Printing,

    /// With --local: timeout for any single answer from the network
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::args::duration)]
    timeout: std::time::Duration,

    #[command(flatten)]
    daemon: DaemonArgs,

    #[command(flatten)]
    cluster: ClusterArgs,

    #[command(flatten)]
    containerd: ContainerdArgs,

    #[command(flatten)]
    network: NetworkArgs,

    #[command(flatten)]
    place: NodeSettingsArgs,
}

/// A pod, or the pods of a workload.
#[derive(Clone, Debug, PartialEq)]
enum Target {
    Pod(String),
    Workload(ResourceName, String),
}

fn target(text: &str) -> Result<Target, String> {
    let (kind, name) = text.split_once('/').unwrap_or(("pod", text));
    if !is_name(name) {
        return Err("write POD, or KIND/NAME, for instance deploy/web".to_owned());
    }
    let workload = |kind| Ok(Target::Workload(kind, name.to_owned()));
    // The names that kubectl accepts.
    match kind
        .to_ascii_lowercase()
        .split('.')
        .next()
        .unwrap_or_default()
    {
        "pod" | "pods" | "po" => Ok(Target::Pod(name.to_owned())),
        "deployment" | "deployments" | "deploy" => workload(DEPLOYMENTS),
        "statefulset" | "statefulsets" | "sts" => workload(STATEFUL_SETS),
        "daemonset" | "daemonsets" | "ds" => workload(DAEMON_SETS),
        "replicaset" | "replicasets" | "rs" => workload(REPLICA_SETS),
        "job" | "jobs" => workload(JOBS),
        "cronjob" | "cronjobs" | "cj" => workload(CRON_JOBS),
        _ => Err("the kind must be pod, deploy, sts, ds, rs, job or cronjob".to_owned()),
    }
}

pub(super) fn run(args: &WhyArgs, out: &mut dyn Write) -> Result<u8, Error> {
    let document = runtime()?.block_on(examine(args))?;
    args.printing.print(&document, render, out)?;
    Ok(status(document.pull()))
}

async fn examine(args: &WhyArgs) -> Result<WhyDocument, Error> {
    let client = args.cluster.connect().await?;
    let mut notes = Vec::new();
    let pods = pods(args, &client, &mut notes).await?;
    let pods = with_events(&client, pods, &mut notes).await?;
    let now = Timestamp::now();
    let found = sort(&pods, args.target.is_some(), now);
    if args.target.is_none() && found.other_pods > 0 {
        notes.push(format!(
            "{} more pods wait for other reasons than an image; name a pod to see its reason",
            found.other_pods
        ));
    }
    let secrets = look_for_secrets(&client, &found.groups).await;
    let checks = if args.local {
        check_locally(args, &client, &found.groups).await?
    } else {
        check_on_nodes(args, &client, &found.groups).await?
    };
    let images = found
        .groups
        .iter()
        .zip(checks)
        .map(|(group, check)| group.result(&secrets, check))
        .collect();
    Ok(WhyDocument::new(now, images, found.others, notes))
}

// ---- which pods ---------------------------------------------------------------------------------

async fn pods(args: &WhyArgs, client: &Client, notes: &mut Vec<String>) -> Result<Vec<Pod>, Error> {
    let namespace = args.namespace.as_deref();
    let namespace = namespace.unwrap_or_else(|| client.default_namespace());
    let failed =
        |what: String| move |error: RequestError| Error::Message(format!("can't {what}: {error}"));
    match &args.target {
        Some(Target::Pod(name)) => {
            let pod = lookup::pod(client, namespace, name)
                .await
                .map_err(failed(format!("read Pod {namespace}/{name}")))?;
            Ok(vec![pod])
        }
        Some(Target::Workload(kind, name)) => {
            let pods = lookup::pods_of_workload(client, *kind, namespace, name)
                .await
                .map_err(failed(format!(
                    "read the pods of {} {namespace}/{name}",
                    kind.kind()
                )))?;
            if pods.is_empty() {
                notes.push(format!(
                    "{} {namespace}/{name} has no pods: it has no replicas, or no pod could be created (`kubectl describe` shows why, for instance a quota)",
                    kind.kind()
                ));
            }
            Ok(pods)
        }
        None => {
            let of = (!args.all_namespaces).then_some(namespace);
            let (mut pods, mut omitted) = (Vec::new(), 0);
            let is_whole = lookup::pods_not_ended(client, of, |pod| {
                if !may_wait(&pod) {
                    return;
                }
                if pods.len() < MAX_PODS {
                    pods.push(pod);
                } else {
                    omitted += 1;
                }
            })
            .await
            .map_err(failed(match of {
                Some(namespace) => format!("list the pods of namespace {namespace}"),
                None => "list the pods of all namespaces".to_owned(),
            }))?;
            if omitted > 0 {
                notes.push(format!(
                    "{omitted} more pods that are not running were skipped; give a namespace or the name of a pod"
                ));
            }
            if !is_whole {
                notes.push("some pods of the cluster were not read; give a namespace".to_owned());
            }
            Ok(pods)
        }
    }
}

/// Whether a container of the pod has not started.
fn may_wait(pod: &Pod) -> bool {
    let waits = |state: &ContainerState| {
        matches!(state, ContainerState::Waiting(_) | ContainerState::Unknown)
    };
    !pod.is_over
        && pod
            .containers
            .iter()
            .any(|container| waits(&container.state))
}

/// A pod and its Events.
struct PodAndEvents {
    pod: Pod,
    /// `None` if they can't be read.
    events: Option<Vec<Event>>,
}

async fn with_events(
    client: &Client,
    pods: Vec<Pod>,
    notes: &mut Vec<String>,
) -> Result<Vec<PodAndEvents>, Error> {
    let requests = pods.into_iter().map(|pod| {
        let client = client.clone();
        async move {
            let events = if may_wait(&pod) {
                events::of_pod(&client, &pod).await
            } else {
                Ok(Vec::new())
            };
            (pod, events)
        }
    });
    let mut unread: Option<RequestError> = None;
    let read = in_order(AT_ONCE, requests).await?.into_iter();
    let pods = read.map(|(pod, events)| PodAndEvents {
        pod,
        events: events.map_err(|error| unread = Some(error)).ok(),
    });
    let pods = pods.collect();
    if let Some(error) = unread {
        notes.push(format!(
            "can't read Events, so the kubelet's messages are only those in the pods' status: {error}"
        ));
    }
    Ok(pods)
}

// ---- what they wait for -------------------------------------------------------------------------

/// Pods of one node that wait for the same image with the same Secrets.
struct WaitingPods<'a> {
    node: String,
    /// `None` if the name of the image is invalid.
    reference: Option<Reference>,
    image: String,
    secrets: Option<SecretRefs>,
    waits: Vec<(&'a PodAndEvents, ImageWait)>,
}

#[derive(Default)]
struct Sorted<'a> {
    groups: Vec<WaitingPods<'a>>,
    others: Vec<WhyOther>,
    /// Pods that wait for other reasons and were not named.
    other_pods: usize,
}

fn sort(pods: &[PodAndEvents], is_named: bool, now: Timestamp) -> Sorted<'_> {
    let mut sorted = Sorted::default();
    for one in pods {
        let pod = &one.pod;
        let mut waits_otherwise = false;
        for wait in pending_pods::waits(pod, one.events.as_deref()) {
            match wait {
                Wait::Image(wait) => {
                    if is_named || is_long(&wait.why, now) {
                        sorted.add(one, wait);
                    }
                }
                Wait::Sandbox { message } => {
                    let reason = "FailedCreatePodSandBox".to_owned();
                    let state = ReasonMessage { reason, message };
                    sorted.others.push(other(pod, None, &state, true));
                }
                Wait::Other { .. } if !is_named => waits_otherwise = true,
                Wait::Other { container, said } => {
                    sorted
                        .others
                        .push(other(pod, container.as_deref(), &said, false));
                }
            }
        }
        sorted.other_pods += usize::from(waits_otherwise);
    }
    sorted
}

fn other(
    pod: &Pod,
    container: Option<&str>,
    state: &ReasonMessage,
    is_sandbox_image: bool,
) -> WhyOther {
    WhyOther {
        namespace: printable(&pod.namespace),
        pod: printable(&pod.name),
        container: container.map(printable),
        reason: printable(&state.reason),
        message: redact::shown(&state.message),
        is_sandbox_image,
        meaning: sandbox_meaning(pod, state).filter(|_| is_sandbox_image),
    }
}

/// What the message of an Event about a sandbox's image means.
fn sandbox_meaning(pod: &Pod, state: &ReasonMessage) -> Option<Meaning> {
    match event::read(&state.reason, &state.message)? {
        event::EventKind::SandboxFailed { image, text } => {
            let judged = ParsedFailure {
                is_sandbox: true,
                ..failure::judge(&image, &text)
            };
            meaning(judged, &image, pod.node.as_deref().unwrap_or_default())
        }
        _ => None,
    }
}

fn meaning(judged: ParsedFailure, image: &str, node: &str) -> Option<Meaning> {
    Some(Meaning {
        cause: judged.cause?,
        facts: advice::facts(&judged, image),
        hint: advice::hint(&judged, image, node),
        confidence: judged.confidence,
        or: judged.or,
    })
}

/// False for a pull that has just started, which is no problem yet.
fn is_long(why: &ImageWhy, now: Timestamp) -> bool {
    match why {
        ImageWhy::Pulling { since: Some(since) } => {
            now.duration_since(*since).as_secs() >= LONG_PULL
        }
        _ => true,
    }
}

impl<'a> Sorted<'a> {
    fn add(&mut self, one: &'a PodAndEvents, wait: ImageWait) {
        let pod = &one.pod;
        let node = pod.node.as_deref().map(printable).unwrap_or_default();
        let reference: Option<Reference> = wait.image.parse().ok();
        let image = match &reference {
            Some(reference) => reference.to_string(),
            None => printable(&wait.image),
        };
        let secrets = pod.secrets();
        // Waits that need no check are not grouped with those that do.
        let is_checked = |wait: &ImageWait| wait.why.is_to_be_checked();
        let same = self.groups.iter_mut().find(|group| {
            group.node == node
                && group.image == image
                && group.secrets == secrets
                && is_checked(&group.waits[0].1) == is_checked(&wait)
        });
        match same {
            Some(group) => group.waits.push((one, wait)),
            None => self.groups.push(WaitingPods {
                node,
                reference,
                image,
                secrets,
                waits: vec![(one, wait)],
            }),
        }
    }
}

impl WaitingPods<'_> {
    /// The result if no check is needed; otherwise `None`.
    fn certain(&self) -> Option<WhyCheck> {
        let reason = match &self.waits[0].1.why {
            ImageWhy::NeverPulled => {
                return Some(WhyCheck::NotNeeded {
                    reason: format!(
                        "imagePullPolicy is Never, and the image is not on node {}, or (from Kubernetes 1.35 on) it was pulled with a Secret that this pod does not have: the kubelet sends no request",
                        self.node
                    ),
                    hint: "Load the image on that node, or set imagePullPolicy to IfNotPresent. If the image is there, give the pod the Secret that it was pulled with.".to_owned(),
                });
            }
            ImageWhy::Invalid(said) => {
                format!(
                    "the image's name is invalid: {}",
                    redact::shown(&said.message)
                )
            }
            _ if self.reference.is_none() => "the image's name is invalid".to_owned(),
            _ => return None,
        };
        let hint = "Correct the image's name in the workload: write registry.example.com/team/app:1.0, in lower case, without https://.";
        Some(WhyCheck::NotNeeded {
            reason,
            hint: hint.to_owned(),
        })
    }

    fn result(&self, secrets: &BTreeMap<SecretKey, Found>, check: WhyCheck) -> WhyImage {
        let pods = self.waits.iter().map(|(one, wait)| WhyPod {
            namespace: printable(&one.pod.namespace),
            name: printable(&one.pod.name),
            container: printable(&wait.container),
            container_kind: wait.kind,
            state: match &wait.why {
                ImageWhy::Failed(said) | ImageWhy::Invalid(said) => printable(&said.reason),
                ImageWhy::Pulling { .. } => "is being pulled".to_owned(),
                ImageWhy::MaybePulling => {
                    "not started; Events would show whether it is being pulled".to_owned()
                }
                ImageWhy::NeverPulled => "ErrImageNeverPull".to_owned(),
            },
            pulling_since: match &wait.why {
                ImageWhy::Pulling { since } => *since,
                _ => None,
            },
        });
        let names = self.secrets.iter().flat_map(SecretRefs::keys);
        WhyImage {
            image: self.image.clone(),
            node: self.node.clone(),
            pods: pods.collect(),
            secrets: names
                .map(|key| WhySecret {
                    found: secrets.get(&key).cloned().unwrap_or(Found::Unread {
                        reason: "no request was sent".to_owned(),
                    }),
                    namespace: printable(&key.namespace),
                    name: printable(&key.name),
                })
                .collect(),
            kubelet: self.kubelet(),
            check,
        }
    }

    /// The kubelet's messages on this image, the newest first.
    fn kubelet(&self) -> Vec<KubeletMessage> {
        let mut messages = Vec::new();
        for (one, wait) in self.waits.iter().take(EVENTS_OF) {
            let events = one.events.as_deref().unwrap_or_default();
            let of_it = |event: &&Event| pending_pods::concerns(event, wait);
            let before = messages.len();
            for event in pending_pods::pull_events(events).into_iter().filter(of_it) {
                messages.push(KubeletMessage {
                    pod: printable(&one.pod.name),
                    reason: printable(&event.reason),
                    message: redact::shown(&event.message),
                    first: event.first,
                    last: event.last,
                    count: event.count,
                    meaning: self.meaning(&event.reason, &event.message),
                });
            }
            // After Events have expired, the pod's status still has the last error.
            let mut new = messages[before..].iter();
            let has_error = new.any(|message| message.meaning.is_some());
            if let ImageWhy::Failed(state) = &wait.why
                && !has_error
                && !state.message.is_empty()
            {
                messages.push(KubeletMessage {
                    pod: printable(&one.pod.name),
                    reason: printable(&state.reason),
                    message: redact::shown(&state.message),
                    first: None,
                    last: None,
                    count: 1,
                    meaning: self.meaning_of_state(state),
                });
            }
        }
        messages.sort_by_key(|message| std::cmp::Reverse(message.last));
        messages.truncate(MAX_MESSAGES);
        messages
    }

    fn meaning(&self, reason: &str, message: &str) -> Option<Meaning> {
        match event::read(reason, message)? {
            event::EventKind::Failed { text, .. } | event::EventKind::NotInspected { text, .. } => {
                self.judged(&text)
            }
            event::EventKind::SecretUndecodable { .. } => self.of_undecodable_secret(),
            _ => None,
        }
    }

    fn meaning_of_state(&self, state: &ReasonMessage) -> Option<Meaning> {
        if is_undecodable_secret(&state.reason) {
            return self.of_undecodable_secret();
        }
        let is_error = state.reason == "ErrImagePull";
        status_error(&state.message)
            .or(is_error.then_some(state.message.as_str()))
            .and_then(|text| self.judged(text))
    }

    fn of_undecodable_secret(&self) -> Option<Meaning> {
        let judged = ParsedFailure::certain(Cause::SecretFormat);
        meaning(judged, &self.image, &self.node)
    }

    fn judged(&self, text: &str) -> Option<Meaning> {
        let judged = failure::judge(&self.image, text);
        meaning(judged, &self.image, &self.node)
    }
}

/// The error in a back-off message, which has it since Kubernetes 1.32:
/// `Back-off pulling image "…": ErrImagePull: …`.
fn status_error(message: &str) -> Option<&str> {
    let (_, error) = message.split_once(": ErrImagePull: ")?;
    Some(error)
}

/// Whether the Secrets exist; their content is not requested.
async fn look_for_secrets(
    client: &Client,
    groups: &[WaitingPods<'_>],
) -> BTreeMap<SecretKey, Found> {
    let wanted: BTreeSet<SecretKey> = groups
        .iter()
        .filter_map(|group| group.secrets.as_ref())
        .flat_map(SecretRefs::keys)
        .collect();
    let mut found = BTreeMap::new();
    for key in wanted {
        let one = match secrets::exists(client, &key).await {
            Ok(true) => Found::Here,
            Ok(false) => secrets::absent(client, &key.name).await,
            Err(error) if error.is_forbidden() => Found::Unread {
                reason: "you don't have the right to read it (get of secrets)".to_owned(),
            },
            Err(error) => Found::Unread {
                reason: error.to_string(),
            },
        };
        found.insert(key, one);
    }
    found
}

// ---- checks -------------------------------------------------------------------------------------

/// The check of each group, in their order. Those on one node are made one after the other, because a daemon
/// makes one check at a time.
async fn check_on_nodes(
    args: &WhyArgs,
    client: &Client,
    groups: &[WaitingPods<'_>],
) -> Result<Vec<WhyCheck>, Error> {
    let mut checks: Vec<Option<WhyCheck>> = groups.iter().map(WaitingPods::certain).collect();
    let namespace = &args.daemon.pullpath_namespace;
    let is_needed = checks.iter().any(Option::is_none);
    let daemons = if is_needed {
        lookup::daemons(client, namespace).await
    } else {
        Ok(Vec::new())
    };
    let mut by_node: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        if checks[index].is_none() {
            by_node.entry(&group.node).or_default().push(index);
        }
    }
    let mut requests = Vec::new();
    for (node, indexes) in by_node {
        let pod = match &daemons {
            Ok(daemons) => {
                let of_node = |daemon: &&DaemonPod| daemon.node == node;
                pod_of(daemons.iter().find(of_node).cloned(), namespace)
            }
            Err(error) => Err(NodeFailure {
                kind: FailureKind::Failed,
                reason: format!("can't list the daemons (pods) of namespace {namespace}: {error}"),
            }),
        };
        let pod = match pod {
            Ok(pod) => pod,
            Err(failure) => {
                for index in indexes {
                    let failure = failure.clone();
                    checks[index] = Some(WhyCheck::NotMade { failure });
                }
                continue;
            }
        };
        let admin = Admin {
            client: client.clone(),
            namespace: namespace.clone(),
            pod,
            port: args.daemon.admin_port,
        };
        let questions: Vec<(usize, Question, Option<SecretRefs>)> = indexes
            .into_iter()
            .map(|index| {
                (
                    index,
                    groups[index].question(),
                    groups[index].secrets.clone(),
                )
            })
            .collect();
        let wait = args.daemon.node_timeout;
        requests.push(async move {
            let mut checks = Vec::new();
            for (index, question, secrets) in questions {
                let check = check_by_daemon(&admin, question, secrets, wait).await;
                checks.push((index, check));
            }
            checks
        });
    }
    for (index, check) in in_order(AT_ONCE, requests).await?.into_iter().flatten() {
        checks[index] = Some(check);
    }
    Ok(checks
        .into_iter()
        .map(|check| check.unwrap_or_else(not_requested))
        .collect())
}

/// For completeness: each group has a certain result, a check, or the reason why there is none.
fn not_requested() -> WhyCheck {
    WhyCheck::NotMade {
        failure: NodeFailure {
            kind: FailureKind::Failed,
            reason: "no check was requested".to_owned(),
        },
    }
}

/// Requests a check for the pod; if the daemon does not know the pod, a second one with the names of the
/// Secrets.
async fn check_by_daemon(
    admin: &Admin,
    mut question: Question,
    secrets: Option<SecretRefs>,
    wait: std::time::Duration,
) -> WhyCheck {
    let mut answer = remote::check(admin, &question, wait).await;
    if matches!(&answer, Err(failure) if failure.kind == FailureKind::NotKnown) {
        question.pod = None;
        question.secrets = secrets;
        answer = remote::check(admin, &question, wait).await;
    }
    let mut scheduled = false;
    // The budget for checks on demand is spent: what the schedule found is nearly as good.
    if let Err(failure) = &mut answer
        && failure.kind == FailureKind::Busy
    {
        match remote::known(admin, &question, wait).await {
            Ok(report) => {
                answer = Ok(report);
                scheduled = true;
            }
            Err(none) => failure.reason = format!("{}; {}", failure.reason, none.reason),
        }
    }
    match answer {
        Ok(report) => WhyCheck::Node {
            pod: printable(&admin.pod),
            report: Box::new(report),
            scheduled,
        },
        Err(failure) => WhyCheck::NotMade { failure },
    }
}

impl WaitingPods<'_> {
    fn question(&self) -> Question {
        let (one, wait) = &self.waits[0];
        Question {
            image: wait.image.clone(),
            pod: Some(Namespaced {
                namespace: one.pod.namespace.clone(),
                name: one.pod.name.clone(),
            }),
            secrets: None,
            tier: Tier::Reach,
        }
    }

    /// The first pod, as findings name it.
    fn pod_use(&self, reference: &Reference, lookups: Vec<SecretLookup>) -> PodUse {
        let (one, wait) = &self.waits[0];
        PodUse {
            path: PodUse::CLUSTER.to_owned(),
            kind: "Pod".to_owned(),
            namespace: Some(printable(&one.pod.namespace)),
            name: printable(&one.pod.name),
            found_at: None,
            container: printable(&wait.container),
            container_kind: wait.kind,
            policy: wait
                .policy
                .unwrap_or_else(|| PullPolicy::default_for(reference)),
            policy_is_default: false,
            image_present: false,
            pull_secrets: one.pod.pull_secrets.iter().map(|n| printable(n)).collect(),
            service_account: one.pod.service_account.as_deref().map(printable),
            eip: Vec::new(),
            progress_deadline: None,
            secrets: lookups,
        }
    }
}

/// The check of each group from this machine, in their order.
async fn check_locally(
    args: &WhyArgs,
    client: &Client,
    groups: &[WaitingPods<'_>],
) -> Result<Vec<WhyCheck>, Error> {
    let context = ProbeContext::prepare(
        &args.place,
        &args.containerd,
        &args.network,
        args.timeout,
        false,
    )
    .await?;
    let vantage = context.observe();
    let mut checked = Vec::new();
    for group in groups {
        let reference = match (&group.reference, group.certain()) {
            (Some(reference), None) => reference,
            (_, certain) => {
                checked.push(Err(certain.unwrap_or_else(not_requested)));
                continue;
            }
        };
        let (mut sources, mut lookups) = (Vec::new(), Vec::new());
        for key in group.secrets.iter().flat_map(SecretRefs::keys) {
            let known = secrets::fetch(client, &key).await;
            let (read, found) = known.sources(&key);
            sources.extend(read);
            let found = match found {
                Found::Absent => secrets::absent(client, &key.name).await,
                found => found,
            };
            lookups.push(SecretLookup {
                name: printable(&key.name),
                found,
            });
        }
        if let Some((source, lookup)) = group.secrets.as_ref().and_then(secrets::left_out) {
            sources.push(source);
            lookups.push(lookup);
        }
        sources.extend(context.of_node(reference).await);
        let check = Check {
            reference: reference.clone(),
            platform: Platform::local(),
            pods: vec![group.pod_use(reference, lookups)],
            requested_secrets: Vec::new(),
            keyring: Arc::new(Keyring::new(sources)),
            runtime: args.containerd.runtime.clone(),
            kubelet: None,
            plain_http: args.network.plain_http,
            compare_direct: false,
            // What it shows is for the one who could connect as well.
            guard: None,
            effort: Effort::default(),
        };
        checked.push(Ok(probe::pull(
            &check,
            &context.probe_network,
            &NoProgress,
            Timestamp::now(),
        )
        .await));
    }
    let vantage = vantage.await.map_err(|_| Error::Panicked)?;
    let concluded = checked.into_iter().map(|checked| match checked {
        Ok(mut evidence) => {
            evidence.vantage.clone_from(&vantage);
            let report = Box::new(Report::conclude(evidence));
            WhyCheck::Local { report }
        }
        Err(certain) => certain,
    });
    Ok(concluded.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_written_as_kubectl_takes_them() {
        let pod = |name: &str| Ok(Target::Pod(name.to_owned()));
        assert_eq!(target("web-1"), pod("web-1"));
        assert_eq!(target("pod/web-1"), pod("web-1"));
        for (text, kind) in [
            ("deploy/web", DEPLOYMENTS),
            ("deployment.apps/web", DEPLOYMENTS),
            ("sts/web", STATEFUL_SETS),
            ("ds/web", DAEMON_SETS),
            ("job/web", JOBS),
            ("cj/web", CRON_JOBS),
        ] {
            let want = Ok(Target::Workload(kind, "web".to_owned()));
            assert_eq!(target(text), want, "{text}");
        }
        for wrong in ["", "web/", "svc/web", "Web", "a/b/c"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_error_behind_a_back_off_is_found() {
        let text =
            "Back-off pulling image \"r.test/app:1\": ErrImagePull: rpc error: code = NotFound";
        assert_eq!(status_error(text), Some("rpc error: code = NotFound"));
        assert_eq!(
            status_error("Back-off pulling image \"r.test/app:1\""),
            None
        );
    }
}
