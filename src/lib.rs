//! Pullpath tells how a container image gets to a node, and why it doesn't.
//!
//! Data flows one way, and the folders are floors; a floor uses only those below it:
//!
//! | floor | folder | what it does |
//! |---|---|---|
//! | 5 | [`cli`] | arguments → check; exit code |
//! | 4 | [`report`] | evidence + verdict, and all faces of it |
//! | 3 | [`probe`] | walks one pull, leg by leg; returns evidence, never an error |
//! | 3 | [`credentials`] | reads secrets and docker configs into a keyring |
//! | 2 | [`diagnose`] | pure: evidence → verdict; the catalogue of causes |
//! | 2 | [`net`] | edges to the world: one input, one observation or typed fault |
//! | 2 | [`registry`] | the OCI distribution protocol without I/O |
//! | 1 | [`model`] | the nouns |

pub mod credentials;
pub mod model;
pub mod registry;
