//! Detects the cloud that runs the network, from firmware, the node's providerID or the name servers. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::model::network::{Provider, ProviderBy, ProviderSign};
use crate::model::text::printable;

/// Files of /sys/class/dmi/id that any user may read.
pub(super) const DMI_FIELDS: &[&str] = &[
    "chassis_asset_tag",
    "sys_vendor",
    "product_name",
    "bios_vendor",
];

/// The firmware's values in each cloud (cloud-init's ds-identify uses the same).
const DMI: &[(&str, &str, Provider)] = &[
    // These precede OpenStack's values, which such machines have in other fields.
    ("chassis_asset_tag", "HUAWEICLOUD", Provider::Huawei),
    ("chassis_asset_tag", "OpenTelekomCloud", Provider::Otc),
    (
        "chassis_asset_tag",
        "7783-7084-3265-9085-8269-3286-77",
        Provider::Azure,
    ),
    ("sys_vendor", "Amazon EC2", Provider::Aws),
    ("bios_vendor", "Amazon EC2", Provider::Aws),
    ("sys_vendor", "Alibaba Cloud", Provider::Alibaba),
    ("product_name", "Alibaba Cloud ECS", Provider::Alibaba),
    ("product_name", "Google Compute Engine", Provider::Gcp),
    ("product_name", "OpenStack Nova", Provider::Openstack),
    ("product_name", "OpenStack Compute", Provider::Openstack),
    ("chassis_asset_tag", "OpenStack Nova", Provider::Openstack),
    (
        "chassis_asset_tag",
        "OpenStack Compute",
        Provider::Openstack,
    ),
    ("sys_vendor", "OpenStack Foundation", Provider::Openstack),
];

/// Detects the cloud from firmware fields and their values.
pub(super) fn by_dmi(fields: &[(&str, String)]) -> Option<ProviderSign> {
    DMI.iter().find_map(|(field, value, provider)| {
        let (_, found) = fields
            .iter()
            .find(|(name, found)| name == field && found.trim() == *value)?;
        Some(ProviderSign {
            provider: *provider,
            by: ProviderBy::Dmi {
                field: (*field).to_owned(),
                value: printable(found.trim()),
            },
        })
    })
}

/// Detects the cloud from the node's `spec.providerID`.
pub(super) fn by_provider_id(id: &str) -> Option<ProviderSign> {
    let provider = match id.split_once("://") {
        Some(("aws", _)) => Provider::Aws,
        Some(("gce", _)) => Provider::Gcp,
        Some(("azure", _)) => Provider::Azure,
        Some(("openstack", _)) => Provider::Openstack,
        Some(("huaweicloud", _)) => Provider::Huawei,
        Some(("alicloud", _)) => Provider::Alibaba,
        Some(_) => return None,
        // Alibaba Cloud's form is REGION.INSTANCE: cn-hangzhou.i-bp1….
        None => {
            let (region, instance) = id.split_once('.')?;
            (region.contains('-') && instance.starts_with("i-")).then_some(Provider::Alibaba)?
        }
    };
    Some(ProviderSign {
        provider,
        by: ProviderBy::ProviderId,
    })
}

/// A weak sign of Huawei Cloud: the default name servers of its subnets, in 100.125.0.0/16.
pub(super) fn by_nameservers(servers: &[SocketAddr]) -> Option<ProviderSign> {
    let is_huaweis = |server: &SocketAddr| match server.ip() {
        IpAddr::V4(address) => address.octets()[..2] == [100, 125],
        IpAddr::V6(_) => false,
    };
    servers.iter().any(is_huaweis).then_some(ProviderSign {
        provider: Provider::Huawei,
        by: ProviderBy::NameServers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_names_the_cloud_and_not_what_it_is_built_with() {
        let sign = |fields: &[(&'static str, &str)]| {
            let fields: Vec<(&str, String)> = fields
                .iter()
                .map(|(name, value)| (*name, format!("{value}\n")))
                .collect();
            by_dmi(&fields).map(|sign| sign.provider)
        };
        let huawei = [
            ("sys_vendor", "OpenStack Foundation"),
            ("product_name", "OpenStack Nova"),
            ("chassis_asset_tag", "HUAWEICLOUD"),
        ];
        assert_eq!(sign(&huawei), Some(Provider::Huawei));
        assert_eq!(sign(&huawei[..2]), Some(Provider::Openstack));
        assert_eq!(sign(&[("sys_vendor", "Amazon EC2")]), Some(Provider::Aws));
        // Hyper-V on somebody's own machine.
        assert_eq!(sign(&[("sys_vendor", "Microsoft Corporation")]), None);
        assert_eq!(sign(&[]), None);
    }

    #[test]
    fn a_provider_id_is_read_by_its_scheme() {
        for (id, want) in [
            ("aws:///eu-west-1a/i-0abc", Some(Provider::Aws)),
            ("openstack:///7a", Some(Provider::Openstack)),
            ("cn-hangzhou.i-bp1abc", Some(Provider::Alibaba)),
            ("kind://docker/kind/node", None),
            ("7a1b2c3d-0000", None),
            ("", None),
        ] {
            assert_eq!(by_provider_id(id).map(|s| s.provider), want, "{id}");
        }
    }

    #[test]
    fn name_servers_give_a_hint_of_huawei_only() {
        let servers = |text: &str| vec![text.parse().unwrap()];
        assert!(by_nameservers(&servers("100.125.1.250:53")).is_some());
        assert!(by_nameservers(&servers("100.100.2.136:53")).is_none());
        assert!(by_nameservers(&[]).is_none());
    }
}
