//! With what names are resolved and hosts are called, for all that a vantage asks.

use std::net::IpAddr;
use std::time::Duration;

use crate::model::endpoint::Host;
use crate::model::step::Step;
use crate::net::dns::{self, Families};
use crate::net::resolv::ResolverConfig;
use crate::net::tls::TlsClient;

/// With what one asks.
#[derive(Debug)]
pub struct NetworkClients {
    pub resolver: ResolverConfig,
    pub families: Families,
    pub tls: TlsClient,
    /// The longest that any single wait may last.
    pub wait: Duration,
}

impl NetworkClients {
    /// The addresses of a host, or why there are none.
    pub(super) async fn resolve(&self, host: &Host) -> Result<Vec<IpAddr>, String> {
        let resolve = dns::resolve(host, &self.resolver, &[], self.families, self.wait).await;
        match resolve.outcome {
            Step::Done { value, .. } => Ok(value.addresses),
            Step::Failed { fault, .. } => Err(fault.to_string()),
            Step::Skipped { .. } => Err("not resolved".to_owned()),
        }
    }
}
