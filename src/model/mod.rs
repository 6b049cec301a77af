//! Basic types: what was requested and what was observed, in terms of OCI, Kubernetes and the RFCs.
//!
//! Nothing here does I/O, and nothing here contains a secret: everything in this module may be printed, stored
//! and sent to others.

pub mod connect;
pub mod credential;
pub mod documents;
pub mod endpoint;
pub mod evidence;
pub mod fault;
pub mod foreign;
pub mod go_url;
pub mod histogram;
pub mod hops;
pub mod hosts;
pub mod kubelet;
pub mod nat64;
pub mod network;
pub mod own_limit;
pub mod path;
pub mod platform;
pub mod proxy;
pub mod reference;
pub mod resolve;
pub mod resolver;
pub mod runtime;
pub mod settings_source;
pub mod slip;
pub mod special;
pub mod step;
pub mod text;
pub mod transfer;
pub mod units;
pub mod vantage;
pub mod workload;
