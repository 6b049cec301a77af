//! The OCI distribution protocol without I/O: bytes and headers in, values out.

pub mod challenge;
pub mod error;
pub mod manifest;
pub mod token;
