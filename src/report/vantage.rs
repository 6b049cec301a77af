//! What a place looks like: `pullpath vantage`.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Ink, Page, Style, by_scheme, measured};
use super::{SCHEMA_VERSION, Tool, said};
use crate::model::fault::{instant, show_server};
use crate::model::network::{EgressTrial, Link, Metadata, Route};
use crate::model::proxy::ProxySettings;
use crate::model::step::Step;
use crate::model::text::joined;
use crate::model::units::HumanDuration;
use crate::model::vantage::{NetworkView, NodeFacts, Vantage};

/// What `vantage -o json` prints.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath vantage")]
pub struct VantageDocument {
    pub schema_version: u32,
    pub pullpath: Tool,
    pub vantage: Vantage,
    pub proxies: ProxySettings,
}

impl VantageDocument {
    pub fn new(vantage: Vantage, proxies: ProxySettings) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            vantage,
            proxies,
        }
    }
}

/// For a terminal.
pub fn render(document: &VantageDocument, style: Style) -> String {
    let mut page = Page::new(style);
    let vantage = &document.vantage;
    page.entry("network", view(vantage.network));
    let provider = vantage.provider.as_ref();
    let provider = provider.map_or_else(|| "not known".to_owned(), ToString::to_string);
    page.entry("provider", &provider);
    if let Some(facts) = &vantage.node {
        page.entry("node", &node(facts));
    }
    let links = vantage.links.iter();
    for link in links.filter(|link| !link.addresses.is_empty()) {
        page.entry("device", &device(link));
    }
    for line in &routes(&vantage.routes) {
        page.entry("route", line);
    }
    let servers = joined(vantage.nameservers.iter().map(|s| show_server(*s)));
    let resolver = format!("{servers}, by {}", vantage.resolver_source);
    page.entry("resolver", &resolver);
    page.entry("proxy", &proxies(&document.proxies));
    page.entry("metadata", &metadata(&vantage.metadata));
    for claim in claims(vantage) {
        page.entry("claim", &claim);
    }
    for trial in &vantage.egress {
        page.entry("egress", &egress(trial));
    }
    page.others(vantage);
    for mapped in &vantage.declared.cidrs {
        let name = mapped.name.as_deref().unwrap_or_default();
        let text = format!("{} is {}  {name}", mapped.cidr, mapped.class.as_str());
        page.entry("declared", &text);
    }
    if !vantage.missing.is_empty() {
        page.section(
            "signs of a path's class that were not seen, which is no evidence that they are not there",
        );
        for missing in &vantage.missing {
            page.item(&format!("{}: {}", missing.signal.as_str(), missing.reason));
            let text = format!("would have told {}", missing.would_show);
            page.hanging("    ", 6, &text);
        }
    }
    if !vantage.not_observed.is_empty() {
        page.line("");
        page.unseen(vantage);
    }
    if let Some(took) = vantage.took {
        page.line("");
        page.line(&format!("looked around in {}", HumanDuration(took)));
    }
    page.out
}

impl Page {
    /// What a pull may depend on and is not seen here.
    pub(super) fn unseen(&mut self, vantage: &Vantage) {
        if vantage.not_observed.is_empty() {
            return;
        }
        self.heading("not seen from here");
        for what in &vantage.not_observed {
            self.item(what.describe());
            for reason in vantage.reasons(*what) {
                self.prose("    ", reason);
            }
        }
    }

    /// Destinations that were tried for comparison.
    fn others(&mut self, vantage: &Vantage) {
        if let Some(baseline) = &vantage.baseline {
            let seen = match &baseline.outcome {
                Step::Done { value, .. } => measured(value),
                Step::Failed { fault, .. } => format!(": {fault}"),
                Step::Skipped { .. } => String::new(),
            };
            let (what, to) = (baseline.what.describe(), baseline.to);
            self.entry("baseline", &format!("{what} {to}{seen}"));
        }
        for control in &vantage.controls {
            if let Some(reason) = &control.unresolved {
                self.entry("control", &format!("{}: {reason}", control.host));
            }
            for dial in &control.attempts {
                let (host, to) = (&control.host, dial.to);
                let text = match &dial.outcome {
                    Step::Done { took, .. } => {
                        format!("{host} is reached at {to} in {}", HumanDuration(*took))
                    }
                    Step::Failed { fault, .. } => format!("{host} at {to}: {fault}"),
                    Step::Skipped { .. } => host.clone(),
                };
                self.entry("control", &text);
            }
        }
    }

    fn entry(&mut self, name: &str, text: &str) {
        let name = self.style.paint(Ink::Bold, &format!("{name:<8}"));
        self.hanging(&format!("{name}  "), 10, text);
    }
}

fn view(network: NetworkView) -> &'static str {
    match network {
        NetworkView::Machine => "this machine's own; in no pod, as far as the environment tells",
        NetworkView::Node => "the node's: a pod with hostNetwork",
        NetworkView::Pod => {
            "a pod's own, which is not the one the kubelet pulls by (but on Autopilot)"
        }
        NetworkView::PodOrNode => {
            "a pod's or its node's; HOST_IP and POD_IP from the downward API would tell which"
        }
    }
}

fn node(node: &NodeFacts) -> String {
    let mut parts = vec![node.name.clone()];
    parts.extend(node.created.map(|at| format!("created {}", instant(at))));
    if node.unschedulable {
        parts.push("cordoned".to_owned());
    }
    match node.ready {
        Some(true) => {}
        Some(false) => parts.push("not ready".to_owned()),
        None => parts.push("its kubelet is not heard of".to_owned()),
    }
    parts.extend(node.zone.as_ref().map(|zone| format!("zone {zone}")));
    parts.extend(node.runtime.clone());
    let kubelet = node.kubelet.as_ref();
    parts.extend(kubelet.map(|version| format!("kubelet {version}")));
    parts.extend(node.os_image.clone());
    format!("{}, by {}", parts.join(", "), node.source)
}

fn device(link: &Link) -> String {
    let kind = said(link.kind.as_ref(), |kind| format!(" ({kind})"));
    let addresses = joined(&link.addresses);
    let mtu = said(link.mtu, |mtu| format!(", MTU {mtu}"));
    let down = if link.is_up { "" } else { ", down" };
    format!("{}{kind}: {addresses}{mtu}{down}", link.name)
}

/// Those by a gateway; how many there are besides.
fn routes(routes: &[Route]) -> Vec<String> {
    let (by_gateway, others): (Vec<&Route>, Vec<&Route>) =
        routes.iter().partition(|route| route.gateway.is_some());
    let mut lines: Vec<String> = by_gateway
        .iter()
        .take(MAX_SHOWN)
        .map(|route| {
            let to = match route.destination.prefix_len() {
                0 => "default".to_owned(),
                _ => route.destination.to_string(),
            };
            let gateway = said(route.gateway, |gateway| format!(" via {gateway}"));
            let device = said(route.device.as_ref(), |device| format!(" dev {device}"));
            format!("{to}{gateway}{device}")
        })
        .collect();
    let more = others.len() + by_gateway.len().saturating_sub(MAX_SHOWN);
    if more > 0 {
        lines.push(format!("and {more} more (-o json has them)"));
    }
    lines
}

/// Of routes by gateways, as many as a person reads.
const MAX_SHOWN: usize = 8;

fn proxies(settings: &ProxySettings) -> String {
    if settings.https.is_none() && settings.http.is_none() {
        return format!("none, by {}", settings.source);
    }
    format!("{}, by {}", by_scheme(settings), settings.source)
}

fn metadata(metadata: &Metadata) -> String {
    match metadata {
        Metadata::NotRequested { .. } => "not asked".to_owned(),
        Metadata::NoAnswer { fault, .. } => format!("no answer: {fault}"),
        Metadata::Answered { facts, took } => {
            let mut text = facts.provider.describe().to_owned();
            text += &said(facts.vpc_id.as_ref(), |id| format!(", VPC {id}"));
            for (what, nets) in [("VPC", &facts.vpc_cidrs), ("subnet", &facts.subnet_cidrs)] {
                if !nets.is_empty() {
                    let _ = write!(text, ", {what} {}", joined(nets));
                }
            }
            let public = match facts.public.as_deref() {
                None => ", no word on a public address".to_owned(),
                Some([]) => ", no public address".to_owned(),
                Some(public) => format!(", public {}", joined(public)),
            };
            let most = said(facts.max_bandwidth_mbit, |max| {
                format!(", at most {max} Mbit/s")
            });
            format!("{text}{public}{most}, in {}", HumanDuration(*took))
        }
    }
}

fn claims(vantage: &Vantage) -> Vec<String> {
    let mut claims = Vec::new();
    if let Some(eip) = &vantage.pod_eip {
        let text = match (eip.allocated, eip.wanted) {
            (Some(address), _) => format!("the pod's EIP is {address}"),
            (None, Some(true)) => "the pod asks for an EIP and has none yet".to_owned(),
            (None, Some(false)) => "the pod asks for no EIP".to_owned(),
            (None, None) => "no EIP of the pod is told".to_owned(),
        };
        let bandwidth = said(eip.bandwidth_mbit, |mbit| format!(" of {mbit} Mbit/s"));
        let problem = said(eip.problem.as_ref(), |problem| format!(" ({problem})"));
        claims.push(format!("{text}{bandwidth}, by {}{problem}", eip.source));
    }
    for address in &vantage.node_external_ips {
        let node = vantage.node.as_ref();
        let node = node.filter(|node| node.external_ips.contains(address));
        let by = said(node, |node| format!(", by {}", node.source));
        claims.push(format!("the node's ExternalIP is {address}{by}"));
    }
    claims
}

fn egress(trial: &EgressTrial) -> String {
    let by = format!("by {} of {}", trial.method.as_str(), trial.server);
    match &trial.outcome {
        Step::Done { value, took } => {
            let mut text = value.address.to_string();
            if let (Some(port), Some(local)) = (value.port, value.local) {
                let _ = write!(text, " port {port}, here {local}");
            }
            format!("{text}, {by} in {}", HumanDuration(*took))
        }
        Step::Failed { fault, .. } => format!("not told {by}: {fault}"),
        Step::Skipped { .. } => by,
    }
}
