//! Checks the annotations by which a pod in CCE Turbo or Autopilot requests an EIP of its own (Huawei Cloud, CCE user
//! guide, "Configuring an EIP for a Pod": cce_10_0734, cce_11_0734).

use serde_json::{Map, Value};
use strsim::levenshtein;

use crate::model::text::printable;
use crate::model::workload::{EipFault, EipProblem};

const PREFIX: &str = "yangtse.io/";

/// `true` or `false`; unless it is `true`, the others have no effect.
const POD_WITH_EIP: &str = "yangtse.io/pod-with-eip";

/// All keys of the network plugin, without the prefix.
const KEYS: &[&str] = &[
    "pod-with-eip",
    "eip-bandwidth-size",
    "eip-network-type",
    "eip-charge-mode",
    "eip-bandwidth-name",
    "eip-bandwidth-id",
    "eip-id",
    "eip-pool",
    "static-eip",
    "static-eip-expire-duration",
    "static-eip-expire-no-cascading",
    "allocated-ipv4-eip",
    "security-group-ids",
    "additional-security-group-ids",
    "enable-pod-network-status",
];

/// Keys that are allowed together with a shared bandwidth.
const WITH_SHARED: &[&str] = &["pod-with-eip", "eip-network-type", "eip-bandwidth-id"];

/// Checks the annotations of a pod or of a pod template.
pub fn check(annotations: &Map<String, Value>) -> Vec<EipProblem> {
    let mut problems = Vec::new();
    let mut note = |key: &str, fault| {
        problems.push(EipProblem {
            key: printable(key),
            fault,
        });
    };
    let text = |name: &str| annotations.get(&format!("{PREFIX}{name}"))?.as_str();
    let by_traffic = text("eip-charge-mode") == Some("traffic");
    for (key, value) in annotations.iter().take(MAX_KEYS) {
        let Some(name) = key.strip_prefix(PREFIX).filter(|name| KEYS.contains(name)) else {
            if let Some(nearest) = typo(key) {
                note(key, EipFault::UnknownKey { nearest });
            }
            continue;
        };
        let fault = match value.as_str() {
            Some(text) => judge(name, text, by_traffic),
            None => Some(EipFault::InvalidValue {
                value: shown(value),
                wanted: "it in quotes: the API server accepts only strings as annotations"
                    .to_owned(),
            }),
        };
        if let Some(fault) = fault {
            note(key, fault);
        }
    }
    let has = |name: &str| annotations.contains_key(&format!("{PREFIX}{name}"));
    if has("eip-bandwidth-id") {
        for name in KEYS.iter().filter(|n| n.starts_with("eip-") && has(n)) {
            if !WITH_SHARED.contains(name) {
                note(&format!("{PREFIX}{name}"), EipFault::NotWithSharedBandwidth);
            }
        }
    }
    // Keys that configure an EIP which only `pod-with-eip` requests; these two name an existing EIP.
    let shapes = |name: &&&str| {
        let is_own = name.starts_with("eip-") || name.starts_with("static-eip");
        is_own && !["eip-id", "eip-pool"].contains(*name)
    };
    let shaping = KEYS.iter().filter(shapes).filter(|name| has(name));
    let keys: Vec<String> = shaping.map(|name| format!("{PREFIX}{name}")).collect();
    // A value that is not a string was reported above.
    let switch = annotations.get(POD_WITH_EIP);
    let is_off = switch.is_none_or(|value| matches!(value.as_str(), Some("false" | "")));
    if is_off && !keys.is_empty() && !has("eip-id") && !has("eip-pool") {
        note(POD_WITH_EIP, EipFault::WithoutEffect { keys });
    }
    problems
}

/// The plugin's keys on a workload itself, where they have no effect. `None`: there are none.
pub fn misplaced(kind: &str, annotations: &Map<String, Value>) -> Option<EipProblem> {
    let is_ours = |key: &&String| key.strip_prefix(PREFIX).is_some_and(|n| KEYS.contains(&n));
    let keys: Vec<String> = annotations.keys().filter(is_ours).cloned().collect();
    (!keys.is_empty()).then(|| EipProblem {
        key: printable(kind),
        fault: EipFault::Misplaced { keys },
    })
}

/// Checks one value against the table of the documentation.
fn judge(name: &str, value: &str, by_traffic: bool) -> Option<EipFault> {
    let invalid = |wanted: &str| {
        Some(EipFault::InvalidValue {
            value: value.to_owned(),
            wanted: wanted.to_owned(),
        })
    };
    let unusual = |usual: &str| {
        Some(EipFault::UnusualValue {
            value: value.to_owned(),
            usual: usual.to_owned(),
        })
    };
    match name {
        "pod-with-eip"
        | "static-eip"
        | "static-eip-expire-no-cascading"
        | "enable-pod-network-status" => match value {
            "true" | "false" => None,
            _ => invalid("\"true\" or \"false\""),
        },
        "eip-bandwidth-size" => {
            let (most, words) = if by_traffic {
                (300, "1 to 300 Mbit/s when charged by traffic")
            } else {
                (2000, "1 to 2000 Mbit/s when charged by bandwidth")
            };
            match value.parse::<u32>() {
                Ok(0) | Err(_) => invalid("a whole number of Mbit/s, for instance \"5\""),
                Ok(size) if size > most => unusual(words),
                Ok(_) => None,
            }
        }
        "eip-network-type" => match value {
            "5_bgp" | "5_sbgp" => None,
            _ if is_word(value) => unusual("5_bgp or 5_sbgp"),
            _ => invalid("a type of EIP of your region, for instance \"5_bgp\""),
        },
        "eip-charge-mode" => match value {
            "bandwidth" | "traffic" => None,
            _ => invalid("\"bandwidth\" or \"traffic\""),
        },
        "eip-bandwidth-name" => {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if (1..=64).contains(&value.chars().count()) && value.chars().all(fits) {
                None
            } else {
                invalid("1 to 64 letters, digits, '-', '_' or '.'")
            }
        }
        "static-eip-expire-duration" => match value.parse::<jiff::SignedDuration>() {
            Ok(duration) if duration.is_positive() => None,
            _ => invalid("a duration, for instance \"5m\" or \"1h30m\""),
        },
        "allocated-ipv4-eip" => Some(EipFault::WrittenBack),
        _ if value.trim().is_empty() || value.chars().any(char::is_whitespace) => {
            invalid("an ID or name without blanks")
        }
        _ => None,
    }
}

fn is_word(value: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !value.is_empty() && value.chars().all(fits)
}

/// The key that was probably meant by a mistyped one.
fn typo(key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/')?;
    let is_ours = prefix == "yangtse.io";
    if !is_ours && levenshtein(&prefix.to_ascii_lowercase(), "yangtse.io") > 3 {
        return None;
    }
    let bare = |text: &str| text.to_ascii_lowercase().replace(['-', '_', '.'], "");
    let near = |known: &&&str| {
        bare(known) == bare(name) || levenshtein(known, &name.to_ascii_lowercase()) <= 2
    };
    KEYS.iter()
        .find(near)
        .map(|known| format!("{PREFIX}{known}"))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null => "empty".to_owned(),
        _ => "not a string".to_owned(),
    }
}

/// Upper bound of the keys that are checked. Kubernetes allows 256 KiB of annotations in total.
const MAX_KEYS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(pairs: &[(&str, &str)]) -> Vec<String> {
        let annotations = pairs
            .iter()
            .map(|(k, v)| (format!("{PREFIX}{k}"), Value::from(*v)))
            .collect();
        check(&annotations)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_example_of_the_documentation_is_well() {
        let pairs = [
            ("pod-with-eip", "true"),
            ("eip-bandwidth-name", "test"),
            ("eip-bandwidth-size", "5"),
            ("eip-charge-mode", "bandwidth"),
            ("eip-network-type", "5_bgp"),
        ];
        assert_eq!(problems(&pairs), [""; 0]);
        assert_eq!(problems(&[("security-group-ids", "a,b")]), [""; 0]);
        assert_eq!(
            problems(&[("eip-id", "0b8ab5f1"), ("eip-network-type", "5_bgp")]),
            [""; 0]
        );
    }

    #[test]
    fn values_are_judged_by_the_table() {
        for (key, value, invalid) in [
            ("eip-bandwidth-size", "5Mbit", Some(true)),
            ("eip-bandwidth-size", "0", Some(true)),
            ("eip-bandwidth-size", "-1", Some(true)),
            ("eip-bandwidth-size", "", Some(true)),
            ("eip-bandwidth-size", "2001", Some(false)),
            ("eip-bandwidth-size", "2000", None),
            ("eip-network-type", "5_union", Some(false)),
            ("eip-network-type", "5 bgp", Some(true)),
            ("eip-charge-mode", "Bandwidth", Some(true)),
            ("eip-bandwidth-name", "a b", Some(true)),
            ("eip-bandwidth-name", "A-b_c.9", None),
            ("static-eip-expire-duration", "5m", None),
            ("static-eip-expire-duration", "5", Some(true)),
            ("static-eip", "yes", Some(true)),
            ("allocated-ipv4-eip", "203.0.113.9", Some(false)),
            ("eip-bandwidth-id", " ", Some(true)),
        ] {
            let annotations: Map<String, Value> = [
                (POD_WITH_EIP.to_owned(), "true".into()),
                (format!("{PREFIX}{key}"), value.into()),
            ]
            .into_iter()
            .collect();
            let found = check(&annotations);
            assert_eq!(
                found.first().map(EipProblem::is_invalid),
                invalid,
                "{key}={value}: {found:?}"
            );
        }
        assert_eq!(problems(&[("pod-with-eip", "True")]).len(), 1);
        let long = "x".repeat(65);
        assert_eq!(
            problems(&[("pod-with-eip", "true"), ("eip-bandwidth-name", &long)]).len(),
            1
        );
        let by_traffic = [
            ("pod-with-eip", "true"),
            ("eip-charge-mode", "traffic"),
            ("eip-bandwidth-size", "301"),
        ];
        assert!(problems(&by_traffic)[0].contains("1 to 300"));
    }

    #[test]
    fn a_boolean_is_no_annotation() {
        let annotations: Map<String, Value> = [
            (POD_WITH_EIP.to_owned(), Value::Bool(true)),
            (format!("{PREFIX}eip-bandwidth-size"), 5.into()),
        ]
        .into_iter()
        .collect();
        let found = check(&annotations);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(EipProblem::is_invalid), "{found:?}");
    }

    #[test]
    fn a_shared_bandwidth_stands_nearly_alone() {
        let found = problems(&[
            ("pod-with-eip", "true"),
            ("eip-bandwidth-id", "0b8ab5f1"),
            ("eip-network-type", "5_bgp"),
            ("eip-bandwidth-size", "5"),
            ("eip-charge-mode", "traffic"),
        ]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|text| text.contains("eip-bandwidth-id")));
    }

    #[test]
    fn without_pod_with_eip_the_others_do_nothing() {
        for switch in [None, Some("false")] {
            let mut pairs = vec![("eip-bandwidth-size", "5"), ("eip-network-type", "5_bgp")];
            pairs.extend(switch.map(|value| ("pod-with-eip", value)));
            let found = problems(&pairs);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(
                found[0].contains("eip-bandwidth-size, yangtse.io/eip-network-type have no effect")
            );
        }
    }

    #[test]
    fn mistyped_keys_are_reported_and_others_left_alone() {
        for (key, nearest) in [
            ("yangtse.io/eip-bandwith-size", Some("eip-bandwidth-size")),
            ("yangtse.io/pod_with_eip", Some("pod-with-eip")),
            ("yangtse.io/podWithEip", Some("pod-with-eip")),
            ("yangtse/eip-charge-mode", Some("eip-charge-mode")),
            ("yangste.io/pod-with-eip", Some("pod-with-eip")),
            ("yangtse.io/network-qos", None),
            ("kubernetes.io/ingress-bandwidth", None),
            ("prometheus.io/port", None),
        ] {
            let annotations = [(key.to_owned(), "true".into())].into_iter().collect();
            let found = check(&annotations);
            let got = found.first().map(ToString::to_string);
            match nearest {
                Some(nearest) => assert!(got.unwrap().contains(nearest), "{key}"),
                None => assert_eq!(got, None, "{key}"),
            }
        }
    }
}
