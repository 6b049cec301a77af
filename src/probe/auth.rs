//! Exchanges a credential, or none, for a token, as containerd does: the OAuth2 form first if there is a credential,
//! then `GET` if the service does not support that form.

use std::time::Duration;

use bytes::Bytes as Body;
use http::{HeaderValue, Method, StatusCode, header};
use url::Url;

use super::leg::{Answer, ConnectionId, Connections, OpenError, target};
use super::redirects::{self, MAX_REQUESTS, Sensitive};
use super::requests::SMALL_BODY;
use super::trace;
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::{Grant, TokenExchange};
use crate::model::fault::{Distrust, HttpFault, Phase, TokenFault};
use crate::model::step::Step;
use crate::pull_secret::entry::Credential;
use crate::registry::challenge::{self, Bearer};
use crate::registry::token::{self, Form};

/// A token, ready to be sent.
pub(super) struct Issued {
    pub authorization: HeaderValue,
    pub grant: Grant,
    /// `expires_in` of the response.
    pub expires_in: Option<Duration>,
}

/// One request to a token service.
struct TokenRequest {
    method: Method,
    body: Body,
    authorization: Option<HeaderValue>,
    url: Url,
}

/// A client of token services, for one credential or none.
pub(super) struct TokenClient<'a> {
    pub repository: &'a str,
    pub credential: Option<&'a Credential>,
    /// Each request is recorded here.
    pub exchanges: &'a mut Vec<TokenExchange>,
}

impl TokenClient<'_> {
    /// Requests a token from the service named in a challenge.
    ///
    /// # Errors
    /// If there is no token, or no request could be sent.
    pub(super) async fn fetch_token(
        mut self,
        lines: &mut Connections<'_>,
        registry: ConnectionId,
        bearer: &Bearer,
    ) -> Result<Issued, Stop> {
        let line = self.open_realm(lines, registry, &bearer.realm).await?;
        // Neither the credential nor its token may be sent over a connection that can be intercepted.
        let is_exposed = lines.is_unverified(line) || lines.is_unverified(registry);
        if self.credential.is_some() && is_exposed {
            return Err(Stop::Token(TokenFault::Unverified));
        }
        self.exchange(lines, line, bearer).await
    }

    /// Connects to a token service, or to the target of its redirect.
    async fn open_realm(
        &self,
        lines: &mut Connections<'_>,
        from: ConnectionId,
        url: &Url,
    ) -> Result<ConnectionId, Stop> {
        let Some(realm) = Endpoint::of(url) else {
            return Err(Stop::Token(TokenFault::BadChallenge {
                reason: "the realm is not an http or https URL".to_owned(),
            }));
        };
        let untrusted = |reason: Distrust| {
            Stop::Token(TokenFault::RealmUntrusted {
                realm: realm.clone(),
                reason,
            })
        };
        match challenge::distrust(url, lines.endpoint(from), &lines.prefixes()) {
            None => {}
            // Without a credential, nothing secret can be intercepted.
            Some(Distrust::PlainHttp) if self.credential.is_none() => {}
            Some(reason) => return Err(untrusted(reason)),
        }
        match lines.open(Role::Token, &realm).await {
            Ok(line) => Ok(line),
            Err(OpenError::Failed(phase)) => Err(Stop::Realm(phase)),
            Err(OpenError::Untrusted(reason)) => Err(untrusted(reason)),
        }
    }

    async fn exchange(
        &mut self,
        lines: &mut Connections<'_>,
        line: ConnectionId,
        bearer: &Bearer,
    ) -> Result<Issued, Stop> {
        let scopes = token::scopes(self.repository, bearer.scope.as_deref());
        let credential = self.credential;
        if let Some(credential) = credential {
            let body = token::post_body(bearer, &scopes, credential);
            let token_request = TokenRequest {
                method: Method::POST,
                body: Body::copy_from_slice(body.expose().as_bytes()),
                authorization: None,
                url: bearer.realm.clone(),
            };
            let answer = self.send(lines, line, token_request).await?;
            if is_read(answer.status) {
                return self.read(lines, &answer, Form::Post);
            }
            let has_username = !credential.login().0.is_empty();
            if !token::falls_back_to_get(answer.status, has_username) {
                return Err(refusal(&answer, lines));
            }
        }
        let basic = credential
            .and_then(token::token_authorization)
            .and_then(|secret| secret.header());
        let token_request = TokenRequest {
            method: Method::GET,
            body: Body::new(),
            authorization: basic,
            url: token::get_url(bearer, &scopes),
        };
        let answer = self.send(lines, line, token_request).await?;
        if is_read(answer.status) {
            return self.read(lines, &answer, Form::Get);
        }
        Err(refusal(&answer, lines))
    }

    fn read(
        &self,
        lines: &mut Connections<'_>,
        answer: &Answer,
        form: Form,
    ) -> Result<Issued, Stop> {
        let read = token::read(&answer.body, form, self.repository, &lines.scrub);
        let (secret, grant, expires_in) = read.map_err(Stop::Token)?;
        lines.scrub.hide(&secret);
        let authorization = token::bearer_authorization(&secret).header();
        Ok(Issued {
            authorization: authorization.ok_or_else(|| {
                let reason = "the token has characters that are not allowed in a header";
                http_stop(HttpFault::malformed(reason))
            })?,
            grant,
            expires_in: expires_in.map(Duration::from_secs),
        })
    }

    /// Sends one request, and follows redirects like Go's client: after 301 to 303, a `POST` becomes a `GET` without
    /// the form.
    async fn send(
        &mut self,
        lines: &mut Connections<'_>,
        mut line: ConnectionId,
        mut token_request: TokenRequest,
    ) -> Result<Answer, Stop> {
        let mut sensitive = Sensitive::new(&token_request.url);
        let first_method = token_request.method.to_string();
        let authenticated =
            token_request.method == Method::POST || token_request.authorization.is_some();
        let mut took = Duration::ZERO;
        for _ in 0..MAX_REQUESTS {
            let mut request = lines.request(
                line,
                token_request.method.clone(),
                target(&token_request.url),
            );
            if token_request.method == Method::POST {
                let form = HeaderValue::from_static(token::FORM_TYPE);
                request.headers_mut().insert(header::CONTENT_TYPE, form);
                *request.body_mut() = token_request.body.clone();
            }
            if let Some(value) = &token_request.authorization {
                request
                    .headers_mut()
                    .insert(header::AUTHORIZATION, value.clone());
            }
            let exchange = lines
                .exchange(line, Phase::Token, request, SMALL_BODY)
                .await;
            took += exchange.took;
            let mut note = |outcome| {
                self.exchanges.push(TokenExchange {
                    method: first_method.clone(),
                    authenticated,
                    outcome,
                });
            };
            let answer = match exchange.result {
                Ok(answer) => answer,
                Err(fault) => {
                    note(Step::from_result(Err(fault.clone()), took));
                    return Err(http_stop(fault));
                }
            };
            let next = redirects::next(
                &token_request.method,
                answer.status,
                &answer.headers,
                &token_request.url,
            );
            let value = answer.status.as_u16();
            let Some(next) = next else {
                note(Step::Done { value, took });
                return Ok(answer);
            };
            let next = next.map_err(http_stop)?;
            note(Step::from_result(Ok(value), exchange.took));
            trace::hide_query(&next.url, &mut lines.scrub);
            line = self.open_realm(lines, line, &next.url).await?;
            let keeps = sensitive.is_sent_to(&next.url, true);
            sensitive.followed(&next.url);
            token_request.authorization = token_request.authorization.filter(|_| keeps);
            (token_request.url, token_request.method) = (next.url, next.method);
        }
        Err(http_stop(redirects::TOO_MANY))
    }
}

/// containerd reads the body of every response below 400.
fn is_read(status: StatusCode) -> bool {
    (200..400).contains(&status.as_u16())
}

fn http_stop(fault: HttpFault) -> Stop {
    Stop::Token(TokenFault::Http { fault })
}

/// The fault for a rejection by the token service. 401 is its answer to the credential, and so is 400 or 403 if the
/// body is not a page. A page with that status is from a server in front of it, and the credential was not checked.
fn refusal(answer: &Answer, lines: &Connections<'_>) -> Stop {
    let fault = answer.status_fault(&lines.scrub);
    let is_page = answer.body.trim_ascii_start().starts_with(b"<");
    Stop::Token(match answer.status.as_u16() {
        401 => TokenFault::Rejected { fault },
        400 | 403 if !is_page => TokenFault::Rejected { fault },
        _ => TokenFault::Http { fault },
    })
}

/// `Authorization` for a registry that requires Basic.
pub(super) fn basic_of(credential: &Credential) -> Option<HeaderValue> {
    token::registry_authorization(credential)?.header()
}

/// Why there is no response.
#[derive(Clone, Debug)]
pub(super) enum Stop {
    Http(HttpFault),
    /// There is no token.
    Token(TokenFault),
    /// The token service can't be reached; its leg has the reason.
    Realm(Phase),
}

impl Stop {
    /// The fault of the request that could not be completed.
    pub(super) fn into_fault(self, credential: Option<&Credential>) -> HttpFault {
        match self {
            Self::Http(fault) => fault,
            Self::Token(fault) => HttpFault::Unauthorized {
                credential: credential.map(|credential| credential.id.clone()),
                fault: Box::new(fault),
            },
            Self::Realm(phase) => HttpFault::Unreached {
                role: Role::Token,
                phase,
            },
        }
    }
}
