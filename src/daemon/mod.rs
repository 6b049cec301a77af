//! `pullpath run`: the same walk and verdict as `probe`, again and again, within budgets.

pub mod check;
pub mod cluster;
pub mod face;
pub mod fleet;
pub mod large_hello;
pub mod ledger;
pub mod metrics;
pub mod notices;
pub mod on_demand;
pub mod packed;
pub mod page;
pub mod policy;
pub mod record;
pub mod runner;
pub mod schedule;
pub mod serve;
pub mod spread;
pub mod state;
pub mod target;
pub mod turns;
pub mod way;
