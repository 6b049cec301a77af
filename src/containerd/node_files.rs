//! Reads a file of the node as a whole, up to a maximum size.

use std::io;
use std::path::Path;

use crate::files;

/// Settings and certificates have a few KiB.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    files::read(path, MAX_FILE)
}

const MAX_FILE: u64 = 4 << 20;

/// The line of a byte offset, counted from 1.
pub(super) fn line_at(bytes: &[u8], at: usize) -> usize {
    let before = bytes.get(..at).unwrap_or(bytes);
    before.split(|byte| *byte == b'\n').count()
}
