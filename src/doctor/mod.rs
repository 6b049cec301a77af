//! Judges an installation: what was observed becomes one line for each part, with the line that fixes it. Pure; the
//! command `doctor` observes.

pub mod files;
pub mod network;
pub mod rights;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is checked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The configuration file.
    Configuration,
    /// The API server, where the configuration needs it.
    ApiServer,
    /// Rights at the API server.
    Rights,
    /// Files that the configuration names, such as those of the node.
    Files,
    /// Name servers, and the names that the configuration has.
    Resolver,
    /// The clock, compared with that of the API server.
    Clock,
    /// Destinations for comparison.
    Egress,
    /// The program that runs with this configuration.
    Daemon,
}

impl Part {
    /// In the text for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::ApiServer => "API server",
            Self::Rights => "rights",
            Self::Files => "files",
            Self::Resolver => "resolver",
            Self::Clock => "clock",
            Self::Egress => "egress",
            Self::Daemon => "daemon",
        }
    }
}

/// The result for a part.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is missing.
    Ok,
    /// Not used, or not known without a setting; the installation works without it.
    Note,
    /// Something that the configuration needs is missing.
    Problem,
    /// It could not be found out.
    Unknown,
}

/// One line of the result.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Check {
    /// What was checked.
    pub part: Part,
    /// The result.
    pub state: State,
    /// What was observed.
    pub text: String,
    /// What to do; absent if there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    /// Without a fix.
    pub fn new(part: Part, state: State, text: impl Into<String>) -> Self {
        Self {
            part,
            state,
            text: text.into(),
            fix: None,
        }
    }

    /// Something that is missing, and its fix.
    pub fn problem(part: Part, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(part, State::Problem, text).fixed_by(fix)
    }

    /// With a fix.
    #[must_use]
    pub fn fixed_by(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }
}

/// Which program the configuration is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// `pullpath run`.
    Node,
    /// `pullpath cluster`.
    Cluster,
}

/// The worst state: a problem before unknown before the rest.
pub fn worst(checks: &[Check]) -> State {
    let has = |state| checks.iter().any(|check| check.state == state);
    let order = [State::Problem, State::Unknown];
    order
        .into_iter()
        .find(|state| has(*state))
        .unwrap_or(State::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_counts_before_what_is_unknown_and_a_note_never() {
        let of = |states: &[State]| {
            let checks = states
                .iter()
                .map(|state| Check::new(Part::Files, *state, ""));
            worst(&checks.collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), State::Ok);
        assert_eq!(of(&[State::Ok, State::Note]), State::Ok);
        assert_eq!(of(&[State::Unknown, State::Note]), State::Unknown);
        assert_eq!(of(&[State::Unknown, State::Problem]), State::Problem);
    }
}
