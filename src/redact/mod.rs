//! What keeps secrets out of everything that is shown, stored or sent: secrets that can't print themselves, the
//! washing of texts in which a known secret may stand, and that of texts whose secrets are not known.

mod runtime;
mod secret;

pub use runtime::{MOST_SHOWN, shown};
pub use secret::{Scrubber, Secret};
