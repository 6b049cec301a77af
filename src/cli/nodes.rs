//! `probe --node` and `--all-nodes`: the daemons of the nodes check an image, each from its own node, and the
//! results are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::access::DaemonArgs;
use super::error::Error;
use super::output::{Printing, status};
use super::probe_context::CheckArgs;
use super::remote::{self, Question, Tier};
use super::tasks::in_order;
use crate::kubernetes::forward::Admin;
use crate::kubernetes::lookup::{self, DAEMON_LABELS, DaemonPod};
use crate::kubernetes::node;
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::model::vantage::NodeFacts;
use crate::model::workload::SecretRefs;
use crate::report::nodes::{
    FailureKind, NodeAnswer, NodeAnswers, NodeFailure, NodesDocument, render, render_one,
};

/// Nodes that check at the same time. Each is one connection through the API server, and a registry gets no
/// more requests than a rollout makes.
const AT_ONCE: usize = 8;

/// Timeout for a daemon's version, which it answers without a check.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum number of nodes: a report takes some 100 kB of memory, and an answer about a second.
const MAX_NODES: usize = 1000;

/// Options (ids of clap) for a check from this machine, which have no meaning for a check on a node.
const LOCAL_ONLY: [&str; 18] = [
    "filename",
    "platform",
    "trace",
    "large_hello",
    "save",
    "max_bytes",
    "max_duration",
    "expect_pull_within",
    "control_url",
    "secret_file",
    "docker_config",
    "username",
    "ContainerdArgs",
    "kubelet_version",
    "compare_direct",
    "NetworkArgs",
    "NodeSettingsArgs",
    "timeout",
];

#[derive(Args, Debug)]
#[command(next_help_heading = "Nodes")]
pub(super) struct NodeArgs {
    /// Check from this node: its daemon makes the check, requested by port-forward with your own rights; repeatable
    #[arg(long, value_name = "NAME", conflicts_with_all = LOCAL_ONLY)]
    node: Vec<String>,

    /// Check from all nodes that have a daemon, and show the differences
    #[arg(long, conflicts_with = "node", conflicts_with_all = LOCAL_ONLY)]
    all_nodes: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

impl NodeArgs {
    /// A check on nodes is requested, not one from this machine.
    pub(super) fn is_requested(&self) -> bool {
        self.all_nodes || !self.node.is_empty()
    }
}

/// A check of images on nodes.
pub(super) struct NodesRequest<'a> {
    pub(super) references: &'a [Reference],
    pub(super) tier: Tier,
    pub(super) nodes: &'a NodeArgs,
    pub(super) check: &'a CheckArgs,
    pub(super) printing: Printing,
    pub(super) why: bool,
}

/// Requests the checks and prints the comparison.
pub(super) async fn run(request: &NodesRequest<'_>, out: &mut dyn Write) -> Result<u8, Error> {
    let client = request.check.cluster.connect().await?;
    let daemon = &request.nodes.daemon;
    let namespace = &daemon.pullpath_namespace;
    let secrets = secrets(request, &client).await?;
    let daemons = lookup::daemons(&client, namespace).await.map_err(|error| {
        Error::Message(format!(
            "can't list the daemons (pods) of namespace {namespace}: {error}"
        ))
    })?;
    let listed = match node::all(&client).await {
        Ok(nodes) => Some(nodes),
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "can't list nodes, so the report doesn't show which nodes are new, cordoned or without a daemon: {error}"
            );
            None
        }
    };
    let nodes = requested_nodes(request.nodes, daemons, namespace)?;
    let questions: Arc<[Question]> = request
        .references
        .iter()
        .map(|reference| Question {
            image: reference.to_string(),
            pod: None,
            secrets: secrets.clone(),
            tier: request.tier,
        })
        .collect();
    let checks = nodes.into_iter().map(|node| {
        let (client, namespace, port) = (client.clone(), namespace.clone(), daemon.admin_port);
        let admin = move |pod| Admin {
            client,
            namespace,
            pod,
            port,
        };
        let (questions, wait) = (Arc::clone(&questions), daemon.node_timeout);
        async move { check_images(node, admin, &questions, wait).await }
    });
    let mut answers = in_order(AT_ONCE, checks).await?;
    let without = listed.as_ref().map(|nodes| without_daemon(nodes, &answers));
    let now = Timestamp::now();
    for answer in &mut answers {
        let node = listed
            .iter()
            .flatten()
            .find(|node| node.name == answer.node);
        answer.created = node.and_then(|node| node.created);
        answer.is_cordoned = node.map(|node| node.unschedulable);
    }
    let images: Vec<String> = questions.iter().map(|one| one.image.clone()).collect();
    let without = without.filter(|_| request.nodes.all_nodes);
    let document = NodesDocument::new(now, &images, answers, without);
    let is_one = request.nodes.node.len() == 1;
    let text = |document: &NodesDocument, style| {
        if is_one {
            render_one(document, style, request.why)
        } else {
            render(document, style)
        }
    };
    request.printing.print(&document, text, out)?;
    Ok(status(document.pull()))
}

/// The requested Secrets. As in a pod, they are of one namespace.
async fn secrets(
    request: &NodesRequest<'_>,
    client: &kube::Client,
) -> Result<Option<SecretRefs>, Error> {
    let requested = request.check.credentials.requested(client).await?;
    let Some(first) = requested.first() else {
        return Ok(None);
    };
    let namespace = first.key.namespace.clone();
    let mut others = requested.iter();
    if let Some(other) = others.find(|one| one.key.namespace != namespace) {
        return Err(Error::Message(format!(
            "the Secrets are in two namespaces, {namespace} and {}, but a pod can only use Secrets of its own namespace; name Secrets of one namespace",
            other.key.namespace
        )));
    }
    Ok(Some(SecretRefs {
        namespace,
        names: requested.into_iter().map(|one| one.key.name).collect(),
        left_out: 0,
    }))
}

/// A node to check from, with the pod of its daemon, or why there is none.
struct RequestedNode {
    node: String,
    pod: Result<String, NodeFailure>,
}

fn requested_nodes(
    args: &NodeArgs,
    daemons: Vec<DaemonPod>,
    namespace: &str,
) -> Result<Vec<RequestedNode>, Error> {
    if daemons.is_empty() {
        return Err(Error::Message(format!(
            "namespace {namespace} has no daemon of Pullpath (pods with {DAEMON_LABELS}); name the daemons' namespace with --pullpath-namespace, or install Pullpath"
        )));
    }
    let mut by_node: BTreeMap<String, DaemonPod> = daemons
        .into_iter()
        .map(|daemon| (daemon.node.clone(), daemon))
        .collect();
    let mut names: Vec<String> = if args.all_nodes {
        by_node.keys().cloned().collect()
    } else {
        args.node.clone()
    };
    let mut known = BTreeSet::new();
    names.retain(|name| known.insert(name.clone()));
    if names.len() > MAX_NODES {
        let _ = writeln!(
            io::stderr(),
            "{} nodes have a daemon; only {MAX_NODES} of them check; name others with --node",
            names.len()
        );
        names.truncate(MAX_NODES);
    }
    let of_node = |node: String| RequestedNode {
        pod: pod_of(by_node.remove(&node), namespace),
        node: printable(&node),
    };
    Ok(names.into_iter().map(of_node).collect())
}

/// The pod of a node's daemon, if it runs.
pub(super) fn pod_of(daemon: Option<DaemonPod>, namespace: &str) -> Result<String, NodeFailure> {
    match daemon {
        None => Err(NodeFailure {
            kind: FailureKind::NoDaemon,
            reason: format!(
                "the node has no daemon of Pullpath (pods with {DAEMON_LABELS} in namespace {namespace})"
            ),
        }),
        Some(DaemonPod {
            is_not_running: Some(reason),
            name,
            ..
        }) => Err(NodeFailure {
            kind: FailureKind::NotRunning,
            reason: format!(
                "its daemon is not running: pod {namespace}/{name}: {}",
                printable(&reason)
            ),
        }),
        Some(daemon) => Ok(daemon.name),
    }
}

/// Checks all images, one after the other. If the daemon can't be reached for its version, no check is
/// requested.
async fn check_images(
    requested: RequestedNode,
    admin: impl FnOnce(String) -> Admin,
    questions: &[Question],
    wait: Duration,
) -> NodeAnswers {
    let mut answers = NodeAnswers::of(requested.node);
    let admin = requested.pod.map(|pod| {
        answers.pod = Some(printable(&pod));
        admin(pod)
    });
    let admin = match admin {
        Ok(admin) => remote::version(&admin, wait.min(VERSION_TIMEOUT))
            .await
            .map(|version| {
                answers.version = version;
                admin
            }),
        Err(failure) => Err(failure),
    };
    for question in questions {
        let answer = match &admin {
            Ok(admin) => remote::check(admin, question, wait).await,
            Err(failure) => Err(failure.clone()),
        };
        let answer = NodeAnswer::of(&question.image, answer);
        answers.answers.push(answer);
    }
    answers
}

/// Nodes without a daemon.
fn without_daemon(nodes: &[NodeFacts], answers: &[NodeAnswers]) -> Vec<String> {
    let has_none = |node: &&NodeFacts| answers.iter().all(|answer| answer.node != node.name);
    let names = nodes.iter().filter(has_none).map(|node| node.name.clone());
    names.collect()
}
