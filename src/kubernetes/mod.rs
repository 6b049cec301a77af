//! Reads the Kubernetes API: pods, workloads, nodes, Secrets and Events, each with the state of its watch. Also
//! writes Events and Leases, and forwards ports to daemons. A failure never stops a check: the last known objects
//! stay in use, with the time since when they are stale.

pub mod access;
pub mod client;
pub mod events;
pub mod forward;
mod kubeconfig;
pub mod lease;
pub mod lookup;
pub mod node;
pub mod objects;
pub mod pods;
pub mod publish;
pub mod request;
pub mod secrets;
mod sources;
pub mod watch;
pub mod workloads;
