//! Judges a cluster's workloads, service accounts and pull secrets, and selects the Secrets that must be read for
//! that. Pure.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use jiff::Timestamp;

use super::{Cluster, Finding, InspectedSecret, LintCounts, SecretCounts, SecretRead, Snapshot};
use crate::diagnose;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::kubernetes::secrets::{Access, SecretKey};
use crate::model::credential::{KeyMismatch, MatchRule, SourceProblem};
use crate::model::workload::ContainerKind;
use crate::workload::resources::{Account, Image, SecretMetadata, WorkloadKind, WorkloadResource};

/// Upper bound of the Secrets of a namespace that are read for a workload that names none; usually there is one.
const MOST_CANDIDATES: usize = 8;

/// Upper bound of the findings, some 500 bytes each. More of them are usually one mistake made everywhere.
const MOST_FINDINGS: usize = 2000;

/// Upper bound of the names in one line.
const MOST_SHOWN: usize = 5;

/// The Secret that CCE (Cloud Container Engine) creates and renews in each namespace.
const CCES_OWN: &str = "default-secret";

const NO_REGISTRY: &str = "no registry was contacted: if it allows anonymous pulls, or the node has its own credential, the pull succeeds without a Secret";

/// The Secrets whose content is needed: those that workloads name, themselves or through their service account, and
/// the pull secrets of its namespace for a workload that names none, or none that fits. No others are read.
pub fn needs(cluster: &Cluster) -> BTreeSet<SecretKey> {
    let index = Index::new(cluster);
    let mut needed = BTreeSet::new();
    if cluster.access == Access::None {
        return needed;
    }
    let mut without_fit: BTreeSet<&str> = BTreeSet::new();
    for workload in pulling(cluster) {
        let Some((names, _)) = index.named(workload) else {
            continue;
        };
        if names.is_empty() || index.lacks_one(workload, names) {
            without_fit.insert(&workload.namespace);
        }
        needed.extend(names.iter().map(|name| key(&workload.namespace, name)));
    }
    for namespace in without_fit {
        let candidates = index.candidates(namespace).names;
        needed.extend(candidates.into_iter().map(|name| key(namespace, name)));
    }
    needed.retain(|key| match &cluster.access {
        Access::Named(allowed) => allowed.contains(key),
        Access::None | Access::Discovered => true,
    });
    needed
}

/// Judges everything that could be read; what could not is in [`Snapshot::not_observed`].
pub fn judge(cluster: &Cluster, now: Timestamp) -> Snapshot {
    let index = Index::new(cluster);
    let mut drafts = Drafts::default();
    let mut users_of: BTreeMap<(&str, &str), Users> = BTreeMap::new();
    for workload in &cluster.workloads {
        for problem in &workload.eip {
            let (kind, name) = workload.who();
            let found = diagnose::eip_annotation(kind, name, problem);
            drafts.add(
                FindingSubject::workload(workload),
                Draft::of(found).idle(workload),
            );
        }
    }
    for workload in pulling(cluster) {
        index.workload(workload, &mut drafts);
        let names = index.named(workload).map_or(&[][..], |(names, _)| names);
        for name in names {
            let users = users_of.entry((&workload.namespace, name)).or_default();
            users.add(workload);
            users.need_it |= !workload.is_idle && index.needs_it(workload, names, name);
            let fitting = index.fitting(workload, names);
            users
                .fitting
                .extend(fitting.names.into_iter().map(str::to_owned));
        }
    }
    let mut counts = counts(cluster);
    let mut unknown: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    counts.secrets.named = users_of.len();
    for ((namespace, name), users) in &users_of {
        match index.presence(namespace, name) {
            Presence::SecretRead(content) => {
                counts.secrets.read += 1;
                let problem = &content.evidence.problem;
                let spoils_all = matches!(problem, Some(SourceProblem::Malformed { .. }));
                for mut found in diagnose::secret(&content.evidence, now) {
                    // `kubectl create secret docker-registry NAME -n NAMESPACE`, `kubectl get secret NAME`
                    let this = format!(" {name} -n {namespace} ");
                    let hint = found.hint.replace(" NAME -n NAMESPACE ", &this);
                    found.hint = hint.replace(" NAME ", &this);
                    let fits: Vec<String> = users.fitting.iter().cloned().collect();
                    if problem.is_some() && !fits.is_empty() {
                        found = found.fact(format!(
                            "other Secrets of this namespace have keys for images of these workloads: {}",
                            fits.join(", ")
                        ));
                    }
                    let fails = users.need_it || (spoils_all && users.make_pods);
                    if !fails {
                        found = no_worse(found).fact("each workload that names it has another Secret for all of its images, or creates no pods at present");
                    }
                    let draft = Draft {
                        users: users.clone(),
                        ..Draft::of(found)
                    };
                    drafts.add(FindingSubject::at(namespace, "Secret", name), draft);
                }
            }
            Presence::Absent => counts.secrets.absent += 1,
            Presence::Unknown(reason) => {
                counts.secrets.unknown += 1;
                let list = unknown.entry(reason).or_default();
                list.push(format!("{namespace}/{name}"));
            }
        }
    }
    let mut not_observed = cluster.not_observed.clone();
    for (reason, names) in unknown {
        let what = if names.len() == 1 {
            "Secret"
        } else {
            "Secrets"
        };
        not_observed.push(format!(
            "{} {what} that workloads name could not be checked: {reason} ({})",
            names.len(),
            listed(&names)
        ));
    }
    let mut findings = drafts.finish();
    if findings.len() > MOST_FINDINGS {
        not_observed.push(format!(
            "{} more findings are not listed (the limit is {MOST_FINDINGS})",
            findings.len() - MOST_FINDINGS
        ));
        findings.truncate(MOST_FINDINGS);
    }
    Snapshot {
        findings,
        counts,
        not_observed,
    }
}

/// Workloads that pull no image need no Secret and are skipped.
fn pulling(cluster: &Cluster) -> impl Iterator<Item = &WorkloadResource> {
    let workloads = cluster.workloads.iter().map(|workload| &**workload);
    workloads.filter(|workload| !workload.containers.is_empty())
}

fn counts(cluster: &Cluster) -> LintCounts {
    let mut workloads: BTreeMap<WorkloadKind, usize> = BTreeMap::new();
    let mut namespaces = BTreeSet::new();
    for workload in &cluster.workloads {
        *workloads.entry(workload.kind).or_default() += 1;
        namespaces.insert(&workload.namespace);
    }
    LintCounts {
        workloads,
        namespaces: namespaces.len(),
        service_accounts: cluster.accounts.items.len(),
        secrets: SecretCounts::default(),
    }
}

fn key(namespace: &str, name: &str) -> SecretKey {
    SecretKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// `a, b, c and 7 more`.
fn listed(names: &[String]) -> String {
    let mut text = names[..names.len().min(MOST_SHOWN)].join(", ");
    if names.len() > MOST_SHOWN {
        let _ = write!(text, " and {} more", names.len() - MOST_SHOWN);
    }
    text
}

/// The objects of the cluster, by namespace and name.
struct Index<'a> {
    cluster: &'a Cluster,
    accounts: BTreeMap<(&'a str, &'a str), &'a Account>,
    secrets: BTreeMap<(&'a str, &'a str), &'a SecretMetadata>,
    /// The namespaces that have a Secret with this name.
    namespaces_of: BTreeMap<&'a str, BTreeSet<&'a str>>,
    read: BTreeMap<(&'a str, &'a str), &'a SecretRead>,
    /// Cache of whether a Secret has a key for an image: many workloads have the same pair.
    served: RefCell<HashMap<(*const InspectedSecret, &'a str), bool>>,
}

/// The Secrets that a workload's pods get: those of its template, or, if that names none, those of the service
/// account, which the API server copies into its pods.
type Named<'a> = (&'a [Box<str>], Option<&'a Account>);

enum Presence<'a> {
    SecretRead(&'a InspectedSecret),
    Absent,
    /// Its content is unknown, and possibly whether it exists; with the reason.
    Unknown(&'a str),
}

impl<'a> Index<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let accounts = cluster.accounts.items.iter();
        let secrets = cluster.secrets.items.iter();
        let read = cluster.read.iter();
        let mut index = Self {
            cluster,
            accounts: accounts
                .map(|one| ((&*one.namespace, &*one.name), &**one))
                .collect(),
            secrets: secrets
                .map(|one| ((&*one.namespace, &*one.name), &**one))
                .collect(),
            namespaces_of: BTreeMap::new(),
            read: read
                .map(|(key, read)| ((&*key.namespace, &*key.name), read))
                .collect(),
            served: RefCell::default(),
        };
        let there = index.read.iter();
        let there = there.filter(|(_, read)| matches!(read, SecretRead::Content(_)));
        for (namespace, name) in index.secrets.keys().chain(there.map(|(key, _)| key)) {
            index
                .namespaces_of
                .entry(name)
                .or_default()
                .insert(namespace);
        }
        index
    }

    /// The service account of a workload. `None`: unknown; `Some(None)`: it does not exist.
    #[expect(clippy::option_option, reason = "unknown, none, or this one")]
    fn account(&self, workload: &WorkloadResource) -> Option<Option<&'a Account>> {
        let found = self
            .accounts
            .get(&(&*workload.namespace, workload.account()));
        match found {
            Some(account) => Some(Some(account)),
            None if self.cluster.accounts.unknown.is_in(&workload.namespace) => None,
            None => Some(None),
        }
    }

    /// `None`: the service account does not exist, or can't be read.
    fn named(&self, workload: &'a WorkloadResource) -> Option<Named<'a>> {
        let account = self.account(workload).flatten();
        let is_pod = workload.kind == WorkloadKind::Pod;
        if !workload.pull_secrets.is_empty() || is_pod {
            // The API server copied them into the pod when it was created.
            let by =
                account.filter(|account| is_pod && account.pull_secrets == workload.pull_secrets);
            return Some((&*workload.pull_secrets, by));
        }
        account.map(|account| (&*account.pull_secrets, Some(account)))
    }

    fn presence(&self, namespace: &str, name: &str) -> Presence<'a> {
        match &self.cluster.access {
            Access::None => {
                return Presence::Unknown("Secrets are not read (kubernetes.secrets is none)");
            }
            Access::Named(keys) if !keys.contains(&key(namespace, name)) => {
                return Presence::Unknown("not listed in kubernetes.named_secrets");
            }
            Access::Named(_) | Access::Discovered => {}
        }
        let is_there = self.secrets.contains_key(&(namespace, name));
        match self.read.get(&(namespace, name)) {
            Some(SecretRead::Content(content)) => Presence::SecretRead(content),
            // Unless it was created after that.
            Some(SecretRead::Absent) if !is_there => Presence::Absent,
            Some(SecretRead::Unread(reason)) => Presence::Unknown(reason),
            None if !is_there && self.cluster.secrets.unknown.is_in(namespace) => {
                Presence::Unknown("the API server does not list the Secrets of that namespace")
            }
            _ => Presence::Unknown("not read yet"),
        }
    }

    /// The pull secrets of a namespace.
    fn candidates(&self, namespace: &'a str) -> Candidates<'a> {
        let secrets = self.secrets.range((namespace, "")..);
        let secrets = secrets.take_while(move |((of, _), _)| *of == namespace);
        let allowed: Vec<&str> = match &self.cluster.access {
            Access::Named(keys) => {
                let of = keys.iter().filter(|key| key.namespace == namespace);
                of.map(|key| key.name.as_str()).collect()
            }
            Access::None | Access::Discovered => Vec::new(),
        };
        let names: BTreeSet<&str> = secrets.map(|((_, name), _)| *name).chain(allowed).collect();
        Candidates {
            more: names.len().saturating_sub(MOST_CANDIDATES),
            names: names.into_iter().take(MOST_CANDIDATES).collect(),
        }
    }

    /// Secrets of its namespace that a workload does not name, and that have a key for an image that none of its own
    /// Secrets has a key for.
    fn fitting(&self, workload: &'a WorkloadResource, names: &'a [Box<str>]) -> Fitting<'a> {
        let unserved: Vec<&Image> = workload
            .containers
            .iter()
            .filter(|image| !self.is_served(workload, names, image))
            .collect();
        if unserved.is_empty() {
            return Fitting::default();
        }
        let candidates = self.candidates(&workload.namespace);
        let mut fitting = Fitting {
            more: candidates.more,
            ..Fitting::default()
        };
        for name in candidates.names {
            if names.iter().any(|own| **own == *name) {
                continue;
            }
            let Presence::SecretRead(content) = self.presence(&workload.namespace, name) else {
                continue;
            };
            let image = unserved.iter().find(|image| self.serves(content, image));
            if let Some(image) = image {
                fitting.names.push(name);
                fitting.image = fitting.image.or(Some(*image));
                fitting.is_hub_only &= domain(image) == "docker.io";
            }
        }
        fitting
    }

    /// Whether one of the Secrets that a workload names has a key for an image.
    fn is_served(
        &self,
        workload: &'a WorkloadResource,
        names: &'a [Box<str>],
        image: &'a Image,
    ) -> bool {
        names
            .iter()
            .any(|name| match self.presence(&workload.namespace, name) {
                Presence::SecretRead(content) => self.serves(content, image),
                _ => false,
            })
    }

    /// Whether a workload has an image that none of its Secrets has a key for. All of them are known.
    fn lacks_one(&self, workload: &'a WorkloadResource, names: &'a [Box<str>]) -> bool {
        let is_known = |name: &str| {
            !matches!(
                self.presence(&workload.namespace, name),
                Presence::Unknown(_)
            )
        };
        let mut images = workload.containers.iter();
        names.iter().all(|name| is_known(name))
            && images.any(|image| !self.is_served(workload, names, image))
    }

    fn serves(&self, content: &'a InspectedSecret, image: &'a Image) -> bool {
        let Some(name) = image.name.as_deref() else {
            return false;
        };
        let pair = (std::ptr::from_ref(content), name);
        if let Some(known) = self.served.borrow().get(&pair) {
            return *known;
        }
        let serves = content.keys.serves(name).is_ok();
        self.served.borrow_mut().insert(pair, serves);
        serves
    }

    /// Whether an image has no Secret other than this one, as far as they could be read.
    fn needs_it(&self, workload: &'a WorkloadResource, names: &'a [Box<str>], name: &str) -> bool {
        let others: Vec<&InspectedSecret> = names
            .iter()
            .filter(|other| &***other != name)
            .filter_map(|other| match self.presence(&workload.namespace, other) {
                Presence::SecretRead(content) => Some(content),
                _ => None,
            })
            .collect();
        let is_served = |image| others.iter().any(|content| self.serves(content, image));
        !workload.containers.iter().all(is_served)
    }

    fn workload(&self, workload: &'a WorkloadResource, drafts: &mut Drafts) {
        let is_pod = workload.kind == WorkloadKind::Pod;
        if self.account(workload) == Some(None) && !is_pod {
            drafts.add(
                FindingSubject::workload(workload),
                no_account(workload).idle(workload),
            );
        }
        match self.named(workload) {
            None => {}
            Some(([], _)) => {
                if let Some(draft) = self.unnamed(workload) {
                    drafts.add(FindingSubject::workload(workload), draft.idle(workload));
                }
            }
            Some((names, account)) => self.secrets(workload, names, account, drafts),
        }
    }

    /// Judges each Secret of a workload.
    fn secrets(
        &self,
        workload: &'a WorkloadResource,
        names: &'a [Box<str>],
        account: Option<&'a Account>,
        drafts: &mut Drafts,
    ) {
        let all: Vec<(&str, Presence<'_>)> = names
            .iter()
            .map(|name| (&**name, self.presence(&workload.namespace, name)))
            .collect();
        let mut presences = all.iter().map(|(_, presence)| presence);
        let is_blind = presences.any(|one| matches!(one, Presence::Unknown(_)));
        let unserved: Vec<&Image> = workload
            .containers
            .iter()
            .filter(|image| !self.is_served(workload, names, image))
            .collect();
        let state = WorkloadState {
            workload,
            account,
            unserved: &unserved,
            is_blind,
            fitting: self.fitting(workload, names),
        };
        for (name, presence) in &all {
            match presence {
                Presence::Absent => {
                    let elsewhere = self.elsewhere(&workload.namespace, name);
                    state.missing(name, &elsewhere, drafts);
                }
                Presence::SecretRead(content)
                    if content.evidence.problem.is_none()
                        && !workload.containers.iter().any(|i| self.serves(content, i)) =>
                {
                    state.mismatch(name, content, drafts);
                }
                _ => {}
            }
        }
    }

    /// Other namespaces that have a Secret with this name.
    fn elsewhere(&self, namespace: &str, name: &str) -> OtherNamespaces {
        let all = self.namespaces_of.get(name).into_iter().flatten();
        let namespaces: Vec<&str> = all.copied().filter(|of| *of != namespace).collect();
        OtherNamespaces {
            is_renewed: namespaces
                .iter()
                .any(|of| self.secrets.get(&(of, name)).is_some_and(|h| h.is_renewed)),
            namespaces: namespaces.into_iter().map(str::to_owned).collect(),
        }
    }

    /// A workload that names no Secret while its namespace has one that fits.
    fn unnamed(&self, workload: &'a WorkloadResource) -> Option<Draft> {
        let fitting = self.fitting(workload, &[]);
        let image = fitting.image?;
        let account = workload.account();
        let whom = if workload.kind == WorkloadKind::Pod {
            "names no Secret in imagePullSecrets".to_owned()
        } else {
            format!("names no Secret in imagePullSecrets, nor does its ServiceAccount {account}")
        };
        let later = self.account(workload).flatten();
        let later = later.filter(|account| !account.pull_secrets.is_empty());
        let found = diagnose::finding(Cause::SecretNotNamed)
            // Docker Hub allows anonymous pulls; Secrets for it mostly serve to raise rate limits.
            .severity(Severity::warning_if(!fitting.is_hub_only))
            .confidence(Confidence::Medium)
            .fact(format!("{} {whom}", workload.shown()))
            .facts(fitting.facts())
            .facts(later.map(|account| {
                format!(
                    "ServiceAccount {} now names {}, but pods get that only when they are created",
                    account.name,
                    account.pull_secrets.join(", ")
                )
            }))
            .fact("no registry was contacted: it may allow anonymous pulls")
            .hint(format!(
                "If the registry requires a login, name {} in spec.imagePullSecrets of the pod template, or in imagePullSecrets of ServiceAccount {account}; then recreate existing pods.",
                fitting.which()
            ));
        Some(Draft::of(found).shown_by(image))
    }
}

/// Names of the pull secrets of a namespace, sorted.
struct Candidates<'a> {
    /// At most eight.
    names: Vec<&'a str>,
    /// How many others there are.
    more: usize,
}

/// Secrets that a workload could name.
struct Fitting<'a> {
    names: Vec<&'a str>,
    /// An image that the first of them has a key for.
    image: Option<&'a Image>,
    /// All of the images are from Docker Hub.
    is_hub_only: bool,
    /// Pull secrets of the namespace that were not read.
    more: usize,
}

impl Default for Fitting<'_> {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            image: None,
            is_hub_only: true,
            more: 0,
        }
    }
}

impl Fitting<'_> {
    /// Which Secrets have a key; none if there is no such Secret.
    fn facts(&self) -> Vec<String> {
        let Some(image) = self.image.map(|image| &image.image) else {
            return Vec::new();
        };
        let fits = match &self.names[..] {
            [one] => format!("Secret {one} in this namespace has a key for {image}"),
            several => format!(
                "Secrets {} in this namespace have keys for {image} or another of its images",
                several.join(", ")
            ),
        };
        let more = (self.more > 0).then(|| {
            format!(
                "{} more pull secrets of this namespace were not read",
                self.more
            )
        });
        [fits].into_iter().chain(more).collect()
    }

    /// `pull`, `one of pull, other`.
    fn which(&self) -> String {
        match &self.names[..] {
            [one] => (*one).to_owned(),
            several => format!("one of {}", several.join(", ")),
        }
    }

    /// Adds what could be named instead to a fix.
    fn or_name(&self, hint: String) -> String {
        if self.names.is_empty() {
            return hint;
        }
        format!(
            "Name {} instead, if its login may pull this image. Otherwise: {hint}",
            self.which()
        )
    }
}

struct OtherNamespaces {
    namespaces: Vec<String>,
    /// One of them is CCE's own Secret.
    is_renewed: bool,
}

/// One workload, while its Secrets are judged.
struct WorkloadState<'a> {
    workload: &'a WorkloadResource,
    /// The service account that names them; `None`: the workload itself does.
    account: Option<&'a Account>,
    /// Images that no readable Secret has a key for.
    unserved: &'a [&'a Image],
    is_blind: bool,
    fitting: Fitting<'a>,
}

impl WorkloadState<'_> {
    /// The object to fix: if a service account names the Secret, that account, once for all of its workloads.
    fn subject(&self) -> FindingSubject {
        match self.account {
            Some(account) => {
                FindingSubject::at(&account.namespace, "ServiceAccount", &account.name)
            }
            None => FindingSubject::workload(self.workload),
        }
    }

    fn is_unserved(&self, image: &Image) -> bool {
        self.unserved.iter().any(|one| std::ptr::eq(*one, image))
    }

    fn who(&self) -> String {
        if let Some(account) = self.account {
            return format!("ServiceAccount {}", account.name);
        }
        self.workload.shown()
    }

    /// Lowers the severity if other Secrets may serve the images.
    fn weigh(&self, found: diagnose::Finding) -> diagnose::Finding {
        match self.unserved.first() {
            None => no_worse(found).fact("its other Secrets have keys for all of its images"),
            Some(_) if self.is_blind => {
                no_worse(found).fact("the keys of its other Secrets are unknown")
            }
            Some(image) => found
                .fact(format!("none of its Secrets has a key for {}", image.image))
                .fact(NO_REGISTRY),
        }
    }

    fn missing(&self, secret: &str, elsewhere: &OtherNamespaces, drafts: &mut Drafts) {
        let namespace = &self.workload.namespace;
        let is_elsewhere = !elsewhere.namespaces.is_empty();
        let cause = if is_elsewhere {
            Cause::SecretOtherNamespace
        } else {
            Cause::SecretMissing
        };
        let who = self.who();
        let found = diagnose::finding(cause)
            .severity(Severity::Critical)
            .fact(format!("{who} names Secret {secret} in imagePullSecrets"))
            .fact(format!(
                "the API server has no Secret {secret} in namespace {namespace}"
            ))
            .facts(is_elsewhere.then(|| {
                format!(
                    "there is one in namespace {}; Secrets do not cross namespaces",
                    listed(&elsewhere.namespaces)
                )
            }));
        let correct = match self.account {
            Some(account) => format!(
                "remove it from imagePullSecrets of ServiceAccount {} (existing pods keep it)",
                account.name
            ),
            None => "correct the name in imagePullSecrets of the pod template".to_owned(),
        };
        let hint = if elsewhere.is_renewed {
            format!(
                "Name {CCES_OWN}, which CCE creates in each namespace, or create Secret {secret} in namespace {namespace} with a long-term SWR login. Do not copy it from another namespace: CCE renews {CCES_OWN}, but no copy of it."
            )
        } else if is_elsewhere {
            format!("Create Secret {secret} in namespace {namespace} as well, or {correct}.")
        } else {
            format!(
                "Create it (`kubectl create secret docker-registry {secret} -n {namespace} --docker-server=... --docker-username=... --docker-password=...`), or {correct}."
            )
        };
        let found = self.weigh(found).facts(self.fitting.facts());
        self.add(
            secret,
            Draft::of(found.hint(self.fitting.or_name(hint))),
            drafts,
        );
    }

    /// A Secret none of whose keys matches any of the images.
    fn mismatch(&self, secret: &str, content: &InspectedSecret, drafts: &mut Drafts) {
        let images = self.workload.containers.iter();
        let mut near: Option<(&Image, KeyMismatch)> = None;
        let mut rules = Vec::new();
        for image in images {
            let Some(name) = image.name.as_deref() else {
                continue;
            };
            let Err(mismatches) = content.keys.serves(name) else {
                return;
            };
            let nearest = diagnose::nearest_key(mismatches.iter(), domain(image)).cloned();
            // An image that no other Secret serves is the most telling.
            let is_unserved = self.is_unserved(image);
            if let Some(nearest) = nearest
                && (near.is_none() || is_unserved)
            {
                near = Some((image, nearest));
                if is_unserved {
                    break;
                }
            }
            if rules.is_empty() {
                rules = mismatches;
            }
        }
        let is_needed = !self.unserved.is_empty();
        // A service account serves many workloads, and CCE's console adds its own Secret to each workload.
        let is_common = self.account.is_some() || secret == CCES_OWN;
        let is_meant = near
            .as_ref()
            .is_some_and(|(image, _)| self.is_unserved(image));
        if is_common && !is_meant {
            return;
        }
        let severity = match (is_meant, is_needed) {
            (true, _) if self.is_blind => Severity::Warning,
            (true, _) => Severity::Critical,
            (false, true) => Severity::Warning,
            (false, false) => Severity::Info,
        };
        let whose = self.account.map_or("its images", |_| "its pods' images");
        let found = diagnose::finding(Cause::SecretKeyMismatch)
            .severity(severity)
            .confidence(Confidence::Medium)
            .fact(format!(
                "{} names Secret {secret}, but none of the Secret's server keys matches any of {whose}",
                self.who()
            ));
        let draft = if let Some((image, nearest)) = &near {
            let (key, rule) = (&nearest.credential.key, &nearest.rule);
            let found = found
                .fact(format!(
                    "the nearest key for {} is '{key}': {rule}",
                    image.image
                ))
                .facts(self.fitting.facts())
                .hint(self.fitting.or_name(match rule {
                    // It is for this image, and lacks a login.
                    MatchRule::Empty => diagnose::recreate_key(domain(image), nearest),
                    _ => format!(
                        "If it is meant for this image: {}",
                        diagnose::recreate_key(domain(image), nearest)
                    ),
                }));
            Draft::of(self.weigh(found)).shown_by(image)
        } else {
            let keys: Vec<String> = rules.into_iter().map(|rule| rule.credential.key).collect();
            let first = self.unserved.first();
            let wanted = first.map_or("the images' registries", |image| domain(image));
            let found = found.fact(if keys.is_empty() {
                "it has no server keys".to_owned()
            } else {
                format!("its keys are for other registries: {}", listed(&keys))
            });
            let hint = match &self.fitting.names[..] {
                [] => format!(
                    "Name a Secret with a login for {wanted} instead, or remove {secret} from imagePullSecrets."
                ),
                _ => format!(
                    "Name {} instead of {secret}, if its login may pull this image.",
                    self.fitting.which()
                ),
            };
            Draft::of(self.weigh(found.facts(self.fitting.facts())).hint(hint))
        };
        self.add(secret, draft, drafts);
    }

    fn add(&self, secret: &str, draft: Draft, drafts: &mut Drafts) {
        let subject = self.subject().of(secret);
        let draft = draft.idle(self.workload);
        if self.account.is_some() {
            drafts.add_used(subject, draft, self.workload);
        } else {
            drafts.add(subject, draft);
        }
    }
}

fn domain(image: &Image) -> &str {
    let name = image.name.as_deref().unwrap_or(&image.image);
    name.split('/').next().unwrap_or(name)
}

fn no_account(workload: &WorkloadResource) -> Draft {
    let (who, account, namespace) = (workload.shown(), workload.account(), &workload.namespace);
    let found = diagnose::finding(Cause::ServiceAccountMissing)
        .severity(Severity::Critical)
        .fact(match &workload.service_account {
            Some(_) => format!("{who} has serviceAccountName {account}"),
            None => format!("{who} sets no serviceAccountName, so its pods use default"),
        })
        .fact(format!(
            "namespace {namespace} has no ServiceAccount {account}: the API server rejects its pods"
        ))
        .hint(format!(
            "Create it (`kubectl create serviceaccount {account} -n {namespace}`) with the imagePullSecrets that its pods need, or correct serviceAccountName."
        ));
    Draft::of(found)
}

/// A warning at most.
fn no_worse(found: diagnose::Finding) -> diagnose::Finding {
    let severity = found.severity.min(Severity::Warning);
    found.severity(severity)
}

/// The object that a finding is about, and the Secret.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct FindingSubject {
    namespace: String,
    kind: String,
    name: String,
    secret: String,
}

impl FindingSubject {
    fn at(namespace: &str, kind: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            secret: String::new(),
        }
    }

    fn workload(workload: &WorkloadResource) -> Self {
        let (kind, name) = workload.who();
        Self::at(&workload.namespace, kind, name)
    }

    fn of(mut self, secret: &str) -> Self {
        secret.clone_into(&mut self.secret);
        self
    }
}

/// The workloads that use a Secret or service account.
#[derive(Clone, Debug, Default)]
struct Users {
    names: BTreeSet<String>,
    /// At least one of them creates pods.
    make_pods: bool,
    /// At least one of them creates pods and has no other Secret that fits.
    need_it: bool,
    /// Other Secrets with keys for images that none of their own Secrets has a key for.
    fitting: BTreeSet<String>,
}

impl Users {
    fn add(&mut self, workload: &WorkloadResource) {
        self.names.insert(workload.shown());
        self.make_pods |= !workload.is_idle;
    }

    fn text(&self) -> String {
        let names: Vec<String> = self.names.iter().cloned().collect();
        format!("used by {}", listed(&names))
    }
}

/// A finding without its object.
struct Draft {
    found: diagnose::Finding,
    container: Option<(ContainerKind, String)>,
    users: Users,
}

impl Draft {
    fn of(found: diagnose::Finding) -> Self {
        Self {
            found,
            container: None,
            users: Users::default(),
        }
    }

    /// Names the container or image volume that shows it.
    fn shown_by(mut self, image: &Image) -> Self {
        self.container = Some((image.kind, image.container.to_string()));
        self
    }

    /// Makes it a warning at most if the workload creates no pods at present.
    fn idle(mut self, workload: &WorkloadResource) -> Self {
        if workload.is_idle {
            let who = workload.shown();
            self.found = no_worse(self.found).fact(format!(
                "{who} creates no pods at present (replicas: 0, or suspended)"
            ));
        }
        self
    }
}

/// All findings, each once for its object.
#[derive(Default)]
struct Drafts(BTreeMap<(Cause, FindingSubject, usize), Draft>);

impl Drafts {
    fn add(&mut self, subject: FindingSubject, draft: Draft) {
        // Pods of one workload of a kind that is not read have the same findings.
        let mut number = 0;
        loop {
            match self.0.get(&(draft.found.cause, subject.clone(), number)) {
                Some(other) if other.found.evidence == draft.found.evidence => return,
                Some(_) => number += 1,
                None => break,
            }
        }
        self.0.insert((draft.found.cause, subject, number), draft);
    }

    /// A finding that several workloads share is listed once, with its highest severity.
    fn add_used(&mut self, subject: FindingSubject, draft: Draft, user: &WorkloadResource) {
        let none = || Draft::of(diagnose::finding(draft.found.cause).severity(Severity::Info));
        let key = (draft.found.cause, subject, 0);
        let known = self.0.entry(key).or_insert_with(none);
        let users = std::mem::take(&mut known.users);
        if draft.found.severity > known.found.severity || known.found.evidence.is_empty() {
            *known = draft;
        }
        known.users = users;
        known.users.add(user);
    }

    fn finish(self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self
            .0
            .into_iter()
            .map(|((_, subject, _), draft)| {
                let users = &draft.users;
                let found = draft
                    .found
                    .facts((!users.names.is_empty()).then(|| users.text()));
                let (container_kind, container) = draft.container.unzip();
                Finding {
                    namespace: subject.namespace,
                    kind: subject.kind,
                    name: subject.name,
                    container,
                    container_kind,
                    cause: found.cause,
                    severity: found.severity,
                    confidence: found.confidence,
                    evidence: found.evidence,
                    hint: found.hint,
                }
            })
            .collect();
        findings.sort_by_key(|finding| Reverse(finding.severity));
        findings
    }
}
