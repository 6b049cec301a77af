//! The OCI distribution protocol without I/O: bytes and headers in, values out.

pub mod challenge;
mod descriptor;
mod document;
pub mod error;
pub mod layers;
pub mod manifest;
mod platforms;
pub mod token;
