//! Parses a kubelet's Event about an image, with the wording of all versions since Kubernetes 1.24
//! (`pkg/kubelet/images/image_manager.go`, `pkg/kubelet/kubelet_pods.go`).

use std::time::Duration;

use jiff::SignedDuration;

use super::wrapped::{self, COMBINED, STATES};
use crate::model::text::clean;
use crate::model::units::Bytes;
use crate::workload::reasons::is_undecodable_secret;

/// What an Event reports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventKind {
    /// A pull began (reason `Pulling`).
    Pulling {
        /// The image as the pod names it.
        image: String,
    },
    /// A pull succeeded (reason `Pulled`).
    Pulled {
        /// The image as the pod names it.
        image: String,
        /// How long it took, and the image's size.
        took: PullTimes,
    },
    /// The image was on the node; no request was sent for it. From Kubernetes 1.35 on, also: the pod is
    /// allowed to use it.
    Present {
        /// The image as the pod names it.
        image: String,
    },
    /// The pull failed (reason `Failed`).
    Failed {
        /// The image as the pod names it.
        image: String,
        /// The runtime's own message.
        text: String,
    },
    /// The kubelet can't decode a Secret of the pod, so it does not pull (Kubernetes 1.33 and later, which then name no
    /// image).
    SecretUndecodable {
        /// The error.
        text: String,
    },
    /// The image of the pod's sandbox can't be pulled (reason `FailedCreatePodSandBox`): the runtime pulls it
    /// with the node's own credentials.
    SandboxFailed {
        /// The sandbox's image.
        image: String,
        /// The runtime's own message.
        text: String,
    },
    /// The kubelet backs off before the next attempt.
    StillFailing {
        /// The image; `None` if the Event has only the state (`Error: ImagePullBackOff`).
        image: Option<String>,
    },
    /// The pod names Secrets that can't be read; the kubelet pulls without them.
    SecretsMissing {
        /// Names of the Secrets, in the pod's namespace.
        names: Vec<String>,
    },
    /// The pull policy is Never, and the image is not on the node. From Kubernetes 1.35 on, also if it is
    /// present but was pulled with a credential the pod doesn't have: the kubelet reports the same, so as not
    /// to reveal that the image is present.
    NeverPulled {
        /// The image as the pod names it.
        image: String,
    },
    /// The image's name is invalid, or the runtime can't find out whether the image is present (reason
    /// `InspectFailed`).
    NotInspected {
        /// The image as the pod names it.
        image: String,
        /// The kubelet's own message.
        text: String,
    },
}

/// How long a pull took.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PullTimes {
    /// From the request to the runtime until its response, unpacking included. Before Kubernetes 1.28 it
    /// includes the wait for other pulls.
    pub pulling: Duration,
    /// The same with the wait for other pulls; `None` before Kubernetes 1.28.
    pub including_waiting: Option<Duration>,
    /// The image's size; `None` before Kubernetes 1.30. containerd reports the size of the compressed layers,
    /// CRI-O and cri-dockerd the size on disk.
    pub size: Option<Bytes>,
}

impl PullTimes {
    /// How long the pull waited for other pulls; `None` if the kubelet does not report it separately.
    pub fn waiting(&self) -> Option<Duration> {
        self.including_waiting
            .map(|whole| whole.saturating_sub(self.pulling))
    }
}

impl EventKind {
    /// The image the Event is about; `None` if it names none.
    pub fn image(&self) -> Option<&str> {
        match self {
            Self::Pulling { image }
            | Self::Pulled { image, .. }
            | Self::Present { image }
            | Self::Failed { image, .. }
            | Self::SandboxFailed { image, .. }
            | Self::NeverPulled { image }
            | Self::NotInspected { image, .. } => Some(image),
            Self::StillFailing { image } => image.as_deref(),
            Self::SecretsMissing { .. } | Self::SecretUndecodable { .. } => None,
        }
    }

    /// The value of the metric label `event`; a fixed set.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pulling { .. } => "pulling",
            Self::Pulled { .. } => "pulled",
            Self::Present { .. } => "present",
            Self::Failed { .. } | Self::SecretUndecodable { .. } => "failed",
            Self::SandboxFailed { .. } => "sandbox_failed",
            Self::StillFailing { .. } => "still_failing",
            Self::SecretsMissing { .. } => "secrets_missing",
            Self::NeverPulled { .. } => "never_pulled",
            Self::NotInspected { .. } => "not_inspected",
        }
    }
}

/// Longer messages are cut before they are parsed: client-go's Events have at most 1 kB, other clients have
/// no limit.
const MOST_READ: usize = 8 * 1024;

/// Longer image names are invalid: a repository has at most 255 characters.
const LONGEST_IMAGE: usize = 1024;

/// Parses an Event's reason and message; `None` if it is not about an image, or if the wording is unknown.
pub fn read(reason: &str, message: &str) -> Option<EventKind> {
    let message = beginning(message, MOST_READ);
    let message = message.strip_prefix(COMBINED).unwrap_or(message);
    match reason {
        "Pulling" => {
            let (image, _) = named(message, &["Pulling image ", "pulling image "])?;
            Some(EventKind::Pulling { image })
        }
        "Pulled" => pulled(message),
        // Huawei CCE's kubelets add what failed to the reason.
        "Failed"
        | "FailedPullImage"
        | "ErrImagePull"
        | "SignatureValidationFailed"
        | "RegistryUnavailable" => failed(message),
        "FailedCreatePodSandBox" => sandbox(message),
        "BackOff" | "BackOffPullImage" => {
            // Crashing containers have the same reason.
            let (image, _) = named(message, &["Back-off pulling image "])?;
            Some(EventKind::StillFailing { image: Some(image) })
        }
        "FailedToRetrieveImagePullSecret" => {
            let names = message.split_once('(')?.1.split_once(')')?.0;
            let names = names.split(',').map(|name| clean(name.trim(), 253));
            let names = names.filter(|name| !name.is_empty()).collect();
            Some(EventKind::SecretsMissing { names })
        }
        "ErrImageNeverPull" => {
            let (image, _) = named(message, &["Container image "])?;
            Some(EventKind::NeverPulled { image })
        }
        "InspectFailed" => {
            const BEGINNINGS: [&str; 2] = [
                "Failed to apply default image tag ",
                "Failed to inspect image ",
            ];
            let (image, rest) = named(message, &BEGINNINGS)?;
            let text = rest.strip_prefix(": ").unwrap_or(rest).to_owned();
            Some(EventKind::NotInspected { image, text })
        }
        // Other kubelets have other reasons; the words of a failed pull are the same.
        _ => pull_of(message),
    }
}

/// A failed pull under a reason that is not known: `failed to "StartContainer" for "app" with ErrImagePull: …`,
/// `Failed to pull image "X": …`.
fn pull_of(message: &str) -> Option<EventKind> {
    const WORDS: [&str; 3] = [
        "ailed to pull image",
        "ErrImagePull: ",
        "ImagePullBackOff: ",
    ];
    if !WORDS.iter().any(|words| message.contains(words)) {
        return None;
    }
    let unwrapped = wrapped::unwrapped(message);
    let image = unwrapped.image?;
    if unwrapped.text.is_empty() {
        return Some(EventKind::StillFailing { image: Some(image) });
    }
    let text = unwrapped.text.to_owned();
    Some(EventKind::Failed { image, text })
}

/// The sandbox of a pod can't be created for many reasons; its image is one.
fn sandbox(message: &str) -> Option<EventKind> {
    const WORDS: [&str; 6] = [
        "sandbox image",
        "ailed to pull image",
        "ulling image",
        "ailed to pull and unpack image",
        "initializing source",
        "pinging container registry",
    ];
    if !WORDS.iter().any(|words| message.contains(words)) {
        return None;
    }
    let unwrapped = wrapped::unwrapped(message);
    Some(EventKind::SandboxFailed {
        image: unwrapped.image?,
        text: unwrapped.text.to_owned(),
    })
}

fn pulled(message: &str) -> Option<EventKind> {
    if let Some((image, rest)) = named(message, &["Container image "]) {
        let is_present = rest.starts_with(" already present on machine");
        return is_present.then_some(EventKind::Present { image });
    }
    let (image, rest) = named(message, &["Successfully pulled image "])?;
    let rest = rest.strip_prefix(" in ")?;
    let end = rest.find(' ').unwrap_or(rest.len());
    let took = PullTimes {
        pulling: duration(&rest[..end])?,
        including_waiting: between(rest, "(", " including waiting").and_then(duration),
        size: between(rest, "Image size: ", " bytes")
            .and_then(|size| size.parse().ok())
            .filter(|size| *size > 0)
            .map(Bytes),
    };
    Some(EventKind::Pulled { image, took })
}

fn failed(message: &str) -> Option<EventKind> {
    if let Some((image, rest)) = named(message, &["Failed to pull image "]) {
        let text = rest.strip_prefix(": ").unwrap_or(rest).to_owned();
        return Some(EventKind::Failed { image, text });
    }
    let Some(state) = message.strip_prefix("Error: ") else {
        return pull_of(message);
    };
    if is_undecodable_secret(state) {
        let text = state.to_owned();
        return Some(EventKind::SecretUndecodable { text });
    }
    // Other container failures have the same reason.
    STATES
        .contains(&state)
        .then_some(EventKind::StillFailing { image: None })
}

/// The quoted image after one of these beginnings, and the rest of the message.
fn named<'a>(message: &'a str, beginnings: &[&str]) -> Option<(String, &'a str)> {
    let rest = beginnings
        .iter()
        .find_map(|beginning| message.strip_prefix(beginning))?;
    let (image, rest) = rest.strip_prefix('"')?.split_once('"')?;
    let is_name = image.len() <= LONGEST_IMAGE;
    is_name.then(|| (image.to_owned(), rest))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// The first bytes of a text, cut between characters.
pub(super) fn beginning(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Longer than any pull: a greater duration is ignored.
const LONGEST: Duration = Duration::from_hours(24);

/// Parses a duration as Go prints it: `313ms`, `1m2.3s`, `1h0m1.5s`, `4.5µs`. `None` if it is invalid,
/// negative or longer than a day.
pub fn duration(text: &str) -> Option<Duration> {
    let duration: SignedDuration = text.parse().ok()?;
    let duration = Duration::try_from(duration).ok()?;
    (duration <= LONGEST).then_some(duration)
}
