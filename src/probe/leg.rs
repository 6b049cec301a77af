//! The connections of one walk: resolve, connect, tls for each endpoint once, then exchanges on
//! the connection that came of it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes as Body;
use http::{HeaderMap, Method, Request, StatusCode, header};
use jiff::Timestamp;
use tokio::net::TcpStream;
use url::Url;

use super::{Edges, Progress};
use crate::model::endpoint::{Endpoint, Role, Scheme};
use crate::model::evidence::{ClockCheck, Connect, Connected, Leg, Resolve, Skip, Step, Tls};
use crate::model::fault::{Distrust, HttpFault, Phase, TlsFault};
use crate::model::proxy::Way;
use crate::model::units::Bytes;
use crate::net::dns;
use crate::net::http::{HttpConnection, Response, Stream};
use crate::net::tcp;
use crate::registry::challenge::{self, distrust_address};
use crate::registry::error;
use crate::registry::scrub::Scrubber;

/// containerd follows this many (`http.Client` with its own CheckRedirect).
pub(super) const MAX_REDIRECTS: usize = 10;

/// A connection of the walk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct LineId(usize);

/// Why there is no line.
#[derive(Debug)]
pub(super) enum OpenError {
    Failed(Phase),
    /// The name leads to an address that a realm or redirect may not lead to.
    Untrusted(Distrust),
}

struct Line {
    endpoint: Endpoint,
    leg: usize,
    to: SocketAddr,
    state: State,
}

enum State {
    /// Connected, nothing said yet.
    Fresh(Stream, bool),
    Open(HttpConnection),
    Closed,
}

/// All legs of a walk and their connections.
pub(super) struct Lines<'a> {
    edges: &'a Edges,
    progress: &'a dyn Progress,
    scrub: Scrubber,
    legs: Vec<Leg>,
    /// Those of the legs that got a connection.
    opened: Vec<Line>,
}

/// An answer with its whole (bounded) body.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

impl Answer {
    /// The fault that a status other than success is.
    pub(super) fn status_fault(&self, scrub: &Scrubber) -> HttpFault {
        error::fault(self.status, &self.headers, &self.body, scrub)
    }
}

/// What one exchange came to, and how long it took from the request to the end of the answer.
pub(super) struct Exchange<T> {
    pub result: Result<T, HttpFault>,
    pub took: Duration,
}

impl<'a> Lines<'a> {
    pub(super) fn new(edges: &'a Edges, progress: &'a dyn Progress, scrub: Scrubber) -> Self {
        Self {
            edges,
            progress,
            scrub,
            legs: Vec::new(),
            opened: Vec::new(),
        }
    }

    pub(super) fn take_legs(&mut self) -> Vec<Leg> {
        std::mem::take(&mut self.legs)
    }

    pub(super) fn scrub(&self) -> &Scrubber {
        &self.scrub
    }

    pub(super) fn scrub_mut(&mut self) -> &mut Scrubber {
        &mut self.scrub
    }

    pub(super) fn edges(&self) -> &'a Edges {
        self.edges
    }

    pub(super) fn endpoint(&self, line: LineId) -> &Endpoint {
        &self.opened[line.0].endpoint
    }

    /// The fault of the newest leg's handshake.
    pub(super) fn last_tls_fault(&self) -> Option<&TlsFault> {
        self.legs.last()?.tls.outcome.fault()
    }

    /// Takes back the newest leg, which has no line.
    pub(super) fn forget_last_leg(&mut self) {
        self.legs.pop();
    }

    /// Resolves, connects and secures; an endpoint that is connected already is used again.
    pub(super) async fn open(
        &mut self,
        role: Role,
        endpoint: &Endpoint,
    ) -> Result<LineId, OpenError> {
        if let Some(index) = self
            .opened
            .iter()
            .position(|line| line.endpoint == *endpoint)
        {
            if !self
                .legs
                .iter()
                .any(|leg| leg.role == role && leg.endpoint == *endpoint)
            {
                let first = self.legs[self.opened[index].leg].role;
                self.legs.push(shared_leg(role, endpoint, first));
            }
            return Ok(LineId(index));
        }
        self.legs.push(blocked_leg(role, endpoint));
        let index = self.legs.len() - 1;

        self.progress.phase(role, Phase::Resolve);
        let overrides: Vec<IpAddr> = self
            .edges
            .overrides
            .iter()
            .filter(|o| {
                o.port == endpoint.port && o.host.eq_ignore_ascii_case(&endpoint.host.to_string())
            })
            .map(|o| o.address)
            .collect();
        let resolve = dns::resolve(
            &endpoint.host,
            &self.edges.resolver,
            &overrides,
            self.edges.families,
            self.edges.wait,
        )
        .await;
        let addresses = resolve.outcome.done().map(|r| r.addresses.clone());
        self.legs[index].resolve = resolve;
        let Some(addresses) = addresses else {
            return Err(OpenError::Failed(Phase::Resolve));
        };
        if !self.opened.is_empty()
            && let Some(reason) = self.distrust_addresses(&addresses)
        {
            self.legs[index].connect.outcome = Step::Skipped {
                reason: Skip::Untrusted,
            };
            self.legs[index].tls.outcome = Step::Skipped {
                reason: Skip::Untrusted,
            };
            return Err(OpenError::Untrusted(reason));
        }

        self.progress.phase(role, Phase::Connect);
        let dialed = tcp::connect(&addresses, endpoint.port, self.edges.wait).await;
        let to = dialed.connect.outcome.done().map(|c: &Connected| c.to);
        self.legs[index].connect = dialed.connect;
        let (Some(stream), Some(to)) = (dialed.stream, to) else {
            let reason = Skip::Blocked {
                role,
                phase: Phase::Connect,
            };
            self.legs[index].tls.outcome = Step::Skipped { reason };
            return Err(OpenError::Failed(Phase::Connect));
        };

        if endpoint.scheme == Scheme::Https {
            self.progress.phase(role, Phase::Tls);
        }
        let (tls, state) = self.secure(endpoint, stream).await;
        self.legs[index].tls = tls;
        let state = state.ok_or(OpenError::Failed(Phase::Tls))?;
        self.opened.push(Line {
            endpoint: endpoint.clone(),
            leg: index,
            to,
            state,
        });
        Ok(LineId(self.opened.len() - 1))
    }

    /// TLS, where the endpoint has it.
    async fn secure(&self, endpoint: &Endpoint, stream: TcpStream) -> (Tls, Option<State>) {
        if endpoint.scheme == Scheme::Http {
            let outcome = Step::Skipped {
                reason: Skip::NotNeeded,
            };
            let tls = Tls {
                chain: Vec::new(),
                unverified: None,
                outcome,
            };
            return (tls, Some(State::Fresh(Stream::Plain(stream), false)));
        }
        let secured = self
            .edges
            .tls
            .handshake(&endpoint.host, stream, self.edges.wait)
            .await;
        let is_h2 = secured.is_h2();
        let state = secured
            .stream
            .map(|stream| State::Fresh(Stream::Tls(Box::new(stream)), is_h2));
        (secured.tls, state)
    }

    /// A request for a path of the line's endpoint.
    pub(super) fn request(
        &self,
        line: LineId,
        method: Method,
        path_and_query: &str,
    ) -> Request<Body> {
        let mut request = Request::new(Body::new());
        *request.method_mut() = method;
        // A path that is no URI goes out as `/`; the answer then shows it. Paths are made of a checked reference.
        let endpoint = self.endpoint(line);
        let uri = format!("{endpoint}{path_and_query}").parse();
        *request.uri_mut() = uri.unwrap_or_else(|_| http::Uri::from_static("/"));
        request
    }

    /// Sends a request and reads the answer whole, up to `max` bytes.
    pub(super) async fn exchange(
        &mut self,
        line: LineId,
        phase: Phase,
        request: Request<Body>,
        max: u64,
    ) -> Exchange<Answer> {
        let start = Instant::now();
        let result = match self.send(line, phase, request).await {
            Ok(response) => {
                let (status, headers) = (response.status, response.headers.clone());
                let body = response.read(Bytes(max), self.edges.wait).await;
                body.map(|body| Answer {
                    status,
                    headers,
                    body,
                })
            }
            Err(fault) => Err(fault),
        };
        Exchange {
            result,
            took: start.elapsed(),
        }
    }

    /// The same for a request that may be redirected, as registries in front of others do: each
    /// host is a leg of its own, and `Authorization` stays with the first.
    pub(super) async fn follow(
        &mut self,
        first: LineId,
        phase: Phase,
        request: Request<Body>,
        max: u64,
    ) -> Exchange<Answer> {
        let mut exchange = self
            .exchange(first, phase, clone_request(&request), max)
            .await;
        let Ok(mut url) = Url::parse(&request.uri().to_string()) else {
            return exchange;
        };
        let mut line = first;
        for _ in 0..MAX_REDIRECTS {
            let Ok(answer) = &exchange.result else {
                return exchange;
            };
            let next = match redirect(answer.status, &answer.headers, &url, self.endpoint(line)) {
                None => return exchange,
                Some(Ok(next)) => next,
                Some(Err(fault)) => {
                    return Exchange {
                        result: Err(fault),
                        took: exchange.took,
                    };
                }
            };
            let took = exchange.took;
            let failed = |fault| Exchange {
                result: Err(fault),
                took,
            };
            let Some(endpoint) = Endpoint::of(&next) else {
                return failed(untrusted(&next, Distrust::NotAServer));
            };
            line = match self.open(Role::Registry, &endpoint).await {
                Ok(line) => line,
                Err(OpenError::Failed(phase)) => {
                    return failed(HttpFault::RedirectBlocked {
                        to: endpoint,
                        phase,
                    });
                }
                Err(OpenError::Untrusted(reason)) => return failed(untrusted(&next, reason)),
            };
            let mut again =
                self.request(line, request.method().clone(), super::auth::target(&next));
            for (name, value) in request.headers() {
                if *name != header::AUTHORIZATION || line == first {
                    again.headers_mut().insert(name, value.clone());
                }
            }
            url = next;
            exchange = self.exchange(line, phase, again, max).await;
            exchange.took += took;
        }
        let fault = HttpFault::TooManyRedirects {
            limit: MAX_REDIRECTS,
        };
        match &exchange.result {
            Ok(answer) if answer.status.is_redirection() => Exchange {
                result: Err(fault),
                took: exchange.took,
            },
            _ => exchange,
        }
    }

    /// Sends a request and returns the head of the answer, its body still to be read.
    ///
    /// A connection that the server closed between two requests is opened anew, once, as Go's
    /// transport does.
    pub(super) async fn send(
        &mut self,
        line: LineId,
        phase: Phase,
        request: Request<Body>,
    ) -> Result<Response, HttpFault> {
        self.progress
            .phase(self.legs[self.opened[line.0].leg].role, phase);
        let again = clone_request(&request);
        let wait = self.edges.wait;
        self.ready(line).await?;
        let connection = self.connection(line)?;
        let mut result = connection.send(request, wait).await;
        if result.is_err() && connection.may_reconnect() {
            self.opened[line.0].state = State::Closed;
            self.ready(line).await?;
            result = self.connection(line)?.send(again, wait).await;
        }
        if let Ok(response) = &result {
            self.note_clock(line, &response.headers);
            tracing::debug!(endpoint = %self.endpoint(line), %phase, status = response.status.as_u16(), "answered");
        }
        result
    }

    fn connection(&mut self, line: LineId) -> Result<&mut HttpConnection, HttpFault> {
        match &mut self.opened[line.0].state {
            State::Open(connection) => Ok(connection),
            State::Fresh(..) | State::Closed => Err(HttpFault::Closed),
        }
    }

    /// Makes the line's connection fit for a request.
    async fn ready(&mut self, line: LineId) -> Result<(), HttpFault> {
        let slot = &mut self.opened[line.0];
        match std::mem::replace(&mut slot.state, State::Closed) {
            State::Open(connection) if connection.is_reusable() => {
                slot.state = State::Open(connection);
                Ok(())
            }
            State::Fresh(stream, is_h2) => {
                slot.state = State::Open(HttpConnection::open(stream, is_h2).await?);
                Ok(())
            }
            State::Open(_) | State::Closed => {
                self.opened[line.0].state = State::Open(self.reconnect(line).await?);
                Ok(())
            }
        }
    }

    async fn reconnect(&self, line: LineId) -> Result<HttpConnection, HttpFault> {
        let slot = &self.opened[line.0];
        let failed = |phase, fault: Option<String>| HttpFault::Reconnect {
            phase,
            reason: fault.unwrap_or_default(),
        };
        let dialed = tcp::connect(&[slot.to.ip()], slot.to.port(), self.edges.wait).await;
        let Some(stream) = dialed.stream else {
            return Err(failed(
                Phase::Connect,
                dialed.connect.outcome.fault().map(ToString::to_string),
            ));
        };
        match self.secure(&slot.endpoint, stream).await {
            (_, Some(State::Fresh(stream, is_h2))) => HttpConnection::open(stream, is_h2).await,
            (tls, _) => Err(failed(
                Phase::Tls,
                tls.outcome.fault().map(ToString::to_string),
            )),
        }
    }

    fn note_clock(&mut self, line: LineId, headers: &HeaderMap) {
        let leg = &mut self.legs[self.opened[line.0].leg];
        // An answer with an Age comes from a cache, and its Date is that old (RFC 9111, 5.1).
        if leg.clock.is_none()
            && !headers.contains_key(header::AGE)
            && let Some(server) = error::date(headers)
        {
            leg.clock = Some(ClockCheck {
                server,
                local: Timestamp::now(),
            });
        }
    }

    /// A realm or redirect may not lead to a metadata service, nor back to this machine unless the
    /// registry is on it.
    fn distrust_addresses(&self, addresses: &[IpAddr]) -> Option<Distrust> {
        let registry = self.opened.first()?.to.ip();
        addresses
            .iter()
            .find_map(|&address| distrust_address(address, registry))
    }
}

/// Where a redirect leads (RFC 9110, 15.4); `None` when the answer is none.
pub(super) fn redirect(
    status: StatusCode,
    headers: &HeaderMap,
    from: &Url,
    at: &Endpoint,
) -> Option<Result<Url, HttpFault>> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let malformed = |reason: &str| {
        Some(Err(HttpFault::Malformed {
            reason: reason.to_owned(),
        }))
    };
    let Some(location) = headers.get(header::LOCATION) else {
        return malformed("a redirect without Location");
    };
    let Some(next) = location.to_str().ok().and_then(|text| from.join(text).ok()) else {
        return malformed("a redirect whose Location is no URL");
    };
    // Plain http is followed: a layer is checked against its digest, and no credential goes there.
    match challenge::distrust(&next, at) {
        None | Some(Distrust::PlainHttp) => Some(Ok(next)),
        Some(reason) => Some(Err(untrusted(&next, reason))),
    }
}

pub(super) fn untrusted(to: &Url, reason: Distrust) -> HttpFault {
    let to = Endpoint::of(to).map_or_else(
        || format!("a {} URL", to.scheme()),
        |endpoint| endpoint.to_string(),
    );
    HttpFault::RedirectUntrusted { to, reason }
}

fn clone_request(request: &Request<Body>) -> Request<Body> {
    let mut clone = Request::new(request.body().clone());
    *clone.method_mut() = request.method().clone();
    *clone.uri_mut() = request.uri().clone();
    *clone.headers_mut() = request.headers().clone();
    clone
}

/// A leg of which nothing is known yet: each phase waits for the one before it.
fn blocked_leg(role: Role, endpoint: &Endpoint) -> Leg {
    let phase = Phase::Resolve;
    unreached_leg(
        role,
        endpoint,
        Skip::NotNeeded,
        Skip::Blocked { role, phase },
    )
}

/// A leg whose server was reached for an earlier leg.
fn shared_leg(role: Role, endpoint: &Endpoint, first: Role) -> Leg {
    let reason = Skip::SharedConnection { role: first };
    unreached_leg(role, endpoint, reason, reason)
}

fn unreached_leg(role: Role, endpoint: &Endpoint, resolve: Skip, later: Skip) -> Leg {
    Leg {
        role,
        endpoint: endpoint.clone(),
        way: Way::Direct,
        resolve: Resolve {
            queries: Vec::new(),
            outcome: Step::Skipped { reason: resolve },
        },
        connect: Connect {
            attempts: Vec::new(),
            not_tried: 0,
            outcome: Step::Skipped { reason: later },
        },
        tunnel: None,
        tls: Tls {
            chain: Vec::new(),
            unverified: None,
            outcome: Step::Skipped { reason: later },
        },
        clock: None,
    }
}
