//! One check: the walk of one target with the effort of its tier, and its report.

use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::cluster::{Cluster, OwnPod};
use super::schedule::budget::Reserved;
use super::schedule::clock::Moment;
use super::schedule::cooldown::Rejected;
use super::schedule::large_hello::LargeHellos;
use super::schedule::timetable::Tier;
use super::store::summary;
use super::store::target::Target;
use crate::config::{Budgets, Config, Network};
use crate::containerd::{Settings, SettingsError};
use crate::credentials;
use crate::kubernetes::client::ConnectError;
use crate::kubernetes::secrets::{Secrets, SecretsInUse};
use crate::kubernetes::watch::{View, WatchState};
use crate::model::credential::{CredentialSource, SourceProblem};
use crate::model::endpoint::Role;
use crate::model::evidence::{Attempt, Evidence, Leg};
use crate::model::hops::Trace;
use crate::model::network::ExpectedPath;
use crate::model::proxy::ProxySettings;
use crate::model::runtime::Runtime;
use crate::model::text::printable;
use crate::model::units::Bytes;
use crate::model::vantage::{NetworkView, NodeFacts, Vantage};
use crate::model::workload::{SecretLookup, SecretRefs};
use crate::net::netlink::Netlink;
use crate::probe::check::Budget;
use crate::probe::check::{Check, Effort};
use crate::probe::manifest::KnownManifests;
use crate::probe::network::{NoProgress, ProbeNetwork};
use crate::probe::{self, large_hello};
use crate::pull_secret::entry::Credential;
use crate::pull_secret::keyring::{Keyring, LoadedSource};
use crate::report::Report;
use crate::vantage::node_settings::{NodeSettings, NodeSettingsError, containerd_files};
use crate::vantage::{ClusterInput, NodeInput, PodInput, wants_pod_told};

/// Surroundings are looked at again with a path check, when they were seen longer ago than this.
const LOOK_AGAIN: Duration = Duration::from_mins(10);

/// An API server that is well tells of a Secret within a fraction of this; what it has not told by then is
/// "not known" in the report, and the person who has asked is not kept waiting.
const SECRETS_WAIT: Duration = Duration::from_secs(3);

/// The first look waits for the Node for so long: an API server that is well has told by then, and without
/// its word a look only knows less.
const NODE_WAIT: Duration = Duration::from_secs(2);

fn told_of(view: &View<NodeFacts>) -> NodeInput {
    match (view.only(), &view.state) {
        (Some(facts), _) => NodeInput::Facts(Arc::clone(facts)),
        (None, WatchState::Unknown) => NodeInput::Nothing("it has not answered yet".to_owned()),
        (None, WatchState::Following) => NodeInput::Nothing("it has none of this name".to_owned()),
        (None, WatchState::Lost { reason, .. }) => NodeInput::Nothing(reason.clone()),
    }
}

/// All that checks share, as one configuration has it.
#[derive(Debug)]
pub struct CheckContext {
    edges: ProbeNetwork,
    network: Network,
    place: NodeSettings,
    /// Held while one looks.
    seen: Mutex<Option<(Instant, Arc<Vantage>)>>,
    last_seen: watch::Sender<Option<Arc<Vantage>>>,
    budgets: Budgets,
    secrets: Arc<Secrets>,
    /// What is told of this Node; `None`: nobody is asked.
    node: Option<watch::Receiver<View<NodeFacts>>>,
    own_pod: Option<OwnPod>,
    large_hellos: Arc<Lock<LargeHellos>>,
    /// The longest that a check may take.
    check_timeout: Duration,
}

/// Why a configuration can't be put in force.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Says which file, key and fix.
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    NodeSettings(#[from] NodeSettingsError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    #[error(
        "the folder for what must outlive a restart, {path}, can't be used: {source}; correct state_dir"
    )]
    StateDir {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl CheckContext {
    /// Reads what a configuration names.
    ///
    /// # Errors
    /// When a file that was named can't be used.
    pub fn load(
        config: &Config,
        netlink: Option<Arc<Netlink>>,
        known: Arc<KnownManifests>,
        cluster: &Cluster,
        large_hellos: Arc<Lock<LargeHellos>>,
    ) -> Result<Self, StartError> {
        let wait = config.schedule.timeout.0;
        let settings = Settings::load(&containerd_files(&config.network), |name| {
            std::env::var(name).ok()
        })?;
        let place = NodeSettings::load(&config.network, wait, &settings)?;
        let base = place.vantage(&settings);
        for because in &base.not_observed_because {
            let what = because.what.describe();
            tracing::warn!(reason = because.reason, "not seen: {what}");
        }
        Ok(Self {
            edges: ProbeNetwork {
                resolver: place.means.resolver.clone(),
                overrides: Vec::new(),
                families: place.means.families,
                trust: place.trust.clone(),
                settings,
                trace: false,
                transfer_turn: Mutex::new(()),
                vantage: base,
                netlink,
                wait,
                known,
            },
            network: config.network.clone(),
            place,
            seen: Mutex::new(None),
            last_seen: watch::Sender::default(),
            budgets: config.budgets.clone(),
            secrets: Arc::clone(&cluster.secrets),
            node: cluster.node.clone(),
            own_pod: cluster.own_pod.clone(),
            large_hellos,
            check_timeout: config.schedule.check_timeout.0,
        })
    }

    /// The place as it was seen last; looked at anew where that is too long ago.
    async fn vantage(&self, at_most: Duration) -> Arc<Vantage> {
        let mut seen = self.seen.lock().await;
        let node = self.node_told().await;
        let known = seen.as_ref().filter(|(at, vantage)| {
            at.elapsed() < at_most
                && match (&vantage.node, node.facts()) {
                    (Some(before), Some(now)) => before.has_ways_of(now),
                    (before, now) => before.is_none() && now.is_none(),
                }
        });
        let (at, vantage) = match known {
            Some((_, vantage)) if vantage.node.as_ref() == node.facts() => {
                return Arc::clone(vantage);
            }
            // What else is told of the Node has changed: that it is cordoned, for instance.
            Some((at, vantage)) => {
                let mut vantage = Vantage::clone(vantage);
                vantage.node = node.facts().cloned();
                (*at, Arc::new(vantage))
            }
            None => {
                let netlink = self.edges.netlink.clone();
                let base = self.edges.vantage.clone();
                let pod = self.pod_told().await;
                let told = ClusterInput { node, pod };
                let vantage = self.place.look(base, &self.network, &told, netlink).await;
                (Instant::now(), Arc::new(vantage))
            }
        };
        *seen = Some((at, Arc::clone(&vantage)));
        self.last_seen.send_replace(Some(Arc::clone(&vantage)));
        vantage
    }

    /// What the cluster says of this Node; the first word is waited for a short while.
    async fn node_told(&self) -> NodeInput {
        let Some(node) = &self.node else {
            return NodeInput::NotAsked;
        };
        let mut node = node.clone();
        let told = node.wait_for(|view| view.state != WatchState::Unknown);
        let _ = timeout(NODE_WAIT, told).await;
        told_of(&node.borrow())
    }

    /// What the cluster says of our own pod, where no file does.
    async fn pod_told(&self) -> PodInput {
        match &self.own_pod {
            Some(pod) if wants_pod_told(&self.network, self.edges.vantage.network) => {
                pod.told().await
            }
            _ => PodInput::NotAsked,
        }
    }

    /// Has the Secrets of one check read, which no target may need, and waits for them a short while.
    pub async fn lend_secrets(&self, target: &Target) -> SecretsInUse {
        let refs = target.secrets.iter();
        let lent = self.secrets.lend(refs.flat_map(SecretRefs::keys).collect());
        lent.told(SECRETS_WAIT).await;
        lent
    }

    /// What containerd's proxies are taken from.
    pub fn proxies(&self) -> &ProxySettings {
        self.edges.settings.proxies.settings()
    }

    /// Whose network stack is used.
    pub fn network(&self) -> NetworkView {
        self.edges.vantage.network
    }

    /// The place as it was seen last, if it was.
    pub fn last_seen(&self) -> Option<Arc<Vantage>> {
        self.last_seen.borrow().clone()
    }
}

/// What is to be done.
#[derive(Debug)]
pub struct Job {
    pub target: Arc<Target>,
    pub tier: Tier,
    pub reserved: Option<Reserved>,
    /// Credentials of this registry that are not tried, unless they have changed.
    pub cooling: Vec<Rejected>,
    pub only_free: bool,
    /// The routers on the way, as the last path check saw them.
    pub hops: Vec<(Role, Trace)>,
    /// The size of the image, as far as known.
    pub image: Option<Bytes>,
    /// Makes tags of credentials.
    pub key: [u8; 32],
    pub now: Moment,
}

/// What came of it.
#[derive(Debug)]
pub struct CheckResult {
    pub report: Report,
    pub rejected: Vec<Rejected>,
    pub accepted: Option<Attempt>,
}

/// Makes the check. What goes wrong is in the report.
pub async fn make(world: &CheckContext, job: Job) -> CheckResult {
    let target = &job.target;
    #[cfg(test)]
    made_defect(&target.name);
    let started = Timestamp::now();
    let began = Instant::now();
    let (mut given, sought) = of_cluster(target, &world.secrets);
    given.extend(sources(target).await);
    given.extend(world.place.node_credentials.load(&target.reference).await);
    let keyring = Keyring::new(given);
    let (candidates, _) = keyring.lookup(&target.reference);
    let tag_of = |attempt: &Attempt| {
        let id = attempt.credential.as_ref()?;
        let same = candidates.iter().find(|candidate| candidate.id == *id)?;
        Some(tag(&job.key, &target.registry, same))
    };
    let all = job.cooling.iter();
    let rested = all.filter(|rested| tag_of(&rested.attempt) == Some(rested.tag));
    let transfer = job.reserved.map(|reserved| Budget {
        full: false,
        max_bytes: reserved.bytes,
        max_duration: world.budgets.transfer_duration.0,
        expected_within: target.within(job.image),
        control: None,
    });
    let node = world.node_told().await;
    let runtime = node.facts().and_then(|facts| facts.runtime.as_deref());
    let check = Check {
        runtime: runtime.and_then(Runtime::of_node),
        kubelet: node.facts().and_then(NodeFacts::kubelet_version),
        reference: target.reference.clone(),
        platform: target.platform.clone(),
        pods: target.pods(&sought),
        asked_secrets: Vec::new(),
        effort: Effort {
            hops: job.tier == Tier::Path,
            transfer,
            layer_bytes: std::num::NonZeroU64::MIN,
            only_free: job.only_free,
            // Many nodes with a mirror would else ask the registry as often as without one.
            asks_behind: job.tier >= Tier::Path,
            rested: rested.map(|rested| rested.attempt.clone()).collect(),
        },
        keyring: Arc::new(keyring),
        plain_http: target.plain_http,
        compare_direct: false,
    };
    let fresh = match job.tier {
        Tier::Path => LOOK_AGAIN,
        Tier::Reach | Tier::Transfer => Duration::MAX,
    };
    let (mut evidence, vantage) = tokio::join!(
        probe::pull(&check, &world.edges, &NoProgress, started),
        world.vantage(fresh),
    );
    evidence.vantage = Vantage::clone(&vantage);
    expect_classes(target, &mut evidence);
    remember_hops(&mut evidence, job.hops);
    let left = world.check_timeout.saturating_sub(began.elapsed());
    try_large_hellos(world, &mut evidence.walk.legs, job.now, left / 2).await;
    let rejected = summary::rejected(&evidence.walk).filter_map(|attempt| {
        Some(Rejected {
            tag: tag_of(attempt)?,
            at: job.now,
            confirmed: None,
            may_until: None,
            attempt: Attempt {
                at: Some(started),
                ..attempt.clone()
            },
        })
    });
    CheckResult {
        rejected: rejected.collect(),
        accepted: evidence.walk.accepted().cloned(),
        report: Report::conclude(evidence),
    }
}

/// The target's own expectation counts for the hosts of all its legs.
fn expect_classes(target: &Target, evidence: &mut Evidence) {
    if target.expect.class.is_empty() {
        return;
    }
    let hosts = evidence.walk.legs.iter().map(|leg| ExpectedPath {
        host: leg.endpoint.host.to_string(),
        classes: target.expect.class.clone(),
    });
    evidence.vantage.declared.expect.splice(0..0, hosts);
}

/// Hops of the last path check are those of this one, where the leg is the same.
fn remember_hops(evidence: &mut Evidence, hops: Vec<(Role, Trace)>) {
    for (role, trace) in hops {
        let same = evidence.walk.legs.iter_mut().find(|leg| {
            leg.role == role
                && leg.hops.is_none()
                && leg.connect.outcome.done().is_some_and(|c| c.to == trace.to)
        });
        if let Some(leg) = same {
            leg.hops = Some(trace);
        }
    }
}

/// Tries a ClientHello of two packets at the legs whose turn it is, and adds to each leg what its
/// last trial came to. A trial that takes too long tells nothing: the check goes first.
async fn try_large_hellos(world: &CheckContext, legs: &mut [Leg], now: Moment, limit: Duration) {
    let remembered = || -> MutexGuard<'_, LargeHellos> {
        let hellos = world.large_hellos.lock();
        hellos.unwrap_or_else(PoisonError::into_inner)
    };
    let is_due = |leg: &&Leg| large_hello::applies(leg) && remembered().take(&leg.endpoint, now);
    let due: Vec<&Leg> = legs.iter().filter(is_due).collect();
    let trials = join_all(due.iter().map(|leg| large_hello::trial(leg, &world.edges)));
    let trials = timeout(limit, trials).await.unwrap_or_default();
    for (leg, trial) in due.into_iter().zip(trials) {
        if let Some(trial) = trial {
            remembered().learn(&leg.endpoint, trial);
        }
    }
    for leg in legs.iter_mut().filter(|leg| large_hello::applies(leg)) {
        leg.large_hello = remembered().last(&leg.endpoint).cloned();
    }
}

/// Tells whether a credential is still the same: 16 bits of an HMAC, too few to find a password by.
fn tag(key: &[u8; 32], registry: &str, credential: &Credential) -> u16 {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut context = hmac::Context::with_key(&key);
    let (user, secret) = credential.login();
    for part in [
        registry.as_bytes(),
        user.as_bytes(),
        secret.expose().as_bytes(),
    ] {
        context.update(part);
        context.update(&[0]);
    }
    let tag = context.sign();
    u16::from_be_bytes([tag.as_ref()[0], tag.as_ref()[1]])
}

/// The Secrets that pods name for a target, as far as they may be read, in the pods' order.
fn of_cluster(target: &Target, secrets: &Secrets) -> (Vec<LoadedSource>, Vec<SecretLookup>) {
    let Some(refs) = &target.secrets else {
        return (Vec::new(), Vec::new());
    };
    let (mut sources, mut sought) = (Vec::new(), Vec::new());
    for key in refs.keys() {
        let (read, found) = secrets.get(&key).sources(&key);
        sources.extend(read);
        sought.push(SecretLookup {
            name: printable(&key.name),
            found,
        });
    }
    (sources, sought)
}

/// The credentials of a target, read anew: whoever changes a file does not have to tell.
async fn sources(target: &Target) -> Vec<LoadedSource> {
    let files = &target.credential;
    let mut sources = Vec::new();
    let none = credentials::Request {
        for_pods: true,
        ..credentials::Request::default()
    };
    let mut request = none.clone();
    if let (Some(user), Some(path)) = (&files.username, &files.password_file) {
        let password = match tokio::fs::read(path).await {
            Ok(bytes) => credentials::password_from(bytes.as_slice()).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match password {
            Ok(password) => {
                let path = path.display().to_string();
                let source = CredentialSource::PasswordFile { path };
                request.login = Some(LoadedSource::login(source, user, password));
            }
            Err(reason) => sources.push(unreadable(path, &reason)),
        }
    }
    // Each by itself: one that can't be read says nothing of the others.
    let mut requests = vec![request];
    requests.extend(files.secret_files.iter().map(|path| credentials::Request {
        secret_files: vec![path.clone()],
        ..none.clone()
    }));
    requests.extend(files.docker_config.iter().map(|path| credentials::Request {
        docker_config: Some(path.clone()),
        ..none.clone()
    }));
    for request in requests {
        let environment = |name: &str| std::env::var_os(name);
        match credentials::load(&request, &target.reference, environment).await {
            Ok(loaded) => sources.extend(loaded),
            Err(error) => {
                let file = request.secret_files.first();
                let path = file.or(request.docker_config.as_ref());
                let reason = std::error::Error::source(&error);
                let reason = reason.map_or_else(|| error.to_string(), ToString::to_string);
                sources.extend(path.map(|path| unreadable(path, &reason)));
            }
        }
    }
    sources
}

fn unreadable(path: &std::path::Path, reason: &str) -> LoadedSource {
    let source = CredentialSource::DockerConfig {
        path: path.to_string_lossy().into_owned(),
    };
    let reason = format!("it can't be read: {reason}");
    LoadedSource::failed(source, SourceProblem::Malformed { reason })
}

/// So that a test sees what becomes of one.
#[cfg(test)]
fn made_defect(name: &str) {
    assert_ne!(name, "panics", "made for a test");
}
