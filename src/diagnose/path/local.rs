//! What this machine itself does with the packets of a leg, and with the answers to them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::case::is_uplink;
use crate::model::evidence::Leg;
use crate::model::fault::TcpFault;
use crate::model::network::{Link, ReversePathDrops, RouteOutcome};
use crate::model::special::is_link_local;
use crate::model::vantage::Vantage;

/// The kernel's route for an address of the leg.
pub fn route(leg: &Leg, to: IpAddr) -> Option<&RouteOutcome> {
    let mut routes = leg.routes.iter();
    let own = routes.find(|route| route.to == to.to_canonical())?;
    Some(&own.outcome)
}

/// Whether a route of this machine rejects the packets to an address: no other route is missing.
pub(super) fn is_rejected(leg: &Leg, to: IpAddr) -> bool {
    matches!(route(leg, to), Some(RouteOutcome::Denied { by, .. }) if by != "no_route")
}

/// The first address that did not answer.
fn silent(leg: &Leg) -> Option<IpAddr> {
    let mut dials = leg.connect.attempts.iter();
    let is_silent = |fault: Option<&TcpFault>| matches!(fault, Some(TcpFault::Timeout));
    let dial = dials.find(|dial| is_silent(dial.outcome.fault()))?;
    (leg.connect.outcome.fault().is_some()).then(|| dial.to.ip())
}

/// Answers that this machine's reverse path filter drops.
#[derive(Debug)]
pub struct DroppedAnswers<'a> {
    /// The server that seems to be silent.
    pub to: IpAddr,
    /// The counter.
    pub drops: &'a ReversePathDrops,
    /// The device that packets to the server leave through; `None` if unknown.
    pub leaves: Option<&'a str>,
    /// The other devices, with a strict filter.
    pub strict: Vec<&'a str>,
}

/// Whether this machine's reverse path filter drops the answers of a silent leg.
pub fn dropped_answers<'a>(vantage: &Vantage, leg: &'a Leg) -> Option<DroppedAnswers<'a>> {
    let drops = leg.reverse_path.as_ref()?;
    let to = silent(leg).filter(IpAddr::is_ipv4)?;
    let leaves = match route(leg, to) {
        Some(RouteOutcome::Unicast { device, .. }) => Some(device.as_str()),
        _ => None,
    };
    // An answer through the device that the packets leave by passes a strict filter.
    let strict = drops.strict.iter().map(String::as_str);
    let strict: Vec<&str> = strict
        .filter(|device| Some(*device) != leaves && leads_out(vantage, device))
        .collect();
    (is_beyond_the_usual(drops) && !strict.is_empty()).then_some(DroppedAnswers {
        to,
        drops,
        leaves,
        strict,
    })
}

/// Whether more was dropped than this machine drops all the time, and no more than the answers can be. A single packet
/// may be anything.
fn is_beyond_the_usual(drops: &ReversePathDrops) -> bool {
    let uptime = drops.uptime.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let (before, dropped) = (drops.before as f64, drops.dropped as f64);
    let usual = if uptime > 0.0 {
        before / uptime * drops.took.as_secs_f64()
    } else {
        before
    };
    // A SYN is sent once a second at most (tcp_syn_linear_timeouts), and a server repeats each answer as often.
    let most = 2.0 * (drops.took.as_secs_f64() + 1.0);
    drops.dropped >= 2 && dropped > 4.0 * usual && dropped <= most
}

/// Whether a device leads to other hosts: not those of containers and pods. Unknown devices count.
fn leads_out(vantage: &Vantage, device: &str) -> bool {
    let mut links = vantage.links.iter();
    let Some(link) = links.find(|link| link.name == device) else {
        return vantage.links.is_empty();
    };
    let is_network =
        |net: &IpNet| net.prefix_len() < net.max_prefix_len() && !is_link_local(net.addr());
    let is_inside = matches!(link.kind.as_deref(), Some("bridge" | "dummy" | "loopback"));
    link.addresses.iter().any(is_network) && (!is_inside || is_uplink(vantage, device))
}

/// Packets of a silent leg that leave through one interface with the address of another.
#[derive(Debug)]
pub struct ForeignSource<'a> {
    /// The server.
    pub to: IpAddr,
    /// The device that the packets leave through.
    pub device: &'a str,
    /// Its own addresses.
    pub own: Vec<IpAddr>,
    /// The source address.
    pub source: IpAddr,
    /// The device that has it.
    pub owner: &'a str,
}

/// Whether the packets of a silent leg have a source address that is not of the device they leave through.
pub fn foreign_source<'a>(vantage: &'a Vantage, leg: &'a Leg) -> Option<ForeignSource<'a>> {
    let to = silent(leg)?;
    let RouteOutcome::Unicast {
        device,
        source: Some(source),
        ..
    } = route(leg, to)?
    else {
        return None;
    };
    let links = &vantage.links;
    let has_source = |link: &&Link| link.addresses.iter().any(|net| net.addr() == *source);
    let owner = links.iter().find(has_source)?;
    let link = links.iter().find(|link| link.name == *device)?;
    let has_it = link.addresses.iter().any(|net| net.addr() == *source);
    // Addresses of lo and of dummy devices are announced by routing daemons, and a device without its own borrows one.
    let is_announced = matches!(owner.kind.as_deref(), Some("loopback" | "dummy"));
    let addresses = link.addresses.iter().map(IpNet::addr);
    let own: Vec<IpAddr> = addresses
        .filter(|one| one.is_ipv4() == source.is_ipv4() && !is_link_local(*one))
        .collect();
    (!has_it && !is_announced && !own.is_empty()).then(|| ForeignSource {
        to,
        device,
        own,
        source: *source,
        owner: &owner.name,
    })
}
