//! The kubelet's reasons for a waiting container, and the search for a name in a message.

/// Reasons of a container that waits for its image after a failed pull (kubernetes `pkg/kubelet/images/types.go`).
const IMAGE_REASONS: &[&str] = &[
    "ErrImagePull",
    "ImagePullBackOff",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

/// Whether a container waits for its image after a failed pull.
pub(super) fn is_of_image(reason: &str) -> bool {
    IMAGE_REASONS.contains(&reason) || is_undecodable_secret(reason)
}

/// Whether a text is a kubelet's error about a Secret of the pod that it can't decode. Since Kubernetes 1.33 it decodes
/// them before it looks for the image: the container's reason is then the error itself, and the Event is `Error: …`,
/// without an image (`makeLookupPullCredentialsFunc` in `pkg/kubelet/images/image_manager.go`).
pub fn is_undecodable_secret(text: &str) -> bool {
    let is_json = text.starts_with("invalid character ")
        && [
            " looking for beginning of ",
            " in string ",
            " after ",
            " in literal ",
            " in numeric ",
        ]
        .iter()
        .any(|words| text.contains(words));
    let is_type =
        text.starts_with("json: cannot unmarshal ") && text.contains(" credentialprovider.");
    is_json
        || is_type
        || text == "unexpected end of JSON input"
        || text.starts_with("illegal base64 data at input byte ")
        || text.starts_with("unable to parse auth field, must be formatted as ")
}

/// The pull policy is `Never`, and the image is not on the node (or the pod may not use it).
pub(super) const ERR_IMAGE_NEVER_PULL: &str = "ErrImageNeverPull";

/// The image is not a valid reference.
pub(super) const INVALID_IMAGE_NAME: &str = "InvalidImageName";

/// Reasons of a container that is still starting; they don't say for what it waits.
pub(super) const STARTING: &[&str] = &["ContainerCreating", "PodInitializing"];

/// Whether a text contains this name, and not only as part of a longer one.
pub(super) fn stands_in(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-/@".contains(c);
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let mut behind = text[at + name.len()..].chars();
            let goes_on = match behind.next() {
                // A tag follows. A colon and a blank end the name; what follows is the message.
                Some(':') => behind.next().is_some_and(is_part),
                Some(c) => is_part(c),
                None => false,
            };
            !goes_on && !text[..at].ends_with(is_part)
        })
}
