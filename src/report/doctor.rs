//! The result of `pullpath doctor`, as JSON and as text.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{Ink, Page, Style, count};
use super::vantage::view;
use super::{SCHEMA_VERSION, Tool};
use crate::doctor::{Check, State, worst};
use crate::model::fault::instant;
use crate::model::vantage::NetworkView;

/// What `doctor -o json` prints.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath doctor")]
pub struct DoctorDocument {
    /// The version of this document's fields.
    pub schema_version: u32,
    /// The program that wrote it.
    pub pullpath: Tool,
    /// When it was checked.
    pub at: Timestamp,
    /// Whose network was used.
    pub network: NetworkView,
    /// The worst of all states.
    pub state: State,
    /// The lines, in the order of the parts.
    pub checks: Vec<Check>,
}

impl DoctorDocument {
    /// A document of this program and the current version.
    pub fn new(at: Timestamp, network: NetworkView, checks: Vec<Check>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            at,
            network,
            state: worst(&checks),
            checks,
        }
    }
}

/// The text for people.
pub fn render(document: &DoctorDocument, style: Style) -> String {
    let mut page = Page::new(style);
    let number = |state| {
        document
            .checks
            .iter()
            .filter(|one| one.state == state)
            .count()
    };
    let (problems, unknown) = (number(State::Problem), number(State::Unknown));
    let verdict = match (problems, unknown) {
        (0, 0) => style.paint(Ink::Good, "nothing is missing"),
        (0, some) => style.paint(Ink::Warn, &format!("{some} unknown")),
        (some, 0) => style.paint(Ink::Bad, &count(some, "problem", "problems")),
        (some, more) => {
            let some = count(some, "problem", "problems");
            style.paint(Ink::Bad, &format!("{some}, {more} unknown"))
        }
    };
    let version = &document.pullpath.version;
    page.line(&format!(
        "{verdict}  Pullpath {version}, {}",
        instant(document.at)
    ));
    page.prose("network: ", view(document.network));
    page.line("");
    let mut before = None;
    for check in &document.checks {
        // The part once, however many lines it has.
        let part = if before == Some(check.part) {
            ""
        } else {
            check.part.describe()
        };
        before = Some(check.part);
        let (ink, word) = match check.state {
            State::Ok => (Ink::Good, "ok"),
            State::Note => (Ink::Dim, "note"),
            State::Problem => (Ink::Bad, "PROBLEM"),
            State::Unknown => (Ink::Warn, "unknown"),
        };
        let word = style.paint(ink, &format!("{word:<7}"));
        page.hanging(&format!("{part:<13}  {word}  "), INDENT, &check.text);
        if let Some(fix) = &check.fix {
            let name = style.paint(Ink::Bold, "fix:");
            page.hanging(&format!("{:INDENT$}{name} ", ""), INDENT + 5, fix);
        }
    }
    page.out
}

/// The width of the two columns before the text.
const INDENT: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Part;

    #[test]
    fn each_line_has_its_state_and_the_fix_below_it() {
        let checks = vec![
            Check::new(Part::Configuration, State::Ok, "valid"),
            Check::problem(Part::Rights, "no list of pods", "apply it"),
            Check::new(Part::Rights, State::Unknown, "no answer"),
        ];
        let document = DoctorDocument::new(Timestamp::UNIX_EPOCH, NetworkView::Machine, checks);
        let text = render(&document, Style { color: false });
        let expected = "\
configuration  ok       valid
rights         PROBLEM  no list of pods
                        fix: apply it
               unknown  no answer
";
        assert!(
            text.starts_with("1 problem, 1 unknown  Pullpath "),
            "{text}"
        );
        assert!(text.ends_with(expected), "{text}");
        assert!(text.lines().all(|line| line.len() <= 96), "{text}");
    }
}
