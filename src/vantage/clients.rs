//! The resolver and TLS client for the requests that observe a vantage point.

use std::net::IpAddr;
use std::time::Duration;

use crate::model::endpoint::Host;
use crate::model::step::Step;
use crate::net::dns::{self, Families};
use crate::net::resolv::ResolverConfig;
use crate::net::tls::TlsClient;

/// What these requests have in common.
#[derive(Debug)]
pub struct NetworkClients {
    /// Name servers and hosts file.
    pub resolver: ResolverConfig,
    /// The address families in use.
    pub families: Families,
    /// With the trusted roots.
    pub tls: TlsClient,
    /// Timeout of each single step.
    pub wait: Duration,
}

impl NetworkClients {
    /// The addresses of a host.
    ///
    /// # Errors
    /// If it does not resolve.
    pub async fn resolve(&self, host: &Host) -> Result<Vec<IpAddr>, String> {
        let resolve = dns::resolve(host, &self.resolver, &[], self.families, self.wait).await;
        match resolve.outcome {
            Step::Done { value, .. } => Ok(value.addresses),
            Step::Failed { fault, .. } => Err(fault.to_string()),
            Step::Skipped { .. } => Err("not resolved".to_owned()),
        }
    }
}
