//! Evidence for the tests of the rules: a healthy check over three legs, and the parts to spoil it.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::model::connect::{
    Certificate, Connect, Connected, Connection, Dial, Roots, Session, Tls,
};
use crate::model::credential::{CredentialId, CredentialSource, KeyringEvidence, SourceEvidence};
use crate::model::endpoint::{Endpoint, Host, Role, Scheme};
use crate::model::evidence::{
    Access, Attempt, BlobFound, Challenge, ClockCheck, Evidence, Grant, HeadResponse, Layer, Leg,
    ManifestFound, Ping, TokenExchange, Walk,
};
use crate::model::fault::{
    DnsFault, HttpFault, ManifestFault, Phase, TcpFault, TlsFault, TokenFault,
};
use crate::model::hosts::{HostsConfig, RegistryHost};
use crate::model::network::{MappedCidr, MappedClass};
use crate::model::proxy::{ProxyRoute, ProxySettings};
use crate::model::resolve::{
    AddressRecord, Answer, Family, Query, Resolution, ResolutionSource, Resolve,
};
use crate::model::step::{Skip, Step};
use crate::model::units::Bytes;
use crate::model::vantage::{NetworkView, NotObserved, Vantage};

pub(super) const REGISTRY: &str = "registry.example.com";
pub(super) const AUTH: &str = "auth.example.com";
pub(super) const BLOBS: &str = "blobs.example.net";
const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

pub(super) fn now() -> Timestamp {
    "2026-11-23T01:40:12Z".parse().unwrap()
}

pub(super) fn days_from_now(days: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * days)
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn done<T, F>(value: T) -> Step<T, F> {
    Step::Done {
        value,
        took: ms(12),
    }
}

pub(super) fn failed<T, F>(fault: F) -> Step<T, F> {
    Step::Failed {
        fault,
        took: Duration::from_secs(5),
    }
}

pub(super) fn blocked<T, F>(role: Role, phase: Phase) -> Step<T, F> {
    Step::Skipped {
        reason: Skip::Blocked { role, phase },
    }
}

pub(super) fn server(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 53))
}

pub(super) fn endpoint(host: &str) -> Endpoint {
    Endpoint {
        scheme: Scheme::Https,
        host: Host::new(host),
        port: 443,
    }
}

/// The answer of a name server (10.0.0.`last`) for a name and family.
pub(super) fn query(
    last: u8,
    name: &str,
    family: Family,
    said: Result<&[&str], DnsFault>,
) -> Query {
    let outcome = match said {
        Ok(addresses) => done(Answer {
            records: addresses
                .iter()
                .map(|a| AddressRecord {
                    address: a.parse().unwrap(),
                    ttl_seconds: 60,
                })
                .collect(),
            cnames: Vec::new(),
        }),
        Err(fault) => failed(fault),
    };
    Query {
        server: server(last),
        name: format!("{name}."),
        family,
        tcp: false,
        truncated_after: None,
        large_answer_bytes: None,
        negative: None,
        outcome,
    }
}

/// A name that resolved to these addresses, from 10.0.0.2.
pub(super) fn resolved(name: &str, addresses: &[&str]) -> Resolve {
    let of = |family: Family| -> Vec<&str> {
        addresses
            .iter()
            .copied()
            .filter(|a| Family::of(a.parse().unwrap()) == family)
            .collect()
    };
    let queries = [Family::V4, Family::V6]
        .into_iter()
        .map(|family| {
            let addresses = of(family);
            query(
                2,
                name,
                family,
                if addresses.is_empty() {
                    Err(DnsFault::NoData)
                } else {
                    Ok(&addresses)
                },
            )
        })
        .collect();
    Resolve {
        beyond: Vec::new(),
        queries,
        sends_edns: None,
        edns_trials: Vec::new(),
        without_edns: None,
        outcome: done(Resolution {
            name: format!("{name}."),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            cnames: Vec::new(),
            source: ResolutionSource::Server { server: server(2) },
        }),
    }
}

pub(super) fn dial(address: &str, fault: Option<TcpFault>) -> Dial {
    let local = if address.contains(':') {
        "[fd12::5]:40000"
    } else {
        "10.0.1.7:40000"
    };
    let outcome = match fault {
        None => done(Connection {
            local: local.parse().unwrap(),
            rtt: Some(ms(3)),
            send_mss: Some(1448),
            syn_retransmits: Some(0),
        }),
        Some(fault) => failed(fault),
    };
    Dial {
        to: SocketAddr::new(address.parse().unwrap(), 443),
        outcome,
    }
}

/// Attempts in their order, and the resulting connection.
pub(super) fn dialed(attempts: Vec<Dial>) -> Connect {
    let good = attempts
        .iter()
        .position(|dial| dial.outcome.done().is_some());
    let outcome = match good {
        Some(index) => done(Connected {
            to: attempts[index].to,
            fallback: (index > 0).then(|| ms(300)),
        }),
        None => failed(attempts[0].outcome.fault().unwrap().clone()),
    };
    Connect {
        attempts,
        not_tried: 0,
        outcome,
    }
}

pub(super) fn certificate(name: &str, not_before: Timestamp, not_after: Timestamp) -> Certificate {
    Certificate {
        subject: format!("CN={name}"),
        issuer: "CN=Example CA".to_owned(),
        names: vec![name.to_owned()],
        not_before,
        not_after,
        sha256: "ab".repeat(32),
        issuer_at: Vec::new(),
    }
}

pub(super) fn secured(name: &str) -> Tls {
    let session = Session {
        protocol: "TLSv1.3".to_owned(),
        cipher_suite: "TLS13_AES_128_GCM_SHA256".to_owned(),
        key_exchange: Some("X25519".to_owned()),
        alpn: None,
    };
    Tls {
        chain: vec![certificate(name, days_from_now(-30), days_from_now(60))],
        outcome: done(session),
        ..Tls::default()
    }
}

/// A server whose `Date` is so many seconds ahead of the local clock.
#[expect(clippy::unnecessary_wraps, reason = "as the field of a leg has it")]
pub(super) fn clock(ahead: i64) -> Option<ClockCheck> {
    Some(ClockCheck {
        server: now() + SignedDuration::from_secs(ahead),
        local: now(),
    })
}

pub(super) fn leg(role: Role, host: &str, address: &str) -> Leg {
    Leg {
        role,
        endpoint: endpoint(host),
        proxy_route: ProxyRoute::Direct,
        proxy_tls: None,
        tunnel: None,
        resolve: resolved(host, &[address]),
        pin_trial: None,
        connect: dialed(vec![dial(address, None)]),
        tls: secured(host),
        clock: clock(0),
        routes: Vec::new(),
        transport: None,
        reverse_path: None,
        nat64: None,
        hops: None,
        large_hello: None,
        other_addresses: Vec::new(),
    }
}

pub(super) fn secret(name: &str) -> CredentialSource {
    CredentialSource::SecretFile {
        path: "secret.yaml".to_owned(),
        namespace: Some("shop".to_owned()),
        name: name.to_owned(),
    }
}

pub(super) fn credential(key: &str) -> CredentialId {
    CredentialId {
        source: secret("regcred"),
        key: key.to_owned(),
    }
}

pub(super) fn status(status: u16, code: Option<&str>, challenged: bool) -> HttpFault {
    HttpFault::Status {
        status,
        code: code.map(str::to_owned),
        message: None,
        retry_after: None,
        challenged,
        authorized: false,
    }
}

pub(super) fn grant(access: Access) -> Step<Grant, TokenFault> {
    done(Grant {
        expires_in_seconds: Some(300),
        access,
    })
}

fn head() -> HeadResponse {
    HeadResponse {
        digest: Some(DIGEST.to_owned()),
        media_type: Some("application/vnd.oci.image.index.v1+json".to_owned()),
        size: Some(Bytes(1200)),
        used_get: false,
        digest_of_encoded: None,
    }
}

pub(super) fn accepted(credential: Option<CredentialId>) -> Attempt {
    Attempt {
        token: grant(Access::Pull),
        exchanges: vec![TokenExchange {
            method: if credential.is_some() { "POST" } else { "GET" }.to_owned(),
            authenticated: credential.is_some(),
            outcome: done(200),
        }],
        credential,
        head: done(head()),
        ..Attempt::default()
    }
}

fn found() -> ManifestFound {
    ManifestFound {
        config: None,
        not_an_image: false,
        digest: DIGEST.to_owned(),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        platform_digest: DIGEST.to_owned(),
        platforms: vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()],
        platforms_left_out: 0,
        layers_left_out: 0,
        layers: vec![Layer {
            digest: DIGEST.to_owned(),
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            size: Bytes(3 << 20),
        }],
        layers_size: Bytes(3 << 20),
        fetched: 2,
    }
}

/// The VPC is declared, and so are the documentation's addresses that stand for public ones.
fn mapped(mut vantage: Vantage) -> Vantage {
    let cidr = |net: &str, class| MappedCidr {
        cidr: net.parse().unwrap(),
        class,
        name: None,
    };
    vantage.declared.cidrs = vec![
        cidr("10.0.0.0/16", MappedClass::Intranet),
        cidr("203.0.113.0/24", MappedClass::Public),
        cidr("198.51.100.0/24", MappedClass::Public),
        cidr("2001:db8::/32", MappedClass::Public),
    ];
    vantage
}

/// A private image behind a token service and a storage host, pulled with the right secret, seen
/// from the node's own network.
pub(super) fn healthy() -> Evidence {
    let id = credential(REGISTRY);
    Evidence {
        reference: format!("{REGISTRY}/team/app:1.0").parse().unwrap(),
        platform: "linux/amd64".parse().unwrap(),
        started: now(),
        vantage: mapped(Vantage {
            network: NetworkView::Node,
            nameservers: vec![server(2)],
            resolver_source: "resolv.conf".to_owned(),
            resolver_emulated: "go".to_owned(),
            not_observed: vec![
                NotObserved::NodeCredentials,
                NotObserved::Mirrors,
                NotObserved::Proxy,
            ],
            ..Vantage::default()
        }),
        pods: Vec::new(),
        present_for: None,
        requested_secrets: Vec::new(),
        kubelet: Some("v1.30.4".parse().unwrap()),
        hosts: HostsConfig::Unread,
        proxies: ProxySettings::default(),
        others: Vec::new(),
        not_contacted: Vec::new(),
        upstream: None,
        direct: None,
        trace: Vec::new(),
        keyring: KeyringEvidence {
            sources: vec![SourceEvidence {
                at_usual_path: false,
                source: secret("regcred"),
                keys: 1,
                server_keys: Vec::new(),
                lint: Vec::new(),
                expiries: Vec::new(),
                problem: None,
            }],
            candidates: vec![id.clone()],
            mismatches: Vec::new(),
        },
        runtime: None,
        assumed_release: None,
        pulled: None,
        own_limits: Vec::new(),
        by_release: Vec::new(),
        walk: Walk {
            config: None,
            layers: Vec::new(),
            resolved_by_other_host: false,
            host: RegistryHost::plain(endpoint(REGISTRY)),
            segments: None,
            by_digest: false,
            roots: Roots {
                certificates: 140,
                sources: vec!["ca-certificates.crt".to_owned()],
                problems: Vec::new(),
                changed: Vec::new(),
            },
            legs: vec![
                leg(Role::Registry, REGISTRY, "10.0.3.9"),
                leg(Role::Token, AUTH, "10.0.3.10"),
                leg(Role::Blob, BLOBS, "203.0.113.9"),
            ],
            ping: done(Ping {
                status: 401,
                challenge: Challenge::Bearer {
                    realm: endpoint(AUTH),
                    service: Some(REGISTRY.to_owned()),
                    scope: None,
                },
                api_version: Some("registry/2.0".to_owned()),
                server: None,
            }),
            attempts: vec![accepted(Some(id))],
            manifest: done(found()),
            blob: done(BlobFound {
                digest: DIGEST.to_owned(),
                redirects: vec![endpoint(BLOBS)],
                range_honoured: Some(true),
                range_refused_with: None,
                size: Some(Bytes(3 << 20)),
                first_byte: ms(20),
            }),
            transfer: None,
            rate_limit: None,
        },
    }
}

// ---- checks that ended early, as they are recorded ----------------------------------------------

impl Evidence {
    fn index(&self, role: Role) -> usize {
        self.walk
            .legs
            .iter()
            .position(|leg| leg.role == role)
            .unwrap()
    }

    pub(super) fn leg_mut(&mut self, role: Role) -> &mut Leg {
        let index = self.index(role);
        &mut self.walk.legs[index]
    }

    /// The leg's host did not resolve, connect or get secured: nothing after it was reached.
    fn end_at(mut self, role: Role, phase: Phase) -> Self {
        let index = self.index(role);
        self.walk.legs.truncate(index + 1);
        let leg = &mut self.walk.legs[index];
        leg.clock = None;
        if phase < Phase::Connect {
            leg.connect = Connect {
                outcome: blocked(role, phase),
                ..Connect::default()
            };
        }
        if phase < Phase::Tls {
            leg.tls = Tls {
                outcome: blocked(role, phase),
                ..Tls::default()
            };
        }
        match role {
            Role::Registry => {
                self.walk.ping = blocked(role, phase);
                self.walk.attempts.clear();
                self.walk.manifest = blocked(role, phase);
            }
            Role::Token => {
                for attempt in &mut self.walk.attempts {
                    attempt.exchanges.clear();
                    attempt.token = blocked(role, phase);
                    attempt.head = blocked(role, phase);
                }
                self.walk.manifest = blocked(role, phase);
            }
            Role::Blob => {}
        }
        self.walk.blob = blocked(role, phase);
        self
    }

    pub(super) fn unresolved(mut self, role: Role, queries: Vec<Query>, fault: DnsFault) -> Self {
        self.leg_mut(role).resolve = Resolve {
            beyond: Vec::new(),
            queries,
            outcome: failed(fault),
            ..Resolve::default()
        };
        self.end_at(role, Phase::Resolve)
    }

    pub(super) fn unconnected(mut self, role: Role, attempts: Vec<Dial>) -> Self {
        self.leg_mut(role).connect = dialed(attempts);
        self.end_at(role, Phase::Connect)
    }

    pub(super) fn unsecured(mut self, role: Role, fault: TlsFault) -> Self {
        self.leg_mut(role).tls.outcome = failed(fault);
        self.end_at(role, Phase::Tls)
    }

    /// `/v2/` was not answered at all.
    pub(super) fn unanswered(mut self, fault: HttpFault) -> Self {
        self = self.end_at(Role::Registry, Phase::Ping);
        self.walk.ping = failed(fault);
        self
    }

    /// The only attempt ends with this.
    pub(super) fn refused(
        mut self,
        credential: Option<CredentialId>,
        token: Step<Grant, TokenFault>,
        head: Step<HeadResponse, HttpFault>,
    ) -> Self {
        if credential.is_none() {
            self.keyring = KeyringEvidence::default();
        }
        self.walk.attempts = vec![Attempt {
            credential,
            token,
            head,
            ..Attempt::default()
        }];
        self.walk.legs.truncate(2);
        self.walk.manifest = blocked(Role::Registry, Phase::Manifest);
        self.walk.blob = blocked(Role::Registry, Phase::Manifest);
        self
    }

    /// The registry lets the credential in and then has no manifest for it.
    pub(super) fn no_manifest(mut self, fault: ManifestFault) -> Self {
        self.walk.legs.truncate(2);
        self.walk.manifest = failed(fault);
        self.walk.blob = blocked(Role::Registry, Phase::Manifest);
        self
    }

    pub(super) fn no_blob(mut self, fault: HttpFault) -> Self {
        self.walk.blob = failed(fault);
        self
    }
}
