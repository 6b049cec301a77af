//! The result of `pullpath vantage`, as JSON and as text.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Ink, Page, Style, by_scheme, measured};
use super::{SCHEMA_VERSION, Tool, optional};
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
    /// The version of this document's fields.
    pub schema_version: u32,
    /// The program that wrote it.
    pub pullpath: Tool,
    /// What was observed from this vantage point, and what can't be.
    pub vantage: Vantage,
    /// The proxies for pulls, and their source.
    pub proxies: ProxySettings,
}

impl VantageDocument {
    /// A document of this program and the current version.
    pub fn new(vantage: Vantage, proxies: ProxySettings) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            vantage,
            proxies,
        }
    }
}

/// The text for people.
pub fn render(document: &VantageDocument, style: Style) -> String {
    let mut page = Page::new(style);
    let vantage = &document.vantage;
    page.entry("network", view(vantage.network));
    let provider = vantage.provider.as_ref();
    let provider = provider.map_or_else(|| "unknown".to_owned(), ToString::to_string);
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
    let resolver = format!("{servers}, from {}", vantage.resolver_source);
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
        page.section("evidence for path classes that was not observed, though it may exist");
        for missing in &vantage.missing {
            page.item(&format!("{}: {}", missing.signal.as_str(), missing.reason));
            let text = format!("would show {}", missing.would_show);
            page.hanging("    ", 6, &text);
        }
    }
    if !vantage.not_observed.is_empty() {
        page.line("");
        page.not_observed(vantage);
    }
    if let Some(took) = vantage.took {
        page.line("");
        page.line(&format!("observed in {}", HumanDuration(took)));
    }
    page.out
}

impl Page {
    /// What a pull may depend on and can't be observed from this vantage point.
    pub(super) fn not_observed(&mut self, vantage: &Vantage) {
        if vantage.not_observed.is_empty() {
            return;
        }
        self.heading("not observed from this vantage point");
        for what in &vantage.not_observed {
            self.item(&vantage.describe(*what));
            for reason in vantage.reasons(*what) {
                self.prose("    ", reason);
            }
        }
    }

    /// Destinations for comparison: the baseline and the controls.
    fn others(&mut self, vantage: &Vantage) {
        if let Some(baseline) = &vantage.baseline {
            let result = match &baseline.outcome {
                Step::Done { value, .. } => measured(value),
                Step::Failed { fault, .. } => format!(": {fault}"),
                Step::Skipped { .. } => String::new(),
            };
            let (what, to) = (baseline.what.describe(), baseline.to);
            self.entry("baseline", &format!("{what} {to}{result}"));
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

pub(super) fn view(network: NetworkView) -> &'static str {
    match network {
        NetworkView::Machine => "this machine's; the environment shows no sign of a pod",
        NetworkView::Node => "the node's: a pod with hostNetwork",
        NetworkView::Pod => {
            "a pod's, not the node's, which the kubelet pulls through (on Autopilot, pulls use the pod's)"
        }
        NetworkView::PodOrNode => {
            "a pod's or its node's; HOST_IP and POD_IP from the downward API would show which"
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
        None => parts.push("readiness unknown: its kubelet doesn't report".to_owned()),
    }
    parts.extend(node.zone.as_ref().map(|zone| format!("zone {zone}")));
    parts.extend(node.runtime.clone());
    let kubelet = node.kubelet.as_ref();
    parts.extend(kubelet.map(|version| format!("kubelet {version}")));
    parts.extend(node.os_image.clone());
    format!("{}, from {}", parts.join(", "), node.source)
}

fn device(link: &Link) -> String {
    let kind = optional(link.kind.as_ref(), |kind| format!(" ({kind})"));
    let addresses = joined(&link.addresses);
    let mtu = optional(link.mtu, |mtu| format!(", MTU {mtu}"));
    let down = if link.is_up { "" } else { ", down" };
    format!("{}{kind}: {addresses}{mtu}{down}", link.name)
}

/// Routes with a gateway, and the number of the others.
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
            let gateway = optional(route.gateway, |gateway| format!(" via {gateway}"));
            let device = optional(route.device.as_ref(), |device| format!(" dev {device}"));
            format!("{to}{gateway}{device}")
        })
        .collect();
    let more = others.len() + by_gateway.len().saturating_sub(MAX_SHOWN);
    if more > 0 {
        lines.push(format!("and {more} more (-o json has them)"));
    }
    lines
}

/// The maximum number of routes that are shown.
const MAX_SHOWN: usize = 8;

fn proxies(settings: &ProxySettings) -> String {
    if settings.https.is_none() && settings.http.is_none() {
        return format!("none, from {}", settings.source);
    }
    format!("{}, from {}", by_scheme(settings), settings.source)
}

fn metadata(metadata: &Metadata) -> String {
    match metadata {
        Metadata::NotRequested { .. } => "no request sent".to_owned(),
        Metadata::NoAnswer { fault, .. } => format!("no answer: {fault}"),
        Metadata::Answered { facts, took } => {
            let mut text = facts.provider.describe().to_owned();
            text += &optional(facts.vpc_id.as_ref(), |id| format!(", VPC {id}"));
            for (what, nets) in [("VPC", &facts.vpc_cidrs), ("subnet", &facts.subnet_cidrs)] {
                if !nets.is_empty() {
                    let _ = write!(text, ", {what} {}", joined(nets));
                }
            }
            let public = match facts.public.as_deref() {
                None => ", public address unknown".to_owned(),
                Some([]) => ", no public address".to_owned(),
                Some(public) => format!(", public {}", joined(public)),
            };
            let bandwidth = optional(facts.max_bandwidth_mbit, |max| {
                format!(", at most {max} Mbit/s")
            });
            format!("{text}{public}{bandwidth}, in {}", HumanDuration(*took))
        }
    }
}

fn claims(vantage: &Vantage) -> Vec<String> {
    let mut claims = Vec::new();
    if let Some(eip) = &vantage.pod_eip {
        let text = match (eip.allocated, eip.wanted) {
            (Some(address), _) => format!("the pod's EIP is {address}"),
            (None, Some(true)) => "the pod requests an EIP and has none yet".to_owned(),
            (None, Some(false)) => "the pod requests no EIP".to_owned(),
            (None, None) => "unknown whether the pod has or requests an EIP".to_owned(),
        };
        let bandwidth = optional(eip.bandwidth_mbit, |mbit| format!(" of {mbit} Mbit/s"));
        let problem = optional(eip.problem.as_ref(), |problem| format!(" ({problem})"));
        claims.push(format!("{text}{bandwidth}, from {}{problem}", eip.source));
    }
    for address in &vantage.node_external_ips {
        let node = vantage.node.as_ref();
        let node = node.filter(|node| node.external_ips.contains(address));
        let from = optional(node, |node| format!(", from {}", node.source));
        claims.push(format!("the node's ExternalIP is {address}{from}"));
    }
    claims
}

fn egress(trial: &EgressTrial) -> String {
    let from = format!("from {} of {}", trial.method.as_str(), trial.server);
    match &trial.outcome {
        Step::Done { value, took } => {
            let mut text = value.address.to_string();
            if let (Some(port), Some(local)) = (value.port, value.local) {
                let _ = write!(text, " port {port}, locally {local}");
            }
            format!("{text}, {from} in {}", HumanDuration(*took))
        }
        Step::Failed { fault, .. } => format!("no answer {from}: {fault}"),
        Step::Skipped { .. } => from,
    }
}
