//! `simulate [NODES] [TARGETS] [DAYS]`: what a fleet asks of a registry, with its time counted and not
//! waited for. Prints figures, and fails where one is not as promised.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "../simulation/mod.rs"]
mod simulation;

use std::io::Write as _;

use simulation::{Size, check, run, table};

fn main() {
    let mut args = std::env::args()
        .skip(1)
        .map(|arg| arg.parse::<usize>().unwrap());
    let size = Size {
        nodes: args.next().unwrap_or(5000),
        targets: args.next().unwrap_or(20),
        days: args.next().unwrap_or(7) as u64,
    };
    let figures = run(size);
    let _ = write!(std::io::stdout(), "{}", table(size, &figures));
    check(&figures);
}
