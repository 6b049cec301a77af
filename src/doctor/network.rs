//! The API server, the name servers, the clock and the ways out, judged.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Check, Part, State};
use crate::model::fault::show_server;
use crate::model::step::Step;
use crate::model::text::joined;
use crate::model::units::HumanDuration;
use crate::model::vantage::Vantage;

/// What a name server did with one query, and how long it took.
pub type ServerAnswer = (SocketAddr, Result<Duration, String>);

/// The addresses of a name that the configuration has, or why there are none.
pub type NameResult = (String, Result<usize, String>);

/// Name servers and names. `source`: where the servers are from.
pub fn resolver(servers: &[ServerAnswer], names: &[NameResult], source: &str) -> Vec<Check> {
    let mut found = Vec::new();
    let silent: Vec<&ServerAnswer> = servers.iter().filter(|(_, one)| one.is_err()).collect();
    for (server, answer) in &silent {
        let Err(reason) = answer else { continue };
        let text = format!("{}, from {source}: {reason}", show_server(*server));
        let fix = if silent.len() == servers.len() {
            format!(
                "let this network reach it by UDP and TCP port {}, or correct {source}",
                server.port()
            )
        } else {
            format!(
                "each lookup may wait for it: remove it from {source}, or let this network reach it"
            )
        };
        found.push(Check::problem(Part::Resolver, text, fix));
    }
    for (name, result) in names {
        if let Err(reason) = result {
            let text = format!("{name} does not resolve: {reason}");
            let fix = format!(
                "correct the name in the configuration, or create it; pullpath probe {name}/IMAGE shows more"
            );
            found.push(Check::problem(Part::Resolver, text, fix));
        }
    }
    if servers.is_empty() {
        let text = format!("{source} has no name server");
        let fix =
            format!("add a line `nameserver ADDRESS` to {source}, or set network.nameservers");
        found.push(Check::problem(Part::Resolver, text, fix));
    }
    if found.is_empty() {
        let shown = servers.iter().map(|(server, answer)| {
            let took = answer.as_ref().copied().unwrap_or_default();
            format!("{} in {}", show_server(*server), HumanDuration(took))
        });
        let names = match names.len() {
            0 => String::new(),
            _ => format!(
                "; {} resolve{}",
                joined(names.iter().map(|(name, _)| name)),
                if names.len() == 1 { "s" } else { "" }
            ),
        };
        let text = format!("answer of {}, from {source}{names}", joined(shown));
        found.push(Check::new(Part::Resolver, State::Ok, text));
    }
    found
}

/// A token or certificate may be refused beyond this; the header `Date` has whole seconds.
const MAX_SKEW: f64 = 5.0;

/// The clock: seconds that this machine is ahead of the API server (negative: behind). `None`: nothing to compare with.
pub fn clock(ahead: Option<f64>) -> Check {
    let Some(ahead) = ahead else {
        let text = "not compared: no API server is used, or it sends no date";
        return Check::new(Part::Clock, State::Note, text);
    };
    let (by, way) = (ahead.abs(), if ahead < 0.0 { "behind" } else { "ahead of" });
    if by <= MAX_SKEW {
        let text = "within 5 s of the API server's";
        return Check::new(Part::Clock, State::Ok, text);
    }
    let text = format!(
        "{by:.0} s {way} the API server's: certificates and tokens seem expired or not yet valid"
    );
    Check::problem(
        Part::Clock,
        text,
        "timedatectl set-ntp true (on the node that is wrong)",
    )
}

/// Destinations for comparison that were dialed.
pub fn egress(vantage: &Vantage) -> Vec<Check> {
    let mut found = Vec::new();
    let mut reached = Vec::new();
    if let Some(baseline) = &vantage.baseline {
        let what = format!("{} {}", baseline.what.describe(), baseline.to);
        match &baseline.outcome {
            Step::Done { .. } => reached.push(what),
            Step::Failed { fault, .. } => {
                let text = format!("{what}: {fault}");
                let check = Check::new(Part::Egress, State::Note, text);
                found.push(check.fixed_by("set network.baseline to a near HOST:PORT that answers"));
            }
            Step::Skipped { .. } => {}
        }
    }
    for control in &vantage.controls {
        if control
            .attempts
            .iter()
            .any(|dial| dial.outcome.done().is_some())
        {
            reached.push(control.host.clone());
            continue;
        }
        let fault = control
            .attempts
            .iter()
            .find_map(|dial| dial.outcome.fault());
        let reason = control
            .unresolved
            .clone()
            .or_else(|| fault.map(ToString::to_string));
        let text = format!(
            "{} (network.controls) is not reached: {}",
            control.host,
            reason.unwrap_or_else(|| "no address".to_owned())
        );
        let fix = match control.unresolved {
            Some(_) => "correct the name, or remove it from network.controls",
            None => NO_WAY_OUT,
        };
        found.push(Check::problem(Part::Egress, text, fix));
    }
    for trial in &vantage.egress {
        match &trial.outcome {
            Step::Done { value, .. } => {
                reached.push(format!("{} (it sees {})", trial.server, value.address));
            }
            Step::Failed { fault, .. } => {
                let text = format!("{} (network.egress.echo): {fault}", trial.server);
                found.push(Check::problem(Part::Egress, text, NO_WAY_OUT));
            }
            Step::Skipped { .. } => {}
        }
    }
    if vantage.controls.is_empty() && vantage.egress.is_empty() {
        let text = if reached.is_empty() {
            "no destination is named for comparison".to_owned()
        } else {
            format!(
                "{} is reached; no public host is named for comparison",
                joined(&reached)
            )
        };
        let check = Check::new(Part::Egress, State::Note, text);
        found.push(check.fixed_by("for nodes with internet access: network: {controls: ['www.example.com:443']}, with a host that always answers"));
    } else if found.iter().all(|check| check.state != State::Problem) {
        let text = format!("reached: {}", joined(&reached));
        found.push(Check::new(Part::Egress, State::Ok, text));
    }
    found
}

const NO_WAY_OUT: &str = "correct the route, NAT rule, security group or firewall of this network, or remove the host from the configuration";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::network::Control;

    #[test]
    fn each_silent_server_and_each_unknown_name_is_a_problem() {
        let server = |last: u8, answer: Result<Duration, String>| {
            (SocketAddr::from(([10, 0, 0, last], 53)), answer)
        };
        let answers = || Ok(Duration::from_millis(3));
        let silent = || Err("no answer in time".to_owned());
        let states = |servers: &[ServerAnswer], names: &[NameResult]| {
            let checks = resolver(servers, names, "/etc/resolv.conf").into_iter();
            checks
                .map(|check| (check.state, check.fix.unwrap_or_default()))
                .collect::<Vec<_>>()
        };
        let fine = states(&[server(1, answers())], &[("r.test".to_owned(), Ok(2))]);
        assert_eq!(fine, [(State::Ok, String::new())]);
        let one = states(&[server(1, answers()), server(2, silent())], &[]);
        assert_eq!((one.len(), one[0].0), (1, State::Problem));
        assert!(one[0].1.contains("remove it"), "{one:?}");
        let all = states(
            &[server(1, silent())],
            &[("r.test".to_owned(), Err("x".to_owned()))],
        );
        assert_eq!(all.len(), 2);
        assert!(all[0].1.contains("port 53"), "{all:?}");
        assert_eq!(states(&[], &[])[0].0, State::Problem);
    }

    #[test]
    fn seconds_of_skew_are_a_problem_in_both_directions() {
        for (ahead, state, word) in [
            (Some(0.4), State::Ok, "within"),
            (Some(-4.9), State::Ok, "within"),
            (Some(60.0), State::Problem, "60 s ahead of"),
            (Some(-3600.0), State::Problem, "3600 s behind"),
            (None, State::Note, "not compared"),
        ] {
            let check = clock(ahead);
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.text.contains(word), "{check:?}");
        }
    }

    #[test]
    fn what_is_named_and_not_reached_is_a_problem_and_what_is_not_named_is_none() {
        let mut vantage = Vantage::default();
        assert_eq!(egress(&vantage)[0].state, State::Note);
        vantage.controls.push(Control {
            host: "www.example.com:443".to_owned(),
            unresolved: Some("no such name".to_owned()),
            attempts: Vec::new(),
        });
        let checks = egress(&vantage);
        assert_eq!((checks.len(), checks[0].state), (1, State::Problem));
        assert!(checks[0].text.contains("no such name"), "{checks:?}");
    }
}
