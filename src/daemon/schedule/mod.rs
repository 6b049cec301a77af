//! When checks are due, what they may spend, and which registries and credentials must wait.

pub mod account;
pub mod admission;
pub mod backoff;
pub mod budget;
pub mod clock;
pub mod cooldown;
pub mod large_hello;
pub mod ledger;
pub mod requests;
pub mod state;
pub mod timetable;
