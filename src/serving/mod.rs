//! What programs that stay share: metrics in Prometheus' format, answers by HTTP, a configuration that is
//! read again.

pub mod cause;
pub mod cluster;
pub mod http;
pub mod metrics;
pub mod reload;
