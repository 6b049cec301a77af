//! The kubelet's version, and what it decides about images that are already on the node.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::runtime::numbers;
use super::text::printable;

/// A kubelet's version as a Node states it in `status.nodeInfo.kubeletVersion`: `v1.35.2`, `v1.33.5-gke.1`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(transparent)]
pub struct KubeletVersion(String);

impl FromStr for KubeletVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let version = Self(text.trim().to_owned());
        let is_plain = version.0.len() <= 64 && version.0.bytes().all(|b| b.is_ascii_graphic());
        if is_plain && version.release().is_some() {
            return Ok(version);
        }
        Err(format!(
            "'{}' is not a kubelet's version: write it as `kubectl get node` shows it, for example v1.35.2",
            printable(text)
        ))
    }
}

impl fmt::Display for KubeletVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl KubeletVersion {
    /// Major and minor.
    fn release(&self) -> Option<(u16, u16)> {
        let mut numbers = numbers(&self.0);
        Some((numbers.next()??, numbers.next()??))
    }
}

/// What a kubelet does with an image that is on the node, unless the policy is Always.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PresentImages {
    /// Every pod may use it.
    Used,
    /// The kubelet may have to verify that the pod may use it: under IfNotPresent, with a pull. That depends on
    /// `imagePullCredentialsVerificationPolicy` and on the kubelet's records of pulls.
    MayBeVerified,
    /// The version is unknown, so this is unknown too.
    Unknown,
}

/// Since this release `KubeletEnsureSecretPulledImages` is on by default (kubernetes
/// `pkg/features/kube_features.go`; in 1.33 and 1.34 it is alpha and off).
const VERIFIES_SINCE: (u16, u16) = (1, 35);

/// What a kubelet of this version does with images that are on the node.
pub fn present_images(version: Option<&KubeletVersion>) -> PresentImages {
    match version.and_then(KubeletVersion::release) {
        None => PresentImages::Unknown,
        Some(release) if release >= VERIFIES_SINCE => PresentImages::MayBeVerified,
        Some(_) => PresentImages::Used,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn present_images_are_verified_since_1_35() {
        for (text, want) in [
            ("v1.20.2", PresentImages::Used),
            ("v1.25.3-r0-25.2.9", PresentImages::Used),
            ("v1.34.9", PresentImages::Used),
            ("1.34", PresentImages::Used),
            ("v1.35.0-alpha.1", PresentImages::MayBeVerified),
            ("v1.36.4+k3s1", PresentImages::MayBeVerified),
            ("2.0.0", PresentImages::MayBeVerified),
        ] {
            let version: KubeletVersion = text.parse().unwrap();
            assert_eq!(present_images(Some(&version)), want, "{text}");
            assert_eq!(version.to_string(), text);
        }
        assert_eq!(present_images(None), PresentImages::Unknown);
        for text in ["", "1", "v1.x", "latest", "containerd://1.7.24", "1.35 .0"] {
            assert!(text.parse::<KubeletVersion>().is_err(), "{text}");
        }
    }
}
