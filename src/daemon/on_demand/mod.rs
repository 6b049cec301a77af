//! Images that somebody asks for, besides the schedule: what may be asked, with whose Secrets, and how
//! often. Pure; the runner acts by it.

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

/// The longest request that is read. A request with all that it may hold has 5 KiB.
pub const MOST_BYTES: usize = 16 << 10;

/// Secrets that may be named; pods have one or two.
const MOST_SECRETS: usize = 16;

/// In the book, where targets have their names; no target can be called so.
const NAME: &str = "on demand";

/// Registries that are asked for and that no target has, of which the book keeps how they want to be
/// treated. Names of registries come from outside.
const MOST_REGISTRIES: usize = 32;

const MINUTE: Duration = Duration::from_mins(1);

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub image: Reference,
    /// As this pod would pull it.
    pub pod: Option<Namespaced>,
    /// With these Secrets.
    pub secrets: Option<SecretRefs>,
    pub tier: Tier,
}

/// It, as it travels; of Secrets the names alone.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub image: String,
    pub pod: Option<Namespaced>,
    pub secrets: Option<SecretRefs>,
    #[serde(default)]
    pub tier: Tier,
}

/// How a body looks, for those who have sent another one.
const FORM: &str = r#"it is {"image": "registry.example.com/app:1", "pod": {"namespace": "n", "name": "p"}, "secrets": {"namespace": "n", "names": ["s"]}, "tier": "reach"}, of which only image must be there"#;

impl Request {
    /// Reads a request's body.
    ///
    /// # Errors
    /// What is wrong with it, for whoever has sent it.
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
            .map_err(|error| format!("image '{}' is none: {error}", printable(&body.image)))?;
        if body.pod.is_some() && body.secrets.is_some() {
            return Err(
                "pod and secrets are both given: a pod brings its own Secrets; give one of them"
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
                    "secrets.names has {} names; 1 to {MOST_SECRETS} are taken",
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

/// It stands in paths and selectors of requests.
fn check_name(key: &str, name: &str) -> Result<(), String> {
    if is_name(name) {
        return Ok(());
    }
    Err(format!(
        "{key} is '{}', which is no name of Kubernetes: lower-case letters, digits, '-' and '.'",
        printable(name)
    ))
}

/// Why an image is not checked, or nothing came of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// Not here, and what would allow it.
    NotAllowed(String),
    /// The pod is not known here, and why.
    NoPod(String),
    /// Another one is being checked.
    Busy,
    /// Too many in a minute; when the next may come.
    TooMany(Duration),
    /// A budget does not allow it, or the registry asked to be left alone.
    Deferred(Deferred),
    /// The check told nothing.
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

/// The pods of this node, or why none is known.
pub type Pods<'a> = Result<Vec<&'a Pod>, &'static str>;

pub const NOT_FOLLOWED: &str =
    "the pods of this node are not followed (kubernetes.discover is off)";
pub const NOT_HEARD: &str = "the API server has not told of this node's pods yet";

fn find<'a>(pods: &Pods<'a>, key: &Namespaced) -> Result<&'a Pod, Refused> {
    let mut known = pods.iter().flatten();
    let found = known.find(|pod| pod.namespace == key.namespace && pod.name == key.name);
    found.copied().ok_or_else(|| {
        let why = match pods {
            Ok(_) => "is not on this node".to_owned(),
            Err(why) => format!("is not known here: {why}"),
        };
        Refused::NoPod(format!("pod {key} {why}"))
    })
}

/// What is to be checked for a request, as if it were a target.
///
/// # Errors
/// When it may not be.
pub fn plan(
    request: &Request,
    config: &Config,
    targets: &[Arc<Target>],
    pods: &Pods<'_>,
) -> Result<Target, Refused> {
    let images = config.on_demand.images;
    if images == OnDemandImages::Off {
        return Err(Refused::NotAllowed(
            "no image is checked on demand here (on_demand.images is off; used or any allows it)"
                .to_owned(),
        ));
    }
    let is_any = images == OnDemandImages::Any;
    if let Some(key) = &request.pod {
        let pod = find(pods, key)?;
        let uses = uses(pod, &request.image);
        if uses.is_empty() && !is_any {
            return Err(Refused::NotAllowed(format!(
                "no container of pod {key} has the image {} (on_demand.images is used; any allows others)",
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
    let askers = users(&request.image, known);
    if named.is_none() && askers.is_empty() && !is_any {
        let of_pods = pods.as_ref().err().copied();
        let of_pods = of_pods.unwrap_or("no pod of this node has it");
        return Err(Refused::NotAllowed(format!(
            "no target has the image {}, and {of_pods}; on_demand.images: any allows every image",
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
        // Whether these do is the question, not whether something else would.
        target.credential = crate::config::CredentialFiles::default();
        return Ok(target);
    }
    if let Some(named) = named {
        return Ok(Target {
            name: Arc::from(NAME),
            ..Target::clone(named)
        });
    }
    // As those pull it that use it; those first that wait.
    let Some(first) = askers.first() else {
        return Ok(of_pods(request, config, None, Vec::new()));
    };
    let secrets = first.secrets();
    let same = askers.iter().filter(|pod| pod.secrets() == secrets);
    let uses = same.flat_map(|pod| uses(pod, &request.image)).collect();
    Ok(of_pods(request, config, secrets, uses))
}

/// With `kubernetes.secrets: discovered`, a Secret is read where a pod of this node names it; asking for
/// one must not widen that.
fn check_named(secrets: &SecretRefs, pods: &[&Pod]) -> Result<(), Refused> {
    let is_named = |name: &&String| {
        pods.iter()
            .any(|pod| pod.namespace == secrets.namespace && pod.pull_secrets.contains(name))
    };
    match secrets.names.iter().find(|name| !is_named(name)) {
        None => Ok(()),
        Some(name) => Err(Refused::NotAllowed(format!(
            "no pod of this node names Secret {}/{name}, and others are not read (kubernetes.secrets is discovered; named allows those of its list, and so does on_demand.images: any)",
            secrets.namespace
        ))),
    }
}

/// Pods that have an image, those first that wait for it.
fn users<'a>(image: &Reference, pods: &[&'a Pod]) -> Vec<&'a Pod> {
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

/// A container that there is not.
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

/// When checks on demand were begun, of the last minute, and of which registries.
#[derive(Debug, Default)]
pub struct Pace {
    begun: VecDeque<Moment>,
    registries: VecDeque<Arc<str>>,
}

impl Pace {
    /// Whether one more may begin.
    ///
    /// # Errors
    /// With the time until it may.
    pub fn may(&mut self, per_minute: u32, now: Moment) -> Result<(), Duration> {
        self.begun.retain(|at| now.since(*at) < MINUTE);
        let most = per_minute as usize;
        match self.begun.len().checked_sub(most) {
            None => Ok(()),
            // Of those that must be older than a minute, the youngest; the file may have lowered the number.
            Some(over) => Err(MINUTE.saturating_sub(now.since(self.begun[over]))),
        }
    }

    pub fn begin(&mut self, registry: &Arc<str>, now: Moment) {
        self.begun.push_back(now);
        self.registries.retain(|known| known != registry);
        self.registries.push_back(Arc::clone(registry));
        if self.registries.len() > MOST_REGISTRIES {
            self.registries.pop_front();
        }
    }

    /// It was asked for, not long ago.
    pub fn knows(&self, registry: &str) -> bool {
        self.registries.iter().any(|known| **known == *registry)
    }
}

#[cfg(test)]
mod tests;
