//! `pullpath run`: repeats the check of `probe` on a schedule, within budgets.
//!
//! | module | content |
//! |---|---|
//! | [`http`] | metrics, status page, API, commands |
//! | [`runner`] | the loop: makes checks that are due, books what they spend, records their results |
//! | [`check`], [`on_demand`] | one check; images that are checked on request |
//! | [`cluster`], [`pod_events`] | watches of the API server; Events on pods |
//! | [`coordination`] | what nodes share through Leases |
//! | [`store`] | results of the targets |
//! | [`schedule`] | when checks are due, and what they may spend |
//!
//! Each module uses only those below it (tests/structure.rs).

pub mod check;
pub mod cluster;
pub mod coordination;
pub mod http;
pub mod on_demand;
pub mod pod_events;
pub mod runner;
pub mod schedule;
pub mod store;
