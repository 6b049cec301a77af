//! What is served: metrics, the status page, the API, and on loopback the commands.

pub mod metrics;
mod page;
pub mod serve;
