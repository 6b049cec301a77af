//! `pullpath run`: the same walk and verdict as `probe`, again and again, within budgets.

pub mod ledger;
pub mod schedule;
