//! The OCI distribution protocol without I/O: bytes and headers in, values out.

pub mod challenge;
pub mod docker_config;
pub mod error;
pub mod keyring;
pub mod lint;
pub mod manifest;
pub mod secret;
pub mod token;
