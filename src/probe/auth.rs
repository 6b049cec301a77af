//! From the challenge to a registry that lets us in: each matching credential in the kubelet's
//! order, each with its token and its `HEAD` of the manifest, as containerd sends them.

use std::time::Duration;

use bytes::Bytes as Body;
use http::{HeaderValue, Method, Request, header};
use url::Url;

use super::leg::{Answer, LineId, Lines, OpenError};
use super::{Check, SMALL_BODY, manifest};
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::{Attempt, Grant, Head, RateLimit, Skip, Step, TokenExchange, Walk};
use crate::model::fault::{Distrust, HttpFault, Phase, TokenFault};
use crate::model::reference::check_digest;
use crate::model::text::printable;
use crate::model::units::Bytes;
use crate::model::workload::PodUse;
use crate::registry::challenge::{self, Bearer, Wanted};
use crate::registry::keyring::Credential;
use crate::registry::scrub::Secret;
use crate::registry::token::{self, AfterPost, Form};
use crate::registry::{error, manifest as oci};

/// What the registry let in.
pub(super) struct Admitted {
    pub head: Head,
    /// The `Authorization` that did it; `None` when none was needed.
    pub authorization: Option<HeaderValue>,
    /// The manifest, when it had to be fetched by GET already.
    pub body: Option<Body>,
}

/// Finds the first credential that the registry accepts for this image.
///
/// Every attempt is put into the evidence. After a refusal (401, 403, 404) the kubelet's next
/// candidate is tried; after anything else not, since another password would not mend it.
pub(super) async fn admit(
    check: &Check,
    version: &str,
    candidates: &[Credential],
    lines: &mut Lines<'_>,
    registry: LineId,
    challenge: Option<Wanted>,
    walk: &mut Walk,
) -> Option<Admitted> {
    let mut door = Door {
        check,
        path: manifest::path(check, &walk.host, version),
        lines,
        registry,
        at_ping: challenge.is_some(),
        rate_limit: None,
    };
    let admitted = door.find(candidates, challenge, &mut walk.attempts).await;
    walk.rate_limit = door.rate_limit;
    admitted
}

/// The registry, seen by who wants in.
struct Door<'a, 'b> {
    check: &'a Check,
    /// Of the manifest, by the tag or digest that is asked for.
    path: String,
    lines: &'a mut Lines<'b>,
    registry: LineId,
    /// The challenge is that of `/v2/`, not that of a manifest request.
    at_ping: bool,
    rate_limit: Option<RateLimit>,
}

impl Door<'_, '_> {
    async fn find(
        &mut self,
        candidates: &[Credential],
        challenge: Option<Wanted>,
        attempts: &mut Vec<Attempt>,
    ) -> Option<Admitted> {
        if self.lines.lacks_headers(self.registry) {
            // An answer without them says nothing of a pull.
            attempts.push(Attempt {
                credential: None,
                token: failed(TokenFault::Unverified),
                exchanges: Vec::new(),
                head: Step::Skipped {
                    reason: Skip::Untrusted,
                },
                at: None,
            });
            return None;
        }
        let wanted = match challenge {
            Some(wanted) => wanted,
            // Nothing was asked for so far: knock without a credential, as containerd does at first.
            None => match self.knock(None).await {
                Knock::Out {
                    challenge: Some(wanted @ (Wanted::Basic { .. } | Wanted::Bearer(_))),
                    ..
                } => wanted,
                knock => {
                    let (head, admitted, _) = knock.split();
                    let token = not_needed();
                    attempts.push(Attempt {
                        credential: None,
                        token,
                        exchanges: Vec::new(),
                        head,
                        at: None,
                    });
                    return admitted;
                }
            },
        };
        let mut tries: Vec<Option<&Credential>> = candidates.iter().map(Some).collect();
        // A pod that names no Secret may have none: what nobody has to log in for is found out first.
        let names_none = |pod: &PodUse| pod.pull_secrets.is_empty();
        let pods = &self.check.pods;
        if tries.is_empty() || (!pods.is_empty() && pods.iter().all(names_none)) {
            tries.insert(0, None);
        }
        for credential in tries {
            let rested = &self.check.effort.rested;
            if let Some(known) = rested.iter().find(|known| {
                known.credential.is_some() && known.credential.as_ref() == credential.map(|c| &c.id)
            }) {
                attempts.push(known.clone());
                continue;
            }
            let (attempt, admitted, go_on) = self.attempt(&wanted, credential).await;
            attempts.push(attempt);
            if admitted.is_some() || !go_on {
                return admitted;
            }
        }
        None
    }

    /// One candidate; whether the next may be tried after it.
    async fn attempt(
        &mut self,
        wanted: &Wanted,
        credential: Option<&Credential>,
    ) -> (Attempt, Option<Admitted>, bool) {
        let mut exchanges = Vec::new();
        let (token, authorization) = match wanted {
            Wanted::Anonymous => (not_needed(), None),
            Wanted::Unusable { reason } => (
                failed(TokenFault::BadChallenge {
                    reason: reason.clone(),
                }),
                None,
            ),
            Wanted::Basic { .. }
                if credential.is_some() && self.lines.is_unverified(self.registry) =>
            {
                (failed(TokenFault::Unverified), None)
            }
            Wanted::Basic { .. } => match basic_of(credential) {
                Some(value) => (not_needed(), Some(value)),
                None => (failed(TokenFault::NoCredential), None),
            },
            Wanted::Bearer(bearer) => self.bearer_token(bearer, credential, &mut exchanges).await,
        };
        let (head, admitted, go_on) = match &token {
            Step::Done { .. }
            | Step::Skipped {
                reason: Skip::NotNeeded,
            } => self.knock(authorization).await.split(),
            Step::Skipped { reason } => (Step::Skipped { reason: *reason }, None, false),
            Step::Failed { fault, .. } => {
                let reason = Skip::Blocked {
                    role: Role::Token,
                    phase: Phase::Token,
                };
                (
                    Step::Skipped { reason },
                    None,
                    matches!(
                        fault,
                        TokenFault::Rejected { .. } | TokenFault::NoCredential
                    ),
                )
            }
        };
        let credential = credential.map(|c| c.id.clone());
        (
            Attempt {
                credential,
                token,
                exchanges,
                head,
                at: None,
            },
            admitted,
            go_on,
        )
    }

    /// `HEAD` of the manifest by tag or digest. Where that has no answer to give, `GET`: after 405, as
    /// containerd does; after 401, 403 and 404 because only a body tells `MANIFEST_UNKNOWN`,
    /// `NAME_UNKNOWN` and `DENIED` apart.
    async fn knock(&mut self, authorization: Option<HeaderValue>) -> Knock {
        let path = self.path.clone();
        let registry = self.registry;
        let request = |lines: &Lines<'_>, method| {
            let mut request = lines.request(registry, method, &path);
            request
                .headers_mut()
                .insert(header::ACCEPT, HeaderValue::from_static(oci::ACCEPT));
            if let Some(value) = &authorization {
                request
                    .headers_mut()
                    .insert(header::AUTHORIZATION, value.clone());
            }
            request
        };
        let head = request(self.lines, Method::HEAD);
        let exchange = self
            .lines
            .follow(registry, Phase::Manifest, head, SMALL_BODY)
            .await;
        let mut took = exchange.took;
        let answer = match exchange.result {
            Ok(answer) => answer,
            Err(fault) => {
                return Knock::Out {
                    fault,
                    took,
                    challenge: None,
                };
            }
        };
        if self.rate_limit.is_none() {
            self.rate_limit = error::rate_limit(&answer.headers, self.lines.scrub());
        }
        let out = |answer: &Answer, lines: &Lines<'_>, took| {
            let is_asked = answer.status.as_u16() == 401;
            let challenge = is_asked.then(|| challenge::wanted(&answer.headers, lines.scrub()));
            Knock::Out {
                fault: answer.status_fault(lines.scrub()),
                took,
                challenge,
            }
        };
        let status = answer.status.as_u16();
        if answer.status.is_success() {
            let head = read_head(&answer);
            if head.digest.is_some() {
                return Knock::In {
                    admitted: Admitted {
                        head,
                        authorization,
                        body: None,
                    },
                    took,
                };
            }
        } else if !matches!(status, 401 | 403 | 404 | 405) {
            return out(&answer, self.lines, took);
        } else if status == 401 && authorization.is_none() {
            // The challenge is what was wanted; its body has nothing to add.
            return out(&answer, self.lines, took);
        }
        if self.check.effort.only_free {
            return out(&answer, self.lines, took);
        }
        let get = request(self.lines, Method::GET);
        let exchange = self
            .lines
            .follow(registry, Phase::Manifest, get, manifest::MAX_SIZE)
            .await;
        took += exchange.took;
        match exchange.result {
            Err(fault) => Knock::Out {
                fault,
                took,
                challenge: None,
            },
            Ok(body) if !body.status.is_success() => out(&body, self.lines, took),
            Ok(body) if answer.status.is_success() || status == 405 => {
                let mut head = read_head(&body);
                head.by_get = true;
                head.digest = head.digest.or_else(|| Some(oci::sha256(&body.body)));
                Knock::In {
                    admitted: Admitted {
                        head,
                        authorization,
                        body: Some(body.body),
                    },
                    took,
                }
            }
            // A registry that refuses HEAD but serves GET still fails a pull.
            Ok(_) => out(&answer, self.lines, took),
        }
    }

    /// A token for one candidate, asked for as containerd does: the OAuth2 form first where there is a
    /// credential, `GET` where the service does not know that form.
    async fn bearer_token(
        &mut self,
        bearer: &Bearer,
        credential: Option<&Credential>,
        exchanges: &mut Vec<TokenExchange>,
    ) -> (Step<Grant, TokenFault>, Option<HeaderValue>) {
        let Some(realm) = Endpoint::of(&bearer.realm) else {
            return (
                failed(TokenFault::BadChallenge {
                    reason: "the realm is no http or https URL".to_owned(),
                }),
                None,
            );
        };
        let untrusted = |reason: Distrust| {
            failed(TokenFault::RealmUntrusted {
                realm: realm.clone(),
                reason,
            })
        };
        if let Some(reason) = challenge::distrust(&bearer.realm, self.lines.endpoint(self.registry))
        {
            return (untrusted(reason), None);
        }
        let line = match self.lines.open(Role::Token, &realm).await {
            Ok(line) => line,
            Err(OpenError::Failed(phase)) => {
                return (
                    Step::Skipped {
                        reason: Skip::Blocked {
                            role: Role::Token,
                            phase,
                        },
                    },
                    None,
                );
            }
            Err(OpenError::Untrusted(reason)) => return (untrusted(reason), None),
        };
        // Neither the credential nor the token it gives may go where anybody may listen.
        if credential.is_some()
            && (self.lines.is_unverified(line) || self.lines.is_unverified(self.registry))
        {
            return (failed(TokenFault::Unverified), None);
        }
        let scope = if self.at_ping {
            None
        } else {
            bearer.scope.clone()
        };
        let mut asker = Asker {
            check: self.check,
            line,
            bearer,
            scope,
            credential,
            exchanges,
        };
        let result = asker.ask(self.lines).await;
        let took = exchanges.iter().filter_map(|e| e.outcome.took()).sum();
        match result {
            Ok((secret, grant)) => {
                self.lines.scrub_mut().hide(&secret);
                if let Some(value) = header_value(&token::bearer_authorization(&secret)) {
                    (Step::Done { value: grant, took }, Some(value))
                } else {
                    let reason = "the token holds characters that no header may hold".to_owned();
                    (
                        Step::Failed {
                            fault: TokenFault::Http {
                                fault: HttpFault::Malformed { reason },
                            },
                            took,
                        },
                        None,
                    )
                }
            }
            Err(fault) => (Step::Failed { fault, took }, None),
        }
    }
}

enum Knock {
    In {
        admitted: Admitted,
        took: Duration,
    },
    Out {
        fault: HttpFault,
        took: Duration,
        challenge: Option<Wanted>,
    },
}

impl Knock {
    /// As evidence, as the way in, and whether another credential could change it.
    fn split(self) -> (Step<Head, HttpFault>, Option<Admitted>, bool) {
        match self {
            Self::In { admitted, took } => (
                Step::Done {
                    value: admitted.head.clone(),
                    took,
                },
                Some(admitted),
                false,
            ),
            Self::Out { fault, took, .. } => {
                let go_on = matches!(
                    fault,
                    HttpFault::Status {
                        status: 401 | 403 | 404,
                        ..
                    }
                );
                (Step::Failed { fault, took }, None, go_on)
            }
        }
    }
}

fn read_head(answer: &Answer) -> Head {
    let text = |name: &str| {
        answer
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    Head {
        digest: text("docker-content-digest")
            .filter(|d| check_digest(d).is_ok())
            .map(str::to_owned),
        media_type: text("content-type").map(printable),
        size: text("content-length")
            .and_then(|n| n.parse().ok())
            .map(Bytes),
        by_get: false,
    }
}

fn not_needed() -> Step<Grant, TokenFault> {
    Step::Skipped {
        reason: Skip::NotNeeded,
    }
}

fn failed(fault: TokenFault) -> Step<Grant, TokenFault> {
    Step::Failed {
        fault,
        took: Duration::ZERO,
    }
}

struct Asker<'a> {
    check: &'a Check,
    line: LineId,
    bearer: &'a Bearer,
    /// What the challenge to the manifest request asked for; that of `/v2/` is not sent.
    scope: Option<String>,
    credential: Option<&'a Credential>,
    exchanges: &'a mut Vec<TokenExchange>,
}

impl Asker<'_> {
    async fn ask(&mut self, lines: &mut Lines<'_>) -> Result<(Secret, Grant), TokenFault> {
        let repository = self.check.reference.repository();
        let scopes = token::scopes(repository, self.scope.as_deref());
        if let Some(credential) = self.credential {
            let body = token::post_body(self.bearer, &scopes, credential);
            let path = target(&self.bearer.realm);
            let mut request = self.request(lines, Method::POST, path);
            request.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static(token::FORM_TYPE),
            );
            *request.body_mut() = Body::copy_from_slice(body.expose().as_bytes());
            let answer = self.exchange(lines, request, true).await?;
            if answer.status.is_success() {
                return token::read(&answer.body, Form::Post, repository, lines.scrub());
            }
            let has_username = !credential.login().0.is_empty();
            if token::after_post(answer.status, has_username) == AfterPost::Fail {
                return Err(refusal(&answer, lines));
            }
        }
        let url = token::get_url(self.bearer, &scopes);
        let mut request = self.request(lines, Method::GET, target(&url));
        let basic = self
            .credential
            .and_then(token::token_authorization)
            .and_then(|secret| header_value(&secret));
        let authenticated = basic.is_some();
        if let Some(value) = basic {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let answer = self.exchange(lines, request, authenticated).await?;
        if answer.status.is_success() {
            return token::read(&answer.body, Form::Get, repository, lines.scrub());
        }
        Err(refusal(&answer, lines))
    }

    fn request(&self, lines: &Lines<'_>, method: Method, path: &str) -> Request<Body> {
        lines.request(self.line, method, path)
    }

    async fn exchange(
        &mut self,
        lines: &mut Lines<'_>,
        request: Request<Body>,
        authenticated: bool,
    ) -> Result<Answer, TokenFault> {
        let method = request.method().to_string();
        let exchange = lines
            .exchange(self.line, Phase::Token, request, SMALL_BODY)
            .await;
        let (outcome, result) = match exchange.result {
            Ok(answer) => {
                let value = answer.status.as_u16();
                (
                    Step::Done {
                        value,
                        took: exchange.took,
                    },
                    Ok(answer),
                )
            }
            Err(fault) => {
                let step = Step::Failed {
                    fault: fault.clone(),
                    took: exchange.took,
                };
                (step, Err(TokenFault::Http { fault }))
            }
        };
        self.exchanges.push(TokenExchange {
            method,
            authenticated,
            outcome,
        });
        result
    }
}

/// A token service's no. A status of the 400s is its word on the credential; others are its own trouble.
fn refusal(answer: &Answer, lines: &Lines<'_>) -> TokenFault {
    let fault = answer.status_fault(lines.scrub());
    match answer.status.as_u16() {
        400 | 401 | 403 => TokenFault::Rejected { fault },
        _ => TokenFault::Http { fault },
    }
}

/// The path and query of a URL, as a request target (RFC 9112, 3.2.1).
pub(super) fn target(url: &Url) -> &str {
    &url[url::Position::BeforePath..url::Position::AfterQuery]
}

/// `Authorization` for a registry that asks for Basic.
fn basic_of(credential: Option<&Credential>) -> Option<HeaderValue> {
    header_value(&token::registry_authorization(credential?)?)
}

/// A header that no library below prints.
fn header_value(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose()).ok()?;
    value.set_sensitive(true);
    Some(value)
}
