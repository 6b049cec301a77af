//! Pull secrets and docker configs as the kubelet reads them, without I/O: bytes in, credentials for an image out.

pub mod docker_config;
pub mod entry;
pub mod jwt;
pub mod key;
pub mod keyring;
pub mod lint;
pub mod secret;
