//! Keeps secrets out of everything that is shown, stored or sent: secrets that can't print themselves,
//! scrubbing of texts that may contain a known secret, and of texts whose secrets are unknown.

mod runtime;
mod secret;

pub use runtime::{MOST_SHOWN, shown};
pub use secret::{Scrubber, Secret};
