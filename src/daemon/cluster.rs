//! What the daemon reads from the API server: the pods of its node, the Secrets that they name, its own Node
//! and its own pod.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::workload::discovery::{self, Discovered, Scope, Wanted};
use crate::workload::new_failures::Waiting;
use crate::workload::pod::Pod;

/// The wait after a change. A rollout changes many pods in a moment, and the targets are updated once.
const SETTLE: Duration = Duration::from_secs(1);

/// How long a check waits for the annotations of its pod. Without them, the vantage only has fewer facts.
const POD_WAIT: Duration = Duration::from_secs(2);

/// The watches of the daemon; they stop when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    scope: Scope,
    /// The Secrets that may be read.
    pub secrets: Arc<Secrets>,
    /// The pods of this node; `None`: they are not watched.
    pods: Option<watch::Receiver<View<Pod>>>,
    /// This node's own Node; `None`: it is not watched.
    pub node: Option<watch::Receiver<View<NodeFacts>>>,
    /// Reads the daemon's own pod; `None`: no request is sent for it.
    pub own_pod: Option<OwnPod>,
    /// When the newest change has settled; `None`: there is no change.
    settled: Option<Instant>,
    waiting: Waiting,
    /// `None`: no Event is published.
    events: Option<PodEvents>,
    _stop: DropGuard,
}

/// The daemon's own pod.
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
    /// The pod named by the downward API (`POD_NAMESPACE`, `POD_NAME`); `None` without these variables.
    fn of(client: Client, environment: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let of = |name| environment(name).filter(|value| is_name(value));
        let (namespace, name) = (of("POD_NAMESPACE")?, of("POD_NAME")?);
        let pod = Namespaced { namespace, name };
        Some(Self { client, pod })
    }

    /// Its annotations, read now. If they can't be read, the reason.
    pub async fn annotations(&self) -> PodInput {
        let request = annotations_of(&self.client, &self.pod.namespace, &self.pod.name);
        match timeout(POD_WAIT, request).await {
            Ok(Ok(Some(annotations))) => PodInput::Annotations(annotations),
            Ok(Ok(None)) => PodInput::Nothing(format!("the API server has no pod {}", self.pod)),
            Ok(Err(error)) => PodInput::Nothing(error.to_string()),
            Err(_) => PodInput::Nothing("the API server has not answered".to_owned()),
        }
    }
}

/// A container or image volume: namespace, pod, kind, and its name in the pod.
pub type ContainerOfPod = (String, String, ContainerKind, String);

impl Cluster {
    /// Starts the watches that the configuration requests.
    ///
    /// # Errors
    /// If no API server is configured, or its credentials can't be read. Whether it answers shows later.
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
        let publisher = client.clone().filter(|_| config.events == Events::Pods);
        let events = publisher
            .zip(pods.clone())
            .map(|(client, pods)| PodEvents::start(client, node, pods, counts, stop.clone()));
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

    /// Waits for a change, and then until it has settled.
    pub async fn changed(&mut self) {
        // The caller may drop this future and call again: `settled` keeps the time.
        let settled = if let Some(settled) = self.settled {
            settled
        } else {
            let (pods, node) = (&mut self.pods, &mut self.node);
            tokio::select! {
                () = change(pods) => {}
                () = change(node) => {}
                () = self.secrets.changed() => {}
            }
            *self.settled.insert(Instant::now() + SETTLE)
        };
        sleep_until(settled).await;
        self.settled = None;
    }

    /// The newest state of this node's own Node; `None`: it is not watched.
    pub fn newest_node(&mut self) -> Option<View<NodeFacts>> {
        Some(self.node.as_mut()?.borrow_and_update().clone())
    }

    /// The images of the node's pods, and the containers whose pull has begun to fail, or fails for another
    /// reason; `None`: pods are not watched.
    ///
    /// `before` are the images that are checked at present.
    pub fn newest_pods(&mut self, before: &[Wanted]) -> Option<(Discovery, Vec<ContainerOfPod>)> {
        let view = self.pods.as_mut()?.borrow_and_update().clone();
        let checked: BTreeSet<String> = before.iter().map(|one| one.name.clone()).collect();
        let pods = view.objects.values().map(|pod| &**pod);
        let found = discovery::discover(pods, &self.scope, &checked);
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

    /// The pods of this node; `None`: they are not watched.
    pub fn pods(&self) -> Option<View<Pod>> {
        Some(self.pods.as_ref()?.borrow().clone())
    }

    /// With `kubernetes.events: pods`, publishes the result of a check on the pods that wait for the image.
    pub fn publish(&self, report: &Report, target: &Target, node: &str) {
        if let (Some(events), Some(pods)) = (&self.events, &self.pods) {
            events.take(pod_events::of(report, target, &pods.borrow(), node));
        }
    }

    /// With `kubernetes.events: pods`, publishes on pods that wait that some of their images are not checked.
    pub fn publish_crowded(&self, found: &Discovered, node: &str) {
        if let (Some(events), Some(pods)) = (&self.events, &self.pods) {
            let most = self.scope.most;
            events.take(pod_events::of_crowded(found, &pods.borrow(), most, node));
        }
    }

    /// Keeps the Secrets of these images read, and no others.
    pub fn need_secrets_of(&self, wanted: &[Wanted]) {
        let mut needed = BTreeMap::new();
        for one in wanted {
            for key in one.secrets.iter().flat_map(SecretRefs::keys) {
                *needed.entry(key).or_default() |= one.is_waited_for();
            }
        }
        self.secrets.need(needed);
    }
}

/// Waits for a change; forever if there is no watch.
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
