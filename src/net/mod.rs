//! Edges to the world: each function takes one input and returns an observation or a typed fault.

pub mod dns;
pub mod http;
mod kernel;
pub mod order;
pub mod resolv;
pub mod roots;
pub mod tcp;
pub mod tls;
