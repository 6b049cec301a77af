//! When which check is due, what it may spend, and what is to be left alone.

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
