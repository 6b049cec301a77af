//! Real pulls, as reported in kubelets' Events: how long they took, how long they waited, why they failed.
//! Pure: parses an Event's fields or a pasted text, classifies failures, and keeps tallies.

pub mod advice;
pub mod answer;
pub mod event;
pub mod failure;
pub mod judge;
mod message;
pub mod paste;
mod patterns;
pub mod tally;
#[cfg(test)]
mod tests;
mod words;
mod wrapped;
