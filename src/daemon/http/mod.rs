//! The HTTP servers: metrics, the status page and the API; and commands at the admin address.

pub mod metrics;
mod page;
mod probes;
pub mod serve;
pub mod status;
