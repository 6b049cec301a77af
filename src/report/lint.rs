//! The result of `pullpath lint`: problems of workloads and their pull secrets, as JSON and as text.

use std::fmt::Write as _;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Ink, Page, Style, count};
use super::{SCHEMA_VERSION, Tool, grouped, optional};
use crate::diagnose::level::Severity;
use crate::lint::{Finding, LintCounts, Snapshot};
use crate::model::workload::ContainerKind;

/// What `lint -o json` prints.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath lint of workloads")]
pub struct LintDocument {
    /// The version of this document's fields.
    pub schema_version: u32,
    /// The program that wrote it.
    pub pullpath: Tool,
    /// When the workloads were checked, by the local clock: it decides which credentials have expired or expire
    /// soon.
    pub checked: Timestamp,
    /// Findings, counts, and what could not be read.
    #[serde(flatten)]
    pub lint: Snapshot,
}

impl LintDocument {
    /// A document of this program and the current version.
    pub fn new(checked: Timestamp, lint: Snapshot) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            checked,
            lint,
        }
    }
}

/// The text for people: findings by cause, the worst first, then by workload.
pub fn render(document: &LintDocument, style: Style) -> String {
    let mut page = Page::new(style);
    let lint = &document.lint;
    head(&mut page, lint);
    // Findings are sorted by severity.
    for (cause, findings) in grouped(lint.findings.iter().map(|finding| (finding.cause, finding))) {
        page.line("");
        let worst = findings.iter().map(|finding| finding.severity).max();
        let ink = worst.map_or(Ink::Dim, Ink::of);
        let code = style.paint(ink, cause.code());
        page.line(&format!("{code}  {}", cause.entry().title));
        for finding in findings {
            one(&mut page, finding);
        }
        let more = format!("  more: pullpath explain {}", cause.code());
        page.line(&style.paint(Ink::Dim, &more));
    }
    if !lint.not_observed.is_empty() {
        page.line("");
        page.line(&style.paint(Ink::Warn, "could not be read"));
        for line in &lint.not_observed {
            page.item(line);
        }
    }
    page.out
}

fn head(page: &mut Page, lint: &Snapshot) {
    let mut counts = Vec::new();
    for (severity, one, many) in [
        (Severity::Critical, "critical", "critical"),
        (Severity::Warning, "warning", "warnings"),
        (Severity::Info, "remark", "remarks"),
    ] {
        let all = lint.findings.iter().filter(|f| f.severity == severity);
        let number = all.count();
        if number > 0 {
            let text = count(number, one, many);
            counts.push(page.style.paint(Ink::of(severity), &text));
        }
    }
    let verdict = if !counts.is_empty() {
        counts.join(", ")
    } else if lint.not_observed.is_empty() {
        page.style.paint(Ink::Good, "no problem found")
    } else {
        page.style
            .paint(Ink::Warn, "no problem found in what could be read")
    };
    page.line(&format!("{verdict}  in {}", scope(&lint.counts)));
}

/// `41 workloads of 6 namespaces; of 13 Secrets that they name, 12 read, 0 missing, 1 unknown`.
fn scope(counts: &LintCounts) -> String {
    let workloads: usize = counts.workloads.values().sum();
    let mut text = format!(
        "{} of {}",
        count(workloads, "workload", "workloads"),
        count(counts.namespaces, "namespace", "namespaces")
    );
    let secrets = &counts.secrets;
    if secrets.named > 0 {
        let _ = write!(
            text,
            "; of {} that they name, {} read, {} missing, {} unknown",
            count(secrets.named, "Secret", "Secrets"),
            secrets.read,
            secrets.absent,
            secrets.unknown
        );
    }
    text
}

fn one(page: &mut Page, finding: &Finding) {
    let kind = finding.container_kind.unwrap_or(ContainerKind::Container);
    let container = optional(finding.container.as_ref(), |name| {
        format!(", {} {name}", kind.as_str())
    });
    let workload = format!("{} {}/{}", finding.kind, finding.namespace, finding.name);
    let workload = page.style.paint(Ink::Bold, &workload);
    let severity = finding.severity;
    let severity = page.style.paint(Ink::of(severity), severity.as_str());
    page.line(&format!("  {workload}{container}  {severity}"));
    for fact in &finding.evidence {
        page.prose("    - ", fact);
    }
    let hint = page.style.paint(Ink::Bold, "hint:");
    page.hanging(&format!("    {hint} "), 10, &finding.hint);
}
