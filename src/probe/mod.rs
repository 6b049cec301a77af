//! Checks one image: makes the requests that containerd and the kubelet would make for a pull, without pulling the
//! image.
//!
//! A check never returns an error: what goes wrong becomes evidence. It discovers its legs: the registry (or the
//! mirrors before it) from the reference, the token service from the challenge, the blob host from the redirect of a
//! real layer. It makes containerd's requests, in containerd's order and with the rules of its release, and repeats a
//! request where containerd does. Additional requests are evidence only and never change the result: `/v2/` at the end,
//! the body of a rejection, and a repetition with small segments if an exchange stalls after a good start
//! (`segments.rs`).

mod auth;
pub mod check;
mod content;
mod host;
mod image;
mod large_documents;
pub mod large_hello;
mod leg;
pub mod manifest;
pub mod network;
mod redirects;
pub mod requests;
mod segments;
mod session;
mod trace;
mod transfer;
mod unpack;

use jiff::Timestamp;

use crate::containerd::HostClient;
use crate::containerd::behaviour::{Behaviour, Rules, SettingsInForce};
use crate::model::evidence::{ByRelease, Evidence, TracedExchange, Walk};
use crate::model::foreign;
use crate::model::hosts::{HostKind, HostsConfig, HostsEffect, HostsProblem};
use crate::model::text::joined;
use crate::model::workload::PodUse;
use crate::own;
use crate::pull_secret::entry::Credential;
use crate::redact::{Scrubber, Secret};
use crate::registry::manifest::Descriptor;
use check::{Check, Effort, Guard};
use host::{Content, HostWalk, Resolution};
use leg::Connections;
use network::{ProbeNetwork, Progress};
use requests::Requests;

/// Checks the pull of one image: at each host that containerd would query, in its order, until the hosts have served
/// everything. If the runtime's version is unknown and releases behave differently, the check is made with the rules of
/// each.
#[tracing::instrument(skip_all, fields(image = %check.reference))]
pub async fn pull(
    check: &Check,
    probe_network: &ProbeNetwork,
    progress: &dyn Progress,
    started: Timestamp,
) -> Evidence {
    let made = pull_by_releases(check, probe_network, progress, started);
    let (mut evidence, met) = own::scope(Box::pin(made)).await;
    evidence.note_own_limits(&met);
    evidence.note_own_limits(&probe_network.own_limits);
    evidence.note_limits_of_phases();
    evidence
}

async fn pull_by_releases(
    check: &Check,
    probe_network: &ProbeNetwork,
    progress: &dyn Progress,
    started: Timestamp,
) -> Evidence {
    let candidates = probe_network.settings.candidates(check.runtime.as_ref());
    let rules = Rules::new(candidates[0], &candidates);
    let mut evidence = Box::pin(pull_by(&rules, check, probe_network, progress, started)).await;
    let agrees = |one: &usize| rules.agrees(*one);
    let (alike, mut left): (Vec<usize>, Vec<usize>) = (0..candidates.len()).partition(agrees);
    if left.is_empty() {
        return evidence;
    }
    let once = Check {
        compare_direct: false,
        effort: check.effort.without_extras(),
        ..check.clone()
    };
    // Releases that behave the same are checked once.
    let names = |alike: &[usize]| joined(alike.iter().map(|one| candidates[*one].name()));
    evidence.assumed_release = Some(names(&alike));
    let mut walked = vec![0];
    while let Some(other) = left.first().copied() {
        let rules = Rules::new(candidates[other], &candidates);
        let again = Box::pin(pull_by(&rules, &once, probe_network, progress, started)).await;
        let alike: Vec<usize>;
        let agrees = |one: &usize| *one == other || rules.agrees(*one);
        (alike, left) = left.into_iter().partition(agrees);
        // If the release is known, only the settings are in question.
        let is_read = |one: &Behaviour| one.settings == SettingsInForce::AsRead;
        let other_settings = candidates.iter().filter(|one| is_read(one)).count() == 1
            && !alike.iter().any(|one| is_read(&candidates[*one]));
        evidence.by_release.push(ByRelease {
            release: names(&alike),
            answers_changed: walked.iter().any(|one| rules.agrees(*one)),
            other_settings,
            evidence: Box::new(again),
        });
        walked.push(other);
    }
    evidence
}

/// The check with the rules of one release.
async fn pull_by(
    rules: &Rules,
    check: &Check,
    probe_network: &ProbeNetwork,
    progress: &dyn Progress,
    started: Timestamp,
) -> Evidence {
    let (candidates, keyring) = check.keyring.lookup(&check.reference);
    let scrub = Scrubber::default();
    check.keyring.hide_in(&scrub);
    for secret in probe_network.settings.proxies.secrets() {
        scrub.hide(&secret);
    }
    let trust = probe_network.trust.of_runtime(check.runtime.as_ref());
    let (mut hosts, clients) =
        probe_network
            .settings
            .hosts(check.reference.domain(), &check.host(), &trust, rules);
    note_no_resolver(&mut hosts, check, &clients);
    for (_, value) in clients.iter().flat_map(|client| &client.headers) {
        scrub.hide(&Secret::new(String::from_utf8_lossy(value.as_bytes())));
    }
    for login in clients.iter().filter_map(|client| client.login.as_ref()) {
        login.hide_in(&scrub);
    }
    let reads_all = |check: &Check| check.effort.transfer.as_ref().is_some_and(|b| b.full);
    let requests = Requests::of_image(reads_all(check));
    let guard = check.guard.as_ref();
    let guard = guard.map(|guard| with_named(guard, check, probe_network, &clients, rules));
    let round = HostsWalk {
        check,
        guard: guard.as_ref(),
        probe_network,
        progress,
        scrub: &scrub,
        rules,
        candidates: &candidates,
        clients: &clients[..clients.len().min(MAX_HOSTS)],
        credential: None,
        direct: false,
        requests: &requests,
    };
    let mut outcome = Box::pin(round.run()).await;
    let used_proxy = outcome
        .walks
        .iter()
        .flat_map(|(_, walk)| &walk.legs)
        .any(|leg| leg.proxy_route.proxy().is_some());
    let mut direct = None;
    if check.compare_direct && used_proxy {
        let requests = Requests::of_image(reads_all(check));
        let compared = HostsWalk {
            direct: true,
            requests: &requests,
            ..round
        };
        let mut other = Box::pin(compared.run()).await;
        direct = Some(Box::new(other.walks.swap_remove(other.deciding).1));
    }
    let (_, walk) = outcome.walks.remove(outcome.deciding);
    let beyond = clients.len().min(MAX_HOSTS)..clients.len();
    let mut evidence = Evidence {
        reference: check.reference.clone(),
        platform: check.platform.clone(),
        started,
        vantage: probe_network.vantage.clone(),
        pods: check.pods.clone(),
        present_for: None,
        requested_secrets: check.requested_secrets.clone(),
        keyring,
        runtime: check.runtime.clone(),
        kubelet: check.kubelet.clone(),
        assumed_release: None,
        by_release: Vec::new(),
        pulled: Some(outcome.pulled),
        own_limits: Vec::new(),
        hosts,
        proxies: probe_network
            .settings
            .proxies
            .settings_of(&trust.tls.builds),
        walk,
        others: outcome.walks.into_iter().map(|(_, walk)| walk).collect(),
        not_contacted: outcome
            .not_contacted
            .into_iter()
            .chain(beyond)
            .map(|index| clients[index].host.clone())
            .collect(),
        upstream: outcome.upstream.map(Box::new),
        direct,
        trace: outcome.trace,
    };
    let hosts = clients
        .iter()
        .map(|client| client.host.endpoint.to_string());
    let known = format!(
        "{} {}",
        check.reference,
        hosts.collect::<Vec<_>>().join(" ")
    );
    foreign::each(&mut evidence, &mut |source, text| {
        *text = scrub.enter(source, text, &known);
    });
    evidence
}

/// The guard with the hosts that containerd's settings name: mirrors, and the registry if it has settings of its own.
fn with_named(
    guard: &Guard,
    check: &Check,
    probe_network: &ProbeNetwork,
    clients: &[HostClient],
    rules: &Rules,
) -> Guard {
    let domain = check.reference.domain();
    let is_named = probe_network.settings.names(domain, *rules.in_force());
    let is_theirs = |client: &&HostClient| is_named || client.host.kind != HostKind::Registry;
    let named = clients.iter().filter(is_theirs);
    let named = named.map(|client| &client.host.endpoint);
    let mut guard = guard.clone();
    guard
        .allowed
        .extend(named.map(|endpoint| (endpoint.host.to_string(), endpoint.port)));
    guard
}

/// Reports `no resolve hosts`: no host may resolve tags, but the image has a tag.
fn note_no_resolver(hosts: &mut HostsConfig, check: &Check, clients: &[HostClient]) {
    let HostsConfig::Read { problems, .. } = hosts else {
        return;
    };
    let can_resolve = clients.iter().any(|client| client.host.resolves);
    if !can_resolve && check.reference.digest().is_none() {
        problems.push(HostsProblem::of_hosts(
            HostsEffect::PullFails,
            "no host has both 'pull' and 'resolve' in its capabilities, so containerd can't \
                     resolve the tag (`no resolve hosts`); add 'resolve' to one host, or above \
                     the first [host]"
                .to_owned(),
        ));
    }
}

/// One pull across the hosts.
#[derive(Clone, Copy)]
struct HostsWalk<'a> {
    check: &'a Check,
    guard: Option<&'a Guard>,
    probe_network: &'a ProbeNetwork,
    progress: &'a dyn Progress,
    scrub: &'a Scrubber,
    rules: &'a Rules,
    candidates: &'a [Credential],
    clients: &'a [HostClient],
    /// The credential of the present attempt.
    credential: Option<&'a Credential>,
    /// Without any proxy.
    direct: bool,
    /// The requests that may still be sent.
    requests: &'a Requests,
}

/// The result of a pull across the hosts.
struct HostsOutcome {
    /// With the position of the host in containerd's order; never empty.
    walks: Vec<(usize, Walk)>,
    /// Index in `walks` of the host that decides.
    deciding: usize,
    not_contacted: Vec<usize>,
    pulled: bool,
    /// The last host, queried once beside a mirror that serves the image.
    upstream: Option<Walk>,
    trace: Vec<TracedExchange>,
}

/// How the pull with one credential failed.
struct Tried {
    /// The host that decides.
    host: Option<usize>,
    /// Whether the next credential is tried.
    continues: bool,
}

impl<'a> HostsWalk<'a> {
    /// Like the kubelet: a whole pull with each matching credential, until one succeeds.
    async fn run(&self) -> HostsOutcome {
        let mut visits: Vec<Option<HostWalk<'a>>> = self.clients.iter().map(|_| None).collect();
        let (mut deciding, mut pulled, mut used) = (None, false, None);
        for credential in self.tries() {
            let in_cooldown = &self.check.effort.in_cooldown;
            let known = in_cooldown.iter().find(|known| {
                known.credential.is_some() && known.credential.as_ref() == credential.map(|c| &c.id)
            });
            let round = Self {
                credential,
                ..*self
            };
            if let Some(known) = known {
                round.visit(&mut visits, 0).await;
                if let Some(visit) = visits[0].as_mut() {
                    visit.walk.attempts.push(known.clone());
                }
                continue;
            }
            let tried = Box::pin(round.pull(&mut visits)).await;
            pulled = tried.is_ok();
            used = credential;
            let continues = tried.as_ref().is_err_and(|tried| tried.continues);
            deciding = tried.map_or_else(|tried| tried.host, Some);
            if !continues {
                break;
            }
        }
        let mut outcome = HostsOutcome {
            walks: Vec::new(),
            deciding: 0,
            not_contacted: Vec::new(),
            pulled,
            upstream: None,
            trace: Vec::new(),
        };
        let upstream = match deciding.and_then(|index| visits[index].as_ref()) {
            Some(served) if visits.last().is_some_and(Option::is_none) => {
                Box::pin(self.query_upstream(served, used)).await
            }
            _ => None,
        };
        for (index, visit) in visits.into_iter().enumerate() {
            let Some(visit) = visit else {
                outcome.not_contacted.push(index);
                continue;
            };
            let (walk, trace) = visit.end().await;
            outcome.walks.push((index, walk));
            outcome.trace.extend(trace);
        }
        if let Some((walk, trace)) = upstream {
            outcome.upstream = Some(walk);
            outcome.trace.extend(trace);
        }
        // The one that decided; otherwise the last, whose result containerd would report.
        let at = |index| outcome.walks.iter().position(|(i, _)| *i == index);
        outcome.deciding = deciding
            .and_then(at)
            .unwrap_or(outcome.walks.len().saturating_sub(1));
        outcome
    }

    /// Queries the last host for the manifest, once, if a mirror serves the image.
    async fn query_upstream(
        &self,
        served: &HostWalk<'a>,
        credential: Option<&'a Credential>,
    ) -> Option<(Walk, Vec<TracedExchange>)> {
        let effort = &self.check.effort;
        let by_mirror = served.walk.host.kind == HostKind::Mirror && served.walk.serves_layers();
        if !by_mirror || self.direct || effort.only_free || !effort.checks_upstream {
            return None;
        }
        let client = self.clients.last()?;
        // No request is repeated, and no body is requested if HEAD is rejected.
        let effort = Effort {
            only_free: true,
            ..effort.without_extras()
        };
        let check = Check {
            effort,
            ..self.check.clone()
        };
        // Differences between releases do not matter there: it is not part of the pull.
        let behaviour = *self.rules.in_force();
        let rules = Rules::new(behaviour, &[behaviour]);
        let round = HostsWalk {
            rules: &rules,
            ..*self
        };
        let mut visit = HostWalk::open(&check, client, round.lines(client)).await;
        visit.begin(credential);
        let version = self.check.reference.version();
        visit.resolve(Content::Manifest, version, true).await;
        Some(visit.close())
    }

    /// The credentials in the kubelet's order; one attempt without a credential if none matches.
    fn tries(&self) -> Vec<Option<&'a Credential>> {
        let mut tries: Vec<Option<&Credential>> = self.candidates.iter().map(Some).collect();
        // A pod that names no Secret may have none: anonymous access is tested first.
        let names_none = |pod: &PodUse| pod.pull_secrets.is_empty();
        let pods = &self.check.pods;
        if tries.is_empty() || (!pods.is_empty() && pods.iter().all(names_none)) {
            tries.insert(0, None);
        }
        tries
    }

    /// One pull: the first host that knows the reference resolves it, and then each piece of content is requested from
    /// the hosts in their order. Returns the host that decides, if all requested content was served.
    async fn pull(&self, visits: &mut [Option<HostWalk<'a>>]) -> Result<usize, Tried> {
        for visit in visits.iter_mut().flatten() {
            visit.start_over();
        }
        let (root, resolved_by) = self.resolve(visits).await?;
        // The second phase starts without the tokens of the first.
        for visit in visits.iter_mut().flatten() {
            visit.resolved();
            visit.begin(self.credential);
        }
        let fetched = Box::pin(self.fetch(visits, &root, resolved_by)).await;
        fetched.map_err(|refused| {
            let mut all = visits.iter().flatten();
            let by_access = refused.by_access || all.any(HostWalk::was_refused_above_blobs);
            Tried {
                host: Some(refused.host),
                continues: by_access && was_used(visits),
            }
        })
    }

    async fn resolve(
        &self,
        visits: &mut [Option<HostWalk<'a>>],
    ) -> Result<(Descriptor, usize), Tried> {
        let reference = &self.check.reference;
        let by_digest = reference.digest().is_some();
        let contents: &[Content] = if by_digest {
            &[Content::Manifest, Content::Layer]
        } else {
            &[Content::Manifest]
        };
        let version = reference.version();
        let is_queried = |client: &HostClient| client.host.resolves || by_digest;
        // If no host may resolve, `note_no_resolver` reports that every pull fails; the last host is still queried.
        let last = self.clients.len().saturating_sub(1);
        let queried: Vec<usize> = (0..self.clients.len())
            .filter(|index| is_queried(&self.clients[*index]))
            .collect();
        let queried = if queried.is_empty() {
            vec![last]
        } else {
            queried
        };
        let mut host = None;
        for content in contents {
            for index in &queried {
                self.visit(visits, *index).await;
                let Some(visit) = visits[*index].as_mut() else {
                    continue;
                };
                let is_last_host = Some(index) == queried.last();
                host = Some(*index);
                match visit.resolve(*content, version, is_last_host).await {
                    Resolution::Found(descriptor) => return Ok((descriptor, *index)),
                    Resolution::Next => {}
                    Resolution::Final => {
                        let continues = false;
                        return Err(Tried { host, continues });
                    }
                }
            }
            // A pull would have sent a credential here, and might have received the manifest.
            if visits.iter().flatten().any(HostWalk::was_withheld) {
                break;
            }
        }
        let continues = was_used(visits) && visits.iter().flatten().any(HostWalk::was_refused);
        Err(Tried { host, continues })
    }

    /// Connections to a host, with a request limit of their own.
    fn lines(&self, client: &'a HostClient) -> Connections<'a> {
        Connections::new(
            self.probe_network,
            client,
            self.progress,
            self.scrub.clone(),
            self.direct,
            self.rules,
            self.requests.of_host(),
        )
        .guarded(self.guard)
    }

    /// Connects to a host if needed, and starts the phase of this pull there.
    async fn visit(&self, visits: &mut [Option<HostWalk<'a>>], index: usize) {
        let Some(client) = self.clients.get(index) else {
            return;
        };
        if visits[index].is_none() {
            visits[index] = Some(HostWalk::open(self.check, client, self.lines(client)).await);
        }
        if let Some(visit) = visits[index].as_mut()
            && visit.session.is_none()
        {
            visit.begin(self.credential);
        }
    }
}

/// Whether a host requested authentication, so that the credential, or its absence, affected the result.
fn was_used(visits: &[Option<HostWalk<'_>>]) -> bool {
    visits.iter().flatten().any(HostWalk::was_challenged)
}

/// Bound for the hosts of one hosts.toml that are queried; real files list fewer.
const MAX_HOSTS: usize = 16;
