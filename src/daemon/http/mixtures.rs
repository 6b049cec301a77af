//! What each face says of all mixtures of targets: of each state none, one or two; and none or one, beside images that
//! are left out, and before the API server has listed the pods.

use askama::Template as _;

use super::*;
use crate::config::{Config, History};
use crate::daemon::store::history::Outcome;
use crate::daemon::store::target::Target;
use crate::daemon::store::targets::Discovery;
use crate::diagnose::Pull;
use crate::kubernetes::watch::WatchState;
use crate::model::vantage::NetworkView;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// The states, the words for so many of them, and of one in the list.
const STATES: [(TargetState, &str, &str); 6] = [
    (
        TargetState::WouldFail,
        "N of ALL pulls would fail",
        "a pull would fail",
    ),
    (TargetState::Unknown, "N unknown", "unknown whether"),
    (
        TargetState::WouldSucceed,
        "N would succeed",
        "a pull would succeed",
    ),
    (
        TargetState::Outdated,
        "N with an outdated result",
        "that result is outdated",
    ),
    (
        TargetState::NotChecked,
        "N not checked yet",
        "not checked yet<",
    ),
    (
        TargetState::Deferred,
        "N not checked yet because deferred",
        "not checked yet because deferred<",
    ),
];

/// What pods add: nothing, nothing yet, or one image beyond the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pods {
    Off,
    Awaited,
    LeftOut,
}

fn run(state: TargetState) -> Option<Run> {
    let (pull, age) = match state {
        TargetState::WouldFail => (Pull::WouldFail, 3 * 3600),
        TargetState::Unknown => (Pull::Unknown, 3 * 3600),
        TargetState::WouldSucceed => (Pull::WouldSucceed, 9 * 60),
        TargetState::Outdated => (Pull::WouldSucceed, 9 * 60 + 1),
        TargetState::NotChecked | TargetState::Deferred => return None,
    };
    Some(Run {
        id: 1,
        tier: Tier::Reach,
        at: NOW - jiff::SignedDuration::from_secs(age),
        took: Duration::from_millis(40),
        lag: Duration::ZERO,
        outcome: Outcome::Verdict(pull),
        starved: false,
        cause: None,
        causes: std::collections::BTreeSet::new(),
        bytes_per_second: None,
        report: None,
    })
}

fn store(counts: [usize; 6], pods: Pods) -> TargetStore {
    let mut text = "targets:\n".to_owned();
    for ((state, ..), count) in STATES.iter().zip(counts) {
        for number in 0..count {
            let name = format!("{}-{number}", state.as_str());
            let _ = writeln!(text, "  - {{name: {name}, image: 'r.test/{name}:1'}}");
        }
    }
    if counts.iter().sum::<usize>() == 0 {
        "{}".clone_into(&mut text);
    }
    let targets = Target::all(&Config::parse(&text).unwrap(), &[]);
    let mut store = TargetStore::new("n1", NetworkView::Node, NOW);
    store.replace(targets.clone(), &History::default());
    for target in targets {
        let is_of =
            |state: &TargetState| target.name.trim_end_matches(['-', '0', '1']) == state.as_str();
        let state = TargetState::ALL.into_iter().find(is_of).unwrap();
        if let Some(run) = run(state) {
            store.take(&target, run, None).unwrap();
        }
        if state == TargetState::Deferred {
            let history = &mut store.targets.get_mut(&target.name).unwrap().history;
            history.deferred = Some(Deferred {
                reason: "registry_requests",
                until: None,
            });
        }
    }
    store.cluster = match pods {
        Pods::Off => None,
        Pods::Awaited => Some(Discovery::default()),
        Pods::LeftOut => {
            let mut cluster = Discovery {
                state: WatchState::Following,
                ..Discovery::default()
            };
            cluster.found.over.push("r.test/over".to_owned());
            Some(cluster)
        }
    };
    store
}

/// The words for a mixture, not by the code under test.
fn words(counts: [usize; 6], pods: Pods) -> String {
    let all: usize = counts.iter().sum();
    if all > 0 && counts[2] == all && pods == Pods::Off {
        return "All pulls would succeed".to_owned();
    }
    let parts = STATES.iter().zip(counts).filter(|(_, count)| *count > 0);
    let parts = parts.map(|((_, words, _), count)| words.replacen('N', &count.to_string(), 1));
    let mut parts: Vec<String> = parts
        .map(|words| words.replace("ALL", &all.to_string()))
        .collect();
    if counts[0] == 0 && counts[1] > 0 {
        parts[0] = format!("{} of {all} pulls are unknown", counts[1]);
    }
    parts.extend((all == 0).then(|| "No targets".to_owned()));
    parts.extend((pods == Pods::LeftOut).then(|| "1 left out".to_owned()));
    let awaited = "the images of pods not known yet";
    parts.extend((pods == Pods::Awaited).then(|| awaited.to_owned()));
    parts.join(", ")
}

#[test]
fn nothing_unchecked_counts_as_well_in_any_mixture_on_any_face() {
    for mixture in 0..3_usize.pow(6) {
        let counts =
            std::array::from_fn(|place| mixture / 3_usize.pow(u32::try_from(place).unwrap()) % 3);
        faces(counts, Pods::Off);
        if counts.iter().all(|count| *count < 2) {
            faces(counts, Pods::Awaited);
            faces(counts, Pods::LeftOut);
        }
    }
}

fn faces(counts: [usize; 6], pods: Pods) {
    let store = store(counts, pods);
    let all: usize = counts.iter().sum();
    let expected = words(counts, pods);
    let at = format!("{counts:?} {pods:?}");

    let ready = readiness(&store, NOW);
    assert_eq!(
        ready.lines().next().unwrap(),
        format!("ready: {expected}"),
        "{at}"
    );

    let page = page::index(&store, NOW).render().unwrap();
    let is_good = all > 0 && counts[2] == all && pods == Pods::Off;
    let tone = match counts {
        [failing, ..] if failing > 0 => "bad",
        [_, unknown, _, outdated, ..] if unknown + outdated > 0 => "open",
        _ if is_good => "good",
        _ => "none",
    };
    let headline = format!("<h1 class=\"{tone}\">{expected}</h1>");
    assert!(page.contains(&headline), "{at}: {headline}\n{page}");
    for ((state, _, words), count) in STATES.iter().zip(counts) {
        let words = format!("<small>{words}");
        let outdated = "<small>a pull would have succeeded; that result is outdated";
        let words = if *state == TargetState::Outdated {
            outdated
        } else {
            &words
        };
        assert_eq!(page.matches(words).count(), count, "{at}: {words}");
    }

    let mut metrics = String::new();
    metrics::write(&store, &Listeners::of_process(), NOW, &mut metrics);
    let lines = |family: &str, end: &str| {
        let lines = metrics.lines();
        lines
            .filter(|line| line.starts_with(family) && line.ends_with(end))
            .count()
    };
    for ((state, ..), count) in STATES.iter().zip(counts) {
        let end = format!("state=\"{}\"}} 1", state.as_str());
        assert_eq!(lines("pullpath_target_state{", &end), count, "{at}: {end}");
    }
    assert_eq!(lines("pullpath_target_state{", ""), all, "{at}");
    assert_eq!(lines("pullpath_pull_ready{", "} 1"), counts[2], "{at}");
    assert_eq!(lines("pullpath_pull_ready{", "} 0"), counts[0], "{at}");
    assert_eq!(
        lines("pullpath_pull_ready{", ""),
        counts[0] + counts[2],
        "{at}"
    );

    for (name, watched) in &store.targets {
        let state = summary(watched, None, NOW).state;
        assert!(name.starts_with(state), "{name}: {state}");
        if all == 1 {
            let page = page::target(&store, watched, NOW).render().unwrap();
            let is_good = page.contains("<h1 class=\"good\">");
            assert_eq!(is_good, state == "would_succeed", "{name}");
        }
    }
}

#[test]
fn the_overview_counts_warnings_and_is_only_sure_of_all() {
    let succeeding = Overview {
        states: [(TargetState::WouldSucceed, 3)].into(),
        warned: 1,
        ..Overview::default()
    };
    assert_eq!(
        succeeding.sentence(),
        "All pulls would succeed (1 with a warning)"
    );
    assert_eq!(succeeding.is_ready(), Some(true));
    let fresh = Overview {
        states: [(TargetState::WouldSucceed, 1), (TargetState::NotChecked, 2)].into(),
        ..Overview::default()
    };
    assert_eq!(fresh.sentence(), "1 would succeed, 2 not checked yet");
    assert_eq!(fresh.is_ready(), None);
    assert_eq!(Overview::default().is_ready(), None);
    assert_eq!(Overview::default().sentence(), "No targets");
}
