//! Makes requests as containerd does: its authorizer, its retries and Go's redirects, for one phase of a pull at one
//! host (`core/remotes/docker/authorizer.go`, `resolver.go`).
//!
//! A pull has two phases, resolving the reference and downloading content, and each starts without a token. In a phase,
//! the first challenge of a host and port, for whichever request, decides how later requests to that host are
//! authorized.

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

/// The maximum number of attempts for a request, whatever the responses are.
const MAX_TRIES: usize = 6;

/// One phase of a pull at one host, with one credential or none.
pub(super) struct Session<'a> {
    pub(super) repository: &'a str,
    pub(super) credential: Option<&'a Credential>,
    /// By host and port, as written in URLs.
    handlers: HashMap<String, Handler>,
    /// The handlers kept aside between [`Self::part`] and [`Self::join`].
    aside: HashMap<String, Handler>,
    /// Requests to token services.
    pub exchanges: Vec<TokenExchange>,
    /// The result of the last of them.
    pub token: Step<Grant, TokenFault>,
    /// The first challenge.
    pub challenge: Option<Challenge>,
    /// Requests that a pull repeats at once are not repeated.
    never_repeats: bool,
}

/// How requests to a host are authorized after a challenge.
#[derive(Clone)]
enum Handler {
    Basic(HeaderValue),
    /// Its realm can't be queried, so no further request is sent to the host.
    Broken(TokenFault),
    Bearer {
        bearer: Box<Bearer>,
        /// The token service's result, and until when containerd uses the token.
        token: Option<Result<(HeaderValue, Option<Instant>), TokenFault>>,
    },
}

/// One request of a pull.
#[derive(Clone, Debug)]
pub(super) struct PullRequest {
    pub method: Method,
    /// The connection to the host.
    pub line: ConnectionId,
    pub url: Url,
    pub phase: Phase,
    /// The role of the legs of redirects.
    pub role: Role,
    pub accept: HeaderValue,
    pub accept_encoding: Option<HeaderValue>,
    /// The first byte to request, if a body is resumed.
    pub from_byte: Option<u64>,
    /// No host is queried after this one.
    pub is_last_host: bool,
}

/// The head of the final response; its body has not been read.
pub(super) struct ResponseHead {
    pub pending: Pending,
    /// `GET` also if `HEAD` was rejected with 405.
    pub method: Method,
    /// The URL of the server that answered, after all redirects.
    pub url: Url,
    /// The servers that redirects led to, in order.
    pub redirects: Vec<Endpoint>,
    /// Authorization was sent.
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

/// A request that was answered, as far as its status matters for the next one.
struct AnsweredRequest {
    method: Method,
    url: Url,
    status: StatusCode,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        repository: &'a str,
        credential: Option<&'a Credential>,
        never_repeats: bool,
    ) -> Self {
        Self {
            repository,
            credential,
            handlers: HashMap::new(),
            aside: HashMap::new(),
            exchanges: Vec::new(),
            token: Step::skipped(Skip::NotNeeded),
            challenge: None,
            never_repeats,
        }
    }

    /// `Authorization` for a host and port, if it was required.
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

    /// The next requests are sent at the same time as others: starts two sets of handlers.
    pub(super) fn part(&mut self) {
        self.aside = self.handlers.clone();
    }

    /// Switches to the other set, which does not include the challenges to the first.
    pub(super) fn swap(&mut self) {
        std::mem::swap(&mut self.handlers, &mut self.aside);
    }

    /// Merges both sets.
    pub(super) fn join(&mut self) {
        for (host, handler) in self.aside.drain() {
            self.handlers.entry(host).or_insert(handler);
        }
    }

    /// Sends a request until containerd would accept the response, and returns its head.
    pub(super) async fn send(
        &mut self,
        lines: &mut Connections<'_>,
        pull_request: &PullRequest,
    ) -> Result<ResponseHead, Stop> {
        let mut method = pull_request.method.clone();
        let mut seen: Vec<AnsweredRequest> = Vec::new();
        loop {
            let got = self.once(lines, pull_request, &method).await?;
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
                408 | 429 => !self.never_repeats,
                500 | 503 | 504 => {
                    let is_same = seen.iter().rev().nth(1).map(|s| s.status) == Some(got.status());
                    !is_same
                        && pull_request.is_last_host
                        && lines.rules.decide(Behaviour::retries_server_errors)
                }
                _ => false,
            };
            if !again {
                return Ok(got);
            }
            // The rest of a rejection is read, so that the connection can be used again.
            let _ = got.pending.read(lines, SMALL_BODY).await;
        }
    }

    /// Sends one request, and follows its redirects.
    async fn once(
        &mut self,
        lines: &mut Connections<'_>,
        pull_request: &PullRequest,
        method: &Method,
    ) -> Result<ResponseHead, Stop> {
        let mut method = method.clone();
        let (mut url, mut line) = (pull_request.url.clone(), pull_request.line);
        let first = self.authorize(lines, line, &url).await?;
        let mut authorization = first.clone();
        let mut sensitive = Sensitive::new(&url);
        let mut redirects = Vec::new();
        loop {
            let mut request = lines.request(line, method.clone(), target(&url));
            let headers = request.headers_mut();
            headers.insert(header::ACCEPT, pull_request.accept.clone());
            // Go's default, if no encoding is set.
            let is_plain = method == Method::GET && pull_request.from_byte.is_none();
            let encoding = match &pull_request.accept_encoding {
                None if is_plain => Some(HeaderValue::from_static("gzip")),
                encoding => encoding.clone(),
            };
            headers.extend(encoding.map(|value| (header::ACCEPT_ENCODING, value)));
            if let Some(from) = pull_request.from_byte {
                let range = HeaderValue::try_from(format!("bytes={from}-"));
                headers.extend(range.ok().map(|range| (header::RANGE, range)));
            }
            if let Some(value) = &authorization {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
            let pending = lines
                .begin(line, pull_request.phase, request)
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
                    sensitive.is_sent_to(&next.url, b.keeps_authorization_across_ports)
                });
            sensitive.followed(&next.url);
            let followed = lines
                .follow(line, pull_request.role, &next.url, keeps)
                .await;
            line = followed.map_err(Stop::Http)?;
            redirects.push(lines.endpoint(line).clone());
            authorization = match self.authorize(lines, line, &next.url).await? {
                Some(value) => Some(value),
                None => first.clone().filter(|_| keeps),
            };
            (url, method) = (next.url, next.method);
        }
    }

    /// `Authorizer.AddResponses`: whether to send the request again.
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
            // There is no challenge: the rejection is final.
            Wanted::Anonymous => Ok(false),
            Wanted::Unusable { reason, is_kept } => {
                let fault = TokenFault::BadChallenge { reason };
                if is_kept {
                    self.handlers.insert(key, Handler::Broken(fault.clone()));
                }
                Err(self.fail(fault))
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
                // A second challenge does not change the authorization of a host, and the same token would be rejected
                // again. If it is for an error, containerd also drops the token.
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
                    return Err(self.fail(TokenFault::NoCredential));
                };
                if lines.is_unverified(got.pending.line) {
                    return Err(self.fail(TokenFault::Unverified));
                }
                self.handlers.insert(key, Handler::Basic(value));
                Ok(true)
            }
        }
    }

    fn fail(&mut self, fault: TokenFault) -> Stop {
        self.token = Step::from_result(Err(fault.clone()), Duration::ZERO);
        Stop::Token(fault)
    }

    /// `Authorizer.Authorize`: the authorization for a host that has sent a challenge.
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
        let requested = Instant::now();
        let client = TokenClient {
            repository: self.repository,
            credential: self.credential,
            exchanges: &mut self.exchanges,
        };
        let issued = match client.fetch_token(lines, line, &bearer).await {
            Ok(issued) => Ok(issued),
            // Its leg has the cause, and nothing was sent.
            Err(Stop::Realm(phase)) => {
                self.token = Step::blocked(Role::Token, phase);
                return Err(Stop::Realm(phase));
            }
            Err(Stop::Http(fault)) => Err(TokenFault::Http { fault }),
            Err(Stop::Token(fault)) => Err(fault),
        };
        let granted = issued.as_ref().map(|issued| issued.grant.clone());
        self.token = Step::from_result(granted.map_err(Clone::clone), requested.elapsed());
        let stored = issued.map(|issued| {
            let until = issued.expires_in.map(|time| requested + time);
            (issued.authorization, until)
        });
        let answer = stored.clone().map(|(value, _)| Some(value));
        if let Some(Handler::Bearer { token, .. }) = self.handlers.get_mut(&key) {
            *token = Some(stored);
        }
        answer.map_err(Stop::Token)
    }
}

/// The host of a URL as containerd's key for it: with its port, if one is written.
fn host_port(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    }
}

/// `invalidAuthorization`: the same request was rejected before as well.
fn rejected_twice(seen: &[AnsweredRequest]) -> bool {
    let [.., before, last] = seen else {
        return false;
    };
    last.method == before.method && last.url == before.url
}

/// How content of an image is accessed at a host.
pub(super) struct HostAccess<'a> {
    pub check: &'a Check,
    pub host: RegistryHost,
    /// `None` if no authorization was required.
    pub authorization: Option<HeaderValue>,
}
