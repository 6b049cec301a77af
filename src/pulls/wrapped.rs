//! Removes what kubelets, runtimes and their clients put around the error of a pull, and finds the image that a
//! message is about.

use crate::model::reference::Reference;

/// A message without its wrappers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Unwrapped<'a> {
    /// The image, as the message has it.
    pub(super) image: Option<String>,
    /// The error itself; empty if the message has only the state.
    pub(super) text: &'a str,
    /// The image is that of the pod's sandbox, which the runtime pulls for itself.
    pub(super) is_sandbox: bool,
}

/// client-go's prefix for the tenth and later similar Events (`EventAggregator`).
pub(super) const COMBINED: &str = "(combined from similar events): ";

/// States of a container that waits for its image; the kubelet writes them before the error.
pub(super) const STATES: [&str; 8] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "RegistryUnavailable",
    "SignatureValidationFailed",
    "InvalidImageName",
    "ImageInspectError",
    "ImagePull",
];

/// Longer image names are invalid: a repository has at most 255 characters.
const LONGEST_IMAGE: usize = 1024;

/// The error within a message, and its image.
pub(super) fn unwrapped(message: &str) -> Unwrapped<'_> {
    let image = image_of(message);
    let is_sandbox = [
        "sandbox image",
        "create pod sandbox",
        "CreatePodSandbox",
        "RunPodSandbox",
        "creating pod sandbox",
    ]
    .iter()
    .any(|words| message.contains(words));
    let mut text = message.trim();
    while let Some(rest) = without_first(text) {
        text = rest.trim();
    }
    Unwrapped {
        image,
        text,
        is_sandbox,
    }
}

/// The text behind its first wrapper; `None` if it begins with none.
fn without_first(text: &str) -> Option<&str> {
    const WORDS: [&str; 18] = [
        COMBINED,
        "Error syncing pod, skipping: ",
        "Error syncing pod: ",
        "error: ",
        "Error: ",
        "ERROR: ",
        "ctr: ",
        "crictl: ",
        "docker: ",
        "Warning: ",
        "pulling image failed: ",
        "pulling image: ",
        "pull image failed: ",
        "Failed to create pod sandbox: ",
        "Failed create pod sandbox: ",
        "failed to create pod sandbox: ",
        "unable to pull image or OCI artifact: pull image err: ",
        "unable to pull image or OCI artifact: ",
    ];
    const NAMED: [&str; 7] = [
        "Failed to pull image ",
        "failed to pull image ",
        "Failed to inspect image ",
        "Failed to apply default image tag ",
        "Back-off pulling image ",
        "failed to get sandbox image ",
        "pulling image ",
    ];
    if let Some(rest) = WORDS.iter().find_map(|word| text.strip_prefix(word)) {
        return Some(rest);
    }
    // `ErrImagePull: …`, also with a list of errors or in quotes.
    if let Some(rest) = STATES.iter().find_map(|state| text.strip_prefix(state)) {
        if let Some(rest) = rest.strip_prefix(": ") {
            return Some(rest);
        }
        // A pod's status may end with the state alone.
        return rest.trim().is_empty().then_some("");
    }
    for words in NAMED {
        if let Some((_, rest)) = text.strip_prefix(words).and_then(quoted) {
            return Some(rest.strip_prefix(':').unwrap_or(rest));
        }
    }
    // `failed to "StartContainer" for "app" with ErrImagePull: "…"`
    if text.starts_with("failed to \"")
        && let Some((_, rest)) = text.split_once(" with ")
        && STATES.iter().any(|state| rest.starts_with(state))
    {
        let (_, error) = rest.split_once(": ")?;
        let error = error.trim();
        let inner = error.strip_prefix('"').unwrap_or(error);
        return Some(inner.strip_suffix('"').unwrap_or(inner));
    }
    None
}

/// A quoted text, and what is behind it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (quoted, rest) = text.strip_prefix('"')?.split_once('"')?;
    (quoted.len() <= LONGEST_IMAGE).then_some((quoted, rest))
}

// ---- the image ----------------------------------------------------------------------------------

/// The image that a message is about. The pod's own spelling is first: the kubelet writes it in quotes.
pub(super) fn image_of(message: &str) -> Option<String> {
    const QUOTED: [&str; 9] = [
        "ull image \"",
        "ulling image \"",
        "default image tag \"",
        "inspect image \"",
        "sandbox image \"",
        "Container image \"",
        "unpack image \"",
        "resolve reference \"",
        "PullImage \"",
    ];
    let plain = message.replace("\\\"", "\"");
    let of_quotes = QUOTED.iter().filter_map(|words| {
        let at = plain.find(words)?;
        let (image, _) = plain[at + words.len()..].split_once('"')?;
        let is_name = !image.is_empty() && image.len() <= LONGEST_IMAGE;
        is_name.then(|| (at, image.to_owned()))
    });
    of_quotes
        .min_by_key(|(at, _)| *at)
        .map(|(_, image)| image)
        .or_else(|| of_words(&plain))
        .or_else(|| of_manifest(&plain))
        .or_else(|| of_url(&plain))
}

/// Unquoted names behind the words of clients.
fn of_words(text: &str) -> Option<String> {
    const BEFORE: [&str; 19] = [
        "docker://",
        "image=\"",
        "image=",
        "Trying to pull ",
        "load metadata for ",
        "resolve source metadata for ",
        "pull access denied for ",
        "manifest for ",
        "image pull failed for ",
        "Unable to find image '",
        "crictl pull ",
        "docker pull ",
        "podman pull ",
        "nerdctl pull ",
        "images pull ",
        "Pulling image ",
        "pulling image ",
        "ailed to pull image ",
        "ailed to pull ",
    ];
    let found = BEFORE.iter().filter_map(|before| {
        let at = text.find(before)?;
        let rest = &text[at + before.len()..];
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ','));
        let name = rest[..end.unwrap_or(rest.len())].trim_end_matches(['.', ':', ';', ')']);
        let is_name = name.len() <= LONGEST_IMAGE
            && name.contains(['/', ':', '@'])
            && !name.contains("://")
            && name.parse::<Reference>().is_ok();
        is_name.then(|| (at, name.to_owned()))
    });
    found.min_by_key(|(at, _)| *at).map(|(_, name)| name)
}

/// `reading manifest TAG in REPOSITORY: …`
fn of_manifest(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("reading manifest ")?;
    let mut words = rest.split_whitespace();
    let version = words.next()?;
    let repository = (words.next()? == "in").then(|| words.next())??;
    let repository = repository.trim_end_matches(':');
    let name = if version.contains(':') {
        format!("{repository}@{version}")
    } else {
        format!("{repository}:{version}")
    };
    name.parse::<Reference>().is_ok().then_some(name)
}

/// `https://HOST/v2/NAME/manifests/TAG`; `ns` names the registry behind a mirror.
fn of_url(text: &str) -> Option<String> {
    let at = text.find("/v2/")?;
    let begin = text[..at].rfind("://")? + 3;
    let host = &text[begin..at];
    let rest = &text[at + 4..];
    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\\' | '<'));
    let path = &rest[..end.unwrap_or(rest.len())];
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let host = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("ns="))
        .unwrap_or(host);
    let host = match host {
        "registry-1.docker.io" | "index.docker.io" => "docker.io",
        host => host,
    };
    let (name, version) = path
        .trim_end_matches([':', ','])
        .split_once("/manifests/")?;
    let name = if version.contains(':') {
        format!("{host}/{name}@{version}")
    } else {
        format!("{host}/{name}:{version}")
    };
    let is_name = name.len() <= LONGEST_IMAGE && name.parse::<Reference>().is_ok();
    is_name.then_some(name)
}
