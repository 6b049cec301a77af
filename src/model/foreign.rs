//! The texts of the other side in evidence: what servers, proxies and name servers sent. [`each`] visits all of them,
//! so that one place can hide the credentials that they repeat, and another what a pod's owner must not read.
//!
//! Each type is taken apart in full, without `..`: a new field or fault does not compile until it is decided here
//! whether it has such a text, and from which [`Source`].

use super::connect::{BadLink, Certificate, Connect, Dial, ExpiredRoot, Session, Tls};
use super::endpoint::{Endpoint, Host};
use super::evidence::{
    AddressTrial, Attempt, BlobFound, ByRelease, Challenge, Evidence, HeadResponse, LargeHello,
    Layer, LayerRead, Leg, ManifestFound, PinTrial, Ping, RateLimit, SegmentTrial, SegmentTrials,
    TokenExchange, TracedExchange, Walk,
};
use super::fault::{
    DnsFault, HttpFault, ManifestFault, ProxyFault, TcpFault, TlsFault, TokenFault,
};
use super::nat64::Nat64Prefixes;
use super::proxy::Tunnel;
use super::resolve::{Answer, EdnsTrial, NegativeAnswer, Query, Resolution, Resolve};
use super::step::Step;
use super::transfer::{ControlTransfer, NotConnected, StreamEnd, Transfer, TransferStream};

macro_rules! sources {
    ($($(#[doc = $doc:literal])+ $source:ident,)+) => {
        /// Where a text of the other side enters.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum Source {
            $($(#[doc = $doc])+ $source,)+
        }

        impl Source {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$source),+];
        }
    };
}

sources! {
    /// The first bytes of what is no HTTP or no TLS.
    FirstBytes,
    /// The code in the body of an error.
    ErrorCode,
    /// The message in the body of an error, or the body itself.
    ErrorMessage,
    /// `Retry-After`.
    RetryAfter,
    /// The title of a web page.
    PageTitle,
    /// `Content-Encoding`.
    Encoding,
    /// A media type: of a header, a manifest or a descriptor.
    MediaType,
    /// A digest that a header or a document states.
    Digest,
    /// A platform of an index or a configuration.
    Platform,
    /// The host of a server, which a redirect or a realm may name.
    Host,
    /// `realm`, `service` and `scope` of a challenge, and why it can't be used.
    Challenge,
    /// The names of the fields in a token service's answer.
    TokenField,
    /// Another header: `Server`, the API version, the source of a rate limit.
    Header,
    /// Subject, issuer and addresses of a certificate, and what is wrong with it.
    Certificate,
    /// The names that a certificate is valid for.
    CertificateName,
    /// What was negotiated in TLS.
    Session,
    /// The reason of a proxy: its phrase, its header, its reply.
    ProxyReason,
    /// A name in an answer of DNS, and its code.
    Dns,
    /// A fault in words, which may have any of these.
    Words,
    /// An exchange of `--trace`.
    Trace,
}

/// What sees a text, and may change it.
type See<'a> = &'a mut dyn FnMut(Source, &mut String);

/// Visits each text of the other side.
pub fn each(evidence: &mut Evidence, see: See<'_>) {
    let Evidence {
        reference: _,
        platform: _,
        started: _,
        vantage: _,
        pods: _,
        present_for: _,
        requested_secrets: _,
        keyring: _,
        runtime: _,
        kubelet: _,
        assumed_release: _,
        by_release,
        pulled: _,
        own_limits: _,
        hosts: _,
        proxies: _,
        walk,
        others,
        not_contacted: _,
        upstream,
        direct,
        trace,
    } = evidence;
    for ByRelease {
        release: _,
        answers_changed: _,
        other_settings: _,
        evidence,
    } in by_release
    {
        each(evidence, see);
    }
    let walks = [walk].into_iter().chain(others);
    let walks = walks
        .chain(upstream.as_deref_mut())
        .chain(direct.as_deref_mut());
    for one in walks {
        of_walk(one, see);
    }
    for one in trace {
        of_exchange(one, see);
    }
}

fn of_walk(walk: &mut Walk, see: See<'_>) {
    let Walk {
        host: _,
        by_digest: _,
        resolved_by_other_host: _,
        roots: _,
        legs,
        ping,
        attempts,
        manifest,
        blob,
        config,
        layers,
        transfer,
        rate_limit,
        segments,
    } = walk;
    for leg in legs {
        of_leg(leg, see);
    }
    step(ping, see, of_ping, http);
    for attempt in attempts {
        of_attempt(attempt, see);
    }
    step(manifest, see, of_manifest, manifest_fault);
    step(blob, see, of_blob, http);
    if let Some(config) = config {
        step(config, see, |_, _| {}, http);
    }
    for LayerRead {
        digest,
        outcome,
        refused_beside: _,
        served_alone: _,
    } in layers
    {
        see(Source::Digest, digest);
        step(outcome, see, |_, _| {}, http);
    }
    if let Some(transfer) = transfer {
        of_transfer(transfer, see);
    }
    if let Some(RateLimit {
        limit: _,
        remaining: _,
        window_seconds: _,
        source,
    }) = rate_limit
    {
        maybe(Source::Header, source, see);
    }
    if let Some(SegmentTrials {
        role: _,
        phase: _,
        endpoint: server,
        to: _,
        trials,
    }) = segments
    {
        endpoint(server, see);
        for SegmentTrial {
            max_segment: _,
            fault,
            is_silent: _,
            took: _,
        } in trials
        {
            maybe(Source::Words, fault, see);
        }
    }
}

fn of_leg(leg: &mut Leg, see: See<'_>) {
    let Leg {
        role: _,
        endpoint: server,
        proxy_route: _,
        resolve,
        pin_trial,
        connect,
        proxy_tls,
        tunnel,
        tls,
        clock: _,
        routes: _,
        reverse_path: _,
        nat64,
        transport: _,
        hops: _,
        large_hello,
        other_addresses,
    } = leg;
    endpoint(server, see);
    of_resolve(resolve, see);
    if let Some(PinTrial { to: _, fault }) = pin_trial {
        maybe(Source::Words, fault, see);
    }
    of_connect(connect, see);
    if let Some(tls) = proxy_tls {
        of_tls(tls, see);
    }
    if let Some(tunnel) = tunnel {
        let of_tunnel = |Tunnel { to, status: _ }: &mut Tunnel, see: See<'_>| endpoint(to, see);
        step(tunnel, see, of_tunnel, proxy);
    }
    of_tls(tls, see);
    if let Some(Nat64Prefixes { prefixes: _, fault }) = nat64 {
        maybe(Source::Dns, fault, see);
    }
    if let Some(LargeHello {
        at: _,
        to: _,
        bytes: _,
        large,
        short,
        in_a_row: _,
    }) = large_hello
    {
        for trial in [large].into_iter().chain(short) {
            step(trial, see, session, tls_fault);
        }
    }
    for AddressTrial { at: _, to: _, tls } in other_addresses {
        of_tls(tls, see);
    }
}

fn of_resolve(resolve: &mut Resolve, see: See<'_>) {
    let Resolve {
        queries,
        sends_edns: _,
        edns_trials,
        without_edns,
        beyond,
        outcome,
    } = resolve;
    let queries = queries.iter_mut().chain(without_edns.as_deref_mut());
    for Query {
        server: _,
        name,
        family: _,
        tcp: _,
        truncated_after: _,
        large_answer_bytes: _,
        negative,
        outcome,
    } in queries.chain(beyond)
    {
        see(Source::Host, name);
        if let Some(NegativeAnswer { cnames, zone }) = negative {
            all(Source::Dns, cnames, see);
            maybe(Source::Dns, zone, see);
        }
        step(outcome, see, answer, dns);
    }
    for EdnsTrial {
        server: _,
        without,
        with,
    } in edns_trials
    {
        step(without, see, answer, dns);
        step(with, see, answer, dns);
    }
    let resolution = |found: &mut Resolution, see: See<'_>| {
        let Resolution {
            name,
            addresses: _,
            cnames,
            source: _,
        } = found;
        see(Source::Host, name);
        all(Source::Dns, cnames, see);
    };
    step(outcome, see, resolution, dns);
}

fn answer(Answer { records: _, cnames }: &mut Answer, see: See<'_>) {
    all(Source::Dns, cnames, see);
}

fn of_connect(connect: &mut Connect, see: See<'_>) {
    let Connect {
        attempts,
        not_tried: _,
        outcome,
    } = connect;
    for Dial { to: _, outcome } in attempts {
        step(outcome, see, |_, _| {}, tcp);
    }
    step(outcome, see, |_, _| {}, tcp);
}

fn of_tls(tls: &mut Tls, see: See<'_>) {
    let Tls {
        chain,
        unverified,
        bad_link,
        leaf_trusted: _,
        depends_on_changed_roots: _,
        retransmits: _,
        outcome,
    } = tls;
    for one in chain {
        certificate(one, see);
    }
    if let Some(fault) = unverified {
        tls_fault(fault, see);
    }
    if let Some(BadLink {
        certificate: bad,
        sent: _,
        source: _,
        problem: _,
        reason,
        expired_root,
    }) = bad_link
    {
        certificate(bad, see);
        see(Source::Certificate, reason);
        // A root of this machine.
        if let Some(ExpiredRoot {
            certificate: _,
            source: _,
        }) = expired_root
        {}
    }
    step(outcome, see, session, tls_fault);
}

fn session(found: &mut Session, see: See<'_>) {
    let Session {
        protocol: _,
        cipher_suite: _,
        key_exchange: _,
        alpn,
    } = found;
    maybe(Source::Session, alpn, see);
}

fn certificate(found: &mut Certificate, see: See<'_>) {
    let Certificate {
        subject,
        issuer,
        names,
        not_before: _,
        not_after: _,
        sha256: _,
        issuer_at,
    } = found;
    see(Source::Certificate, subject);
    see(Source::Certificate, issuer);
    all(Source::CertificateName, names, see);
    all(Source::Certificate, issuer_at, see);
}

fn of_ping(found: &mut Ping, see: See<'_>) {
    let Ping {
        status: _,
        challenge: found,
        api_version,
        server,
    } = found;
    challenge(found, see);
    maybe(Source::Header, api_version, see);
    maybe(Source::Header, server, see);
}

fn challenge(found: &mut Challenge, see: See<'_>) {
    match found {
        Challenge::Anonymous => {}
        Challenge::Basic { realm } => maybe(Source::Challenge, realm, see),
        Challenge::Bearer {
            realm,
            service,
            scope,
        } => {
            endpoint(realm, see);
            maybe(Source::Challenge, service, see);
            maybe(Source::Challenge, scope, see);
        }
        Challenge::Unusable { reason } => see(Source::Challenge, reason),
    }
}

fn of_attempt(attempt: &mut Attempt, see: See<'_>) {
    let Attempt {
        credential: _,
        token,
        exchanges,
        challenge: found,
        head,
        get_succeeded: _,
        get_used_other_token: _,
        via_blobs_endpoint: _,
        at: _,
    } = attempt;
    step(token, see, |_, _| {}, token_fault);
    for TokenExchange {
        method: _,
        authenticated: _,
        outcome,
    } in exchanges
    {
        step(outcome, see, |_, _| {}, http);
    }
    if let Some(found) = found {
        challenge(found, see);
    }
    step(head, see, of_head, http);
}

fn of_head(found: &mut HeadResponse, see: See<'_>) {
    let HeadResponse {
        digest,
        media_type,
        size: _,
        used_get: _,
        digest_of_encoded,
    } = found;
    maybe(Source::Digest, digest, see);
    maybe(Source::MediaType, media_type, see);
    maybe(Source::Encoding, digest_of_encoded, see);
}

fn of_manifest(found: &mut ManifestFound, see: See<'_>) {
    let ManifestFound {
        digest,
        media_type,
        platform_digest,
        platforms,
        config,
        layers,
        layers_size: _,
        not_an_image: _,
        fetched: _,
        platforms_left_out: _,
        layers_left_out: _,
    } = found;
    see(Source::Digest, digest);
    see(Source::MediaType, media_type);
    see(Source::Digest, platform_digest);
    all(Source::Platform, platforms, see);
    for Layer {
        digest,
        media_type,
        size: _,
    } in config.iter_mut().chain(layers)
    {
        see(Source::Digest, digest);
        see(Source::MediaType, media_type);
    }
}

fn of_blob(found: &mut BlobFound, see: See<'_>) {
    let BlobFound {
        digest,
        redirects,
        range_honoured: _,
        range_refused_with: _,
        size: _,
        first_byte: _,
    } = found;
    see(Source::Digest, digest);
    for to in redirects {
        endpoint(to, see);
    }
}

fn of_transfer(transfer: &mut Transfer, see: See<'_>) {
    let Transfer {
        started: _,
        max_bytes: _,
        max_duration: _,
        expected_within: _,
        stages: _,
        streams,
        connections: _,
        connections_tried: _,
        not_connected,
        arrivals: _,
        pings: _,
        control,
        device: _,
        tcp_settings: _,
        round_trips_before: _,
        cpu: _,
        end: _,
        took: _,
    } = transfer;
    for stream in streams {
        let TransferStream {
            endpoint: server,
            to: _,
            digest,
            connection: _,
            first_byte: _,
            first_touch: _,
            offset: _,
            bytes: _,
            min_rtt: _,
            options: _,
            bursts: _,
            longest_stall: _,
            silent: _,
            end,
            samples: _,
        } = stream;
        endpoint(server, see);
        see(Source::Digest, digest);
        match end {
            StreamEnd::Complete { digest_matches: _ } | StreamEnd::Stopped => {}
            StreamEnd::Failed { fault } => http(fault, see),
        }
    }
    for NotConnected {
        to: _,
        phase: _,
        reason,
        is_silent: _,
        tls,
    } in not_connected
    {
        see(Source::Words, reason);
        if let Some(fault) = tls {
            tls_fault(fault, see);
        }
    }
    // A host of the operator.
    if let Some(ControlTransfer {
        endpoint: _,
        fault,
        arrivals: _,
    }) = control
    {
        maybe(Source::Words, fault, see);
    }
}

fn of_exchange(exchange: &mut TracedExchange, see: See<'_>) {
    let TracedExchange {
        role: _,
        phase: _,
        peer: _,
        method: _,
        url,
        request_headers,
        status: _,
        response_headers,
        error_body,
        fault,
        took: _,
    } = exchange;
    see(Source::Trace, url);
    for (name, value) in request_headers.iter_mut().chain(response_headers) {
        see(Source::Trace, name);
        see(Source::Trace, value);
    }
    maybe(Source::Trace, error_body, see);
    maybe(Source::Trace, fault, see);
}

// ---- faults -------------------------------------------------------------------------------------

fn http(fault: &mut HttpFault, see: See<'_>) {
    match fault {
        HttpFault::Status {
            status: _,
            code,
            message,
            retry_after,
            challenged: _,
            authorized: _,
        } => {
            maybe(Source::ErrorCode, code, see);
            maybe(Source::ErrorMessage, message, see);
            maybe(Source::RetryAfter, retry_after, see);
        }
        HttpFault::Malformed { reason } => see(Source::FirstBytes, reason),
        HttpFault::RedirectUntrusted { to, reason: _ } => see(Source::Host, to),
        HttpFault::RedirectBlocked { to, phase: _ } => endpoint(to, see),
        HttpFault::Reconnect {
            phase: _,
            reason,
            tls,
        } => {
            see(Source::Words, reason);
            if let Some(fault) = tls {
                tls_fault(fault, see);
            }
        }
        HttpFault::Unauthorized {
            credential: _,
            fault,
        } => token_fault(fault, see),
        HttpFault::WrongDigest { expected, got } => {
            see(Source::Digest, expected);
            see(Source::Digest, got);
        }
        HttpFault::Page { title } => maybe(Source::PageTitle, title, see),
        HttpFault::Encoding { encoding }
        | HttpFault::NotEncoded { encoding }
        | HttpFault::EncodingUnread { encoding } => see(Source::Encoding, encoding),
        HttpFault::NotUnpacked { reason } | HttpFault::Other { reason } => {
            see(Source::Words, reason);
        }
        HttpFault::Unsupported { media_type } => see(Source::MediaType, media_type),
        HttpFault::Stalled { after: _ }
        | HttpFault::Truncated { got: _, want: _ }
        | HttpFault::Timeout
        | HttpFault::Reset
        | HttpFault::Closed
        | HttpFault::TooLarge { limit: _ }
        | HttpFault::TooManyRedirects { limit: _ }
        | HttpFault::Unreached { role: _, phase: _ }
        | HttpFault::WrongSize {
            expected: _,
            got: _,
        }
        | HttpFault::NotRequested
        | HttpFault::RequestLimit { limit: _ }
        | HttpFault::ResumedTooOften { limit: _, got: _ }
        | HttpFault::TooSlow {
            within_seconds: _,
            got: _,
            want: _,
        }
        | HttpFault::OwnLimit { limit: _ }
        | HttpFault::TlsAlert { alert: _, name: _ } => {}
    }
}

fn token_fault(fault: &mut TokenFault, see: See<'_>) {
    match fault {
        TokenFault::NoCredential | TokenFault::Unverified => {}
        TokenFault::Rejected { fault } | TokenFault::Http { fault } => http(fault, see),
        TokenFault::RealmUntrusted { realm, reason: _ } => endpoint(realm, see),
        TokenFault::NoToken { method: _, fields } => all(Source::TokenField, fields, see),
        TokenFault::BadChallenge { reason } => see(Source::Challenge, reason),
    }
}

fn manifest_fault(fault: &mut ManifestFault, see: See<'_>) {
    match fault {
        ManifestFault::Http { fault } => http(fault, see),
        ManifestFault::NoPlatform {
            available,
            left_out: _,
        } => all(Source::Platform, available, see),
        ManifestFault::Unsupported { media_type } => see(Source::MediaType, media_type),
        ManifestFault::DigestMismatch { expected, got } => {
            see(Source::Digest, expected);
            see(Source::Digest, got);
        }
        ManifestFault::Malformed { reason } | ManifestFault::Undecided { reason } => {
            see(Source::Words, reason);
        }
    }
}

fn proxy(fault: &mut ProxyFault, see: See<'_>) {
    match fault {
        ProxyFault::Status { status: _, reason } => maybe(Source::ProxyReason, reason, see),
        ProxyFault::Socks { reply: _, reason } | ProxyFault::Undecided { reason } => {
            see(Source::ProxyReason, reason);
        }
        ProxyFault::Http { fault } => http(fault, see),
        ProxyFault::Tls { fault } => tls_fault(fault, see),
        // Texts of the node's settings.
        ProxyFault::Misread {
            variable: _,
            character: _,
            encoded: _,
        }
        | ProxyFault::Cgi { variable: _ }
        | ProxyFault::OwnLimit { limit: _ }
        | ProxyFault::Unsupported { scheme: _ } => {}
    }
}

fn tls_fault(fault: &mut TlsFault, see: See<'_>) {
    match fault {
        TlsFault::UnknownIssuer { issuer } => see(Source::Certificate, issuer),
        TlsFault::NameMismatch {
            expected,
            presented,
        } => {
            see(Source::Host, expected);
            all(Source::CertificateName, presented, see);
        }
        TlsFault::BadCertificate { reason } => see(Source::Certificate, reason),
        TlsFault::NotTls { first_bytes } => see(Source::FirstBytes, first_bytes),
        TlsFault::Undecided { reason }
        | TlsFault::Incompatible { reason }
        | TlsFault::Other { reason } => {
            see(Source::Words, reason);
        }
        TlsFault::Expired {
            not_after: _,
            local_time: _,
        }
        | TlsFault::NotYetValid {
            not_before: _,
            local_time: _,
        }
        | TlsFault::NoRoots
        | TlsFault::OwnLimit { limit: _ }
        | TlsFault::PlainHttp
        | TlsFault::Alert { alert: _, name: _ }
        | TlsFault::Reset { received: _ }
        | TlsFault::Closed { received: _ }
        | TlsFault::Timeout { received: _ } => {}
    }
}

fn tcp(fault: &mut TcpFault, see: See<'_>) {
    match fault {
        TcpFault::Other { errno: _, error } => see(Source::Words, error),
        TcpFault::Refused { icmp: _ }
        | TcpFault::Timeout
        | TcpFault::HostUnreachable { icmp: _ }
        | TcpFault::NetUnreachable { icmp: _ }
        | TcpFault::Prohibited { icmp: _ }
        | TcpFault::LocalPolicy { errno: _ }
        | TcpFault::NoLocalAddress { errno: _ }
        | TcpFault::NoLocalPort
        | TcpFault::OwnLimit { limit: _ }
        | TcpFault::Reset => {}
    }
}

fn dns(fault: &mut DnsFault, see: See<'_>) {
    match fault {
        DnsFault::OtherCode { code } => see(Source::Dns, code),
        DnsFault::Unreachable { error } => see(Source::Words, error),
        DnsFault::Malformed { reason } => see(Source::Dns, reason),
        DnsFault::NxDomain
        | DnsFault::NoData
        | DnsFault::ServFail
        | DnsFault::Refused
        | DnsFault::Timeout
        | DnsFault::PortClosed
        | DnsFault::OwnLimit { limit: _ }
        | DnsFault::NoServers => {}
    }
}

// ---- parts --------------------------------------------------------------------------------------

fn step<T, F>(
    step: &mut Step<T, F>,
    see: See<'_>,
    done: impl FnOnce(&mut T, See<'_>),
    failed: impl FnOnce(&mut F, See<'_>),
) {
    match step {
        Step::Done { value, took: _ } => done(value, see),
        Step::Failed { fault, took: _ } => failed(fault, see),
        Step::Skipped { reason: _ } => {}
    }
}

fn maybe(source: Source, text: &mut Option<String>, see: See<'_>) {
    if let Some(text) = text {
        see(source, text);
    }
}

fn all(source: Source, texts: &mut [String], see: See<'_>) {
    for text in texts {
        see(source, text);
    }
}

/// The host of a server: the registry's own as well, because a redirect may take its place.
fn endpoint(server: &mut Endpoint, see: See<'_>) {
    let Endpoint {
        scheme: _,
        host,
        port: _,
    } = server;
    match host {
        Host::Name(name) => see(Source::Host, name),
        Host::Address(_) => {}
    }
}
