//! Pure: what is known of a cluster → what is wrong with its workloads, and which Secrets have to be read
//! for that.

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
use crate::model::credential::{KeyMismatch, SourceProblem};
use crate::model::workload::ContainerKind;
use crate::workload::resources::{Account, Image, SecretMetadata, WorkloadKind, WorkloadResource};

/// Secrets of a namespace that are read for a workload there that names none: usually there is one.
const MOST_CANDIDATES: usize = 8;

/// Findings that are kept: more is one mistake made everywhere, and some 500 bytes each.
const MOST_FINDINGS: usize = 2000;

/// Names in one line.
const MOST_TOLD: usize = 5;

/// The Secret that CCE makes and renews in each namespace.
const CCES_OWN: &str = "default-secret";

const NO_REGISTRY: &str = "no registry was asked: where it lets anybody in, or the node has a credential of its own, the pull does without";

/// The Secrets whose content has to be known: those that workloads name, by themselves or by their service
/// account, and, for a workload that names none, the pull Secrets beside it. No other is read.
pub fn needs(cluster: &Cluster) -> BTreeSet<SecretKey> {
    let index = Index::new(cluster);
    let mut needed = BTreeSet::new();
    if cluster.access == Access::None {
        return needed;
    }
    let mut lonely: BTreeSet<&str> = BTreeSet::new();
    for maker in pulling(cluster) {
        let Some((names, _)) = index.named(maker) else {
            continue;
        };
        if names.is_empty() {
            lonely.insert(&maker.namespace);
        }
        needed.extend(names.iter().map(|name| key(&maker.namespace, name)));
    }
    for namespace in lonely {
        needed.extend(index.candidates(namespace).map(|name| key(namespace, name)));
    }
    needed.retain(|key| match &cluster.access {
        Access::Named(allowed) => allowed.contains(key),
        Access::None | Access::Discovered => true,
    });
    needed
}

/// What is wrong, as far as it can be seen.
pub fn judge(cluster: &Cluster, now: Timestamp) -> Snapshot {
    let index = Index::new(cluster);
    let mut drafts = Drafts::default();
    let mut users_of: BTreeMap<(&str, &str), Users> = BTreeMap::new();
    for maker in &cluster.makers {
        for problem in &maker.eip {
            let (kind, name) = maker.who();
            let found = diagnose::eip_annotation(kind, name, problem);
            drafts.add(FindingSubject::maker(maker), Draft::of(found).idle(maker));
        }
    }
    for maker in pulling(cluster) {
        index.maker(maker, &mut drafts);
        let names = index.named(maker).map_or(&[][..], |(names, _)| names);
        for name in names {
            let users = users_of.entry((&maker.namespace, name)).or_default();
            users.add(maker);
            users.need_it |= !maker.is_idle && index.needs_it(maker, names, name);
        }
    }
    let mut seen = seen(cluster);
    let mut unknown: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    seen.secrets.named = users_of.len();
    for ((namespace, name), users) in &users_of {
        match index.presence(namespace, name) {
            Presence::SecretRead(looked) => {
                seen.secrets.read += 1;
                let problem = &looked.evidence.problem;
                let spoils_all = matches!(problem, Some(SourceProblem::Malformed { .. }));
                for mut found in diagnose::secret(&looked.evidence, now) {
                    // `kubectl create secret docker-registry NAME`
                    let this = format!(" {name} -n {namespace} ");
                    found.hint = found.hint.replace(" NAME ", &this);
                    let fails = users.need_it || (spoils_all && users.make_pods);
                    if !fails {
                        found = no_worse(found).fact("whoever names it has another Secret for each of its images, or no pods at present");
                    }
                    let draft = Draft {
                        users: users.clone(),
                        ..Draft::of(found)
                    };
                    drafts.add(FindingSubject::at(namespace, "Secret", name), draft);
                }
            }
            Presence::Absent => seen.secrets.absent += 1,
            Presence::Unknown(reason) => {
                seen.secrets.unknown += 1;
                let list = unknown.entry(reason).or_default();
                list.push(format!("{namespace}/{name}"));
            }
        }
    }
    let mut could_not_see = cluster.unseen.clone();
    for (reason, names) in unknown {
        let what = if names.len() == 1 {
            "Secret"
        } else {
            "Secrets"
        };
        could_not_see.push(format!(
            "{} {what} that workloads name, and so whether they are there and fit: {reason} ({})",
            names.len(),
            listed(&names)
        ));
    }
    let mut findings = drafts.finish();
    if findings.len() > MOST_FINDINGS {
        could_not_see.push(format!(
            "{} findings more than the {MOST_FINDINGS} that are told",
            findings.len() - MOST_FINDINGS
        ));
        findings.truncate(MOST_FINDINGS);
    }
    Snapshot {
        findings,
        counts: seen,
        not_observed: could_not_see,
    }
}

/// Of those that pull nothing, Secrets are nobody's business.
fn pulling(cluster: &Cluster) -> impl Iterator<Item = &WorkloadResource> {
    let makers = cluster.makers.iter().map(|maker| &**maker);
    makers.filter(|maker| !maker.containers.is_empty())
}

fn seen(cluster: &Cluster) -> LintCounts {
    let mut workloads: BTreeMap<WorkloadKind, usize> = BTreeMap::new();
    let mut namespaces = BTreeSet::new();
    for maker in &cluster.makers {
        *workloads.entry(maker.kind).or_default() += 1;
        namespaces.insert(&maker.namespace);
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
    let mut text = names[..names.len().min(MOST_TOLD)].join(", ");
    if names.len() > MOST_TOLD {
        let _ = write!(text, " and {} more", names.len() - MOST_TOLD);
    }
    text
}

/// What is known, by name.
struct Index<'a> {
    cluster: &'a Cluster,
    accounts: BTreeMap<(&'a str, &'a str), &'a Account>,
    heads: BTreeMap<(&'a str, &'a str), &'a SecretMetadata>,
    /// Namespaces that have a Secret, by its name.
    places: BTreeMap<&'a str, BTreeSet<&'a str>>,
    read: BTreeMap<(&'a str, &'a str), &'a SecretRead>,
    /// Whether a Secret has a key for an image: many workloads ask the same.
    served: RefCell<HashMap<(*const InspectedSecret, &'a str), bool>>,
}

/// The Secrets that count for a workload's pods: those of its template, or, where that names none, those of
/// the service account, which the API server writes into its pods.
type Named<'a> = (&'a [Box<str>], Option<&'a Account>);

enum Presence<'a> {
    SecretRead(&'a InspectedSecret),
    Absent,
    /// Its content is not known, nor perhaps whether it is there.
    Unknown(&'a str),
}

impl<'a> Index<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let accounts = cluster.accounts.items.iter();
        let heads = cluster.heads.items.iter();
        let read = cluster.read.iter();
        let mut index = Self {
            cluster,
            accounts: accounts
                .map(|one| ((&*one.namespace, &*one.name), &**one))
                .collect(),
            heads: heads
                .map(|one| ((&*one.namespace, &*one.name), &**one))
                .collect(),
            places: BTreeMap::new(),
            read: read
                .map(|(key, read)| ((&*key.namespace, &*key.name), read))
                .collect(),
            served: RefCell::default(),
        };
        let there = index.read.iter();
        let there = there.filter(|(_, read)| matches!(read, SecretRead::Content(_)));
        for (namespace, name) in index.heads.keys().chain(there.map(|(key, _)| key)) {
            index.places.entry(name).or_default().insert(namespace);
        }
        index
    }

    /// `None`: it can't be told; `Some(None)`: there is none.
    #[expect(clippy::option_option, reason = "not known, none, or this one")]
    fn account(&self, maker: &WorkloadResource) -> Option<Option<&'a Account>> {
        let found = self.accounts.get(&(&*maker.namespace, maker.account()));
        match found {
            Some(account) => Some(Some(account)),
            None if self.cluster.accounts.unknown.is_in(&maker.namespace) => None,
            None => Some(None),
        }
    }

    /// `None`: there is no such service account, or it can't be seen.
    fn named(&self, maker: &'a WorkloadResource) -> Option<Named<'a>> {
        let account = self.account(maker).flatten();
        let is_pod = maker.kind == WorkloadKind::Pod;
        if !maker.pull_secrets.is_empty() || is_pod {
            // Written into the pod when it was created.
            let by = account.filter(|account| is_pod && account.pull_secrets == maker.pull_secrets);
            return Some((&*maker.pull_secrets, by));
        }
        account.map(|account| (&*account.pull_secrets, Some(account)))
    }

    fn presence(&self, namespace: &str, name: &str) -> Presence<'a> {
        match &self.cluster.access {
            Access::None => {
                return Presence::Unknown("no Secret is read (kubernetes.secrets is none)");
            }
            Access::Named(keys) if !keys.contains(&key(namespace, name)) => {
                return Presence::Unknown(
                    "they are not among those that may be read (kubernetes.named_secrets)",
                );
            }
            Access::Named(_) | Access::Discovered => {}
        }
        let is_there = self.heads.contains_key(&(namespace, name));
        match self.read.get(&(namespace, name)) {
            Some(SecretRead::Content(looked)) => Presence::SecretRead(looked),
            // It has come since.
            Some(SecretRead::Absent) if !is_there => Presence::Absent,
            Some(SecretRead::Unread(reason)) => Presence::Unknown(reason),
            None if !is_there && self.cluster.heads.unknown.is_in(namespace) => {
                Presence::Unknown("the API server does not list the Secrets there")
            }
            _ => Presence::Unknown("they are being read"),
        }
    }

    /// Pull Secrets of a namespace, by name.
    fn candidates(&self, namespace: &'a str) -> impl Iterator<Item = &'a str> {
        let heads = self.heads.range((namespace, "")..);
        let heads = heads.take_while(move |((of, _), _)| *of == namespace);
        let allowed: Vec<&str> = match &self.cluster.access {
            Access::Named(keys) => {
                let of = keys.iter().filter(|key| key.namespace == namespace);
                of.map(|key| key.name.as_str()).collect()
            }
            Access::None | Access::Discovered => Vec::new(),
        };
        let names: BTreeSet<&str> = heads.map(|((_, name), _)| *name).chain(allowed).collect();
        names.into_iter().take(MOST_CANDIDATES)
    }

    fn serves(&self, looked: &'a InspectedSecret, image: &'a Image) -> bool {
        let Some(name) = image.name.as_deref() else {
            return false;
        };
        let pair = (std::ptr::from_ref(looked), name);
        if let Some(known) = self.served.borrow().get(&pair) {
            return *known;
        }
        let serves = looked.keys.serves(name).is_ok();
        self.served.borrow_mut().insert(pair, serves);
        serves
    }

    /// An image has no other Secret than this one, as far as they could be read.
    fn needs_it(&self, maker: &'a WorkloadResource, names: &'a [Box<str>], name: &str) -> bool {
        let others: Vec<&InspectedSecret> = names
            .iter()
            .filter(|other| &***other != name)
            .filter_map(|other| match self.presence(&maker.namespace, other) {
                Presence::SecretRead(looked) => Some(looked),
                _ => None,
            })
            .collect();
        let is_served = |image| others.iter().any(|looked| self.serves(looked, image));
        !maker.containers.iter().all(is_served)
    }

    fn maker(&self, maker: &'a WorkloadResource, drafts: &mut Drafts) {
        let is_pod = maker.kind == WorkloadKind::Pod;
        if self.account(maker) == Some(None) && !is_pod {
            drafts.add(FindingSubject::maker(maker), no_account(maker).idle(maker));
        }
        match self.named(maker) {
            None => {}
            Some(([], _)) => {
                if let Some(draft) = self.unnamed(maker) {
                    drafts.add(FindingSubject::maker(maker), draft.idle(maker));
                }
            }
            Some((names, account)) => self.secrets(maker, names, account, drafts),
        }
    }

    /// Those that count for a workload, each by itself.
    fn secrets(
        &self,
        maker: &'a WorkloadResource,
        names: &'a [Box<str>],
        account: Option<&'a Account>,
        drafts: &mut Drafts,
    ) {
        let all: Vec<(&str, Presence<'_>)> = names
            .iter()
            .map(|name| (&**name, self.presence(&maker.namespace, name)))
            .collect();
        let mut presences = all.iter().map(|(_, presence)| presence);
        let is_blind = presences.any(|one| matches!(one, Presence::Unknown(_)));
        let is_served = |image: &'a Image| {
            all.iter().any(|(_, presence)| match presence {
                Presence::SecretRead(looked) => self.serves(looked, image),
                _ => false,
            })
        };
        let unserved: Vec<&Image> = maker.containers.iter().filter(|i| !is_served(i)).collect();
        let state = WorkloadState {
            maker,
            account,
            unserved: &unserved,
            is_blind,
        };
        for (name, presence) in &all {
            match presence {
                Presence::Absent => {
                    let elsewhere = self.elsewhere(&maker.namespace, name);
                    state.missing(name, &elsewhere, drafts);
                }
                Presence::SecretRead(looked)
                    if looked.evidence.problem.is_none()
                        && !maker.containers.iter().any(|i| self.serves(looked, i)) =>
                {
                    state.mismatch(name, looked, drafts);
                }
                _ => {}
            }
        }
    }

    /// Other namespaces that have a Secret of this name.
    fn elsewhere(&self, namespace: &str, name: &str) -> OtherNamespaces {
        let places = self.places.get(name).into_iter().flatten();
        let namespaces: Vec<&str> = places.copied().filter(|of| *of != namespace).collect();
        OtherNamespaces {
            is_renewed: namespaces
                .iter()
                .any(|of| self.heads.get(&(of, name)).is_some_and(|h| h.is_renewed)),
            namespaces: namespaces.into_iter().map(str::to_owned).collect(),
        }
    }

    /// It names none, and there is one beside it that would do.
    fn unnamed(&self, maker: &'a WorkloadResource) -> Option<Draft> {
        let mut fits: Vec<(String, &Image)> = Vec::new();
        for name in self.candidates(&maker.namespace) {
            let Presence::SecretRead(looked) = self.presence(&maker.namespace, name) else {
                continue;
            };
            let image = maker.containers.iter().find(|i| self.serves(looked, i));
            fits.extend(image.map(|image| (name.to_owned(), image)));
        }
        let (first, image) = fits.first()?.clone();
        let account = maker.account();
        let is_hub = fits.iter().all(|(_, image)| domain(image) == "docker.io");
        let names: Vec<String> = fits.iter().map(|(name, _)| name.clone()).collect();
        let whom = if maker.kind == WorkloadKind::Pod {
            "names no Secret in imagePullSecrets".to_owned()
        } else {
            format!("names no Secret in imagePullSecrets, nor does its ServiceAccount {account}")
        };
        let later = self.account(maker).flatten();
        let later = later.filter(|account| !account.pull_secrets.is_empty());
        let found = diagnose::finding(Cause::SecretNotNamed)
            // Its images are pulled by anybody; Secrets for it are against rate limits mostly.
            .severity(Severity::warning_if(!is_hub))
            .confidence(Confidence::Medium)
            .fact(format!("{} {whom}", maker.shown()))
            .fact(match &names[..] {
                [one] => format!("Secret {one} in this namespace has a key for {}", image.image),
                _ => format!(
                    "Secrets {} in this namespace have keys for {} or another image of it",
                    listed(&names),
                    image.image
                ),
            })
            .facts(later.map(|account| {
                format!(
                    "ServiceAccount {} names {} by now; that is written into pods at their creation only",
                    account.name,
                    account.pull_secrets.join(", ")
                )
            }))
            .fact("no registry was asked: it may let anybody in")
            .hint(format!(
                "Where the registry asks for a login, name {first} in spec.imagePullSecrets of the pods' template, or in imagePullSecrets of ServiceAccount {account}; existing pods have to be created anew."
            ));
        Some(Draft::of(found).shown_by(image))
    }
}

struct OtherNamespaces {
    namespaces: Vec<String>,
    /// One of them is CCE's own.
    is_renewed: bool,
}

/// One workload, while its Secrets are looked at.
struct WorkloadState<'a> {
    maker: &'a WorkloadResource,
    /// By whom they are named, where not by itself.
    account: Option<&'a Account>,
    /// Images for which no Secret that was read has a key.
    unserved: &'a [&'a Image],
    is_blind: bool,
}

impl WorkloadState<'_> {
    /// At whom it is told: what a service account names is its own matter, and that of many workloads.
    fn place(&self) -> FindingSubject {
        match self.account {
            Some(account) => {
                FindingSubject::at(&account.namespace, "ServiceAccount", &account.name)
            }
            None => FindingSubject::maker(self.maker),
        }
    }

    fn is_unserved(&self, image: &Image) -> bool {
        self.unserved.iter().any(|one| std::ptr::eq(*one, image))
    }

    fn who(&self) -> String {
        if let Some(account) = self.account {
            return format!("ServiceAccount {}", account.name);
        }
        self.maker.shown()
    }

    /// What the others make up for.
    fn weigh(&self, found: diagnose::Finding) -> diagnose::Finding {
        match self.unserved.first() {
            None => no_worse(found).fact("its other Secrets have keys for all of its images"),
            Some(_) if self.is_blind => {
                no_worse(found).fact("what its other Secrets have is not known")
            }
            Some(image) => found
                .fact(format!("no Secret of it has a key for {}", image.image))
                .fact(NO_REGISTRY),
        }
    }

    fn missing(&self, secret: &str, elsewhere: &OtherNamespaces, drafts: &mut Drafts) {
        let namespace = &self.maker.namespace;
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
                "take it out of imagePullSecrets of ServiceAccount {} (existing pods keep it)",
                account.name
            ),
            None => "correct the name in imagePullSecrets of the pods' template".to_owned(),
        };
        let hint = if elsewhere.is_renewed {
            format!(
                "Do not copy it: CCE renews {CCES_OWN} and no copy of it. Name {CCES_OWN}, which CCE makes in each namespace, or create {secret} in namespace {namespace} with a long-term login for SWR."
            )
        } else if is_elsewhere {
            format!("Create {secret} in namespace {namespace} as well, or {correct}.")
        } else {
            format!(
                "Create it (`kubectl create secret docker-registry {secret} -n {namespace} --docker-server=... --docker-username=... --docker-password=...`), or {correct}."
            )
        };
        self.add(secret, Draft::of(self.weigh(found).hint(hint)), drafts);
    }

    /// None of its keys is for any of the images.
    fn mismatch(&self, secret: &str, looked: &InspectedSecret, drafts: &mut Drafts) {
        let images = self.maker.containers.iter();
        let mut near: Option<(&Image, KeyMismatch)> = None;
        let mut rules = Vec::new();
        for image in images {
            let Some(name) = image.name.as_deref() else {
                continue;
            };
            let Err(mismatches) = looked.keys.serves(name) else {
                return;
            };
            let nearest = diagnose::nearest_key(mismatches.iter(), domain(image)).cloned();
            // One that nobody else serves tells most.
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
        // A service account serves many, and CCE's console writes its own Secret everywhere.
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
        let whose = self.account.map_or("it", |_| "its pods");
        let found = diagnose::finding(Cause::SecretKeyMismatch)
            .severity(severity)
            .confidence(Confidence::Medium)
            .fact(format!(
                "{} names Secret {secret}, and no server key of it matches an image of {whose}",
                self.who()
            ));
        let draft = if let Some((image, nearest)) = &near {
            let (key, rule) = (&nearest.credential.key, &nearest.rule);
            let found = found
                .fact(format!(
                    "the nearest key, '{key}', for {}: {rule}",
                    image.image
                ))
                .hint(format!(
                    "If it is meant for this image: {}",
                    diagnose::mend_key(domain(image), nearest)
                ));
            Draft::of(self.weigh(found)).shown_by(image)
        } else {
            let keys: Vec<String> = rules.into_iter().map(|rule| rule.credential.key).collect();
            let first = self.unserved.first();
            let wanted = first.map_or("the images' registries", |image| domain(image));
            let found = found.fact(if keys.is_empty() {
                "it has no server key at all".to_owned()
            } else {
                format!("its keys are for other registries: {}", listed(&keys))
            });
            Draft::of(self.weigh(found).hint(format!(
                "Name a Secret with a login for {wanted} instead, or take {secret} out of imagePullSecrets."
            )))
        };
        self.add(secret, draft, drafts);
    }

    fn add(&self, secret: &str, draft: Draft, drafts: &mut Drafts) {
        let place = self.place().of(secret);
        let draft = draft.idle(self.maker);
        if self.account.is_some() {
            drafts.add_used(place, draft, self.maker);
        } else {
            drafts.add(place, draft);
        }
    }
}

fn domain(image: &Image) -> &str {
    let name = image.name.as_deref().unwrap_or(&image.image);
    name.split('/').next().unwrap_or(name)
}

fn no_account(maker: &WorkloadResource) -> Draft {
    let (who, account, namespace) = (maker.shown(), maker.account(), &maker.namespace);
    let found = diagnose::finding(Cause::ServiceAccountMissing)
        .severity(Severity::Critical)
        .fact(match &maker.service_account {
            Some(_) => format!("{who} has serviceAccountName {account}"),
            None => format!("{who} names no service account, so it is default's"),
        })
        .fact(format!(
            "namespace {namespace} has no ServiceAccount {account}: the API server refuses its pods"
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

/// At whom a finding is, and of which Secret.
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

    fn maker(maker: &WorkloadResource) -> Self {
        let (kind, name) = maker.who();
        Self::at(&maker.namespace, kind, name)
    }

    fn of(mut self, secret: &str) -> Self {
        secret.clone_into(&mut self.secret);
        self
    }
}

/// Who uses something.
#[derive(Clone, Debug, Default)]
struct Users {
    names: BTreeSet<String>,
    /// One of them makes pods.
    make_pods: bool,
    /// One of them makes pods, and no other Secret of it would do.
    need_it: bool,
}

impl Users {
    fn add(&mut self, maker: &WorkloadResource) {
        self.names.insert(maker.shown());
        self.make_pods |= !maker.is_idle;
    }

    fn told(&self) -> String {
        let names: Vec<String> = self.names.iter().cloned().collect();
        format!("used by {}", listed(&names))
    }
}

/// A finding that is not at anybody yet.
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

    /// This container or image volume shows it.
    fn shown_by(mut self, image: &Image) -> Self {
        self.container = Some((image.kind, image.container.to_string()));
        self
    }

    /// Nothing fails now where no pod is made.
    fn idle(mut self, maker: &WorkloadResource) -> Self {
        if maker.is_idle {
            let who = maker.shown();
            self.found = no_worse(self.found).fact(format!(
                "{who} makes no pods at present (replicas: 0, or suspended)"
            ));
        }
        self
    }
}

/// All that was found, once at each place.
#[derive(Default)]
struct Drafts(BTreeMap<(Cause, FindingSubject, usize), Draft>);

impl Drafts {
    fn add(&mut self, place: FindingSubject, draft: Draft) {
        // Pods of one workload of a kind that is not read say the same.
        let mut number = 0;
        loop {
            match self.0.get(&(draft.found.cause, place.clone(), number)) {
                Some(other) if other.found.evidence == draft.found.evidence => return,
                Some(_) => number += 1,
                None => break,
            }
        }
        self.0.insert((draft.found.cause, place, number), draft);
    }

    /// What many have in common is told once, as bad as it is for any of them.
    fn add_used(&mut self, place: FindingSubject, draft: Draft, user: &WorkloadResource) {
        let none = || Draft::of(diagnose::finding(draft.found.cause).severity(Severity::Info));
        let key = (draft.found.cause, place, 0);
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
            .map(|((_, place, _), draft)| {
                let users = &draft.users;
                let found = draft
                    .found
                    .facts((!users.names.is_empty()).then(|| users.told()));
                let (container_kind, container) = draft.container.unzip();
                Finding {
                    namespace: place.namespace,
                    kind: place.kind,
                    name: place.name,
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
