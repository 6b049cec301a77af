//! The connections of one check: each endpoint is resolved, connected and secured once; its exchanges then use that
//! connection.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use bytes::Bytes as Body;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use url::Url;

use super::check::Guard;
use super::network::{ProbeNetwork, Progress};
use super::requests::Requests;
use super::trace;
use crate::containerd::HostClient;
use crate::containerd::behaviour::Rules;
use crate::containerd::proxy::ProxyServer;
use crate::model::connect::{Connect, Connected, Connection, Tls};
use crate::model::endpoint::{Endpoint, Host, Role, Scheme};
use crate::model::evidence::{
    AddressTrial, ClockCheck, Leg, PinTrial, SegmentTrial, TracedExchange, Transport,
};
use crate::model::fault::{Distrust, DnsFault, HttpFault, Phase, ProxyFault, TcpFault, TlsFault};
use crate::model::nat64::{self, Nat64Prefixes};
use crate::model::network::{IPVS_DEVICE, ReversePathDrops, RouteOutcome};
use crate::model::own_limit::{MayBeOwn as _, OwnLimit};
use crate::model::proxy::{ProxyRoute, Tunnel};
use crate::model::resolve::{Family, Query, ResolutionSource, Resolve};
use crate::model::special;
use crate::model::step::{Skip, Step};
use crate::model::units::Bytes;
use crate::net::dns::{self, Families};
use crate::net::http::{ForProxy, HttpConnection, Response};
use crate::net::resolv::ResolverConfig;
use crate::net::reverse_path::ReversePathCounter;
use crate::net::stream::Stream;
use crate::net::{kernel, tcp, tunnel};
use crate::own;
use crate::redact::Scrubber;
use crate::registry::challenge::{self, distrust_address};
use crate::registry::error;
use crate::resolver;
use crate::trust;

/// Bound for the addresses of a leg whose routes are looked up: as many as are dialed.
const MAX_ROUTED: usize = 2 * tcp::MAX_ADDRESSES_PER_FAMILY;

/// Bound for the connection to the address that DNS has in place of one that failed.
const PIN_TRIAL: Duration = Duration::from_secs(3);
/// Bound for resolving a name that a proxy resolves itself.
const MAX_WAIT_BEHIND_PROXY: Duration = Duration::from_secs(1);
/// Bound for querying the name servers for their prefix of NAT64.
const MAX_WAIT_FOR_NAT64: Duration = Duration::from_secs(1);

/// A connection of the check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ConnectionId(usize);

impl ConnectionId {
    /// The registry's own connection, which is always the first.
    pub(super) const REGISTRY: Self = Self(0);
}

/// Why a connection could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    Failed(Phase),
    /// The name resolves to an address that a realm or redirect may not lead to.
    Untrusted(Distrust),
}

impl OpenError {
    /// The fault of a request that was redirected to a URL of this endpoint.
    pub(super) fn into_fault(self, url: &Url, to: Endpoint) -> HttpFault {
        match self {
            Self::Failed(phase) => HttpFault::RedirectBlocked { to, phase },
            Self::Untrusted(reason) => untrusted(url, reason),
        }
    }
}

struct LegConnection {
    endpoint: Endpoint,
    /// Whether Go's own client made it, which shares no connection with the host's.
    is_foreign: bool,
    leg: usize,
    /// The server, or the proxy in front of it.
    to: SocketAddr,
    state: ConnectionState,
    /// Further idle connections to the same server.
    spare: Vec<HttpConnection>,
    /// The connection's socket, to read the kernel's statistics at the end of the check.
    socket: Option<OwnedFd>,
}

enum ConnectionState {
    /// Connected; nothing has been sent.
    Fresh(Stream),
    Open(HttpConnection),
    Closed,
}

/// All legs of a check and their connections.
pub(super) struct Connections<'a> {
    pub probe_network: &'a ProbeNetwork,
    /// What must not be contacted for the image of a pod.
    guard: Option<&'a Guard>,
    client: &'a HostClient,
    pub progress: &'a dyn Progress,
    pub scrub: Scrubber,
    legs: Vec<Leg>,
    /// The connections of those legs that have one.
    opened: Vec<LegConnection>,
    /// Use no proxy, whatever the settings are.
    pub direct: bool,
    pub rules: &'a Rules,
    pub trace: Vec<TracedExchange>,
    pub suspect: Option<StalledExchange>,
    /// Connections of a completed phase.
    kept: Vec<HttpConnection>,
    /// The requests that may still be sent.
    pub requests: Requests,
}

/// An exchange that hung or was cut: large packets may be lost, or servers behind the address differ.
#[derive(Clone, Debug)]
pub(super) struct StalledExchange {
    pub role: Role,
    pub phase: Phase,
    pub endpoint: Endpoint,
    pub to: SocketAddr,
    /// `None`: the handshake itself.
    pub request: Option<Request<Body>>,
    pub fault: String,
    /// Nothing was received in time.
    pub is_silent: bool,
    pub took: Duration,
    /// That of the leg's own connection.
    pub round_trip: Option<Duration>,
}

/// Why a further connection to an address that was reached before could not be opened.
#[derive(Clone, Debug)]
pub(super) struct NotConnected {
    pub phase: Phase,
    pub reason: String,
    /// Nothing was received in time.
    pub is_silent: bool,
    /// How its TLS handshake failed.
    pub tls: Option<TlsFault>,
    /// The limit of this process that it failed for.
    pub own_limit: Option<OwnLimit>,
}

impl NotConnected {
    fn new(phase: Phase, fault: Option<&impl ToString>, is_silent: bool) -> Self {
        Self {
            phase,
            reason: words(fault),
            is_silent,
            tls: None,
            own_limit: None,
        }
    }

    /// The phase's outcome has no connection.
    fn of<T, F: ToString>(phase: Phase, outcome: &Step<T, F>, is_silent: bool) -> Self {
        Self {
            own_limit: outcome.own_limit(),
            ..Self::new(phase, outcome.fault(), is_silent)
        }
    }

    fn in_tls(fault: Option<&TlsFault>) -> Self {
        Self {
            tls: fault.cloned(),
            ..Self::new(Phase::Tls, fault, is_silent(fault))
        }
    }
}

impl From<NotConnected> for HttpFault {
    fn from(not: NotConnected) -> Self {
        if let Some(limit) = not.own_limit {
            return limit.into();
        }
        Self::Reconnect {
            phase: not.phase,
            reason: not.reason,
            tls: not.tls.map(Box::new),
        }
    }
}

/// A response with its whole (bounded) body.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

impl Answer {
    /// The fault for a status other than success.
    pub(super) fn status_fault(&self, scrub: &Scrubber) -> HttpFault {
        error::fault(self.status, &self.headers, &self.body, false, scrub)
    }
}

/// The result of an exchange, and the time from the request to the end of the response.
pub(super) struct Exchange<T> {
    pub result: Result<T, HttpFault>,
    pub took: Duration,
}

/// An exchange whose response head has arrived.
pub(super) struct Pending {
    pub line: ConnectionId,
    phase: Phase,
    request: Request<Body>,
    start: Instant,
    pub response: Response,
}

impl Pending {
    /// Reads the whole body, up to `max` bytes.
    pub(super) async fn read(mut self, lines: &mut Connections<'_>, max: u64) -> Exchange<Answer> {
        let body = self
            .response
            .read(Bytes(max), lines.probe_network.wait)
            .await;
        let took = self.note_body(lines, body.as_ref().ok(), body.as_ref().err());
        let result = body.map(|body| Answer {
            status: self.response.status,
            headers: self.response.headers,
            body,
        });
        Exchange { result, took }
    }

    /// Records the exchange with the result of its body.
    pub(super) fn note(&self, lines: &mut Connections<'_>, fault: Option<&HttpFault>) {
        self.note_body(lines, None, fault);
    }

    fn note_body(
        &self,
        lines: &mut Connections<'_>,
        body: Option<&Body>,
        fault: Option<&HttpFault>,
    ) -> Duration {
        let took = self.start.elapsed();
        let seen = trace::ExchangeRecord {
            request: &self.request,
            head: Some((self.response.status, &self.response.headers)),
            body,
            fault,
            took,
        };
        lines.note(self.line, self.phase, &seen);
        took
    }
}

impl<'a> Connections<'a> {
    pub(super) fn new(
        probe_network: &'a ProbeNetwork,
        client: &'a HostClient,
        progress: &'a dyn Progress,
        scrub: Scrubber,
        direct: bool,
        rules: &'a Rules,
        requests: Requests,
    ) -> Self {
        Self {
            probe_network,
            guard: None,
            client,
            progress,
            scrub,
            legs: Vec::new(),
            opened: Vec::new(),
            direct,
            rules,
            trace: Vec::new(),
            suspect: None,
            kept: Vec::new(),
            requests,
        }
    }

    /// The same, for the image of a pod.
    pub(super) fn guarded(self, guard: Option<&'a Guard>) -> Self {
        Self { guard, ..self }
    }

    /// The round trips of the handshakes with an address so far.
    pub(super) fn handshakes(&self, to: SocketAddr) -> impl Iterator<Item = Duration> {
        let attempts = self.legs.iter().flat_map(|leg| &leg.connect.attempts);
        attempts
            .filter(move |dial| dial.to == to)
            .filter_map(|dial| dial.outcome.done()?.rtt)
    }

    pub(super) fn take_legs(&mut self) -> Vec<Leg> {
        for index in 0..self.opened.len() {
            self.close_socket(index);
        }
        std::mem::take(&mut self.legs)
    }

    /// Closes a connection's socket, after reading the kernel's statistics.
    fn close_socket(&mut self, index: usize) {
        let line = &mut self.opened[index];
        let info = line.socket.take().and_then(|s| kernel::tcp_info(&s).ok());
        if let Some(info) = info {
            self.legs[line.leg].transport = Some(Transport {
                min_rtt: info.min_rtt.or(info.rtt),
                send_mss: info.send_mss,
                receive_mss: info.receive_mss,
                path_mtu: info.path_mtu,
                retransmits: info.retransmits,
            });
        }
    }

    /// Closes connections that can't be used for another request, including an unread response: otherwise the server
    /// would continue to send.
    pub(super) fn close_spent(&mut self) {
        for index in 0..self.opened.len() {
            let is_spent = match &self.opened[index].state {
                ConnectionState::Fresh(_) => false,
                ConnectionState::Open(connection) => !connection.is_reusable(),
                ConnectionState::Closed => true,
            };
            if is_spent {
                self.opened[index].state = ConnectionState::Closed;
                self.close_socket(index);
            }
        }
    }

    /// The network device that packets to an address leave through.
    pub(super) fn device_to(&self, to: IpAddr) -> Option<String> {
        let mut routes = self.legs.iter().flat_map(|leg| &leg.routes);
        match &routes.find(|route| route.to == to)?.outcome {
            RouteOutcome::Unicast { device, .. } => Some(device.clone()),
            _ => None,
        }
    }

    /// Connects as Go's own client does.
    pub(super) async fn open_foreign(
        &mut self,
        role: Role,
        endpoint: &Endpoint,
    ) -> Result<ConnectionId, OpenError> {
        self.open_as(role, endpoint, true).await
    }

    /// The remote address of the connection.
    pub(super) fn address(&self, line: ConnectionId) -> SocketAddr {
        self.opened[line.0].to
    }

    pub(super) fn endpoint(&self, line: ConnectionId) -> &Endpoint {
        &self.opened[line.0].endpoint
    }

    /// Whether the server's certificate is not trusted, but containerd continues anyway.
    pub(super) fn is_unverified(&self, line: ConnectionId) -> bool {
        let leg = self.opened[line.0].leg;
        self.legs[leg].tls.unverified.is_some()
    }

    /// Whether requests on the connection lack the headers of hosts.toml ([`Connections::request`]).
    pub(super) fn lacks_headers(&self, line: ConnectionId) -> bool {
        self.is_unverified(line) && !self.client.headers.is_empty()
    }

    /// The newest leg.
    pub(super) fn last_leg(&self) -> Option<&Leg> {
        self.legs.last()
    }

    /// Removes the newest leg, which has no connection.
    pub(super) fn forget_last_leg(&mut self) {
        self.legs.pop();
        self.suspect = None;
    }

    /// Connects with the host's settings.
    pub(super) async fn open(
        &mut self,
        role: Role,
        endpoint: &Endpoint,
    ) -> Result<ConnectionId, OpenError> {
        self.open_as(role, endpoint, false).await
    }

    /// Resolves, connects and secures; a connection of the same client to the same endpoint is reused.
    async fn open_as(
        &mut self,
        role: Role,
        endpoint: &Endpoint,
        is_foreign: bool,
    ) -> Result<ConnectionId, OpenError> {
        let (route, proxy) = self.route(endpoint);
        let is_same = |l: &LegConnection| l.endpoint == *endpoint && l.is_foreign == is_foreign;
        if let Some(index) = self.opened.iter().position(is_same) {
            self.share(role, endpoint, index, route);
            return Ok(ConnectionId(index));
        }
        let phase = Phase::Resolve;
        let later = Skip::Blocked { role, phase };
        let behind = self.addresses_behind(endpoint, &route).await;
        let route = self.with_missed_addresses(endpoint, route, &behind);
        let fault = route.proxy().and_then(|proxy| proxy.fault.clone());
        let leg = unreached_leg(role, endpoint, route, Skip::NotNeeded, later);
        self.legs.push(leg);
        let index = self.legs.len() - 1;
        if let Some(fault) = fault {
            let leg = &mut self.legs[index];
            leg.resolve.outcome = Step::default();
            leg.tunnel = Some(Step::from_result(Err(fault), Duration::ZERO));
            block_after(leg, Phase::Proxy);
            return Err(OpenError::Failed(Phase::Proxy));
        }
        if proxy.is_some() && self.is_guarded(endpoint, &behind).await {
            return Err(self.leave_out(index));
        }
        let (stream, to) = self.reach(index, endpoint, proxy.as_ref()).await?;
        let socket = stream.as_fd().try_clone_to_owned().ok();
        let passage = Box::pin(self.pass(endpoint, proxy.as_ref(), stream)).await;
        let leg = &mut self.legs[index];
        leg.proxy_tls = passage.proxy_tls;
        leg.tunnel = passage.tunnel;
        let Some(stream) = passage.stream else {
            block_after(leg, Phase::Proxy);
            return Err(OpenError::Failed(Phase::Proxy));
        };

        if endpoint.scheme == Scheme::Https {
            self.progress.phase(role, Phase::Tls);
        }
        let (mut tls, stream) = Box::pin(self.secure(endpoint, stream, is_foreign)).await;
        if proxy.is_none() {
            let info = socket.as_ref().and_then(|s| kernel::tcp_info(s).ok());
            let before = own_dial(&self.legs[index]).and_then(|dial| dial.syn_retransmits);
            let all = info.and_then(|info| info.retransmits);
            tls.retransmits = all.zip(before).map(|(all, syn)| all.saturating_sub(syn));
        }
        if let Step::Failed { fault, took } = &tls.outcome
            && (is_silent(Some(fault)) || is_cut(fault))
        {
            self.suspect.get_or_insert(StalledExchange {
                role,
                phase: Phase::Tls,
                endpoint: endpoint.clone(),
                to,
                request: None,
                fault: fault.to_string(),
                is_silent: is_silent(Some(fault)),
                took: *took,
                round_trip: round_trip(&self.legs[index]),
            });
        }
        let is_refused = stream.is_none();
        self.legs[index].tls = tls;
        if is_refused {
            self.try_dns_address(index, endpoint, is_foreign).await;
        }
        let stream = stream.ok_or(OpenError::Failed(Phase::Tls))?;
        self.opened.push(LegConnection {
            is_foreign,
            endpoint: endpoint.clone(),
            leg: index,
            to,
            state: ConnectionState::Fresh(stream),
            spare: Vec::new(),
            socket,
        });
        Ok(ConnectionId(self.opened.len() - 1))
    }

    /// Connects to the target of a redirect, unless no client should follow it.
    pub(super) async fn follow(
        &mut self,
        from: ConnectionId,
        role: Role,
        url: &Url,
        keeps_authorization: bool,
    ) -> Result<ConnectionId, HttpFault> {
        trace::hide_query(url, &mut self.scrub);
        let endpoint = Endpoint::of(url).ok_or_else(|| untrusted(url, Distrust::NotAServer))?;
        match challenge::distrust(url, self.endpoint(from), &self.prefixes()) {
            None => {}
            // Plain http is followed: content is checked against its digest, and no credential goes there.
            Some(Distrust::PlainHttp) if !keeps_authorization => {}
            Some(reason) => return Err(untrusted(url, reason)),
        }
        // A redirect is followed by the client that got it.
        let is_foreign = self.opened[from.0].is_foreign;
        let opened = self.open_as(role, &endpoint, is_foreign).await;
        opened.map_err(|error| error.into_fault(url, endpoint))
    }

    /// Adds another leg for a connection that exists.
    fn share(&mut self, role: Role, endpoint: &Endpoint, opened: usize, route: ProxyRoute) {
        let is_known = |leg: &Leg| leg.role == role && leg.endpoint == *endpoint;
        if !self.legs.iter().any(is_known) {
            let role_of_first = self.legs[self.opened[opened].leg].role;
            let shared = Skip::SharedConnection {
                role: role_of_first,
            };
            let leg = unreached_leg(role, endpoint, route, shared, shared);
            self.legs.push(leg);
        }
    }

    /// Resolves and connects: to the server, or to the proxy in front of it.
    async fn reach(
        &mut self,
        index: usize,
        endpoint: &Endpoint,
        proxy: Option<&ProxyServer>,
    ) -> Result<(TcpStream, SocketAddr), OpenError> {
        let (host, port) = match proxy {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (&endpoint.host, endpoint.port),
        };
        let role = self.legs[index].role;
        self.progress.phase(role, Phase::Resolve);
        let name = host.to_string();
        let overrides = self.overrides(&name, port);
        let resolver = &self.probe_network.resolver;
        let by_go = trust::sends_edns(&self.client.tls.builds);
        let resolver = ResolverConfig {
            sends_edns: resolver::order::sends_edns(&name, &resolver.settings, by_go),
            ..resolver.clone()
        };
        let mut resolve = dns::resolve(
            host,
            &resolver,
            &overrides,
            self.probe_network.families,
            self.probe_network.wait,
        )
        .await;
        resolve.edns_trials =
            dns::edns_trials(&resolve.queries, &resolver, self.probe_network.wait).await;
        resolve.without_edns =
            dns::large_answer_without_edns(&resolve.queries, &resolver, self.probe_network.wait)
                .await;
        let addresses = resolve.outcome.done().map(|r| r.addresses.clone());
        self.legs[index].resolve = resolve;
        let Some(addresses) = addresses else {
            return Err(OpenError::Failed(Phase::Resolve));
        };
        // With a proxy, the proxy resolves the name.
        if !self.opened.is_empty()
            && proxy.is_none()
            && let Some(reason) = self.distrust_addresses(&addresses)
        {
            self.legs[index].connect.outcome = Step::skipped(Skip::Untrusted);
            self.legs[index].tls.outcome = Step::skipped(Skip::Untrusted);
            return Err(OpenError::Untrusted(reason));
        }

        if let Some(netlink) = &self.probe_network.netlink {
            for address in addresses.iter().take(MAX_ROUTED) {
                let lookup = netlink.route_to(*address, port).await;
                let is_unknown = matches!(lookup.outcome, RouteOutcome::Unknown { .. });
                self.legs[index].routes.push(lookup);
                // If the kernel does not answer one lookup, no further one is made.
                if is_unknown {
                    break;
                }
            }
        }
        if proxy.is_none() && self.is_guarded(endpoint, &addresses).await {
            return Err(self.leave_out(index));
        }
        self.progress.phase(role, Phase::Connect);
        let drops = ReversePathCounter::read();
        let (dialed, queries, nat64) = tokio::join!(
            tcp::connect(&addresses, port, self.dial_limit()),
            self.query_despite_hosts_file(index, &name, &resolver),
            Box::pin(self.query_nat64(index, &addresses, &resolver))
        );
        self.legs[index].resolve.queries.extend(queries);
        self.legs[index].nat64 = nat64;
        if dialed.stream.is_none() {
            self.legs[index].reverse_path = drops.and_then(|before| self.dropped_since(before));
        }
        let to = dialed.connect.outcome.done().map(|c: &Connected| c.to);
        self.legs[index].connect = dialed.connect;
        let (Some(stream), Some(to)) = (dialed.stream, to) else {
            self.suspect_silence(index, proxy.is_none());
            block_after(&mut self.legs[index], Phase::Connect);
            self.try_dns_address(index, endpoint, false).await;
            return Err(OpenError::Failed(Phase::Connect));
        };
        Ok((stream, to))
    }

    /// What the reverse path filter dropped, with the strict ones of the devices that have an address.
    fn dropped_since(&self, before: ReversePathCounter) -> Option<ReversePathDrops> {
        let links = self
            .probe_network
            .netlink
            .as_ref()
            .map(|netlink| netlink.links());
        let links = links.unwrap_or_default();
        let is_outer = |net: &IpNet| matches!(net.addr(), IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_link_local());
        let with_address = links
            .iter()
            .filter(|link| link.is_up && link.addresses.iter().any(is_outer));
        let devices: Vec<&str> = with_address.map(|link| link.name.as_str()).collect();
        before.drops(&devices)
    }

    /// Records that the address that a pull dials first did not answer.
    fn suspect_silence(&mut self, index: usize, is_direct: bool) {
        let leg = &self.legs[index];
        let first = leg.connect.attempts.first().filter(|_| is_direct);
        if let Some(dial) = first
            && let Step::Failed { fault, took } = &dial.outcome
            && matches!(fault, TcpFault::Timeout)
        {
            self.suspect.get_or_insert(StalledExchange {
                role: leg.role,
                phase: Phase::Connect,
                endpoint: leg.endpoint.clone(),
                to: dial.to,
                request: None,
                fault: fault.to_string(),
                is_silent: true,
                took: *took,
                round_trip: None,
            });
        }
    }

    /// If the address is from the hosts file: queries the name servers for comparison.
    async fn query_despite_hosts_file(
        &self,
        index: usize,
        name: &str,
        resolver: &ResolverConfig,
    ) -> Vec<Query> {
        let found = self.legs[index].resolve.outcome.done();
        if found.is_none_or(|found| found.source != ResolutionSource::HostsFile) {
            return Vec::new();
        }
        let (families, wait) = (self.probe_network.families, self.probe_network.wait);
        dns::query_despite_hosts_file(name, resolver, families, wait).await
    }

    /// If an address looks like one of NAT64 and its prefix is not the well-known one: queries the name servers for
    /// theirs (RFC 7050).
    async fn query_nat64(
        &self,
        index: usize,
        addresses: &[IpAddr],
        resolver: &ResolverConfig,
    ) -> Option<Nat64Prefixes> {
        let v4 = self.legs[index].resolve.v4_addresses();
        let is_like = |address: &IpAddr| {
            matches!(address, IpAddr::V6(v6) if nat64::look_alike(*v6, &v4)
                .is_some_and(|(_, net)| net != nat64::well_known()))
        };
        if !addresses.iter().any(is_like) {
            return None;
        }
        let limit = self.probe_network.wait.min(MAX_WAIT_FOR_NAT64);
        let name = Host::new(nat64::KNOWN_NAME);
        let found = dns::resolve(&name, resolver, &[], Families::V6Only, limit).await;
        Some(match found.outcome {
            Step::Done { value, .. } => Nat64Prefixes {
                prefixes: nat64::prefixes(&value.addresses),
                fault: None,
            },
            Step::Failed {
                fault: DnsFault::NxDomain | DnsFault::NoData,
                ..
            } => Nat64Prefixes::default(),
            outcome => Nat64Prefixes {
                prefixes: Vec::new(),
                fault: Some(words(outcome.fault())),
            },
        })
    }

    /// The same for connections to an address of the hosts file over which something failed.
    pub(super) async fn try_dns_addresses(&mut self) {
        for index in 0..self.opened.len() {
            let line = &self.opened[index];
            let (leg, to, is_foreign) = (line.leg, line.to.ip(), line.is_foreign);
            let endpoint = line.endpoint.clone();
            if self.legs[leg].resolve.stale_pins().contains(&to) {
                self.try_dns_address(leg, &endpoint, is_foreign).await;
            }
        }
    }

    /// If the address in the hosts file failed and DNS has another one: connects there, without sending a request.
    async fn try_dns_address(&mut self, index: usize, endpoint: &Endpoint, is_foreign: bool) {
        let leg = &self.legs[index];
        let families: Vec<Family> = leg
            .resolve
            .stale_pins()
            .into_iter()
            .map(Family::of)
            .collect();
        let addresses = leg.resolve.dns_addresses();
        let mut same = addresses
            .iter()
            .filter(|one| families.contains(&Family::of(**one)));
        let address = same.next().or_else(|| addresses.first());
        let address = address.copied().filter(|_| !families.is_empty());
        let is_proxied = leg.proxy_route.proxy().is_some();
        let Some(address) = address.filter(|_| !is_proxied) else {
            return;
        };
        let is_distrusted = self.distrust_addresses(&[address]).is_some();
        if is_distrusted || self.is_guarded(endpoint, &[address]).await {
            return;
        }
        let to = SocketAddr::new(address, endpoint.port);
        let trial = async {
            let dialed = tcp::connect(&[address], endpoint.port, PIN_TRIAL).await;
            let Some(stream) = dialed.stream else {
                return Some(words(dialed.connect.outcome.fault()));
            };
            let stream = Stream::from(stream);
            let (tls, stream) = Box::pin(self.secure(endpoint, stream, is_foreign)).await;
            let fault = tls.unverified.as_ref().or(tls.outcome.fault());
            (stream.is_none() || fault.is_some()).then(|| words(fault))
        };
        let fault = own::within(PIN_TRIAL, trial).await;
        let fault = match fault {
            Ok(fault) => fault,
            // It shows nothing.
            Err(elapsed) if elapsed.limit().is_some() => return,
            Err(_) => Some("no answer in time".to_owned()),
        };
        self.legs[index].pin_trial = Some(PinTrial { to, fault });
    }

    /// The route to the endpoint, and the proxy on it, if any.
    fn route(&self, endpoint: &Endpoint) -> (ProxyRoute, Option<ProxyServer>) {
        let builds = &self.client.tls.builds;
        let settings = &self.probe_network.settings;
        match settings.route(endpoint, self.rules, builds) {
            (ProxyRoute::Proxied { proxy, .. }, _) if self.direct => {
                (ProxyRoute::Forced { proxy }, None)
            }
            other => other,
        }
    }

    /// The addresses of a server behind a proxy, as far as something depends on them: entries of `NO_PROXY`, or what a
    /// pod's image must not lead to. The proxy resolves the name itself, and may find others. This asks once, and not for
    /// long.
    async fn addresses_behind(&self, endpoint: &Endpoint, route: &ProxyRoute) -> Vec<IpAddr> {
        let network = self.probe_network;
        let name = match &endpoint.host {
            Host::Address(address) => return vec![*address],
            Host::Name(name) => name,
        };
        let is_guarded = self.guard.is_some_and(|guard| !guard.allows(endpoint));
        let is_needed = is_guarded || network.settings.proxies.have_networks();
        if route.proxy().is_none() || !is_needed {
            return Vec::new();
        }
        let overrides = self.overrides(name, endpoint.port);
        let asking = dns::resolve(
            &endpoint.host,
            &network.resolver,
            &overrides,
            network.families,
            network.wait.min(MAX_WAIT_BEHIND_PROXY),
        );
        let answer = own::aside(own::within(MAX_WAIT_BEHIND_PROXY, asking)).await;
        let found = answer.ok().and_then(|one| one.outcome.done().cloned());
        found.map_or_else(Vec::new, |found| found.addresses)
    }

    /// The addresses of `--resolve` for a server.
    fn overrides(&self, name: &str, port: u16) -> Vec<IpAddr> {
        let overrides = self.probe_network.overrides.iter();
        overrides
            .filter(|o| o.port == port && o.host.eq_ignore_ascii_case(name))
            .map(|o| o.address)
            .collect()
    }

    /// Adds the entries of `NO_PROXY` that would match a server by its address. containerd does not resolve its name
    /// then.
    fn with_missed_addresses(
        &self,
        endpoint: &Endpoint,
        route: ProxyRoute,
        addresses: &[IpAddr],
    ) -> ProxyRoute {
        let proxies = &self.probe_network.settings.proxies;
        let ProxyRoute::Proxied { proxy, mut missed } = route else {
            return route;
        };
        if proxies.have_networks() && matches!(endpoint.host, Host::Name(_)) {
            missed.extend(proxies.missed_by_address(endpoint, addresses));
        }
        ProxyRoute::Proxied { proxy, missed }
    }

    fn dial_limit(&self) -> Duration {
        let own = self.client.host.dial_timeout;
        own.map_or(self.probe_network.wait, |own| {
            own.min(self.probe_network.wait)
        })
    }

    /// Passes through the proxy, if there is one: first TLS with it, if it uses TLS, with the trust of the host's own
    /// certificate, as Go does; then a tunnel, if the endpoint is https or the proxy speaks SOCKS5.
    async fn pass(
        &self,
        endpoint: &Endpoint,
        proxy: Option<&ProxyServer>,
        stream: TcpStream,
    ) -> ProxyPassage {
        let mut passage = ProxyPassage::default();
        let mut stream = Stream::from(stream);
        let wait = self.probe_network.wait;
        if let Some(proxy) = proxy.filter(|proxy| proxy.proxy.scheme == "https") {
            let secured = self.client.tls.handshake(&proxy.host, stream, wait).await;
            let tls = passage.proxy_tls.insert(secured.tls);
            let (Some(secure), None) = (secured.stream, unfit(tls, proxy)) else {
                let took = tls.outcome.took().unwrap_or_default();
                passage.tunnel = match tls.outcome.own_limit() {
                    Some(limit) => Some(Step::skipped(Skip::OwnLimit { limit })),
                    None => unfit(tls, proxy).map(|fault| Step::failed(fault, took)),
                };
                return passage;
            };
            stream = Box::new(secure);
        }
        let needs_tunnel =
            |proxy: &&ProxyServer| endpoint.scheme == Scheme::Https || proxy.proxy.is_socks();
        let Some(proxy) = proxy.filter(needs_tunnel) else {
            passage.stream = Some(stream);
            return passage;
        };
        let start = Instant::now();
        let opened = if proxy.proxy.is_socks() {
            let login = proxy.login.as_ref();
            let login = login.map(|login| (login.user.expose(), login.password.expose()));
            tunnel::open_socks(stream, endpoint, login, wait).await
        } else {
            tunnel::open(stream, endpoint, authorization_of(proxy), wait).await
        };
        let opened = opened.map(|(tunnel, stream)| {
            passage.stream = Some(stream);
            tunnel
        });
        passage.tunnel = Some(Step::from_result(opened, start.elapsed()));
        passage
    }

    /// Makes the TLS handshake, if the endpoint uses TLS.
    async fn secure(
        &self,
        endpoint: &Endpoint,
        stream: Stream,
        is_foreign: bool,
    ) -> (Tls, Option<Stream>) {
        if endpoint.scheme == Scheme::Http {
            return (Tls::default(), Some(stream));
        }
        let tls = if is_foreign {
            &self.client.default_tls
        } else {
            &self.client.tls
        };
        let secured = tls
            .handshake(&endpoint.host, stream, self.probe_network.wait)
            .await;
        let stream = secured.stream.map(|stream| Box::new(stream) as Stream);
        (secured.tls, stream)
    }

    /// A request for a path of the connection's endpoint.
    pub(super) fn request(
        &self,
        line: ConnectionId,
        method: Method,
        path_and_query: &str,
    ) -> Request<Body> {
        let mut request = Request::new(Body::new());
        *request.method_mut() = method;
        // An invalid URI is sent as `/`; the response then shows it. Paths consist of checked references.
        let endpoint = self.endpoint(line);
        let uri = format!("{endpoint}{path_and_query}").parse();
        *request.uri_mut() = uri.unwrap_or_else(|_| http::Uri::from_static("/"));
        // `header` of hosts.toml is sent to the host itself and to its token service, as containerd does. The values
        // may be secret, so they are not sent over an unverified connection.
        let leg = &self.legs[self.opened[line.0].leg];
        let is_theirs = line == ConnectionId::REGISTRY || leg.role == Role::Token;
        if is_theirs && leg.tls.unverified.is_none() {
            for (name, value) in &self.client.headers {
                request.headers_mut().append(name, value.clone());
            }
        }
        request
    }

    /// Sends a request and reads the whole response, up to `max` bytes.
    pub(super) async fn exchange(
        &mut self,
        line: ConnectionId,
        phase: Phase,
        request: Request<Body>,
        max: u64,
    ) -> Exchange<Answer> {
        let start = Instant::now();
        match self.begin(line, phase, request).await {
            Ok(pending) => pending.read(self, max).await,
            Err(fault) => Exchange {
                result: Err(fault),
                took: start.elapsed(),
            },
        }
    }

    /// Sends a request; the caller reads the body of the response.
    pub(super) async fn begin(
        &mut self,
        line: ConnectionId,
        phase: Phase,
        request: Request<Body>,
    ) -> Result<Pending, HttpFault> {
        let start = Instant::now();
        let again = request.clone();
        match self.send(line, phase, request).await {
            Ok(response) => Ok(Pending {
                line,
                phase,
                request: again,
                start,
                response,
            }),
            Err(fault) => {
                let seen = trace::ExchangeRecord {
                    request: &again,
                    head: None,
                    body: None,
                    fault: Some(&fault),
                    took: start.elapsed(),
                };
                self.note(line, phase, &seen);
                Err(fault)
            }
        }
    }

    /// Records an exchange: for the trace, and as a suspect if it stalled.
    fn note(&mut self, line: ConnectionId, phase: Phase, seen: &trace::ExchangeRecord<'_>) {
        let slot = &self.opened[line.0];
        let leg = &mut self.legs[slot.leg];
        let (role, to) = (leg.role, slot.to);
        // For https, the proxy has already answered the tunnel request.
        let is_by_proxy = leg.proxy_route.proxy().is_some() && leg.tunnel.is_none();
        let took = seen.took;
        if let Some((status, headers)) = seen.head.filter(|_| is_by_proxy) {
            let refusal = tunnel::refusal(status, headers);
            leg.tunnel = refusal.map(|fault| Step::failed(fault, took));
        }
        let is_silent = matches!(
            seen.fault,
            Some(HttpFault::Timeout | HttpFault::Stalled { .. })
        );
        let is_cut = matches!(seen.fault, Some(HttpFault::Reset | HttpFault::Closed));
        if let Some(fault) = seen.fault
            && (is_silent || (is_cut && seen.head.is_none()))
        {
            self.suspect.get_or_insert(StalledExchange {
                role,
                phase,
                endpoint: slot.endpoint.clone(),
                to,
                request: Some(seen.request.clone()),
                fault: fault.to_string(),
                is_silent,
                took,
                round_trip: round_trip(leg),
            });
        }
        if self.probe_network.trace {
            let own = &self.client.headers;
            let exchange = trace::record(role, phase, to, seen, own, &self.scrub);
            self.trace.push(exchange);
        }
    }

    /// Repeats a suspect's exchange on a new connection, with this bound on segments.
    pub(super) async fn trial(
        &self,
        suspect: &StalledExchange,
        max_segment: Option<u32>,
        max: Bytes,
        limit: Duration,
    ) -> SegmentTrial {
        let start = Instant::now();
        let tried = own::within(limit, Box::pin(self.try_again(suspect, max_segment, max)));
        let fault = match tried.await {
            Ok(result) => result.err(),
            Err(elapsed) => {
                elapsed.limit();
                Some(("no answer in time".to_owned(), true))
            }
        };
        SegmentTrial {
            max_segment,
            is_silent: fault.as_ref().is_some_and(|(_, is_silent)| *is_silent),
            fault: fault.map(|(words, _)| words),
            took: start.elapsed(),
        }
    }

    async fn try_again(
        &self,
        suspect: &StalledExchange,
        max_segment: Option<u32>,
        max: Bytes,
    ) -> Result<(), (String, bool)> {
        let opened = self
            .connect_again(&suspect.endpoint, suspect.to, max_segment)
            .await;
        let (mut connection, _) =
            opened.map_err(|not| (format!("{}: {}", not.phase, not.reason), not.is_silent))?;
        let Some(request) = &suspect.request else {
            return Ok(());
        };
        let wait = self.probe_network.wait;
        let words = |fault: HttpFault| {
            let is_silent = matches!(fault, HttpFault::Timeout | HttpFault::Stalled { .. });
            (fault.to_string(), is_silent)
        };
        self.requests.spend().map_err(words)?;
        let response = connection
            .send(request.clone(), wait)
            .await
            .map_err(words)?;
        // The whole body, up to what the check itself would have read.
        response.read_first(max, wait).await.map_err(words)?;
        Ok(())
    }

    /// Sends a request and returns the head of the response; its body has not been read.
    ///
    /// If the server closed the connection between two requests, it is opened again, once, as Go's transport does.
    pub(super) async fn send(
        &mut self,
        line: ConnectionId,
        phase: Phase,
        request: Request<Body>,
    ) -> Result<Response, HttpFault> {
        self.progress
            .phase(self.legs[self.opened[line.0].leg].role, phase);
        let again = request.clone();
        let wait = self.probe_network.wait;
        self.close_spent();
        self.requests.spend()?;
        let connection = self.connection(line).await?;
        let mut result = connection.send(request, wait).await;
        if result.is_err() && connection.may_reconnect() {
            self.opened[line.0].state = ConnectionState::Closed;
            self.requests.spend()?;
            result = self.connection(line).await?.send(again, wait).await;
        }
        if let Ok(response) = &result {
            self.note_clock(line, &response.headers);
            let endpoint = self.scrub.wash(&self.endpoint(line).to_string());
            tracing::debug!(endpoint, %phase, status = response.status.as_u16(), "answered");
        }
        result
    }

    /// Takes the connection, which is still busy with a response: the next request gets another one.
    pub(super) fn take(&mut self, line: ConnectionId) -> Option<HttpConnection> {
        self.close_socket(line.0);
        match std::mem::replace(&mut self.opened[line.0].state, ConnectionState::Closed) {
            ConnectionState::Open(connection) => Some(connection),
            ConnectionState::Fresh(_) | ConnectionState::Closed => None,
        }
    }

    /// Returns a connection that is idle again.
    pub(super) fn give_back(&mut self, line: ConnectionId, connection: HttpConnection) {
        self.opened[line.0].spare.push(connection);
    }

    /// Ends a phase of the pull: its connections stay open, as they do in containerd for a while, and the next phase
    /// opens its own.
    pub(super) fn end_phase(&mut self) {
        for line in &mut self.opened {
            if let ConnectionState::Open(connection) =
                std::mem::replace(&mut line.state, ConnectionState::Closed)
            {
                self.kept.push(connection);
            }
            self.kept.append(&mut line.spare);
        }
        self.kept.retain(HttpConnection::is_reusable);
    }

    /// The connection, ready for a request.
    async fn connection(&mut self, line: ConnectionId) -> Result<&mut HttpConnection, HttpFault> {
        let slot = &mut self.opened[line.0];
        let connection = match std::mem::replace(&mut slot.state, ConnectionState::Closed) {
            ConnectionState::Open(connection) if connection.is_reusable() => connection,
            ConnectionState::Fresh(stream) => {
                let endpoint = slot.endpoint.clone();
                let connection = HttpConnection::open(stream).await?;
                connection.by_proxy(self.for_proxy(&endpoint))
            }
            ConnectionState::Open(_) | ConnectionState::Closed => {
                slot.spare.retain(HttpConnection::is_reusable);
                if let Some(connection) = slot.spare.pop() {
                    connection
                } else {
                    let start = Instant::now();
                    let made = self.reconnect(line).await;
                    made.map_err(|not| self.suspect_connection(line, not, start.elapsed()))?
                }
            }
        };
        let state = &mut self.opened[line.0].state;
        *state = ConnectionState::Open(connection);
        match state {
            ConnectionState::Open(connection) => Ok(connection),
            ConnectionState::Fresh(_) | ConnectionState::Closed => Err(HttpFault::Closed),
        }
    }

    async fn reconnect(&self, line: ConnectionId) -> Result<HttpConnection, NotConnected> {
        let slot = &self.opened[line.0];
        let made = self.connect_as(&slot.endpoint, slot.to, None, slot.is_foreign);
        made.await.map(|(connection, _)| connection)
    }

    /// Records that a further connection could not be opened.
    fn suspect_connection(
        &mut self,
        line: ConnectionId,
        not: NotConnected,
        took: Duration,
    ) -> HttpFault {
        let slot = &self.opened[line.0];
        let leg = &self.legs[slot.leg];
        let is_answered = |fault: &TlsFault| !is_silent(Some(fault)) && !is_cut(fault);
        if matches!(not.phase, Phase::Connect | Phase::Tls)
            && not.own_limit.is_none()
            && !not.tls.as_ref().is_some_and(is_answered)
        {
            self.suspect.get_or_insert(StalledExchange {
                role: leg.role,
                phase: not.phase,
                endpoint: slot.endpoint.clone(),
                to: slot.to,
                request: None,
                fault: not.reason.clone(),
                is_silent: not.is_silent,
                took,
                round_trip: round_trip(leg),
            });
        }
        not.into()
    }

    /// Opens a new connection to the address of an endpoint that was reached before, through its proxy if there is one.
    /// Also returns a second descriptor of its socket, for the kernel's statistics.
    pub(super) async fn connect_again(
        &self,
        endpoint: &Endpoint,
        to: SocketAddr,
        max_segment: Option<u32>,
    ) -> Result<(HttpConnection, Option<OwnedFd>), NotConnected> {
        self.connect_as(endpoint, to, max_segment, false).await
    }

    async fn connect_as(
        &self,
        endpoint: &Endpoint,
        to: SocketAddr,
        max_segment: Option<u32>,
        is_foreign: bool,
    ) -> Result<(HttpConnection, Option<OwnedFd>), NotConnected> {
        let limit = self.dial_limit();
        let dialed = tcp::connect_bounded(&[to.ip()], to.port(), limit, max_segment).await;
        let Some(stream) = dialed.stream else {
            let fault = dialed.connect.outcome.fault();
            let is_silent = matches!(fault, Some(TcpFault::Timeout));
            let outcome = &dialed.connect.outcome;
            return Err(NotConnected::of(Phase::Connect, outcome, is_silent));
        };
        let socket = stream.as_fd().try_clone_to_owned().ok();
        let proxy = self.route(endpoint).1;
        let passage = Box::pin(self.pass(endpoint, proxy.as_ref(), stream)).await;
        let Some(stream) = passage.stream else {
            let tunnel = passage.tunnel.unwrap_or_default();
            return Err(NotConnected::of(Phase::Proxy, &tunnel, false));
        };
        let stream = match Box::pin(self.secure(endpoint, stream, is_foreign)).await {
            // The first connection was verified, and the request may contain a credential.
            (tls, Some(_)) if tls.unverified.is_some() && self.was_verified(endpoint) => {
                return Err(NotConnected::in_tls(tls.unverified.as_ref()));
            }
            (_, Some(stream)) => stream,
            (tls, None) => {
                return Err(NotConnected {
                    own_limit: tls.outcome.own_limit(),
                    ..NotConnected::in_tls(tls.outcome.fault())
                });
            }
        };
        let opened = HttpConnection::open(stream).await;
        let opened = opened.map_err(|fault| NotConnected {
            own_limit: fault.own_limit(),
            ..NotConnected::new(Phase::Ping, Some(&fault), false)
        })?;
        Ok((opened.by_proxy(self.for_proxy(endpoint)), socket))
    }

    fn was_verified(&self, endpoint: &Endpoint) -> bool {
        let mut lines = self.opened.iter().filter(|l| l.endpoint == *endpoint);
        lines.any(|line| self.legs[line.leg].tls.unverified.is_none())
    }

    /// What plain http requests have in addition if a proxy forwards them.
    fn for_proxy(&self, endpoint: &Endpoint) -> Option<ForProxy> {
        let proxy = self.route(endpoint).1?;
        (endpoint.scheme == Scheme::Http && !proxy.proxy.is_socks()).then(|| ForProxy {
            authorization: authorization_of(&proxy),
        })
    }

    /// Makes a TLS handshake with each other address of the legs, all at the same time and without a request. With
    /// `all`, also where the leg's own handshake succeeded.
    pub(super) async fn try_addresses(&mut self, all: bool) {
        let trials = self.legs.iter().enumerate().map(|(index, leg)| {
            let is_wanted = all || leg.tls.outcome.fault().is_some();
            let others = other_addresses(leg);
            let others = others.into_iter().filter(|_| is_wanted);
            join_all(others.map(|to| self.try_address(index, to)))
        });
        let trials = join_all(trials).await;
        for (leg, trials) in self.legs.iter_mut().zip(trials) {
            leg.other_addresses = trials.into_iter().flatten().collect();
        }
    }

    async fn try_address(&self, leg: usize, to: SocketAddr) -> Option<AddressTrial> {
        let at = Timestamp::now();
        let mut opened = self.opened.iter();
        let is_foreign = opened.any(|line| line.leg == leg && line.is_foreign);
        let dialed = tcp::connect(&[to.ip()], to.port(), self.dial_limit()).await;
        let endpoint = &self.legs[leg].endpoint;
        let secured = Box::pin(self.secure(endpoint, Box::new(dialed.stream?), is_foreign));
        let (mut tls, stream) = secured.await;
        if let Some(mut stream) = stream {
            tls.chain.clear();
            let _ = own::within(self.probe_network.wait, stream.shutdown()).await;
        }
        Some(AddressTrial { at, to, tls })
    }

    fn note_clock(&mut self, line: ConnectionId, headers: &HeaderMap) {
        let leg = &mut self.legs[self.opened[line.0].leg];
        // A response with an Age is from a cache, and its Date is that old (RFC 9111, 5.1).
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

    /// The prefixes of this network's NAT64, beside the well-known ones.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        let found = self.legs.iter().filter_map(|leg| leg.nat64.as_ref());
        let found = found.flat_map(|nat64| nat64.prefixes.iter());
        self.probe_network
            .nat64
            .iter()
            .chain(found)
            .copied()
            .collect()
    }

    /// Whether the image of a pod must not lead there: to the node itself, a link-local address or a metadata service.
    async fn is_guarded(&self, endpoint: &Endpoint, addresses: &[IpAddr]) -> bool {
        let Some(guard) = self.guard.filter(|guard| !guard.allows(endpoint)) else {
            return false;
        };
        let prefixes = self.prefixes();
        for address in addresses {
            if special::of(*address, &prefixes).is_some() {
                return true;
            }
            for form in special::forms(*address, &prefixes) {
                if guard.node.contains(&form) || self.is_own(form, endpoint.port).await {
                    return true;
                }
            }
        }
        false
    }

    /// Whether the address is one of this machine, according to the kernel.
    async fn is_own(&self, address: IpAddr, port: u16) -> bool {
        let lookup = match &self.probe_network.netlink {
            Some(netlink) => netlink.route_to(address, port).await.outcome,
            None => return tcp::is_own(address),
        };
        match lookup {
            RouteOutcome::Local { device } => device != IPVS_DEVICE,
            RouteOutcome::Unknown { .. } => tcp::is_own(address),
            RouteOutcome::Unicast { .. } | RouteOutcome::Denied { .. } => false,
        }
    }

    /// Marks a leg that is not contacted for the image of a pod.
    fn leave_out(&mut self, index: usize) -> OpenError {
        let leg = &mut self.legs[index];
        leg.connect.outcome = Step::skipped(Skip::NodeAddress);
        leg.tls.outcome = Step::skipped(Skip::NodeAddress);
        OpenError::Failed(Phase::Connect)
    }

    /// A realm or redirect may not lead to a metadata service, nor to this machine unless the registry is on it.
    fn distrust_addresses(&self, addresses: &[IpAddr]) -> Option<Distrust> {
        // With a proxy, its address takes the place of the registry's.
        let registry = self.opened.first()?.to.ip();
        addresses
            .iter()
            .find_map(|&address| distrust_address(address, registry, &self.prefixes()))
    }
}

fn untrusted(to: &Url, reason: Distrust) -> HttpFault {
    let to = Endpoint::of(to).map_or_else(
        || format!("a {} URL", to.scheme()),
        |endpoint| endpoint.to_string(),
    );
    HttpFault::RedirectUntrusted { to, reason }
}

/// Nothing, or no more, was received in time.
fn is_silent(fault: Option<&TlsFault>) -> bool {
    matches!(fault, Some(TlsFault::Timeout { .. }))
}

/// The connection was cut during the handshake.
fn is_cut(fault: &TlsFault) -> bool {
    matches!(fault, TlsFault::Reset { .. } | TlsFault::Closed { .. })
}

/// The leg's own connection, when it was established.
fn own_dial(leg: &Leg) -> Option<&Connection> {
    let to = leg.connect.outcome.done()?.to;
    let mut dials = leg.connect.attempts.iter();
    dials.find(|dial| dial.to == to)?.outcome.done()
}

/// The round trip of the leg's own connection.
fn round_trip(leg: &Leg) -> Option<Duration> {
    own_dial(leg)?.rtt
}

/// The addresses of a leg beside its own that were connected to, if a TLS handshake with them means something: each is
/// the server itself, and the leg's own handshake was made.
fn other_addresses(leg: &Leg) -> Vec<SocketAddr> {
    let is_direct = leg.proxy_route.proxy().is_none();
    let Some(own) = leg.connect.outcome.done().filter(|_| is_direct) else {
        return Vec::new();
    };
    if leg.endpoint.scheme == Scheme::Http || leg.tls.outcome.took().is_none() {
        return Vec::new();
    }
    let attempts = leg.connect.attempts.iter();
    attempts
        .filter(|dial| dial.to != own.to && dial.outcome.done().is_some())
        .map(|dial| dial.to)
        .collect()
}

/// The fault as text; empty if there is none.
fn words(fault: Option<&impl ToString>) -> String {
    fault.map(ToString::to_string).unwrap_or_default()
}

/// The result of passing through a proxy, if there is one.
#[derive(Default)]
struct ProxyPassage {
    proxy_tls: Option<Tls>,
    tunnel: Option<Step<Tunnel, ProxyFault>>,
    /// `None` if it failed.
    stream: Option<Stream>,
}

/// Why the TLS connection with a proxy can't be used.
fn unfit(tls: &Tls, proxy: &ProxyServer) -> Option<ProxyFault> {
    let failed = |fault: &TlsFault| ProxyFault::Tls {
        fault: fault.clone(),
    };
    let exposed = tls.unverified.as_ref().filter(|_| proxy.login.is_some());
    let withheld = exposed.map(|fault| ProxyFault::Undecided {
        reason: format!(
            "its certificate is not valid ({fault}): with skip_verify, containerd still sends the proxy's user and \
             password, but this check does not"
        ),
    });
    tls.outcome.fault().map(failed).or(withheld)
}

fn authorization_of(proxy: &ProxyServer) -> Option<HeaderValue> {
    proxy.login.as_ref()?.authorization.header()
}

/// Marks what follows a failed phase as blocked.
fn block_after(leg: &mut Leg, phase: Phase) {
    if phase == Phase::Proxy && leg.connect.attempts.is_empty() {
        leg.connect.outcome = Step::blocked(leg.role, phase);
    }
    leg.tls.outcome = Step::blocked(leg.role, phase);
}

/// A leg whose server is not reached, or was reached for an earlier leg: why its name is not resolved, and why the
/// later phases are skipped.
fn unreached_leg(
    role: Role,
    endpoint: &Endpoint,
    route: ProxyRoute,
    resolve: Skip,
    later: Skip,
) -> Leg {
    Leg {
        role,
        endpoint: endpoint.clone(),
        proxy_route: route,
        resolve: Resolve {
            outcome: Step::skipped(resolve),
            ..Resolve::default()
        },
        pin_trial: None,
        connect: Connect {
            outcome: Step::skipped(later),
            ..Connect::default()
        },
        proxy_tls: None,
        tunnel: None,
        tls: Tls {
            outcome: Step::skipped(later),
            ..Tls::default()
        },
        clock: None,
        routes: Vec::new(),
        reverse_path: None,
        nat64: None,
        transport: None,
        hops: None,
        large_hello: None,
        other_addresses: Vec::new(),
    }
}

/// The path and query of a URL, as a request target (RFC 9112, 3.2.1).
pub(super) fn target(url: &Url) -> &str {
    &url[url::Position::BeforePath..url::Position::AfterQuery]
}
