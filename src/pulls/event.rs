//! What an Event of a kubelet says of an image: in the words of all versions since Kubernetes 1.24
//! (`pkg/kubelet/images/image_manager.go`, `pkg/kubelet/kubelet_pods.go`).

use std::time::Duration;

use jiff::SignedDuration;

use crate::model::text::clean;
use crate::model::units::Bytes;

/// What it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventKind {
    Pulling {
        image: String,
    },
    Pulled {
        image: String,
        took: PullTimes,
    },
    /// The image was there; no request was sent for it. From Kubernetes 1.35 on the pod may use it, too.
    Present {
        image: String,
    },
    /// The pull has failed; the runtime's own words.
    Failed {
        image: String,
        text: String,
    },
    /// The next try has to wait. The image is not named where only the state is
    /// (`Error: ImagePullBackOff`).
    StillFailing {
        image: Option<String>,
    },
    /// The pod names Secrets that can't be read; the pull goes on without them.
    SecretsMissing {
        names: Vec<String>,
    },
    /// The policy is Never, and it is not there. From Kubernetes 1.35 on also where it is, and the pod's credential
    /// is not on record: the kubelet says the same, so as not to tell that the image is there.
    NeverPulled {
        image: String,
    },
    /// The image's name can't be used, or the runtime can't say whether it is there.
    NotInspected {
        image: String,
        text: String,
    },
}

/// How long a pull took.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PullTimes {
    /// From the question to the runtime to its answer, unpacking included. Before Kubernetes 1.28 the wait
    /// for other pulls too.
    pub pulling: Duration,
    /// Since 1.28: with the wait for other pulls.
    pub including_waiting: Option<Duration>,
    /// Since 1.30. containerd gives the size of the compressed layers, CRI-O and cri-dockerd what they take
    /// on the disk.
    pub size: Option<Bytes>,
}

impl PullTimes {
    /// How long it waited for other pulls; `None` where the kubelet does not tell the two apart.
    pub fn waiting(&self) -> Option<Duration> {
        self.including_waiting
            .map(|whole| whole.saturating_sub(self.pulling))
    }
}

impl EventKind {
    pub fn image(&self) -> Option<&str> {
        match self {
            Self::Pulling { image }
            | Self::Pulled { image, .. }
            | Self::Present { image }
            | Self::Failed { image, .. }
            | Self::NeverPulled { image }
            | Self::NotInspected { image, .. } => Some(image),
            Self::StillFailing { image } => image.as_deref(),
            Self::SecretsMissing { .. } => None,
        }
    }

    /// For a label: closed.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pulling { .. } => "pulling",
            Self::Pulled { .. } => "pulled",
            Self::Present { .. } => "present",
            Self::Failed { .. } => "failed",
            Self::StillFailing { .. } => "still_failing",
            Self::SecretsMissing { .. } => "secrets_missing",
            Self::NeverPulled { .. } => "never_pulled",
            Self::NotInspected { .. } => "not_inspected",
        }
    }
}

/// Longer messages are cut before anything is made of them: client-go's Events have 1 kB at most, others may
/// say what they like.
const MOST_READ: usize = 8 * 1024;

/// Longer names of images are none: a repository has 255 characters at most.
const LONGEST_IMAGE: usize = 1024;

/// What client-go puts before the message of ten alike (`EventAggregator`).
const COMBINED: &str = "(combined from similar events): ";

/// What an Event says of an image; `None`: nothing, or not in words that are known.
pub fn read(reason: &str, message: &str) -> Option<EventKind> {
    let message = beginning(message, MOST_READ);
    let message = message.strip_prefix(COMBINED).unwrap_or(message);
    match reason {
        "Pulling" => {
            let (image, _) = named(message, &["Pulling image ", "pulling image "])?;
            Some(EventKind::Pulling { image })
        }
        "Pulled" => pulled(message),
        "Failed" => failed(message),
        "BackOff" => {
            // Containers that crash have the same reason.
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
        _ => None,
    }
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
    let state = message.strip_prefix("Error: ")?;
    // Other failures of containers have the same reason.
    ["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"]
        .contains(&state)
        .then_some(EventKind::StillFailing { image: None })
}

/// The image that is quoted behind one of these beginnings, and what comes then.
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

/// A day is longer than any pull: what says more is no pull's time.
const LONGEST: Duration = Duration::from_hours(24);

/// A duration as Go prints it: `313ms`, `1m2.3s`, `1h0m1.5s`, `4.5µs`.
pub fn duration(text: &str) -> Option<Duration> {
    let duration: SignedDuration = text.parse().ok()?;
    let duration = Duration::try_from(duration).ok()?;
    (duration <= LONGEST).then_some(duration)
}
