//! Which manifest of an index a node pulls.

use super::descriptor::Entry;
use crate::model::platform::Platform;

/// The entries that containerd pulls for a platform. containerd 1 takes one: the closest that the machine can run
/// (containerd/platforms, `Only`), the first of equals, one without a platform last. containerd 2.1 (`exactly`) takes
/// all entries that match the platform itself or have none. Versions of an operating system are not compared.
pub fn select<'a>(entries: &'a [Entry], wanted: &Platform, exactly: bool) -> Vec<&'a Entry> {
    let acceptable = acceptable(wanted);
    let rank = |entry: &Entry| match &entry.platform {
        None => Some(acceptable.len()),
        Some(platform) => acceptable.iter().position(|p| p == platform),
    };
    if exactly {
        let is_taken = |entry: &&Entry| {
            !entry.wants_features
                && matches!(rank(entry), Some(rank) if rank == 0 || entry.platform.is_none())
        };
        return entries.iter().filter(is_taken).collect();
    }
    entries
        .iter()
        .filter_map(|entry| Some((rank(entry)?, entry)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, entry)| entry)
        .into_iter()
        .collect()
}

/// The platforms that a machine of this platform can run, best first.
pub(super) fn acceptable(wanted: &Platform) -> Vec<Platform> {
    let mut list = vec![Platform::normalized(
        &wanted.os,
        &wanted.architecture,
        wanted.variant.as_deref(),
    )];
    let mut add = |architecture: &str, variant: Option<String>| {
        list.push(Platform::normalized(
            &wanted.os,
            architecture,
            variant.as_deref(),
        ));
    };
    let wanted_variant = wanted.variant.as_deref();
    match wanted.architecture.as_str() {
        "amd64" => {
            for level in (1..number(wanted_variant).unwrap_or(0)).rev() {
                add("amd64", Some(format!("v{level}")));
            }
            add("386", None);
        }
        "arm" => {
            for version in (5..number(wanted_variant).unwrap_or(0)).rev() {
                add("arm", Some(format!("v{version}")));
            }
        }
        "arm64" => {
            let variant = wanted_variant.unwrap_or("v8");
            let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
            let Some(major) = number(Some(major)) else {
                return list;
            };
            let mut minor = number(Some(minor)).unwrap_or(0);
            let named = |major: u8, minor: u8| match minor {
                0 => format!("v{major}"),
                _ => format!("v{major}.{minor}"),
            };
            if major == 9 {
                for lower in (0..minor).rev() {
                    add("arm64", Some(named(9, lower)));
                }
                // Armv9.0 corresponds to Armv8.5.
                minor += 5;
                add("arm64", Some(named(8, minor)));
            }
            if major == 8 || major == 9 {
                for lower in (0..minor).rev() {
                    add("arm64", Some(named(8, lower)));
                }
            }
            // v9 itself is also tried as 32-bit v9; v8.x and v9.x are tried as v8.
            let version = if variant.contains('.') { 8 } else { major };
            for version in (5..=version).rev() {
                add("arm", Some(format!("v{version}")));
            }
        }
        _ => {}
    }
    list
}

/// 3 for `v3`. Levels and versions have one or two digits.
fn number(variant: Option<&str>) -> Option<u8> {
    let variant = variant?;
    let digits = variant.strip_prefix('v').unwrap_or(variant);
    digits.parse().ok().filter(|n| *n < 100)
}
