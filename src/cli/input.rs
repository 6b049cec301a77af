//! Files that a user names, `-` for standard input.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::model::text::printable;

/// The whole of it, which may be `limit` bytes long (else `FileTooLarge`).
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if is_stdin(path) {
        io::stdin().lock().take(limit + 1).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// What it is called in messages and reports.
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
