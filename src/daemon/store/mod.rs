//! Targets with their results: written by the runner, read by metrics, page and API.

pub mod compressed_report;
pub mod history;
pub mod overview;
pub mod summary;
pub mod target;
pub mod targets;
