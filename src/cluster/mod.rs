//! `pullpath cluster`: what needs the whole cluster and not a node: the Events of real pulls. One replica
//! of several is active, by a Lease.
//!
//! What else is to be watched while a replica is active begins and ends with the Lease (`follow` of
//! [`runner::Runner`]), keeps what it knows in [`state::ClusterState`], and has its families, its route and its part
//! of the page.

pub mod metrics;
pub mod page;
pub mod runner;
pub mod serve;
pub mod state;
