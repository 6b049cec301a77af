//! On-demand checks: which images may be checked on request, with which Secrets, and how often. Pure; the
//! runner acts on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::schedule::admission::Deferred;
use super::schedule::clock::Moment;
use super::schedule::timetable::{Rhythm, Tier};
use super::store::target::{Target, TargetSource};
use crate::config::{Config, OnDemandImages, SecretAccess};
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::model::workload::{ContainerKind, Namespaced, PullPolicy, SecretRefs, is_name};
use crate::workload::discovery::{Use, Wanted};
use crate::workload::pod::{Container, Pod};
use crate::workload::share::may_take;

/// Maximum size of a request's body, in bytes. A request with every field at its limit has 5 KiB.
pub const MOST_BYTES: usize = 16 << 10;

/// Maximum of Secrets in a request; pods have one or two.
const MOST_SECRETS: usize = 16;

/// The name of on-demand checks in the ledger. No target can have it, because it contains a blank.
const NAME: &str = "on demand";

/// Maximum of requested registries that no target has, whose back-off and limits the ledger keeps. Their names
/// are input from outside.
const MOST_REGISTRIES: usize = 32;

const MINUTE: Duration = Duration::from_mins(1);

/// A request for a check.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The image to check.
    pub image: Reference,
    /// The pod as which to pull it; `None`: no certain one.
    pub pod: Option<Namespaced>,
    /// The Secrets to pull it with; `None`: those of the pod or target.
    pub secrets: Option<SecretRefs>,
    /// The kind of the check.
    pub tier: Tier,
}

/// The JSON body of a request. It contains names of Secrets only.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The image reference, as in a pod's `image`.
    pub image: String,
    /// A pod of this node; excludes `secrets`.
    pub pod: Option<Namespaced>,
    /// Namespace and names of 1 to 16 Secrets; excludes `pod`.
    pub secrets: Option<SecretRefs>,
    /// `reach` if absent.
    #[serde(default)]
    pub tier: Tier,
}

/// The form of a body, for error messages.
const FORM: &str = r#"send {"image": "registry.example.com/app:1", "pod": {"namespace": "n", "name": "p"}, "secrets": {"namespace": "n", "names": ["s"]}, "tier": "reach"}, of which only image is required"#;

impl Request {
    /// The namespace that it is for; empty if it names none.
    pub fn namespace(&self) -> &str {
        let of_pod = self.pod.as_ref().map(|pod| &pod.namespace);
        let of_secrets = self.secrets.as_ref().map(|secrets| &secrets.namespace);
        of_pod.or(of_secrets).map_or("", |namespace| namespace)
    }

    /// Parses the body of a request.
    ///
    /// # Errors
    /// If it is not such a JSON object, or a value is invalid; the message is for the client.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        let body: Question = serde_json::from_slice(body).map_err(|error| {
            format!(
                "the body can't be read: {}; {FORM}",
                printable(&error.to_string())
            )
        })?;
        let image: Reference = body
            .image
            .parse()
            .map_err(|error| format!("image '{}' is invalid: {error}", printable(&body.image)))?;
        if body.pod.is_some() && body.secrets.is_some() {
            return Err(
                "pod and secrets are both given, but a pod has its own Secrets; give one of them"
                    .to_owned(),
            );
        }
        if let Some(pod) = &body.pod {
            check_name("pod.namespace", &pod.namespace)?;
            check_name("pod.name", &pod.name)?;
        }
        if let Some(secrets) = &body.secrets {
            check_name("secrets.namespace", &secrets.namespace)?;
            if secrets.names.is_empty() || secrets.names.len() > MOST_SECRETS {
                return Err(format!(
                    "secrets.names has {} names; give 1 to {MOST_SECRETS}",
                    secrets.names.len()
                ));
            }
            for name in &secrets.names {
                check_name("secrets.names", name)?;
            }
        }
        Ok(Self {
            image,
            pod: body.pod,
            secrets: body.secrets,
            tier: body.tier,
        })
    }
}

/// The names become part of URLs and selectors.
fn check_name(key: &str, name: &str) -> Result<(), String> {
    if is_name(name) {
        return Ok(());
    }
    Err(format!(
        "{key} is '{}', which is not a Kubernetes name: use lower-case letters, digits, '-' and '.'",
        printable(name)
    ))
}

/// Why an image is not checked, or the check has no result.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// The configuration forbids it; with the setting that allows it.
    NotAllowed(String),
    /// The pod is unknown on this node; with the reason.
    NoPod(String),
    /// Another image is being checked.
    Busy,
    /// `on_demand.per_minute` is reached; with the wait until the next check may start.
    TooMany(Duration),
    /// A budget is used up, or the registry is in back-off.
    Deferred(Deferred),
    /// The check has no result: `timed_out`, `panicked` or `stopping`.
    Failed(&'static str),
}

impl Refused {
    /// The metric label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotAllowed(_) => "not_allowed",
            Self::NoPod(_) => "no_pod",
            Self::Busy => "busy",
            Self::TooMany(_) => "too_many",
            Self::Deferred(_) => "deferred",
            Self::Failed(reason) => reason,
        }
    }
}

/// The pods of this node, or why they are unknown.
pub type Pods<'a> = Result<Vec<&'a Pod>, &'static str>;

/// Why pods are unknown with `kubernetes.discover: off`.
pub const NOT_WATCHED: &str = "the pods of this node are not watched (kubernetes.discover is off)";
/// Why pods are unknown before the first list.
pub const NOT_LISTED: &str = "the API server has not listed this node's pods yet";

fn find<'a>(pods: &Pods<'a>, key: &Namespaced) -> Result<&'a Pod, Refused> {
    let mut known = pods.iter().flatten();
    let found = known.find(|pod| pod.namespace == key.namespace && pod.name == key.name);
    found.copied().ok_or_else(|| {
        let why = match pods {
            Ok(_) => "is not on this node".to_owned(),
            Err(why) => format!("is unknown: {why}"),
        };
        Refused::NoPod(format!("pod {key} {why}"))
    })
}

/// The check for a request, in the form of a target.
///
/// # Errors
/// If the configuration forbids the image or a Secret, or the pod is unknown on this node.
pub fn plan(
    request: &Request,
    config: &Config,
    targets: &[Arc<Target>],
    pods: &Pods<'_>,
) -> Result<Target, Refused> {
    let images = config.on_demand.images;
    if images == OnDemandImages::Off {
        return Err(Refused::NotAllowed(
            "no image is checked on request: on_demand.images is off; set it to used or any"
                .to_owned(),
        ));
    }
    let is_any = images == OnDemandImages::Any;
    if let Some(key) = &request.pod {
        let pod = find(pods, key)?;
        let uses = uses(pod, &request.image);
        if uses.is_empty() && !is_any {
            return Err(Refused::NotAllowed(format!(
                "no container of pod {key} has the image {} (on_demand.images is used; set it to any to allow others)",
                request.image
            )));
        }
        let uses = if uses.is_empty() {
            vec![hypothetical(&key.namespace, &key.name, &request.image)]
        } else {
            uses
        };
        return Ok(of_pods(request, config, pod.secrets(), uses));
    }
    let named = targets.iter().find(|target| {
        target.sources.contains(&TargetSource::Configuration) && target.reference == request.image
    });
    let known = pods.as_deref().unwrap_or_default();
    let with_image = pods_with(&request.image, known);
    if named.is_none() && with_image.is_empty() && !is_any {
        let of_pods = pods.as_ref().err().copied();
        let of_pods = of_pods.unwrap_or("no pod of this node has it");
        return Err(Refused::NotAllowed(format!(
            "no target has the image {}, and {of_pods}; set on_demand.images: any to allow every image",
            request.image
        )));
    }
    if let Some(secrets) = &request.secrets {
        let is_discovered = config.kubernetes.secrets == SecretAccess::Discovered;
        if is_discovered && !is_any {
            check_named(secrets, known)?;
        }
        let uses = vec![hypothetical(&secrets.namespace, "", &request.image)];
        let mut target = of_pods(request, config, Some(secrets.clone()), uses);
        // The question is whether these Secrets suffice, not whether other credentials would.
        target.credential = crate::config::CredentialFiles::default();
        return Ok(target);
    }
    if let Some(named) = named {
        return Ok(Target {
            name: Arc::from(NAME),
            ..Target::clone(named)
        });
    }
    // As the pods that use the image pull it; pods that wait for it first.
    let Some(first) = with_image.first() else {
        return Ok(of_pods(request, config, None, Vec::new()));
    };
    let secrets = first.secrets();
    let same = with_image.iter().filter(|pod| pod.secrets() == secrets);
    let uses = same.flat_map(|pod| uses(pod, &request.image)).collect();
    Ok(of_pods(request, config, secrets, uses))
}

/// With `kubernetes.secrets: discovered`, a Secret is read only if a pod of this node names it. A request must
/// not extend that.
fn check_named(secrets: &SecretRefs, pods: &[&Pod]) -> Result<(), Refused> {
    let is_named = |name: &&String| {
        pods.iter()
            .any(|pod| pod.namespace == secrets.namespace && pod.pull_secrets.contains(name))
    };
    match secrets.names.iter().find(|name| !is_named(name)) {
        None => Ok(()),
        Some(name) => Err(Refused::NotAllowed(format!(
            "no pod of this node names Secret {}/{name}, and others are not read (kubernetes.secrets is discovered); set it to named and list the Secret, or set on_demand.images: any",
            secrets.namespace
        ))),
    }
}

/// Pods that use an image; those that wait for it first.
fn pods_with<'a>(image: &Reference, pods: &[&'a Pod]) -> Vec<&'a Pod> {
    let mut having: Vec<&Pod> = pods
        .iter()
        .copied()
        .filter(|pod| !pod.is_over && containers(pod, image).next().is_some())
        .collect();
    having.sort_by_key(|pod| {
        let waits = containers(pod, image).any(Container::waits_for_image);
        (!waits, pod.namespace.clone(), pod.name.clone())
    });
    having
}

fn containers<'a>(pod: &'a Pod, image: &Reference) -> impl Iterator<Item = &'a Container> {
    pod.containers.iter().filter(move |container| {
        container
            .image
            .parse()
            .is_ok_and(|of: Reference| of == *image)
    })
}

fn uses(pod: &Pod, image: &Reference) -> Vec<Use> {
    containers(pod, image)
        .map(|container| Use::of(pod, container, image))
        .collect()
}

/// A container that does not exist, for an image that no pod uses.
fn hypothetical(namespace: &str, pod: &str, image: &Reference) -> Use {
    Use {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: String::new(),
        kind: ContainerKind::Container,
        policy: PullPolicy::default_for(image),
        image: image.to_string(),
        waits: false,
        is_present: false,
    }
}

fn of_pods(
    request: &Request,
    config: &Config,
    secrets: Option<SecretRefs>,
    uses: Vec<Use>,
) -> Target {
    let wanted = Wanted {
        name: NAME.to_owned(),
        witness: request.image.clone(),
        secrets,
        uses,
    };
    Target {
        rhythm: Rhythm {
            reach: MINUTE,
            path: MINUTE,
            transfer: None,
        },
        ..Target::discovered(&wanted, config)
    }
}

/// The on-demand checks of the last minute, and the newest requested registries.
#[derive(Debug, Default)]
pub struct Pace {
    /// With the namespace that they were for; empty if it is unknown.
    begun: VecDeque<(Moment, String)>,
    registries: VecDeque<Arc<str>>,
}

impl Pace {
    /// Whether another check may start now.
    ///
    /// # Errors
    /// The wait until it may, if `per_minute` checks started within the last minute, or if the rest of them is for
    /// namespaces that had none.
    pub fn may(&mut self, per_minute: u32, namespace: &str, now: Moment) -> Result<(), Duration> {
        self.begun.retain(|(at, _)| now.since(*at) < MINUTE);
        let most = per_minute as usize;
        let is_its = |(_, of): &&(Moment, String)| of == namespace;
        let may = |begun: &[(Moment, String)]| match namespace {
            // Who names no namespace has access to all of them.
            "" => begun.len() < most,
            _ => may_take(most, begun.len(), begun.iter().filter(is_its).count()),
        };
        let begun = self.begun.make_contiguous();
        // After which of them it may; the limit may have been lowered meanwhile.
        match (0..=begun.len()).find(|over| may(&begun[*over..])) {
            Some(0) => Ok(()),
            Some(over) => Err(MINUTE.saturating_sub(now.since(begun[over - 1].0))),
            None => Err(MINUTE),
        }
    }

    /// Counts a check that starts now.
    pub fn begin(&mut self, registry: &Arc<str>, namespace: &str, now: Moment) {
        self.begun.push_back((now, namespace.to_owned()));
        self.registries.retain(|known| known != registry);
        self.registries.push_back(Arc::clone(registry));
        if self.registries.len() > MOST_REGISTRIES {
            self.registries.pop_front();
        }
    }

    /// Whether the registry is one of the newest requested.
    pub fn knows(&self, registry: &str) -> bool {
        self.registries.iter().any(|known| **known == *registry)
    }
}

#[cfg(test)]
mod tests;
