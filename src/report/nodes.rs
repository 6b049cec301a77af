//! The result of `probe --node` and `--all-nodes`: one image checked from several nodes, with what is the same
//! everywhere, what differs, and outliers. The comparison is pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Ink, Page, Style, bracketed, count, render as render_report};
use super::{Report, SCHEMA_VERSION, Tool, few, grouped};
use crate::diagnose::level::Severity;
use crate::diagnose::path::is_private;
use crate::diagnose::path::leg_path::Reachability;
use crate::diagnose::throughput::Throughput;
use crate::diagnose::{Finding, Pull};
use crate::model::endpoint::Role;
use crate::model::units::Mbit;

/// A node is new for this long after its creation: it has pulled little, and its routes may not be complete.
const NEW_NODE: Duration = Duration::from_hours(1);

/// The minimum number of nodes for outliers: of two nodes that differ, either may be the right one.
const MIN_NODES: usize = 3;

/// A rate below this part of the median is an outlier. Noise and measurements at different times stay above
/// it; a bandwidth limit or a failing link does not.
const SLOW: f64 = 0.5;

/// What `probe --node` and `--all-nodes` print with `-o json`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath nodes")]
pub struct NodesDocument {
    /// The version of this document's fields.
    pub schema_version: u32,
    /// The program that wrote it.
    pub pullpath: Tool,
    /// When the results were complete, by the local clock; the age of nodes is relative to it.
    pub at: Timestamp,
    /// The requested nodes with their results.
    pub nodes: Vec<NodeAnswers>,
    /// Nodes without a daemon; absent without `--all-nodes`, or if nodes can't be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_daemon: Option<Vec<String>>,
    /// One for each image.
    pub comparisons: Vec<Comparison>,
}

/// The results of one node's daemon.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct NodeAnswers {
    /// The name of the node.
    pub node: String,
    /// The daemon's pod; absent if the node has no running daemon.
    pub pod: Option<String>,
    /// The daemon's version; absent if it could not be reached.
    pub version: Option<String>,
    /// When the Node object was created; absent if nodes can't be listed.
    pub created: Option<Timestamp>,
    /// The node was created less than an hour ago.
    #[serde(default)]
    pub is_new: bool,
    /// `spec.unschedulable` of the node; absent if nodes can't be listed.
    pub is_cordoned: Option<bool>,
    /// One for each image.
    pub answers: Vec<NodeAnswer>,
}

/// The result for one image: a report, or why there is none.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct NodeAnswer {
    /// The image reference, as in the report if there is one.
    pub image: String,
    /// The daemon's report; absent if it made none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// Why there is no report; absent if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<NodeFailure>,
}

/// Why there is no report from a node.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NodeFailure {
    /// The kind of the failure, for programs.
    pub kind: FailureKind,
    /// The reason in words, of the daemon or the API server where it gave one.
    pub reason: String,
}

/// Kinds of failures to get a report from a node.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The node has no daemon.
    NoDaemon,
    /// The node's daemon is not running.
    NotRunning,
    /// The API server forbids the port-forward.
    Forbidden,
    /// The port-forward reached the pod, but no process listens on the port.
    NoListener,
    /// The daemon does not check this image on demand (403).
    NotAllowed,
    /// The daemon does not know the pod (404).
    NotKnown,
    /// The daemon is busy with other checks (409), or received too many requests (429).
    Busy,
    /// No answer within the timeout (`--node-timeout`).
    Silent,
    /// Any other failure: of the port-forward, of the daemon, or an answer that can't be read.
    Failed,
}

/// One image, compared over all nodes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Comparison {
    /// The image reference as requested.
    pub image: String,
    /// The number of nodes from which a pull would succeed.
    pub would_succeed: usize,
    /// The number of nodes from which a pull would fail.
    pub would_fail: usize,
    /// The number of nodes whose report leaves it unknown.
    pub unknown: usize,
    /// The number of nodes without a report.
    pub not_answered: usize,
    /// Aspects that are the same on all nodes with a report.
    pub same: Vec<SharedAspect>,
    /// Aspects that are not, with the value of each node.
    pub differs: Vec<Difference>,
    /// Nodes that differ from the majority; none with fewer than 3 nodes.
    pub outliers: Vec<Outlier>,
    /// The median of the measured rates; absent if none was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_bytes_per_second: Option<f64>,
}

/// An aspect of a report that is compared. In JSON `leg` is the leg of `class` and `addresses`.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(tag = "aspect", content = "leg", rename_all = "snake_case")]
pub enum Aspect {
    /// Whether a pull would succeed.
    Pull,
    /// The path class of a leg, and whether the leg is reached.
    Class(Role),
    /// The addresses that the leg's name resolves to.
    Addresses(Role),
    /// The codes of the causes, without those of severity `info`.
    Findings,
    /// The download rate of layers, if a transfer test was made.
    Rate,
}

impl Aspect {
    fn heading(self) -> String {
        match self {
            Self::Pull => "pull".to_owned(),
            Self::Class(role) => role.as_str().to_owned(),
            Self::Addresses(role) => format!("{role} addresses"),
            Self::Findings => "findings".to_owned(),
            Self::Rate => "rate".to_owned(),
        }
    }
}

/// An aspect that is the same on all nodes.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SharedAspect {
    /// The aspect.
    #[serde(flatten)]
    pub aspect: Aspect,
    /// Its value, in words.
    pub value: String,
}

/// An aspect that differs between nodes.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Difference {
    /// The aspect.
    #[serde(flatten)]
    pub aspect: Aspect,
    /// The value of each node by the node's name, in words. Nodes without the aspect are missing.
    pub values: BTreeMap<String, String>,
}

/// A node whose value of an aspect differs from the majority's.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Outlier {
    /// The name of the node.
    pub node: String,
    /// The aspect.
    #[serde(flatten)]
    pub aspect: Aspect,
    /// The node's value.
    pub value: String,
    /// The value of more than half of the nodes; for a rate the median.
    pub majority: String,
    /// The number of nodes with the majority's value; for a rate the number of nodes with a rate.
    pub of: usize,
}

impl NodeAnswer {
    /// The result for `image`; if there is a report, the reference is taken from it.
    pub fn of(image: &str, answer: Result<Report, NodeFailure>) -> Self {
        let (report, failure) = match answer {
            Ok(report) => (Some(report), None),
            Err(failure) => (None, Some(failure)),
        };
        let image = report.as_ref().map_or_else(
            || image.to_owned(),
            |report| report.evidence.reference.to_string(),
        );
        Self {
            image,
            report,
            failure,
        }
    }
}

impl NodeAnswers {
    /// A node without any result yet.
    pub fn of(node: String) -> Self {
        Self {
            node,
            ..Self::default()
        }
    }

    fn marks(&self) -> String {
        let mut marks = Vec::new();
        if self.is_new {
            marks.push("new");
        }
        if self.is_cordoned == Some(true) {
            marks.push("cordoned");
        }
        bracketed(&marks)
    }
}

impl NodesDocument {
    /// Compares the results: the answers of each node are in the order of `images`.
    pub fn new(
        at: Timestamp,
        images: &[String],
        mut nodes: Vec<NodeAnswers>,
        without_daemon: Option<Vec<String>>,
    ) -> Self {
        for node in &mut nodes {
            let age = node.created.map(|created| at.duration_since(created));
            node.is_new = age
                .and_then(|age| Duration::try_from(age).ok())
                .is_some_and(|age| age < NEW_NODE);
        }
        let comparisons = images
            .iter()
            .enumerate()
            .map(|(index, image)| compare_answers(image, index, &nodes))
            .collect();
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            at,
            nodes,
            without_daemon,
            comparisons,
        }
    }

    /// The worst of all: fail before unknown before success. A node without a report is unknown.
    pub fn pull(&self) -> Pull {
        let any = |count: fn(&Comparison) -> usize| self.comparisons.iter().any(|c| count(c) > 0);
        if any(|c| c.would_fail) {
            Pull::WouldFail
        } else if any(|c| c.unknown) || any(|c| c.not_answered) || self.nodes.is_empty() {
            Pull::Unknown
        } else {
            Pull::WouldSucceed
        }
    }
}

// ---- the comparison -----------------------------------------------------------------------------

/// The compared aspects of one node's report.
#[derive(Clone, Debug)]
struct NodeObservation {
    pull: Pull,
    values: BTreeMap<Aspect, String>,
    addresses: BTreeMap<Role, BTreeSet<IpAddr>>,
    rate: Option<f64>,
}

impl NodeObservation {
    fn new(pull: Pull) -> Self {
        let word = match pull {
            Pull::WouldSucceed => "would succeed",
            Pull::WouldFail => "would FAIL",
            Pull::Unknown => "UNKNOWN",
        };
        Self {
            pull,
            values: BTreeMap::from([(Aspect::Pull, word.to_owned())]),
            addresses: BTreeMap::new(),
            rate: None,
        }
    }

    fn of(report: &Report) -> Self {
        let verdict = &report.verdict;
        let mut observed = Self::new(verdict.pull);
        for path in verdict.paths.iter().filter(|path| path.of_host.is_none()) {
            let class = path.class.map_or("no class", |class| class.as_str());
            let reached = if path.reachability == Reachability::Reachable {
                String::new()
            } else {
                format!(", {}", path.reachability.describe())
            };
            // Of several blob hosts only the first is compared.
            observed
                .values
                .entry(Aspect::Class(path.role))
                .or_insert_with(|| format!("{class}{reached}"));
        }
        for leg in &report.evidence.walk.legs {
            if let Some(found) = leg.resolve.outcome.done() {
                let addresses = observed.addresses.entry(leg.role).or_default();
                addresses.extend(found.addresses.iter().copied());
            }
        }
        let codes: BTreeSet<&str> = problems(verdict.findings.iter())
            .map(|finding| finding.cause.code())
            .collect();
        let mut codes = Vec::from_iter(codes).join(" ");
        if codes.is_empty() {
            codes.push_str("none");
        }
        observed.values.insert(Aspect::Findings, codes);
        let rate = verdict
            .throughput
            .as_ref()
            .and_then(Throughput::undisturbed);
        observed.rate = rate.map(|rate| rate.bytes_per_second);
        observed
    }
}

/// Findings of severity `warning` and `critical`.
fn problems<'a>(findings: impl Iterator<Item = &'a Finding>) -> impl Iterator<Item = &'a Finding> {
    findings.filter(|finding| finding.severity > Severity::Info)
}

/// The comparison for one of the images.
fn compare_answers(image: &str, index: usize, nodes: &[NodeAnswers]) -> Comparison {
    let observations: Vec<(&str, NodeObservation)> = nodes
        .iter()
        .filter_map(|node| {
            let report = node.answers.get(index)?.report.as_ref()?;
            Some((node.node.as_str(), NodeObservation::of(report)))
        })
        .collect();
    Comparison {
        not_answered: nodes.len() - observations.len(),
        ..compare(image, &observations)
    }
}

fn compare(image: &str, observations: &[(&str, NodeObservation)]) -> Comparison {
    let count = |pull| {
        let all = observations.iter();
        all.filter(|(_, observed)| observed.pull == pull).count()
    };
    let mut comparison = Comparison {
        image: image.to_owned(),
        would_succeed: count(Pull::WouldSucceed),
        would_fail: count(Pull::WouldFail),
        unknown: count(Pull::Unknown),
        ..Comparison::default()
    };
    comparison.words(observations);
    comparison.addresses(observations);
    comparison.rates(observations);
    comparison
        .differs
        .sort_by_key(|difference| difference.aspect);
    comparison.same.sort_by_key(|one| one.aspect);
    comparison
        .outliers
        .sort_by(|a, b| (&a.node, a.aspect).cmp(&(&b.node, b.aspect)));
    comparison
}

/// More than half of the nodes, if there are enough.
fn is_majority(count: usize, of: usize) -> bool {
    of >= MIN_NODES && count * 2 > of
}

impl Comparison {
    /// Compares the aspects whose values are words.
    fn words(&mut self, observations: &[(&str, NodeObservation)]) {
        let aspects: BTreeSet<Aspect> = observations
            .iter()
            .flat_map(|(_, observed)| observed.values.keys().copied())
            .collect();
        for aspect in aspects {
            let value = |observed: &NodeObservation| {
                let value = observed.values.get(&aspect);
                value.map_or_else(|| "not reached".to_owned(), Clone::clone)
            };
            let all = observations.iter();
            let all = all.map(|(node, observed)| (*node, value(observed)));
            let all: Vec<(&str, String)> = all.collect();
            let groups = grouped(all.iter().map(|(node, value)| (value.clone(), *node)));
            let values = all
                .into_iter()
                .map(|(node, value)| (node.to_owned(), value))
                .collect();
            self.sort_out(aspect, &groups, values, |_| true);
        }
    }

    /// Adds an aspect to `same`, or to `differs` with its outliers. `groups`: the nodes of each value;
    /// `counts`: whether a node that differs is an outlier.
    fn sort_out(
        &mut self,
        aspect: Aspect,
        groups: &[(String, Vec<&str>)],
        values: BTreeMap<String, String>,
        counts: impl Fn(&str) -> bool,
    ) {
        if let [(value, _)] = groups {
            let value = value.clone();
            self.same.push(SharedAspect { aspect, value });
            return;
        }
        let mut all = groups.iter();
        let most = all.find(|(_, nodes)| is_majority(nodes.len(), values.len()));
        if let Some((most, members)) = most {
            let others = values
                .iter()
                .filter(|(node, _)| !members.contains(&node.as_str()));
            for (node, value) in others.filter(|(node, _)| counts(node)) {
                self.outliers.push(Outlier {
                    node: node.clone(),
                    aspect,
                    value: value.clone(),
                    majority: most.clone(),
                    of: members.len(),
                });
            }
        }
        self.differs.push(Difference { aspect, values });
    }

    /// Compares addresses. Servers return several addresses in turn, so nodes that share one agree. Public
    /// addresses without a common one may be load balancing by DNS, and make no outlier.
    fn addresses(&mut self, observations: &[(&str, NodeObservation)]) {
        let roles: BTreeSet<Role> = observations
            .iter()
            .flat_map(|(_, observed)| observed.addresses.keys().copied())
            .collect();
        for role in roles {
            let of: BTreeMap<&str, &BTreeSet<IpAddr>> = observations
                .iter()
                .filter_map(|(node, observed)| Some((*node, observed.addresses.get(&role)?)))
                .collect();
            let groups = agreeing(&of);
            let mut usual = groups.iter();
            let usual = usual.find(|(_, nodes)| is_majority(nodes.len(), of.len()));
            let is_public = |all: &BTreeSet<IpAddr>| !all.iter().any(|one| is_private(*one));
            let is_usual_public = usual.is_some_and(|(all, _)| is_public(all));
            let groups = groups.into_iter().map(|(all, nodes)| (shown(&all), nodes));
            let groups: Vec<(String, Vec<&str>)> = groups.collect();
            let values = of
                .iter()
                .map(|(node, own)| ((*node).to_owned(), shown(own)));
            let aspect = Aspect::Addresses(role);
            self.sort_out(aspect, &groups, values.collect(), |node| {
                !is_usual_public || !of.get(node).is_some_and(|own| is_public(own))
            });
        }
    }

    fn rates(&mut self, observations: &[(&str, NodeObservation)]) {
        let measured: Vec<(&str, f64)> = observations
            .iter()
            .filter_map(|(node, observed)| Some((*node, observed.rate?)))
            .collect();
        if measured.is_empty() {
            return;
        }
        let mut rates: Vec<f64> = measured.iter().map(|(_, rate)| *rate).collect();
        rates.sort_by(f64::total_cmp);
        let middle = rates.len() / 2;
        let median = if rates.len() % 2 == 1 {
            rates[middle]
        } else {
            f64::midpoint(rates[middle - 1], rates[middle])
        };
        self.median_bytes_per_second = Some(median);
        if measured.len() >= MIN_NODES {
            for (node, rate) in measured.iter().filter(|(_, rate)| *rate < median * SLOW) {
                self.outliers.push(Outlier {
                    node: (*node).to_owned(),
                    aspect: Aspect::Rate,
                    value: Mbit(*rate).to_string(),
                    majority: Mbit(median).to_string(),
                    of: measured.len(),
                });
            }
        }
        self.differs.push(Difference {
            aspect: Aspect::Rate,
            values: measured
                .iter()
                .map(|(node, rate)| ((*node).to_owned(), Mbit(*rate).to_string()))
                .collect(),
        });
    }
}

/// Groups sets that share an address, directly or through other sets.
fn agreeing<'a>(
    of: &BTreeMap<&'a str, &BTreeSet<IpAddr>>,
) -> Vec<(BTreeSet<IpAddr>, Vec<&'a str>)> {
    let mut groups: Vec<(BTreeSet<IpAddr>, Vec<&str>)> = Vec::new();
    for (node, own) in of {
        let mut all: BTreeSet<IpAddr> = (*own).clone();
        let mut members = vec![*node];
        groups.retain_mut(|(addresses, nodes)| {
            let apart = addresses.is_disjoint(own);
            if !apart {
                all.append(addresses);
                members.append(nodes);
            }
            apart
        });
        groups.push((all, members));
    }
    groups
}

/// The maximum number of addresses that are shown for a node.
const MAX_ADDRESSES: usize = 3;

fn shown(addresses: &BTreeSet<IpAddr>) -> String {
    few(addresses.iter(), MAX_ADDRESSES)
}

// ---- for people ---------------------------------------------------------------------------------

/// The maximum number of nodes that are named in one row; those in a row have the same values.
const NAMED: usize = 4;

/// The text for people of a single node: its whole reports. `why`: with the evidence for each path class.
pub fn render_one(document: &NodesDocument, style: Style, why: bool) -> String {
    let mut page = Page::new(style);
    for node in &document.nodes {
        for (index, answer) in node.answers.iter().enumerate() {
            if index > 0 {
                page.line("");
            }
            let by = match (&node.pod, &node.version) {
                (Some(pod), Some(version)) => format!(" by its daemon (pod {pod}, {version})"),
                (Some(pod), None) => format!(" by its daemon (pod {pod})"),
                (None, _) => String::new(),
            };
            if let Some(report) = &answer.report {
                page.line(&format!(
                    "checked on node {}{}{by}",
                    node.node,
                    node.marks()
                ));
                page.out.push_str(&render_report(report, style, why));
            }
            if let Some(failure) = &answer.failure {
                let unknown = style.paint(Ink::Warn, "UNKNOWN");
                page.beside(&answer.image, &unknown);
                page.item(&format!(
                    "no report from node {}: {}",
                    node.node, failure.reason
                ));
            }
        }
    }
    page.out
}

/// The text for people of several nodes: for each image the differences as a table, outliers, and each cause
/// once.
pub fn render(document: &NodesDocument, style: Style) -> String {
    let mut page = Page::new(style);
    for (index, comparison) in document.comparisons.iter().enumerate() {
        if index > 0 {
            page.line("");
        }
        page.comparison(document, comparison, index);
    }
    if let Some(without) = document.without_daemon.as_ref().filter(|w| !w.is_empty()) {
        page.section("nodes without a daemon");
        page.prose("  ", &without.join(", "));
    }
    page.out
}

impl Page {
    fn comparison(&mut self, document: &NodesDocument, comparison: &Comparison, index: usize) {
        self.heading(&comparison.image);
        let mut words = Vec::new();
        for (count, ink, word) in [
            (comparison.would_fail, Ink::Bad, "a pull would FAIL"),
            (comparison.unknown, Ink::Warn, "UNKNOWN"),
            (comparison.would_succeed, Ink::Good, "a pull would succeed"),
            (comparison.not_answered, Ink::Warn, "no report"),
        ] {
            if count > 0 {
                let word = self.style.paint(ink, word);
                words.push(format!("{word} on {count}"));
            }
        }
        let all = document.nodes.len();
        let of = count(all, "node", "nodes");
        self.line(&format!("{}, of {of}", words.join(" · ")));
        if !comparison.same.is_empty() && comparison.not_answered < all {
            self.section("the same on all nodes");
            for one in &comparison.same {
                let name = one.aspect.heading();
                self.hanging(&format!("  {name:<18}  "), 22, &one.value);
            }
        }
        self.rows(document, comparison);
        self.outliers(comparison);
        self.findings_of_nodes(document, comparison, index);
        self.silent(document, index);
    }

    /// One row for all nodes with the same values; of their rates it has the range.
    fn rows(&mut self, document: &NodesDocument, comparison: &Comparison) {
        if comparison.differs.is_empty() {
            return;
        }
        let (rates, words): (Vec<_>, Vec<_>) = comparison
            .differs
            .iter()
            .partition(|difference| difference.aspect == Aspect::Rate);
        let cells = |node: &NodeAnswers| -> Vec<String> {
            let values = words.iter().map(|word| word.values.get(&node.node));
            let values = values.map(|value| value.map_or("-", String::as_str));
            values.map(str::to_owned).collect()
        };
        let compared = document.nodes.iter().filter(|node| {
            let mut all = comparison.differs.iter();
            all.any(|difference| difference.values.contains_key(&node.node))
        });
        let mut rows = grouped(compared.map(|node| (cells(node), node)));
        // Values that few nodes have come first.
        rows.sort_by_key(|(_, nodes)| nodes.len());
        let columns = words.iter().chain(&rates).map(|one| one.aspect.heading());
        let mut table = vec![Vec::from(["nodes".to_owned()])];
        table[0].extend(columns);
        for (cells, nodes) in rows {
            let mut row = vec![named(&nodes)];
            row.extend(cells);
            row.extend(rates.iter().map(|rates| range(rates, &nodes)));
            table.push(row);
        }
        self.section("differences");
        self.table(&table);
    }

    fn table(&mut self, rows: &[Vec<String>]) {
        let columns = rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in rows {
            let mut line = String::from(" ");
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, " {cell:<width$} ");
            }
            self.line(&line);
        }
    }

    fn outliers(&mut self, comparison: &Comparison) {
        // The findings explain why a pull would fail.
        let shown: Vec<&Outlier> = comparison
            .outliers
            .iter()
            .filter(|outlier| outlier.aspect != Aspect::Pull)
            .collect();
        if shown.is_empty() {
            return;
        }
        self.section("outliers");
        for outlier in shown.iter().take(MAX_OUTLIERS) {
            let aspect = outlier.aspect.heading();
            let text = if outlier.aspect == Aspect::Rate {
                format!(
                    "{}: {} is less than half of the median, {} ({} nodes)",
                    outlier.node, outlier.value, outlier.majority, outlier.of
                )
            } else {
                format!(
                    "{}: {aspect} {}; {} nodes have {}",
                    outlier.node, outlier.value, outlier.of, outlier.majority
                )
            };
            self.item(&text);
        }
        let more = shown.len().saturating_sub(MAX_OUTLIERS);
        if more > 0 {
            self.line(&format!("  and {more} more (-o json has them)"));
        }
    }

    /// Each cause once, with the nodes that have it.
    fn findings_of_nodes(
        &mut self,
        document: &NodesDocument,
        comparison: &Comparison,
        index: usize,
    ) {
        let reports = document.nodes.iter().filter_map(|node| {
            let report = node.answers.get(index)?.report.as_ref()?;
            Some((node, report))
        });
        let found = reports.flat_map(|(node, report)| {
            let findings = problems(report.verdict.findings.iter());
            findings.map(move |finding| ((finding.cause, finding.leg), (finding, node)))
        });
        let mut found = grouped(found);
        found.sort_by_key(|(_, all)| std::cmp::Reverse(all[0].0.severity));
        let answered = document.nodes.len() - comparison.not_answered;
        for (_, all) in found {
            self.finding(all[0].0);
            let nodes: Vec<&NodeAnswers> = all.into_iter().map(|(_, node)| node).collect();
            let on = if nodes.len() == answered && answered > 1 {
                format!("all {answered} nodes with a report")
            } else {
                named(&nodes)
            };
            self.prose("  on ", &on);
        }
    }

    fn silent(&mut self, document: &NodesDocument, index: usize) {
        let failures = document.nodes.iter().filter_map(|node| {
            let failure = node.answers.get(index)?.failure.as_ref()?;
            Some((failure.reason.as_str(), node))
        });
        let reasons = grouped(failures);
        if reasons.is_empty() {
            return;
        }
        self.section("nodes without a report");
        for (reason, nodes) in reasons {
            self.item(&format!("{}: {reason}", named(&nodes)));
        }
    }
}

/// The maximum number of outliers that are shown.
const MAX_OUTLIERS: usize = 20;

/// `n1, n2 (new) and 3 more`.
fn named(nodes: &[&NodeAnswers]) -> String {
    let names = nodes.iter();
    few(
        names.map(|node| format!("{}{}", node.node, node.marks())),
        NAMED,
    )
}

/// The range of the rates of a row's nodes.
fn range(rates: &Difference, nodes: &[&NodeAnswers]) -> String {
    let value = |text: &String| text.split(' ').next()?.parse::<f64>().ok();
    let mut known: Vec<f64> = nodes
        .iter()
        .filter_map(|node| value(rates.values.get(&node.node)?))
        .collect();
    known.sort_by(f64::total_cmp);
    match (known.first(), known.last()) {
        (Some(low), Some(high)) if high - low >= 0.1 => format!("{low:.1} to {high:.1} Mbit/s"),
        (Some(low), _) => format!("{low:.1} Mbit/s"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: Aspect = Aspect::Class(Role::Registry);

    /// `class`, addresses separated by blanks, rate in Mbit/s, findings.
    fn seen(class: &str, addresses: &str, rate: Option<f64>, findings: &str) -> NodeObservation {
        let pull = if findings.contains("tcp_timeout") {
            Pull::WouldFail
        } else {
            Pull::WouldSucceed
        };
        let mut seen = NodeObservation::new(pull);
        seen.values.insert(CLASS, class.to_owned());
        seen.values.insert(Aspect::Findings, findings.to_owned());
        let addresses = addresses.split(' ').map(|a| a.parse().unwrap()).collect();
        seen.addresses.insert(Role::Registry, addresses);
        seen.rate = rate.map(|rate| rate * 1e6 / 8.0);
        seen
    }

    fn compared(nodes: &[NodeObservation]) -> Comparison {
        let names = ["n1", "n2", "n3", "n4", "n5"];
        let seen: Vec<(&str, NodeObservation)> =
            names.into_iter().zip(nodes.iter().cloned()).collect();
        compare("r.test/app:1", &seen)
    }

    fn who(comparison: &Comparison) -> Vec<(&str, Aspect)> {
        let outliers = comparison.outliers.iter();
        outliers.map(|o| (o.node.as_str(), o.aspect)).collect()
    }

    fn what_differs(comparison: &Comparison) -> Vec<Aspect> {
        comparison.differs.iter().map(|d| d.aspect).collect()
    }

    fn well() -> NodeObservation {
        seen("intranet", "10.0.3.9", None, "none")
    }

    #[test]
    fn what_is_the_same_everywhere_is_said_once() {
        let comparison = compared(&[well(), well(), well()]);
        assert!(comparison.differs.is_empty() && comparison.outliers.is_empty());
        let same: Vec<(Aspect, &str)> = comparison
            .same
            .iter()
            .map(|one| (one.aspect, one.value.as_str()))
            .collect();
        assert_eq!(
            same,
            [
                (Aspect::Pull, "would succeed"),
                (CLASS, "intranet"),
                (Aspect::Addresses(Role::Registry), "10.0.3.9"),
                (Aspect::Findings, "none"),
            ]
        );
        assert_eq!(compared(&[]).same, []);
    }

    #[test]
    fn one_that_differs_from_most_stands_out_in_what_it_differs() {
        let sick = seen("public_unknown", "52.0.0.1", None, "tcp_timeout");
        let comparison = compared(&[well(), well(), sick.clone(), well()]);
        assert_eq!(
            who(&comparison),
            [
                ("n3", Aspect::Pull),
                ("n3", CLASS),
                ("n3", Aspect::Addresses(Role::Registry)),
                ("n3", Aspect::Findings),
            ]
        );
        assert_eq!((comparison.would_fail, comparison.would_succeed), (1, 3));
        assert_eq!(comparison.outliers[1].majority, "intranet");
        assert_eq!(comparison.outliers[1].of, 3);
        // Of two nodes, and of two halves, neither is the outlier.
        for nodes in [
            vec![well(), sick.clone()],
            vec![well(), sick.clone(), well(), sick.clone()],
        ] {
            let comparison = compared(&nodes);
            assert_eq!(who(&comparison), []);
            assert_eq!(what_differs(&comparison).len(), 4);
        }
    }

    #[test]
    fn addresses_agree_where_they_share_one() {
        let at = |addresses| seen("public_snat", addresses, None, "none");
        let addresses = Aspect::Addresses(Role::Registry);
        // The second connects the first and the third.
        let chain = compared(&[
            at("52.0.0.1 52.0.0.2"),
            at("52.0.0.2 52.0.0.3"),
            at("52.0.0.3"),
        ]);
        assert_eq!(what_differs(&chain), []);
        // Load balancing by DNS: different, and no fault.
        let balanced = compared(&[at("52.0.0.1"), at("52.0.0.1"), at("52.0.0.9")]);
        assert_eq!(what_differs(&balanced), [addresses]);
        assert_eq!(who(&balanced), []);
        for odd in ["10.0.3.9", "100.64.0.1", "fd00::1"] {
            let split = compared(&[at("52.0.0.1"), at("52.0.0.1"), at(odd)]);
            assert_eq!(who(&split), [("n3", addresses)], "{odd}");
        }
        let private = compared(&[at("10.0.3.9"), at("10.0.3.9"), at("10.0.4.9")]);
        assert_eq!(who(&private), [("n3", addresses)]);
    }

    #[test]
    fn a_rate_below_half_of_the_median_stands_out() {
        let at = |rate| seen("intranet", "10.0.3.9", rate, "none");
        let comparison = compared(&[
            at(Some(100.0)),
            at(Some(90.0)),
            at(None),
            at(Some(40.0)),
            at(Some(110.0)),
        ]);
        assert_eq!(who(&comparison), [("n4", Aspect::Rate)]);
        assert_eq!(comparison.outliers[0].majority, "95.0 Mbit/s");
        assert_eq!(
            comparison.differs[0].values.len(),
            4,
            "not measured is not 0"
        );
        let close = compared(&[at(Some(100.0)), at(Some(60.0)), at(Some(51.0))]);
        assert_eq!(who(&close), []);
        let two = compared(&[at(Some(100.0)), at(Some(1.0))]);
        assert_eq!(who(&two), []);
        assert_eq!(compared(&[at(None)]).median_bytes_per_second, None);
    }

    #[test]
    fn a_leg_that_a_node_did_not_get_to_differs() {
        let mut short = well();
        short.values.remove(&CLASS);
        let comparison = compared(&[well(), short, well()]);
        assert_eq!(what_differs(&comparison), [CLASS]);
        assert_eq!(comparison.outliers[0].value, "not reached");
    }

    fn report(case: &str) -> Report {
        let text = std::fs::read_to_string(format!("tests/cases/{case}/report.json")).unwrap();
        let document: super::super::Document = serde_json::from_str(&text).unwrap();
        Report::conclude(document.reports[0].evidence.clone())
    }

    fn answer(node: &str, report: Report, created: &str) -> NodeAnswers {
        NodeAnswers {
            created: Some(created.parse().unwrap()),
            is_cordoned: Some(node == "n2"),
            answers: vec![NodeAnswer::of("", Ok(report))],
            ..NodeAnswers::of(node.to_owned())
        }
    }

    #[test]
    fn the_table_reads_as_reviewed() {
        let at: Timestamp = "2026-11-23T09:00:00Z".parse().unwrap();
        let old = "2026-11-01T09:00:00Z";
        let image = report("healthy").evidence.reference.to_string();
        let mut nodes = vec![
            answer("n1", report("healthy"), old),
            answer("n2", report("healthy"), old),
            answer("n3", report("healthy"), "2026-11-23T08:30:00Z"),
        ];
        let mut sick = report("healthy").evidence;
        sick.walk.legs[0].connect.outcome = crate::model::step::Step::Failed {
            fault: crate::model::fault::TcpFault::Timeout,
            took: Duration::from_secs(10),
        };
        for dial in &mut sick.walk.legs[0].connect.attempts {
            dial.outcome = crate::model::step::Step::Failed {
                fault: crate::model::fault::TcpFault::Timeout,
                took: Duration::from_secs(10),
            };
        }
        nodes.push(answer("n4", Report::conclude(sick), old));
        let silent = NodeFailure {
            kind: FailureKind::Silent,
            reason: "no answer in 90 s".to_owned(),
        };
        nodes.push(NodeAnswers {
            answers: vec![NodeAnswer::of(&image, Err(silent))],
            ..NodeAnswers::of("n5".to_owned())
        });
        let document = NodesDocument::new(at, &[image], nodes, Some(vec!["virtual-1".to_owned()]));
        assert_eq!(document.pull(), Pull::WouldFail);
        assert!(document.nodes[2].is_new && !document.nodes[0].is_new);
        let text = render(&document, Style { color: false });
        for words in [
            "n4",
            "n3 (new)",
            "n2 (cordoned)",
            "outliers",
            "no answer in 90 s",
            "nodes without a daemon",
            "virtual-1",
            "a pull would FAIL on 1",
            "hint:",
        ] {
            assert!(text.contains(words), "{words}:\n{text}");
        }
        let again: NodesDocument =
            serde_json::from_str(&serde_json::to_string(&document).unwrap()).unwrap();
        assert_eq!(again, document);
        insta::with_settings!({snapshot_path => "../../tests/snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!("nodes", text);
        });
    }
}
