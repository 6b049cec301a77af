//! `simulate [NODES] [TARGETS] [HOURS]`: what a fleet asks of a registry, with its time counted and not
//! waited for; first each node by itself, then with transfer tests shared by Leases. Prints figures, and
//! fails where one is not as promised. Of less than three days, only the start and a rollout after 10 minutes count.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../simulation/mod.rs"]
mod simulation;

use std::io::Write as _;
use std::time::Duration;

use simulation::{SECOND_DAY, Size, check, check_shared, check_start, run, table};

fn main() {
    let args: Vec<usize> = std::env::args()
        .skip(1)
        .map(|arg| arg.parse().unwrap())
        .collect();
    let or = |place: usize, usual| args.get(place).copied().unwrap_or(usual);
    let hours = or(2, 7 * 24) as u64;
    let is_whole = hours >= 72;
    let alone = Size {
        nodes: or(0, 5000),
        targets: or(1, 20),
        hours,
        rollout: if is_whole {
            SECOND_DAY
        } else {
            Duration::from_mins(10)
        },
        shared: false,
    };
    let shared = Size {
        shared: true,
        ..alone
    };
    for size in [alone, shared] {
        let figures = run(size);
        let _ = writeln!(std::io::stdout(), "{}", table(size, &figures));
        if !is_whole {
            check_start(size, &figures);
            continue;
        }
        check(size, &figures);
        if size.shared {
            check_shared(size, &figures);
        }
    }
}
