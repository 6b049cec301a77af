//! What a pod waits for: an image, or something else that no registry has a part in. Pure.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::pod::{Container, ContainerState, Event, Pod, ReasonMessage};
use super::reasons::{
    ERR_IMAGE_NEVER_PULL, IMAGE_REASONS, INVALID_IMAGE_NAME, STARTING, stands_in,
};
use crate::model::workload::{ContainerKind, PullPolicy};

/// What keeps a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wait {
    /// The image of a container.
    Image(ImageWait),
    /// The image of the pod's sandbox ("pause"), which is the node's own affair.
    Sandbox { message: String },
    /// No image; `container` is `None` where it is the pod as a whole.
    Other {
        container: Option<String>,
        said: ReasonMessage,
    },
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageWait {
    pub container: String,
    pub kind: ContainerKind,
    pub image: String,
    pub policy: Option<PullPolicy>,
    pub why: ImageWhy,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ImageWhy {
    /// At least one pull has failed; the kubelet's reason and words.
    Failed(ReasonMessage),
    /// It is being pulled, since then where that is known.
    Pulling { since: Option<Timestamp> },
    /// It may be; Events would tell, and can't be read.
    MaybePulling,
    /// The policy is Never, and the node has no such image, or (from Kubernetes 1.35 on) the pod may not use it.
    NeverPulled,
    /// It is no image's name.
    Invalid(ReasonMessage),
}

impl ImageWhy {
    /// To ask a registry tells more.
    pub fn is_to_be_checked(&self) -> bool {
        matches!(
            self,
            Self::Failed(_) | Self::Pulling { .. } | Self::MaybePulling
        )
    }
}

/// Events that tell how far a container's image has come.
const OF_IMAGES: &[&str] = &[
    "Pulling", "Pulled", "Failed", "BackOff", "Created", "Started",
];

/// What keeps a pod, in the order of its containers; empty where nothing does. `events` is `None` where
/// they can't be read.
pub fn waits(pod: &Pod, events: Option<&[Event]>) -> Vec<Wait> {
    if pod.is_over {
        return Vec::new();
    }
    if pod.node.is_none() {
        let pending = || ReasonMessage::new("Pending", "the scheduler has given it no node yet");
        let said = pod.unscheduled.clone().unwrap_or_else(pending);
        return vec![other(None, said)];
    }
    let mut found = Vec::new();
    let mut starting = None;
    // Main containers' images are pulled only after the init containers have ended.
    let mut is_initializing = false;
    for container in &pod.containers {
        if container.kind == ContainerKind::Container && is_initializing {
            continue;
        }
        let image = |why| {
            Wait::Image(ImageWait {
                container: container.name.clone(),
                kind: container.kind,
                image: container.image.clone(),
                policy: container.policy,
                why,
            })
        };
        let is_init = container.kind == ContainerKind::InitContainer;
        let is_done = match container.state {
            ContainerState::Running => container.is_sidecar,
            ContainerState::Ended => true,
            _ => false,
        };
        is_initializing |= is_init && !is_done;
        match &container.state {
            ContainerState::Running if is_init && !container.is_sidecar => {
                let message = "this init container runs; images of main containers are pulled when all of them have ended";
                found.push(other(
                    Some(container),
                    ReasonMessage::new("Running", message),
                ));
            }
            ContainerState::Ended | ContainerState::Running | ContainerState::BehindVolume => {}
            ContainerState::Waiting(said) if IMAGE_REASONS.contains(&said.reason.as_str()) => {
                found.push(image(ImageWhy::Failed(said.clone())));
            }
            ContainerState::Waiting(said) if said.reason == ERR_IMAGE_NEVER_PULL => {
                found.push(image(ImageWhy::NeverPulled));
            }
            ContainerState::Waiting(said) if said.reason == INVALID_IMAGE_NAME => {
                found.push(image(ImageWhy::Invalid(said.clone())));
            }
            ContainerState::Waiting(said) if !STARTING.contains(&said.reason.as_str()) => {
                found.push(other(Some(container), said.clone()));
            }
            ContainerState::Untold | ContainerState::Waiting(_) => {
                match events.map(|events| progress(events, container)) {
                    None => found.push(image(ImageWhy::MaybePulling)),
                    Some(Some(why)) => found.push(image(why)),
                    Some(None) => {
                        if starting.is_none() && container.kind != ContainerKind::ImageVolume {
                            starting = Some(container);
                        }
                    }
                }
            }
        }
    }
    if found.is_empty()
        && let (Some(container), Some(events)) = (starting, events)
    {
        found.push(not_begun(container, events));
    }
    found
}

fn other(container: Option<&Container>, said: ReasonMessage) -> Wait {
    Wait::Other {
        container: container.map(|container| container.name.clone()),
        said,
    }
}

/// No pull has begun: the pod waits for its volumes, network or sandbox.
fn not_begun(container: &Container, events: &[Event]) -> Wait {
    // What was in the way before a container of the pod began is so no more.
    let is_begun = |event: &&Event| ["Pulled", "Created", "Started"].contains(&&*event.reason);
    let begun = events
        .iter()
        .filter(is_begun)
        .filter_map(|event| event.last)
        .max();
    let is_left = |event: &&Event| begun.is_none() || event.last >= begun;
    let warnings = events.iter().filter(|event| event.is_warning);
    let newest = warnings.filter(is_left).max_by_key(|event| event.last);
    match newest {
        Some(event) if is_of_sandbox_image(event) => Wait::Sandbox {
            message: event.message.clone(),
        },
        Some(event) => other(None, event.said()),
        None => {
            let reason = container.waits().map_or("Pending", |said| &said.reason);
            let message = "no Event of the last hour tells of a pull; the kubelet has not begun one, or the node does not report";
            other(None, ReasonMessage::new(reason, message))
        }
    }
}

/// containerd's and docker's words where the pause image can't be had.
fn is_of_sandbox_image(event: &Event) -> bool {
    event.reason == "FailedCreatePodSandBox"
        && (event.message.contains("sandbox image") || event.message.contains("pulling image"))
}

/// How far the image of a container has come, by its newest Event; `None`: that is not about its pull.
fn progress(events: &[Event], container: &Container) -> Option<ImageWhy> {
    let of_it = events
        .iter()
        .filter(|event| OF_IMAGES.contains(&event.reason.as_str()))
        .filter(|event| is_about(event, container.kind, &container.name, &container.image));
    // Of two in the same second the later in the list is the newer.
    let newest = of_it.max_by_key(|event| event.last)?;
    match newest.reason.as_str() {
        "Pulling" => Some(ImageWhy::Pulling { since: newest.last }),
        // "Failed" is also said of containers that can't be started.
        "Failed" | "BackOff" if is_of_pull(&newest.message) => {
            Some(ImageWhy::Failed(newest.said()))
        }
        _ => None,
    }
}

/// Whether an Event is about the image of a container, or of a volume: the kubelet tells of those as of the
/// pod, and names the image.
fn is_about(event: &Event, kind: ContainerKind, name: &str, image: &str) -> bool {
    if kind == ContainerKind::ImageVolume {
        event.container.is_empty() && stands_in(&event.message, image)
    } else {
        event.container == name
    }
}

/// Whether an Event may have to do with this wait: it is about its image, or about the pod.
pub fn concerns(event: &Event, wait: &ImageWait) -> bool {
    let names_an_image = OF_IMAGES.contains(&event.reason.as_str())
        || [ERR_IMAGE_NEVER_PULL, "InspectFailed"].contains(&event.reason.as_str());
    is_about(event, wait.kind, &wait.container, &wait.image)
        || (event.container.is_empty()
            && (!names_an_image || stands_in(&event.message, &wait.image)))
}

/// kubernetes `pkg/kubelet/images/image_manager.go`. A pod's own name is in other messages of the same
/// reasons, so a single word is not enough.
fn is_of_pull(message: &str) -> bool {
    [
        "pull image",
        "pulling image",
        "inspect image",
        "Error: ErrImage",
        "Error: ImagePullBackOff",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// What the kubelet said of pulls in its Events, the newest first: those that a person reads, each once.
pub fn told(events: &[Event]) -> Vec<&Event> {
    let mut told: Vec<&Event> = events
        .iter()
        .filter(|event| match event.reason.as_str() {
            "Pulling"
            | "FailedToRetrieveImagePullSecret"
            | "InspectFailed"
            | "ErrImageNeverPull" => true,
            "Failed" | "BackOff" => {
                // `Error: ErrImagePull` says nothing that the others don't.
                is_of_pull(&event.message) && !event.message.starts_with("Error: ")
            }
            "FailedCreatePodSandBox" => is_of_sandbox_image(event),
            _ => false,
        })
        .collect();
    told.sort_by_key(|event| Reverse(event.last));
    told.truncate(MAX_TOLD);
    told
}

/// Events of one pod that a person reads.
const MAX_TOLD: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, kind: ContainerKind, state: ContainerState) -> Container {
        Container {
            name: name.to_owned(),
            kind,
            image: format!("r.test/{name}:1"),
            policy: None,
            is_sidecar: false,
            is_present: false,
            state,
        }
    }

    fn waiting(reason: &str) -> ContainerState {
        ContainerState::Waiting(ReasonMessage {
            reason: reason.to_owned(),
            message: format!("{reason}, in full"),
        })
    }

    fn pod(containers: Vec<Container>) -> Pod {
        Pod {
            namespace: "shop".to_owned(),
            name: "a".to_owned(),
            node: Some("n1".to_owned()),
            containers,
            ..Pod::default()
        }
    }

    fn app(state: ContainerState) -> Pod {
        pod(vec![container("app", ContainerKind::Container, state)])
    }

    fn event(second: i64, container: Option<&str>, reason: &str, message: &str) -> Event {
        Event {
            reason: reason.to_owned(),
            message: message.to_owned(),
            is_warning: !["Pulling", "Pulled", "Created", "Started"].contains(&reason),
            container: container.unwrap_or_default().to_owned(),
            last: Some(Timestamp::from_second(second).unwrap()),
            count: 1,
            ..Event::default()
        }
    }

    /// In a word each.
    fn words(pod: &Pod, events: Option<&[Event]>) -> Vec<String> {
        waits(pod, events)
            .iter()
            .map(|wait| match wait {
                Wait::Image(wait) => {
                    let why = match &wait.why {
                        ImageWhy::Failed(said) => said.reason.as_str(),
                        ImageWhy::Pulling { .. } => "pulling",
                        ImageWhy::MaybePulling => "maybe",
                        ImageWhy::NeverPulled => "never",
                        ImageWhy::Invalid(_) => "invalid",
                    };
                    format!("image of {}: {why}", wait.container)
                }
                Wait::Sandbox { .. } => "sandbox".to_owned(),
                Wait::Other { container, said } => {
                    format!("{}: {}", container.as_deref().unwrap_or("pod"), said.reason)
                }
            })
            .collect()
    }

    #[test]
    fn the_kubelet_s_reasons_are_told_apart() {
        for (reason, want) in [
            ("ErrImagePull", "image of app: ErrImagePull"),
            ("ImagePullBackOff", "image of app: ImagePullBackOff"),
            ("ErrImageNeverPull", "image of app: never"),
            ("InvalidImageName", "image of app: invalid"),
            (
                "CreateContainerConfigError",
                "app: CreateContainerConfigError",
            ),
            ("CrashLoopBackOff", "app: CrashLoopBackOff"),
        ] {
            assert_eq!(words(&app(waiting(reason)), Some(&[])), [want]);
        }
        assert_eq!(words(&app(ContainerState::Running), Some(&[])), [""; 0]);
        let mut over = app(waiting("ErrImagePull"));
        over.is_over = true;
        assert_eq!(words(&over, None), [""; 0]);
    }

    #[test]
    fn a_pod_without_a_node_pulls_nothing() {
        let mut lost = app(ContainerState::Untold);
        lost.node = None;
        assert_eq!(words(&lost, None), ["pod: Pending"]);
        lost.unscheduled = Some(ReasonMessage {
            reason: "Unschedulable".to_owned(),
            message: "0/3 nodes are available".to_owned(),
        });
        assert_eq!(words(&lost, None), ["pod: Unschedulable"]);
    }

    #[test]
    fn a_container_that_is_being_created_pulls_where_its_newest_event_says_so() {
        let creating = app(waiting("ContainerCreating"));
        let pulling = event(10, Some("app"), "Pulling", "Pulling image \"r.test/app:1\"");
        let pulled = event(20, Some("app"), "Pulled", "Successfully pulled image");
        let failed = event(
            30,
            Some("app"),
            "Failed",
            "Failed to pull image \"r.test/app:1\": rpc error",
        );
        let broken = event(
            40,
            Some("app"),
            "Failed",
            "Error: context deadline exceeded",
        );
        let mount = event(5, None, "FailedMount", "MountVolume.SetUp failed");
        for (events, want) in [
            (vec![pulling.clone()], "image of app: pulling"),
            (
                vec![pulled.clone(), pulling.clone()],
                "pod: ContainerCreating",
            ),
            (
                vec![failed.clone(), pulling.clone()],
                "image of app: Failed",
            ),
            (vec![broken], "pod: Failed"),
            (vec![mount], "pod: FailedMount"),
            (vec![], "pod: ContainerCreating"),
        ] {
            assert_eq!(words(&creating, Some(&events)), [want], "{events:?}");
        }
        assert_eq!(words(&creating, None), ["image of app: maybe"]);
        let other = event(10, Some("sidecar"), "Pulling", "Pulling image \"x\"");
        assert_eq!(words(&creating, Some(&[other])), ["pod: ContainerCreating"]);
    }

    #[test]
    fn main_containers_wait_for_init_containers_and_not_for_their_images() {
        let of = |init: ContainerState| {
            pod(vec![
                container("init", ContainerKind::InitContainer, init),
                container("app", ContainerKind::Container, waiting("PodInitializing")),
            ])
        };
        assert_eq!(
            words(&of(waiting("ImagePullBackOff")), Some(&[])),
            ["image of init: ImagePullBackOff"]
        );
        // Where all have ended, `PodInitializing` is what is said of a main container's pull.
        let pulling = event(10, Some("app"), "Pulling", "Pulling image");
        assert_eq!(
            words(&of(ContainerState::Ended), Some(&[pulling])),
            ["image of app: pulling"]
        );
        // One that runs, as `pullpath wait` does: nobody pulls the main container's image yet.
        for events in [None, Some(&[][..])] {
            assert_eq!(
                words(&of(ContainerState::Running), events),
                ["init: Running"]
            );
        }
        let mut beside = of(ContainerState::Running);
        beside.containers[0].is_sidecar = true;
        assert_eq!(words(&beside, None), ["image of app: maybe"]);
    }

    /// Before Kubernetes 1.33 a volume's image that fails leaves all containers at `ContainerCreating`; then as
    /// now its Events are the pod's.
    #[test]
    fn of_a_volume_s_image_the_pod_s_events_tell() {
        let volume = container("m", ContainerKind::ImageVolume, ContainerState::Untold);
        let creating = container(
            "app",
            ContainerKind::Container,
            waiting("ContainerCreating"),
        );
        let of = |volume: &Container| pod(vec![volume.clone(), creating.clone()]);
        let pulling = event(10, None, "Pulling", "Pulling image \"r.test/m:1\"");
        let failed = event(
            20,
            None,
            "Failed",
            "Failed to pull image \"r.test/m:1\": denied",
        );
        let other = event(20, None, "Pulling", "Pulling image \"r.test/m:10\"");
        for (events, want) in [
            (vec![pulling.clone()], "image of m: pulling"),
            (vec![pulling.clone(), failed.clone()], "image of m: Failed"),
            (vec![other], "pod: ContainerCreating"),
            (vec![], "pod: ContainerCreating"),
        ] {
            assert_eq!(words(&of(&volume), Some(&events)), [want], "{events:?}");
        }
        let there = container("m", ContainerKind::ImageVolume, ContainerState::Ended);
        assert_eq!(
            words(&of(&there), Some(std::slice::from_ref(&failed))),
            ["pod: Failed"]
        );
        // What is told beside a wait is of its own image, or of the pod.
        let Some(Wait::Image(wait)) = waits(&of(&volume), Some(&[pulling])).pop() else {
            panic!("it waits for the volume's image");
        };
        assert!(concerns(&failed, &wait));
        let text = "Unable to retrieve some image pull secrets (a)";
        let secrets = event(5, None, "FailedToRetrieveImagePullSecret", text);
        assert!(concerns(&secrets, &wait));
        let own = ImageWait {
            container: "app".to_owned(),
            kind: ContainerKind::Container,
            image: "r.test/app:1".to_owned(),
            ..wait.clone()
        };
        assert!(!concerns(&failed, &own) && concerns(&secrets, &own));
        let of_app = event(5, Some("app"), "Pulling", "Pulling image \"r.test/app:1\"");
        assert!(concerns(&of_app, &own) && !concerns(&of_app, &wait));
    }

    #[test]
    fn what_was_in_the_way_before_a_container_began_is_not_told() {
        let mount = event(5, None, "FailedMount", "MountVolume.SetUp failed");
        let started = event(10, Some("init"), "Started", "Started container init");
        let creating = app(waiting("PodInitializing"));
        let told = words(&creating, Some(&[mount.clone(), started.clone()]));
        assert_eq!(told, ["pod: PodInitializing"]);
        let again = Event {
            last: Some(Timestamp::from_second(20).unwrap()),
            ..mount
        };
        assert_eq!(
            words(&creating, Some(&[again, started])),
            ["pod: FailedMount"]
        );
    }

    #[test]
    fn the_sandbox_s_image_is_the_node_s() {
        let text = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox image \
                    \"registry.k8s.io/pause:3.9\": failed to pull image";
        let events = [event(10, None, "FailedCreatePodSandBox", text)];
        assert_eq!(
            words(&app(waiting("ContainerCreating")), Some(&events)),
            ["sandbox"]
        );
        let network = [event(
            10,
            None,
            "FailedCreatePodSandBox",
            "failed to setup network for sandbox",
        )];
        assert_eq!(
            words(&app(waiting("ContainerCreating")), Some(&network)),
            ["pod: FailedCreatePodSandBox"]
        );
    }

    #[test]
    fn of_events_those_of_pulls_are_told_the_newest_first() {
        let events = [
            event(10, Some("app"), "Pulling", "Pulling image \"x\""),
            event(
                11,
                Some("app"),
                "Failed",
                "Failed to pull image \"x\": denied",
            ),
            event(11, Some("app"), "Failed", "Error: ErrImagePull"),
            event(12, Some("app"), "BackOff", "Back-off pulling image \"x\""),
            event(
                13,
                Some("app"),
                "BackOff",
                "Back-off restarting failed container in pod puller-1",
            ),
            event(
                9,
                None,
                "FailedToRetrieveImagePullSecret",
                "Unable to retrieve some image pull secrets (a)",
            ),
            event(8, None, "Scheduled", "Successfully assigned"),
        ];
        let reasons: Vec<&str> = told(&events).iter().map(|e| e.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "BackOff",
                "Failed",
                "Pulling",
                "FailedToRetrieveImagePullSecret"
            ]
        );
    }
}
