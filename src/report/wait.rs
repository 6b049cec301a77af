//! What `pullpath wait` came to.

use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Ink, Page, Style, render};
use super::{Report, Tool, said};
use crate::model::units::{HumanDuration, Seconds};

/// What `wait -o json` prints.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath wait")]
pub struct WaitDocument {
    pub schema_version: u32,
    pub pullpath: Tool,
    pub image: String,
    /// The EIP is there, where one is wanted, and a pull would succeed.
    pub is_open: bool,
    #[serde(rename = "waited_seconds", with = "Seconds")]
    pub waited: Duration,
    pub checks: u32,
    pub eip: Eip,
    /// The last walk; absent where none ended in time.
    pub report: Option<Report>,
}

/// The pod's EIP.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Eip {
    /// The pod asks for none, or nothing says that it does.
    NotWanted,
    /// A file that is to have it is empty, and does not tell whether the pod asks for one.
    NotTold {
        source: String,
    },
    Bound {
        address: IpAddr,
    },
    Missing {
        source: Option<String>,
        reason: String,
    },
}

impl Eip {
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// For people: one line when the path is open; else why it is not.
pub fn render_wait(document: &WaitDocument, style: Style) -> String {
    let mut page = Page::new(style);
    let (image, waited) = (&document.image, HumanDuration(document.waited));
    if document.is_open {
        let open = page.style.paint(Ink::Good, "open");
        let eip = match &document.eip {
            Eip::Bound { address } => format!(", the pod's EIP is {address}"),
            _ => String::new(),
        };
        let text = format!("{open} after {waited}: a pull of {image} would succeed{eip}");
        page.prose("", &text);
        return page.out;
    }
    let closed = page.style.paint(Ink::Bad, "NOT OPEN");
    page.prose("", &format!("{closed} after {waited}: {image}"));
    if let Eip::Missing { source, reason } = &document.eip {
        let by = said(source.as_ref(), |source| format!(" ({source})"));
        page.item(&format!("{reason}{by}"));
        page.hint(
            "Look at the pod's events (`kubectl describe pod`): the network plugin says there why it binds none, for instance the quota of EIPs or a wrong annotation. The file follows up to 90 s later, and never where it is mounted by subPath.",
        );
    }
    match &document.report {
        None => page.item(
            "no walk ended in this time; give more by --timeout, or less to each answer by --answer-timeout",
        ),
        Some(report) => {
            page.line("");
            page.out.push_str(&render(report, style, false));
        }
    }
    page.out
}
