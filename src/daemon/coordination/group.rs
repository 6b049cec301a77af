//! Egress groups: nodes that share a path, and so a Lease. Pure.

use std::collections::BTreeSet;

use super::slots::{Rule, VERSION};
use crate::daemon::schedule::clock::hash;
use crate::daemon::store::summary::PathSummary;
use crate::diagnose::level::Confidence;
use crate::model::credential::{CredentialId, CredentialSource};
use crate::model::endpoint::Role;
use crate::model::network::EgressTrial;
use crate::model::path::PathClass;
use crate::model::resolve::Family;
use crate::model::vantage::Vantage;

/// Nodes that share a Lease: their tests are counted together, and run one at a time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaseGroup {
    /// The name of their Lease.
    pub lease: String,
    /// No other node can be in the group, so no request is sent.
    pub is_alone: bool,
}

/// What nodes have in common that pull over the same path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EgressGroup {
    /// A private path, from this subnet or zone.
    Private(Option<String>),
    /// An EIP (Elastic IP), or a public address of its own.
    Own,
    /// These addresses of NAT gateways, sorted.
    Shared(Vec<String>),
    /// Unknown. All nodes whose egress is unknown are one group.
    Unknown,
}

impl LeaseGroup {
    /// Nodes that pull layers of a registry over the same path. The length of the epoch is part of the name, because
    /// notes with epochs of different lengths can't be compared.
    pub fn of_path(registry: &str, egress: &EgressGroup, rule: &Rule) -> Self {
        let (kind, of) = match egress {
            EgressGroup::Private(zone) => ("private", zone.clone().unwrap_or_default()),
            EgressGroup::Own => ("own", String::new()),
            EgressGroup::Shared(addresses) => ("shared", addresses.join(" ")),
            EgressGroup::Unknown => ("unknown", String::new()),
        };
        let length = rule.epoch.as_secs().to_string();
        let name = hash(&[VERSION, "transfer", registry, kind, &of, &length]);
        Self {
            lease: format!("pullpath-transfer-{name:016x}"),
            is_alone: *egress == EgressGroup::Own,
        }
    }

    /// Nodes that have the same credential for a registry, identified by its source. Its content is not part of the
    /// name: a hash of it in a Lease could be tested against lists of passwords.
    pub fn of_credential(registry: &str, id: &CredentialId) -> Self {
        let (kind, [first, second]): (_, [&str; 2]) = match &id.source {
            CredentialSource::SecretFile {
                path,
                namespace,
                name,
            } => match namespace {
                Some(namespace) => ("secret", [namespace, name]),
                None => ("file", [path, name]),
            },
            CredentialSource::PasswordFile { path }
            | CredentialSource::DockerConfig { path }
            | CredentialSource::NodeConfig { path }
            | CredentialSource::RuntimeConfig { path }
            | CredentialSource::NodeProvider { path, .. }
            | CredentialSource::Helper { path, .. } => ("file", [path, ""]),
            CredentialSource::CommandLine => ("command line", ["", ""]),
        };
        let parts = [
            VERSION,
            "credential",
            registry,
            kind,
            first,
            second,
            &id.key,
        ];
        Self {
            lease: format!("pullpath-credential-{:016x}", hash(&parts)),
            is_alone: false,
        }
    }
}

/// The egress group of layers, or else of the registry; `None`: the path of neither is known.
pub fn egress(paths: &[PathSummary], vantage: Option<&Vantage>) -> Option<EgressGroup> {
    let known = |role| {
        let mut paths = paths.iter();
        paths.find(move |path| path.leg == role && path.class.is_some())
    };
    let path = known(Role::Blob).or_else(|| known(Role::Registry))?;
    Some(egress_of(path, vantage))
}

fn egress_of(path: &PathSummary, vantage: Option<&Vantage>) -> EgressGroup {
    let class = match path.class {
        None | Some(PathClass::Mixed) => return EgressGroup::Unknown,
        Some(class) if !class.is_public() => {
            return EgressGroup::Private(vantage.and_then(subnet_or_zone));
        }
        Some(class) => class,
    };
    let is_own = matches!(class, PathClass::PublicEip | PathClass::PublicDirect);
    // If a NAT gateway were mistaken for an EIP, all nodes would test it.
    if is_own && path.confidence == Confidence::High {
        return EgressGroup::Own;
    }
    let Some(vantage) = vantage else {
        return EgressGroup::Unknown;
    };
    let declared = &vantage.declared.snat_addresses;
    if class == PathClass::PublicSnat && !declared.is_empty() {
        let all: BTreeSet<String> = declared.iter().map(ToString::to_string).collect();
        return EgressGroup::Shared(Vec::from_iter(all));
    }
    let families: Vec<Family> = path.addresses.iter().map(|at| Family::of(*at)).collect();
    let observed = vantage.egress.iter().filter_map(EgressTrial::seen);
    let observed = observed.filter(|egress| families.contains(&egress.family()));
    let all: BTreeSet<String> = observed.map(|egress| egress.address.to_string()).collect();
    // With several addresses, the observed one changes from time to time, and the group would change with it.
    match all.len() {
        1 => EgressGroup::Shared(Vec::from_iter(all)),
        _ => EgressGroup::Unknown,
    }
}

/// The subnet from the metadata service, or else the node's zone.
fn subnet_or_zone(vantage: &Vantage) -> Option<String> {
    let facts = vantage.metadata.facts();
    let cidrs = facts.map_or(&[][..], |facts| &facts.subnet_cidrs);
    if cidrs.is_empty() {
        return vantage.node.as_ref()?.zone.clone();
    }
    let mut all: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
    all.sort_unstable();
    Some(all.join(" "))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;
    use crate::model::network::{EgressMethod, Metadata, MetadataFacts, ObservedEgress, Provider};
    use crate::model::step::Step;
    use crate::model::vantage::{NetworkView, NodeFacts};

    fn path(leg: Role, class: Option<PathClass>, confidence: Confidence) -> PathSummary {
        PathSummary {
            leg,
            class,
            confidence,
            addresses: vec!["198.51.100.7".parse().unwrap()],
            server: "r.test".to_owned(),
        }
    }

    fn vantage(seen: &[&str], declared: &[&str]) -> Vantage {
        let mut vantage = Vantage {
            network: NetworkView::Node,
            ..Vantage::default()
        };
        let address = |text: &&str| text.parse::<IpAddr>().unwrap();
        vantage.egress = seen
            .iter()
            .map(|seen| EgressTrial {
                method: EgressMethod::HttpEcho,
                server: "echo.test:443".to_owned(),
                outcome: Step::Done {
                    value: ObservedEgress {
                        address: address(seen),
                        port: None,
                        local: None,
                    },
                    took: Duration::ZERO,
                },
            })
            .collect();
        vantage.declared.snat_addresses = declared.iter().map(address).collect();
        vantage
    }

    #[test]
    fn what_is_not_known_is_shared_with_all_who_do_not_know_it() {
        use Confidence::{High, Medium};
        let nat = |all: &[&str]| EgressGroup::Shared(all.iter().map(ToString::to_string).collect());
        let (one, two) = ("192.0.2.1", "192.0.2.2");
        for (class, confidence, seen, declared, expected) in [
            (
                PathClass::Intranet,
                High,
                vec![one],
                vec![],
                EgressGroup::Private(None),
            ),
            (
                PathClass::VpcPeering,
                High,
                vec![],
                vec![],
                EgressGroup::Private(None),
            ),
            (
                PathClass::PublicEip,
                High,
                vec![one],
                vec![],
                EgressGroup::Own,
            ),
            (
                PathClass::PublicDirect,
                High,
                vec![],
                vec![],
                EgressGroup::Own,
            ),
            (PathClass::PublicEip, Medium, vec![one], vec![], nat(&[one])),
            (
                PathClass::PublicEip,
                Medium,
                vec![],
                vec![],
                EgressGroup::Unknown,
            ),
            (
                PathClass::PublicSnat,
                High,
                vec![one, one],
                vec![],
                nat(&[one]),
            ),
            (
                PathClass::PublicSnat,
                High,
                vec![two, one],
                vec![],
                EgressGroup::Unknown,
            ),
            (
                PathClass::PublicSnat,
                High,
                vec![one],
                vec![two, one],
                nat(&[one, two]),
            ),
            // Of another family than the registry.
            (
                PathClass::PublicSnat,
                High,
                vec!["2001:db8::1"],
                vec![],
                EgressGroup::Unknown,
            ),
            (
                PathClass::PublicUnknown,
                Medium,
                vec![one],
                vec![two],
                nat(&[one]),
            ),
            (
                PathClass::Mixed,
                High,
                vec![one],
                vec![],
                EgressGroup::Unknown,
            ),
        ] {
            let paths = [path(Role::Registry, Some(class), confidence)];
            let egress = egress(&paths, Some(&vantage(&seen, &declared))).unwrap();
            assert_eq!(egress, expected, "{class:?} {seen:?} {declared:?}");
        }
        let paths = [path(Role::Registry, Some(PathClass::PublicSnat), High)];
        assert_eq!(egress(&paths, None), Some(EgressGroup::Unknown));
    }

    #[test]
    fn the_subnet_counts_and_where_it_is_not_reported_the_zone() {
        let paths = [path(
            Role::Registry,
            Some(PathClass::Intranet),
            Confidence::High,
        )];
        let place = |vantage: &Vantage| match egress(&paths, Some(vantage)) {
            Some(EgressGroup::Private(place)) => place,
            other => panic!("{other:?}"),
        };
        let mut vantage = vantage(&[], &[]);
        assert_eq!(place(&vantage), None);
        vantage.node = Some(NodeFacts {
            name: "n1".to_owned(),
            created: None,
            ready: None,
            unschedulable: false,
            provider_id: None,
            zone: Some("zone-a".to_owned()),
            internal_ips: Vec::new(),
            external_ips: Vec::new(),
            runtime: None,
            kubelet: None,
            os_image: None,
            source: "a test".to_owned(),
        });
        assert_eq!(place(&vantage).as_deref(), Some("zone-a"));
        vantage.metadata = Metadata::Answered {
            facts: MetadataFacts {
                provider: Provider::Huawei,
                vpc_id: None,
                vpc_cidrs: Vec::new(),
                subnet_cidrs: ["10.0.1.0/24", "10.0.0.0/24"]
                    .map(|cidr| cidr.parse().unwrap())
                    .to_vec(),
                private: Vec::new(),
                public: None,
                max_bandwidth_mbit: None,
            },
            took: Duration::ZERO,
        };
        assert_eq!(place(&vantage).as_deref(), Some("10.0.0.0/24 10.0.1.0/24"));
    }

    #[test]
    fn the_leg_of_layers_counts_where_it_is_known() {
        use Confidence::High;
        let registry = path(Role::Registry, Some(PathClass::Intranet), High);
        let blob = path(Role::Blob, Some(PathClass::PublicDirect), High);
        let unknown = path(Role::Blob, None, High);
        let egress = |paths: &[PathSummary]| egress(paths, None);
        assert_eq!(egress(&[registry.clone(), blob]), Some(EgressGroup::Own));
        assert_eq!(
            egress(&[unknown.clone(), registry]),
            Some(EgressGroup::Private(None))
        );
        assert_eq!(egress(&[unknown]), None);
        assert_eq!(egress(&[]), None);
    }

    /// Other nodes run other versions, so these hashes must not change without another `VERSION`.
    #[test]
    fn what_shares_a_registry_and_an_egress_shares_a_lease() {
        let rule = |hours| Rule {
            epoch: Duration::from_hours(hours),
            nodes: 2,
        };
        let of =
            |registry: &str, egress: EgressGroup| LeaseGroup::of_path(registry, &egress, &rule(5));
        let nat = || EgressGroup::Shared(vec!["192.0.2.1".to_owned()]);
        let one = of("r.test", nat());
        assert_eq!(one.lease, "pullpath-transfer-fb12e99576328e5c");
        assert_eq!(of("r.test", nat()), one);
        for other in [
            of("s.test", nat()),
            of("r.test", EgressGroup::Unknown),
            of("r.test", EgressGroup::Private(None)),
            of(
                "r.test",
                EgressGroup::Private(Some("10.0.0.0/24".to_owned())),
            ),
            LeaseGroup::of_path("r.test", &nat(), &rule(6)),
        ] {
            assert_ne!(one.lease, other.lease);
            assert!(!other.is_alone);
        }
        assert!(of("r.test", EgressGroup::Own).is_alone);
        let id = CredentialId {
            source: CredentialSource::SecretFile {
                path: "the cluster".to_owned(),
                namespace: Some("shop".to_owned()),
                name: "pull".to_owned(),
            },
            key: "r.test".to_owned(),
        };
        let group = LeaseGroup::of_credential("r.test", &id);
        assert_eq!(group.lease, "pullpath-credential-a650e1b18ec4b81c");
    }
}
