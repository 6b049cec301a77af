//! The kubelet's words for a container that waits, and how a text names one thing and not another.

/// The reasons with which a kubelet waits for an image (kubernetes `pkg/kubelet/images/types.go`).
pub(super) const IMAGE_REASONS: &[&str] = &[
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

/// The policy is Never, and the image is not there (or the pod may not use it).
pub(super) const ERR_IMAGE_NEVER_PULL: &str = "ErrImageNeverPull";

pub(super) const INVALID_IMAGE_NAME: &str = "InvalidImageName";

/// Reasons that say no more than that something goes on.
pub(super) const STARTING: &[&str] = &["ContainerCreating", "PodInitializing"];

/// Whether a text has this name, and not a longer one that begins or ends with it.
pub(super) fn stands_in(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-/@".contains(c);
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let mut behind = text[at + name.len()..].chars();
            let goes_on = match behind.next() {
                // A tag; behind a name alone, a colon and a blank begin what is said of it.
                Some(':') => behind.next().is_some_and(is_part),
                Some(c) => is_part(c),
                None => false,
            };
            !goes_on && !text[..at].ends_with(is_part)
        })
}
