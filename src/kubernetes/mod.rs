//! The cluster's API: what pods of a node pull, what the API server allows to be known, and how long
//! ago it was known. Nothing here stops a check: what was known last goes on.

pub mod client;
pub mod events;
pub mod forward;
pub mod lease;
pub mod lookup;
pub mod node;
pub mod objects;
pub mod pods;
pub mod publish;
pub mod request;
pub mod secrets;
pub mod watch;
pub mod workloads;
