//! A small fleet over three days; `tests/bench/fleet` has thousands of nodes and a week.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "simulation/mod.rs"]
mod simulation;

use simulation::{Size, check, check_shared, run};

#[test]
fn a_fleet_does_not_herd_spends_no_more_than_it_may_and_locks_no_account() {
    check(&run(Size {
        nodes: 60,
        targets: 20,
        days: 3,
        shared: false,
    }));
}

#[test]
fn nodes_that_share_a_way_test_one_at_a_time_and_one_of_them_tries_a_rejected_password() {
    let size = Size {
        nodes: 120,
        targets: 4,
        days: 3,
        shared: true,
    };
    let figures = run(size);
    check(&figures);
    check_shared(size, &figures);
}
