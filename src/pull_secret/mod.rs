//! Parses pull secrets and docker configs as the kubelet does, and selects the credentials for an image. Pure.

pub mod docker_config;
pub mod entry;
pub mod jwt;
pub mod key;
pub mod keyring;
pub mod lint;
mod placeholder;
pub mod secret;
