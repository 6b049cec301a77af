//! Walks one pull as containerd and the kubelet would, without pulling the image.
//!
//! The walk never returns an error: what goes wrong is evidence. It finds its legs on the way: the
//! registry from the reference, the token service from the challenge, the blob host from the
//! redirect of a real layer. No step is tried twice and none is asked again later.

mod auth;
mod blob;
mod leg;
mod manifest;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::endpoint::{Endpoint, Role, Scheme};
use crate::model::evidence::{Evidence, Ping, Roots, Skip, Step, Walk};
use crate::model::fault::{HttpFault, Phase, TlsFault};
use crate::model::hosts::{HostsConfig, RegistryHost};
use crate::model::platform::Platform;
use crate::model::proxy::ProxySettings;
use crate::model::reference::Reference;
use crate::model::vantage::Vantage;
use crate::net::dns::Families;
use crate::net::resolv::ResolverConfig;
use crate::net::tls::TlsClient;
use crate::registry::challenge::{self, Wanted};
use crate::registry::keyring::Keyring;
use crate::registry::scrub::Scrubber;
use leg::{LineId, Lines, OpenError};
pub use manifest::KnownManifests;

/// One image to check.
#[derive(Clone, Debug)]
pub struct Check {
    pub reference: Reference,
    pub platform: Platform,
    pub keyring: Arc<Keyring>,
    /// Talk plain http to the registry (hosts.toml `server = "http://…"`).
    pub plain_http: bool,
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
    pub tls: TlsClient,
    pub roots: Roots,
    pub vantage: Vantage,
    /// The longest that any single wait on the network may last.
    pub wait: Duration,
    pub known: KnownManifests,
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
}

/// An answer to `/v2/` is read up to this: error bodies of registries are below 1 KiB, login pages
/// of things that are no registry are some tens.
const SMALL_BODY: u64 = 64 << 10;

/// Walks the pull of one image.
#[tracing::instrument(skip_all, fields(image = %check.reference))]
pub async fn pull(
    check: &Check,
    edges: &Edges,
    progress: &dyn Progress,
    started: Timestamp,
) -> Evidence {
    let (candidates, keyring) = check.keyring.lookup(&check.reference);
    let mut scrub = Scrubber::default();
    for candidate in &candidates {
        candidate.hide_in(&mut scrub);
    }
    let mut lines = Lines::new(edges, progress, scrub);
    let walk = walk(check, &candidates, &mut lines).await;
    Evidence {
        reference: check.reference.clone(),
        platform: check.platform.clone(),
        started,
        vantage: edges.vantage.clone(),
        keyring,
        hosts: HostsConfig::Unread,
        proxies: ProxySettings::default(),
        walk,
        others: Vec::new(),
        not_asked: Vec::new(),
        direct: None,
        trace: Vec::new(),
    }
}

async fn walk(
    check: &Check,
    candidates: &[crate::registry::keyring::Credential],
    lines: &mut Lines<'_>,
) -> Walk {
    let mut walk = Walk {
        host: check.host(),
        roots: lines.edges().roots.clone(),
        legs: Vec::new(),
        ping: not_begun(),
        attempts: Vec::new(),
        manifest: not_begun(),
        blob: not_begun(),
        rate_limit: None,
        segments: None,
    };
    go(check, candidates, lines, &mut walk).await;
    walk.legs = lines.take_legs();
    walk
}

fn not_begun<T, F>() -> Step<T, F> {
    Step::Skipped {
        reason: Skip::NotNeeded,
    }
}

async fn go(
    check: &Check,
    candidates: &[crate::registry::keyring::Credential],
    lines: &mut Lines<'_>,
    walk: &mut Walk,
) {
    let line = match open_registry(check, lines).await {
        Ok(line) => line,
        Err(phase) => return block(walk, Role::Registry, phase),
    };
    let (ping, challenge) = ping(lines, line).await;
    let answered = !matches!(
        &ping,
        Step::Failed { fault, .. } if !matches!(fault, HttpFault::Status { .. } | HttpFault::Malformed { .. } | HttpFault::TooLarge { .. })
    );
    walk.ping = ping;
    if !answered {
        return block(walk, Role::Registry, Phase::Ping);
    }
    let admitted = auth::admit(check, candidates, lines, line, challenge, walk).await;
    let Some(admitted) = admitted else {
        let (role, phase) = blocked_by(walk);
        let reason = Skip::Blocked { role, phase };
        walk.manifest = Step::Skipped { reason };
        walk.blob = Step::Skipped { reason };
        return;
    };
    walk.manifest = manifest::find(check, lines, line, &admitted).await;
    walk.blob = match walk.manifest.done() {
        Some(found) => blob::first_byte(check, lines, line, &admitted, found).await,
        None => Step::Skipped {
            reason: Skip::Blocked {
                role: Role::Registry,
                phase: Phase::Manifest,
            },
        },
    };
}

/// Connects to the registry. Like containerd, falls back to plain http for a registry on loopback
/// that does not speak TLS.
async fn open_registry(check: &Check, lines: &mut Lines<'_>) -> Result<LineId, Phase> {
    let endpoint = check.host().endpoint;
    let is_loopback = endpoint.host.is_loopback();
    let error = match lines.open(Role::Registry, &endpoint).await {
        Ok(line) => return Ok(line),
        Err(error) => error,
    };
    let OpenError::Failed(phase) = error else {
        return Err(Phase::Resolve);
    };
    if is_loopback && lines.last_tls_fault() == Some(&TlsFault::PlainHttp) {
        lines.forget_last_leg();
        let plain = Endpoint {
            scheme: Scheme::Http,
            ..endpoint
        };
        return lines
            .open(Role::Registry, &plain)
            .await
            .map_err(|_| Phase::Connect);
    }
    Err(phase)
}

/// Asks `GET /v2/`. containerd does not, but every registry answers it, it costs nothing against
/// a quota, and it tells a registry from something else.
async fn ping(lines: &mut Lines<'_>, line: LineId) -> (Step<Ping, HttpFault>, Option<Wanted>) {
    let request = lines.request(line, http::Method::GET, "/v2/");
    let answer = lines.exchange(line, Phase::Ping, request, SMALL_BODY).await;
    let took = answer.took;
    let answer = match answer.result {
        Ok(answer) => answer,
        Err(fault) => return (Step::Failed { fault, took }, None),
    };
    let status = answer.status.as_u16();
    if status != 200 && status != 401 {
        let fault = answer.status_fault(lines.scrub());
        return (Step::Failed { fault, took }, None);
    }
    let wanted = if status == 401 {
        Some(challenge::wanted(&answer.headers, lines.scrub()))
    } else {
        None
    };
    let text = |name: &str| {
        let value = answer.headers.get(name)?.to_str().ok()?;
        Some(lines.scrub().clean(value))
    };
    let ping = Ping {
        status,
        challenge: wanted.as_ref().unwrap_or(&Wanted::Anonymous).evidence(),
        api_version: text("docker-distribution-api-version"),
        server: text("server"),
    };
    (Step::Done { value: ping, took }, wanted)
}

/// Everything after a failed phase of the registry's leg.
fn block(walk: &mut Walk, role: Role, phase: Phase) {
    let reason = Skip::Blocked { role, phase };
    if phase < Phase::Ping {
        walk.ping = Step::Skipped { reason };
    }
    walk.manifest = Step::Skipped { reason };
    walk.blob = Step::Skipped { reason };
}

/// Which phase kept every credential out.
fn blocked_by(walk: &Walk) -> (Role, Phase) {
    match walk.attempts.last() {
        Some(last) => match (&last.token, &last.head) {
            (
                Step::Skipped {
                    reason: Skip::Blocked { role, phase },
                },
                _,
            ) => (*role, *phase),
            (Step::Failed { .. }, _) => (Role::Token, Phase::Token),
            _ => (Role::Registry, Phase::Manifest),
        },
        None => (Role::Registry, Phase::Ping),
    }
}
