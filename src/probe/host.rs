//! The walk at one host: the registry itself, or one that containerd asks in its place.

use super::auth::{self, Admitted};
use super::leg::{LineId, Lines, OpenError};
use super::{Check, SMALL_BODY, blob, manifest, segments, transfer};
use crate::containerd::HostClient;
use crate::model::endpoint::{Endpoint, Role, Scheme};
use crate::model::evidence::{Leg, ManifestFound, Ping, Skip, Step, TracedExchange, Walk};
use crate::model::fault::{HttpFault, ManifestFault, Phase, TcpFault, TlsFault};
use crate::model::hops::Trace;
use crate::net::hops::{self, Bounds};
use crate::registry::challenge::{self, Wanted};
use crate::registry::keyring::Credential;

/// A host that was asked, with its connections still open.
pub(super) struct Visit<'a> {
    check: &'a Check,
    lines: Lines<'a>,
    walk: Walk,
    admitted: Option<Admitted>,
    /// What `/v2/` asked for.
    challenge: Option<Wanted>,
    /// It was asked again by digest, and does not have that either.
    lacks_digest: bool,
}

/// Whether containerd would go on to the next host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Served {
    Yes,
    /// The host fails at it.
    No,
    /// What it serves is no good, wherever it comes from.
    Final,
}

impl<'a> Visit<'a> {
    /// Asks the host for the image by its tag, or by its digest.
    pub(super) async fn begin(
        check: &'a Check,
        client: &'a HostClient,
        lines: Lines<'a>,
        candidates: &[Credential],
        version: &str,
    ) -> Self {
        let mut visit = Self {
            check,
            lines,
            walk: Walk {
                host: client.host.clone(),
                by_digest: version != check.reference.version(),
                roots: client.roots.clone(),
                legs: Vec::new(),
                ping: not_begun(),
                attempts: Vec::new(),
                manifest: not_begun(),
                blob: not_begun(),
                transfer: None,
                rate_limit: None,
                segments: None,
            },
            admitted: None,
            challenge: None,
            lacks_digest: false,
        };
        visit.enter(candidates, version).await;
        visit
    }

    async fn enter(&mut self, candidates: &[Credential], version: &str) {
        let line = match self.open_registry().await {
            Ok(line) => line,
            Err(phase) => return self.block(Role::Registry, phase),
        };
        // An API below another root than `/v2` need not answer there, and its host neither.
        if self.walk.host.path == "/v2" {
            let (ping, wanted) = ping(&mut self.lines, line).await;
            self.challenge = wanted;
            let answered = !matches!(
                &ping,
                Step::Failed { fault, .. } if !matches!(fault, HttpFault::Status { .. } | HttpFault::Malformed { .. } | HttpFault::TooLarge { .. })
            );
            self.walk.ping = ping;
            if !answered {
                return self.block(Role::Registry, Phase::Ping);
            }
        }
        self.admitted = auth::admit(
            self.check,
            version,
            candidates,
            &mut self.lines,
            line,
            self.challenge.clone(),
            &mut self.walk,
        )
        .await;
        if self.admitted.is_none() {
            let (role, phase) = blocked_by(&self.walk);
            let reason = Skip::Blocked { role, phase };
            self.walk.manifest = Step::Skipped { reason };
            self.walk.blob = Step::Skipped { reason };
        }
    }

    /// Asks by digest a host that does not know the tag (404): containerd asks it for all content,
    /// too, and it may well have that. If not, its word on the tag stands.
    pub(super) async fn enter_by_digest(&mut self, candidates: &[Credential], digest: &str) {
        let last = self.walk.attempts.last();
        let lacks_tag = matches!(
            last.and_then(|attempt| attempt.head.fault()),
            Some(HttpFault::Status { status: 404, .. })
        );
        let is_asked = self.walk.by_digest || self.lacks_digest;
        if is_asked || !lacks_tag || digest == self.check.reference.version() {
            return;
        }
        let on_tag = std::mem::take(&mut self.walk.attempts);
        let rate_limit = self.walk.rate_limit.take();
        self.admitted = auth::admit(
            self.check,
            digest,
            candidates,
            &mut self.lines,
            LineId::REGISTRY,
            self.challenge.clone(),
            &mut self.walk,
        )
        .await;
        self.walk.rate_limit = self.walk.rate_limit.take().or(rate_limit);
        self.walk.by_digest = self.admitted.is_some();
        if self.admitted.is_none() {
            self.lacks_digest = true;
            self.walk.attempts = on_tag;
        }
    }

    /// The digest that the host gives for the image.
    pub(super) fn digest(&self) -> Option<String> {
        self.admitted.as_ref()?.head.digest.clone()
    }

    /// Fetches the manifest of the platform.
    pub(super) async fn manifest(&mut self) -> Served {
        let Some(admitted) = &self.admitted else {
            return Served::No;
        };
        let step = manifest::find(
            self.check,
            &self.walk.host,
            &mut self.lines,
            LineId::REGISTRY,
            admitted,
        )
        .await;
        let served = match &step {
            Step::Failed {
                fault: ManifestFault::Http { .. },
                ..
            } => Served::No,
            Step::Failed { .. }
            | Step::Skipped {
                reason: Skip::Spared,
            } => Served::Final,
            _ => Served::Yes,
        };
        self.walk.manifest = step;
        if served != Served::Yes {
            self.walk.blob = Step::Skipped {
                reason: Skip::Blocked {
                    role: Role::Registry,
                    phase: Phase::Manifest,
                },
            };
        }
        served
    }

    pub(super) fn found(&self) -> Option<&ManifestFound> {
        self.walk.manifest.done()
    }

    /// Another host has served the manifest; this one is asked for layers only.
    pub(super) fn skip_manifest(&mut self) {
        self.walk.manifest = Step::Skipped {
            reason: Skip::OtherHost,
        };
    }

    /// Another host serves the layers.
    pub(super) fn skip_layer(&mut self) {
        self.walk.blob = Step::Skipped {
            reason: Skip::OtherHost,
        };
    }

    /// Fetches the beginning of a layer.
    pub(super) async fn layer(&mut self, found: &ManifestFound) -> Served {
        let Some(admitted) = &self.admitted else {
            return Served::No;
        };
        self.walk.blob = blob::first_bytes(
            self.check,
            &self.walk.host,
            &mut self.lines,
            LineId::REGISTRY,
            admitted,
            found,
        )
        .await;
        if self.walk.blob.done().is_some()
            // The walk for comparison without the proxy has the layers a second time.
            && !self.lines.is_direct()
            && let Some(budget) = &self.check.effort.transfer
        {
            let _turn = self.lines.edges().transfer_turn.lock().await;
            let transfer = transfer::measure(
                self.check,
                &self.walk.host,
                &mut self.lines,
                admitted,
                found,
                budget,
            )
            .await;
            self.walk.transfer = Some(transfer);
        }
        match &self.walk.blob {
            Step::Done { .. }
            | Step::Skipped {
                reason: Skip::NoLayer,
            } => Served::Yes,
            _ => Served::No,
        }
    }

    /// Looks into what hung, if anything did, and ends the visit.
    pub(super) async fn end(mut self) -> (Walk, Vec<TracedExchange>) {
        if let Some(suspect) = self.lines.take_suspect() {
            self.walk.segments = Some(segments::look(&self.lines, suspect).await);
        }
        self.walk.legs = self.lines.take_legs();
        if self.check.effort.hops {
            for leg in &mut self.walk.legs {
                leg.hops = trace_of(leg).await;
            }
        }
        (self.walk, self.lines.take_trace())
    }

    /// Connects to the host. Where containerd falls back to plain http, so does this.
    async fn open_registry(&mut self) -> Result<LineId, Phase> {
        let endpoint = self.walk.host.endpoint.clone();
        let error = match self.lines.open(Role::Registry, &endpoint).await {
            Ok(line) => return Ok(line),
            Err(error) => error,
        };
        let OpenError::Failed(phase) = error else {
            return Err(Phase::Resolve);
        };
        if !self.walk.host.falls_back_to_http {
            return Err(phase);
        }
        let Some(port) = self.lines.last_leg().and_then(|leg| {
            let is_default = endpoint.port == Scheme::Https.default_port();
            let other_port = if is_default {
                Scheme::Http.default_port()
            } else {
                endpoint.port
            };
            match (leg.tls.outcome.fault(), leg.connect.outcome.fault()) {
                (Some(TlsFault::PlainHttp | TlsFault::Timeout { .. }), _) => Some(other_port),
                // `isPortError`: another port may answer, the same one won't.
                (_, Some(TcpFault::Refused { .. } | TcpFault::Timeout)) if is_default => {
                    Some(other_port)
                }
                _ => None,
            }
        }) else {
            return Err(phase);
        };
        self.lines.forget_last_leg();
        let plain = Endpoint {
            scheme: Scheme::Http,
            port,
            ..endpoint
        };
        match self.lines.open(Role::Registry, &plain).await {
            Ok(line) => Ok(line),
            Err(OpenError::Failed(phase)) => Err(phase),
            Err(OpenError::Untrusted(_)) => Err(Phase::Resolve),
        }
    }

    /// Everything after a failed phase of the registry's leg.
    fn block(&mut self, role: Role, phase: Phase) {
        let reason = Skip::Blocked { role, phase };
        if phase < Phase::Ping {
            self.walk.ping = Step::Skipped { reason };
        }
        self.walk.manifest = Step::Skipped { reason };
        self.walk.blob = Step::Skipped { reason };
    }
}

fn not_begun<T, F>() -> Step<T, F> {
    Step::Skipped {
        reason: Skip::NotNeeded,
    }
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

/// The routers on the way to where a leg was connected to, or tried first.
async fn trace_of(leg: &Leg) -> Option<Trace> {
    let connected = leg.connect.outcome.done().map(|connected| connected.to);
    let first = leg.connect.attempts.first().map(|dial| dial.to);
    Some(hops::trace(connected.or(first)?, &Bounds::default()).await)
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
