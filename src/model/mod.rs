//! The nouns: what was asked for, what was seen, in words of OCI, Kubernetes and the RFCs.
//!
//! Nothing here does I/O, and nothing here holds a secret: everything in this module may be
//! printed, stored and sent to a colleague.

pub mod connect;
pub mod credential;
pub mod documents;
pub mod endpoint;
pub mod evidence;
pub mod fault;
pub mod go_url;
pub mod histogram;
pub mod hops;
pub mod hosts;
pub mod kubelet;
pub mod network;
pub mod path;
pub mod platform;
pub mod proxy;
pub mod reference;
pub mod resolve;
pub mod runtime;
pub mod step;
pub mod text;
pub mod transfer;
pub mod units;
pub mod vantage;
pub mod workload;
