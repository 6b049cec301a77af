//! What the daemon and the cluster role share: metrics in Prometheus' format, HTTP responses, and the reload
//! of the configuration.

pub mod cause;
pub mod cluster;
pub mod http;
pub mod metrics;
pub mod reload;
