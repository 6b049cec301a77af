//! Explains pasted error messages: the cause of each, where it is, and what to do. Nothing is contacted.

use crate::diagnose::catalogue::Cause;
use crate::model::reference::Reference;
use crate::redact::shown;

use super::advice;
use super::event::{self, EventKind};
use super::failure::{self, ParsedFailure};
use super::paste::{self, MOST_PASTED, Pasted};
use super::wrapped::{self, STATES};
use crate::diagnose::level::Confidence;

/// The maximum number of messages that are answered.
pub const MOST_ANSWERS: usize = 50;

/// The answer to one message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// The message, with secrets masked, at most 1,024 characters.
    pub text: String,
    /// The image; `None` if the message names none.
    pub image: Option<String>,
    /// The node that reported it.
    pub node: Option<String>,
    /// How often the paste has it.
    pub count: usize,
    /// What the message shows.
    pub failure: ParsedFailure,
    /// The facts in it.
    pub facts: Vec<String>,
    /// What would decide between its causes.
    pub decider: Option<String>,
    /// What to do.
    pub hint: String,
    /// The command that would prove the cause; `None` if no registry is at fault, or the image is unknown.
    pub probe: Option<String>,
}

/// The answers to a paste.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Answers {
    /// One for each message, in order, those with a cause first; repeated ones once.
    pub all: Vec<Answer>,
    /// Messages beyond the maximum.
    pub omitted: usize,
}

/// Why a text is not explained.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PasteError {
    /// Nothing but white space.
    #[error("the text is empty; paste the error message of a pull")]
    Empty,
    /// Longer than 256 KiB.
    #[error("the text is longer than {} KiB; paste only the lines with the error", MOST_PASTED / 1024)]
    TooLong,
}

/// A message that was read, before it is answered.
struct Read {
    pasted: Pasted,
    image: Option<String>,
    /// The image with its domain and tag.
    name: Option<String>,
    failure: ParsedFailure,
    /// It has only the state, such as `ImagePullBackOff`.
    is_state: bool,
    /// Its words are about a pull.
    is_of_pull: bool,
}

/// Explains a pasted text.
///
/// # Errors
/// If it is empty or longer than [`MOST_PASTED`].
pub fn explain(text: &str) -> Result<Answers, PasteError> {
    if text.trim().is_empty() {
        return Err(PasteError::Empty);
    }
    if text.len() > MOST_PASTED {
        return Err(PasteError::TooLong);
    }
    let mut all: Vec<Read> = paste::messages(text).into_iter().map(read).collect();
    // The runtime did not create the container in time: its image is on the node.
    if ["CreateContainer", "RunContainer"]
        .iter()
        .any(|words| text.contains(words))
    {
        for one in all
            .iter_mut()
            .filter(|one| is_only_an_end(&one.pasted.text))
        {
            one.failure = ParsedFailure::default();
        }
    }
    // Lines around an error say less than the error.
    let has_cause = all.iter().any(|one| one.failure.cause.is_some());
    let has_error = has_cause || all.iter().any(|one| one.is_of_pull && !one.is_state);
    all.retain(|one| {
        let is_answer = one.failure.cause.is_some() || (one.is_of_pull && !one.is_state);
        is_answer || !has_error
    });
    let is_end = all.iter().any(|one| is_only_an_end(&one.pasted.text));
    if !has_error && !is_end {
        // The lines may belong together, in a form that is not known.
        let whole = read(Pasted {
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
            ..Pasted::default()
        });
        if whole.failure.cause.is_some() {
            all = vec![whole];
        }
    }
    // A log has lines about a pull beside the one with its error.
    let named = |one: &Read| one.failure.cause.is_some();
    if has_cause {
        let images: Vec<Option<String>> = all
            .iter()
            .filter(|one| named(one))
            .map(|one| one.image.clone())
            .collect();
        all.retain(|one| named(one) || (one.image.is_some() && !images.contains(&one.image)));
    }
    Ok(answers(all))
}

fn read(pasted: Pasted) -> Read {
    let unwrapped = wrapped::unwrapped(&pasted.text);
    let mut image = unwrapped.image.or_else(|| pasted.image.clone());
    let is_sandbox =
        unwrapped.is_sandbox || pasted.reason.as_deref() == Some("FailedCreatePodSandBox");
    let inner = unwrapped.text;
    let is_state = inner.is_empty() || STATES.contains(&inner);
    let mut failure = ParsedFailure::default();
    let event = pasted
        .reason
        .as_deref()
        .and_then(|reason| event::read(reason, &pasted.text));
    match event {
        Some(EventKind::Pulling { .. } | EventKind::Pulled { .. } | EventKind::Present { .. }) => {
            return Read {
                pasted,
                image,
                name: None,
                failure,
                is_state: true,
                is_of_pull: false,
            };
        }
        Some(EventKind::SecretUndecodable { .. }) => {
            failure = ParsedFailure::certain(Cause::SecretFormat);
        }
        _ if is_of_pull_secret(&pasted) => failure = of_pull_secret(&pasted.text),
        _ if is_never(&pasted.text) => failure = ParsedFailure::certain(Cause::NoPull),
        // The kubelet's Event about a container that was not created; that about a pull names the image.
        _ if pasted.reason.as_deref() == Some("Failed") && is_only_an_end(&pasted.text) => {}
        _ if !is_state && !is_of_something_else(&pasted.text) => {
            failure = failure::judge(image.as_deref().unwrap_or_default(), inner);
            failure.is_sandbox = is_sandbox;
            if failure.cause.is_none()
                && let Some(beside) = &pasted.beside
                && !is_of_something_else(beside)
            {
                let beside = wrapped::unwrapped(beside).text;
                failure = failure::judge(image.as_deref().unwrap_or_default(), beside);
                failure.is_sandbox = is_sandbox;
            }
            let is_of_sandbox_alone = is_sandbox && image.is_none() && !is_of_pull(&pasted.text);
            if is_of_sandbox_alone && !failure.is_on_node() {
                failure = ParsedFailure::default();
            }
            if image.is_none() && !has_words_of_pull(&pasted.text) {
                failure = without_proof(failure, &pasted.text);
            }
        }
        _ if inner == "InvalidImageName" || pasted.text.contains("InvalidImageName") => {
            failure = ParsedFailure::certain(Cause::ImageNameInvalid);
        }
        _ => {}
    }
    image = image.map(|image| shown(&image));
    let is_of_pull = is_of_pull(&pasted.text);
    let name = image.as_ref().map(|image| {
        let reference = image.parse::<Reference>();
        reference.map_or_else(|_| image.clone(), |name| name.to_string())
    });
    Read {
        pasted,
        image,
        name,
        failure,
        is_state,
        is_of_pull,
    }
}

/// Whether a text has no more than how something ended.
fn is_only_an_end(text: &str) -> bool {
    let text = text.trim().trim_start_matches("Error: ");
    ["context deadline exceeded", "context canceled"].contains(&text)
}

/// The kubelet's messages about a pod's Secret that it can't read (`getPullSecretsForPod`).
fn is_of_pull_secret(pasted: &Pasted) -> bool {
    const WORDS: [&str; 2] = [
        "Unable to retrieve some image pull secrets",
        "Unable to retrieve pull secret",
    ];
    let beside = pasted.beside.as_deref().unwrap_or_default();
    let mut all = WORDS.iter();
    all.any(|words| pasted.text.contains(words) || beside.contains(words))
}

/// Why the kubelet could not read a pod's Secret: its log has the reason, its Event has none.
fn of_pull_secret(text: &str) -> ParsedFailure {
    // Its cache of Secrets (`pkg/kubelet/util/manager`), or the API server.
    const UNREAD: [&str; 6] = [
        "failed to sync secret cache",
        "not registered",
        "is forbidden",
        "dial tcp",
        "timed out",
        "deadline exceeded",
    ];
    if UNREAD.iter().any(|words| text.contains(words)) {
        return ParsedFailure::certain(Cause::SecretUnread);
    }
    if text.contains("not found") {
        return ParsedFailure::certain(Cause::SecretMissing);
    }
    ParsedFailure {
        or: vec![Cause::SecretUnread],
        confidence: Some(Confidence::Medium),
        ..ParsedFailure::certain(Cause::SecretMissing)
    }
}

/// The kubelet's messages about a ConfigMap or Secret that it has not read yet, for a volume or a variable.
fn is_unread_object(text: &str) -> bool {
    let is_unregistered = text.contains("object \"") && text.contains("\" not registered");
    is_unregistered
        || [
            "failed to sync secret cache",
            "failed to sync configmap cache",
        ]
        .iter()
        .any(|words| text.contains(words))
}

/// Whether a text has words of a pull, or a registry's URL.
fn has_words_of_pull(text: &str) -> bool {
    const WORDS: [&str; 23] = [
        "from daemon",
        "pull",
        "/v2/",
        "/v1/",
        "manifest",
        "registry",
        "image",
        "blob",
        "layer",
        "docker",
        "containerd",
        "crictl",
        "cri-o",
        "crio",
        "podman",
        "skopeo",
        "sandbox",
        "reference",
        "snapshot",
        "repository",
        "metadata for",
        "service=",
        "scope=repository",
    ];
    let lower = text.to_ascii_lowercase();
    WORDS.iter().any(|words| lower.contains(words))
}

/// What a text shows that has no words of a pull: other programs report the same errors. A URL that is no
/// registry's shows that it is about one of them.
fn without_proof(failure: ParsedFailure, text: &str) -> ParsedFailure {
    if text.contains("://") && !failure.is_on_node() {
        return ParsedFailure::default();
    }
    // Words that only a runtime has.
    let is_of_runtime = failure.is_on_node()
        && !matches!(failure.cause, Some(Cause::DiskFull | Cause::RuntimeFault))
        || failure.cause == Some(Cause::HostsTomlInvalid)
        || failure.cause == Some(Cause::ArtifactNotImage);
    if is_of_runtime {
        return failure;
    }
    ParsedFailure {
        confidence: failure.confidence.min(Some(Confidence::Medium)),
        ..failure
    }
}

/// The kubelet's message about an image with the policy Never.
fn is_never(text: &str) -> bool {
    text.contains("is not present with pull policy of Never") || text.contains("ErrImageNeverPull")
}

/// Whether a text is about a probe, a volume, a container or a pod's network, whose errors have the same words.
fn is_of_something_else(text: &str) -> bool {
    const PULLS: [&str; 16] = [
        "ull image",
        "ulling image",
        "ull and unpack",
        "PullImage",
        "ErrImagePull",
        "ImagePullBackOff",
        "sandbox image",
        "/v2/",
        "manifest for",
        "reading manifest",
        "docker pull",
        "resolve reference",
        "container registry",
        "initializing source",
        "ctr: ",
        "pull access",
    ];
    const OTHERS: [&str; 29] = [
        "failed to reserve container name",
        "failed to reserve sandbox name",
        "is already in use by container",
        "failed to create containerd container",
        "failed to start containerd container",
        "failed to create containerd task",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
        "dockershim.sock: connect: no such file",
        "Error while dialing dial tcp",
        "Error while dialing: dial tcp",
        "client rate limiter Wait",
        "/csi.sock",
        "/api/v1/",
        "/apis/",
        "googleapi: ",
        "probe failed",
        "probe errored",
        "failed to setup network for sandbox",
        "failed to set up sandbox container",
        "NetworkPlugin cni",
        "plugin type=\"",
        "MountVolume.",
        "AttachVolume.",
        "Unable to attach or mount volumes",
        "failed calling webhook",
        "unable to tag image",
        "Cannot start service",
    ];
    // A push sends the same requests to other paths, and gets the same errors.
    const PUSHES: [&str; 6] = [
        "/blobs/uploads/",
        "PUT https://",
        "Put \"https://",
        "Pushing image",
        "The push refers to repository",
        "failed to push",
    ];
    let is_of_push = PUSHES.iter().any(|words| text.contains(words));
    if is_of_push && !text.contains("ull image") && !text.contains("ulling image") {
        return true;
    }
    OTHERS.iter().any(|words| text.contains(words))
        && !PULLS.iter().any(|words| text.contains(words))
}

/// Whether a text reports the failure of a pull.
fn is_of_pull(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    has(&[
        "fail",
        "error",
        "denied",
        "unauthorized",
        "back-off",
        "backoff",
        "cannot",
        "unable",
    ]) && has(&["pull", "image", "manifest", "registry", "layer", "blob"])
}

fn answers(all: Vec<Read>) -> Answers {
    let mut answers = Answers::default();
    let mut before: Vec<Read> = Vec::new();
    let mut counts: Vec<usize> = Vec::new();
    for one in all {
        if let Some(place) = before.iter().position(|known| is_same(known, &one)) {
            counts[place] += 1;
        } else if before.len() < MOST_ANSWERS {
            before.push(one);
            counts.push(1);
        } else {
            answers.omitted += 1;
        }
    }
    let pairs = before.into_iter().zip(counts);
    answers.all = pairs.map(|(one, count)| answer(one, count)).collect();
    // Of several messages about an image, the clearest first.
    let clearest = |one: &Answer| {
        let same = |other: &&Answer| other.image == one.image;
        let all = answers.all.iter().filter(same);
        all.filter_map(|other| other.failure.confidence).max()
    };
    let is_vague: Vec<bool> = answers
        .all
        .iter()
        .map(|one| {
            one.failure.confidence == Some(Confidence::Low) && clearest(one) > Some(Confidence::Low)
        })
        .collect();
    let mut pairs: Vec<(bool, Answer)> = is_vague.into_iter().zip(answers.all).collect();
    pairs.sort_by_key(|(is_vague, one)| (one.failure.cause.is_none(), *is_vague));
    answers.all = pairs.into_iter().map(|(_, one)| one).collect();
    answers
}

/// Whether two messages report the same: ports and times differ from one to the next.
fn is_same(one: &Read, other: &Read) -> bool {
    if one.pasted.node != other.pasted.node
        && one.pasted.node.is_some()
        && other.pasted.node.is_some()
    {
        return false;
    }
    if one.failure.cause.is_none() || other.failure.cause.is_none() {
        return one.pasted.text == other.pasted.text;
    }
    let is_one_image = match (&one.name, &other.name) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    let failures = (&one.failure, &other.failure);
    is_one_image
        && failures.0.cause == failures.1.cause
        && failures.0.host == failures.1.host
        && failures.0.status == failures.1.status
}

fn answer(read: Read, count: usize) -> Answer {
    let Read {
        pasted,
        image,
        failure,
        is_state,
        ..
    } = read;
    let name = image.as_deref().unwrap_or_default();
    let node = pasted.node.as_deref().unwrap_or_default();
    let is_known = name.parse::<Reference>().is_ok();
    let probe = (is_known && !failure.is_on_node()).then(|| format!("pullpath probe {name}"));
    let hint = match failure.cause {
        None if is_state => "This line has only the state. The cause is in the Event with the reason Failed: `kubectl describe pod POD`, or run `pullpath why POD`.".to_owned(),
        None if is_unread_object(&pasted.text) => "This is not about an image: the kubelet has not read a ConfigMap or Secret that a volume or variable of the pod names, as happens just after its start or while a pod is deleted. It tries again by itself. If it lasts, look at the kubelet's connection to the API server (`journalctl -u kubelet` on the node).".to_owned(),
        None if !is_known => "The text matches no known message. Paste the whole error, from `Failed to pull image` on, or run `pullpath probe IMAGE` on the node.".to_owned(),
        _ if !is_known => advice::hint(&failure, "IMAGE", node),
        _ => advice::hint(&failure, name, node).replace(" IMAGE`", &format!(" {name}`")),
    };
    Answer {
        text: shown(&pasted.text),
        facts: advice::facts(&failure, name),
        decider: advice::decider(&failure).map(str::to_owned),
        hint,
        probe,
        image,
        node: pasted.node,
        count,
        failure,
    }
}
