//! One check of a target: the requests of a pull, what the tier adds to them, and the report.

use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::{Mutex, watch};

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
use crate::diagnose::Pull;
use crate::diagnose::catalogue::Cause;
use crate::files;
use crate::kubernetes::client::ConnectError;
use crate::kubernetes::secrets::{self, Secrets, SecretsInUse};
use crate::kubernetes::watch::{View, WatchState};
use crate::model::credential::{CredentialSource, SourceProblem};
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::{AddressTrial, Attempt, Evidence, Leg};
use crate::model::hops::Trace;
use crate::model::network::ExpectedPath;
use crate::model::own_limit::OwnLimit;
use crate::model::proxy::ProxySettings;
use crate::model::runtime::Runtime;
use crate::model::settings_source::SettingsSource;
use crate::model::text::printable;
use crate::model::units::Bytes;
use crate::model::vantage::{NetworkView, NodeFacts, Vantage};
use crate::model::workload::{Found, SecretLookup, SecretRefs};
use crate::net::netlink::Netlink;
use crate::own;
use crate::probe::check::Budget;
use crate::probe::check::{Check, Effort, Guard};
use crate::probe::manifest::KnownManifests;
use crate::probe::network::{LargeDocuments, NoProgress, ProbeNetwork};
use crate::probe::{self, large_hello};
use crate::pull_secret::entry::Credential;
use crate::pull_secret::keyring::{Keyring, LoadedSource};
use crate::report::Report;
use crate::vantage::node_settings::{NodeSettings, NodeSettingsError, containerd_files};
use crate::vantage::{ClusterInput, NodeInput, PodInput, wants_pod_input};

/// A `path` check observes the vantage again if the last observation is older than this.
const LOOK_AGAIN: Duration = Duration::from_mins(10);

/// How long a check waits for Secrets. A healthy API server sends them within a fraction of this; a Secret that
/// has not arrived by then is unknown in the report.
const SECRETS_WAIT: Duration = Duration::from_secs(3);

/// How long a check waits for the first state of the Node. Without it, the vantage only has fewer facts.
const NODE_WAIT: Duration = Duration::from_secs(2);

/// The facts about this Node, or why there are none.
fn node_input(view: &View<NodeFacts>) -> NodeInput {
    match (view.only(), &view.state) {
        (Some(facts), _) => NodeInput::Facts(Arc::clone(facts)),
        (None, WatchState::Unknown) => {
            NodeInput::Nothing("the API server has not answered yet".to_owned())
        }
        (None, WatchState::Following) => {
            NodeInput::Nothing("the API server has no Node with this name".to_owned())
        }
        (None, WatchState::Lost { reason, .. }) => NodeInput::Nothing(reason.clone()),
    }
}

/// What checks share under one configuration.
#[derive(Debug)]
pub struct CheckContext {
    probing: ProbeNetwork,
    network: Network,
    node_settings: NodeSettings,
    /// When the vantage was observed, and the result. Locked during an observation.
    observed: Mutex<Option<(Instant, Arc<Vantage>)>>,
    last_vantage: watch::Sender<Option<Arc<Vantage>>>,
    budgets: Budgets,
    secrets: Arc<Secrets>,
    /// The watch of this Node; `None`: it is not watched.
    node: Option<watch::Receiver<View<NodeFacts>>>,
    own_pod: Option<OwnPod>,
    large_hellos: Arc<Lock<LargeHellos>>,
    /// The longest duration of a check.
    check_timeout: Duration,
    /// `kubernetes.local_registries`.
    local_registries: Vec<(String, u16)>,
}

/// Why a configuration can't be put in force.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file is invalid; the message names file, key and fix.
    #[error("{0}")]
    Config(String),
    /// A file of the node that `network` names can't be used.
    #[error(transparent)]
    NodeSettings(#[from] NodeSettingsError),
    /// A file of containerd can't be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No API server is configured, or its credentials can't be read.
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    /// A limit of this process kept it from reading all settings.
    #[error("not all settings can be read: {0}; {fix}", fix = .0.fix())]
    OwnLimit(OwnLimit),
    /// `state_dir` can't be created or read.
    #[error("the state folder {path} can't be used: {source}; correct state_dir")]
    StateDir {
        /// The folder.
        path: String,
        /// The error of the file system.
        #[source]
        source: std::io::Error,
    },
}

impl CheckContext {
    /// Reads the files that a configuration names.
    ///
    /// # Errors
    /// If one of these files can't be used.
    pub fn load(
        config: &Config,
        netlink: Option<Arc<Netlink>>,
        known: Arc<KnownManifests>,
        cluster: &Cluster,
        large_hellos: Arc<Lock<LargeHellos>>,
    ) -> Result<Self, StartError> {
        let wait = config.schedule.timeout.0;
        let (read, met) = own::scope_of_settings(|| {
            let settings = Settings::load(&containerd_files(&config.network), |name| {
                std::env::var(name).ok()
            })?;
            let node_settings = NodeSettings::load(&config.network, wait, &settings)?;
            Ok::<_, StartError>((settings, node_settings))
        });
        // Half of the settings would be wrong for as long as they are in force.
        if let Some(limit) = met.first() {
            return Err(StartError::OwnLimit(*limit));
        }
        let (settings, node_settings) = read?;
        let base = node_settings
            .vantage(&settings)
            .with_settings(SettingsSource::Configuration);
        for because in &base.not_observed_because {
            let what = base.describe(because.what);
            tracing::warn!(reason = because.reason, "not observed: {what}");
        }
        Ok(Self {
            probing: ProbeNetwork {
                resolver: node_settings.means.resolver.clone(),
                overrides: Vec::new(),
                families: node_settings.means.families,
                nat64: config.network.declared().nat64_prefixes,
                trust: node_settings.trust.clone(),
                settings,
                trace: false,
                transfer_lock: Mutex::new(()),
                large_documents: LargeDocuments::default(),
                vantage: base,
                netlink,
                wait,
                known,
                own_limits: Vec::new(),
            },
            network: config.network.clone(),
            node_settings,
            observed: Mutex::new(None),
            last_vantage: watch::Sender::default(),
            budgets: config.budgets.clone(),
            secrets: Arc::clone(&cluster.secrets),
            node: cluster.node.clone(),
            own_pod: cluster.own_pod.clone(),
            large_hellos,
            check_timeout: config.schedule.check_timeout.0,
            local_registries: config.kubernetes.local_registries().collect(),
        })
    }

    /// The newest vantage; observed again if it is older than `at_most`, or if the Node's paths changed.
    async fn vantage(&self, at_most: Duration) -> Arc<Vantage> {
        let mut observed = self.observed.lock().await;
        let node = self.node().await;
        let known = observed.as_ref().filter(|(at, vantage)| {
            at.elapsed() < at_most
                && match (&vantage.node, node.facts()) {
                    (Some(before), Some(now)) => before.has_same_paths(now),
                    (before, now) => before.is_none() && now.is_none(),
                }
        });
        let (at, vantage) = match known {
            Some((_, vantage)) if vantage.node.as_ref() == node.facts() => {
                return Arc::clone(vantage);
            }
            // Other facts about the Node have changed, for example that it is cordoned.
            Some((at, vantage)) => {
                let mut vantage = Vantage::clone(vantage);
                vantage.node = node.facts().cloned();
                (*at, Arc::new(vantage))
            }
            None => {
                let netlink = self.probing.netlink.clone();
                let base = self.probing.vantage.clone();
                let pod = self.pod().await;
                let input = ClusterInput { node, pod };
                let look = self
                    .node_settings
                    .look(base, &self.network, &input, netlink);
                let (vantage, met) = own::scope(Box::pin(look)).await;
                let vantage = Arc::new(vantage);
                // It holds for this check only: a later one may see more.
                if !met.is_empty() {
                    return vantage;
                }
                (Instant::now(), vantage)
            }
        };
        *observed = Some((at, Arc::clone(&vantage)));
        self.last_vantage.send_replace(Some(Arc::clone(&vantage)));
        vantage
    }

    /// The facts about this Node from the API server; waits a moment for the first.
    async fn node(&self) -> NodeInput {
        let Some(node) = &self.node else {
            return NodeInput::NotRequested;
        };
        let mut node = node.clone();
        let first = node.wait_for(|view| view.state != WatchState::Unknown);
        let _ = own::within(NODE_WAIT, first).await;
        node_input(&node.borrow())
    }

    /// The annotations of this daemon's own pod from the API server, if no file has them.
    async fn pod(&self) -> PodInput {
        match &self.own_pod {
            Some(pod) if wants_pod_input(&self.network, self.probing.vantage.network) => {
                pod.annotations().await
            }
            _ => PodInput::NotRequested,
        }
    }

    /// Reads the Secrets of one check, also those that no target needs, and waits a moment for them.
    pub async fn lend_secrets(&self, target: &Target) -> SecretsInUse {
        let refs = target.secrets.iter();
        let lent = self.secrets.lend(refs.flat_map(SecretRefs::keys).collect());
        lent.loaded(SECRETS_WAIT).await;
        lent
    }

    /// The proxy settings of containerd, with their source.
    pub fn proxies(&self) -> &ProxySettings {
        self.probing.settings.proxies.settings()
    }

    /// What the image of a pod must not lead to.
    fn guard(&self, node: Option<&NodeFacts>) -> Guard {
        let addresses = node.map(|facts| [&*facts.internal_ips, &facts.external_ips].concat());
        Guard {
            allowed: self.local_registries.clone(),
            node: addresses.unwrap_or_default(),
        }
    }

    /// Whose network stack the checks use.
    pub fn network(&self) -> NetworkView {
        self.probing.vantage.network
    }

    /// The newest vantage; `None` before the first check.
    pub fn last_vantage(&self) -> Option<Arc<Vantage>> {
        self.last_vantage.borrow().clone()
    }
}

/// A check to be made.
#[derive(Debug)]
pub struct Job {
    /// The image, and how to pull it.
    pub target: Arc<Target>,
    /// The kind of the check.
    pub tier: Tier,
    /// Bytes that a transfer test may download; `None`: no transfer test is made.
    pub reserved: Option<Reserved>,
    /// Credentials of this registry in cooldown: they are not sent unless they have changed.
    pub cooling: Vec<Rejected>,
    /// Only requests that don't count against the registry's rate limit are sent.
    pub only_free: bool,
    /// The routers on the path of each leg, from the last `path` check.
    pub hops: Vec<(Role, Trace)>,
    /// TLS with all addresses of each leg's server, from the last `path` check.
    pub addresses: Vec<(Endpoint, AddressTrial)>,
    /// The compressed size of the image; `None` until a manifest was read.
    pub image: Option<Bytes>,
    /// The key of the HMAC that makes tags of credentials.
    pub key: [u8; 32],
    /// The time on the schedule's clock.
    pub now: Moment,
}

/// The result of a check.
#[derive(Debug)]
pub struct CheckResult {
    /// The evidence with its verdict.
    pub report: Report,
    /// Credentials that the registry or its token service rejected.
    pub rejected: Vec<Rejected>,
    /// The attempt that was accepted; `None` if none was.
    pub accepted: Option<Attempt>,
}

/// Makes the check. It never fails: errors become evidence in the report. `None`: it took longer than `limit`, not
/// counting the wait for sockets that other checks hold.
pub async fn make(world: &CheckContext, job: Job, limit: Duration) -> Option<CheckResult> {
    own::scope_within(limit, Box::pin(make_in_scope(world, job))).await
}

async fn make_in_scope(world: &CheckContext, job: Job) -> CheckResult {
    let target = &job.target;
    #[cfg(test)]
    made_defect(&target.name);
    let started = Timestamp::now();
    let began = Instant::now();
    let (mut given, lookups) = from_secrets(target, &world.secrets).await;
    given.extend(sources(target).await);
    given.extend(
        world
            .node_settings
            .node_credentials
            .load(&target.reference)
            .await,
    );
    let keyring = Keyring::new(given);
    let (candidates, _) = keyring.lookup(&target.reference);
    let tag_of = |attempt: &Attempt| {
        let id = attempt.credential.as_ref()?;
        let same = candidates.iter().find(|candidate| candidate.id == *id)?;
        Some(tag(&job.key, &target.registry, same))
    };
    let all = job.cooling.iter();
    let unchanged = all.filter(|cooling| tag_of(&cooling.attempt) == Some(cooling.tag));
    let transfer = job.reserved.map(|reserved| Budget {
        full: false,
        max_bytes: reserved.bytes,
        max_duration: world.budgets.transfer_duration.0,
        expected_within: target.within(job.image),
        control: None,
    });
    let node = world.node().await;
    let runtime = node.facts().and_then(|facts| facts.runtime.as_deref());
    let check = Check {
        runtime: runtime.and_then(Runtime::of_node),
        kubelet: node.facts().and_then(NodeFacts::kubelet_version),
        reference: target.reference.clone(),
        platform: target.platform.clone(),
        pods: target.pods(&lookups),
        requested_secrets: Vec::new(),
        effort: Effort {
            hops: job.tier == Tier::Path,
            transfer,
            layer_bytes: std::num::NonZeroU64::MIN,
            only_free: job.only_free,
            // Otherwise, many nodes with a mirror would send as many requests to the registry as without one.
            checks_upstream: job.tier >= Tier::Path,
            all_addresses: job.tier >= Tier::Path,
            in_cooldown: unchanged.map(|cooling| cooling.attempt.clone()).collect(),
        },
        keyring: Arc::new(keyring),
        plain_http: target.plain_http,
        compare_direct: false,
        guard: target.is_of_pods().then(|| world.guard(node.facts())),
    };
    let fresh = match job.tier {
        Tier::Path => LOOK_AGAIN,
        Tier::Reach | Tier::Transfer => Duration::MAX,
    };
    let (mut evidence, vantage) = tokio::join!(
        probe::pull(&check, &world.probing, &NoProgress, started),
        world.vantage(fresh),
    );
    evidence.vantage = Vantage::clone(&vantage);
    evidence.present_for = target.present_for();
    expect_classes(target, &mut evidence);
    remember_hops(&mut evidence, job.hops);
    remember_addresses(&mut evidence, &job.addresses);
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
    let rejected = rejected.collect();
    let accepted = evidence.walk.accepted().cloned();
    evidence.note_own_limits(&own::met());
    let report = Report::conclude(evidence);
    count_limits(&report);
    CheckResult {
        report,
        rejected,
        accepted,
    }
}

/// Counts the limits of this process that left the check unknown.
fn count_limits(report: &Report) {
    let findings = &report.verdict.findings;
    let is_own = findings.iter().any(|one| one.cause == Cause::OwnLimits);
    if is_own && report.verdict.pull == Pull::Unknown {
        for limit in &report.evidence.own_limits {
            own::count(*limit);
        }
    }
}

/// Applies the target's `expect.class` to the hosts of all its legs.
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

/// Adds the hops of the last `path` check to legs that connected to the same address.
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

/// Adds TLS with the other addresses, as the last `path` check found it, to legs whose own handshake succeeded.
fn remember_addresses(evidence: &mut Evidence, known: &[(Endpoint, AddressTrial)]) {
    let legs = evidence.walk.legs.iter_mut();
    for leg in legs.filter(|leg| leg.other_addresses.is_empty()) {
        let own = leg.connect.outcome.done().map(|connected| connected.to);
        if leg.tls.outcome.done().is_none() || leg.proxy_route.proxy().is_some() {
            continue;
        }
        let answers = |to| {
            let mut attempts = leg.connect.attempts.iter();
            Some(to) != own && attempts.any(|dial| dial.to == to && dial.outcome.done().is_some())
        };
        let theirs = known
            .iter()
            .filter(|(endpoint, _)| *endpoint == leg.endpoint);
        let theirs = theirs.filter(|(_, trial)| answers(trial.to));
        leg.other_addresses = theirs.map(|(_, trial)| trial.clone()).collect();
    }
}

/// Tries a ClientHello of two packets at the legs for which a trial is due, and adds to each leg the result of
/// its last trial. Trials that exceed `limit` have no result, because the check has priority.
async fn try_large_hellos(world: &CheckContext, legs: &mut [Leg], now: Moment, limit: Duration) {
    let remembered = || -> MutexGuard<'_, LargeHellos> {
        let hellos = world.large_hellos.lock();
        hellos.unwrap_or_else(PoisonError::into_inner)
    };
    let is_due = |leg: &&Leg| large_hello::applies(leg) && remembered().take(&leg.endpoint, now);
    let due: Vec<&Leg> = legs.iter().filter(is_due).collect();
    let trials = join_all(
        due.iter()
            .map(|leg| large_hello::trial(leg, &world.probing)),
    );
    let trials = own::aside(own::within(limit, trials)).await;
    let trials = trials.unwrap_or_default();
    for (leg, trial) in due.into_iter().zip(trials) {
        if let Some(trial) = trial {
            remembered().learn(&leg.endpoint, trial);
        }
    }
    for leg in legs.iter_mut().filter(|leg| large_hello::applies(leg)) {
        leg.large_hello = remembered().last(&leg.endpoint).cloned();
    }
}

/// Detects whether a credential has changed: 16 bits of an HMAC, too few to search for a password.
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

/// The Secrets that pods name for a target, in the pods' order, and the result of reading each.
async fn from_secrets(target: &Target, known: &Secrets) -> (Vec<LoadedSource>, Vec<SecretLookup>) {
    let Some(refs) = &target.secrets else {
        return (Vec::new(), Vec::new());
    };
    let (mut sources, mut lookups) = (Vec::new(), Vec::new());
    for key in refs.keys() {
        let (read, found) = known.get(&key).sources(&key);
        sources.extend(read);
        let found = match found {
            Found::Absent => known.absent(&key).await,
            found => found,
        };
        lookups.push(SecretLookup {
            name: printable(&key.name),
            found,
        });
    }
    if let Some((source, lookup)) = secrets::left_out(refs) {
        sources.push(source);
        lookups.push(lookup);
    }
    (sources, lookups)
}

/// The credentials of a target, read from its files for each check, so that a change takes effect at once.
async fn sources(target: &Target) -> Vec<LoadedSource> {
    let files = &target.credential;
    let mut sources = Vec::new();
    let none = credentials::Request {
        for_pods: true,
        ..credentials::Request::default()
    };
    let mut request = none.clone();
    if let (Some(user), Some(path)) = (&files.username, &files.password_file) {
        let password = match credentials::read(path).await {
            Ok(bytes) => credentials::password_from(bytes.as_slice()).map_err(|e| e.to_string()),
            Err(error) => Err(files::reason(&error)),
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
    // Each file is loaded separately: an error in one does not affect the others.
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

/// A panic on purpose, for a test.
#[cfg(test)]
fn made_defect(name: &str) {
    assert_ne!(name, "panics", "made for a test");
}
