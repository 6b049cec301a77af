//! Workloads looked at before anybody pulls: `pullpath lint`.

use std::fmt::Write as _;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Ink, Page, Style, count};
use super::{SCHEMA_VERSION, Tool, grouped, said};
use crate::diagnose::level::Severity;
use crate::lint::{Finding, LintCounts, Snapshot};
use crate::model::workload::ContainerKind;

/// What `lint -o json` prints.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath lint of workloads")]
pub struct LintDocument {
    pub schema_version: u32,
    pub pullpath: Tool,
    /// The local clock, by which ends are past or near.
    pub checked: Timestamp,
    #[serde(flatten)]
    pub lint: Snapshot,
}

impl LintDocument {
    pub fn new(checked: Timestamp, lint: Snapshot) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            checked,
            lint,
        }
    }
}

/// For a person: by cause, the worst first, then by whom it is at.
pub fn render(document: &LintDocument, style: Style) -> String {
    let mut page = Page::new(style);
    let lint = &document.lint;
    head(&mut page, lint);
    // They are sorted by severity.
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
        page.line(&style.paint(Ink::Warn, "not seen"));
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
        page.style.paint(Ink::Good, "nothing wrong to be seen")
    } else {
        page.style
            .paint(Ink::Warn, "nothing wrong in what could be seen")
    };
    page.line(&format!("{verdict}  in {}", looked_at(&lint.counts)));
}

/// `41 workloads of 6 namespaces, 12 of the 13 Secrets that they name were read`.
fn looked_at(seen: &LintCounts) -> String {
    let workloads: usize = seen.workloads.values().sum();
    let mut text = format!(
        "{} of {}",
        count(workloads, "workload", "workloads"),
        count(seen.namespaces, "namespace", "namespaces")
    );
    let secrets = &seen.secrets;
    if secrets.named > 0 {
        let _ = write!(
            text,
            "; of {} that they name, {} read, {} missing, {} not known",
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
    let container = said(finding.container.as_ref(), |name| {
        format!(", {} {name}", kind.as_str())
    });
    let whom = format!("{} {}/{}", finding.kind, finding.namespace, finding.name);
    let whom = page.style.paint(Ink::Bold, &whom);
    let severity = finding.severity;
    let severity = page.style.paint(Ink::of(severity), severity.as_str());
    page.line(&format!("  {whom}{container}  {severity}"));
    for fact in &finding.evidence {
        page.prose("    - ", fact);
    }
    let hint = page.style.paint(Ink::Bold, "hint:");
    page.hanging(&format!("    {hint} "), 10, &finding.hint);
}
