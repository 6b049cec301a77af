//! Walks one pull as containerd and the kubelet would, without pulling the image.
//!
//! The walk never returns an error: what goes wrong is evidence. It finds its legs on the way: the
//! registry (or the mirrors before it) from the reference, the token service from the challenge, the
//! blob host from the redirect of a real layer. No step is tried twice and none is asked again
//! later, but for one: where an exchange hangs that had begun well, it is repeated with small
//! segments (`segments.rs`).

mod auth;
mod blob;
mod host;
pub mod large_hello;
mod leg;
mod manifest;
mod segments;
mod trace;
mod transfer;

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::containerd::{BaseTrust, HostClient, Settings};
use crate::model::endpoint::{Endpoint, Role, Scheme};
use crate::model::evidence::{Attempt, Evidence, ManifestFound, TracedExchange, Walk};
use crate::model::fault::Phase;
use crate::model::hosts::{HostsConfig, HostsEffect, HostsProblem, RegistryHost};
use crate::model::platform::Platform;
use crate::model::reference::Reference;
use crate::model::units::Bytes;
use crate::model::vantage::Vantage;
use crate::model::workload::{PodUse, SecretAsked};
use crate::net::dns::Families;
use crate::net::netlink::Netlink;
use crate::net::resolv::ResolverConfig;
use crate::registry::keyring::{Credential, Keyring};
use crate::registry::scrub::Scrubber;
use host::{Served, Visit};
use leg::Lines;
pub use manifest::KnownManifests;
pub use transfer::Budget;

/// One image to check.
#[derive(Clone, Debug)]
pub struct Check {
    pub reference: Reference,
    pub platform: Platform,
    /// Who wants it, as far as known.
    pub pods: Vec<PodUse>,
    /// Secrets of the cluster that whoever asked has named.
    pub asked_secrets: Vec<SecretAsked>,
    pub keyring: Arc<Keyring>,
    /// Talk plain http to the registry (hosts.toml `server = "http://…"`).
    pub plain_http: bool,
    /// Walk again without the proxy, where there is one.
    pub compare_direct: bool,
    pub effort: Effort,
}

/// How much is done beyond what tells whether a pull would succeed, and what is left out.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Ask for the routers on the way to each leg (`--hops`).
    pub hops: bool,
    /// The transfer test, and what it may spend; `None`: none.
    pub transfer: Option<Budget>,
    /// The first bytes of a layer that are asked for.
    pub layer_bytes: NonZeroU64,
    /// Ask for nothing that may count against a rate limit: no manifest is fetched that is not known.
    pub only_free: bool,
    /// Credentials that are not to be tried now, with what came of it when they were.
    pub rested: Vec<Attempt>,
}

impl Effort {
    /// Of a layer, more than one packet holds, since a path may let small ones through only.
    pub const LAYER_BYTES: NonZeroU64 = NonZeroU64::new(4096).expect("not zero");
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            hops: false,
            transfer: None,
            layer_bytes: Self::LAYER_BYTES,
            only_free: false,
            rested: Vec::new(),
        }
    }
}

impl Check {
    /// The image's own registry, as one that no `hosts.toml` speaks of.
    fn host(&self) -> RegistryHost {
        let (host, port) = self.reference.host();
        let scheme = if self.plain_http {
            Scheme::Http
        } else {
            Scheme::Https
        };
        RegistryHost::plain(Endpoint {
            scheme,
            port: port.unwrap_or(scheme.default_port()),
            host,
        })
    }
}

/// The way out into the world, shared by all checks of a run.
#[derive(Debug)]
pub struct Edges {
    pub resolver: ResolverConfig,
    pub overrides: Vec<Override>,
    pub families: Families,
    pub trust: BaseTrust,
    /// What containerd is set to.
    pub settings: Settings,
    /// Keep every exchange (`--trace`).
    pub trace: bool,
    /// One transfer at a time: two would measure each other.
    pub transfer_turn: Mutex<()>,
    pub vantage: Vantage,
    /// The kernel's routes; `None` where they can't be read.
    pub netlink: Option<Arc<Netlink>>,
    /// The longest that any single wait on the network may last.
    pub wait: Duration,
    pub known: Arc<KnownManifests>,
}

/// `--resolve HOST:PORT:ADDR`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Override {
    pub host: String,
    pub port: u16,
    pub address: IpAddr,
}

/// Told what the walk is about to do, for a progress line.
pub trait Progress: Send + Sync {
    fn phase(&self, role: Role, phase: Phase);

    /// So much of all layers has been read, in this time (`--transfer full`).
    fn transferred(&self, _bytes: Bytes, _of: Bytes, _elapsed: Duration) {}
}

/// An answer to `/v2/` is read up to this: error bodies of registries are below 1 KiB, login pages
/// of things that are no registry are some tens.
const SMALL_BODY: u64 = 64 << 10;

/// Walks the pull of one image: at each host that containerd asks, in its order, until one serves
/// all that is still wanted.
#[tracing::instrument(skip_all, fields(image = %check.reference))]
pub async fn pull(
    check: &Check,
    edges: &Edges,
    progress: &dyn Progress,
    started: Timestamp,
) -> Evidence {
    let (candidates, keyring) = check.keyring.lookup(&check.reference);
    let mut scrub = Scrubber::default();
    check.keyring.hide_in(&mut scrub);
    for secret in edges.settings.proxies.secrets() {
        scrub.hide(secret);
    }
    let (mut hosts, clients) =
        edges
            .settings
            .hosts(check.reference.domain(), &check.host(), &edges.trust);
    ask_nobody(&mut hosts, check, &clients);
    for secret in clients.iter().flat_map(|client| &client.header_values) {
        scrub.hide(secret);
    }
    let round = Round {
        check,
        edges,
        progress,
        scrub,
        candidates: &candidates,
        clients: &clients,
        direct: false,
    };
    let mut asked = round.ask().await;
    let went_by_proxy = asked
        .walks
        .iter()
        .flat_map(|(_, walk)| &walk.legs)
        .any(|leg| leg.way.proxy().is_some());
    let mut direct = None;
    if check.compare_direct && went_by_proxy {
        let compared = Round {
            direct: true,
            ..round
        };
        let mut other = compared.ask().await;
        direct = Some(Box::new(other.walks.swap_remove(other.deciding).1));
    }
    let (_, walk) = asked.walks.remove(asked.deciding);
    Evidence {
        reference: check.reference.clone(),
        platform: check.platform.clone(),
        started,
        vantage: edges.vantage.clone(),
        pods: check.pods.clone(),
        asked_secrets: check.asked_secrets.clone(),
        keyring,
        hosts,
        proxies: edges.settings.proxies.settings().clone(),
        walk,
        others: asked.walks.into_iter().map(|(_, walk)| walk).collect(),
        not_asked: asked
            .not_asked
            .into_iter()
            .map(|index| clients[index].host.clone())
            .collect(),
        direct,
        trace: asked.trace,
    }
}

/// `no resolve hosts`: every host may be asked for content only, and the image is named by a tag.
fn ask_nobody(hosts: &mut HostsConfig, check: &Check, clients: &[HostClient]) {
    let HostsConfig::Read { problems, .. } = hosts else {
        return;
    };
    let can_resolve = clients.iter().any(|client| client.host.resolves);
    if !can_resolve && check.reference.digest().is_none() {
        problems.push(HostsProblem {
            effect: HostsEffect::PullFails,
            reason: "no host has both 'pull' and 'resolve' in its capabilities, so containerd has none \
                     to ask what a tag stands for (`no resolve hosts`); add 'resolve' to one, or above \
                     the first [host]"
                .to_owned(),
        });
    }
}

/// One time around the hosts.
struct Round<'a> {
    check: &'a Check,
    edges: &'a Edges,
    progress: &'a dyn Progress,
    scrub: Scrubber,
    candidates: &'a [Credential],
    clients: &'a [HostClient],
    /// By no proxy.
    direct: bool,
}

/// What came of it.
#[expect(
    clippy::struct_field_names,
    reason = "asked and not asked are what it is about"
)]
struct Asked {
    /// With the place of the host in containerd's order; never empty.
    walks: Vec<(usize, Walk)>,
    /// Which of them decides.
    deciding: usize,
    not_asked: Vec<usize>,
    trace: Vec<TracedExchange>,
}

impl<'a> Round<'a> {
    /// As containerd: the first host that knows the tag resolves it, and then each piece of content
    /// is asked of all hosts in their order.
    async fn ask(&self) -> Asked {
        let clients = &self.clients[..self.clients.len().min(MAX_HOSTS)];
        let mut visits: Vec<Option<Visit<'a>>> = clients.iter().map(|_| None).collect();
        let reference = &self.check.reference;
        let mut digest = reference.digest().map(str::to_owned);
        let can_resolve = reference.digest().is_some() || clients.iter().any(|c| c.host.resolves);
        for (index, (client, visit)) in clients.iter().zip(&mut visits).enumerate() {
            // Where none may be asked, `ask_nobody` says that no pull succeeds; the last is looked
            // at all the same.
            let is_last = index + 1 == clients.len();
            let is_asked = client.host.resolves || reference.digest().is_some();
            if !is_asked && (can_resolve || !is_last) {
                continue;
            }
            let new = self.visit(client, reference.version()).await;
            let resolved = new.digest();
            *visit = Some(new);
            if resolved.is_some() {
                digest = resolved;
                break;
            }
        }
        let mut deciding = None;
        if let Some(digest) = &digest {
            deciding = self.fetch(clients, &mut visits, digest).await;
        }
        let mut asked = Asked {
            walks: Vec::new(),
            deciding: 0,
            not_asked: Vec::new(),
            trace: Vec::new(),
        };
        for (index, visit) in visits.into_iter().enumerate() {
            let Some(visit) = visit else {
                asked.not_asked.push(index);
                continue;
            };
            let (walk, trace) = visit.end().await;
            asked.walks.push((index, walk));
            asked.trace.extend(trace);
        }
        asked.not_asked.extend(clients.len()..self.clients.len());
        // The one that serves the layers; else the last, whose word would be the last as well.
        let at = |index| asked.walks.iter().position(|(i, _)| *i == index);
        asked.deciding = deciding
            .and_then(at)
            .unwrap_or(asked.walks.len().saturating_sub(1));
        asked
    }

    /// The manifest from the first host that has it, then the layer from the first that has that: each
    /// is asked of all hosts anew. The host that decided it.
    async fn fetch(
        &self,
        clients: &'a [HostClient],
        visits: &mut [Option<Visit<'a>>],
        digest: &str,
    ) -> Option<usize> {
        let mut found: Option<(usize, ManifestFound)> = None;
        for (index, (client, place)) in clients.iter().zip(&mut *visits).enumerate() {
            let visit = self.visit_by_digest(client, place, digest).await;
            match visit.manifest().await {
                Served::Yes => {}
                Served::No => continue,
                Served::Final => return Some(index),
            }
            if let Some(new) = visit.found() {
                found = Some((index, new.clone()));
                break;
            }
        }
        let (holder, found) = found?;
        for (index, (client, place)) in clients.iter().zip(&mut *visits).enumerate() {
            let visit = self.visit_by_digest(client, place, digest).await;
            if index > holder {
                visit.skip_manifest();
            }
            if visit.layer(&found).await != Served::Yes {
                continue;
            }
            if index >= holder {
                return Some(index);
            }
            // It lacks the manifest and has the layer: all that fails is with it, and nothing with the
            // host that has the manifest.
            if let Some(Some(visit)) = visits.get_mut(holder) {
                visit.skip_layer();
            }
            return Some(holder);
        }
        None
    }

    /// A host, ready to be asked for content.
    async fn visit_by_digest<'b>(
        &self,
        client: &'a HostClient,
        place: &'b mut Option<Visit<'a>>,
        digest: &str,
    ) -> &'b mut Visit<'a> {
        match place {
            Some(visit) => {
                visit.enter_by_digest(self.candidates, digest).await;
                visit
            }
            None => place.insert(self.visit(client, digest).await),
        }
    }

    async fn visit(&self, client: &'a HostClient, version: &str) -> Visit<'a> {
        let lines = Lines::new(
            self.edges,
            client,
            self.progress,
            self.scrub.clone(),
            self.direct,
        );
        Visit::begin(self.check, client, lines, self.candidates, version).await
    }
}

/// Hosts of one hosts.toml that are asked; nobody lists more, and each costs the network something.
const MAX_HOSTS: usize = 16;
