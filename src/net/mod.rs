//! Network and kernel I/O: each function takes one input and returns an observation or a typed fault.

pub mod api;
mod chain;
pub mod dns;
mod hello;
pub mod hops;
pub mod host_root;
pub mod http;
pub mod kernel;
pub mod local;
pub mod machine;
pub mod netlink;
pub mod nsswitch;
pub mod order;
pub mod recorded_stream;
pub mod resolv;
pub mod reverse_path;
pub mod roots;
pub mod stream;
pub mod tcp;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod tunnel;
