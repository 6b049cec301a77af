//! What a pending pod waits for: an image, or something that has nothing to do with a registry. Pure.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::pod::{Container, ContainerState, Event, Pod, ReasonMessage};
use super::reasons::{
    ERR_IMAGE_NEVER_PULL, INVALID_IMAGE_NAME, STARTING, is_of_image, is_undecodable_secret,
    stands_in,
};
use crate::model::workload::{ContainerKind, PullPolicy};

/// What keeps a pod from starting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wait {
    /// The image of a container.
    Image(ImageWait),
    /// The image of the pod's sandbox ("pause"), which the node's runtime pulls for itself.
    Sandbox {
        /// Message of the Event `FailedCreatePodSandBox`.
        message: String,
    },
    /// Something other than an image.
    Other {
        /// Name of the waiting container; `None`: the whole pod waits.
        container: Option<String>,
        /// Reason and message of the kubelet or the scheduler, or our own if there is none.
        said: ReasonMessage,
    },
}

/// A container or image volume that waits for its image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageWait {
    /// Name of the container or the volume.
    pub container: String,
    /// Which list of the pod's `spec` it is in.
    pub kind: ContainerKind,
    /// The image as written in the `spec`.
    pub image: String,
    /// The pull policy. `None`: not set, so the default for the tag applies.
    pub policy: Option<PullPolicy>,
    /// How far the pull is.
    pub why: ImageWhy,
}

/// Why an image is not there yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ImageWhy {
    /// At least one pull has failed; with the kubelet's reason and message.
    Failed(ReasonMessage),
    /// It is being pulled.
    Pulling {
        /// Time of the Event `Pulling`, if known.
        since: Option<Timestamp>,
    },
    /// It may be being pulled: Events would show it, but can't be read.
    MaybePulling,
    /// The policy is `Never`, and the node has no such image or (since Kubernetes 1.35) the pod may not use it.
    NeverPulled,
    /// The image is not a valid reference; with the kubelet's reason and message.
    Invalid(ReasonMessage),
}

impl ImageWhy {
    /// Whether a check of the registry can show more.
    pub fn is_to_be_checked(&self) -> bool {
        matches!(
            self,
            Self::Failed(_) | Self::Pulling { .. } | Self::MaybePulling
        )
    }
}

/// Events that show how far the pull of a container's image is.
const OF_IMAGES: &[&str] = &[
    "Pulling", "Pulled", "Failed", "BackOff", "Created", "Started",
];

/// What keeps a pod from starting, in the order of its containers; empty if nothing does. `events` is `None` if they
/// can't be read.
pub fn waits(pod: &Pod, events: Option<&[Event]>) -> Vec<Wait> {
    if pod.is_over {
        return Vec::new();
    }
    if pod.node.is_none() {
        let pending = || ReasonMessage::new("Pending", "the scheduler has not assigned a node yet");
        let said = pod.unscheduled.clone().unwrap_or_else(pending);
        return vec![other(None, said)];
    }
    let mut found = Vec::new();
    let mut starting = None;
    // The images of main containers are pulled only after the init containers have ended.
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
                let message = "this init container is running; the images of main containers are pulled after all init containers have ended";
                found.push(other(
                    Some(container),
                    ReasonMessage::new("Running", message),
                ));
            }
            ContainerState::Ended | ContainerState::Running | ContainerState::BehindVolume => {}
            ContainerState::Waiting(why) if is_of_image(&why.reason) => {
                found.push(image(ImageWhy::Failed(why.clone())));
            }
            ContainerState::Waiting(why) if why.reason == ERR_IMAGE_NEVER_PULL => {
                found.push(image(ImageWhy::NeverPulled));
            }
            ContainerState::Waiting(why) if why.reason == INVALID_IMAGE_NAME => {
                found.push(image(ImageWhy::Invalid(why.clone())));
            }
            ContainerState::Waiting(why) if !STARTING.contains(&why.reason.as_str()) => {
                found.push(other(Some(container), why.clone()));
            }
            ContainerState::Unknown | ContainerState::Waiting(_) => {
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

/// No pull has started: the pod waits for its volumes, network or sandbox.
fn not_begun(container: &Container, events: &[Event]) -> Wait {
    // Warnings from before a container of the pod was created no longer apply.
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
        Some(event) => other(None, event.reason_message()),
        None => {
            let reason = container.waits().map_or("Pending", |why| &why.reason);
            let message = "no Event of the last hour shows a pull; the kubelet has not started one, or the node does not report";
            other(None, ReasonMessage::new(reason, message))
        }
    }
}

/// Matches the messages of containerd and docker when the pause image can't be pulled.
fn is_of_sandbox_image(event: &Event) -> bool {
    event.reason == "FailedCreatePodSandBox"
        && (event.message.contains("sandbox image") || event.message.contains("pulling image"))
}

/// How far the pull of a container's image is, from its newest Event. `None`: that Event is not about its pull.
fn progress(events: &[Event], container: &Container) -> Option<ImageWhy> {
    let of_it = events
        .iter()
        .filter(|event| OF_IMAGES.contains(&event.reason.as_str()))
        .filter(|event| is_about(event, container.kind, &container.name, &container.image));
    // For two in the same second, the later one in the list counts as newer.
    let newest = of_it.max_by_key(|event| event.last)?;
    match newest.reason.as_str() {
        "Pulling" => Some(ImageWhy::Pulling { since: newest.last }),
        // "Failed" is also the reason of a container that can't be started.
        "Failed" | "BackOff" if is_of_pull(&newest.message) => {
            Some(ImageWhy::Failed(newest.reason_message()))
        }
        _ => None,
    }
}

/// Whether an Event is about the image of a container or of a volume. The kubelet reports the image of a volume on the
/// pod, with the image in the message.
fn is_about(event: &Event, kind: ContainerKind, name: &str, image: &str) -> bool {
    if kind == ContainerKind::ImageVolume {
        event.container.is_empty() && stands_in(&event.message, image)
    } else {
        event.container == name
    }
}

/// Whether an Event may explain this wait: it is about its image, or about the pod.
pub fn concerns(event: &Event, wait: &ImageWait) -> bool {
    let names_an_image = OF_IMAGES.contains(&event.reason.as_str())
        || [ERR_IMAGE_NEVER_PULL, "InspectFailed"].contains(&event.reason.as_str());
    is_about(event, wait.kind, &wait.container, &wait.image)
        || (event.container.is_empty()
            && (!names_an_image || stands_in(&event.message, &wait.image)))
}

/// Whether a message is about a pull (kubernetes `pkg/kubelet/images/image_manager.go`). Other messages with the same
/// reasons contain the pod's name, which may include one of the words, so phrases are matched.
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
        || is_of_secret(message)
}

/// Whether the message of an Event is about a Secret that the kubelet can't decode.
fn is_of_secret(message: &str) -> bool {
    let error = message.strip_prefix("Error: ");
    error.is_some_and(is_undecodable_secret)
}

/// The Events about pulls to show to a user, newest first, at most six; without those that only repeat others.
pub fn pull_events(events: &[Event]) -> Vec<&Event> {
    let mut shown: Vec<&Event> = events
        .iter()
        .filter(|event| match event.reason.as_str() {
            "Pulling"
            | "FailedToRetrieveImagePullSecret"
            | "InspectFailed"
            | "ErrImageNeverPull" => true,
            "Failed" | "BackOff" => {
                // `Error: ErrImagePull` adds nothing to the others.
                is_of_secret(&event.message)
                    || is_of_pull(&event.message) && !event.message.starts_with("Error: ")
            }
            "FailedCreatePodSandBox" => is_of_sandbox_image(event),
            _ => false,
        })
        .collect();
    shown.sort_by_key(|event| Reverse(event.last));
    shown.truncate(MAX_SHOWN);
    shown
}

/// Upper bound of [`pull_events`].
const MAX_SHOWN: usize = 6;

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

    /// One word for each wait.
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
    fn the_kubelet_s_reasons_are_distinguished() {
        for (reason, want) in [
            ("ErrImagePull", "image of app: ErrImagePull"),
            ("ImagePullBackOff", "image of app: ImagePullBackOff"),
            ("ErrImageNeverPull", "image of app: never"),
            ("InvalidImageName", "image of app: invalid"),
            // A Secret of the pod can't be decoded (Kubernetes 1.33 and later).
            (
                "unexpected end of JSON input",
                "image of app: unexpected end of JSON input",
            ),
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
        let mut lost = app(ContainerState::Unknown);
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
        // After all have ended, a main container that is pulling still has the reason `PodInitializing`.
        let pulling = event(10, Some("app"), "Pulling", "Pulling image");
        assert_eq!(
            words(&of(ContainerState::Ended), Some(&[pulling])),
            ["image of app: pulling"]
        );
        // An init container that is running, such as `pullpath wait`: the main container's image is not pulled yet.
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

    /// Before Kubernetes 1.33, an image volume that fails leaves all containers at `ContainerCreating`. In all releases
    /// its Events are on the pod.
    #[test]
    fn a_volume_s_image_is_read_from_the_pod_s_events() {
        let volume = container("m", ContainerKind::ImageVolume, ContainerState::Unknown);
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
        // The Events shown with a wait are about its own image, or about the pod.
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
    fn what_delayed_a_container_before_it_began_is_not_reported() {
        let mount = event(5, None, "FailedMount", "MountVolume.SetUp failed");
        let started = event(10, Some("init"), "Started", "Started container init");
        let creating = app(waiting("PodInitializing"));
        let reported = words(&creating, Some(&[mount.clone(), started.clone()]));
        assert_eq!(reported, ["pod: PodInitializing"]);
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
    fn events_of_pulls_are_reported_the_newest_first() {
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
            event(
                7,
                Some("app"),
                "Failed",
                "Error: illegal base64 data at input byte 0",
            ),
        ];
        let reasons: Vec<&str> = pull_events(&events)
            .iter()
            .map(|e| e.reason.as_str())
            .collect();
        assert_eq!(
            reasons,
            [
                "BackOff",
                "Failed",
                "Pulling",
                "FailedToRetrieveImagePullSecret",
                "Failed"
            ]
        );
    }
}
