//! What the daemon and the cluster role share: metrics in Prometheus' format, HTTP listeners with their bounds, HTTP
//! responses, and the reload of the configuration.

pub mod answer;
pub mod bounds;
pub mod cause;
pub mod cluster;
pub mod http;
pub mod listener;
pub mod metrics;
pub mod reload;
