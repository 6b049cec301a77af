//! Coordination of nodes through Leases: transfer tests and retries of rejected credentials (docs/spread.md).

pub mod coordinator;
pub mod group;
pub mod lease;
pub mod slots;
