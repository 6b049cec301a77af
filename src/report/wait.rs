//! The result of `pullpath wait`, as JSON and as text.

use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Ink, Page, Style, render};
use super::{Report, Tool, optional};
use crate::diagnose::Pull;
use crate::model::units::{HumanDuration, Seconds};

/// What `wait -o json` prints.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath wait")]
pub struct WaitDocument {
    /// The version of this document's fields.
    pub schema_version: u32,
    /// The program that wrote it.
    pub pullpath: Tool,
    /// The image reference with its domain: `docker.io/library/nginx` for `nginx`.
    pub image: String,
    /// The EIP is bound, if one is required, and a pull would succeed, or, in a pod, only what can't be observed there
    /// may prevent it, or whether it would succeed is unknown at the timeout.
    pub is_open: bool,
    /// From the start of the command to its end.
    #[serde(rename = "waited_seconds", with = "Seconds")]
    pub waited: Duration,
    /// How many checks were made.
    pub checks: u32,
    /// The state of the pod's EIP at the end.
    pub eip: Eip,
    /// The last check; absent if none was completed in time.
    pub report: Option<Report>,
}

/// The pod's EIP (Elastic IP), from the pod's annotations.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Eip {
    /// The pod requests none, or there is no sign that it does.
    NotWanted,
    /// The file for it is empty, and does not show whether the pod requests one.
    Unknown {
        /// The file.
        source: String,
    },
    /// The EIP is bound to the pod.
    Bound {
        /// The EIP, from the annotation `yangtse.io/allocated-ipv4-eip`.
        address: IpAddr,
    },
    /// The pod requests an EIP, or `--require-eip` was given, and none is bound.
    Missing {
        /// The file with the annotations; `None` if there is no such file.
        source: Option<String>,
        /// Why it is missing, in words.
        reason: String,
    },
}

impl Eip {
    /// Whether `wait` waits for the EIP.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// The text for people: one line if a pull would succeed, otherwise the reasons why not.
pub fn render_wait(document: &WaitDocument, style: Style) -> String {
    let mut page = Page::new(style);
    let (image, waited) = (&document.image, HumanDuration(document.waited));
    if document.is_open {
        let open = page.style.paint(Ink::Good, "open");
        let eip = match &document.eip {
            Eip::Bound { address } => format!(", the pod's EIP is {address}"),
            _ => String::new(),
        };
        let report = document.report.as_ref();
        let what = match report.map(|report| report.verdict.pull) {
            Some(Pull::WouldSucceed) => format!("a pull of {image} would succeed"),
            Some(Pull::WouldFail) => format!(
                "whether a pull of {image} would succeed depends on the node, which can't be observed from here"
            ),
            Some(Pull::Unknown) => format!(
                "whether a pull of {image} would succeed is unknown from here; the kubelet's own pull shows it"
            ),
            None => format!(
                "no check was completed, so whether a pull of {image} would succeed is unknown; the kubelet's own pull shows it"
            ),
        };
        page.prose("", &format!("{open} after {waited}: {what}{eip}"));
        let unseen = report.filter(|report| report.verdict.pull != Pull::WouldSucceed);
        if let Some(report) = unseen {
            page.line("");
            page.out.push_str(&render(report, style, false));
        }
        return page.out;
    }
    let closed = page.style.paint(Ink::Bad, "NOT OPEN");
    page.prose("", &format!("{closed} after {waited}: {image}"));
    if let Eip::Missing { source, reason } = &document.eip {
        let from = optional(source.as_ref(), |source| format!(" ({source})"));
        page.item(&format!("{reason}{from}"));
        page.hint(
            "Read the pod's Events (`kubectl describe pod`): the network plugin reports there why it binds no EIP, for instance the quota of EIPs or a wrong annotation. The file is updated up to 90 s after the annotation, and never if it is mounted by subPath.",
        );
    }
    match &document.report {
        None => page.item(
            "no check was completed in this time; allow more time with --timeout, or less for each answer with --answer-timeout",
        ),
        Some(report) => {
            page.line("");
            page.out.push_str(&render(report, style, false));
        }
    }
    page.out
}
