//! `pullpath cluster`: watches what needs the whole cluster and not a node, the Events of real pulls, and
//! lints workloads. A Lease keeps one of several replicas active.
//!
//! To add another watch: start it in `follow` of [`runner::Runner`], so that it starts and stops with the Lease; keep
//! its result in [`state::ClusterState`]; add its metric families, its route and its part of the page.

pub mod metrics;
pub mod page;
pub mod runner;
pub mod serve;
pub mod state;
