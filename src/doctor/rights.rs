//! The rights at the API server that a configuration needs, and what gives them.

use super::{Check, Part, Role, State};
use crate::config::{Config, Discover, Events, SecretAccess, SpreadBy, Switch};
use crate::kubernetes::access::Right;

/// Rights that one key of the configuration needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Need {
    /// The key with its value.
    pub key: &'static str,
    /// All of them are needed.
    pub rights: Vec<Right>,
    /// What gives them.
    pub fix: String,
}

/// Collects the rights to some resources of one API group.
struct Rights(Vec<Right>);

impl Rights {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn to(
        mut self,
        verbs: &[&'static str],
        group: &'static str,
        resources: &[&'static str],
        (namespace, name): (Option<&str>, Option<&str>),
    ) -> Self {
        for resource in resources {
            self.0.extend(verbs.iter().map(|verb| Right {
                group,
                resource,
                verb,
                namespace: namespace.map(ToOwned::to_owned),
                name: name.map(ToOwned::to_owned),
            }));
        }
        self
    }
}

const EVERYWHERE: (Option<&str>, Option<&str>) = (None, None);
const WATCH: &[&str] = &["list", "watch"];

/// What the configuration needs. `namespace`: that of Pullpath's own pod.
pub fn needs(config: &Config, role: Role, namespace: &str) -> Vec<Need> {
    let mut needs = match role {
        Role::Node => of_node(config, namespace),
        Role::Cluster => of_cluster(config, namespace),
    };
    if role == Role::Node || config.cluster.lint == Switch::On {
        needs.extend(of_secrets(config, role));
    }
    needs
}

fn of_node(config: &Config, namespace: &str) -> Vec<Need> {
    let kubernetes = &config.kubernetes;
    let base = || "apply the overlay again, which has deploy/base/node/rbac.yaml".to_owned();
    let mut needs = Vec::new();
    if kubernetes.discover == Discover::Node {
        needs.push(Need {
            key: "kubernetes.discover: node",
            rights: Rights::new().to(WATCH, "", &["pods"], EVERYWHERE).0,
            fix: base(),
        });
    }
    if kubernetes.follows_node() {
        needs.push(Need {
            key: "kubernetes.node: on",
            rights: Rights::new().to(WATCH, "", &["nodes"], EVERYWHERE).0,
            fix: base(),
        });
    }
    if kubernetes.events == Events::Pods {
        let verbs = &["create", "patch"];
        needs.push(Need {
            key: "kubernetes.events: pods",
            rights: Rights::new().to(verbs, "", &["events"], EVERYWHERE).0,
            fix: component("pod-events"),
        });
    }
    if config.spread.transfers == SpreadBy::Leases {
        let place = config.spread.namespace.as_deref().or(Some(namespace));
        let verbs = &["get", "create", "update"];
        let leases = Rights::new().to(verbs, LEASES, &["leases"], (place, None));
        needs.push(Need {
            key: "spread.transfers: leases",
            rights: leases.0,
            fix: component("spread"),
        });
    }
    needs
}

fn of_cluster(config: &Config, namespace: &str) -> Vec<Need> {
    let cluster = &config.cluster;
    let base = || "apply the overlay again, which has deploy/base/cluster/rbac.yaml".to_owned();
    let mut needs = Vec::new();
    if cluster.events == Switch::On {
        needs.push(Need {
            key: "cluster.events: on",
            rights: Rights::new().to(WATCH, "", &["events"], EVERYWHERE).0,
            fix: base(),
        });
    }
    let lease = (Some(namespace), Some(&*cluster.lease_name));
    let leases = Rights::new()
        .to(&["get", "update"], LEASES, &["leases"], lease)
        .to(&["create"], LEASES, &["leases"], (Some(namespace), None));
    needs.push(Need {
        key: "cluster.lease_name",
        rights: leases.0,
        fix: base(),
    });
    if cluster.lint == Switch::On {
        let apps = ["deployments", "statefulsets", "daemonsets"];
        let rights = Rights::new()
            .to(WATCH, "apps", &apps, EVERYWHERE)
            .to(WATCH, "batch", &["jobs", "cronjobs"], EVERYWHERE)
            .to(WATCH, "", &["pods", "serviceaccounts"], EVERYWHERE);
        needs.push(Need {
            key: "cluster.lint: on",
            rights: rights.0,
            fix: component("lint"),
        });
    }
    needs
}

fn of_secrets(config: &Config, role: Role) -> Option<Need> {
    let mut rights = Rights::new();
    let (key, fix) = match config.kubernetes.secrets {
        SecretAccess::None => return None,
        SecretAccess::Named => {
            for refs in &config.kubernetes.named_secrets {
                for name in &refs.names {
                    let one = (Some(&*refs.namespace), Some(&**name));
                    rights = rights.to(WATCH, "", &["secrets"], one);
                }
            }
            (
                "kubernetes.secrets: named",
                "apply a copy of deploy/components/secrets-named/rbac.yaml with these names in that namespace"
                    .to_owned(),
            )
        }
        SecretAccess::Discovered => {
            rights = rights.to(WATCH, "", &["secrets"], EVERYWHERE);
            let fix = match role {
                Role::Node => component("secrets-discovered"),
                Role::Cluster => "bind pullpath-cluster as docs/lint.md shows it".to_owned(),
            };
            ("kubernetes.secrets: discovered", fix)
        }
    };
    let rights = rights.0;
    Some(Need { key, rights, fix })
}

const LEASES: &str = "coordination.k8s.io";

fn component(name: &str) -> String {
    format!("add ../deploy/components/{name} to the components in kustomization.yaml, and apply it")
}

/// One line for each key that lacks a right, or one for all. `answers` has the API server's answer for each right of each
/// need, or why there is none.
pub fn judge(needs: &[Need], answers: &[Vec<Result<bool, String>>]) -> Vec<Check> {
    let mut found = Vec::new();
    for (need, answers) in needs.iter().zip(answers) {
        let of = || need.rights.iter().zip(answers);
        let missing: Vec<&Right> = of()
            .filter(|(_, answer)| **answer == Ok(false))
            .map(|(right, _)| right)
            .collect();
        let key = need.key;
        if !missing.is_empty() {
            let text = format!("{key} needs what is not allowed: {}", listed(&missing));
            found.push(Check::problem(Part::Rights, text, need.fix.clone()));
        } else if let Some(reason) = answers.iter().find_map(|answer| answer.as_ref().err()) {
            let text = format!("unknown for {key}: {reason}");
            found.push(Check::new(Part::Rights, State::Unknown, text));
        }
    }
    if found.is_empty() {
        let all: Vec<&Right> = needs.iter().flat_map(|need| &need.rights).collect();
        let text = if all.is_empty() {
            "the configuration needs none".to_owned()
        } else {
            listed(&all)
        };
        found.push(Check::new(Part::Rights, State::Ok, text));
    }
    found
}

/// `list and watch pods, nodes; create events`: with the verbs and the place once.
fn listed(rights: &[&Right]) -> String {
    // The verbs of each resource, then the resources of the same verbs.
    type Resource<'a> = (&'a str, Option<&'a str>);
    let mut resources: Vec<(Resource<'_>, Vec<&str>, Vec<&str>)> = Vec::new();
    for right in rights {
        let of = (right.resource, right.namespace.as_deref());
        let at = resources.iter().position(|(known, ..)| *known == of);
        let at = at.unwrap_or_else(|| {
            resources.push((of, Vec::new(), Vec::new()));
            resources.len() - 1
        });
        let (_, verbs, names) = &mut resources[at];
        if !verbs.contains(&right.verb) {
            verbs.push(right.verb);
        }
        if let Some(name) = right.name.as_deref().filter(|name| !names.contains(name)) {
            names.push(name);
        }
    }
    let mut parts: Vec<(String, String)> = Vec::new();
    for ((resource, namespace), verbs, names) in resources {
        let mut text = resource.to_owned();
        if !names.is_empty() {
            text = format!("{text} {}", names.join(" and "));
        }
        if let Some(namespace) = namespace {
            text = format!("{text} in namespace {namespace}");
        }
        let verbs = verbs.join(", ");
        match parts.last_mut() {
            Some((of, resources)) if *of == verbs => *resources = format!("{resources}, {text}"),
            _ => parts.push((verbs, text)),
        }
    }
    let parts = parts.iter().map(|(verbs, text)| format!("{verbs} {text}"));
    parts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, role: Role) -> Vec<Need> {
        needs(&Config::parse(text).unwrap(), role, "pullpath")
    }

    #[test]
    fn each_key_needs_its_rights_and_no_others() {
        assert_eq!(of("", Role::Node), []);
        let texts = |text: &str, role| {
            let needs = of(text, role);
            let texts = needs
                .iter()
                .map(|need| listed(&need.rights.iter().collect::<Vec<_>>()));
            texts.collect::<Vec<_>>()
        };
        assert_eq!(
            texts("kubernetes: {discover: node, events: pods}", Role::Node),
            [
                "list, watch pods",
                "list, watch nodes",
                "create, patch events"
            ]
        );
        assert_eq!(
            texts("kubernetes: {discover: node, node: off}", Role::Node),
            ["list, watch pods"]
        );
        let named =
            "kubernetes: {secrets: named, named_secrets: [{namespace: shop, names: [a, b]}]}";
        assert_eq!(
            texts(named, Role::Node),
            ["list, watch secrets a and b in namespace shop"]
        );
        assert_eq!(
            texts("spread: {transfers: leases}", Role::Node),
            ["get, create, update leases in namespace pullpath"]
        );
        assert_eq!(
            texts("spread: {transfers: leases, namespace: x}", Role::Node),
            ["get, create, update leases in namespace x"]
        );
        let lint = "cluster: {lint: on}\nkubernetes: {secrets: discovered}";
        assert_eq!(
            texts(lint, Role::Cluster),
            [
                "list, watch events",
                "get, update, create leases pullpath-cluster in namespace pullpath",
                "list, watch deployments, statefulsets, daemonsets, jobs, cronjobs, pods, serviceaccounts",
                "list, watch secrets",
            ]
        );
        // The cluster role reads Secrets only for lint.
        assert_eq!(
            texts("kubernetes: {secrets: discovered}", Role::Cluster).len(),
            2
        );
    }

    #[test]
    fn what_is_missing_is_named_with_its_fix_and_silence_is_unknown() {
        let needs = of("kubernetes: {discover: node, events: pods}", Role::Node);
        let all = |answer: &Result<bool, String>| -> Vec<Vec<Result<bool, String>>> {
            let of = needs
                .iter()
                .map(|need| vec![answer.clone(); need.rights.len()]);
            of.collect()
        };
        let states = |answers: &[Vec<Result<bool, String>>]| {
            let checks = judge(&needs, answers).into_iter();
            checks.map(|check| check.state).collect::<Vec<_>>()
        };
        assert_eq!(states(&all(&Ok(true))), [State::Ok]);
        assert_eq!(states(&all(&Err("silent".to_owned()))), [State::Unknown; 3]);
        let mut answers = all(&Ok(true));
        answers[2][1] = Ok(false);
        let checks = judge(&needs, &answers);
        assert_eq!(checks.len(), 1, "{checks:?}");
        assert!(checks[0].text.contains("patch events"), "{checks:?}");
        assert!(!checks[0].text.contains("create"), "{checks:?}");
        let fix = checks[0].fix.as_deref().unwrap();
        assert!(fix.contains("components/pod-events"), "{fix}");
    }
}
