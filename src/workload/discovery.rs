//! What the pods of a node pull: from their specs and statuses the set of images to be checked, one
//! for each registry, repository and credential. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::pod::{Container, Pod};
use crate::model::kubelet::{KubeletVersion, PresentImages, present_images};
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::model::workload::{ContainerKind, PullPolicy, SecretRefs};

/// Which pods and images count, as the operator wishes.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// By the domain of an image: `docker.io`, `*.example.com`.
    pub registries: Patterns,
    pub namespaces: Patterns,
    /// Those whose pods belong to the platform: told apart, and not checked.
    pub platform_namespaces: Vec<String>,
    pub most: usize,
}

/// Names that count: of those that match `include`, all that do not match `exclude`. `*` stands for any
/// characters, also none.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Patterns {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

impl Default for Patterns {
    fn default() -> Self {
        Self {
            include: vec!["*".to_owned()],
            exclude: Vec::new(),
        }
    }
}

impl Patterns {
    pub fn admit(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        any(&self.include) && !any(&self.exclude)
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(head) else {
        return false;
    };
    let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*') {
        // The first one leaves most for the rest.
        let Some((_, after)) = left.split_once(part) else {
            return false;
        };
        left = after;
    }
    left.ends_with(last)
}

/// What a node's pods come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Discovered {
    /// To be checked, those first that pods wait for.
    pub wanted: Vec<Wanted>,
    /// Of the platform's own pods, and of no other.
    pub platform: Vec<Wanted>,
    /// Beyond the most that are checked, by name.
    pub over: Vec<String>,
    /// Images whose registry or namespace does not count.
    pub out_of_scope: usize,
    /// What is no image name, with the place where it stands.
    pub malformed: Vec<String>,
}

/// Images of one repository with one credential; one of them stands for all.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The same as long as anybody wants it.
    pub name: String,
    pub witness: Reference,
    /// `None`: nobody's Secret.
    pub secrets: Option<SecretRefs>,
    pub uses: Vec<Use>,
}

/// Who wants it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Use {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    pub kind: ContainerKind,
    pub policy: PullPolicy,
    pub image: String,
    pub waits: bool,
    /// The image is on the node.
    pub is_present: bool,
}

impl Use {
    /// That of a container that has this image.
    pub fn of(pod: &Pod, container: &Container, image: &Reference) -> Self {
        let policy = policy(container, image);
        let rank = Rank::of(container, policy);
        Self {
            namespace: printable(&pod.namespace),
            pod: printable(&pod.name),
            container: printable(&container.name),
            kind: container.kind,
            policy,
            image: image.to_string(),
            waits: rank == Rank::Waited,
            is_present: container.is_present,
        }
    }

    /// Whether it would be started without a request to a registry. `None`: the kubelet of this version may
    /// verify by a pull that the pod may use an image which is there, or the version is not known.
    pub fn needs_no_pull(&self, kubelet: Option<&KubeletVersion>) -> Option<bool> {
        match self.policy {
            PullPolicy::Never => Some(true),
            PullPolicy::IfNotPresent if self.is_present && !self.waits => {
                (present_images(kubelet) == PresentImages::Used).then_some(true)
            }
            PullPolicy::Always | PullPolicy::IfNotPresent => Some(false),
        }
    }
}

fn policy(container: &Container, image: &Reference) -> PullPolicy {
    let given = container.policy;
    given.unwrap_or_else(|| PullPolicy::default_for(image))
}

impl Wanted {
    /// A pod waits for it.
    pub fn is_waited_for(&self) -> bool {
        self.uses.iter().any(|one| one.waits)
    }
}

/// What the pods of a node pull.
pub fn discover<'a>(pods: impl IntoIterator<Item = &'a Pod>, scope: &Scope) -> Discovered {
    let mut found = Discovered::default();
    let mut groups: BTreeMap<String, RepositoryUse> = BTreeMap::new();
    for pod in pods {
        if pod.is_over {
            continue;
        }
        for container in &pod.containers {
            let reference: Reference = match container.image.parse() {
                Ok(reference) => reference,
                Err(error) => {
                    let (namespace, pod) = (printable(&pod.namespace), printable(&pod.name));
                    let container = printable(&container.name);
                    let place = format!("{namespace}/{pod}, container {container}: {error}");
                    found.malformed.push(place);
                    continue;
                }
            };
            if !scope.registries.admit(reference.domain())
                || !scope.namespaces.admit(&pod.namespace)
            {
                found.out_of_scope += 1;
                continue;
            }
            // Nobody asks a registry for it, here or on another node.
            if policy(container, &reference) == PullPolicy::Never {
                continue;
            }
            let secrets = pod.secrets();
            let group = groups
                .entry(name(&reference, secrets.as_ref()))
                .or_insert_with(|| RepositoryUse {
                    secrets,
                    is_platform: true,
                    images: BTreeMap::new(),
                    uses: Vec::new(),
                });
            group.add(pod, container, reference, scope);
        }
    }
    let mut wanted = Vec::new();
    for (name, group) in groups {
        if group.is_platform {
            found.platform.extend(group.wanted(name));
        } else {
            wanted.extend(group.wanted(name));
        }
    }
    // Those that somebody waits for, then those that most pods want.
    wanted.sort_by_key(|one: &Wanted| (!one.is_waited_for(), Reverse(one.uses.len())));
    let over = wanted.split_off(wanted.len().min(scope.most));
    found.over = over.into_iter().map(|one| one.name).collect();
    found.wanted = wanted;
    found.malformed.sort();
    found.malformed.dedup();
    found
}

/// `registry/repository`, and with Secrets `registry/repository@namespace/secret+secret`.
fn name(reference: &Reference, secrets: Option<&SecretRefs>) -> String {
    let repository = format!("{}/{}", reference.domain(), reference.repository());
    match secrets {
        None => repository,
        Some(secrets) => format!(
            "{repository}@{}/{}",
            printable(&secrets.namespace),
            printable(&secrets.names.join("+"))
        ),
    }
}

struct RepositoryUse {
    secrets: Option<SecretRefs>,
    is_platform: bool,
    /// By what makes one a better witness.
    images: BTreeMap<(Reverse<Rank>, String), Reference>,
    uses: Vec<Use>,
}

/// A pull that is waited for tells most; then one that the registry is asked for at each start.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Rank {
    Present,
    Absent,
    Always,
    Waited,
}

impl Rank {
    fn of(container: &Container, policy: PullPolicy) -> Self {
        match policy {
            PullPolicy::Never => Self::Present,
            _ if container.waits_for_image() => Self::Waited,
            PullPolicy::Always => Self::Always,
            _ if container.is_present => Self::Present,
            PullPolicy::IfNotPresent => Self::Absent,
        }
    }
}

impl RepositoryUse {
    fn add(&mut self, pod: &Pod, container: &Container, reference: Reference, scope: &Scope) {
        let rank = Rank::of(container, policy(container, &reference));
        self.is_platform &= scope.platform_namespaces.contains(&pod.namespace);
        self.uses.push(Use::of(pod, container, &reference));
        self.images
            .insert((Reverse(rank), reference.to_string()), reference);
    }

    fn wanted(self, name: String) -> Option<Wanted> {
        let (_, witness) = self.images.into_iter().next()?;
        let mut uses = self.uses;
        uses.sort();
        Some(Wanted {
            name,
            witness,
            secrets: self.secrets,
            uses,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::workload::pod::{ContainerState, ReasonMessage};

    fn scope() -> Scope {
        Scope {
            registries: Patterns::default(),
            namespaces: Patterns::default(),
            platform_namespaces: vec!["kube-system".to_owned()],
            most: 50,
        }
    }

    fn container(image: &str) -> Container {
        Container {
            name: "c".to_owned(),
            kind: ContainerKind::Container,
            image: image.to_owned(),
            policy: None,
            is_sidecar: false,
            is_present: true,
            state: ContainerState::Running,
        }
    }

    fn pod(namespace: &str, name: &str, secrets: &[&str], images: &[&str]) -> Pod {
        Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            pull_secrets: secrets.iter().map(|name| (*name).to_owned()).collect(),
            containers: images.iter().map(|image| container(image)).collect(),
            ..Pod::default()
        }
    }

    fn names(found: &[Wanted]) -> Vec<&str> {
        found.iter().map(|one| one.name.as_str()).collect()
    }

    #[test]
    fn one_of_each_registry_repository_and_credential_is_wanted() {
        let pods = [
            pod("shop", "a", &["pull"], &["r.test/app:1", "nginx"]),
            pod("shop", "b", &["pull"], &["r.test/app:2"]),
            pod("shop", "c", &["other", "pull"], &["r.test/app:1"]),
            pod("bank", "a", &["pull"], &["r.test/app:1"]),
            pod("bank", "b", &[], &["r.test/app:1", "r.test:5000/app:1"]),
        ];
        let found = discover(&pods, &scope());
        assert_eq!(
            names(&found.wanted),
            [
                "r.test/app@shop/pull",
                "docker.io/library/nginx@shop/pull",
                "r.test/app",
                "r.test/app@bank/pull",
                "r.test/app@shop/other+pull",
                "r.test:5000/app",
            ]
        );
        let first = &found.wanted[0];
        assert_eq!(first.witness.to_string(), "r.test/app:1");
        assert_eq!(first.uses.len(), 2);
        assert_eq!(first.secrets.as_ref().unwrap().names, ["pull"]);
        assert_eq!(found.wanted[2].secrets, None);
    }

    #[test]
    fn an_image_that_is_waited_for_stands_for_its_repository_and_comes_first() {
        let mut waiting = pod("shop", "new", &[], &["r.test/app:3"]);
        waiting.containers[0].is_present = false;
        waiting.containers[0].state =
            ContainerState::Waiting(ReasonMessage::new("ImagePullBackOff", ""));
        let mut starting = pod("shop", "starting", &[], &["r.test/other:1"]);
        starting.containers[0].is_present = false;
        starting.containers[0].state =
            ContainerState::Waiting(ReasonMessage::new("ContainerCreating", ""));
        let pods = [
            pod("shop", "old", &[], &["r.test/app:1", "a.test/b:1"]),
            pod("shop", "old2", &[], &["r.test/app:1", "a.test/b:1"]),
            pod("shop", "old3", &[], &["a.test/b:1"]),
            waiting,
            starting,
        ];
        let found = discover(&pods, &scope());
        assert_eq!(
            names(&found.wanted),
            ["r.test/app", "a.test/b", "r.test/other"]
        );
        assert_eq!(found.wanted[0].witness.to_string(), "r.test/app:3");
        let older: KubeletVersion = "v1.34.1".parse().unwrap();
        let newer: KubeletVersion = "v1.35.0".parse().unwrap();
        // What one of each needs, with a kubelet of a version.
        let needs = |kubelet: Option<&KubeletVersion>| -> Vec<Option<bool>> {
            let of = |wanted: &Wanted| {
                let mut uses = wanted.uses.iter();
                uses.rfind(|_| true).unwrap().needs_no_pull(kubelet)
            };
            found.wanted.iter().map(of).collect()
        };
        assert!(found.wanted[0].is_waited_for() && !found.wanted[2].is_waited_for());
        let (no, yes) = (Some(false), Some(true));
        assert_eq!(needs(Some(&older)), [yes, yes, no]);
        // It may be verified by a pull that the pod may use what is there.
        assert_eq!(needs(Some(&newer)), [None, None, no]);
        assert_eq!(needs(None), [None, None, no]);
        let waiting = &found.wanted[0].uses[0];
        assert_eq!(
            (waiting.waits, waiting.needs_no_pull(Some(&newer))),
            (true, no)
        );
    }

    #[test]
    fn what_is_asked_for_at_each_start_needs_a_pull_though_it_is_there() {
        let pods = [pod("shop", "a", &[], &["r.test/app"])];
        let found = discover(&pods, &scope());
        let older: KubeletVersion = "v1.20.2".parse().unwrap();
        let needs = found.wanted[0].uses[0].needs_no_pull(Some(&older));
        assert_eq!(needs, Some(false), "latest is pulled always");
        let mut never = pod("shop", "a", &[], &["r.test/app"]);
        never.containers[0].policy = Some(PullPolicy::Never);
        assert_eq!(names(&discover(&[never.clone()], &scope()).wanted), [""; 0]);
        never.containers[0].is_present = false;
        never.containers[0].state =
            ContainerState::Waiting(ReasonMessage::new("ErrImageNeverPull", ""));
        assert_eq!(names(&discover(&[never], &scope()).wanted), [""; 0]);
    }

    #[test]
    fn the_platform_s_own_is_kept_apart_unless_others_want_it_too() {
        let pods = [
            pod(
                "kube-system",
                "dns",
                &["default-secret"],
                &["swr.test/hwofficial/dns:1"],
            ),
            pod("kube-system", "proxy", &[], &["r.test/app:1"]),
            pod("shop", "a", &[], &["r.test/app:1"]),
        ];
        let found = discover(&pods, &scope());
        assert_eq!(
            names(&found.platform),
            ["swr.test/hwofficial/dns@kube-system/default-secret"]
        );
        assert_eq!(names(&found.wanted), ["r.test/app"]);
    }

    #[test]
    fn patterns_the_cap_and_what_is_no_image() {
        let pods = [
            pod(
                "shop",
                "a",
                &[],
                &["a.test/x:1", "b.test/x:1", "c.other/x:1", "Not An Image"],
            ),
            pod("shop", "b", &[], &["b.test/x:1"]),
            pod("dev", "a", &[], &["a.test/x:1"]),
        ];
        let mut scope = scope();
        scope.registries.include = vec!["*.test".to_owned()];
        scope.namespaces.exclude = vec!["dev*".to_owned()];
        scope.most = 1;
        let found = discover(&pods, &scope);
        assert_eq!(names(&found.wanted), ["b.test/x"]);
        assert_eq!(found.over, ["a.test/x"]);
        assert_eq!(found.out_of_scope, 2);
        assert_eq!(found.malformed.len(), 1);
        assert!(
            found.malformed[0].starts_with("shop/a, container c: "),
            "{:?}",
            found.malformed
        );
        let mut over = pods.clone();
        for pod in &mut over {
            pod.is_over = true;
        }
        assert_eq!(discover(&over, &scope), Discovered::default());
    }

    proptest! {
        #[test]
        fn patterns_match_as_defined(pattern in "[a-c*]{0,7}", name in "[a-c]{0,7}") {
            fn defined(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.split_first(), name.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => {
                        defined(rest, name) || name.split_first().is_some_and(|(_, left)| defined(pattern, left))
                    }
                    (Some((a, rest)), Some((b, left))) => a == b && defined(rest, left),
                    _ => false,
                }
            }
            prop_assert_eq!(matches(&pattern, &name), defined(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn the_order_of_pods_changes_nothing(order in Just((0..4).collect::<Vec<usize>>()).prop_shuffle()) {
            let pods = [
                pod("shop", "a", &["s"], &["r.test/app:1", "r.test/b:1"]),
                pod("shop", "b", &["s"], &["r.test/app:2"]),
                pod("dev", "c", &[], &["r.test/app:2", "%"]),
                pod("kube-system", "d", &[], &["r.test/d:2"]),
            ];
            let shuffled: Vec<Pod> = order.iter().map(|at| pods[*at].clone()).collect();
            prop_assert_eq!(discover(&shuffled, &scope()), discover(&pods, &scope()));
        }
    }
}
