//! Errors that are found after a configuration is parsed: where, and the fix.

use serde_saphyr::Spanned;

use crate::model::slip::Slip;

/// The first error of a configuration file. It repeats nothing of the file, which may have a password by mistake.
pub(super) type ConfigError = Slip;

/// An error that no single line has; the message names the keys.
pub(super) fn whole(what: String) -> ConfigError {
    Slip {
        at: None,
        path: String::new(),
        what,
    }
}

/// An error at the position of `value`, the entry of `list` with this number.
pub(super) fn at<T>(value: &Spanned<T>, list: &str, index: usize, what: String) -> ConfigError {
    Slip {
        at: Some((value.referenced.line(), value.referenced.column())),
        path: format!("{list}[{index}]"),
        what,
    }
}
