//! Selects the images to check from the specs and statuses of a node's pods: one for each registry, repository and
//! credential. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use super::pod::{Container, Pod};
use super::share::{Claim, places};
use crate::model::kubelet::{KubeletVersion, PresentImages, present_images};
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::model::workload::{ContainerKind, PullPolicy, SecretRefs};

/// Which pods and images are checked, from the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// Matched against the domain of an image, for instance `docker.io` or `*.example.com`.
    pub registries: Patterns,
    /// Matched against the pod's namespace.
    pub namespaces: Patterns,
    /// Namespaces of the platform's own pods: their images are listed separately and not checked.
    pub platform_namespaces: Vec<String>,
    /// Upper bound of the images to check (`kubernetes.max_targets`).
    pub most: usize,
}

/// Selects names that match a pattern of `include` and none of `exclude`. `*` matches any number of characters,
/// including none.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Patterns {
    /// Default: `*`, all names.
    pub include: Vec<String>,
    /// Default: empty. Has precedence over `include`.
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
    /// Whether the name is selected.
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
        // The first match leaves the most for the remaining parts.
        let Some((_, after)) = left.split_once(part) else {
            return false;
        };
        left = after;
    }
    left.ends_with(last)
}

/// The images that a node's pods use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Discovered {
    /// To be checked; those that pods wait for are first, then those that most containers use.
    pub wanted: Vec<Wanted>,
    /// Used only by the platform's own pods; not checked.
    pub platform: Vec<Wanted>,
    /// Names of those that exceed [`Scope::most`]; not checked.
    pub over: Vec<String>,
    /// The pods that wait for some of these, one entry for each, sorted.
    pub crowded: Vec<Crowded>,
    /// Number of containers whose registry or namespace is not selected.
    pub out_of_scope: usize,
    /// Invalid image references: namespace, pod, container and the error.
    pub malformed: Vec<String>,
}

impl Discovered {
    /// The namespaces whose pods wait for images that are not checked.
    pub fn crowded_namespaces(&self) -> BTreeSet<&str> {
        let crowded = self.crowded.iter();
        crowded.map(|one| &*one.first.namespace).collect()
    }
}

/// A pod that waits for images that are not checked, because its namespace wants more than its share of the places.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Crowded {
    /// The first container that waits for such an image.
    pub first: Use,
    /// The number of such images of this pod.
    pub images: usize,
    /// The number of images of its namespace that are checked on this node.
    pub checked: usize,
}

/// The images of one repository with one credential. One of them is checked for all; each further image that a
/// container waits for is checked for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// `registry/repository`, with pull secrets followed by `@namespace/secret+secret`. Stable while any pod uses it.
    /// A further image that a container waits for has its tag or digest after the repository.
    pub name: String,
    /// The image that is checked.
    pub witness: Reference,
    /// The pull secrets of the pods. `None`: they have none.
    pub secrets: Option<SecretRefs>,
    /// The containers that use these images, sorted.
    pub uses: Vec<Use>,
}

/// A container or image volume that uses an image. Texts are printable.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Use {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container or the volume.
    pub container: String,
    /// Which list of the pod's `spec` it is in.
    pub kind: ContainerKind,
    /// The pull policy; if not set, the default for the tag.
    pub policy: PullPolicy,
    /// The normalized reference.
    pub image: String,
    /// It waits for the image after a failed pull.
    pub waits: bool,
    /// The image is on the node.
    pub is_present: bool,
}

impl Use {
    /// The use of `image` by a container of `pod`.
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

    /// Whether the container would start without a request to a registry. `None`: unknown, because the kubelet of this
    /// version may verify by a pull that the pod may use an image that is present, or because the version is unknown.
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
    /// The namespaces of the pods that use it.
    pub fn namespaces(&self) -> BTreeSet<&str> {
        self.uses.iter().map(|one| &*one.namespace).collect()
    }

    /// Whether a container waits for it after a failed pull.
    pub fn is_waited_for(&self) -> bool {
        self.uses.iter().any(|one| one.waits)
    }
}

/// Groups the images of a node's pods; pods that have ended are skipped. `checked` has the names of those that are
/// checked at present: they keep their places within the share of their namespace.
pub fn discover<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    scope: &Scope,
    checked: &BTreeSet<String>,
) -> Discovered {
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
                    let problem = format!("{namespace}/{pod}, container {container}: {error}");
                    found.malformed.push(problem);
                    continue;
                }
            };
            if !scope.registries.admit(reference.domain())
                || !scope.namespaces.admit(&pod.namespace)
            {
                found.out_of_scope += 1;
                continue;
            }
            // It is never pulled, on this node or another.
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
            found.platform.extend(group.wanted(name).into_iter().next());
        } else {
            wanted.extend(group.wanted(name).into_iter().enumerate());
        }
    }
    // First those that a container waits for, one of each repository before further ones; then those with the most uses.
    wanted.sort_by_key(|(place, one): &(usize, Wanted)| {
        (!one.is_waited_for(), *place, Reverse(one.uses.len()))
    });
    let placed = placed(&wanted, scope.most, checked);
    let wanted = wanted.into_iter().map(|(_, one)| one).enumerate();
    let (wanted, over): (Vec<_>, Vec<_>) = wanted.partition(|(index, _)| placed.contains(index));
    found.wanted = wanted.into_iter().map(|(_, one)| one).collect();
    let over: Vec<Wanted> = over.into_iter().map(|(_, one)| one).collect();
    found.crowded = crowded(&over, &found.wanted);
    found.over = over.into_iter().map(|one| one.name).collect();
    found.malformed.sort();
    found.malformed.dedup();
    found
}

/// Which of these, each with its place in its repository, are checked: the namespaces take turns.
fn placed(wanted: &[(usize, Wanted)], most: usize, checked: &BTreeSet<String>) -> BTreeSet<usize> {
    let claims: Vec<_> = wanted
        .iter()
        .enumerate()
        .map(|(index, (place, one))| Claim {
            namespaces: one.namespaces().into_iter().collect(),
            rank: (
                !one.is_waited_for(),
                !checked.contains(&one.name),
                *place,
                index,
            ),
        })
        .collect();
    places(&claims, most).into_iter().collect()
}

fn crowded(over: &[Wanted], wanted: &[Wanted]) -> Vec<Crowded> {
    let mut pods: BTreeMap<(&str, &str), Vec<(&Use, &str)>> = BTreeMap::new();
    for one in over {
        for of in one.uses.iter().filter(|of| of.waits) {
            let pod = pods.entry((&of.namespace, &of.pod)).or_default();
            pod.push((of, &one.name));
        }
    }
    let crowded = pods.into_iter().filter_map(|((namespace, _), uses)| {
        let images: BTreeSet<&str> = uses.iter().map(|(_, name)| *name).collect();
        let is_its = |one: &&Wanted| one.namespaces().contains(namespace);
        Some(Crowded {
            first: uses.iter().map(|(of, _)| *of).min()?.clone(),
            images: images.len(),
            checked: wanted.iter().filter(is_its).count(),
        })
    });
    crowded.collect()
}

/// `registry/repository`, and with Secrets `registry/repository@namespace/secret+secret`.
fn name(reference: &Reference, secrets: Option<&SecretRefs>) -> String {
    let repository = format!("{}/{}", reference.domain(), reference.repository());
    with_secrets(&repository, secrets)
}

fn with_secrets(repository: &str, secrets: Option<&SecretRefs>) -> String {
    match secrets {
        None => repository.to_owned(),
        Some(secrets) => format!(
            "{repository}@{}/{}",
            printable(&secrets.namespace),
            printable(&names_of(secrets))
        ),
    }
}

/// The names of the Secrets; of very many, those that are read.
fn names_of(secrets: &SecretRefs) -> String {
    let text = secrets.names.join("+");
    match secrets.left_out {
        0 => text,
        more => format!("{text}+{more}-more"),
    }
}

struct RepositoryUse {
    secrets: Option<SecretRefs>,
    is_platform: bool,
    /// The first one is checked.
    images: BTreeMap<(Reverse<Rank>, String), Reference>,
    uses: Vec<Use>,
}

/// Which image of a repository is checked: preferably one that a container waits for, then one that is pulled at each
/// start.
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

    /// The image that is checked for all, and each further one that a container waits for: its tag may be what is
    /// wrong.
    fn wanted(self, name: String) -> Vec<Wanted> {
        let (secrets, mut uses) = (self.secrets, self.uses);
        uses.sort();
        let mut images = self.images.into_iter();
        let Some((_, witness)) = images.next() else {
            return Vec::new();
        };
        let waited = images.take_while(|((Reverse(rank), _), _)| *rank == Rank::Waited);
        let further: Vec<Wanted> = waited
            .map(|((_, image), witness)| Wanted {
                name: with_secrets(&image, secrets.as_ref()),
                uses: uses.extract_if(.., |one| one.image == image).collect(),
                witness,
                secrets: secrets.clone(),
            })
            .collect();
        let first = Wanted {
            name,
            witness,
            secrets,
            uses,
        };
        std::iter::once(first).chain(further).collect()
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
        let found = discover(&pods, &scope(), &BTreeSet::new());
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
        let found = discover(&pods, &scope(), &BTreeSet::new());
        assert_eq!(
            names(&found.wanted),
            ["r.test/app", "a.test/b", "r.test/other"]
        );
        assert_eq!(found.wanted[0].witness.to_string(), "r.test/app:3");
        let older: KubeletVersion = "v1.34.1".parse().unwrap();
        let newer: KubeletVersion = "v1.35.0".parse().unwrap();
        // `needs_no_pull` of one use of each, for a version of the kubelet.
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
        // The kubelet may verify by a pull that the pod may use an image that is present.
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
        let found = discover(&pods, &scope(), &BTreeSet::new());
        let older: KubeletVersion = "v1.20.2".parse().unwrap();
        let needs = found.wanted[0].uses[0].needs_no_pull(Some(&older));
        assert_eq!(needs, Some(false), "latest is pulled always");
        let mut never = pod("shop", "a", &[], &["r.test/app"]);
        never.containers[0].policy = Some(PullPolicy::Never);
        assert_eq!(
            names(&discover(&[never.clone()], &scope(), &BTreeSet::new()).wanted),
            [""; 0]
        );
        never.containers[0].is_present = false;
        never.containers[0].state =
            ContainerState::Waiting(ReasonMessage::new("ErrImageNeverPull", ""));
        assert_eq!(
            names(&discover(&[never], &scope(), &BTreeSet::new()).wanted),
            [""; 0]
        );
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
        let found = discover(&pods, &scope(), &BTreeSet::new());
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
        let found = discover(&pods, &scope, &BTreeSet::new());
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
        assert_eq!(
            discover(&over, &scope, &BTreeSet::new()),
            Discovered::default()
        );
    }

    /// Two pods that wait for different tags: each image is checked, and each pod is of one target.
    #[test]
    fn each_image_that_a_container_waits_for_is_checked() {
        let waits = |name: &str, image: &str| {
            let mut pod = pod("shop", name, &["s"], &[image]);
            pod.containers[0].is_present = false;
            pod.containers[0].state =
                ContainerState::Waiting(ReasonMessage::new("ImagePullBackOff", ""));
            pod
        };
        let pods = [
            waits("a", "r.test/app:1"),
            waits("b", "r.test/app:2"),
            waits("c", "r.test/app:2"),
            waits("d", "z.test/app:1"),
            pod("shop", "e", &["s"], &["r.test/app:0"]),
        ];
        let found = discover(&pods, &scope(), &BTreeSet::new());
        assert_eq!(
            names(&found.wanted),
            [
                "r.test/app@shop/s",
                "z.test/app@shop/s",
                "r.test/app:2@shop/s"
            ]
        );
        let pods_of =
            |one: &Wanted| -> Vec<String> { one.uses.iter().map(|one| one.pod.clone()).collect() };
        let of: Vec<_> = found.wanted.iter().map(pods_of).collect();
        assert_eq!(of, [vec!["a", "e"], vec!["d"], vec!["b", "c"]]);
        let witness = found.wanted[2].witness.to_string();
        assert_eq!(witness, "r.test/app:2");
        // The bound holds, and further images come after one of each repository.
        let mut scope = scope();
        scope.most = 2;
        let found = discover(&pods, &scope, &BTreeSet::new());
        assert_eq!(
            names(&found.wanted),
            ["r.test/app@shop/s", "z.test/app@shop/s"]
        );
        assert_eq!(found.over, ["r.test/app:2@shop/s"]);
    }

    /// One pod with 60 waiting images beside three other namespaces: these are checked, and what is checked stays.
    #[test]
    fn a_namespace_gets_no_more_than_its_share() {
        let images: Vec<String> = (0..60)
            .map(|number| format!("r.test/big{number:02}:1"))
            .collect();
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        let mut big = pod("big", "many", &[], &images);
        for container in &mut big.containers {
            container.is_present = false;
            container.state = ContainerState::Waiting(ReasonMessage::new("ImagePullBackOff", ""));
        }
        let others = ["a", "b", "z"].map(|name| {
            let images = [0, 1, 2].map(|number| format!("r.test/{name}{number}:1"));
            pod(name, "p", &[], &images.each_ref().map(String::as_str))
        });
        let before = discover(&others, &scope(), &BTreeSet::new());
        let checked: BTreeSet<String> = before.wanted.iter().map(|one| one.name.clone()).collect();
        assert_eq!(checked.len(), 9);
        let mut pods = others.to_vec();
        pods.push(big);
        let found = discover(&pods, &scope(), &checked);
        let now: BTreeSet<String> = found.wanted.iter().map(|one| one.name.clone()).collect();
        assert!(now.is_superset(&checked));
        assert_eq!((found.wanted.len(), found.over.len()), (50, 19));
        let [crowded] = &found.crowded[..] else {
            panic!("{:?}", found.crowded)
        };
        assert_eq!(
            (&*crowded.first.namespace, crowded.images, crowded.checked),
            ("big", 19, 41)
        );
        // The same images again, and in the same places.
        let again = discover(&pods, &scope(), &now);
        assert_eq!(again, found);
        // What others no longer want is given back.
        let alone = discover(&pods[3..], &scope(), &now);
        assert_eq!(alone.wanted.len(), 50);
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
            prop_assert_eq!(discover(&shuffled, &scope(), &BTreeSet::new()), discover(&pods, &scope(), &BTreeSet::new()));
        }
    }
}
