//! Reads files that a user names; `-` is standard input.

use std::io;
use std::path::Path;

use crate::files;
use crate::model::text::printable;

/// The whole content, of `limit` bytes at most (otherwise `FileTooLarge`).
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    if is_stdin(path) {
        files::standard_input(limit)
    } else {
        files::argument(path, limit)
    }
}

/// The name of the file in messages and reports.
pub(super) fn shown(path: &Path) -> String {
    if is_stdin(path) {
        "standard input".to_owned()
    } else {
        printable(&path.to_string_lossy())
    }
}

pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}
