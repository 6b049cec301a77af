//! What the cluster's API tells this daemon: the pods of its node, the Secrets that they name, and its own
//! Node.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pod_events::{self, PodEvents};
use super::store::target::Target;
use super::store::targets::{Discovery, EventCounts};
use crate::config::{Discover, Events, Kubernetes, SecretAccess};
use crate::kubernetes::client::{ConnectError, connect};
use crate::kubernetes::lookup::annotations_of;
use crate::kubernetes::secrets::Secrets;
use crate::kubernetes::watch::View;
use crate::kubernetes::{node, pods};
use crate::model::vantage::NodeFacts;
use crate::model::workload::{ContainerKind, Namespaced, SecretRefs, is_name};
use crate::report::Report;
use crate::serving::cluster::secret_access;
use crate::vantage::PodInput;
use crate::workload::discovery::{self, Scope, Wanted};
use crate::workload::new_failures::Waiting;
use crate::workload::pod::Pod;

/// A rollout changes many pods in a moment; what they come to is told once.
const SETTLE: Duration = Duration::from_secs(1);

/// A look around waits for the annotations for so long: without them it only knows less.
const POD_WAIT: Duration = Duration::from_secs(2);

/// Followed as long as this is there.
#[derive(Debug)]
pub struct Cluster {
    scope: Scope,
    pub secrets: Arc<Secrets>,
    /// `None`: nothing is asked.
    pods: Option<watch::Receiver<View<Pod>>>,
    /// What is told of this node's own Node; `None` where nobody is asked.
    pub node: Option<watch::Receiver<View<NodeFacts>>>,
    /// Who tells of our own pod; `None` where nobody is asked.
    pub own_pod: Option<OwnPod>,
    /// There is something new, which is told then.
    settled: Option<Instant>,
    waiting: Waiting,
    /// `None`: no Event is published.
    events: Option<PodEvents>,
    _stop: DropGuard,
}

/// The pod that this is.
#[derive(Clone)]
pub struct OwnPod {
    client: Client,
    pod: Namespaced,
}

impl std::fmt::Debug for OwnPod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OwnPod({})", self.pod)
    }
}

impl OwnPod {
    /// As the manifest tells it by the downward API.
    fn of(client: Client, environment: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let of = |name| environment(name).filter(|value| is_name(value));
        let (namespace, name) = (of("POD_NAMESPACE")?, of("POD_NAME")?);
        let pod = Namespaced { namespace, name };
        Some(Self { client, pod })
    }

    /// Its annotations, as the API server has them now.
    pub async fn told(&self) -> PodInput {
        let asked = annotations_of(&self.client, &self.pod.namespace, &self.pod.name);
        match timeout(POD_WAIT, asked).await {
            Ok(Ok(Some(annotations))) => PodInput::Annotations(annotations),
            Ok(Ok(None)) => PodInput::Nothing(format!("it has no pod {}", self.pod)),
            Ok(Err(error)) => PodInput::Nothing(error.to_string()),
            Err(_) => PodInput::Nothing("it has not answered".to_owned()),
        }
    }
}

/// A container or image volume: namespace, pod, and what it is called there.
pub type ContainerOfPod = (String, String, ContainerKind, String);

impl Cluster {
    /// Begins to follow, where that is wished.
    ///
    /// # Errors
    /// When there is no way to an API server. Whether it answers shows later.
    pub async fn start(
        config: &Kubernetes,
        node: &str,
        counts: EventCounts,
    ) -> Result<Self, ConnectError> {
        let stop = CancellationToken::new();
        let follows_pods = config.discover == Discover::Node;
        let reads_secrets = config.secrets != SecretAccess::None;
        let client = if follows_pods || config.follows_node() || reads_secrets {
            Some(connect(config.kubeconfig.as_deref(), None).await?)
        } else {
            None
        };
        let pods = client.clone().filter(|_| follows_pods).map(|client| {
            let (sender, receiver) = watch::channel(View::default());
            let (node, stop) = (node.to_owned(), stop.clone());
            tokio::spawn(async move { pods::follow_node(client, &node, sender, stop).await });
            receiver
        });
        let own = client.clone().filter(|_| config.follows_node());
        let own = own.map(|client| {
            let (sender, receiver) = watch::channel(View::default());
            let (node, stop) = (node.to_owned(), stop.clone());
            tokio::spawn(async move { node::follow_own(client, &node, sender, stop).await });
            receiver
        });
        let may_list = client.clone().filter(|_| follows_pods);
        let own_pod = may_list.and_then(|client| OwnPod::of(client, |name| env::var(name).ok()));
        let told = client.clone().filter(|_| config.events == Events::Pods);
        let events = told.map(|client| PodEvents::start(client, node, counts, stop.clone()));
        Ok(Self {
            events,
            scope: scope(config),
            secrets: Arc::new(Secrets::new(client, secret_access(config))),
            pods,
            node: own,
            own_pod,
            settled: None,
            waiting: Waiting::default(),
            _stop: stop.drop_guard(),
        })
    }

    /// Waits until there is something new, and then until it has settled.
    pub async fn changed(&mut self) {
        // Whoever waits here may be called away in between, and comes again.
        let settled = if let Some(settled) = self.settled {
            settled
        } else {
            let (pods, node) = (&mut self.pods, &mut self.node);
            tokio::select! {
                () = change(pods) => {}
                () = change(node) => {}
            }
            *self.settled.insert(Instant::now() + SETTLE)
        };
        sleep_until(settled).await;
        self.settled = None;
    }

    /// What is told of this node's own Node, now.
    pub fn look_at_node(&mut self) -> Option<View<NodeFacts>> {
        Some(self.node.as_mut()?.borrow_and_update().clone())
    }

    /// What is known now, and whose pull has begun to fail, or fails otherwise; `None` where nothing is asked.
    pub fn look(&mut self) -> Option<(Discovery, Vec<ContainerOfPod>)> {
        let view = self.pods.as_mut()?.borrow_and_update().clone();
        let found = discovery::discover(view.objects.values().map(|pod| &**pod), &self.scope);
        let pods = view.objects.iter().map(|(uid, pod)| (uid, &**pod));
        let failing = self.waiting.news(pods);
        let failing = failing.iter().filter_map(|(uid, kind, name)| {
            let pod = view.objects.get(uid)?;
            let (namespace, pod) = (pod.namespace.clone(), pod.name.clone());
            Some((namespace, pod, *kind, name.clone()))
        });
        let failing = failing.collect();
        let state = view.state;
        Some((Discovery { state, found }, failing))
    }

    /// The pods of this node, as far as they are known.
    pub fn pods(&self) -> Option<View<Pod>> {
        Some(self.pods.as_ref()?.borrow().clone())
    }

    /// Publishes what a check has found on the pods that wait for the target's image, where that is asked for.
    pub fn publish(&self, report: &Report, target: &Target, node: &str) {
        if let (Some(events), Some(pods)) = (&self.events, &self.pods) {
            events.take(pod_events::of(report, target, &pods.borrow(), node));
        }
    }

    /// Of these targets the Secrets are needed, and no others.
    pub fn need_secrets_of(&self, wanted: &[Wanted]) {
        let refs = wanted.iter().filter_map(|one| one.secrets.as_ref());
        self.secrets
            .need(&refs.flat_map(SecretRefs::keys).collect());
    }
}

/// Waits for news, for ever where there can be none.
async fn change<T>(view: &mut Option<watch::Receiver<T>>) {
    if let Some(view) = view
        && view.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

fn scope(config: &Kubernetes) -> Scope {
    Scope {
        registries: config.registries.clone(),
        namespaces: config.namespaces.clone(),
        platform_namespaces: config.platform_namespaces.clone(),
        most: config.max_targets.0 as usize,
    }
}
