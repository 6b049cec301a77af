//! The operating system and processor that an image is built for.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An OCI platform, normalized as containerd does (`x86_64` is `amd64`, `aarch64` is `arm64`).
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub struct Platform {
    /// `os`: `linux`, `windows`.
    pub os: String,
    /// `architecture`, in Go's terms: `amd64`, `arm64`, `arm`.
    pub architecture: String,
    /// `variant`: `v7` for 32-bit ARM. Absent if there is none, or it is the default of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform that this program was built for.
    pub fn local() -> Self {
        Self::normalized("linux", std::env::consts::ARCH, None)
    }

    /// Applies containerd's aliases to a platform as users write it.
    pub fn normalized(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let variant = variant
            .filter(|v| !v.is_empty())
            .map(str::to_ascii_lowercase);
        let architecture = architecture.to_ascii_lowercase();
        let (architecture, variant) = match architecture.as_str() {
            "x86_64" | "x86-64" | "amd64" => ("amd64", variant.filter(|v| v != "v1")),
            "i386" | "x86" | "386" => ("386", None),
            // v8 is the default variant of arm64.
            "aarch64" | "arm64" => ("arm64", variant.filter(|v| v != "8" && v != "v8")),
            "armhf" => ("arm", Some("v7".to_owned())),
            "armel" => ("arm", Some("v6".to_owned())),
            "arm" => (
                "arm",
                Some(variant.map_or("v7".to_owned(), |v| {
                    if v.starts_with('v') {
                        v
                    } else {
                        format!("v{v}")
                    }
                })),
            ),
            other => (other, variant),
        };
        Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_owned(),
            variant,
        }
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "platform '{text}' is not of the form os/architecture[/variant], for example linux/arm64"
            )
        };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|p| {
            p.is_empty()
                || !p
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        }) {
            return Err(wrong());
        }
        match parts[..] {
            [os, architecture] => Ok(Self::normalized(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::normalized(os, architecture, Some(variant))),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_read_with_the_aliases_of_containerd() {
        for (text, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), shown);
        }
        for wrong in ["", "amd64", "linux/", "linux/amd64/v1/x", "linux/am d64"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }
}
