//! By which way layers come to this node, as far as nodes share it. Pure.

use super::face::PathFace;
use super::turns::{Egress, Way};
use crate::diagnose::Confidence;
use crate::model::endpoint::Role;
use crate::model::evidence::Family;
use crate::model::network::EgressTrial;
use crate::model::path::PathClass;
use crate::model::vantage::Vantage;

/// The way of layers; of the registry where that of layers is not known. `None`: neither is.
pub fn way(paths: &[PathFace], vantage: Option<&Vantage>) -> Option<Way> {
    let known = |role| {
        let mut paths = paths.iter();
        paths.find(move |path| path.leg == role && path.class.is_some())
    };
    let path = known(Role::Blob).or_else(|| known(Role::Registry))?;
    Some(Way {
        class: path.class,
        egress: egress(path, vantage),
        place: vantage.and_then(place),
    })
}

fn egress(path: &PathFace, vantage: Option<&Vantage>) -> Egress {
    let class = match path.class {
        None | Some(PathClass::Mixed) => return Egress::Unknown,
        Some(class) if !class.is_public() => return Egress::Inside,
        Some(class) => class,
    };
    let is_own = matches!(class, PathClass::PublicEip | PathClass::PublicDirect);
    // Whoever takes a NAT gateway for an EIP would test beside all the others.
    if is_own && path.confidence == Confidence::High {
        return Egress::Own;
    }
    let Some(vantage) = vantage else {
        return Egress::Unknown;
    };
    let declared = &vantage.declared.snat_addresses;
    if class == PathClass::PublicSnat && !declared.is_empty() {
        let mut all: Vec<String> = declared.iter().map(ToString::to_string).collect();
        all.sort_unstable();
        all.dedup();
        return Egress::Shared(all);
    }
    let families: Vec<Family> = path.addresses.iter().map(|at| Family::of(*at)).collect();
    let mut seen: Vec<String> = vantage
        .egress
        .iter()
        .filter_map(EgressTrial::seen)
        .filter(|seen| families.contains(&seen.family()))
        .map(|seen| seen.address.to_string())
        .collect();
    seen.sort_unstable();
    seen.dedup();
    // Of several, which one is seen changes from time to time, and with it the group would.
    match seen.len() {
        1 => Egress::Shared(seen),
        _ => Egress::Unknown,
    }
}

/// The subnet as the metadata service tells it, or else the node's zone.
fn place(vantage: &Vantage) -> Option<String> {
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
    use crate::model::evidence::Step;
    use crate::model::network::{EgressMethod, EgressSeen, Metadata, MetadataFacts, Provider};
    use crate::model::vantage::{NetworkView, NodeFacts};

    fn path(leg: Role, class: Option<PathClass>, confidence: Confidence) -> PathFace {
        PathFace {
            leg,
            class,
            confidence,
            addresses: vec!["198.51.100.7".parse().unwrap()],
            server: "r.test".to_owned(),
        }
    }

    fn vantage(seen: &[&str], declared: &[&str]) -> Vantage {
        let mut vantage = Vantage::new(NetworkView::Node, Vec::new(), String::new(), Vec::new());
        let address = |text: &&str| text.parse::<IpAddr>().unwrap();
        vantage.egress = seen
            .iter()
            .map(|seen| EgressTrial {
                method: EgressMethod::HttpEcho,
                server: "echo.test:443".to_owned(),
                outcome: Step::Done {
                    value: EgressSeen {
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
        let nat = |all: &[&str]| Egress::Shared(all.iter().map(ToString::to_string).collect());
        let (one, two) = ("192.0.2.1", "192.0.2.2");
        for (class, confidence, seen, declared, expected) in [
            (PathClass::Intranet, High, vec![one], vec![], Egress::Inside),
            (PathClass::VpcPeering, High, vec![], vec![], Egress::Inside),
            (PathClass::PublicEip, High, vec![one], vec![], Egress::Own),
            (PathClass::PublicDirect, High, vec![], vec![], Egress::Own),
            (PathClass::PublicEip, Medium, vec![one], vec![], nat(&[one])),
            (
                PathClass::PublicEip,
                Medium,
                vec![],
                vec![],
                Egress::Unknown,
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
                Egress::Unknown,
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
                Egress::Unknown,
            ),
            (
                PathClass::PublicUnknown,
                Medium,
                vec![one],
                vec![two],
                nat(&[one]),
            ),
            (PathClass::Mixed, High, vec![one], vec![], Egress::Unknown),
        ] {
            let paths = [path(Role::Registry, Some(class), confidence)];
            let way = way(&paths, Some(&vantage(&seen, &declared))).unwrap();
            assert_eq!(way.egress, expected, "{class:?} {seen:?} {declared:?}");
            assert_eq!(way.class, Some(class));
        }
        let paths = [path(Role::Registry, Some(PathClass::PublicSnat), High)];
        assert_eq!(way(&paths, None).unwrap().egress, Egress::Unknown);
    }

    #[test]
    fn the_subnet_counts_and_where_it_is_not_told_the_zone() {
        let paths = [path(
            Role::Registry,
            Some(PathClass::Intranet),
            Confidence::High,
        )];
        let place = |vantage: &Vantage| way(&paths, Some(vantage)).unwrap().place;
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
        let blob = path(Role::Blob, Some(PathClass::PublicSnat), High);
        let unknown = path(Role::Blob, None, High);
        let class = |paths: &[PathFace]| way(paths, None).map(|way| way.class);
        assert_eq!(
            class(&[registry.clone(), blob]),
            Some(Some(PathClass::PublicSnat))
        );
        assert_eq!(
            class(&[unknown.clone(), registry]),
            Some(Some(PathClass::Intranet))
        );
        assert_eq!(class(&[unknown]), None);
        assert_eq!(class(&[]), None);
    }
}
