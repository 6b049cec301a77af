//! One host that containerd queries: the registry itself, or a mirror.

use std::time::{Duration, Instant};

use bytes::Bytes as Body;
use http::{HeaderMap, HeaderValue, Method, header};

use super::auth::Stop;
use super::check::Check;
use super::content::{self, accept_encoding};
use super::leg::{ConnectionId, Connections, OpenError};
use super::manifest::path_of;
use super::requests::SMALL_BODY;
use super::segments;
use super::session::{HostAccess, PullRequest, ResponseHead, Session};
use super::transfer::RangeObservation;
use crate::containerd::HostClient;
use crate::containerd::behaviour::{Behaviour, Release, Rules};
use crate::model::endpoint::{Endpoint, Role, Scheme};
use crate::model::evidence::{Attempt, BlobFound, HeadResponse, Leg, Ping, TracedExchange, Walk};
use crate::model::fault::{HttpFault, ManifestFault, Phase, TcpFault, TlsFault, TokenFault};
use crate::model::hops::Trace;
use crate::model::reference::check_digest;
use crate::model::step::{Skip, Step};
use crate::model::text::printable;
use crate::model::units::Bytes;
use crate::net::hops::{self, Bounds};
use crate::own;
use crate::pull_secret::entry::Credential;
use crate::registry::challenge::{self, Wanted};
use crate::registry::error;
use crate::registry::manifest::{self as oci, Descriptor};

/// A host, with its connections.
pub(super) struct HostWalk<'a> {
    check: &'a Check,
    pub lines: Connections<'a>,
    pub walk: Walk,
    /// Its connection, or the phase that failed.
    line: Result<ConnectionId, Phase>,
    /// The present phase of the pull.
    pub session: Option<Session<'a>>,
    /// It has resolved the reference.
    is_admitted: bool,
    /// Used if the kubelet sends no credential.
    login: Option<&'a Credential>,
}

/// The result of resolving a reference at a host.
#[derive(Debug)]
pub(super) enum Resolution {
    Found(Descriptor),
    /// containerd tries the next host.
    Next,
    /// containerd stops, even if there are other hosts.
    Final,
}

/// The kind of content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Content {
    Manifest,
    Config,
    Layer,
}

impl Content {
    fn path(self) -> &'static str {
        match self {
            Self::Manifest => "manifests",
            Self::Config | Self::Layer => "blobs",
        }
    }

    fn phase(self) -> Phase {
        match self {
            Self::Manifest => Phase::Manifest,
            Self::Config | Self::Layer => Phase::Blob,
        }
    }

    fn role(self) -> Role {
        match self {
            Self::Manifest => Role::Registry,
            Self::Config | Self::Layer => Role::Blob,
        }
    }
}

impl<'a> HostWalk<'a> {
    /// Connects to the host.
    pub(super) async fn open(
        check: &'a Check,
        client: &'a HostClient,
        lines: Connections<'a>,
    ) -> Self {
        let mut visit = Self {
            check,
            lines,
            walk: Walk {
                host: client.host.clone(),
                by_digest: false,
                resolved_by_other_host: false,
                roots: client.roots.clone(),
                legs: Vec::new(),
                ping: Step::skipped(Skip::NotNeeded),
                attempts: Vec::new(),
                manifest: Step::skipped(Skip::NotNeeded),
                blob: Step::skipped(Skip::NotNeeded),
                config: None,
                layers: Vec::new(),
                transfer: None,
                rate_limit: None,
                segments: None,
            },
            line: Err(Phase::Resolve),
            session: None,
            is_admitted: false,
            login: client.login.as_ref(),
        };
        visit.line = visit.open_registry().await;
        if let Err(phase) = visit.line {
            visit.block(phase);
        }
        visit
    }

    /// Starts the pull with another credential.
    pub(super) fn start_over(&mut self) {
        self.session = None;
        self.is_admitted = false;
        self.walk.config = None;
        self.walk.layers.clear();
        if self.line.is_ok() {
            self.walk.manifest = Step::skipped(Skip::NotNeeded);
            self.walk.blob = Step::skipped(Skip::NotNeeded);
        }
    }

    /// A host has resolved the reference, which ends the phase.
    pub(super) fn resolved(&mut self) {
        self.walk.resolved_by_other_host = !self.is_admitted;
        self.lines.end_phase();
    }

    /// Starts a phase of the pull, without a token.
    pub(super) fn begin(&mut self, credential: Option<&'a Credential>) {
        let repository = self.check.reference.repository();
        let never_repeats = self.check.effort.only_free;
        let credential = credential.or(self.login);
        self.session = Some(Session::new(repository, credential, never_repeats));
    }

    /// Resolves a tag, or finds out whether a digest exists.
    pub(super) async fn resolve(
        &mut self,
        content: Content,
        version: &str,
        is_last_host: bool,
    ) -> Resolution {
        let Ok(line) = self.line else {
            return Resolution::Next;
        };
        if self.lines.lacks_headers(line) {
            // A response without them would differ from a pull's.
            self.walk.attempts.push(Attempt {
                token: Step::from_result(Err(TokenFault::Unverified), Duration::ZERO),
                head: Step::skipped(Skip::Untrusted),
                via_blobs_endpoint: content != Content::Manifest,
                ..Attempt::default()
            });
            return Resolution::Next;
        }
        let start = Instant::now();
        let resolved = self
            .resolve_by_head(line, content, version, is_last_host)
            .await;
        let took = start.elapsed();
        let otherwise = |is_final: bool| {
            if is_final {
                Resolution::Final
            } else {
                Resolution::Next
            }
        };
        let (head, resolution) = match resolved {
            Ok((value, descriptor)) => (Step::Done { value, took }, Resolution::Found(descriptor)),
            Err((Stop::Http(fault), is_final)) => {
                let resolution = otherwise(is_final || ends_pull(&fault));
                (Step::failed(fault, took), resolution)
            }
            Err((Stop::Token(_) | Stop::Realm(_), is_final)) => {
                let head = Step::blocked(Role::Token, Phase::Token);
                (head, otherwise(is_final))
            }
        };
        let Some(session) = &mut self.session else {
            return Resolution::Next;
        };
        let credential = session.credential.filter(|_| session.challenge.is_some());
        let mut attempt = Attempt {
            exchanges: std::mem::take(&mut session.exchanges),
            challenge: session.challenge.clone(),
            credential: credential.map(|credential| credential.id.clone()),
            token: session.token.clone(),
            head,
            via_blobs_endpoint: content != Content::Manifest,
            ..Attempt::default()
        };
        if let (Step::Skipped { reason }, Step::Skipped { .. }) = (&attempt.token, &attempt.head) {
            attempt.head = Step::skipped(*reason);
        }
        self.explain_by_get(line, content, version, &mut attempt)
            .await;
        self.walk.by_digest = version != self.check.reference.version();
        self.walk.attempts.push(attempt);
        self.is_admitted = matches!(resolution, Resolution::Found(_));
        if !self.is_admitted {
            let (role, phase) = blocked_by(&self.walk);
            self.walk.manifest = Step::blocked(role, phase);
            self.walk.blob = Step::blocked(role, phase);
        }
        resolution
    }

    /// Sends `HEAD`, and reads from the response what containerd does; if that is not enough, sends `GET`. An error has
    /// a flag: it ends the pull.
    async fn resolve_by_head(
        &mut self,
        line: ConnectionId,
        content: Content,
        version: &str,
        is_last_host: bool,
    ) -> Result<(HeadResponse, Descriptor), (Stop, bool)> {
        let next = |stop| (stop, false);
        let ends = |stop| (stop, true);
        let request = self
            .request(line, content, version, is_last_host)
            .map_err(ends)?;
        let got = self.send(&request).await.map_err(next)?;
        if self.walk.rate_limit.is_none() {
            self.walk.rate_limit = error::rate_limit(got.headers(), &self.lines.scrub);
        }
        let status = got.status().as_u16();
        if status > 299 {
            let is_final = status < 400;
            let fault = self.refusal(got).await;
            return Err((Stop::Http(fault), is_final));
        }
        let by_get = got.method == Method::GET;
        let headers = got.headers().clone();
        let mut size = content_length(&headers).map_err(|fault| next(Stop::Http(fault)))?;
        // Go decodes gzip automatically, and then knows no length.
        let is_gzip =
            text(&headers, "content-encoding").is_some_and(|c| c.eq_ignore_ascii_case("gzip"));
        if by_get && is_gzip {
            size = None;
        }
        let mut head = HeadResponse {
            digest: text(&headers, "docker-content-digest").map(str::to_owned),
            media_type: text(&headers, "content-type").map(printable),
            size: size.map(Bytes),
            used_get: by_get,
            digest_of_encoded: None,
        };
        got.pending.note(&mut self.lines, None);
        drop(got);
        let named = check_digest(version).is_ok().then(|| version.to_owned());
        let mut digest = named.clone();
        if named.is_none()
            && size.is_some()
            && let Some(stated) = head.digest.as_deref().filter(|d| !d.is_empty())
        {
            if check_digest(stated).is_err() {
                return Err(ends(Stop::Http(HttpFault::WrongDigest {
                    expected: "a digest in Docker-Content-Digest".to_owned(),
                    got: printable(stated),
                })));
            }
            digest = Some(stated.to_owned());
        }
        let mut media_type = oci::media_type(text(&headers, "content-type"));
        let mut length = size.unwrap_or(0);
        if digest.is_none() || size.is_none() {
            let (body, type_of_body, encoding) = self.get_in_full(&request).await.map_err(ends)?;
            if named.is_none() && digest.is_none() {
                media_type = type_of_body;
                let is_schema_1 = oci::Kind::of(&media_type) == oci::Kind::Schema1;
                let refuses = |b: &Behaviour| b.release >= Release::V2_0;
                if is_schema_1 && self.lines.rules.decide(refuses) {
                    return Err(ends(Stop::Http(HttpFault::Unsupported { media_type })));
                }
                digest = Some(oci::sha256(&body));
                head.digest_of_encoded = encoding;
            } else {
                media_type = type_of_body;
            }
            length = body.len() as u64;
            head.used_get = true;
            head.size = Some(Bytes(length));
        }
        if length > oci::MAX_ROOT_SIZE {
            return Err(next(Stop::Http(HttpFault::TooLarge {
                limit: Bytes(oci::MAX_ROOT_SIZE),
            })));
        }
        let digest = digest.unwrap_or_default();
        head.digest = Some(digest.clone());
        let descriptor = Descriptor {
            digest,
            media_type,
            size: i64::try_from(length).unwrap_or(i64::MAX),
            urls: Vec::new(),
        };
        Ok((head, descriptor))
    }

    /// Sends `GET` if the response to `HEAD` lacks something; the status is ignored. Returns the body, its type, and a
    /// `Content-Encoding` that was not decoded.
    async fn get_in_full(
        &mut self,
        request: &PullRequest,
    ) -> Result<(Body, String, Option<String>), Stop> {
        let request = PullRequest {
            method: Method::GET,
            accept_encoding: accept_encoding(false, false),
            is_last_host: true,
            ..request.clone()
        };
        let mut got = self.send(&request).await?;
        let wait = self.lines.probe_network.wait;
        let body = content::collect(&mut got.pending.response, MAX_MANIFEST, wait).await;
        got.pending.note(&mut self.lines, body.as_ref().err());
        // Go decodes gzip automatically; other values may not be an encoding.
        let encoding = text(got.headers(), "content-encoding").filter(|coding| {
            let known = ["deflate", "zstd", "br", "compress"];
            known.iter().any(|known| coding.eq_ignore_ascii_case(known))
        });
        let media_type = oci::media_type(text(got.headers(), "content-type"));
        Ok((
            body.map_err(Stop::Http)?,
            media_type,
            encoding.map(printable),
        ))
    }

    /// Reads the body of a `GET` after a `HEAD` was rejected: only a body distinguishes `MANIFEST_UNKNOWN`,
    /// `NAME_UNKNOWN` and `DENIED`. It does not change the result.
    async fn explain_by_get(
        &mut self,
        line: ConnectionId,
        content: Content,
        version: &str,
        attempt: &mut Attempt,
    ) {
        let Step::Failed {
            fault: fault @ HttpFault::Status { .. },
            took,
        } = &mut attempt.head
        else {
            return;
        };
        let HttpFault::Status {
            status,
            code: None,
            challenged: is_head_challenged,
            authorized: is_head_authorized,
            ..
        } = fault
        else {
            return;
        };
        let (status, is_head_challenged) = (*status, *is_head_challenged);
        let is_head_authorized = *is_head_authorized;
        let may_explain = (400..500).contains(&status) && !matches!(status, 405 | 429);
        if !may_explain || self.check.effort.only_free {
            return;
        }
        let Ok(request) = self.request(line, content, version, false) else {
            return;
        };
        let request = PullRequest {
            method: Method::GET,
            ..request
        };
        let start = Instant::now();
        let authorization = |visit: &Self| visit.session.as_ref()?.authorization(&request.url);
        let before = authorization(self);
        let Ok(got) = self.send(&request).await else {
            return;
        };
        if got.status().is_success() {
            got.pending.note(&mut self.lines, None);
            attempt.get_succeeded = true;
            attempt.get_used_other_token = before.is_some() && before != authorization(self);
        } else if got.status().as_u16() == status {
            *fault = self.refusal(got).await;
            // A challenge that only a GET receives does not affect a pull.
            if let HttpFault::Status {
                challenged,
                authorized,
                ..
            } = fault
            {
                *challenged &= is_head_challenged;
                *authorized = is_head_authorized;
            }
        }
        *took += start.elapsed();
    }

    fn request(
        &self,
        line: ConnectionId,
        content: Content,
        version: &str,
        is_last_host: bool,
    ) -> Result<PullRequest, Stop> {
        let path = path_of(self.check, &self.walk.host, content.path(), version);
        let url = self.lines.endpoint(line).url(&path);
        let unfit = |_| {
            Stop::Http(HttpFault::malformed(
                "the path of the content is not a valid URL",
            ))
        };
        Ok(PullRequest {
            method: Method::HEAD,
            line,
            url: url.map_err(unfit)?,
            phase: Phase::Manifest,
            role: Role::Registry,
            accept: HeaderValue::from_static(oci::ACCEPT),
            accept_encoding: None,
            from_byte: None,
            is_last_host,
        })
    }

    async fn send(&mut self, request: &PullRequest) -> Result<ResponseHead, Stop> {
        match &mut self.session {
            Some(session) => session.send(&mut self.lines, request).await,
            None => Err(Stop::Http(HttpFault::Closed)),
        }
    }

    /// The fault for a response other than success.
    async fn refusal(&mut self, got: ResponseHead) -> HttpFault {
        let (status, headers) = (got.status(), got.headers().clone());
        let was_authorized = got.authorized;
        let answer = got.pending.read(&mut self.lines, SMALL_BODY).await;
        // Without a readable body, the status is still reported.
        let body = answer.result.map(|answer| answer.body).unwrap_or_default();
        error::fault(status, &headers, &body, was_authorized, &self.lines.scrub)
    }

    /// Requests content by its digest, from a byte on; the response is a success.
    pub(super) async fn get(
        &mut self,
        content: Content,
        descriptor: &Descriptor,
        offset: u64,
        is_last_host: bool,
    ) -> Result<ResponseHead, HttpFault> {
        let line = self.line.map_err(|phase| HttpFault::Unreached {
            role: Role::Registry,
            phase,
        })?;
        let request = self
            .request(line, content, &descriptor.digest, is_last_host)
            .map_err(|stop| stop.into_fault(None))?;
        let decodes = self.lines.rules.in_force().decodes_encodings();
        let request = PullRequest {
            method: Method::GET,
            phase: content.phase(),
            role: content.role(),
            accept: accept(&descriptor.media_type),
            accept_encoding: accept_encoding(decodes, offset > 0),
            from_byte: (offset > 0).then_some(offset),
            ..request
        };
        let credential = self.session.as_ref().and_then(|session| session.credential);
        let sent = self.send(&request).await;
        let got = sent.map_err(|stop| stop.into_fault(credential))?;
        if got.status().as_u16() > 299 {
            return Err(self.refusal(got).await);
        }
        if offset > 0 && !is_part_from(&got, offset, self.lines.rules) {
            let reason = "the server sent another part than the one requested";
            return Err(HttpFault::malformed(reason));
        }
        Ok(got)
    }

    /// Whether a credential was requested in the present phase.
    pub(super) fn was_challenged(&self) -> bool {
        let in_phase = self.session.as_ref();
        let in_phase = in_phase.is_some_and(|session| session.challenge.is_some());
        // A digest requested at /blobs/ had been requested at /manifests/ before.
        let attempts = self.walk.attempts.iter().rev();
        let mut is_below_blobs = true;
        let mut of_pull = attempts.take_while(|attempt| {
            std::mem::replace(&mut is_below_blobs, attempt.via_blobs_endpoint)
        });
        in_phase || of_pull.any(|attempt| attempt.challenge.is_some())
    }

    /// Whether a credential was withheld from an unsafe server, although a pull would have sent it.
    pub(super) fn was_withheld(&self) -> bool {
        let last = self.walk.attempts.last();
        matches!(
            last.and_then(|attempt| attempt.token.fault()),
            Some(TokenFault::RealmUntrusted { .. } | TokenFault::Unverified)
        )
    }

    /// Whether the last rejection may change with another credential.
    pub(super) fn was_refused(&self) -> bool {
        self.walk.attempts.last().is_some_and(is_refusal)
    }

    /// Whether the digest was found only at /blobs/, because access to it at /manifests/ was rejected.
    pub(super) fn was_refused_above_blobs(&self) -> bool {
        matches!(self.walk.attempts.as_slice(), [.., above, found]
            if found.via_blobs_endpoint && !above.via_blobs_endpoint && is_refusal(above))
    }

    /// The access for the transfer test.
    pub(super) fn admitted(&self) -> Option<HostAccess<'a>> {
        let line = self.line.ok()?;
        let url = self.lines.endpoint(line).url("/").ok()?;
        Some(HostAccess {
            check: self.check,
            host: self.walk.host.clone(),
            authorization: self.session.as_ref()?.authorization(&url),
        })
    }

    /// Records how the server answered the transfer test's requests for a part.
    pub(super) fn note_range(&mut self, range: RangeObservation) {
        if let Step::Done { value, .. } = &mut self.walk.blob {
            value.range_honoured = range.honoured;
            value.range_refused_with = range.refused_with;
        }
    }

    /// Records that the host does not serve content.
    pub(super) fn refuse(&mut self, content: Content, fault: &HttpFault, took: Duration) {
        match content {
            Content::Manifest => {
                let fault = fault.clone();
                self.fail_manifest(ManifestFault::Http { fault }, took);
            }
            Content::Config => {
                let fault = fault.clone();
                self.walk.config = Some(Step::failed(fault, took));
                self.walk.blob = Step::blocked(Role::Registry, Phase::Blob);
            }
            Content::Layer => self.walk.blob = blob_of(fault.clone(), took),
        }
    }

    /// Records that the manifest was not downloaded, because that may count against a rate limit.
    pub(super) fn reserve_quota(&mut self) {
        self.walk.manifest = Step::skipped(Skip::QuotaReserved);
        self.walk.blob = Step::blocked(Role::Registry, Phase::Manifest);
    }

    /// Downloads content from the URLs in its descriptor, with Go's own client and without any credential. `None` if
    /// none of them has it (404).
    pub(super) async fn get_elsewhere(
        &mut self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Option<Result<ResponseHead, HttpFault>> {
        let mut session = Session::new("", None, true);
        let decodes = self.lines.rules.in_force().decodes_encodings();
        for url in &descriptor.urls {
            let Ok(url) = url::Url::parse(url) else {
                continue;
            };
            let Some(endpoint) = Endpoint::of(&url) else {
                continue;
            };
            let line = match self.lines.open_foreign(Role::Blob, &endpoint).await {
                Ok(line) => line,
                Err(error) => return Some(Err(error.into_fault(&url, endpoint))),
            };
            let request = PullRequest {
                method: Method::GET,
                line,
                url,
                phase: Phase::Blob,
                role: Role::Blob,
                accept: accept(&descriptor.media_type),
                accept_encoding: accept_encoding(decodes, offset > 0),
                from_byte: (offset > 0).then_some(offset),
                is_last_host: false,
            };
            let got = match session.send(&mut self.lines, &request).await {
                Ok(got) => got,
                Err(stop) => return Some(Err(stop.into_fault(None))),
            };
            match got.status().as_u16() {
                404 => {}
                300.. => return Some(Err(self.refusal(got).await)),
                _ => return Some(Ok(got)),
            }
        }
        None
    }

    pub(super) fn fail_manifest(&mut self, fault: ManifestFault, took: Duration) {
        self.walk.manifest = Step::failed(fault, took);
        self.walk.blob = Step::blocked(Role::Registry, Phase::Manifest);
    }

    /// Closes a host that needs no further requests.
    pub(super) fn close(mut self) -> (Walk, Vec<TracedExchange>) {
        self.walk.legs = self.lines.take_legs();
        (self.walk, self.lines.trace)
    }

    /// Sends the ping (`/v2/`), examines what stalled, if anything did, and closes the host.
    pub(super) async fn end(mut self) -> (Walk, Vec<TracedExchange>) {
        // An API below a root other than `/v2` may have no ping, and neither may its host.
        if let Ok(line) = self.line
            && self.walk.host.path == "/v2"
        {
            self.walk.ping = ping(&mut self.lines, line).await;
        }
        if let Some(suspect) = self.lines.suspect.take() {
            self.walk.segments = Some(segments::test(&self.lines, suspect).await);
        }
        let config = self.walk.config.as_ref().and_then(Step::fault);
        if self.walk.failure().is_some() || config.is_some() {
            self.lines.try_dns_addresses().await;
        }
        own::aside(self.lines.try_addresses(self.check.effort.all_addresses)).await;
        self.walk.legs = self.lines.take_legs();
        if self.check.effort.hops {
            for leg in &mut self.walk.legs {
                leg.hops = trace_of(leg).await;
            }
        }
        (self.walk, self.lines.trace)
    }

    /// Connects to the host, with containerd's fallback to plain http.
    async fn open_registry(&mut self) -> Result<ConnectionId, Phase> {
        let endpoint = self.walk.host.endpoint.clone();
        let phase = match self.lines.open(Role::Registry, &endpoint).await {
            Ok(line) => return Ok(line),
            Err(error) => failed(&error),
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
                // `isPortError`: another port may answer, the same one can't.
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
        let opened = self.lines.open(Role::Registry, &plain).await;
        opened.map_err(|error| failed(&error))
    }

    /// Marks everything after a failed phase of the registry's leg as blocked.
    fn block(&mut self, phase: Phase) {
        self.walk.ping = Step::blocked(Role::Registry, phase);
        self.walk.manifest = Step::blocked(Role::Registry, phase);
        self.walk.blob = Step::blocked(Role::Registry, phase);
    }
}

/// Bytes. Manifests are read into memory up to this size; containerd has no bound for those below the root.
pub(super) const MAX_MANIFEST: u64 = 8 << 20;

/// Whether no other host is queried: containerd would wait for a response without a bound, or this program has reached
/// a limit of its own.
pub(super) fn ends_pull(fault: &HttpFault) -> bool {
    fault.is_own_limit() || matches!(fault, HttpFault::Timeout | HttpFault::Stalled { .. })
}

/// `Accept` of a request for content.
fn accept(media_type: &str) -> HeaderValue {
    let any = HeaderValue::from_static("*/*");
    if media_type.is_empty() {
        return any;
    }
    HeaderValue::try_from(format!("{media_type}, */*")).unwrap_or(any)
}

/// The result of the first layer: if a redirect leads to a host that can't be reached, its leg has the cause.
fn blob_of(fault: HttpFault, took: Duration) -> Step<BlobFound, HttpFault> {
    let (role, phase) = match &fault {
        HttpFault::RedirectBlocked { phase, .. } => (Role::Blob, *phase),
        HttpFault::Unreached { role, phase } => (*role, *phase),
        _ => return Step::failed(fault, took),
    };
    Step::blocked(role, phase)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The length of a body as Go reports it: unknown if it is chunked.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, HttpFault> {
    let is_chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let length = headers.get(header::CONTENT_LENGTH);
    let Some(length) = length.filter(|_| !is_chunked) else {
        return Ok(None);
    };
    let length = length.to_str().ok();
    let length = length.and_then(|text| text.trim().parse().ok());
    let malformed = || HttpFault::malformed("Content-Length is not a number");
    length.map(Some).ok_or_else(malformed)
}

/// Whether the response to a request for a part is that part, or the whole (`withOffsetCheck`).
fn is_part_from(got: &ResponseHead, offset: u64, rules: &Rules) -> bool {
    let is_partial = got.status() == http::StatusCode::PARTIAL_CONTENT;
    let Some(range) = text(got.headers(), "content-range") else {
        return true;
    };
    let is_right = range.starts_with(&format!("bytes {offset}-"));
    is_right || (is_partial && rules.decide(Behaviour::trusts_partial_content))
}

/// A rejection that another credential may change.
pub(super) fn is_access(fault: &HttpFault) -> bool {
    matches!(
        fault,
        HttpFault::Status {
            status: 401 | 403 | 404,
            ..
        } | HttpFault::Unauthorized { .. }
    )
}

/// The phase that failed; a registry's own address is trusted.
fn failed(error: &OpenError) -> Phase {
    match error {
        OpenError::Failed(phase) => *phase,
        OpenError::Untrusted(_) => Phase::Resolve,
    }
}

/// Whether access was rejected and another credential may have it.
fn is_refusal(attempt: &Attempt) -> bool {
    let is_status = attempt.head.fault().is_some_and(is_access);
    let is_token = matches!(
        attempt.token.fault(),
        Some(TokenFault::Rejected { .. } | TokenFault::NoCredential)
    );
    is_status || is_token
}

/// Sends `GET /v2/`. containerd does not, and the result does not affect the verdict. Every registry answers it, it
/// does not count against a quota, and it distinguishes a registry from other servers.
async fn ping(lines: &mut Connections<'_>, line: ConnectionId) -> Step<Ping, HttpFault> {
    let request = lines.request(line, Method::GET, "/v2/");
    let answer = lines.exchange(line, Phase::Ping, request, SMALL_BODY).await;
    let took = answer.took;
    let answer = match answer.result {
        Ok(answer) => answer,
        Err(fault) => return Step::failed(fault, took),
    };
    let status = answer.status.as_u16();
    if status != 200 && status != 401 {
        let fault = answer.status_fault(&lines.scrub);
        return Step::failed(fault, took);
    }
    let wanted = if status == 401 {
        challenge::wanted(&answer.headers, &lines.scrub)
    } else {
        Wanted::Anonymous
    };
    let text = |name: &str| {
        let value = answer.headers.get(name)?.to_str().ok()?;
        Some(lines.scrub.clean(value))
    };
    let value = Ping {
        status,
        challenge: wanted.evidence(),
        api_version: text("docker-distribution-api-version"),
        server: text("server"),
    };
    Step::Done { value, took }
}

/// Traces the routers to the address that a leg connected to, or tried first.
async fn trace_of(leg: &Leg) -> Option<Trace> {
    let connected = leg.connect.outcome.done().map(|connected| connected.to);
    let first = leg.connect.attempts.first().map(|dial| dial.to);
    let bounds = Bounds::default();
    Some(own::aside(hops::trace(connected.or(first)?, &bounds)).await)
}

/// The phase that blocked every credential.
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
