//! `simulate [NODES] [TARGETS] [HOURS]`: what a fleet asks of a registry, with its time counted and not
//! waited for; first each node by itself, then with transfer tests shared by Leases. Prints figures, and
//! fails where one is not as promised.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../simulation/mod.rs"]
mod simulation;

use std::io::Write as _;

use simulation::{SECOND_DAY, Size, check, check_shared, run, table};

fn main() {
    let mut args = std::env::args()
        .skip(1)
        .map(|arg| arg.parse::<usize>().unwrap());
    let alone = Size {
        nodes: args.next().unwrap_or(5000),
        targets: args.next().unwrap_or(20),
        hours: args.next().unwrap_or(7 * 24) as u64,
        rollout: SECOND_DAY,
        shared: false,
    };
    let shared = Size {
        shared: true,
        ..alone
    };
    for size in [alone, shared] {
        let figures = run(size);
        let _ = writeln!(std::io::stdout(), "{}", table(size, &figures));
        check(size, &figures);
        if size.shared {
            check_shared(size, &figures);
        }
    }
}
