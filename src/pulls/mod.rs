//! Real pulls, as the kubelets' Events tell of them: how long they took, how long they waited, why they
//! failed. Pure: an Event's fields in, what it says out, and tallies of that.

pub mod advice;
pub mod event;
pub mod failure;
pub mod judge;
mod patterns;
pub mod tally;
#[cfg(test)]
mod tests;
