//! What lookups cost, and whether they succeed each time.

use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::model::endpoint::Host;
use crate::model::resolve::Query;
use crate::model::resolver::NameSource;
use crate::resolver::outlook::ways;
use crate::resolver::{Ending, Lookup};

/// `SERVER SUFFIX A AAAA MILLISECONDS`, for each server and name, SUFFIX `-` for the name as written.
fn record(text: &str) -> Vec<Query> {
    text.lines()
        .flat_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = match words[1] {
                "-" => REGISTRY.to_owned(),
                suffix => format!("{REGISTRY}.{suffix}"),
            };
            let took = Duration::from_millis(words[4].parse().unwrap());
            let of = |family, said: &str| {
                let fault = match said {
                    "NXDOMAIN" => DnsFault::NxDomain,
                    "NODATA" => DnsFault::NoData,
                    "SERVFAIL" => DnsFault::ServFail,
                    "REFUSED" => DnsFault::Refused,
                    "DROP" => DnsFault::Timeout,
                    address => {
                        let mut query =
                            query(words[0].parse().unwrap(), &name, family, Ok(&[address]));
                        query.outcome = Step::Done {
                            value: query.outcome.done().unwrap().clone(),
                            took,
                        };
                        return query;
                    }
                };
                let mut query = query(words[0].parse().unwrap(), &name, family, Ok(&[]));
                query.outcome = Step::Failed { fault, took };
                query
            };
            [of(Family::V4, words[2]), of(Family::V6, words[3])]
        })
        .collect()
}

/// The registry's name, looked up with these settings; the result is that of the first way that finds addresses.
fn looked_up(text: &str, change: impl Fn(&mut ResolverSettings)) -> Evidence {
    let queries = record(text);
    let mut settings = ResolverSettings::default();
    for query in &queries {
        if !settings.nameservers.contains(&query.server) {
            settings.nameservers.push(query.server);
        }
    }
    change(&mut settings);
    let lookup = Lookup {
        host: REGISTRY.to_owned(),
        settings: &settings,
        families: &[Family::V4, Family::V6],
        queries: &queries,
    };
    let ways = ways(&lookup);
    let found = ways.iter().find_map(|way| match &way.outcome.ending {
        Ending::Found { name, answers } => Some((name.clone(), answers.clone())),
        _ => None,
    });
    let fault = ways.iter().find_map(|way| match &way.outcome.ending {
        Ending::Failed(fault) => Some(fault.clone()),
        _ => None,
    });
    let mut evidence = healthy();
    evidence.vantage.resolver = Some(Box::new(settings.clone()));
    for leg in &mut evidence.walk.legs {
        leg.resolve.queries.clear();
    }
    let Some((name, answers)) = found else {
        let fault = fault.unwrap_or(DnsFault::Timeout);
        return evidence.unresolved(Role::Registry, queries, fault);
    };
    let records = answers.iter().flat_map(|(_, answer)| &answer.records);
    let addresses: Vec<IpAddr> = records.map(|record| record.address).collect();
    let server = answers[0].0.server;
    evidence.leg_mut(Role::Registry).resolve = Resolve {
        queries: queries.clone(),
        outcome: done(Resolution {
            name,
            addresses,
            cnames: Vec::new(),
            source: ResolutionSource::Server { server },
        }),
        ..Resolve::default()
    };
    evidence
}

fn old_lan(settings: &mut ResolverSettings) {
    settings.search = vec!["old.lan.".to_owned()];
    settings.ndots = 5;
}

#[test]
fn a_suffix_that_gives_no_answer_costs_each_lookup_its_time() {
    let good = "2 - 10.0.3.9 NODATA 1";
    for (suffix, took) in [
        ("2 old.lan DROP DROP 5000", "takes 10 s"),
        ("2 old.lan SERVFAIL SERVFAIL 4000", "takes 8.0 s"),
        // A check with a shorter limit: the pull waits longer than the check did.
        ("2 old.lan DROP DROP 2000", "takes 10 s"),
        ("2 old.lan NXDOMAIN NXDOMAIN 3000", "takes 3.0 s"),
    ] {
        let evidence = looked_up(&format!("{suffix}\n{good}"), old_lan);
        let finding = only(&evidence, "dns_slow", Warning);
        says(
            &finding,
            &[
                took,
                "ndots:5",
                "old.lan' at 10.0.0.2",
                "Remove the search domain old.lan",
            ],
        );
    }
    for suffix in [
        "NXDOMAIN NXDOMAIN 1",
        "SERVFAIL SERVFAIL 20",
        "NXDOMAIN NXDOMAIN 400",
    ] {
        quiet(&looked_up(&format!("2 old.lan {suffix}\n{good}"), old_lan));
    }
    // It is not asked.
    quiet(&looked_up(
        &format!("2 old.lan DROP DROP 5000\n{good}"),
        |settings| {
            old_lan(settings);
            settings.ndots = 1;
        },
    ));
}

#[test]
fn lookups_beyond_the_dials_limit_fail() {
    let dead = |domains: &[&str]| -> String {
        let lines = domains.iter().map(|d| format!("2 {d} DROP DROP 5000\n"));
        lines.chain(["2 - 10.0.3.9 NODATA 1".to_owned()]).collect()
    };
    let with = |domains: &[&str], single: bool| {
        looked_up(&dead(domains), |settings| {
            settings.search = domains.iter().map(|d| format!("{d}.")).collect();
            settings.ndots = 5;
            settings.single_request = single;
        })
    };
    says(
        &only(&with(&["a", "b"], false), "dns_slow", Warning),
        &["takes 20 s"],
    );
    let late = with(&["a", "b", "c"], false);
    says(&only(&late, "dns_slow", Critical), &["takes 30 s"]);
    assert_eq!(judge(&late).pull, Pull::WouldFail);
    says(
        &only(&with(&["a", "b"], true), "dns_slow", Critical),
        &["takes 40 s"],
    );
}

#[test]
fn a_name_that_answers_late_is_slow_and_one_second_is_not() {
    says(
        &only(
            &looked_up("2 - 10.0.3.9 NODATA 3000", |_| ()),
            "dns_slow",
            Warning,
        ),
        &["takes 3.0 s", "10.0.0.2 after 3.0 s"],
    );
    quiet(&looked_up("2 - 10.0.3.9 NODATA 1200", |_| ()));
}

#[test]
fn the_seconds_of_a_dead_server_and_of_a_silent_family_are_computed() {
    let first_dead = "2 - DROP DROP 5000\n3 - 10.0.3.9 NODATA 1";
    for (timeout, took) in [
        (5, "each lookup takes 5.0 s"),
        (2, "each lookup takes 2.0 s"),
    ] {
        let evidence = looked_up(&first_dead.replace("5000", "1000"), |settings| {
            settings.timeout = Duration::from_secs(timeout);
        });
        says(&only(&evidence, "dns_timeout", Warning), &[took]);
    }
    let half = looked_up("2 - 10.0.3.9 DROP 1", |settings| settings.attempts = 3);
    says(
        &only(&half, "dns_slow_5s", Warning),
        &["each lookup takes 15 s"],
    );
}

#[test]
fn rotate_over_servers_that_disagree_fails_now_and_then() {
    let text = "2 - 10.0.3.9 NODATA 1\n3 - NXDOMAIN NXDOMAIN 1";
    let evidence = looked_up(text, |settings| settings.rotate = true);
    let finding = only(&evidence, "dns_split_horizon", Critical);
    says(
        &finding,
        &[
            "10.0.0.3 answers NXDOMAIN",
            "'options rotate'",
            "now and then",
            "on 10.0.0.3",
        ],
    );
    assert_eq!(judge(&evidence).pull, Pull::Unknown);
    // The check may have seen the one that has it first, or the other.
    let evidence = looked_up(
        "2 - NXDOMAIN NXDOMAIN 1\n3 - 10.0.3.9 NODATA 1",
        |settings| {
            settings.rotate = true;
        },
    );
    only(&evidence, "dns_split_horizon", Critical);
    assert_eq!(judge(&evidence).pull, Pull::Unknown);
    // Without it, the first server decides.
    only(&looked_up(text, |_| ()), "dns_split_horizon", Warning);

    let agree = "2 - 10.0.3.9 NODATA 1\n3 - 10.0.3.9 NODATA 1";
    quiet(&looked_up(agree, |settings| settings.rotate = true));
    let dead = looked_up("2 - 10.0.3.9 NODATA 1\n3 - DROP DROP 5000", |settings| {
        settings.rotate = true;
    });
    says(
        &only(&dead, "dns_timeout", Warning),
        &["that begin with it take 5.0 s"],
    );
}

#[test]
fn resolvers_with_different_results_leave_it_open() {
    // libc takes it literally, Go makes it 1.
    let with = |cgo: Option<bool>| {
        looked_up("2 - 10.0.3.9 NODATA 1", |settings| {
            settings.attempts = 0;
            settings.add_unusual("no-tld-query", false);
            settings.runtime.cgo = cgo;
        })
    };
    let open = with(None);
    let finding = only(&open, "dns_undecided", Critical);
    says(
        &finding,
        &[
            "Go's own resolver finds 10.0.3.9",
            "libc's resolver fails",
            "'no-tld-query' in resolv.conf",
            "CGO_ENABLED",
        ],
    );
    assert_eq!(judge(&open).pull, Pull::Unknown);
    let (own, libc) = (judge(&with(Some(false))), judge(&with(Some(true))));
    assert_eq!((own.pull, libc.pull), (Pull::WouldSucceed, Pull::WouldFail));
    // Both find it.
    quiet(&looked_up("2 - 10.0.3.9 NODATA 1", |settings| {
        settings.add_unusual("no-tld-query", false);
    }));
}

#[test]
fn a_server_that_was_not_waited_for_may_know_the_name() {
    let text = |took| format!("2 - DROP DROP {took}\n3 - NXDOMAIN NXDOMAIN 1");
    let open = looked_up(&text(1000), |_| ());
    says(
        &only(&open, "dns_undecided", Critical),
        &["longer --timeout"],
    );
    only(&looked_up(&text(5000), |_| ()), "dns_nxdomain", Critical);
    // Nobody answers: waiting longer is not likely to help.
    only(
        &looked_up("2 - DROP DROP 1000", |_| ()),
        "dns_timeout",
        Critical,
    );
}

#[test]
fn what_is_too_late_is_not_called_silent_where_servers_answer() {
    // The time of the check ended before the name as written was asked.
    let dead = |domain| format!("2 {domain} DROP DROP 5000\n");
    let text = dead("a") + &dead("b") + "2 c NXDOMAIN NXDOMAIN 1\n" + &dead("d");
    let late = looked_up(&text, |settings| {
        settings.search = ["a.", "b.", "c.", "d.", "e."].map(str::to_owned).to_vec();
        settings.ndots = 5;
    });
    says(
        &only(&late, "dns_slow", Critical),
        &["takes 30 s", "search domain"],
    );
    let silent = "2 - DROP DROP 5000\n3 - DROP DROP 5000\n4 - DROP DROP 5000";
    only(&looked_up(silent, |_| ()), "dns_timeout", Critical);
}

#[test]
fn a_source_that_is_not_asked_may_know_the_name() {
    let source = |name: &str| NameSource {
        name: name.to_owned(),
        actions: Vec::new(),
    };
    let with = |names: &[&str], answer: &str| {
        looked_up(&format!("2 - {answer} 1"), |settings| {
            settings.sources.list = names.iter().map(|name| source(name)).collect();
        })
    };
    let open = with(&["files", "wins", "dns"], "NXDOMAIN NXDOMAIN");
    says(&only(&open, "dns_undecided", Critical), &["'wins'"]);
    quiet(&with(&["files", "wins", "dns"], "10.0.3.9 NODATA"));
    for sources in [
        &["files", "dns"][..],
        &["files", "mdns4_minimal", "dns"],
        &["files", "dns", "myhostname"],
    ] {
        let finding = only(
            &with(sources, "NXDOMAIN NXDOMAIN"),
            "dns_nxdomain",
            Critical,
        );
        assert_eq!(finding.confidence, Confidence::High);
    }
    // libc asks no name server after this source.
    let mut local = looked_up("2 - 10.0.3.9 NODATA 1", |settings| {
        settings.sources.list = ["files", "mdns4_minimal", "dns"].map(source).into();
        settings.sources.list[1].actions = vec!["notfound=return".to_owned()];
    });
    let leg = local.leg_mut(Role::Registry);
    leg.endpoint.host = Host::Name("registry.local".to_owned());
    for query in &mut leg.resolve.queries {
        query.name = "registry.local.".to_owned();
    }
    if let Step::Done { value, .. } = &mut leg.resolve.outcome {
        value.name = "registry.local.".to_owned();
    }
    let finding = only(&local, "dns_undecided", Critical);
    says(
        &finding,
        &["finds 10.0.3.9", "can't, and then no name server"],
    );
    // systemd-resolved asks the same servers, as a rule.
    let resolved = with(&["files", "resolve", "dns"], "NXDOMAIN NXDOMAIN");
    assert_eq!(
        only(&resolved, "dns_nxdomain", Critical).confidence,
        Confidence::Medium
    );
}

#[test]
fn a_server_that_is_not_asked_and_knows_the_name_is_named() {
    let mut evidence = looked_up("2 - NXDOMAIN NXDOMAIN 1", |settings| {
        settings.notes = vec!["/etc/resolv.conf:4: server 10.0.0.9 is not queried".to_owned()];
    });
    says(
        &only(&evidence, "dns_nxdomain", Critical),
        &["/etc/resolv.conf:4"],
    );
    let resolve = &mut evidence.leg_mut(Role::Registry).resolve;
    resolve.beyond = record("9 - 10.0.3.9 NODATA 1");
    says(
        &only(&evidence, "dns_nxdomain", Critical),
        &[
            "10.0.0.9 has it at 10.0.3.9",
            "List 10.0.0.9 among the first three",
        ],
    );
}
