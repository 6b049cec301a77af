//! Transfer tests, and retries of rejected credentials, that nodes share by Leases (docs/spread.md).

pub mod coordinator;
pub mod group;
pub mod lease;
pub mod slots;
