//! Real pulls, as reported in kubelets' Events: how long they took, how long they waited, why they failed.
//! Pure: parses an Event's fields, classifies failures, and keeps tallies.

pub mod advice;
pub mod event;
pub mod failure;
pub mod judge;
mod patterns;
pub mod tally;
#[cfg(test)]
mod tests;
