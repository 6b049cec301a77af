//! A small fleet over three days, and the start of a large one; `tests/bench/fleet` has thousands of nodes and a week.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "simulation/mod.rs"]
mod simulation;

use std::io::Write as _;
use std::time::Duration;

use simulation::{SECOND_DAY, Size, check, check_shared, check_start, run, table};

#[test]
fn a_fleet_does_not_herd_spends_no_more_than_it_may_and_locks_no_account() {
    let size = Size {
        nodes: 60,
        targets: 20,
        hours: 72,
        rollout: SECOND_DAY,
        shared: false,
    };
    check(size, &run(size));
}

#[test]
fn nodes_that_share_a_way_test_one_at_a_time_and_one_of_them_tries_a_rejected_password() {
    let size = Size {
        nodes: 120,
        targets: 4,
        hours: 72,
        rollout: SECOND_DAY,
        shared: true,
    };
    let figures = run(size);
    check(size, &figures);
    check_shared(size, &figures);
}

/// All at once, and then in a rollout.
#[test]
fn five_thousand_nodes_that_start_are_spread_over_fifteen_seconds() {
    for shared in [false, true] {
        let size = Size {
            nodes: 5000,
            targets: 4,
            hours: 1,
            rollout: Duration::from_mins(10),
            shared,
        };
        let figures = run(size);
        let _ = writeln!(std::io::stdout(), "{}", table(size, &figures));
        check_start(size, &figures);
    }
}
