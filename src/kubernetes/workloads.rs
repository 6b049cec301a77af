//! Watches or lists the workloads of a cluster, its service accounts, and the metadata of its pull secrets, for the
//! lint. Of each object only the fields that the lint reads are kept.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures_util::StreamExt as _;
use futures_util::future::select_all;
use k8s_openapi::api::core::v1::LocalObjectReference;
use kube::api::ObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::objects::{
    AccountObject, CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, JOBS, OF_A_DEPLOYMENT, PODS, PodObject,
    ResourceName, SECRETS, SERVICE_ACCOUNTS, STATEFUL_SETS, WorkloadObject, in_scope, names,
};
use super::secrets::{KEPT_ANNOTATION, PULL_TYPES, SecretMetadataObject};
use super::watch::{View, WatchState, follow as follow_one, take};
use crate::model::text::printable;
use crate::model::workload::ContainerKind;
use crate::workload::discovery::Patterns;
use crate::workload::resources::{
    Account, Image, SecretMetadata, WorkloadKind, WorkloadResource, eip_problems,
};
use crate::workload::spec::VolumeSpec;

/// Objects per page: some 2 MB of pods.
const PAGE: u32 = 250;

/// The namespaces that are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Read one by one, which needs a Role in each. Empty: the whole cluster at once, which needs a ClusterRole. Only
    /// the first 32 are read.
    pub namespaces: Vec<String>,
    /// Workloads in other namespaces are dropped.
    pub counted: Patterns,
}

/// Upper bound of [`Scope::namespaces`]: each needs up to nine watches.
const MOST_NAMESPACES: usize = 32;

/// One watch, or one list.
#[derive(Debug)]
pub struct Part<T> {
    /// The kind of objects.
    pub resource: ResourceName,
    /// `None`: all namespaces.
    pub namespace: Option<String>,
    /// The objects, and the state of the watch.
    pub view: watch::Receiver<View<T>>,
}

/// All watches. Dropping this stops them.
#[derive(Debug)]
pub struct Workloads {
    /// One for each kind and namespace.
    pub workloads: Vec<Part<WorkloadResource>>,
    /// Service accounts, one for each namespace.
    pub accounts: Vec<Part<Account>>,
    /// Pull secrets, one for each type and namespace. Empty if Secrets are not listed.
    pub secrets: Vec<Part<SecretMetadata>>,
    stop: CancellationToken,
}

impl Drop for Workloads {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// How long to watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Span {
    /// One list of each; a list that fails is not repeated.
    Once,
    /// Until [`Workloads`] is dropped.
    Always,
}

/// Starts all watches. `with_secrets`: also the metadata of pull secrets, which needs the right to list Secrets.
pub fn follow(client: &Client, scope: &Scope, with_secrets: bool, span: Span) -> Workloads {
    let mut all = Workloads {
        workloads: Vec::new(),
        accounts: Vec::new(),
        secrets: Vec::new(),
        stop: CancellationToken::new(),
    };
    let namespaces: Vec<Option<String>> = if scope.namespaces.is_empty() {
        vec![None]
    } else {
        let named = scope.namespaces.iter().take(MOST_NAMESPACES);
        named.cloned().map(Some).collect()
    };
    for namespace in namespaces {
        let start = Start {
            client,
            namespace,
            counted: &scope.counted,
            span,
            stop: &all.stop,
        };
        for kind in WorkloadKind::ALL {
            all.workloads.push(start.workloads(*kind));
        }
        all.accounts.push(start.accounts());
        if with_secrets {
            all.secrets
                .extend(PULL_TYPES.map(|kind| start.secrets(kind)));
        }
    }
    all
}

impl Workloads {
    /// Waits until any view changes.
    pub async fn changed(&mut self) {
        let workloads = self.workloads.iter_mut().map(|part| &mut part.view);
        let workloads = workloads.map(boxed);
        let accounts = self.accounts.iter_mut().map(|part| boxed(&mut part.view));
        let secrets = self.secrets.iter_mut().map(|part| boxed(&mut part.view));
        select_all(workloads.chain(accounts).chain(secrets)).await;
    }

    /// Waits until each list is complete or has failed.
    pub async fn listed(&mut self) {
        for part in &mut self.workloads {
            known(&mut part.view).await;
        }
        for part in &mut self.accounts {
            known(&mut part.view).await;
        }
        for part in &mut self.secrets {
            known(&mut part.view).await;
        }
    }
}

type Changed<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

fn boxed<T: Send + Sync>(view: &mut watch::Receiver<View<T>>) -> Changed<'_> {
    Box::pin(async {
        // A watch that has ended never changes again.
        if view.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

async fn known<T>(view: &mut watch::Receiver<View<T>>) {
    // If the watch ended without a list, its state stays unknown.
    let _ = view
        .wait_for(|view| view.state != WatchState::Unknown)
        .await;
}

/// Starts the watches of one namespace.
struct Start<'a> {
    client: &'a Client,
    namespace: Option<String>,
    counted: &'a Patterns,
    span: Span,
    stop: &'a CancellationToken,
}

impl Start<'_> {
    fn workloads(&self, kind: WorkloadKind) -> Part<WorkloadResource> {
        let counted = self.counted.clone();
        let admit = move |resource: WorkloadResource| {
            counted.admit(&resource.namespace).then_some(resource)
        };
        let name = match kind {
            WorkloadKind::Pod => {
                let keep = move |pod| of_pod(pod).and_then(&admit);
                return self.part(
                    PODS,
                    in_scope(self.client, self.namespace.as_deref()),
                    watcher::Config::default(),
                    keep,
                );
            }
            WorkloadKind::Deployment => DEPLOYMENTS,
            WorkloadKind::StatefulSet => STATEFUL_SETS,
            WorkloadKind::DaemonSet => DAEMON_SETS,
            WorkloadKind::Job => JOBS,
            WorkloadKind::CronJob => CRON_JOBS,
        };
        let client = self.client.clone();
        let api = match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &name),
            None => Api::all_with(client, &name),
        };
        let keep = move |workload| of_workload(kind, workload).and_then(&admit);
        self.part(name, api, watcher::Config::default(), keep)
    }

    fn accounts(&self) -> Part<Account> {
        let keep = |account: AccountObject| Some(Account::from(account));
        self.part(
            SERVICE_ACCOUNTS,
            in_scope(self.client, self.namespace.as_deref()),
            watcher::Config::default(),
            keep,
        )
    }

    fn secrets(&self, kind: &str) -> Part<SecretMetadata> {
        let config = watcher::Config::default().fields(&format!("type={kind}"));
        let keep = |secret: SecretMetadataObject| Some(metadata_of(&secret));
        self.part(
            SECRETS,
            in_scope(self.client, self.namespace.as_deref()),
            config,
            keep,
        )
    }

    fn part<K, T>(
        &self,
        resource: ResourceName,
        api: Api<K>,
        config: watcher::Config,
        keep: impl Fn(K) -> Option<T> + Send + Sync + 'static,
    ) -> Part<T>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        T: Send + Sync + 'static,
    {
        let (sender, view) = watch::channel(View::default());
        let stop = self.stop.clone();
        let config = config.page_size(PAGE);
        match self.span {
            Span::Always => {
                tokio::spawn(follow_one(api, config, keep, sender, stop));
            }
            Span::Once => {
                // Only the list, or the error that ended it; no later changes.
                let mut is_over = false;
                let once = watcher(api, config).take_while(move |event| {
                    let goes_on = !is_over;
                    is_over = matches!(event, Ok(Event::InitDone) | Err(_));
                    std::future::ready(goes_on)
                });
                tokio::spawn(take(once, async || false, keep, sender, stop));
            }
        }
        Part {
            resource,
            namespace: self.namespace.clone(),
            view,
        }
    }
}

/// What is kept of one object of the API. `None`: it belongs to a workload that is read itself, or it has ended.
///
/// # Errors
/// If a field that is read has another type.
pub fn of_object(
    kind: WorkloadKind,
    object: Value,
) -> Result<Option<WorkloadResource>, serde_json::Error> {
    Ok(match kind {
        WorkloadKind::Pod => of_pod(serde_json::from_value(object)?),
        _ => of_workload(kind, serde_json::from_value(object)?),
    })
}

/// `None`: it belongs to a workload that is read itself, or it has ended.
fn of_pod(pod: PodObject) -> Option<WorkloadResource> {
    if pod.is_over() {
        return None;
    }
    resource(WorkloadKind::Pod, pod.metadata.clone(), pod, false)
}

/// `None`: it belongs to a workload that is read itself, or it has ended.
fn of_workload(kind: WorkloadKind, workload: WorkloadObject) -> Option<WorkloadResource> {
    let WorkloadObject {
        metadata,
        spec,
        status,
    } = workload;
    let mut conditions = status.conditions.iter();
    let is_over = conditions.any(|condition| {
        condition.status == "True" && ["Complete", "Failed"].contains(&condition.kind.as_str())
    });
    if metadata.deletion_timestamp.is_some() || (kind == WorkloadKind::Job && is_over) {
        return None;
    }
    let of_job = spec.job_template.and_then(|job| job.spec.template);
    let template = spec.template.or(of_job)?;
    let is_idle = spec.suspend || spec.replicas == Some(0);
    resource(kind, metadata, template, is_idle)
}

/// The workload with the images and settings of its pods.
fn resource(
    kind: WorkloadKind,
    own: ObjectMeta,
    pod: PodObject,
    is_idle: bool,
) -> Option<WorkloadResource> {
    let owner = stands_for(kind, &own)?;
    let PodObject { metadata, spec, .. } = pod;
    let containers = spec.containers();
    let containers: Vec<Image> = containers
        .filter_map(|(kind, container)| Image::of(kind, container))
        .collect();
    let volumes = spec.volumes.into_iter().filter_map(VolumeSpec::image);
    let volumes = volumes.filter_map(|volume| Image::of(ContainerKind::ImageVolume, &volume));
    Some(WorkloadResource {
        kind,
        owner,
        eip: eip_problems(
            kind,
            &values(metadata.annotations),
            &values(own.annotations),
        ),
        namespace: printable(&own.namespace.unwrap_or_default()).into(),
        name: printable(&own.name.unwrap_or_default()).into(),
        containers: containers.into_iter().chain(volumes).collect(),
        pull_secrets: printable_names(spec.image_pull_secrets),
        service_account: spec
            .service_account_name
            .filter(|name| !name.is_empty())
            .map(|name| printable(&name).into()),
        is_idle,
    })
}

fn values(annotations: Option<BTreeMap<String, String>>) -> Map<String, Value> {
    let annotations = annotations.unwrap_or_default().into_iter();
    annotations
        .map(|(key, value)| (key, Value::String(value)))
        .collect()
}

/// The workload that it is reported as: `Some(None)`: itself; `Some(Some(…))`: an owner of a kind that is not read.
/// `None`: it has an owner that is read itself.
#[expect(clippy::option_option, reason = "not reported, itself, or its owner")]
fn stands_for(kind: WorkloadKind, own: &ObjectMeta) -> Option<Option<(Box<str>, Box<str>)>> {
    let mut owners = own.owner_references.iter().flatten();
    let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else {
        return Some(None);
    };
    let group = owner
        .api_version
        .split_once('/')
        .map_or("", |(group, _)| group);
    let is_read = match group {
        // Without the label the ReplicaSet has no owner, or an Argo Rollout: its template is not read elsewhere.
        "apps" if owner.kind == "ReplicaSet" => own
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(OF_A_DEPLOYMENT)),
        "apps" | "batch" => true,
        // A static pod: its manifest is a file of its node.
        "" => owner.kind == "Node",
        _ => false,
    };
    // The controller of a Deployment or Job of another kind writes the whole object: it is reported as itself.
    if kind != WorkloadKind::Pod && !is_read {
        return Some(None);
    }
    (!is_read).then(|| Some((printable(&owner.kind).into(), printable(&owner.name).into())))
}

fn printable_names(list: Vec<LocalObjectReference>) -> Box<[Box<str>]> {
    let mut found: Vec<Box<str>> = Vec::new();
    for name in names(list) {
        let name: Box<str> = printable(&name).into();
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found.into()
}

impl From<AccountObject> for Account {
    fn from(object: AccountObject) -> Self {
        Self {
            namespace: printable(&object.metadata.namespace.unwrap_or_default()).into(),
            name: printable(&object.metadata.name.unwrap_or_default()).into(),
            pull_secrets: printable_names(object.image_pull_secrets),
        }
    }
}

/// Keeps no annotations: that of `kubectl apply` repeats the Secret's content.
fn metadata_of(secret: &SecretMetadataObject) -> SecretMetadata {
    SecretMetadata {
        namespace: secret.namespace().unwrap_or_default().into(),
        name: secret.name_any().into(),
        version: secret.resource_version().unwrap_or_default().into(),
        is_renewed: secret
            .annotations()
            .keys()
            .any(|key| key.ends_with(KEPT_ANNOTATION)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(kind: WorkloadKind, object: Value) -> Option<WorkloadResource> {
        of_object(kind, object).unwrap()
    }

    fn pod_spec() -> Value {
        json!({"initContainers": [{"name": "i", "image": "reg.example.com/i:1"}],
               "containers": [{"name": "c", "image": "reg.example.com/c", "imagePullPolicy": "Always"},
                              {"name": "n", "image": "n", "imagePullPolicy": "Never"}],
               "imagePullSecrets": [{"name": "pull"}, {}, {"name": "pull"}], "serviceAccountName": "robot",
               "volumes": [{"name": "tmp", "emptyDir": {}},
                           {"name": "m", "image": {"reference": "reg.example.com/m:1", "pullPolicy": "IfNotPresent"}},
                           {"name": "k", "image": {"reference": "k", "pullPolicy": "Never"}}],
               "template": null, "nodeName": "n1"})
    }

    fn meta(owner: Option<(&str, &str)>) -> Value {
        let owners = owner.map(|(version, kind)| {
            json!([{"apiVersion": version, "kind": kind, "name": "above", "uid": "u", "controller": true}])
        });
        json!({"name": "web", "namespace": "shop", "uid": "1", "ownerReferences": owners,
               "managedFields": [{"manager": "x", "fieldsV1": {"f:metadata": {}}}]})
    }

    #[test]
    fn each_kind_s_template_is_found() {
        let template = json!({"metadata": {"annotations": {"yangtse.io/pod-with-eip": "yes"}}, "spec": pod_spec()});
        for (kind, spec) in [
            (
                WorkloadKind::Deployment,
                json!({"template": template, "replicas": 3}),
            ),
            (WorkloadKind::StatefulSet, json!({"template": template})),
            (WorkloadKind::DaemonSet, json!({"template": template})),
            (WorkloadKind::Job, json!({"template": template})),
            (
                WorkloadKind::CronJob,
                json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}),
            ),
        ] {
            let resource = resource(kind, json!({"metadata": meta(None), "spec": spec})).unwrap();
            assert_eq!(
                (&*resource.namespace, resource.who()),
                ("shop", (kind.as_str(), "web"))
            );
            let images: Vec<&str> = resource.containers.iter().map(|c| &*c.image).collect();
            assert_eq!(
                images,
                [
                    "reg.example.com/i:1",
                    "reg.example.com/c",
                    "reg.example.com/m:1"
                ],
                "{kind:?}"
            );
            let volume = &resource.containers[2];
            assert_eq!(
                (&*volume.container, volume.kind),
                ("m", ContainerKind::ImageVolume)
            );
            assert_eq!(*resource.pull_secrets, ["pull".into()]);
            assert_eq!(resource.account(), "robot");
            assert_eq!(resource.eip.len(), 1);
            assert!(!resource.is_idle);
        }
        for (kind, spec) in [
            (
                WorkloadKind::Deployment,
                json!({"template": template, "replicas": 0}),
            ),
            (
                WorkloadKind::CronJob,
                json!({"suspend": true, "jobTemplate": {"spec": {"template": template}}}),
            ),
        ] {
            assert!(
                resource(kind, json!({"metadata": meta(None), "spec": spec}))
                    .unwrap()
                    .is_idle
            );
        }
    }

    #[test]
    fn a_pod_counts_where_nobody_s_template_is_read_for_it() {
        let pod = |owner, status: Value| {
            resource(
                WorkloadKind::Pod,
                json!({"metadata": meta(owner), "spec": pod_spec(), "status": status}),
            )
        };
        let bare = pod(None, json!({"phase": "Pending"})).unwrap();
        assert_eq!(bare.who(), ("Pod", "web"));
        assert_eq!(bare.containers.len(), 3, "its image volume too");
        let foreign = pod(Some(("apps.kruise.io/v1alpha1", "CloneSet")), json!({})).unwrap();
        assert_eq!(foreign.who(), ("CloneSet", "above"));
        let rollout = pod(Some(("apps/v1", "ReplicaSet")), json!({})).unwrap();
        assert_eq!(rollout.who(), ("ReplicaSet", "above"));
        let mut labelled = meta(Some(("apps/v1", "ReplicaSet")));
        labelled["labels"] = json!({"app": "web", "pod-template-hash": "5d8f7c"});
        let of_deployment = json!({"metadata": labelled, "spec": pod_spec()});
        assert_eq!(resource(WorkloadKind::Pod, of_deployment), None);
        for owner in [
            ("apps/v1", "StatefulSet"),
            ("batch/v1", "Job"),
            ("v1", "Node"),
        ] {
            assert_eq!(pod(Some(owner), json!({})), None, "{owner:?}");
        }
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(pod(None, json!({"phase": phase})), None);
        }
    }

    #[test]
    fn a_job_of_a_cronjob_or_one_that_has_ended_is_not_read() {
        let job = |owner, conditions: Value| {
            resource(
                WorkloadKind::Job,
                json!({"metadata": meta(owner), "spec": {"template": {"spec": pod_spec()}},
                       "status": {"conditions": conditions}}),
            )
        };
        assert!(job(None, json!([])).is_some());
        assert!(job(None, json!([{"type": "Complete", "status": "False"}])).is_some());
        assert!(job(None, json!([{"type": "Failed", "status": "True"}])).is_none());
        assert!(job(Some(("batch/v1", "CronJob")), json!([])).is_none());
        assert!(job(Some(("argoproj.io/v1alpha1", "Sensor")), json!([])).is_some());
    }

    #[test]
    fn nothing_of_a_secret_is_kept_but_where_it_is() {
        let secret: SecretMetadataObject = serde_json::from_value(json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "pull", "namespace": "shop", "resourceVersion": "7", "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "hunter2",
                "swr-auth-may-expires-at": "2026-11-24T01:40:12Z"}}}))
        .unwrap();
        let secret = metadata_of(&secret);
        assert!(secret.is_renewed);
        assert_eq!(
            (&*secret.namespace, &*secret.name, &*secret.version),
            ("shop", "pull", "7")
        );
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
