//! `pullpath run`: the same check as `probe`, again and again, within budgets.
//!
//! | room | what it does |
//! |---|---|
//! | [`http`] | metrics, status page, API, commands |
//! | [`runner`] | the loop: what is due is checked, booked and recorded |
//! | [`check`], [`on_demand`] | one check; images that somebody asks for |
//! | [`cluster`], [`pod_events`] | what the cluster's API reports of this node; Events on pods |
//! | [`coordination`] | what nodes share by Leases |
//! | [`store`] | what is known of the targets |
//! | [`schedule`] | when what is due, and what it may spend |
//!
//! Each uses those below it only (tests/floors.rs).

pub mod check;
pub mod cluster;
pub mod coordination;
pub mod http;
pub mod on_demand;
pub mod pod_events;
pub mod runner;
pub mod schedule;
pub mod store;
