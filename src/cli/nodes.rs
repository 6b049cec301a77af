//! `probe --node` and `--all-nodes`: the daemons of the nodes check, each from its own place.

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

/// Nodes that are asked at the same time: the API server carries each as a connection of its own, and a
/// registry sees no more than a rollout makes.
const AT_ONCE: usize = 8;

/// What a daemon knows of itself it tells at once.
const ABOUT: Duration = Duration::from_secs(10);

/// Each report is some 100 kB in memory, and each answer takes a second or so.
const MOST: usize = 1000;

/// Everything that says how one walks from here says nothing of a node.
const OF_HERE: [&str; 18] = [
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
    "PlaceArgs",
    "timeout",
];

#[derive(Args, Debug)]
#[command(next_help_heading = "Nodes")]
pub(super) struct NodeArgs {
    /// Have the daemon of this node check, by port-forward with your own rights; repeatable
    #[arg(long, value_name = "NAME", conflicts_with_all = OF_HERE)]
    node: Vec<String>,

    /// Have the daemons of all nodes check, and show what differs
    #[arg(long, conflicts_with = "node", conflicts_with_all = OF_HERE)]
    all_nodes: bool,

    #[command(flatten)]
    daemon: DaemonArgs,
}

impl NodeArgs {
    pub(super) fn is_wished(&self) -> bool {
        self.all_nodes || !self.node.is_empty()
    }
}

/// What is asked of which nodes.
pub(super) struct NodesRequest<'a> {
    pub(super) references: &'a [Reference],
    pub(super) tier: Tier,
    pub(super) nodes: &'a NodeArgs,
    pub(super) check: &'a CheckArgs,
    pub(super) printing: Printing,
    pub(super) why: bool,
}

/// Asks the nodes and prints what came of it.
pub(super) async fn run(wish: &NodesRequest<'_>, out: &mut dyn Write) -> Result<u8, Error> {
    let client = wish.check.cluster.connect().await?;
    let daemon = &wish.nodes.daemon;
    let namespace = &daemon.pullpath_namespace;
    let secrets = secrets(wish, &client).await?;
    let daemons = lookup::daemons(&client, namespace).await.map_err(|error| {
        Error::Told(format!(
            "can't list the daemons (pods) of namespace {namespace}: {error}"
        ))
    })?;
    let known = match node::all(&client).await {
        Ok(nodes) => Some(nodes),
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "nodes can't be listed, so it is not told which are young, cordoned or without a daemon: {error}"
            );
            None
        }
    };
    let wanted = wanted(wish.nodes, daemons, namespace)?;
    let questions: Arc<[Question]> = wish
        .references
        .iter()
        .map(|reference| Question {
            image: reference.to_string(),
            pod: None,
            secrets: secrets.clone(),
            tier: wish.tier,
        })
        .collect();
    let asking = wanted.into_iter().map(|wanted| {
        let (client, namespace, port) = (client.clone(), namespace.clone(), daemon.admin_port);
        let admin = move |pod| Admin {
            client,
            namespace,
            pod,
            port,
        };
        let (questions, wait) = (Arc::clone(&questions), daemon.node_timeout);
        async move { ask(wanted, admin, &questions, wait).await }
    });
    let mut answers = in_order(AT_ONCE, asking).await?;
    let without = known.as_ref().map(|nodes| without_daemon(nodes, &answers));
    let now = Timestamp::now();
    for answer in &mut answers {
        let node = known.iter().flatten().find(|node| node.name == answer.node);
        answer.created = node.and_then(|node| node.created);
        answer.is_cordoned = node.map(|node| node.unschedulable);
    }
    let images: Vec<String> = questions.iter().map(|one| one.image.clone()).collect();
    let without = without.filter(|_| wish.nodes.all_nodes);
    let document = NodesDocument::new(now, &images, answers, without);
    let is_one = wish.nodes.node.len() == 1;
    let text = |document: &NodesDocument, style| {
        if is_one {
            render_one(document, style, wish.why)
        } else {
            render(document, style)
        }
    };
    wish.printing.print(&document, text, out)?;
    Ok(status(document.pull()))
}

/// Their names, which are of one namespace, as those of a pod are.
async fn secrets(
    wish: &NodesRequest<'_>,
    client: &kube::Client,
) -> Result<Option<SecretRefs>, Error> {
    let asked = wish.check.credentials.asked(client).await?;
    let Some(first) = asked.first() else {
        return Ok(None);
    };
    let namespace = first.key.namespace.clone();
    if let Some(other) = asked.iter().find(|one| one.key.namespace != namespace) {
        return Err(Error::Told(format!(
            "the Secrets are of two namespaces, {namespace} and {}; a pod's are of its own, so name those of one",
            other.key.namespace
        )));
    }
    Ok(Some(SecretRefs {
        namespace,
        names: asked.into_iter().map(|one| one.key.name).collect(),
    }))
}

/// A node that is to be asked, with the pod of its daemon, or why there is none to ask.
struct Wanted {
    node: String,
    pod: Result<String, NodeFailure>,
}

fn wanted(args: &NodeArgs, daemons: Vec<DaemonPod>, namespace: &str) -> Result<Vec<Wanted>, Error> {
    if daemons.is_empty() {
        return Err(Error::Told(format!(
            "there is no daemon of Pullpath in namespace {namespace} (pods with {DAEMON_LABELS}); name its namespace by --pullpath-namespace, or install it"
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
    if names.len() > MOST {
        let _ = writeln!(
            io::stderr(),
            "{} nodes have a daemon, and {MOST} of them are asked; name others by --node",
            names.len()
        );
        names.truncate(MOST);
    }
    let of_node = |node: String| Wanted {
        pod: pod_of(by_node.remove(&node), namespace),
        node: printable(&node),
    };
    Ok(names.into_iter().map(of_node).collect())
}

/// The pod that can be asked.
pub(super) fn pod_of(daemon: Option<DaemonPod>, namespace: &str) -> Result<String, NodeFailure> {
    match daemon {
        None => Err(NodeFailure {
            kind: FailureKind::NoDaemon,
            reason: format!(
                "no daemon of Pullpath is there (pods with {DAEMON_LABELS} in namespace {namespace})"
            ),
        }),
        Some(DaemonPod {
            is_not_running: Some(reason),
            name,
            ..
        }) => Err(NodeFailure {
            kind: FailureKind::NotRunning,
            reason: format!(
                "its daemon does not run: pod {namespace}/{name}: {}",
                printable(&reason)
            ),
        }),
        Some(daemon) => Ok(daemon.name),
    }
}

/// All images, one after the other; where nobody answers once, nobody is asked again.
async fn ask(
    wanted: Wanted,
    admin: impl FnOnce(String) -> Admin,
    questions: &[Question],
    wait: Duration,
) -> NodeAnswers {
    let mut answers = NodeAnswers::of(wanted.node);
    let admin = wanted.pod.map(|pod| {
        answers.pod = Some(printable(&pod));
        admin(pod)
    });
    let admin = match admin {
        Ok(admin) => remote::version(&admin, wait.min(ABOUT))
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

/// Nodes that nobody speaks for.
fn without_daemon(nodes: &[NodeFacts], answers: &[NodeAnswers]) -> Vec<String> {
    let has_none = |node: &&NodeFacts| answers.iter().all(|answer| answer.node != node.name);
    let names = nodes.iter().filter(has_none).map(|node| node.name.clone());
    names.collect()
}
