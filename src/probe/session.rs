//! Requests as containerd makes them: its authorizer, its retries and Go's redirects, for one phase
//! of a pull at one host (`core/remotes/docker/authorizer.go`, `resolver.go`).
//!
//! A pull has two phases, the resolution of the reference and the fetching of content, and each begins
//! without a token. In a phase the first challenge of a host and port, on whichever request it comes,
//! decides how that host is asked from then on.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::auth::{self, Stop, TokenClient};
use super::check::Check;
use super::leg::{ConnectionId, Connections, Pending, target};
use super::redirects::{self, MAX_REQUESTS, Sensitive};
use super::requests::SMALL_BODY;
use crate::containerd::behaviour::Behaviour;
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::{Challenge, Grant, TokenExchange};
use crate::model::fault::{HttpFault, Phase, TokenFault};
use crate::model::hosts::RegistryHost;
use crate::model::step::{Skip, Step};
use crate::pull_secret::entry::Credential;
use crate::registry::challenge::{self, Bearer, Wanted};

/// A request is made so often, whatever is answered.
const MAX_TRIES: usize = 6;

/// One phase of a pull at one host, with one credential or none.
pub(super) struct Session<'a> {
    pub(super) repository: &'a str,
    pub(super) credential: Option<&'a Credential>,
    /// By host and port, as URLs have them.
    handlers: HashMap<String, Handler>,
    /// Those that are put aside between [`Self::part`] and [`Self::join`].
    aside: HashMap<String, Handler>,
    /// Requests to token services.
    pub exchanges: Vec<TokenExchange>,
    /// What the last of them came to.
    pub token: Step<Grant, TokenFault>,
    /// The first challenge.
    pub challenge: Option<Challenge>,
    /// No request that a pull repeats at once is repeated.
    spares: bool,
}

/// How a host is asked once it has challenged.
#[derive(Clone)]
enum Handler {
    Basic(HeaderValue),
    /// Its realm can't be asked, so nothing is sent to the host any more.
    Broken(TokenFault),
    Bearer {
        bearer: Box<Bearer>,
        /// What the token service gave, and until when containerd uses it.
        token: Option<Result<(HeaderValue, Option<Instant>), TokenFault>>,
    },
}

/// One request of a pull.
#[derive(Clone, Debug)]
pub(super) struct PullRequest {
    pub method: Method,
    /// The host's connection.
    pub line: ConnectionId,
    pub url: Url,
    pub phase: Phase,
    /// Of the legs that redirects lead to.
    pub role: Role,
    pub accept: HeaderValue,
    pub accept_encoding: Option<HeaderValue>,
    /// The first byte wanted, where a body is taken up again.
    pub from_byte: Option<u64>,
    /// No host is asked after this one.
    pub is_last_host: bool,
}

/// The head of the answer that counts; its body is still to be read.
pub(super) struct ResponseHead {
    pub pending: Pending,
    /// `GET`, also where `HEAD` was refused with 405.
    pub method: Method,
    /// The server that answered, after all redirects.
    pub url: Url,
    /// The servers that redirects led to, in order.
    pub redirects: Vec<Endpoint>,
    /// Authorization went along.
    pub authorized: bool,
}

impl ResponseHead {
    pub(super) fn status(&self) -> StatusCode {
        self.pending.response.status
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.pending.response.headers
    }
}

/// A request that was answered, for what its status means for the next.
struct AnsweredRequest {
    method: Method,
    url: Url,
    status: StatusCode,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        repository: &'a str,
        credential: Option<&'a Credential>,
        spares: bool,
    ) -> Self {
        Self {
            repository,
            credential,
            handlers: HashMap::new(),
            aside: HashMap::new(),
            exchanges: Vec::new(),
            token: Step::skipped(Skip::NotNeeded),
            challenge: None,
            spares,
        }
    }

    /// `Authorization` for a host and port, where one was needed.
    pub(super) fn authorization(&self, url: &Url) -> Option<HeaderValue> {
        match self.handlers.get(&host_port(url))? {
            Handler::Basic(value)
            | Handler::Bearer {
                token: Some(Ok((value, _))),
                ..
            } => Some(value.clone()),
            Handler::Broken(_) | Handler::Bearer { .. } => None,
        }
    }

    /// Requests follow that are sent at the same time as others.
    pub(super) fn part(&mut self) {
        self.aside = self.handlers.clone();
    }

    /// The others follow, which know nothing of the challenges to the first.
    pub(super) fn swap(&mut self) {
        std::mem::swap(&mut self.handlers, &mut self.aside);
    }

    /// Afterwards all is known.
    pub(super) fn join(&mut self) {
        for (host, handler) in self.aside.drain() {
            self.handlers.entry(host).or_insert(handler);
        }
    }

    /// Sends a request until containerd would take the answer, and returns that.
    pub(super) async fn ask(
        &mut self,
        lines: &mut Connections<'_>,
        ask: &PullRequest,
    ) -> Result<ResponseHead, Stop> {
        let mut method = ask.method.clone();
        let mut seen: Vec<AnsweredRequest> = Vec::new();
        loop {
            let got = self.once(lines, ask, &method).await?;
            seen.push(AnsweredRequest {
                method: got.method.clone(),
                url: got.url.clone(),
                status: got.status(),
            });
            if seen.len() >= MAX_TRIES {
                return Ok(got);
            }
            let again = match got.status().as_u16() {
                401 => self.challenged(lines, &got, &seen)?,
                405 if method == Method::HEAD => {
                    method = Method::GET;
                    true
                }
                408 | 429 => !self.spares,
                500 | 503 | 504 => {
                    let is_same = seen.iter().rev().nth(1).map(|s| s.status) == Some(got.status());
                    !is_same
                        && ask.is_last_host
                        && lines.rules.decide(Behaviour::retries_server_errors)
                }
                _ => false,
            };
            if !again {
                return Ok(got);
            }
            // What is left of a refusal is read, so that the connection can serve again.
            let _ = got.pending.read(lines, SMALL_BODY).await;
        }
    }

    /// One request and its redirects.
    async fn once(
        &mut self,
        lines: &mut Connections<'_>,
        ask: &PullRequest,
        method: &Method,
    ) -> Result<ResponseHead, Stop> {
        let mut method = method.clone();
        let (mut url, mut line) = (ask.url.clone(), ask.line);
        let first = self.authorize(lines, line, &url).await?;
        let mut authorization = first.clone();
        let mut sensitive = Sensitive::new(&url);
        let mut redirects = Vec::new();
        loop {
            let mut request = lines.request(line, method.clone(), target(&url));
            let headers = request.headers_mut();
            headers.insert(header::ACCEPT, ask.accept.clone());
            // As Go does by itself, where nothing is said.
            let is_plain = method == Method::GET && ask.from_byte.is_none();
            let encoding = match &ask.accept_encoding {
                None if is_plain => Some(HeaderValue::from_static("gzip")),
                encoding => encoding.clone(),
            };
            headers.extend(encoding.map(|value| (header::ACCEPT_ENCODING, value)));
            if let Some(from) = ask.from_byte {
                let range = HeaderValue::try_from(format!("bytes={from}-"));
                headers.extend(range.ok().map(|range| (header::RANGE, range)));
            }
            if let Some(value) = &authorization {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
            let pending = lines
                .begin(line, ask.phase, request)
                .await
                .map_err(Stop::Http)?;
            let next = redirects::next(
                &method,
                pending.response.status,
                &pending.response.headers,
                &url,
            );
            let next = match next {
                None => {
                    return Ok(ResponseHead {
                        pending,
                        method,
                        url,
                        redirects,
                        authorized: authorization.is_some(),
                    });
                }
                Some(next) => next.map_err(Stop::Http)?,
            };
            let _ = pending.read(lines, SMALL_BODY).await;
            if redirects.len() + 1 >= MAX_REQUESTS {
                return Err(Stop::Http(redirects::TOO_MANY));
            }
            let keeps = first.is_some()
                && lines.rules.decide(|b| {
                    sensitive.goes_along(&next.url, b.keeps_authorization_across_ports)
                });
            sensitive.went(&next.url);
            let followed = lines.follow(line, ask.role, &next.url, keeps).await;
            line = followed.map_err(Stop::Http)?;
            redirects.push(lines.endpoint(line).clone());
            authorization = match self.authorize(lines, line, &next.url).await? {
                Some(value) => Some(value),
                None => first.clone().filter(|_| keeps),
            };
            (url, method) = (next.url, next.method);
        }
    }

    /// `Authorizer.AddResponses`: whether the request is to be sent again.
    fn challenged(
        &mut self,
        lines: &Connections<'_>,
        got: &ResponseHead,
        seen: &[AnsweredRequest],
    ) -> Result<bool, Stop> {
        let wanted = challenge::wanted(got.headers(), &lines.scrub);
        if !matches!(wanted, Wanted::Anonymous) {
            self.challenge.get_or_insert_with(|| wanted.evidence());
        }
        let key = host_port(&got.url);
        match wanted {
            // Nothing is asked for: the refusal stands.
            Wanted::Anonymous => Ok(false),
            Wanted::Unusable { reason, is_kept } => {
                let fault = TokenFault::BadChallenge { reason };
                if is_kept {
                    self.handlers.insert(key, Handler::Broken(fault.clone()));
                }
                Err(self.fails(fault))
            }
            Wanted::Bearer(bearer) => {
                if let Some(error) = &bearer.error {
                    if rejected_twice(seen) {
                        self.handlers.remove(&key);
                        return Err(Stop::Http(HttpFault::Status {
                            status: 401,
                            code: None,
                            message: Some(lines.scrub.clean(error)),
                            retry_after: None,
                            challenged: true,
                            authorized: true,
                        }));
                    }
                    if lines.rules.decide(|b| b.renews_token_on_error) {
                        self.handlers.remove(&key);
                    }
                }
                // A second challenge does not change how a host is asked, and the same token again
                // would be refused again. Where that is for an error, the token is forgotten with it.
                if self.handlers.contains_key(&key) {
                    if bearer.error.is_some() {
                        self.handlers.remove(&key);
                    }
                    return Ok(false);
                }
                self.handlers.insert(
                    key,
                    Handler::Bearer {
                        bearer,
                        token: None,
                    },
                );
                Ok(true)
            }
            Wanted::Basic { .. } => {
                if got.authorized && self.handlers.contains_key(&key) {
                    return Ok(false);
                }
                let Some(value) = self.credential.and_then(auth::basic_of) else {
                    return Err(self.fails(TokenFault::NoCredential));
                };
                if lines.is_unverified(got.pending.line) {
                    return Err(self.fails(TokenFault::Unverified));
                }
                self.handlers.insert(key, Handler::Basic(value));
                Ok(true)
            }
        }
    }

    fn fails(&mut self, fault: TokenFault) -> Stop {
        self.token = Step::from_result(Err(fault.clone()), Duration::ZERO);
        Stop::Token(fault)
    }

    /// `Authorizer.Authorize`: what goes to a host that has challenged.
    async fn authorize(
        &mut self,
        lines: &mut Connections<'_>,
        line: ConnectionId,
        url: &Url,
    ) -> Result<Option<HeaderValue>, Stop> {
        let key = host_port(url);
        let bearer = match self.handlers.get(&key) {
            None => return Ok(None),
            Some(Handler::Basic(value)) => return Ok(Some(value.clone())),
            Some(Handler::Broken(fault)) => return Err(Stop::Token(fault.clone())),
            Some(Handler::Bearer { token, bearer }) => match token {
                Some(Err(fault)) => return Err(Stop::Token(fault.clone())),
                Some(Ok((value, until)))
                    if until.is_none_or(|until| until > Instant::now())
                        || !lines.rules.decide(|b| b.heeds_token_expiry) =>
                {
                    return Ok(Some(value.clone()));
                }
                _ => bearer.clone(),
            },
        };
        let asked = Instant::now();
        let client = TokenClient {
            repository: self.repository,
            credential: self.credential,
            exchanges: &mut self.exchanges,
        };
        let issued = match client.fetch_token(lines, line, &bearer).await {
            Ok(issued) => Ok(issued),
            // Its leg has the cause, and nothing was asked.
            Err(Stop::Realm(phase)) => {
                self.token = Step::blocked(Role::Token, phase);
                return Err(Stop::Realm(phase));
            }
            Err(Stop::Http(fault)) => Err(TokenFault::Http { fault }),
            Err(Stop::Token(fault)) => Err(fault),
        };
        let granted = issued.as_ref().map(|issued| issued.grant.clone());
        self.token = Step::from_result(granted.map_err(Clone::clone), asked.elapsed());
        let stored = issued.map(|issued| {
            let until = issued.lasts.map(|lasts| asked + lasts);
            (issued.authorization, until)
        });
        let answer = stored.clone().map(|(value, _)| Some(value));
        if let Some(Handler::Bearer { token, .. }) = self.handlers.get_mut(&key) {
            *token = Some(stored);
        }
        answer.map_err(Stop::Token)
    }
}

/// The host of a URL as containerd keeps what it knows of one: with its port, where one is written.
fn host_port(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

/// `invalidAuthorization`: the same request was refused before as well.
fn rejected_twice(seen: &[AnsweredRequest]) -> bool {
    let [.., before, last] = seen else {
        return false;
    };
    last.method == before.method && last.url == before.url
}

/// What lets a client in at a host, for the content of an image.
pub(super) struct HostAccess<'a> {
    pub check: &'a Check,
    pub host: RegistryHost,
    /// `None` where nothing was asked for.
    pub authorization: Option<HeaderValue>,
}
