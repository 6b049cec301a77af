//! With what names are resolved and hosts are called, for all that a vantage asks.

use std::time::Duration;

use crate::net::dns::Families;
use crate::net::resolv::ResolverConfig;
use crate::net::tls::TlsClient;

/// With what one asks.
pub struct Means {
    pub resolver: ResolverConfig,
    pub families: Families,
    pub tls: TlsClient,
    /// The longest that any single wait may last.
    pub wait: Duration,
}

impl std::fmt::Debug for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").finish_non_exhaustive()
    }
}
